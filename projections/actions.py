"""Each action of each run: where it stands and what came out of it."""

from typing import TypeAlias, get_args

from attrs import evolve as changed
from attrs import frozen

from carstore.canonical import dumps
from carstore.events import (
    ActionDeduplicated,
    ActionExecuting,
    ActionFailed,
    ActionInDoubt,
    ActionRejected,
    ActionRetrying,
    ActionRolledBack,
    ActionSkipped,
    ActionSucceeded,
    ActionValidated,
    DoubtResolved,
    ProposalReceived,
)
from carstore.log import Recorded
from projections.planned import planned
from projections.view import Key, Rows, View, add, run_key

OneAction: TypeAlias = (
    ActionValidated
    | ActionRejected
    | ActionExecuting
    | ActionSucceeded
    | ActionFailed
    | ActionRetrying
    | ActionSkipped
    | ActionDeduplicated
    | ActionInDoubt
    | DoubtResolved
    | ActionRolledBack
)
ActionEvent: TypeAlias = ProposalReceived | OneAction


@frozen(kw_only=True)
class ActionRow:
    """One action of a run's plan."""

    run_id: str
    action_id: str
    number: int
    """Its place in the plan, from 1."""
    type: str
    """`tool_call`, `state_write`, `state_read` or `assertion`."""
    tool: str | None
    agent: str
    """Who proposed it."""
    status: str = "pending"
    """`pending`, `executing`, `retrying`, `in_doubt`, `succeeded`, `failed`, `rejected` or
    `skipped`."""
    attempts: int = 0
    """The number of the newest one."""
    error: str | None = None
    """Of the newest attempt, or why it was rejected or skipped."""
    duration_us: int | None = None
    """Of all attempts, in microseconds, without the waits between them."""
    output: str | None = None
    """Canonical JSON."""
    started_at: int | None = None
    """Microseconds UTC of the first attempt."""
    ended_at: int | None = None
    """Microseconds UTC; None: not finished."""
    rolled_back: bool = False
    """Whether it succeeded and was then undone."""


def keys(event: ActionEvent, recorded: Recorded) -> list[Key]:
    if isinstance(event, ProposalReceived):
        return [
            key for action in planned(event.proposal) for key in run_key(recorded, action.action_id)
        ]
    return run_key(recorded, event.action_id)


def evolve(rows: Rows[ActionRow], event: ActionEvent, recorded: Recorded) -> Rows[ActionRow]:
    if isinstance(event, ProposalReceived):
        return _pending(event, recorded)
    [(key, action)] = rows.items()
    return {} if action is None else {key: _after(action, event, recorded.recorded_at)}


def _pending(event: ProposalReceived, recorded: Recorded) -> dict[Key, ActionRow | None]:
    run_id = recorded.run_id or ""
    return {
        (run_id, action.action_id): ActionRow(
            run_id=run_id,
            action_id=action.action_id,
            number=number,
            type=action.type,
            tool=action.tool,
            agent=event.source,
        )
        for number, action in enumerate(planned(event.proposal), 1)
    }


def _after(action: ActionRow, event: OneAction, now: int) -> ActionRow:
    began = now if action.started_at is None else action.started_at
    match event:
        case ActionExecuting(attempt=attempt):
            return changed(
                action, status="executing", attempts=attempt, started_at=began, ended_at=None
            )
        case ActionSucceeded() | ActionFailed() | ActionDeduplicated():
            return _ended(action, event, began, now)
        case ActionValidated():
            return changed(action, status="executing", started_at=began)
        case ActionRetrying():
            return changed(action, status="retrying", ended_at=None)
        case ActionRejected(error=error):
            return changed(action, status="rejected", error=error, ended_at=now)
        case ActionSkipped(reason=reason):
            return changed(action, status="skipped", error=reason, ended_at=now)
        case ActionRolledBack():
            return changed(action, rolled_back=True)
        case ActionInDoubt(attempt=attempt, reason=reason, undo=False):
            return changed(action, status="in_doubt", attempts=attempt, error=reason, ended_at=None)
        case ActionInDoubt():
            return action
        case DoubtResolved():
            return _resolved(action, event, now)


def _ended(
    action: ActionRow,
    event: ActionSucceeded | ActionFailed | ActionDeduplicated,
    began: int,
    now: int,
) -> ActionRow:
    match event:
        case ActionSucceeded():
            return changed(
                action,
                status="succeeded",
                attempts=event.attempt,
                error=None,
                duration_us=_longer(action, event.duration_us),
                output=dumps(event.output),
                started_at=began,
                ended_at=now,
            )
        case ActionFailed():
            return changed(
                action,
                status="failed",
                attempts=event.attempt,
                error=event.error,
                duration_us=_longer(action, event.duration_us),
                output=None if event.output is None else dumps(event.output),
                started_at=began,
                ended_at=now,
            )
        case ActionDeduplicated():
            return changed(
                action,
                status="succeeded",
                error=None,
                duration_us=0,
                output=dumps(event.output),
                started_at=began,
                ended_at=now,
            )


def _longer(action: ActionRow, more_us: int | None) -> int | None:
    return action.duration_us if more_us is None else add(action.duration_us or 0, more_us)


def _resolved(action: ActionRow, event: DoubtResolved, now: int) -> ActionRow:
    """What was said of an attempt in doubt; the outcome that the run draws from it comes after."""
    if event.undo or action.status != "in_doubt" or action.attempts != event.attempt:
        return action
    match event.resolution:
        case "succeeded":
            return changed(
                action, status="succeeded", error=None, output=dumps(event.output), ended_at=now
            )
        case "failed":
            return changed(action, status="failed", error=event.error, ended_at=now)
        case _:
            return changed(action, status="retrying")


ACTIONS: View[ActionEvent, ActionRow] = View(
    name="actions",
    version=1,
    kinds=get_args(ActionEvent),
    row=ActionRow,
    key=("run_id", "action_id"),
    keys=keys,
    evolve=evolve,
)
