"""One action, as its turn comes in a plan that is followed and not run.

The rules are the engine's own; here they are asked only where all that they look at is known. An
answer is then certain. Where something is not known, that is said instead of an answer.
"""

from collections.abc import Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from carstore.log import StateRead
from carstore.names import Position
from engine.begin import perform_state_action
from engine.built_in import SLEEP, instant_of
from engine.checks.called import tool_called
from engine.checks.issues import Code, Severity
from engine.checks.parameters import may_refuse, parameter_errors, substituted
from engine.checks.unknown import Unknown, has_unknown
from engine.checks.world import Slot, World
from engine.ir import (
    Action,
    ActionType,
    Assumption,
    FailureBehavior,
    Operator,
    Precondition,
)
from engine.problems import shown, suggestion
from engine.rules.assumptions import stale
from engine.rules.preconditions import violation
from engine.rules.references import UnresolvedReference
from engine.rules.values import is_number
from engine.tools import Tools

__all__ = ["Finding", "Judged", "Open", "judge", "never_holds"]

_ORDERED = (Operator.GT, Operator.LT, Operator.GTE, Operator.LTE)
_ABOUT_EXISTENCE = (Operator.EXISTS, Operator.NOT_EXISTS)


@frozen(kw_only=True)
class Finding:
    """Something that is certain."""

    code: Code
    message: str
    derived: str
    severity: Severity = Severity.ERROR


@frozen
class Open:
    """Something that must hold, and of which nobody knows whether it will."""

    what: str
    derived: str
    about_state: bool = True


@define
class Judged:
    """What is known of an action before it runs."""

    parameters: dict[str, Any] = field(factory=dict)
    """With references replaced; they may hold `Unknown`s."""
    rejections: list[Finding] = field(factory=list)
    """Why the engine would reject it."""
    failure: Finding | None = None
    """Why it would fail."""
    open: list[Open] = field(factory=list)
    seen: dict[str, Slot] = field(factory=dict)
    """What the state must be like if the action goes on."""
    output: Any = None
    written: dict[str, Any] = field(factory=dict)

    @property
    def findings(self) -> list[Finding]:
        return [*self.rejections, *([] if self.failure is None else [self.failure])]


def judge(
    index: int,
    world: World,
    tools: Tools | None,
    ids: Mapping[str, int],
    outputs: Mapping[str, Any],
) -> Judged:
    """Judge an action whose dependencies have succeeded.

    Args:
        tools: None if nobody knows which there are.
        ids: of all actions.
        outputs: of the actions that have succeeded, by id; they may hold `Unknown`s.
    """
    action = world.graph.actions[index]
    judged = Judged()
    try:
        doubtful: list[str] = []
        judged.parameters = substituted(action.parameters, ids, outputs, doubtful)
        for text in doubtful:
            derived = f"{action.id}.parameters refer to it, and the tool does not promise it"
            judged.open.append(Open(f"{shown(text)} must be there", derived, about_state=False))
    except UnresolvedReference as error:
        derived = f"{action.id}.parameters, with what is known of the outputs it refers to"
        message = f"{error.message}. Refer to a part that is there"
        judged.rejections.append(
            Finding(code=Code.UNRESOLVED_REFERENCE, message=message, derived=derived)
        )
        _judge_state(judged, action, index, world)
        judged.output = Unknown(f"the output of {action.id}")
        if action.type is ActionType.STATE_WRITE:
            judged.written = {action.parameters["key"]: Unknown(f"what {action.id} writes")}
        return judged
    if action.type is ActionType.TOOL_CALL:
        _judge_call(judged, action, tools)
    _judge_state(judged, action, index, world)
    if action.type is not ActionType.TOOL_CALL:
        _perform(judged, action, index, world)
    return judged


