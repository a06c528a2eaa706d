"""What is kept beside the log and can be made anew from it: the tables of views, and the index of
the search. What both need is here.

All functions run on a connection's thread. Something that is kept and its position change in one
transaction, so whoever reads both in one transaction knows which events are in it.
"""

import re
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

from carstore.errors import SchemaTooNew
from carstore.names import Position
from carstore.sqlite.migrations import SCHEMA
from carstore.sqlite.statements import SQL as LOG_SQL
from projections.errors import RebuildOvertaken, ViewDamaged
from projections.statements import SQL

TAIL_EVENTS = 500
"""So many new events are not worth a commit: whoever reads takes them in for himself, in about a
millisecond for a view, and ten for the search. Where a single row of a view is asked for, they are
not even stored, since that would take a commit each time."""

_DAMAGE = ("SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH")


class Place(NamedTuple):
    """How far something is stored (None: not at all), and the head of the log."""

    position: Position | None
    head: Position
    table: str = ""
    """Where the rows are: the view's own table, or the one it is built in."""
    complete: bool = True
    """Whether the rows were at the head of the log once."""

    @property
    def behind(self) -> int:
        """How many events are not in it."""
        return self.head - (self.position or 0)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """One state of the file for all that is read inside."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def transaction(connection: sqlite3.Connection, path: str) -> Generator[None, None, None]:
    """A write transaction: commits, or on any error leaves nothing.

    Raises:
        SchemaTooNew: another process has migrated the file since it was opened.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute(LOG_SQL["schema"]).fetchone()
        if found != SCHEMA:
            raise SchemaTooNew(path, found, SCHEMA)
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def damage(name: str, *more: str) -> Generator[None, None, None]:
    """Say what it is when SQLite refuses a statement on it: the store itself is well.

    Args:
        name: of the view or the index.
        more: names of errors that can mean nothing else here.

    Raises:
        ViewDamaged
    """
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "SQLITE_ERROR").startswith((*_DAMAGE, *more)):
            raise ViewDamaged(name, str(error)) from error
        raise


def checked(name: str, place: Place) -> Place:
    """A place that the log has.

    Raises:
        ViewDamaged: what is stored holds events that the log does not have.
    """
    position, head = place.position, place.head
    if position is not None and position > head:
        raise ViewDamaged(name, f"it is at position {position}, and the log ends at {head}")
    return place


def set_position(connection: sqlite3.Connection, name: str, version: int, position: int) -> None:
    """Say up to which event something is stored."""
    wanted = {"name": name, "version": version, "position": position}
    connection.execute(SQL["set_position"], wanted)


def table_names(connection: sqlite3.Connection) -> list[str]:
    """The tables of the file."""
    return [name for (name,) in connection.execute(SQL["table_names"])]


def rename(connection: sqlite3.Connection, table: str, other: str) -> None:
    """Give a table another name, which is free."""
    # Without this, a rename looks through all SQL views and fails at those that are out of order,
    # or that show a table which has just been dropped.
    connection.execute("PRAGMA legacy_alter_table = ON")
    try:
        connection.execute(SQL["rename"].format(table=table, other=other))
    finally:
        connection.execute("PRAGMA legacy_alter_table = OFF")


# --- rebuilding beside what is in use ---


def new_table(table: str) -> str:
    """A name for what a rebuild makes until it is put in the place of `table`."""
    return f"{table}_new_{uuid4().hex[:8]}"


def left_over(connection: sqlite3.Connection, table: str) -> list[str]:
    """Such tables of rebuilds that began before: they were interrupted, or are overtaken now."""
    left = re.compile(rf"{re.escape(table)}_new_[0-9a-f]{{8}}")
    return [name for name in table_names(connection) if left.fullmatch(name)]


def check_there(connection: sqlite3.Connection, name: str, table: str) -> None:
    """Refuse to go on with a rebuild whose table another one has removed.

    Raises:
        RebuildOvertaken
    """
    if table not in table_names(connection):
        raise RebuildOvertaken(name)
