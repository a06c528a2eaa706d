"""Opening a file, what is refused, what is promised about syncs, and what a fault does."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from carstore import connect
from carstore.errors import (
    Busy,
    CannotOpen,
    CarstoreError,
    Closed,
    CorruptLog,
    DiskFull,
    NotADatabase,
    NotFound,
    ReadOnly,
    StoreFailed,
)
from carstore.events import ActionRejected
from carstore.log import Entry
from carstore.names import LeaseName, StreamName
from carstore.sqlite import database, wal
from carstore.sqlite import log as sqlite_log
from carstore.sqlite.database import translate
from carstore.sqlite.verify import verify, verify_file
from tests.carstore.attack import lawless
from tests.carstore.faults import Failing, fault
from tests.carstore.helpers import (
    change,
    everything,
    in_loop,
    new_file,
    open_store,
    rows_of,
    step,
    stock,
)


def large(size: int = 20_000) -> Entry:
    return Entry(StreamName("notes"), ActionRejected(action_id="a", error="x" * size))


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    """Each connection has a thread, and one that is forgotten keeps the process from ending."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(1)
    assert not [thread for thread in left if thread.is_alive()]


# Durability.


@pytest.mark.parametrize(("durability", "synchronous"), [("power", 2), ("crash", 1)])
@in_loop
async def test_durability_is_what_it_is_called(
    path: Path, durability: str, synchronous: int
) -> None:
    names = ("journal_mode", "synchronous", "wal_autocheckpoint", "mmap_size", "busy_timeout")
    async with open_store(path, durability=durability, busy_timeout_ms=1234) as store:
        found = await store.database.write(
            lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
        )
    assert found == ["wal", synchronous, 0, 0, 1234]


def test_power_is_the_default() -> None:
    assert connect("x").durability == "power"
    with pytest.raises(ValueError, match="'power' or 'crash', not 'none'"):
        connect("x", durability="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ignored", "told"),
    [
        ("PRAGMA journal_mode = ", "journal_mode at 'delete' instead of 'wal'"),
        ("PRAGMA synchronous = ", "synchronous at"),
        ("PRAGMA wal_autocheckpoint = ", "wal_autocheckpoint at 1000 instead of 0"),
    ],
)
@in_loop
async def test_a_setting_that_is_not_kept_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: str, told: str
) -> None:
    """SQLite answers some failures with silence, such as staying in another journal mode."""

    class Deaf(database.JobConnection):
        def execute(self, sql: str, parameters: Any = ()) -> Any:
            if isinstance(sql, str) and sql.startswith(ignored):
                sql = "SELECT 1"
            return super().execute(sql, parameters)

    monkeypatch.setattr(database, "JobConnection", Deaf)
    with pytest.raises(StoreFailed, match=told):
        await connect(tmp_path / "log.db", durability="crash")


