"""`verify` finds each fault that is planted, at its position, and dies of none."""

import asyncio
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import Expect, Fence, Head
from carstore.blobs import hash_of, references_in_text
from carstore.chain import GENESIS
from carstore.clock import ManualClock
from carstore.errors import CarstoreError, Closed
from carstore.names import LeaseName, Position
from carstore.redaction import Redaction
from carstore.sqlite import verify as verify_module
from carstore.sqlite.audit import MAX_PROBLEMS, Audit, Enough
from carstore.sqlite.verify import verify, verify_file
from carstore.verification import Verification
from tests.carstore.attack import hash_again, insert, lawless, next_event
from tests.carstore.helpers import (
    change,
    copy_file,
    everything,
    grant,
    in_loop,
    open_store,
    renewal,
    rows_of,
    step,
    stock,
    ungrant,
)
from tests.carstore.values import JSON


async def _fill(path: Path, rounds: int) -> None:
    clock = ManualClock()
    async with open_store(path, clock=clock) as store:
        for n in range(rounds):
            run = LeaseName(f"run/{n}")
            await store.log.append(step("notes"), change("k", n), change(f"j{n % 3}", {"é": [n]}))
            token = (
                await store.log.append(grant(run), step(run), expect=Expect(fence=Fence(run, None)))
            ).first
            clock.advance(1000)
            await store.log.append(renewal([{"lease": run, "token": token}]), step(f"{run}/inbox"))
            if n % 2:
                await store.log.append(ungrant(run, token), change("k", deleted=True))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed log: 1 begins it; 2 notes, 3 k, 4 j0, 5 grant, 6 run/0, 7 renewal, 8 inbox; 9 notes,
    10 k, 11 j1, 12 grant, 13 run/1, 14 renewal, 15 inbox, 16 release, 17 k deleted; and so on."""
    path = tmp_path_factory.mktemp("verify") / "filled.db"
    asyncio.run(_fill(path, 6))
    return path


@pytest.fixture
def file(filled: Path, tmp_path: Path) -> Path:
    return copy_file(filled, tmp_path / "log.db")


def found(verification: Verification) -> list[tuple[int | None, str]]:
    assert verification.ok is not bool(verification.problems)
    return [(problem.position, problem.code) for problem in verification.problems]


def edit(file: Path, *statements: str, hashed_from: int | None = None) -> None:
    with lawless(file) as connection:
        for statement in statements:
            connection.execute(statement)
        if hashed_from is not None:
            hash_again(connection, hashed_from)


def head_of(file: Path, position: int | None = None) -> Head:
    rows = rows_of(file)["events"]
    row = rows[-1 if position is None else position - 1]
    return Head(Position(row[0]), row[-1])


# What is whole.


def test_a_log_that_nobody_touched_is_whole(file: Path) -> None:
    verification = verify_file(file)
    assert found(verification) == []
    assert verification.head == head_of(file)


@in_loop
async def test_a_log_is_checked_while_it_is_written_to(path: Path) -> None:
    async with open_store(path) as store:
        await store.log.append(*[step(f"s{n % 9}") for n in range(5000)])

        async def writes() -> None:
            for n in range(50):
                await store.log.append(change("k", n), step("run/x"))
                lease = LeaseName(f"run/{n}")
                await store.leases.acquire(lease)

        writing = asyncio.create_task(writes())
        while not writing.done():
            assert found(await verify(store)) == []
        await writing
        seen = []
        done = await verify(store, progress=lambda at, last: seen.append((at, last)))
        assert done.head == await store.log.head()
        assert [at for at, _ in seen] == sorted(at for at, _ in seen)
        assert seen[-1][0] == done.head.position
        assert {last for _, last in seen} == {done.head.position}
        assert len(seen) > 5


@in_loop
async def test_a_store_that_only_reads_can_be_checked(file: Path) -> None:
    before = file.read_bytes()
    async with open_store(file, readonly=True) as store:
        assert found(await verify(store)) == []
    assert file.read_bytes() == before


@in_loop
async def test_a_store_that_is_closed_cannot(file: Path) -> None:
    async with open_store(file, readonly=True) as store:
        pass
    with pytest.raises(Closed):
        await verify(store)


def test_pages_belong_together(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (1, 2, 7):
        monkeypatch.setattr(verify_module, "PAGE_ROWS", rows)
        assert found(verify_file(file)) == []
    edit(file, "DELETE FROM events WHERE position IN (7, 20, 21, 22)")
    assert [p for p in found(verify_file(file)) if p[1] == "gap"] == [(7, "gap"), (20, "gap")]


# A head that was kept elsewhere.


def test_every_earlier_head_is_found_again(file: Path) -> None:
    for position in range(1, head_of(file).position + 1):
        assert found(verify_file(file, head=head_of(file, position))) == []
    assert found(verify_file(file, head=Head(Position(0), GENESIS))) == []


def test_a_lost_end_shows_by_the_head_only(file: Path) -> None:
    head = head_of(file)
    at = head.position
    edit(file, f"DELETE FROM events WHERE position > {at - 2}")
    assert "gap" not in {code for _, code in found(verify_file(file))}
    assert (at - 1, "log_shorter_than_head") in found(verify_file(file, head=head))


def test_another_history_is_not_the_one_whose_head_was_kept(file: Path) -> None:
    head = head_of(file)
    edit(file, "UPDATE events SET recorded_at = 1 WHERE position = 2", hashed_from=2)
    assert found(verify_file(file)) == []
    assert found(verify_file(file, head=head)) == [(head.position, "head_mismatch")]
    assert found(verify_file(file, head=Head(Position(0), "f" * 64))) == [(0, "head_mismatch")]


# Rows that were changed.


@pytest.mark.parametrize(
    "change_of",
    [
        "recorded_at = recorded_at + 1",
        "run_id = 'other'",
        "run_id = NULL",
        "scope = 'other'",
        "data = replace(data, '1', '2')",
        "data = data || ' '",
        "hash = replace(hash, substr(hash, 1, 1), 'x')",
        "hash = upper(hash) || ' '",
        "schema_version = 0",
        "kind = 'state_changes'",
        "fence_token = 1",
        "fence = ''",
    ],
)
def test_a_changed_column_is_found_where_it_is(file: Path, change_of: str) -> None:
    edit(file, f"UPDATE events SET {change_of} WHERE position = 10")
    problems = found(verify_file(file))
    assert problems[0] in ((10, "hash"), (10, "chain"))


def test_a_changed_row_with_a_new_hash_does_not_fit_the_next_one(file: Path) -> None:
    edit(file, "UPDATE events SET recorded_at = 1 WHERE position = 10")
    with lawless(file) as connection:
        hash_again(connection, 10, 10)
    assert found(verify_file(file)) == [(11, "chain")]


def test_a_changed_prev_hash_is_found(file: Path) -> None:
    edit(file, f"UPDATE events SET prev_hash = '{GENESIS}' WHERE position = 10")
    assert found(verify_file(file)) == [(10, "chain"), (10, "hash")]


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [("= 1", 1), ("= 10", 10), ("BETWEEN 10 AND 20", 10), ("IN (10, 20)", 10)],
)
def test_a_missing_event_is_found(file: Path, deleted: str, expected: int) -> None:
    edit(file, f"DELETE FROM events WHERE position {deleted}")
    assert found(verify_file(file))[0] == (expected, "gap")


def test_a_log_without_events_is_not_whole(file: Path) -> None:
    edit(file, "DELETE FROM events", "DELETE FROM leases")
    verification = verify_file(file)
    assert found(verification) == [(1, "gap")]
    assert verification.head == Head(Position(0), GENESIS)


def test_events_that_changed_places_are_found(file: Path) -> None:
    edit(
        file,
        "UPDATE events SET position = -1 WHERE position = 10",
        "UPDATE events SET position = 10 WHERE position = 11",
        "UPDATE events SET position = 11 WHERE position = -1",
    )
    assert found(verify_file(file))[0] == (10, "chain")


# A chain that was made whole again hides nothing of what the law says.


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE events SET version = 99 WHERE position = 9", (9, "version")),
        ("UPDATE events SET version = 0 WHERE position = 1", (1, "version")),
        ("UPDATE events SET data = replace(data, '3', '4') WHERE position = 10", (10, "prev")),
        (
            'UPDATE events SET data = \'{"prev":true,"value":1}\' WHERE position = 10',
            (10, "invalid_event"),
        ),
        ("UPDATE events SET key = 'else' WHERE position = 3", (10, "prev")),
        ("UPDATE events SET data = data || ' ' WHERE position = 9", (9, "not_canonical")),
        (
            'UPDATE events SET data = \'{"value":1,"prev":3}\' WHERE position = 10',
            (10, "not_canonical"),
        ),
        (
            'UPDATE events SET data = \'{"prev":3,"value":1.50}\' WHERE position = 10',
            (10, "not_canonical"),
        ),
        (
            'UPDATE events SET data = \'{"prev":3,"value":"\\u00e9"}\' WHERE position = 10',
            (10, "not_canonical"),
        ),
        (
            'UPDATE events SET data = \'{"prev":3,"prev":3,"value":1}\' WHERE position = 10',
            (10, "not_canonical"),
        ),
        (
            'UPDATE events SET data = \'{"prev":3,"value":NaN}\' WHERE position = 10',
            (10, "invalid_event"),
        ),
        (
            'UPDATE events SET data = \'{"prev":3,"value":9223372036854775808}\' '
            "WHERE position = 10",
            (10, "invalid_event"),
        ),
        ("UPDATE events SET data = '{}' WHERE position = 9", (9, "invalid_event")),
        ("UPDATE events SET data = '[]' WHERE position = 9", (9, "invalid_event")),
        ("UPDATE events SET data = '{' WHERE position = 9", (9, "invalid_event")),
        ("UPDATE events SET data = '' WHERE position = 9", (9, "invalid_event")),
        (
            "UPDATE events SET data = replace(hex(zeroblob(5000)), '0', '[') WHERE position = 9",
            (9, "invalid_event"),
        ),
        ("UPDATE events SET kind = 'from_the_future' WHERE position = 9", (9, "unknown_event")),
        ("UPDATE events SET schema_version = 3 WHERE position = 9", (9, "unknown_event")),
        ("UPDATE events SET scope = 'main' WHERE position = 9", (9, "state_key")),
        ("UPDATE events SET key = NULL WHERE position = 10", (10, "state_key")),
        ("UPDATE events SET fence_token = 4 WHERE position = 6", (6, "fence")),
        ("UPDATE events SET fence = NULL, fence_token = NULL WHERE position = 6", (6, "fence")),
        ("UPDATE events SET fence = 'run/1' WHERE position = 6", (6, "fence")),
        ("UPDATE events SET fence = 'run/0', fence_token = 5 WHERE position = 9", (9, "fence")),
        (
            "UPDATE events SET data = replace(data, 'epoch\":0', 'epoch\":-1') WHERE position = 1",
            (1, "epoch"),
        ),
        (
            "UPDATE events SET kind = 'action_validated', data = '{\"action_id\":\"a\"}', "
            "schema_version = 1 WHERE position = 1",
            (1, "epoch"),
        ),
        (
            "UPDATE events SET data = replace(data, 'run/0', 'run/z') WHERE position = 5",
            (6, "fence"),
        ),
    ],
)
def test_a_forged_chain_still_breaks_the_law(
    file: Path, statement: str, expected: tuple[int, str]
) -> None:
    edit(file, statement, hashed_from=1)
    problems = found(verify_file(file))
    assert problems[0] == expected
    assert not {"hash", "chain"} & {code for _, code in problems}


def test_a_write_under_a_token_of_old_is_found(file: Path) -> None:
    at = head_of(file).position
    with lawless(file) as connection:
        insert(connection, next_event(connection, "run/1", fence="run/1", fence_token=12))
    assert found(verify_file(file)) == [(at + 1, "fence")]


@pytest.mark.parametrize("epoch", [0, -1, -(2**63)])
def test_an_epoch_that_does_not_grow_is_found(file: Path, epoch: int) -> None:
    """Else tokens would be granted that were granted before."""
    data = f'{{"epoch":{epoch},"log_id":"x","origin":null}}'
    with lawless(file) as connection:
        at = head_of(file).position + 1
        insert(connection, next_event(connection, "log", kind="log_epoch_started", data=data))
    assert (at, "epoch") in found(verify_file(file))


def test_a_new_epoch_makes_larger_tokens(file: Path) -> None:
    connection = stock(file)
    data = '{"epoch":3,"log_id":"x","origin":null}'
    insert(connection, next_event(connection, "log", kind="log_epoch_started", data=data))
    data = '{"holder":{},"lease":"run/0","request_id":"r","taken_over":null,"ttl_us":7}'
    event = next_event(connection, kind="lease_granted", data=data)
    insert(connection, event)
    insert(connection, next_event(connection, "run/0"))
    token = connection.execute("SELECT max(fence_token) FROM events").fetchone()
    connection.close()
    assert token == (3 * 2**40 + event["position"],)
    assert found(verify_file(file)) == []


# What is kept beside the events.


@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("UPDATE leases SET token = token + 1 WHERE name = 'run/0'", 7),
        ("UPDATE leases SET token = NULL WHERE name = 'run/0'", 7),
        ("UPDATE leases SET expires_at = 0 WHERE name = 'run/0'", 7),
        ("UPDATE leases SET granted_at = 0 WHERE name = 'run/0'", 7),
        ("UPDATE leases SET holder = holder || ' ' WHERE name = 'run/0'", 7),
        ("UPDATE leases SET request_id = NULL WHERE name = 'run/0'", 7),
        ("UPDATE leases SET position = 8 WHERE name = 'run/0'", 7),
        ("DELETE FROM leases WHERE name = 'run/0'", 7),
        ("UPDATE leases SET token = 12 WHERE name = 'run/1'", 16),
        ("INSERT INTO leases (name, position) VALUES ('run/zz', 1)", None),
    ],
)
def test_leases_are_what_the_events_made_of_them(
    file: Path, statement: str, position: int | None
) -> None:
    edit(file, statement)
    assert found(verify_file(file)) == [(position, "leases")]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE streams SET lease = NULL WHERE name = 'run/0'", (None, "stream")),
        ("UPDATE streams SET lease = 'run/0' WHERE name = 'notes'", (9, "fence")),
        ("UPDATE streams SET name = 'nodes' WHERE name = 'notes'", (2, "hash")),
        ("DELETE FROM streams WHERE name = 'notes'", (2, "stream")),
        ("UPDATE streams SET stream_id = 99 WHERE name = 'notes'", (2, "stream")),
    ],
)
def test_streams_are_what_they_were(
    file: Path, statement: str, expected: tuple[int | None, str]
) -> None:
    edit(file, statement)
    assert expected in found(verify_file(file))


@pytest.mark.parametrize("holder", ["null", '"me"', "[]", '{"a":[1,{}]}', "[" * 200 + "]" * 200])
def test_a_holder_of_any_shape_is_followed(file: Path, holder: str) -> None:
    connection = stock(file)
    data = f'{{"holder":{holder},"lease":"run/z","request_id":"r","taken_over":null,"ttl_us":7}}'
    insert(connection, next_event(connection, kind="lease_granted", data=data))
    connection.close()
    assert found(verify_file(file)) == []


# Values beside the log.


@pytest.fixture
def with_values(path: Path) -> Path:
    """2 refers to a large value, 3 and 4 to another, which 5 forgets, and 6 to it again."""

    async def fill() -> None:
        async with open_store(path, clock=ManualClock()) as store:
            large, other = "x" * 500_000, "y" * 500_000
            await store.log.append(change("a", large))
            await store.log.append(change("b", other), change("c", other))
            [blob] = references_in_text((await everything(store))[2].data)
            await store.blobs.forget(blob, reason="asked", by="me")
            await store.log.append(change("d", large))

    asyncio.run(fill())
    return path


def test_values_beside_the_log_are_whole(with_values: Path) -> None:
    assert found(verify_file(with_values)) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE blobs SET body = CAST(body || x'20' AS BLOB)", (6, "blob")),
        ("UPDATE blobs SET nonce = x'00'", (6, "blob")),
        ("DELETE FROM blobs", (2, "blob")),
        ("INSERT INTO blobs SELECT json_extract(data, '$.hash'), x'', x'' FROM events "
         "WHERE kind = 'blob_forgotten'", (5, "blob")),
        ("INSERT INTO blobs VALUES ('x', x'', x'')", (None, "blob")),
    ],
)  # fmt: skip
def test_a_value_that_is_not_what_it_was_is_found(
    with_values: Path, statement: str, expected: tuple[int | None, str]
) -> None:
    edit(with_values, statement)
    assert found(verify_file(with_values))[0] == expected


def test_a_value_that_only_another_value_refers_to_is_looked_for(path: Path) -> None:
    async def fill() -> str:
        async with open_store(path, redaction=Redaction(names=["password"])) as store:
            await store.log.append(change("a", {"password": "secret", "rest": "x" * 100_000}))
            [inner] = [info.hash for info in await store.blobs.infos() if info.sensitive]
            return inner

    inner = asyncio.run(fill())
    assert found(verify_file(path)) == []
    edit(path, f"DELETE FROM blobs WHERE hash = '{inner}'")
    assert found(verify_file(path)) == [(3, "blob")]


def test_many_values_are_read_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "PAGE_BYTES", 100)
    connection = stock(path)
    bodies = [str(n).encode() for n in range(50)]
    connection.executemany(
        "INSERT INTO blobs VALUES (?, x'', ?)", [(hash_of(b"", body), body) for body in bodies]
    )
    connection.close()
    assert found(verify_file(path)) == []
    edit(path, "UPDATE blobs SET body = x'aa' WHERE rowid IN (3, 30)")
    assert [code for _, code in found(verify_file(path))] == ["blob", "blob"]


# The schema.


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (["DROP TRIGGER events_insert"], "trigger events_insert of schema.sql is missing"),
        (["DROP TRIGGER leases_delete"], "trigger leases_delete of schema.sql is missing"),
        (["DROP INDEX events_key"], "index events_key of schema.sql is missing"),
        (["DROP VIEW log"], "view log of schema.sql is missing"),
        (
            [
                "DROP TRIGGER events_update",
                "CREATE TRIGGER events_update BEFORE UPDATE ON events WHEN 0 BEGIN "
                "SELECT RAISE(ABORT, 'x'); END",
            ],
            "trigger events_update is not that of schema.sql",
        ),
        (
            [
                "CREATE TRIGGER mine BEFORE INSERT ON EVENTS BEGIN "
                "SELECT RAISE(IGNORE); END",
            ],
            "trigger 'mine' on events is not in schema.sql",
        ),
        (
            ["CREATE UNIQUE INDEX mine ON streams (lease)"],
            "index 'mine' on streams is not in schema.sql",
        ),
        (["CREATE INDEX mine ON events (kind)"], "index 'mine' on events is not in schema.sql"),
        (["DROP VIEW log", "CREATE VIEW log AS SELECT 1"], "view log is not that of schema.sql"),
    ],
)  # fmt: skip
def test_a_schema_that_was_changed_is_told(file: Path, statements: list[str], told: str) -> None:
    connection = stock(file)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    (problem,) = verify_file(file).problems
    assert (problem.position, problem.code) == (None, "schema")
    assert told.lower() in problem.message.lower()


def test_a_schema_that_was_rewritten_in_place_is_told(file: Path) -> None:
    connection = stock(file)
    connection.execute("PRAGMA writable_schema = 1")
    connection.execute(
        "UPDATE sqlite_master SET sql = replace(sql, 'never deleted', 'never ever deleted') "
        "WHERE name = 'events_delete'"
    )
    connection.close()
    assert found(verify_file(file)) == [(None, "schema")]


def test_views_and_what_others_keep_in_the_file_are_their_business(file: Path) -> None:
    connection = stock(file)
    for statement in (
        "CREATE TABLE view_costs_v1 (agent TEXT PRIMARY KEY, cost INTEGER)",
        "CREATE INDEX view_costs_v1_cost ON view_costs_v1 (cost)",
        "CREATE VIEW costs AS SELECT * FROM view_costs_v1",
        "INSERT INTO view_positions VALUES ('costs', 1, 7)",
        "CREATE TABLE mine (a, b UNIQUE)",
        "CREATE TRIGGER my_own AFTER INSERT ON mine BEGIN SELECT 1; END",
    ):
        connection.execute(statement)
    connection.close()
    assert found(verify_file(file)) == []


# Damage.

DAMAGED_NAMES = [
    "name = CAST(x'61ff' AS TEXT)",
    "sql = CAST(sql || x'ff' AS TEXT)",
    "sql = 'CREATE TRIGGER'",
]


@pytest.mark.parametrize("damage", DAMAGED_NAMES)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_schema_that_cannot_be_read_is_told(file: Path, damage: str, readonly: bool) -> None:
    """SQLite quotes it in its message, so that the message may be no text either."""
    connection = stock(file)
    connection.execute("PRAGMA writable_schema = 1")
    connection.execute(f"UPDATE sqlite_master SET {damage} WHERE name = 'events_update'")
    connection.close()
    assert found(verify_file(file))[0] == (None, "schema")

    async def opens() -> None:
        with pytest.raises(CarstoreError):
            await (await open_store(file, readonly=readonly)).close()

    asyncio.run(opens())


def test_text_that_is_no_text_is_found_where_it_is(file: Path) -> None:
    edit(
        file,
        "UPDATE events SET data = CAST(x'7bff7d' AS TEXT) WHERE position IN (10, 11, 20)",
        "UPDATE events SET hash = CAST(x'ff' AS TEXT) WHERE position = 25",
    )
    problems = found(verify_file(file))
    assert [p for p in problems if p[1] == "unreadable"] == [
        (10, "unreadable"), (20, "unreadable"), (25, "unreadable")
    ]  # fmt: skip
    assert problems[0] == (10, "unreadable")


def test_a_name_that_is_no_text_is_found(file: Path) -> None:
    edit(file, "UPDATE streams SET name = CAST(x'ff' AS TEXT) WHERE name = 'notes'")
    problems = found(verify_file(file))
    assert problems[0] == (2, "unreadable")
    edit(file, "UPDATE leases SET holder = CAST(x'ff' AS TEXT)")
    assert not verify_file(file).ok


def test_the_number_of_problems_is_bounded(path: Path) -> None:
    async def fill() -> None:
        async with open_store(path) as store:
            await store.log.append(*[step() for _ in range(3000)])

    asyncio.run(fill())
    edit(path, "UPDATE events SET recorded_at = 1")
    problems = found(verify_file(path))
    assert len(problems) == MAX_PROBLEMS
    assert problems[0] == (1, "hash")
    assert problems[-1][1] == "too_many"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:4096],
        lambda data: data[:100],
        lambda data: b"",
        lambda data: b"no database, but rather long " * 1000,
        lambda data: random.Random(1).randbytes(len(data)),
        lambda data: data[:4096] + bytes(len(data) - 4096),
        lambda data: data[: len(data) // 2] + bytes(4096) + data[len(data) // 2 + 4096 :],
        lambda data: data[:4096] + data[:4096] + data[8192:],
        lambda data: data[:18] + b"\x09\x09" + data[20:],
    ],
)
def test_no_damage_makes_it_fail(file: Path, damage: Callable[[bytes], bytes]) -> None:
    file.write_bytes(damage(file.read_bytes()))
    assert not verify_file(file).ok


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "no" / "folder"):
        verification = verify_file(path)
        assert found(verification) == [(None, "unreadable")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["UPDATE events SET data = '{}' WHERE position = 30", ""])
def test_a_file_that_was_cut_off_still_names_the_first_bad_position(path: Path, end: str) -> None:
    """SQLite refuses such a file as a whole."""

    async def fill() -> None:
        async with open_store(path) as store:
            await store.log.append(*[change(f"k{n}", "x" * 200) for n in range(2000)])

    asyncio.run(fill())
    if end:
        edit(path, end)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10 // 4096 * 4096])
    problems = found(verify_file(path))
    assert problems[0] == (None, "unreadable")
    positions = [position for position, _ in problems if position is not None]
    assert positions[0] == 30 if end else positions[0] > 100


def test_pages_that_changed_places_are_found(path: Path) -> None:
    async def fill() -> None:
        async with open_store(path) as store:
            await store.log.append(*[change(f"k{n}", "x" * 200) for n in range(500)])

    asyncio.run(fill())
    whole, chance = path.read_bytes(), random.Random(4)
    pages = len(whole) // 4096
    for _ in range(25):
        data = bytearray(whole)
        one, other = (4096 * number for number in chance.sample(range(1, pages), 2))
        data[one : one + 4096], data[other : other + 4096] = (
            whole[other : other + 4096],
            whole[one : one + 4096],
        )
        path.write_bytes(data)
        assert not verify_file(path).ok


def test_a_wal_of_any_bytes_does_not_make_it_fail(file: Path) -> None:
    expected, chance = head_of(file), random.Random(6)
    magic = bytes.fromhex("377f0682002de218" + "00001000")
    for size in (0, 1, 31, 32, 5000, 50_000):
        for begin in (b"", magic):
            Path(f"{file}-wal").write_bytes(begin + chance.randbytes(size))
            verification = verify_file(file)
            assert verification.ok, "SQLite ignores it"
            assert verification.head == expected
            Path(f"{file}-shm").unlink(missing_ok=True)


def test_a_mark_that_is_not_ours_is_told(file: Path) -> None:
    for statement in ("PRAGMA application_id = 5", "PRAGMA user_version = 0"):
        connection = stock(file)
        connection.execute(statement)
        connection.close()
        assert (None, "schema") in found(verify_file(file))


@pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "setconfig"), reason="Python 3.12 can switch triggers off"
)
@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_written_without_triggers_is_found(file: Path, hidden: bool) -> None:
    """SQLite's C interface can be asked to ignore all triggers; the file looks the same after."""
    connection: Any = stock(file)
    constants: Any = sqlite3
    connection.setconfig(constants.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)  # noqa: FBT003
    connection.execute("UPDATE events SET data = replace(data, '1', '2') WHERE position = 11")
    data = '{"holder":{},"lease":"run/0","request_id":"r","taken_over":null,"ttl_us":7}'
    event = next_event(connection, kind="lease_granted", data=data)
    insert(connection, event)
    if hidden:
        hash_again(connection, 11)
    connection.close()
    problems = found(verify_file(file))
    assert (event["position"], "leases") in problems
    assert ((11, "hash") in problems) is not hidden
    assert (None, "schema") not in problems


