"""A run folded from its events."""

from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.errors import NotFound
from carstore.names import LogId, RunId, Scope
from engine import ToolContext, resolve, tool
from engine.ir import Action, ActionStatus, RunStatus
from engine.journal import load_run
from engine.propose import Options, Terms, received
from engine.run import Run
from engine.tools import Tools
from tests.engine.harness import (
    Hands,
    call,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    run_plan,
    tidy,
    write,
)


def begun(*actions: Action, **options: Any) -> Run:
    proposal = plan(*actions)
    event = received(
        proposal, Tools(), Options(scope=Scope("main"), **options), LogId("log"), Terms()
    )
    run = Run.begin(RunId("r"), event, proposal)
    run.apply(event, None)
    return run


def failed(name: str, attempt: int = 1) -> e.ActionFailed:
    return e.ActionFailed(action_id=name, attempt=attempt, error="no")


def executing(name: str, attempt: int = 1) -> e.ActionExecuting:
    return e.ActionExecuting(
        action_id=name, attempt=attempt, tool=name, effect="once", parameters_digest="0"
    )


def test_an_intent_is_open_until_its_outcome() -> None:
    run = begun(call("a"))
    run.apply(executing("a"), None)
    assert run.of("a").do.open
    run.apply(e.ActionSucceeded(action_id="a", attempt=1, output=1, duration_us=3), None)
    assert not run.of("a").do.open
    assert run.of("a").status is ActionStatus.SUCCEEDED
    assert run.succeeded == [0]


def test_a_failure_that_is_retried_is_no_failure() -> None:
    run = begun(call("a", failure_behavior="retry"))
    for event in (
        executing("a"),
        failed("a"),
        e.ActionRetrying(action_id="a", attempt=2, delay_ms=100),
    ):
        run.apply(event, 5_000_000)
    assert run.of("a").status is None
    assert run.of("a").do.retry_at_us == 5_100_000
    assert run.retries == 1
    assert not run.aborting


@pytest.mark.parametrize(
    ("behavior", "options", "aborts"),
    [
        ("abort", {}, True),
        ("skip", {}, False),
        ("retry", {}, False),
        ("retry", {"abort_on_exhausted_retry": True}, True),
    ],
)
def test_what_aborts(behavior: str, options: Any, aborts: bool) -> None:
    run = begun(call("a", failure_behavior=behavior), **options)
    run.apply(executing("a"), None)
    run.apply(failed("a"), None)
    assert run.aborting is aborts


@pytest.mark.parametrize("asked", [False, True])
def test_a_rejection_aborts_only_if_asked(asked: bool) -> None:
    run = begun(call("a"), abort_on_rejection=asked)
    run.apply(e.ActionRejected(action_id="a", error="no"), None)
    assert run.aborting is asked


def test_a_retry_that_was_allowed_again_does_not_abort() -> None:
    run = begun(call("a", failure_behavior="retry"), abort_on_exhausted_retry=True)
    for event in (
        executing("a"),
        failed("a"),
        e.ActionRetrying(action_id="a", attempt=2, delay_ms=0),
    ):
        run.apply(event, None)
    assert not run.aborting


def test_an_answer_to_another_attempt_is_not_taken() -> None:
    run = begun(call("a"))
    run.apply(executing("a", 2), None)
    run.apply(
        e.ActionInDoubt(
            action_id="a", attempt=2, undo=False, tool="a", idempotency_key="k", reason="why"
        ),
        None,
    )
    old = e.DoubtResolved(action_id="a", attempt=1, undo=False, resolution="failed")
    new = e.DoubtResolved(action_id="a", attempt=2, undo=False, resolution="succeeded", output=1)
    late = e.DoubtResolved(action_id="a", attempt=2, undo=False, resolution="failed")
    for answer in (old, new, late):
        run.apply(answer, None)
    doubt = run.of("a").do.doubt
    assert doubt is not None
    assert doubt.answer == new


