"""The law stands in the file: attacks from a connection that has never heard of carstore.

Each is tried under every combination of the settings that switch something off elsewhere.
"""

import asyncio
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from carstore import Expect, Fence
from carstore.chain import GENESIS
from carstore.clock import ManualClock
from carstore.names import FencingToken, LeaseName
from carstore.sqlite.verify import verify_file
from tests.carstore.attack import COLUMNS, insert, next_event
from tests.carstore.helpers import (
    change,
    copy_file,
    grant,
    open_store,
    rows_of,
    step,
    stock,
    ungrant,
)

SETTINGS = list(itertools.product((0, 1), repeat=3))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with streams `notes`, `run/held` and `run/free`, whose leases are held and free."""
    path = tmp_path_factory.mktemp("schema") / "made.db"

    async def make() -> None:
        async with open_store(path, clock=ManualClock()) as store:
            await store.log.append(step("notes"), change("k", 1), change("k", 2))
            await store.log.append(
                grant("run/held"),
                step("run/held"),
                expect=Expect(fence=Fence(LeaseName("run/held"), None)),
            )
            free = (
                await store.log.append(
                    grant("run/free"),
                    step("run/free"),
                    expect=Expect(fence=Fence(LeaseName("run/free"), None)),
                )
            ).first
            await store.log.append(ungrant("run/free", free))

    asyncio.run(make())
    return path


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    return copy_file(made, tmp_path / "attacked.db")


@contextmanager
def attacker(file: Path, settings: tuple[int, ...] = (0, 0, 0)) -> Iterator[sqlite3.Connection]:
    connection = stock(file)
    checks, recursive, foreign = settings
    connection.execute(f"PRAGMA ignore_check_constraints = {checks}")
    connection.execute(f"PRAGMA recursive_triggers = {recursive}")
    connection.execute(f"PRAGMA foreign_keys = {foreign}")
    try:
        yield connection
    finally:
        connection.close()


def refused(
    file: Path, attack: Callable[[sqlite3.Connection], Any], match: str | None = "carstore: "
) -> None:
    """`attack` changes nothing, under all settings, alone and within a transaction."""
    before = rows_of(file)
    for settings in SETTINGS:
        with attacker(file, settings) as connection:
            with pytest.raises(sqlite3.IntegrityError, match=match):
                attack(connection)
            connection.execute("BEGIN")
            with pytest.raises(sqlite3.IntegrityError, match=match):
                attack(connection)
            connection.execute("COMMIT")  # only the statement was undone
        assert rows_of(file) == before


def test_the_law_allows_the_next_event(file: Path) -> None:
    for settings in SETTINGS:
        for stream in ("notes", "run/held"):
            with attacker(file, settings) as connection:
                insert(connection, next_event(connection, stream))
    assert verify_file(file).problems == ()


# Nothing is updated and nothing is deleted.

EVERY_TABLE = ("events", "streams")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = '{}' WHERE position = 2",
        "UPDATE events SET recorded_at = recorded_at + 1",
        "UPDATE events SET hash = hash WHERE position = 1",
        "UPDATE OR REPLACE events SET position = 1 WHERE position = 2",
        "UPDATE OR IGNORE events SET position = 1 WHERE position = 2",
        "UPDATE OR REPLACE events SET rowid = 99 WHERE position = 2",
        "UPDATE events SET position = position + 1000",
        "DELETE FROM events",
        "DELETE FROM events WHERE position = (SELECT max(position) FROM events)",
        "UPDATE streams SET name = 'x' WHERE stream_id = 1",
        "UPDATE streams SET lease = NULL",
        "UPDATE streams SET stream_id = stream_id",
        "UPDATE OR REPLACE streams SET stream_id = 1 WHERE stream_id = 2",
        "DELETE FROM streams",
        "DELETE FROM leases",
        "DELETE FROM leases WHERE token IS NULL",
    ],
)
def test_what_is_there_stays_as_it_is(file: Path, statement: str) -> None:
    refused(file, lambda connection: connection.execute(statement))


# An event has its place.


VERBS = [
    "INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE", "INSERT OR FAIL",
    "INSERT OR ABORT", "INSERT OR ROLLBACK",
]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("position", [1, 2, 5, 99, 0, -1, None])
def test_no_event_takes_another_position(file: Path, verb: str, position: int | None) -> None:
    before = rows_of(file)
    for settings in SETTINGS:
        with (
            attacker(file, settings) as connection,
            pytest.raises(sqlite3.IntegrityError, match="carstore: position"),
        ):
            insert(connection, next_event(connection, position=position), verb)
    assert rows_of(file) == before


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"version": 1}, "version"),
        ({"version": 2}, "version"),
        ({"version": 99}, "version"),
        ({"version": None}, "version"),
        ({"stream_id": 99, "version": 1}, "no such stream"),
        ({"stream_id": None, "version": 1}, "no such stream"),
        ({"prev_hash": GENESIS}, "prev_hash"),
        ({"prev_hash": ""}, "prev_hash"),
        ({"prev_hash": None}, "prev_hash"),
    ],
)
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE"])
def test_no_event_takes_another_place(
    file: Path, other: dict[str, Any], match: str, verb: str
) -> None:
    refused(
        file, lambda connection: insert(connection, next_event(connection, **other), verb), match
    )


@pytest.mark.parametrize(
    "tail",
    [
        "ON CONFLICT DO NOTHING",
        "ON CONFLICT (position) DO NOTHING",
        "ON CONFLICT (position) DO UPDATE SET data = '{}'",
        "ON CONFLICT (stream_id, version) DO UPDATE SET data = '{}'",
    ],
)
@pytest.mark.parametrize("other", [{"position": 2}, {"version": 1}])
def test_no_upsert_changes_an_event(file: Path, tail: str, other: dict[str, Any]) -> None:
    refused(
        file,
        lambda connection: insert(connection, next_event(connection, **other), "INSERT", tail),
    )


def test_of_many_rows_none_is_kept_if_one_is_refused(file: Path) -> None:
    def attack(connection: sqlite3.Connection) -> None:
        event = next_event(connection)
        rows = [[event[name] for name in COLUMNS]] * 2
        marks = ", ".join(["(" + ", ".join("?" * len(COLUMNS)) + ")"] * 2)
        connection.execute(f"INSERT INTO events VALUES {marks}", rows[0] + rows[1])

    refused(file, attack, "position")


# What an event is.


@pytest.mark.parametrize(
    "data", ["", "{", "{'a':1}", "nul", '{"a":1}}', "{a:1}", '"\n"', "[1,]", "NaN", None]
)
def test_data_is_json(file: Path, data: str | None) -> None:
    refused(file, lambda connection: insert(connection, next_event(connection, data=data)), "JSON")


@pytest.mark.parametrize(
    ("kind", "scope", "key"),
    [
        ("state_changed", None, None),
        ("state_changed", "main", None),
        ("state_changed", None, "k"),
        ("action_validated", "main", "k"),
        ("action_validated", "main", None),
        ("action_validated", None, "k"),
    ],
)
def test_a_change_and_nothing_else_names_a_scope_and_a_key(
    file: Path, kind: str, scope: str | None, key: str | None
) -> None:
    other: dict[str, Any] = {"kind": kind, "scope": scope, "key": key}
    refused(
        file,
        lambda connection: insert(connection, next_event(connection, **other)),
        "state_changed",
    )


@pytest.mark.parametrize(
    "other",
    [
        {"kind": None}, {"hash": b"x"}, {"data": b"{}"}, {"recorded_at": "soon"},
        {"recorded_at": 1.5}, {"schema_version": None}, {"run_id": b"r"}, {"recorded_at": None},
    ],
)  # fmt: skip
def test_columns_have_their_types(file: Path, other: dict[str, Any]) -> None:
    refused(file, lambda connection: insert(connection, next_event(connection, **other)), None)


@pytest.mark.parametrize(
    "epoch",
    [
        "-1",
        "0",
        "3",
        "null",
        '"4"',
        "4.5",
        "[4]",
        "{}",
        "true",
        "1e400",
        "8388608",
        f"{2**64}",
        "NOTHING",
    ],
)
def test_an_epoch_is_an_integer_larger_than_the_one_before(file: Path, epoch: str) -> None:
    def attempt(text: str, connection: sqlite3.Connection) -> None:
        field = "" if text == "NOTHING" else f'"epoch":{text},'
        data = f'{{"cause":"restored",{field}"log_id":"x","origin":null}}'
        event = next_event(connection, "log", kind="log_epoch_started", schema_version=2, data=data)
        insert(connection, event)

    if epoch == "true":  # which SQLite reads as 1
        refused(file, partial(attempt, epoch), "epoch")
    with attacker(file) as connection:
        attempt("3", connection)
    refused(file, partial(attempt, epoch), "epoch")
    with attacker(file) as connection:
        attempt("4", connection)
    assert verify_file(file).problems == ()


# Fences.


def fenced(stream: str, fence: str | None, token: object) -> Callable[[sqlite3.Connection], None]:
    return lambda connection: insert(
        connection, next_event(connection, stream, fence=fence, fence_token=token)
    )


def _insert_next(other: dict[str, Any], connection: sqlite3.Connection) -> None:
    insert(connection, next_event(connection, **other))


def token_of(file: Path, lease: str) -> FencingToken:
    (row,) = [row for row in rows_of(file)["leases"] if row[0] == lease]
    return FencingToken(row[1] or row[-1])


def test_a_stream_with_a_lease_takes_its_current_token_only(file: Path) -> None:
    token, lease = token_of(file, "run/held"), "run/held"
    for fence, wrong in (
        (None, None), (lease, None), (None, token), (lease, token - 1), (lease, token + 1),
        (lease, 0), (lease, -1), ("run/free", token), ("", token),
    ):  # fmt: skip
        refused(file, fenced(lease, fence, wrong), "token")
    with attacker(file) as connection:
        fenced(lease, lease, token)(connection)


def test_a_stream_whose_lease_is_free_takes_nothing(file: Path) -> None:
    lease = "run/free"
    for fence, token in ((None, None), (lease, None), (lease, token_of(file, lease)), (lease, 0)):
        refused(file, fenced(lease, fence, token), "token")


def test_a_stream_without_a_lease_takes_no_fence(file: Path) -> None:
    token = token_of(file, "run/held")
    for fence, wrong in (("run/held", token), (None, token), ("run/held", None), (None, 0)):
        refused(file, fenced("notes", fence, wrong), "token")


def test_a_stream_takes_no_fence_before_the_first_grant(file: Path) -> None:
    with attacker(file) as connection:
        connection.execute(
            "INSERT INTO streams SELECT max(stream_id) + 1, 'run/new', 'run/new' FROM streams"
        )
        (stream_id,) = connection.execute("SELECT max(stream_id) FROM streams").fetchone()
    event = {"stream_id": stream_id, "version": 1}
    for fence, token in (("run/new", 1), (None, 1), ("run/new", None)):
        wrong = {**event, "fence": fence, "fence_token": token}
        refused(file, partial(_insert_next, wrong), "token")
    with attacker(file) as connection:
        insert(connection, next_event(connection, **event))


# Streams.


@pytest.mark.parametrize(
    ("stream_id", "name"),
    [(99, "new"), (1, "new"), (0, "new"), (-1, "new"), (None, "new"), ("next", "notes")],
)
@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE"])
def test_a_stream_gets_the_next_number_once(
    file: Path, stream_id: object, name: str, verb: str
) -> None:
    def attack(connection: sqlite3.Connection) -> None:
        number = stream_id
        if number == "next":
            (number,) = connection.execute("SELECT max(stream_id) + 1 FROM streams").fetchone()
        connection.execute(f"{verb} INTO streams VALUES (?, ?, NULL)", (number, name))

    refused(file, attack, "next number, once")


def test_an_upsert_changes_no_stream(file: Path) -> None:
    refused(
        file,
        lambda connection: connection.execute(
            "INSERT INTO streams SELECT max(stream_id) + 1, 'run/held', NULL FROM streams WHERE 1"
            " ON CONFLICT (name) DO UPDATE SET lease = NULL"
        ),
    )


# Leases.


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE leases SET token = NULL WHERE name = 'run/held'",
        "UPDATE leases SET token = token + 1 WHERE name = 'run/held'",
        "UPDATE leases SET expires_at = 0 WHERE name = 'run/held'",
        "UPDATE leases SET holder = 'me' WHERE name = 'run/held'",
        "UPDATE leases SET position = position WHERE name = 'run/held'",
        "UPDATE leases SET token = 1, holder = '{}' WHERE name = 'run/free'",
        "UPDATE leases SET name = 'run/other' WHERE name = 'run/free'",
        "UPDATE OR REPLACE leases SET name = 'run/held' WHERE name = 'run/free'",
        "INSERT INTO leases VALUES ('run/new', 1, '{}', 'q', 1, 1, 1)",
        "INSERT INTO leases (name, position) VALUES ('run/new', 8)",
        "INSERT OR REPLACE INTO leases VALUES ('run/held', 1, '{}', 'q', 1, 1, 1)",
        "INSERT OR REPLACE INTO leases VALUES ('run/free', NULL, NULL, NULL, NULL, NULL, 9)",
        "INSERT OR IGNORE INTO leases VALUES ('run/new', 1, '{}', 'q', 1, 1, 1)",
        "INSERT INTO leases VALUES ('run/held', 1, '{}', 'q', 1, 1, 1)"
        " ON CONFLICT (name) DO UPDATE SET token = NULL",
        "INSERT OR REPLACE INTO leases SELECT * FROM lease_effects",
    ],
)
def test_the_leases_follow_the_events_only(file: Path, statement: str) -> None:
    """What would change nothing need not be refused."""
    before = rows_of(file)
    for settings in SETTINGS:
        with attacker(file, settings) as connection, suppress(sqlite3.IntegrityError):
            connection.execute(statement)
        assert rows_of(file) == before


@pytest.mark.parametrize("last", ["granted", "renewed", "released"])
@pytest.mark.parametrize("verb", ["UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE"])
def test_no_lease_is_pushed_away_by_the_one_of_the_newest_event(
    file: Path, last: str, verb: str
) -> None:
    """The row of the newest event may be written again as it is, but not in another's place."""
    with attacker(file) as connection:
        token = {"token": token_of(file, "run/held")}
        events = {
            "granted": ("lease_granted", {"lease": "run/held", "holder": {}, "ttl_us": 1,
                                          "request_id": "q", "taken_over": None}),
            "renewed": ("lease_renewed", {"leases": [{"lease": "run/held", **token}], "ttl_us": 1}),
            "released": ("lease_released", {"lease": "run/held", **token}),
        }  # fmt: skip
        kind, data = events[last]
        insert(connection, next_event(connection, kind=kind, data=json.dumps(data)))
    before = rows_of(file)["leases"]
    for settings in SETTINGS:
        with attacker(file, settings) as connection:
            for statement in (
                f"{verb} leases SET name = 'run/free' WHERE name = 'run/held'",
                f"{verb} leases SET token = token, position = position",
            ):
                try:
                    connection.execute(statement)
                except sqlite3.Error:
                    assert not connection.in_transaction
        assert rows_of(file)["leases"] == before


