"""How tool steps of ours are compared with those of what users would pick instead.

Each is on SQLite, with the same trivial step; the steps of one run follow each other. Ours must not
be repeated, so each has its intent and its outcome recorded; one that another library records with
less is taken as it is. What is not installed is skipped; the extra `bench` of this package has it.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.harness import Options, Skipped, interleaved
from benchmarks.plans import chain, count, count_in_thread, say
from carstore import Store, connect
from carstore.sqlite.database import Durability
from engine import Runtime
from engine.ir import RunStatus

Rate = Callable[[], Awaitable[float]]
"""Does its work once; operations per second."""


def installed(name: str) -> Any:
    """The module of a library that may be missing."""
    try:
        return import_module(name)
    except ImportError:
        library = name.partition(".")[0]
        raise Skipped(f"{library} is not installed (the extra `bench` has it)") from None


async def our_steps(store: Store, steps: int, *, runs: int = 1, name: str = "count") -> float:
    """So many runs at once of so many steps; steps per second."""
    runtime = Runtime(store, tools=[count, count_in_thread, say])
    plan = chain(steps, name)
    began = time.perf_counter()
    results = await asyncio.gather(*[runtime.execute(plan) for _ in range(runs)])
    elapsed = time.perf_counter() - began
    assert all(result.status is RunStatus.SUCCEEDED for result in results)
    return steps * runs / elapsed


async def compare(
    options: Options,
    place: Path,
    theirs: Callable[[], float],
    ours: Callable[[Store], Awaitable[float]],
    durability: Durability = "power",
) -> tuple[float, float]:
    """Median rates of ours and of theirs, in turn. Theirs has a thread without an event loop."""
    async with connect(place / "ours.db", durability=durability) as store:
        sides: list[Rate] = [lambda: ours(store), lambda: asyncio.to_thread(theirs)]
        measured, reference = await interleaved(options.repetitions, *sides)
    return statistics.median(measured), statistics.median(reference)


def rate(operations: int, work: Callable[[], object]) -> float:
    """Operations per second of one call of `work`."""
    began = time.perf_counter()
    work()
    return operations / (time.perf_counter() - began)
