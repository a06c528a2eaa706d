"""Values beside the log: written with the event that refers to them, and forgotten for good."""

import asyncio
import json
import sqlite3
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from carstore import Entry, Store
from carstore.blobs import make_blob
from carstore.canonical import dumps
from carstore.errors import Busy, CorruptLog, DiskFull, InvalidEvent, NotFound, ReadOnly
from carstore.events import ActionSucceeded, BlobForgotten, RedactionDeclared
from carstore.log import StateRead
from carstore.names import MAIN_SCOPE, StateKey, StreamName
from carstore.redaction import INLINE_BYTES, Redaction
from carstore.sqlite import database
from carstore.sqlite.verify import verify
from tests.carstore.faults import Failing, fault
from tests.carstore.helpers import change, everything, in_loop, open_store, stock

SECRET = "correct horse battery staple"
RULES = Redaction(names=["*password*"])


async def read(store: Store, key: str) -> StateRead:
    return (await store.log.state(MAIN_SCOPE, [StateKey(key)]))[StateKey(key)]


def bytes_of(path: Path) -> bytes:
    wal = Path(f"{path}-wal")
    return path.read_bytes() + (wal.read_bytes() if wal.exists() else b"")


@in_loop
async def test_a_large_value_is_kept_once_and_comes_back_whole(path: Path) -> None:
    large = "x" * INLINE_BYTES
    async with open_store(path) as store:
        for key in ("a", "b"):
            await store.log.append(change(key, large))
        found = {key: await read(store, key) for key in ("a", "b")}
        assert len(dumps(found["a"].value)) < 200
        filled = await store.blobs.fill_reads(found)
        assert [one.value for one in filled.values()] == [large, large]
        [info] = await store.blobs.infos()
        assert (info.bytes, info.sensitive) == (INLINE_BYTES + 2, False)
        assert (await verify(store)).ok


@in_loop
async def test_a_value_at_the_limit_stands_in_its_event(path: Path) -> None:
    value = "x" * (INLINE_BYTES - 2)
    async with open_store(path) as store:
        await store.log.append(change("a", value))
        assert (await read(store, "a")).value == value
        assert await store.blobs.infos() == []


