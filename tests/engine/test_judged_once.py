"""What was checked before a call stays checked, and nothing slips by a check."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from engine import Action, Precondition, ToolCompensation, ToolContext, resolve, tool
from engine.approvals import approve
from engine.cancel import cancel
from engine.ir import Operator
from engine.ledger import balances
from engine.policies import Judged, ask, policy
from engine.policy_file import policies_of
from engine.replan import Aborted
from engine.rules.budget import Balance, Budget
from engine.signals import signal
from tests.engine.harness import (
    Hands,
    call,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    run_plan,
    runtime,
    set_state,
    write,
)

LARGE = "x" * 200_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def deny_tool(name: str) -> Any:
    return policies_of({"deny_tool": name})


@in_loop
async def test_a_retry_of_what_never_passed_is_judged(db: Path, hands: Hands) -> None:
    """Somebody writes the key between all decisions, so that the first attempt fails unjudged."""
    condition = Precondition(key="ok", operator=Operator.EXISTS)
    action = call("deploy", preconditions=[condition], failure_behavior="retry", max_retries=3)
    async with opened(db) as store, opened(db) as other:
        await set_state(other, {"ok": 1})
        append, left = store.log.append, [4]

        async def contested(*entries: Any, **kwargs: Any) -> Any:
            if left[0] and kwargs["expect"].unchanged:
                left[0] -= 1
                await set_state(other, {"ok": left[0]})
            return await append(*entries, **kwargs)

        store.log.append = contested  # type: ignore[method-assign]
        seen = await execute(
            store, [hands.tool("deploy")], plan(action), policies=[deny_tool("deploy")]
        )
        assert hands.calls == []
        assert seen.statuses == {"deploy": "rejected"}


@in_loop
async def test_consent_to_something_large_holds_after_a_restart(db: Path, hands: Hands) -> None:
    @policy
    def asks(judged: Judged) -> Any:
        return ask("large")

    proposal = plan(call("send", parameters={"body": LARGE}))
    async with opened(db) as store:
        one = runtime(store, [hands.tool("send")], policies=[asks])
        assert (await one.execute(proposal, run_id="r")).status == "waiting"
    async with opened(db) as store:
        await approve(store, "r", "send", by="ann")
        one = runtime(store, [hands.tool("send")], policies=[asks])
        assert (await one.resume("r")).status == "succeeded"
        assert hands.calls == [("send", {"body": LARGE})]
        asked = [one async for one in store.log.read(kinds=["approval_requested"])]
        assert len(asked) == 1


@in_loop
async def test_a_large_call_is_remembered_by_a_run_that_was_resumed(db: Path, hands: Hands) -> None:
    effects = {"k": LARGE}
    fetch = call("fetch", parameters={"n": LARGE}, idempotent=True, expected_effects=effects)
    waits = call("w", "wait_signal", parameters={"name": "go"})
    later = call(
        "later",
        "fetch",
        parameters={"n": LARGE},
        idempotent=True,
        expected_effects=effects,
        dependencies=("w",),
    )
    tools = [hands.tool("fetch", "made")]
    async with opened(db) as store:
        await runtime(store, tools).execute(plan(fetch))
        await runtime(store, tools).execute(plan(waits, later), run_id="r")
    async with opened(db) as store:
        await signal(store, "r", "go", None)
        done = await runtime(store, tools).resume("r")
        assert (done.status, len(hands.calls)) == ("succeeded", 1)


@in_loop
async def test_more_consents_are_asked_for_if_the_rules_ask_for_more(
    db: Path, hands: Hands
) -> None:
    @policy(reads=("strict",))
    def asks(judged: Judged) -> Any:
        return ask("goes out", approvers=2 if judged.state("strict").exists else 1)

    async with opened(db) as store:
        send = plan(call("send"))
        await execute(store, [hands.tool("send")], send, run_id="r", policies=[asks])
        await set_state(store, {"strict": True})
        await approve(store, "r", "send", by="ann")
        seen = await resume(store, [hands.tool("send")], "r", policies=[asks])
        assert (seen.status, hands.calls) == ("waiting", [])
        for who in ("ann", "bob"):
            await approve(store, "r", "send", by=who)
        assert (await resume(store, [hands.tool("send")], "r", policies=[asks])).status == (
            "succeeded"
        )


@in_loop
async def test_what_comes_in_the_place_of_a_run_is_bound_by_its_rules(
    db: Path, hands: Hands
) -> None:
    """Also if whoever resumes it names none."""

    def instead(aborted: Aborted) -> Any:
        return plan(call("deploy"))

    tools = [hands.tool("deploy"), hands.tool("bad", fails=9)]
    waits = call("w", "wait_signal", parameters={"name": "go"})
    async with opened(db) as store:
        first = runtime(store, tools, policies=[deny_tool("deploy")], replan=instead)
        await first.execute(plan(waits, call("bad", dependencies=("w",))), run_id="r")
        await signal(store, "r", "go", None)
        done = await runtime(store, tools, replan=instead).resume("r")
        assert (done.run_id, done.results[0].status) == ("r-r1", "rejected")
        assert "deploy" not in hands.names


@in_loop
async def test_a_run_that_is_only_to_stop_needs_neither_tools_nor_rules(
    db: Path, hands: Hands
) -> None:
    @policy
    def code(judged: Judged) -> Any:
        return None

    waits = call("w", "wait_signal", parameters={"name": "go"})
    proposal = plan(waits, call("next", dependencies=("w",)))
    async with opened(db) as store:
        await execute(store, [hands.tool("next")], proposal, run_id="r", policies=[code])
        await cancel(store, "r")
        done = await runtime(store, []).resume("r")
        assert done.status == "cancelled"


@in_loop
async def test_a_result_is_not_served_once_its_undoing_has_begun(db: Path, hands: Hands) -> None:
    slow = asyncio.Event()

    async def undo(**_: Any) -> None:
        await slow.wait()

    tools = [
        hands.tool("book", "b1", compensation="unbook"),
        hands.tool("unbook", does=undo),
        hands.tool("bad", fails=9),
    ]
    async with opened(db) as store:
        book = call("book", idempotent=True)
        run = asyncio.create_task(
            runtime(store, tools).execute(plan(book, call("bad", dependencies=("book",))))
        )
        async with asyncio.timeout(5):
            while "unbook" not in hands.names:
                await asyncio.sleep(0.01)
        seen = await execute(store, tools, plan(book))
        assert seen.events(e.ActionDeduplicated) == []
        assert hands.names.count("book") == 2
        slow.set()
        assert (await run).status == "rolled_back"


@in_loop
async def test_a_cached_result_stands_for_its_effects_only_if_they_hold(
    db: Path, hands: Hands
) -> None:
    tools = [hands.tool("look", 1, read_only=True, cache_ttl_secs=60)]
    async with opened(db) as store:
        await execute(store, tools, plan(call("look")))
        seen = await execute(store, tools, plan(call("look", expected_effects={"k": 1})))
        assert seen.state == {"k": 1}
        assert len(hands.calls) == 2


@in_loop
async def test_what_a_call_in_doubt_has_charged_counts_once(db: Path) -> None:
    @tool(max_cost={"USD": "0.05"})
    async def pay(ctx: ToolContext) -> None:
        await ctx.charge("USD", "0.03")
        await asyncio.sleep(30)

    async with opened(db) as store:
        action: Action = call("pay", timeout_ms=50)
        budget = Budget(costs={"USD": "1.00"})
        seen = await execute(store, [pay], plan(action), run_id="r", budget=budget)
        assert seen.status == "waiting"
        assert (await balances(store, "run/r"))["USD"] == Balance(1_000_000, 50_000, 30_000)
        await resolve(store, seen.result.run_id, "pay", "succeeded")
        await resume(store, [pay], "r")
        assert (await balances(store, "run/r"))["USD"] == Balance(1_000_000, 0, 80_000)


def test_a_wait_undoes_nothing(db: Path, hands: Hands) -> None:
    undo = ToolCompensation(tool="sleep", parameters={"seconds": 1})
    seen = run_plan(
        db,
        [hands.tool("a"), hands.tool("bad", fails=9)],
        call("a", compensation=undo),
        call("bad", dependencies=("a",)),
        write("w", "k", 1),
    )
    assert seen.status == "partially_compensated"
    assert "only waits" in seen.result.not_undone[0].reason
