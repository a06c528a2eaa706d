"""Each goal that was pursued: its limits, where it stands, and what was answered."""

from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore import canonical
from carstore.events import ProposalReceived, PursuitEnded, PursuitStarted
from carstore.log import Recorded
from projections.view import Key, Rows, View, add

PursuitEvent: TypeAlias = PursuitStarted | ProposalReceived | PursuitEnded


@frozen(kw_only=True)
class Pursuit:
    """A goal, pursued by one proposal after the other."""

    pursuit: str
    goal: str
    """JSON text."""
    status: str
    """`running` until it has ended (also while its last run waits, or its process is gone); then
    `done`, `failed`, `max_steps`, `max_cost`, `deadline` or `cancelled`."""
    steps: int
    """Proposals that were recorded; those that came in the place of an aborted one not counted."""
    started_at: int
    """Microseconds UTC."""
    ended_at: int | None
    """Microseconds UTC; None: not ended."""
    max_steps: int
    max_cost_micros: int | None
    """Millionths of a US dollar; None: no limit."""
    ends_at: int | None
    """Its deadline, in microseconds UTC; None: it has none."""
    answer: str | None
    """JSON text; None while there is none."""
    reason: str | None
    """Why it ended."""


def keys(event: PursuitEvent, _: Recorded) -> list[Key]:
    if isinstance(event, ProposalReceived) and event.replaces is not None:
        return []
    return [] if event.pursuit is None else [(event.pursuit,)]


def evolve(rows: Rows[Pursuit], event: PursuitEvent, recorded: Recorded) -> Rows[Pursuit]:
    [(key, pursuit)] = rows.items()
    if isinstance(event, PursuitStarted):
        return {key: _started(event, recorded)}
    if pursuit is None:
        return {}
    if isinstance(event, ProposalReceived):
        return {key: changed(pursuit, steps=add(pursuit.steps, 1))}
    return {key: _ended(pursuit, event, recorded)}


def _started(event: PursuitStarted, recorded: Recorded) -> Pursuit:
    return Pursuit(
        pursuit=event.pursuit,
        goal=canonical.dumps(event.goal),
        status="running",
        steps=0,
        started_at=recorded.recorded_at,
        ended_at=None,
        max_steps=event.max_steps,
        max_cost_micros=event.max_cost_micros,
        ends_at=event.ends_at,
        answer=None,
        reason=None,
    )


def _ended(pursuit: Pursuit, event: PursuitEnded, recorded: Recorded) -> Pursuit:
    return changed(
        pursuit,
        status=event.status,
        steps=event.steps,
        ended_at=recorded.recorded_at,
        answer=None if event.answer is None else canonical.dumps(event.answer),
        reason=event.reason,
    )


PURSUITS: View[PursuitEvent, Pursuit] = View(
    name="pursuits",
    version=1,
    kinds=get_args(PursuitEvent),
    row=Pursuit,
    key=("pursuit",),
    keys=keys,
    evolve=evolve,
)
