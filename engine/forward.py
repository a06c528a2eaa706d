"""Forward: begin every action whose turn has come, and end the run when all are settled."""

from carstore import events as e
from carstore.names import Json
from engine import commit
from engine.action_state import ActionState
from engine.begin import (
    Ready,
    Refused,
    begin,
    grounds_of,
    parameters_digest,
    perform_state_action,
    reuse_key,
)
from engine.desk import Desk
from engine.ending import complete, pause_if_idle
from engine.execute import Call
from engine.ir import Action, ActionStatus, ActionType, RunStatus
from engine.rules.graph import keys_read
from engine.rules.sensitive import concealing, secrets_in
from engine.rules.values import same

__all__ = ["advance"]


async def advance(desk: Desk) -> None:
    """Decide all that can be decided now, in the order of the schedule."""
    while desk.hand_out() and await _begin_next(desk):
        await desk.keep_small()
        if desk.run.aborting:
            return
    if desk.schedule.finished and desk.idle:
        bad = (ActionStatus.FAILED, ActionStatus.REJECTED)
        failed = any(state.status in bad for state in desk.run.actions)
        complete(desk, RunStatus.FAILED if failed else RunStatus.SUCCEEDED)
    else:
        pause_if_idle(desk)


async def _begin_next(desk: Desk) -> bool:
    """Begin the next action that may start; False if it has to wait for a free place."""
    index = desk.startable[0]
    state = desk.run.actions[index]
    if state.status is None:
        in_flight = len(desk.calls) + len(desk.to_start)
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
    if desk.must_wait(index, state.do, undo=False):
        return
    grounds = grounds_of(state.action)
    await desk.journal.fetch(grounds)
    contested = next((key for key in grounds if key in desk.contested), None)
    if contested is not None:
        _fail(desk, state, desk.contested[contested].message)
        return
    values = await desk.values_for(state.action.parameters, judged=_judged(desk, state.action))
    begun = begin(desk.run, index, tool, desk.journal.state.read, values)
    if isinstance(begun, Refused):
        desk.record([begun.event])
    elif state.action.type is ActionType.TOOL_CALL:
        secrets = secrets_in(begun.parameters, values)
        await _begin_call(desk, index, state, begun, secrets)
    else:
        _perform(desk, state, begun, values)


def _judged(desk: Desk, action: Action) -> list[Json]:
    """What an action compares: the state of keys, and what that should be."""
    found: list[Json] = []
    for condition in action.preconditions:
        found += [condition.value, desk.journal.state.value(condition.key)]
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


async def _begin_call(
    desk: Desk, index: int, state: ActionState, begun: Ready, secrets: set[str]
) -> None:
    action, tool = state.action, begun.tool
    assert tool is not None
    remembered = reuse_key(desk.scope, tool, begun.parameters) if action.idempotent else None
    if remembered is not None and await _reuse(desk, state, remembered):
        return
    attempt = state.do.number + 1
    if tool.schema.repeatable and remembered is None:
        desk.record([e.ActionValidated(action_id=action.id)])
    else:
        intent = e.ActionExecuting(
            action_id=action.id,
            attempt=attempt,
            tool=tool.name,
            effect=tool.schema.effect.value,
            parameters_digest=parameters_digest(begun.parameters),
        )
        desk.record([intent])
    made = Call(
        index=index,
        undo=False,
        attempt=attempt,
        tool=tool,
        parameters=begun.given,
        conceal=concealing(tool.schema, desk.journal.store.redaction),
        secrets=secrets,
        timeout_ms=action.timeout_ms or tool.schema.timeout_ms,
        grounds=dict.fromkeys(grounds_of(action), 0),
        reuse_key=remembered,
        context=desk.context(state, tool, attempt, secrets, undo=False),
    )
    desk.to_start.append(made)


async def _reuse(desk: Desk, state: ActionState, key: str) -> bool:
    """Settle the action with a remembered result, if there is one that still holds."""
    if any(state.reuse_key == key for state in desk.run.actions):
        await desk.make_durable()  # the log is the memory, and this may not be in it yet
        for name in grounds_of(state.action):
            desk.journal.state.read(name)  # what was validated is a condition of what comes now
    found = await desk.equipment.recall(key)
    if found is None:
        return False
    read = desk.journal.state.read
    for name, value in state.action.expected_effects.items():
        now = read(name)
        if not (now.exists and same(now.value, value)):
            return False
    hit = e.ActionDeduplicated(
        action_id=state.action.id,
        output=found.output,
        reuse_key=key,
        original_position=found.position,
        original_run_id=found.run_id,
        original_action_id=found.action_id,
    )
    desk.record([hit])
    return True
