"""What may be spent, and whether one more call may begin.

A run has a `Budget`: at most so many actions, calls and milliseconds (the seed's cost budget), and
amounts by unit. Amounts are kept in accounts, as the ledger tells them (`engine.ledger`): each
call reserves what it may cost before it begins and settles what it cost when it has ended. All
amounts are whole millionths, as in the budget tracker of ARCP: exact exhaustion succeeds, a charge
beyond what is left is refused and changes nothing, and a unit without a limit is unbounded.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

from attrs import define, evolve, field, frozen

from carstore.errors import CarstoreError
from carstore.events import BudgetReserved, BudgetSet, BudgetSettled
from carstore.names import Json, is_run_id
from engine.rules.identifiers import problem_with_id
from engine.rules.money import MAX_MICROS, Amount, InvalidBudget, micros_by_unit, shown, units_of
from projections.budgets import BudgetEvent, amounts_of, held, limits_of
from projections.view import add

__all__ = [
    "Account",
    "Balance",
    "Budget",
    "BudgetExhausted",
    "Shortage",
    "charge",
    "problem_with_budget",
]

MAX_COUNT = 2**53
"""Actions, calls or milliseconds of a budget: more than any run has, and exact in any JSON."""

_RUN = "run/"


@define(slots=False, eq=False)
class BudgetExhausted(CarstoreError):
    """A budget does not cover what is asked. Nothing was taken, from no budget."""

    code: ClassVar[str] = "budget_exhausted"
    budget: str
    unit: str
    remaining: int
    """Millionths; below 0 if more was spent than the limit allows."""
    asked: int
    """Millionths; 0 for a call that names no amount."""

    @property
    def brief(self) -> str:
        """What is there and what was asked, without what to do."""
        asked = f"{units_of(self.asked)} {self.unit} asked" if self.asked else "nothing is left"
        left = f"{units_of(self.remaining)} {self.unit} remaining"
        return f"budget {self.budget!r} is exhausted: {left}, {asked}"

    @property
    def message(self) -> str:
        return f"{self.brief}. Raise its limit with `carstore budget` to go on."

    @property
    def where(self) -> str | None:
        return self.budget


def problem_with_budget(name: object) -> str | None:
    """Why `name` cannot be that of a budget, or None if it can.

    It is spelled like an id; a run's own is `run/RUN_ID`.
    """
    if isinstance(name, str) and name.startswith(_RUN):
        return None if is_run_id(name.removeprefix(_RUN)) else "does not end with the id of a run"
    return problem_with_id(name)


def _costs(amounts: Any) -> dict[str, int]:
    return micros_by_unit(amounts)


@frozen(kw_only=True)
class Budget:
    """What one run may take; what is not given is not limited.

    Raises:
        InvalidBudget: naming the field, or the unit, that cannot be used.
    """

    max_actions: int | None = None
    """Actions that are settled, skipped ones left out."""
    max_tool_calls: int | None = None
    """Attempts that were dispatched."""
    max_duration_ms: int | float | None = None
    """Milliseconds: the sum of the durations of the actions, without waits."""
    costs: dict[str, int] = field(factory=dict, converter=_costs)
    """Unit -> millionths. Given as decimal units: `{"USD": "5.00"}`."""
    parent: str | None = None
    """The budget of which the run's amounts are a part."""

    def __attrs_post_init__(self) -> None:
        for name in ("max_actions", "max_tool_calls"):
            _check_count(name, getattr(self, name))
        duration = self.max_duration_ms
        if duration is not None and not _is_duration(duration):
            raise InvalidBudget(
                "max_duration_ms", f"{shown(duration)} is not a number of milliseconds from 0"
            )
        problem = None if self.parent is None else problem_with_budget(self.parent)
        if problem is not None:
            raise InvalidBudget("parent", problem)

    @property
    def has_account(self) -> bool:
        """Whether the run keeps amounts of its own, or takes them from a parent."""
        return bool(self.costs) or self.parent is not None

    def to_json(self) -> Json:
        """As in `proposal_received`: what is given, `costs` in millionths; None for no limit."""
        found = {
            name: getattr(self, name)
            for name in ("max_actions", "max_tool_calls", "max_duration_ms", "parent")
            if getattr(self, name) is not None
        }
        return ({**found, "costs": dict(self.costs)} if self.costs else found) or None

    @classmethod
    def from_json(cls, data: Json) -> "Budget | None":
        """Read what `to_json` wrote; None for None.

        Raises:
            InvalidBudget: it is something else.
        """
        if data is None:
            return None
        known = {"max_actions", "max_tool_calls", "max_duration_ms", "costs", "parent"}
        if type(data) is not dict or not known.issuperset(data):
            raise InvalidBudget("budget", f"{data!r:.80} is not the budget of a run")
        given = dict(data)
        costs = given.pop("costs", {})
        if type(costs) is not dict or not all(_is_count(one, MAX_MICROS) for one in costs.values()):
            raise InvalidBudget("costs", f"{costs!r:.80} are not millionths by unit")
        return cls(costs={unit: units_of(micros) for unit, micros in costs.items()}, **given)

    def exceeded(
        self, actions: int, tool_calls: int, duration_us: int, *, is_tool_call: bool
    ) -> str | None:
        """Which limit forbids one more action, or None if none does.

        In the seed's order; a limit is reached when it is used up (`>=`), and that of tool calls
        concerns tool calls only. Amounts are not judged here.

        Args:
            actions: how many are settled, skipped ones left out.
            tool_calls: how many attempts were dispatched.
            duration_us: of all actions together, in microseconds.
        """
        if self.max_actions is not None and actions >= self.max_actions:
            return f"max_actions: {actions:,} of {self.max_actions:,} used"
        if is_tool_call and self.max_tool_calls is not None and tool_calls >= self.max_tool_calls:
            return f"max_tool_calls: {tool_calls:,} of {self.max_tool_calls:,} used"
        most_ms = self.max_duration_ms
        if most_ms is not None and duration_us >= Fraction(most_ms) * 1000:
            return f"max_duration_ms: {duration_us / 1000:,.1f} of {most_ms:,} used"
        return None


