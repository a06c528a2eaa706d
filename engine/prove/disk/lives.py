"""What children do on a disk that is watched. Each function is the life of one; what it returns is
read by the proof that wanted it."""

import asyncio
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

from attrs import define

from carstore import connect
from carstore.errors import CarstoreError, DiskFull
from carstore.events import StateChanged
from carstore.log import Appended, Entry
from carstore.names import MAIN_SCOPE, StreamName
from carstore.sqlite import wal
from carstore.sqlite.database import Durability
from carstore.sqlite.verify import verify
from carstore.store import Store
from engine.prove.aftermath import faults, view_faults
from engine.prove.disk.shim import counted, note
from engine.prove.workload import Place, live

__all__ = ["DiskPlace", "appends", "failing", "full", "outsider", "probe", "reopened", "runs"]

OFTEN_PAGES = 40
"""Size of the WAL at which a checkpoint begins, instead of 4,000 pages: so that a short history
holds many."""

SIZES = (10, 10, 200, 200, 3_000, 20_000)
"""Bytes of a value: several to a page of the file, one to a page, and one over several pages."""


@define
class DiskPlace(Place):
    """The database has a folder of its own, so that it alone is watched."""

    @property
    def database(self) -> Path:
        return self.folder / "disk" / "agents.db"


def probe(database: str) -> int:
    """Does the library see what SQLite does?"""
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE probe (x)")
    connection.close()
    return counted()


def runs(folder: str, runs: int) -> None:
    """Runs of the built-in workload, until all are over."""
    wal.CHECKPOINT_PAGES = OFTEN_PAGES
    asyncio.run(live(DiskPlace(Path(folder)), runs, durability="power"))


# --- appends ---


