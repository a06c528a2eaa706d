"""Looking at a file from outside: with SQLite alone, read-only, and the statements of
`queries.sql`. What is found so does not depend on what is being proven."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from carstore.sqlite.statements import parse_named

__all__ = ["SQL", "connected", "is_made", "looking"]

SQL = parse_named(Path(__file__).with_name("queries.sql").read_text(encoding="utf-8"))


def connected(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for any thread; closing it is the caller's."""
    uri = f"file:{quote(str(path))}?mode=ro"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


@contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    """The same for a while."""
    connection = connected(path)
    try:
        yield connection
    finally:
        connection.close()


def is_made(log: sqlite3.Connection) -> bool:
    """Whether there is a log to look at, now. If the process died while it made the file, somebody
    who may write must first roll that back; that is left to the next one."""
    try:
        return log.execute(SQL["is_made"]).fetchone() is not None
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith("SQLITE_READONLY"):
            return False
        raise
