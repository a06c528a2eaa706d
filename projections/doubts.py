"""Calls that began, must not be repeated, and of which nobody knows what became."""

from typing import TypeAlias, get_args

from attrs import frozen

from carstore.events import (
    ActionFailed,
    ActionInDoubt,
    ActionRejected,
    ActionSkipped,
    ActionSucceeded,
    CompensationFailed,
    CompensationSucceeded,
    DoubtResolved,
)
from carstore.log import Recorded
from projections.view import Key, Rows, View, run_key

Undone: TypeAlias = CompensationSucceeded | CompensationFailed
Outcome: TypeAlias = ActionSucceeded | ActionFailed | ActionRejected | ActionSkipped
DoubtEvent: TypeAlias = ActionInDoubt | DoubtResolved | Outcome | Undone


@frozen(kw_only=True)
class Doubt:
    """An attempt that waits for somebody to say whether it was carried out."""

    run_id: str
    action_id: str
    undo: bool
    """Whether the call was the action's compensation."""
    tool: str
    attempt: int
    idempotency_key: str
    """What the tool was handed; look for it at the other side."""
    since: int
    """Microseconds UTC."""
    reason: str


def keys(event: DoubtEvent, recorded: Recorded) -> list[Key]:
    match event:
        case ActionInDoubt() | DoubtResolved():
            undo = event.undo
        case _:
            undo = isinstance(event, Undone)
    return run_key(recorded, event.action_id, undo)


def evolve(rows: Rows[Doubt], event: DoubtEvent, recorded: Recorded) -> Rows[Doubt]:
    [(key, doubt)] = rows.items()
    match event:
        case ActionInDoubt():
            return {key: _in_doubt(event, recorded)}
        case DoubtResolved(attempt=attempt):
            settled = doubt is not None and doubt.attempt == attempt
        case _:
            settled = doubt is not None
    return {key: None} if settled else {}


def _in_doubt(event: ActionInDoubt, recorded: Recorded) -> Doubt:
    return Doubt(
        run_id=recorded.run_id or "",
        action_id=event.action_id,
        undo=event.undo,
        tool=event.tool,
        attempt=event.attempt,
        idempotency_key=event.idempotency_key,
        since=recorded.recorded_at,
        reason=event.reason,
    )


DOUBTS: View[DoubtEvent, Doubt] = View(
    name="doubts",
    version=1,
    kinds=get_args(DoubtEvent),
    row=Doubt,
    key=("run_id", "action_id", "undo"),
    keys=keys,
    evolve=evolve,
)