def values_of(source: random.Random) -> list[str]:
    """What one append says: one to eight values, small or large, each like no other."""
    count = source.choice((1, 1, 2, 3, 8))
    return [source.randbytes(source.choice(SIZES) // 2).hex() for _ in range(count)]


def entries_of(source: random.Random, stream: str) -> list[Entry]:
    """The same as an append to one stream and some keys."""
    return [
        Entry(StreamName(stream), StateChanged(scope=MAIN_SCOPE, key=f"{stream} {n}", value=value))
        for n, value in enumerate(values_of(source))
    ]


def appends(database: str, seed: int, name: str, count: int, durability: Durability) -> None:
    """`count` appends of each of three tasks at once, noting in the trace what is acknowledged."""
    wal.CHECKPOINT_PAGES = OFTEN_PAGES

    async def produce(store: Store, number: int) -> None:
        source = random.Random(seed * 10 + number)
        for _ in range(count):
            done = await store.log.append(*entries_of(source, f"{name}/{number}"))
            note(f"{done.first} {done.last}")

    async def live() -> None:
        async with connect(database, durability=durability) as store:
            await asyncio.gather(*(produce(store, number) for number in range(3)))
            await store.database.checkpoint()

    asyncio.run(live())


def outsider(database: str, seed: int, seconds: float) -> None:
    """Some other program, which checkpoints now and then and knows nothing of us."""
    source, until = random.Random(seed), time.monotonic() + seconds
    connection = sqlite3.connect(database, isolation_level=None)
    while time.monotonic() < until:
        time.sleep(source.uniform(0, 0.01))
        kind = source.choice(("PASSIVE", "RESTART", "TRUNCATE"))
        try:
            connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            continue  # busy, or the file is being made
    connection.close()


# --- a full disk ---

MOST_APPENDS = 2_000
"""By then a disk must have been full: they hold some twenty megabytes."""


@define
class Told:
    """What was acknowledged and refused, for a report."""

    acknowledged: list[tuple[int, int]]
    broken: list[str]
    slowest_ms: float = 0.0

    async def append(self, store: Store, entries: list[Entry]) -> Appended | CarstoreError:
        """One append, and how long it took if it was refused."""
        begun = time.monotonic()
        try:
            done = await store.log.append(*entries)
        except CarstoreError as error:
            self.slowest_ms = max(self.slowest_ms, (time.monotonic() - begun) * 1000)
            return error
        self.acknowledged.append((done.first, done.last))
        return done

    async def look(self, store: Store, when: str) -> None:
        """After the first event of the log there is what was acknowledged and nothing else; and
        nothing is wrong with it. Only reads."""
        positions = [one.position async for one in store.log.read(after=1)]
        wanted = [at for first, last in self.acknowledged for at in range(first, last + 1)]
        if positions != wanted:
            self.broken.append(
                f"{when}, {len(wanted)} events were acknowledged, {len(positions)} are there"
            )
        for problem in (await verify(store)).problems:
            self.broken.append(f"{when}, verify: {problem.message}")

    def report(self, **more: Any) -> dict[str, Any]:
        return {
            "acknowledged": self.acknowledged,
            "broken": self.broken,
            "slowest_ms": self.slowest_ms,
            **more,
        }


def full(database: str, seed: int, freed: str, more: int) -> dict[str, Any]:
    """Append until the disk is full, look around, free some room, and go on, all in one life."""
    source, told, met = random.Random(seed), Told([], []), 0
    make_room, has_room = Path(freed).touch, Path(freed).exists

    async def opened() -> Store:
        nonlocal met
        try:
            return await connect(database)
        except DiskFull:
            met += 1
            make_room()
            return await connect(database)

    async def fill(store: Store) -> int:
        refused = 0
        for _ in range(MOST_APPENDS):
            if refused == 3 or has_room():
                break
            answer = await told.append(store, entries_of(source, "s"))
            if isinstance(answer, CarstoreError):
                refused += 1
                if not isinstance(answer, DiskFull):
                    told.broken.append(f"a full disk was told as {type(answer).__name__}: {answer}")
        return refused

    async def live() -> None:
        nonlocal met
        wal.CHECKPOINT_PAGES = OFTEN_PAGES
        store = await opened()
        try:
            met += await fill(store)
            await told.look(store, "while the disk was full")
            if not met:
                told.broken.append("nobody was told that the disk was full")
            make_room()
            for _ in range(more):
                answer = await told.append(store, entries_of(source, "s"))
                if isinstance(answer, CarstoreError):
                    told.broken.append(f"there was room again, but not for an append: {answer!r}")
                    break
            await told.look(store, "when there was room again")
            told.broken.extend(await view_faults(store))
        finally:
            await store.close()

    asyncio.run(live())
    return told.report(refused=met)


# --- a failing disk ---


def failing(database: str, seed: int, count: int, at: int) -> dict[str, Any]:
    """Append and checkpoint on a disk whose operation number `at` fails, and tell what was heard.

    `answers` of the report: "acknowledged" or the code of an error, of each append in turn.
    `met`: where the failure was met ("opening", "working", or "" if it was not); `after`: how many
    answers were given before it; `heard`: what a checkpoint or the opening raised."""
    source, told = random.Random(seed), Told([], [])
    answers: list[str] = []
    report: dict[str, Any] = {"answers": answers, "met": "", "after": 0, "heard": []}

    async def one_more(store: Store) -> None:
        answer = await told.append(store, entries_of(source, "s"))
        answers.append(answer.code if isinstance(answer, CarstoreError) else "acknowledged")

    async def work(store: Store) -> None:
        for n in range(count):
            await one_more(store)
            if n % 5 == 4:
                try:
                    await store.database.checkpoint()
                except CarstoreError as error:
                    report["heard"].append(error.code)
            if counted() >= at:
                await asyncio.sleep(0.05)  # a checkpoint beside the appends may be what met it
                report.update(met="working", after=len(answers))
                return

    async def live() -> None:
        wal.CHECKPOINT_PAGES = OFTEN_PAGES
        try:
            store = await connect(database)
        except CarstoreError as error:
            report.update(met="opening", heard=[error.code])
            return
        try:
            if counted() >= at:  # SQLite hid it, and did everything anew
                report["met"] = "opening"
            else:
                await work(store)
            for _ in range(3):
                await one_more(store)
        finally:
            await store.close()

    asyncio.run(live())
    return told.report(**report)


def reopened(database: str) -> dict[str, Any]:
    """What the next life finds: the values in the log, and what is wrong. It can append."""
    told = Told([], [])

    async def live() -> list[str]:
        async with connect(database) as store:
            values = [
                one.event.value
                async for one in store.log.read(stream=StreamName("s"))
                if isinstance(one.event, StateChanged)
            ]
            answer = await told.append(store, entries_of(random.Random(0), "after"))
            if isinstance(answer, CarstoreError):
                told.broken.append(f"the next life cannot append: {answer!r}")
            told.broken.extend(await faults(store))
            return values

    return told.report(values=asyncio.run(live()))
