"""Several processes that do one piece of work on one file, while some of them are killed.

Whoever is killed makes way for another that does the same, so the work ends. What the processes
note outside of the file is held, when all are over, against what the log tells.
"""

import asyncio
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import define, field, frozen

from carstore import connect
from carstore.clock import SystemClock
from carstore.errors import CarstoreError
from carstore.store import Store
from engine.context import ToolContext
from engine.ir import Proposal
from engine.prove.aftermath import faults_of
from engine.prove.broken import in_force
from engine.prove.family import Child, Family, kill, wait_until
from engine.prove.outside import SQL, looking
from engine.prove.proof import Outcome, Progress, Proof, Scale, by_scale
from engine.prove.workload import Place, answer, note
from engine.rules.budget import Budget
from engine.runtime import Runtime

__all__ = [
    "Life",
    "Round",
    "Told",
    "call_faults",
    "crowd_proof",
    "drive",
    "note_call",
    "opened_by_one",
    "story_of",
    "until_over",
]

PAUSE_SECONDS = (0.01, 0.12)
"""Between two kills. A process is begun and at work within some 0.05 s."""

AT_ONCE = 4
"""Runs that one process drives at the same time."""

LOOK_SECONDS = 0.005
"""How often a process looks for what is left to do."""

MORE_IF_BROKEN = 6
"""Rounds in which a promise that was broken on purpose is looked for; mostly one is enough."""

MAX_TOLD = 10
"""Broken promises of one round that are told."""

Life = tuple[Callable[..., None], tuple[Any, ...]]
"""What a process does: a function of a module, and what it is given after the folder."""


@frozen
class Told:
    """One event, as the file holds it."""

    position: int
    stream: str
    version: int
    kind: str
    at: int
    """Microseconds UTC."""
    run: str | None
    data: dict[str, Any]

    @property
    def action(self) -> str:
        """The action that it is about; nothing if it is about none."""
        found: str = self.data.get("action_id", "")
        return found


@define
class Round:
    """One file, the processes that work on it, and what came of that."""

    place: Place
    family: Family
    chance: random.Random
    counts: Counter[str] = field(factory=Counter)
    broken: list[str] = field(factory=list)
    dead: dict[int, int] = field(factory=dict)
    """Process -> when it was killed at the earliest, microseconds since the boot."""

    def live(self, lives: Sequence[Life], kills: int) -> None:
        """Let all of them live until they end by themselves, but kill some before.

        Raises:
            ProofFailed: a process failed by itself.
        """
        children = [(self._born(one), one) for one in lives]
        wait_until(
            lambda: self.place.journal.exists() or not all(c.is_alive() for c, _ in children),
            "a first call",
        )
        for _ in range(kills):
            time.sleep(self.chance.uniform(*PAUSE_SECONDS))
            for child, _ in children:
                self.family.check(child)
            alive = [one for one in children if one[0].is_alive()]
            if not alive:
                break
            victim, life = self.chance.choice(alive)
            self.dead[victim.pid or 0] = SystemClock().boot()
            kill(victim)
            children.remove((victim, life))
            children.append((self._born(life), life))
            self.counts["processes killed"] += 1
        for child, _ in children:
            self.family.finish(child)

    def _born(self, life: Life) -> Child:
        function, arguments = life
        return self.family.born(function, str(self.place.folder), *arguments)


