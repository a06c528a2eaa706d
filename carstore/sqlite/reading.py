"""Pages of events: what the statements `page_...` are asked for, and how much is read at once."""

import json
import sqlite3
from collections.abc import Collection
from operator import itemgetter
from typing import Any

from carstore.log import Recorded
from carstore.names import (
    RunId,
    StreamName,
    check_kinds,
    inbox_stream,
    lease_stream,
    run_lease,
    run_stream,
)

PAGE_CHARS = 8 * 1024 * 1024
"""Text of events read at once, from which on a page ends: one event may hold twice that."""

_LOOK_ROWS = 50
"""Rows between two looks at how much text a page holds."""

_DATA = itemgetter(Recorded._fields.index("data"))


def wanted_of(
    kinds: Collection[str] | None, stream: StreamName | None = None, run: RunId | None = None
) -> dict[str, object]:
    """Parameters of the statements that read pages.

    Raises:
        TypeError: `kinds` is a text.
    """
    check_kinds(kinds)
    wanted: dict[str, object] = {"kinds": None if kinds is None else json.dumps(sorted(kinds))}
    if stream is not None:
        wanted["stream"], wanted["streams"] = stream, json.dumps([stream])
    elif run is not None:
        names = [run_stream(run), inbox_stream(run), lease_stream(run_lease(run))]
        wanted["streams"] = json.dumps(names)
    return wanted


def read_page(
    connection: sqlite3.Connection, sql: str, wanted: dict[str, Any]
) -> tuple[list[tuple[Any, ...]], bool]:
    """The rows of a page, and whether it is the last one.

    A page is a transaction of its own: its statement is done when this returns.
    """
    cursor = connection.execute(sql, wanted)
    page: list[tuple[Any, ...]] = []
    chars = 0
    while rows := cursor.fetchmany(_LOOK_ROWS):
        page += rows
        try:
            chars += sum(map(len, map(_DATA, rows)))
        except TypeError:
            pass  # a damaged file may hold no text there; whoever decodes it says so
        if chars > PAGE_CHARS:
            cursor.close()  # no snapshot is kept from one page to the next
            return page, False
    return page, len(page) < wanted["limit"]
