"""Facts about shared state."""

from typing import ClassVar

from attrs import frozen

from carstore.names import Json


@frozen(kw_only=True)
class StateChanged:
    """A state key got a value, or was deleted.

    `scope` and `key` are columns of the event. `data` is `{"value": ..., "prev": ...}` or
    `{"deleted": true, "prev": ...}`. It was made by the action of the nearest `action_succeeded`
    before it in its stream, or by nobody but the rollback if a `state_rollback` is nearer.
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
    """A run's changes of state were undone; the `state_changed` events after this are inverses."""

    kind: ClassVar[str] = "state_rollback"
    keys: tuple[str, ...]
    """Keys that returned to their former value, sorted."""
    conflicts: Json
    """List of `{key, ours, theirs}`: keys left alone because somebody else wrote them since."""
