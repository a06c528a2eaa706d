"""The WAL: who empties it, who holds it back, and what a failure of that does."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from carstore.errors import Busy, CarstoreError, DiskFull, StoreFailed
from carstore.sqlite import database, wal
from carstore.sqlite.verify import verify_file
from tests.carstore.faults import Failing, fault
from tests.carstore.helpers import change, in_loop, open_store, step, stock

LARGE = "x" * 3000


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WAL is looked at after each batch, and emptied when it has 20 pages."""
    monkeypatch.setattr(wal, "CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(wal, "LOOK_SECONDS", 0)


@in_loop
async def test_checkpoints_of_one_process_take_turns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of two stores on one file, under two names for it."""
    at_it, most, done = 0, 0, 0
    guard = Lock()

    class Counting(database.JobConnection):
        def execute(self, sql: str, parameters: Any = ()) -> Any:
            nonlocal at_it, most, done
            if isinstance(sql, str) and "wal_checkpoint" in sql:
                with guard:
                    at_it += 1
                    most = max(most, at_it)
                    done += 1
                time.sleep(0.005)
                with guard:
                    at_it -= 1
            return super().execute(sql, parameters)

    monkeypatch.setattr(database, "JobConnection", Counting)
    link = path.with_name("link.db")
    link.symlink_to(path)
    async with open_store(path) as one, open_store(path) as two, open_store(link) as three:
        stores = [one, two, three]
        for _ in range(5):
            await asyncio.gather(
                *[store.log.append(change("k", LARGE)) for store in stores],
                *[store.database.checkpoint() for store in stores],
                *[store.database.empty_wal() for store in stores],
                *[store.database.truncate_wal() for store in stores],
            )
    assert most == 1
    assert done >= 5 * 3


@in_loop
async def test_what_is_in_the_file_already_is_not_checkpointed_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what SQLite's WAL-reset bug needs, together with a write at the same instant."""
    done = 0

    class Counting(database.JobConnection):
        def execute(self, sql: str, parameters: Any = ()) -> Any:
            nonlocal done
            done += isinstance(sql, str) and "wal_checkpoint" in sql
            return super().execute(sql, parameters)

    monkeypatch.setattr(database, "JobConnection", Counting)
    async with open_store(path) as store, open_store(path) as other:
        for turn in range(1, 5):
            await store.log.append(change("k", LARGE))
            for _ in range(3):
                assert (await store.database.empty_wal()).is_whole
                assert (await other.database.checkpoint()).is_whole
            assert done == turn
    with closing(stock(path)) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (5,)
    assert verify_file(path).ok


@in_loop
async def test_a_reader_that_never_ends_holds_the_wal_back_until_it_does(path: Path) -> None:
    async with open_store(path) as store:
        await store.log.append(step())
        foreign = stock(path)
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM events").fetchone()
        await store.log.append(*[change("k", LARGE) for _ in range(200)])
        found = await store.database.empty_wal()
        assert not found.is_whole
        assert found.moved < found.pages
        held = store.database.wal_pages()
        assert held > 200
        await store.log.append(*[change("k", LARGE) for _ in range(200)])
        assert store.database.wal_pages() > held + 200
        foreign.execute("COMMIT")
        assert (await store.database.empty_wal()).is_whole
        await store.log.append(step())
        assert store.database.wal_pages() < 20
        foreign.close()


@in_loop
async def test_a_wal_that_was_held_back_does_not_keep_its_size(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "MAX_KEPT_BYTES", 200_000)
    async with open_store(path) as store:
        foreign = stock(path)
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM events").fetchone()
        await store.log.append(*[change("k", LARGE) for _ in range(300)])
        foreign.execute("COMMIT")
        foreign.close()
        assert Path(f"{path}-wal").stat().st_size > 1_000_000
        assert (await store.database.empty_wal()).is_whole
        await store.log.append(step())
        assert Path(f"{path}-wal").stat().st_size <= 200_000


@pytest.mark.usefixtures("soon")
@in_loop
async def test_checkpoints_in_vain_become_rare(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one searches the whole WAL, while it grows."""
    tries: list[float] = []

    async with open_store(path) as store:
        empty = store.database.empty_wal

        async def slow() -> wal.Checkpoint:
            tries.append(time.monotonic())
            await asyncio.sleep(0.01)
            return await empty()

        monkeypatch.setattr(store.database, "empty_wal", slow)
        foreign = stock(path)
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM events").fetchone()
        began = time.monotonic()
        while time.monotonic() < began + 0.5:
            await store.log.append(change("k", LARGE))
        assert 2 <= len(tries) <= 4
        foreign.execute("COMMIT")
        foreign.close()
        async with asyncio.timeout(10):
            while store.database.wal_pages() > 20:
                await store.log.append(step())
                await asyncio.sleep(0.01)


@in_loop
async def test_a_checkpoint_that_fails_stops_the_store(path: Path, failing: type[Failing]) -> None:
    """What it was to make durable may not be, whatever a later sync says."""
    failing.at = "PRAGMA wal_checkpoint"
    async with open_store(path) as store:
        await store.log.append(step())
        failing.fault = fault("SQLITE_IOERR_FSYNC")
        with pytest.raises(StoreFailed):
            await store.database.checkpoint()
        failing.fault = None
        assert isinstance(store.database.failure, StoreFailed)
        for _ in range(2):
            with pytest.raises(StoreFailed, match="open the file again"):
                await store.log.append(step())
        assert (await store.log.head()).position == 2
    async with open_store(path) as store:
        assert (await store.log.append(step())).first == 3
    assert verify_file(path).ok


@pytest.mark.usefixtures("soon")
@in_loop
async def test_a_checkpoint_beside_the_appends_that_fails_stops_them(
    path: Path, failing: type[Failing]
) -> None:
    failing.at = "PRAGMA wal_checkpoint"
    async with open_store(path) as store:
        failing.fault = fault("SQLITE_IOERR_WRITE")
        with pytest.raises(StoreFailed):
            for _ in range(100):
                await store.log.append(change("k", LARGE))
        failing.fault = None
        with pytest.raises(StoreFailed):
            await store.log.append(step())
    assert verify_file(path).ok


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_BUSY"])
@in_loop
async def test_a_checkpoint_without_room_or_in_the_way_of_another_is_done_later(
    path: Path, failing: type[Failing], name: str
) -> None:
    failing.at = "PRAGMA wal_checkpoint"
    async with open_store(path) as store:
        failing.fault = fault(name, "not now")
        for _ in range(50):
            await store.log.append(change("k", LARGE))
        with pytest.raises((Busy, DiskFull)):
            await store.database.checkpoint()
        assert store.database.failure is None
        assert store.database.wal_pages() > 40
        failing.fault = None
        async with asyncio.timeout(5):
            while store.database.wal_pages() > 20:
                await store.log.append(step())


@in_loop
async def test_each_caller_gets_an_error_of_its_own(path: Path) -> None:
    """One may add a note to it, and each has its own traceback."""
    foreign = stock(path)
    async with open_store(path, busy_timeout_ms=10) as store:
        foreign.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(
            *[store.log.append(step()) for _ in range(3)], return_exceptions=True
        )
        foreign.execute("ROLLBACK")
    foreign.close()
    assert len({id(outcome) for outcome in outcomes}) == 3
    for outcome in outcomes:
        assert isinstance(outcome, Busy)
        assert isinstance(outcome.__cause__, sqlite3.OperationalError)


@in_loop
async def test_a_store_that_has_stopped_tells_each_caller_anew(
    path: Path, failing: type[Failing]
) -> None:
    async with open_store(path) as store:
        failing.fault = fault("SQLITE_IOERR_FSYNC")
        told: list[CarstoreError] = []
        for _ in range(3):
            with pytest.raises(StoreFailed) as raised:
                await store.log.append(step())
            told.append(raised.value)
    assert len({id(error) for error in told}) == 3
    assert len({error.message for error in told}) == 1


@in_loop
async def test_several_files_are_opened_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.db" for name in "abc"]
    stores = await asyncio.gather(*[open_store(each) for each in [*paths, paths[0]]])
    assert [store.path for store in stores] == [str(each) for each in [*paths, paths[0]]]
    assert len({store.log_id for store in stores}) == 3
    await asyncio.gather(*[store.log.append(step()) for store in stores])
    heads = [(await store.log.head()).position for store in stores]
    assert heads == [3, 2, 2, 3]
    await asyncio.gather(*[store.close() for store in stores])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "b.db", "c.db"]
