"""Views in memory: the fold itself, and the checksum that tells two results apart.

The functions of a view may be anybody's. What they raise, and what they answer that no view can
have, becomes a `ViewFailed` that names the event and the line.
"""

import traceback
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

from carstore.canonical import quote
from carstore.errors import UnknownEvent
from carstore.events import KINDS
from carstore.log import Recorded
from projections.errors import ViewFailed
from projections.view import Column, Key, R, Rows, View

__all__ = ["changes", "check_rows", "checksum", "checksum_in_order", "fold", "fold_into"]

_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1


def fold(
    view: View[Any, R], events: Iterable[Recorded], rows: Mapping[Key, R] | None = None
) -> dict[Key, R]:
    """The rows after `events`, in order of the log, beginning with `rows` (none: an empty view).

    Raises:
        UnknownEvent: if there is an event of a kind that this program does not know.
        InvalidEvent: if the data of an event is not what its class says.
        ViewFailed: if a function of the view raises, or answers what no view can have.
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
    try:
        keys = list(view.keys(event, recorded))
    except (Exception, SystemExit) as error:
        raise _failed(view, recorded, f"`keys` raised {_told(error)}") from error
    if not keys:
        return {}
    named: dict[Key, R | None] = {}
    for key in keys:
        _check_key(view, recorded, key)
        named[key] = look_up(key)
    try:
        answer = view.evolve(named, event, recorded)
        made = dict(answer) if isinstance(answer, Mapping) else None
    except (Exception, SystemExit) as error:
        raise _failed(view, recorded, f"`evolve` raised {_told(error)}") from error
    if made is None:
        raise _failed(view, recorded, f"`evolve` answered {_shown(answer)}, no rows by key")
    for key, row in made.items():
        if row is not None and not isinstance(row, view.row):
            reason = f"`evolve` answered {_shown(row)}, no {view.row.__name__}"
            raise _failed(view, recorded, reason)
        if key not in named or (row is not None and view.key_of(row) != key):
            reason = (
                f"the event does not name the row {_shown(key)} that it changes; `keys` and "
                "`evolve` disagree"
            )
            raise _failed(view, recorded, reason)
    return made


def _check_key(view: View[Any, Any], recorded: Recorded, key: object) -> None:
    """Check that a row of this key can be looked up, in memory as in the file."""
    columns = view.key_columns
    if type(key) is not tuple or len(key) != len(columns):
        reason = f"`keys` named {_shown(key)}, no tuple of {len(columns)}"
        raise _failed(view, recorded, reason)
    for column, value in zip(columns, key, strict=True):
        if not can_hold(column, value):
            reason = (
                f"`keys` named {_shown(key)}, and column {column.name!r} of the key holds "
                f"{column.type.__name__}"
            )
            raise _failed(view, recorded, reason)


def _failed(view: View[Any, Any], recorded: Recorded, reason: str) -> ViewFailed:
    return ViewFailed(view.name, f"at event {recorded.position}, of kind {recorded.kind}, {reason}")


def _shown(value: object) -> str:
    """What somebody's code has answered; its `repr` is his too."""
    try:
        return f"{value!r:.200}"
    except Exception as error:  # noqa: BLE001 - another fault than the one to be told
        return f"a {type(value).__name__}, whose repr raises {type(error).__name__}"


def _told(error: BaseException) -> str:
    """An error and the line of the view that it arose from."""
    told = f"{type(error).__name__}: {error}"[:300]
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is ours
    return f"{told} ({frames[0].filename}, line {frames[0].lineno})" if frames else told


def check_rows(view: View[Any, R], rows: Iterable[R | None]) -> None:
    """Check that each value is one that its column can hold, in memory as in the file.

    Raises:
        ViewFailed: naming the row and the column.
    """
    for row in rows:
        if row is None:
            continue
        for column, value in zip(view.columns, view.values_of(row), strict=True):
            if not can_hold(column, value):
                holds = f"{column.type.__name__}{' or None' if column.nullable else ''}"
                reason = (
                    f"column {column.name!r} of row {view.key_of(row)!r:.200} is {value!r:.80}, "
                    f"and holds {holds}"
                )
                raise ViewFailed(view.name, reason)


def can_hold(column: Column, value: object) -> bool:
    """Whether a value is one of a column, in memory as in the file."""
    if value is None:
        return column.nullable
    if isinstance(value, str):
        return column.type is str and (value.isascii() or _is_text(value))
    if type(value) is int:
        return column.type is int and _MIN_INT <= value <= _MAX_INT
    return type(value) is bool and column.type is bool


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def checksum(view: View[Any, R], rows: Mapping[Key, R]) -> str:
    """SHA-256 (hex) over the view's name, version and columns, and its rows in order of the key."""
    return checksum_in_order(view, [rows[key] for key in sorted(rows)])


def checksum_in_order(view: View[Any, R], rows: Iterable[R]) -> str:
    """The same of rows that come in order of their key."""
    digest = sha256(_line((view.name, view.version, *[column.name for column in view.columns])))
    for row in rows:
        digest.update(_line(view.values_of(row)))
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
