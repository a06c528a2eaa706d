"""Appending, against group commit of the same rows with nothing around it.

The limit is what SQLite and a thread can do: rows that were encoded beforehand go into a plain
table with the same columns and the same unique index, under the same settings; one thread takes
what is queued and commits it; each producer awaits a future. On our side the producers make their
events as they go. Both sides have one stream per producer.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    Goal,
    Options,
    Row,
    Skipped,
    Timed,
    benchmark,
    folder,
    interleaved,
    median,
    timed,
)
from benchmarks.plans import KEYS, grow_mixed
from carstore.connect import connect
from carstore.events import ActionExecuting, Event, StateChanged
from carstore.log import Entry, Log
from carstore.names import RunId, StreamName

GOALS = {1: 0.70, 100: 0.55, 1000: 0.42}
"""Producers -> share of the raw rate."""

EVENTS = {1: 1_000, 100: 10_000, 1000: 20_000}
"""Producers -> events of one repetition, for short and many ones: a machine's speed changes by the
second."""

WARM_UPS = 4
"""Repetitions that are not counted: they write the WAL to its full length."""

_DIGEST = "ab" * 32
_RUN = RunId("0123456789abcdef")

Append = Callable[[int, int], Awaitable[Any]]
"""Appends the event of a producer with a number, both from 0."""


async def produce(append: Append, producers: int, events_each: int) -> Timed:
    """Let each producer append one event after the other."""
    latencies: list[float] = []

    async def producer(index: int) -> None:
        clock = time.perf_counter
        for number in range(events_each):
            began = clock()
            await append(index, number)
            latencies.append(clock() - began)

    started = time.perf_counter()
    await asyncio.gather(*[producer(index) for index in range(producers)])
    return timed(started, latencies)


def _executing(_: int, number: int) -> Event:
    return ActionExecuting(
        action_id=f"action-{number}",
        attempt=1,
        tool="http_get",
        effect="once",
        parameters_digest=_DIGEST,
    )


def _changed(producer: int, number: int) -> Event:
    """One of the keys, as if at random."""
    key = (producer * 7_919 + number * 104_729) % KEYS
    return StateChanged(scope="main", key=f"key-{key}", value={"number": number, "by": _DIGEST})


def appender(log: Log, make: Callable[[int, int], Event] = _executing) -> Append:
    """Ours."""

    def append(producer: int, number: int) -> Awaitable[Any]:
        return log.append(Entry(StreamName(f"producer-{producer}"), make(producer, number), _RUN))

    return append


class RawGroupCommit:
    """One thread that commits whatever is queued."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[tuple[tuple[Any, ...], asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._events_each = 0
        self._thread.start()

    def appender(self, producers: int, events_each: int) -> Append:
        """What appends the next so many rows, which are made now."""
        after = self._events_each
        self._events_each += events_each
        rows = [
            [_raw_row(producer, after + number + 1) for number in range(events_each)]
            for producer in range(producers)
        ]

        def append(producer: int, number: int) -> Awaitable[None]:
            future: asyncio.Future[None] = self._loop.create_future()
            self._queue.put((rows[producer][number], future))
            return future

        return append

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        connection = _raw_table(self._path)
        closing = False
        while not closing:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            closing = None in batch
            waiting = [queued for queued in batch if queued is not None]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [row for row, _ in waiting],
            )
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_wake, [future for _, future in waiting])
        connection.close()


def _raw_row(producer: int, version: int) -> tuple[Any, ...]:
    data = (
        f'{{"action_id":"action-{version}","attempt":1,"effect":"once",'
        f'"parameters_digest":"{_DIGEST}","tool":"http_get"}}'
    )
    return (None, producer, version, "action_executing", 1, 1_700_000_000_000_000 + version,
            _RUN, None, None, None, None, data, _DIGEST, _DIGEST)  # fmt: skip


def _wake(futures: "list[asyncio.Future[None]]") -> None:
    for future in futures:
        future.set_result(None)


def _raw_table(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("""
        PRAGMA journal_mode = WAL;
        PRAGMA synchronous = FULL;
        PRAGMA wal_autocheckpoint = 4000;
        PRAGMA cache_size = -65536;
        CREATE TABLE events (
            position INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, version INTEGER NOT NULL,
            kind TEXT NOT NULL, schema_version INTEGER NOT NULL, recorded_at INTEGER NOT NULL,
            run_id TEXT, scope TEXT, key TEXT, fence TEXT, fence_token INTEGER,
            data TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL,
            UNIQUE (stream_id, version)
        ) STRICT;
    """)
    return connection


@contextmanager
def raw_group_commit(path: Path) -> Iterator[RawGroupCommit]:
    """The limit, for other benchmarks too."""
    raw = RawGroupCommit(path)
    try:
        yield raw
    finally:
        raw.close()


@benchmark("append")
def append(options: Options) -> list[Row]:
    """Producers that each await their append, against raw group commit."""
    return [row for producers in GOALS for row in asyncio.run(_against_raw(options, producers))]


async def _against_raw(options: Options, producers: int) -> list[Row]:
    events_each = EVENTS[producers] // producers
    with folder(options) as place, raw_group_commit(place / "raw.db") as raw:
        async with connect(place / "ours.db") as store:
            ours, limit = map(
                median,
                await interleaved(
                    options.repetitions * (1 if options.quick else 3),
                    lambda: produce(appender(store.log), producers, events_each),
                    lambda: produce(raw.appender(producers, events_each), producers, events_each),
                    warm_ups=WARM_UPS,
                ),
            )
    case = f"{producers:,} producer{'s' if producers > 1 else ''}"
    rows = [
        Row(
            case=case,
            unit="events/s",
            measured=ours.per_second,
            against="raw group commit",
            reference=limit.per_second,
            goal=Goal(at_least=GOALS[producers]),
            details={
                "p50_ms": ours.p50_ms,
                "p99_ms": ours.p99_ms,
                "raw_p50_ms": limit.p50_ms,
                "raw_p99_ms": limit.p99_ms,
            },
        )
    ]
    if producers == 100:
        rows.append(
            Row(
                case=f"{case}, p99",
                unit="ms",
                measured=ours.p99_ms,
                against="ms, p50",
                reference=ours.p50_ms,
                goal=Goal(at_most=4),
            )
        )
    return rows


@benchmark("append-history")
def append_history(options: Options) -> list[Row]:
    """The same with a long history, against a log without one."""
    if not options.long:
        raise Skipped("it needs a log of a million events: ask with --long")
    return asyncio.run(_with_history(options, 1_000_000))


async def _with_history(options: Options, events: int) -> list[Row]:
    producers = 100
    events_each = EVENTS[producers] // producers
    rows = []
    with folder(options) as place:
        async with connect(place / "new.db") as new, connect(place / "old.db") as old:
            await grow_mixed(old, events)
            for case, make in (("events", _executing), ("changes of 10,000 keys", _changed)):
                sides = [
                    (lambda log=log, make=make: produce(
                        appender(log, make), producers, events_each
                    ))
                    for log in (old.log, new.log)
                ]  # fmt: skip
                behind, alone = map(
                    median,
                    await interleaved(options.repetitions, *sides, warm_ups=WARM_UPS),
                )
                rows.append(
                    Row(
                        case=f"{case}, {producers} producers, {events:,} events of history",
                        unit="events/s",
                        measured=behind.per_second,
                        against="a new log",
                        reference=alone.per_second,
                        goal=Goal(at_least=0.6),
                        details={"p50_ms": behind.p50_ms, "p99_ms": behind.p99_ms},
                    )
                )
    return rows
