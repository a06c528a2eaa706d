"""Facts about budgets: one ledger of reservations and of what was spent.

A budget is a stream, `budget/NAME`. Amounts are whole millionths of a unit (of a currency, or of
whatever is counted), by the name of the unit; each event says by how much every balance changes.
"""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class BudgetSet:
    """A budget was opened, or its limits were changed; what is spent and reserved stays.

    It names every unit that the budget has: so whoever folds it has to look at nothing else.
    """

    kind: ClassVar[str] = "budget_set"
    budget: str
    limits: Json
    """Unit -> millionths, or null: counted and not limited from here on. A unit that the budget
    limited before and does not any more stands here with null. Units not named stay as they are."""
    parent: str | None = None
    """The budget of which this one is a part from here on: what is taken here is taken there."""
    by: str = "somebody"


@frozen(kw_only=True)
class BudgetReserved:
    """An amount was set aside, before it may be spent."""

    kind: ClassVar[str] = "budget_reserved"
    budget: str
    reservation: str
    """`RUN/ACTION/do/ATTEMPT` or `RUN/ACTION/undo/ATTEMPT`."""
    amounts: Json
    """Unit -> millionths."""


@frozen(kw_only=True)
class BudgetSettled:
    """A reservation ended: it is given back, and what was really spent is taken."""

    kind: ClassVar[str] = "budget_settled"
    budget: str
    reservation: str
    reserved: Json
    """Unit -> millionths: all that was reserved under this name."""
    spent: Json
    """Unit -> millionths; more than was reserved if the call spent more than it may."""
