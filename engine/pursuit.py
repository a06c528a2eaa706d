"""A pursuit as the log has it, and the one who appends to its stream.

The stream holds the goal with its limits, what the proposing cost, and the end, each appended under
the fence of the lease `pursuit/ID`, which whoever pursues the goal holds.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar

from attrs import define, field, frozen

from carstore import Entry, Expect, Store
from carstore import events as e
from carstore.errors import CarstoreError, LeaseLost
from carstore.leases import HeldLease, release
from carstore.log import Fence
from carstore.names import Json, LeaseName, RunId, StreamName, pursuit_stream
from engine.buffered import Metered
from engine.ir import RunResult
from engine.ledger import Ledger, opening
from engine.propose import Lineage
from engine.rules.budget import Account, Budget
from engine.rules.money import micros_by_unit

__all__ = [
    "CURRENCY",
    "MAX_STEPS",
    "Pursuit",
    "PursuitExists",
    "PursuitOwned",
    "PursuitResult",
    "PursuitStatus",
    "Terms",
    "step_id",
]

CURRENCY = "USD"
"""In which a pursuit is limited."""

MAX_STEPS = 10_000
"""Steps of one pursuit: the results of all of them are in memory."""


@define(slots=False, eq=False)
class PursuitOwned(CarstoreError):
    """Somebody else pursues this goal. What was done before was recorded."""

    code: ClassVar[str] = "pursuit_owned"
    pursuit: str
    holder: str
    expires_in_us: int = 0

    @property
    def message(self) -> str:
        wait = ""
        if self.expires_in_us > 0:
            wait = f" If it stays silent, its lease ends in {self.expires_in_us / 1e6:.0f} s."
        return f"pursuit {self.pursuit} is being driven by {self.holder}.{wait}"

    @property
    def where(self) -> str | None:
        return self.pursuit


@define(slots=False, eq=False)
class PursuitExists(CarstoreError):
    """The id is that of a pursuit of another goal. Nothing happened."""

    code: ClassVar[str] = "pursuit_exists"
    pursuit: str

    @property
    def message(self) -> str:
        return f"pursuit {self.pursuit} exists already, with another goal. Choose another id."

    @property
    def where(self) -> str | None:
        return "pursuit"


class PursuitStatus(StrEnum):
    """How a pursuit ended, or that it waits."""

    DONE = "done"
    FAILED = "failed"
    MAX_STEPS = "max_steps"
    MAX_COST = "max_cost"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    WAITING = "waiting"
    """Its last run waits for something, as `results[-1].waits_for` says. It has not ended."""


@frozen(kw_only=True)
class PursuitResult:
    """What a pursuit came to, or where it stands."""

    pursuit: str
    status: PursuitStatus
    steps: int
    """Proposals that were run, or have begun."""
    answer: Json = None
    """What the proposer said with `Done`."""
    reason: str | None = None
    """Why it ended."""
    results: tuple[RunResult, ...] = ()
    """What came of each step; of runs in the place of one that was aborted, the last."""


@frozen(kw_only=True)
class Terms:
    """What limits a pursuit that begins, and what its runtime gives to all runs."""

    max_steps: int = 20
    max_cost: Decimal | str | None = None
    ends_at: int | None = None
    """Microseconds UTC."""
    budget: Budget | None = None
    """Of each run."""
    lineage: Lineage = field(factory=Lineage)

    def __attrs_post_init__(self) -> None:
        if not (type(self.max_steps) is int and 1 <= self.max_steps <= MAX_STEPS):
            shown = f"{self.max_steps!r:.40}"
            raise ValueError(f"max_steps is a whole number from 1 to {MAX_STEPS:,}, not {shown}")

    @property
    def max_cost_micros(self) -> int | None:
        """Raises `InvalidBudget` if it is no amount."""
        if self.max_cost is None:
            return None
        return micros_by_unit({CURRENCY: self.max_cost}, "max_cost")[CURRENCY]


@define(eq=False)
class Pursuit:
    """One pursuit. Nothing is appended without `own`, but by those who have its lease."""

    store: Store
    name: str
    started: e.PursuitStarted | None = None
    ended: e.PursuitEnded | None = None
    metered: Counter[int] = field(factory=Counter)
    """Step -> how often the proposing of it was metered."""
    _held: HeldLease | None = None
    _ledger: Ledger = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ledger = Ledger(self.store)

    @property
    def account(self) -> str:
        """The name of its budget. A pursuit that is not limited, and is not a part of another
        budget, has none."""
        return f"pursuit/{self.name}"

    @property
    def lease(self) -> LeaseName:
        return LeaseName(self._stream)

    @property
    def _stream(self) -> StreamName:
        return pursuit_stream(self.name)

    async def load(self) -> None:
        """Read what is recorded of it."""
        self.metered.clear()
        async for recorded in self.store.log.read(stream=self._stream):
            match recorded.event:
                case e.PursuitStarted() as event:
                    self.started = event
                case e.PursuitEnded() as event:
                    self.ended = event
                case e.InferenceMetered(attempt=step):
                    self.metered[step] += 1
                case _:
                    pass  # of another program, which knows what it means

    async def own(self, begins: e.PursuitStarted | None = None, parent: str | None = None) -> None:
        """Take its lease, and record that it begins, if it does; then its budget is opened too.

        Args:
            parent: of which budget its own is to be a part.

        Raises:
            LeaseHeld: somebody else drives it.
            LeaseLost, VersionConflict: somebody else was faster.
            NotFound: there is no budget `parent`.
        """
        claim = await self.store.leases.claim(self.lease)
        entries, versions = [claim.entry], {}
        if begins is not None:
            entries.append(Entry(self._stream, begins))
            versions[self._stream] = 0
            entries += await self._opening(begins.max_cost_micros, parent)
        fence = Fence(self.lease, None)
        expect = Expect(versions=versions, leases=[claim.condition], fence=fence)
        done = await self.store.log.append(*entries, expect=expect)
        self._held = self.store.leases.hold(claim, done.first)
        self.started = begins or self.started

    async def _opening(self, most: int | None, parent: str | None) -> list[Entry]:
        """What opens its budget, if it needs one; one that was set before is used, and limited."""
        found = await self._ledger.load(self.account, must=False)
        if found.is_set:
            parent = found.parent
        elif parent is not None:
            await self._ledger.chain(parent)
        if most is None and (parent is None or found.is_set):
            return []
        limits = {} if most is None else {CURRENCY: most}
        return [opening(self.account, limits, parent=parent, by=str(self.store.leases.holder))]

    async def check_held(self) -> None:
        """Look whether we may still act for it: by our own clock, and by what the file says now.

        Raises:
            LeaseLost: somebody else may have taken over.
        """
        held, row = self._held, await self.store.leases.row(self.lease)
        ours = held is not None and row is not None and row.token == held.token
        if held is None or not ours or not held.is_held(self.store.clock):
            raise LeaseLost(self.lease)

    def is_late(self) -> bool:
        """Whether its time is over."""
        ends_at = None if self.started is None else self.started.ends_at
        return ends_at is not None and ends_at <= self.store.clock.now()

    async def meter(self, step: int, source: str, metered: Sequence[Metered]) -> None:
        """Record what the proposing of a step took, and take it from the budget.

        Raises:
            StaleFence: somebody else has taken over.
        """
        if not metered:
            return
        first = self.metered[step]
        entries = [
            Entry(
                self._stream,
                e.InferenceMetered(
                    agent=one.agent or source,
                    action_id="propose",
                    attempt=step,
                    n=n,
                    model=one.model,
                    tokens_in=one.tokens_in,
                    tokens_out=one.tokens_out,
                    cost_micros=one.cost_micros,
                    currency=one.currency,
                ),
            )
            for n, one in enumerate(metered, first)
        ]
        spent: Counter[str] = Counter()
        for one in metered:
            spent[one.currency] += one.cost_micros
        name = f"{self.name}/propose/do/{step}"
        entries += self._ledger.settle(await self.accounts(), name, {}, spent)
        await self._append(*entries)
        self.metered[step] += len(metered)

    async def accounts(self) -> list[Account]:
        """Its budget, and those of which that is a part, nearest first; none if it has none."""
        account = await self._ledger.load(self.account, must=False)
        return await self._ledger.chain(self.account) if account.is_set else []

    async def end(self, event: e.PursuitEnded) -> None:
        """Record the end, and give the lease back.

        Raises:
            StaleFence: somebody else has taken over.
        """
        assert self._held is not None
        await self._append(Entry(self._stream, event), release(self._held))
        self.store.leases.forget(self._held)
        self._held, self.ended = None, event

    async def let_go(self) -> None:
        """Leave it to whoever goes on, at once if the store allows."""
        if self._held is not None:
            with suppress(CarstoreError):  # else the lease expires, as nobody renews it any more
                await self.store.leases.release(self._held)
            self._held = None

    async def _append(self, *entries: Entry) -> None:
        assert self._held is not None
        fence = Fence(self._held.name, self._held.token)
        await self.store.log.append(*entries, expect=Expect(fence=fence))


def step_id(pursuit: str, step: int) -> RunId:
    """The run that is a step of a pursuit, from 1."""
    return RunId(f"{pursuit}-s{step}")
