"""Actions that a rule holds back until people have consented, and what these have answered."""

from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore.canonical import dumps, loads_trusted
from carstore.events import (
    ActionDeduplicated,
    ActionExecuting,
    ActionFailed,
    ActionRejected,
    ActionSkipped,
    ActionSucceeded,
    ActionValidated,
    ApprovalAnswered,
    ApprovalRequested,
)
from carstore.log import Recorded
from carstore.people import person
from projections.view import Key, Rows, View, run_key

WentOn: TypeAlias = (
    ActionValidated
    | ActionExecuting
    | ActionDeduplicated
    | ActionSucceeded
    | ActionFailed
    | ActionRejected
    | ActionSkipped
)
"""The run has acted on the answer, or needs none any more."""

ApprovalEvent: TypeAlias = ApprovalRequested | ApprovalAnswered | WentOn


@frozen(kw_only=True)
class Approval:
    """A request for consent. Its row goes as soon as the action is called or settled."""

    run_id: str
    action_id: str
    tool: str
    """The tool; for an action that calls none, its type."""
    binding: str
    """SHA-256 (hex) of tool and resolved parameters: an answer is about these."""
    reasons: str
    """Canonical JSON: a list of `{policy, reason}`."""
    approvers: int
    """How many different people have to consent."""
    given: int = 0
    """How many people have, as long as the request was open."""
    given_by: str = "[]"
    """Canonical JSON: their names, in order."""
    expires_at: int | None
    """Microseconds UTC; an answer from then on does not count. None: never."""
    requested_at: int
    """Microseconds UTC."""
    status: str = "open"
    """`open` (also when it has expired: a view knows no time), `approved` or `refused`, as the
    first refusal or enough consents have decided."""


def keys(event: ApprovalEvent, recorded: Recorded) -> list[Key]:
    return run_key(recorded, event.action_id)


def evolve(rows: Rows[Approval], event: ApprovalEvent, recorded: Recorded) -> Rows[Approval]:
    [(key, request)] = rows.items()
    match event:
        case ApprovalRequested():
            return {key: _asked(event, recorded)}
        case ApprovalAnswered():
            if request is None or not _counts(request, event, recorded.recorded_at):
                return {}
            return {key: _answered(request, event)}
        case _:
            return {} if request is None else {key: None}


def _asked(event: ApprovalRequested, recorded: Recorded) -> Approval:
    return Approval(
        run_id=recorded.run_id or "",
        action_id=event.action_id,
        tool=event.tool,
        binding=event.binding,
        reasons=dumps(event.reasons),
        approvers=event.approvers,
        expires_at=event.expires_at,
        requested_at=recorded.recorded_at,
        status="open" if event.approvers > 0 else "approved",
    )


def _counts(request: Approval, event: ApprovalAnswered, now: int) -> bool:
    """Whether an answer is about what is asked, and came while it was."""
    in_time = request.expires_at is None or now < request.expires_at
    return request.status == "open" and request.binding == event.binding and in_time


def _answered(request: Approval, event: ApprovalAnswered) -> Approval:
    if not event.approved:
        return changed(request, status="refused")
    names = loads_trusted(request.given_by)
    if person(event.by) in map(person, names):
        return request
    given = len(names) + 1
    status = "approved" if given >= request.approvers else "open"
    return changed(request, given=given, given_by=dumps([*names, event.by]), status=status)


APPROVALS: View[ApprovalEvent, Approval] = View(
    name="approvals",
    version=2,
    kinds=get_args(ApprovalEvent),
    row=Approval,
    key=("run_id", "action_id"),
    keys=keys,
    evolve=evolve,
)
