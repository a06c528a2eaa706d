"""A SQLite file that keeps a consumer's rows and its cursor (`carstore.consumer.Sink`)."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote as quote_uri

import aiosqlite
from attrs import frozen

from carstore.consumer import Cursor
from carstore.errors import NotFound, TransactionEnded
from carstore.log import Recorded
from carstore.sqlite.database import BUSY_TIMEOUT_MS, translate
from carstore.sqlite.jobs import JobConnection, open_connection, run_job
from carstore.sqlite.statements import SQL

Apply = Callable[[sqlite3.Connection, Recorded], None]

_Result = TypeVar("_Result")


class _SinkConnection(JobConnection):
    """Refuses to begin or end a transaction while `apply` has it; and everything, should SQLite
    have ended it: what is written after that would be kept without the cursor.

    It is asked when a statement is prepared, so none may be kept prepared from before.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.is_lent = False
        self.set_authorizer(self._authorize)

    def _authorize(self, action: int, *_: str | None) -> int:
        if self.is_lent and (action == sqlite3.SQLITE_TRANSACTION or not self.in_transaction):
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    def close(self) -> None:
        if self.is_lent:
            raise sqlite3.ProgrammingError("the connection is the consumer's, which closes it")
        super().close()


@frozen
class _Raised:
    """What `apply` raised; not to be taken for an error of this module."""

    error: Exception


class SqliteSink:
    """Made by `open_sink`."""

    def __init__(self, path: str, connection: aiosqlite.Connection) -> None:
        self._path = path
        self._connection = connection

    async def load(self, consumer: str) -> Cursor | None:
        return await self._run(partial(_load, consumer=consumer))

    async def apply(
        self,
        consumer: str,
        batch: Sequence[Recorded],
        apply: Apply,
        *,
        seen: Cursor | None,
        to: Cursor,
    ) -> Cursor | None:
        found = await self._run(
            lambda connection: _apply(connection, consumer, batch, apply, seen, to)
        )
        if isinstance(found, _Raised):
            raise found.error
        return found

    async def close(self) -> None:
        await self._connection.close()

    async def _run(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            return await run_job(self._connection, job)
        except sqlite3.Error as error:
            raise translate(error, self._path, BUSY_TIMEOUT_MS) from error


async def open_sink(path: str | os.PathLike[str], *, log: str) -> SqliteSink:
    """Open, and if need be make, the file of a consumer.

    Args:
        log: the file of the log that is consumed.

    Raises:
        ValueError: the two are the same.
        NotFound: there is no such folder.
        Busy, ReadOnly, NotADatabase, DiskFull, StoreFailed
    """
    name = _checked(path, log)
    uri = f"file:{quote_uri(name)}?mode=rwc"
    try:
        connection = await open_connection(
            uri, BUSY_TIMEOUT_MS, _SinkConnection, cached_statements=0
        )
    except sqlite3.Error as error:
        raise translate(error, name, BUSY_TIMEOUT_MS) from error
    sink = SqliteSink(name, connection)
    try:
        await sink._run(_prepare)
    except BaseException:
        await sink.close()
        raise
    return sink


def _checked(path: str | os.PathLike[str], log: str) -> str:
    name = os.path.abspath(path)
    is_log = os.path.realpath(name) == os.path.realpath(log)
    if not is_log and os.path.exists(name) and os.path.exists(log):
        is_log = os.path.samefile(name, log)  # by a hard link
    if is_log:
        raise ValueError(f"{name} is the log itself; a consumer keeps its rows in another file")
    folder = os.path.dirname(name)
    if not os.path.isdir(folder):
        raise NotFound("folder", folder, f"Make it before opening {name}.")
    return name


def _prepare(connection: sqlite3.Connection) -> None:
    """A new file gets a WAL, so that others can read while it is written; another one keeps what
    it has."""
    connection.execute("PRAGMA synchronous = FULL")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if pages == 0:
        connection.execute("PRAGMA journal_mode = WAL")
    if connection.execute(SQL["has_cursors"]).fetchone() is None:
        connection.execute(SQL["create_cursors"])


def _load(connection: sqlite3.Connection, consumer: str) -> Cursor | None:
    row = connection.execute(SQL["cursor"], (consumer,)).fetchone()
    return None if row is None else Cursor(*row)


def _apply(
    connection: sqlite3.Connection,
    consumer: str,
    batch: Sequence[Recorded],
    apply: Apply,
    seen: Cursor | None,
    to: Cursor,
) -> Cursor | _Raised | None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _load(connection, consumer)
        if found != seen:
            connection.execute("ROLLBACK")
            return found
        connection.execute(SQL["move_cursor"], (consumer, to.log_id, to.position, to.hash))
        raised = _apply_each(connection, consumer, batch, apply)
        if raised is None:
            connection.execute("COMMIT")
            return to
    except BaseException:
        _undo(connection)
        raise
    _undo(connection)
    return raised


def _undo(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _apply_each(
    connection: sqlite3.Connection, consumer: str, batch: Sequence[Recorded], apply: Apply
) -> _Raised | None:
    assert isinstance(connection, _SinkConnection)
    connection.is_lent = True
    try:
        for recorded in batch:
            try:
                apply(connection, recorded)
            except Exception as error:  # noqa: BLE001 - it is raised where `apply` came from
                error.add_note(f"while event {recorded.position}, {recorded.kind}, was applied")
                if not connection.in_transaction:
                    error.add_note(TransactionEnded.cause)
                return _Raised(error)
            if not connection.in_transaction:
                return _Raised(TransactionEnded(consumer, recorded.position, recorded.kind))
    finally:
        connection.is_lent = False
    return None
