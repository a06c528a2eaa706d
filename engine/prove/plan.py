"""`carstore prove --plan P --tools F`: somebody's own plan, killed at random moments until it ends.

First the plan runs twice unharmed: so it is known how long it takes, how it ends, and whether it
ends alike by itself. Then files are begun anew, and the process that works on one is killed and
started again until the run is over, or waits for a person.
"""

import asyncio
import json
import random
import shutil
import time
from pathlib import Path

from attrs import define, field, frozen

from carstore import connect
from carstore.names import MAIN_SCOPE, Json, RunId
from carstore.sqlite.verify import verify
from engine.ir import RunStatus
from engine.journal import load_run
from engine.prove.aftermath import view_faults
from engine.prove.family import Child, Family, ProofFailed, kill
from engine.prove.kills import PROMISES
from engine.prove.ledger import Ledger
from engine.prove.plan_child import RUN_ID, WAITS, live
from engine.prove.proof import Outcome, Progress, Proof, Scale, by_scale
from engine.prove.workload import Place
from engine.results import result_of

__all__ = ["OwnPlan", "plan_proof"]

MAX_UNHARMED_SECONDS = 3600
"""How long a plan may take: whoever has longer ones proves with a shorter one."""

AFTER_A_CALL = 0.5
"""The share of kills that wait for a call: so calls in flight are met, however short they are."""

MAX_LIVES = 200
"""Of one file. A run of which every life is killed too early is then let go on to its end."""

NOTHING_COMPARED = "No end of a killed run was compared with that of the plan left alone."

_PROMISES = ("lost", "partial", "gap", "chain", "views", "repeated", "no intent")


@frozen(kw_only=True)
class OwnPlan:
    """What is to be run."""

    plan: bytes
    """The JSON of a proposal, known to be a good one."""
    tools: str
    """As `--tools` takes it."""
    on_doubt: str
    """`hold`: a run with an attempt in doubt is left waiting; `fail` or `retry`."""
    kills: int | None = None
    """How many, instead of what the scale says."""


@frozen
class _End:
    """How a run ended: what must be the same in all lives.

    Of a run that failed it is only how: what was under way beside the action that failed may have
    come to its end, or not.
    """

    status: str
    statuses: dict[str, str] = field(factory=dict)
    """Of each action."""
    state: dict[str, Json] = field(factory=dict)

    @property
    def failed(self) -> bool:
        return self.status != RunStatus.SUCCEEDED


@define
class _Figures:
    kills: int = 0
    files: int = 0
    finished: int = 0
    waiting: int = 0
    """Runs that were left waiting for a person."""
    in_doubt: int = 0
    """Attempts in doubt, answered or not."""
    acknowledged: int = 0
    calls: int = 0
    compared: int = 0
    counts: dict[str, int] = field(factory=lambda: dict.fromkeys(_PROMISES, 0))
    broken: list[str] = field(factory=list)


def plan_proof(own: OwnPlan) -> Proof:
    """The proof that kills the processes which run `own`."""

    def run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        wanted = own.kills or by_scale(scale, 20, 100, 1000)
        return _Campaign(own, place, random.Random(f"plan {seed}"), progress).run(wanted)

    return Proof(
        "your plan",
        "Killed at any moment, the plan goes on: nothing acknowledged is lost, nothing completed is"
        " called again, nothing that must not be repeated is called without a durable intent.",
        run,
    )


