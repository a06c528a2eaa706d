"""What docs/guarantees.md says of full disks, failing writes, locks and several processes."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from carstore import Entry, Store, connect
from carstore.errors import Busy, DiskFull
from carstore.events import StateChanged
from carstore.names import StreamName
from carstore.sqlite.verify import verify
from tests.docs.markdown import ROOT


async def append(store: Store, size: int = 10) -> None:
    event = StateChanged(scope="main", key="a", value="x" * size)
    await store.log.append(Entry(StreamName("notes"), event))


def limited(pages: int) -> Callable[[sqlite3.Connection], None]:
    """A job that lets the file grow to so many pages and no further, as a full disk would."""

    def job(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    return job


async def fails(kind: type[Exception], job: Callable[[], Awaitable[None]], times: int) -> int:
    """How often `job` succeeded before it raised `kind`, as it must within so many times."""
    for done in range(times):
        try:
            await job()
        except kind:
            return done
    raise AssertionError(f"no {kind.__name__} in {times} appends")


def test_a_full_disk_fails_the_append_and_the_store_goes_on(tmp_path: Path) -> None:
    async def check() -> None:
        async with connect(tmp_path / "a.db") as store:
            await store.database.write(limited(60))
            done = await fails(DiskFull, lambda: append(store, 10_000), 100)
            head = await store.log.head()
            assert head.position == 1 + done
            await store.database.write(limited(1_000_000))
            await append(store, 10_000)
            assert (await store.log.head()).position == head.position + 1
            assert (await verify(store, head=head)).ok

    asyncio.run(check())


@pytest.mark.parametrize("durability", ["power", "crash"])
def test_a_failing_write_stops_the_store_and_loses_nothing(tmp_path: Path, durability: str) -> None:
    """In a process that may not make files any larger: its writes fail, as on a broken disk."""
    program = f"""
import asyncio, resource, signal
from carstore import connect
from carstore.errors import StoreFailed
from tests.docs.test_durability_table import append, fails

async def main():
    store = await connect({str(tmp_path / "a.db")!r}, durability={durability!r})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    done = await fails(StoreFailed, lambda: append(store, 10_000), 100)
    await fails(StoreFailed, lambda: append(store), 1)
    print((await store.log.head()).position, 1 + done)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.close()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    head, acknowledged = map(int, done.stdout.split())
    assert head == acknowledged

    async def check() -> None:
        async with connect(tmp_path / "a.db") as store:
            assert (await store.log.head()).position >= acknowledged
            assert (await verify(store)).ok
            await append(store)

    asyncio.run(check())


def test_a_writer_that_waits_too_long_is_told_and_may_try_again(tmp_path: Path) -> None:
    async def check() -> None:
        async with connect(tmp_path / "a.db", busy_timeout_ms=50) as store:
            other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy):
                await append(store)
            other.execute("ROLLBACK")
            other.close()
            await append(store)
            assert (await store.log.head()).position == 2

    asyncio.run(check())


def test_processes_that_append_at_once_take_turns_and_lose_nothing(tmp_path: Path) -> None:
    processes, each = 4, 25
    program = f"""
import asyncio
from carstore import connect
from tests.docs.test_durability_table import append

async def main():
    async with connect({str(tmp_path / "a.db")!r}) as store:
        for _ in range({each}):
            await append(store)

asyncio.run(main())
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) for _ in range(processes)
    ]
    assert [process.wait(60) for process in started] == [0] * processes

    async def check() -> None:
        async with connect(tmp_path / "a.db") as store:
            assert (await store.log.head()).position == 1 + processes * each
            assert (await verify(store)).ok

    asyncio.run(check())
