"""Each promise broken on purpose: "can the proofs fail?"

A proof that cannot fail proves nothing. So each breakage here replaces, while a proof runs, one
piece of the program by one that breaks a promise, and names the proof that must catch it. Nothing
outside of this package, and of the tests, applies one.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from attrs import define, evolve, field, frozen

from carstore import events as e
from carstore.errors import DiskFull, StateConflict, StoreFailed
from carstore.leases import HeldLease, claim
from carstore.log import NOTHING, Appended, Expect, Fence, LeaseIs
from carstore.names import FencingToken, Micros, Position
from carstore.sqlite import audit, database, leases, migrations
from carstore.sqlite.log import SqliteLog
from carstore.sqlite.transaction import Transaction
from engine import run as engine_run
from engine.journal import Journal
from engine.runtime import Runtime
from engine.tool_schema import ToolSchema

catch_up = import_module("projections.catch_up")
"""The module; the package exports a function of that name."""

__all__ = ["BREAKAGES", "Breakage", "Patches", "in_force"]

_in_force: list[str] = []


def in_force() -> str | None:
    """The name of the breakage that is applied now; the processes of a proof live with it too."""
    return _in_force[-1] if _in_force else None


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


@frozen
class Breakage:
    """One way to break a promise."""

    name: str
    what: str
    """What is done wrongly."""
    caught_by: str
    """The name of the proof that must notice."""
    _patch: Callable[[Patches], None] = field(repr=False)

    def apply(self) -> Patches:
        """Break it in this process, for good."""
        patches = Patches()
        self._patch(patches)
        return patches

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Break it for a while, here and in the processes that a proof starts meanwhile."""
        patches = self.apply()
        _in_force.append(self.name)
        try:
            yield
        finally:
            _in_force.pop()
            patches.undo()


# --- the log ---


def _acknowledge_early(patches: Patches) -> None:
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


