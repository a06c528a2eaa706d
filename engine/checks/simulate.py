"""The state that a plan would leave, and what would become of each action."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from carstore.names import Json
from engine.checks.course import Course, Stop, follow
from engine.checks.unknown import marked
from engine.checks.world import Slot
from engine.ir import ActionStatus, Proposal, RunStatus
from engine.plan_json import check_proposal
from engine.rules.graph import build_graph
from engine.tools import Tools

__all__ = ["Forecast", "KeyForecast", "Simulation", "simulate"]


@frozen(kw_only=True)
class Forecast:
    """What would become of one action."""

    action_id: str
    status: ActionStatus | None
    """None: its turn never comes, because the run is rolled back before."""
    reason: str | None
    """Why it does not succeed."""
    output: Any
    """May be, or hold, an `Unknown`."""
    certain: bool
    """False: something must hold for this that only the run can tell."""

    def to_dict(self) -> dict[str, Json]:
        """As JSON; what is not known is `{"$unknown": why}`."""
        return {
            "action_id": self.action_id,
            "status": None if self.status is None else self.status.value,
            "reason": self.reason,
            "output": marked(self.output),
            "certain": self.certain,
        }


@frozen(kw_only=True)
class KeyForecast:
    """What a plan would leave of one key."""

    exists: bool | None
    """None: nobody knows."""
    value: Any
    """May be, or hold, an `Unknown`; None if it does not exist."""
    why: str
    """Where that comes from: the end of `it ...`."""

    def to_dict(self) -> dict[str, Json]:
        """As JSON; what is not known is `{"$unknown": why}`."""
        return {"exists": self.exists, "value": marked(self.value), "why": self.why}


@frozen(kw_only=True)
class Simulation:
    """The course of a plan whose tools succeed."""

    status: RunStatus
    actions: tuple[Forecast, ...]
    """In the order of declaration."""
    state: dict[str, KeyForecast]
    """By key; keys that are neither given nor named by the plan are left out."""
    assumes: tuple[str, ...]
    """What only the run can tell, and was taken to go well."""
    outside_writers: tuple[str, ...]
    """Actions whose tools are handed a context, and can write any key."""

    def to_dict(self) -> dict[str, Json]:
        """As JSON; what is not known is `{"$unknown": why}`."""
        return {
            "status": self.status.value,
            "actions": [forecast.to_dict() for forecast in self.actions],
            "state": {key: forecast.to_dict() for key, forecast in self.state.items()},
            "assumes": list(self.assumes),
            "outside_writers": list(self.outside_writers),
        }


def simulate(
    proposal: Proposal,
    state: Mapping[str, Json] | None,
    outputs: Mapping[str, Json] | None = None,
    *,
    tools: Tools | None = None,
) -> Simulation:
    """Follow a plan without calling anything.

    Every tool is taken to succeed, and what only the run can tell to go well; that is listed in
    `assumes`. Policies, budgets and other runs are left out. Under the default schedule.

    Args:
        state: all keys with their values before the plan; None if nobody knows.
        outputs: what tools give, by the id of an action or the name of a tool.
        tools: to check calls against; None if nobody knows them, and then any may write any key.

    Raises:
        InvalidProposal: the plan cannot be executed at all.
    """
    graph = build_graph(check_proposal(proposal).actions)
    course = follow(graph, tools, state, given=outputs, as_meant=False)
    writers = course.world.writers
    return Simulation(
        status=_status(course),
        actions=tuple(_forecast(stop, graph.level_of[stop.index]) for stop in course.stops),
        state=_state_left(course),
        assumes=tuple(
            f"{one.what}: {one.derived}"
            for index in course.order
            for one in course.stops[index].judged.open
            if not course.stops[index].judged.rejections
        ),
        outside_writers=tuple(
            action.id for index, action in enumerate(graph.actions) if writers >> index & 1
        ),
    )


def _status(course: Course) -> RunStatus:
    if course.aborted_by is not None:
        return RunStatus.ROLLED_BACK
    bad = (ActionStatus.FAILED, ActionStatus.REJECTED)
    failed = any(stop.status in bad for stop in course.stops)
    return RunStatus.FAILED if failed else RunStatus.SUCCEEDED


def _forecast(stop: Stop, level: int) -> Forecast:
    if level < 0:
        return Forecast(
            action_id=stop.action.id,
            status=ActionStatus.SKIPPED,
            reason="compensation, not needed",
            output=None,
            certain=True,
        )
    succeeded = stop.status is ActionStatus.SUCCEEDED
    return Forecast(
        action_id=stop.action.id,
        status=stop.status,
        reason=stop.reason,
        output=stop.output if succeeded else None,
        # What is rejected for certain is, whatever else is open; a failure needs that it begins.
        certain=not stop.judged.open or bool(stop.judged.rejections),
    )


def _state_left(course: Course) -> dict[str, KeyForecast]:
    world = course.world
    if course.aborted_by is not None:
        aborted = course.stops[course.aborted_by].action.id
        found = {key: world.first(key) for key in world.keys()}  # noqa: SIM118 - not a dict
        why = f"as before, since {aborted} fails and the run rolls back"
        return {
            key: KeyForecast(exists=slot.exists, value=slot.value, why=why)
            for key, slot in found.items()
        }
    return {key: _key(world.at_end(key)) for key in world.keys()}  # noqa: SIM118 - not a dict


def _key(slot: Slot) -> KeyForecast:
    return KeyForecast(exists=slot.exists, value=slot.value, why=slot.why)
