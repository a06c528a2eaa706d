"""Runs and actions as spans."""

import json

import pytest

from carstore.events import ActionRejected, ActionRetrying, ActionSkipped, Event, RunResumed
from projections import SPANS, fold
from projections.spans import Span, span_id
from tests.projections.plausible import (
    at,
    completed,
    executing,
    failed,
    received,
    record,
    succeeded,
)


def spans(*events: Event) -> list[Span]:
    return list(fold(SPANS, record(*events)).values())


def test_a_run_is_a_root_and_its_actions_are_children() -> None:
    root, call, write = spans(received("a1", {"id": "w", "type": "state_write"}))
    assert (root.trace_id, root.name, root.parent_span_id) == ("r1", "proposal.execute", None)
    assert json.loads(root.attributes) == {"proposal_id": "p1"}
    assert (root.status, root.started_at, root.ended_at) == ("unset", at(1), None)
    assert (call.name, call.parent_span_id) == ("action.tool_call", root.span_id)
    assert json.loads(call.attributes) == {"action_id": "a1", "tool": "fetch"}
    assert (call.status, call.started_at) == ("unset", None)
    assert (write.name, json.loads(write.attributes)) == ("action.state_write", {"action_id": "w"})


def test_span_ids_are_stable_and_tell_runs_and_actions_apart() -> None:
    assert span_id("r1", "a1") == span_id("r1", "a1")
    assert len({span_id("r1"), span_id("r1", "a1"), span_id("r2", "a1"), span_id("r2")}) == 4
    assert len(span_id("r1")) == 16


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([executing()], "unset"),
        ([executing(), succeeded()], "ok"),
        ([executing(), failed()], "error"),
        ([ActionRejected(action_id="a1", error="no")], "error"),
        ([ActionSkipped(action_id="a1", reason="no")], "unset"),
        ([failed(), ActionRetrying(action_id="a1", attempt=2, delay_ms=1)], "unset"),
        ([failed(), executing(attempt=2), succeeded(attempt=2)], "ok"),
    ],
)
def test_the_status_of_an_action(events: list[Event], status: str) -> None:
    assert spans(received("a1"), *events)[1].status == status


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("succeeded", "ok"),
        ("failed", "ok"),
        ("rolled_back", "error"),
        ("partially_compensated", "error"),
        ("cancelled", "error"),
    ],
)
def test_a_root_is_an_error_only_if_the_run_was_aborted(ending: str, status: str) -> None:
    root = spans(received("a1"), completed(ending))[0]
    assert (root.status, root.ended_at) == (status, at(2))


def test_a_run_that_goes_on_has_not_ended() -> None:
    root = spans(received("a1"), completed("rolled_back"), RunResumed(holder="x"))[0]
    assert (root.status, root.ended_at) == ("unset", None)


def test_an_action_lasts_from_its_first_attempt_to_its_outcome() -> None:
    tries: list[Event] = [executing(), failed(), executing(attempt=2), succeeded(attempt=2)]
    call = spans(received("a1"), *tries)[1]
    assert (call.started_at, call.ended_at) == (at(2), at(5))


def test_what_belongs_to_no_run_or_no_plan_makes_no_span() -> None:
    assert fold(SPANS, record(received("a1"), run=None)) == {}
    assert fold(SPANS, record(succeeded("a9"), completed())) == {}
