"""Runs that are asked to stop at random moments, while their drivers, and who asks, are killed."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

from attrs import define, field

from carstore.errors import CarstoreError
from carstore.names import RunId
from carstore.store import Store
from engine.cancel import cancel
from engine.context import ToolContext
from engine.declare import Tool, tool
from engine.ir import Action, Proposal
from engine.prove.crowd import (
    Round,
    Told,
    call_faults,
    crowd_proof,
    drive,
    note_call,
    opened_by_one,
    story_of,
    until_over,
)
from engine.prove.workload import ANYTHING, Place, notes
from engine.runtime import Runtime

__all__ = ["STOPPING"]

DRIVERS = 3
RUNS = 16
KILLS = 12
STEPS = 8
"""Calls of each run, one after the other."""

CALL_SECONDS = 0.03
"""Of one call, so that a run goes on for longer than its driver does not look into its inbox."""

LATEST_SECONDS = 0.35
"""After how long, at most, a run is asked to stop. Some have ended before."""

BEGINS = ("action_executing", "action_validated", "wait_started")
"""What stands in the log when something begins that a plan wants."""


def drive_stopped(folder: str) -> None:
    """The life of one driver."""
    place = Place(Path(folder))

    def made(store: Store) -> Runtime:
        return Runtime(store, _tools(place))

    asyncio.run(drive(place, {f"r{n}": _plan(n) for n in range(RUNS)}, made))


def _plan(n: int) -> Proposal:
    actions = [
        Action(
            id=f"a{i}",
            tool="again" if i % 3 == 2 else "once",
            dependencies=[f"a{i - 1}"] if i else [],
            expected_effects={f"run {n}": i},
        )
        for i in range(STEPS)
    ]
    return Proposal(id=f"p{n}", actions=actions)


def _tools(place: Place) -> list[Tool]:
    @tool(parameters=ANYTHING)
    async def undo(ctx: ToolContext, **_: object) -> str:
        note_call(place, ctx, "once", undo=True)
        return "undone"

    @tool(compensation=undo)
    async def once(ctx: ToolContext) -> str:
        note_call(place, ctx, "once")
        await asyncio.sleep(CALL_SECONDS)
        return ctx.action_id

    @tool(idempotent=True, compensation=undo)
    async def again(ctx: ToolContext) -> str:
        note_call(place, ctx, "idempotent")
        await asyncio.sleep(CALL_SECONDS)
        return ctx.action_id

    return [undo, once, again]


def ask_to_stop(folder: str) -> None:
    """The life of somebody who asks two of three runs to stop, one of them to be undone."""
    asyncio.run(_ask_to_stop(Place(Path(folder))))


async def _ask_to_stop(place: Place) -> None:
    chance = random.Random(os.getpid())
    waits = {n: chance.uniform(0, LATEST_SECONDS) for n in range(RUNS) if n % 3}
    async with opened_by_one(place) as store:
        seen: dict[int, float] = {}
        clock = asyncio.get_running_loop().time

        async def once() -> None:
            there = {run for (run,) in place.look("runs_of_kind", "proposal_received")}
            for n in [n for n in waits if f"r{n}" in there]:
                if clock() < seen.setdefault(n, clock()) + waits[n]:
                    continue
                del waits[n]
                try:
                    await cancel(store, RunId(f"r{n}"), by="ann", compensate=n % 3 == 2)
                except CarstoreError as error:
                    if error.code != "run_over":
                        raise

        await until_over(place, RUNS, once)


# --- what came of it ---


@define
class _OneRun:
    """What one run did, in order."""

    name: str
    asked: bool = False
    stopping: Told | None = None
    succeeded: list[str] = field(factory=list)
    undone: list[str] = field(factory=list)
    end: str | None = None
    broken: list[str] = field(factory=list)

    def take(self, told: Told) -> None:
        """Take in one event, and say what must not be."""
        stopping = self.stopping
        if self.end is not None and told.kind in (*BEGINS, "proposal_completed", "run_stopping"):
            self._fault(told, "after the run had ended")
        if told.kind == "cancel_requested":
            self.asked = True
        elif told.kind == "run_stopping":
            self._stop(told)
        elif told.kind in BEGINS and stopping is not None:
            self._fault(told, f"began after {stopping.position}, when the run was to stop")
        elif told.kind == "action_succeeded":
            self.succeeded.append(told.action)
        elif told.kind == "compensation_executing":
            if stopping is None or not stopping.data["compensate"]:
                self._fault(told, "was undone, and nobody had asked for that")
        elif told.kind == "compensation_succeeded":
            self.undone.append(told.action)
        elif told.kind == "proposal_completed":
            self.end = told.data["status"]

    def _fault(self, told: Told, text: str) -> None:
        self.broken.append(
            f"event {told.position}: {told.kind} {told.action} of {self.name} {text}"
        )

    def _stop(self, told: Told) -> None:
        if not self.asked:
            self._fault(told, "and nobody had asked for that")
        if self.stopping is not None:
            self._fault(told, "a second time")
        self.stopping = told

    def check_end(self) -> None:
        """Whether it ended as it was asked to."""
        stopping, wanted = self.stopping, "succeeded"
        if stopping is not None:
            wanted = "rolled_back" if stopping.data["compensate"] else "cancelled"
        if self.end != wanted:
            self.broken.append(f"{self.name} ended as {self.end}, not as {wanted}")
        back = self.succeeded[::-1] if wanted == "rolled_back" else []
        if self.undone != back:
            self.broken.append(f"{self.name} undid {self.undone}, not {back}")


def _stopping(one: Round) -> None:
    one.live([*[(drive_stopped, ())] * DRIVERS, (ask_to_stop, ())], KILLS)
    story, calls = story_of(one.place), notes(one.place.journal)
    runs = {f"r{n}": _OneRun(f"r{n}") for n in range(RUNS)}
    for told in story:
        if told.run in runs:
            runs[told.run].take(told)
    for run in runs.values():
        run.check_end()
        one.broken += run.broken
    one.broken += call_faults(calls)
    ends = Counter(run.end for run in runs.values())
    late = sum(run.asked and run.stopping is None for run in runs.values())
    one.counts += Counter({
        "runs finished": RUNS,
        "calls": len(calls),
        "runs stopped": ends["cancelled"],
        "runs stopped and undone": ends["rolled_back"],
        "runs that had ended when they were to stop": late,
        "compensations": sum(len(run.undone) for run in runs.values()),
    })  # fmt: skip


STOPPING = crowd_proof(
    "cancelled runs",
    "A run that is asked to stop, whoever is killed at that moment, begins nothing more once that"
    " is recorded, and ends as cancelled, or with all it did undone in reverse.",
    _stopping,
    (2, 15, 80),
)
