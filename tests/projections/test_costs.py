"""Cost by agent."""

from hypothesis import given, settings
from hypothesis import strategies as st

from projections import COSTS, fold
from projections.costs import Cost
from tests.projections.plausible import metered, record


def test_an_agent_has_spent_the_sum_of_its_meterings() -> None:
    rows = fold(
        COSTS,
        record(
            metered("planner", tokens_in=10, tokens_out=3, cost_micros=120),
            metered("critic", tokens_in=1),
            metered("planner", tokens_in=5, tokens_out=1, cost_micros=30),
        ),
    )
    assert rows == {
        ("planner", "USD"): Cost(
            agent="planner", currency="USD", calls=2, tokens_in=15, tokens_out=4, cost_micros=150
        ),
        ("critic", "USD"): Cost(agent="critic", currency="USD", calls=1, tokens_in=1),
    }


def test_metering_counts_with_and_without_a_run() -> None:
    inside, outside = record(metered(), run="r1"), record(metered(), run=None)
    assert fold(COSTS, inside + outside)[("planner", "USD")].calls == 2


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**62)))
def test_sums_are_exact_until_they_reach_the_end_of_a_column(amounts: list[int]) -> None:
    rows = fold(COSTS, record(*[metered("a", cost_micros=amount) for amount in amounts]))
    if amounts:
        assert rows[("a", "USD")].cost_micros == min(sum(amounts), 2**63 - 1)


def test_amounts_of_different_currencies_are_not_added_up() -> None:
    events = record(metered(cost_micros=5), metered(cost_micros=7, currency="EUR", tokens_in=3))
    assert fold(COSTS, events) == {
        ("planner", "USD"): Cost(agent="planner", currency="USD", calls=1, cost_micros=5),
        ("planner", "EUR"): Cost(
            agent="planner", currency="EUR", calls=1, tokens_in=3, cost_micros=7
        ),
    }
