"""Death at a chosen operation: exactly before or after the n-th write or sync, or in its middle.

The built-in workload runs with the library of `shim.c` loaded, which ends the process where it is
told. What is then in the files is copied, and the copy is read and compared with what had been
acknowledged; the next process finds the originals as they were left, recovers, and goes on, until
it is killed at another operation, and at last until all runs are over.
"""

import asyncio
import random
import shutil
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, evolve, field

from engine.prove.broken import in_force
from engine.prove.disk.images import SECTOR
from engine.prove.disk.lives import DiskPlace
from engine.prove.disk.nursery import LIFE_SECONDS, Life, Nursery, on_disk, only_those
from engine.prove.disk.shim import Disk
from engine.prove.family import ProofFailed
from engine.prove.kills import promises
from engine.prove.ledger import Ledger
from engine.prove.proof import Figure, Outcome, Progress, Proof, Scale, by_scale
from engine.prove.workload import SHAPES, Place

__all__ = ["NTH_KILLED", "TORN_WRITES"]

RUNS = 2 * SHAPES
"""Runs of one file, two of each kind: enough for more than 400 writes in one life."""

MOST_N = 400
"""The last operation of a life at which it is killed; by then several runs are over."""

PAGE = 4096
"""Bytes of the largest writes."""

BROKEN_LIFE_SECONDS = 10.0
"""How long a life may take with a promise broken on purpose, which can make it wait for ever."""

Plan = Sequence[Disk]
"""What the disk does to one life after the other; `watched` is filled in."""


@define
class _Copy(Place):
    """A copy of what a killed process left, for readers who must not help the next one."""

    @property
    def database(self) -> Path:
        return self.folder / "copy" / "agents.db"

    def take(self, original: DiskPlace) -> None:
        shutil.rmtree(self.folder / "copy", ignore_errors=True)
        ignored = shutil.ignore_patterns("*-shm")
        shutil.copytree(original.database.parent, self.folder / "copy", ignore=ignored)
        if self.database.exists():
            connection = sqlite3.connect(self.database)
            try:  # what the process was at when it died is rolled back, or found in the WAL
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            finally:
                connection.close()


@define
class _Deaths:
    """What was counted."""

    killed: int = 0
    files: int = 0
    runs: int = 0
    acknowledged: int = 0
    calls: int = 0
    counts: Counter[str] = field(factory=Counter)
    broken: list[str] = field(factory=list)

    def told(self) -> dict[str, Figure]:
        return {
            "processes killed": self.killed,
            "files": self.files,
            "runs finished": self.runs,
            "events acknowledged": self.acknowledged,
            "tool calls": self.calls,
            **promises(self.counts),
        }


def _campaign(place: Path, what: str, plan: Plan, progress: Progress) -> Outcome:
    deaths, left = _Deaths(), deque(plan)

    def prove(folder: Path, nursery: Nursery) -> Outcome:
        while left and not deaths.broken:
            files = DiskPlace(folder / f"file {deaths.files}")
            files.database.parent.mkdir(parents=True)
            one = _OneFile(files, nursery, left, deaths)
            one.until_over(lambda: progress(f"{what}: {len(plan) - len(left):,} of {len(plan):,}"))
            if not deaths.broken:
                shutil.rmtree(files.folder)
        return Outcome(figures=deaths.told(), broken=only_those(deaths.broken))

    return on_disk(place, prove)


@define
class _OneFile:
    """The lives and deaths on one file, until its runs are over."""

    place: DiskPlace
    nursery: Nursery
    plan: deque[Disk]
    deaths: _Deaths

    def until_over(self, told: Callable[[], None]) -> None:
        copy, deaths = _Copy(self.place.folder), self.deaths
        ledger, lives, over = Ledger(copy), 0, False
        while not over and not ledger.broken:
            failed = None
            try:
                over = self._live(is_first=lives == 0)
            except ProofFailed as error:
                failed = error
            lives += 1
            copy.take(self.place)
            ledger.check()
            if failed is not None and not ledger.broken:
                raise failed  # else what was found may be why
            told()
        if not ledger.broken:
            asyncio.run(ledger.check_end(RUNS))
            deaths.runs += RUNS
        copy.close()
        deaths.files += 1
        deaths.acknowledged += ledger.acknowledged
        deaths.calls += ledger.calls
        deaths.counts += ledger.counts
        deaths.broken += ledger.broken

    def _live(self, *, is_first: bool) -> bool:
        """One life, as the plan wants it; whether it came to its end. If too little was left to do
        for the operation to be reached, the plan tries it again with the next file."""
        disk = self.plan.popleft() if self.plan else None
        faulty = None if disk is None else evolve(disk, watched=self.place.database.parent)
        arguments = {"folder": str(self.place.folder), "runs": RUNS}
        seconds = LIFE_SECONDS if in_force() is None else BROKEN_LIFE_SECONDS
        life = Life(name="runs", arguments=arguments, disk=faulty)
        (ended,) = self.nursery.live(life, seconds=seconds)
        if ended.code is None or (is_first and disk is not None and not ended.killed):
            raise ProofFailed(f"a process that was to be killed at an operation was not: {disk}")
        self.deaths.killed += ended.killed
        if disk is not None and not ended.killed:
            self.plan.appendleft(disk)
        return not ended.killed


# --- killed exactly before and after ---


def _kills(wanted: int, source: random.Random) -> Plan:
    """Before and after each operation, or some of them, in their order."""
    numbers = range(1, MOST_N + 1)
    chosen = numbers if wanted >= MOST_N else sorted(source.sample(numbers, wanted))
    return [
        Disk(watched=Path(), fault=fault, at=n)
        for n in chosen
        for fault in ("kill-before", "kill-after")
    ]


def _run_kills(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
    source = random.Random(seed)
    plan = _kills(by_scale(scale, 5, 80, MOST_N), source)
    return _campaign(place, "killing before and after a write or sync", _more(plan), progress)


# --- torn writes ---


def _tears(wanted: int, source: random.Random) -> Plan:
    """Of each write that is wanted a part reaches the file: whole sectors, or any bytes."""
    found = []
    for n in range(wanted):
        at = source.randint(1, MOST_N) if wanted < MOST_N else n % MOST_N + 1
        kept = source.choice(
            (SECTOR * source.randint(0, PAGE // SECTOR - 1), source.randint(1, PAGE - 1))
        )
        found.append(Disk(watched=Path(), fault="tear", on="write", at=at, keep=kept))
    return found


def _run_tears(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
    source = random.Random(seed)
    plan = _tears(by_scale(scale, 10, 150, 2 * MOST_N), source)
    return _campaign(place, "tearing writes", _more(plan), progress)


def _more(plan: Plan) -> Plan:
    """With a promise broken on purpose, try as often as it takes."""
    return plan if in_force() is None else [*plan] * 10


NTH_KILLED = Proof(
    "killed at an operation",
    "A process killed exactly before or after its n-th write or sync loses nothing acknowledged,"
    " leaves no append there in part, and the next one completes its runs without repeating what"
    " was completed.",
    _run_kills,
)

TORN_WRITES = Proof(
    "torn writes",
    "A process that dies in the middle of its n-th write, of which any part reaches the file,"
    " loses nothing acknowledged and repeats nothing completed.",
    _run_tears,
)
