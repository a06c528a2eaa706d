"""Reading from the log what matters to a view: its kinds, and any kind that nobody here knows.

Kinds that this program knows and the view does not read are left out by SQL. A kind it does not
know comes through, so that the fold meets it and refuses: nothing is ever dropped silently.
"""

import json
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

from carstore.errors import UnknownEvent
from carstore.events import KINDS
from carstore.log import Recorded
from carstore.names import Position
from carstore.store import Store
from projections.statements import SQL
from projections.view import View

PAGE_EVENTS = 2_000
"""Events of one page. Folding and storing them takes tens of milliseconds."""

PAGE_CHARS = 4 * 1024 * 1024
"""Data of one page. Events may be megabytes each; memory must not follow the largest ones."""

PAGE_POSITIONS = 50_000
"""Positions that one page looks through: a view may read one kind among millions of events."""


Progress = Callable[[Position, Position], None]
"""Called now and then with the position that was reached and the one to reach."""


class Page(NamedTuple):
    """Events of one page, and the position up to which there is none that it left out."""

    events: list[Recorded]
    until: Position


def page(connection: sqlite3.Connection, view: View[Any, Any], after: int, until: int) -> Page:
    """The first events that matter to `view` after `after` (exclusive), up to `until`."""
    bound = min(until, after + PAGE_POSITIONS)
    wanted = {
        "after": after,
        "until": bound,
        "limit": PAGE_EVENTS,
        "others": json.dumps(sorted(KINDS.keys() - view.reads)),
    }
    events: list[Recorded] = []
    chars = 0
    with closing(connection.execute(SQL["events"], wanted)) as cursor:
        for row in cursor:
            recorded = Recorded._make(row)
            events.append(recorded)
            chars += len(recorded.data)
            if chars > PAGE_CHARS:
                return Page(events, recorded.position)
    if len(events) == PAGE_EVENTS:
        return Page(events, events[-1].position)
    return Page(events, Position(bound))


async def pages(
    store: Store, view: View[Any, Any], after: int, until: int, progress: Progress | None = None
) -> AsyncGenerator[Page, None]:
    """All such pages, each read by itself, so that nothing waits long for the reader."""
    while after < until:
        found = await store.database.read(partial(page, view=view, after=after, until=until))
        yield found
        after = found.until
        if progress:
            progress(found.until, Position(until))


def newest(connection: sqlite3.Connection, view: View[Any, Any], until: int) -> list[Recorded]:
    """The events up to `until` whose fold is that of all, for a view of which that can be said.

    Raises:
        UnknownEvent: at an event of a newer carstore, as a fold of all would.
    """
    assert view.newest is not None
    wanted = {"until": until, "kinds": json.dumps(sorted(KINDS))}
    unknown = connection.execute(SQL["unknown_kind"], wanted).fetchone()
    if unknown is not None:
        raise UnknownEvent(*unknown)
    return [Recorded._make(row) for row in connection.execute(SQL[view.newest], wanted)]
