"""Forward: begin every action whose turn has come, and end the run when all are settled."""

from functools import partial

from carstore import events as e
from carstore.names import Json
from engine import commit
from engine.action_state import ActionState
from engine.begin import (
    Consent,
    Ready,
    Refused,
    begin,
    perform_state_action,
)
from engine.bounds import count_calls, grounds, judge, over_budget
from engine.desk import Desk
from engine.dispatch import begin_call
from engine.ending import complete
from engine.ir import Action, ActionStatus, ActionType, RunStatus
from engine.rules.graph import keys_read
from engine.rules.sensitive import secrets_in
from engine.waits import begin_wait

__all__ = ["advance"]

CROWDED_EVENTS = 200
"""Events of a turn that are recorded before another action of a run with a budget is decided on: a
turn in which somebody else was faster at the budget is decided again, so it has to be short."""


async def advance(desk: Desk) -> None:
    """Decide all that can be decided now, in the order of the schedule."""
    while desk.hand_out() and await _begin_next(desk):
        await desk.keep_small()
        if desk.run.aborting or desk.run.stopping is not None:
            return
    if desk.schedule.finished and desk.calls.idle:
        bad = (ActionStatus.FAILED, ActionStatus.REJECTED)
        failed = any(state.status in bad for state in desk.run.actions)
        complete(desk, RunStatus.FAILED if failed else RunStatus.SUCCEEDED)


async def _begin_next(desk: Desk) -> bool:
    """Begin the next action that may start; False if it has to wait for a free place."""
    index = desk.startable[0]
    state = desk.run.actions[index]
    if state.status is None:
        in_flight = len(desk.calls.running) + len(desk.calls.to_start)
        calls_tool = state.action.type is ActionType.TOOL_CALL
        if calls_tool and in_flight >= desk.run.received.concurrency:
            return False
        desk.startable.popleft()
        await _begin(desk, index, state)
    else:
        desk.startable.popleft()
    return True


async def _begin(desk: Desk, index: int, state: ActionState) -> None:
    tool = desk.tool_of(state)
    if state.do.doubt is not None or desk.find_doubt(state, tool, undo=False):
        desk.schedule.hold(index)
        return
    if state.wait is not None:
        desk.hold(index)
        return
    if desk.must_wait(index, state.do, undo=False) or over_budget(desk, index, state):
        return
    await count_calls(desk)
    if desk.purse is not None and len(desk.journal.entries) > CROWDED_EVENTS:
        await desk.make_durable()
    keys = grounds(desk, state.action)
    await desk.journal.fetch(keys)
    contested = next((key for key in keys if key in desk.contested), None)
    if contested is not None:
        _fail(desk, state, desk.contested[contested].message)
        return
    values = await desk.values_for(state.action.parameters, judged=_judged(desk, state.action))
    read, now = desk.journal.state.read, desk.journal.clock.now()
    begun = begin(desk.run, index, tool, read, values, partial(judge, desk), now)
    match begun:
        case Refused(events):
            desk.record(events)
        case Consent(request):
            _ask(desk, index, state, request)
        case Ready() if state.action.type is not ActionType.TOOL_CALL:
            _perform(desk, state, begun, values)
        case Ready() if tool is not None and tool.waits:
            begin_wait(desk, index, state, begun)
        case Ready():
            assert tool is not None  # one that is not known was refused
            desk.calls.decide(index, tool.name)  # other runs decide during what follows
            await begin_call(desk, index, state, begun, secrets_in(begun.parameters, values))
            if not any(made.index == index for made in desk.calls.to_start):
                desk.calls.put_off(index)


def _ask(desk: Desk, index: int, state: ActionState, request: e.ApprovalRequested) -> None:
    """Put the action off until people have answered; a request that stands is not repeated."""
    if state.approval is None or state.approval.request is not request:
        desk.record([request])
    desk.hold(index)


def _judged(desk: Desk, action: Action) -> list[Json]:
    """What an action compares: the state of keys, and what that should be."""
    found: list[Json] = []
    for condition in action.preconditions:
        found += [condition.value, desk.journal.state.value(condition.key)]
    for assumption in action.assumptions:
        found += [assumption.expected_value, desk.journal.state.value(assumption.key)]
    if action.type is ActionType.ASSERTION:
        found += [desk.journal.state.value(key) for key in keys_read(action)]
        found.append(action.parameters.get("expected"))
    return found


def _fail(desk: Desk, state: ActionState, error: str) -> None:
    backoff = desk.equipment.backoff
    desk.record(commit.failed(state.action, state.do.number + 1, error, backoff))


def _perform(desk: Desk, state: ActionState, begun: Ready, values: dict[str, Json]) -> None:
    """A state action: it has no outside effect, so it is done by recording it."""
    action = state.action
    read = desk.journal.state.read
    output, written, error = perform_state_action(action, begun.parameters, read, values)
    if error is not None:
        _fail(desk, state, error)
        return
    done = e.ActionSucceeded(
        action_id=action.id, attempt=state.do.number + 1, output=output, duration_us=0
    )
    desk.record([done])
    desk.record(commit.changes(desk.scope, {**written, **action.expected_effects}))
