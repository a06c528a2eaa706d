"""Proofs that need no kill: each returns what it found broken, in sentences."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from carstore import connect
from carstore.clock import ManualClock
from carstore.errors import CarstoreError, LeaseHeld, StaleFence
from carstore.leases import GRACE_US, TTL_US
from carstore.log import Entry, Expect, Fence
from carstore.names import LeaseName, RunId, Scope, StateKey
from engine import Action, Proposal, RunOwned, Runtime, ToolContext, tool
from engine.ir import FailureBehavior
from tests.engine.harness import People, opened

Proof = Callable[[Path], Awaitable[list[str]]]

WRITERS = 20
"""Runs that count one counter up at the same moment."""


async def no_lost_update(folder: Path) -> list[str]:
    """Of runs that read, and then write, one key at once, only those are recorded that hold."""

    @tool
    async def count(ctx: ToolContext) -> int:
        value: int = await ctx.read("n", 0)
        ctx.set("n", value + 1)
        return value

    action = Action(id="count", tool="count", failure_behavior=FailureBehavior.SKIP)
    async with opened(folder / "a.db") as store:
        runtime = Runtime(store, [count])
        results = await asyncio.gather(
            *[runtime.execute(Proposal(actions=[action])) for _ in range(WRITERS)]
        )
        done = sum(one.results[0].status == "succeeded" for one in results)
        key = StateKey("n")
        total = (await store.log.state(Scope("main"), [key]))[key].value
    return [] if total == done else [f"{done} runs counted, but the counter is {total}"]


async def fence(folder: Path) -> list[str]:
    """A driver that was taken over, while it was paused, records nothing more."""
    people, begun, go_on = People(), asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    @tool
    async def slow(ctx: ToolContext) -> int:
        calls.append(ctx.attempt)
        begun.set()
        if ctx.attempt == 1:
            await go_on.wait()
        else:
            await asyncio.sleep(0.2)
        return ctx.attempt

    broken = []
    async with opened(folder / "a.db", people) as one, opened(folder / "a.db", people) as two:
        plan = Proposal(actions=[Action(id="slow", tool="slow")])
        first = asyncio.create_task(
            Runtime(one, [slow], on_doubt="retry").execute(plan, run_id="r")
        )
        await begun.wait()
        people.all_die()
        begun.clear()
        second = asyncio.create_task(Runtime(two, [slow]).resume("r"))
        await begun.wait()
        go_on.set()
        old, new = await asyncio.gather(first, second, return_exceptions=True)
        if not isinstance(old, RunOwned):
            broken.append(f"the driver that was taken over went on: {old!r:.200}")
        if isinstance(new, BaseException) or new.status != "succeeded":
            broken.append(f"the driver that took over could not go on: {new!r:.200}")
        ends = [r async for r in two.log.read(run=RunId("r"), kinds=["action_succeeded"])]
        if len(ends) != 1:
            broken.append(f"the action has {len(ends)} outcomes")
    return broken


async def tokens(folder: Path) -> list[str]:
    """Tokens strictly increase, and nothing is written under an old one."""
    from carstore import events as e
    from carstore.names import StreamName

    granted, broken = [], []
    async with opened(folder / "a.db") as store:
        lease = LeaseName("run/r")
        for _ in range(5):
            held = await store.leases.acquire(lease)
            granted.append(held.token)
            await store.leases.release(held)
        if granted != sorted(set(granted)):
            broken.append(f"tokens do not increase: {granted}")
        await store.leases.acquire(lease)
        entry = Entry(StreamName("run/r"), e.RunResumed(holder="an old one"), RunId("r"))
        try:
            await store.log.append(entry, expect=Expect(fence=Fence(lease, granted[-1])))
        except StaleFence:
            return broken
        return [*broken, f"an append under the old token {granted[-1]} was accepted"]


async def expiry(folder: Path) -> list[str]:
    """Nobody takes over a holder that may be alive before its expiry and the grace after it."""
    people, clock, broken = People(), ManualClock(), []
    lease = LeaseName("run/r")
    async with (
        opened(folder / "a.db", people, clock) as one,
        opened(folder / "a.db", people, clock) as two,
    ):
        held = await one.leases.acquire(lease)
        for step in (0, TTL_US, GRACE_US - 1):
            clock.advance(step)
            try:
                await two.leases.acquire(lease)
            except LeaseHeld:
                continue
            broken.append(f"taken over {clock.booted - 1_000_000:,} us after the grant")
            break
        if held.is_held(clock):
            broken.append("the holder believes to hold what others may take")
    return broken


async def settings(folder: Path) -> list[str]:
    """What SQLite does is what the durability's name says."""
    broken = []
    for durability, synchronous in (("power", 2), ("crash", 1)):
        async with connect(folder / f"{durability}.db", durability=durability) as store:  # type: ignore[arg-type]

            def ask(connection: Any) -> tuple[Any, ...]:
                names = ("journal_mode", "synchronous", "mmap_size")
                return tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)

            found = await store.database.write(ask)
            if found != ("wal", synchronous, 0):
                broken.append(f"{durability}: journal_mode, synchronous, mmap_size are {found}")
    return broken


PROOFS: dict[str, Proof] = {
    "no lost update": no_lost_update,
    "fence": fence,
    "tokens": tokens,
    "expiry": expiry,
    "settings": settings,
}


def prove(name: str, folder: Path) -> list[str]:
    """Run one proof; an error of the store counts as a broken promise too."""

    async def go() -> list[str]:
        try:
            return await asyncio.wait_for(PROOFS[name](folder), 30)
        except CarstoreError as error:
            return [f"{type(error).__name__}: {error}"]

    return asyncio.run(go())


__all__ = ["PROOFS", "prove"]
