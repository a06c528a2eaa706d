"""Backward: after an abort, undo what was done outside, then what was done to the state.

Nothing new starts; what is in flight is awaited; an attempt in doubt holds everything, because it
may have to be undone too. Then the compensations are called one after the other, in reverse order
of success, and when all are over the run's changes of state are inverted, in one append with the
end of the run.
"""

from carstore import events as e
from carstore.blobs import filled
from carstore.names import Json, Position, StateKey
from engine.action_state import ActionState
from engine.authority import why_not
from engine.begin import parameters_digest, resolved
from engine.bounds import judge
from engine.declare import Tool
from engine.desk import Desk
from engine.ending import complete, conflict_json
from engine.execute import Call
from engine.in_flight import STOPPED
from engine.ir import (
    Action,
    ActionRef,
    ActionStatus,
    NotUndone,
    RollbackConflict,
    RunStatus,
    ToolCompensation,
)
from engine.paying import forfeit
from engine.rules.references import UnresolvedReference
from engine.rules.sensitive import concealing, not_there, secrets_in
from engine.rules.undo import Irreversible, Undo, UndoCall, restore, undo_of
from engine.stop import end_reservations, skip_the_rest

__all__ = ["unwind"]


async def unwind(desk: Desk) -> None:
    """Decide all that can be decided now on the way back."""
    stopping = desk.run.stopping
    if stopping is not None and stopping.compensate:
        desk.calls.interrupt()
    await end_reservations(desk)
    skip_the_rest(desk, "skipped due to abort" if stopping is None else STOPPED[stopping.cause])
    desk.hand_out()
    if not desk.calls.idle:
        return
    if any(state.do.doubt is not None for _, state, _ in desk.doubts()):
        return
    for index in reversed(desk.run.succeeded):
        if not await _is_undone(desk, index):
            return
    await _roll_back(desk)


async def _is_undone(desk: Desk, index: int) -> bool:
    """Whether the compensation of an action is over; begins it, or its retry, if it is due."""
    state = desk.run.actions[index]
    if state.undone is not None or state.deduplicated:
        return True
    if state.undo.doubt is not None or (index, True) in desk.timers:
        return False
    if desk.must_wait(index, state.undo, undo=True):
        return False
    values = await _values_for(desk, state)
    try:
        undo = _undo_of(desk, state, values)
    except UnresolvedReference as error:
        _fail(desk, state, "", error.message)
        return True
    if not isinstance(undo, UndoCall):
        return True
    tool = desk.equipment.tools.get(undo.tool)
    given, public = undo.parameters, None
    if values:
        given = filled(undo.parameters, values)
        public = filled(undo.parameters, values, sensitive=False)
    problems = [f"unknown tool '{undo.tool}'"]
    if tool is not None and tool.waits:
        problems = [f"tool '{undo.tool}' only waits, and undoes nothing"]
    elif tool is not None:
        problems = tool.schema.check_parameters(given, public)
        lacking = not_there(given, values) if desk.run.refers else None
        if lacking is not None:
            problems.insert(0, lacking)
    if not problems:
        problems = await _forbidden(desk, state, undo, tool, given)
    if tool is None or problems:
        _fail(desk, state, undo.tool, "; ".join(problems))
        return True
    if not desk.find_doubt(state, tool, undo=True):
        if state.undo.open:  # the process ended during the call
            await forfeit(desk, state, state.undo.number, undo=True)
        _begin_undo(desk, index, tool, undo, given, secrets_in(undo.parameters, values))
    return False


async def _forbidden(
    desk: Desk, state: ActionState, undo: UndoCall, tool: Tool | None, given: dict[str, Json]
) -> list[str]:
    """Why rules forbid a compensation, with what it is really given.

    Nobody is asked: who consented to the action consented to its being undone. Nor do limits of how
    often a tool may be called apply.
    """
    if not desk.authority.policies or state.undo.number > 0:
        return []
    action = Action(id=state.action.id, tool=undo.tool, parameters=undo.parameters)
    await desk.journal.fetch(desk.authority.keys(action))
    violations = judge(desk, action, tool, given, limited=False).violations
    for one in violations:
        told = e.PolicyViolation(action_id=action.id, policy=one.policy, reason=one.reason)
        desk.record([told])
    return [why_not(violations)] if violations else []


async def _values_for(desk: Desk, state: ActionState) -> dict[str, Json]:
    compensation = state.action.compensation
    parameters: list[Json] = [state.action.parameters]
    if isinstance(compensation, ToolCompensation):
        parameters.append(compensation.parameters)
    elif isinstance(compensation, ActionRef):
        parameters.append(desk.run.of(compensation.action_id).action.parameters)
    return await desk.values_for(*parameters)


def _undo_of(desk: Desk, state: ActionState, values: dict[str, Json]) -> Undo:
    def named(action_id: str) -> Action:
        return desk.run.of(action_id).action

    return undo_of(
        state.action,
        state.output,
        desk.tool_of(state),
        named,
        lambda parameters: resolved(desk.run, parameters, values),
    )


