"""How a copy begins a life of its own.

The copy keeps the chain of its origin as it is; what makes it another log comes after that, in one
transaction: an epoch with a new id, so that all tokens granted here are larger than any that the
origin granted up to here; the release of every lease, since whoever holds one holds it in the
origin; and, for each unfinished run, a pause that only a person ends, because the origin may have
gone on with that run, or still does.
"""

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from importlib import resources

from carstore.blobs import blob_stream, references_in_text
from carstore.clock import Clock
from carstore.errors import CorruptLog, run_id_of
from carstore.events import BlobForgotten, LeaseGranted, LeaseReleased, LogEpochStarted, RunPaused
from carstore.holders import Holder
from carstore.leases import TTL_US
from carstore.log import NOTHING, Entry, Expect, Fence, Head, Recorded
from carstore.names import (
    FencingToken,
    LeaseName,
    LogId,
    Position,
    RunId,
    StreamName,
    inbox_stream,
    lease_stream,
    run_lease,
    run_stream,
)
from carstore.origin import Cause, Life, OpenRun, OpenRuns, Origin
from carstore.redaction import Redaction
from carstore.sqlite.prepare import prepare
from carstore.sqlite.statements import SQL, parse_named
from carstore.sqlite.transaction import EPOCH_SHIFT, Transaction
from carstore.sqlite.transaction import begin as begin_transaction

LOG_STREAM = StreamName("log")

COPIES = parse_named((resources.files("carstore.sqlite") / "copies.sql").read_text("utf-8"))
"""The statements of `copies.sql` by name."""


