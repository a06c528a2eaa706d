"""What each budget allows, holds back and has spent, by unit.

A row with an empty unit stands for the budget itself: it is there as soon as the budget is, also
if nothing of it is limited or spent, and it is where the rows of its units learn their parent.
"""

from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore.events import BudgetReserved, BudgetSet, BudgetSettled
from carstore.log import Recorded
from carstore.names import Json
from projections.view import Key, Rows, View, add

BudgetEvent: TypeAlias = BudgetSet | BudgetReserved | BudgetSettled

ITSELF = ""
"""The unit of the row that stands for a budget as a whole."""


@frozen(kw_only=True)
class BudgetLine:
    """One unit of one budget. Amounts are whole millionths of the unit."""

    budget: str
    unit: str
    """The name of a currency, or of whatever is counted; empty for the budget itself."""
    limit_micros: int | None = None
    """None: counted, not limited."""
    reserved_micros: int = 0
    """Held back for calls that have not ended, or are in doubt."""
    spent_micros: int = 0
    parent: str | None = None
    """The budget of which this one is a part."""
    changed_at: int
    """Of the newest event that names it, in microseconds UTC."""

    @property
    def left_micros(self) -> int | None:
        """What may still be reserved; None: any amount. Below 0 after an overspend."""
        if self.limit_micros is None:
            return None
        return self.limit_micros - self.reserved_micros - self.spent_micros


def amounts_of(data: Json) -> dict[str, int]:
    """Unit -> millionths, of what an event says; what cannot be an amount is left out."""
    if type(data) is not dict:
        return {}
    return {unit: value for unit, value in data.items() if unit and type(value) is int}


def limits_of(data: Json) -> dict[str, int | None]:
    """Unit -> millionths, or None where the limit ends; what cannot be a limit is left out."""
    if type(data) is not dict:
        return {}
    return {
        unit: value
        for unit, value in data.items()
        if unit and (value is None or type(value) is int)
    }


def held(reserved: int, change: int) -> int:
    """What is held back after a change: never less than nothing, whatever was recorded."""
    return max(0, add(reserved, change))


def _units(event: BudgetEvent) -> set[str]:
    match event:
        case BudgetSet():
            return set(limits_of(event.limits))
        case BudgetReserved():
            return set(amounts_of(event.amounts))
        case BudgetSettled():
            return {*amounts_of(event.reserved), *amounts_of(event.spent)}


def keys(event: BudgetEvent, _: Recorded) -> list[Key]:
    return [(event.budget, unit) for unit in (ITSELF, *sorted(_units(event)))]


def evolve(rows: Rows[BudgetLine], event: BudgetEvent, recorded: Recorded) -> Rows[BudgetLine]:
    itself = rows[event.budget, ITSELF]
    parent = itself.parent if itself is not None else None
    if isinstance(event, BudgetSet):
        parent = event.parent
    after = {}
    for key, row in rows.items():
        unit = str(key[1])
        line = row or BudgetLine(budget=event.budget, unit=unit, changed_at=0)
        line = changed(line, parent=parent, changed_at=recorded.recorded_at)
        after[key] = line if unit == ITSELF else _moved(line, event)
    return after


def _moved(line: BudgetLine, event: BudgetEvent) -> BudgetLine:
    """The line of one unit after an event that names it."""
    unit, reserved = line.unit, line.reserved_micros
    match event:
        case BudgetSet():
            return changed(line, limit_micros=limits_of(event.limits)[unit])
        case BudgetReserved():
            more = amounts_of(event.amounts)[unit]
            return changed(line, reserved_micros=held(reserved, more))
        case BudgetSettled():
            return changed(
                line,
                reserved_micros=held(reserved, -amounts_of(event.reserved).get(unit, 0)),
                spent_micros=add(line.spent_micros, amounts_of(event.spent).get(unit, 0)),
            )


BUDGETS: View[BudgetEvent, BudgetLine] = View(
    name="budgets",
    version=1,
    kinds=get_args(BudgetEvent),
    row=BudgetLine,
    key=("budget", "unit"),
    keys=keys,
    evolve=evolve,
)