@in_loop
async def test_the_folder_is_synced_before_a_store_is_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a new file, or its WAL, may be gone after a loss of power, with all it holds."""
    synced, fsync = [], os.fsync

    def counted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    path = tmp_path / "log.db"
    for _ in range(2):
        async with connect(path):
            assert path.exists()
            assert Path(f"{path}-wal").exists()
            assert synced == [tmp_path.stat().st_ino]
        synced.clear()


@in_loop
async def test_a_folder_that_cannot_be_synced_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(StoreFailed, match="cannot be synced"):
        await connect(path)


@in_loop
async def test_the_wal_stays_small_and_goes_when_the_store_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "CHECKPOINT_PAGES", 200)
    monkeypatch.setattr(wal, "LOOK_SECONDS", 0)
    async with open_store(path) as store:
        for _ in range(10):
            await store.log.append(*[large() for _ in range(100)])
            async with asyncio.timeout(10):
                while store.database.wal_pages() > 200:
                    await store.log.append(step())
                    await asyncio.sleep(0.002)
        assert Path(f"{path}-wal").stat().st_size < path.stat().st_size / 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# What is refused.


def not_one(folder: Path, what: str) -> Path:
    path = folder / "strange.db"
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("agents, and what they did\n" * 500)
    elif what == "short text":
        path.write_text("agents")
    elif what == "another program":
        connection = stock(path)
        connection.execute("CREATE TABLE events (id)")
        connection.close()
    elif what == "another program with a mark":
        connection = stock(path)
        connection.execute("CREATE TABLE t (id)")
        connection.execute("PRAGMA application_id = 77")
        connection.execute("PRAGMA user_version = 1")
        connection.close()
    elif what == "cut":
        new_file(path)
        path.write_bytes(path.read_bytes()[:4096])
    elif what == "page of zeros":
        new_file(path)
        path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096))
    return path


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("folder", NotADatabase),
        ("text", NotADatabase),
        ("short text", NotADatabase),
        ("another program", NotADatabase),
        ("another program with a mark", NotADatabase),
        ("cut", CorruptLog),
        ("page of zeros", CorruptLog),
    ],
)
@in_loop
async def test_what_is_no_log_is_refused_and_left_alone(
    tmp_path: Path, what: str, error: type[CarstoreError], readonly: bool
) -> None:
    path = not_one(tmp_path, what)
    before = path.read_bytes() if path.is_file() else None
    for create in (True, False):
        with pytest.raises(error) as refused:
            await connect(path, readonly=readonly, create=create)
        assert str(path) in refused.value.message
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {file.name for file in tmp_path.iterdir()} <= {path.name}


@in_loop
async def test_what_is_missing_is_made_only_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    for options in ({"create": False}, {"readonly": True}):
        with pytest.raises(NotFound, match=r"log\.db"):
            await connect(path, **options)  # type: ignore[arg-type]
    for options in ({}, {"create": False}, {"readonly": True}):
        with pytest.raises(NotFound, match="folder"):
            await connect(tmp_path / "no" / "log.db", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    async with connect(path) as store:
        assert (await store.log.head()).position == 1


@in_loop
async def test_an_empty_file_becomes_a_log_only_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.touch()
    for options in ({"create": False}, {"readonly": True}):
        with pytest.raises(NotADatabase, match="empty"):
            await connect(path, **options)  # type: ignore[arg-type]
    assert path.stat().st_size == 0
    async with connect(path) as store:
        assert (await store.log.head()).position == 1


@pytest.mark.parametrize(
    "name", ["a b.db", "ä.db", "100%.db", "what?.db", "a#b.db", "-.db", "a&b=c"]
)
@in_loop
async def test_any_name_will_do_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with connect(name, durability="crash") as store:
        await store.log.append(step())
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert verify_file(name).ok
    async with connect(Path(name), readonly=True) as store:
        assert (await store.log.head()).position == 2


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM events WHERE position = 1"],
        ["DELETE FROM events"],
        ["DROP TABLE events"],
        ["DROP TABLE leases"],
        ["UPDATE events SET data = '{' WHERE position = 1"],
        ["UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE position = 1"],
        ["UPDATE events SET data = '{}' WHERE position = 1"],
        ['UPDATE events SET data = \'{"epoch":"x"}\' WHERE position = 1'],
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
@in_loop
async def test_a_log_without_its_beginning_is_refused(
    path: Path, statements: list[str], readonly: bool
) -> None:
    try:
        with lawless(path) as connection:
            for statement in statements:
                connection.execute(statement)
    except sqlite3.OperationalError:
        pass  # the triggers of a table that is gone do not come back
    if "leases" in statements[0]:
        async with open_store(path, readonly=readonly) as store:
            with pytest.raises(CarstoreError):
                await store.leases.row(LeaseName("run/x"))
        return
    with pytest.raises((CorruptLog, StoreFailed)):
        await (await open_store(path, readonly=readonly)).close()


# Reading only.


@in_loop
async def test_a_store_for_reading_reads_and_writes_nothing(path: Path) -> None:
    async with open_store(path) as store:
        await store.log.append(change("k", 1))
    before = path.read_bytes()
    async with open_store(path, readonly=True) as store:
        assert not store.writable
        assert len(await everything(store)) == 2
        for _ in range(2):
            with pytest.raises(ReadOnly):
                await store.log.append(step())
        with pytest.raises(ReadOnly):
            await store.leases.acquire(LeaseName("run/x"))
        with pytest.raises(CarstoreError):
            await store.database.read(lambda c: c.execute("DELETE FROM view_positions"))
    assert path.read_bytes() == before


@in_loop
async def test_a_store_for_reading_sees_what_another_appends(path: Path) -> None:
    async with open_store(path) as store, open_store(path, readonly=True) as reader:
        for n in range(3):
            await store.log.append(step())
            assert (await reader.log.head()).position == n + 2


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Make a folder and its files such that this process cannot write them, also as root."""
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    try:
        with somebody():
            yield
    finally:
        folder.chmod(0o755)


