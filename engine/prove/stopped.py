"""Processes that are stopped, woken and killed while they contend for the same runs.

What they note is read by somebody who was not there, and held against the log.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import define, field

from carstore import connect
from carstore.clock import SystemClock
from carstore.errors import CarstoreError
from carstore.leases import GRACE_US, TTL_US
from carstore.names import Micros
from engine.context import ToolContext
from engine.declare import Tool, tool
from engine.ir import Action, Proposal
from engine.journal import Journal
from engine.prove.aftermath import faults_of
from engine.prove.family import Child, Family, kill, wait_until
from engine.prove.outside import SQL, looking
from engine.prove.proof import Outcome, Progress, Proof, Scale, by_scale
from engine.prove.workload import Place, note, notes, tell_acknowledgements
from engine.runtime import Runtime

__all__ = ["STOPPED"]

DRIVERS = 3
"""Processes that want to drive the same runs."""

HASTE = 150
"""How much faster their clock goes, so that leases expire while a process is stopped."""

STEPS = 5
"""Calls of each run, one after the other."""

STOP_SECONDS = (0.02, 0.3, 1.2)
"""How long a process is stopped at most: shorter and longer than a lease lasts."""


@define
class HastyClock:
    """The machine's clocks, but faster. All processes that begin with one reading agree."""

    wall: int
    booted: int
    real: SystemClock = field(factory=SystemClock)

    def now(self) -> Micros:
        return Micros(self.wall + self.boot() - self.booted)

    def boot(self) -> Micros:
        return Micros(self.booted + (self.real.boot() - self.booted) * HASTE)


def drive_many(folder: str, wall: int, booted: int) -> None:
    """The life of one process that drives whatever runs it gets hold of."""
    asyncio.run(_drive_many(Place(Path(folder)), HastyClock(wall, booted)))


async def _drive_many(place: Place, clock: HastyClock) -> None:
    looked = [0]
    check_held = Journal.check_held

    def looking(journal: Journal) -> None:
        check_held(journal)
        looked[0] = clock.real.boot()

    Journal.check_held = looking  # type: ignore[method-assign,assignment]
    async with connect(
        place.database, durability="crash", clock=clock, busy_timeout_ms=20_000
    ) as store:
        tell_acknowledgements(store, place)
        runtime = Runtime(store, [_step_tool(place, clock, looked)])
        chance, n = random.Random(os.getpid()), 0
        while not (place.folder / "enough").exists() or await runtime.unfinished():
            try:
                if not (place.folder / "enough").exists():
                    await runtime.execute(_plan(n), run_id=f"{os.getpid()}-{n}")
                n += 1
                await runtime.recover()
            except CarstoreError as error:
                if error.code not in ("run_owned", "run_exists", "version_conflict"):
                    raise
            await asyncio.sleep(chance.uniform(0, 0.02))
    place.close()


def _step_tool(place: Place, clock: HastyClock, looked: list[int]) -> Tool:
    @tool(idempotent=True)
    async def step(ctx: ToolContext) -> int:
        began = clock.real.boot()
        [[owner]] = place.look("owner", f"run/{ctx.run_id}")
        note(
            place.journal,
            run=ctx.run_id,
            action=ctx.action_id,
            pid=os.getpid(),
            owner=owner,
            looked=looked[0],
            began=began,
        )
        count: int = await ctx.read(str(ctx.run_id), 0)
        await asyncio.sleep(0.02)
        ctx.set(str(ctx.run_id), count + 1)
        return count

    return step


def _plan(n: int) -> Proposal:
    actions = [
        Action(id=f"s{i}", tool="step", dependencies=[f"s{i - 1}"] if i else [])
        for i in range(STEPS)
    ]
    return Proposal(id=f"p{n}", actions=actions)


@define
class _Stops:
    """Stops, wakes and kills the drivers of one file, and remembers when."""

    place: Place
    family: Family
    chance: random.Random
    clock: SystemClock = field(factory=SystemClock)
    start: tuple[int, int] = (0, 0)
    drivers: list[Child] = field(factory=list)
    stopped: list[tuple[int, int, int]] = field(factory=list)
    """Process, stopped at, woken at: microseconds since the boot."""
    killed: dict[int, int] = field(factory=dict)
    """Process -> when it was killed, as its own clock tells it."""

    def born(self) -> None:
        if not self.drivers:
            self.start = (self.clock.now(), self.clock.boot())
        child = self.family.born(drive_many, str(self.place.folder), *self.start)
        self.drivers.append(child)

    def once(self) -> None:
        """Stop one of them for a while, now and then all but one, and seldom kill one."""
        self.check()
        time.sleep(self.chance.uniform(0, 0.08))
        chosen = self.chance.sample(self.drivers, self.chance.choice((1, 1, DRIVERS - 1)))
        if self.chance.random() < 0.1:
            victim = chosen[0]
            self.killed[victim.pid or 0] = HastyClock(*self.start).now()
            kill(victim)
            self.drivers.remove(victim)
            self.born()
            return
        at = self.clock.boot()
        for child in chosen:
            os.kill(child.pid or 0, signal.SIGSTOP)
        time.sleep(self.chance.uniform(0, self.chance.choice(STOP_SECONDS)))
        for child in chosen:
            os.kill(child.pid or 0, signal.SIGCONT)
            self.stopped.append((child.pid or 0, at, self.clock.boot()))

    def check(self) -> None:
        for child in self.drivers:
            self.family.check(child)


