"""Whether a file still holds what was written to it, and nothing else.

The log is read in pages, each in a short transaction of its own: what was appended does not change,
so the pages belong together, and nobody waits for a check. Only its end, with what must agree with
the last event, is read at one moment.

A damaged file answers with errors, with rows out of order, or with rows of any shape. All of these
become problems: a page that cannot be read is read again row by row, and what is left unchecked is
said. The codes of the problems:

    gap, unreadable         an event is missing, or cannot be read
    chain, hash             an event does not continue the one before, or is not what was hashed
    version, stream         its place in its stream, or the stream itself
    unknown_event           a kind or a schema version that this program does not know
    invalid_event, not_canonical, state_key, prev
                            what an event says, and how it is written
    fence, token, epoch     an append under a token that was not current; tokens that do not grow
    leases                  the table is not what the events make of it
    blob                    a value beside the log is missing, changed, or there though forgotten
    schema                  a table, view, index or trigger is not that of schema.sql
    integrity               SQLite itself finds the file damaged
    head_mismatch, log_shorter_than_head
                            the log is not the one whose head was kept elsewhere
    too_many                there are more problems than are told
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import Factory, define

from carstore.log import Head
from carstore.names import StreamName, lease_of
from carstore.sqlite import wal
from carstore.sqlite.audit import Audit, Enough
from carstore.sqlite.blob_audit import body_amiss
from carstore.sqlite.migrations import APPLICATION_ID, SCHEMA
from carstore.sqlite.objects import has_blobs, objects_amiss
from carstore.sqlite.readonly import READ_ERRORS, open_readonly, open_tolerant
from carstore.sqlite.scan import VERIFY, Unreadable, read_page
from carstore.verification import Verification

if TYPE_CHECKING:
    from carstore.store import Store

PAGE_ROWS = 1000
"""Rows checked in one go on the reader's thread, about ten milliseconds."""

PAGE_BYTES = 1_000_000
"""The same for values beside the log, which may be large."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the position reached and the last one, after each page."""

_Step: TypeAlias = Callable[[sqlite3.Connection], None]


async def verify(
    store: "Store", *, head: Head | None = None, progress: Progress | None = None
) -> Verification:
    """Check the whole of an open store, which may go on being used.

    Args:
        head: what the head was at some time, kept outside of the file.

    Raises:
        Closed: the store was closed meanwhile.
    """
    check = _Check(Audit(head))
    for step in check.steps():
        await store.database.read(step)
        if progress is not None:
            progress(check.audit.position, check.last)
    return check.outcome()


def verify_file(
    path: str | os.PathLike[str], *, head: Head | None = None, progress: Progress | None = None
) -> Verification:
    """The same for a file too damaged for `connect`. Nothing is written to it."""
    check = _Check(Audit(head))
    try:
        connection = _open(os.fspath(path), check)
    except READ_ERRORS:
        return check.outcome()
    try:
        for step in check.steps():
            step(connection)
            if progress is not None:
                progress(check.audit.position, check.last)
    finally:
        connection.close()
    return check.outcome()


def _open(path: str, check: "_Check") -> sqlite3.Connection:
    """A file that SQLite refuses is a problem; what is wrong with the events may still be told.

    Raises:
        READ_ERRORS: nothing more can be told.
    """
    try:
        return open_readonly(path)
    except READ_ERRORS as error:
        check.audit.problem(None, "unreadable", f"the file cannot be read: {error}")
    return open_tolerant(path, with_wal=wal.holds_something(path))