def what_is_read(file: Path) -> dict[str, list[Any]] | None:
    try:
        return rows_of(file)
    except (sqlite3.Error, UnicodeError):
        return None


async def checked(file: Path) -> bool:
    """Whether it is found whole, by whoever opens it in the ordinary way."""
    try:
        async with open_store(file, readonly=True, clock=ManualClock()) as store:
            return (await verify(store)).ok
    except CarstoreError:
        return False


def flip(filled: Path, work: Path, seed: int, count: int) -> None:
    """Flip single bits; what is read then is what was written, or it is reported."""
    whole, expected, chance = filled.read_bytes(), rows_of(filled), random.Random(seed)
    reported = 0
    for _ in range(count):
        at = chance.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        work.write_bytes(damaged)
        verification = verify_file(work)
        assert len(verification.problems) <= MAX_PROBLEMS
        if what_is_read(work) != expected:
            reported += 1
            assert not verification.ok, f"bit {at}"
            assert not asyncio.run(checked(work)), f"bit {at}"
        for leftover in (f"{work}-wal", f"{work}-shm"):
            Path(leftover).unlink(missing_ok=True)
    assert reported > count // 10


def test_a_flipped_bit_that_is_read_is_reported(filled: Path, tmp_path: Path) -> None:
    flip(filled, tmp_path / "flipped.db", seed=1, count=60)


