"""Attempts of which nobody knows what became, and who answers for them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.errors import NotFound
from carstore.names import RunId
from engine import NoDoubt, ToolContext, resolve, tool
from projections import DOUBTS, rows
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
    until,
    write,
)

R = RunId("r")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def sometimes(hands: Hands, hangs: int = 1, name: str = "slow", **declared: Any) -> Any:
    """A tool that hangs in its first calls, longer than its timeout."""
    left = [hangs]

    async def hang(**_: Any) -> str:
        if left[0] > 0:
            left[0] -= 1
            await asyncio.sleep(30)
        return "done"

    return hands.tool(name, does=hang, **{"timeout_ms": 20, **declared})


def needs(name: str, *needed: str, **fields: Any) -> Any:
    return call(name, "t", dependencies=list(needed), **fields)


@in_loop
async def test_an_answer_of_success_goes_on_with_its_output(db: Path) -> None:
    hands = Hands()
    tools = [sometimes(hands), hands.tool("t")]
    async with opened(db) as store:
        proposal = plan(
            call("slow", expected_effects={"k": 1}),
            call("next", "t", parameters={"x": "$slow.output"}),
        )
        seen = await execute(store, tools, proposal, run_id="r")
        assert seen.status == "waiting"
        [doubt] = (await rows(store, DOUBTS)).values()
        assert (doubt.run_id, doubt.action_id, doubt.tool, doubt.attempt) == (
            "r",
            "slow",
            "slow",
            1,
        )
        await resolve(store, R, "slow", "succeeded", output=[5], by="ann")
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert hands.calls == [("slow", {}), ("t", {"x": [5]})]
        assert seen.state == {"k": 1}
        assert seen.events(e.DoubtResolved)[0].by == "ann"
        assert not await rows(store, DOUBTS)


@in_loop
async def test_an_answer_of_failure_is_a_failure_and_is_not_retried(db: Path) -> None:
    hands = Hands()
    tools = [sometimes(hands), hands.tool("t")]
    async with opened(db) as store:
        proposal = plan(call("slow", failure_behavior="retry"), needs("next", "slow"))
        await execute(store, tools, proposal, run_id="r")
        await resolve(store, R, "slow", "failed", error="it was not sent")
        seen = await resume(store, tools, "r")
        assert seen.status == "failed"
        assert seen.errors == {"slow": "it was not sent", "next": "dependency 'slow' failed"}
        assert hands.names == ["slow"]


@pytest.mark.parametrize("hangs", [1, 2, 3])
@in_loop
async def test_an_answer_of_retry_calls_once_more_each_time(db: Path, hangs: int) -> None:
    hands = Hands()
    tools = [sometimes(hands, hangs), hands.tool("t")]
    async with opened(db) as store:
        proposal = plan(call("slow"), needs("next", "slow"))
        seen = await execute(store, tools, proposal, run_id="r")
        for n in range(hangs):
            assert seen.status == "waiting"
            assert len(hands.calls) == n + 1
            await resolve(store, R, "slow", "retry")
            seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert hands.names == ["slow"] * (hangs + 1) + ["t"]
        assert [one.attempt for one in seen.events(e.ActionExecuting)][:-1] == list(
            range(1, hangs + 2)
        )


@pytest.mark.parametrize(
    ("on_doubt", "names", "status"),
    [("fail", ["slow"], "rolled_back"), ("retry", ["slow", "slow", "t"], "succeeded")],
)
def test_a_policy_answers_at_once(db: Path, on_doubt: str, names: list[str], status: str) -> None:
    hands = Hands()
    tools = [sometimes(hands), hands.tool("t")]
    seen = run_plan(db, tools, call("slow"), needs("next", "slow"), on_doubt=on_doubt)
    assert seen.status == status
    assert hands.names == names
    assert "run_paused" not in seen.kinds
    if on_doubt == "fail":
        assert seen.errors["slow"] == "in doubt: action timed out after 20ms"


@pytest.mark.parametrize(("schedule", "goes_on"), [("levels", ["b"]), ("eager", ["b", "c"])])
def test_whatever_does_not_depend_on_it_goes_on(
    db: Path, schedule: str, goes_on: list[str]
) -> None:
    """In the default schedule that is the rest of its level."""
    hands = Hands()
    tools = [sometimes(hands), hands.tool("t")]
    seen = run_plan(
        db,
        tools,
        call("slow"),
        needs("b"),
        needs("c", "b"),
        needs("d", "slow"),
        schedule=schedule,
    )
    assert seen.status == "waiting"
    assert list(seen.statuses) == goes_on
    assert seen.result.cost.tool_calls == len(goes_on)


@in_loop
async def test_resuming_without_an_answer_goes_on_waiting(db: Path) -> None:
    hands = Hands()
    tools = [sometimes(hands)]
    async with opened(db) as store:
        await execute(store, tools, plan(call("slow")), run_id="r")
        for _ in range(2):
            seen = await resume(store, tools, "r")
            assert seen.status == "waiting"
        assert len(hands.calls) == 1
        assert len(seen.events(e.ActionInDoubt)) == 1
        await resolve(store, R, "slow", "succeeded")
        assert (await resume(store, tools, "r")).status == "succeeded"


@in_loop
async def test_an_answer_while_the_run_is_driven_is_heard(db: Path) -> None:
    hands = Hands()
    go_on = asyncio.Event()

    async def wait() -> str:
        await go_on.wait()
        return "waited"

    tools = [sometimes(hands), hands.tool("long", does=wait), hands.tool("t")]
    async with opened(db) as store:
        proposal = plan(
            call("slow", failure_behavior="skip"),
            call("long", failure_behavior="skip"),
            needs("next", "slow"),
        )
        task = asyncio.create_task(execute(store, tools, proposal, run_id="r"))
        told = [False]

        async def tell() -> None:
            while not told[0]:
                try:
                    await resolve(store, R, "slow", "succeeded", output=1)
                    told[0] = True
                except (NoDoubt, NotFound):
                    await asyncio.sleep(0.005)

        await tell()
        go_on.set()
        seen = await task
        assert seen.status == "succeeded"
        assert "run_paused" not in seen.kinds


@in_loop
async def test_two_doubts_are_answered_one_by_one(db: Path) -> None:
    hands = Hands()
    tools = [sometimes(hands, name="one"), sometimes(hands, name="two")]
    async with opened(db) as store:
        proposal = plan(call("one", failure_behavior="skip"), call("two", failure_behavior="skip"))
        seen = await execute(store, tools, proposal, run_id="r")
        paused = seen.events(e.RunPaused)[-1]
        assert [one["action_id"] for one in paused.waiting_for] == ["one", "two"]
        await resolve(store, R, "two", "succeeded")
        seen = await resume(store, tools, "r")
        assert seen.status == "waiting"
        assert seen.statuses == {"two": "succeeded"}
        await resolve(store, R, "one", "retry")
        seen = await resume(store, tools, "r")
        assert seen.statuses == {"one": "succeeded", "two": "succeeded"}
        assert hands.names.count("two") == 1
        assert hands.names.count("one") == 2


@in_loop
async def test_an_answer_to_no_question_is_refused(db: Path) -> None:
    hands = Hands()
    tools = [sometimes(hands), hands.tool("t")]
    async with opened(db) as store:
        with pytest.raises(NotFound):
            await resolve(store, RunId("nobody"), "a", "retry")
        await execute(store, tools, plan(needs("t"), call("slow")), run_id="r")
        with pytest.raises(NotFound, match="carstore show"):
            await resolve(store, R, "nothing", "retry")
        with pytest.raises(NoDoubt, match="carstore doubts"):
            await resolve(store, R, "t", "retry")
        await resolve(store, R, "slow", "succeeded")
        with pytest.raises(NoDoubt):
            await resolve(store, R, "slow", "failed")
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"


@in_loop
async def test_an_output_that_is_no_json_is_no_answer(db: Path) -> None:
    from carstore.errors import CarstoreError

    hands = Hands()
    async with opened(db) as store:
        await execute(store, [sometimes(hands)], plan(call("slow")), run_id="r")
        with pytest.raises(CarstoreError):
            await resolve(store, R, "slow", "succeeded", output=object())
        await resolve(store, R, "slow", "succeeded", output=1)


@in_loop
async def test_a_run_that_waits_owns_nothing(db: Path) -> None:
    hands = Hands()
    tools = [sometimes(hands)]
    async with opened(db) as one, opened(db) as other:
        await execute(one, tools, plan(call("slow")), run_id="r")
        assert not await one.leases.rows()
        await resolve(other, R, "slow", "succeeded")
        seen = await resume(other, tools, "r")
        assert seen.status == "succeeded"


@in_loop
async def test_the_key_of_the_doubt_is_what_the_tool_was_handed(db: Path) -> None:
    keys: list[str] = []

    @tool(timeout_ms=20)
    async def slow(ctx: ToolContext) -> None:
        keys.append(ctx.idempotency_key)
        await asyncio.sleep(30)

    async with opened(db) as store:
        seen = await execute(store, [slow], plan(call("slow")), run_id="r")
        assert [one.idempotency_key for one in seen.events(e.ActionInDoubt)] == keys
        [row] = (await rows(store, DOUBTS)).values()
        assert row.idempotency_key == keys[0]


@in_loop
async def test_recover_goes_on_with_what_was_answered(db: Path) -> None:
    hands = Hands()
    tools = [sometimes(hands)]
    async with opened(db) as store:
        await execute(store, tools, plan(write("w", "k", 1), call("slow")), run_id="r")
        [result] = await runtime(store, tools).recover()
        assert result.status == "waiting"  # type: ignore[union-attr]
        await resolve(store, R, "slow", "succeeded")
        [result] = await runtime(store, tools).recover()
        assert result.status == "succeeded"  # type: ignore[union-attr]
        assert await runtime(store, tools).recover() == []
    await until(lambda: True)
