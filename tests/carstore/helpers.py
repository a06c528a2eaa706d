"""What the tests of the store share: opening, writing down events quickly, and fakes."""

import asyncio
import functools
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ParamSpec

from attrs import define, field

from carstore import Entry, Recorded, Store, connect
from carstore.clock import ManualClock
from carstore.events import ActionValidated, LeaseGranted, LeaseReleased, LeaseRenewed, StateChanged
from carstore.holders import Holder
from carstore.names import (
    LeaseName,
    Micros,
    RunId,
    Scope,
    StateKey,
    StreamName,
    lease_stream,
)

P = ParamSpec("P")

MAIN = Scope("main")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in a loop of its own, and end it if it hangs."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    return run


def open_store(path: Path, **options: Any) -> connect:
    """A store whose appends survive the process only, because tests make thousands."""
    return connect(path, **{"durability": "crash", **options})


@functools.cache
def _empty_file() -> bytes:
    """A new store: migrating each one anew would be most of a test's time."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"

        async def make() -> None:
            async with open_store(path, clock=ManualClock()):
                pass

        with asyncio.Runner() as runner:
            runner.run(make())
        return path.read_bytes()


def new_file(path: Path) -> Path:
    """Put a new store, as of the start of `ManualClock`, at `path`."""
    for leftover in (f"{path}-wal", f"{path}-shm"):
        Path(leftover).unlink(missing_ok=True)
    path.write_bytes(_empty_file())
    return path


def copy_file(path: Path, to: Path) -> Path:
    """Copy a store that is closed."""
    assert not Path(f"{path}-wal").exists()
    return Path(shutil.copyfile(path, to))


def stock(path: Path) -> sqlite3.Connection:
    """A connection that has never heard of carstore; each statement is a transaction."""
    return sqlite3.connect(path, isolation_level=None)


def rows_of(path: Path) -> dict[str, list[Any]]:
    """All that a stock connection can read of what the law is about."""
    connection = stock(path)
    try:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("events", "streams", "leases")
        }
    finally:
        connection.close()


# Entries.


def run_stream_of(name: str) -> StreamName:
    return StreamName(f"run/{name}")


def step(stream: str = "notes", action: str = "a", run: str | None = None) -> Entry:
    """A small event in a stream that no lease fences."""
    event = ActionValidated(action_id=action)
    return Entry(StreamName(stream), event, None if run is None else RunId(run))


def change(
    key: str,
    value: Any = None,
    *,
    deleted: bool = False,
    stream: str = "notes",
    scope: str = "main",
) -> Entry:
    event = StateChanged(scope=scope, key=key, value=value, deleted=deleted)
    return Entry(StreamName(stream), event, RunId("r"))


def grant(lease: str, ttl_us: int = 60_000_000) -> Entry:
    holder = FakeProcesses().current("by hand").to_json()
    event = LeaseGranted(lease=lease, holder=holder, ttl_us=ttl_us, request_id="q")
    return Entry(lease_stream(LeaseName(lease)), event)


def ungrant(lease: str, token: int) -> Entry:
    return Entry(lease_stream(LeaseName(lease)), LeaseReleased(lease=lease, token=token))


def renewal(leases: Any, ttl_us: int = 60_000_000) -> Entry:
    return Entry(StreamName("lease/renewals"), LeaseRenewed(leases=leases, ttl_us=ttl_us))


# Reading.


async def everything(store: Store, **wanted: Any) -> list[Recorded]:
    return [recorded async for recorded in store.log.read(**wanted)]


def key(name: str) -> tuple[Scope, StateKey]:
    return MAIN, StateKey(name)


# Fakes.


@define
class TickingClock(ManualClock):
    """One microsecond later at each reading of the wall: so readings can be told apart."""

    def now(self) -> Micros:
        self.advance(1)
        return Micros(self.wall)


@define
class FakeProcesses:
    """Processes that live until a test says otherwise."""

    gone: set[str] = field(factory=set)
    """Incarnations that are gone."""
    _numbers: Iterator[int] = field(factory=lambda: itertools.count(1))

    def current(self, instance: str) -> Holder:
        number = next(self._numbers)
        return Holder(
            instance=instance,
            incarnation=f"{instance}-{number}",
            machine="m",
            boot="b",
            host="h",
            pid=number,
            pid_namespace="n",
            started="s",
        )

    def is_gone(self, holder: Holder) -> bool:
        return holder.incarnation in self.gone
