"""Results that an action may take over instead of calling a tool again."""

from typing import TypeAlias

from attrs import frozen

from carstore.canonical import dumps
from carstore.events import ActionRolledBack, ActionSucceeded, CompensationExecuting
from carstore.log import Recorded
from projections.view import Key, Rows, View

ReuseEvent: TypeAlias = ActionSucceeded | ActionRolledBack | CompensationExecuting


@frozen(kw_only=True)
class Remembered:
    """A success under a reuse key that nobody has begun to undo; of several the newest counts."""

    reuse_key: str
    run_id: str
    action_id: str
    position: int
    """Of the `action_succeeded`."""
    at: int
    """When that was recorded, microseconds UTC."""
    output: str
    """Canonical JSON."""


def keys(event: ReuseEvent, recorded: Recorded) -> list[Key]:
    if event.reuse_key is None or recorded.run_id is None:
        return []
    return [(event.reuse_key, recorded.run_id, event.action_id)]


def evolve(rows: Rows[Remembered], event: ReuseEvent, recorded: Recorded) -> Rows[Remembered]:
    [key] = rows
    match event:
        case ActionSucceeded():
            after = Remembered(
                reuse_key=event.reuse_key or "",
                run_id=recorded.run_id or "",
                action_id=event.action_id,
                position=recorded.position,
                at=recorded.recorded_at,
                output=dumps(event.output),
            )
            return {key: after}
        case ActionRolledBack() | CompensationExecuting():
            return {key: None}


REUSE: View[ReuseEvent, Remembered] = View(
    name="reuse",
    version=2,
    kinds=(ActionSucceeded, ActionRolledBack, CompensationExecuting),
    row=Remembered,
    key=("reuse_key", "run_id", "action_id"),
    keys=keys,
    evolve=evolve,
)
