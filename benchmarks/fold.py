"""Reading a long log: folding it into a view, and the state as it was, against plain SQLite."""

import asyncio
import json
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, Options, Row, Skipped, benchmark, folder, interleaved
from benchmarks.plans import KEYS, grow_mixed
from benchmarks.processes import child, run
from carstore import Store, connect
from carstore.events import KINDS, StateChanged
from carstore.names import MAIN_SCOPE, StateKey
from projections import COSTS, rows

_METERED = "WHERE kind = 'inference_metered'"


@benchmark("read")
def read(options: Options) -> list[Row]:
    """A log of metered tool calls: folded, and asked for the state at a position."""
    return asyncio.run(read_log(options, 50_000 if options.quick else 1_000_000))


async def read_log(options: Options, events: int) -> list[Row]:
    """The same, of so many events."""
    with folder(options) as place:
        path = place / "log.db"
        async with connect(path, durability="crash") as store:
            await grow_mixed(store, events)
        async with connect(path) as store:
            found = [*await _folds(options, store, path), *await _states(store, events)]
        found.append(_memory(path, events))
    return found


async def fold(store: Store) -> float:
    """Fold the costs from the first event on; events of the log per second."""
    head = (await store.log.head()).position
    began = time.perf_counter()
    await rows(store, COSTS, at=head)
    return head / (time.perf_counter() - began)


async def scan(path: Path, where: str = "") -> float:
    """Read rows in order and make their events, checking nothing; seconds."""
    began = time.perf_counter()
    with closing(sqlite3.connect(path)) as connection:
        for row in connection.execute(f"SELECT * FROM events {where} ORDER BY position"):  # noqa: S608
            _decoded(row[3], row[7], row[8], json.loads(row[11]))
    return time.perf_counter() - began


def _decoded(kind: str, scope: str, key: str, data: dict[str, Any]) -> object:
    if kind == "state_changed":
        return StateChanged(scope=scope, key=key, **data)
    return KINDS[kind](**data)


async def _folds(options: Options, store: Store, path: Path) -> list[Row]:
    events = (await store.log.head()).position

    async def whole() -> float:
        return events / await scan(path)

    async def metered() -> float:
        return events / await scan(path, _METERED)

    sides: list[Callable[[], Awaitable[float]]] = [lambda: fold(store), whole, metered]
    ours, everything, same = map(
        statistics.median, await interleaved(min(3, options.repetitions), *sides)
    )
    return [
        Row(
            case=f"fold {events:,} events into the costs",
            unit="events/s",
            measured=ours,
            against="scan + decode, whole log",
            reference=everything,
            goal=Goal(at_least=0.55),
        ),
        Row(
            case="the same",
            unit="events/s",
            measured=ours,
            against="scan + decode, only the rows it folds",
            reference=same,
        ),
    ]


async def _states(store: Store, events: int) -> list[Row]:
    async def one(number: int) -> None:
        key = StateKey(f"key-{number * 37 % KEYS}")
        await store.log.state(MAIN_SCOPE, [key], at=events * (number % 10 + 1) // 10)

    async def whole(number: int) -> None:
        await store.log.state_of(MAIN_SCOPE, at=events - number)

    return [
        Row(
            case=f"one key as of a position, {events:,} events",
            unit="ms",
            measured=await _median_ms(one, 500),
            goal=Goal(at_most=0.3),
        ),
        Row(
            case=f"the whole state, {min(KEYS, events // 4):,} keys",
            unit="ms",
            measured=await _median_ms(whole, 5),
            goal=Goal(at_most=100),
        ),
    ]


async def _median_ms(ask: Callable[[int], Awaitable[None]], times: int) -> float:
    taken = []
    for number in range(times):
        began = time.perf_counter()
        await ask(number)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


def _memory(path: Path, events: int) -> Row:
    return Row(
        case=f"growth of the process while folding {events:,} events",
        unit="MB",
        measured=int(run(child("fold", path))) / 1e6,
        goal=Goal(at_most=20),
    )


@benchmark("fold-eventsourcing")
def fold_eventsourcing(options: Options) -> list[Row]:
    """Folding a log, against replaying an aggregate with eventsourcing."""
    return asyncio.run(against_replay(options, 30_000 if options.quick else 100_000))


async def against_replay(options: Options, events: int) -> list[Row]:
    """The same, of so many events."""
    try:
        import_module("eventsourcing")
    except ImportError:
        raise Skipped("eventsourcing is not installed (the extra `bench` has it)") from None
    from benchmarks.against_eventsourcing import Eventsourcing

    with folder(options) as place, Eventsourcing(place / "theirs.db") as theirs:
        replayed = min(events, 10_000)
        saved = theirs.saved(replayed)

        async def replay() -> float:
            began = time.perf_counter()
            theirs.load(saved)
            return replayed / (time.perf_counter() - began)

        async with connect(place / "ours.db", durability="crash") as store:
            await grow_mixed(store, events)
            sides: list[Callable[[], Awaitable[float]]] = [lambda: fold(store), replay]
            ours, reference = map(
                statistics.median, await interleaved(min(3, options.repetitions), *sides)
            )
    return [
        Row(
            case=f"fold {events:,} events into the costs",
            unit="events/s",
            measured=ours,
            against=f"eventsourcing, replay of {replayed:,}",
            reference=reference,
            goal=Goal(at_least=7),
        )
    ]
