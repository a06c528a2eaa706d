"""Each event is applied exactly once, whatever dies; and never one of another log."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import Recorded, connect
from carstore import consumer as consumers
from carstore.consumer import Cursor, consumer
from carstore.errors import (
    Busy,
    CursorRefused,
    NotADatabase,
    NotFound,
    TransactionEnded,
)
from carstore.names import RunId, StreamName
from tests.carstore.consuming import ROWS, apply
from tests.carstore.helpers import change, copy_file, in_loop, new_file, open_store, step, stock
from tests.docs.markdown import ROOT


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tmp_path / "rows.db"


def applied(rows: Path) -> list[int]:
    with closing(sqlite3.connect(rows)) as connection:
        connection.execute(ROWS)
        return [row[0] for row in connection.execute("SELECT position FROM applied ORDER BY rowid")]


def cursor(rows: Path, name: str = "c") -> tuple[Any, ...] | None:
    with closing(sqlite3.connect(rows)) as connection:
        found = connection.execute("SELECT * FROM carstore_cursors WHERE consumer = ?", (name,))
        row: tuple[Any, ...] | None = found.fetchone()
        return row


async def catch_up(path: Path, rows: Path, **options: Any) -> int:
    async with open_store(path, readonly=True) as store, consumer(store, rows, "c", **options) as c:
        return await c.catch_up(apply)


async def grow(path: Path, events: int) -> None:
    async with open_store(path) as store:
        for n in range(events):
            await store.log.append(step("a", str(n)))


# What is applied.


@in_loop
async def test_a_consumer_goes_on_where_it_was(path: Path, rows: Path) -> None:
    assert await catch_up(path, rows) == 1
    assert await catch_up(path, rows) == 0
    await grow(path, 700)
    assert await catch_up(path, rows) == 700
    assert applied(rows) == list(range(1, 702))
    async with open_store(path) as store:
        head = await store.log.head()
        assert cursor(rows) == ("c", store.log_id, head.position, head.hash)


@in_loop
async def test_running_catches_up_and_then_applies_what_comes(path: Path, rows: Path) -> None:
    await grow(path, 300)
    async with open_store(path) as store, consumer(store, rows, "c") as c:
        running = asyncio.create_task(c.run(apply))
        for n in range(20):
            done = await store.log.append(step("a", str(n)))
        async with asyncio.timeout(5):
            while c.position < done.last:
                await asyncio.sleep(0.001)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert applied(rows) == list(range(1, done.last + 1))


@pytest.mark.parametrize(
    "wanted",
    [{"kinds": ["state_changed"]}, {"stream": StreamName("a")}, {"run": RunId("r")}, {"after": 7}],
    ids=str,
)
@in_loop
async def test_only_what_is_wanted_is_applied(
    path: Path, rows: Path, wanted: dict[str, Any]
) -> None:
    async with open_store(path) as store:
        for _ in range(5):
            await store.log.append(step("a"), change("k", 1), step("run/r/inbox", run="r"))
        expected = [one.position async for one in store.log.read(**wanted)]
    assert 0 < len(expected) < 16
    assert await catch_up(path, rows, **wanted) == len(expected)
    assert applied(rows) == expected


@in_loop
async def test_several_consumers_share_a_file(path: Path, rows: Path) -> None:
    await grow(path, 3)
    async with open_store(path) as store:
        for name in ("a", "b"):
            async with consumer(store, rows, name) as c:
                assert await c.catch_up(apply) == 4
    assert sorted(applied(rows)) == sorted([1, 2, 3, 4] * 2)


@in_loop
async def test_running_that_is_cancelled_within_a_transaction_applies_nothing_twice(
    path: Path, rows: Path
) -> None:
    """The transaction goes on without whoever waits for it."""

    def slow(connection: sqlite3.Connection, recorded: Recorded) -> None:
        apply(connection, recorded)
        time.sleep(0.01)

    await grow(path, 20)
    async with open_store(path) as store, consumer(store, rows, "c") as c:
        for _ in range(3):
            running = asyncio.create_task(c.run(slow))
            await asyncio.sleep(0.03)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
        await c.catch_up(slow)
    assert applied(rows) == list(range(1, 22))


# What fails.


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_what_raises_undoes_its_batch_and_is_applied_again(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("raising")
    path, rows = new_file(folder / "log.db"), folder / "rows.db"
    events = data.draw(st.integers(1, 30))
    size = data.draw(st.integers(1, 12))
    bad = set(data.draw(st.lists(st.integers(1, events + 1), max_size=4)))

    def sometimes(connection: sqlite3.Connection, recorded: Recorded) -> None:
        apply(connection, recorded)
        if recorded.position in bad:
            bad.discard(recorded.position)
            raise ZeroDivisionError

    async def main() -> None:
        await grow(path, events)
        async with open_store(path) as store, consumer(store, rows, "c") as c:
            for _ in range(len(bad)):
                with suppress(ZeroDivisionError):
                    await c.catch_up(sometimes)
                assert applied(rows) == list(range(1, c.position + 1))
            await c.catch_up(sometimes)
        assert applied(rows) == list(range(1, events + 2))

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(consumers, "BATCH_EVENTS", size)
        asyncio.run(main())


@in_loop
async def test_an_error_names_the_event(path: Path, rows: Path) -> None:
    def fail(connection: sqlite3.Connection, recorded: Recorded) -> None:
        connection.execute("INSERT INTO missing VALUES (1)")

    async with open_store(path) as store, consumer(store, rows, "c") as c:
        with pytest.raises(sqlite3.OperationalError, match="no such table") as raised:
            await c.run(fail)
        assert raised.value.__notes__ == ["while event 1, log_epoch_started, was applied"]
        assert await c.catch_up(apply) == 1


@pytest.mark.parametrize(
    "end",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.rollback(),
        lambda connection: connection.execute("COMMIT"),
        lambda connection: connection.execute("END"),
        lambda connection: connection.execute("ROLLBACK"),
        lambda connection: connection.executescript("SELECT 1"),
        lambda connection: connection.__exit__(None, None, None),
    ],
)
@in_loop
async def test_whoever_applies_cannot_end_the_transaction(
    path: Path, rows: Path, end: Callable[[sqlite3.Connection], Any]
) -> None:
    """Else rows would be kept without the cursor that belongs to them."""

    def ending(connection: sqlite3.Connection, recorded: Recorded) -> None:
        apply(connection, recorded)
        end(connection)

    await grow(path, 3)
    for _ in range(2):
        async with open_store(path) as store, consumer(store, rows, "c") as c:
            for _ in range(2):
                with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
                    await c.catch_up(ending)
        assert applied(rows) == []
        assert cursor(rows) is None
    assert await catch_up(path, rows) == 4
    assert applied(rows) == [1, 2, 3, 4]


ROLLING_BACK = [
    "INSERT OR ROLLBACK INTO taken VALUES (1)",
    "UPDATE OR ROLLBACK taken SET n = 1 WHERE n = 2",
    "INSERT INTO guarded VALUES (1)",
]


def prepared(rows: Path) -> None:
    with closing(sqlite3.connect(rows)) as connection:
        connection.executescript(
            f"""{ROWS};
            CREATE TABLE taken (n INTEGER UNIQUE);
            INSERT INTO taken VALUES (1), (2);
            CREATE TABLE guarded (n);
            CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ROLLBACK, 'no'); END;
            """
        )


@pytest.mark.parametrize("statement", ROLLING_BACK)
@in_loop
async def test_nothing_is_kept_after_a_statement_that_ends_the_transaction(
    path: Path, rows: Path, statement: str
) -> None:
    """Such a statement rolls back by itself; what came after it would be committed piece by piece,
    without the cursor, and applied once more by the next one."""
    bad = 3

    def ending(connection: sqlite3.Connection, recorded: Recorded) -> None:
        apply(connection, recorded)
        if recorded.position == bad:
            with suppress(sqlite3.IntegrityError):
                connection.execute(statement)

    await grow(path, 5)
    prepared(rows)
    async with open_store(path, readonly=True) as store, consumer(store, rows, "c") as c:
        for _ in range(2):
            with pytest.raises(TransactionEnded, match="at event 3, of kind action_val") as raised:
                await c.catch_up(ending)
            assert (raised.value.consumer, raised.value.position) == ("c", 3)
            assert (applied(rows), cursor(rows), c.position) == ([], None, 0)
        bad = 99
        assert await c.catch_up(ending) == 6
    assert applied(rows) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "more",
    [
        lambda connection, recorded: apply(connection, recorded),
        lambda connection, _: connection.execute("SAVEPOINT mine"),
        lambda connection, _: connection.cursor().executemany(
            "INSERT INTO applied VALUES (?, 0)", [(1,), (2,)]
        ),
    ],
)
@pytest.mark.parametrize("statement", ROLLING_BACK)
@in_loop
async def test_nothing_can_be_done_after_a_statement_that_ends_the_transaction(
    path: Path, rows: Path, statement: str, more: Callable[[sqlite3.Connection, Recorded], Any]
) -> None:
    def going_on(connection: sqlite3.Connection, recorded: Recorded) -> None:
        more(connection, recorded)
        with suppress(sqlite3.Error):
            connection.execute("RELEASE mine")
        if recorded.position == 2:
            with suppress(sqlite3.IntegrityError):
                connection.execute(statement)
            more(connection, recorded)

    await grow(path, 3)
    prepared(rows)
    async with open_store(path, readonly=True) as store, consumer(store, rows, "c") as c:
        with pytest.raises(sqlite3.DatabaseError, match="not authorized") as raised:
            await c.catch_up(going_on)
        assert raised.value.__notes__[0] == "while event 2, action_validated, was applied"
        assert "a statement has ended the transaction" in raised.value.__notes__[1]
        assert (applied(rows), cursor(rows)) == ([], None)
        assert await c.catch_up(apply) == 4


@in_loop
async def test_the_own_error_of_such_a_statement_is_raised(path: Path, rows: Path) -> None:
    def failing(connection: sqlite3.Connection, recorded: Recorded) -> None:
        connection.execute(ROLLING_BACK[0])

    prepared(rows)
    async with open_store(path, readonly=True) as store, consumer(store, rows, "c") as c:
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            await c.catch_up(failing)
        assert await c.catch_up(apply) == 1


@in_loop
async def test_whoever_applies_cannot_close_the_connection(path: Path, rows: Path) -> None:
    def closes(connection: sqlite3.Connection, recorded: Recorded) -> None:
        apply(connection, recorded)
        connection.close()

    async with open_store(path, readonly=True) as store, consumer(store, rows, "c") as c:
        with pytest.raises(sqlite3.ProgrammingError, match="the connection is the consumer's"):
            await c.catch_up(closes)
        assert applied(rows) == []
        assert await c.catch_up(apply) == 1


@in_loop
async def test_a_savepoint_is_allowed(path: Path, rows: Path) -> None:
    def careful(connection: sqlite3.Connection, recorded: Recorded) -> None:
        connection.execute("SAVEPOINT mine")
        apply(connection, recorded)
        if recorded.position == 2:
            connection.execute("ROLLBACK TO mine")
        connection.execute("RELEASE mine")

    await grow(path, 2)
    async with open_store(path) as store, consumer(store, rows, "c") as c:
        assert await c.catch_up(careful) == 3
    assert applied(rows) == [1, 3]


@in_loop
async def test_rows_that_are_locked_are_busy_and_nothing_is_lost(
    path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carstore.sqlite.sink.BUSY_TIMEOUT_MS", 20)
    async with open_store(path) as store, consumer(store, rows, "c") as c:
        with closing(stock(rows)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy):
                await c.run(apply)
            other.execute("ROLLBACK")
        assert await c.catch_up(apply) == 1


# What is refused.


@in_loop
async def test_the_log_itself_is_no_place_for_rows(path: Path, tmp_path: Path) -> None:
    link, hard = tmp_path / "link.db", tmp_path / "hard.db"
    link.symlink_to(path)
    hard.hardlink_to(path)
    async with open_store(path) as store:
        for target in (path, str(path), link, hard):
            with pytest.raises(ValueError, match="is the log itself"):
                async with consumer(store, target, "c"):
                    pass


@in_loop
async def test_a_text_in_place_of_kinds_and_a_name_that_cannot_be_stored_are_refused(
    path: Path, rows: Path
) -> None:
    async with open_store(path) as store:
        with pytest.raises(TypeError, match=r"write kinds=\['state_changed'\]"):
            consumer(store, rows, "c", kinds="state_changed")
        with pytest.raises(ValueError, match=r"'c.ud800' is no name: it holds half"):
            consumer(store, rows, "c\ud800")
    assert not rows.exists()


@in_loop
async def test_a_target_that_cannot_be_is_told(path: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("agents\n" * 1000)
    async with open_store(path) as store:
        for target, error in ((tmp_path / "no" / "rows.db", NotFound), (text, NotADatabase)):
            with pytest.raises(error):
                async with consumer(store, target, "c"):
                    pass
        with pytest.raises(NotFound, match="The log ends at 1"):
            async with consumer(store, tmp_path / "rows.db", "c", after=2):
                pass


@in_loop
async def test_another_log_is_refused(path: Path, rows: Path, tmp_path: Path) -> None:
    await grow(path, 5)
    await catch_up(path, rows)
    async with connect(tmp_path / "other.db") as store:
        await store.log.append(*[step() for _ in range(9)])
    before = cursor(rows), applied(rows)
    with pytest.raises(CursorRefused, match="another event there"):
        await catch_up(tmp_path / "other.db", rows)
    with pytest.raises(CursorRefused):
        await catch_up(tmp_path / "other.db", rows, accept_copy=True)
    assert (cursor(rows), applied(rows)) == before


@in_loop
async def test_a_log_that_was_cut_is_refused_also_once_it_has_grown_again(
    path: Path, rows: Path, tmp_path: Path
) -> None:
    await grow(path, 5)
    older = copy_file(path, tmp_path / "older.db")
    await grow(path, 5)
    await catch_up(path, rows)
    with pytest.raises(CursorRefused, match=r"it ends at position 6\. It was cut"):
        await catch_up(older, rows)
    async with open_store(older) as store:
        await store.log.append(*[step("other") for _ in range(9)])
    with pytest.raises(CursorRefused, match="another event there"):
        await catch_up(older, rows)


@in_loop
async def test_a_copy_with_the_same_history_is_gone_on_with_only_if_told_to(
    path: Path, rows: Path
) -> None:
    await grow(path, 5)
    await catch_up(path, rows)
    with closing(sqlite3.connect(rows)) as connection:
        connection.execute("UPDATE carstore_cursors SET log_id = 'origin'")
        connection.commit()
    await grow(path, 2)
    with pytest.raises(CursorRefused, match="pass accept_copy=True"):
        await catch_up(path, rows)
    assert await catch_up(path, rows, accept_copy=True) == 2
    assert await catch_up(path, rows) == 0
    assert applied(rows) == list(range(1, 9))


# Two of one name.


@in_loop
async def test_two_of_one_name_share_the_work(path: Path, rows: Path) -> None:
    async with (
        open_store(path) as store,
        open_store(path) as other,
        consumer(store, rows, "c") as one,
        consumer(other, rows, "c") as two,
    ):
        running = [asyncio.create_task(each.run(apply)) for each in (one, two)]
        for n in range(300):
            done = await store.log.append(step("a", str(n)))
        async with asyncio.timeout(10):
            while one.position < done.last or two.position < done.last:
                await asyncio.sleep(0.001)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
    assert applied(rows) == list(range(1, done.last + 1))


@in_loop
async def test_whoever_is_moved_to_a_place_that_is_none_stops(path: Path, rows: Path) -> None:
    async with open_store(path) as store, consumer(store, rows, "c") as c:
        await c.catch_up(apply)
        with closing(sqlite3.connect(rows)) as connection:
            connection.execute("UPDATE carstore_cursors SET position = 77")
            connection.commit()
        await store.log.append(step())
        with pytest.raises(CursorRefused):
            await c.run(apply)
    assert applied(rows) == [1]


def start(path: Path, rows: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.carstore.consuming", path, rows, "c"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


async def kill_at_random(path: Path, rows: Path, kills: int, seed: int) -> list[int]:
    """Append while two processes consume, of which one after the other is killed; and return the
    positions that are to be applied."""
    chance = random.Random(seed)
    processes = [start(path, rows), start(path, rows)]
    try:
        async with open_store(path) as store:
            for number in range(kills):
                ready = processes[number % 2].stdout
                assert ready is not None
                assert await asyncio.to_thread(ready.readline) == b"ready\n"
                end = time.monotonic() + chance.uniform(0.02, 0.3)
                while time.monotonic() < end:
                    await store.log.append(*[step("a") for _ in range(chance.randrange(1, 30))])
                    await asyncio.sleep(chance.choice([0, 0.001, 0.01]))
                _kill(processes[number % 2])
                processes[number % 2] = start(path, rows)
            return [r.position async for r in store.log.read(kinds=["action_validated"])]
    finally:
        for process in processes:
            _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


async def check_killed(path: Path, rows: Path, kills: int, seed: int) -> None:
    expected = await kill_at_random(path, rows, kills, seed)
    before = applied(rows)
    assert before == expected[: len(before)]
    assert before
    await catch_up(path, rows, kinds=["action_validated"])
    assert applied(rows) == expected
    with closing(sqlite3.connect(rows)) as connection:
        workers = connection.execute("SELECT count(DISTINCT pid) FROM applied").fetchone()[0]
    assert workers > 1


def test_consumers_that_are_killed_apply_each_event_once(path: Path, rows: Path) -> None:
    asyncio.run(check_killed(path, rows, kills=4, seed=1))


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(5))
def test_consumers_that_are_killed_often_apply_each_event_once(
    path: Path, rows: Path, seed: int
) -> None:
    asyncio.run(check_killed(path, rows, kills=40, seed=seed))


# Another database.


class Dictionary:
    """A sink of its own: a transaction is a copy that takes the place of the other."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.cursors: dict[str, Cursor] = {}
        self.closed = False

    async def load(self, consumer: str) -> Cursor | None:
        return self.cursors.get(consumer)

    async def apply(
        self,
        consumer: str,
        batch: Any,
        apply: Callable[[list[int], Recorded], None],
        *,
        seen: Cursor | None,
        to: Cursor,
    ) -> Cursor | None:
        if self.cursors.get(consumer) != seen:
            return self.cursors.get(consumer)
        rows = list(self.rows)
        for recorded in batch:
            apply(rows, recorded)
        self.rows, self.cursors[consumer] = rows, to
        return to

    async def close(self) -> None:
        self.closed = True


@in_loop
async def test_any_database_with_transactions_can_keep_the_rows(path: Path) -> None:
    def add(kept: list[int], recorded: Recorded) -> None:
        kept.append(recorded.position)

    sink = Dictionary()
    await grow(path, 600)
    async with (
        open_store(path) as store,
        consumer(store, sink, "c") as one,
        consumer(store, sink, "c") as two,
    ):
        assert await one.catch_up(add) == 601
        assert await two.catch_up(add) == 0
        assert one.position == two.position == 601
        await store.log.append(step())
        assert await two.catch_up(add) == 1
    assert sink.rows == list(range(1, 603))
    assert not sink.closed


def test_what_is_imported_stays_little() -> None:
    code = "import carstore.consumer, sys; sys.exit('sqlite_utils' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
