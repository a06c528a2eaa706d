"""What happens to one action when its turn has come, up to its call.

The pipeline, in its order: (0) references are resolved, (1) authority has its place here, (2) the
action is validated, (3) a remembered result is looked for, (4, 5) budget and rate limit have their
places here, (6) the intent is recorded. State actions have no outside effect, so for them the last
step is the action itself.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import field, frozen

from carstore import canonical
from carstore import events as e
from carstore.blobs import filled, references
from carstore.log import StateRead
from carstore.names import Json
from engine.action_state import ActionState
from engine.declare import Tool
from engine.ir import Action, ActionStatus, ActionType
from engine.rules.graph import keys_read
from engine.rules.references import UnresolvedReference, resolve
from engine.rules.sensitive import not_there, veiled
from engine.rules.values import same
from engine.run import Run
from engine.validate import reasons_against

__all__ = [
    "Begun",
    "Ready",
    "Refused",
    "begin",
    "grounds_of",
    "idempotency_key",
    "parameters_digest",
    "perform_state_action",
    "resolved",
    "reuse_key",
]


@frozen
class Refused:
    """The action is settled without a call."""

    event: e.Event


@frozen(kw_only=True)
class Ready:
    """The action passed every check."""

    parameters: dict[str, Json]
    """With output references replaced, and references to sensitive values as they are."""
    given: dict[str, Json] = field(repr=False)
    """What the call is to be given."""
    tool: Tool | None


Begun: TypeAlias = Refused | Ready


def grounds_of(action: Action) -> set[str]:
    """The state keys that `begin` reads for an action."""
    keys = keys_read(action)
    if action.idempotent:
        keys = keys | action.expected_effects.keys()
    return keys


def begin(
    run: Run,
    index: int,
    tool: Tool | None,
    read: Callable[[str], StateRead],
    values: Mapping[str, Json],
) -> Begun:
    """Steps 0 to 2: decide whether the action may be dispatched.

    Args:
        read: the state of a key of `grounds_of(action)`.
        values: beside the log, by hash, as far as the call may need them.
    """
    action = run.actions[index].action
    for needed in run.graph.hard[index]:
        state = run.actions[needed]
        if state.status is not ActionStatus.SUCCEEDED:
            what = "is undecided" if state.status is None else state.status.value
            reason = f"dependency '{state.action.id}' {what}"
            return Refused(e.ActionSkipped(action_id=action.id, reason=reason))
    try:
        parameters = resolved(run, action.parameters, values)
    except UnresolvedReference as error:
        return Refused(e.ActionRejected(action_id=action.id, error=error.message))
    given, public = parameters, None
    if values:
        given, public = filled(parameters, values), filled(parameters, values, sensitive=False)
    reasons = reasons_against(action, given, tool, read, public=public, values=values)
    if run.refers and action.type is ActionType.TOOL_CALL:
        lacking = not_there(given, values)
        if lacking is not None:
            reasons.insert(0, lacking)
    if reasons:
        return Refused(e.ActionRejected(action_id=action.id, error="; ".join(reasons)))
    return Ready(parameters=parameters, given=given, tool=tool)


def resolved(run: Run, parameters: dict[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    """`parameters` with every output reference replaced.

    Outputs that are large stand beside the log and are taken from `values`; what is sensitive stays
    a reference.

    Raises:
        UnresolvedReference: one leads nowhere.
    """

    def output_of(action_id: str) -> Json:
        state = run.of(action_id)
        if state.status is not ActionStatus.SUCCEEDED:
            raise KeyError(action_id)
        if not values:
            return state.output
        large = values.keys() & set(references(state.output, sensitive=False))
        return filled(state.output, {one: values[one] for one in large})

    found: dict[str, Json] = resolve(parameters, run.index, output_of)
    return found


def perform_state_action(
    action: Action,
    parameters: dict[str, Json],
    read: Callable[[str], StateRead],
    values: Mapping[str, Json],
) -> tuple[Json, dict[str, Json], str | None]:
    """What a state action comes to: its output, the keys it writes, and its error if it failed.

    The outputs and the texts are the seed's. What stands beside the log is compared by its value,
    from `values`, and not shown if it is sensitive.
    """
    key = parameters["key"]
    if action.type is ActionType.STATE_WRITE:
        return f"written: {key}", {key: parameters.get("value")}, None
    found = read(key)
    if action.type is ActionType.STATE_READ:
        return found.value, {}, None
    expected = parameters.get("expected")
    if same(filled(found.value, values), filled(expected, values)):
        return {"asserted": key, "value": found.value}, {}, None
    actual, wanted = canonical.dumps(veiled(found.value)), canonical.dumps(veiled(expected))
    return None, {}, f"assertion failed: state['{key}'] = {actual}, expected {wanted}"


def reuse_key(scope: str, tool: Tool, parameters: dict[str, Json]) -> str:
    """Under which name a result is remembered: the same call, of the same tool, in one scope."""
    return canonical.digest([scope, tool.name, tool.schema.digest, parameters])


def parameters_digest(parameters: dict[str, Json]) -> str:
    """SHA-256 (hex) of what a call is given: tells calls apart without storing secrets twice."""
    return canonical.digest(parameters)


def idempotency_key(run: Run, state: ActionState, *, undo: bool) -> str:
    """What a tool is handed to recognise a repeated call: equal for all attempts."""
    purpose = "undo" if undo else "do"
    return canonical.digest([run.received.log_id, run.run_id, state.action.id, purpose])