def _split_batch(patches: Patches) -> None:
    append = SqliteLog.append

    async def one_by_one(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        fence, first, done = expect.fence, None, None
        for n, entry in enumerate(entries):
            done = await append(self, entry, expect=expect if n == 0 else Expect(fence=fence))
            first = first or done.first
            if isinstance(entry.event, e.LeaseGranted) and fence is not None:
                fence = Fence(fence.lease, FencingToken(done.first))
            await asyncio.sleep(0.001)
        assert done is not None
        return done._replace(first=first)

    patches.put(SqliteLog, "append", one_by_one)


def _check_then_write(patches: Patches) -> None:
    append = SqliteLog.append

    async def checked(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        for scope, key, read_at in expect.unchanged:
            now = (await self.state(scope, [key]))[key].position
            if now != read_at:
                raise StateConflict(scope, key, read_at, now)
        expect = expect if expect is NOTHING else evolve(expect, unchanged=())
        return await append(self, *entries, expect=expect)

    patches.put(SqliteLog, "append", checked)


def _unsafe_settings(patches: Patches) -> None:
    settings = database._settings

    def without_reading_back(connection: Any, opened: Any) -> None:
        settings(connection, opened)
        connection.execute("PRAGMA synchronous = OFF")

    patches.put(database, "_settings", without_reading_back)


def _raw_errors(patches: Patches) -> None:
    patches.put(database, "translate", lambda error, path, busy_timeout_ms: error)


def _give_up_at_once(patches: Patches) -> None:
    settings = database._settings

    def impatient(connection: Any, opened: Any) -> None:
        settings(connection, opened)
        connection.execute("PRAGMA busy_timeout = 0")

    patches.put(database, "_settings", impatient)


def _go_on_regardless(patches: Patches) -> None:
    translate = database.translate

    def harmless(error: Any, path: str, busy_timeout_ms: int) -> Any:
        told = translate(error, path, busy_timeout_ms)
        return DiskFull(path) if isinstance(told, StoreFailed) else told

    patches.put(database, "translate", harmless)


def _acknowledge_refused(patches: Patches) -> None:
    append = SqliteLog.append

    async def hopeful(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        try:
            return await append(self, *entries, expect=expect)
        except DiskFull:
            first = (await self.head()).position + 1
            return Appended(Position(first), Position(first + len(entries) - 1), Micros(0))

    patches.put(SqliteLog, "append", hopeful)


def _say_yes(patches: Patches) -> None:
    append = SqliteLog.append

    async def yes(self: SqliteLog, *entries: Any, expect: Expect = NOTHING) -> Appended:
        try:
            return await append(self, *entries, expect=expect)
        except (DiskFull, StoreFailed):
            first = (await self.head()).position + 1
            return Appended(Position(first), Position(first + len(entries) - 1), Micros(0))

    patches.put(SqliteLog, "append", yes)


def _unchecked_hashes(patches: Patches) -> None:
    patches.put(audit.Audit, "_chain", lambda self, row: None)


def _forgetful_views(patches: Patches) -> None:
    changes = catch_up.changes

    def forgetful(view: Any, events: Any, stored: Any) -> Any:
        return changes(view, list(events)[:-1], stored)

    patches.put(catch_up, "changes", forgetful)


# --- leases ---


def _no_fence(patches: Patches) -> None:
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


def _reuse_a_token(patches: Patches) -> None:
    follow, hold = Transaction._follow_lease, leases.SqliteLeases.hold

    def following(self: Any, encoded: Any, position: int, fence: Any) -> Any:
        return follow(self, encoded, 1 if encoded.kind == "lease_granted" else position, fence)

    def holding(self: Any, claimed: Any, position: Position) -> Any:
        return hold(self, claimed, Position(1))

    change = migrations.change
    before, after = "1099511627776 + e.position AS token", "1099511627776 + 1 AS token"
    assert any(before in line for n in range(migrations.SCHEMA) for line in change(n + 1))

    def altered(number: int) -> list[str]:
        return [statement.replace(before, after) for statement in change(number)]

    patches.put(Transaction, "_follow_lease", following)
    patches.put(leases.SqliteLeases, "hold", holding)
    patches.put(migrations, "change", altered)


def _expire_early(patches: Patches) -> None:
    def impatient(row: Any, *args: Any, **kwargs: Any) -> Any:
        made = claim(row, *args, **{**kwargs, "gone": True})
        return evolve(made, condition=LeaseIs(made.condition.lease, made.condition.token))

    patches.put(leases, "claim", impatient)


def _never_stop(patches: Patches) -> None:
    patches.put(HeldLease, "is_held", lambda self, clock: not self.lost)


# --- the engine ---


def _run_completed_again(patches: Patches) -> None:
    succeeded = engine_run._HANDLERS[e.ActionSucceeded]

    def forgotten(run: Any, event: Any, at: Any) -> None:
        if at is None:
            succeeded(run, event, at)
        else:  # folded from the log: only that the attempt is over is remembered
            engine_run._close(run.of(event.action_id).do, event.attempt)

    handlers = {**engine_run._HANDLERS, e.ActionSucceeded: forgotten}
    patches.put(engine_run, "_HANDLERS", handlers)


def _no_intent(patches: Patches) -> None:
    patches.put(ToolSchema, "repeatable", property(lambda self: True))


def _history_first(patches: Patches) -> None:
    unfinished = Runtime.unfinished

    async def reading_all(self: Runtime) -> Any:
        for _ in range(5):
            async for recorded in self.store.log.read():
                _ = recorded.event
        return await unfinished(self)

    patches.put(Runtime, "unfinished", reading_all)


BREAKAGES = {
    name: Breakage(name, what, caught_by, patch)
    for name, what, caught_by, patch in (
        (
            "acknowledge early",
            "an append is acknowledged before its commit",
            "kills",
            _acknowledge_early,
        ),
        ("split a batch", "each event of an append is a transaction", "kills", _split_batch),
        ("run completed again", "a resume forgets successes", "kills", _run_completed_again),
        ("no intent", "a call is made without a durable intent", "kills", _no_intent),
        (
            "acknowledge earlier",
            "the same, and death comes at a chosen write",
            "killed at an operation",
            _acknowledge_early,
        ),
        ("split in pieces", "the same as split, and a write is torn", "torn writes", _split_batch),
        ("unsynced", "a commit is not synced", "power loss", _unsafe_settings),
        ("blind to room", "an append that has no room is acknowledged", "full disk", _say_yes),
        ("blind to faults", "so is one whose write failed", "failing disk", _say_yes),
        ("check then write", "conditions are judged too early", "no lost update", _check_then_write),
        ("forgetful views", "a view misses an event", "no lost update", _forgetful_views),
        ("no fence", "a driver that was taken over goes on writing", "fence", _no_fence),
        ("adopt a token", "the same, among stopped processes", "stopped processes", _no_fence),
        ("reuse a token", "every grant gives the same token", "tokens", _reuse_a_token),
        ("expire early", "a live holder is taken over", "expiry", _expire_early),
        ("never stop", "a holder acts past its deadline", "clock steps", _never_stop),
        ("synchronous off", "settings are not as promised", "settings", _unsafe_settings),
        ("no sync", "nothing is synced", "power loss", _unsafe_settings),
        ("answer early", "the same as the first", "killed at an operation", _acknowledge_early),
        ("torn appends", "the same as the second", "torn writes", _split_batch),
        ("go on regardless", "a failed sync is harmless", "failing disk", _go_on_regardless),
        ("hopeful", "a refused append is acknowledged", "full disk", _acknowledge_refused),
        ("raw errors", "errors of SQLite are passed on as they are", "busy", _raw_errors),
        ("impatience", "a writer does not wait for others", "many writers", _give_up_at_once),
        ("unchecked hashes", "verify does not compute hashes", "bit flips", _unchecked_hashes),
        ("history first", "a restart reads the whole log", "restart", _history_first),
    )
}
"""By name."""
