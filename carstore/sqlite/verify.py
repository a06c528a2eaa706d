"""Whether a file still holds what was written to it, and nothing else.

The log is read in pages, each in a short transaction of its own: what was appended does not change,
so the pages belong together, and nobody waits for a check. Only the end, with what must agree with
the last event, is read at one moment.

A damaged file answers with errors, rows out of order, or rows of any shape. All of these become
problems, and none ends the check before its time: a page that cannot be read is read again row by
row. What is left unchecked is said.

The codes of the problems:

    gap, unreadable         an event is missing, or cannot be read
    chain, hash             an event does not continue the one before it, or is not what was hashed
    version, stream         its place in its stream, or the stream
    unknown_event           a kind or schema version this program does not know
    invalid_event, not_canonical, state_key, prev
                            what an event says, and how it is written
    fence, token, epoch     an append under a token that was not current; tokens that do not grow
    leases                  the table is not what the events make of it
    schema                  a table, view, index or trigger is not that of schema.sql
    integrity               SQLite itself finds the file damaged
    head_mismatch, log_shorter_than_head
                            the log is not the one whose head was kept elsewhere
    too_many                there were more problems than are told
"""

import re
import sqlite3
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as quote_uri

from attrs import define

from carstore.errors import CarstoreError
from carstore.log import Head
from carstore.names import StreamName, lease_of
from carstore.sqlite.audit import Audit, Enough, LeaseFold
from carstore.sqlite.statements import parse_named, schema_text, split
from carstore.verification import Verification

if TYPE_CHECKING:
    from carstore.store import Store

PAGE_ROWS = 1000
"""Rows checked in one go on the reader's thread, about ten milliseconds."""

Progress = Callable[[int, int], None]
"""Called with the position reached and the last one, after each page."""

_SQL = parse_named((resources.files("carstore.sqlite") / "verify.sql").read_text(encoding="utf-8"))


async def verify(
    store: "Store", *, head: Head | None = None, progress: Progress | None = None
) -> Verification:
    """Check the whole of an open store, while it may go on being used.

    Args:
        head: what `carstore head` said once, kept outside of the file.
    """
    check = _Check(Audit(head))
    try:
        await store.database.read(check.begin)
        while await store.database.read(check.page):
            if progress is not None:
                progress(check.audit.position, check.last)
        await store.database.read(check.finish)
        await store.database.read(check.integrity)
    except Enough:
        pass
    except CarstoreError as error:
        check.failed(error.message)
    return check.outcome()


def verify_file(
    path: str, *, head: Head | None = None, progress: Progress | None = None
) -> Verification:
    """The same for a file that nobody has open here: also one too damaged for `connect`."""
    check = _Check(Audit(head))
    try:
        connection = _open(path)
    except sqlite3.Error as error:
        check.failed(f"{path} cannot be read: {error}")
        return check.outcome()
    try:
        check.begin(connection)
        while check.page(connection):
            if progress is not None:
                progress(check.audit.position, check.last)
        check.finish(connection)
        check.integrity(connection)
    except Enough:
        pass
    except sqlite3.Error as error:
        check.failed(str(error))
    finally:
        connection.close()
    return check.outcome()


def _open(path: str) -> sqlite3.Connection:
    """A connection that cannot write. In a folder that cannot be written there is no room for what
    a WAL needs, and if there is none, the file is read as it stands."""
    first: sqlite3.Error | None = None
    for extra in ("", "&immutable=1"):
        connection = sqlite3.connect(
            f"file:{quote_uri(path)}?mode=ro{extra}", uri=True, isolation_level=None
        )
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            connection.close()
            first = first or error
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_NOTADB"):
                break
        else:
            return connection
    assert first is not None
    raise first


