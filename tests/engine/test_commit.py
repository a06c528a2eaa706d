"""What is recorded of an outcome, decided without doing anything."""

from typing import Any

import pytest

from carstore import events as e
from carstore.errors import StateConflict
from carstore.names import LogId, Position, RunId, Scope, StateKey
from engine.action_state import Doubt
from engine.buffered import DELETED, Buffer
from engine.commit import Policy, after_answer, after_call, doubtful, failed
from engine.context import ToolContext
from engine.execute import Call, Ending, Outcome
from engine.ir import Action
from engine.propose import Options, Terms, received
from engine.rules.retries import Backoff
from engine.run import Run
from engine.tools import Tool, Tools, ToolSchema
from tests.engine.harness import call, plan

CONFLICT = StateConflict(Scope("main"), StateKey("k"), Position(3), Position(7))


def begun(action: Action) -> Run:
    proposal = plan(action, source="planner")
    event = received(proposal, Tools(), Options(scope=Scope("main")), LogId("log"), Terms())
    return Run.begin(RunId("r"), event, proposal)


def outcome(
    ending: Ending = Ending.RETURNED,
    *,
    attempt: int = 1,
    undo: bool = False,
    buffer: Buffer | None = None,
    output: Any = "out",
    **declared: Any,
) -> Outcome:
    made = Call(
        index=0,
        undo=undo,
        attempt=attempt,
        tool=Tool(schema=ToolSchema(name="a", **declared)),
        parameters={},
        timeout_ms=None,
        grounds={},
        reuse_key="reuse",
        context=ToolContext.detached(),
    )
    failed = ending is not Ending.RETURNED
    return Outcome(
        call=made,
        ending=ending,
        output=output,
        error="it broke" if failed else "",
        duration_us=5,
        buffered=(buffer or Buffer()).content(),
    )


def told(action: Action, what: Outcome, stale: Any = None, policy: Policy | None = None) -> Any:
    return list(after_call(begun(action), what, stale, policy or Policy()))


def test_a_success_carries_its_changes_context_first_then_expected_effects() -> None:
    buffer = Buffer()
    buffer.change("ctx.set", "mine", 1)
    buffer.change("ctx.delete", "gone", DELETED)
    buffer.change("ctx.set", "both", "context")
    events = told(call("a", expected_effects={"both": "declared"}), outcome(buffer=buffer))
    assert events == [
        e.ActionSucceeded(action_id="a", attempt=1, output="out", duration_us=5, reuse_key="reuse"),
        e.StateChanged(scope="main", key="mine", value=1),
        e.StateChanged(scope="main", key="gone", deleted=True),
        e.StateChanged(scope="main", key="both", value="declared"),
    ]


@pytest.mark.parametrize("ending", list(Ending))
def test_what_was_metered_is_recorded_whatever_became_of_the_call(ending: Ending) -> None:
    buffer = Buffer()
    for agent in (None, "critic"):
        buffer.meter(tokens_in=1, tokens_out=2, cost_micros=3, cost=None, agent=agent, model="m")
    buffer.log("hello", {"x": 1})
    events = told(call("a"), outcome(ending, buffer=buffer))
    metered = [one for one in events if isinstance(one, e.InferenceMetered)]
    assert [(one.agent, one.n) for one in metered] == [("planner", 0), ("critic", 1)]
    assert e.ActionLogged(action_id="a", attempt=1, message="hello", data={"x": 1}) in events


@pytest.mark.parametrize(
    ("behavior", "kinds"),
    [
        ("abort", ["action_failed"]),
        ("skip", ["action_failed", "action_skipped"]),
        ("retry", ["action_failed", "action_retrying"]),
    ],
)
def test_what_a_failure_is_followed_by(behavior: str, kinds: list[str]) -> None:
    action = call("a", failure_behavior=behavior)
    assert [one.kind for one in told(action, outcome(Ending.RAISED))] == kinds


def test_only_retry_retries_and_at_most_max_retries_times() -> None:
    action = call("a", failure_behavior="retry", max_retries=2)
    delays = []
    for attempt in (1, 2, 3):
        events = list(failed(action, attempt, "x", Backoff()))
        delays.append([one.delay_ms for one in events if isinstance(one, e.ActionRetrying)])
    assert delays == [[100], [200], []]
    assert len(list(failed(call("a", max_retries=9), 1, "x", Backoff()))) == 1


