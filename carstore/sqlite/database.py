"""One SQLite file, opened so that it keeps its promises, and the threads that work on it.

Three connections: the writer, a reader that can never write, and one that checkpoints, off the path
of the appends; while somebody follows the log, a fourth one waits for changes. Each has a thread of
its own, which does whole functions (`carstore.sqlite.jobs`). No other SQLite library may open the
file in this process: the locks of a file belong to the process, and closing the file in one library
drops those of the other.
"""

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote as quote_uri

import aiosqlite

from carstore.errors import (
    Busy,
    CarstoreError,
    Closed,
    CorruptLog,
    DiskFull,
    NotADatabase,
    NotFound,
    ReadOnly,
    SchemaTooNew,
    StoreFailed,
)
from carstore.sqlite import wal
from carstore.sqlite.jobs import JobConnection, open_connection, run_job
from carstore.sqlite.migrations import APPLICATION_ID, SCHEMA, migrate
from carstore.sqlite.rights import kept, missing_right, refusal

Durability = Literal["power", "crash"]
"""What an acknowledged append survives: loss of power, or only the death of the process."""

BUSY_TIMEOUT_MS = 10_000
"""How long a write waits for other processes. Their transactions take milliseconds."""

_SYNCHRONOUS = {"power": 2, "crash": 1}
_PAUSE_MS = 5

_Result = TypeVar("_Result")


