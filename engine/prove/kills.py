"""Kill, check, go on: until every run is over, and then once more with another file."""

import asyncio
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.proofs.checks import Ledger
from tests.proofs.workload import SHAPES, Place, main, notes

ROOT = Path(__file__).parents[2]

RUNS = 4 * SHAPES
"""Runs of one file."""

REACH_SECONDS = (0.02, 0.06, 0.15)
"""Within what time after its first sign of life a process is killed: soon, or after some work."""

PATIENCE_SECONDS = 60
"""How long the last, unharmed life may take."""


@define
class Figures:
    """What a campaign found."""

    kills: int = 0
    while_recovering: int = 0
    """Kills of a process that had not finished its recovery."""
    while_compensating: int = 0
    """Kills while some run was on its way back."""
    two_at_once: int = 0
    """Rounds in which two processes worked on the file."""
    files: int = 0
    runs: int = 0
    acknowledged: int = 0
    calls: int = 0
    in_doubt: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(factory=Counter)
    """Broken promises by name."""
    broken: list[str] = field(factory=list)


def prepare() -> None:
    """Let children be born with everything imported."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.proofs.workload"])


def campaign(
    kills: int,
    *,
    seed: int = 0,
    runs: int = RUNS,
    broken: str | None = None,
    alone: bool = False,
    most_seconds: float = 3600,
    progress: Callable[[Figures], None] = lambda figures: None,
) -> Figures:
    """Kill processes until `kills` are dead and all their runs are over; stop at a broken promise.

    Args:
        runs: of one file; when they are over, another file is begun.
        broken: the breakage that the children live with.
        alone: whether there is never more than one process at a time.
    """
    prepare()
    figures, source, began = Figures(), random.Random(seed), time.monotonic()
    while figures.kills < kills and not figures.broken:
        if time.monotonic() - began > most_seconds:
            break
        with tempfile.TemporaryDirectory(prefix="carstore-proof-") as folder:
            _one_file(Place(Path(folder)), figures, source, kills, runs, broken, alone, progress)
    figures.seconds = time.monotonic() - began
    return figures


def _one_file(
    place: Place,
    figures: Figures,
    source: random.Random,
    kills: int,
    runs: int,
    broken: str | None,
    alone: bool,
    progress: Callable[[Figures], None],
) -> None:
    ledger = Ledger(place)
    figures.files += 1
    while not ledger.broken:
        last = figures.kills >= kills
        children = [
            _born(place, runs, broken) for _ in range(1 if alone or source.random() > 0.3 else 2)
        ]
        figures.two_at_once += len(children) == 2
        finished = _finished(children) if last else _killed(children, place, source, figures)
        ledger.check()
        progress(figures)
        if finished:
            break
    if not ledger.broken:
        asyncio.run(ledger.check_end(runs))
        figures.runs += runs
    figures.acknowledged += ledger.acknowledged
    figures.calls += ledger.calls
    figures.in_doubt += _count(place, "action_in_doubt")
    figures.counts += ledger.counts
    figures.broken += ledger.broken
    if ledger.broken and os.environ.get("KEEP"):
        shutil.copytree(place.folder, os.environ["KEEP"], dirs_exist_ok=True)


def _born(place: Place, runs: int, broken: str | None) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=main, args=(str(place.folder), runs, broken))
    child.start()
    return child


def _killed(
    children: list[ForkServerProcess],
    place: Place,
    source: random.Random,
    figures: Figures,
) -> bool:
    """Kill all children at random moments of their lives; whether one had finished before."""
    reach = source.choice(REACH_SECONDS)
    first = len(notes(place.acks))
    _until(lambda: len(notes(place.acks)) > first or not all(c.is_alive() for c in children))
    finished = False
    for child in children:
        child.join(source.uniform(0, reach))
        finished = finished or child.exitcode == 0
        _raise_if_failed(child)
        if child.exitcode is None:
            child.kill()
            child.join()
            figures.kills += 1
            said = [one.get("phase") for one in notes(place.acks) if one.get("pid") == child.pid]
            figures.while_recovering += bool(said) and "recovered" not in said
            figures.while_compensating += _is_compensating(place)
    return finished


def _finished(children: list[ForkServerProcess]) -> bool:
    for child in children:
        child.join(PATIENCE_SECONDS)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise TimeoutError(f"a life that nobody harmed took more than {PATIENCE_SECONDS} s")
        _raise_if_failed(child)
    return True


def _raise_if_failed(child: ForkServerProcess) -> None:
    if child.exitcode not in (None, 0):
        raise RuntimeError(f"a child failed by itself with exit code {child.exitcode}")


def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("no sign of life from a child")
        time.sleep(0.001)


def _events(place: Place, kinds: tuple[str, ...]) -> list[tuple[str, Any]]:
    import sqlite3

    if not place.database.exists():
        return []
    log = sqlite3.connect(f"file:{place.database}?mode=ro", uri=True)
    try:
        marks = ", ".join("?" * len(kinds))
        found = log.execute(f"SELECT run_id, data FROM events WHERE kind IN ({marks})", kinds)
        return [(run, json.loads(data)) for run, data in found]
    except sqlite3.OperationalError:
        return []  # it was killed before it had made the schema
    finally:
        log.close()


def _count(place: Place, kind: str) -> int:
    return len(_events(place, (kind,)))


def _is_compensating(place: Place) -> bool:
    begun = {run for run, _ in _events(place, ("compensation_executing",))}
    return bool(begun - {run for run, _ in _events(place, ("proposal_completed",))})
