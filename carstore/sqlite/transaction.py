"""One batch of appends as one transaction, on the writer's thread.

Theory of operation. `BEGIN IMMEDIATE` takes the write lock; from there on nobody else writes, so
the head, the stream heads, the newest change of a key and the leases can be read once and then kept
in `_Transaction` while the batch goes through it. Nothing of it outlives the transaction: other
processes write too.

Each append is first judged, which changes nothing, and then planned, which cannot fail. So one that
is refused costs nothing and the next one sees what the accepted ones leave behind. All rows go in
with one `executemany`.

The triggers of the file check the same law again. Should one fire, this code and the schema
disagree, or somebody went around us; then the batch is done again with a SAVEPOINT for each append,
so that only the guilty one fails. Any other error ends the whole batch: SQLite has rolled back, and
going on would commit the rest one by one.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from attrs import Factory, define

from carstore.canonical import loads_trusted
from carstore.chain import GENESIS, Frame, frame, link
from carstore.clock import Clock
from carstore.codec import Encoded, encode, with_prev
from carstore.errors import (
    CarstoreError,
    CorruptLog,
    LeaseLost,
    SchemaTooNew,
    StaleFence,
    StateConflict,
    VersionConflict,
)
from carstore.log import NOTHING, Appended, Entry, Expect, Fence, LeaseIs
from carstore.names import (
    FencingToken,
    LeaseName,
    Micros,
    Position,
    RunId,
    StreamName,
    lease_of,
)
from carstore.sqlite.migrations import SCHEMA
from carstore.sqlite.statements import SQL

EPOCH_SHIFT = 40
"""Bits of a fencing token that hold the position: 2^40 events are a century at 300 a second."""

_Row = tuple[int, int, int, str, int, int, str | None, str | None, str | None, str | None,
             int | None, str, str, str]  # fmt: skip


class Prepared(NamedTuple):
    """One event of an append, as far as it can be made before its place is known."""

    stream: StreamName
    run_id: RunId | None
    encoded: Encoded
    frame: Frame | None
    """None if the data is not whole yet."""


def prepare(entry: Entry) -> Prepared:
    """Encode an entry, on the caller's side of the queue.

    Raises:
        InvalidEvent: if the event holds what its class does not allow.
    """
    stream, event, run_id = entry
    encoded = encode(event)
    kind, schema_version, scope, key, data, rest = encoded
    whole = None
    if rest is None:
        whole = frame(stream, kind, schema_version, run_id, scope, key, data)
    return Prepared(stream, run_id, encoded, whole)


@define
class Submission:
    """An append on its way: what to write, under which conditions, and what became of it."""

    entries: Sequence[Prepared]
    expect: Expect
    outcome: Appended | CarstoreError | None = None


@define
class _Stream:
    stream_id: int
    version: int
    lease: LeaseName | None


@define
class _Transaction:
    """What is known of the log inside one transaction, and what will be added to it."""

    connection: sqlite3.Connection
    path: str
    now: int
    position: int
    prev_hash: str
    streams: dict[StreamName, _Stream] = Factory(dict)
    key_heads: dict[tuple[str, str], int | None] = Factory(dict)
    leases: dict[LeaseName, tuple[int | None, int | None] | None] = Factory(dict)
    new_streams: list[tuple[int, str, str | None]] = Factory(list)
    rows: list[_Row] = Factory(list)

    # --- what the file says ---

    def look_up(self, batch: Sequence[Submission]) -> None:
        """Read what the appends of `batch` depend on, each kind of thing with one statement."""
        streams = {entry.stream for submission in batch for entry in submission.entries}
        streams.update(*[submission.expect.versions for submission in batch])
        for name in streams:
            self.streams[name] = _Stream(0, 0, lease_of(name))
        for name, *found in self._all("stream_heads", streams):
            self.streams[name] = _Stream(*found)
        leases = {stream.lease for stream in self.streams.values() if stream.lease}
        leases.update(
            condition.lease for submission in batch for condition in submission.expect.leases
        )
        if leases:
            self.leases = dict.fromkeys(leases)
            for lease, token, expires_at in self._all("lease_heads", leases):
                self.leases[lease] = (token, expires_at)
        keys = {
            (encoded.scope or "", encoded.key or "")
            for submission in batch
            for _, _, encoded, _ in submission.entries
            if encoded.rest is not None
        }
        keys.update(
            (scope, key) for submission in batch for scope, key, _ in submission.expect.unchanged
        )
        if keys:
            for scope, key, newest in self._all("key_heads", keys):
                self.key_heads[scope, key] = newest

    def _all(self, statement: str, names: Iterable[Any]) -> sqlite3.Cursor:
        return self.connection.execute(SQL[statement], (json.dumps(list(names)),))

    # --- judging: raises, and changes nothing ---

    def judge(self, submission: Submission) -> None:
        expect = submission.expect
        fence = expect.fence
        for entry in submission.entries:
            lease = self.streams[entry[0]].lease
            if lease is not None:
                self._judge_fence(lease, fence if fence and fence.lease == lease else None)
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

    def _judge_fence(self, lease: LeaseName, fence: Fence | None) -> None:
        if fence is not None and fence.token is None:
            return  # granted by this very append
        granted = self.leases[lease]
        presented = fence.token if fence else None
        if presented == granted[0] is not None if granted else presented is None:
            return
        current = FencingToken(granted[0]) if granted and granted[0] is not None else None
        raise StaleFence(lease, presented, current)

    # --- planning: cannot fail ---

    def plan(self, submission: Submission) -> None:
        first, now = self.position + 1, self.now
        position, prev_hash = self.position, self.prev_hash
        fence = submission.expect.fence
        for stream_name, run_id, encoded, whole in submission.entries:
            kind, schema_version, scope, key, data, rest = encoded
            stream = self.streams[stream_name]
            if stream.stream_id == 0:
                self._begin_stream(stream_name, stream)
            position += 1
            version = stream.version = stream.version + 1
            if rest is not None:
                data = with_prev(encoded, self.key_heads[scope or "", key or ""])
                self.key_heads[scope or "", key or ""] = position
            elif kind.startswith("lease_"):
                fence = self._follow_lease(encoded, position, fence)
            name, token = fence if fence and fence.lease == stream.lease else (None, None)
            whole = whole or frame(stream_name, kind, schema_version, run_id, scope, key, data)
            digest = link(prev_hash, position, version, now, name, token, whole)
            self.rows.append(
                (position, stream.stream_id, version, kind, schema_version, now, run_id, scope, key,
                 name, token, data, prev_hash, digest)
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
            (epoch, _) = self.connection.execute(SQL["epoch"]).fetchone()
            token = FencingToken((epoch << EPOCH_SHIFT) + position)
            self.leases[lease] = (token, self.now + data["ttl_us"])
            return Fence(lease, token) if fence == (lease, None) else fence
        for renewed in data["leases"] if encoded.kind == "lease_renewed" else [data]:
            token, expires_at = self.leases.get(renewed["lease"]) or (None, None)
            if token == renewed["token"]:
                self.leases[renewed["lease"]] = (
                    (token, max(expires_at or 0, self.now + data["ttl_us"]))
                    if encoded.kind == "lease_renewed"
                    else (None, None)
                )
        return fence

    # --- writing ---

    def write(self) -> None:
        """Insert what was planned since the last call."""
        self.connection.executemany(SQL["insert_stream"], self.new_streams)
        self.connection.executemany(SQL["insert_event"], self.rows)
        self.new_streams.clear()
        self.rows.clear()


def commit_batch(
    connection: sqlite3.Connection, batch: Sequence[Submission], clock: Clock, path: str
) -> None:
    """Judge and write `batch` in one transaction, and leave the outcome on each submission.

    Raises:
        sqlite3.Error: the whole batch failed and nothing of it was written.
    """
    try:
        _run(connection, batch, clock, path, one_by_one=False)
    except sqlite3.IntegrityError:
        for submission in batch:
            submission.outcome = None
        _run(connection, batch, clock, path, one_by_one=True)


def begin(connection: sqlite3.Connection, path: str, clock: Clock) -> _Transaction:
    """The state of the log at the start of a transaction that holds the write lock."""
    (found,) = connection.execute(SQL["schema"]).fetchone()
    if found != SCHEMA:
        raise SchemaTooNew(path, found, SCHEMA)
    position, digest = connection.execute(SQL["head"]).fetchone() or (0, GENESIS)
    return _Transaction(connection, path, clock.now(), position, digest)


def _run(
    connection: sqlite3.Connection,
    batch: Sequence[Submission],
    clock: Clock,
    path: str,
    *,
    one_by_one: bool,
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        transaction = begin(connection, path, clock)
        transaction.look_up(batch)
        for submission in batch:
            try:
                transaction.judge(submission)
            except CarstoreError as refused:
                submission.outcome = refused
                continue
            if one_by_one:
                transaction = _append_alone(transaction, submission, batch, clock)
            else:
                transaction.plan(submission)
        transaction.write()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _append_alone(
    transaction: _Transaction,
    submission: Submission,
    batch: Sequence[Submission],
    clock: Clock,
) -> _Transaction:
    """Write one append of a batch by itself; if a trigger refuses it, only this one fails."""
    connection = transaction.connection
    connection.execute("SAVEPOINT append")
    try:
        transaction.plan(submission)
        transaction.write()
    except sqlite3.IntegrityError as error:
        connection.execute("ROLLBACK TO append")
        connection.execute("RELEASE append")
        submission.outcome = CorruptLog(transaction.path, f"the file refused an append: {error}")
        again = begin(connection, transaction.path, clock)
        again.look_up(batch)
        return again
    connection.execute("RELEASE append")
    return transaction
