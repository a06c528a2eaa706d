"""What each kind of event changes in a run: one function for each.

A signal is heard in the inbox under the number that it has there, so `hear` has counted it by then.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from carstore import events as e
from carstore.names import Micros
from engine.action_state import ActionState, Approval, Attempts, Doubt
from engine.ir import ActionStatus

if TYPE_CHECKING:
    from engine.run import Run

__all__ = ["HANDLERS"]


def _received(run: "Run", event: e.ProposalReceived, at: Micros | None) -> None:
    run.started_at = at


def _resumed(run: "Run", event: e.RunResumed, at: Micros | None) -> None:
    run.paused = None


def _paused(run: "Run", event: e.RunPaused, at: Micros | None) -> None:
    run.paused = event


def _copy_accepted(run: "Run", event: e.CopyAccepted, at: Micros | None) -> None:
    run.paused = None


def _completed(run: "Run", event: e.ProposalCompleted, at: Micros | None) -> None:
    run.completed, run.ended_at, run.paused = event, at, None


def _rejected(run: "Run", event: e.ActionRejected, at: Micros | None) -> None:
    state = _begun(run, event.action_id)
    state.error = event.error
    run.settle(state, ActionStatus.REJECTED, at)


def _skipped(run: "Run", event: e.ActionSkipped, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.error = event.reason
    state.do.open, state.do.retry_at_us, state.wait = False, None, None
    run.settle(state, ActionStatus.SKIPPED, at)


def _validated(run: "Run", event: e.ActionValidated, at: Micros | None) -> None:
    _begun(run, event.action_id).judged = True
    run.dispatched += 1


def _executing(run: "Run", event: e.ActionExecuting, at: Micros | None) -> None:
    state = _begun(run, event.action_id)
    attempts = state.do
    attempts.number, attempts.open, attempts.retry_at_us = event.attempt, True, None
    attempts.doubt = None
    state.judged, state.reuse_key = True, event.reuse_key
    run.dispatched += 1


def _succeeded(run: "Run", event: e.ActionSucceeded, at: Micros | None) -> None:
    state = _begun(run, event.action_id)
    _close(state.do, event.attempt)
    state.wait = None
    state.output, state.error, state.reuse_key = event.output, None, event.reuse_key
    _add_duration(run, state, event.duration_us)
    if run.graph.level_of[run.index[event.action_id]] >= 0:  # else it served to undo another
        run.succeeded.append(run.index[event.action_id])
    run.settle(state, ActionStatus.SUCCEEDED, at)
    run.changing = state


def _failed(run: "Run", event: e.ActionFailed, at: Micros | None) -> None:
    state = _begun(run, event.action_id)
    _close(state.do, event.attempt)
    state.wait = None
    state.output, state.error = event.output, event.error
    _add_duration(run, state, event.duration_us)
    run.settle(state, ActionStatus.FAILED, at)


def _retrying(run: "Run", event: e.ActionRetrying, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.status, state.settled_at = None, None
    run.aborted_by.discard(event.action_id)
    place = run.index[event.action_id]
    if place in run.settled:
        run.settled.remove(place)
    state.do.open, state.do.doubt = False, None
    state.do.retry_at_us = (at or 0) + event.delay_ms * 1000
    run.retries += 1


def _deduplicated(run: "Run", event: e.ActionDeduplicated, at: Micros | None) -> None:
    state = _begun(run, event.action_id)
    state.output, state.duration_us, state.deduplicated = event.output, 0, True
    run.succeeded.append(run.index[event.action_id])
    run.settle(state, ActionStatus.SUCCEEDED, at)


def _in_doubt(run: "Run", event: e.ActionInDoubt, at: Micros | None) -> None:
    state = run.of(event.action_id)
    attempts = state.undo if event.undo else state.do
    attempts.open, attempts.doubt = False, Doubt(event.attempt, event.tool, event.reason)
    run.in_doubt.add(run.index[event.action_id])


def _answered(run: "Run", event: e.DoubtResolved, at: Micros | None) -> None:
    state = run.of(event.action_id)
    doubt = (state.undo if event.undo else state.do).doubt
    if doubt is not None and doubt.attempt == event.attempt and doubt.answer is None:
        doubt.answer = event
        if not event.undo and event.resolution == "failed" and event.by == "policy":
            state.maybe_done = True


def _undoing(run: "Run", event: e.CompensationExecuting, at: Micros | None) -> None:
    attempts = run.of(event.action_id).undo
    attempts.number, attempts.open, attempts.retry_at_us = event.attempt, True, None
    attempts.doubt = None


def _undone(run: "Run", event: e.CompensationSucceeded, at: Micros | None) -> None:
    state = run.of(event.action_id)
    _close(state.undo, event.attempt)
    state.undone, state.undo_output = True, event.output


def _not_undone(run: "Run", event: e.CompensationFailed, at: Micros | None) -> None:
    state = run.of(event.action_id)
    _close(state.undo, event.attempt)
    state.undone, state.undo_error = False, event.error


def _undo_retrying(run: "Run", event: e.CompensationRetrying, at: Micros | None) -> None:
    state = run.of(event.action_id)
    state.undone = None
    state.undo.open, state.undo.doubt = False, None
    state.undo.retry_at_us = (at or 0) + event.delay_ms * 1000
    run.retries += 1


def _rolled_back(run: "Run", event: e.ActionRolledBack, at: Micros | None) -> None:
    run.of(event.action_id).rolled_back = True


def _state_rollback(run: "Run", event: e.StateRollback, at: Micros | None) -> None:
    run.changing = None  # what follows are the inverses; no action made them


def _state_changed(run: "Run", event: e.StateChanged, at: Micros | None) -> None:
    run.state_keys.add(event.key)
    if run.changing is not None:
        run.changing.state_changes[event.key] = event.value


def _asked(run: "Run", event: e.ApprovalRequested, at: Micros | None) -> None:
    run.of(event.action_id).approval = Approval(event)


def _approval_answered(run: "Run", event: e.ApprovalAnswered, at: Micros | None) -> None:
    approval = run.of(event.action_id).approval
    if approval is None or approval.request.binding != event.binding:
        return
    ends_at = approval.request.expires_at
    if at is None or ends_at is None or at < ends_at:
        approval.answers.append(event)


def _waits(run: "Run", event: e.WaitStarted, at: Micros | None) -> None:
    state = _begun(run, event.action_id)
    state.wait, state.judged, state.waited = event, True, True
    state.do.number, state.do.retry_at_us = event.attempt, None


def _signal(run: "Run", event: e.SignalSent, at: Micros | None) -> None:
    queue = run.signals.setdefault(event.signal, deque())
    assert at is not None  # it is heard from the log
    queue.append((run.inbox_version, at, event.value))


def _signal_taken(run: "Run", event: e.SignalTaken, at: Micros | None) -> None:
    left = [one for one in run.signals.get(event.signal, ()) if one[0] != event.number]
    run.signals[event.signal] = deque(left)
    if not left:
        del run.signals[event.signal]


def _cancel(run: "Run", event: e.CancelRequested, at: Micros | None) -> None:
    # Whoever asks last is heard, but nobody takes back that what was done is to be undone.
    if run.cancel is None or not run.cancel.compensate:
        run.cancel = event


def _stopping(run: "Run", event: e.RunStopping, at: Micros | None) -> None:
    run.stopping = event


def _declined(run: "Run", event: e.ReplanDeclined, at: Micros | None) -> None:
    run.declined = True


def _begun(run: "Run", action_id: str) -> ActionState:
    state = run.of(action_id)
    run.begun.add(run.index[action_id])
    return state


def _close(attempts: Attempts, number: int) -> None:
    attempts.number = max(attempts.number, number)
    attempts.open, attempts.doubt, attempts.retry_at_us = False, None, None


def _add_duration(run: "Run", state: ActionState, duration_us: int | None) -> None:
    if duration_us is not None:
        run.duration_us += duration_us
        state.duration_us = (state.duration_us or 0) + duration_us


HANDLERS: dict[type, Callable[["Run", Any, Micros | None], None]] = {
    e.ProposalReceived: _received,
    e.RunResumed: _resumed,
    e.RunPaused: _paused,
    e.CopyAccepted: _copy_accepted,
    e.ProposalCompleted: _completed,
    e.ActionValidated: _validated,
    e.ActionRejected: _rejected,
    e.ActionSkipped: _skipped,
    e.ActionExecuting: _executing,
    e.ActionSucceeded: _succeeded,
    e.ActionFailed: _failed,
    e.ActionRetrying: _retrying,
    e.ActionDeduplicated: _deduplicated,
    e.ActionInDoubt: _in_doubt,
    e.DoubtResolved: _answered,
    e.CompensationExecuting: _undoing,
    e.CompensationSucceeded: _undone,
    e.CompensationFailed: _not_undone,
    e.CompensationRetrying: _undo_retrying,
    e.ActionRolledBack: _rolled_back,
    e.StateRollback: _state_rollback,
    e.StateChanged: _state_changed,
    e.ApprovalRequested: _asked,
    e.ApprovalAnswered: _approval_answered,
    e.WaitStarted: _waits,
    e.SignalSent: _signal,
    e.SignalTaken: _signal_taken,
    e.CancelRequested: _cancel,
    e.RunStopping: _stopping,
    e.ReplanDeclined: _declined,
}
