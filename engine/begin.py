"""What happens to one action when its turn has come, up to its call.

The pipeline, in its order: (0) references are resolved, (1) the rules are asked, (2) the action is
validated; then people are asked, if a rule wants that. Steps 3 to 6 of a tool call stand in
`dispatch`. State actions have no outside effect, so for them the last step is the action itself.

A retry is not judged again: it goes on after step 2. After a wait for a person everything is.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import field, frozen

from carstore import canonical
from carstore import events as e
from carstore.blobs import filled, references
from carstore.log import StateRead
from carstore.names import Json, LeaseName
from engine.action_state import ActionState
from engine.authority import Verdict, request, why_not
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
    "Consent",
    "Ready",
    "Refused",
    "begin",
    "flight",
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

    events: tuple[e.Event, ...]


@frozen
class Consent:
    """The action needs people's consent, and passed every other check."""

    request: e.ApprovalRequested


@frozen(kw_only=True)
class Ready:
    """The action passed every check."""

    parameters: dict[str, Json]
    """With output references replaced; only what is sensitive stands beside the log."""
    given: dict[str, Json] = field(repr=False)
    """What the call is to be given."""
    tool: Tool | None


Begun: TypeAlias = Refused | Consent | Ready


def grounds_of(action: Action) -> set[str]:
    """The state keys that `begin` reads for an action."""
    keys = keys_read(action) | {assumption.key for assumption in action.assumptions}
    if action.idempotent:
        keys |= action.expected_effects.keys()
    return keys


Judge: TypeAlias = Callable[[Action, Tool | None, Mapping[str, Json]], Verdict]
"""Asks the rules: of the action, its tool, and its parameters with real values."""


def begin(
    run: Run,
    index: int,
    tool: Tool | None,
    read: Callable[[str], StateRead],
    values: Mapping[str, Json],
    judge: Judge,
    now: int,
) -> Begun:
    """Steps 0 to 2: decide whether the action may be dispatched.

    Args:
        read: the state of a key of `grounds_of(action)`.
        values: beside the log, by hash, as far as the call may need them.
        now: microseconds UTC.
    """
    state = run.actions[index]
    action = state.action
    for needed in run.graph.hard[index]:
        other = run.actions[needed]
        if other.status is not ActionStatus.SUCCEEDED:
            what = "is undecided" if other.status is None else other.status.value
            reason = f"dependency '{other.action.id}' {what}"
            return Refused((e.ActionSkipped(action_id=action.id, reason=reason),))
    try:
        parameters = resolved(run, action.parameters, values)
    except UnresolvedReference as error:
        return _rejected(action, error.message)
    given, public = parameters, None
    if values:
        given, public = filled(parameters, values), filled(parameters, values, sensitive=False)
    # What is large stands beside the log for a run that was loaded, and not yet for a new one; what
    # is told apart by a digest has to be the same for both.
    told = parameters if public is None else public
    ready = Ready(parameters=told, given=given, tool=tool)
    if state.judged and state.do.number > 0 and index not in run.in_doubt:
        return ready
    verdict = judge(action, tool, given)
    if verdict.violations:
        return _forbidden(action, verdict)
    reasons = reasons_against(
        action, given, tool, read, public=public, values=values, run_id=run.run_id
    )
    if run.refers and action.type is ActionType.TOOL_CALL:
        lacking = not_there(given, values)
        if lacking is not None:
            reasons.insert(0, lacking)
    if reasons:
        return _rejected(action, "; ".join(reasons))
    return _with_consent(state, ready, verdict, now) if verdict.asks else ready


def _with_consent(state: ActionState, ready: Ready, verdict: Verdict, now: int) -> Begun:
    """What becomes of an action that needs people's consent."""
    wanted = request(state.action, ready.parameters, verdict.asks, now)
    approval = state.approval
    if approval is None or approval.request.binding != wanted.binding:
        return Consent(wanted)
    if approval.refusal is not None:
        said = f": {approval.refusal.reason}" if approval.refusal.reason else ""
        return _rejected(state.action, f"refused by {approval.refusal.by}{said}")
    if not _covers(approval.request, wanted):
        return Consent(wanted)
    if approval.granted:
        return ready
    if approval.expired(now):
        return _rejected(state.action, "nobody approved it in time")
    return Consent(approval.request)


def _covers(asked: e.ApprovalRequested, wanted: e.ApprovalRequested) -> bool:
    """Whether those who answered were asked for all that the rules ask now."""
    rules = {one["policy"] for one in asked.reasons}
    return asked.approvers >= wanted.approvers and rules.issuperset(
        one["policy"] for one in wanted.reasons
    )


def _rejected(action: Action, error: str) -> Refused:
    return Refused((e.ActionRejected(action_id=action.id, error=error),))


def _forbidden(action: Action, verdict: Verdict) -> Refused:
    told = [
        e.PolicyViolation(action_id=action.id, policy=one.policy, reason=one.reason)
        for one in verdict.violations
    ]
    error = why_not(verdict.violations)
    return Refused((*told, e.ActionRejected(action_id=action.id, error=error)))


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


def flight(key: str) -> LeaseName:
    """The lease of whoever works out the result that is remembered under a reuse key."""
    return LeaseName(f"reuse/{key}")


def parameters_digest(parameters: dict[str, Json]) -> str:
    """SHA-256 (hex) of what a call is given: tells calls apart without storing secrets twice."""
    return canonical.digest(parameters)


def idempotency_key(run: Run, state: ActionState, *, undo: bool) -> str:
    """What a tool is handed to recognise a repeated call: equal for all attempts."""
    purpose = "undo" if undo else "do"
    return canonical.digest([run.received.log_id, run.run_id, state.action.id, purpose])