def crowd_proof(
    name: str,
    promise: str,
    one_round: Callable[[Round], None],
    rounds: tuple[int, int, int],
) -> Proof:
    """The proof that has so many rounds, for each scale, each on a file of its own."""

    def run(folder: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        chance, counts = random.Random(f"{name} {seed}"), Counter[str]()
        wanted = by_scale(scale, *rounds) if in_force() is None else MORE_IF_BROKEN
        for n in range(wanted):
            progress(f"{name}: file {n + 1:,} of {wanted:,}")
            place = Place(folder / f"file {n}")
            place.folder.mkdir()
            with Family(place.folder) as family:
                one = Round(place, family, chance, counts)
                asyncio.run(_made(place))
                one_round(one)
            place.close()
            counts["files"] += 1
            one.broken += asyncio.run(faults_of(place.database))
            if one.broken:
                counts["promises broken"] += len(one.broken)
                break
            shutil.rmtree(place.folder)
        counts["promises broken"] += 0
        return Outcome(figures=_in_order(counts), broken=one.broken[:MAX_TOLD])

    return Proof(name, promise, run)


def _in_order(counts: Counter[str]) -> dict[str, int]:
    first, last = ("files", "processes killed"), ("promises broken",)
    between = sorted(counts.keys() - {*first, *last})
    return {name: counts[name] for name in (*first, *between, *last)}


async def _made(place: Place) -> None:
    async with opened_by_one(place):
        pass


# --- what the processes do ---


def opened_by_one(place: Place) -> Any:
    """The file of a round, for one of its processes."""
    return connect(place.database, durability="crash", busy_timeout_ms=20_000)


async def drive(
    place: Place,
    plans: Mapping[str, Proposal],
    made: Callable[[Store], Runtime],
    budgets: Mapping[str, Budget] = MappingProxyType({}),
) -> None:
    """Drive runs, in any order and several at once, until all are over. Doubts are answered as by
    a person who looks at what really happened.

    Args:
        plans, budgets: by the id of the run.
        made: the runtime that drives them.
    """
    chance, left, busy = random.Random(os.getpid()), dict(plans), set[str]()

    async def take_turns(runtime: Runtime) -> None:
        while left:
            free = sorted(left.keys() - busy)
            if free:
                name = chance.choice(free)
                busy.add(name)
                try:
                    if await _is_over(runtime, left[name], name, budgets.get(name)):
                        del left[name]
                finally:
                    busy.discard(name)
            await asyncio.sleep(LOOK_SECONDS)

    async def answers(store: Store) -> None:
        while left:
            await answer(store, place)
            await asyncio.sleep(4 * LOOK_SECONDS)

    async with opened_by_one(place) as store:
        runtime = made(store)
        await asyncio.gather(answers(store), *[take_turns(runtime) for _ in range(AT_ONCE)])
    place.close()


async def _is_over(runtime: Runtime, plan: Proposal, name: str, budget: Budget | None) -> bool:
    try:
        result = await runtime.execute(plan, run_id=name, budget=budget)
    except CarstoreError as error:
        if error.code != "run_owned":
            raise
        return False  # another process drives it
    return result.status != "waiting"


def _are_over(place: Place, runs: int) -> bool:
    """Whether so many runs have ended."""
    return int(place.look("count_ended")[0][0]) >= runs


async def until_over(place: Place, runs: int, once: Callable[[], Awaitable[None]]) -> None:
    """Do `once` of a person again and again, until so many runs have ended."""
    while not _are_over(place, runs):
        await once()
        await asyncio.sleep(LOOK_SECONDS)
    place.close()


def note_call(
    place: Place, ctx: ToolContext, effect: str, *, undo: bool = False, **more: Any
) -> None:
    """Note that a call begins, and what the file said at that moment: the note is its effect.

    Args:
        effect: `once` or `idempotent`, as the tool declares.
        more: what a proof notes besides.
    """
    history = place.look("action_history", f"run/{ctx.run_id}", ctx.action_id)
    family = "compensation" if undo else "action"
    note(
        place.journal,
        run=ctx.run_id,
        action=ctx.action_id,
        undo=undo,
        attempt=ctx.attempt,
        effect=effect,
        pid=os.getpid(),
        intent=(f"{family}_executing", ctx.attempt) in history,
        completed=any(kind == f"{family}_succeeded" for kind, _ in history),
        **more,
    )


# --- what came of it ---


def story_of(place: Place) -> list[Told]:
    """All events, in order, read by somebody who was not there."""
    with looking(place.database) as log:
        return [
            Told(position, stream, version, kind, at, run, json.loads(data))
            for position, stream, version, kind, at, run, data in log.execute(SQL["story"])
        ]


def call_faults(calls: Iterable[Mapping[str, Any]]) -> list[str]:
    """What must not be of any call, whatever a proof is about."""
    found, once = [], Counter[str]()
    for one in calls:
        who = f"{one['action']} of {one['run']}{' (undo)' if one['undo'] else ''}"
        if one["completed"]:
            found.append(f"{who} was called after its completion was recorded")
        if one["effect"] == "once":
            once[who] += 1
            if not one["intent"]:
                found.append(f"{who} was called without a durable intent")
    found += [f"{who} was carried out {count} times" for who, count in once.items() if count > 1]
    return found
