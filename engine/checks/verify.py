"""Every problem of a plan, in one pass and before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from carstore.names import Json
from engine.checks.authority import Authorities
from engine.checks.called import calls_unknown_tool, tool_called
from engine.checks.course import Course, Stop, follow
from engine.checks.issues import Code, Issue, Report, Severity
from engine.checks.judging import Finding
from engine.checks.sharing import races, undeclared
from engine.checks.way_back import compensation_findings, left_behind
from engine.ir import ActionStatus, ActionType, FailureBehavior, Proposal
from engine.plan_json import check_proposal
from engine.rules.graph import Graph, build_graph
from engine.tool_schema import EffectMode
from engine.tools import Tools

if TYPE_CHECKING:
    from engine.rules.capabilities import CapabilitySet
    from engine.rules.policies import Policy

__all__ = ["verify"]


def verify(
    proposal: Proposal,
    *,
    tools: Tools | None,
    state: Mapping[str, Json] | None = None,
    positions: Mapping[str, int] | None = None,
    policies: "Sequence[Policy]" = (),
    capabilities: "CapabilitySet | None" = None,
) -> Report:
    """Find every problem of a plan that can be known before it runs.

    An error is certain: with this state, and whatever the tools do, not every action of the plan
    can succeed (or, for the codes about compensations, the action could not be undone). The other
    way round, a plan without errors whose tools succeed is not rejected for a reason that could be
    known here.

    Args:
        tools: that the plan may call; None if nobody knows, and then nothing is said about them,
            but for those that are built in.
        state: all keys of the plan's scope with their values; None if nobody knows. A value may
            hold an `Unknown`.
        positions: of the newest change of each key, for assumptions about versions.
        policies: that will judge the actions.
        capabilities: the permissions of whoever proposes.

    Raises:
        InvalidProposal: the plan cannot be executed at all; as `Runtime.execute` says it.
        InvalidTool: the schema of a tool cannot be used.
    """
    proposal = check_proposal(proposal)
    graph = build_graph(proposal.actions)
    rules = Authorities(policies, capabilities, tools, proposal.source)
    course = follow(graph, tools, state, positions=positions, as_meant=True, authority=rules)
    issues = list(_of_the_plan(proposal, tools, capabilities))
    for stop, findings in zip(course.stops, _by_action(graph, course, tools, state), strict=True):
        found = sorted(findings, key=lambda one: one.severity is Severity.WARNING)
        issues += [_issue(stop.action.id, finding) for finding in found]
    names = tuple(tuple(graph.actions[i].id for i in level) for level in graph.levels())
    return Report(issues=tuple(issues), levels=names)


def _by_action(
    graph: Graph, course: Course, tools: Tools | None, state: Mapping[str, Json] | None
) -> list[list[Finding]]:
    found = [list(_of_an_action(graph, course, one, tools, state)) for one in course.stops]
    for index, finding in races(graph, course.world):
        found[index].append(finding)
    if tools is not None:
        for index, finding in left_behind(graph, course, tools):
            found[index].append(finding)
    return found


def _issue(action_id: str | None, finding: Finding) -> Issue:
    return Issue(
        action_id=action_id,
        severity=finding.severity,
        code=finding.code,
        message=finding.message,
        derived=finding.derived,
    )


def _of_the_plan(
    proposal: Proposal, tools: Tools | None, capabilities: "CapabilitySet | None"
) -> Iterator[Issue]:
    count = len(proposal.actions)
    reason = None if capabilities is None else capabilities.too_many(count)
    if reason is not None:
        yield Issue(
            action_id=None,
            severity=Severity.ERROR,
            code=Code.TOO_MANY_ACTIONS,
            message=f"{reason}. Split the plan",
            derived=f"{count} actions against max_actions of the permissions",
        )
    if any(calls_unknown_tool(one, tools) for one in proposal.actions):
        yield Issue(
            action_id=None,
            severity=Severity.WARNING,
            code=Code.TOOLS_NOT_GIVEN,
            message="no tools were given, so nothing about calls was checked. Give them",
            derived="the plan calls tools",
        )


def _of_an_action(
    graph: Graph,
    course: Course,
    stop: Stop,
    tools: Tools | None,
    state: Mapping[str, Json] | None,
) -> Iterator[Finding]:
    action = stop.action
    yield from undeclared(action)
    if graph.level_of[stop.index] < 0:
        return
    if stop.status is ActionStatus.SKIPPED and stop.judged.failure is None:
        yield Finding(
            code=Code.UNREACHABLE,
            severity=Severity.WARNING,
            message=f"it is always skipped: {stop.reason}. Repair that, or leave it out",
            derived=f"{action.id} needs what does not succeed",
        )
        return
    yield from stop.judged.findings
    yield from stop.rules
    yield from compensation_findings(graph, stop.index, course, tools)
    if state is not None:
        for one in [one for one in stop.judged.open if one.about_state]:
            message = f"{one.what}, which only the run can tell"
            yield Finding(
                code=Code.MAY_FAIL, severity=Severity.WARNING, message=message, derived=one.derived
            )
    yield from _risky_retry(stop, tools)


def _risky_retry(stop: Stop, tools: Tools | None) -> Iterator[Finding]:
    action = stop.action
    tool = tool_called(action, tools)
    if action.type is not ActionType.TOOL_CALL or tool is None:
        return
    retries = action.failure_behavior is FailureBehavior.RETRY and action.max_retries > 0
    if retries and tool.schema.effect is EffectMode.ONCE:
        yield Finding(
            code=Code.RETRY_OF_ONCE,
            severity=Severity.WARNING,
            message=(
                f"a failed call of '{tool.name}' is made again, and may do twice what it did "
                "before it failed. Make the tool idempotent, or do not retry"
            ),
            derived=f"{action.id}.failure_behavior is retry, and the tool declares no idempotency",
        )