def _fail(desk: Desk, state: ActionState, tool: str, error: str) -> None:
    """A compensation that cannot even be called."""
    attempt = state.undo.number + 1
    desk.record(
        [e.CompensationFailed(action_id=state.action.id, attempt=attempt, tool=tool, error=error)]
    )


def _begin_undo(
    desk: Desk,
    index: int,
    tool: Tool,
    undo: UndoCall,
    given: dict[str, Json],
    secrets: set[str],
) -> None:
    state = desk.run.actions[index]
    attempt = state.undo.number + 1
    intent = e.CompensationExecuting(
        action_id=state.action.id,
        attempt=attempt,
        tool=tool.name,
        effect=tool.schema.effect.value,
        parameters_digest=parameters_digest(undo.parameters),
        reuse_key=state.reuse_key,
    )
    desk.record([intent])
    made = Call(
        index=index,
        undo=True,
        attempt=attempt,
        tool=tool,
        parameters=given,
        conceal=concealing(tool.schema, desk.journal.store.redaction),
        secrets=secrets,
        timeout_ms=tool.schema.timeout_ms,
        grounds={},
        context=desk.context(state, tool, attempt, secrets, undo=True),
    )
    desk.calls.to_start.append(made)


# --- the state -----------------------------------------------------------------------------------


async def _roll_back(desk: Desk) -> None:
    """Invert the run's changes of state and end the run."""
    restored, conflicts = await _restore_state(desk)
    not_undone = _not_undone(desk)
    left = {item.action_id for item in not_undone}
    for index in reversed(desk.run.succeeded):
        state = desk.run.actions[index]
        if state.action.id not in left and not state.deduplicated:
            event = e.ActionRolledBack(action_id=state.action.id, reuse_key=state.reuse_key)
            desk.record([event])
    _settle_used_compensations(desk)
    summary = e.StateRollback(
        keys=tuple(sorted(event.key for event, _ in restored)),
        conflicts=[conflict_json(conflict) for conflict in conflicts],
    )
    desk.record([summary])
    for change, newest in restored:
        desk.journal.state.reads[change.key] = newest
        desk.record([change])
        # A resume in between restores all keys again, to the same values.
        await desk.keep_small()
    failed = any(state.undone is False for state in desk.run.actions)
    status = RunStatus.PARTIALLY_COMPENSATED if failed else RunStatus.ROLLED_BACK
    complete(desk, status, not_undone, conflicts)


async def _restore_state(
    desk: Desk,
) -> tuple[list[tuple[e.StateChanged, Position]], list[RollbackConflict]]:
    """The inverse changes, each with the position its key must still be at, and the conflicts."""
    run, state = desk.run, desk.journal.state
    keys = sorted(StateKey(key) for key in run.state_keys)
    trails = await desk.journal.store.log.trails(desk.scope, keys, run.run_id)
    changes: list[tuple[e.StateChanged, Position]] = []
    conflicts = []
    for key in keys:
        trail, pending = trails[key], key in state.pending
        newest = trail.newest.position
        decided = restore(trail.newest, trail.base, run.run_id, pending=pending)
        exists = state.pending[key][1] if pending else trail.newest.exists
        if decided.change is None:
            state.reads[key] = newest
            conflicts.append(RollbackConflict(key, trail.ours, decided.theirs or 0))
        elif decided.change.exists:
            value = decided.change.value
            change = e.StateChanged(scope=desk.scope, key=key, value=value)
            changes.append((change, newest))
        elif exists:
            changes.append((e.StateChanged(scope=desk.scope, key=key, deleted=True), newest))
    return changes, conflicts


def _not_undone(desk: Desk) -> list[NotUndone]:
    """What the result has to name: irreversible successes, and compensations that failed."""
    found = []
    for index in sorted(desk.run.in_doubt):
        state = desk.run.actions[index]
        if state.status is ActionStatus.SKIPPED or state.maybe_done:
            reason = f"attempt {state.do.number} is in doubt: it may have been carried out"
            found.append(NotUndone(state.action.id, reason))
    for index in desk.run.succeeded:
        state = desk.run.actions[index]
        if state.deduplicated:
            continue
        if state.undone is False:
            reason = f"compensation failed: {state.undo_error}"
            found.append(NotUndone(state.action.id, reason))
        elif state.undone is None:
            undo = _undo_of(desk, state, {})
            if isinstance(undo, Irreversible):
                found.append(NotUndone(state.action.id, undo.reason))
    return found


def _settle_used_compensations(desk: Desk) -> None:
    """An action that served as a compensation has the result of that call."""
    for state in desk.run.actions:
        compensation = state.action.compensation
        if not isinstance(compensation, ActionRef) or state.undone is None:
            continue
        used = desk.run.of(compensation.action_id)
        if used.status is None and state.status is ActionStatus.SUCCEEDED:
            desk.record([_result_of_used(used.action, state)])


def _result_of_used(action: Action, undone: ActionState) -> e.Event:
    attempt = undone.undo.number
    if undone.undone:
        return e.ActionSucceeded(
            action_id=action.id, attempt=attempt, output=undone.undo_output, duration_us=0
        )
    error = undone.undo_error or "failed"
    return e.ActionFailed(action_id=action.id, attempt=attempt, error=error)
