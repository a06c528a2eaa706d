"""Attempts that wait for a person."""

import pytest

from carstore.events import (
    ActionRejected,
    ActionSkipped,
    CompensationFailed,
    CompensationSucceeded,
    Event,
)
from projections import DOUBTS, fold
from projections.doubts import Doubt
from tests.projections.plausible import at, failed, in_doubt, record, resolved, succeeded

UNDONE = CompensationSucceeded(action_id="a1", attempt=1, tool="t", output=None, duration_us=1)
NOT_UNDONE = CompensationFailed(action_id="a1", attempt=1, tool="t", error="no")


def test_an_attempt_in_doubt_is_listed_with_what_is_needed_to_look_for_it() -> None:
    assert fold(DOUBTS, record(in_doubt(attempt=2))) == {
        ("r1", "a1", False): Doubt(
            run_id="r1",
            action_id="a1",
            undo=False,
            tool="fetch",
            attempt=2,
            idempotency_key="f" * 64,
            since=at(1),
            reason="the process died",
        )
    }


@pytest.mark.parametrize(
    "event",
    [
        resolved("succeeded"),
        resolved("failed"),
        resolved("retry"),
        succeeded(),
        failed(),
        ActionRejected(action_id="a1", error="no"),
        ActionSkipped(action_id="a1", reason="no"),
    ],
)
def test_an_answer_or_an_outcome_settles_it(event: Event) -> None:
    assert fold(DOUBTS, record(in_doubt(), event)) == {}


@pytest.mark.parametrize("event", [resolved("retry", undo=True), UNDONE, NOT_UNDONE])
def test_a_compensation_has_a_doubt_of_its_own(event: Event) -> None:
    both = fold(DOUBTS, record(in_doubt(), in_doubt(undo=True)))
    assert list(both) == [("r1", "a1", False), ("r1", "a1", True)]
    assert list(fold(DOUBTS, record(in_doubt(), in_doubt(undo=True), event))) == [
        ("r1", "a1", False)
    ]


@pytest.mark.parametrize(
    "event", [resolved("retry", attempt=1), succeeded("a2"), UNDONE, resolved("retry", "a2", 2)]
)
def test_what_concerns_something_else_leaves_it(event: Event) -> None:
    assert len(fold(DOUBTS, record(in_doubt(attempt=2), event))) == 1


def test_another_run_leaves_it() -> None:
    assert len(fold(DOUBTS, record(("r1", in_doubt()), ("r2", succeeded())))) == 1
