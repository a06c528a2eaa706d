"""Rules that need no kill: each is tried in one process, several times, in a file of its own."""

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from attrs import define, field

from carstore import connect
from carstore import events as e
from carstore.clock import ManualClock
from carstore.errors import Busy, LeaseHeld, StaleFence
from carstore.leases import GRACE_US, TTL_US
from carstore.log import Entry, Expect, Fence
from carstore.names import LeaseName, RunId, Scope, StateKey, StreamName
from engine.context import ToolContext
from engine.declare import tool
from engine.errors import RunOwned
from engine.ir import Action, FailureBehavior, Proposal
from engine.prove.aftermath import faults_of
from engine.prove.family import ProofFailed
from engine.prove.people import People, opened
from engine.prove.proof import Outcome, Progress, Proof, Scale, by_scale
from engine.runtime import Runtime

__all__ = ["RULES", "Trial", "rule"]

WRITERS = 20
"""Runs that count one counter up at the same moment."""

MAX_SECONDS = 60
"""Of one trial; it only ends what hangs."""

BUSY_TIMEOUT_MS = 200
"""How long a writer waits for a lock that is not given up."""

BUSY_LATE_SECONDS = 2.0
"""How much later than its timeout it may be told so, on a machine that is busy itself."""

_LEASE = LeaseName("run/r")


@define
class Trial:
    """One try of a rule: where, with what chance, and what came of it."""

    folder: Path
    chance: random.Random
    counts: Counter[str] = field(factory=Counter)
    broken: list[str] = field(factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "a.db"


def rule(
    name: str,
    promise: str,
    attempt: Callable[[Trial], Awaitable[None]],
    times: tuple[int, int, int],
) -> Proof:
    """The proof that tries a rule, as often as `times` says for each scale."""

    def run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
        chance, wanted = random.Random(f"{name} {seed}"), by_scale(scale, *times)
        counts: Counter[str] = Counter()
        broken: list[str] = []
        for n in range(wanted):
            progress(f"{name}: {n:,} of {wanted:,}")
            trial = Trial(place / f"trial {n}", chance)
            trial.folder.mkdir()
            asyncio.run(_tried(attempt, trial))
            counts += trial.counts
            counts["times tried"] += 1
            broken += trial.broken
            if broken:
                break
        first = {"times tried": counts.pop("times tried")}
        return Outcome(figures={**first, **counts}, broken=broken)

    return Proof(name, promise, run)


async def _tried(attempt: Callable[[Trial], Awaitable[None]], trial: Trial) -> None:
    try:
        async with asyncio.timeout(MAX_SECONDS):
            await attempt(trial)
    except TimeoutError:
        raise ProofFailed(f"one try took more than {MAX_SECONDS} s") from None
    if trial.database.exists():
        trial.broken += await faults_of(trial.database)


async def no_lost_update(trial: Trial) -> None:
    """Of runs that read, and then write, one key at once, only those are recorded that hold."""

    @tool
    async def count(ctx: ToolContext) -> int:
        value: int = await ctx.read("n", 0)
        ctx.set("n", value + 1)
        return value

    action = Action(id="count", tool="count", failure_behavior=FailureBehavior.SKIP)
    async with opened(trial.database) as store:
        runtime = Runtime(store, [count])
        results = await asyncio.gather(
            *[runtime.execute(Proposal(actions=[action])) for _ in range(WRITERS)]
        )
        done = sum(one.results[0].status == "succeeded" for one in results)
        key = StateKey("n")
        total = (await store.log.state(Scope("main"), [key]))[key].value
    trial.counts += Counter({"runs at once": WRITERS, "updates recorded": done})
    if total != done:
        trial.broken.append(f"{done} runs counted, but the counter is {total}")


async def fence(trial: Trial) -> None:
    """A driver that was taken over, while it was paused, records nothing more."""
    people, begun, go_on = People(), asyncio.Event(), asyncio.Event()

    @tool
    async def slow(ctx: ToolContext) -> int:
        begun.set()
        if ctx.attempt == 1:
            await go_on.wait()
        else:
            await asyncio.sleep(0.2)
        return ctx.attempt

    broken = trial.broken
    async with opened(trial.database, people) as one, opened(trial.database, people) as two:
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
    trial.counts["drivers taken over"] += 1


async def tokens(trial: Trial) -> None:
    """Tokens strictly increase, and nothing is written under an old one."""
    granted = []
    async with opened(trial.database) as store:
        for _ in range(5):
            held = await store.leases.acquire(_LEASE)
            granted.append(held.token)
            await store.leases.release(held)
        trial.counts["tokens"] += len(granted)
        if granted != sorted(set(granted)):
            trial.broken.append(f"tokens do not increase: {granted}")
        await store.leases.acquire(_LEASE)
        entry = Entry(StreamName("run/r"), e.RunResumed(holder="an old one"), RunId("r"))
        for token in granted:
            try:
                await store.log.append(entry, expect=Expect(fence=Fence(_LEASE, token)))
            except StaleFence:
                trial.counts["appends under an old token, refused"] += 1
            else:
                trial.broken.append(f"an append under the old token {token} was accepted")


async def expiry(trial: Trial) -> None:
    """Nobody takes over a holder that may be alive before its expiry and the grace after it."""
    people, clock = People(), ManualClock()
    async with (
        opened(trial.database, people, clock) as one,
        opened(trial.database, people, clock) as two,
    ):
        held = await one.leases.acquire(_LEASE)
        granted_at = clock.booted
        early = trial.chance.randrange(TTL_US)
        for step in (0, early, TTL_US - early, GRACE_US - 1):
            clock.advance(step)
            try:
                await two.leases.acquire(_LEASE)
            except LeaseHeld:
                trial.counts["too early, refused"] += 1
                continue
            trial.broken.append(f"taken over {clock.booted - granted_at:,} us after the grant")
            break
        if held.is_held(clock):
            trial.broken.append("the holder believes to hold what others may take")
        clock.advance(1)
        if not trial.broken:
            await two.leases.acquire(_LEASE)


async def settings(trial: Trial) -> None:
    """What SQLite does is what the durability's name says."""
    for durability, synchronous in (("power", 2), ("crash", 1)):
        path = trial.folder / f"{durability}.db"
        async with connect(path, durability=durability) as store:  # type: ignore[arg-type]

            def ask(connection: Any) -> tuple[Any, ...]:
                names = ("journal_mode", "synchronous", "mmap_size")
                return tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)

            found = await store.database.write(ask)
            trial.counts["settings read back"] += len(found)
            if found != ("wal", synchronous, 0):
                trial.broken.append(
                    f"{durability}: journal_mode, synchronous, mmap_size are {found}"
                )


