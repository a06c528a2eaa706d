"""The ways in which promises are broken on purpose; `engine.prove.broken` lists them.

Each function replaces one piece of the program by one that breaks a promise.
"""

import asyncio
from importlib import import_module
from typing import Any

from attrs import define, evolve, field

from carstore import events as e
from carstore.errors import DiskFull, StateConflict, StoreFailed
from carstore.leases import HeldLease, claim
from carstore.log import NOTHING, Appended, Expect, Fence, LeaseIs
from carstore.names import FencingToken, Micros, Position
from carstore.sqlite import audit, database, leases, migrations
from carstore.sqlite.log import SqliteLog
from carstore.sqlite.transaction import Transaction
from engine import run as engine_run
from engine import run_events
from engine.journal import Journal
from engine.runtime import Runtime
from engine.tool_schema import ToolSchema

__all__ = [
    "Patches",
    "acknowledge_early",
    "acknowledge_refused",
    "check_then_write",
    "expire_early",
    "forgetful_views",
    "give_up_at_once",
    "go_on_regardless",
    "history_first",
    "never_stop",
    "no_fence",
    "no_intent",
    "raw_errors",
    "reuse_a_token",
    "run_completed_again",
    "split_batch",
    "unchecked_hashes",
    "unsafe_settings",
]

_catch_up = import_module("projections.catch_up")
"""The module; the package exports a function of that name."""


@define
class Patches:
    """What was replaced, to be put back."""

    before: list[tuple[Any, str, Any]] = field(factory=list)

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute of a class or module."""
        self.before.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put back everything."""
        for owner, name, value in reversed(self.before):
            setattr(owner, name, value)
        self.before.clear()


# --- the log ---


