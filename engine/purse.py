"""The budgets that one run draws on, within one turn of its driver.

What is reserved in a turn is appended with the intents of the calls, under the condition that the
ledgers are where they were read. So of two drivers that would both take the last amount one is
refused, reads again, and sees that it is gone. Drivers of one runtime wait for each other instead:
whoever has reserved holds a lock until its turn is recorded.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from attrs import define, field

from carstore.errors import VersionConflict
from carstore.log import Entry, Expect, LeaseIs
from carstore.names import RunId, StreamName
from engine.accounts import Budgets, after
from engine.rules.budget import Account

__all__ = ["Purse", "reservation_name", "run_account"]


NOTHING: Mapping[str, int] = MappingProxyType({})


def run_account(run_id: RunId) -> str:
    """The account of a run's own budget."""
    return f"run/{run_id}"


def reservation_name(run_id: RunId, action_id: str, attempt: int, *, undo: bool) -> str:
    """Under which name a call reserves what it may spend."""
    return f"{run_id}/{action_id}/{'undo' if undo else 'do'}/{attempt}"


@define(eq=False)
class Purse:
    """What a run may still spend, and what is reserved of that in this turn."""

    ledger: Budgets
    locks: dict[str, asyncio.Lock]
    """By the name of the account that stands at the top of a chain."""
    account: str
    run_id: RunId
    _chain: list[Account] = field(factory=list)
    """As it is read, with what this turn has decided on top."""
    _decided: list[Entry] = field(factory=list)
    _held: asyncio.Lock | None = None

    async def reserve(
        self, name: str, amounts: Mapping[str, int]
    ) -> tuple[list[Entry], Mapping[StreamName, int]]:
        """The events that set `amounts` aside, and the versions on which that rests.

        Raises:
            BudgetExhausted: naming the budget and the unit.
        """
        if self._held is None:
            await self._lock()
        entries, versions = self.ledger.reserve(self._chain, name, amounts, self.run_id)
        return self._note(self._chain, entries), versions

    async def settle(
        self, name: str, spent: Mapping[str, int] = NOTHING, *, keep: bool = False
    ) -> list[Entry]:
        """The events that end a reservation: what was spent is taken, and the rest given back.

        Args:
            spent: unit -> millionths.
            keep: the call is in doubt, and may have spent all that it has reserved: the rest stays
                reserved.
        """
        chain = await self._look()
        held = chain[0].open.get(name, NOTHING)
        kept = {unit: min(amount, held.get(unit, 0)) for unit, amount in spent.items()}
        given = kept if keep else None
        return self._note(chain, self.ledger.settle(chain, name, given, spent, self.run_id))

    async def forfeit(self, name: str) -> list[Entry]:
        """The events that end the reservation of a call of which nobody knows what it has spent:
        it counts in full."""
        chain = await self._look()
        spent = chain[0].open.get(name, NOTHING)
        return self._note(chain, self.ledger.settle(chain, name, None, spent, self.run_id))

    async def spend(self, name: str, unit: str, micros: int, lease: LeaseIs) -> int | None:
        """Add to a reservation by an append of its own; what is left then, None: no limit.

        Args:
            lease: of the run, which has to be ours still.

        Raises:
            BudgetExhausted: there is less left.
            LeaseLost: somebody else drives the run.
        """
        chain = await self.ledger.chain(self.account)
        async with self.locks.setdefault(chain[-1].name, asyncio.Lock()):
            while True:
                chain = await self.ledger.chain(self.account)
                entries, versions = self.ledger.reserve(chain, name, {unit: micros}, self.run_id)
                expect = Expect(versions=versions, leases=[lease])
                try:
                    if entries:
                        await self.ledger.store.log.append(*entries, expect=expect)
                except VersionConflict:
                    continue  # another process was faster; look what is left
                return _least(after(chain, entries), unit)

    def _note(self, chain: list[Account], entries: list[Entry]) -> list[Entry]:
        self._chain = after(chain, entries)
        self._decided += entries
        return entries

    async def _look(self) -> list[Account]:
        return self._chain or await self.ledger.chain(self.account)

    async def _lock(self) -> None:
        chain = await self.ledger.chain(self.account)
        lock = self.locks.setdefault(chain[-1].name, asyncio.Lock())
        await lock.acquire()
        self._held = lock
        self._chain = after(await self.ledger.chain(self.account), self._decided)

    def end_turn(self) -> None:
        """What was reserved is recorded, or dropped; what is known of the ledgers is old."""
        self._chain = []
        self._decided = []
        if self._held is not None:
            self._held.release()
            self._held = None


def _least(chain: list[Account], unit: str) -> int | None:
    """What may still be taken from every account; None: any amount."""
    left = [one.balances[unit].remaining for one in chain if unit in one.balances]
    return min((one for one in left if one is not None), default=None)
