"""Each action of each run."""

import pytest

from carstore.events import (
    ActionDeduplicated,
    ActionRejected,
    ActionRetrying,
    ActionRolledBack,
    ActionSkipped,
    ActionValidated,
    Event,
)
from projections import ACTIONS, fold
from projections.actions import ActionRow
from tests.projections.plausible import (
    at,
    executing,
    failed,
    in_doubt,
    received,
    record,
    resolved,
    succeeded,
)

VALIDATED = ActionValidated(action_id="a1")
RETRYING = ActionRetrying(action_id="a1", attempt=2, delay_ms=100)
ROLLED_BACK = ActionRolledBack(action_id="a1")


def after(*events: Event) -> ActionRow:
    """The action a1 of a run in which `events` happened from position 2 on."""
    return fold(ACTIONS, record(received("a1", "a2"), *events))[("r1", "a1")]


def test_the_proposal_names_all_actions_and_they_wait() -> None:
    plan = received("a1", {"id": "w", "type": "state_write"}, source="critic")
    assert list(fold(ACTIONS, record(plan)).values()) == [
        ActionRow(
            run_id="r1", action_id="a1", number=1, type="tool_call", tool="fetch", agent="critic"
        ),
        ActionRow(
            run_id="r1", action_id="w", number=2, type="state_write", tool=None, agent="critic"
        ),
    ]


@pytest.mark.parametrize(
    ("events", "status", "attempts"),
    [
        ([], "pending", 0),
        ([VALIDATED], "executing", 0),
        ([executing()], "executing", 1),
        ([executing(), succeeded()], "succeeded", 1),
        ([executing(), failed()], "failed", 1),
        ([executing(), failed(), RETRYING], "retrying", 1),
        ([executing(), failed(), RETRYING, executing(attempt=2)], "executing", 2),
        ([executing(), failed(), RETRYING, executing(attempt=2), succeeded(attempt=2)],
         "succeeded", 2),
        ([ActionRejected(action_id="a1", error="no")], "rejected", 0),
        ([ActionSkipped(action_id="a1", reason="no")], "skipped", 0),
        ([executing(), in_doubt()], "in_doubt", 1),
        ([executing(), in_doubt(), resolved("retry")], "retrying", 1),
        ([executing(), in_doubt(), resolved("failed")], "failed", 1),
        ([executing(), in_doubt(), resolved("succeeded")], "succeeded", 1),
        ([executing(), in_doubt(), resolved("failed", attempt=2)], "in_doubt", 1),
        ([executing(), succeeded(), resolved("failed")], "succeeded", 1),
        ([executing(), succeeded(), in_doubt(undo=True)], "succeeded", 1),
        ([executing(), in_doubt(), resolved("failed", undo=True)], "in_doubt", 1),
        ([executing(), succeeded(), ROLLED_BACK], "succeeded", 1),
    ],
)  # fmt: skip
def test_status_follows_the_events(events: list[Event], status: str, attempts: int) -> None:
    row = after(*events)
    assert (row.status, row.attempts) == (status, attempts)
    ended = status in ("succeeded", "failed", "rejected", "skipped")
    assert (row.ended_at is not None) == ended


def test_a_success_has_output_and_times() -> None:
    row = after(executing(), failed(error="once"), RETRYING, succeeded(attempt=2, output={"n": 1}))
    assert row.output == '{"n":1}'
    assert row.error is None
    assert (row.started_at, row.ended_at) == (at(2), at(5))
    assert row.duration_us == 1200, "both attempts"


def test_an_action_called_without_an_intent_begins_with_its_outcome() -> None:
    row = after(succeeded(output=None))
    assert (row.started_at, row.ended_at, row.output) == (at(2), at(2), "null")


def test_reasons_are_kept() -> None:
    assert after(failed(error="because")).error == "because"
    assert after(ActionRejected(action_id="a1", error="policy")).error == "policy"
    assert after(failed(error="x"), ActionSkipped(action_id="a1", reason="y")).error == "y"
    assert after(executing(), in_doubt()).error == "the process died"


def test_a_remembered_result_takes_no_time_and_no_attempt() -> None:
    reused = ActionDeduplicated(
        action_id="a1",
        output=[1],
        reuse_key="k",
        original_position=1,
        original_run_id="r0",
        original_action_id="a9",
    )
    row = after(reused)
    assert (row.status, row.output, row.duration_us, row.attempts) == ("succeeded", "[1]", 0, 0)


def test_a_rollback_is_marked_beside_the_status() -> None:
    assert not after(executing(), succeeded()).rolled_back
    assert after(executing(), succeeded(), ROLLED_BACK).rolled_back


def test_the_other_actions_and_runs_stay_as_they_are() -> None:
    rows = fold(
        ACTIONS, record(("r1", received("a1", "a2")), ("r2", received("a1")), ("r1", failed()))
    )
    assert {key: row.status for key, row in rows.items()} == {
        ("r1", "a1"): "failed",
        ("r1", "a2"): "pending",
        ("r2", "a1"): "pending",
    }


def test_an_action_that_no_proposal_named_has_no_row() -> None:
    assert fold(ACTIONS, record(succeeded("a9"))) == {}
    assert fold(ACTIONS, record(received("a1"), run=None)) == {}
