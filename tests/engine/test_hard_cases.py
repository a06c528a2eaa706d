"""Many runs, stubborn tools, large rollbacks, answers that race: nothing is lost or wrong."""

import asyncio
import time
from pathlib import Path

import pytest

from carstore import events as e
from engine import Action, NoDoubt, Proposal, ToolContext, resolve, tool
from engine import desk as desk_module
from engine import runs as runs_module
from engine.ir import FailureBehavior
from tests.engine.harness import Hands, call, in_loop, opened, plan, resume, runtime, state_of


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@in_loop
async def test_many_runs_of_slow_functions_are_not_in_doubt_for_want_of_threads(db: Path) -> None:
    @tool
    def slow() -> None:
        time.sleep(0.3)

    async with opened(db) as store:
        engine = runtime(store, [slow])
        proposal = plan(call("slow", timeout_ms=2_000))
        results = await asyncio.gather(*[engine.execute(proposal) for _ in range(60)])
        assert {result.status.value for result in results} == {"succeeded"}


@in_loop
async def test_a_tool_that_will_not_be_cancelled_does_not_hold_up_the_caller(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "GRACE_SECONDS", 0.05)
    monkeypatch.setattr("engine.drive.CANCEL_GRACE_SECONDS", 0.05)
    begun, enough = asyncio.Event(), asyncio.Event()

    @tool
    async def stubborn() -> None:
        begun.set()
        while not enough.is_set():
            try:
                await enough.wait()
            except asyncio.CancelledError:
                continue

    async with opened(db) as store:
        task = asyncio.create_task(runtime(store, [stubborn]).execute(plan(call("stubborn"))))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        doubts = [r async for r in store.log.read(kinds=[e.ActionInDoubt.kind])]
        enough.set()
        assert len(doubts) == 1


@in_loop
async def test_a_large_run_is_recorded_and_rolled_back_in_parts(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "MAX_TURN_EVENTS", 10)

    @tool
    async def many(ctx: ToolContext) -> None:
        for n in range(60):
            ctx.set(f"key{n}", n)

    @tool
    async def fail() -> None:
        raise ValueError("no")

    async with opened(db) as store:
        writes = [
            Action(id=f"w{n}", type="state_write", parameters={"key": f"w{n}", "value": n})  # type: ignore[arg-type]
            for n in range(30)
        ]
        last = call("fail", dependencies=["many", "w29"])
        result = await runtime(store, [many, fail]).execute(plan(*writes, call("many"), last))
        assert result.status == "rolled_back"
        assert await state_of(store) == {}


@in_loop
async def test_a_run_whose_observer_fails_is_let_go_of(db: Path) -> None:
    hands = Hands()
    tools = [hands.tool("t", 1)]

    def broken(_: object) -> None:
        raise BrokenPipeError

    async with opened(db) as store:
        with pytest.raises(BrokenPipeError):
            await runtime(store, tools).execute(plan(call("t")), run_id="r", observe=broken)
        assert not await store.leases.rows()
        assert (await resume(store, tools, "r")).status in ("succeeded", "waiting")


@tool
async def sleepy() -> int:
    await asyncio.sleep(5)
    return 1


def in_doubt(**fields: object) -> Proposal:
    return plan(call("sleepy", timeout_ms=10, **fields))


@in_loop
async def test_of_two_contradictory_answers_one_is_refused(db: Path) -> None:
    async with opened(db) as store:
        result = await runtime(store, [sleepy]).execute(in_doubt())
        assert result.status == "waiting"
        answers = await asyncio.gather(
            resolve(store, result.run_id, "sleepy", "succeeded", output=1),
            resolve(store, result.run_id, "sleepy", "failed"),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["NoDoubt", "NoneType"]
        with pytest.raises(NoDoubt):
            await resolve(store, result.run_id, "sleepy", "retry")


@in_loop
async def test_an_answer_is_heard_while_another_call_is_in_flight(db: Path) -> None:
    done = asyncio.Event()

    @tool
    async def long() -> None:
        await done.wait()

    @tool
    async def after() -> None:
        done.set()

    skip = FailureBehavior.SKIP
    proposal = plan(
        call("sleepy", timeout_ms=10, failure_behavior=skip),
        call("long", failure_behavior=skip),
        call("after", dependencies=["sleepy"], failure_behavior=skip),
    )
    async with opened(db) as store:
        engine = runtime(store, [sleepy, long, after], schedule="eager")
        task = asyncio.create_task(engine.execute(proposal, run_id="r"))
        while not [r async for r in store.log.read(kinds=[e.ActionInDoubt.kind])]:
            await asyncio.sleep(0.01)
        await resolve(store, "r", "sleepy", "succeeded", output=1)  # type: ignore[arg-type]
        assert (await asyncio.wait_for(task, 10)).status == "succeeded"


@in_loop
async def test_an_answer_that_the_tool_could_not_have_returned_is_a_failure(db: Path) -> None:
    async with opened(db) as store:
        skip = FailureBehavior.SKIP
        result = await runtime(store, [sleepy]).execute(in_doubt(failure_behavior=skip))
        await resolve(store, result.run_id, "sleepy", "succeeded", output="one")
        seen = await resume(store, [sleepy], result.run_id)
        assert "resolved as succeeded, but" in (seen.errors["sleepy"] or "")


@in_loop
async def test_what_a_policy_calls_failed_may_have_been_done_and_is_named(db: Path) -> None:
    async with opened(db) as store:
        result = await runtime(store, [sleepy], on_doubt="fail").execute(in_doubt())
        assert result.status == "rolled_back"
        assert [item.action_id for item in result.not_undone] == ["sleepy"]
