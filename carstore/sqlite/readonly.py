"""Opening a file, whole or damaged, so that nothing can be written to it."""

import os
import sqlite3
from contextlib import suppress
from urllib.parse import quote as quote_uri

from carstore.sqlite import wal

READ_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises. SQLite quotes names of the file in its messages, and Python
fails to read one that is no text."""


def open_readonly(path: str) -> sqlite3.Connection:
    """A connection that cannot write. A file without a WAL in a folder that cannot be written is
    read as it stands: there is no room for the shared memory of a WAL.

    Raises:
        READ_ERRORS
    """
    connection = _connect(path, "")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except READ_ERRORS:
        connection.close()
        if wal.holds_something(path):
            raise
    else:
        return connection
    connection = _connect(path, "&immutable=1")
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except READ_ERRORS:
        connection.close()
        raise
    return connection


def open_tolerant(path: str, *, with_wal: bool) -> sqlite3.Connection:
    """The same for a file that is known to be damaged: SQLite uses what it can read of its schema,
    which is all that stands before the damage, and takes a file that was cut off for its length.

    Args:
        with_wal: else the file is read as if it had no WAL, and as if nobody wrote to it; then
            nothing is made beside it either.

    Raises:
        READ_ERRORS: not even that can be done.
    """
    connection = _connect(path, "" if with_wal else "&immutable=1")
    try:
        connection.execute("PRAGMA writable_schema = 1")
        with suppress(*READ_ERRORS):  # the first statement meets the damage, later ones go on
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except READ_ERRORS:
        connection.close()
        raise
    return connection


def _connect(path: str, extra: str) -> sqlite3.Connection:
    uri = f"file:{quote_uri(os.path.abspath(path))}?mode=ro{extra}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only = 1")
    return connection