def test_writing_the_effects_of_the_newest_event_again_changes_nothing(file: Path) -> None:
    before = rows_of(file)
    with attacker(file) as connection:
        for statement in (
            "INSERT INTO lease_effects (position) VALUES (1)",
            "INSERT OR REPLACE INTO lease_effects (name, token, position) VALUES ('run/x', 9, 9)",
        ):
            connection.execute(statement)
        for statement in ("DELETE FROM lease_effects", "UPDATE lease_effects SET token = 1"):
            with pytest.raises(sqlite3.OperationalError):
                connection.execute(statement)
    assert rows_of(file) == before


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("lease_granted", "{}"),
        ("lease_granted", '{"lease":null,"ttl_us":1}'),
        ("lease_granted", '{"lease":"run/z","holder":{},"ttl_us":9223372036854775807}'),
        ("lease_granted", '{"lease":"run/z","holder":{},"ttl_us":"x","request_id":[]}'),
        ("lease_renewed", '{"leases":["x"],"ttl_us":1}'),
    ],
)
def test_an_event_about_leases_that_makes_no_sense_is_refused(
    file: Path, kind: str, data: str
) -> None:
    before = rows_of(file)
    with attacker(file) as connection:
        try:
            insert(connection, next_event(connection, kind=kind, data=data))
        except sqlite3.Error:
            assert rows_of(file) == before
        else:
            assert not verify_file(file).ok


