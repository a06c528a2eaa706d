"""Actions that wait for a time or a signal."""

from typing import TypeAlias, get_args

from attrs import frozen

from carstore.events import (
    ActionDeduplicated,
    ActionFailed,
    ActionRejected,
    ActionSkipped,
    ActionSucceeded,
    WaitStarted,
)
from carstore.log import Recorded
from projections.view import Key, Rows, View, run_key

Settled: TypeAlias = (
    ActionDeduplicated | ActionSucceeded | ActionFailed | ActionRejected | ActionSkipped
)
WaitEvent: TypeAlias = WaitStarted | Settled


@frozen(kw_only=True)
class Wait:
    """An action that waits. Its row goes as soon as it is settled."""

    run_id: str
    action_id: str
    due_at: int | None
    """Microseconds UTC: until then, or at most until then if it waits for a signal too. None: for
    as long as it takes."""
    signal: str | None
    """The name of the signal; None: it only waits for the time."""
    since: int
    """Microseconds UTC."""


def keys(event: WaitEvent, recorded: Recorded) -> list[Key]:
    return run_key(recorded, event.action_id)


def evolve(rows: Rows[Wait], event: WaitEvent, recorded: Recorded) -> Rows[Wait]:
    [(key, wait)] = rows.items()
    if not isinstance(event, WaitStarted):
        return {} if wait is None else {key: None}
    started = Wait(
        run_id=recorded.run_id or "",
        action_id=event.action_id,
        due_at=event.due_at,
        signal=event.signal,
        since=recorded.recorded_at,
    )
    return {key: started}


WAITS: View[WaitEvent, Wait] = View(
    name="waits",
    version=1,
    kinds=get_args(WaitEvent),
    row=Wait,
    key=("run_id", "action_id"),
    keys=keys,
    evolve=evolve,
)
