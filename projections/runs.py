"""Each run: what it is, where it stands, when it began and ended."""

from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore.events import (
    ProposalCompleted,
    ProposalReceived,
    ReplanDeclined,
    RunPaused,
    RunResumed,
    RunStopping,
)
from carstore.log import Recorded
from projections.planned import planned
from projections.view import Key, Rows, View, run_key

RunEvent: TypeAlias = (
    ProposalReceived | RunResumed | RunPaused | RunStopping | ProposalCompleted | ReplanDeclined
)


@frozen(kw_only=True)
class Run:
    """One execution of a proposal."""

    run_id: str
    proposal_id: str
    source: str
    """Who proposed it."""
    scope: str
    """The scope of state that it reads and writes."""
    status: str
    """`running` (also when its process is gone), `waiting` for a person, or as it ended:
    `succeeded`, `failed`, `rolled_back`, `partially_compensated`, `cancelled`."""
    actions: int
    """How many the plan has."""
    started_at: int
    """Microseconds UTC."""
    ended_at: int | None
    """Microseconds UTC; None: not finished."""
    pursuit: str | None = None
    """The pursuit of which it is a step."""
    replaces: str | None = None
    """The run that was aborted, in whose place it came."""
    replan: str | None = None
    """Whether another proposal comes in its place: `allowed` (should it be aborted), `on_rejection`
    (also should an action be rejected), `pending` (it was), `declined`, or the run that came."""


def keys(event: RunEvent, recorded: Recorded) -> list[Key]:
    match event:
        case ProposalReceived(replaces=str(replaced)):
            return [*run_key(recorded), (replaced,)]
        case ReplanDeclined():
            return [(event.run,)]
        case _:
            return run_key(recorded)


def evolve(rows: Rows[Run], event: RunEvent, recorded: Recorded) -> Rows[Run]:
    if isinstance(event, ProposalReceived):
        return _begun(rows, event, recorded)
    [(key, run)] = rows.items()
    return {} if run is None else {key: _after(run, event, recorded)}


def _begun(rows: Rows[Run], event: ProposalReceived, recorded: Recorded) -> Rows[Run]:
    changes: dict[Key, Run | None] = {}
    for key, run in rows.items():
        if key == (recorded.run_id,):
            changes[key] = _received(event, recorded)
        elif run is not None:
            changes[key] = changed(run, replan=recorded.run_id)
    return changes


def _received(event: ProposalReceived, recorded: Recorded) -> Run:
    return Run(
        run_id=recorded.run_id or "",
        proposal_id=event.proposal_id,
        source=event.source,
        scope=event.scope,
        status="running",
        actions=len(planned(event.proposal)),
        started_at=recorded.recorded_at,
        ended_at=None,
        pursuit=event.pursuit,
        replaces=event.replaces,
        replan=_allowed(event),
    )


def _allowed(event: ProposalReceived) -> str | None:
    if event.replans_left < 1:
        return None
    return "on_rejection" if event.replan_on_rejection else "allowed"


_After: TypeAlias = RunResumed | RunPaused | RunStopping | ProposalCompleted | ReplanDeclined


def _after(run: Run, event: _After, recorded: Recorded) -> Run:
    match event:
        case RunStopping():
            return changed(run, replan=None)  # nothing comes in the place of what was stopped
        case ReplanDeclined():
            return changed(run, replan="declined")
        case RunResumed() | RunPaused(reason="interrupted"):
            return changed(run, status="running", ended_at=None)
        case RunPaused():
            return changed(run, status="waiting", ended_at=None)
        case ProposalCompleted(status=status):
            ended_at = recorded.recorded_at
            return changed(run, status=status, ended_at=ended_at, replan=_pending(run, event))


def _pending(run: Run, event: ProposalCompleted) -> str | None:
    aborted = event.status in ("rolled_back", "partially_compensated")
    rejected = run.replan == "on_rejection" and event.actions_rejected > 0
    asked_for = run.replan in ("allowed", "on_rejection")
    return "pending" if asked_for and (aborted or rejected) else None


RUNS: View[RunEvent, Run] = View(
    name="runs",
    version=2,
    kinds=get_args(RunEvent),
    row=Run,
    key=("run_id",),
    keys=keys,
    evolve=evolve,
)
