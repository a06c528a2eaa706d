"""How a driver's turn at a run ends: the run is finished, or it is put down for somebody else."""

from collections.abc import Sequence

from carstore import events as e
from carstore.names import Json, inbox_stream
from engine.action_state import ActionState
from engine.desk import Desk
from engine.ir import NotUndone, RollbackConflict, RunStatus
from engine.results import cost_of

__all__ = ["complete", "pause", "pause_if_idle", "what_it_waits_for"]


def complete(
    desk: Desk,
    status: RunStatus,
    not_undone: Sequence[NotUndone] = (),
    conflicts: Sequence[RollbackConflict] = (),
) -> None:
    """Record the last event of the run."""
    run = desk.run
    forward = set(run.graph.forward)
    for index, state in enumerate(run.actions):
        if index not in forward and state.status is None:
            reason = "compensation, not needed"
            desk.record([e.ActionSkipped(action_id=state.action.id, reason=reason)])
    cost = cost_of(run)
    done = e.ProposalCompleted(
        status=status.value,
        tool_calls=cost.tool_calls,
        actions_executed=cost.actions_executed,
        actions_rejected=cost.actions_rejected,
        actions_skipped=cost.actions_skipped,
        duration_us=run.duration_us,
        retries=run.retries,
        not_undone=[{"action_id": item.action_id, "reason": item.reason} for item in not_undone],
        conflicts=[conflict_json(conflict) for conflict in conflicts],
    )
    desk.record([done])
    desk.journal.ends_turn = True


def conflict_json(conflict: RollbackConflict) -> Json:
    """A rollback conflict as events hold it."""
    return {"key": conflict.key, "ours": conflict.ours, "theirs": conflict.theirs}


def pause_if_idle(desk: Desk) -> None:
    """Put the run down if nothing can happen before somebody has answered, or a time has come."""
    answered = any(doubt.answer is not None for _, _, doubt in desk.doubts())
    if desk.calls.idle and not desk.timers and not desk.startable and not answered:
        pause(desk, "waiting")
        # An answer that has come meanwhile would not be heard before the next resume.
        inbox = inbox_stream(desk.run.run_id)
        desk.journal.expected[inbox] = desk.run.inbox_version


def pause(desk: Desk, reason: str) -> None:
    """Record that the driver lets go of the run, and what it waits for."""
    waiting_for = [
        {"action_id": state.action.id, "what": "doubt"}
        for _, state, doubt in desk.doubts()
        if doubt.answer is None
    ]
    waiting_for += [
        {"action_id": state.action.id, "what": what_it_waits_for(state)}
        for state in map(desk.run.actions.__getitem__, sorted(desk.waiting))
    ]
    desk.record([e.RunPaused(reason=reason, waiting_for=waiting_for)])
    desk.journal.ends_turn = True


def what_it_waits_for(state: ActionState) -> str:
    """What a held action waits for: `approval`, `signal` or `time`."""
    if state.wait is None:
        return "approval"
    return "time" if state.wait.signal is None else "signal"
