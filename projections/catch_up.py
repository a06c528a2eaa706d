"""Bringing stored rows up to the head of the log, in short steps.

Each step is one write transaction that begins by reading how far the view is stored. So an event is
folded once, whoever else does the same at the same time, and a step that fails leaves nothing.
Between two steps others write.
"""

import sqlite3
from functools import partial
from typing import Any

from carstore.names import Position
from carstore.store import Store
from projections import kept, tables
from projections.kept import Place
from projections.memory import changes
from projections.scan import page
from projections.view import View

__all__ = ["catch_up"]

CHECKPOINT_STEPS = 8
"""Steps between two checkpoints of the WAL, which the log only counts its own appends for."""


async def catch_up(store: Store, view: View[Any, Any]) -> Position:
    """Fold what is new into the stored rows of `view`, and return the position they are at.

    Nothing new costs one read. The view is created when it is first caught up; its plain name, when
    that is missing or shows a version that is not there any more.

    Raises:
        UnknownEvent: at an event of a newer carstore; what comes before may be stored.
        ViewDamaged: its table is not what this program made.
        ViewFailed: a function of the view raises, or answers what no view can have.
        ReadOnly, Busy, DiskFull, StoreFailed, SchemaTooNew, Closed
    """
    place, is_done = await store.database.read(partial(_look, view=view))
    steps = 0
    while not is_done:
        place, is_done = await store.database.write(partial(_step, view=view, path=store.path))
        steps += 1
        if steps % CHECKPOINT_STEPS == 0:
            await store.database.checkpoint()
    assert place.position is not None
    return place.position


def _look(connection: sqlite3.Connection, view: View[Any, Any]) -> tuple[Place, bool]:
    """Where the stored rows stand, and whether there is nothing to do."""
    place = tables.place(connection, view)
    if view.inline is not None:
        return place, True
    is_current = place.position == place.head and place.complete
    return place, is_current and tables.is_pointed(connection, view)


def _step(connection: sqlite3.Connection, view: View[Any, Any], path: str) -> tuple[Place, bool]:
    """Fold some events, and answer as `_look` does."""
    with kept.damage(view.name), kept.transaction(connection, path):
        place = tables.place(connection, view)
        if place.position is None:
            for table in (view.table, view.building):
                tables.drop(connection, table)
            tables.create(connection, view, view.building)
            place = place._replace(table=view.building, complete=False)
        elif place.position == place.head and place.complete:  # somebody else was faster
            tables.point(connection, view)
            return place, True
        events, until = page(connection, view, place.position or 0, place.head)
        load = tables.loader(connection, view, place.table)
        tables.write(connection, view, place.table, changes(view, events, load))
        kept.set_position(connection, view.name, view.version, until)
        if until == place.head:
            if not place.complete:
                tables.swap(connection, view, place.table)
            tables.point(connection, view)
            return Place(until, place.head, view.table), True
        return place._replace(position=until), False