@contextmanager
def somebody() -> Iterator[None]:
    """Be a user without special rights, also as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A folder that anybody can enter."""
    folder = Path(tempfile.mkdtemp(prefix="carstore-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@in_loop
async def test_a_file_in_a_place_that_cannot_be_written_is_read(shelf: Path) -> None:
    path = shelf / "log.db"
    async with connect(path) as store:
        await store.log.append(change("k", 1))
    with unwritable(shelf):
        async with connect(path, readonly=True) as store:
            assert len(await everything(store)) == 2
            assert (await verify(store)).ok
            with pytest.raises(ReadOnly):
                await store.log.append(step())
        assert verify_file(path).ok
        with pytest.raises(CannotOpen, match="read-only"):
            async with connect(path):
                pass
        with pytest.raises(CannotOpen, match=f"may not write the folder {shelf}"):
            await connect(shelf / "new.db")
    assert [file.name for file in shelf.iterdir()] == ["log.db"]


@pytest.mark.parametrize(
    ("file", "mode", "readonly", "reason"),
    [
        ("log.db", 0o446, False, "may not write it"),
        ("log.db", 0o006, False, "may not read it"),
        ("log.db", 0o006, True, "may not read it"),
        (".", 0o555, False, "may not write the folder .*, where its WAL is kept"),
        ("log.db-wal", 0o000, True, "may not read .*log.db-wal"),
        ("log.db-wal", 0o444, False, "may not write .*log.db-wal"),
    ],
)
@in_loop
async def test_whoever_lacks_a_right_is_told_which(
    shelf: Path, file: str, mode: int, readonly: bool, reason: str
) -> None:
    path = shelf / "log.db"
    async with connect(path) as store:
        await store.log.append(change("k", 1))
        if "wal" in file:  # as after a crash
            for suffix in ("", "-wal"):
                subprocess.run(["cp", f"{path}{suffix}", f"{shelf}/copy{suffix}"], check=True)
    if "wal" in file:
        for suffix in ("", "-wal"):
            Path(f"{shelf}/copy{suffix}").rename(f"{path}{suffix}")
    for each in (shelf, *shelf.iterdir()):
        each.chmod(0o777)
    (shelf / file).chmod(mode)
    with somebody(), pytest.raises(CannotOpen, match=reason) as refused:
        async with connect(path, readonly=readonly):
            pass
    assert refused.value.where == str(path)
    assert "has stopped" not in refused.value.message


@in_loop
async def test_reading_leaves_nothing_behind_and_the_file_as_it_was(path: Path) -> None:
    before, changed = path.read_bytes(), path.stat().st_mtime_ns
    async with open_store(path, readonly=True) as store:
        assert await everything(store)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, changed)


@in_loop
async def test_reading_takes_nothing_away_from_others(path: Path) -> None:
    async with open_store(path, readonly=True) as reader, open_store(path) as store:
        await store.log.append(change("k", 1))
        await reader.close()
        assert Path(f"{path}-wal").stat().st_size > 0
        await store.log.append(change("k", 2))
        assert len(await everything(store)) == 3
    async with open_store(path, readonly=True) as store:
        assert len(await everything(store)) == 3
    assert verify_file(path).ok


@in_loop
async def test_a_file_that_cannot_be_opened_leaves_no_thread(shelf: Path) -> None:
    """One that tells its end to a loop that is closed by then ends with a traceback."""
    before = set(threading.enumerate())
    with unwritable(shelf):
        for _ in range(10):
            with pytest.raises(CannotOpen):
                await connect(shelf / "log.db")
            assert not set(threading.enumerate()) - before


@in_loop
async def test_a_wal_that_cannot_be_read_is_not_passed_over(shelf: Path, path: Path) -> None:
    """What it holds was acknowledged; to read the file without it would be to lose that."""
    left = shelf / "log.db"
    async with open_store(path) as store:
        await store.log.append(change("k", 1))
        for suffix in ("", "-wal"):
            subprocess.run(["cp", f"{path}{suffix}", f"{left}{suffix}"], check=True)
    with unwritable(shelf):
        with pytest.raises(CarstoreError) as refused:
            await connect(left, readonly=True)
        assert isinstance(refused.value, CannotOpen)
        assert "must to read the WAL that is there" in refused.value.message
        assert not verify_file(left).ok
    async with connect(left, readonly=True) as store:
        assert len(await everything(store)) == 2


# Faults.


@in_loop
async def test_whoever_is_locked_out_is_told_so_and_may_try_again(path: Path) -> None:
    other = stock(path)
    async with open_store(path, busy_timeout_ms=50) as store:
        other.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(
            *[store.log.append(step()) for _ in range(3)], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Busy] * 3
        assert isinstance(outcomes[0], Busy)
        assert "50 ms" in outcomes[0].message
        assert len(await everything(store)) == 1  # readers are not locked out
        other.execute("ROLLBACK")
        await store.log.append(step())
        assert (await store.log.head()).position == 2
    other.close()


@in_loop
async def test_opening_a_locked_file_is_busy_too(path: Path) -> None:
    other = stock(path)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Busy):
        await asyncio.wait_for(connect(path, busy_timeout_ms=50), 3)
    other.execute("ROLLBACK")
    other.close()
    async with connect(path) as store:
        await store.log.append(step())


