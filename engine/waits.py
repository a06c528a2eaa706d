"""Durable waits: an action that is held until a time has come, or a signal is there.

The clock is the store's, so nothing is woken early, and what is due stays due while no process
runs. A signal stands in the inbox of the run until one action takes it: the oldest first, and by
its number there, so that each is taken once. Whether it came in time, its own moment decides,
and not the one at which a driver hears of it.
"""

import math
from fractions import Fraction

from carstore import events as e
from carstore.names import Json, Micros, inbox_stream
from engine import commit
from engine.action_state import ActionState
from engine.begin import Ready
from engine.built_in import instant_of
from engine.desk import Desk
from engine.results import rfc3339
from engine.run import Run
from engine.stop import due_stop

__all__ = ["begin_wait", "can_go_on", "due", "end_waits", "next_due"]

MICROS = 1_000_000


def begin_wait(desk: Desk, index: int, state: ActionState, begun: Ready) -> None:
    """Hold the action until what it waits for is there."""
    params, now = begun.given, desk.journal.clock.now()
    attempt = state.do.number + 1
    try:
        due_at = _due_at(params, now)
    except ValueError as error:
        desk.record(commit.failed(state.action, attempt, str(error), desk.equipment.backoff))
        return
    timeout_ms = state.action.timeout_ms
    timeout_at = None if timeout_ms is None else now + timeout_ms * 1000
    times_out = timeout_at is not None and (due_at is None or timeout_at < due_at)
    wait = e.WaitStarted(
        action_id=state.action.id,
        attempt=attempt,
        due_at=timeout_at if times_out else due_at,
        signal=params.get("name"),
        times_out=times_out,
    )
    desk.record([wait])
    desk.hold(index)


def _due_at(params: dict[str, Json], now: int) -> int | None:
    """When the wait is over, microseconds UTC, rounded up; None: it has no end by itself.

    Raises:
        ValueError: `until` is no instant that can be waited for.
    """
    if "until" in params:
        return instant_of(params["until"])
    seconds = params.get("seconds", params.get("timeout_secs"))
    return None if seconds is None else now + math.ceil(Fraction(seconds) * MICROS)


def due(run: Run, state: ActionState, now: int) -> bool:
    """Whether what an action waits for is there."""
    wait = state.wait
    if wait is None:
        return False
    if _signal_in_time(run, wait) is not None:
        return True
    return wait.due_at is not None and wait.due_at <= now


def _signal_in_time(run: Run, wait: e.WaitStarted) -> tuple[int, Json] | None:
    """Number and value of the signal that ends a wait; None: the oldest that is there, if any, came
    when the time was over, and stays for another wait."""
    queue = run.signals.get(wait.signal) if wait.signal is not None else None
    if not queue:
        return None
    number, sent_at, value = queue[0]
    return (number, value) if wait.due_at is None or sent_at < wait.due_at else None


def next_due(desk: Desk) -> int | None:
    """When the next of the actions that are held is due, microseconds UTC; None: none is."""
    ends = []
    for index in desk.waiting:
        state = desk.run.actions[index]
        if state.wait is not None:
            ends.append(state.wait.due_at)
        elif state.approval is not None:
            ends.append(state.approval.request.expires_at)
    return min((one for one in ends if one is not None), default=None)


def end_waits(desk: Desk) -> bool:
    """Settle the actions for which what they waited for is there; whether there were any."""
    now, ended = desk.journal.clock.now(), False
    for index in sorted(desk.waiting):
        state = desk.run.actions[index]
        if state.wait is not None and due(desk.run, state, now):
            desk.release(index, start=False)
            _end(desk, state, state.wait)
            ended = True
    return ended


def _end(desk: Desk, state: ActionState, wait: e.WaitStarted) -> None:
    found = _signal_in_time(desk.run, wait)
    if found is not None:
        number, value = found
        taken = e.SignalTaken(action_id=state.action.id, signal=wait.signal or "", number=number)
        desk.record([taken])
        _succeed(desk, state, wait, value)
    elif wait.signal is None and not wait.times_out:
        _succeed(desk, state, wait, {"until": rfc3339(Micros(wait.due_at or 0))})
    else:
        # One that was sent in time, and not heard yet, ends the wait: then all is decided again.
        inbox = inbox_stream(desk.run.run_id)
        desk.journal.expected[inbox] = desk.run.inbox_version
        error = f"no signal {wait.signal!r} came in time"
        if wait.times_out:
            error = f"action timed out after {state.action.timeout_ms}ms"
        desk.record(commit.failed(state.action, wait.attempt, error, desk.equipment.backoff))


def _succeed(desk: Desk, state: ActionState, wait: e.WaitStarted, output: Json) -> None:
    done = e.ActionSucceeded(
        action_id=state.action.id, attempt=wait.attempt, output=output, duration_us=0
    )
    desk.record([done])
    desk.record(commit.changes(desk.scope, dict(state.action.expected_effects)))


def can_go_on(run: Run, now: int) -> bool:
    """Whether a run that was put down to wait would find anything to do, or is not waiting at all.

    Looking does not cost a commit, as taking up the run would.
    """
    paused = run.paused
    if paused is None or paused.reason != "waiting":
        return True
    if due_stop(run, now) is not None:
        return True
    return any(_is_answered(run, run.of(item["action_id"]), now) for item in paused.waiting_for)


def _is_answered(run: Run, state: ActionState, now: int) -> bool:
    doubts = (state.do.doubt, state.undo.doubt)
    if any(doubt is not None and doubt.answer is not None for doubt in doubts):
        return True
    approval = state.approval
    consent = state.wait is None and approval is not None and not approval.is_open(now)
    return consent or due(run, state, now)
