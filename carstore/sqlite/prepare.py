"""Entries to what a transaction can write without looking at them again, on the caller's side.

Whatever can be wrong with an append by itself is found here, so that in the transaction, where it
shares a batch with the appends of others, only its conditions can fail.
"""

from asyncio import Future
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from attrs import define

from carstore.blobs import Blob, has_references, references_in_text
from carstore.codec import Encoded, encode, with_prev
from carstore.errors import InvalidEvent
from carstore.events import Event, LeaseGranted, LeaseReleased, LeaseRenewed, LogEpochStarted
from carstore.log import MAX_APPEND_EVENTS, NOTHING, Appended, Entry, Expect
from carstore.names import RunId, StreamName, is_storable
from carstore.redaction import Redaction

MAX_TTL_US = 2**60
"""Microseconds a lease may hold: 36,000 years, so that its expiry is an integer of 64 bits."""

MAX_EPOCH = 2**23 - 1
"""The largest epoch: a token is an integer of 64 bits, and its lower 40 are a position."""

LEASE_KINDS = frozenset({LeaseGranted.kind, LeaseRenewed.kind, LeaseReleased.kind})
"""The events that the table `leases` follows."""


class Prepared(NamedTuple):
    """One event of an append, as far as it can be made before its place is known."""

    stream: StreamName
    run_id: RunId | None
    encoded: Encoded


@define
class Submission:
    """An append on its way: what to write, under which conditions, and what became of it."""

    entries: Sequence[Prepared]
    expect: Expect
    blobs: Sequence[Blob] = ()
    """Values that go beside the log."""
    references: frozenset[str] = frozenset()
    """Hashes of other values that the entries refer to."""
    open_references: frozenset[str] = frozenset()
    """Those of them that are not said to be sensitive."""
    outcome: Appended | Exception | None = None
    future: Future[Appended] | None = None
    """Where the outcome is awaited."""


def prepare(entries: Sequence[Entry], expect: Expect, redaction: Redaction) -> Submission:
    """Make an append ready for the queue.

    Raises:
        InvalidEvent: if it is empty or too large, if an event holds what its class does not allow,
            or if a name is none.
    """
    if not 0 < len(entries) <= MAX_APPEND_EVENTS:
        raise InvalidEvent(
            "append", "entries", f"{len(entries)} events; allowed are 1 to {MAX_APPEND_EVENTS}"
        )
    if expect is not NOTHING:
        check_names("expect", _names_of(expect))
    blobs: list[Blob] = []
    prepared = [_prepare(entry, redaction, blobs) for entry in entries]
    # An append is about one run, mostly: a name that stands in many events is looked at once.
    check_names("stream", [name for name, _ in groupby([one.stream for one in prepared])])
    run_ids = groupby([one.run_id for one in prepared if one.run_id is not None])
    check_names("run_id", [name for name, _ in run_ids])
    submission = Submission(prepared, expect, blobs)
    for _, _, encoded in prepared:
        if has_references(encoded.data if encoded.rest is None else encoded.rest):
            _note_references(submission, encoded)
    return submission


def _note_references(submission: Submission, encoded: Encoded) -> None:
    """Take in what an event refers to, but for the values that come with it."""
    own = {blob.hash for blob in submission.blobs}
    text = with_prev(encoded, None) if encoded.rest else encoded.data
    submission.references |= references_in_text(text) - own
    submission.open_references |= references_in_text(text, sensitive=False) - own


def _prepare(entry: Entry, redaction: Redaction, blobs: list[Blob]) -> Prepared:
    stream, event, run_id, beside = entry
    blobs.extend(beside)
    encoded = encode(event)
    large = len(encoded.data) + len(encoded.rest or "") > redaction.inline_bytes
    if large or redaction.names:
        event, beside = redaction.applied(event)
        if beside:
            blobs.extend(beside)
            encoded = encode(event)
    if encoded.rest is not None:
        check_names("scope or key", (encoded.scope, encoded.key))
    elif encoded.kind in LEASE_KINDS:
        _check_lease_event(event)
    elif isinstance(event, LogEpochStarted) and not 0 <= event.epoch <= MAX_EPOCH:
        reason = f"{event.epoch} is not between 0 and {MAX_EPOCH}"
        raise InvalidEvent(event.kind, "$.epoch", reason)
    return Prepared(stream, run_id, encoded)


def _names_of(expect: Expect) -> Iterable[object]:
    yield from expect.versions
    for scope, key, _ in expect.unchanged:
        yield scope
        yield key
    for condition in expect.leases:
        yield condition.lease


def check_names(path: str, names: Iterable[object]) -> None:
    """Refuse names that SQLite would take for others, or not give back."""
    for name in names:
        if not isinstance(name, str):
            raise InvalidEvent("append", path, f"{name!r:.80} is not a string")
        if not is_storable(name):
            raise InvalidEvent("append", path, f"{name!r:.80} holds a NUL or half a surrogate pair")


def _check_lease_event(event: Event) -> None:
    """Refuse what the triggers that keep the table `leases` could not read."""
    match event:
        case LeaseRenewed(leases=list(leases), ttl_us=ttl_us):
            names = []
            for lease in leases:
                if not isinstance(lease, dict) or type(lease.get("token")) is not int:
                    raise InvalidEvent(event.kind, "leases", f"{lease!r:.80} has no token")
                names.append(lease.get("lease"))
        case LeaseGranted(lease=name, ttl_us=ttl_us):
            if type(event.holder) is not dict:
                raise InvalidEvent(event.kind, "$.holder", f"{event.holder!r:.80} is no object")
            names = [name]
        case LeaseReleased(lease=name):
            names, ttl_us = [name], 0
        case _:
            raise InvalidEvent(event.kind, "leases", "not a list")
    check_names("lease", names)
    if not 0 <= ttl_us <= MAX_TTL_US:
        raise InvalidEvent(event.kind, "ttl_us", f"{ttl_us} is not between 0 and {MAX_TTL_US}")
