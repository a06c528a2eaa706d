"""Amounts of money: exact decimals outside, whole micro-units inside, never a float in a sum."""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import ClassVar, TypeAlias

from attrs import define

from carstore.errors import CarstoreError
from engine.rules.identifiers import problem_with_id

__all__ = [
    "MAX_MICROS",
    "MAX_UNITS",
    "Amount",
    "InvalidBudget",
    "micros_by_unit",
    "micros_of",
    "shown",
    "units_of",
]

Amount: TypeAlias = Decimal | str | int | float
"""Units of a currency; as text or decimal it is exact."""

MAX_MICROS = 10**15
"""A thousand million units: nine thousand such amounts still add up within 64 bits."""

MAX_UNITS = 64
"""Units of one budget. Each event of the ledger names them all."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,64}\.?[0-9]{0,64}|\.[0-9]{1,64})(?:[eE][+-]?[0-9]{1,3})?")
_MICROS_PER_UNIT = 10**6
_MAX_DIGITS = 64
_MAX_UNITS = Decimal(MAX_MICROS // _MICROS_PER_UNIT)

# Wide enough for `_MAX_DIGITS` digits to be scaled without a rounding of its own before the one
# that counts. decimal's ROUND_HALF_UP is half away from zero.
_EXACT = Context(prec=2 * _MAX_DIGITS, rounding=ROUND_HALF_UP)


@define(slots=False, eq=False)
class InvalidBudget(CarstoreError):
    """A budget, a limit or an amount that cannot be. Nothing happened."""

    code: ClassVar[str] = "invalid_budget"
    path: str
    """Which part of it: a field, or `costs.UNIT`."""
    reason: str

    @property
    def message(self) -> str:
        return f"{self.path}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.path


def micros_of(amount: Amount) -> int | None:
    """`amount` of a currency in millionths, rounded half away from zero.

    A float is taken as the shortest decimal that names it, which is what its author wrote: 0.1 is
    one tenth. None if it is no number, not finite, negative, above `MAX_MICROS`, or written with
    more than 64 digits. Source: the budget tracker of ARCP.
    """
    if isinstance(amount, int):
        is_amount = type(amount) is int and 0 <= amount <= _MAX_UNITS
        return amount * _MICROS_PER_UNIT if is_amount else None
    text = repr(amount) if isinstance(amount, float) else amount
    if isinstance(text, str) and not _NUMBER.fullmatch(text):
        return None  # Decimal takes underscores, spaces and the digits of any script
    if not isinstance(text, str | Decimal) or len(str(text)) > 2 * _MAX_DIGITS:
        return None
    units = Decimal(text)
    if not units.is_finite() or not 0 <= units <= _MAX_UNITS:
        return None
    if len(units.as_tuple().digits) > _MAX_DIGITS:
        return None
    return int(units.scaleb(6, context=_EXACT).to_integral_value(context=_EXACT))


def units_of(micros: int) -> str:
    """Millionths as an exact decimal text, without zeros that say nothing: `1500000` is `1.5`."""
    sign, whole = ("-" if micros < 0 else ""), abs(micros)
    units, rest = divmod(whole, _MICROS_PER_UNIT)
    digits = f"{rest:06}".rstrip("0")
    return f"{sign}{units}.{digits}" if digits else f"{sign}{units}"


def micros_by_unit(amounts: Mapping[str, Amount], path: str = "costs") -> dict[str, int]:
    """Amounts in millionths, by unit.

    Raises:
        InvalidBudget: naming the unit whose name or amount cannot be used.
    """
    if not isinstance(amounts, Mapping):
        raise InvalidBudget(path, f"is a mapping of amounts, not {type(amounts).__name__}")
    if len(amounts) > MAX_UNITS:
        raise InvalidBudget(path, f"{len(amounts):,} units; at most {MAX_UNITS} are allowed")
    found = {}
    for unit, amount in amounts.items():
        problem = problem_with_id(unit)
        if problem is not None:
            raise InvalidBudget(path, f"the name of a unit {problem}")
        micros = micros_of(amount)
        if micros is None:
            raise InvalidBudget(f"{path}.{unit}", _unusable(amount))
        found[unit] = micros
    return found


def _unusable(amount: object) -> str:
    most = units_of(MAX_MICROS)
    return f"{shown(amount)} is no amount; write a decimal number from 0 to {most}, such as '5.00'"


def shown(value: object) -> str:
    """A value for a message: short, also where Python would not write its digits."""
    huge = isinstance(value, int) and value.bit_length() > 64
    return "an integer beyond 64 bits" if huge else f"{value!r:.80}"
