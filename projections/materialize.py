"""Reading views: now, or as they were at a position.

Now is always the head of the log at the moment of reading. Stored rows are brought up to it first,
if the file can be written; whatever is new since, also because it cannot, is folded on top in
memory. So a file on a read-only disk, or one that somebody keeps locked, answers as well, only more
slowly.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from carstore.errors import Busy, DiskFull, ReadOnly
from carstore.log import Recorded
from carstore.store import Store
from projections import tables
from projections.catch_up import catch_up
from projections.memory import changes, fold_into
from projections.scan import page, pages
from projections.view import Key, R, View

__all__ = ["row", "rows", "select"]

TAIL_EVENTS = 500
"""So many new events are folded on top of stored rows while reading, in about a millisecond. Where
a single row is asked for they are not even stored, since that would take a commit each time."""


async def rows(store: Store, view: View[Any, R], *, at: int | None = None) -> dict[Key, R]:
    """All rows by key and in its order: of now, or as of position `at`, that event included.

    Raises:
        UnknownEvent: at an event of a newer carstore.
        ViewDamaged: the stored rows are not what this program stored.
    """
    if at is not None:
        return await _as_of(store, view, at)
    return await _now(store, view, {})


async def row(store: Store, view: View[Any, R], key: Key) -> R | None:
    """The row of `key` now; None if there is none. Raises as `rows` does."""
    equals = dict(zip(view.key, key, strict=True))
    _check(view, equals)
    found = await store.database.read(partial(_current, view=view, equals=equals))
    if found is None:
        found = await _now(store, view, equals)
    return found.get(key)


async def select(store: Store, view: View[Any, R], **equals: str | int | None) -> list[R]:
    """The rows that have these values in these columns now, in order of the key.

        await select(store, RUNS, status="waiting")

    Raises:
        ValueError: for a column that the view does not have, or a value of another type.
        UnknownEvent, ViewDamaged: as `rows` does.
    """
    _check(view, equals)
    return list((await _now(store, view, equals)).values())


async def _now(store: Store, view: View[Any, R], equals: Mapping[str, object]) -> dict[Key, R]:
    if store.writable and view.inline is None:
        with suppress(Busy, DiskFull, ReadOnly):
            await catch_up(store, view)
    found = await store.database.read(partial(_current, view=view, equals=equals))
    if found is not None:
        return found
    everything = await _as_of(store, view, (await store.log.head()).position)
    return {key: row for key, row in everything.items() if _matches(row, equals)}


def _current(
    connection: sqlite3.Connection, view: View[Any, R], equals: Mapping[str, object]
) -> dict[Key, R] | None:
    """The stored rows with the tail of the log folded on top; None if that is too long."""
    with tables.damage_of(view), tables.snapshot(connection):
        place = tables.place(connection, view)
        if place.behind > TAIL_EVENTS:
            return None
        tail = _tail(connection, view, place.position or 0, place.head)
        stored: dict[Key, R] = {}
        load = tables.loader(connection, view)
        if place.position is None:
            load = _nothing
        else:
            stored = tables.select(connection, view, equals)
        changed = changes(view, tail, load)
    return _overlaid(stored, changed, equals)


def _nothing(_: Key) -> None:
    return None


def _tail(
    connection: sqlite3.Connection, view: View[Any, Any], after: int, until: int
) -> Iterator[Recorded]:
    while after < until:
        events, after = page(connection, view, after, until)
        yield from events


def _overlaid(
    stored: dict[Key, R], changed: Mapping[Key, R | None], equals: Mapping[str, object]
) -> dict[Key, R]:
    if not changed:
        return stored
    for key, row in changed.items():
        stored.pop(key, None)
        if row is not None and _matches(row, equals):
            stored[key] = row
    return dict(sorted(stored.items(), key=lambda item: item[0]))


async def _as_of(store: Store, view: View[Any, R], at: int) -> dict[Key, R]:
    until = min(at, (await store.log.head()).position)
    position, folded = await store.database.read(partial(_stored_until, view=view, until=until))
    async for events, _ in pages(store, view, position, until):
        fold_into(folded, view, events)
    return dict(sorted(folded.items(), key=lambda item: item[0]))


def _stored_until(
    connection: sqlite3.Connection, view: View[Any, R], until: int
) -> tuple[int, dict[Key, R]]:
    """The stored rows and their position, or an empty view if they are past `until`."""
    with tables.damage_of(view), tables.snapshot(connection):
        position = tables.place(connection, view).position
        if position is None or position > until:
            return 0, {}
        return position, tables.select(connection, view, {})


def _matches(row: object, equals: Mapping[str, object]) -> bool:
    return all(getattr(row, column) == value for column, value in equals.items())


def _check(view: View[Any, Any], equals: Mapping[str, object]) -> None:
    columns = {column.name: column for column in view.columns}
    for name, value in equals.items():
        if name not in columns:
            raise ValueError(
                f"view {view.name!r} has no column {name!r}; it has {', '.join(columns)}"
            )
        if value is not None and type(value) is not columns[name].type:
            raise ValueError(
                f"column {name!r} of view {view.name!r} holds {columns[name].type.__name__}, "
                f"not {value!r:.80}"
            )
