"""What each budget allows, holds back and has spent."""

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carstore import Entry
from carstore.events import BudgetReserved, BudgetSet, BudgetSettled, Event
from carstore.names import budget_stream
from engine.rules.budget import Account
from projections import BUDGETS, catch_up, compare, fold, rows
from projections.budgets import ITSELF, BudgetLine
from tests.carstore.helpers import new_file, open_store
from tests.projections.plausible import all_of, at, record

NAMES, UNITS = ("a", "b"), ("USD", "EUR", "")
_name = st.sampled_from(NAMES)
_anything: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.text(max_size=3) | st.floats(0, 1)
)
_amount = st.integers(-5, 20) | st.just(2**63 - 1) | _anything
_amounts = st.dictionaries(st.sampled_from(UNITS), _amount, max_size=3) | _anything
budget_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(BudgetSet, budget=_name, limits=_amounts, parent=st.none() | _name),
    st.builds(BudgetReserved, budget=_name, reservation=_name, amounts=_amounts),
    st.builds(BudgetSettled, budget=_name, reservation=_name, reserved=_amounts, spent=_amounts),
)


def set_to(parent: str | None = None, **limits: int | None) -> BudgetSet:
    return BudgetSet(budget="a", limits=limits, parent=parent)


def reserved(**amounts: int) -> BudgetReserved:
    return BudgetReserved(budget="a", reservation="r/x/do/1", amounts=amounts)


def settled(given: dict[str, int], spent: dict[str, int]) -> BudgetSettled:
    return BudgetSettled(budget="a", reservation="r/x/do/1", reserved=given, spent=spent)


def line(unit: str, limit: int | None, held: int, spent: int, changed: int) -> BudgetLine:
    return BudgetLine(
        budget="a",
        unit=unit,
        limit_micros=limit,
        reserved_micros=held,
        spent_micros=spent,
        changed_at=at(changed),
    )


def test_a_unit_is_limited_reserved_and_spent() -> None:
    log = record(set_to(USD=10), reserved(USD=4, EUR=1), settled({"USD": 4}, {"USD": 3}))
    assert fold(BUDGETS, log) == {
        ("a", ITSELF): line(ITSELF, None, 0, 0, 3),
        ("a", "USD"): line("USD", 10, 0, 3, 3),
        ("a", "EUR"): line("EUR", None, 1, 0, 2),
    }


def test_what_is_left_may_be_less_than_nothing() -> None:
    found = fold(BUDGETS, record(set_to(USD=10), reserved(USD=2), settled({}, {"USD": 11})))
    assert found["a", "USD"].left_micros == -3
    assert found["a", ITSELF].left_micros is None


def test_a_unit_that_is_named_with_null_is_not_limited_any_more() -> None:
    found = fold(BUDGETS, record(set_to(USD=10, EUR=1), reserved(USD=2), set_to(USD=None)))
    assert (found["a", "USD"].limit_micros, found["a", "USD"].reserved_micros) == (None, 2)
    assert found["a", "EUR"].limit_micros == 1


def test_a_unit_that_comes_later_has_the_parent_of_its_budget() -> None:
    found = fold(BUDGETS, record(set_to("p", USD=10), reserved(EUR=2), set_to("q", EUR=1)))
    assert {row.unit: row.parent for row in found.values()} == {"": "q", "USD": "p", "EUR": "q"}
    again = fold(BUDGETS, record(set_to("p"), reserved(EUR=2)))
    assert again["a", "EUR"].parent == "p"


def test_a_budget_without_units_is_there() -> None:
    assert list(fold(BUDGETS, record(set_to()))) == [("a", ITSELF)]


@settings(deadline=None)
@given(st.lists(budget_events, max_size=20))
def test_the_view_tells_of_any_events_what_the_accounts_tell(events: list[Event]) -> None:
    accounts = {name: Account(name=name) for name in NAMES}
    for event in events:
        assert isinstance(event, BudgetSet | BudgetReserved | BudgetSettled)
        accounts[event.budget] = accounts[event.budget].apply(event)
    found = fold(BUDGETS, record(*events))
    assert {
        key: (row.limit_micros, row.reserved_micros, row.spent_micros)
        for key, row in found.items()
        if row.unit != ITSELF
    } == {
        (name, unit): (one.limit, one.reserved, one.spent)
        for name, account in accounts.items()
        for unit, one in account.balances.items()
    }
    for name, account in accounts.items():
        if (name, ITSELF) in found:
            assert found[name, ITSELF].parent == account.parent


def test_stored_rows_are_the_fold(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def run(events: list[Event], split: int) -> None:
        entries = [Entry(budget_stream(event.budget), event) for event in events]  # type: ignore
        async with open_store(path) as store:
            for part in (entries[:split], entries[split:]):
                if part:
                    await store.log.append(*part)
                await catch_up(store, BUDGETS)
            assert await rows(store, BUDGETS) == fold(BUDGETS, await all_of(store))
            assert await compare(store, BUDGETS) == []

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(budget_events, max_size=12), st.integers(0, 12))
    def check(events: list[Event], split: int) -> None:
        new_file(path)
        asyncio.run(run(events, split))

    check()
