"""From the start of a process to the first call of the run that it goes on with.

The file holds 100,000 events. Each process is a new interpreter, so what is measured is all of what
a person waits for: imports, opening, finding and folding the unfinished run, and calling its next
tool. Then it is killed, and the next one goes on.
"""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from attrs import define, field

from carstore import connect
from carstore import events as e
from carstore.clock import SystemClock
from carstore.log import Entry
from carstore.names import StreamName
from engine.context import ToolContext
from engine.declare import tool
from engine.ir import Action, ActionType, Proposal
from engine.prove.aftermath import faults_of
from engine.prove.broken import BREAKAGES, in_force
from engine.prove.family import ABOVE, ProofFailed, wait_until
from engine.prove.proof import Outcome, Progress, Proof, Scale, by_scale
from engine.prove.workload import Place, note, notes
from engine.runtime import Runtime

__all__ = ["RESTART", "percentile"]

EVENTS = 100_000
"""In the file, before the run that is interrupted."""

READY_MS = 1_000
"""Within how many milliseconds a process is to be at work again (p95)."""

PLANS = 300
"""Runs among these events; the others are changes of state."""

STEPS = 2_000
"""Calls of the interrupted run: more than all lives together can make."""


@define
class _Times:
    """Milliseconds of each restart."""

    ready: list[float] = field(factory=list)
    """Since the process was started."""
    opened: list[float] = field(factory=list)
    """Since it opened the file, its imports done."""
    busy: list[float] = field(factory=list)
    """Of the processor: what the machine does besides adds little to them."""


def _restart(folder: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:  # noqa: ARG001
    place, times = Place(folder), _Times()
    wanted = by_scale(scale, 5, 20, 60) if in_force() is None else 2
    progress("restart: writing 100,000 events")
    asyncio.run(_history(place.database))
    broken: list[str] = []
    for n in range(wanted + 1):
        progress(f"restart: {n:,} of {wanted:,}")
        ready, opened, busy = _one_life(place)
        if n:  # the first one begins the run, and is no restart
            times.ready.append(ready)
            times.opened.append(opened)
            times.busy.append(busy)
    calls = [(one["action"], one["completed"]) for one in notes(place.journal) if "action" in one]
    broken += [f"{action} was called after its completion" for action, done in calls if done]
    if min(times.busy) > READY_MS:  # elapsed time would also tell what else the machine does
        broken.append(f"each restart took {min(times.busy):,.0f} ms of the processor, or more")
    broken += asyncio.run(faults_of(place.database))
    return Outcome(
        figures={
            "events in the file": EVENTS,
            "restarts": wanted,
            "ready, median ms": round(percentile(times.ready, 0.5)),
            "ready, p95 ms": round(percentile(times.ready, 0.95)),
            "of that, since opening the file, p95 ms": round(percentile(times.opened, 0.95)),
            "of the processor, median ms": round(percentile(times.busy, 0.5)),
        },
        broken=broken,
    )


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so many of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _history(path: Path) -> None:
    async with connect(path, durability="crash") as store:
        runtime = Runtime(store)
        for n in range(PLANS):
            write = Action(
                id="w", type=ActionType.STATE_WRITE, parameters={"key": f"k{n}", "value": n}
            )
            await runtime.execute(Proposal(actions=[write]), run_id=f"r{n}")
        await runtime.unfinished()  # as in any program that has run: the view is up to here
        while (head := (await store.log.head()).position) < EVENTS:
            await store.log.append(
                *[
                    Entry(
                        StreamName("notes"),
                        e.StateChanged(scope="main", key=f"n{n % 1000}", value=n),
                    )
                    for n in range(min(5_000, EVENTS - head))
                ]
            )


def _one_life(place: Place) -> tuple[float, float, float]:
    """Start a process, wait until it is at work, kill it; the milliseconds of `_Times`."""
    first = len(notes(place.journal))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([ABOVE, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    output = place.folder / "output.txt"
    with output.open("ab") as said:
        began = SystemClock().boot()
        command = [sys.executable, "-m", "engine.prove.restart", str(place.folder)]
        process = subprocess.Popen(
            [*command, *filter(None, [in_force()])], env=environment, stdout=said, stderr=said
        )
        try:
            wait_until(
                lambda: process.poll() is not None or _at_work(place, first),
                "the run goes on",
                seconds=60,
            )
        finally:
            process.kill()
            process.wait()
    said_now = notes(place.journal)[first:]
    if len(said_now) < 2:
        last_words = output.read_text(errors="replace")[-1000:].strip()
        raise ProofFailed(f"a process ended before it was at work. Its last words: {last_words}")
    opening, call = said_now[0]["opening"], said_now[1]["at"]
    return (call - began) / 1000, (call - opening) / 1000, said_now[1]["busy"]


def _at_work(place: Place, first: int) -> bool:
    return len(notes(place.journal)) >= first + 2


# --- the process ---


async def _live(place: Place) -> None:
    clock = SystemClock()

    @tool(idempotent=True)
    async def step(ctx: ToolContext) -> str:
        at, busy = clock.boot(), time.process_time() * 1000
        [[completed]] = place.look("count_successes", ctx.run_id, ctx.action_id)
        note(place.journal, action=ctx.action_id, at=at, busy=busy, completed=completed)
        await asyncio.sleep(0.01)
        return ctx.action_id

    note(place.journal, opening=clock.boot())
    async with connect(place.database) as store:
        runtime = Runtime(store, [step])
        if await runtime.recover():
            return
        actions = [
            Action(id=f"s{n}", tool="step", dependencies=[f"s{n - 1}"] if n else [])
            for n in range(STEPS)
        ]
        await runtime.execute(Proposal(actions=actions), run_id="interrupted")


def main(folder: str, broken: str | None = None) -> None:
    """The life of a process that is restarted."""
    if broken is not None:
        BREAKAGES[broken].apply()
    asyncio.run(_live(Place(Path(folder))))


RESTART = Proof(
    "restart",
    f"With {EVENTS:,} events in the file, a process that was killed is at work again within a"
    " second of its restart (p95).",
    _restart,
)

if __name__ == "__main__":
    main(*sys.argv[1:])