def acknowledge_early(patches: Patches) -> None:
    append = SqliteLog.append
    nexts: dict[int, int] = {}
    late: set[asyncio.Task[Any]] = set()

    async def commit(log: SqliteLog, entries: Any, expect: Expect) -> None:
        await asyncio.sleep(0.005)
        await append(log, *entries, expect=expect)

    async def early(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        first = max((await self.head()).position + 1, nexts.get(id(self), 0))
        nexts[id(self)] = first + len(entries)
        task = asyncio.create_task(commit(self, entries, expect))
        late.add(task)
        task.add_done_callback(late.discard)
        return Appended(Position(first), Position(first + len(entries) - 1), Micros(0))

    patches.put(SqliteLog, "append", early)


def split_batch(patches: Patches) -> None:
    append = SqliteLog.append

    async def one_by_one(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        fence, done = expect.fence, []
        for n, entry in enumerate(entries):
            done.append(await append(self, entry, expect=expect if n == 0 else Expect(fence=fence)))
            if isinstance(entry.event, e.LeaseGranted) and fence is not None:
                fence = Fence(fence.lease, FencingToken(done[-1].first))
            await asyncio.sleep(0.001)
        return done[-1]._replace(first=done[0].first)

    patches.put(SqliteLog, "append", one_by_one)


def check_then_write(patches: Patches) -> None:
    append = SqliteLog.append

    async def checked(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        for scope, key, read_at in expect.unchanged:
            now = (await self.state(scope, [key]))[key].position
            if now != read_at:
                raise StateConflict(scope, key, read_at, now)
        expect = expect if expect is NOTHING else evolve(expect, unchanged=())
        return await append(self, *entries, expect=expect)

    patches.put(SqliteLog, "append", checked)


def unsafe_settings(patches: Patches) -> None:
    settings = database._settings

    def without_reading_back(connection: Any, opened: Any) -> None:
        settings(connection, opened)
        connection.execute("PRAGMA synchronous = OFF")

    patches.put(database, "_settings", without_reading_back)


def raw_errors(patches: Patches) -> None:
    patches.put(database, "translate", lambda error, *_: error)


def give_up_at_once(patches: Patches) -> None:
    settings = database._settings

    def impatient(connection: Any, opened: Any) -> None:
        settings(connection, opened)
        connection.execute("PRAGMA busy_timeout = 0")

    patches.put(database, "_settings", impatient)


def go_on_regardless(patches: Patches) -> None:
    translate = database.translate

    def harmless(error: Any, path: str, busy_timeout_ms: int) -> Any:
        told = translate(error, path, busy_timeout_ms)
        return DiskFull(path) if isinstance(told, StoreFailed) else told

    patches.put(database, "translate", harmless)


def acknowledge_refused(patches: Patches) -> None:
    append = SqliteLog.append

    async def hopeful(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        try:
            return await append(self, *entries, expect=expect)
        except DiskFull:
            first = (await self.head()).position + 1
            return Appended(Position(first), Position(first + len(entries) - 1), Micros(0))

    patches.put(SqliteLog, "append", hopeful)


def unchecked_hashes(patches: Patches) -> None:
    patches.put(audit.Audit, "_chain", lambda *_: None)


def forgetful_views(patches: Patches) -> None:
    changes = _catch_up.changes

    def forgetful(view: Any, events: Any, stored: Any) -> Any:
        return changes(view, list(events)[:-1], stored)

    patches.put(_catch_up, "changes", forgetful)


# --- leases ---


def no_fence(patches: Patches) -> None:
    """A driver writes under whichever token is the current one, at whichever version it finds."""
    flush, expect = Journal.flush, Journal._expect

    async def unfenced(self: Journal) -> Any:
        if self.lease is not None:
            row = await self.store.leases.row(self.lease.name)
            if row is not None and row.token is not None:
                self.lease.token = row.token
        return await flush(self)

    def no_versions(self: Journal, claimed: Any) -> Expect:
        return evolve(expect(self, claimed), versions={})

    patches.put(Journal, "flush", unfenced)
    patches.put(Journal, "_expect", no_versions)


def reuse_a_token(patches: Patches) -> None:
    follow, hold = Transaction._follow_lease, leases.SqliteLeases.hold

    def following(self: Any, encoded: Any, position: int, fence: Any) -> Any:
        return follow(self, encoded, 1 if encoded.kind == "lease_granted" else position, fence)

    def holding(self: Any, claimed: Any, _: Position) -> Any:
        return hold(self, claimed, Position(1))

    change = migrations.change
    before, after = "1099511627776 + e.position AS token", "1099511627776 + 1 AS token"
    assert any(before in line for n in range(migrations.SCHEMA) for line in change(n + 1))

    def altered(number: int) -> list[str]:
        return [statement.replace(before, after) for statement in change(number)]

    patches.put(Transaction, "_follow_lease", following)
    patches.put(leases.SqliteLeases, "hold", holding)
    patches.put(migrations, "change", altered)


def expire_early(patches: Patches) -> None:
    def impatient(row: Any, *args: Any, **kwargs: Any) -> Any:
        made = claim(row, *args, **{**kwargs, "gone": True})
        return evolve(made, condition=LeaseIs(made.condition.lease, made.condition.token))

    patches.put(leases, "claim", impatient)


def never_stop(patches: Patches) -> None:
    patches.put(HeldLease, "is_held", lambda self, _: not self.lost)


# --- the engine ---


def run_completed_again(patches: Patches) -> None:
    succeeded = run_events.HANDLERS[e.ActionSucceeded]

    def forgotten(run: Any, event: Any, at: Any) -> None:
        if at is None:
            succeeded(run, event, at)
        else:  # folded from the log: only that the attempt is over is remembered
            run_events._close(run.of(event.action_id).do, event.attempt)

    handlers = {**run_events.HANDLERS, e.ActionSucceeded: forgotten}
    patches.put(engine_run, "HANDLERS", handlers)


def no_intent(patches: Patches) -> None:
    patches.put(ToolSchema, "repeatable", property(lambda _: True))


def history_first(patches: Patches) -> None:
    unfinished = Runtime.unfinished

    async def reading_all(self: Runtime) -> Any:
        for _ in range(5):
            async for recorded in self.store.log.read():
                _ = recorded.event
        return await unfinished(self)

    patches.put(Runtime, "unfinished", reading_all)
