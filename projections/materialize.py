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

from carstore.errors import Busy, DiskFull, ReadOnly, SchemaTooNew
from carstore.log import Recorded
from carstore.store import Store
from projections import kept, tables
from projections.catch_up import catch_up
from projections.errors import InvalidSelection
from projections.memory import changes, check_rows, fold_into
from projections.scan import Progress, newest, page, pages
from projections.view import Key, R, View

__all__ = ["row", "rows", "select"]


async def rows(
    store: Store,
    view: View[Any, R],
    *,
    at: int | None = None,
    where: Mapping[str, str | int | None] | None = None,
    progress: Progress | None = None,
) -> dict[Key, R]:
    """The rows by key and in its order: of now, or as of position `at`, that event included.

    Args:
        where: only rows that have these values in these columns.
        progress: called now and then where the rows have to be folded from the log.

    Raises:
        UnknownEvent: at an event of a newer carstore.
        ViewDamaged: the stored rows are not what this program stored.
        ViewFailed: a function of the view raises, or answers what no view can have.
        InvalidSelection: for a column that the view does not have, or a value of another type.
    """
    equals = where or {}
    _check(view, equals)
    if at is None:
        return await _now(store, view, equals, progress)
    found = await _as_of(store, view, at, progress)
    return {key: row for key, row in found.items() if _matches(row, equals)} if equals else found


async def row(store: Store, view: View[Any, R], key: Key) -> R | None:
    """The row of `key` now; None if there is none. Raises as `rows` does."""
    if len(key) != len(view.key):
        raise InvalidSelection(view.name, f"its key is ({', '.join(view.key)}), not {key!r:.200}")
    equals = dict(zip(view.key, key, strict=True))
    _check(view, equals)
    found = await store.database.read(partial(_current, view=view, equals=equals))
    if found is None:
        found = await _now(store, view, equals)
    return found.get(key)


async def select(store: Store, view: View[Any, R], **equals: str | int | None) -> list[R]:
    """The rows that have these values in these columns now, in order of the key.

        await select(store, RUNS, status="waiting")

    Raises as `rows` does.
    """
    return list((await rows(store, view, where=equals)).values())


async def _now(
    store: Store,
    view: View[Any, R],
    equals: Mapping[str, object],
    progress: Progress | None = None,
) -> dict[Key, R]:
    if store.writable and view.inline is None:
        with suppress(Busy, DiskFull, ReadOnly, SchemaTooNew):
            await catch_up(store, view)
    found = await store.database.read(partial(_current, view=view, equals=equals))
    if found is not None:
        return found
    everything = await _as_of(store, view, (await store.log.head()).position, progress)
    return {key: row for key, row in everything.items() if _matches(row, equals)}


def _current(
    connection: sqlite3.Connection, view: View[Any, R], equals: Mapping[str, object]
) -> dict[Key, R] | None:
    """The stored rows with the tail of the log folded on top; None if that is too long."""
    with kept.damage(view.name), kept.snapshot(connection):
        place = tables.place(connection, view)
        if place.behind > kept.TAIL_EVENTS:
            return None
        tail = _tail(connection, view, place.position or 0, place.head)
        stored: dict[Key, R] = {}
        load = tables.loader(connection, view, place.table)
        if place.position is None:
            load = _nothing
        else:
            stored = tables.select(connection, view, place.table, equals)
        changed = changes(view, tail, load)
    check_rows(view, changed.values())
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


async def _as_of(
    store: Store, view: View[Any, R], at: int, progress: Progress | None
) -> dict[Key, R]:
    until = min(at, (await store.log.head()).position)
    position, folded = await store.database.read(partial(_stored_until, view=view, until=until))
    if position == 0 and view.newest is not None:
        fold_into(folded, view, await store.database.read(partial(newest, view=view, until=until)))
    else:
        async for events, _ in pages(store, view, position, until, progress):
            fold_into(folded, view, events)
    check_rows(view, folded.values())
    return dict(sorted(folded.items(), key=lambda item: item[0]))


def _stored_until(
    connection: sqlite3.Connection, view: View[Any, R], until: int
) -> tuple[int, dict[Key, R]]:
    """The stored rows and their position, or an empty view if they are past `until`."""
    with kept.damage(view.name), kept.snapshot(connection):
        place = tables.place(connection, view)
        if place.position is None or place.position > until:
            return 0, {}
        return place.position, tables.select(connection, view, place.table)


def _matches(row: object, equals: Mapping[str, object]) -> bool:
    return all(getattr(row, column) == value for column, value in equals.items())


def _check(view: View[Any, Any], equals: Mapping[str, object]) -> None:
    columns = {column.name: column for column in view.columns}
    for name, value in equals.items():
        if name not in columns:
            known = ", ".join(columns)
            raise InvalidSelection(view.name, f"there is no column {name!r:.80}; there is {known}")
        if value is not None and type(value) is not columns[name].type:
            held = columns[name].type.__name__
            raise InvalidSelection(view.name, f"column {name!r} holds {held}, not {value!r:.80}")