@define
class _Check:
    """A check in steps, each one job for a connection, and what it found so far."""

    audit: Audit
    last: int = 0
    """The last position, as far as it is known."""
    _after: int = 0
    _after_blob: str = ""
    _stored: set[str] = Factory(set)
    """The hashes of all values beside the log."""
    _more: bool = True
    _given_up: bool = False

    def outcome(self) -> Verification:
        return Verification(
            ok=not self.audit.problems, head=self.audit.head, problems=tuple(self.audit.problems)
        )

    def failed(self, reason: str) -> None:
        """Note that the log cannot be read any further.

        Raises:
            Enough
        """
        self._more, self._given_up = False, True
        self.audit.problem(None, "unreadable", reason)

    def steps(self) -> Iterator[_Step]:
        """Each is to be taken before the next one is asked for; none raises."""
        yield self._guarded(self._begin)
        while self._more:
            yield self._guarded(self._page)
        yield self._guarded(self._end)
        self._more = True
        while self._more:
            yield self._guarded(self._bodies)
        yield self._guarded(self._integrity)

    def _guarded(self, step: _Step) -> _Step:
        def guarded(connection: sqlite3.Connection) -> None:
            if self.audit.is_full:
                self._more = False
                return
            with suppress(Enough):
                try:
                    step(connection)
                except READ_ERRORS as error:
                    self.failed(f"SQLite: {error}")

        return guarded

    # --- the steps ---

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._identity(connection)
        self._schema(connection)
        for (last,) in self._rows(connection, "last_position") or ():
            self.last = last if isinstance(last, int) else 0

    def _page(self, connection: sqlite3.Connection) -> None:
        """Check the next rows, and notice when there are no more."""
        page = read_page(connection, self._after, PAGE_ROWS, self.last)
        failing = False
        for item in page.items:
            if isinstance(item, Unreadable):
                self.audit.unreadable(item.position, item.error, again=failing)
            else:
                self.audit.row(item)
            failing = isinstance(item, Unreadable)
        self._after, self._more = page.after, page.more
        if page.given_up is not None:
            self.failed(page.given_up)

    def _end(self, connection: sqlite3.Connection) -> None:
        """Check, at one moment, what was appended meanwhile and what must agree with it."""
        connection.execute("BEGIN")
        try:
            self._more = not self._given_up
            while self._more:
                self._page(connection)
            self.audit.ended()
            self._streams(connection)
            self._leases(connection)
            self._blobs(connection)
        finally:
            connection.execute("ROLLBACK")

    def _integrity(self, connection: sqlite3.Connection) -> None:
        for (said,) in self._rows(connection, "integrity") or ():
            if said != "ok":
                self.audit.problem(None, "integrity", f"SQLite: {said}")

    def _rows(self, connection: sqlite3.Connection, statement: str) -> list[tuple[Any, ...]] | None:
        """All rows of a statement; None if they cannot be read, which is a problem then."""
        try:
            return connection.execute(VERIFY[statement]).fetchall()
        except READ_ERRORS as error:
            self.audit.problem(None, "unreadable", f"SQLite: {error}")
            return None

    # --- what must agree with the events ---

    def _streams(self, connection: sqlite3.Connection) -> None:
        rows = self._rows(connection, "streams") or ()
        for number, (stream_id, name, lease) in enumerate(rows, 1):
            if stream_id != number or not isinstance(name, str):
                self.audit.problem(
                    None,
                    "stream",
                    f"the stream with the number {number} is missing: "
                    f"{stream_id}, {name!r:.100}, comes next",
                )
                return
            if lease != lease_of(StreamName(name)):
                self.audit.problem(
                    None,
                    "stream",
                    f"stream {name!r:.100} names the lease {lease!r:.100}, not "
                    f"{lease_of(StreamName(name))!r:.100}",
                )

    def _leases(self, connection: sqlite3.Connection) -> None:
        folded, rows = dict(self.audit.leases.rows), self._rows(connection, "leases")
        if rows is None:
            return
        for name, *found in rows:
            expected = folded.pop(name, None)
            if expected is None:
                self.audit.problem(None, "leases", f"lease {name!r:.100} was never granted")
            elif tuple(found) != expected.as_stored():
                self.audit.problem(
                    expected.position,
                    "leases",
                    f"lease {name!r:.100} is not what event {expected.position} made of it",
                )
        for name, missing in folded.items():
            self.audit.problem(
                missing.position,
                "leases",
                f"lease {name!r:.100} is missing, though event {missing.position} is about it",
            )

    def _identity(self, connection: sqlite3.Connection) -> None:
        (mark,) = connection.execute(VERIFY["application_id"]).fetchone()
        (schema,) = connection.execute(VERIFY["schema_number"]).fetchone()
        if mark != APPLICATION_ID:
            self.audit.problem(None, "schema", "the file is not marked as a carstore database")
        elif not 1 <= schema <= SCHEMA:
            self.audit.problem(None, "schema", f"the file says that its schema is {schema}")

    def _schema(self, connection: sqlite3.Connection) -> None:
        try:
            for said in objects_amiss(connection):
                self.audit.problem(None, "schema", said)
        except READ_ERRORS as error:
            self.audit.problem(None, "schema", f"SQLite: {error}")

    def _blobs(self, connection: sqlite3.Connection) -> None:
        """Compare what is stored with what the events refer to; the values themselves come later,
        since they may be many and large."""
        stored = self._rows(connection, "stored_blobs") if has_blobs(connection) else []
        if stored is None:
            return
        self._stored = {blob for (blob,) in stored}
        for problem in self.audit.blobs.compared(self._stored):
            self.audit.problem(problem.position, problem.code, problem.message)

    def _bodies(self, connection: sqlite3.Connection) -> None:
        """Check the next values."""
        self._more = False
        if not has_blobs(connection):
            return
        read = 0
        for blob, nonce, body in connection.execute(VERIFY["blobs_after"], (self._after_blob,)):
            amiss = body_amiss(blob, nonce, body) or self.audit.blobs.missing_in(body, self._stored)
            if amiss is not None:
                position = self.audit.blobs.referred.get(blob)
                self.audit.problem(position, "blob", amiss)
            if not isinstance(blob, str) or blob <= self._after_blob:
                self.failed("the values beside the log are out of order")
                return
            self._after_blob = blob
            read += len(body) if isinstance(body, bytes) else 0
            if read >= PAGE_BYTES:
                self._more = True
                return
