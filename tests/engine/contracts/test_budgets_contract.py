"""What a run asks of its budgets, over the ledger in the log and over one in memory.

A driver reserves through a `Purse`; so the last tests are about purses on either of them.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore.errors import NotFound, VersionConflict
from carstore.events import BudgetReserved, BudgetSettled
from carstore.log import Entry, Expect, LeaseIs
from carstore.names import RunId, StreamName, budget_stream
from engine.accounts import MAX_ANCESTORS, Budgets, Ledger, after
from engine.ledger import opening
from engine.purse import Purse
from engine.rules.budget import Account, BudgetExhausted
from engine.rules.money import InvalidBudget
from tests.carstore.helpers import in_loop, open_store

R = RunId("r")
CENT = 10_000


class MemoryLog:
    """Accounts in a dictionary, changed by what is appended."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    async def append(self, *entries: Entry, expect: Expect | None = None) -> None:
        held = {budget_stream(name): one.version for name, one in self.accounts.items()}
        for stream, version in (expect.versions if expect else {}).items():
            if held.get(stream, 0) != version:
                raise VersionConflict(stream, version, held.get(stream, 0))
        for entry in entries:
            event: Any = entry.event
            before = self.accounts.get(event.budget, Account(name=event.budget))
            self.accounts[event.budget] = evolve(before.apply(event), version=before.version + 1)


@define
class MemoryBudgets:
    """`Budgets` that looks accounts up in a dictionary."""

    store: Any

    async def chain(self, name: str) -> list[Account]:
        found: dict[str, Account] = {}
        at: str | None = name
        while at is not None:
            if at not in self.store.log.accounts:
                raise NotFound("budget", at, "Set it first.")
            if at in found or len(found) > MAX_ANCESTORS:
                raise InvalidBudget(name, "is a part of itself, or of too many")
            found[at] = self.store.log.accounts[at]
            at = found[at].parent
        return list(found.values())

    def reserve(
        self,
        chain: Sequence[Account],
        reservation: str,
        amounts: Mapping[str, int],
        run_id: RunId | None = None,
    ) -> tuple[list[Entry], dict[StreamName, int]]:
        _not_negative(amounts)
        for one in chain:
            if (short := one.covers(amounts)) is not None:
                raise BudgetExhausted(one.name, *short)
        taken = {unit: amount for unit, amount in amounts.items() if amount > 0}
        entries = [
            _entry(BudgetReserved(budget=one.name, reservation=reservation, amounts=taken), run_id)
            for one in (chain if taken else ())
        ]
        return entries, {
            entry.stream: one.version for entry, one in zip(entries, chain, strict=False)
        }

    def settle(
        self,
        chain: Sequence[Account],
        reservation: str,
        reserved: Mapping[str, int] | None,
        spent: Mapping[str, int],
        run_id: RunId | None = None,
    ) -> list[Entry]:
        _not_negative({**spent, **(reserved or {})})
        _not_negative(spent)
        entries = []
        for one in chain:
            back = one.open.get(reservation, {}) if reserved is None else reserved
            event = BudgetSettled(
                budget=one.name, reservation=reservation, reserved=dict(back), spent=dict(spent)
            )
            if any([*back.values(), *spent.values()]):
                entries.append(_entry(event, run_id))
        return entries


def _entry(event: BudgetReserved | BudgetSettled, run_id: RunId | None) -> Entry:
    return Entry(budget_stream(event.budget), event, run_id)


def _not_negative(amounts: Mapping[str, int]) -> None:
    if any(amount < 0 for amount in amounts.values()):
        raise InvalidBudget("amounts", "are less than nothing")


# --- the bench ---