@pytest.mark.prove
def test_many_flipped_bits_that_are_read_are_reported(filled: Path, tmp_path: Path) -> None:
    flip(filled, tmp_path / "flipped.db", seed=2, count=5000)


@in_loop
async def test_a_flipped_bit_in_the_wal_shows_by_the_head(path: Path, tmp_path: Path) -> None:
    """A WAL ends at its first damaged frame: without a word, and the rest is a whole chain."""
    left = tmp_path / "left.db"
    async with open_store(path) as store:
        for n in range(20):
            await store.log.append(change("k", n))
        head = await store.log.head()
        for suffix in ("", "-wal"):  # by another process: closing a file here would drop our locks
            subprocess.run(["cp", f"{path}{suffix}", f"{left}{suffix}"], check=True)
    wal = Path(f"{left}-wal").read_bytes()
    base, chance, shortened = left.read_bytes(), random.Random(3), 0
    for _ in range(25):
        at = chance.randrange(len(wal) * 8)
        damaged = bytearray(wal)
        damaged[at // 8] ^= 1 << at % 8
        left.write_bytes(base)
        Path(f"{left}-wal").write_bytes(damaged)
        Path(f"{left}-shm").unlink(missing_ok=True)
        verification = verify_file(left, head=head)
        if verification.head != head:
            shortened += 1
            assert found(verification)
            position, code = found(verification)[0]
            assert code == "log_shorter_than_head" or position is None
    assert shortened > 5


# The pure part, fed with anything.

ANYTHING = st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=3) | st.floats()
ROWS = st.tuples(
    st.integers(1, 4),
    st.sampled_from(["s", "run/x", "lease/run/x", None]) | ANYTHING,
    st.integers(1, 3) | ANYTHING,
    st.sampled_from(["lease_granted", "lease_renewed", "lease_released", "log_epoch_started",
                     "state_changed", "action_validated"]) | ANYTHING,
    st.just(1) | ANYTHING,
    st.integers(0, 9) | ANYTHING,
    ANYTHING,
    st.sampled_from([None, "main"]) | ANYTHING,
    st.sampled_from([None, "k"]) | ANYTHING,
    st.sampled_from([None, "run/x"]) | ANYTHING,
    st.none() | st.integers(1, 4) | ANYTHING,
    st.sampled_from([
        '{"lease":"run/x","token":1}', '{"leases":[{"lease":"run/x","token":1}],"ttl_us":5}',
        '{"leases":[1,{"lease":[]},{}],"ttl_us":5}', '{"leases":{},"ttl_us":5}',
        '{"holder":null,"lease":"run/x","request_id":"q","taken_over":null,"ttl_us":5}',
        '{"epoch":1,"log_id":"x","origin":null}', '{"prev":null,"value":1}', "[]", "{", "1e999",
    ]) | JSON.map(repr) | ANYTHING,
    st.just(GENESIS) | ANYTHING,
    ANYTHING,
    st.sampled_from([None, "run/x"]) | ANYTHING,
)  # fmt: skip


@given(st.lists(ROWS, max_size=8))
def test_rows_of_any_shape_become_problems(rows: list[tuple[Any, ...]]) -> None:
    audit = Audit()
    for row in rows:
        audit.row(row)
    audit.ended()
    assert len(audit.problems) >= (1 if rows else 0)


def test_an_audit_is_full_at_last() -> None:
    audit = Audit()
    with pytest.raises(Enough):
        for n in range(MAX_PROBLEMS):
            audit.problem(n, "hash", "x")
    assert audit.is_full
    assert len(audit.problems) == MAX_PROBLEMS


@pytest.mark.prove
def test_a_million_events_take_well_under_half_a_minute(tmp_path: Path) -> None:
    import time

    path = tmp_path / "large.db"

    async def fill() -> None:
        async with open_store(path) as store:
            for n in range(100):
                await store.log.append(*[change(f"k{m % 997}", [n, m]) for m in range(10_000)])

    asyncio.run(fill())
    began = time.perf_counter()
    assert verify_file(path).ok
    assert time.perf_counter() - began < 30
    shutil.rmtree(tmp_path)