def test_delays_double_up_to_a_cap() -> None:
    backoff = Backoff(base_ms=100, cap_ms=1_000)
    assert [backoff.delay_ms(n) for n in range(1, 7)] == [100, 200, 400, 800, 1_000, 1_000]
    assert backoff.delay_ms(10**6) == 1_000


def test_a_conflict_fails_the_action_keeps_its_output_and_changes_nothing() -> None:
    buffer = Buffer()
    buffer.change("ctx.set", "k", 1)
    action = call("a", expected_effects={"x": 1})
    [event] = told(action, outcome(buffer=buffer), CONFLICT)
    assert event == e.ActionFailed(
        action_id="a", attempt=1, error=CONFLICT.message, duration_us=5, output="out"
    )
    assert "'k'" in event.error
    assert "3" in event.error
    assert "7" in event.error


@pytest.mark.parametrize(("declared", "again"), [({}, False), ({"idempotent": True}, True)])
def test_after_a_conflict_only_a_repeatable_tool_is_called_again(
    declared: Any, again: bool
) -> None:
    action = call("a", failure_behavior="retry")
    kinds = [one.kind for one in told(action, outcome(**declared), CONFLICT)]
    assert kinds == ["action_failed"] + ["action_retrying"] * again


@pytest.mark.parametrize(
    ("declared", "kinds"),
    [
        ({}, ["action_in_doubt"]),
        ({"read_only": True}, ["action_failed", "action_retrying"]),
        ({"idempotent": True}, ["action_failed", "action_retrying"]),
    ],
)
def test_an_unknown_outcome_is_in_doubt_unless_the_call_can_be_repeated(
    declared: Any, kinds: list[str]
) -> None:
    action = call("a", failure_behavior="retry")
    assert [one.kind for one in told(action, outcome(Ending.UNKNOWN, **declared))] == kinds


def test_whoever_wrote_the_action_cannot_make_its_call_repeatable() -> None:
    action = call("a", failure_behavior="retry", idempotent=True)
    assert [one.kind for one in told(action, outcome(Ending.UNKNOWN))] == ["action_in_doubt"]


@pytest.mark.parametrize(
    ("on_doubt", "resolution"), [("hold", None), ("fail", "failed"), ("retry", "retry")]
)
def test_a_policy_answers_a_doubt_at_once(on_doubt: str, resolution: str | None) -> None:
    events = list(doubtful(call("a"), 1, "a", "key", "why", Policy(on_doubt=on_doubt), undo=False))
    answers = [one for one in events if isinstance(one, e.DoubtResolved)]
    assert [one.resolution for one in answers] == ([resolution] if resolution else [])
    assert all(one.by == "policy" for one in answers)


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize(
    ("resolution", "kind"),
    [("succeeded", "succeeded"), ("failed", "failed"), ("retry", "retrying")],
)
def test_what_an_answer_makes_of_a_doubt(undo: bool, resolution: str, kind: str) -> None:
    answer = e.DoubtResolved(
        action_id="a", attempt=2, undo=undo, resolution=resolution, output=7, error="no"
    )
    run = begun(call("a", failure_behavior="retry", expected_effects={"x": 1}))
    doubt = Doubt(2, "a", "why", answer)
    events = list(after_answer(run, run.actions[0], doubt, Policy()))
    family = "compensation" if undo else "action"
    assert events[0].kind == f"{family}_{kind}"
    effects = [one for one in events if isinstance(one, e.StateChanged)]
    assert len(effects) == (resolution == "succeeded" and not undo)
    assert len(events) == 1 + len(effects)  # answered as failed: it is not retried
    if resolution == "succeeded":
        assert events[0].output == 7


def test_an_unanswered_doubt_is_left_alone() -> None:
    run = begun(call("a"))
    assert not list(after_answer(run, run.actions[0], Doubt(1, "a", "why"), Policy()))


def test_compensations_are_retried_as_often_as_the_action_says() -> None:
    action = call("a", max_retries=1)
    first = told(action, outcome(Ending.RAISED, undo=True))
    second = told(action, outcome(Ending.RAISED, undo=True, attempt=2))
    assert [one.kind for one in first] == ["compensation_failed", "compensation_retrying"]
    assert [one.kind for one in second] == ["compensation_failed"]


def test_a_compensation_of_unknown_outcome_is_in_doubt() -> None:
    [event] = told(call("a"), outcome(Ending.UNKNOWN, undo=True))
    assert isinstance(event, e.ActionInDoubt)
    assert event.undo
