"""The ledger of budgets: reserving, settling, setting; who gets the last amount."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from carstore import Entry, Expect, Store
from carstore.errors import NotFound, VersionConflict
from carstore.events import BudgetSet
from carstore.names import RunId, budget_stream
from engine.accounts import MAX_ANCESTORS, Ledger, after, entry_of
from engine.ledger import balances, opening, set_budget
from engine.rules.budget import Account, Balance, BudgetExhausted
from engine.rules.money import InvalidBudget
from projections import rows
from projections.budgets import BUDGETS
from tests.carstore.helpers import in_loop, new_file, open_store

R = RunId("r")
CENT = 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_file(tmp_path / "log.db")


async def take(
    store: Store, ledger: Ledger, name: str, reservation: str, amounts: Mapping[str, int]
) -> None:
    """Reserve as a driver does: again, on what is then, if somebody else was first."""
    while True:
        chain = await ledger.chain(name)
        entries, versions = ledger.reserve(chain, reservation, amounts, R)
        try:
            await store.log.append(*entries, expect=Expect(versions=versions))
        except VersionConflict:
            ledger.forget([account.name for account in chain])
        else:
            ledger.applied(entries, versions)
            return


async def give(
    store: Store,
    ledger: Ledger,
    name: str,
    reservation: str,
    reserved: Mapping[str, int] | None,
    spent: Mapping[str, int],
) -> None:
    entries = ledger.settle(await ledger.chain(name), reservation, reserved, spent, R)
    if entries:
        await store.log.append(*entries)
        ledger.applied(entries, {})


async def family(store: Store) -> None:
    """`run/r` is a part of `team`, which is a part of `all`."""
    await set_budget(store, "all", {"USD": "1.00"})
    await set_budget(store, "team", {"USD": "0.50", "EUR": "1"}, parent="all")
    entry = opening("run/r", {"USD": 20 * CENT}, parent="team", run_id=R)
    await store.log.append(entry, expect=Expect(versions={entry.stream: 0}))


@in_loop
async def test_what_is_taken_is_taken_from_all_ancestors(path: Path) -> None:
    async with open_store(path) as store:
        await family(store)
        ledger = Ledger(store)
        await take(store, ledger, "run/r", "r/a/do/1", {"USD": 20 * CENT, "EUR": 5})
        for name, limit in (("run/r", 20), ("team", 50), ("all", 100)):
            usd = (await balances(store, name))["USD"]
            assert usd == Balance(limit * CENT, 20 * CENT, 0)
        await give(store, ledger, "run/r", "r/a/do/1", {"USD": 20 * CENT, "EUR": 5}, {"USD": CENT})
        for name, limit in (("run/r", 20), ("team", 50), ("all", 100)):
            found = await balances(store, name)
            assert found["USD"] == Balance(limit * CENT, 0, CENT)
            assert found["EUR"].reserved == 0
            assert (await Ledger(store).load(name)).open == {}


@in_loop
async def test_the_events_belong_to_the_run_and_to_each_budget(path: Path) -> None:
    async with open_store(path) as store:
        await family(store)
        ledger = Ledger(store)
        await take(store, ledger, "run/r", "r/a/do/1", {"USD": 5, "EUR": 0})
        await give(store, ledger, "run/r", "r/a/do/1", None, {"USD": 7})
        found = [one async for one in store.log.read(kinds=["budget_reserved", "budget_settled"])]
        assert [one.stream for one in found] == ["budget/run/r", "budget/team", "budget/all"] * 2
        assert {one.run_id for one in found} == {R}
        assert found[0].data == ('{"amounts":{"USD":5},"budget":"run/r","reservation":"r/a/do/1"}')
        assert found[-1].data == (
            '{"budget":"all","reservation":"r/a/do/1","reserved":{"USD":5},"spent":{"USD":7}}'
        )


@in_loop
async def test_the_nearest_budget_that_is_short_is_named_and_nothing_is_taken(path: Path) -> None:
    async with open_store(path) as store:
        await family(store)
        ledger, before = Ledger(store), (await store.log.head()).position
        with pytest.raises(BudgetExhausted) as caught:
            await take(store, ledger, "run/r", "x", {"USD": 20 * CENT + 1})
        assert caught.value.budget == "run/r"
        await take(store, ledger, "team", "y", {"USD": 45 * CENT})
        with pytest.raises(BudgetExhausted) as caught:
            await take(store, ledger, "run/r", "x", {"USD": 20 * CENT})
        error = caught.value
        assert (error.budget, error.remaining, error.asked) == ("team", 5 * CENT, 20 * CENT)
        assert (await store.log.head()).position == before + 2
        await take(store, ledger, "run/r", "x", {"USD": 5 * CENT})


@in_loop
async def test_a_call_that_names_no_amount_writes_nothing_and_begins_until_all_is_spent(
    path: Path,
) -> None:
    async with open_store(path) as store:
        await set_budget(store, "b", {"USD": "1"})
        ledger = Ledger(store)
        assert ledger.reserve(await ledger.chain("b"), "x", {}) == ([], {})
        assert ledger.reserve(await ledger.chain("b"), "x", {"USD": 0}) == ([], {})
        await give(store, ledger, "b", "x", {}, {"USD": 3_000_000})
        for amounts in ({}, {"USD": 0}, {"USD": 1}):
            with pytest.raises(BudgetExhausted) as caught:
                ledger.reserve(await ledger.chain("b"), "y", amounts)
            assert caught.value.remaining == -2_000_000
        ledger.reserve(await ledger.chain("b"), "y", {"EUR": 5})
        assert ledger.settle(await ledger.chain("b"), "y", {}, {}) == []


@in_loop
async def test_two_who_want_the_last_amount_do_not_both_get_it(path: Path) -> None:
    async with open_store(path) as one, open_store(path) as other:
        await set_budget(one, "b", {"USD": "1.00"})

        async def spend(store: Store, name: str) -> int:
            ledger, done = Ledger(store), 0
            for n in range(9):
                try:
                    await take(store, ledger, "b", f"{name}/{n}", {"USD": 10 * CENT})
                    done += 1
                except BudgetExhausted:
                    await asyncio.sleep(0)
            return done

        tasks = [spend(one, "a"), spend(one, "b"), spend(other, "c"), spend(other, "d")]
        assert sum(await asyncio.gather(*tasks)) == 10
        assert (await balances(one, "b"))["USD"] == Balance(100 * CENT, 100 * CENT, 0)


@in_loop
async def test_several_reservations_of_one_append_see_each_other(path: Path) -> None:
    async with open_store(path) as store:
        await set_budget(store, "b", {"USD": "0.02"})
        ledger = Ledger(store)
        chain = await ledger.chain("b")
        first, versions = ledger.reserve(chain, "x", {"USD": CENT})
        chain = after(chain, first)
        second, same = ledger.reserve(chain, "y", {"USD": CENT})
        chain = after(chain, second)
        assert versions == same == {"budget/b": 1}
        with pytest.raises(BudgetExhausted):
            ledger.reserve(chain, "z", {"USD": CENT})
        await store.log.append(*first, *second, expect=Expect(versions=versions))
        ledger.applied([*first, *second], versions)
        known = await ledger.load("b", fresh=False)
        assert known == await Ledger(store).load("b")
        assert known.version == 3


@in_loop
async def test_what_others_did_is_seen_unless_not_asked_for(path: Path) -> None:
    async with open_store(path) as one, open_store(path) as other:
        await set_budget(one, "b", {"USD": "1"})
        ledger, there = Ledger(one), Ledger(other)
        before = await ledger.load("b")
        await take(other, there, "b", "x", {"USD": 5})
        assert await ledger.load("b", fresh=False) == before
        assert (await ledger.load("b")).balances["USD"].reserved == 5
        assert await ledger.load("b", fresh=False) == await there.load("b", fresh=False)


@in_loop
async def test_a_settlement_among_unseen_events_is_not_counted_twice(path: Path) -> None:
    """It has no condition, so its place is not known before it is read."""
    async with open_store(path) as store:
        await set_budget(store, "b", {"USD": "1"})
        ledger, other = Ledger(store), Ledger(store)
        await take(store, ledger, "b", "x", {"USD": 5})
        chain = await ledger.chain("b")
        await take(store, other, "b", "y", {"USD": 7})
        entries = ledger.settle(chain, "x", {"USD": 5}, {"USD": 3})
        await store.log.append(*entries)
        ledger.applied(entries, {})
        for fresh in (False, True):
            assert await ledger.load("b", fresh=fresh) == await Ledger(store).load("b")
        assert (await ledger.load("b")).balances["USD"] == Balance(1_000_000, 7, 3)


@in_loop
async def test_a_reservation_outlives_whoever_made_it(path: Path) -> None:
    async with open_store(path) as store:
        await set_budget(store, "b", {"USD": "1"})
        await take(store, Ledger(store), "b", "r/a/do/1", {"USD": 1_000_000})
    async with open_store(path) as store:
        ledger = Ledger(store)
        with pytest.raises(BudgetExhausted):
            await take(store, ledger, "b", "r/b/do/1", {"USD": 1})
        assert (await ledger.load("b")).open == {"r/a/do/1": {"USD": 1_000_000}}
        await give(store, ledger, "b", "r/a/do/1", None, {"USD": 1_000_000})
        assert (await ledger.load("b")).open == {}


@in_loop
async def test_a_call_in_doubt_holds_what_it_reserved(path: Path) -> None:
    async with open_store(path) as store:
        await set_budget(store, "b", {"USD": "1"})
        ledger = Ledger(store)
        await take(store, ledger, "b", "x", {"USD": 9})
        await give(store, ledger, "b", "x", {}, {"USD": 2})
        assert (await balances(store, "b"))["USD"] == Balance(1_000_000, 9, 2)


# --- setting ---


@in_loop
async def test_limits_are_set_as_a_whole_and_what_was_spent_stays(path: Path) -> None:
    async with open_store(path) as store:
        await set_budget(store, "b", {"USD": "1", "EUR": "2"}, by="ann")
        ledger = Ledger(store)
        await give(store, ledger, "b", "x", {}, {"USD": 5, "GBP": 6})
        made = await set_budget(store, "b", {"USD": "3", "CHF": None})
        assert made == await Ledger(store).load("b")
        assert made.limits == {"USD": 3_000_000}
        assert made.balances["USD"].spent == 5
        newest = [one async for one in store.log.read(kinds=["budget_set"])][-1].event
        assert newest == BudgetSet(
            budget="b", limits={"CHF": None, "EUR": None, "GBP": None, "USD": 3_000_000}
        )


@in_loop
async def test_a_parent_stays_until_it_is_changed(path: Path) -> None:
    async with open_store(path) as store:
        await set_budget(store, "p", {})
        await set_budget(store, "q", {})
        await set_budget(store, "b", {"USD": 1}, parent="p")
        assert (await set_budget(store, "b", {})).parent == "p"
        assert (await set_budget(store, "b", {}, parent="q")).parent == "q"
        assert (await set_budget(store, "b", {}, parent="")).parent is None
        await set_budget(store, "b", {}, parent="p")
        await take(store, Ledger(store), "b", "x", {"USD": 5})
        with pytest.raises(InvalidBudget, match="while USD of 'b' is reserved"):
            await set_budget(store, "b", {}, parent="q")
        assert (await set_budget(store, "b", {}, parent="p")).parent == "p"


@in_loop
async def test_a_budget_is_no_part_of_itself(path: Path) -> None:
    async with open_store(path) as store:
        with pytest.raises(NotFound):
            await set_budget(store, "a", {}, parent="a")
        await set_budget(store, "a", {})
        await set_budget(store, "b", {}, parent="a")
        await set_budget(store, "c", {}, parent="b")
        for parent in ("a", "b", "c"):
            with pytest.raises(InvalidBudget, match="is a part of 'a'"):
                await set_budget(store, "a", {}, parent=parent)
        circle = [opening("x", {}, parent="y"), opening("y", {}, parent="x")]
        await store.log.append(*circle)
        with pytest.raises(InvalidBudget, match="a part of itself"):
            await Ledger(store).chain("x")


@in_loop
async def test_budgets_are_not_too_deep(path: Path) -> None:
    async with open_store(path) as store:
        await set_budget(store, "b0", {})
        for n in range(MAX_ANCESTORS):
            await set_budget(store, f"b{n + 1}", {}, parent=f"b{n}")
        deepest = f"b{MAX_ANCESTORS}"
        assert len(await Ledger(store).chain(deepest)) == MAX_ANCESTORS + 1
        with pytest.raises(InvalidBudget, match="above one"):
            await set_budget(store, "more", {}, parent=deepest)
        await store.log.append(opening("more", {}, parent=deepest))
        with pytest.raises(InvalidBudget, match="above it"):
            await Ledger(store).chain("more")


@in_loop
async def test_two_who_set_it_both_do(path: Path) -> None:
    async with open_store(path) as one, open_store(path) as other:
        stores = [one, other] * 5
        await asyncio.gather(
            *[set_budget(store, "b", {f"U{n}": "1"}) for n, store in enumerate(stores)]
        )
        account = await Ledger(one).load("b")
        assert account.version == 10
        assert len(account.limits) == 1, "the last one's limits are the limits"
        assert len(account.balances) == 10


@in_loop
async def test_what_does_not_exist_is_told(path: Path) -> None:
    async with open_store(path) as store:
        ledger = Ledger(store)
        for name in ("b", "run/r"):
            with pytest.raises(NotFound, match="carstore budget"):
                await ledger.chain(name)
            with pytest.raises(NotFound):
                await balances(store, name)
        assert await ledger.load("b", must=False) == Account(name="b")
        with pytest.raises(NotFound):
            await set_budget(store, "run/r", {"USD": "1"})
        with pytest.raises(NotFound):
            await set_budget(store, "b", {}, parent="p")
        assert not [one async for one in store.log.read(kinds=["budget_set"])]


@in_loop
async def test_what_cannot_be_set_is_refused_with_what_is_wrong(path: Path) -> None:
    async with open_store(path) as store:
        for name, limits, parent, where in (
            ("a b", {}, None, "budget"),
            ("b", {}, "a b", "parent"),
            ("b", {"USD": "-1"}, None, "limits.USD"),
            ("b", {"US D": "1"}, None, "limits"),
            ("b", {"US D": None}, None, "limits"),
        ):
            with pytest.raises(InvalidBudget) as caught:
                await set_budget(store, name, limits, parent=parent)
            assert caught.value.where == where


@in_loop
async def test_less_than_nothing_is_never_moved(path: Path) -> None:
    async with open_store(path) as store:
        await set_budget(store, "b", {"USD": "1"})
        ledger = Ledger(store)
        chain = await ledger.chain("b")
        with pytest.raises(InvalidBudget, match="less than nothing"):
            ledger.reserve(chain, "x", {"USD": -1})
        for reserved, spent in (({"USD": -1}, {}), ({}, {"USD": -1})):
            with pytest.raises(InvalidBudget, match="less than nothing"):
                ledger.settle(chain, "x", reserved, spent)


@in_loop
async def test_the_run_may_raise_its_own_limit_once_it_has_one(path: Path) -> None:
    async with open_store(path) as store:
        await family(store)
        made = await set_budget(store, "run/r", {"USD": "9"})
        assert (made.limits, made.parent) == ({"USD": 9_000_000}, "team")
        assert (await rows(store, BUDGETS))["run/r", "USD"].limit_micros == 9_000_000


@in_loop
async def test_the_memory_of_a_ledger_is_bounded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.accounts.MAX_ACCOUNTS", 3)
    async with open_store(path) as store:
        ledger = Ledger(store)
        for n in range(10):
            await set_budget(store, f"b{n}", {"USD": "1"})
            await ledger.load(f"b{n}")
            assert len(ledger._kept) <= 3
        assert (await ledger.load("b0")).limits == {"USD": 1_000_000}


def test_an_entry_is_in_the_stream_of_its_budget() -> None:
    event = BudgetSet(budget="team", limits={})
    assert entry_of(event, None) == Entry(budget_stream("team"), event, None)
