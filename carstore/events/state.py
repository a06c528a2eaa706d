"""Facts about shared state."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class StateChanged:
    """A state key got a value, or was deleted.

    `scope` and `key` are columns of the event. `data` is `{"value": ..., "prev": ...}` or
    `{"deleted": true, "prev": ...}`. An event belongs to the nearest `action_succeeded`,
    `action_deduplicated` or `action_rolled_back` before it in its stream.
    """

    kind: ClassVar[str] = "state_changed"
    scope: str
    key: str
    value: Json = None
    deleted: bool = False
    prev: int | None = None
    """Position of the state_changed of this key before this one; filled in by the log."""


@frozen(kw_only=True)
class StateRollback:
    """A run's changes of state were undone; the inverses are `state_changed` events before this."""

    kind: ClassVar[str] = "state_rollback"
    keys: tuple[str, ...]
    """Keys that returned to their former value, sorted."""
    conflicts: Json
    """List of `{key, ours, theirs}`: keys left alone because somebody else wrote them since."""
