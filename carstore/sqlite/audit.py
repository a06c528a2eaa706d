"""The law of the log, checked event by event in Python: what triggers hold, and what they cannot.

An `Audit` is fed every row in order of position, as it is stored, and remembers what the next ones
are to be measured by: the hash before, the version of each stream, the newest change of each state
key, the leases, the values beside the log. That is its memory: a number for each stream and key,
two for each value, a row for each lease, whatever the number of events; some hundred bytes each. It
does no I/O and takes nothing for granted: a row may hold anything.
"""

import json
from typing import Any

from attrs import Factory, define

from carstore.chain import GENESIS, hash_of_columns
from carstore.codec import decode
from carstore.errors import InvalidEvent, UnknownEvent
from carstore.events import BlobForgotten
from carstore.log import Head
from carstore.names import Json, Position
from carstore.sqlite.blob_audit import BlobAudit
from carstore.sqlite.lease_fold import LeaseFold
from carstore.verification import Problem

BEGINNING = Head(Position(0), GENESIS)
"""Before the first event."""

MAX_PROBLEMS = 100
"""Problems of one check: more tell nothing new, and a damaged page alone can make thousands."""

_NoneType = type(None)
_COLUMNS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("position", (int,)), ("stream", (str, _NoneType)), ("version", (int,)), ("kind", (str,)),
    ("schema_version", (int,)), ("recorded_at", (int,)), ("run_id", (str, _NoneType)),
    ("scope", (str, _NoneType)), ("key", (str, _NoneType)), ("fence", (str, _NoneType)),
    ("fence_token", (int, _NoneType)), ("data", (str,)), ("prev_hash", (str,)), ("hash", (str,)),
    ("lease", (str, _NoneType)),
)  # fmt: skip


class Enough(Exception):
    """`MAX_PROBLEMS` were found; the check ends here."""


