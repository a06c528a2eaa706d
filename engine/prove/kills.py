"""Kill, check, go on: until every run is over, and then once more with another file."""

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field

from engine.prove.broken import in_force
from engine.prove.family import Child, Family, kill, wait_until
from engine.prove.ledger import Ledger
from engine.prove.outside import SQL, is_made, looking
from engine.prove.proof import Figure, Outcome, Progress, Proof, Scale, by_scale
from engine.prove.workload import SHAPES, Place, main, notes

__all__ = ["PROMISES", "Figures", "campaign", "kills_proof", "promises"]

RUNS = 4 * SHAPES
"""Runs of one file."""

REACH_SECONDS = (0.02, 0.06, 0.15)
"""Within what time after its first sign of life a process is killed: soon, or after some work."""

REACH_BYTES = 8_000
"""Within how many bytes of notes it is killed otherwise, however slow the machine is: those of some
runs."""

REACH_LIMIT_SECONDS = 2.0
"""How long these are waited for."""

BROKEN_SECONDS = 60.0
"""How long a promise that was broken on purpose is looked for."""

PROMISES = {
    "lost": "acknowledged events lost",
    "partial": "appends there in part",
    "gap": "gaps, or breaks in the chain",
    "chain": "problems found by verify",
    "views": "views that differ from a rebuild",
    "repeated": "calls repeated after their completion",
    "no intent": "calls without a durable intent",
    "resumed twice": "runs driven by two at once",
    "compensation": "runs undone otherwise than once, in reverse",
    "outcome": "runs that ended otherwise than planned",
}
"""What is counted; all must be 0."""


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
    counts: Counter[str] = field(factory=Counter)
    """Broken promises by name."""
    broken: list[str] = field(factory=list)

    def told(self) -> dict[str, Figure]:
        """By names for people."""
        return {
            "processes killed": self.kills,
            "of them while recovering": self.while_recovering,
            "of them while a run was on its way back": self.while_compensating,
            "rounds with two processes at once": self.two_at_once,
            "files": self.files,
            "runs finished": self.runs,
            "events acknowledged": self.acknowledged,
            "tool calls": self.calls,
            "attempts in doubt": self.in_doubt,
            **promises(self.counts),
        }


def promises(counts: Counter[str]) -> dict[str, Figure]:
    """How often each promise was found broken, by names for people."""
    return {what: counts[name] for name, what in PROMISES.items()}


def kills_proof(kills: int | None = None) -> Proof:
    """The proof; `kills` instead of what its scale says."""

    def run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        wanted = kills or by_scale(scale, 60, 300, 1000)
        wanted = wanted if in_force() is None else max(wanted, 300)

        def told(figures: Figures) -> None:
            progress(f"killing processes: {figures.kills:,} of {wanted:,}")

        seconds = 3600.0 if in_force() is None else BROKEN_SECONDS
        figures = campaign(place, wanted, seed=seed, most_seconds=seconds, progress=told)
        return Outcome(figures=figures.told(), broken=figures.broken)

    return Proof(
        "kills",
        "A process killed at any moment, also while it recovers, while it undoes, or beside another"
        " one, loses nothing acknowledged and repeats nothing completed.",
        run,
    )


def campaign(
    folder: Path,
    kills: int,
    *,
    seed: int = 0,
    runs: int = RUNS,
    most_seconds: float = 3600,
    progress: Callable[[Figures], None] = lambda _: None,
) -> Figures:
    """Kill processes until `kills` are dead and all their runs are over; stop at a broken promise.

    With a promise broken on purpose there is never more than one process at a time, so that
    nothing but the proof notices.

    Args:
        folder: where the files are made, one folder each; those of a broken promise are left.
        runs: of one file; when they are over, another file is begun.
        most_seconds: after these no further file is begun.

    Raises:
        ProofFailed: a process failed by itself.
    """
    figures, source, began = Figures(), random.Random(seed), time.monotonic()
    while figures.kills < kills and not figures.broken:
        if time.monotonic() - began > most_seconds:
            break
        place = Place(folder / f"file {figures.files}")
        place.folder.mkdir()
        with Family(place.folder) as family:
            _OneFile(place, family, figures, source, runs).until(kills, progress)
        if not figures.broken:
            shutil.rmtree(place.folder)
    return figures


@define
class _OneFile:
    """The lives that work on one file, until its runs are over."""

    place: Place
    family: Family
    figures: Figures
    source: random.Random
    runs: int

    def until(self, kills: int, progress: Callable[[Figures], None]) -> None:
        ledger, figures = Ledger(self.place), self.figures
        figures.files += 1
        finished = False
        while not ledger.broken and not finished:
            last = figures.kills >= kills
            alone = in_force() is not None or self.source.random() > 0.3
            children = [self._born() for _ in range(1 if alone else 2)]
            figures.two_at_once += len(children) == 2
            finished = self._finished(children) if last else self._killed(children)
            ledger.check()
            progress(figures)
        if not ledger.broken:
            asyncio.run(ledger.check_end(self.runs))
            figures.runs += self.runs
        figures.acknowledged += ledger.acknowledged
        figures.calls += ledger.calls
        figures.in_doubt += len(_events(self.place, "action_in_doubt"))
        figures.counts += ledger.counts
        figures.broken += ledger.broken

    def _born(self) -> Child:
        return self.family.born(main, str(self.place.folder), self.runs)

    def _killed(self, children: list[Child]) -> bool:
        """Kill all at random moments of their lives; whether one had finished before."""
        reach, bytes_more = self.source.choice(REACH_SECONDS), self.source.randrange(REACH_BYTES)
        by_time = self.source.random() < 0.5
        first = self._said()
        wait_until(
            lambda: self._said() > first or not all(c.is_alive() for c in children),
            "a sign of life from a process",
        )
        if not by_time:
            reach = min(REACH_SECONDS)
            self._await_notes(children, first + bytes_more)
        finished = False
        for child in children:
            child.join(self.source.uniform(0, reach))
            finished = finished or child.exitcode == 0
            self.family.check(child)
            if child.exitcode is None:
                kill(child)
                self._count(child)
        return finished

    def _await_notes(self, children: list[Child], size: int) -> None:
        """Wait until there are so many bytes of notes, or a process has ended; not for ever."""
        end = time.monotonic() + REACH_LIMIT_SECONDS
        while self._said() < size and all(c.is_alive() for c in children):
            if time.monotonic() > end:
                return
            time.sleep(0.001)

    def _said(self) -> int:
        """How many bytes of notes there are."""
        return self.place.acks.stat().st_size if self.place.acks.exists() else 0

    def _count(self, killed: Child) -> None:
        self.figures.kills += 1
        said = [one.get("phase") for one in notes(self.place.acks) if one.get("pid") == killed.pid]
        self.figures.while_recovering += bool(said) and "recovered" not in said
        begun = set(_events(self.place, "compensation_executing"))
        self.figures.while_compensating += bool(
            begun - set(_events(self.place, "proposal_completed"))
        )

    def _finished(self, children: list[Child]) -> bool:
        for child in children:
            self.family.finish(child)
        return True


def _events(place: Place, kind: str) -> list[Any]:
    """The runs of all events of a kind."""
    if not place.database.exists():
        return []
    with looking(place.database) as log:
        if not is_made(log):
            return []
        return [run for (run,) in log.execute(SQL["runs_of_kind"], (kind,))]
