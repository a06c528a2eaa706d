"""What a run came to, as a value for programs."""

from datetime import datetime, timedelta
from functools import lru_cache

from carstore import events as e
from carstore.names import Micros
from engine.action_state import ActionState
from engine.ir import (
    ActionResult,
    ActionStatus,
    ActionType,
    CostSummary,
    NotUndone,
    RollbackConflict,
    RunResult,
    RunStatus,
)
from engine.run import Run

__all__ = ["cost_of", "result_of", "rfc3339"]

_EPOCH = datetime(1970, 1, 1)
"""In UTC, but not said to be: its text would end otherwise."""

_FIRST, _LAST = (
    (end - _EPOCH) // timedelta(microseconds=1) for end in (datetime.min, datetime.max)
)
"""What a date can tell."""


def result_of(run: Run) -> RunResult:
    """The result of a run, finished or not; actions that are not settled yet are left out."""
    done = run.completed
    return RunResult(
        run_id=run.run_id,
        proposal_id=run.proposal.id,
        status=run.status,
        results=tuple(_action_result(state) for state in run.actions if state.status is not None),
        not_undone=tuple(NotUndone(**item) for item in done.not_undone) if done else (),
        conflicts=tuple(RollbackConflict(**item) for item in done.conflicts) if done else (),
        cost=cost_of(run),
        waits_for=_waits_for(run),
        stopped=None if run.stopping is None else _stopped(run.stopping),
        replaces=run.received.replaces,
    )


def _waits_for(run: Run) -> str | None:
    """The first thing that has to happen, of those that only others can bring about."""
    if run.status is not RunStatus.WAITING:
        return None
    if run.held:
        return "acceptance"
    told = {item["what"] for item in run.paused.waiting_for} if run.paused is not None else set()
    order = ("doubt", "approval", "signal", "time")
    first = next((what for what in order if what in told), "doubt")
    return "answer" if first == "doubt" else first


def _stopped(stopping: e.RunStopping) -> str:
    return f"{stopping.cause}: {stopping.reason}" if stopping.reason else stopping.cause


def cost_of(run: Run) -> CostSummary:
    """What the run has used so far; once it is finished, what its last event says."""
    if run.completed is not None:
        return _recorded_cost(run.completed)
    statuses = [state.status for state in run.actions]
    tool_calls = sum(
        state.status is ActionStatus.SUCCEEDED
        for state in run.actions
        if state.action.type is ActionType.TOOL_CALL and not state.waited
    )
    return CostSummary(
        tool_calls=tool_calls,
        actions_executed=sum(map(statuses.count, (ActionStatus.SUCCEEDED, ActionStatus.FAILED))),
        actions_rejected=statuses.count(ActionStatus.REJECTED),
        actions_skipped=statuses.count(ActionStatus.SKIPPED),
        total_duration_ms=run.duration_us / 1000,
        retries=run.retries,
    )


@lru_cache(maxsize=256)  # what is settled in one append has one instant
def rfc3339(at: Micros | int) -> str:
    """An instant for people and programs: RFC 3339, UTC, with microseconds. One beyond the years 1
    to 9999 is shown as the nearest of them: whatever is recorded can be shown."""
    return (_EPOCH + timedelta(microseconds=min(max(at, _FIRST), _LAST))).isoformat(
        timespec="microseconds"
    ) + "Z"


def _recorded_cost(done: e.ProposalCompleted) -> CostSummary:
    return CostSummary(
        tool_calls=done.tool_calls,
        actions_executed=done.actions_executed,
        actions_rejected=done.actions_rejected,
        actions_skipped=done.actions_skipped,
        total_duration_ms=done.duration_us / 1000,
        retries=done.retries,
    )


def _action_result(state: ActionState) -> ActionResult:
    assert state.status is not None
    return ActionResult(
        action_id=state.action.id,
        status=state.status,
        output=state.output,
        error=state.error,
        state_changes=state.state_changes,
        duration_ms=None if state.duration_us is None else state.duration_us / 1000,
        attempts=state.do.number,
        rolled_back=state.rolled_back,
        timestamp=None if state.settled_at is None else rfc3339(state.settled_at),
    )
