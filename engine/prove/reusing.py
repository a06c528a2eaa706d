"""Equal calls that several processes ask for at once, and whose results are to be remembered.

Each call notes when it began and ended, so that two at once are seen without the log.
"""

import asyncio
import itertools
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from attrs import frozen

from carstore.clock import SystemClock
from carstore.store import Store
from engine.context import ToolContext
from engine.declare import Tool, tool
from engine.ir import Action, FailureBehavior, Proposal
from engine.prove.crowd import (
    Round,
    Told,
    call_faults,
    crowd_proof,
    drive,
    note_call,
    story_of,
)
from engine.prove.workload import Place, note, notes
from engine.runtime import Runtime

__all__ = ["REUSING"]

DRIVERS = 3
RUNS = 16
KILLS = 12
KEYS = 20
"""Different calls that all runs together ask for."""

WANTED = 6
"""Calls that one run asks for."""

ANSWER_US = 1_000_000
"""A success that a person tells, of a call in doubt, is nobody's who holds the lease of that call.
So an equal call that is decided on at that moment begins; one that much later must not."""

TOOLS = ("once", "again")
"""By the parity of the key: a call that must not be repeated, and one that may."""


def reuse(folder: str) -> None:
    """The life of one process."""
    place = Place(Path(folder))
    plans = {f"r{n}": _plan(n) for n in range(RUNS)}

    def made(store: Store) -> Runtime:
        return Runtime(store, _tools(place), schedule="eager")

    asyncio.run(drive(place, plans, made))


def _plan(n: int) -> Proposal:
    keys = random.Random(n).choices(range(KEYS), k=WANTED)
    actions = [
        Action(
            id=f"a{i}",
            tool=TOOLS[key % 2],
            parameters={"key": key},
            dependencies=[f"a{i - 2}"] if i > 1 else [],
            idempotent=True,
            failure_behavior=FailureBehavior.SKIP,
        )
        for i, key in enumerate(keys)
    ]
    return Proposal(id=f"p{n}", actions=actions)


def _tools(place: Place) -> list[Tool]:
    clock = SystemClock()

    async def works(ctx: ToolContext, effect: str, key: int) -> str:
        began = clock.boot()
        note_call(place, ctx, effect, key=key, began=began)
        await asyncio.sleep(random.Random(f"{ctx.run_id} {ctx.action_id}").uniform(0.002, 0.03))
        note(place.acks, ended=[ctx.run_id, ctx.action_id, ctx.attempt], at=clock.boot())
        return ctx.action_id

    @tool
    async def once(ctx: ToolContext, key: int) -> str:
        return await works(ctx, "once", key)

    @tool(idempotent=True)
    async def again(ctx: ToolContext, key: int) -> str:
        return await works(ctx, "idempotent", key)

    return [once, again]


# --- what came of it ---


@frozen(order=True)
class _Span:
    """One call as it really was, microseconds since the boot."""

    began: int
    ended: int
    who: str


def _spans(one: Round) -> dict[int, list[_Span]]:
    """The calls for each key; one whose process was killed ended then at the latest."""
    ended = {tuple(said["ended"]): said["at"] for said in notes(one.place.acks)}
    found: dict[int, list[_Span]] = defaultdict(list)
    for call in notes(one.place.journal):
        name = (call["run"], call["action"], call["attempt"])
        end = ended.get(name, one.dead.get(call["pid"], call["began"]))
        found[call["key"]].append(_Span(call["began"], end, f"{call['action']} of {call['run']}"))
    return found


def _overlaps(spans: dict[int, list[_Span]]) -> list[str]:
    broken = []
    for key, several in spans.items():
        for before, after in itertools.pairwise(sorted(several)):
            if after.began < before.ended:
                broken.append(f"{before.who} and {after.who} called for {key} at the same time")
    return broken


def _forgotten(story: list[Told]) -> list[str]:
    """Calls that began although their result was there, and results that are not what was there."""
    succeeded: dict[str, Told] = {}
    by_position: dict[int, Told] = {}
    doubted: set[tuple[str | None, str]] = set()
    broken = []
    for told in story:
        if told.kind == "action_in_doubt":
            doubted.add((told.run, told.action))
        key: Any = told.data.get("reuse_key")
        who = f"{told.action} of {told.run}"
        if told.kind == "action_executing" and key in succeeded:
            before = succeeded[key]
            answered = (before.run, before.action) in doubted
            if not answered or told.at - before.at > ANSWER_US:
                broken.append(f"{who} was called after an equal call succeeded: {before.position}")
        elif told.kind == "action_succeeded" and key is not None:
            succeeded[key] = by_position[told.position] = told
        elif told.kind == "action_deduplicated":
            given = by_position.get(told.data["original_position"])
            if given is None or given.data["reuse_key"] != key:
                broken.append(f"{who} was given the result of no equal call")
            elif given.data["output"] != told.data["output"]:
                broken.append(f"{who} was given another result than that of {given.position}")
    return broken


def _reusing(one: Round) -> None:
    one.live([(reuse, ())] * DRIVERS, KILLS)
    story, calls, spans = story_of(one.place), notes(one.place.journal), _spans(one)
    one.broken += call_faults(calls) + _overlaps(spans) + _forgotten(story)
    unsettled = [t.run for t in story if t.kind == "proposal_completed" and not _is_well(t)]
    one.broken += [f"{run} did not succeed" for run in unsettled]
    one.counts += Counter({
        "runs finished": RUNS,
        "calls wanted": RUNS * WANTED,
        "calls made": len(calls),
        "different calls": len(spans),
        "results reused": sum(told.kind == "action_deduplicated" for told in story),
        "attempts in doubt": sum(told.kind == "action_in_doubt" for told in story),
    })  # fmt: skip


def _is_well(ended: Told) -> bool:
    return bool(ended.data["status"] == "succeeded")


REUSING = crowd_proof(
    "reuse",
    "Of equal calls whose result is to be remembered, asked for by several processes that are"
    " killed at it, no two are under way at once, and none begins after one has succeeded.",
    _reusing,
    (2, 15, 80),
)