@define
class _Campaign:
    own: OwnPlan
    folder: Path
    chance: random.Random
    progress: Progress
    figures: _Figures = field(factory=_Figures)
    seconds: float = 0.0
    """What the plan takes unharmed."""
    expected: _End | None = None
    """How every run must end; None if it does not end alike by itself."""
    reason: str = ""
    """Why ends are not compared, if they are not."""

    def run(self, wanted: int) -> Outcome:
        self._learn()
        figures = self.figures
        while figures.kills < wanted and not figures.broken:
            before = figures.kills
            self._one_file(wanted)
            if figures.kills == before and figures.files > wanted + 10:
                raise ProofFailed("the plan is over before its process can be killed")
        return Outcome(figures=self._told(), broken=figures.broken, notes=self._explained())

    # --- unharmed ---

    def _learn(self) -> None:
        ends = []
        for n in range(2):
            self.progress(f"running the plan unharmed, {n + 1} of 2")
            place = self._place(f"unharmed {n}")
            began = time.monotonic()
            with Family(place.folder) as family:
                child = self._born(place, family)
                family.finish(child, MAX_UNHARMED_SECONDS, fine=(WAITS,))
            self.seconds = time.monotonic() - began
            ledger = Ledger(place, looks_at_effects=False)
            ledger.check()
            self.figures.calls += ledger.calls
            self._judge(place, ledger)
            ends.append(asyncio.run(_end_of(place)))
            shutil.rmtree(place.folder)
        one, two = ends
        if one != two:
            self.reason = "left alone, the plan does not end alike: ends are not compared"
        else:
            self.expected = one

    # --- killed ---

    def _one_file(self, wanted: int) -> None:
        figures = self.figures
        place = self._place(f"file {figures.files}")
        figures.files += 1
        ledger, lives, waits = Ledger(place, looks_at_effects=False), 0, False
        with Family(place.folder) as family:
            over = False
            while not over and not ledger.broken:
                unharmed = figures.kills >= wanted or lives >= MAX_LIVES
                child = self._born(place, family)
                lives += 1
                over = (
                    self._let_end(family, child) if unharmed else self._kill(place, family, child)
                )
                waits = child.exitcode == WAITS
                ledger.check()
                self.progress(f"killing the plan's process: {figures.kills:,} of {wanted:,}")
        figures.acknowledged += ledger.acknowledged
        figures.calls += ledger.calls
        figures.waiting += waits
        figures.finished += not waits and not ledger.broken
        self._judge(place, ledger, waits=waits)
        if not figures.broken:
            shutil.rmtree(place.folder)

    def _kill(self, place: Place, family: Family, child: Child) -> bool:
        """Kill it at a random moment of its life, or soon after a call has begun; whether it was
        over before."""
        reach = self.seconds * self.chance.choice((0.1, 0.4, 1.0))
        if self.chance.random() < AFTER_A_CALL:
            reach = self.seconds * 0.1
            self._await_call(place, child)
        child.join(self.chance.uniform(0, reach))
        family.check(child, WAITS)
        if child.exitcode is not None:
            return True
        kill(child)
        self.figures.kills += 1
        return False

    def _await_call(self, place: Place, child: Child) -> None:
        """Wait for the next call of a tool, but not for ever: the process may make none."""
        before, end = _size(place.journal), time.monotonic() + self.seconds
        while child.is_alive() and _size(place.journal) == before and time.monotonic() < end:
            time.sleep(0.001)

    def _let_end(self, family: Family, child: Child) -> bool:
        family.finish(child, MAX_UNHARMED_SECONDS, fine=(WAITS,))
        return True

    def _place(self, name: str) -> Place:
        place = Place(self.folder / name)
        place.folder.mkdir()
        return place

    def _born(self, place: Place, family: Family) -> Child:
        own = self.own
        return family.born(live, str(place.folder), own.plan, own.tools, own.on_doubt)

    # --- judging ---

    def _judge(self, place: Place, ledger: Ledger, *, waits: bool = False) -> None:
        """What the ledger found, and what the file says at the end."""
        if not ledger.broken:
            asyncio.run(_look_at_file(place, ledger))
        for name in _PROMISES:
            self.figures.counts[name] += ledger.counts[name]
        self.figures.broken += ledger.broken
        if ledger.broken:
            return
        self.figures.in_doubt += asyncio.run(_doubts_of(place))
        if waits or self.expected is None:
            return
        end = asyncio.run(_end_of(place))
        if end != self.expected and self._explained_by_doubt(end):
            return
        self.figures.compared += 1
        if end != self.expected:
            self.figures.broken.append(f"a run ended as {_brief(end)}, not {_brief(self.expected)}")

    def _explained_by_doubt(self, end: _End) -> bool:
        """Whether an attempt in doubt, taken as failed, made the end another one."""
        return self.own.on_doubt == "fail" and end.failed

    def _told(self) -> dict[str, int | float]:
        figures = self.figures
        told: dict[str, int | float] = {
            "seconds of the plan, left alone": round(self.seconds, 2),
            "processes killed": figures.kills,
            "files": figures.files,
            "runs finished": figures.finished,
            "runs left waiting for a person": figures.waiting,
            "attempts in doubt": figures.in_doubt,
            "events acknowledged": figures.acknowledged,
            "tool calls": figures.calls,
            "ends compared": figures.compared,
        }
        return told | {PROMISES[name]: count for name, count in figures.counts.items()}

    def _explained(self) -> list[str]:
        """What the figures mean, in sentences."""
        figures, said = self.figures, []
        if self.reason:
            said.append(self.reason + ".")
        elif self.expected is not None and self.expected.failed and figures.compared:
            said.append(
                f"Left alone, the plan ends as {self.expected.status}, and so it must in all lives;"
                " what became of each action, and of the state, is not compared then."
            )
        if figures.waiting:
            said.append(
                f"{figures.waiting:,} of {figures.files:,} runs wait for a person: a process died"
                " during the call of a tool that is neither read-only nor idempotent, and nobody"
                " can know what became of the call. If the call may be repeated, declare the tool"
                " idempotent=True; `--on-doubt retry` shows how the plan goes on if you say so"
                " each time."
            )
        elif figures.in_doubt:
            said.append(
                f"{figures.in_doubt:,} attempts were in doubt and were answered with"
                f" {self.own.on_doubt!r}, as you said."
            )
        if self.expected is not None and figures.compared == 0:
            said.append(NOTHING_COMPARED)
        return said


async def _look_at_file(place: Place, ledger: Ledger) -> None:
    if not place.database.exists():
        return
    async with connect(place.database, durability="crash") as store:
        for problem in (await verify(store)).problems:
            ledger.fail("chain", problem.message)
        for fault in await view_faults(store):
            ledger.fail("views", fault)


async def _doubts_of(place: Place) -> int:
    async with connect(place.database, readonly=True) as store:
        return len([one async for one in store.log.read(kinds=["action_in_doubt"])])


async def _end_of(place: Place) -> _End:
    async with connect(place.database, readonly=True) as store:
        result = result_of(await load_run(store, RunId(RUN_ID)))
        if result.status is not RunStatus.SUCCEEDED:
            return _End(result.status.value)
        state = await store.log.state_of(MAIN_SCOPE)
    return _End(
        result.status.value,
        {one.action_id: one.status.value for one in result.results},
        {key: read.value for key, read in state.items() if read.exists},
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _brief(end: _End) -> str:
    text = json.dumps([end.status, end.statuses, end.state], default=str)
    return text if len(text) <= 400 else f"{text[:397]}..."
