"""The log on SQLite: a queue of appends, a pump that commits them in batches, and readers.

Appends that are submitted while a batch is being committed form the next batch, so the more there
is to do, the cheaper each one gets (group commit). The pump hands a whole batch to the writer's
thread in one hop and wakes all its callers in one go.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from functools import partial

from carstore.canonical import loads_trusted
from carstore.chain import GENESIS
from carstore.clock import Clock
from carstore.errors import CarstoreError, Closed
from carstore.log import (
    NEVER_WRITTEN,
    NOTHING,
    PAGE_EVENTS,
    Appended,
    Entry,
    Expect,
    Head,
    Recorded,
    StateRead,
    Trail,
)
from carstore.names import Position, RunId, Scope, StateKey, StreamName
from carstore.redaction import Redaction
from carstore.sqlite.batch import BatchWriter
from carstore.sqlite.database import Database
from carstore.sqlite.follow import Watcher, follow
from carstore.sqlite.prepare import Submission, check_names, prepare
from carstore.sqlite.reading import read_page, wanted_of
from carstore.sqlite.statements import SQL
from carstore.sqlite.wal import WalCare

MAX_QUEUED_EVENTS = 20_000
"""Events that may wait for the writer, about 0.1 s of its work; then `submit` waits for room."""

MAX_BATCH_EVENTS = 2_000
"""Events of one transaction. Larger ones gain nothing and make everybody wait longer."""

NEAR_EVENTS = 10_000
"""The newest events, which are searched in order for those of a stream: an index by stream knows no
position, so all of a long stream would be searched for the few that are new."""

_FOREVER = 2**63 - 1


class SqliteLog:
    """`carstore.log.Log` on a SQLite file."""

    def __init__(self, database: Database, clock: Clock, redaction: Redaction) -> None:
        self._database = database
        self._redaction = redaction
        self._writer = BatchWriter(database.path, clock)
        self._queue: deque[Submission] = deque()
        self._queued_events = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._pump_task: asyncio.Task[None] | None = None
        self._wal = WalCare(database)
        self._watcher = Watcher(database)
        self._closing = False

    # --- appending ---

    async def append(self, *entries: Entry, expect: Expect = NOTHING) -> Appended:
        future = await self.submit(*entries, expect=expect)
        del entries  # their text is on its way, so nothing of them is kept while it waits
        return await future

    async def submit(self, *entries: Entry, expect: Expect = NOTHING) -> "asyncio.Future[Appended]":
        submission = prepare(entries, expect, self._redaction)
        while self._queued_events and self._queued_events + len(entries) > MAX_QUEUED_EVENTS:
            await self._wait_for_room()
        if self._closing:
            raise Closed(self._database.path)
        if self._database.failure:
            raise self._database.failure.again()
        submission.future = asyncio.get_running_loop().create_future()
        self._queue.append(submission)
        self._queued_events += len(entries)
        self._start_pump()
        return submission.future

    async def _wait_for_room(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room.append(waiter)
        await waiter

    def _start_pump(self) -> None:
        if self._pump_task is None:
            self._pump_task = asyncio.create_task(self._pump(), name="carstore writer")
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _pump(self) -> None:
        while True:
            while not self._queue:
                if self._closing:
                    return
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                self._wake = None
            batch = self._take_batch()
            await self._commit(batch)
            self._wal.look()

    def _take_batch(self) -> list[Submission]:
        batch: list[Submission] = []
        events = 0
        while self._queue and (not batch or events < MAX_BATCH_EVENTS):
            taken = self._queue.popleft()
            events += len(taken.entries)
            batch.append(taken)
        self._queued_events -= events
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)
        return batch

    async def _commit(self, batch: list[Submission]) -> None:
        try:
            await self._database.write(lambda connection: self._writer.commit(connection, batch))
        except CarstoreError as failure:
            for submission in batch:  # to each its own: a caller may add a note to it
                submission.outcome = failure.again()
        except Exception as mistake:  # noqa: BLE001 - nothing was written, and all of them wait
            for submission in batch:
                submission.outcome = mistake
        for submission in batch:
            outcome, future = submission.outcome, submission.future
            assert outcome is not None
            if future is None or future.done():  # its caller stopped waiting
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
                future.exception()  # a caller that went away has nobody to tell
            else:
                future.set_result(outcome)
        self._watcher.notice()

    # --- reading ---

    async def head(self) -> Head:
        rows = await self._database.fetch(SQL["head"])
        return Head(Position(rows[0][0]), rows[0][1]) if rows else Head(Position(0), GENESIS)

    async def state(
        self, scope: Scope, keys: Collection[StateKey], *, at: int | None = None
    ) -> dict[StateKey, StateRead]:
        check_names("scope or key", (scope, *keys))
        until = _FOREVER if at is None else at
        found = dict.fromkeys(keys, NEVER_WRITTEN)
        if found:
            wanted = {"scope": scope, "keys": json.dumps(list(found)), "until": until}
            for key, position, run_id, data in await self._database.fetch(
                SQL["state_of_keys"], wanted
            ):
                found[key] = _state_read(position, run_id, data)
        return found

    async def state_of(self, scope: Scope, *, at: int | None = None) -> dict[StateKey, StateRead]:
        check_names("scope", (scope,))
        wanted = {"scope": scope, "until": _FOREVER if at is None else at}
        rows = await self._database.fetch(SQL["state_at"], wanted)
        return {key: _state_read(position, run_id, data) for key, position, run_id, data in rows}

    async def trails(
        self, scope: Scope, keys: Collection[StateKey], run_id: RunId
    ) -> dict[StateKey, Trail]:
        check_names("scope, key or run", (scope, *keys, run_id))
        wanted = {"scope": scope, "keys": json.dumps(list(keys)), "run_id": run_id}
        parts: dict[tuple[StateKey, str], StateRead] = {}
        for key, part, position, writer, data in await self._database.fetch(SQL["trails"], wanted):
            parts[key, part] = _state_read(position, writer, data)
        return {
            key: Trail(
                newest=parts.get((key, "newest"), NEVER_WRITTEN),
                ours=parts.get((key, "ours"), NEVER_WRITTEN).position,
                base=parts.get((key, "base"), NEVER_WRITTEN),
            )
            for key in keys
        }

    async def read(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        stream: StreamName | None = None,
        run: RunId | None = None,
        state: tuple[Scope, StateKey] | None = None,
        kinds: Collection[str] | None = None,
    ) -> AsyncGenerator[Recorded, None]:
        given = (stream, run, *(state or ()), *(kinds or ()))
        check_names("what is read", [name for name in given if name is not None])
        wanted = wanted_of(kinds, stream, run)
        if state is not None:
            statement, (wanted["scope"], wanted["key"]) = "page_state", state
        elif stream is not None:
            statement = "page_stream"
        elif run is not None:
            statement = "page_streams"
        else:
            statement = "page_all" if kinds is None else "page_kinds"
        async for page in self._pages(statement, wanted, after, until):
            for recorded in page:
                yield recorded

    async def pages(
        self, *, after: int = 0, until: int | None = None, kinds: Collection[str] | None = None
    ) -> AsyncGenerator[list[Recorded], None]:
        statement = "page_all" if kinds is None else "page_kinds"
        async for page in self._pages(statement, wanted_of(kinds), after, until):
            yield page

    async def _pages(
        self, statement: str, wanted: dict[str, object], after: int, until: int | None
    ) -> AsyncGenerator[list[Recorded], None]:
        wanted = {**wanted, "until": _FOREVER if until is None else until, "limit": PAGE_EVENTS}
        version, is_last = 0, False
        while not is_last:
            place = {**wanted, "after": after, "version": version}
            read = partial(read_page, sql=SQL[statement], wanted=place)
            rows, is_last = await self._database.read(read)
            if rows:
                page = [Recorded._make(row) for row in rows]
                yield page
                after, version = page[-1].position, page[-1].version

    # --- following ---

    async def follow(
        self,
        *,
        after: int = 0,
        kinds: Collection[str] | None = None,
        stream: StreamName | None = None,
        run: RunId | None = None,
    ) -> AsyncGenerator[Recorded, None]:
        pages = self.follow_pages(after=after, kinds=kinds, stream=stream, run=run)
        async with aclosing(pages):
            async for page in pages:
                for recorded in page:
                    yield recorded

    def follow_pages(
        self,
        *,
        after: int = 0,
        kinds: Collection[str] | None = None,
        stream: StreamName | None = None,
        run: RunId | None = None,
    ) -> AsyncGenerator[list[Recorded], None]:
        given = (stream, run, *(kinds or ()))
        check_names("what is followed", [name for name in given if name is not None])
        pages = partial(self._new_pages, wanted_of(kinds, stream, run))
        return follow(self._watcher, self.head, pages, after)

    def _new_pages(
        self, wanted: dict[str, object], after: int, until: int
    ) -> AsyncGenerator[list[Recorded], None]:
        if "streams" in wanted:
            near = until - after <= NEAR_EVENTS
            statement = "page_streams_near" if near else "page_streams"
        else:
            statement = "page_all" if wanted["kinds"] is None else "page_kinds"
        return self._pages(statement, wanted, after, until)

    # --- closing ---

    async def close(self) -> None:
        """Commit what was submitted, then stop. Later appends raise `Closed`."""
        self._closing = True
        if self._pump_task is not None:
            self._start_pump()
            await asyncio.shield(self._pump_task)  # what was submitted is not for a caller to stop
        await self._wal.close()
        await self._watcher.close()
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)


def _state_read(position: int, run_id: RunId | None, data: str) -> StateRead:
    change = loads_trusted(data)
    exists = "deleted" not in change
    return StateRead(change.get("value"), exists, Position(position), run_id)
