"""The WAL: how long it is, and how it is emptied.

What is committed goes to the end of the WAL. A checkpoint copies it into the file; once all of it
is there and nobody reads from the WAL, the next commit begins it anew, so its file stays as large
as it once was. Whoever keeps a transaction open holds that back: then the WAL grows with each
commit, and no checkpoint can help. Nothing of carstore keeps one open for longer than a page.

SQLite before 3.51.3 has a rare bug: if a connection begins the WAL anew in the very instant in
which another one begins to checkpoint what was moved already, the new frames may count as moved. So
the checkpoints of one process take turns, also those of several stores on one file, and one that
would find nothing to move is left out: while there is something to move, nobody begins the WAL
anew.
"""

import asyncio
import os
import sqlite3
import threading
from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from carstore.errors import CarstoreError

if TYPE_CHECKING:
    from carstore.sqlite.database import Database

CHECKPOINT_PAGES = 4_000
"""WAL size (pages of 4 KiB) at which a checkpoint begins. Extending the WAL halves the commit
rate, and a reader searches all of it, so it is kept near this size."""

MAX_KEPT_BYTES = 64 * 1024 * 1024
"""What is left of the file of a WAL that somebody held back, once it begins anew: four times the
size at which it is emptied, so that it is not cut and extended all the time."""

TRUNCATE_WAIT_MS = 400
"""How long the WAL's last readers are waited for when it is to be cut, and all writers with them:
a page of events is read in a tenth of that."""

LOOK_SECONDS = 0.02
"""How often appends look at how long the WAL is: 30 microseconds each time."""

HELD_BACK_PAUSE = 20
"""After a second checkpoint in vain, the pause before the next one, in times of what it took: it
searches the whole WAL, which grows meanwhile. One in vain may have met a reader of a moment."""

_HEADER, _FRAME_HEADER = 32, 24
"""Bytes; see "The Write-Ahead Log" in SQLite's description of its file format."""


class Checkpoint(NamedTuple):
    """What a checkpoint found: `pages` in the WAL, of which `moved` are in the file by now; -1 if
    somebody else was at it."""

    pages: int
    moved: int

    @property
    def is_whole(self) -> bool:
        """Whether the next commit can begin the WAL anew."""
        return self.pages == self.moved >= 0


class Turns:
    """Under which this process checkpoints one file. `turns_of` makes it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._moved: tuple[bytes, int] | None = None
        """Round of the WAL, and its frames when all of them had been moved."""

    def checkpoint(self, connection: sqlite3.Connection, *, wait: bool) -> Checkpoint:
        """Copy the WAL into the file as far as no reader is in the way.

        Args:
            wait: for our turn, rather than leave it to whoever has it.
        """
        if not self._lock.acquire(blocking=wait):
            return Checkpoint(-1, -1)
        try:
            salt, frames = _look_at(self._path)
            if (salt, frames) == self._moved:
                return Checkpoint(frames, frames)
            _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            found = Checkpoint(pages, moved)
            self._moved = (salt, pages) if found.is_whole else None
            return found
        finally:
            self._lock.release()

    def truncate(self, connection: sqlite3.Connection) -> bool:
        """Copy the WAL into the file and cut it to nothing. Returns whether nobody was in the way
        for longer than `TRUNCATE_WAIT_MS`; meanwhile nobody can write."""
        with self._lock:
            self._moved = None
            (usual,) = connection.execute("PRAGMA busy_timeout").fetchone()
            connection.execute(f"PRAGMA busy_timeout = {min(usual, TRUNCATE_WAIT_MS)}")
            try:
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {usual}")
            return bool(busy == 0)


_turns: "WeakValueDictionary[tuple[int, int], Turns]" = WeakValueDictionary()
_turns_guard = threading.Lock()


def turns_of(path: str) -> Turns:
    """The turns of a file, whatever name it is opened by."""
    found = os.stat(path)
    with _turns_guard:
        return _turns.setdefault((found.st_dev, found.st_ino), Turns(os.path.realpath(path)))


def count_pages(path: str) -> int:
    """Pages in the WAL of the file at `path` since it last began anew."""
    _, frames = _look_at(path)
    return frames


def _look_at(path: str) -> tuple[bytes, int]:
    """The salt of the WAL's present round, and how many frames that has."""
    with suppress(FileNotFoundError), open(f"{path}-wal", "rb", buffering=0) as wal:
        return _frames(wal.fileno())
    return b"", 0


def _frames(wal: int) -> tuple[bytes, int]:
    """The file keeps its size; frames that are left of earlier rounds come last, and have another
    salt than the header."""
    header = os.pread(wal, _HEADER, 0)
    salt, page_size = header[16:24], int.from_bytes(header[8:12], "big")
    frame_size = _FRAME_HEADER + page_size
    frames = range((os.fstat(wal).st_size - _HEADER) // frame_size)

    def is_left_over(frame: int) -> bool:
        return os.pread(wal, 8, _HEADER + frame * frame_size + 8) != salt

    return salt, bisect_left(frames, x=True, key=is_left_over)


def exists(path: str) -> bool:
    """Whether there is a WAL beside the file at `path`."""
    return _size(path) is not None


def is_empty(path: str) -> bool:
    """Whether there is one that holds nothing."""
    return _size(path) == 0


def holds_something(path: str) -> bool:
    """Whether there is one that may hold something."""
    return bool(_size(path))


def _size(path: str) -> int | None:
    try:
        return os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return None


class WalCare:
    """Looks after the WAL beside the appends of one store."""

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._look_at = 0.0
        self._in_vain = 0
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Begin a checkpoint when the WAL has reached its size. To be called after each commit."""
        now = asyncio.get_running_loop().time()
        if self._task is None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if count_pages(self._database.path) > CHECKPOINT_PAGES:
                self._task = asyncio.create_task(self._empty(), name="carstore wal")

    async def _empty(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            found = await self._database.empty_wal()
            self._in_vain = 0 if found.is_whole else self._in_vain + 1
            if self._in_vain > 1:
                self._look_at = clock() + HELD_BACK_PAUSE * (clock() - began)
        except CarstoreError:
            # The appends meet the same trouble and report it; a checkpoint can be done later.
            pass
        finally:
            self._task = None

    async def close(self) -> None:
        """Wait for a checkpoint that is on its way."""
        if self._task is not None:
            await self._task
