"""What each agent has spent.

A view is three things: what a row looks like, which rows an event names, and what these rows are
afterwards. This is a whole one. `rows(store, COSTS)` gives it as of now, `at=` as of any position,
and `SELECT * FROM costs` shows it to any program that reads SQLite.
"""

from attrs import frozen

from carstore.events import InferenceMetered
from carstore.log import Recorded
from projections.view import Key, Rows, View, add


@frozen(kw_only=True)
class Cost:
    """What an agent has spent of one currency over all runs, failed attempts included."""

    agent: str
    currency: str
    calls: int = 0
    """How often it was metered."""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_micros: int = 0
    """Millionths of a unit, in whole numbers: nothing is lost by adding them up."""


def keys(event: InferenceMetered, _: Recorded) -> list[Key]:
    return [(event.agent, event.currency)]


def evolve(rows: Rows[Cost], event: InferenceMetered, _: Recorded) -> Rows[Cost]:
    key = (event.agent, event.currency)
    before = rows[key] or Cost(agent=event.agent, currency=event.currency)
    after = Cost(
        agent=event.agent,
        currency=event.currency,
        calls=before.calls + 1,
        tokens_in=add(before.tokens_in, event.tokens_in),
        tokens_out=add(before.tokens_out, event.tokens_out),
        cost_micros=add(before.cost_micros, event.cost_micros),
    )
    return {key: after}


COSTS: View[InferenceMetered, Cost] = View(
    name="costs",
    version=2,
    kinds=(InferenceMetered,),
    row=Cost,
    key=("agent", "currency"),
    keys=keys,
    evolve=evolve,
)