@frozen
class Bench:
    """Budgets over one log; `new` gives those of another process."""

    budgets: Budgets
    new: Callable[[], Budgets]
    log: Any

    async def open(self, name: str, parent: str | None = None, **limits: int) -> None:
        entry = opening(name, limits, parent=parent)
        await self.log.append(entry, expect=Expect(versions={entry.stream: 0}))

    async def family(self) -> None:
        """`mine` is a part of `team`, which is a part of `all`."""
        await self.open("all", USD=100 * CENT)
        await self.open("team", "all", USD=50 * CENT, EUR=100 * CENT)
        await self.open("mine", "team", USD=20 * CENT)

    async def reserve(self, name: str, reservation: str, **amounts: int) -> None:
        chain = await self.budgets.chain(name)
        entries, versions = self.budgets.reserve(chain, reservation, amounts, R)
        await self.log.append(*entries, expect=Expect(versions=versions))

    async def settle(self, name: str, reservation: str, reserved: Any, **spent: int) -> None:
        chain = await self.budgets.chain(name)
        await self.log.append(*self.budgets.settle(chain, reservation, reserved, spent, R))

    async def balances(self, name: str, unit: str = "USD") -> list[tuple[int, int]]:
        """What is reserved and spent, along the chain."""
        found = [one.balances.get(unit) for one in await self.new().chain(name)]
        return [(one.reserved, one.spent) if one else (0, 0) for one in found]


@asynccontextmanager
async def in_the_log(folder: Path) -> AsyncIterator[Bench]:
    async with open_store(folder / "log.db") as store:
        yield Bench(Ledger(store), lambda: Ledger(store), store.log)


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Bench]:
    store = SimpleNamespace(log=MemoryLog())
    yield Bench(MemoryBudgets(store), lambda: MemoryBudgets(store), store.log)


Made = Callable[[Path], Any]
ALL: dict[str, Made] = {"log": in_the_log, "memory": in_memory}
each = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


# --- looking up ---


