"""What it costs to be there: imports, the command line, and following a log."""

import asyncio
import importlib.util
import sqlite3
import statistics
import time
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from benchmarks.append import appender
from benchmarks.harness import Goal, Options, Row, benchmark, folder, percentile
from benchmarks.processes import ROOT, child, environment, python, spent
from carstore import Recorded, Store, connect
from carstore.consumer import consumer

_BARE, _HELP = "sys", "help"

MANY_FOLLOWERS = 100
INSERT = "INSERT INTO kinds VALUES (?, ?)"
_ALTERNATIVES = ("dbos", "langgraph.graph", "eventsourcing.application")


@benchmark("imports")
def imports(options: Options) -> list[Row]:
    """Imports, over an interpreter that imports nothing, and the help of the command line."""
    return import_times(3, ()) if options.quick else import_times(7)


def import_times(times: int, against: Sequence[str] = _ALTERNATIVES) -> list[Row]:
    """The same: medians of so many starts, taken in turn."""
    ours = ["carstore", "projections", "engine"]
    others = [name for name in against if importlib.util.find_spec(name.partition(".")[0])]
    commands = {name: python("-c", f"import {name}") for name in (_BARE, *ours, *others)}
    commands[_HELP] = python("-m", "engine.cli", "--help")
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(times + 1):
        for name, command in commands.items():
            found = spent(command)
            if turn:
                taken[name].append(found)
    elapsed = {name: statistics.median(found[0] for found in taken[name]) * 1e3 for name in taken}
    busy = {name: statistics.median(found[1] for found in taken[name]) * 1e3 for name in taken}
    own = [
        Row(
            case=f"import {name}, over bare Python",
            unit="ms",
            measured=elapsed[name] - elapsed[_BARE],
            goal=Goal(at_most=150),
            details={"processor_ms": busy[name] - busy[_BARE]},
        )
        for name in ours
    ]
    compared = [
        Row(
            case="import engine, over bare Python",
            unit="ms",
            measured=elapsed["engine"] - elapsed[_BARE],
            against=f"import {name}",
            reference=elapsed[name] - elapsed[_BARE],
        )
        for name in others
    ]
    helped = Row(
        case="carstore --help, from start to end",
        unit="ms",
        measured=elapsed[_HELP],
        goal=Goal(at_most=250),
        details={"processor_ms": busy[_HELP]},
    )
    return [*own, *compared, helped]


@benchmark("follow")
def follow(options: Options) -> list[Row]:
    """How soon another process sees an append, and what waiting for one costs."""
    events, idle_seconds = (100, 2) if options.quick else (1_000, 12)
    return asyncio.run(follow_log(options, events=events, idle_seconds=idle_seconds))


async def follow_log(options: Options, *, events: int, idle_seconds: float) -> list[Row]:
    """The same: so many events, one every 10 to 20 ms."""
    with folder(options) as place:
        path = place / "log.db"
        async with connect(path) as store:
            idle = await _idle(store, 1, idle_seconds)
            many_idle = await _idle(store, MANY_FOLLOWERS, idle_seconds)
            delays = await _delays(store, path, events)
            consumed, read = await _consume(store, place / "rows.db", events * 20)
    return [
        Row(
            case="from acknowledged there to seen here, p99",
            unit="ms",
            measured=percentile(delays, 0.99),
            goal=Goal(at_most=25),
            details={"p50_ms": percentile(delays, 0.5), "events": len(delays)},
        ),
        Row(
            case="following while nothing happens",
            unit="% of a core",
            measured=idle,
            goal=Goal(at_most=1),
            details={"seconds": idle_seconds},
        ),
        Row(
            case=f"{MANY_FOLLOWERS} followers while nothing happens",
            unit="% of a core",
            measured=many_idle,
            goal=Goal(at_most=1),
            details={"seconds": idle_seconds},
        ),
        Row(
            case="a consumer catching up, a row for each event",
            unit="events/s",
            measured=consumed,
            against="reading them",
            reference=read,
        ),
    ]


async def _idle(store: Store, followers: int, idle_seconds: float) -> float:
    """All threads of this process are counted."""
    tasks = [asyncio.create_task(_exhaust(store.log.follow())) for _ in range(followers)]
    await asyncio.sleep(0.2)
    before, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(idle_seconds)
    used = (time.process_time() - before) / (time.perf_counter() - began)
    for task in tasks:
        await _stop(task)
    return used * 100


async def _consume(store: Store, path: Path, events: int) -> tuple[float, float]:
    """Events a second: applied by a consumer, and only read."""
    append_one = appender(store.log)
    await asyncio.gather(*[append_one(0, number) for number in range(events)])

    def apply(connection: sqlite3.Connection, recorded: Recorded) -> None:
        connection.execute(INSERT, (recorded.position, recorded.kind))

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE kinds (position INTEGER PRIMARY KEY, kind TEXT)")
    async with consumer(store, path, "bench") as made:
        began = time.perf_counter()
        applied = await made.catch_up(apply)
        consumed = applied / (time.perf_counter() - began)
    began = time.perf_counter()
    await _exhaust(store.log.read(until=applied))
    return consumed, applied / (time.perf_counter() - began)


async def _exhaust(found: AsyncIterator[object]) -> None:
    async for _ in found:
        pass


async def _delays(store: Store, path: Path, events: int) -> list[float]:
    """Milliseconds; an event that is seen before its append was acknowledged counts as 0."""
    seen: dict[int, int] = {}
    first = (await store.log.head()).position
    last = first + events

    async def watch() -> None:
        async for recorded in store.log.follow(after=first):
            seen[recorded.position] = time.monotonic_ns()
            if recorded.position == last:
                return

    task = asyncio.create_task(watch())
    command = child("append", path, events, 0.013)
    process = await create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT, env=environment())
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the appending process failed; what it said stands above")
    acknowledged = [tuple(map(int, line.split())) for line in said.decode().splitlines()]
    await asyncio.wait_for(task, 5)
    return [max(0.0, (seen[position] - at) / 1e6) for position, at in acknowledged]


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
