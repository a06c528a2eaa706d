"""Reading the events of a file that may be damaged: each that can be read, and where none can.

A page of rows that cannot be read as one is read again row by row. If that finds nothing at all,
the scan ends: the damage need not have an end.
"""

import sqlite3
from importlib import resources
from typing import Any, TypeAlias

from attrs import frozen

from carstore.sqlite.readonly import READ_ERRORS
from carstore.sqlite.statements import parse_named

VERIFY = parse_named((resources.files("carstore.sqlite") / "verify.sql").read_text("utf-8"))
"""The statements of `verify.sql` by name."""

Row: TypeAlias = tuple[Any, ...]
"""The columns of `Recorded`, then the lease that the stream names; each may hold anything."""


@frozen
class Unreadable:
    """A row that SQLite cannot read."""

    position: int
    error: str


@frozen
class Page:
    """What was found from one position to another."""

    items: tuple[Row | Unreadable, ...]
    after: int
    """Where the next page begins."""
    more: bool
    """Whether there may be one."""
    given_up: str | None = None
    """Why there is none, if that is not the end of the log."""


def read_page(connection: sqlite3.Connection, after: int, rows: int, last: int) -> Page:
    """The next rows, at most `rows`, after the position `after` of a log that ends at `last`."""
    try:
        found = connection.execute(VERIFY["rows_after"], (after, rows)).fetchall()
    except READ_ERRORS:
        return _row_by_row(connection, after, rows, last)
    if not found:
        return Page((), after, more=False)
    if type(found[-1][0]) is not int or found[-1][0] <= after:
        reason = f"the events after position {after} are out of order"
        return Page(tuple(found), after, more=False, given_up=reason)
    return Page(tuple(found), found[-1][0], more=True)


def _row_by_row(connection: sqlite3.Connection, after: int, rows: int, last: int) -> Page:
    items: list[Row | Unreadable] = []
    found = False
    for position in range(after + 1, after + rows + 1):
        try:
            read = connection.execute(VERIFY["row_at"], (position,)).fetchall()
        except READ_ERRORS as error:
            items.append(Unreadable(position, str(error)))
            continue
        items += read
        found = found or bool(read)
    reached = after + rows
    given_up = None
    if not found and reached < last:
        given_up = f"nothing after position {reached} was checked"
    return Page(tuple(items), reached, more=found, given_up=given_up)