def test_a_call_that_is_to_be_repeated_is_not_in_doubt_any_more() -> None:
    for undo in (False, True):
        run = begun(call("a"))
        run.apply(
            e.ActionInDoubt(
                action_id="a", attempt=1, undo=undo, tool="a", idempotency_key="k", reason="why"
            ),
            None,
        )
        retrying = e.CompensationRetrying if undo else e.ActionRetrying
        run.apply(retrying(action_id="a", attempt=2, delay_ms=0), None)
        attempts = run.of("a").undo if undo else run.of("a").do
        assert attempts.doubt is None
        assert not attempts.open


def test_an_unknown_action_is_named() -> None:
    with pytest.raises(NotFound, match="'b'"):
        begun(call("a")).of("b")


def test_a_history_without_a_proposal_is_no_run() -> None:
    with pytest.raises(NotFound, match="carstore runs"):
        Run.fold(RunId("r"), [])


def test_the_changes_of_a_rollback_belong_to_no_action() -> None:
    run = begun(write("w", "k", 1))
    run.apply(e.ActionSucceeded(action_id="w", attempt=1, output="", duration_us=0), None)
    run.apply(e.StateChanged(scope="main", key="k", value=1), None)
    run.apply(e.StateRollback(keys=("k",), conflicts=[]), None)
    run.apply(e.StateChanged(scope="main", key="k", deleted=True), None)
    assert run.of("w").state_changes == {"k": 1}


# --- what is folded is what the driver had; `look` in the harness compares them every time ---


def test_a_finished_run_folds_to_what_its_driver_had(tmp_path: Path) -> None:
    @tool
    async def spend(ctx: ToolContext) -> dict[str, float]:
        ctx.set("spent", 1.0)
        ctx.delete("never there")
        ctx.meter(tokens_in=1, cost="0.5")
        ctx.log("spent", amount=0.5)
        return {"amount": 1.0}

    hands = Hands()
    seen = run_plan(
        tmp_path / "a.db",
        [spend, hands.tool("flaky", [1, "é"], fails=2), hands.tool("bad", fails=9)],
        call("spend", idempotent=True),
        call("flaky", failure_behavior="retry", expected_effects={"x": [None]}),
        call("again", "spend", idempotent=True, dependencies=["spend"]),
        call("bad", failure_behavior="skip"),
        call("rejected", "nope"),
    )
    assert seen.live.status is RunStatus.FAILED
    assert seen.state == {"spent": 1.0, "x": [None]}


def test_a_rolled_back_run_folds_to_what_its_driver_had(tmp_path: Path) -> None:
    hands = Hands()
    tools = [
        hands.tool("undo", "undone", fails=1),
        hands.tool("do", 1, compensation="undo"),
        hands.tool("bad", fails=9),
    ]
    seen = run_plan(
        tmp_path / "a.db", tools, write("w", "k", 1), call("do"), call("bad", dependencies=["do"])
    )
    assert seen.status == "rolled_back"
    assert seen.live.of("do").undone is True


@in_loop
async def test_a_waiting_and_resumed_run_folds_to_what_its_driver_had(tmp_path: Path) -> None:
    hands = Hands()

    async def hang() -> None:
        import asyncio

        await asyncio.sleep(60)

    tools = [hands.tool("slow", does=hang, timeout_ms=20), hands.tool("next")]
    async with opened(tmp_path / "a.db") as store:
        proposal = plan(call("slow"), call("next", dependencies=["slow"]))
        seen = await execute(store, tools, proposal, run_id="r")
        assert seen.status == "waiting"
        await resolve(store, RunId("r"), "slow", "succeeded", output=5)
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert tidy(await load_run(store, RunId("r"))) == tidy(seen.live)


def test_what_a_tool_does_to_its_output_later_is_not_seen(tmp_path: Path) -> None:
    kept: list[int] = []

    def grow() -> list[int]:
        kept.append(len(kept))
        return kept

    hands = Hands()
    tools = [hands.tool("grow", does=grow)]
    seen = run_plan(
        tmp_path / "a.db", tools, call("a", "grow"), call("b", "grow", dependencies=["a"])
    )
    assert seen.outputs == {"a": [0], "b": [0, 1]}
