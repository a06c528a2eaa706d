"""Making stored rows anew from the log, beside those in use."""

import re
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from attrs import frozen

from carstore.errors import ReadOnly
from carstore.names import Position
from carstore.store import Store
from projections import tables
from projections.catch_up import CHECKPOINT_STEPS
from projections.errors import ViewDamaged
from projections.memory import checksum, fold_into
from projections.scan import pages
from projections.view import Key, R, View

__all__ = ["Progress", "Rebuilt", "rebuild"]

STEP_ROWS = 2_000
"""Rows of one transaction: others wait no longer than for a step of a catch-up."""

Progress = Callable[[Position, Position], None]
"""Called now and then with the position that was reached and the one to reach."""


@frozen(kw_only=True)
class Rebuilt:
    """What came out of a rebuild; `checksum` is that of `rows` many rows at `position`."""

    view: str
    position: Position
    rows: int
    checksum: str


async def rebuild(
    store: Store, view: View[Any, Any], *, progress: Progress | None = None
) -> Rebuilt:
    """Fold `view` from the first event into a new table, and put it in the place of the old one.

    Meanwhile the old rows stay in use. What is appended during the rebuild is caught up later, as
    always. Of two rebuilds at once, the later one goes on and the earlier one fails.

    Raises:
        ValueError: for a view that the file's own triggers keep; `compare` looks at these.
        UnknownEvent: at an event of a newer carstore; the old rows stay.
        ViewDamaged: another rebuild of the view began meanwhile.
        ReadOnly, Busy, DiskFull, StoreFailed, Closed
    """
    if view.inline is not None:
        raise ValueError(f"view {view.name!r} is kept by the triggers of the file")
    if not store.writable:
        raise ReadOnly(store.path)
    head = (await store.log.head()).position
    rows: dict[Key, Any] = {}
    async for events, until in pages(store, view, 0, head):
        fold_into(rows, view, events)
        if progress:
            progress(until, head)
    await _store(store, view, list(rows.values()), head)
    return Rebuilt(view=view.name, position=head, rows=len(rows), checksum=checksum(view, rows))


async def _store(store: Store, view: View[Any, R], rows: Sequence[R], position: int) -> None:
    table = f"{view.table}_new_{uuid.uuid4().hex[:8]}"
    steps: list[_Step] = [partial(_begin, view=view, table=table)]
    ordered = iter(rows)
    while chunk := list(islice(ordered, STEP_ROWS)):
        steps.append(partial(_insert, view=view, table=table, rows=chunk))
    steps.append(partial(_finish, view=view, table=table, position=position))
    for number, step in enumerate(steps):
        await store.database.write(partial(_do, view=view, path=store.path, step=step))
        if number % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1:
            await store.database.checkpoint()


_Step = Callable[[sqlite3.Connection], None]


def _do(connection: sqlite3.Connection, view: View[Any, Any], path: str, step: _Step) -> None:
    with tables.damage_of(view), tables.transaction(connection, path):
        step(connection)


def _begin(connection: sqlite3.Connection, view: View[Any, Any], table: str) -> None:
    """Make the new table, and remove what rebuilds that were interrupted have left."""
    left = re.compile(rf"{view.table}_new_[0-9a-f]{{8}}")
    for name in tables.table_names(connection):
        if left.fullmatch(name):
            tables.drop(connection, name)
    tables.create(connection, view, table)


def _insert(
    connection: sqlite3.Connection, view: View[Any, R], table: str, rows: Sequence[R]
) -> None:
    _check_there(connection, view, table)
    tables.insert(connection, view, table, rows)


def _finish(
    connection: sqlite3.Connection, view: View[Any, Any], table: str, position: int
) -> None:
    _check_there(connection, view, table)
    tables.swap(connection, view, table)
    tables.set_position(connection, view, position)
    tables.point(connection, view)


def _check_there(connection: sqlite3.Connection, view: View[Any, Any], table: str) -> None:
    if table not in tables.table_names(connection):
        raise ViewDamaged(view.name, "another rebuild of it began before this one was done")