def _judge_call(judged: Judged, action: Action, tools: Tools | None) -> None:
    tool = tool_called(action, tools)
    if tools is None and tool is None:
        what = f"there must be a tool '{action.tool}' that takes the parameters"
        judged.open.append(Open(what, "no tools were given", about_state=False))
        return
    if tool is None:
        assert tools is not None
        near = suggestion(action.tool or "", tools.names())
        message = f"there is no tool '{action.tool}'{near or '; register it, or name another'}"
        derived = f"{action.id}.tool is '{action.tool}', and {len(tools)} tools were given"
        judged.rejections.append(Finding(code=Code.UNKNOWN_TOOL, message=message, derived=derived))
        return
    derived = f"{action.id}.parameters against the parameters of tool '{tool.name}'"
    judged.rejections += [
        Finding(code=Code.BAD_PARAMETERS, message=error, derived=derived)
        for error in parameter_errors(tool.schema, judged.parameters)
    ]
    if tool is SLEEP and not judged.rejections:
        _judge_instant(judged, action)
    if may_refuse(tool.schema.parameters, judged.parameters):
        what = f"'{tool.name}' must take what the parameters refer to"
        judged.open.append(Open(what, derived, about_state=False))


def _judge_instant(judged: Judged, action: Action) -> None:
    """What `sleep` is to wait for, by the rule of the engine; if it is none, the call fails."""
    until = judged.parameters.get("until")
    if not isinstance(until, str):
        return
    try:
        instant_of(until)
    except ValueError as error:
        skips = action.failure_behavior is FailureBehavior.SKIP
        judged.failure = Finding(
            code=Code.BAD_PARAMETERS,
            message=f"{error}{'; it is skipped, as it says' if skips else ''}",
            derived=f"{action.id}.parameters.until, as tool 'sleep' reads it",
            severity=Severity.WARNING if skips else Severity.ERROR,
        )


# --- the state ---


def _judge_state(judged: Judged, action: Action, index: int, world: World) -> None:
    def found(key: str) -> Slot:
        slot = world.at(index, key)
        return slot if slot.known else judged.seen.get(key, slot)

    # What must be equal to something tells most about the others.
    conditions = sorted(
        enumerate(action.preconditions), key=lambda pair: pair[1].operator is not Operator.EQ
    )
    for place, condition in conditions:
        slot = found(condition.key)
        derived = f"{action.id}.preconditions[{place}] reads '{condition.key}', which {slot.why}"
        _judge_condition(judged, condition, slot, derived, index)
    for place, key in enumerate(action.state_dependencies):
        slot = found(key)
        derived = f"{action.id}.state_dependencies[{place}] is '{key}', which {slot.why}"
        if slot.exists is None:
            judged.open.append(Open(f"state dependency '{key}' must exist", derived))
            judged.seen.setdefault(
                key, Slot(exists=True, value=slot.value, why=f"{action.id} depends on", by=index)
            )
        elif not slot.exists:
            message = f"state dependency '{key}' does not exist. Write it first"
            judged.rejections.append(
                Finding(code=Code.STATE_DEPENDENCY_MISSING, message=message, derived=derived)
            )
    for place, assumption in enumerate(action.assumptions):
        _judge_assumption(judged, assumption, index, world, f"{action.id}.assumptions[{place}]")


def never_holds(condition: Precondition) -> bool:
    """Whether no state at all satisfies a condition: order is defined for numbers only."""
    return condition.operator in _ORDERED and not is_number(condition.value)


def _judge_condition(
    judged: Judged, condition: Precondition, slot: Slot, derived: str, index: int
) -> None:
    if never_holds(condition):
        message = (
            f"precondition on '{condition.key}' can never hold: {condition.operator.value} "
            "compares numbers, and its value is none. Write a number, or use eq"
        )
        judged.rejections.append(
            Finding(code=Code.PRECONDITION_NEVER_HOLDS, message=message, derived=derived)
        )
        return
    if slot.exists and condition.operator in _ABOUT_EXISTENCE and not slot.known:
        slot = evolve(slot, value=None)
    if not slot.known:
        judged.open.append(Open(f"precondition {_text(condition)} must hold", derived))
        _learn(judged, condition, slot, index)
        return
    reason = violation(condition, slot.read())
    if reason is not None:
        message = f"{reason}. Write the key before, or change the condition"
        judged.rejections.append(
            Finding(code=Code.PRECONDITION_FAILS, message=message, derived=derived)
        )