@each
@in_loop
async def test_a_chain_goes_from_the_budget_to_the_top(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        chain = await bench.budgets.chain("mine")
        assert [(one.name, one.version) for one in chain] == [("mine", 1), ("team", 1), ("all", 1)]
        assert [one.limits.get("USD") for one in chain] == [20 * CENT, 50 * CENT, 100 * CENT]


@each
@in_loop
async def test_what_was_never_set_is_not_found(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.open("orphan", "nobody")
        for name in ("nothing", "orphan"):
            with pytest.raises(NotFound):
                await bench.budgets.chain(name)


@each
@in_loop
async def test_circles_and_long_chains_are_refused(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.open("a", "b")
        await bench.open("b", "a")
        for depth in range(MAX_ANCESTORS + 2):
            await bench.open(f"n{depth}", f"n{depth - 1}" if depth else None)
        for name in ("a", f"n{MAX_ANCESTORS + 1}"):
            with pytest.raises(InvalidBudget):
                await bench.budgets.chain(name)
        assert len(await bench.budgets.chain(f"n{MAX_ANCESTORS}")) == MAX_ANCESTORS + 1


@each
@in_loop
async def test_a_chain_holds_what_others_have_appended(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.budgets.chain("mine")
        other = bench.new()
        entries, versions = other.reserve(await other.chain("mine"), "x", {"USD": CENT})
        await bench.log.append(*entries, expect=Expect(versions=versions))
        chain = await bench.budgets.chain("mine")
        assert [one.balances["USD"].reserved for one in chain] == [CENT] * 3
        assert [one.version for one in chain] == [2] * 3


# --- reserving ---


@each
@in_loop
async def test_what_is_reserved_is_reserved_all_the_way_up(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        chain = await bench.budgets.chain("mine")
        entries, versions = bench.budgets.reserve(chain, "x", {"USD": CENT, "EUR": 0}, R)
        streams = [budget_stream(name) for name in ("mine", "team", "all")]
        assert [(one.stream, one.run_id) for one in entries] == [(stream, R) for stream in streams]
        assert versions == dict.fromkeys(streams, 1)
        assert await bench.balances("mine") == [(0, 0)] * 3, "it takes effect when it is appended"
        await bench.log.append(*entries, expect=Expect(versions=versions))
        assert await bench.balances("mine") == [(CENT, 0)] * 3


@each
@in_loop
async def test_exactly_what_is_left_can_be_reserved_and_not_a_millionth_more(
    make: Made, tmp_path: Path
) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.reserve("mine", "x", USD=20 * CENT)
        chain = await bench.budgets.chain("mine")
        with pytest.raises(BudgetExhausted) as caught:
            bench.budgets.reserve(chain, "y", {"USD": 1})
        assert (caught.value.budget, caught.value.remaining) == ("mine", 0)
        assert await bench.balances("mine") == [(20 * CENT, 0)] * 3


@each
@in_loop
async def test_a_call_that_names_no_amount_may_begin_until_all_is_spent(
    make: Made, tmp_path: Path
) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.reserve("mine", "x", USD=20 * CENT)
        for amounts in ({}, {"USD": 0}):
            assert bench.budgets.reserve(await bench.budgets.chain("mine"), "y", amounts) == (
                [],
                {},
            )
        await bench.settle("mine", "x", None, USD=20 * CENT)
        with pytest.raises(BudgetExhausted):
            await bench.reserve("mine", "y")


@each
@in_loop
async def test_the_nearest_budget_that_is_short_is_named(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.reserve("team", "x", USD=45 * CENT)
        with pytest.raises(BudgetExhausted) as caught:
            await bench.reserve("mine", "y", USD=10 * CENT)
        assert (caught.value.budget, caught.value.remaining) == ("team", 5 * CENT)
        with pytest.raises(BudgetExhausted) as caught:
            await bench.reserve("mine", "y", USD=30 * CENT)
        assert caught.value.budget == "mine"


@each
@in_loop
async def test_a_unit_without_a_limit_is_counted_and_unbounded(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.reserve("mine", "x", GBP=10**12)
        assert await bench.balances("mine", "GBP") == [(10**12, 0)] * 3


@each
@in_loop
async def test_one_of_two_who_read_the_same_is_refused(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        prepared = []
        for name in ("mine", "team"):
            budgets = bench.new()
            prepared.append(budgets.reserve(await budgets.chain(name), name, {"USD": 20 * CENT}))
        (first, versions), (second, stale) = prepared
        await bench.log.append(*first, expect=Expect(versions=versions))
        with pytest.raises(VersionConflict):
            await bench.log.append(*second, expect=Expect(versions=stale))


@each
@in_loop
async def test_less_than_nothing_is_never_moved(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        chain = await bench.budgets.chain("mine")
        with pytest.raises(InvalidBudget):
            bench.budgets.reserve(chain, "x", {"USD": -1})
        for given, spent in (({"USD": -1}, {}), ({}, {"USD": -1}), (None, {"USD": -1})):
            with pytest.raises(InvalidBudget):
                bench.budgets.settle(chain, "x", given, spent)


# --- settling ---


@each
@in_loop
async def test_a_settlement_gives_back_all_and_takes_what_was_spent(
    make: Made, tmp_path: Path
) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.reserve("mine", "x", USD=9 * CENT)
        await bench.reserve("mine", "y", USD=CENT)
        await bench.settle("mine", "x", None, USD=4 * CENT)
        assert await bench.balances("mine") == [(CENT, 4 * CENT)] * 3
        assert "x" not in (await bench.new().chain("mine"))[0].open


@each
@in_loop
async def test_a_call_in_doubt_goes_on_holding(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.reserve("mine", "x", USD=9 * CENT)
        chain = await bench.budgets.chain("mine")
        assert bench.budgets.settle(chain, "x", {}, {}) == []
        await bench.settle("mine", "x", {}, USD=CENT)
        assert await bench.balances("mine") == [(9 * CENT, CENT)] * 3


@each
@in_loop
async def test_what_was_spent_counts_whatever_is_left(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.settle("mine", "x", None, USD=500 * CENT)
        assert await bench.balances("mine") == [(0, 500 * CENT)] * 3
        for amounts in ({"USD": 1}, {}):
            with pytest.raises(BudgetExhausted) as caught:
                await bench.reserve("mine", "y", **amounts)
            assert caught.value.remaining == -480 * CENT


# --- all of them alike ---

amount = st.integers(0, 30).map(lambda cents: cents * CENT)
amounts = st.dictionaries(st.sampled_from(["USD", "EUR"]), amount, max_size=2)
names = st.sampled_from(["mine", "team", "all"])
reservations = st.sampled_from("xyz")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), names, reservations, amounts, st.none()),
        st.tuples(st.just("settle"), names, reservations, amounts, st.none() | amounts),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps)
def test_they_answer_alike(taken: list[Any]) -> None:
    async def answers(make: Made, folder: Path) -> list[Any]:
        async with make(folder) as bench:
            await bench.family()
            return [await _answer(bench, *step) for step in taken]

    async def both() -> None:
        found = []
        for make in ALL.values():
            with tempfile.TemporaryDirectory() as folder:
                found.append(await answers(make, Path(folder)))
        assert all(one == found[0] for one in found)

    asyncio.run(both())


async def _answer(
    bench: Bench, what: str, name: str, reservation: str, given: dict[str, int], back: Any
) -> Any:
    chain, versions = await bench.budgets.chain(name), dict[StreamName, int]()
    try:
        if what == "settle":
            entries = bench.budgets.settle(chain, reservation, back, given, R)
        else:
            entries, versions = bench.budgets.reserve(chain, reservation, given, R)
    except BudgetExhausted as error:
        return error.budget, error.unit, error.remaining, error.asked
    if entries:
        await bench.log.append(*entries, expect=Expect(versions=versions))
    return [entry.event for entry in entries], versions, await bench.budgets.chain(name)


# --- purses on them ---


@define
class Holder:
    """A driver: it appends what its purse decides, and ends its turn."""

    bench: Any
    locks: dict[str, asyncio.Lock]
    granted: list[str] = field(factory=list)

    async def call(self, reservation: str, most: int, costs: int) -> None:
        purse = Purse(self.bench.new(), self.locks, "mine", R)
        while True:
            try:
                entries, versions = await purse.reserve(reservation, {"USD": most})
                await self.bench.log.append(*entries, expect=Expect(versions=versions))
            except VersionConflict:
                continue
            except BudgetExhausted:
                return
            finally:
                purse.end_turn()
            break
        self.granted.append(reservation)
        await asyncio.sleep(0)
        await self.bench.log.append(*await purse.settle(reservation, {"USD": costs}))
        purse.end_turn()


@each
@pytest.mark.parametrize("shared", [True, False], ids=["one process", "several"])
@in_loop
async def test_drivers_at_the_same_time_never_take_more_than_there_is(
    make: Made, tmp_path: Path, shared: bool
) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        locks: dict[str, asyncio.Lock] = {}
        holders = [Holder(bench, locks if shared else {}) for _ in range(4)]
        await asyncio.gather(
            *[
                holder.call(f"{n}/{m}", 2 * CENT, 2 * CENT)
                for n, holder in enumerate(holders)
                for m in range(4)
            ]
        )
        assert sum(len(one.granted) for one in holders) == 10
        assert await bench.balances("mine") == [(0, 20 * CENT)] * 3


@each
@in_loop
async def test_several_reservations_of_one_turn_see_each_other(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        purse = Purse(bench.budgets, {}, "mine", R)
        entries, versions = await purse.reserve("x", {"USD": 15 * CENT})
        with pytest.raises(BudgetExhausted):
            await purse.reserve("y", {"USD": 6 * CENT})
        more, same = await purse.reserve("z", {"USD": 5 * CENT})
        assert versions == same
        await bench.log.append(*entries, *more, expect=Expect(versions=versions))
        purse.end_turn()
        assert await bench.balances("mine") == [(20 * CENT, 0)] * 3


@each
@in_loop
async def test_a_call_without_an_answer_counts_in_full(make: Made, tmp_path: Path) -> None:
    async with make(tmp_path) as bench:
        await bench.family()
        await bench.reserve("mine", "x", USD=9 * CENT)
        purse = Purse(bench.budgets, {}, "mine", R)
        await bench.log.append(*await purse.forfeit("x"))
        assert await bench.balances("mine") == [(0, 9 * CENT)] * 3


@in_loop
async def test_a_tool_may_set_more_aside_while_it_runs(tmp_path: Path) -> None:
    """In memory: the log would ask for the lease of a run, which has its own tests."""
    async with in_memory(tmp_path) as bench:
        await bench.family()
        purse = Purse(bench.budgets, {}, "mine", R)
        lease: LeaseIs = SimpleNamespace()  # type: ignore[assignment]
        assert await purse.spend("x", "USD", 15 * CENT, lease) == 5 * CENT
        with pytest.raises(BudgetExhausted):
            await purse.spend("x", "USD", 6 * CENT, lease)
        assert await purse.spend("x", "GBP", CENT, lease) is None
        assert await bench.balances("mine") == [(15 * CENT, 0)] * 3
        chain = await bench.budgets.chain("mine")
        assert after(chain, []) == chain
