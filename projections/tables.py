"""The stored rows of views: one table for each version, made and written through sqlite-utils.

All functions here run on a connection's thread.

A version is built in a table with a name of its own, which becomes the real one in the transaction
that reaches the head of the log. So the name says whether a version is complete, and the plain name
of the view, which shows the newest complete version, never shows half of one. A process that knows
only an older version goes on with the table of that, and leaves the plain name alone.

sqlite-utils is imported where it writes: importing it takes longer than opening a file. It is
given our connection, since a second SQLite library or a second connection to the file would drop
the locks of ours.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from projections import kept
from projections.errors import ViewDamaged
from projections.kept import Place
from projections.memory import check_rows
from projections.statements import SQL
from projections.view import Key, R, View

if TYPE_CHECKING:
    from sqlite_utils import Database


def place(connection: sqlite3.Connection, view: View[Any, Any]) -> Place:
    """Where the stored rows stand.

    Raises:
        ViewDamaged: they hold events that the log does not have.
    """
    wanted = {
        "name": view.name,
        "version": view.version,
        "table": view.table,
        "building": view.building,
    }
    position, complete, building, head = connection.execute(SQL["place"], wanted).fetchone()
    if view.inline is not None:
        return Place(head, head, view.table)
    if not complete and not building:
        position = None
    table = view.table if complete else view.building
    return kept.checked(view.name, Place(position, head, table, bool(complete)))


def select(
    connection: sqlite3.Connection,
    view: View[Any, R],
    table: str,
    equals: Mapping[str, object] | None = None,
) -> dict[Key, R]:
    """The stored rows with these values in these columns, in order of the key."""
    return {view.key_of(row): row for row in stored(connection, view, table, equals or {})}


def stored(
    connection: sqlite3.Connection, view: View[Any, R], table: str, equals: Mapping[str, object]
) -> Iterator[R]:
    """The same, one after the other."""
    where = " AND ".join([f'r."{column}" IS ?' for column in equals]) or "true"
    key = ", ".join([f'r."{column}"' for column in view.key])
    sql = _of_columns(view, "select_rows", table, where=f"{where} ORDER BY {key}")
    made = _maker(view)
    with closing(connection.execute(sql, tuple(equals.values()))) as cursor:
        for values in cursor:
            yield made(values)


def loader(
    connection: sqlite3.Connection, view: View[Any, R], table: str
) -> Callable[[Key], R | None]:
    """A function that reads one stored row."""
    sql = _of_columns(view, "select_rows", table, where=_is_key(view))
    made = _maker(view)

    def load(key: Key) -> R | None:
        found = connection.execute(sql, key).fetchone()
        return None if found is None else made(found)

    return load


def create(connection: sqlite3.Connection, view: View[Any, Any], table: str) -> None:
    """Make an empty table for the rows of `view`."""
    _tables(connection).table(table).create(
        {column.name: int if column.type is bool else column.type for column in view.columns},
        pk=view.key,
        not_null={column.name for column in view.columns if not column.nullable},
        strict=True,
    )


def insert(
    connection: sqlite3.Connection, view: View[Any, R], table: str, rows: Iterable[R]
) -> None:
    """Insert rows, each in the place of the one with its key.

    Raises:
        ViewFailed: a row holds what its columns cannot.
    """
    held = list(rows)
    check_rows(view, held)
    names = tuple([column.name for column in view.columns])
    _tables(connection).table(table).insert_all(
        [names, *[view.values_of(row) for row in held]], replace=True
    )


def write(
    connection: sqlite3.Connection,
    view: View[Any, R],
    table: str,
    changed: Mapping[Key, R | None],
) -> None:
    """Bring the stored rows to what `changed` says, None for those that go."""
    kept = [row for row in changed.values() if row is not None]
    if kept:
        insert(connection, view, table, kept)
    gone = [key for key, row in changed.items() if row is None]
    if gone:
        sql = SQL["delete_row"].format(table=table, where=_is_key(view))
        connection.executemany(sql, gone)


def is_pointed(connection: sqlite3.Connection, view: View[Any, Any]) -> bool:
    """Whether the plain name is as it has to be: it shows this version, or a newer one that is
    complete too, or is something else's name."""
    found = connection.execute(SQL["object"], {"name": view.name}).fetchone()
    if found is None:
        return False
    shown = shown_version(view.name, *found)
    if shown is None or shown == view.version:
        return shown is None or found[1].endswith(_of_columns(view, "pointer", view.table))
    return shown > view.version and f"view_{view.name}_v{shown}" in kept.table_names(connection)


def point(connection: sqlite3.Connection, view: View[Any, Any]) -> None:
    """Let the plain name show this version, which is complete and at the head of the log, unless it
    has reason to stay as it is."""
    if is_pointed(connection, view):
        return
    if connection.execute(SQL["object"], {"name": view.name}).fetchone() is not None:
        _tables(connection).view(view.name).drop()
    _tables(connection).create_view(view.name, _of_columns(view, "pointer", view.table))


def shown_version(name: str, kind: str, sql: str | None) -> int | None:
    """The version of a view that an object of its name shows; None if it is something else."""
    shown = re.search(rf'FROM "view_{re.escape(name)}_v(\d+)" AS r\s*\Z', sql or "")
    return int(shown[1]) if shown is not None and kind == "view" else None


def swap(connection: sqlite3.Connection, view: View[Any, Any], table: str) -> None:
    """Put `table` in the place of the stored one."""
    drop(connection, view.table)
    kept.rename(connection, table, view.table)


def drop(connection: sqlite3.Connection, table: str) -> None:
    """Remove a table, if it is there."""
    _tables(connection).table(table).drop(ignore=True)


def _tables(connection: sqlite3.Connection) -> "Database":
    from sqlite_utils import Database

    return Database(connection, recursive_triggers=False, execute_plugins=False)


def _of_columns(view: View[Any, Any], statement: str, table: str, **names: str) -> str:
    columns = ", ".join([f'r."{column.name}"' for column in view.columns])
    return SQL[statement].format(columns=columns, source=source(view, table), **names)


def source(view: View[Any, Any], table: str) -> str:
    """What a statement reads the rows of a view from."""
    return f'"{table}"' if view.inline is None else f"({SQL[view.inline]})"


def _is_key(view: View[Any, Any]) -> str:
    return " AND ".join([f'r."{column}" = ?' for column in view.key])


def _maker(view: View[Any, R]) -> Callable[[tuple[Any, ...]], R]:
    """From the values of a stored row to the row; SQLite knows no truth, only 1 and 0."""
    names = [column.name for column in view.columns]
    flags = [column.name for column in view.columns if column.type is bool]

    def made(values: tuple[Any, ...]) -> R:
        fields = dict(zip(names, values, strict=True))
        for name in flags:
            fields[name] = None if fields[name] is None else bool(fields[name])
        try:
            return view.row(**fields)
        except (Exception, SystemExit) as error:  # a row's class may check what it is given
            raise ViewDamaged(view.name, f"a stored row cannot be one: {error!r:.200}") from error

    return made