def _learn(judged: Judged, condition: Precondition, slot: Slot, index: int) -> None:
    """What the state is like if an open condition holds."""
    name = f"{condition.key} {condition.operator.value}"
    why = f"must be as a precondition demands ({name})"
    if condition.operator is Operator.EQ:
        judged.seen[condition.key] = Slot(exists=True, value=condition.value, why=why, by=index)
    elif condition.operator is Operator.NOT_EXISTS:
        judged.seen.setdefault(condition.key, Slot(exists=False, value=None, why=why, by=index))
    else:
        judged.seen.setdefault(
            condition.key, Slot(exists=True, value=slot.value, why=why, by=index)
        )


def _text(condition: Precondition) -> str:
    text = f"{condition.key} {condition.operator.value}"
    return text if condition.operator in _ABOUT_EXISTENCE else f"{text} {shown(condition.value)}"


def _judge_assumption(
    judged: Judged, assumption: Assumption, index: int, world: World, where: str
) -> None:
    """An assumption is about what was there before the plan: its own writes do not break it."""
    if assumption.expected_value is None and assumption.read_version is None:
        return
    own = world.own(index, assumption.key)
    if own:
        return
    slot = world.first(assumption.key)
    derived = f"{where} is about '{assumption.key}', which {slot.why}"
    # Where the position is not known, nothing can be said of the version, but of the value.
    known = evolve(assumption, read_version=None) if slot.position is None else assumption
    reason = stale(known, slot.read()) if slot.known else None
    if reason is not None and own is False:
        message = f"{reason}. Read the state again, and propose anew"
        judged.rejections.append(
            Finding(code=Code.STALE_ASSUMPTION, message=message, derived=derived)
        )
        return
    value_open = assumption.expected_value is not None and not slot.known
    if reason is not None or value_open or known.read_version != assumption.read_version:
        judged.open.append(Open(f"the assumption on '{assumption.key}' must hold", derived))


# --- state actions ---


def _perform(judged: Judged, action: Action, index: int, world: World) -> None:
    key = judged.parameters["key"]
    slot = world.at(index, key)
    slot = slot if slot.known else judged.seen.get(key, slot)
    expected = judged.parameters.get("expected")
    derived = f"{action.id} reads '{key}', which {slot.why}"
    if action.type is ActionType.ASSERTION and not (slot.known and not has_unknown(expected)):
        judged.open.append(Open(f"{key} must be {_said(expected)}", derived))
        if not has_unknown(expected) and expected is not None:
            why = f"must be as {action.id} asserts"
            judged.seen[key] = Slot(exists=True, value=expected, why=why, by=index)
        judged.output = {"asserted": key, "value": Unknown(f"the state of '{key}'")}
        return
    value = Unknown(f"the state of '{key}'") if slot.exists is None else slot.value
    read = StateRead(value=value, exists=slot.exists is True, position=Position(0))
    output, written, error = perform_state_action(action, judged.parameters, lambda _: read, {})
    judged.output, judged.written = output, written
    if error is not None:
        judged.output = Unknown(f"the output of {action.id}")
        skips = action.failure_behavior is FailureBehavior.SKIP
        rest = "it is skipped, as it says" if skips else "write the key before, or expect another"
        judged.failure = Finding(
            code=Code.ASSERTION_FAILS,
            message=f"{error}; {rest}",
            derived=derived,
            severity=Severity.WARNING if skips else Severity.ERROR,
        )


def _said(value: Any) -> str:
    return value.why if isinstance(value, Unknown) else shown(value)
