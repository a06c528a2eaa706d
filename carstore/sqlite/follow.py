"""Following: who waits for new events is told as soon as there may be some.

Theory of operation. SQLite tells nobody of a commit, but each connection can ask whether another
one, of whatever process, has written since: `PRAGMA data_version`, some microseconds. One thread
for all followers of a store asks every `POLL_SECONDS`, as one job that ends only when something has
changed, so that the event loop sleeps meanwhile. Commits of this store do not wait for that: the
log tells its followers directly.

A follower keeps nothing but its place. It reads up to the newest event in pages, each a short
transaction of its own, then waits for the next change. So one that is slow, or stops within a page,
holds back neither the WAL nor anybody else, misses nothing, and needs memory for one page.

The order matters: a follower notes how many changes were noticed, then looks, and then waits until
there are more. What is committed after the look is a change that is noticed after the note.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

from carstore.errors import Busy, CarstoreError, Closed, NotFound
from carstore.log import Head, Recorded
from carstore.sqlite.database import Database
from carstore.sqlite.statements import SQL

POLL_SECONDS = 0.01
"""How often is asked whether anybody has written; on average, half of it is how late one is."""

JOB_SECONDS = 5.0
"""How long one job may ask: so its thread comes to rest if the store is dropped without closing."""

Pages = Callable[[int, int], AsyncGenerator[list[Recorded], None]]
"""From the events after the first position until the second one, those that are wanted."""


class Watch:
    """One thread that asks, from the first follower to the last."""

    def __init__(self, database: Database) -> None:
        self.followers = 0
        self.changes = 0
        """How many were noticed. The first is that it asks at all: what is committed from then on
        is noticed."""
        self._database = database
        self._failure: CarstoreError | None = None
        self._news = asyncio.Event()
        self._stop = threading.Lock()
        self._stop.acquire()
        self.task = asyncio.create_task(self._ask(), name="carstore follow")

    def notice(self) -> None:
        """Wake all followers."""
        self.changes += 1
        self._news.set()
        self._news.clear()

    async def past(self, changes: int) -> None:
        """Wait until more than so many changes were noticed.

        Raises:
            Closed, StoreFailed, CorruptLog: it cannot be known any more.
        """
        while True:
            if self._failure is not None:
                raise self._failure.again()
            if self.changes > changes:
                return
            await self._news.wait()

    def end(self, failure: CarstoreError) -> None:
        """Stop asking, at once. Whoever still follows is told `failure`."""
        if self._failure is None:
            self._failure = failure
            self._stop.release()
            self.notice()

    async def _ask(self) -> None:
        connection = None
        try:
            connection = await self._database.connect_reader()
            seen = await self._database.run(connection, _data_version)
            self.notice()
            while self._failure is None:
                wait = partial(_wait_for_change, seen=seen, stop=self._stop)
                try:
                    found = await self._database.run(connection, wait)
                except Busy:  # somebody has the file to himself for long; that will end
                    continue
                if found != seen:
                    seen = found
                    self.notice()
        except CarstoreError as failure:
            self.end(failure)
        finally:
            self.end(Closed(self._database.path))
            if connection is not None:
                await connection.close()


def _data_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute(SQL["data_version"]).fetchone()
    return int(version)


def _wait_for_change(connection: sqlite3.Connection, seen: int, stop: threading.Lock) -> int:
    """The data version once it is not `seen`; or `seen`, if `stop` was released or time is up."""
    give_up = time.monotonic() + JOB_SECONDS
    while time.monotonic() < give_up:
        if stop.acquire(timeout=POLL_SECONDS):
            stop.release()
            break
        found = _data_version(connection)
        if found != seen:
            return found
    return seen


class Watcher:
    """The followers of one store, and the watch that they share while there are any."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watch: Watch | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def notice(self) -> None:
        """Tell all followers that this store has committed something."""
        if self._watch is not None:
            self._watch.notice()

    async def join(self) -> Watch:
        """A watch that notices whatever is committed from now on. To be left with `leave`.

        Raises:
            Closed, StoreFailed, CorruptLog
        """
        if self._is_closed:
            raise Closed(self._database.path)
        watch = self._watch = self._watch or Watch(self._database)
        watch.followers += 1
        try:
            await watch.past(0)
        except BaseException:
            self.leave(watch)
            raise
        return watch

    def leave(self, watch: Watch) -> None:
        """Follow no more; the last one ends the watch."""
        watch.followers -= 1
        if watch.followers == 0:
            self._end(watch)

    def _end(self, watch: Watch) -> None:
        if watch is self._watch:
            self._watch = None
        watch.end(Closed(self._database.path))
        if not watch.task.done():
            self._ending.add(watch.task)
            watch.task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Tell all followers that the store is closed, and wait until no thread asks any more."""
        self._is_closed = True
        if self._watch is not None:
            self._end(self._watch)
        while self._ending:
            await asyncio.wait(self._ending)


async def follow(
    watcher: Watcher, head: Callable[[], Awaitable[Head]], pages: Pages, after: int
) -> AsyncGenerator[list[Recorded], None]:
    """The pages of what comes after position `after`, then of what is new, without end.

    Raises:
        NotFound: the log ends before `after`; nothing that is appended would ever be seen.
    """
    watch = await watcher.join()
    try:
        end = (await head()).position
        if after > end:
            raise NotFound("position", str(after), f"The log ends at {end}.")
        while True:
            noticed = watch.changes
            until = (await head()).position
            if until > after:
                async with aclosing(pages(after, until)) as found:
                    async for page in found:
                        yield page
                after = until
            await watch.past(noticed)
    finally:
        watcher.leave(watch)