def _check_count(name: str, value: object) -> None:
    if value is not None and not _is_count(value, MAX_COUNT):
        raise InvalidBudget(name, f"{shown(value)} is not a whole number from 0 to {MAX_COUNT}")


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_duration(value: object) -> bool:
    if type(value) is float:
        return math.isfinite(value) and 0 <= value <= MAX_COUNT
    return _is_count(value, MAX_COUNT)


@frozen
class Balance:
    """One unit of an account, in millionths."""

    limit: int | None = None
    """None: counted, not limited."""
    reserved: int = 0
    spent: int = 0

    @property
    def remaining(self) -> int | None:
        """What may still be reserved; None: any amount. Below 0 after an overspend."""
        return None if self.limit is None else self.limit - self.reserved - self.spent

    def covers(self, amount: int) -> bool:
        """Whether `amount` may be reserved, and a call begin that spends it.

        Reserving exactly what remains is allowed. A call that names no amount (0) may begin until
        as much is spent as the limit allows; after that, nothing may.
        """
        if self.limit is None:
            return True
        if amount == 0:
            return self.spent < self.limit
        return amount <= self.limit - self.reserved - self.spent


class Shortage(NamedTuple):
    """What an account does not cover, in millionths."""

    unit: str
    remaining: int
    asked: int


@frozen(kw_only=True)
class Account:
    """A budget as its events tell it."""

    name: str
    parent: str | None = None
    balances: Mapping[str, Balance] = field(factory=dict)
    """By unit: every unit that was ever limited, reserved or spent."""
    open: Mapping[str, Mapping[str, int]] = field(factory=dict)
    """Reservation -> unit -> millionths, of those that are not given back yet."""
    version: int = 0
    """Of the stream: how many events it has."""
    is_set: bool = False
    """Whether it was ever opened."""

    @property
    def limits(self) -> dict[str, int]:
        """Unit -> millionths, of those that are limited."""
        held = {unit: one.limit for unit, one in self.balances.items()}
        return {unit: limit for unit, limit in held.items() if limit is not None}

    def apply(self, event: BudgetEvent) -> "Account":
        """The account after one more event; `version` stays, since only the log knows it."""
        match event:
            case BudgetSet():
                after = dict(self.balances)
                for unit, limit in limits_of(event.limits).items():
                    after[unit] = evolve(after.get(unit, Balance()), limit=limit)
                return evolve(self, parent=event.parent, is_set=True, balances=after)
            case BudgetReserved():
                return self._moved(event.reservation, amounts_of(event.amounts), {})
            case BudgetSettled():
                given = {unit: -amount for unit, amount in amounts_of(event.reserved).items()}
                return self._moved(event.reservation, given, amounts_of(event.spent))

    def _moved(
        self, reservation: str, reserved: Mapping[str, int], spent: Mapping[str, int]
    ) -> "Account":
        after, held_here = dict(self.balances), dict(self.open.get(reservation, {}))
        for unit in {**reserved, **spent}:
            before = after.get(unit, Balance())
            after[unit] = evolve(
                before,
                reserved=held(before.reserved, reserved.get(unit, 0)),
                spent=add(before.spent, spent.get(unit, 0)),
            )
            held_here[unit] = held(held_here.get(unit, 0), reserved.get(unit, 0))
        still = {name: one for name, one in self.open.items() if name != reservation}
        if any(held_here.values()):
            still[reservation] = {unit: amount for unit, amount in held_here.items() if amount}
        return evolve(self, balances=after, open=still)

    def covers(self, amounts: Mapping[str, int]) -> Shortage | None:
        """The first unit, by name, of which there is too little; None if all is covered.

        Amounts are millionths by unit. Units without a limit are unbounded. A call that names no
        unit at all may spend any, so it may begin only if no limited unit is spent.
        """
        for unit in sorted(amounts or self.limits):
            balance, asked = self.balances.get(unit, Balance()), amounts.get(unit, 0)
            if not balance.covers(asked):
                return Shortage(unit, balance.remaining or 0, asked)
        return None


def charge(account: Account, unit: str, amount: Amount) -> Account:
    """The account after `amount` units were spent, without a reservation before.

    Source: `charge` of the budget tracker of ARCP; here a unit without limit is counted as well.

    Raises:
        InvalidBudget: the amount is no number, not finite, negative or out of range.
        BudgetExhausted: there is less left; nothing was taken.
    """
    micros = micros_by_unit({unit: amount}, account.name)[unit]
    balance = account.balances.get(unit, Balance())
    if micros and not balance.covers(micros):
        raise BudgetExhausted(account.name, unit, balance.remaining or 0, micros)
    after = evolve(balance, spent=add(balance.spent, micros))
    return evolve(account, balances={**account.balances, unit: after})
