"""Whether what a plan does could be undone as it says."""

from collections.abc import Iterator, Mapping
from typing import Any

from engine.checks.course import Course
from engine.checks.issues import Code, Severity
from engine.checks.judging import Finding
from engine.checks.parameters import parameter_errors, substituted
from engine.checks.unknown import Unknown
from engine.ir import (
    Action,
    ActionRef,
    ActionType,
    FailureBehavior,
    Reversibility,
    ToolCompensation,
)
from engine.problems import suggestion
from engine.rules.graph import Graph
from engine.rules.references import UnresolvedReference
from engine.rules.undo import Irreversible, undo_of
from engine.tools import Tools

__all__ = ["compensation_findings", "irreversible_reason", "left_behind"]


def compensation_findings(
    graph: Graph, index: int, course: Course, tools: Tools | None
) -> Iterator[Finding]:
    """What would make the compensation of an action fail before it is even called."""
    action = graph.actions[index]
    if tools is None:
        return
    named = _compensation(graph, action, tools)
    if named is None:
        reason = irreversible_reason(graph, action, tools)
        if reason is not None and action.reversibility is Reversibility.COMPENSABLE:
            yield Finding(
                code=Code.NO_WAY_BACK,
                severity=Severity.WARNING,
                message=f"{reason}. Give it a compensation",
                derived=f"{action.id}.reversibility is compensable",
            )
        return
    name, parameters, where = named
    tool = tools.get(name)
    if tool is None:
        near = suggestion(name, tools.names()) or "; register it, or name another"
        yield Finding(
            code=Code.UNKNOWN_COMPENSATION_TOOL,
            message=f"there is no tool '{name}', which is to undo it{near}",
            derived=f"{where} names it, and {len(tools)} tools were given",
        )
        return
    if parameters is None:
        return
    for error in _errors(graph, course, tools, tool.name, parameters):
        message = f"its compensation '{name}' would be refused: {error}"
        derived = f"{where} against the parameters of tool '{name}'"
        yield Finding(code=Code.BAD_COMPENSATION, message=message, derived=derived)


def _compensation(
    graph: Graph, action: Action, tools: Tools
) -> tuple[str, dict[str, Any] | None, str] | None:
    """The tool that undoes an action, its parameters if the plan gives them, and where it says so.

    The order of who goes before whom is that of `undo_of`.
    """
    how = action.compensation
    if isinstance(how, ToolCompensation):
        return how.tool, how.parameters, f"{action.id}.compensation"
    if isinstance(how, ActionRef):
        other = next(one for one in graph.actions if one.id == how.action_id)
        return other.tool or "", other.parameters, f"{other.id}, the compensation of {action.id},"
    tool = tools.get(action.tool or "") if action.type is ActionType.TOOL_CALL else None
    if tool is None or tool.schema.read_only or tool.schema.compensation is None:
        return None
    return tool.schema.compensation, None, f"tool '{tool.name}'"


def _errors(
    graph: Graph, course: Course, tools: Tools, name: str, parameters: dict[str, Any]
) -> list[str]:
    ids: Mapping[str, int] = {action.id: place for place, action in enumerate(graph.actions)}
    outputs = {one: Unknown(f"the output of {one}") for one in ids} | course.outputs
    tool = tools.get(name)
    assert tool is not None
    try:
        return parameter_errors(tool.schema, substituted(parameters, ids, outputs))
    except UnresolvedReference as error:
        return [error.message]


def irreversible_reason(graph: Graph, action: Action, tools: Tools) -> str | None:
    """Why a success of the action cannot be undone; None if it can, or there is nothing to undo."""
    undo = undo_of(
        action,
        None,
        tools.get(action.tool) if action.tool is not None else None,
        lambda name: next(one for one in graph.actions if one.id == name),
        lambda parameters: parameters,
    )
    return undo.reason if isinstance(undo, Irreversible) else None


def left_behind(graph: Graph, course: Course, tools: Tools) -> Iterator[tuple[int, Finding]]:
    """The first action that cannot be undone and that a later failure would leave behind."""
    order = [index for index in course.order if course.stops[index].reason is None]
    aborting = [place for place, index in enumerate(order) if _may_abort(graph.actions[index])]
    stays = [
        (place, index)
        for place, index in enumerate(order)
        if aborting and place < aborting[-1]
        if irreversible_reason(graph, graph.actions[index], tools) is not None
    ]
    if not stays:
        return
    place, index = stays[0]
    later = order[next(one for one in aborting if one > place)]
    more = f", and {len(stays) - 1:,} more like it" if len(stays) > 1 else ""
    name, other = graph.actions[index].id, graph.actions[later].id
    yield (
        index,
        Finding(
            code=Code.IRREVERSIBLE_BEFORE_ABORT,
            severity=Severity.WARNING,
            message=(
                f"it cannot be undone{more}, and stays if {other} fails and the run rolls back. "
                f"Give it a compensation, or let it come after what may fail"
            ),
            derived=f"{name} begins before {other}, whose failure_behavior is abort",
        ),
    )


def _may_abort(action: Action) -> bool:
    acts = action.type in (ActionType.TOOL_CALL, ActionType.ASSERTION)
    return acts and action.failure_behavior is FailureBehavior.ABORT
