"""The engine: plans of state, the scheduler, syncs, and the way back after a kill."""

import asyncio
import random
import shutil
import sqlite3
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, Options, Row, benchmark, folder, interleaved
from benchmarks.plans import KEYS, chain, count, grow_plans, state_plan
from benchmarks.processes import child, run, start
from carstore import Store, connect
from carstore.names import run_stream
from engine import Action, Runtime
from engine.ir import RunStatus
from engine.rules.graph import Graph, build_graph
from engine.rules.schedule import EagerSchedule

# --- plans of state -------------------------------------------------------------------------------


@benchmark("plans")
def plans(options: Options) -> list[Row]:
    """Ten-action state plans, one commit each, with little and with much behind them."""
    histories = (10, 1_000) if options.quick else (10, 1_000, 100_000)
    return asyncio.run(against_raw(options, histories, 100 if options.quick else 300))


async def against_raw(options: Options, histories: tuple[int, ...], plans_each: int) -> list[Row]:
    """The same: so many plans, on logs with so many behind them."""
    with folder(options) as place:
        async with AsyncExitStack() as stack:
            stores = []
            for history in histories:
                path = place / f"ours-{history}.db"
                async with connect(path, durability="crash") as store:
                    await grow_plans(store, history)
                stores.append(await stack.enter_async_context(connect(path)))
            raw = stack.enter_context(closing(await _raw(place / "raw.db", stores[0])))

            def side(store: Store) -> Callable[[], Awaitable[float]]:
                return lambda: _plans(store, plans_each)

            sides = [lambda: _raw_plans(raw, plans_each), *map(side, stores)]
            limit, *ours = map(statistics.median, await interleaved(options.repetitions, *sides))
    rows = [
        Row(
            case=f"plans of ten writes, {history:,} behind",
            unit="plans/s",
            measured=rate,
            against="raw commit of the rows",
            reference=limit,
            goal=Goal(at_least=0.25),
        )
        for history, rate in zip(histories, ours, strict=True)
    ]
    rows += [
        Row(
            case=f"plans of ten writes, {history:,} behind",
            unit="plans/s",
            measured=rate,
            against=f"{histories[0]:,} behind",
            reference=ours[0],
            goal=Goal(at_least=0.9),
        )
        for history, rate in list(zip(histories, ours, strict=True))[1:]
    ]
    return rows


async def _plans(store: Store, plans_each: int) -> float:
    runtime = Runtime(store)
    began = time.perf_counter()
    for number in range(plans_each):
        result = await runtime.execute(state_plan(number * 10))
        assert result.status is RunStatus.SUCCEEDED
    return plans_each / (time.perf_counter() - began)


class _Raw:
    """One commit of the rows that a plan leaves, with its keys in a table beside."""

    def __init__(self, path: Path, rows: list[tuple[Any, ...]]) -> None:
        self.rows = rows
        self.plans = 0
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript("""
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
            CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT, position INTEGER) STRICT;
        """)

    def commit(self) -> None:
        self.plans += 1
        rows = [(None, self.plans, *row[2:]) for row in self.rows]
        changed = [
            (f"key-{(self.plans * 10 + number) % KEYS}", row[11], self.plans)
            for number, row in enumerate(row for row in self.rows if row[8] is not None)
        ]
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            f"INSERT INTO events VALUES ({', '.join('?' * 14)})",  # noqa: S608
            rows,
        )
        self.connection.executemany(
            "INSERT INTO state VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET value = excluded.value, position = excluded.position",
            changed,
        )
        self.connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()


async def _raw(path: Path, store: Store) -> _Raw:
    result = await Runtime(store).execute(state_plan(0))
    stream = run_stream(result.run_id)
    return _Raw(path, [tuple(row) async for row in store.log.read(stream=stream)])


async def _raw_plans(raw: _Raw, plans_each: int) -> float:
    began = time.perf_counter()
    for _ in range(plans_each):
        raw.commit()
    return plans_each / (time.perf_counter() - began)


# --- the scheduler --------------------------------------------------------------------------------


@benchmark("scheduler")
def scheduler(options: Options) -> list[Row]:
    """The eager schedule over a graph, with nothing recorded, against a plain ready set."""
    return asyncio.run(schedule_graph(options, 10_000))


