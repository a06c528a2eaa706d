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
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote as quote_uri

from attrs import define

from carstore.log import Head
from carstore.names import StreamName, lease_of
from carstore.sqlite.audit import Audit, Enough
from carstore.sqlite.statements import parse_named, schema_text, split
from carstore.verification import Verification

if TYPE_CHECKING:
    from carstore.store import Store

PAGE_ROWS = 1000
"""Rows checked in one go on the reader's thread, about ten milliseconds."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the position reached and the last one, after each page."""

_Step: TypeAlias = Callable[[sqlite3.Connection], None]

# SQLite quotes names of the file in its messages; Python fails to read one that is no text.
_ERRORS = (sqlite3.Error, UnicodeDecodeError)

_SQL = parse_named((resources.files("carstore.sqlite") / "verify.sql").read_text(encoding="utf-8"))


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
        connection = _open(os.path.abspath(path))
    except _ERRORS as error:
        check.failed(f"the file cannot be read: {error}")
        return check.outcome()
    try:
        for step in check.steps():
            step(connection)
            if progress is not None:
                progress(check.audit.position, check.last)
    finally:
        connection.close()
    return check.outcome()


def _open(path: str) -> sqlite3.Connection:
    """A connection that cannot write. A file without a WAL in a folder that cannot be written is
    read as it stands: there is no room for the shared memory of a WAL."""
    try:
        return _connect(path, "")
    except _ERRORS:
        with suppress(FileNotFoundError):
            if os.stat(f"{path}-wal").st_size:
                raise
        return _connect(path, "&immutable=1")


def _connect(path: str, extra: str) -> sqlite3.Connection:
    uri = f"file:{quote_uri(path)}?mode=ro{extra}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = 1")
        connection.execute("PRAGMA schema_version").fetchone()
    except _ERRORS:
        connection.close()
        raise
    return connection


@define
class _Check:
    """A check in steps, each one job for a connection, and what it found so far."""

    audit: Audit
    last: int = 0
    """The last position, as far as it is known."""
    _after: int = 0
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
        yield self._guarded(self._integrity)

    def _guarded(self, step: _Step) -> _Step:
        def guarded(connection: sqlite3.Connection) -> None:
            if self.audit.is_full:
                self._more = False
                return
            with suppress(Enough):
                try:
                    step(connection)
                except _ERRORS as error:
                    self.failed(f"SQLite: {error}")

        return guarded

    # --- the steps ---

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._schema(connection)
        for (last,) in self._rows(connection, "last_position") or ():
            self.last = last if isinstance(last, int) else 0

    def _page(self, connection: sqlite3.Connection) -> None:
        """Check the next rows, and notice when there are no more."""
        try:
            rows = connection.execute(_SQL["rows_after"], (self._after, PAGE_ROWS)).fetchall()
        except _ERRORS:
            self._page_row_by_row(connection)
            return
        for row in rows:
            self.audit.row(row)
        if rows and rows[-1][0] <= self._after:
            self.failed(f"the events after position {self._after} are out of order")
        elif rows:
            self._after = rows[-1][0]
        else:
            self._more = False

    def _page_row_by_row(self, connection: sqlite3.Connection) -> None:
        """Check what can be read of a page that cannot be read as one. If that is nothing, the
        check of the log ends: the damage need not have an end."""
        first, found, failing = self._after + 1, False, False
        for position in range(first, first + PAGE_ROWS):
            try:
                rows = connection.execute(_SQL["row_at"], (position,)).fetchall()
            except _ERRORS as error:
                self.audit.unreadable(position, str(error), again=failing)
                failing = True
                continue
            failing = False
            for row in rows:
                self.audit.row(row)
                found = True
        self._after += PAGE_ROWS
        self._more = found
        if not found and self._after < self.last:
            self.failed(f"nothing after position {self._after} was checked")

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
        finally:
            connection.execute("ROLLBACK")

    def _integrity(self, connection: sqlite3.Connection) -> None:
        for (said,) in self._rows(connection, "integrity") or ():
            if said != "ok":
                self.audit.problem(None, "integrity", f"SQLite: {said}")

    def _rows(self, connection: sqlite3.Connection, statement: str) -> list[tuple[Any, ...]] | None:
        """All rows of a statement; None if they cannot be read, which is a problem then."""
        try:
            return connection.execute(_SQL[statement]).fetchall()
        except _ERRORS as error:
            code = "schema" if statement == "objects" else "unreadable"
            self.audit.problem(None, code, f"SQLite: {error}")
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

    def _schema(self, connection: sqlite3.Connection) -> None:
        """Compare what is ours, and whatever acts on it. Other tables and views are nobody's
        business: those of the lazy views, of the migrations, of the user."""
        expected, ours = _objects_of_schema_sql()
        missing, rows = dict(expected), self._rows(connection, "objects")
        if rows is None:
            return
        for kind, name, table, sql in rows:
            wanted = missing.pop((kind, name), None)
            if wanted is not None and sql != wanted:
                self.audit.problem(None, "schema", f"the {kind} {name} is not that of schema.sql")
            elif wanted is None and kind in ("trigger", "index") and table.lower() in ours:
                self.audit.problem(
                    None, "schema", f"the {kind} {name!r:.100} on {table} is not in schema.sql"
                )
        for kind, name in missing:
            self.audit.problem(None, "schema", f"the {kind} {name} of schema.sql is missing")


@cache
def _objects_of_schema_sql() -> tuple[dict[tuple[str, str], str], set[str]]:
    """The SQL of each object by its type and name, as SQLite keeps it; the tables and views."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in split(schema_text()):
            connection.execute(statement)
        rows = connection.execute(_SQL["objects"]).fetchall()
    finally:
        connection.close()
    found = {(kind, name): sql for kind, name, _, sql in rows}
    return found, {name for kind, name in found if kind in ("table", "view")}
