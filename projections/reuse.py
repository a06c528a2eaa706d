"""Results that an action may take over instead of calling a tool again."""

from typing import TypeAlias

from attrs import frozen

from carstore.canonical import dumps
from carstore.events import ActionRolledBack, ActionSucceeded
from carstore.log import Recorded
from projections.view import Key, Rows, View

ReuseEvent: TypeAlias = ActionSucceeded | ActionRolledBack


@frozen(kw_only=True)
class Remembered:
    """The newest success under a reuse key that was not rolled back."""

    reuse_key: str
    position: int
    """Of the `action_succeeded`."""
    run_id: str
    action_id: str
    output: str
    """Canonical JSON."""


def keys(event: ReuseEvent, recorded: Recorded) -> list[Key]:
    return [] if event.reuse_key is None or recorded.run_id is None else [(event.reuse_key,)]


def evolve(rows: Rows[Remembered], event: ReuseEvent, recorded: Recorded) -> Rows[Remembered]:
    [(key, remembered)] = rows.items()
    match event:
        case ActionSucceeded():
            after = Remembered(
                reuse_key=event.reuse_key or "",
                position=recorded.position,
                run_id=recorded.run_id or "",
                action_id=event.action_id,
                output=dumps(event.output),
            )
            return {key: after}
        case ActionRolledBack():
            its_own = remembered is not None and (remembered.run_id, remembered.action_id) == (
                recorded.run_id,
                event.action_id,
            )
            return {key: None} if its_own else {}


REUSE: View[ReuseEvent, Remembered] = View(
    name="reuse",
    version=1,
    kinds=(ActionSucceeded, ActionRolledBack),
    row=Remembered,
    key=("reuse_key",),
    keys=keys,
    evolve=evolve,
)
