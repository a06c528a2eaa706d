"""Propose: from a proposal to the first event of its run."""

import os
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from carstore import events as e
from carstore.blobs import referred
from carstore.names import Json, LogId, RunId, Scope, is_run_id
from engine.errors import InvalidRunId, ToolsChanged
from engine.ir import Action, Proposal, ToolCompensation
from engine.plan_json import proposal_to_dict
from engine.rules.schedule import SCHEDULES, ScheduleFactory, ScheduleMissing
from engine.run import Run
from engine.tools import Tools

__all__ = [
    "Lineage",
    "Options",
    "Terms",
    "check_run_id",
    "check_schedule",
    "check_tools",
    "new_run_id",
    "received",
    "same_plan",
    "tools_named",
]


@frozen(kw_only=True)
class Options:
    """How a run goes about it; recorded with the proposal and binding for every resume."""

    scope: Scope
    schedule: str = "levels"
    concurrency: int = 16
    on_doubt: str = "hold"
    abort_on_rejection: bool = False
    abort_on_exhausted_retry: bool = False
    schedules: Mapping[str, ScheduleFactory] = field(default=SCHEDULES, eq=False, repr=False)
    """Those that `schedule` may name; only the name is recorded."""

    def __attrs_post_init__(self) -> None:
        if self.schedule not in self.schedules:
            known = ", ".join(map(repr, self.schedules))
            raise ValueError(f"schedule is one of {known}, not {self.schedule!r:.140}")
        if self.on_doubt not in ("hold", "fail", "retry"):
            raise ValueError(f"on_doubt is 'hold', 'fail' or 'retry', not {self.on_doubt!r}")
        if not 1 <= self.concurrency <= 10_000:
            raise ValueError(f"concurrency is 1 to 10,000, not {self.concurrency!r}")


@frozen(kw_only=True)
class Lineage:
    """Where a proposal comes from, and what becomes of the run if it is aborted."""

    replaces: str | None = None
    """The run that was aborted, in whose place this one comes."""
    replans_left: int = 0
    replan_on_rejection: bool = False
    pursuit: str | None = None
    """The pursuit of which it is a step."""


@frozen(kw_only=True)
class Terms:
    """What binds one run; recorded with the proposal, as data."""

    policies: dict[str, str] | None = None
    """Name -> digest."""
    budget: Json = None
    deadline_at: int | None = None
    """Microseconds UTC."""
    lineage: Lineage = Lineage()


def new_run_id() -> RunId:
    """Sixteen random hex characters."""
    return RunId(os.urandom(8).hex())


def check_run_id(text: str) -> RunId:
    """Raises `InvalidRunId` unless `text` can name a run."""
    if not is_run_id(text):
        raise InvalidRunId(text)
    return RunId(text)


def received(
    proposal: Proposal, tools: Tools, options: Options, log_id: LogId, terms: Terms
) -> e.ProposalReceived:
    """The event that says everything a resume needs, but for code."""
    known = {name: tools.get(name) for name in tools_named(proposal.actions, tools)}
    return e.ProposalReceived(
        proposal_id=proposal.id,
        source=proposal.source,
        proposal=proposal_to_dict(proposal),
        tools={name: tool.schema.digest for name, tool in known.items() if tool is not None},
        scope=options.scope,
        schedule=options.schedule,
        concurrency=options.concurrency,
        on_doubt=options.on_doubt,
        log_id=log_id,
        abort_on_rejection=options.abort_on_rejection,
        abort_on_exhausted_retry=options.abort_on_exhausted_retry,
        policies=terms.policies,
        budget=terms.budget,
        deadline_at=terms.deadline_at,
        replaces=terms.lineage.replaces,
        replans_left=terms.lineage.replans_left,
        replan_on_rejection=terms.lineage.replan_on_rejection,
        pursuit=terms.lineage.pursuit,
    )


def tools_named(actions: Iterable[Action], tools: Tools) -> set[str]:
    """The tools that a plan may call, compensations included."""
    names: set[str] = set()
    for action in actions:
        if action.tool is not None:
            names.add(action.tool)
        if isinstance(action.compensation, ToolCompensation):
            names.add(action.compensation.tool)
    for name in list(names):
        tool = tools.get(name)
        if tool is not None and tool.schema.compensation is not None:
            names.add(tool.schema.compensation)
    return names


def check_tools(run: Run, tools: Tools) -> None:
    """Refuse to go on with tools that are not those the run was begun with.

    Raises:
        ToolsChanged: naming them.
    """
    missing, changed = [], []
    for name, digest in run.received.tools.items():
        tool = tools.get(name)
        if tool is None:
            missing.append(name)
        elif tool.schema.digest != digest:
            changed.append(name)
    if missing or changed:
        raise ToolsChanged(run.run_id, tuple(sorted(missing)), tuple(sorted(changed)))


def check_schedule(run: Run, schedules: Mapping[str, ScheduleFactory]) -> None:
    """Refuse to go on with a run whose schedule is not there.

    Raises:
        ScheduleMissing: naming it.
    """
    name = run.received.schedule
    if name not in schedules:
        raise ScheduleMissing(run.run_id, name, tuple(schedules))


def same_plan(run: Run, proposal: Proposal) -> bool:
    """Whether `proposal` is what the run was begun with, but for ids it was not given."""
    given = _without_ids(proposal_to_dict(proposal))
    return _alike(_without_ids(run.received.proposal), given)


def _alike(recorded: Json, given: Json) -> bool:
    """Whether two values are equal; what stands beside the log may be any."""
    if recorded == given or referred(recorded) is not None:
        return True
    if type(recorded) is dict and type(given) is dict and recorded.keys() == given.keys():
        return all(_alike(recorded[name], given[name]) for name in recorded)
    if type(recorded) is list and type(given) is list and len(recorded) == len(given):
        return all(map(_alike, recorded, given))
    return False


def _without_ids(proposal: Json) -> Json:
    actions = [{k: v for k, v in action.items() if k != "id"} for action in proposal["actions"]]
    return {**proposal, "id": None, "actions": actions}
