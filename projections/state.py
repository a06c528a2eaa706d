"""The state that runs share: the newest value of each key in each scope."""

from attrs import frozen

from carstore.canonical import dumps
from carstore.events import StateChanged
from carstore.log import Recorded
from projections.view import Key, Rows, View


@frozen(kw_only=True)
class StateValue:
    """A key that exists. One that was deleted has no row."""

    scope: str
    key: str
    value: str
    """Canonical JSON."""
    position: int
    """Of the change that made it so."""
    run_id: str | None
    """Of the run that changed it, if one did."""


def keys(event: StateChanged, _: Recorded) -> list[Key]:
    return [(event.scope, event.key)]


def evolve(_: Rows[StateValue], event: StateChanged, recorded: Recorded) -> Rows[StateValue]:
    key = (event.scope, event.key)
    if event.deleted:
        return {key: None}
    after = StateValue(
        scope=event.scope,
        key=event.key,
        value=dumps(event.value),
        position=recorded.position,
        run_id=recorded.run_id,
    )
    return {key: after}


STATE: View[StateChanged, StateValue] = View(
    name="state",
    version=1,
    kinds=(StateChanged,),
    row=StateValue,
    key=("scope", "key"),
    keys=keys,
    evolve=evolve,
    newest="newest_state",
)
