"""Runs, and how a proposal is read."""

from typing import Any

import pytest

from carstore.events import Event, RunPaused, RunResumed
from projections import RUNS, fold
from projections.planned import Planned, planned
from projections.runs import Run
from tests.projections.plausible import at, completed, executing, received, record

WAITING = RunPaused(reason="waiting", waiting_for=[{"action_id": "a1", "what": "doubt"}])
INTERRUPTED = RunPaused(reason="interrupted", waiting_for=[])
RESUMED = RunResumed(holder="me")


def test_a_run_is_what_its_proposal_says() -> None:
    rows = fold(RUNS, record(received("a1", "a2", source="critic", scope="lab")))
    assert rows == {
        ("r1",): Run(
            run_id="r1",
            proposal_id="p1",
            source="critic",
            scope="lab",
            status="running",
            actions=2,
            started_at=at(1),
            ended_at=None,
        )
    }


@pytest.mark.parametrize(
    ("events", "status", "ended"),
    [
        ([executing()], "running", False),
        ([INTERRUPTED], "running", False),
        ([WAITING], "waiting", False),
        ([WAITING, RESUMED], "running", False),
        ([WAITING, RESUMED, completed("failed")], "failed", True),
        ([completed("succeeded")], "succeeded", True),
        ([completed("rolled_back"), RESUMED], "running", False),
    ],
)
def test_status_follows_the_events(events: list[Event], status: str, *, ended: bool) -> None:
    row = fold(RUNS, record(received("a1"), *events))[("r1",)]
    assert row.status == status
    assert row.ended_at == (at(len(events) + 1) if ended else None)


def test_runs_do_not_mix() -> None:
    rows = fold(RUNS, record(("r1", received()), ("r2", received()), ("r2", completed())))
    assert [(row.run_id, row.status) for row in rows.values()] == [
        ("r1", "running"),
        ("r2", "succeeded"),
    ]


def test_events_of_a_run_that_never_began_make_no_row() -> None:
    assert fold(RUNS, record(RESUMED, completed())) == {}
    assert fold(RUNS, record(received("a1"), run=None)) == {}


@pytest.mark.parametrize(
    "proposal",
    [None, [], "text", 5, {}, {"actions": None}, {"actions": {"id": "a"}}, {"actions": [1, []]}],
)
def test_a_proposal_that_is_none_has_no_actions(proposal: Any) -> None:
    assert planned(proposal) == []


def test_actions_are_read_with_their_defaults_and_ids_count_once() -> None:
    proposal = {
        "actions": [
            {"id": "a", "tool": "fetch"},
            {"id": "b", "type": "state_write"},
            {"id": "a", "tool": "other"},
            {"tool": "no id"},
            {"id": 5},
            {"id": "c", "type": 1, "tool": []},
        ]
    }
    assert planned(proposal) == [
        Planned("a", "tool_call", "fetch"),
        Planned("b", "state_write", None),
        Planned("c", "tool_call", None),
    ]
