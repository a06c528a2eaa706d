"""Stopping a run before its plan has ended: nothing new begins, and what is left is skipped.

A budget that is used up lets the calls in flight end. Who cancels, and a deadline, do not wait for
them; what such a call did is unknown, and that is what is recorded. So both still count after a
budget, and while the run rolls back: there they do not wait for calls that hold up the way back.
"""

from carstore import events as e
from engine.desk import Desk
from engine.ending import complete
from engine.in_flight import STOPPED
from engine.ir import NotUndone, RunStatus
from engine.purse import reservation_name
from engine.run import Run

__all__ = [
    "calls_nothing",
    "due_stop",
    "end_reservations",
    "halt",
    "skip_the_rest",
    "stop_if_due",
    "waits_for_calls",
]


def waits_for_calls(run: Run) -> bool:
    """Whether nobody, and no deadline, has told the run to go on without the calls in flight."""
    return run.stopping is None or run.stopping.cause == "budget"


def due_stop(run: Run, now: int) -> e.RunStopping | None:
    """What is to be recorded of what somebody asked, or of the deadline, that is not yet.

    What rolls back goes on rolling back. A request to undo counts also after a plain stop.

    Args:
        now: microseconds UTC.
    """
    cancel, deadline_at = run.cancel, run.received.deadline_at
    waits = waits_for_calls(run)
    undo_too = cancel is not None and cancel.compensate and not run.aborting
    if cancel is not None and (waits or undo_too):
        return e.RunStopping(
            cause="cancelled",
            reason=cancel.reason,
            compensate=cancel.compensate or run.aborting,
            by=cancel.by,
        )
    if waits and deadline_at is not None and deadline_at <= now:
        reason = "its time is over"
        return e.RunStopping(cause="deadline", reason=reason, compensate=run.aborting)
    return None


def stop_if_due(desk: Desk) -> None:
    """Act on what somebody asked, and on the deadline, once."""
    stopping = due_stop(desk.run, desk.journal.clock.now())
    if stopping is not None:
        desk.record([stopping])


async def halt(desk: Desk) -> None:
    """End a run that stops where it is."""
    stopping = desk.run.stopping
    assert stopping is not None
    keep_decided = waits_for_calls(desk.run)
    if not keep_decided:
        desk.calls.interrupt()
    await end_reservations(desk, keep_decided=keep_decided)
    skip_the_rest(desk, STOPPED[stopping.cause], keep_decided=keep_decided)
    if not keep_decided:
        _give_up_doubts(desk)  # those too that were found just now: the process died in the call
    desk.hand_out()
    unsettled = any(desk.run.actions[index].status is None for index in desk.run.graph.forward)
    if unsettled or not desk.calls.idle:
        return
    cancelled = stopping.cause == "cancelled"
    left = [
        NotUndone(state.action.id, f"attempt {state.do.number} may have been carried out")
        for state in desk.run.actions
        if state.maybe_done
    ]
    complete(desk, RunStatus.CANCELLED if cancelled else RunStatus.FAILED, left)


def _give_up_doubts(desk: Desk) -> None:
    """A run that was told to stop does not wait for answers: what is in doubt counts as failed."""
    assert desk.run.stopping is not None
    for _, state, doubt in desk.doubts():
        if doubt.answer is None:
            error = f"in doubt: {doubt.reason}"
            undo = state.undo.doubt is doubt
            desk.record([
                e.DoubtResolved(
                    action_id=state.action.id,
                    attempt=doubt.attempt,
                    undo=undo,
                    resolution="failed",
                    error=error,
                )
            ])  # fmt: skip


async def end_reservations(desk: Desk, *, keep_decided: bool = False) -> None:
    """End what calls have reserved that will have no outcome, before they are skipped. Those that
    were decided on in this turn are not made, and spend nothing. What became of one whose process
    ended nobody knows, so it counts in full.

    Args:
        keep_decided: as of `skip_the_rest`.
    """
    if desk.purse is None:
        return
    decided = {made.index for made in desk.calls.to_start if not made.undo}
    for index in desk.run.graph.forward:
        state, place = desk.run.actions[index], (index, False)
        if state.status is not None or not state.do.open:
            continue
        tool = desk.tool_of(state)
        name = reservation_name(desk.run.run_id, state.action.id, state.do.number, undo=False)
        if index in decided:
            entries = [] if keep_decided else await desk.purse.settle(name)
        elif place in desk.calls.running or desk.calls.has_outcome(place):
            continue
        elif tool is not None and not tool.schema.repeatable:
            continue  # it is in doubt
        else:
            entries = await desk.purse.forfeit(name)
        for entry in entries:
            desk.journal.add(entry)


def skip_the_rest(desk: Desk, why: str, *, keep_decided: bool = False) -> None:
    """What has not started never will; what is in flight is asked to stop, if the run rolls back.

    Args:
        keep_decided: whether calls that were decided on in this turn are made.
    """
    desk.startable.clear()
    desk.waiting.clear()
    decided = {made.index for made in desk.calls.to_start if not made.undo}
    if not keep_decided:
        desk.calls.drop_decided()
    for index in desk.run.graph.forward:
        state = desk.run.actions[index]
        place = (index, False)
        if state.status is not None or state.do.doubt is not None:
            continue
        if place in desk.calls.running:
            if desk.run.aborting:
                desk.calls.running[place][0].context.request_cancel()
        elif not _is_under_way(desk, index, decided, keep_decided=keep_decided):
            desk.stop_timer(place)
            reason = why
            if index in desk.run.in_doubt:
                reason += f"; attempt {state.do.number} is in doubt"
            desk.record([e.ActionSkipped(action_id=state.action.id, reason=reason)])


def _is_under_way(desk: Desk, index: int, decided: set[int], *, keep_decided: bool) -> bool:
    """Whether something of an action that is not settled has to be recorded first."""
    if index in decided:
        return keep_decided
    state = desk.run.actions[index]
    tool = desk.tool_of(state)
    return desk.calls.has_outcome((index, False)) or desk.find_doubt(state, tool, undo=False)


def calls_nothing(run: Run, now: int) -> bool:
    """Whether driving the run on only ends it where it is, which takes no tool and no rule.

    Not if a call may be under way: only its tool tells whether it is in doubt.
    """
    stopping = due_stop(run, now) or run.stopping
    if stopping is None or stopping.compensate or run.aborting:
        return False
    return not any(state.do.open for state in run.actions)