def test_events_of_leases_are_followed_also_without_carstore(file: Path) -> None:
    with attacker(file) as connection:
        data = '{"holder":{"pid":2},"lease":"run/z","request_id":"r","taken_over":null,"ttl_us":7}'
        event = next_event(connection, kind="lease_granted", data=data)
        insert(connection, event)
        found = connection.execute("SELECT * FROM leases WHERE name = 'run/z'").fetchone()
        token = event["position"]
        assert found == ("run/z", token, '{"pid":2}', "r", 5, 12, token)
        data = f'{{"lease":"run/z","token":{token}}}'
        insert(connection, next_event(connection, kind="lease_released", data=data))
        found = connection.execute("SELECT * FROM leases WHERE name = 'run/z'").fetchone()
        assert found == ("run/z", None, None, None, None, None, token + 1)
    assert verify_file(file).problems == ()


def test_the_file_can_be_read_by_hand(file: Path) -> None:
    with attacker(file) as connection:
        rows = connection.execute("SELECT stream, version, kind, time FROM log").fetchall()
        assert rows[0] == ("log", 1, "log_epoch_started", "2023-11-14T22:13:20.000000Z")
        heads = connection.execute(
            "SELECT name, version FROM stream_heads ORDER BY name"
        ).fetchall()
        assert dict(heads)["notes"] == 3
        assert [r[0] for r in heads] == sorted({row[0] for row in rows})


def test_a_program_that_distrusts_the_schema_appends_by_the_law_or_not_at_all(file: Path) -> None:
    """Older SQLite does not let such a program use functions of JSON in a trigger."""
    with attacker(file) as connection:
        connection.execute("PRAGMA trusted_schema = 0")
        with suppress(sqlite3.OperationalError):
            insert(connection, next_event(connection, "run/held"))
        with pytest.raises(sqlite3.Error):
            insert(connection, next_event(connection, "run/held", fence_token=1))
    assert verify_file(file).problems == ()
