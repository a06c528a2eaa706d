"""Making stored rows anew from the log, beside those in use."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

from attrs import define, field, frozen

from carstore.errors import CorruptLog, ReadOnly
from carstore.names import Position
from carstore.store import Store
from projections import kept, tables
from projections.catch_up import CHECKPOINT_STEPS
from projections.errors import InvalidView, ViewDamaged
from projections.memory import changes, checksum, checksum_in_order, fold_into
from projections.scan import Progress, page, pages
from projections.statements import SQL
from projections.view import Key, View

__all__ = ["Progress", "Rebuilt", "rebuild"]

STEP_ROWS = 2_000
"""Rows of one transaction: others wait no longer than for a step of a catch-up."""

_Result = TypeVar("_Result")

Before = Literal["equal", "different", "damaged", "none"]
"""How the rows that were stored compare with what the log says of their position."""


@frozen(kw_only=True)
class Rebuilt:
    """What came out of a rebuild; `checksum` is that of `rows` many rows at `position`."""

    view: str
    version: int = 1
    position: Position
    rows: int
    checksum: str
    before: Before = "none"
    """What was stored before: equal to the log at its position, or different, or not readable, or
    nothing."""


async def rebuild(
    store: Store, view: View[Any, Any], *, progress: Progress | None = None
) -> Rebuilt:
    """Fold `view` from the first event into a new table, and put it in the place of the old one.

    Meanwhile the old rows stay in use, and are caught up by whoever asks for them. The new ones are
    put in their place when they are at the head of the log, so nobody sees an earlier state again.
    Of two rebuilds at once, the later one goes on and the earlier one fails.

    Raises:
        InvalidView: for a view that the file's own triggers keep; `compare` looks at these.
        UnknownEvent: at an event of a newer carstore; the old rows stay.
        ViewFailed: a function of the view raises, or answers what no view can have.
        RebuildOvertaken: another rebuild of the view began meanwhile.
        ReadOnly, Busy, DiskFull, StoreFailed, Closed
    """
    if view.inline is not None:
        raise InvalidView(view.name, "the triggers of the file keep it; there is nothing to make")
    if not store.writable:
        raise ReadOnly(store.path)
    work = _Work(store, view, (await store.log.head()).position, progress)
    before = await work.fold()
    position = await work.store_rows()
    return Rebuilt(
        view=view.name,
        version=view.version,
        position=position,
        rows=len(work.rows),
        checksum=checksum(view, work.rows),
        before=before,
    )


class _Stored(NamedTuple):
    """The position of the rows that are stored, and their checksum (None: they are damaged)."""

    position: int
    checksum: str | None


class _Reached(NamedTuple):
    """How far the new rows are, and whether they are in place."""

    position: Position
    done: bool


@define
class _Work:
    """One rebuild."""

    store: Store
    view: View[Any, Any]
    head: Position
    progress: Progress | None
    rows: dict[Key, Any] = field(factory=dict)

    async def fold(self) -> Before:
        """Fold all events; on the way, compare with what is stored."""
        try:
            stored = await self.store.database.read(partial(_stored, view=self.view))
        except (ViewDamaged, CorruptLog):  # should the log be damaged too, the fold will tell
            stored = _Stored(0, None)
        if stored is None:
            await self._fold(0, self.head)
            return "none"
        self.head = Position(max(self.head, stored.position))
        await self._fold(0, stored.position)
        same = stored.checksum == checksum(self.view, self.rows)
        await self._fold(stored.position, self.head)
        if stored.checksum is None:
            return "damaged"
        return "equal" if same else "different"

    async def _fold(self, after: int, until: int) -> None:
        def progress(done: Position, _: Position) -> None:
            if self.progress:
                self.progress(done, self.head)

        async for events, _ in pages(self.store, self.view, after, until, progress):
            fold_into(self.rows, self.view, events)

    async def store_rows(self) -> Position:
        """Write the rows, and what is appended meanwhile, and put them in the place of the old."""
        table = kept.new_table(self.view.table)
        steps: list[Callable[[sqlite3.Connection], None]] = [partial(self._begin, table=table)]
        held = iter(list(self.rows.values()))
        while chunk := list(islice(held, STEP_ROWS)):
            steps.append(partial(self._insert, table=table, rows=chunk))
        for number, step in enumerate(steps):
            await self._write(step)
            if number % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1:
                await self.store.database.checkpoint()
        reached = _Reached(self.head, done=False)
        while not reached.done:
            reached = await self._write(partial(self._follow, table=table, after=reached.position))
        return reached.position

    async def _write(self, step: Callable[[sqlite3.Connection], _Result]) -> _Result:
        def do(connection: sqlite3.Connection) -> _Result:
            with kept.damage(self.view.name), kept.transaction(connection, self.store.path):
                return step(connection)

        return await self.store.database.write(do)

    def _begin(self, connection: sqlite3.Connection, table: str) -> None:
        """Make the new table, and remove what rebuilds that were interrupted have left."""
        for name in kept.left_over(connection, self.view.table):
            tables.drop(connection, name)
        tables.create(connection, self.view, table)

    def _insert(self, connection: sqlite3.Connection, table: str, rows: Sequence[Any]) -> None:
        kept.check_there(connection, self.view.name, table)
        tables.insert(connection, self.view, table, rows)

    def _follow(self, connection: sqlite3.Connection, table: str, after: Position) -> _Reached:
        """Take in what was appended meanwhile; at the head, put the new rows in place."""
        kept.check_there(connection, self.view.name, table)
        (head,) = connection.execute(SQL["head"]).fetchone()
        events, until = page(connection, self.view, after, head)
        changed = changes(self.view, events, self.rows.get)
        tables.write(connection, self.view, table, changed)
        for key, row in changed.items():
            self.rows.pop(key, None)
            if row is not None:
                self.rows[key] = row
        if until < head:
            return _Reached(until, done=False)
        tables.drop(connection, self.view.building)
        tables.swap(connection, self.view, table)
        kept.set_position(connection, self.view.name, self.view.version, until)
        tables.point(connection, self.view)
        return _Reached(until, done=True)


def _stored(connection: sqlite3.Connection, view: View[Any, Any]) -> _Stored | None:
    with kept.damage(view.name), kept.snapshot(connection):
        place = tables.place(connection, view)
        if place.position is None:
            return None
        rows = tables.stored(connection, view, place.table, {})
        return _Stored(place.position, checksum_in_order(view, rows))
