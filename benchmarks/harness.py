"""What all benchmarks share: options, rows, the registry, and the way two things are compared.

A benchmark is a function from `Options` to rows, registered under a name:

    @benchmark("append")
    def append(options: Options) -> list[Row]: ...

A module beside this one that does so is found by `python -m benchmarks` without being listed. What
needs a package that is not installed raises `Skipped`.
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from attrs import Factory, frozen

_Result = TypeVar("_Result")


@frozen(kw_only=True)
class Options:
    """What the caller of `python -m benchmarks` asked for."""

    quick: bool = False
    """Seconds instead of minutes; the ratios get noisy."""
    long: bool = False
    """Also what takes minutes to prepare, such as a log of a million events."""
    folder: Path | None = None
    """Where the database files go, since disks differ; a temporary folder by default."""

    @property
    def repetitions(self) -> int:
        return 3 if self.quick else 7


@frozen(kw_only=True)
class Goal:
    """What a row has to reach: by its ratio, or if it is compared with nothing, as it stands."""

    at_least: float | None = None
    at_most: float | None = None

    def is_met_by(self, figure: float) -> bool:
        if self.at_least is not None and figure < self.at_least:
            return False
        return self.at_most is None or figure <= self.at_most

    def __str__(self) -> str:
        bounds = [(">=", self.at_least), ("<=", self.at_most)]
        return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


@frozen(kw_only=True)
class Row:
    """One figure, with what it is compared with."""

    case: str
    unit: str
    """Of `measured` and of `reference`."""
    measured: float
    against: str = ""
    reference: float | None = None
    goal: Goal | None = None
    details: dict[str, float] = Factory(dict)
    """Further figures by name; the unit ends the name."""

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.measured / self.reference

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        figure = self.measured if self.ratio is None else self.ratio
        return None if self.goal is None else self.goal.is_met_by(figure)


class Skipped(Exception):
    """The benchmark cannot run here; its text says what is missing."""


BENCHMARKS: dict[str, Callable[[Options], list[Row]]] = {}


def benchmark(
    name: str,
) -> Callable[[Callable[[Options], list[Row]]], Callable[[Options], list[Row]]]:
    """Register a benchmark under `name`."""

    def register(function: Callable[[Options], list[Row]]) -> Callable[[Options], list[Row]]:
        if name in BENCHMARKS:
            raise ValueError(f"there are two benchmarks called {name!r}")
        BENCHMARKS[name] = function
        return function

    return register


@contextmanager
def folder(options: Options) -> Iterator[Path]:
    """An empty folder for database files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="carstore-bench-", dir=options.folder) as name:
        yield Path(name)


async def interleaved(
    repetitions: int, *sides: Callable[[], Awaitable[_Result]], warm_ups: int = 1
) -> list[list[_Result]]:
    """Run the sides in turn, A B A B, and return the results of each; those of the first rounds,
    which warm up files, caches and code, are not among them."""
    results: list[list[_Result]] = [[] for _ in sides]
    for turn in range(warm_ups + repetitions):
        for kept, side in zip(results, sides, strict=True):
            gc.collect()
            result = await side()
            if turn >= warm_ups:
                kept.append(result)
    return results


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@frozen
class Timed:
    """One run of many operations."""

    per_second: float
    p50_ms: float
    p99_ms: float


def timed(started: float, latencies: Sequence[float]) -> Timed:
    """Sum up a run that began at `started` (`time.perf_counter`); latencies in seconds."""
    elapsed = time.perf_counter() - started
    return Timed(
        len(latencies) / elapsed,
        percentile(latencies, 0.5) * 1e3,
        percentile(latencies, 0.99) * 1e3,
    )


def median(runs: Sequence[Timed]) -> Timed:
    """Field by field."""
    return Timed(
        statistics.median(run.per_second for run in runs),
        statistics.median(run.p50_ms for run in runs),
        statistics.median(run.p99_ms for run in runs),
    )
