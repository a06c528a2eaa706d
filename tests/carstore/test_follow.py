"""Following: nothing is missed, nothing is held back, and waiting costs next to nothing."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from carstore import Recorded, Store
from carstore.errors import Closed, InvalidEvent, NotFound, StoreFailed
from carstore.log import Head
from carstore.names import RunId, StreamName
from carstore.sqlite import follow, reading, wal
from carstore.sqlite import log as sqlite_log
from carstore.sqlite.migrations import SCHEMA
from tests.carstore.attack import lawless
from tests.carstore.faults import Failing, fault
from tests.carstore.helpers import (
    change,
    everything,
    in_loop,
    open_store,
    run_stream_of,
    step,
    stock,
)
from tests.docs.markdown import ROOT

APPEND = """
import asyncio, sys
from carstore import connect
from tests.carstore.helpers import step

async def main():
    async with connect(sys.argv[1], durability="crash") as store:
        for n in range(int(sys.argv[2])):
            await store.log.append(step("elsewhere", str(n)))

asyncio.run(main())
"""


@pytest.mark.parametrize("readonly", [False, True])
@in_loop
async def test_a_place_past_the_end_of_the_log_is_refused(path: Path, readonly: bool) -> None:
    """Else one would wait for ever, for events of a log that was cut, say."""
    async with open_store(path, readonly=readonly) as store:
        for found in (store.log.follow(after=2), store.log.follow_pages(after=99)):
            with pytest.raises(NotFound, match="The log ends at 1"):
                await asyncio.wait_for(anext(found), 5)


@in_loop
async def test_a_text_in_place_of_kinds_is_refused(path: Path) -> None:
    """Its letters would be taken for kinds, of which there are no events."""
    async with open_store(path) as store:
        for call in (store.log.follow, store.log.follow_pages, store.log.read, store.log.pages):
            with pytest.raises(TypeError, match=r"write kinds=\['state_changed'\]"):
                await asyncio.wait_for(anext(call(kinds="state_changed")), 5)


async def taken(found: AsyncGenerator[Recorded, None], count: int) -> list[int]:
    """The positions of so many events."""
    positions: list[int] = []
    async with aclosing(found):
        async for recorded in found:
            positions.append(recorded.position)
            if len(positions) == count:
                return positions
    raise AssertionError("a follower never ends by itself")


@in_loop
async def test_what_another_process_appends_is_seen_while_it_runs(path: Path) -> None:
    async with open_store(path) as store:
        follower = asyncio.create_task(taken(store.log.follow(after=1), 200))
        await asyncio.sleep(0.05)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", APPEND, path, "200", cwd=ROOT
        )
        assert await follower == list(range(2, 202))
        assert await process.wait() == 0


@pytest.mark.parametrize("near", [0, 10_000])
@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"kinds": ["state_changed"]},
        {"kinds": []},
        {"stream": StreamName("a")},
        {"stream": StreamName("a"), "kinds": ["state_changed"]},
        {"run": RunId("r")},
        {"run": RunId("r"), "kinds": ["action_validated"]},
    ],
    ids=str,
)
@in_loop
async def test_following_finds_what_reading_finds(
    path: Path, wanted: dict[str, Any], near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "NEAR_EVENTS", near)
    monkeypatch.setattr(sqlite_log, "PAGE_EVENTS", 7)
    entries = [
        step("a"),
        change("k", 1, stream="a"),
        step("b"),
        change("k", 2, stream="b"),
        step(run_stream_of("r"), run="r"),
        step("run/r/inbox", run="r"),
    ]
    seen: list[int] = []

    async def watch(found: AsyncGenerator[Recorded, None]) -> None:
        async for recorded in found:
            seen.append(recorded.position)  # noqa: PERF401 - it is looked at meanwhile

    async with open_store(path) as store:
        for _ in range(10):
            await store.log.append(*entries)
        watching = asyncio.create_task(watch(store.log.follow(after=5, **wanted)))
        for _ in range(10):
            await asyncio.sleep(0.001)
            await store.log.append(*entries)
        expected = [one.position for one in await everything(store, after=5, **wanted)]
        async with asyncio.timeout(5):
            while len(seen) < len(expected):
                await asyncio.sleep(0.001)
        assert seen == expected
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


@in_loop
async def test_a_name_that_nothing_can_have_is_refused(path: Path) -> None:
    async with open_store(path) as store:
        for wanted in ({"stream": "a\0b"}, {"run": "\ud800"}, {"kinds": ["\0"]}):
            with pytest.raises(InvalidEvent):
                await taken(store.log.follow(**wanted), 1)  # type: ignore[arg-type]


# The watch.


@in_loop
async def test_all_followers_share_one_thread_from_the_first_to_the_last(path: Path) -> None:
    async with open_store(path) as store:
        before = threading.active_count()
        tasks = [asyncio.create_task(taken(store.log.follow(), 10**9)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert threading.active_count() == before + 1
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks[1:])
        assert threading.active_count() == before + 1
        assert await taken(store.log.follow(), 1) == [1]
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        async with asyncio.timeout(2):
            while threading.active_count() > before:
                await asyncio.sleep(0.001)
        assert await taken(store.log.follow(), 1) == [1]


@in_loop
async def test_the_event_loop_sleeps_while_nothing_happens(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = 0
    wait = follow._wait_for_change

    def counted(connection: sqlite3.Connection, seen: int, stop: threading.Lock) -> int:
        nonlocal jobs
        jobs += 1
        return wait(connection, seen, stop)

    monkeypatch.setattr(follow, "_wait_for_change", counted)
    async with open_store(path) as store:
        task = asyncio.create_task(taken(store.log.follow(), 10**9))
        await asyncio.sleep(0.3)
        assert jobs == 1
        task.cancel()
        await asyncio.wait([task])


@in_loop
async def test_waiting_goes_on_after_the_longest_job(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "JOB_SECONDS", 0.02)
    async with open_store(path) as store, open_store(path) as other:
        task = asyncio.create_task(taken(store.log.follow(after=1), 1))
        await asyncio.sleep(0.1)
        await other.log.append(step())
        assert await asyncio.wait_for(task, 2) == [2]


@in_loop
async def test_neither_an_append_of_the_same_store_nor_its_end_waits_for_the_next_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 60)
    async with open_store(path) as store:
        task = asyncio.create_task(taken(store.log.follow(after=1), 2))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await store.log.append(step())
        await asyncio.sleep(0.05)
        await store.log.append(step())
        assert await task == [2, 3]
        task = asyncio.create_task(taken(store.log.follow(after=3), 1))
        await asyncio.sleep(0.05)
    with pytest.raises(Closed):
        await task
    assert time.monotonic() - began < 5
    with pytest.raises(Closed):
        await taken(store.log.follow(), 1)


@in_loop
async def test_a_follower_is_told_of_a_failure_and_the_next_one_tries_again(
    path: Path, failing: type[Failing]
) -> None:
    failing.at = "PRAGMA data_version"
    async with open_store(path) as store:
        failing.fault = fault("SQLITE_IOERR_READ")
        for _ in range(2):
            with pytest.raises(StoreFailed):
                await taken(store.log.follow(), 10)
        failing.fault = None
        task = asyncio.create_task(taken(store.log.follow(), 10))
        await asyncio.sleep(0.05)
        failing.fault = fault("SQLITE_IOERR_READ")
        with pytest.raises(StoreFailed):
            await asyncio.wait_for(task, 2)
        failing.fault = None
        await store.log.append(step())  # reading has failed, nothing that was to be durable
        assert await taken(store.log.follow(), 2) == [1, 2]


@in_loop
async def test_a_lock_that_lasts_makes_a_follower_late_and_no_more(
    path: Path, failing: type[Failing]
) -> None:
    failing.at = "PRAGMA data_version"
    async with open_store(path) as store, open_store(path) as other:
        task = asyncio.create_task(taken(store.log.follow(after=1), 1))
        await asyncio.sleep(0.05)
        failing.fault = fault("SQLITE_BUSY", "database is locked")
        await asyncio.sleep(0.05)
        failing.fault = None
        await other.log.append(step())
        assert await asyncio.wait_for(task, 2) == [2]


@in_loop
async def test_what_is_committed_and_noticed_right_after_a_look_is_found(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 60)
    async with open_store(path) as store:
        look, is_first = store.log.head, True

        async def look_and_append() -> Head:
            nonlocal is_first
            found = await look()
            if is_first:
                is_first = False
                await store.log.append(step())
            return found

        monkeypatch.setattr(store.log, "head", look_and_append)
        assert await asyncio.wait_for(taken(store.log.follow(after=1), 1), 5) == [2]


@in_loop
async def test_a_store_for_reading_is_followed_too(path: Path) -> None:
    async with open_store(path) as store, open_store(path, readonly=True) as reader:
        task = asyncio.create_task(taken(reader.log.follow(), 3))
        for _ in range(2):
            await store.log.append(step())
        assert await asyncio.wait_for(task, 2) == [1, 2, 3]


@in_loop
async def test_a_file_that_a_newer_program_has_migrated_is_followed_on(path: Path) -> None:
    async with open_store(path) as store, open_store(path) as other:
        with closing(stock(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        assert await taken(store.log.follow(), 1) == [1]
        with closing(stock(path)) as connection:
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        task = asyncio.create_task(taken(store.log.follow(), 2))
        await other.log.append(step())
        assert await asyncio.wait_for(task, 2) == [1, 2]


# Slow ones.


async def stopped_after_one(
    found: AsyncGenerator[Recorded, None], last: "asyncio.Future[int]"
) -> list[int]:
    """The positions up to `last`, with a pause after the first one until that is known."""
    positions = []
    async with aclosing(found):
        async for recorded in found:
            positions.append(recorded.position)
            if recorded.position == await asyncio.shield(last):
                break
    return positions


@in_loop
async def test_readers_that_stop_midway_hold_nothing_back_and_miss_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "CHECKPOINT_PAGES", 100)
    monkeypatch.setattr(wal, "LOOK_SECONDS", 0)
    monkeypatch.setattr(reading, "PAGE_CHARS", 5_000)
    last: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with open_store(path) as store, open_store(path, readonly=True) as reader:
        await store.log.append(*[step() for _ in range(1500)])
        tasks = [
            asyncio.create_task(stopped_after_one(found, last))
            for log in (store.log, reader.log)
            for found in (log.follow(), log.read())
        ]
        await asyncio.sleep(0.05)
        for _ in range(10):
            await store.log.append(*[change("k", "x" * 2000) for _ in range(200)])
            async with asyncio.timeout(10):
                while store.database.wal_pages() > 100:
                    await store.log.append(step())
                    await asyncio.sleep(0.002)
        last.set_result((await store.log.head()).position)
        for found in await asyncio.gather(*tasks):
            assert found == list(range(1, last.result() + 1))


@pytest.mark.parametrize("method", ["pages", "follow_pages"])
@in_loop
async def test_a_page_ends_when_it_holds_much_text(
    path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PAGE_CHARS", 10_000)
    monkeypatch.setattr(reading, "_LOOK_ROWS", 1)
    async with open_store(path) as store:
        await store.log.append(*[change(f"k{n}", "x" * 3000) for n in range(20)])
        await store.log.append(change("large", "x" * 50_000), *[step() for _ in range(50)])
        positions: list[int] = []
        async with aclosing(getattr(store.log, method)()) as found:
            async for page in found:
                chars = [len(one.data) for one in page]
                assert sum(chars[:-1]) <= 10_000
                positions += [one.position for one in page]
                if positions[-1] == 72:
                    break
        assert positions == list(range(1, 73))


@in_loop
async def test_a_row_of_a_damaged_file_is_handed_out_as_it_is(path: Path) -> None:
    with lawless(path) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ') STRICT', ')')")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'TEXT NOT', 'NOT')")
    with lawless(path) as connection:
        connection.execute(
            "INSERT INTO events SELECT 2, stream_id, 2, 'x', 1, 1, NULL, NULL, NULL, NULL, NULL, "
            "77, hash, hash FROM events"
        )
    async with open_store(path, readonly=True) as store:
        assert [one.data for one in await everything(store)][1:] == [77]


@in_loop
async def test_whoever_leaves_midway_leaves_nothing_behind(path: Path) -> None:
    async with open_store(path) as store:
        await store.log.append(*[step() for _ in range(20)])
        before = threading.active_count()
        for leave in (_break, _cancel, _raise):
            await leave(store)
            async with asyncio.timeout(2):
                while threading.active_count() > before:
                    await asyncio.sleep(0.001)
        assert await taken(store.log.follow(), 21) == list(range(1, 22))


async def _break(store: Store) -> None:
    async for recorded in store.log.follow():
        if recorded.position == 5:
            break


async def _cancel(store: Store) -> None:
    task = asyncio.create_task(taken(store.log.follow(), 10**9))
    await asyncio.sleep(0.03)
    task.cancel()
    await asyncio.wait([task])


async def _raise(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        async for _ in store.log.follow():
            raise ZeroDivisionError


def test_a_program_that_ends_while_it_follows_ends(path: Path) -> None:
    program = """
import asyncio, sys
from carstore import connect

async def main():
    async with connect(sys.argv[1], durability="crash") as store:
        async for recorded in store.log.follow():
            print(recorded.position)
            break
        waiting = asyncio.create_task(anext(store.log.follow(after=1)))
        waiting.add_done_callback(lambda task: print(type(task.exception()).__name__))
        await asyncio.sleep(0.05)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, path],
        cwd=ROOT, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\nClosed\n", "")