@define
class Audit:
    """What is known of the log up to `position`."""

    wanted: Head | None = None
    """A head that was kept elsewhere."""
    position: int = 0
    head: Head = BEGINNING
    """The last event that could be read, and the hash stored for it."""
    problems: list[Problem] = Factory(list)
    leases: LeaseFold = Factory(LeaseFold)
    blobs: BlobAudit = Factory(BlobAudit)
    _versions: dict[str, int] = Factory(dict)
    _changes: dict[tuple[str, str], int] = Factory(dict)
    _seen_types: set[tuple[type, ...]] = Factory(set)
    _wanted_seen: bool = False

    @property
    def is_full(self) -> bool:
        """Whether there is no room for more problems."""
        return len(self.problems) >= MAX_PROBLEMS

    def problem(self, position: int | None, code: str, message: str) -> None:
        """Note a problem.

        Raises:
            Enough: it was the last one there is room for.
        """
        self.problems.append(Problem(position, code, message))
        if len(self.problems) >= MAX_PROBLEMS - 1:
            self.problems.append(
                Problem(position, "too_many", "there are more problems; the check ended here")
            )
            raise Enough

    def row(self, row: tuple[Any, ...]) -> None:
        """Check the next row: the columns of `Recorded`, then the lease that the stream names.

        Raises:
            Enough
        """
        position = row[0]
        if position != self.position + 1:
            self._gap(position)
        self.position = position
        if not self._has_types(position, row):
            return
        self._chain(row)
        self.head = Head(Position(position), row[13])
        if row[1] is None:
            self.problem(position, "stream", f"event {position} is in a stream that has no name")
            return
        self._version(row)
        self._fence(row)
        self._body(row)

    def unreadable(self, position: int, error: str, *, again: bool) -> None:
        """Note that the row at `position` cannot be read; `again`: as the one before it.

        Raises:
            Enough
        """
        self.position = position
        if not again:
            self.problem(
                position,
                "unreadable",
                f"events cannot be read from position {position} on: {error}",
            )

    def ended(self) -> None:
        """Check what can only be told when there are no more rows."""
        if self.position == 0:
            self.problem(1, "gap", "there are no events; even a new log has one")
        if self.wanted is None or self._wanted_seen:
            return
        position, digest = self.wanted
        if position > self.position:
            self.problem(
                self.position + 1,
                "log_shorter_than_head",
                f"the log ends at position {self.position}, but it had reached {position}: "
                "its last events are lost",
            )
        elif position != 0 or digest != GENESIS:
            self.problem(position, "head_mismatch", f"there is no event {position} to compare with")

    # --- the row and its place ---

    def _gap(self, position: int) -> None:
        expected = self.position + 1
        if position > expected:
            lost = f"event {expected} is" if position == expected + 1 else (
                f"events {expected} to {position - 1} are"
            )  # fmt: skip
            self.problem(expected, "gap", f"{lost} missing: {position} comes next")
        else:
            self.problem(expected, "gap", f"event {position} stands where {expected} belongs")

    def _has_types(self, position: int, row: tuple[Any, ...]) -> bool:
        types = tuple(map(type, row))
        if types in self._seen_types:
            return True
        for value, (name, allowed) in zip(row, _COLUMNS, strict=True):
            if type(value) not in allowed:
                kind = type(value).__name__
                self.problem(position, "unreadable", f"event {position}: {name} is a {kind}")
                return False
        self._seen_types.add(types)
        return True

    def _chain(self, row: tuple[Any, ...]) -> None:
        position, stream, prev_hash, digest = row[0], row[1], row[12], row[13]
        if self.head.position == position - 1 and self.head.hash != prev_hash:
            self.problem(
                position,
                "chain",
                f"event {position} does not continue event {position - 1}: one was changed",
            )
        if stream is not None and hash_of_columns(row) != digest:
            self.problem(position, "hash", f"event {position} is not the one its hash was made for")
        if self.wanted is not None and position == self.wanted.position:
            self._wanted_seen = True
            if digest != self.wanted.hash:
                self.problem(
                    position,
                    "head_mismatch",
                    f"event {position} has the hash {digest:.64}, not {self.wanted.hash:.64}: "
                    "this is another history than the one whose head was kept",
                )

    def _version(self, row: tuple[Any, ...]) -> None:
        position, stream, version = row[:3]
        expected = self._versions.get(stream, 0) + 1
        if version != expected:
            self.problem(
                position,
                "version",
                f"event {position} is version {version} of stream {stream!r:.100}, not {expected}",
            )
        self._versions[stream] = version

    def _fence(self, row: tuple[Any, ...]) -> None:
        position, stream, fence, token, lease = row[0], row[1], row[9], row[10], row[14]
        granted = self.leases.rows.get(lease) if lease is not None else None
        if granted is None:
            if fence is None and token is None:
                return
            current = "there was none"
        else:
            if granted.token is not None and fence == lease and token == granted.token:
                return
            current = "nobody held it" if granted.token is None else f"{granted.token} was current"
        self.problem(
            position,
            "fence",
            f"event {position} in stream {stream!r:.100} carries token {token} of lease "
            f"{fence!r:.100}, but {current}",
        )

    # --- what the event says ---

    def _body(self, row: tuple[Any, ...]) -> None:
        position, kind, schema_version = row[0], row[3], row[4]
        scope, key, data = row[7], row[8], row[11]
        if (kind == "state_changed") is not (scope is not None and key is not None) or (
            (scope is None) is not (key is None)
        ):
            self.problem(
                position, "state_key", f"event {position}, a {kind!r:.100}, and its scope or key"
            )
            return
        fields = self._parsed(position, data)
        if not isinstance(fields, dict):
            return
        try:
            event = decode(kind, schema_version, data, scope, key, position)
        except UnknownEvent as error:
            self.problem(position, "unknown_event", error.message)
            return
        except InvalidEvent as error:
            self.problem(position, "invalid_event", f"{error.message:.500}")
            return
        self.blobs.follow(position, data, event.hash if isinstance(event, BlobForgotten) else None)
        if kind == "state_changed":
            self._state_changed(position, scope, key, fields.get("prev"))
        elif wrong := self.leases.follow(position, row[5], event):
            self.problem(position, *wrong)
        if position == 1 and kind != "log_epoch_started":
            self.problem(1, "epoch", f"event 1 is a {kind!r:.100}, not the log_epoch_started")

    def _parsed(self, position: int, data: str) -> Json:
        """The value of `data`, None if it is not the canonical text of an object."""
        try:
            value = _parse(data)
            canonical = _to_text(value) == data
        except (ValueError, RecursionError, UnicodeError) as error:
            self.problem(position, "invalid_event", f"event {position}: data is no JSON: {error}")
            return None
        if not isinstance(value, dict):
            self.problem(position, "invalid_event", f"event {position}: data is no JSON object")
            return None
        if not canonical:
            self.problem(
                position,
                "not_canonical",
                f"event {position}: data is not the canonical text of its value",
            )
        return value

    def _state_changed(self, position: int, scope: str, key: str, prev: Json) -> None:
        expected = self._changes.get((scope, key))
        if prev != expected or type(prev) is bool:
            self.problem(
                position,
                "prev",
                f"event {position} says that it replaces the value of {key!r:.100} of position "
                f"{prev!r:.40}; it was {expected}",
            )
        self._changes[scope, key] = position


def _bounded_int(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError(f"integer {digits:.24} is outside 64 bits")
    return number


# Written down once more, apart from `carstore.canonical`: what checks it should not be it. Depth is
# bounded by the parser, and a key that stands twice is found because it is written once.
_parse = json.JSONDecoder(parse_int=_bounded_int).decode
_to_text = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode

__all__ = ["BEGINNING", "MAX_PROBLEMS", "Audit", "Enough"]
