"""Answering a request for consent: whether an action that a rule holds back may be called."""

from typing import ClassVar

from attrs import define

from carstore import Store, canonical
from carstore import events as e
from carstore.errors import CarstoreError, NotFound
from carstore.names import Micros, RunId
from carstore.people import person
from engine.inbox import ask, check_who_and_why
from projections import ACTIONS, APPROVALS, RUNS, row
from projections.approvals import Approval

__all__ = ["NoApproval", "approve", "reject"]

_SHOWN_DIGITS = 12
"""Of a binding, in a message: enough to tell two apart."""


@define(slots=False, eq=False)
class NoApproval(CarstoreError):
    """An answer to a request for consent that is not open, or not to this one. Nothing was
    recorded."""

    code: ClassVar[str] = "no_approval"
    run_id: RunId
    action_id: str
    reason: str

    @property
    def message(self) -> str:
        return (
            f"action {self.action_id!r} of run {self.run_id} does not wait for this answer: "
            f"{self.reason}. `carstore approvals` lists what does."
        )

    @property
    def where(self) -> str | None:
        return self.action_id


async def approve(
    store: Store,
    run_id: RunId,
    action_id: str,
    *,
    by: str,
    reason: str = "",
    binding: str | None = None,
) -> int:
    """Consent that an action is called as it was asked; the run's driver acts on it, now or when it
    resumes.

    Args:
        by: who consents. Where several have to, each must be somebody else; capital letters and
            other forms of one letter make no other person.
        reason: why, for those who look later.
        binding: of the request that was looked at. If the open one has another, the call has
            become another one since, and nothing is recorded.

    Returns:
        How many other people still have to consent; 0: the action may be called.

    Raises:
        NotFound: there is no such run or action.
        NoApproval: nobody is asked (any more), the request has expired or is another one, or `by`
            has consented already.
        InvalidEvent: `by` or `reason` is not one that can be recorded.
    """
    return await _answer(store, run_id, action_id, by, reason, binding, approved=True)


async def reject(
    store: Store,
    run_id: RunId,
    action_id: str,
    *,
    by: str,
    reason: str = "",
    binding: str | None = None,
) -> None:
    """Refuse that an action is called: it ends as rejected. One refusal decides, whoever has
    consented before.

    Arguments and errors are those of `approve`; whoever has consented may still refuse as long as
    the request is open.
    """
    await _answer(store, run_id, action_id, by, reason, binding, approved=False)


async def _answer(
    store: Store,
    run_id: RunId,
    action_id: str,
    by: str,
    reason: str,
    binding: str | None,
    *,
    approved: bool,
) -> int:
    """Append the answer; how many consents are missing after it."""
    check_who_and_why(e.ApprovalAnswered.kind, by, reason)
    missing = 0

    async def decide() -> e.Event:
        nonlocal missing
        request = await _request(store, run_id, action_id)
        again = by if approved else None
        against = _reason_against(request, store.clock.now(), binding, again)
        if against is not None:
            raise NoApproval(run_id, action_id, against)
        missing = request.approvers - request.given - 1
        return e.ApprovalAnswered(
            action_id=action_id,
            binding=request.binding,
            approved=approved,
            by=by,
            reason=reason,
        )

    await ask(store, run_id, decide)
    return missing


async def _request(store: Store, run_id: RunId, action_id: str) -> Approval:
    """The newest request about an action that has not been called since.

    Raises:
        NotFound, NoApproval
    """
    run = await row(store, RUNS, (run_id,))
    if run is None:
        raise NotFound("run", run_id, "`carstore runs` lists them.")
    action = await row(store, ACTIONS, (run_id, action_id))
    if action is None:
        raise NotFound("action", action_id, f"`carstore show DB {run_id}` lists them.")
    if run.ended_at is not None:
        raise NoApproval(run_id, action_id, "the run is over")
    request = await row(store, APPROVALS, (run_id, action_id))
    if request is None:
        asked = "nobody is asked about it"
        if action.status != "pending":
            asked = f"it is {action.status.replace('_', ' ')}, and nobody is asked any more"
        raise NoApproval(run_id, action_id, asked)
    return request


def _reason_against(
    request: Approval, now: Micros, binding: str | None, again: str | None
) -> str | None:
    """Why an answer does not count, or None if it does.

    Args:
        binding: of the request that whoever answers has seen; None: they do not say.
        again: who consents, if it is a consent.
    """
    if request.status != "open":
        return f"it was {request.status} already"
    if request.expires_at is not None and request.expires_at <= now:
        return "the request has expired, which counts as a refusal"
    if binding is not None and binding != request.binding:
        asked, seen = request.binding[:_SHOWN_DIGITS], binding[:_SHOWN_DIGITS]
        return f"its parameters are others: {asked!r} is asked, and the answer is about {seen!r}"
    if again is None:
        return None
    given: list[str] = canonical.loads_trusted(request.given_by)
    known = next((name for name in given if person(name) == person(again)), None)
    if known is None:
        return None
    who = again if known == again else f"{again} counts as {known}, who"
    return f"{who} has consented already, and somebody else has to"