@in_loop
async def test_what_is_forgotten_is_neither_in_the_file_nor_in_its_wal(path: Path) -> None:
    async with open_store(path, redaction=RULES) as store:
        await store.log.append(change("db_password", SECRET))
        reference = (await read(store, "db_password")).value
        assert await store.blobs.fill(reference) == SECRET
        assert SECRET.encode() in bytes_of(path)
        assert await store.blobs.forget(reference["$blob"], reason="asked", by="somebody")
        assert SECRET.encode() not in bytes_of(path)
        assert await store.blobs.fill(reference) == reference
        [said] = [r async for r in store.log.read(kinds=["blob_forgotten"])]
        assert said.event == BlobForgotten(hash=reference["$blob"], reason="asked", by="somebody")
        with pytest.raises(NotFound, match="forgotten already"):
            await store.blobs.forget(reference["$blob"], reason="again", by="somebody")
        assert await store.blobs.scrub()
        # What was forgotten may still be referred to, so that a rollback can go on.
        await store.log.append(change("old", reference))
        assert (await verify(store)).ok


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite that does not overwrite what is deleted, unless it is told to."""

    class Careless(database.JobConnection):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            super().execute("PRAGMA secure_delete = OFF")

    monkeypatch.setattr(database, "JobConnection", Careless)


def secrets(count: int) -> list[str]:
    """Texts of many lengths, so that they fill some pages."""
    return [f"secret-{number:05}-{'z' * (number * 37 % 300)}" for number in range(count)]


async def write_all(store: Store, texts: list[str]) -> list[str]:
    """Returns their hashes."""
    first = (await store.log.append(*[change("password", text) for text in texts])).first
    found = store.log.read(after=first - 1, kinds=["state_changed"])
    return [json.loads(one.data)["value"]["$blob"] async for one in found]


@pytest.mark.usefixtures("careless")
@in_loop
async def test_nothing_is_left_of_many_small_values_that_filled_pages(path: Path) -> None:
    """Each was moved, as pages were split, long before it was forgotten."""
    texts = secrets(200)
    async with open_store(path, redaction=RULES) as store:
        hashes = [(await write_all(store, [text]))[0] for text in texts]
        assert bytes_of(path).count(b"secret-") >= 200
        before = (await store.log.head()).position
        assert await store.blobs.forget(*hashes, reason="asked", by="somebody")
        assert b"secret-" not in bytes_of(path)
        assert b"zzzzzzzz" not in bytes_of(path)
        times = {one.recorded_at async for one in store.log.read(after=before)}
        assert (len(times), (await store.log.head()).position) == (1, before + 200)
        assert (await verify(store)).ok


@in_loop
async def test_no_copy_is_left_in_unused_parts_of_a_file_that_was_rewritten(path: Path) -> None:
    """When SQLite merges pages, it leaves some."""
    async with open_store(path, redaction=RULES) as store:
        alive: list[str] = []
        for turn in range(200):
            alive += await write_all(store, secrets(80))
            Random(turn).shuffle(alive)
            gone, alive = alive[:70], alive[70:]
            await store.blobs.forget(*gone, reason="asked", by="somebody")
            if bytes_of(path).count(b"secret-") > len(alive):
                break
        assert await store.blobs.scrub(rewrite=True)
        assert bytes_of(path).count(b"secret-") == len(await store.blobs.infos()) == len(alive)
        assert (await verify(store)).ok


@in_loop
async def test_one_that_is_not_there_keeps_all_from_being_forgotten(path: Path) -> None:
    async with open_store(path, redaction=RULES) as store:
        hashes = await write_all(store, ["one", "two"])
        before = await store.log.head()
        with pytest.raises(NotFound, match="0000"):
            await store.blobs.forget(*hashes, "0" * 64, reason="asked", by="somebody")
        assert await store.log.head() == before
        assert len(await store.blobs.infos()) == 2


@in_loop
async def test_what_a_reader_keeps_in_the_wal_is_told_and_wiped_later(path: Path) -> None:
    async with open_store(path, redaction=RULES) as store, open_store(path) as other:
        [blob] = await write_all(store, [SECRET])
        foreign = stock(path)
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM events").fetchone()
        began = time.monotonic()
        forgetting = asyncio.create_task(store.blobs.forget(blob, reason="asked", by="somebody"))
        await asyncio.sleep(0.02)
        appended = [store.log.append(change("a", 1)), other.log.append(change("b", 1))]
        await asyncio.gather(*appended)
        assert not await forgetting
        assert time.monotonic() - began < 2
        assert SECRET.encode() in Path(f"{path}-wal").read_bytes()
        assert not await store.blobs.scrub()
        foreign.execute("COMMIT")
        foreign.close()
        await store.log.append(change("a", 2))  # begins the WAL anew, and leaves what is behind
        assert SECRET.encode() in Path(f"{path}-wal").read_bytes()
        for _ in range(2):
            assert await store.blobs.scrub()
            assert SECRET.encode() not in bytes_of(path)
        timeouts = await store.database.write(lambda c: c.execute("PRAGMA busy_timeout").fetchone())
        assert timeouts == (database.BUSY_TIMEOUT_MS,)


@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_BUSY"])
@in_loop
async def test_a_wal_that_cannot_be_emptied_is_told_after_the_forgetting(
    path: Path, failing: type[Failing], name: str
) -> None:
    failing.at = "PRAGMA wal_checkpoint"
    async with open_store(path, redaction=RULES) as store:
        [blob] = await write_all(store, [SECRET])
        failing.fault = fault(name, "not now")
        assert not await store.blobs.forget(blob, reason="asked", by="somebody")
        with pytest.raises((Busy, DiskFull)):
            await store.blobs.scrub()
        assert await store.blobs.infos() == []
        failing.fault = None
        assert await store.blobs.scrub()
        assert SECRET.encode() not in bytes_of(path)


@in_loop
async def test_one_who_reads_for_a_moment_is_waited_for(path: Path) -> None:
    async with open_store(path, redaction=RULES) as store:
        [blob] = await write_all(store, [SECRET])
        foreign = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM events").fetchone()
        asyncio.get_running_loop().call_later(0.1, foreign.execute, "COMMIT")
        assert await store.blobs.forget(blob, reason="asked", by="somebody")
        assert SECRET.encode() not in bytes_of(path)
        foreign.close()


@in_loop
async def test_a_store_that_only_reads_wipes_nothing(path: Path) -> None:
    async with open_store(path, readonly=True) as store:
        for rewrite in (False, True):
            with pytest.raises(ReadOnly):
                await store.blobs.scrub(rewrite=rewrite)


# Rules that the file declares.


async def declared(store: Store) -> list[Any]:
    return [one.event.names async for one in store.log.read(stream=StreamName("redaction"))]  # type: ignore[union-attr]


@in_loop
async def test_the_rules_of_a_file_apply_to_whoever_writes_to_it(path: Path) -> None:
    async with open_store(path, redaction=Redaction(names=["*Password*", "token"])) as store:
        assert await declared(store) == [("*password*", "token")]
    async with open_store(path) as store:
        assert set(store.redaction.names) == {"*password*", "token"}
        await store.log.append(change("db_password", SECRET), change("other", {"token": SECRET}))
        assert SECRET not in "".join([one.data for one in await everything(store)])
        assert len(await store.blobs.infos()) == 2
        assert len(await declared(store)) == 1
        assert (await verify(store)).ok


@in_loop
async def test_rules_are_added_and_never_taken_back(path: Path) -> None:
    for names in (["a"], ["B", "a"], [], ["b"], ["c"]):
        async with open_store(path, redaction=Redaction(names=names, inline_bytes=9)) as store:
            assert store.redaction.inline_bytes == 9
    async with open_store(path, redaction=Redaction(names=["d"]), readonly=True) as store:
        assert set(store.redaction.names) == {"a", "b", "c", "d"}
        assert await declared(store) == [("a",), ("b",), ("c",)]
    async with open_store(path) as store:
        assert set(store.redaction.names) == {"a", "b", "c"}


@in_loop
async def test_two_that_declare_at_once_both_do(path: Path) -> None:
    async def opened(name: str) -> None:
        async with open_store(path, redaction=Redaction(names=[name, "x"])):
            pass

    await asyncio.gather(opened("a"), opened("b"))
    async with open_store(path) as store:
        assert set(store.redaction.names) == {"a", "b", "x"}
        assert (await verify(store)).ok


@in_loop
async def test_other_streams_and_shapes_declare_nothing(path: Path) -> None:
    async with open_store(path) as store:
        event = RedactionDeclared(names=("a",))
        await store.log.append(Entry(StreamName("notes"), event))
        await store.log.append(change("names", ["b"])._replace(stream=StreamName("redaction")))
    async with open_store(path) as store:
        assert store.redaction.names == ()


@in_loop
async def test_a_rule_that_is_none_stops_who_would_write_past_it(path: Path) -> None:
    async with open_store(path) as store:
        event = RedactionDeclared(names=("",))
        await store.log.append(Entry(StreamName("redaction"), event))
    with pytest.raises(CorruptLog, match="redaction"):
        await open_store(path)
    async with open_store(path, readonly=True) as store:
        assert (await store.log.head()).position == 2


@in_loop
async def test_a_sensitive_value_can_be_left_unfilled(path: Path) -> None:
    async with open_store(path, redaction=RULES) as store:
        await store.log.append(change("config", {"password": SECRET, "big": "x" * 100_000}))
        value = (await read(store, "config")).value
        found = await store.blobs.fill(value, sensitive=False)
        assert found["password"]["sensitive"] is True
        for one in (found, value):
            assert (await store.blobs.fill(one))["password"] == SECRET


@in_loop
async def test_values_may_be_given_with_the_event(path: Path) -> None:
    async with open_store(path) as store:
        event = ActionSucceeded(action_id="a", attempt=1, output={"token": SECRET}, duration_us=0)
        made, blobs = store.redaction.applied(event, [("output", "token")])
        await store.log.append(Entry(StreamName("notes"), made, blobs=blobs))
        assert SECRET not in (await everything(store))[-1].data
        assert (await store.blobs.fill(made.output))["token"] == SECRET  # type: ignore[attr-defined]


@in_loop
async def test_an_append_that_refers_to_nothing_is_refused_and_others_of_its_batch_are_not(
    path: Path,
) -> None:
    async with open_store(path) as store:
        good = await store.log.submit(change("a", 1))
        bad = await store.log.submit(change("b", {"$blob": "0" * 64, "bytes": 1}))
        with pytest.raises(InvalidEvent, match="does not hold"):
            await bad
        assert (await good).first == 2
        assert not (await read(store, "b")).exists


@pytest.mark.parametrize("at_once", [True, False])
@in_loop
async def test_a_sensitive_value_is_not_referred_to_as_if_it_were_none(
    path: Path, at_once: bool
) -> None:
    async with open_store(path, redaction=RULES) as store:
        blob = make_blob(SECRET, sensitive=True)
        first = await store.log.submit(change("a", blob.reference)._replace(blobs=[blob]))
        if not at_once:
            await first
        openly = {name: item for name, item in blob.reference.items() if name != "sensitive"}
        second = await store.log.submit(change("b", [openly]))
        await first
        with pytest.raises(InvalidEvent, match="as if it were not sensitive"):
            await second
        await store.log.append(change("b", [blob.reference]))


@in_loop
async def test_a_refused_append_leaves_no_value(path: Path) -> None:
    async with open_store(path) as store:
        blob = make_blob(SECRET, sensitive=True)
        wrong = {"$blob": "0" * 64, "bytes": 1}
        entry = change("a", [blob.reference, wrong])._replace(blobs=[blob])
        with pytest.raises(InvalidEvent):
            await store.log.append(entry)
        assert await store.blobs.infos() == []


@in_loop
async def test_a_value_written_again_after_it_was_forgotten_is_there_again(path: Path) -> None:
    large = "y" * 100_000
    async with open_store(path) as store:
        await store.log.append(change("a", large))
        [info] = await store.blobs.infos()
        forgotten = Entry(
            StreamName(f"blob/{info.hash}"), BlobForgotten(hash=info.hash, reason="r", by="b")
        )
        # In one batch: what comes after the forgetting must survive it.
        submitted = [await store.log.submit(one) for one in (forgotten, change("b", large))]
        for one in submitted:
            await one
        assert await store.blobs.fill((await read(store, "b")).value) == large


ATTACKS = [
    "UPDATE blobs SET body = x'31'",
    "UPDATE blobs SET nonce = x'00'",
    "DELETE FROM blobs",
    "INSERT OR REPLACE INTO blobs SELECT hash, nonce, x'31' FROM blobs",
    "INSERT INTO blobs SELECT * FROM blobs",
]


@pytest.mark.parametrize("sql", ATTACKS)
@in_loop
async def test_no_program_can_change_or_delete_a_value(path: Path, sql: str) -> None:
    async with open_store(path, redaction=RULES) as store:
        await store.log.append(change("password", SECRET))
        connection = stock(path)
        with pytest.raises(sqlite3.IntegrityError, match="carstore: "):
            connection.execute(sql)
        connection.close()
        assert (await verify(store)).ok


@in_loop
async def test_a_file_without_the_table_is_read_as_one_without_values(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    async with open_store(path) as store:
        await store.log.append(change("a", 1))
    connection = stock(path)
    for statement in ("DROP TRIGGER events_blobs", "DROP TABLE blobs", "PRAGMA user_version = 1"):
        connection.execute(statement)
    connection.close()
    async with open_store(path, readonly=True) as store:
        reference: Any = {"$blob": "0" * 64, "bytes": 1}
        assert await store.blobs.fill(reference) == reference
        assert await store.blobs.infos() == []