def begin_life(
    connection: sqlite3.Connection,
    path: str,
    *,
    cause: Cause,
    origin_path: str | None,
    open_runs: OpenRuns,
    clock: Clock,
    holder: Holder,
) -> Life:
    """Make the file behind `connection`, which holds a log or the beginning of one, a log of its
    own. The file is of the newest schema, nobody else has it open, and no transaction is under way.

    Args:
        path: what the file is called in errors.
        cause: how it was made.
        origin_path: the file it was made from.
        open_runs: says of a run whether it is unfinished, and what is open about it.
        holder: who makes it; holds the leases of the unfinished runs for an instant.

    Raises:
        CorruptLog: there is no epoch that another could follow.
        sqlite3.Error: nothing was written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        begun = _Beginning(connection, begin_transaction(connection, path, clock), holder)
        life = begun.run(path, cause, origin_path, open_runs)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return life


class _Beginning:
    def __init__(
        self, connection: sqlite3.Connection, transaction: Transaction, holder: Holder
    ) -> None:
        self._connection = connection
        self._transaction = transaction
        self._holder = holder

    def run(self, path: str, cause: Cause, origin_path: str | None, open_runs: OpenRuns) -> Life:
        transaction = self._transaction
        origin = self._origin(path, origin_path)
        log_id, epoch = LogId(uuid.uuid4().hex), origin.epoch + 1
        event = LogEpochStarted(log_id=log_id, epoch=epoch, cause=cause, origin=origin.to_json())
        # What there is to release and to hold is read before anything is written.
        releases = [self._release(name, token) for name, token in self._leases()]
        forgotten = [self._forgotten(blob, cause) for blob in self._missing_blobs()]
        held = list(self._open_runs(open_runs))
        self._append([Entry(LOG_STREAM, event), *releases, *forgotten])
        for run_id, found in held:
            self._hold(run_id, found, epoch)
        return Life(
            log_id=log_id,
            epoch=epoch,
            origin=origin,
            held=tuple([run_id for run_id, _ in held]),
            head=Head(Position(transaction.position), transaction.prev_hash),
        )

    def _origin(self, path: str, origin_path: str | None) -> Origin:
        epoch, log_id = self._connection.execute(SQL["epoch"]).fetchone() or (None, None)
        if type(epoch) is not int or type(log_id) is not str:
            raise CorruptLog(path, "its epoch and id cannot be read")
        return Origin(
            log_id=LogId(log_id),
            epoch=epoch,
            position=Position(self._transaction.position),
            hash=self._transaction.prev_hash,
            path=origin_path,
        )

    def _append(self, entries: list[Entry], fence: Fence | None = None) -> None:
        expect = NOTHING if fence is None else Expect(fence=fence)
        submission = prepare(entries, expect, Redaction())
        self._transaction.look_up([submission])
        self._transaction.judge(submission)
        self._transaction.plan(submission)
        self._transaction.write()

    # --- leases ---

    def _leases(self) -> list[tuple[LeaseName, FencingToken]]:
        rows = self._connection.execute(SQL["lease_rows"])
        return [(LeaseName(name), FencingToken(token)) for name, token, *_ in rows]

    def _release(self, lease: LeaseName, token: FencingToken) -> Entry:
        event = LeaseReleased(lease=lease, token=token)
        return Entry(lease_stream(lease), event, run_id_of(lease))

    # --- values beside the log ---

    def _missing_blobs(self) -> list[str]:
        """Values that the events refer to, that the copy does not have, and of which it does not
        know why: they were forgotten in the origin after the position of the copy."""
        referred = referred_blobs(self._connection, self._transaction.position)
        rows = self._connection.execute(SQL["known_blobs"], (json.dumps(sorted(referred)),))
        return sorted(referred.difference([known for (known,) in rows]))

    def _forgotten(self, blob: str, cause: Cause) -> Entry:
        reason = "it was not there when this copy was made"
        event = BlobForgotten(hash=blob, reason=reason, by=f"carstore ({cause})")
        return Entry(blob_stream(blob), event)

    # --- runs ---

    def _open_runs(self, open_runs: OpenRuns) -> Iterator[tuple[RunId, OpenRun]]:
        for (name,) in self._connection.execute(COPIES["runs_without_end"]).fetchall():
            run_id = RunId(name)
            found = open_runs(run_id, self._history(run_id))
            if found is not None:
                yield run_id, found

    def _history(self, run_id: RunId) -> list[Recorded]:
        names = json.dumps([run_stream(run_id), inbox_stream(run_id)])
        rows = self._connection.execute(COPIES["history"], (names,))
        return [Recorded._make(row) for row in rows]

    def _hold(self, run_id: RunId, found: OpenRun, epoch: int) -> None:
        """Own the run for as long as it takes to say that it waits: its stream is fenced."""
        lease, stream = run_lease(run_id), run_stream(run_id)
        token = FencingToken((epoch << EPOCH_SHIFT) + self._transaction.position + 1)
        granted = LeaseGranted(
            lease=lease, holder=self._holder.to_json(), ttl_us=TTL_US, request_id=uuid.uuid4().hex
        )
        paused = RunPaused(reason="copied", waiting_for=list(found.waiting_for))
        self._append(
            [
                Entry(lease_stream(lease), granted, run_id),
                *[Entry(stream, doubt, run_id) for doubt in found.doubts],
                Entry(stream, paused, run_id),
                self._release(lease, token),
            ],
            Fence(lease, None),
        )


def referred_blobs(
    connection: sqlite3.Connection, until: int, bodies: str = "bodies_with_blobs"
) -> set[str]:
    """The hashes of all values that events up to `until` refer to, by themselves or through other
    values.

    Args:
        bodies: the statement that reads those values.
    """
    rows: Iterable[tuple[str]] = connection.execute(COPIES["data_with_blobs"], (until,))
    found: set[str] = set()
    further = {blob for (data,) in rows for blob in references_in_text(data)}
    while further:
        found |= further
        rows = connection.execute(COPIES[bodies], (json.dumps(sorted(further)),))
        further = {blob for (body,) in rows for blob in references_in_text(body)} - found
    return found


__all__ = ["COPIES", "begin_life", "referred_blobs"]
