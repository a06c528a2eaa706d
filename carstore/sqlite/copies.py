"""Copying a log from one SQLite file into another that nobody else sees yet.

A backup copies pages, at one moment of the origin, while others go on writing to it: the moment is
held by a read transaction, without which a copy in steps would begin anew with every commit of
somebody else. A fork copies events, one after the other, so that the triggers of the new file judge
each as if it were appended.

All of this runs on a thread of its own. `Tell` is called at each step, and ends the work by raising
if nobody waits for it any more.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Any, TypeAlias
from urllib.parse import quote as quote_uri

from carstore.errors import CopyFailed, NotFound, UnknownEvent
from carstore.log import Head
from carstore.names import Position
from carstore.sqlite.life import COPIES, begin_life, referred_blobs
from carstore.sqlite.migrations import SCHEMA, migrate
from carstore.sqlite.readonly import open_readonly
from carstore.sqlite.statements import SQL
from carstore.sqlite.verify import verify_file

Tell: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and how far it goes."""

STEP_PAGES = 2_000
"""Pages of 4 KiB copied at a time, some milliseconds."""

STEP_EVENTS = 5_000
"""Events copied at a time, and in one transaction: about 0.1 s."""

BUSY_SECONDS = 10.0
"""How long the origin may be locked by others."""


def copy_pages(origin: str, part: str, tell: Tell) -> Head:
    """Copy the file `origin`, as it is at this moment, to `part`. Returns its head.

    Raises:
        sqlite3.Error
    """
    with reading(origin) as source, closing(_open(part)) as copy:
        copy.execute("PRAGMA synchronous = OFF")  # it is synced as a whole before it gets its name
        source.execute("BEGIN")
        position, digest = source.execute(SQL["head"]).fetchone() or (0, "")

        def progress(_: int, left: int, pages: int) -> None:
            tell("pages copied", pages - left, pages)

        source.backup(copy, pages=STEP_PAGES, progress=progress)
        source.execute("ROLLBACK")
        _without_wal(copy)
    return Head(Position(position), digest)


def copy_events(origin: str, part: str, at: int, tell: Tell) -> Head:
    """Make a new file at `part` and copy the events up to `at` to it, with the values beside the
    log that they refer to. Returns the last event.

    Raises:
        NotFound: there is no such event.
        sqlite3.Error
    """
    with new_file(part) as copy:
        copy.execute("ATTACH ? AS origin", (_readable_uri(origin),))
        head = copy.execute(COPIES["origin_head"], (at,)).fetchone()
        if head is None:
            (last,) = copy.execute(COPIES["origin_last"]).fetchone()
            raise NotFound("position", str(at), f"{origin} ends at {last}.")
        copy.execute(COPIES["fork_streams"], (at,))
        for done in range(0, at, STEP_EVENTS):
            copy.execute(COPIES["fork_events"], (done, min(done + STEP_EVENTS, at)))
            tell("events copied", min(done + STEP_EVENTS, at), at)
        if copy.execute(COPIES["origin_has_blobs"]).fetchone():
            referred = referred_blobs(copy, at, "origin_bodies_with_blobs")
            copy.execute(COPIES["fork_blobs"], (json.dumps(sorted(referred)),))
        copy.execute("DETACH origin")
        return Head(*head)


def up_to_date(part: str) -> None:
    """Bring a copy of an older file to the schema of this program."""
    with closing(_open(part)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (found,) = connection.execute(SQL["schema"]).fetchone()
        if found < SCHEMA:
            migrate(connection)
        connection.execute("COMMIT")


def check(part: str, name: str, origin: str | None, head: Head, tell: Tell) -> None:
    """Verify all of a file that was made.

    Args:
        name: what it will be called.
        origin: the database it was made from; None: it was made from something else.
        head: an event that it must hold.

    Raises:
        CopyFailed: it is not what it should be.
        UnknownEvent: whether it is cannot be told by this program.
    """

    def progress(position: int, last: int) -> None:
        tell("events verified", position, last)

    found = verify_file(part, head=head, progress=progress)
    if found.ok:
        return
    first = found.problems[0]
    if first.code == UnknownEvent.code and first.position is not None:
        raise _unknown(part, first.position)
    at = "" if first.position is None else f" at position {first.position}"
    said = f"is damaged{at} ({first.code}: {first.message})"
    if origin is None:
        raise CopyFailed(name, f"what was read {said}")
    hint = f"Run `carstore verify` on {origin}."
    raise CopyFailed(name, f"what was copied from {origin} {said}", hint)


def _unknown(part: str, position: int) -> UnknownEvent:
    with reading(part) as connection:
        kind, version = connection.execute(COPIES["kind_at"], (position,)).fetchone()
    return UnknownEvent(kind, version, Position(position))


@contextmanager
def new_file(part: str) -> Generator[sqlite3.Connection, None, None]:
    """A file with the schema and without events, in the hands of nobody else."""
    with closing(_open(part)) as connection:
        # Should the process end, nobody will ever see the file.
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("BEGIN IMMEDIATE")
        migrate(connection)
        connection.execute("COMMIT")
        yield connection
        _without_wal(connection)


@contextmanager
def opened(part: str) -> Generator[sqlite3.Connection, None, None]:
    """A file that was made, to append to it what makes it a log of its own."""
    with closing(_open(part)) as connection:
        yield connection


@contextmanager
def reading(origin: str) -> Generator[sqlite3.Connection, None, None]:
    """The file that is copied from; nothing is written to it."""
    with closing(open_readonly(origin)) as connection:
        yield connection


def _readable_uri(path: str) -> str:
    """What to open to read a file. One without a WAL in a folder that cannot be written is read as
    it stands: there is no room for the shared memory of a WAL."""
    uri = _uri(path, "ro")
    try:
        with closing(_connect(uri)) as connection:
            connection.execute(SQL["schema"]).fetchone()
            connection.execute(SQL["head"]).fetchone()
    except sqlite3.OperationalError:
        if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
            raise
        return f"{uri}&immutable=1"
    return uri


def _open(part: str) -> sqlite3.Connection:
    return _connect(_uri(part, "rwc"))


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def _uri(path: str, mode: str) -> str:
    return f"file:{quote_uri(os.path.abspath(path))}?mode={mode}"


def _without_wal(connection: sqlite3.Connection) -> None:
    """A file that is complete by itself. Who opens it for writing gives it a WAL again."""
    row: Any = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    if row != ("delete",):
        raise sqlite3.OperationalError(f"SQLite keeps the journal mode {row!r:.80}")


__all__ = [
    "Tell",
    "begin_life",
    "check",
    "copy_events",
    "copy_pages",
    "new_file",
    "opened",
    "reading",
    "up_to_date",
]
