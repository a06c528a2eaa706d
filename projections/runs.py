"""Each run: what it is, where it stands, when it began and ended."""

from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore.events import ProposalCompleted, ProposalReceived, RunPaused, RunResumed
from carstore.log import Recorded
from projections.planned import planned
from projections.view import Key, Rows, View, run_key

RunEvent: TypeAlias = ProposalReceived | RunResumed | RunPaused | ProposalCompleted


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


def keys(_: RunEvent, recorded: Recorded) -> list[Key]:
    return run_key(recorded)


def evolve(rows: Rows[Run], event: RunEvent, recorded: Recorded) -> Rows[Run]:
    [(key, run)] = rows.items()
    if isinstance(event, ProposalReceived):
        return {key: _received(event, recorded)}
    return {} if run is None else {key: _after(run, event, recorded)}


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
    )


def _after(run: Run, event: RunResumed | RunPaused | ProposalCompleted, recorded: Recorded) -> Run:
    match event:
        case RunResumed() | RunPaused(reason="interrupted"):
            return changed(run, status="running", ended_at=None)
        case RunPaused():
            return changed(run, status="waiting", ended_at=None)
        case ProposalCompleted(status=status):
            return changed(run, status=status, ended_at=recorded.recorded_at)


RUNS: View[RunEvent, Run] = View(
    name="runs",
    version=1,
    kinds=get_args(RunEvent),
    row=Run,
    key=("run_id",),
    keys=keys,
    evolve=evolve,
)
