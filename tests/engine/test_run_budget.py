"""What a run may spend: set aside before a call, taken when it has ended, never counted twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.errors import NotFound
from engine import ToolContext, resolve, tool
from engine.ledger import balances, set_budget
from engine.prove.people import People
from engine.rules.budget import Balance, Budget, BudgetExhausted
from tests.engine.harness import Hands, call, execute, in_loop, opened, plan, resume

CENT = 10_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def buys(most: str, costs: str, calls: list[str], **declared: Any) -> Any:
    """A tool that declares what it costs at most, and costs something else."""

    @tool(name="buy", max_cost={"USD": most}, **declared)
    async def buy(ctx: ToolContext, delay: float = 0.0) -> None:
        calls.append(ctx.action_id)
        await asyncio.sleep(delay)
        ctx.meter(cost=costs)

    return buy


def several(count: int, **fields: Any) -> list[Any]:
    return [call(f"a{n}", "buy", failure_behavior="skip", **fields) for n in range(count)]


async def balance(store: Any, name: str) -> Balance:
    return (await balances(store, name))["USD"]


@in_loop
async def test_exactly_what_is_there_may_be_spent(db: Path) -> None:
    calls: list[str] = []
    async with opened(db) as store:
        seen = await execute(
            store,
            [buys("0.40", "0.40", calls)],
            plan(*several(3)),
            budget=Budget(costs={"USD": "0.80"}),
            run_id="r",
        )
        assert len(calls) == 2
        assert sorted(seen.statuses.values()) == ["skipped", "succeeded", "succeeded"]
        assert (seen.result.stopped or "").startswith("budget: budget 'run/r' is exhausted")
        assert await balance(store, "run/r") == Balance(80 * CENT, 0, 80 * CENT)


@in_loop
async def test_what_a_call_did_not_spend_is_there_for_the_next(db: Path) -> None:
    """Calls of one level wait for it, instead of stopping the run."""
    calls: list[str] = []
    async with opened(db) as store:
        seen = await execute(
            store,
            [buys("0.50", "0.10", calls)],
            plan(*several(4, parameters={"delay": 0.02})),
            budget=Budget(costs={"USD": "0.80"}),
            run_id="r",
        )
        assert seen.status == "succeeded"
        assert len(calls) == 4
        assert await balance(store, "run/r") == Balance(80 * CENT, 0, 40 * CENT)


@pytest.mark.parametrize("processes", [1, 2])
@in_loop
async def test_runs_that_share_a_budget_never_overspend_it(db: Path, processes: int) -> None:
    calls: list[str] = []
    async with opened(db) as one, opened(db) as two:
        stores = [one, two if processes == 2 else one]
        await set_budget(one, "team", {"USD": "1.00"})
        tools = [buys("0.10", "0.10", calls)]
        await asyncio.gather(
            *[
                execute(stores[n % 2], tools, plan(*several(4)), budget=Budget(parent="team"))
                for n in range(6)
            ]
        )
        assert len(calls) == 10
        assert await balance(one, "team") == Balance(100 * CENT, 0, 100 * CENT)


@in_loop
async def test_a_call_that_spent_more_than_it_said_is_recorded_in_full(db: Path) -> None:
    calls: list[str] = []
    async with opened(db) as store:
        seen = await execute(
            store,
            [buys("0.10", "3.00", calls)],
            plan(*several(2)),
            budget=Budget(costs={"USD": "1.00"}),
            concurrency=1,
            run_id="r",
        )
        assert calls == ["a0"]
        assert seen.statuses == {"a0": "succeeded", "a1": "skipped"}
        assert await balance(store, "run/r") == Balance(100 * CENT, 0, 300 * CENT)


@in_loop
async def test_a_charge_beyond_what_is_left_is_refused_and_changes_nothing(db: Path) -> None:
    left: list[Any] = []

    @tool
    async def spender(ctx: ToolContext) -> None:
        left.append(await ctx.charge("USD", "0.30"))
        with pytest.raises(BudgetExhausted):
            await ctx.charge("USD", "5.00")
        left.append(await ctx.charge("USD", "0.70"))
        with pytest.raises(BudgetExhausted):
            await ctx.charge("USD", "0.000001")
        left.append(await ctx.charge("EUR", "9999"))

    async with opened(db) as store:
        seen = await execute(
            store, [spender], plan(call("spender")), budget=Budget(costs={"USD": 1}), run_id="r"
        )
        assert seen.status == "succeeded"
        assert left == [70 * CENT, 0, None]
        assert await balance(store, "run/r") == Balance(100 * CENT, 0, 100 * CENT)
        spent = [(one.currency, one.cost_micros) for one in seen.events(e.InferenceMetered)]
        assert spent == [("USD", 30 * CENT), ("USD", 70 * CENT), ("EUR", 9999 * 100 * CENT)]


@in_loop
async def test_charges_at_the_same_time_share_what_there_is(db: Path) -> None:
    """From threads and tasks, in several runs of one budget."""
    refused: list[str] = []

    @tool(name="thread")
    def spends(ctx: ToolContext) -> None:
        for _ in range(4):
            try:
                ctx.spend("USD", "0.10")
            except BudgetExhausted:
                refused.append("thread")

    @tool(name="task")
    async def charges(ctx: ToolContext) -> None:
        for _ in range(4):
            try:
                await ctx.charge("USD", "0.10")
            except BudgetExhausted:
                refused.append("task")

    async with opened(db) as store:
        await set_budget(store, "team", {"USD": "1.00"})
        proposal = plan(*[call(n, failure_behavior="skip") for n in ("thread", "task")])
        await asyncio.gather(
            *[
                execute(store, [spends, charges], proposal, budget=Budget(parent="team"))
                for _ in range(3)
            ]
        )
        assert len(refused) == 24 - 10
        assert await balance(store, "team") == Balance(100 * CENT, 0, 100 * CENT)


@pytest.mark.parametrize(("resolution", "spent"), [("succeeded", 40), ("failed", 0), ("retry", 40)])
@in_loop
async def test_what_is_in_doubt_stays_reserved_until_somebody_knows(
    db: Path, resolution: Any, spent: int
) -> None:
    people, calls = People(), list[str]()
    budget = Budget(costs={"USD": "1.00"})
    async with opened(db, people) as store:
        slow = several(1, parameters={"delay": 30}, timeout_ms=30)
        tools = [buys("0.40", "0.40", calls)]
        seen = await execute(store, tools, plan(*slow), budget=budget, run_id="r")
        assert seen.status == "waiting"
        assert await balance(store, "run/r") == Balance(100 * CENT, 40 * CENT, 0)
        await resolve(store, seen.result.run_id, "a0", resolution)
        quick = [buys("0.40", "0.40", calls)]
        # The tool takes its time again when it is called once more, and ends in doubt again.
        after = await resume(store, quick, "r")
        expected = Balance(100 * CENT, 40 * CENT, 0) if resolution == "retry" else None
        if expected is not None:
            assert after.status == "waiting"
            assert await balance(store, "run/r") == expected
            await resolve(store, seen.result.run_id, "a0", "succeeded")
            await resume(store, quick, "r")
        assert await balance(store, "run/r") == Balance(100 * CENT, 0, spent * CENT)


@in_loop
async def test_a_call_that_died_with_its_process_counts_in_full(db: Path) -> None:
    """Nobody knows what it has spent; what it is repeated for costs again."""
    people, calls = People(), list[str]()
    budget = Budget(costs={"USD": "1.00"})
    async with opened(db, people) as store:
        tools = [buys("0.40", "0.10", calls, idempotent=True)]
        append = store.log.append

        async def dies(*entries: Any, **kwargs: Any) -> Any:
            if any(isinstance(one.event, e.ActionSucceeded) for one in entries):
                raise OSError("dead")
            return await append(*entries, **kwargs)

        store.log.append = dies  # type: ignore[method-assign]
        with pytest.raises(OSError, match="dead"):
            await execute(store, tools, plan(*several(1)), budget=budget, run_id="r")
    people.all_die()
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert calls == ["a0", "a0"]
        assert await balance(store, "run/r") == Balance(100 * CENT, 0, 50 * CENT)


@in_loop
async def test_a_budget_that_is_not_there_is_refused_before_anything_happens(db: Path) -> None:
    async with opened(db) as store:
        head = await store.log.head()
        with pytest.raises(NotFound, match="team"):
            await execute(store, [], plan(), budget=Budget(parent="team"))
        assert await store.log.head() == head
