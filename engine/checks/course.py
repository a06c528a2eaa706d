"""The course of a plan: its actions in turn, followed and not run.

Tools are taken to succeed, and what cannot be decided to go well. A plan is followed in one of two
ways. As it is *meant*, an action that would be rejected or fail is taken to succeed all the same:
so every problem is found, and none that only follows from another. As it *goes*, it is not, and
what depends on it is skipped; after a failure that aborts, nothing more begins.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field

from carstore.names import Json
from engine.checks.called import calls_unknown_tool, tool_called
from engine.checks.issues import Code
from engine.checks.judging import Finding, Judged, judge
from engine.checks.unknown import ANYTHING, Unknown, has_unknown
from engine.checks.world import World
from engine.ir import Action, ActionStatus, ActionType, FailureBehavior
from engine.rules.graph import Graph
from engine.tools import Tools

__all__ = ["Course", "Stop", "follow", "outside_writers"]

Authority = Callable[[int, World, Mapping[str, Any]], Sequence[Finding]]
"""What the rules say of an action with these parameters, as its turn comes."""


@define
class Stop:
    """One action of a course."""

    index: int
    action: Action
    status: ActionStatus | None = None
    """None: its turn never comes."""
    reason: str | None = None
    judged: Judged = field(factory=Judged)
    rules: Sequence[Finding] = ()
    """What the rules of authority say."""
    output: Any = None


@define
class Course:
    """Where a plan goes."""

    world: World
    stops: list[Stop]
    """One for each action, as declared."""
    outputs: dict[str, Any] = field(factory=dict)
    aborted_by: int | None = None
    order: list[int] = field(factory=list)
    """The actions whose turn came, in that order."""


def outside_writers(graph: Graph, tools: Tools | None) -> int:
    """The actions whose tool may write any key, as a bit each: those that are handed a context."""
    found = 0
    for index in graph.forward:
        action = graph.actions[index]
        if action.type is ActionType.TOOL_CALL:
            tool = tool_called(action, tools)
            writes = tool is not None and tool.context_parameter is not None
            if writes or calls_unknown_tool(action, tools):
                found |= 1 << index
    return found


def follow(
    graph: Graph,
    tools: Tools | None,
    state: Mapping[str, Json] | None,
    *,
    positions: Mapping[str, int] | None = None,
    given: Mapping[str, Json] | None = None,
    as_meant: bool,
    authority: Authority = lambda *_: (),
) -> Course:
    """Follow a plan.

    Args:
        tools: None if nobody knows which there are.
        state: all of it, before the plan; None if nobody knows.
        positions: of the newest change of keys.
        given: outputs that are taken as known, by action or tool.
        as_meant: whether an action that cannot succeed is taken to.
    """
    world = World(state, positions, graph, outside_writers(graph, tools))
    course = Course(world, [Stop(index, action) for index, action in enumerate(graph.actions)])
    ids = {action.id: index for index, action in enumerate(graph.actions)}
    for index in [index for level in graph.levels() for index in level]:
        stop = course.stops[index]
        course.order.append(index)
        if _skipped(course, graph, stop):
            continue
        stop.judged = judge(index, world, tools, ids, course.outputs)
        if not any(one.code is Code.UNRESOLVED_REFERENCE for one in stop.judged.rejections):
            stop.rules = authority(index, world, stop.judged.parameters)
        _settle(course, stop, tools, given or {}, as_meant=as_meant)
        if course.aborted_by is not None:
            break
    return course


def _skipped(course: Course, graph: Graph, stop: Stop) -> bool:
    """Whether the action is skipped because one that it depends on did not succeed."""
    for needed in graph.hard[stop.index]:
        status = course.stops[needed].status
        if status is not ActionStatus.SUCCEEDED and status is not None:
            stop.status = ActionStatus.SKIPPED
            stop.reason = f"dependency '{graph.actions[needed].id}' {status.value}"
            course.world.forget_writer(stop.index)
            return True
    return False


def _settle(
    course: Course,
    stop: Stop,
    tools: Tools | None,
    given: Mapping[str, Json],
    *,
    as_meant: bool,
) -> None:
    judged, action = stop.judged, stop.action
    if action.type is ActionType.TOOL_CALL:
        _take_output(stop, tools, given)
    else:
        stop.output = judged.output
    skips = action.failure_behavior is FailureBehavior.SKIP
    if judged.rejections and not as_meant:
        _fall(course, stop, ActionStatus.REJECTED, judged.rejections)
    elif judged.failure is not None and (skips or not as_meant):
        status = ActionStatus.SKIPPED if skips else ActionStatus.FAILED
        _fall(course, stop, status, [judged.failure])
        if action.failure_behavior is FailureBehavior.ABORT:
            course.aborted_by = stop.index
    else:
        _succeed(course, stop)


def _take_output(stop: Stop, tools: Tools | None, given: Mapping[str, Json]) -> None:
    """What the tool gives, as far as that is known."""
    action = stop.action
    tool = tool_called(action, tools)
    for name in (action.id, action.tool or ""):
        if name in given:
            stop.output = given[name]
            errors = [] if tool is None else tool.schema.check_returns(given[name])
            if errors and not has_unknown(given[name]):
                derived = f"the output given for '{name}' against the returns of '{action.tool}'"
                message = f"{'; '.join(errors)}. The tool cannot give that"
                stop.judged.failure = Finding(
                    code=Code.BAD_OUTPUT, message=message, derived=derived
                )
            return
    schema = None if tool is None else tool.schema.returns
    stop.output = Unknown(f"the output of {action.id}", ANYTHING if schema is None else schema)


def _fall(course: Course, stop: Stop, status: ActionStatus, why: Sequence[Finding]) -> None:
    stop.status = status
    stop.reason = "; ".join(finding.message for finding in why)
    course.world.forget_writer(stop.index)


def _succeed(course: Course, stop: Stop) -> None:
    stop.status = ActionStatus.SUCCEEDED
    course.outputs[stop.action.id] = stop.output
    if not stop.judged.findings:
        for key, slot in stop.judged.seen.items():
            course.world.saw(stop.index, key, slot)
    for key, value in {**stop.judged.written, **stop.action.expected_effects}.items():
        course.world.write(stop.index, key, value)