@in_loop
async def test_a_short_lock_is_waited_for(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    async with open_store(path) as store:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.log.append(step()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.execute("ROLLBACK")
        await waiting
    other.close()


@in_loop
async def test_a_full_disk_refuses_appends_until_there_is_room(path: Path) -> None:
    async with open_store(path) as store:
        await store.log.append(step())
        head = await store.log.head()
        pages = await store.database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])

        def bound(count: int) -> Any:
            return store.database.write(
                lambda c: c.execute(f"PRAGMA max_page_count = {count}").fetchone()
            )

        await bound(pages)
        for _ in range(3):
            outcomes = await asyncio.gather(
                store.log.append(step(), large()),
                store.log.append(large(50_000)),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [DiskFull] * 2
        assert await store.log.head() == head
        assert len(await everything(store)) == 2
        assert not (await store.database.read(lambda c: c.in_transaction))
        await bound(2**30)
        done = await store.log.append(step(), large())
        assert done.first == head.position + 1
        assert (await verify(store)).ok
    assert verify_file(path).ok


@pytest.mark.parametrize("at", ["COMMIT", "BEGIN", "INSERT INTO events"])
@pytest.mark.parametrize(
    "name", ["SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR"]
)
@in_loop
async def test_a_failed_write_or_sync_stops_the_store(
    path: Path, failing: type[Failing], at: str, name: str
) -> None:
    """What is durable is unknown from then on, and a later sync that succeeds would not tell."""
    async with open_store(path) as store:
        await store.log.append(step())
        head = await store.log.head()
        failing.at, failing.fault = at, fault(name)
        outcomes = await asyncio.gather(
            *[store.log.append(step()) for _ in range(3)], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [StoreFailed] * 3
        failing.fault = None
        for _ in range(2):
            with pytest.raises(StoreFailed, match="open the file again"):
                await store.log.append(step())
        assert await store.log.head() == head
    async with open_store(path) as store:
        assert (await store.log.append(step())).first == head.position + 1
    assert verify_file(path).ok


@in_loop
async def test_a_failure_reaches_whoever_waits_for_room(
    path: Path, failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "MAX_QUEUED_EVENTS", 10)
    async with open_store(path) as store:
        failing.fault = fault("SQLITE_IOERR_FSYNC")
        outcomes = await asyncio.wait_for(
            asyncio.gather(
                *[store.log.append(*[step()] * 6) for _ in range(20)], return_exceptions=True
            ),
            5,
        )
        assert {type(outcome) for outcome in outcomes} == {StoreFailed}


@in_loop
async def test_a_mistake_of_ours_fails_its_batch_and_no_other(
    path: Path, failing: type[Failing]
) -> None:
    """Whatever is raised while a batch is written, nobody waits for ever."""
    async with open_store(path) as store:
        failing.fault = RuntimeError("a mistake")  # type: ignore[assignment]
        outcomes = await asyncio.wait_for(
            asyncio.gather(*[store.log.append(step()) for _ in range(3)], return_exceptions=True), 2
        )
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
        failing.fault = None
        with suppress(RuntimeError, CarstoreError):  # it goes on, or says that it does not
            await asyncio.wait_for(store.log.append(step()), 2)
    assert verify_file(path).ok


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("SQLITE_BUSY", Busy),
        ("SQLITE_BUSY_SNAPSHOT", Busy),
        ("SQLITE_LOCKED", Busy),
        ("SQLITE_FULL", DiskFull),
        ("SQLITE_READONLY", ReadOnly),
        ("SQLITE_READONLY_DBMOVED", ReadOnly),
        ("SQLITE_NOTADB", NotADatabase),
        ("SQLITE_CORRUPT", CorruptLog),
        ("SQLITE_CORRUPT_INDEX", CorruptLog),
        ("SQLITE_CANTOPEN", StoreFailed),
        ("SQLITE_CANTOPEN_ISDIR", StoreFailed),
        ("SQLITE_IOERR_FSYNC", StoreFailed),
        ("SQLITE_PROTOCOL", StoreFailed),
        ("SQLITE_ERROR", StoreFailed),
    ],
)
def test_errors_of_sqlite_have_a_meaning(name: str, error: type[CarstoreError]) -> None:
    translated = translate(fault(name, "said SQLite"), "agents.db", 77)
    assert type(translated) is error
    assert "agents.db" in translated.message