async def schedule_graph(options: Options, nodes: int) -> list[Row]:
    """The same, of so many nodes."""
    dice = random.Random(7)
    actions = [
        Action(
            id=f"n{node}",
            tool="count",
            dependencies=sorted({f"n{dice.randrange(node)}" for _ in range(2)}) if node else [],
        )
        for node in range(nodes)
    ]
    began = time.perf_counter()
    graph = build_graph(actions)
    building = time.perf_counter() - began
    sides = [lambda: _scheduled(graph), lambda: _plain(graph)]
    ours, plain = map(statistics.median, await interleaved(options.repetitions, *sides))
    return [
        Row(
            case=f"eager schedule of {nodes:,} nodes",
            unit="nodes/s",
            measured=ours,
            against="plain asyncio ready set",
            reference=plain,
            goal=Goal(at_least=0.2),
            details={"building_the_graph_ms": building * 1e3},
        )
    ]


async def _node() -> None:
    pass


async def _scheduled(graph: Graph) -> float:
    began = time.perf_counter()
    schedule = EagerSchedule(graph)
    ready = deque(schedule.ready())
    while ready:
        node = ready.popleft()
        await _node()
        schedule.done(node)
        ready.extend(schedule.ready())
    assert schedule.finished
    return len(graph.forward) / (time.perf_counter() - began)


async def _plain(graph: Graph) -> float:
    began = time.perf_counter()
    missing = [len(needs) for needs in graph.needs]
    ready = deque(node for node, needs in enumerate(missing) if not needs)
    done = 0
    while ready:
        node = ready.popleft()
        await _node()
        done += 1
        for dependent in graph.dependents[node]:
            missing[dependent] -= 1
            if not missing[dependent]:
                ready.append(dependent)
    assert done == len(graph.forward)
    return done / (time.perf_counter() - began)


# --- syncs ----------------------------------------------------------------------------------------


@benchmark("syncs")
def syncs(options: Options) -> list[Row]:
    """How often a step of a run waits for the disk."""
    return [count_syncs(options, 1_000)]


def count_syncs(options: Options, steps: int) -> Row:
    """By strace where there is one, else by the commits of the writer, each of which syncs once."""
    with folder(options) as place:
        traced = shutil.which("strace") is not None
        if traced:
            few, many = (_traced(place, number) for number in (10, steps + 10))
        else:
            few, many = (asyncio.run(_commits(place, number)) for number in (10, steps + 10))
    return Row(
        case=f"{'syncs' if traced else 'commits'} of {steps:,} steps of one run",
        unit="per step",
        measured=(many - few) / steps,
        goal=Goal(at_most=1.01),
    )


def _traced(place: Path, steps: int) -> int:
    report = place / f"syncs-{steps}"
    tracer = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(report)]
    run([*tracer, *child("quiet-chain", place / f"{steps}.db", steps)])
    calls = report.read_text(encoding="utf-8").splitlines()
    return sum("fsync(" in line or "fdatasync(" in line for line in calls)


async def _commits(place: Path, steps: int) -> int:
    statements: list[str] = []
    async with connect(place / f"{steps}.db") as store:
        await store.database.write(lambda writer: writer.set_trace_callback(statements.append))
        await Runtime(store, tools=[count]).execute(chain(steps))
        await store.database.write(lambda writer: writer.set_trace_callback(None))
    return sum(statement.strip().upper().startswith("COMMIT") for statement in statements)


# --- after a kill ---------------------------------------------------------------------------------


@benchmark("resume")
def resume(options: Options) -> list[Row]:
    """From the start of a process to the first new step of a run that was killed."""
    return [first_new_step(options, steps=1_000, times=2 if options.quick else 5)]


def first_new_step(options: Options, *, steps: int, times: int) -> Row:
    """The same, of a run of so many steps, killed in its middle."""
    with folder(options) as place:
        taken = [_killed_and_resumed(place / f"{number}.db", steps) for number in range(times)]
    return Row(
        case=f"kill -9 in a run of {steps:,} steps, to its first new step",
        unit="s",
        measured=statistics.median(taken),
        goal=Goal(at_most=0.3),
    )


def _killed_and_resumed(path: Path, steps: int) -> float:
    last = _begun_when_killed(start(child("chain", path, steps)), steps // 2)
    began = time.perf_counter()
    with start(child("resume", path)) as resumed:
        first = int(_line(resumed))
        taken = time.perf_counter() - began
        resumed.kill()
    if first < last:
        raise AssertionError(f"step {first} was done again; {last} had begun before the kill")
    return taken


def _begun_when_killed(process: "subprocess.Popen[str]", number: int) -> int:
    """Kill the process once it has begun the step; the number of the last that it began."""
    with process:
        while (last := int(_line(process))) < number:
            pass
        process.kill()
        assert process.stdout is not None
        return max([last, *map(int, process.stdout.read().split())])


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the process ended too early; what it said stands above")
    return line
