"""What may be spent: amounts, limits of a run, balances of an account."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from carstore.codec import decode, encode
from carstore.events import BudgetReserved, BudgetSet, BudgetSettled, ProposalReceived
from engine.rules.budget import (
    Account,
    Balance,
    Budget,
    BudgetExhausted,
    Shortage,
    charge,
    problem_with_budget,
)
from engine.rules.money import (
    MAX_MICROS,
    MAX_UNITS,
    InvalidBudget,
    micros_by_unit,
    micros_of,
    units_of,
)
from tests.projections.plausible import received

UNUSABLE: list[Any] = [
    -0.5, float("nan"), float("inf"), -float("inf"), 1e300, -1, 10**10, 10**5000, True, None,
    "x", "", "-1", Decimal("NaN"), Decimal("Infinity"), [], b"1",
]  # fmt: skip


def account(**limits: Any) -> Account:
    """An account with these limits, in units."""
    made = Account(name="b")
    return made.apply(BudgetSet(budget="b", limits=micros_by_unit(limits)))


def left(one: Account, unit: str = "USD") -> int | None:
    return one.balances[unit].remaining


# --- amounts (the budget tracker of ARCP takes floats) ---


@given(st.integers(-(2**63), 2**63))
def test_millionths_as_text_are_exact(micros: int) -> None:
    text = units_of(micros)
    assert Fraction(text) * 10**6 == micros
    assert not text.endswith("0") or "." not in text
    if 0 <= micros <= MAX_MICROS:
        assert micros_of(text) == micros


@given(st.integers(0, MAX_MICROS // 10**6))
def test_whole_units_need_no_text(units: int) -> None:
    assert micros_of(units) == units * 10**6


@given(st.integers(0, 10**12))
def test_a_float_is_the_decimal_that_somebody_wrote(micros: int) -> None:
    """Floats below a million name each millionth."""
    assert micros_of(micros / 10**6) == micros


@pytest.mark.parametrize(
    ("amount", "micros"), [(0.0000005, 1), (0.0000004, 0), (0.1, 100_000), (-0.0, 0), (1e9, 10**15)]
)
def test_a_float_is_rounded_half_away_from_zero(amount: float, micros: int) -> None:
    assert micros_of(amount) == micros


@pytest.mark.parametrize("amount", UNUSABLE, ids=range(len(UNUSABLE)))
def test_what_is_no_amount_is_refused_with_the_name_of_its_unit(amount: Any) -> None:
    assert micros_of(amount) is None
    with pytest.raises(InvalidBudget, match="is no amount") as caught:
        micros_by_unit({"EUR": 1, "USD": amount})
    assert caught.value.where == "costs.USD"


@pytest.mark.parametrize("unit", ["", " ", "US D", "$", "x" * 129, 5, "\x1b[31m"])
def test_units_are_spelled_like_ids(unit: Any) -> None:
    with pytest.raises(InvalidBudget, match="the name of a unit"):
        micros_by_unit({unit: 1})


def test_units_are_not_too_many() -> None:
    with pytest.raises(InvalidBudget, match="65 units"):
        micros_by_unit({f"u{n}": 1 for n in range(MAX_UNITS + 1)})
    with pytest.raises(InvalidBudget, match="not list"):
        micros_by_unit([])  # type: ignore[arg-type]


# --- charging: the tests of the budget tracker of ARCP ---


def test_an_untouched_account_has_all_of_its_limit_left() -> None:
    assert left(account(USD=5.0)) == 5_000_000


def test_a_charge_takes_from_what_is_left() -> None:
    assert left(charge(account(USD=5.0), "USD", 1.5)) == 3_500_000


@pytest.mark.parametrize("amount", [-0.5, float("nan"), float("inf"), 1e30])
def test_a_charge_that_is_no_amount_is_refused(amount: float) -> None:
    with pytest.raises(InvalidBudget):
        charge(account(USD=5.0), "USD", amount)


def test_a_charge_beyond_what_is_left_is_refused_and_changes_nothing() -> None:
    before = account(USD=1.0)
    with pytest.raises(BudgetExhausted) as caught:
        charge(before, "USD", 1.5)
    error = caught.value
    assert (error.budget, error.unit, error.remaining, error.asked) == (
        "b",
        "USD",
        1_000_000,
        1_500_000,
    )
    assert "1 USD remaining, 1.5 USD asked" in str(error)
    assert left(before) == 1_000_000
    assert left(charge(before, "USD", 0.4)) == 600_000


def test_the_last_amount_may_be_taken_exactly_and_nothing_after_it() -> None:
    after = charge(account(USD=1.0), "USD", 1.0)
    assert left(after) == 0
    with pytest.raises(BudgetExhausted):
        charge(after, "USD", 0.000_001)
    assert left(charge(after, "USD", 0)) == 0


def test_decimal_fractions_add_up_without_drift() -> None:
    after = account(USD=1.0)
    for amount in (0.10, 0.20, 0.70):
        after = charge(after, "USD", amount)
    assert left(after) == 0


def test_units_are_counted_apart() -> None:
    after = charge(charge(account(USD=5.0, EUR=2.0), "USD", 3.0), "EUR", 1.5)
    with pytest.raises(BudgetExhausted, match="USD"):
        charge(after, "USD", 2.5)
    assert (left(after), left(after, "EUR")) == (2_000_000, 500_000)


def test_a_unit_without_limit_is_counted_and_unbounded() -> None:
    after = charge(account(USD=5.0), "EUR", 2.0)
    assert after.balances["EUR"] == Balance(limit=None, reserved=0, spent=2_000_000)
    assert left(after, "EUR") is None
    assert left(after) == 5_000_000


# --- reserving ---


def test_what_is_reserved_is_not_left() -> None:
    assert Balance(limit=10, reserved=3, spent=4).remaining == 3
    assert [Balance(10, 3, 4).covers(amount) for amount in (0, 3, 4)] == [True, True, False]


@pytest.mark.parametrize(
    ("balance", "zero", "one"),
    [
        (Balance(10, 0, 9), True, True),
        (Balance(10, 10, 0), True, False),
        (Balance(10, 0, 10), False, False),
        (Balance(10, 0, 11), False, False),
        (Balance(0, 0, 0), False, False),
        (Balance(None, 5, 99), True, True),
    ],
)
def test_nothing_begins_once_as_much_is_spent_as_the_limit(
    balance: Balance, zero: bool, one: bool
) -> None:
    assert (balance.covers(0), balance.covers(1)) == (zero, one)


def test_an_account_names_the_unit_that_is_short() -> None:
    spent = charge(account(USD=5, EUR=1, GBP=1), "EUR", 1)
    assert spent.covers({"USD": 5_000_000, "XYZ": 10**15}) is None
    assert spent.covers({"USD": 5_000_001}) == Shortage("USD", 5_000_000, 5_000_001)
    assert spent.covers({"EUR": 0, "USD": 1}) == Shortage("EUR", 0, 0)
    assert spent.covers({}) == Shortage("EUR", 0, 0), "a call that names nothing may spend any unit"
    assert account(USD=1).covers({}) is None
    assert Account(name="b").covers({}) is None


def test_the_message_of_a_spent_budget_says_so() -> None:
    assert "-0.5 USD remaining, nothing is left" in str(BudgetExhausted("b", "USD", -500_000, 0))


def test_an_account_is_what_its_events_say() -> None:
    one = account(USD=5).apply(
        BudgetReserved(budget="b", reservation="x", amounts={"USD": 7, "EUR": 1})
    )
    assert one.open == {"x": {"USD": 7, "EUR": 1}}
    one = one.apply(
        BudgetSettled(budget="b", reservation="x", reserved={"USD": 7}, spent={"USD": 9, "GBP": 2})
    )
    assert one.open == {"x": {"EUR": 1}}
    assert one.balances == {
        "USD": Balance(5_000_000, 0, 9),
        "EUR": Balance(None, 1, 0),
        "GBP": Balance(None, 0, 2),
    }
    one = one.apply(BudgetSet(budget="b", limits={"USD": None, "EUR": 3}, parent="p"))
    assert (one.balances["USD"].limit, one.limits, one.parent) == (None, {"EUR": 3}, "p")
    assert one.balances["USD"].spent == 9


# --- the budget of a run ---


def test_a_budget_is_kept_as_the_event_has_it() -> None:
    budget = Budget(max_actions=3, max_duration_ms=1.5, costs={"USD": "0.1"}, parent="team")
    assert budget.to_json() == {
        "max_actions": 3,
        "max_duration_ms": 1.5,
        "parent": "team",
        "costs": {"USD": 100_000},
    }
    assert Budget().to_json() is None
    assert Budget.from_json(None) is None


@given(
    st.builds(
        Budget,
        max_actions=st.none() | st.integers(0, 9),
        max_tool_calls=st.none() | st.integers(0, 9),
        max_duration_ms=st.none() | st.integers(0, 9) | st.floats(0, 1e6),
        costs=st.dictionaries(st.sampled_from(["USD", "EUR"]), st.decimals(0, 10**6, places=6)),
        parent=st.none() | st.sampled_from(["team", "run/r1"]),
    )
)
def test_a_budget_survives_its_event(budget: Budget) -> None:
    written = encode(evolve(received(), budget=budget.to_json()))
    event = decode(written.kind, written.schema_version, written.data)
    assert isinstance(event, ProposalReceived)
    found = Budget.from_json(event.budget)
    assert (found or Budget()) == budget
    assert budget.has_account == bool(budget.costs or budget.parent)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_actions", -1),
        ("max_actions", True),
        ("max_actions", 1.0),
        ("max_tool_calls", "3"),
        ("max_tool_calls", 2**53 + 1),
        ("max_duration_ms", float("nan")),
        ("max_duration_ms", -0.1),
        ("max_duration_ms", False),
        ("max_duration_ms", "5"),
        ("parent", ""),
        ("parent", "run/"),
        ("parent", 5),
        ("costs", [1]),
    ],
)
def test_a_field_that_cannot_be_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidBudget) as caught:
        Budget(**{field: value})
    assert caught.value.where == field


@pytest.mark.parametrize(
    "data", [[], 1, {"max_cost": 1}, {"costs": {"USD": -1}}, {"costs": {"USD": "1"}}, {"costs": 1}]
)
def test_what_is_no_recorded_budget_is_refused(data: Any) -> None:
    with pytest.raises(InvalidBudget):
        Budget.from_json(data)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(), None),
        (Budget(max_actions=4), None),
        (Budget(max_actions=3), "max_actions: 3 of 3 used"),
        (Budget(max_actions=2), "max_actions: 3 of 2 used"),
        (Budget(max_tool_calls=2), "max_tool_calls: 2 of 2 used"),
        (Budget(max_tool_calls=3), None),
        (Budget(max_duration_ms=1.5), "max_duration_ms: 1.5 of 1.5 used"),
        (Budget(max_duration_ms=1.5001), None),
        (Budget(max_duration_ms=0, max_tool_calls=0), "max_tool_calls: 2 of 0 used"),
        (Budget(max_actions=0, max_tool_calls=0), "max_actions: 3 of 0 used"),
    ],
)
def test_a_limit_is_reached_when_it_is_used_up(budget: Budget, expected: str | None) -> None:
    assert budget.exceeded(3, 2, 1_500, is_tool_call=True) == expected


def test_the_limit_of_tool_calls_concerns_tool_calls() -> None:
    budget = Budget(max_tool_calls=0)
    assert budget.exceeded(0, 5, 0, is_tool_call=False) is None
    assert budget.exceeded(0, 5, 0, is_tool_call=True) == "max_tool_calls: 5 of 0 used"


@pytest.mark.parametrize(
    ("name", "good"),
    [("team", True), ("a/b", True), ("run/r-1", True), ("run/a/b", False), ("", False), (5, False)],
)
def test_names_of_budgets(name: Any, good: bool) -> None:
    assert (problem_with_budget(name) is None) == good
    assert problem_with_budget("run/" + "r" * 128) is None
