"""Whether a file has the tables, views, indexes and triggers that its schema number promises."""

import sqlite3
from collections.abc import Iterator
from functools import cache

from carstore.sqlite.migrations import SCHEMA, change
from carstore.sqlite.scan import VERIFY

BLOBS_SINCE = 2
"""The schema that added the table `blobs`."""


def objects_amiss(connection: sqlite3.Connection) -> Iterator[str]:
    """What is missing or altered of ours, and what acts on it without being ours: a sentence each.
    Other tables and views are nobody's business: those of views, of migrations, of the user.

    Raises:
        sqlite3.Error, UnicodeDecodeError: the schema cannot be read.
    """
    (number,) = connection.execute(VERIFY["schema_number"]).fetchone()
    expected, ours = _objects_of(number if 1 <= number <= SCHEMA else SCHEMA)
    missing = dict(expected)
    for kind, name, table, sql in connection.execute(VERIFY["objects"]).fetchall():
        wanted = missing.pop((kind, name), None)
        if wanted is not None and sql != wanted:
            yield f"the {kind} {name} is not that of schema.sql"
        elif wanted is None and kind in ("trigger", "index") and _folded(table) in ours:
            yield f"the {kind} {name!r:.100} on {table} is not in schema.sql"
    for kind, name in missing:
        yield f"the {kind} {name} of schema.sql is missing"


def has_blobs(connection: sqlite3.Connection) -> bool:
    """Whether the file is of a schema that has values beside the log.

    Raises:
        sqlite3.Error
    """
    (number,) = connection.execute(VERIFY["schema_number"]).fetchone()
    return not 1 <= number < BLOBS_SINCE


def _folded(name: object) -> str:
    return name.lower() if isinstance(name, str) else ""


@cache
def _objects_of(schema: int) -> tuple[dict[tuple[str, str], str], set[str]]:
    """The SQL of each object by its type and name, as SQLite keeps it; the tables and views."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for number in range(1, schema + 1):
            for statement in change(number):
                connection.execute(statement)
        rows = connection.execute(VERIFY["objects"]).fetchall()
    finally:
        connection.close()
    found = {(kind, name): sql for kind, name, _, sql in rows}
    return found, {name for kind, name in found if kind in ("table", "view")}
