"""Appends as rows, inside a transaction that holds the write lock.

Theory of operation. From `BEGIN IMMEDIATE` on nobody else writes, so what appends depend on (the
newest event, the stream heads, the newest change of a key, the leases) is read once and then kept
in step in `Transaction`, while one append after the other goes through it.

Each append is first judged, which changes nothing, and then planned, which cannot fail. So one that
is refused costs nothing, and the next one sees what the accepted ones leave behind. All rows go in
with one `executemany`. The triggers of the file check the same law again.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, cast

from attrs import Factory, define

from carstore.blobs import Blob
from carstore.canonical import loads_trusted
from carstore.chain import GENESIS, frame, link
from carstore.clock import Clock
from carstore.codec import Encoded, with_prev
from carstore.errors import (
    InvalidEvent,
    LeaseLost,
    SchemaTooNew,
    StaleFence,
    StateConflict,
    VersionConflict,
)
from carstore.events import (
    BlobForgotten,
    LeaseGranted,
    LeaseReleased,
    LeaseRenewed,
    LogEpochStarted,
)
from carstore.log import NOTHING, Appended, Fence, LeaseIs
from carstore.names import (
    FencingToken,
    LeaseName,
    Micros,
    Position,
    Scope,
    StateKey,
    StreamName,
    lease_of,
)
from carstore.sqlite.migrations import SCHEMA
from carstore.sqlite.prepare import LEASE_KINDS, Submission
from carstore.sqlite.statements import SQL

EPOCH_SHIFT = 40
"""Bits of a fencing token that hold the position: 2^40 events are a century at 300 a second."""

_Row = tuple[int, int, int, str, int, int, str | None, str | None, str | None, str | None,
             int | None, str, str, str]  # fmt: skip


@define
class _Stream:
    stream_id: int
    version: int
    lease: LeaseName | None


@define
class Transaction:
    """What is known of the log inside a transaction, and what will be added to it."""

    connection: sqlite3.Connection
    now: int
    position: int
    prev_hash: str
    streams: dict[StreamName, _Stream] = Factory(dict)
    """Those without events too, under the number 0."""
    key_heads: dict[tuple[str, str], int | None] = Factory(dict)
    leases: dict[LeaseName, tuple[FencingToken | None, int | None] | None] = Factory(dict)
    """Token and expiry; None if it was never granted."""
    epoch: int | None = None
    """Of the log, once a grant has needed it."""
    new_streams: list[tuple[int, str, str | None]] = Factory(list)
    rows: list[_Row] = Factory(list)
    blobs: dict[str, Blob] = Factory(dict)
    """To be written with `rows`, by hash."""
    forgets: bool = False
    """Whether `rows` make the file forget a blob."""

    @property
    def remembered(self) -> int:
        """How many heads are known."""
        return len(self.streams) + len(self.key_heads) + len(self.leases)

    # --- what the file says ---

    def look_up(self, batch: Sequence[Submission]) -> None:
        """Read what the appends of `batch` depend on and is not known yet."""
        streams: set[StreamName] = set()
        leases: set[LeaseName] = set()
        keys: set[tuple[str, str]] = set()
        for submission in batch:
            for stream, _, encoded in submission.entries:
                streams.add(stream)
                if encoded.rest is not None:
                    keys.add(_key_of(encoded))
            expect = submission.expect
            if expect is not NOTHING:
                streams.update(expect.versions)
                leases.update([condition.lease for condition in expect.leases])
                keys.update([(scope, key) for scope, key, _ in expect.unchanged])
        self._look_up_streams(streams.difference(self.streams), leases)
        leases = leases.difference(self.leases)
        self.leases.update(dict.fromkeys(leases))
        for lease, token, expires_at in self._rows_of("lease_heads", leases):
            self.leases[lease] = (token, expires_at)
        for scope, key, newest in self._rows_of("key_heads", keys.difference(self.key_heads)):
            self.key_heads[scope, key] = newest

    def _look_up_streams(self, names: set[StreamName], leases: set[LeaseName]) -> None:
        """Read `names`, and add to `leases` those that fence them."""
        for name, stream_id, version, lease in self._rows_of("stream_heads", names):
            self.streams[name] = _Stream(stream_id, version, lease)
        for name in names:
            if name not in self.streams:
                self.streams[name] = _Stream(0, 0, lease_of(name))
            lease = self.streams[name].lease
            if lease is not None:
                leases.add(lease)

    def _rows_of(self, statement: str, names: set[Any]) -> Iterable[Any]:
        return self.connection.execute(SQL[statement], (json.dumps(list(names)),)) if names else ()

    # --- judging: raises, and changes nothing ---

    def judge(self, submission: Submission) -> None:
        """Whether the conditions of an append hold.

        Raises:
            VersionConflict, StateConflict, StaleFence, LeaseLost
            InvalidEvent: it refers to a value beside the log that is not there, or begins an epoch
                that is not larger than the one before.
        """
        expect = submission.expect
        if submission.references:
            self._judge_references(submission.references, submission.open_references)
        passed: dict[LeaseName, str] = {}
        epoch: int | None = None
        for entry in submission.entries:
            if entry.encoded.kind in LEASE_KINDS:
                passed.update(_foreseen(entry.encoded))
            elif entry.encoded.kind == LogEpochStarted.kind:
                epoch = self._judge_epoch(entry.encoded, epoch)
            lease = self.streams[entry.stream].lease
            if lease is not None:
                self._judge_fence(lease, expect.fence, passed.get(lease))
        if expect is NOTHING:
            return
        for stream, expected in expect.versions.items():
            actual = self.streams[stream].version
            if actual != expected:
                raise VersionConflict(stream, expected, actual)
        for condition in expect.leases:
            self._judge_lease(condition)
        for scope, key, read_at in expect.unchanged:
            newest = self.key_heads[scope, key] or 0
            if newest != read_at:
                raise StateConflict(scope, key, read_at, Position(newest))

    def _judge_references(self, references: Iterable[str], openly: frozenset[str]) -> None:
        """Whether what an append refers to is here, or was until it was forgotten; and whether what
        it refers to openly may be shown."""
        hidden = {one for one in openly if one in self.blobs and self.blobs[one].nonce}
        hidden.update(one for (one,) in self._rows_of("hidden_blobs", set(openly)))
        if hidden:
            raise InvalidEvent(
                "append",
                "data",
                f"it refers to the value {min(hidden)} as if it were not sensitive; write the "
                'reference as it was shown, with "sensitive": true',
            )
        missing = {one for one in references if one not in self.blobs}
        for (known,) in self._rows_of("known_blobs", missing):
            missing.discard(known)
        if missing:
            raise InvalidEvent(
                "append",
                "data",
                f"it refers to the value {min(missing)}, which this file does not hold; write the "
                "value itself",
            )

    def _judge_epoch(self, encoded: Encoded, before: int | None) -> int:
        """The epoch that an event begins; `before` is one that its own append begins earlier."""
        epoch: int = loads_trusted(encoded.data)["epoch"]
        before = self._known_epoch() if before is None else before
        if epoch <= before:
            reason = f"{epoch} is not larger than {before}, the epoch of the log"
            raise InvalidEvent(encoded.kind, "$.epoch", reason)
        return epoch

    def _known_epoch(self) -> int:
        if self.epoch is None:
            (self.epoch, _) = self.connection.execute(SQL["epoch"]).fetchone()
        return cast(int, self.epoch)

    def _judge_lease(self, condition: LeaseIs) -> None:
        token, expires_at = self.leases[condition.lease] or (None, None)
        if token != condition.token:
            raise LeaseLost(condition.lease)
        if expires_at is not None:
            spare = condition.expired_for_us
            if condition.unexpired and expires_at <= self.now:
                raise LeaseLost(condition.lease)
            if spare is not None and expires_at + spare > self.now:
                raise LeaseLost(condition.lease)

    def _judge_fence(self, lease: LeaseName, fence: Fence | None, passed: str | None) -> None:
        """Whether an event may carry `fence`, given what the events before it in its append made of
        the lease: `lease_granted`, `lease_released` or nothing."""
        ours = fence is not None and fence.lease == lease
        presented = fence.token if fence is not None and ours else None
        granted = self.leases[lease]
        current = granted[0] if granted else None
        if passed == LeaseGranted.kind:
            allowed = ours and presented is None  # the token of this very append
        elif passed == LeaseReleased.kind:
            allowed = False
        elif granted is None:
            allowed = not ours
        else:
            allowed = presented is not None and presented == current
        if not allowed:
            raise StaleFence(lease, presented, current)

    # --- planning: cannot fail ---

    def plan(self, submission: Submission) -> None:
        """Give each event of an append its place, its fence and its hash."""
        if submission.blobs:
            if self.forgets:  # one of these may be what is forgotten just before
                self.write()
            self.blobs.update({blob.hash: blob for blob in submission.blobs})
        first, now = self.position + 1, self.now
        position, prev_hash = self.position, self.prev_hash
        fence = submission.expect.fence
        for name, run_id, encoded in submission.entries:
            kind, schema_version, scope, key, data, rest = encoded
            stream = self.streams[name]
            if stream.stream_id == 0:
                self._begin_stream(name, stream)
            position += 1
            version = stream.version = stream.version + 1
            if rest is not None:
                changed = _key_of(encoded)
                data = with_prev(encoded, self.key_heads[changed])
                self.key_heads[changed] = position
            elif kind in LEASE_KINDS:
                fence = self._follow_lease(encoded, position, fence)
            elif kind == BlobForgotten.kind:
                self.forgets = True
            elif kind == LogEpochStarted.kind:
                self.epoch = loads_trusted(data)["epoch"]
            lease, token = fence if fence and fence.lease == stream.lease else (None, None)
            covered = frame(name, kind, schema_version, run_id, scope, key, data)
            digest = link(prev_hash, position, version, now, lease, token, covered)
            self.rows.append(
                (position, stream.stream_id, version, kind, schema_version, now, run_id, scope, key,
                 lease, token, data, prev_hash, digest)
            )  # fmt: skip
            prev_hash = digest
        self.position, self.prev_hash = position, prev_hash
        submission.outcome = Appended(Position(first), Position(position), Micros(now))

    def _begin_stream(self, name: StreamName, stream: _Stream) -> None:
        if self.new_streams:
            stream.stream_id = self.new_streams[-1][0] + 1
        else:
            (stream.stream_id,) = self.connection.execute(SQL["next_stream_id"]).fetchone()
        self.new_streams.append((stream.stream_id, name, stream.lease))

    def _follow_lease(self, encoded: Encoded, position: int, fence: Fence | None) -> Fence | None:
        """Keep the leases of this transaction in step with an event, as the trigger will."""
        data = loads_trusted(encoded.data)
        if encoded.kind == "lease_granted":
            lease = LeaseName(data["lease"])
            token = FencingToken((self._known_epoch() << EPOCH_SHIFT) + position)
            self.leases[lease] = (token, self.now + data["ttl_us"])
            return Fence(lease, token) if fence == (lease, None) else fence
        for named in data["leases"] if encoded.kind == "lease_renewed" else [data]:
            current, expires_at = self.leases.get(named["lease"]) or (None, None)
            if current is None or current != named["token"]:
                continue
            if encoded.kind == "lease_renewed":
                renewed = max(expires_at or 0, self.now + data["ttl_us"])
                self.leases[named["lease"]] = (current, renewed)
            else:
                self.leases[named["lease"]] = (None, None)
        return fence

    # --- writing ---

    def write(self) -> None:
        """Insert what was planned since the last call."""
        if self.new_streams:
            self.connection.executemany(SQL["insert_stream"], self.new_streams)
            self.new_streams.clear()
        if self.blobs:
            rows = [(blob.hash, blob.nonce, blob.body) for blob in self.blobs.values()]
            self.connection.executemany(SQL["insert_blob"], rows)
            self.blobs.clear()
        self.connection.executemany(SQL["insert_event"], self.rows)
        self.rows.clear()
        self.forgets = False


def begin(connection: sqlite3.Connection, path: str, clock: Clock) -> Transaction:
    """What is to be known of the log at the start of a transaction that holds the write lock.

    Raises:
        SchemaTooNew: another program migrated the file.
    """
    (found,) = connection.execute(SQL["schema"]).fetchone()
    if found != SCHEMA:
        raise SchemaTooNew(path, found, SCHEMA)
    position, digest = connection.execute(SQL["head"]).fetchone() or (0, GENESIS)
    return Transaction(connection, clock.now(), position, digest)


def _key_of(encoded: Encoded) -> tuple[Scope, StateKey]:
    return cast(Scope, encoded.scope), cast(StateKey, encoded.key)


def _foreseen(encoded: Encoded) -> dict[LeaseName, str]:
    """The lease that an event grants or releases, and which of the two."""
    if encoded.kind == LeaseRenewed.kind:
        return {}
    return {LeaseName(loads_trusted(encoded.data)["lease"]): encoded.kind}
