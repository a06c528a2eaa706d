"""Values beside the log: written with the event that refers to them, and forgotten for good."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from carstore import Entry, Store
from carstore.blobs import make_blob
from carstore.canonical import dumps
from carstore.errors import InvalidEvent, NotFound
from carstore.events import ActionSucceeded, BlobForgotten
from carstore.log import StateRead
from carstore.names import MAIN_SCOPE, StateKey, StreamName
from carstore.redaction import INLINE_BYTES, Redaction
from carstore.sqlite.verify import verify
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
        await store.blobs.forget(reference["$blob"], reason="asked", by="somebody")
        assert SECRET.encode() not in bytes_of(path)
        assert await store.blobs.fill(reference) == reference
        [said] = [r async for r in store.log.read(kinds=["blob_forgotten"])]
        assert said.event == BlobForgotten(hash=reference["$blob"], reason="asked", by="somebody")
        with pytest.raises(NotFound, match="forgotten already"):
            await store.blobs.forget(reference["$blob"], reason="again", by="somebody")
        # What was forgotten may still be referred to, so that a rollback can go on.
        await store.log.append(change("old", reference))
        assert (await verify(store)).ok


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
