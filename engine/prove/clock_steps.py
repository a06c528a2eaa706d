"""Wall clocks that jump by an hour, back and forth, while leases are held and a run is driven.

The deadline that a holder keeps for itself is measured since the boot, so no step of the wall
clock makes it act for longer. The expiry in the file is a wall time: a step forward can let
somebody take over a holder that is alive. That is safe, because of the fence, and must remain so.
"""

from collections import Counter

from carstore import events as e
from carstore.clock import ManualClock
from carstore.errors import CarstoreError, LeaseHeld, LeaseLost, StaleFence
from carstore.leases import TTL_US, HeldLease
from carstore.log import Entry, Expect, Fence
from carstore.names import LeaseName, RunId, StreamName
from carstore.store import Store
from engine.context import ToolContext
from engine.declare import tool
from engine.ir import Action, FailureBehavior, Proposal
from engine.prove.people import People, opened
from engine.prove.rules import Trial, rule
from engine.rules.retries import Backoff
from engine.runtime import Runtime

__all__ = ["CLOCK_STEPS"]

HOUR_US = 3_600_000_000

MOVES = 60
"""Moves of one trial: a step of the clock, an attempt to acquire, an append, a release."""

_LEASE = LeaseName("run/r")
_STREAM = StreamName("run/r")


async def _steps(trial: Trial) -> None:
    await _leases(trial)
    await _run(trial)


async def _leases(trial: Trial) -> None:
    """Two processes contend for one lease while the clock that both read jumps about."""
    people, clock, chance = People(), ManualClock(), trial.chance
    newest = 0
    async with (
        opened(trial.database, people, clock) as one,
        opened(trial.database, people, clock) as two,
    ):
        held: dict[str, HeldLease] = {}
        for _ in range(MOVES):
            store = chance.choice((one, two))
            me = store.leases.holder.incarnation
            match chance.randrange(5):
                case 0:
                    clock.wall += chance.choice((-HOUR_US, HOUR_US))
                    trial.counts["steps of the wall clock by one hour"] += 1
                case 1:
                    clock.advance(chance.randrange(TTL_US))
                case 2:
                    try:
                        got = await store.leases.acquire(_LEASE)
                    except (LeaseHeld, LeaseLost):
                        continue
                    trial.counts["grants"] += 1
                    if got.token <= newest:
                        trial.broken.append(f"token {got.token} was granted after {newest}")
                    newest, held[me] = got.token, got
                case 3 if me in held:
                    await _write(trial, store, held[me], newest)
                case 4 if me in held:
                    await store.leases.release(held.pop(me))
            for one_held in held.values():
                _judge(trial, one_held, clock)
            if trial.broken:
                return


async def _write(trial: Trial, store: Store, held: HeldLease, newest: int) -> None:
    entry = Entry(_STREAM, e.RunResumed(holder="somebody"), RunId("r"))
    try:
        await store.log.append(entry, expect=Expect(fence=Fence(_LEASE, held.token)))
    except StaleFence:
        trial.counts["writes under an old token, refused"] += 1
        return
    trial.counts["writes under the current token"] += 1
    if held.token != newest:
        trial.broken.append(f"a write under {held.token} went in after {newest} was granted")


def _judge(trial: Trial, held: HeldLease, clock: ManualClock) -> None:
    if held.is_held(clock) and clock.booted >= held.deadline_us:
        trial.broken.append(
            f"{clock.booted - held.deadline_us:,} us after its deadline a holder believes to hold"
        )


async def _run(trial: Trial) -> None:
    """A run whose clock jumps during each of its calls ends as it would have without."""
    clock, calls = ManualClock(), Counter[str]()

    @tool(idempotent=True)
    async def jump(ctx: ToolContext) -> int:
        calls[ctx.action_id] += 1
        clock.wall += trial.chance.choice((-HOUR_US, HOUR_US))
        trial.counts["steps of the wall clock by one hour"] += 1
        if ctx.attempt == 1 and ctx.action_id == "a1":
            raise ValueError("once")
        ctx.set(ctx.action_id, ctx.attempt)
        return ctx.attempt

    actions = [
        Action(
            id=f"a{n}",
            tool="jump",
            dependencies=[f"a{n - 1}"] if n else [],
            failure_behavior=FailureBehavior.RETRY,
        )
        for n in range(4)
    ]
    path = trial.folder / "run.db"
    async with opened(path, clock=clock) as store:
        runtime = Runtime(store, [jump], backoff=Backoff(base_ms=1))
        try:
            result = await runtime.execute(Proposal(actions=actions), run_id="r")
        except CarstoreError as error:
            trial.broken.append(f"the run ended with {type(error).__name__}: {error}")
            return
    trial.counts["runs driven meanwhile"] += 1
    if result.status != "succeeded" or calls != Counter(a0=1, a1=2, a2=1, a3=1):
        trial.broken.append(f"the run is {result.status}, after the calls {dict(calls)}")


CLOCK_STEPS = rule(
    "clock steps",
    "Wall clocks that step by an hour change nothing about safety: tokens increase, nothing is"
    " written under an old one, and nobody acts past its own deadline.",
    _steps,
    (5, 50, 300),
)
