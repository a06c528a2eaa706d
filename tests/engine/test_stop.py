"""A run that is told to stop begins nothing more, and says what became of what was under way."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.clock import ManualClock
from carstore.names import RunId
from engine import ToolContext, tool
from engine.cancel import cancel
from engine.rules.budget import Budget
from engine.unknown_outcome import OutcomeUnknown
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

SECOND = 1_000_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


class Slow:
    """A call that goes on until it is told to end."""

    def __init__(self, *, in_thread: bool = False, stubborn: bool = False, **declared: Any) -> None:
        self.began = threading.Event()
        self.end = threading.Event()
        self.cancelled = False

        async def slow(ctx: ToolContext) -> str:
            self.began.set()
            while not self.end.is_set():
                try:
                    await asyncio.sleep(0.005)
                except asyncio.CancelledError:
                    self.cancelled = True
                    if not stubborn:
                        raise
            return "done"

        def slow_thread(ctx: ToolContext) -> str:
            self.began.set()
            self.end.wait(20)
            self.cancelled = ctx.cancelled
            return "done"

        self.tool = tool(name="slow", **declared)(slow_thread if in_thread else slow)


async def stopped(db: Path, slow: Slow, hands: Hands, **how: Any) -> Any:
    """Cancel a run during its slow call."""
    tools = [slow.tool, hands.tool("made", "m", compensation="unmake"), hands.tool("next")]
    tools.append(hands.tool("unmake"))
    proposal = plan(write("w", "k", 1), call("made"), call("slow"), call("next"))
    async with opened(db) as store:
        run = asyncio.create_task(execute(store, tools, proposal, run_id="r"))
        await until(slow.began.is_set)
        assert await cancel(store, "r", by="ann", reason="too late", **how)
        seen = await run
        slow.end.set()
        return seen


@in_loop
async def test_what_was_done_stays_done_and_the_rest_is_left(db: Path, hands: Hands) -> None:
    slow = Slow(read_only=True)
    seen = await stopped(db, slow, hands)
    assert slow.cancelled
    assert (seen.status, seen.result.stopped) == ("cancelled", "cancelled: too late")
    assert seen.statuses == {
        "w": "succeeded",
        "made": "succeeded",
        "slow": "failed",
        "next": "skipped",
    }
    assert seen.errors["slow"] == "the run was cancelled during the call"
    assert seen.errors["next"] == "the run was cancelled"
    assert seen.state == {"k": 1}
    [stopping] = seen.events(e.RunStopping)
    assert (stopping.cause, stopping.by, stopping.compensate) == ("cancelled", "ann", False)


@in_loop
async def test_asked_to_compensate_it_undoes_what_was_done(db: Path, hands: Hands) -> None:
    seen = await stopped(db, Slow(read_only=True), hands, compensate=True)
    assert seen.status == "rolled_back"
    assert hands.names == ["made", "unmake"]
    assert seen.state == {}


@in_loop
async def test_an_interrupted_call_that_must_not_be_repeated_is_named(
    db: Path, hands: Hands
) -> None:
    """It counts as failed, and the result says that it may have been carried out."""
    seen = await stopped(db, Slow(), hands)
    assert seen.status == "cancelled"
    assert seen.statuses["slow"] == "failed"
    assert [one.action_id for one in seen.result.not_undone] == ["slow"]
    assert "in doubt" in (seen.errors["slow"] or "")


@in_loop
async def test_compensating_waits_for_what_is_in_doubt(db: Path, hands: Hands) -> None:
    """It may have to be undone too."""
    seen = await stopped(db, Slow(), hands, compensate=True)
    assert (seen.status, seen.result.waits_for) == ("waiting", "answer")
    assert "unmake" not in hands.names


@in_loop
async def test_a_thread_is_left_alone_and_recorded_as_going_on(db: Path, hands: Hands) -> None:
    slow = Slow(in_thread=True, idempotent=True)
    seen = await stopped(db, slow, hands)
    assert seen.status == "cancelled"
    assert seen.errors["slow"] == (
        "the run was cancelled during the call; a thread cannot be stopped, so it may go on"
    )
    await until(lambda: slow.cancelled)


@in_loop
async def test_a_tool_that_will_not_stop_is_given_up(
    db: Path, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.in_flight.CANCEL_GRACE_SECONDS", 0.05)
    seen = await stopped(db, Slow(stubborn=True, idempotent=True), hands)
    assert seen.status == "cancelled"
    assert seen.errors["slow"] == "the run was cancelled during the call; it does not end"


@in_loop
async def test_a_run_that_waits_is_cancelled_by_its_next_resume(db: Path, hands: Hands) -> None:
    waits = plan(
        call("s", "wait_signal", parameters={"name": "go"}), call("next", dependencies=("s",))
    )
    async with opened(db) as store:
        await execute(store, [hands.tool("next")], waits, run_id="r")
        await cancel(store, "r")
        seen = await resume(store, [hands.tool("next")], "r")
        assert seen.status == "cancelled"
        assert set(seen.statuses.values()) == {"skipped"}
        assert hands.calls == []


@in_loop
async def test_a_deadline_ends_a_run_also_if_no_process_was_there(db: Path, hands: Hands) -> None:
    clock = ManualClock()
    waits = plan(call("s", "sleep", parameters={"seconds": 100}), call("next", dependencies=("s",)))
    async with opened(db, clock=clock) as store:
        one = runtime(store, [hands.tool("next")])
        assert (await one.execute(waits, run_id="r", timeout_secs=60)).status == "waiting"
        clock.advance(60 * SECOND)
        done = await one.resume("r")
        assert (done.status, done.stopped) == ("failed", "deadline: its time is over")
        assert {result.error for result in done.results} == {"the deadline of the run passed"}


@in_loop
async def test_a_deadline_interrupts_a_call(db: Path) -> None:
    slow = Slow(read_only=True)
    async with opened(db) as store:
        done = await runtime(store, [slow.tool]).execute(plan(call("slow")), timeout_secs=0.1)
        assert done.status == "failed"
        assert done.results[0].error == "the deadline of the run passed during the call"
        assert slow.cancelled


def test_a_budget_of_actions_stops_without_rolling_back(db: Path, hands: Hands) -> None:
    actions = [write(name, name, 1) for name in "abc"]
    seen = run_plan(db, [], *actions, budget=Budget(max_actions=2))
    assert (seen.status, seen.result.stopped) == ("failed", "budget: max_actions: 2 of 2 used")
    assert seen.errors == {"a": None, "b": None, "c": "cost budget exceeded"}
    assert seen.state == {"a": 1, "b": 1}


def test_retries_are_calls_too(db: Path, hands: Hands) -> None:
    """What is left of the budget is what the retry may use, also for tools without an intent."""
    tools = [hands.tool("flaky", fails=9, read_only=True)]
    action = call("flaky", failure_behavior="retry", max_retries=5)
    seen = run_plan(db, tools, action, budget=Budget(max_tool_calls=2))
    assert len(hands.calls) == 2
    assert seen.errors == {"flaky": "cost budget exceeded"}


def test_a_level_that_runs_at_once_stays_within_its_budget(db: Path, hands: Hands) -> None:
    async def pause(**_: Any) -> None:
        await asyncio.sleep(0.01)

    tools = [hands.tool("one", does=pause)]
    actions = [call(f"a{n}", "one", failure_behavior="skip") for n in range(8)]
    seen = run_plan(db, tools, *actions, budget=Budget(max_tool_calls=3))
    assert len(hands.calls) == 3
    assert sorted(seen.statuses.values()) == ["skipped"] * 5 + ["succeeded"] * 3


def test_durations_count_without_waits(db: Path, hands: Hands) -> None:
    async def pause(**_: Any) -> None:
        await asyncio.sleep(0.03)

    tools = [hands.tool("one", does=pause)]
    actions = [call(f"a{n}", "one") for n in range(3)]
    seen = run_plan(db, tools, *actions, budget=Budget(max_duration_ms=40))
    assert seen.statuses == {"a0": "succeeded", "a1": "succeeded", "a2": "skipped"}


# --- after a budget, and on the way back ---


def busy(slow: Slow, hands: Hands) -> list[Any]:
    return [slow.tool, *[hands.tool(name) for name in ("one", "two", "unmake")]]


SIDE_BY_SIDE = {"schedule": "eager", "budget": Budget(max_tool_calls=2)}
"""The slow call and another use up what there is, so the third stops the run."""


def spends_all() -> Any:
    return plan(call("slow"), call("one"), call("two", dependencies=("one",)))


async def stopping(store: Any, run: str = "r") -> list[tuple[str, bool]]:
    found = [one.event async for one in store.log.read(run=RunId(run))]
    return [(one.cause, one.compensate) for one in found if isinstance(one, e.RunStopping)]


@in_loop
async def test_a_cancel_does_not_wait_for_calls_that_a_budget_lets_end(
    db: Path, hands: Hands
) -> None:
    slow = Slow()
    async with opened(db) as store:
        tools, done = busy(slow, hands), spends_all()
        run = asyncio.create_task(execute(store, tools, done, run_id="r", **SIDE_BY_SIDE))
        await until(slow.began.is_set)
        async with asyncio.timeout(10):
            while await stopping(store) != [("budget", False)]:
                await asyncio.sleep(0.01)
        assert await cancel(store, "r", by="ann", reason="too long")
        seen = await asyncio.wait_for(run, 10)
        assert (seen.status, seen.result.stopped) == ("cancelled", "cancelled: too long")
        assert seen.statuses == {"slow": "failed", "one": "succeeded", "two": "skipped"}
        assert slow.cancelled
        assert [one.action_id for one in seen.result.not_undone] == ["slow"]
        assert await stopping(store) == [("budget", False), ("cancelled", False)]


@in_loop
async def test_a_deadline_does_not_wait_for_calls_that_a_budget_lets_end(
    db: Path, hands: Hands
) -> None:
    slow = Slow(read_only=True)
    async with opened(db) as store:
        made = runtime(store, busy(slow, hands), **SIDE_BY_SIDE)
        done = await asyncio.wait_for(made.execute(spends_all(), run_id="r", timeout_secs=0.3), 10)
        assert (done.status, done.stopped) == ("failed", "deadline: its time is over")
        assert slow.cancelled
        assert await stopping(store) == [("budget", False), ("deadline", False)]


@in_loop
async def test_a_cancel_ends_a_run_whose_budget_is_used_up_and_that_waits_for_an_answer(
    db: Path, hands: Hands
) -> None:
    async def unsure(**_: Any) -> None:
        raise OutcomeUnknown("who knows")

    tools = [hands.tool("unsure", does=unsure), hands.tool("two")]
    proposal = plan(call("unsure"), call("two"))
    async with opened(db) as store:
        options = {"schedule": "eager", "concurrency": 1, "budget": Budget(max_tool_calls=1)}
        seen = await execute(store, tools, proposal, run_id="r", **options)
        assert (seen.status, seen.result.stopped) == (
            "waiting",
            "budget: max_tool_calls: 1 of 1 used",
        )
        assert await cancel(store, "r")
        seen = await resume(store, tools, "r")
        assert seen.status == "cancelled"
        assert seen.statuses == {"unsure": "failed", "two": "skipped"}
        assert [one.action_id for one in seen.result.not_undone] == ["unsure"]


@pytest.mark.parametrize("timeout_secs", [None, 0.3])
@in_loop
async def test_a_call_in_flight_does_not_hold_up_the_way_back_once_somebody_asks(
    db: Path, hands: Hands, timeout_secs: float | None
) -> None:
    """Nor once the deadline has passed. What was done is undone all the same."""
    slow = Slow(read_only=True)
    tools = [slow.tool, hands.tool("one", compensation="unmake"), hands.tool("unmake")]
    tools.append(hands.tool("bad", fails=9))
    proposal = plan(call("one"), call("slow"), call("bad", dependencies=("one",)))
    async with opened(db) as store:
        made = runtime(store, tools, schedule="eager")
        run = asyncio.create_task(made.execute(proposal, run_id="r", timeout_secs=timeout_secs))
        await until(lambda: slow.began.is_set() and "bad" in hands.names)
        cause = "deadline"
        if timeout_secs is None:
            cause = "cancelled"
            await cancel(store, "r")
        done = await asyncio.wait_for(run, 10)
        assert done.status == "rolled_back"
        assert hands.names == ["one", "bad", "unmake"]
        assert slow.cancelled
        assert await stopping(store) == [(cause, True)]


@in_loop
async def test_a_plain_cancel_does_not_stop_what_undoes(db: Path, hands: Hands) -> None:
    began, end = threading.Event(), threading.Event()

    async def undo(**_: Any) -> None:
        began.set()
        while not end.is_set():
            await asyncio.sleep(0.005)

    tools = [hands.tool("one", compensation="unmake"), hands.tool("unmake", does=undo)]
    tools.append(hands.tool("bad", fails=9))
    async with opened(db) as store:
        made = runtime(store, tools)
        proposal = plan(call("one"), call("bad", dependencies=("one",)))
        run = asyncio.create_task(made.execute(proposal, run_id="r"))
        await until(began.is_set)
        await cancel(store, "r")
        async with asyncio.timeout(10):
            while not await stopping(store):
                await asyncio.sleep(0.01)
        end.set()
        done = await run
        assert (done.status, done.not_undone) == ("rolled_back", ())
        assert await stopping(store) == [("cancelled", True)]


@pytest.mark.parametrize("late", [False, True])
@in_loop
async def test_looking_at_a_stopped_run_that_waits_for_an_answer_records_nothing(
    db: Path, hands: Hands, late: bool
) -> None:
    """Neither after a cancel with compensation, nor after a deadline on the way back."""

    async def unsure(**_: Any) -> None:
        raise OutcomeUnknown("who knows")

    clock = ManualClock()
    tools = [hands.tool("unsure", does=unsure), hands.tool("bad", fails=9)]
    actions = [call("unsure"), *([call("bad")] if late else [])]
    async with opened(db, clock=clock) as store:
        made = runtime(store, tools, schedule="eager")
        await made.execute(plan(*actions), run_id="r", timeout_secs=60)
        if late:
            clock.advance(60 * SECOND)
        else:
            await cancel(store, "r", compensate=True)
        assert (await made.resume("r")).status == "waiting"
        assert await stopping(store) == [("deadline" if late else "cancelled", True)]
        head = await store.log.head()
        for _ in range(3):
            assert (await made.resume("r")).waits_for == "answer"
        assert await store.log.head() == head