def _stopped(folder: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
    place, seconds = Place(folder), by_scale(scale, 6, 30, 120)
    asyncio.run(_made(place.database))
    with Family(folder) as family:
        stops = _Stops(place, family, random.Random(f"stopped {seed}"))
        for _ in range(DRIVERS):
            stops.born()
        wait_until(lambda: place.journal.exists(), "a first call")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stops.once()
            progress(f"stopped processes: {len(stops.stopped):,} stops")
        (folder / "enough").touch()
        for child in stops.drivers:
            family.finish(child)
    return _judge_stopped(place, stops)


def _judge_stopped(place: Place, stops: _Stops) -> Outcome:
    with looking(place.database) as log:
        rows = log.execute(SQL["fenced"]).fetchall()
    history = _LeaseHistory(stops.killed)
    for row in rows:
        history.take(*row)
    broken = [*history.broken, *_strange_writers(place, history.holders, rows)]
    calls, excused = notes(place.journal), 0
    for call in calls:
        if call["pid"] == call["owner"]:
            continue
        if _was_stopped(stops.stopped, call["pid"], call["looked"], call["began"]):
            excused += 1
        else:
            broken.append(f"{call['action']} of {call['run']} was called by one who had lost it")
    broken += _uneven(rows)
    broken += asyncio.run(faults_of(place.database))
    figures = {
        "processes": DRIVERS,
        "stops": len(stops.stopped),
        "kills": len(stops.killed),
        "grants": len(history.holders),
        "of them after an expiry": history.expired,
        "of them from a killed process": history.gone,
        "tool calls": len(calls),
        "stopped between the last look at the lease and the call": excused,
        "promises broken": len(broken),
    }
    return Outcome(figures=figures, broken=broken[:20])


async def _made(path: Path) -> None:
    async with connect(path):
        pass


@define
class _LeaseHistory:
    """The leases as the events tell them, and what of it must not have been."""

    killed: dict[int, int]
    current: dict[str, tuple[int, int, int] | None] = field(factory=dict)
    """Lease -> token, expiry, process."""
    holders: dict[int, int] = field(factory=dict)
    """Token -> process."""
    newest: dict[str, int] = field(factory=dict)
    expired: int = 0
    gone: int = 0
    broken: list[str] = field(factory=list)

    def take(
        self, position: int, kind: str, at: int, fence: str | None, token: int | None, data: str
    ) -> None:
        body = json.loads(data)
        if kind == "lease_granted":
            self._granted(position, at, body)
        elif kind == "lease_renewed":
            for one in body["leases"]:
                held = self.current.get(one["lease"])
                if held is not None and held[0] == one["token"]:
                    self.current[one["lease"]] = (held[0], at + TTL_US, held[2])
        if fence is not None:
            held = self.current.get(fence)
            if held is None or held[0] != token:
                self.broken.append(f"event {position} was written under the old token {token}")
        if kind == "lease_released":
            held = self.current.get(body["lease"])
            if held is not None and held[0] == body["token"]:
                self.current[body["lease"]] = None

    def _granted(self, position: int, at: int, body: dict[str, Any]) -> None:
        lease, pid = body["lease"], body["holder"]["pid"]
        held = self.current.get(lease)
        if held is not None and held[1] + GRACE_US <= at:
            self.expired += 1
        elif held is not None and self.killed.get(held[2], at + 1) <= at:
            self.gone += 1
        elif held is not None:
            self.broken.append(f"{lease} was granted at {position} while {held[2]} held it")
        if position <= self.newest.get(lease, 0):
            self.broken.append(f"the token {position} of {lease} does not grow")
        self.newest[lease] = position
        self.holders[position] = pid
        self.current[lease] = (position, at + body["ttl_us"], pid)


def _strange_writers(place: Place, holders: dict[int, int], rows: list[Any]) -> list[str]:
    """Appends that were acknowledged to one process and went in under the token of another."""
    tokens = {position: token for position, _, _, _, token, _ in rows}
    broken = []
    for one in notes(place.acks):
        if "told" not in one:
            continue
        writer = int(one["told"].partition("-")[0])
        for at in range(one["first"], one["last"] + 1):
            token = tokens[at]
            if token is not None and holders.get(token) != writer:
                broken.append(f"event {at} was written under the token of another process")
    return broken


def _was_stopped(stopped: list[tuple[int, int, int]], pid: int, looked: int, began: int) -> bool:
    """Whether the process was stopped between its last look at the lease and the call: nobody can
    look and call at one moment."""
    return any(who == pid and looked <= woken and at <= began for who, at, woken in stopped)


def _uneven(rows: list[Any]) -> list[str]:
    """Runs whose calls were not counted exactly once each."""
    ended: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    for _, kind, _, fence, _, _ in rows:
        ended[fence or ""] += kind == "proposal_completed"
        steps[fence or ""] += kind == "action_succeeded"
    return [
        f"{run}: {steps[run]} successes, {count} ends"
        for run, count in ended.items()
        if run and (count != 1 or steps[run] != STEPS)
    ]


STOPPED = Proof(
    "stopped processes",
    "Processes that are stopped, woken and killed while they contend for the same runs never act"
    " for what was taken from them: tokens grow, nothing is written under an old one.",
    _stopped,
)