async def busy(trial: Trial) -> None:
    """A writer whom another one blocks gets a typed `Busy`, about when its timeout says."""
    entry = Entry(StreamName("notes"), e.StateChanged(scope="main", key="k", value=1))
    async with connect(
        trial.database, durability="crash", busy_timeout_ms=BUSY_TIMEOUT_MS
    ) as store:
        before = (await store.log.head()).position
        blocker = sqlite3.connect(trial.database, isolation_level=None)
        try:
            blocker.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            try:
                await store.log.append(entry)
            except Busy:
                waited = time.monotonic() - began
                trial.counts["Busy, within its timeout"] += 1
                if not BUSY_TIMEOUT_MS / 1000 * 0.9 <= waited <= BUSY_LATE_SECONDS:
                    trial.broken.append(f"Busy came after {waited:.2f} s, not {BUSY_TIMEOUT_MS} ms")
            except Exception as error:  # noqa: BLE001 - a raw error is what must not come
                trial.broken.append(f"a blocked writer got {error!r:.200}, not Busy")
            else:
                trial.broken.append("an append went past another's write transaction")
        finally:
            blocker.close()
        if (await store.log.head()).position != before:
            trial.broken.append("something of a refused append is there")
        await store.log.append(entry)
        trial.counts["appends once the lock was given up"] += 1


RULES = (
    rule(
        "no lost update",
        "Of runs that change one state key at the same time, none overwrites what it has not seen.",
        no_lost_update,
        (2, 20, 100),
    ),
    rule(
        "fence",
        "A driver that was taken over while it was paused records nothing more.",
        fence,
        (1, 10, 50),
    ),
    rule(
        "tokens",
        "Fencing tokens strictly increase, and a write under an old one is refused.",
        tokens,
        (3, 50, 200),
    ),
    rule(
        "expiry",
        "A holder that may be alive is not taken over before its lease has expired, grace"
        " included.",
        expiry,
        (5, 50, 200),
    ),
    rule(
        "settings",
        "What SQLite does is what the durability's name says, read back from SQLite.",
        settings,
        (1, 5, 20),
    ),
    rule(
        "busy",
        "A writer blocked by another one gets a typed Busy within its timeout, and goes on later.",
        busy,
        (1, 5, 20),
    ),
)