def test_an_error_without_a_name_is_a_failure() -> None:
    assert isinstance(translate(sqlite3.InterfaceError("odd"), "a.db", 1), StoreFailed)


# Closing.


@in_loop
async def test_a_closed_store_says_so(path: Path) -> None:
    store = await open_store(path)
    await store.log.append(step())
    for _ in range(2):
        await store.close()
    for attempt in (
        store.log.append(step()), store.log.head(), store.log.state_of("main"),  # type: ignore[arg-type]
        store.leases.rows(), store.leases.acquire(LeaseName("x")), store.database.checkpoint(),
    ):  # fmt: skip
        with pytest.raises(Closed):
            await attempt
    assert len(rows_of(path)["events"]) == 2


@in_loop
async def test_two_may_close_a_store(path: Path) -> None:
    store = await open_store(path)
    futures = [await store.log.submit(step()) for _ in range(20)]
    await asyncio.gather(store.close(), store.close())
    assert all(future.result() for future in futures)


@in_loop
async def test_whoever_waits_for_room_when_the_store_is_closed_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "MAX_QUEUED_EVENTS", 10)
    store = await open_store(path)
    waiting = [asyncio.create_task(store.log.append(*[step()] * 6)) for _ in range(20)]
    await asyncio.sleep(0)
    await store.close()
    outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    done = [outcome for outcome in outcomes if not isinstance(outcome, Closed)]
    assert done
    assert not [outcome for outcome in done if isinstance(outcome, BaseException)]
    assert len(rows_of(path)["events"]) == 1 + 6 * len(done)


# The queue.


@in_loop
async def test_the_queue_is_bounded_and_makes_its_users_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "MAX_QUEUED_EVENTS", 50)
    monkeypatch.setattr(sqlite_log, "MAX_BATCH_EVENTS", 20)
    async with open_store(path) as store:
        futures: list[asyncio.Future[Any]] = []
        most = 0
        for _ in range(100):
            futures.append(await store.log.submit(*[step()] * 7))
            most = max(most, 7 * sum(not future.done() for future in futures))
        await asyncio.gather(*futures)
        assert most <= 50 + 20 + 7
        firsts = [future.result().first for future in futures]
        assert firsts == list(range(2, 2 + 700, 7))


@in_loop
async def test_an_append_larger_than_the_queue_gets_its_turn(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "MAX_QUEUED_EVENTS", 10)
    async with open_store(path) as store:
        stop = False

        async def small() -> None:
            while not stop:
                await store.log.append(step())

        crowd = [asyncio.create_task(small()) for _ in range(8)]
        await asyncio.sleep(0.01)
        done = await asyncio.wait_for(store.log.append(*[step()] * 40), 5)
        assert done.last - done.first == 39
        stop = True
        await asyncio.gather(*crowd)


@in_loop
async def test_a_cancelled_wait_for_room_appends_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "MAX_QUEUED_EVENTS", 10)
    async with open_store(path) as store:
        tasks = [asyncio.create_task(store.log.append(*[step(f"s{n}")] * 6)) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert not [o for o in outcomes[::2] if isinstance(o, BaseException)]
        streams = {recorded.stream for recorded in await everything(store)}
        assert {f"s{n}" for n in range(0, 20, 2)} <= streams
        assert len(streams) < 20
