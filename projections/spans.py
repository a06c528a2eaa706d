"""Runs and their actions as spans of a trace, as tracing tools know them."""

from hashlib import sha256
from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore.canonical import dumps
from carstore.events import (
    ActionDeduplicated,
    ActionExecuting,
    ActionFailed,
    ActionRejected,
    ActionRetrying,
    ActionSkipped,
    ActionSucceeded,
    ActionValidated,
    ProposalCompleted,
    ProposalReceived,
    RunResumed,
)
from carstore.log import Recorded
from projections.planned import planned
from projections.view import Key, Rows, View, run_key

OneAction: TypeAlias = (
    ActionValidated
    | ActionRejected
    | ActionExecuting
    | ActionSucceeded
    | ActionFailed
    | ActionRetrying
    | ActionSkipped
    | ActionDeduplicated
)
WholeRun: TypeAlias = RunResumed | ProposalCompleted
SpanEvent: TypeAlias = ProposalReceived | WholeRun | OneAction

ABORTED = frozenset({"rolled_back", "partially_compensated", "cancelled"})
"""Statuses of a run whose span is an error. One that went to its end is ok, whatever failed."""


@frozen(kw_only=True)
class Span:
    """A run (`proposal.execute`), or an action of it (`action.<type>`)."""

    trace_id: str
    """The run."""
    span_id: str
    parent_span_id: str | None
    name: str
    status: str = "unset"
    """`ok`, `error`, or `unset`: not finished, or skipped."""
    started_at: int | None = None
    """Microseconds UTC; None: not begun."""
    ended_at: int | None = None
    """Microseconds UTC; None: not finished."""
    attributes: str
    """Canonical JSON: `proposal_id`, or `action_id` and `tool`."""


def span_id(run_id: str, action_id: str | None = None) -> str:
    """The span of an action, or of the run itself: 16 hex characters, the same for ever."""
    name = run_id if action_id is None else f"{run_id}/{action_id}"
    return sha256(name.encode()).hexdigest()[:16]


def keys(event: SpanEvent, recorded: Recorded) -> list[Key]:
    if recorded.run_id is None:
        return []
    run = recorded.run_id
    match event:
        case ProposalReceived():
            actions = [action.action_id for action in planned(event.proposal)]
            return [(run, span_id(run, action_id)) for action_id in [None, *actions]]
        case RunResumed() | ProposalCompleted():
            return run_key(recorded, span_id(run))
        case _:
            return run_key(recorded, span_id(run, event.action_id))


def evolve(rows: Rows[Span], event: SpanEvent, recorded: Recorded) -> Rows[Span]:
    if isinstance(event, ProposalReceived):
        spans = _planned(event, recorded.run_id or "", recorded.recorded_at)
        return {(span.trace_id, span.span_id): span for span in spans}
    [(key, span)] = rows.items()
    return {} if span is None else {key: _after(span, event, recorded.recorded_at)}


def _planned(event: ProposalReceived, run: str, now: int) -> list[Span]:
    root = Span(
        trace_id=run,
        span_id=span_id(run),
        parent_span_id=None,
        name="proposal.execute",
        started_at=now,
        attributes=dumps({"proposal_id": event.proposal_id}),
    )
    actions = [
        Span(
            trace_id=run,
            span_id=span_id(run, action.action_id),
            parent_span_id=root.span_id,
            name=f"action.{action.type}",
            attributes=dumps(
                {"action_id": action.action_id} | ({"tool": action.tool} if action.tool else {})
            ),
        )
        for action in planned(event.proposal)
    ]
    return [root, *actions]


def _after(span: Span, event: WholeRun | OneAction, now: int) -> Span:
    match event:
        case RunResumed():
            return changed(span, status="unset", ended_at=None)
        case ProposalCompleted():
            status = "error" if event.status in ABORTED else "ok"
            return changed(span, status=status, ended_at=now)
        case ActionRetrying():
            return changed(span, status="unset", ended_at=None)
    began = now if span.started_at is None else span.started_at
    match event:
        case ActionValidated() | ActionExecuting():
            return changed(span, status="unset", started_at=began, ended_at=None)
        case ActionSucceeded() | ActionDeduplicated():
            return changed(span, status="ok", started_at=began, ended_at=now)
        case ActionFailed() | ActionRejected():
            return changed(span, status="error", started_at=began, ended_at=now)
        case ActionSkipped():
            return changed(span, status="unset", started_at=began, ended_at=now)


SPANS: View[SpanEvent, Span] = View(
    name="spans",
    version=1,
    kinds=get_args(SpanEvent),
    row=Span,
    key=("trace_id", "span_id"),
    keys=keys,
    evolve=evolve,
)
