"""Calls that are put off, or left out, keep nothing: no money, no lease that others wait for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from engine import Action, ToolContext, dispatch, tool
from engine.cancel import cancel
from engine.ledger import balances
from engine.prove.people import People
from engine.rules.budget import Budget
from tests.engine.harness import Hands, call, execute, in_loop, opened, plan, resume, runtime

CENT = 10_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def work(n: int, **fields: Any) -> Action:
    """An action that asks for the remembered result of an equal call."""
    return call(
        f"a{n}", "work", idempotent=True, parameters={"n": n}, failure_behavior="skip", **fields
    )


async def pause(**_: Any) -> str:
    await asyncio.sleep(0.02)
    return "made"


@pytest.mark.parametrize("limit", ["rate", "budget"])
@in_loop
async def test_a_call_that_waits_for_its_turn_is_made_then(
    db: Path, hands: Hands, limit: str
) -> None:
    """Also one whose result is to be remembered: it does not wait for itself."""
    most = {"USD": "0.60"} if limit == "budget" else {}
    budget = Budget(costs={"USD": "1.00"}) if limit == "budget" else None
    async with opened(db) as store:
        one = runtime(store, [hands.tool("work", does=pause, max_cost=most)], budget=budget)
        if limit == "rate":
            one.set_rate_limit("work", 1, 0.1)
        result = await one.execute(plan(work(0), work(1)))
    assert result.status == "succeeded"
    assert len(hands.calls) == 2


@in_loop
async def test_nobody_waits_for_a_call_that_was_left_out(db: Path, hands: Hands) -> None:
    """The run aborts in the turn in which the call was decided on."""
    stale = Action(id="x", type="assertion", parameters={"key": "k", "expected": 1})
    async with opened(db) as store:
        tools = [hands.tool("work")]
        seen = await execute(store, tools, plan(work(0), stale), schedule="eager")
        assert seen.statuses == {"a0": "skipped", "x": "failed"}
        after = await asyncio.wait_for(execute(store, tools, plan(work(0))), 10)
        assert after.status == "succeeded"


@pytest.mark.parametrize("look", [1, 2])
@in_loop
async def test_a_success_between_the_look_and_the_call_is_seen(
    db: Path, hands: Hands, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    """Another process makes the call, from its beginning to its end, after the first or the second
    time that somebody looked for its result."""
    tools, served, looks = [hands.tool("work", "made")], dispatch._served, []
    async with opened(db) as one, opened(db) as two:

        async def late(desk: Any, *of_what: Any) -> Any:
            found = await served(desk, *of_what)
            if desk.run.run_id == "late":
                looks.append(found)
                if len(looks) == look:
                    await execute(two, tools, plan(work(0)), run_id="quick")
            return found

        monkeypatch.setattr(dispatch, "_served", late)
        seen = await execute(one, tools, plan(work(0)), run_id="late")
    assert seen.status == "succeeded"
    assert looks[0] is None
    assert [hit.original_run_id for hit in seen.events(e.ActionDeduplicated)] == ["quick"]
    assert hands.names == ["work"]


@pytest.mark.parametrize("why", ["budget", "cancelled"])
@in_loop
async def test_a_run_that_stops_counts_what_a_lost_call_may_have_spent(db: Path, why: str) -> None:
    """The call may be repeated, and is not: there is too little left, or somebody says stop."""
    people = People()

    @tool(idempotent=True, max_cost={"USD": "0.60"})
    async def buy(ctx: ToolContext) -> None:
        ctx.meter(cost="0.10")

    async with opened(db, people) as store:
        append = store.log.append

        async def dies(*entries: Any, **kwargs: Any) -> Any:
            if any(isinstance(one.event, e.ActionSucceeded) for one in entries):
                raise OSError("dead")
            return await append(*entries, **kwargs)

        store.log.append = dies  # type: ignore[method-assign]
        limit = "1.00" if why == "budget" else "2.00"
        with pytest.raises(OSError, match="dead"):
            await execute(
                store,
                [buy],
                plan(call("a0", "buy")),
                budget=Budget(costs={"USD": limit}),
                run_id="r",
            )
    people.all_die()
    async with opened(db, people) as store:
        if why == "cancelled":
            await cancel(store, (await runtime(store, [buy]).unfinished())[0])
        seen = await resume(store, [buy], "r")
        assert (seen.result.stopped or "").startswith(why)
        left = (await balances(store, "run/r"))["USD"]
        assert (left.reserved, left.spent) == (0, 60 * CENT)


@in_loop
async def test_a_turn_with_many_events_keeps_no_claim_of_what_it_puts_off(
    db: Path, hands: Hands
) -> None:
    """It is recorded in parts, and what it claims for a call is claimed with that call."""

    @tool(max_cost={"USD": "0.60"})
    async def work(ctx: ToolContext, n: int) -> str:
        await asyncio.sleep(0.02)
        ctx.meter(cost="0.10")
        return f"made {n}"

    many = [
        Action(
            id=f"w{n}",
            type="state_write",
            parameters={"key": f"k{n}", "value": n},
            failure_behavior="skip",
        )
        for n in range(150)
    ]
    calls = [
        call(f"c{n}", "work", idempotent=True, parameters={"n": n}, failure_behavior="skip")
        for n in range(3)
    ]
    async with opened(db) as store:
        budget = Budget(costs={"USD": "1.00"})
        proposal = plan(calls[0], *many, *calls[1:])
        seen = await execute(store, [work], proposal, run_id="r", budget=budget)
        assert seen.status == "succeeded"
        assert (await balances(store, "run/r"))["USD"].spent == 30 * CENT