def translate(error: sqlite3.Error, path: str, busy_timeout_ms: int) -> CarstoreError:
    """The error of ours that says what an error of SQLite means here."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(path, busy_timeout_ms)
    if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):  # the latter: no room for the shared memory
        return DiskFull(path)
    if name.startswith("SQLITE_READONLY"):
        return ReadOnly(path)
    if name == "SQLITE_NOTADB":
        reason = f"{error}; if it was one, `carstore salvage` looks through its pages"
        return NotADatabase(path, reason)
    if name.startswith("SQLITE_CORRUPT"):
        return CorruptLog(path, str(error))
    if name == "SQLITE_CANTOPEN":
        return StoreFailed(path, "it cannot be opened")
    return StoreFailed(path, f"{error} ({name or type(error).__name__})")


class Database:
    """The open file. Made by `open_database`; `close` ends its threads."""

    def __init__(self, path: str, durability: Durability, busy_timeout_ms: int) -> None:
        self.path = path
        self.durability: Durability = durability
        self.busy_timeout_ms = busy_timeout_ms
        self.failure: CarstoreError | None = None
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._checkpointer: aiosqlite.Connection | None = None
        self._turns: wal.Turns | None = None
        self._tidies = False

    @property
    def writable(self) -> bool:
        return self._writer is not None

    async def write(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `job` on the writer's thread. It begins and ends its own transaction.

        Raises:
            Busy, DiskFull, StoreFailed, CorruptLog, ReadOnly, Closed
        """
        if self.failure:
            raise self.failure.again()
        if self._writer is None:
            raise Closed(self.path) if self._reader is None else ReadOnly(self.path)
        return await self.run(self._writer, job)

    async def read(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run `job` on the reader's thread. The connection refuses to write."""
        if self._reader is None:
            raise Closed(self.path)
        return await self.run(self._reader, job)

    async def fetch(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of one reading statement."""
        return await self.read(lambda connection: connection.execute(sql, parameters).fetchall())

    async def connect_reader(self) -> aiosqlite.Connection:
        """A further connection that cannot write, for `run`. Whoever asks for it closes it.

        Raises:
            Closed, Busy, CannotOpen, StoreFailed, CorruptLog
        """
        if self._reader is None:
            raise Closed(self.path)
        return await _open_reader(self, is_known=True)

    async def checkpoint(self) -> wal.Checkpoint:
        """Move what is in the WAL into the file, beside the writer and without waiting for it."""
        if self._checkpointer is None or self._turns is None:
            raise Closed(self.path)
        return await self.run(self._checkpointer, partial(self._turns.checkpoint, wait=True))

    async def empty_wal(self) -> wal.Checkpoint:
        """The same, then what was appended meanwhile, between two appends: so that the next one
        begins the WAL anew. If somebody who reads holds it back, it is left at the first step."""
        found = await self.checkpoint()
        if not found.is_whole or self._turns is None:
            return found
        return await self.write(partial(self._turns.checkpoint, wait=False))

    async def truncate_wal(self) -> bool:
        """Move all of the WAL into the file and cut it to nothing: what was deleted is then in
        neither. Returns whether that was done; whoever reads or writes for longer prevents it.

        Raises:
            Busy, ReadOnly, Closed, DiskFull, StoreFailed, CorruptLog
        """
        if self._turns is None:
            raise Closed(self.path) if self._reader is None else ReadOnly(self.path)
        await self.checkpoint()  # most of the work, while others write
        return await self.write(self._turns.truncate)

    async def rewrite(self) -> None:
        """Write the whole file anew. When SQLite merges two pages it moves their rows and may leave
        copies in what is then unused, which it does not overwrite when a row is deleted later.

        Raises:
            Busy, ReadOnly, Closed, DiskFull, StoreFailed, CorruptLog
        """
        await self.write(lambda connection: connection.execute("VACUUM").close())

    def wal_pages(self) -> int:
        """Pages in the WAL since it last began anew."""
        return wal.count_pages(self.path)

    async def close(self) -> None:
        """Close the connections, the writer last, so that it leaves a file without a WAL."""
        connections = (self._checkpointer, self._reader, self._writer)
        self._checkpointer = self._reader = self._writer = None
        for connection in connections:
            if connection is not None:
                await connection.close()
        if self._tidies:
            self._tidies = False
            await _tidy(self.path)

    async def run(
        self, connection: aiosqlite.Connection, job: Callable[[sqlite3.Connection], _Result]
    ) -> _Result:
        """Run `job` on the thread of one of the connections.

        Raises:
            Busy, DiskFull, StoreFailed, CorruptLog, ReadOnly
        """
        try:
            return await run_job(connection, job)
        except UnicodeDecodeError as error:
            # A text in the file, or in a message of SQLite that quotes it, is no text.
            raise CorruptLog(self.path, f"it holds a text that is none: {error}") from error
        except sqlite3.Error as error:
            translated = translate(error, self.path, self.busy_timeout_ms)
            if isinstance(translated, StoreFailed) and connection in (
                self._writer,
                self._checkpointer,
            ):
                self.failure = translated
            raise translated from error


async def open_database(
    path: str | os.PathLike[str],
    *,
    durability: Durability,
    create: bool,
    readonly: bool,
    busy_timeout_ms: int,
    begin: Callable[[sqlite3.Connection], None],
) -> Database:
    """Open, and if asked create, the file.

    Args:
        begin: writes the first event of a new log, inside the transaction that makes its schema.

    Raises:
        NotFound, CannotOpen, NotADatabase, SchemaTooNew, Busy, StoreFailed, CorruptLog
    """
    name = os.fspath(path)
    exists = _look_at(name, create)
    if exists and not readonly and (refused := kept(name)):
        raise refused
    database = Database(name, durability, busy_timeout_ms)
    database._tidies = readonly and not wal.exists(name)
    try:
        if not readonly:
            database._writer = await _connect(database, _uri(name, "rw" if exists else "rwc"))
            await database.write(lambda connection: _prepare(connection, database, begin))
            _sync_directory(name)  # the file may be new, and its WAL is whenever it was closed
            database._turns = wal.turns_of(name)
            database._checkpointer = await _connect(database, _uri(name, "rw"))
            await database.run(database._checkpointer, lambda c: _settings(c, database))
        database._reader = await _open_reader(database)
    except (StoreFailed, ReadOnly) as error:
        await database.close()
        refused = refusal(error, name, readonly=readonly)
        raise refused or error from error.__cause__
    except BaseException:
        await database.close()
        raise
    return database


def _look_at(name: str, create: bool) -> bool:
    file = Path(name)
    if file.is_dir():
        raise NotADatabase(name, "it is a folder")
    if not file.parent.is_dir():
        raise NotFound("folder", str(file.parent), f"Make it before opening {name}.")
    if not file.exists():
        if not create:
            raise NotFound("database", name, "`carstore run` makes one.")
        return False
    if file.stat().st_size == 0 and not create:
        raise NotADatabase(name, "it is empty")
    return True


async def _tidy(name: str) -> None:
    """Take away the empty WAL that reading has left: it is made for whoever reads, and only one who
    may write removes it. If anybody else has the file open, SQLite leaves it there."""
    if not wal.is_empty(name):
        return
    try:
        connection = await open_connection(_uri(name, "rw"), 0, JobConnection)
    except sqlite3.Error:
        return  # it may not be written: then the files stay, as docs/follow.md says
    with suppress(sqlite3.Error):
        await run_job(connection, lambda c: _pragma(c, "user_version"))
    await connection.close()


def _uri(name: str, mode: str, extra: str = "") -> str:
    return f"file:{quote_uri(os.path.abspath(name))}?mode={mode}{extra}"


async def _connect(database: Database, uri: str) -> aiosqlite.Connection:
    try:
        return await open_connection(uri, database.busy_timeout_ms, JobConnection)
    except sqlite3.Error as error:
        raise translate(error, database.path, database.busy_timeout_ms) from error


async def _open_reader(database: Database, *, is_known: bool = False) -> aiosqlite.Connection:
    """A connection that cannot write. A file in a place that cannot be written has no room for the
    shared memory of a WAL; if it has no WAL either, it is read as it stands.

    One that is known is not looked at again: a newer program may have migrated it since, and what
    is open goes on reading.
    """
    for extra in ("", "&immutable=1"):
        reader = await _connect(database, _uri(database.path, "ro", extra))
        try:
            await database.run(reader, _protect)
            if not is_known:
                await database.run(reader, lambda c: _check_readable(c, database.path))
        except (StoreFailed, ReadOnly):
            await reader.close()
            if extra or wal.holds_something(database.path):
                raise
        except BaseException:
            await reader.close()
            raise
        else:
            return reader
    raise AssertionError("unreachable")


def _protect(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA mmap_size = 0")
    _pragma(connection, "user_version")  # a first look, which finds out whether it can be read


def _check_readable(connection: sqlite3.Connection, path: str) -> None:
    _check_identity(connection, path)
    if _pragma(connection, "user_version") == 0:
        raise NotADatabase(path, "it has no carstore schema")


def _prepare(
    connection: sqlite3.Connection,
    database: Database,
    begin: Callable[[sqlite3.Connection], None],
) -> None:
    _check_identity(connection, database.path)
    _settings(connection, database)
    if _pragma(connection, "user_version") == SCHEMA:
        if missing_right(database.path, readonly=False):
            _try_to_write(connection)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _pragma(connection, "user_version")  # another process may have been faster
        if found > SCHEMA:
            raise SchemaTooNew(database.path, found, SCHEMA)
        if found < SCHEMA:
            migrate(connection)
        if found == 0:
            begin(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _try_to_write(connection: sqlite3.Connection) -> None:
    """SQLite opens what may not be written for reading only, and says so at the first write."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    finally:
        connection.execute("ROLLBACK")


def _check_identity(connection: sqlite3.Connection, path: str) -> None:
    # One snapshot: another process may be making the file at this moment.
    connection.execute("BEGIN")
    try:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        found = _pragma(connection, "user_version")
        ours = _pragma(connection, "application_id") == APPLICATION_ID
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")
    if not ours and tables:
        raise NotADatabase(path, "it holds tables of another program")
    if ours and found > SCHEMA:
        raise SchemaTooNew(path, found, SCHEMA)


def _settings(connection: sqlite3.Connection, database: Database) -> None:
    """Set what the promises rest on, and read it back: SQLite is silent about some failures."""
    _use_wal(connection, database.busy_timeout_ms)
    connection.execute(f"PRAGMA busy_timeout = {int(database.busy_timeout_ms)}")
    wanted: Iterable[tuple[str, str, Any]] = (
        ("journal_mode", "WAL", "wal"),
        ("synchronous", str(_SYNCHRONOUS[database.durability]), _SYNCHRONOUS[database.durability]),
        ("wal_autocheckpoint", "0", 0),
        ("journal_size_limit", str(wal.MAX_KEPT_BYTES), wal.MAX_KEPT_BYTES),
        ("mmap_size", "0", 0),
        ("secure_delete", "ON", 1),  # always: a value is also moved within the file, long before
    )
    for name, value, expected in wanted:
        connection.execute(f"PRAGMA {name} = {value}")
        found = _pragma(connection, name)
        if found != expected and not (name == "mmap_size" and found is None):
            raise StoreFailed(
                database.path, f"SQLite keeps {name} at {found!r} instead of {expected!r}"
            )
    if sys.platform == "darwin" and database.durability == "power":
        connection.execute("PRAGMA fullfsync = 1")
        connection.execute("PRAGMA checkpoint_fullfsync = 1")
    connection.execute("PRAGMA cache_size = -65536")


def _use_wal(connection: sqlite3.Connection, busy_timeout_ms: int) -> None:
    """Switch to a WAL, waiting here for others that do the same: two that want the file to
    themselves at once are told that it is busy, without the wait that was asked for."""
    connection.execute("PRAGMA busy_timeout = 0")
    for _ in range(busy_timeout_ms // _PAUSE_MS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not isinstance(translate(error, "", 0), Busy):
                raise
            time.sleep(_PAUSE_MS / 1000)
        else:
            return


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return row[0] if row else None


def _sync_directory(name: str) -> None:
    """Make the names of the file and its WAL durable; SQLite ignores it when this fails."""
    try:
        directory = os.open(os.path.dirname(os.path.abspath(name)), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreFailed(name, f"its folder cannot be synced: {error}") from error