@define
class _Check:
    audit: Audit
    last: int = 0
    _after: int = 0

    def outcome(self) -> Verification:
        problems = tuple(self.audit.problems)
        return Verification(not problems, self.audit.head, problems)

    def failed(self, reason: str) -> None:
        """Note that the file as a whole cannot be read any further."""
        try:
            self.audit.problem(None, "unreadable", reason)
        except Enough:
            pass

    def begin(self, connection: sqlite3.Connection) -> None:
        self._schema(connection)
        rows = self._rows(connection, "last_position")
        if rows and isinstance(rows[0][0], int):
            self.last = rows[0][0]

    def page(self, connection: sqlite3.Connection) -> bool:
        """Check the next rows. Returns whether there may be more."""
        try:
            rows = connection.execute(_SQL["rows_after"], (self._after, PAGE_ROWS)).fetchall()
        except sqlite3.Error:
            return self._row_by_row(connection)
        for row in rows:
            self.audit.row(row)
        if not rows:
            return False
        if rows[-1][0] <= self._after:
            self.failed(f"the rows after position {self._after} are out of order")
            return False
        self._after = rows[-1][0]
        return True

    def finish(self, connection: sqlite3.Connection) -> None:
        """Check what must agree with the last event, at one moment."""
        connection.execute("BEGIN")
        try:
            while self.page(connection):
                pass
            self.audit.ended()
            self._streams(connection)
            self._leases(connection)
        finally:
            connection.execute("ROLLBACK")

    def integrity(self, connection: sqlite3.Connection) -> None:
        for (said,) in self._rows(connection, "integrity"):
            if said != "ok":
                self.audit.problem(None, "integrity", f"SQLite: {said}")

    # --- reading what may be damaged ---

    def _row_by_row(self, connection: sqlite3.Connection) -> bool:
        """Check the rows of a page that cannot be read as one. A page of which nothing can be read
        ends the check: there may be no end to it."""
        first, found, failing = self._after + 1, 0, False
        for position in range(first, first + PAGE_ROWS):
            try:
                rows = connection.execute(_SQL["row_at"], (position,)).fetchall()
            except sqlite3.Error as error:
                if not failing:
                    self.audit.unreadable(position, str(error))
                self.audit.position, failing = position, True
                continue
            failing = False
            for row in rows:
                self.audit.row(row)
                found += 1
        self._after += PAGE_ROWS
        if not found and self._after < self.last:
            self.failed(f"events {first} to {self._after} cannot be read; the check ended here")
        return found > 0

    def _rows(self, connection: sqlite3.Connection, statement: str) -> list[tuple[Any, ...]]:
        try:
            return connection.execute(_SQL[statement]).fetchall()
        except sqlite3.Error as error:
            code = "schema" if statement == "objects" else "integrity"
            self.audit.problem(None, code, f"SQLite: {error}")
            return []

    # --- what must agree with the events ---

    def _streams(self, connection: sqlite3.Connection) -> None:
        for number, (stream_id, name, lease) in enumerate(self._rows(connection, "streams"), 1):
            if stream_id != number or not isinstance(name, str):
                self.audit.problem(
                    None, "stream", f"stream {number}: found {stream_id!r:.40}, {name!r:.100}"
                )
                return
            if lease != lease_of(StreamName(name)):
                self.audit.problem(
                    None, "stream", f"stream {name!r:.100} names the lease {lease!r:.100}"
                )

    def _leases(self, connection: sqlite3.Connection) -> None:
        folded = dict(self.audit.leases)
        for name, *found in self._rows(connection, "leases"):
            expected = folded.pop(name, None)
            if expected is None:
                self.audit.problem(
                    None, "leases", f"lease {name!r:.100} is in the table, but was never granted"
                )
            elif not _same(expected, found):
                self.audit.problem(
                    expected.position,
                    "leases",
                    f"lease {name!r:.100} is not what event {expected.position} made of it",
                )
        for name, missing in folded.items():
            self.audit.problem(
                missing.position, "leases", f"lease {name!r:.100} is missing in the table"
            )

    def _schema(self, connection: sqlite3.Connection) -> None:
        expected = _expected_objects()
        tables = {name for _, name in expected}
        for kind, name, table, sql in self._rows(connection, "objects"):
            wanted = expected.get((kind, name))
            if wanted is not None and wanted != sql:
                self._schema_problem(f"{kind} {name} is not that of schema.sql")
            elif wanted is None and kind in ("trigger", "index") and table in tables:
                self._schema_problem(f"{kind} {name!r:.100} on {table} is not in schema.sql")
        ...
