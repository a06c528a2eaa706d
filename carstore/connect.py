"""How a store is opened."""

import os
import sqlite3
import uuid
from collections.abc import Generator
from types import TracebackType

from attrs import define, field

from carstore.clock import Clock, SystemClock
from carstore.errors import CorruptLog
from carstore.events import LogEpochStarted, RedactionDeclared
from carstore.holders import Processes, SystemProcesses
from carstore.log import NOTHING, Entry
from carstore.names import LogId, StreamName
from carstore.redaction import Redaction
from carstore.sqlite.blobs import SqliteBlobs
from carstore.sqlite.database import BUSY_TIMEOUT_MS, Durability, open_database
from carstore.sqlite.leases import SqliteLeases
from carstore.sqlite.log import SqliteLog
from carstore.sqlite.prepare import prepare
from carstore.sqlite.statements import SQL
from carstore.sqlite.transaction import begin as begin_transaction
from carstore.store import Store

LOG_STREAM = StreamName("log")

REDACTION_STREAM = StreamName("redaction")
"""Holds the rules for values that do not go into events."""


@define(eq=False)
class connect:  # noqa: N801 - read as a function: `async with connect(path) as store`
    """Open, and if need be create, a carstore database.

        async with connect("agents.db") as store:
            ...

    `store = await connect("agents.db")` does the same without the `async with`; then close it.

    Args:
        path: the file. One per group of agents that share state; it may be shared by processes of
            one machine, not over a network file system.
        durability: what an acknowledged append survives: `power` (default), or only `crash` of the
            process, which is several times faster.
        create: whether to make the file if it does not exist.
        readonly: open for reading; nothing is written, also not to bring an old schema up to date.
        instance: a name for this program, for people who look at leases.
        redaction: what is not put into events but beside the log, where it can be forgotten. Its
            names are recorded in the file, and apply from then on to all who open it for writing.
        busy_timeout_ms: how long a write waits for other processes before it raises `Busy`.
        clock, processes: what the store believes of time and other processes; replaced in tests.

    Raises:
        NotFound, CannotOpen, NotADatabase, SchemaTooNew, Busy, CorruptLog, StoreFailed
    """

    path: str | os.PathLike[str]
    durability: Durability = field(default="power", kw_only=True)
    create: bool = field(default=True, kw_only=True)
    readonly: bool = field(default=False, kw_only=True)
    instance: str = field(default="carstore", kw_only=True)
    redaction: Redaction = field(factory=Redaction, kw_only=True)
    busy_timeout_ms: int = field(default=BUSY_TIMEOUT_MS, kw_only=True)
    clock: Clock = field(factory=SystemClock, kw_only=True)
    processes: Processes = field(factory=SystemProcesses, kw_only=True)
    _store: Store | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.durability not in ("power", "crash"):
            raise ValueError(f"durability is 'power' or 'crash', not {self.durability!r}")

    def __await__(self) -> Generator[object, None, Store]:
        return self._open().__await__()

    async def __aenter__(self) -> Store:
        self._store = await self._open()
        return self._store

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is not None:
            await self._store.close()

    async def _open(self) -> Store:
        name = os.fspath(self.path)
        database = await open_database(
            name,
            durability=self.durability,
            create=self.create and not self.readonly,
            readonly=self.readonly,
            busy_timeout_ms=self.busy_timeout_ms,
            begin=lambda connection: _begin_log(connection, name, self.clock),
        )
        try:
            rows = await database.fetch(SQL["epoch"])
            if not rows:
                raise CorruptLog(name, "its first event is missing")
            epoch, log_id = rows[0]
            if type(epoch) is not int or type(log_id) is not str:
                raise CorruptLog(name, "its epoch and id cannot be read")
            declared = [found for (found,) in await database.fetch(SQL["redaction_names"])]
            redaction = self._rules(name, declared)
            log = SqliteLog(database, self.clock, redaction)
            await self._declare(log, set(declared))
        except BaseException:
            await database.close()
            raise
        holder = self.processes.current(self.instance)
        return Store(
            path=name,
            log=log,
            leases=SqliteLeases(database, log, self.clock, self.processes, holder, epoch),
            blobs=SqliteBlobs(database, log),
            redaction=redaction,
            clock=self.clock,
            log_id=LogId(log_id),
            epoch=epoch,
            database=database,
        )

    def _rules(self, name: str, declared: list[str]) -> Redaction:
        """Those that were given, and those that the file declares."""
        try:
            return self.redaction.union(declared)
        except ValueError as error:
            if self.readonly:  # nothing is written, so nothing is kept out of the log either
                return self.redaction
            raise CorruptLog(
                name, f"it declares a rule of redaction that is none: {error}"
            ) from error

    async def _declare(self, log: SqliteLog, declared: set[str]) -> None:
        """Record the rules that the file does not know yet. If two do that at once, both say it."""
        names = tuple([name for name in self.redaction.names if name not in declared])
        if names and not self.readonly:
            try:
                await log.append(Entry(REDACTION_STREAM, RedactionDeclared(names=names)))
            except BaseException:
                await log.close()
                raise


def _begin_log(connection: sqlite3.Connection, path: str, clock: Clock) -> None:
    """Append the first event of a new log, in the transaction that makes its schema."""
    event = LogEpochStarted(log_id=uuid.uuid4().hex, epoch=0)
    transaction = begin_transaction(connection, path, clock)
    first = prepare([Entry(LOG_STREAM, event)], NOTHING, Redaction())
    transaction.look_up([first])
    transaction.plan(first)
    transaction.write()
