"""Views in memory: the fold itself, and the checksum that tells two results apart."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

from carstore.canonical import quote
from carstore.errors import UnknownEvent
from carstore.events import KINDS
from carstore.log import Recorded
from projections.view import Key, R, Rows, View

__all__ = ["changes", "checksum", "fold", "fold_into"]


def fold(
    view: View[Any, R], events: Iterable[Recorded], rows: Mapping[Key, R] | None = None
) -> dict[Key, R]:
    """The rows after `events`, in order of the log, beginning with `rows` (none: an empty view).

    Raises:
        UnknownEvent: if there is an event of a kind that this program does not know.
        InvalidEvent: if the data of an event is not what its class says.
    """
    folded = dict(rows or {})
    fold_into(folded, view, events)
    return folded


def fold_into(rows: dict[Key, R], view: View[Any, R], events: Iterable[Recorded]) -> None:
    """The same, changing `rows` itself."""
    for recorded in events:
        for key, row in _step(view, recorded, rows.get).items():
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row


def changes(
    view: View[Any, R], events: Iterable[Recorded], stored: Callable[[Key], R | None]
) -> dict[Key, R | None]:
    """The rows that `events` change, None for those that go; `stored` gives a row as it was."""
    known: dict[Key, R | None] = {}
    changed: dict[Key, R | None] = {}

    def look_up(key: Key) -> R | None:
        if key not in known:
            known[key] = stored(key)
        return known[key]

    for recorded in events:
        made = _step(view, recorded, look_up)
        known.update(made)
        changed.update(made)
    return changed


def _step(view: View[Any, R], recorded: Recorded, look_up: Callable[[Key], R | None]) -> Rows[R]:
    kind = recorded.kind
    if kind not in view.reads:
        if kind not in KINDS:
            raise UnknownEvent(kind, recorded.schema_version, recorded.position)
        return {}
    event = recorded.event
    named = {key: look_up(key) for key in view.keys(event, recorded)}
    if not named:
        return {}
    made = view.evolve(named, event, recorded)
    for key, row in made.items():
        if key not in named or (row is not None and view.key_of(row) != key):
            raise ValueError(
                f"view {view.name!r}: event {recorded.position}, a {kind}, does not name the row "
                f"{key!r} that it changes; `keys` and `evolve` of the view disagree"
            )
    return made


def checksum(view: View[Any, R], rows: Mapping[Key, R]) -> str:
    """SHA-256 (hex) over the view's name, version and columns, and its rows in order of the key."""
    digest = sha256(_line((view.name, view.version, *[column.name for column in view.columns])))
    for key in sorted(rows):
        digest.update(_line(view.values_of(rows[key])))
    return digest.hexdigest()


def _line(values: Iterable[str | int | None]) -> bytes:
    return f"[{','.join([_text(value) for value in values])}]\n".encode()


def _text(value: str | int | None) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
