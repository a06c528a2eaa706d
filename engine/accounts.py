"""Budgets as they stand in the log: who has reserved what, and what was spent.

A budget is a stream, `budget/NAME`, and may be a part of another: what is taken from it is taken
from its parent too, up to the last one. Nothing here appends on behalf of a run: `reserve` and
`settle` give the events, and the run's driver appends them together with what they are for, the
intent or the outcome of a call. So a reservation is there exactly if its intent is.

A reservation is made under the versions of all budgets it takes from. Two processes that want the
last cent therefore cannot both have it: one append is refused, and decides again on what it reads
then. A settlement needs no condition; the money is spent, whatever the budget says.

An account that was read is kept. It may be out of date by what others have done since, so `load`
and `chain` look for that, unless asked not to.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from attrs import define, evolve, field

from carstore import Entry, Store
from carstore.errors import NotFound
from carstore.events import BudgetReserved, BudgetSet, BudgetSettled
from carstore.names import RunId, StreamName, budget_stream
from engine.rules.budget import Account, BudgetExhausted
from engine.rules.money import InvalidBudget
from projections.budgets import BudgetEvent

__all__ = ["MAX_ACCOUNTS", "MAX_ANCESTORS", "Budgets", "Ledger", "after", "entry_of"]

MAX_ANCESTORS = 8
"""Budgets above one. Each reservation is an event in every one of them."""

MAX_ACCOUNTS = 10_000
"""Accounts kept in memory; a process that needs more of them reads some again."""

_EVENTS = (BudgetSet, BudgetReserved, BudgetSettled)


class Budgets(Protocol):
    """Where a run looks up what it may spend: all that `engine.purse` asks of a ledger.

    Only `chain` looks anything up. `reserve` and `settle` decide on the accounts that it gave and
    change nothing: what they answer takes effect when it is appended, with what it is for.
    """

    @property
    def store(self) -> Store:
        """The store whose log the events are appended to, and in which the runs are."""
        ...

    async def chain(self, name: str) -> list[Account]:
        """The account of a budget, then its parent's, and so on up to the last, each with all that
        has been appended by now, whoever did it, and with the version of its stream.

        Raises:
            NotFound: one of them was never set.
            InvalidBudget: they form a circle, or there are more than `MAX_ANCESTORS` above it.
        """
        ...

    def reserve(
        self,
        chain: Sequence[Account],
        reservation: str,
        amounts: Mapping[str, int],
        run_id: RunId | None = None,
    ) -> tuple[list[Entry], dict[StreamName, int]]:
        """The events that reserve `amounts` in every account of a chain, or in none, and the
        versions of their streams as the condition; neither where there is nothing to reserve.

        Raises:
            BudgetExhausted: naming the nearest account that does not cover them.
            InvalidBudget: an amount is negative.
        """
        ...

    def settle(
        self,
        chain: Sequence[Account],
        reservation: str,
        reserved: Mapping[str, int] | None,
        spent: Mapping[str, int],
        run_id: RunId | None = None,
    ) -> list[Entry]:
        """The events that give `reserved` back (None: all that is held under that name) and take
        what was spent, in every account; possible whatever is left.

        Raises:
            InvalidBudget: an amount is negative.
        """
        ...


@define
class _Kept:
    """An account with the position up to which its stream was read."""

    account: Account
    position: int = 0
    is_known: bool = True
    """Whether all that this ledger has caused is in it."""


@define
class Ledger:
    """The accounts of one process. One ledger is for one driver at a time, or for several that
    take turns: it gives no answer that waits."""

    store: Store
    _kept: dict[str, _Kept] = field(factory=dict, init=False)

    async def load(self, name: str, *, must: bool = True, fresh: bool = True) -> Account:
        """The account of a budget.

        Args:
            must: whether it has to exist; else one that was never set is empty and unlimited.
            fresh: look for what others have appended since it was last read.

        Raises:
            NotFound: it was never set.
        """
        kept = self._kept.get(name)
        if kept is None or fresh or not kept.is_known:
            kept = await self._read(name, kept or _Kept(Account(name=name)))
        if must and not kept.account.is_set:
            raise NotFound("budget", name, "`carstore budget` sets one.")
        return kept.account

    async def chain(self, name: str, *, fresh: bool = True) -> list[Account]:
        """The account of a budget, then its parent's, and so on up to the last.

        Raises:
            NotFound: one of them was never set.
            InvalidBudget: they form a circle, or there are more than `MAX_ANCESTORS` above it.
        """
        found = [await self.load(name, fresh=fresh)]
        names = {name}
        while (parent := found[-1].parent) is not None:
            if parent in names:
                raise InvalidBudget(name, f"is a part of itself, by way of {parent!r}")
            if len(found) > MAX_ANCESTORS:
                raise InvalidBudget(name, f"has more than {MAX_ANCESTORS} budgets above it")
            names.add(parent)
            found.append(await self.load(parent, fresh=fresh))
        return found

    def reserve(
        self,
        chain: Sequence[Account],
        reservation: str,
        amounts: Mapping[str, int],
        run_id: RunId | None = None,
    ) -> tuple[list[Entry], dict[StreamName, int]]:
        """The events that reserve `amounts` in every account of a chain, and their conditions.

        Where nothing is reserved there is no event and no condition; the chain is judged all the
        same.

        Args:
            reservation: `RUN/ACTION/do/ATTEMPT` or `RUN/ACTION/undo/ATTEMPT`.
            amounts: unit -> millionths, 0 or more.

        Raises:
            BudgetExhausted: naming the nearest account that does not cover them.
            InvalidBudget: an amount is negative.
        """
        _check(amounts)
        for account in chain:
            shortage = account.covers(amounts)
            if shortage is not None:
                raise BudgetExhausted(account.name, *shortage)
        taken = {unit: amount for unit, amount in amounts.items() if amount}
        if not taken:
            return [], {}
        entries = [
            entry_of(
                BudgetReserved(budget=one.name, reservation=reservation, amounts=taken), run_id
            )
            for one in chain
        ]
        return entries, {budget_stream(one.name): one.version for one in chain}

    def settle(
        self,
        chain: Sequence[Account],
        reservation: str,
        reserved: Mapping[str, int] | None,
        spent: Mapping[str, int],
        run_id: RunId | None = None,
    ) -> list[Entry]:
        """The events that give a reservation back and take what was spent, in every account.

        Always possible: without conditions, and also when more was spent than is left. None, if
        there is nothing to give back or to take.

        Args:
            reserved: unit -> millionths to give back; None: all that each account holds under that
                name. Empty for a call in doubt, which goes on holding it.
            spent: unit -> millionths.

        Raises:
            InvalidBudget: an amount is negative.
        """
        _check(reserved or {})
        _check(spent)
        entries = []
        for one in chain:
            given = dict(one.open.get(reservation, {}) if reserved is None else reserved)
            if any(given.values()) or any(spent.values()):
                event = BudgetSettled(
                    budget=one.name, reservation=reservation, reserved=given, spent=dict(spent)
                )
                entries.append(entry_of(event, run_id))
        return entries

    def applied(self, entries: Iterable[Entry], versions: Mapping[StreamName, int]) -> None:
        """An append succeeded: keep what it made of the accounts, without reading them.

        Args:
            entries: all that was appended, in order.
            versions: the conditions under which it was. Of a stream that is not among them, nobody
                knows whether others had appended to it before: its account is read once more.
        """
        streams = {entry.stream for entry in entries}
        for entry in entries:
            event = entry.event
            kept = self._kept.get(event.budget) if isinstance(event, _EVENTS) else None
            if kept is None or not isinstance(event, _EVENTS):
                continue
            if entry.stream in streams:
                streams.discard(entry.stream)
                kept.is_known = versions.get(entry.stream) == kept.account.version
            if kept.is_known:
                after = kept.account.apply(event)
                kept.account = evolve(after, version=kept.account.version + 1)

    def forget(self, names: Iterable[str]) -> None:
        """An append for these budgets failed, or nobody knows: read them anew."""
        for name in names:
            self._kept.pop(name, None)

    async def _read(self, name: str, kept: _Kept) -> _Kept:
        account, position = kept.account, kept.position
        async for recorded in self.store.log.read(stream=budget_stream(name), after=position):
            event = recorded.event
            if recorded.version > account.version and isinstance(event, _EVENTS):
                account = evolve(account.apply(event), version=int(recorded.version))
            position = recorded.position
        while len(self._kept) >= MAX_ACCOUNTS:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = _Kept(account, position)
        return self._kept[name]


def after(chain: Sequence[Account], entries: Iterable[Entry]) -> list[Account]:
    """A chain as it will be once `entries` are appended, to reserve more in the same append.

    The versions stay: they are conditions on what was there before the append.
    """
    found = {account.name: account for account in chain}
    for entry in entries:
        event = entry.event
        if isinstance(event, _EVENTS) and event.budget in found:
            found[event.budget] = found[event.budget].apply(event)
    return list(found.values())


def _check(amounts: Mapping[str, int]) -> None:
    for unit, amount in amounts.items():
        if amount < 0:
            raise InvalidBudget(unit, f"{amount:,} millionths are less than nothing")


def entry_of(event: BudgetEvent, run_id: RunId | None) -> Entry:
    """The event in the stream of its budget."""
    return Entry(budget_stream(event.budget), event, run_id)
