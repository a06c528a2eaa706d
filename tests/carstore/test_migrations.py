"""From nothing to the schema: by one opener, by several at once, and never from a newer one."""

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from carstore import Store, connect
from carstore.errors import CarstoreError, DiskFull, NotADatabase, SchemaTooNew
from carstore.names import StreamName
from carstore.sqlite import database, migrations
from carstore.sqlite.jobs import JobConnection
from carstore.sqlite.migrations import APPLICATION_ID, SCHEMA, migrate
from carstore.sqlite.migrations import change as change_of
from carstore.sqlite.statements import SQL, parse_named, schema_text, split
from carstore.sqlite.verify import verify_file
from tests.carstore.helpers import change, everything, in_loop, open_store, rows_of, step, stock
from tests.golden.record import load, path_of

ROOT = Path(migrations.__file__).parents[2]


def objects(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master "
        "WHERE name NOT LIKE '%\\_sqlite\\_migrations%' ESCAPE '\\' ORDER BY 1, 2"
    ).fetchall()


def test_migrations_end_where_schema_sql_begins() -> None:
    migrated = sqlite3.connect(":memory:", isolation_level=None)
    migrated.execute("BEGIN IMMEDIATE")
    migrate(migrated)
    assert migrated.in_transaction  # it is the caller who commits
    migrated.execute("COMMIT")
    written = sqlite3.connect(":memory:", isolation_level=None)
    written.executescript(schema_text())
    assert objects(migrated) == objects(written)
    assert migrated.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert migrated.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    migrated.close()
    written.close()


def test_a_migration_that_is_rolled_back_leaves_nothing() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    migrate(connection)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    connection.close()


@in_loop
async def test_to_open_a_file_again_changes_nothing(path: Path) -> None:
    before = rows_of(path)
    connection = stock(path)
    for _ in range(2):
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        async with open_store(path):
            pass
        assert connection.execute("PRAGMA schema_version").fetchone() == (version,)
    connection.close()
    assert rows_of(path) == before


# From an older schema.


@pytest.fixture(params=range(1, SCHEMA), ids=lambda schema: f"schema {schema}")
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of an older schema."""
    return Path(shutil.copyfile(path_of(request.param), tmp_path / "older.db"))


def whole(path: Path) -> tuple[int, list[Any], dict[str, list[Any]]]:
    """The schema number, the schema and the rows; also that the file is in order."""
    assert verify_file(path).problems == ()
    connection = stock(path)
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    found = (number, objects(connection), rows_of(path))
    connection.close()
    return found


RELEASED = {
    1: "a620558ff3a00ed9f3551a8e9331280f75d6246e85ff9e60ff5fed700352579b",
}
"""SHA-256 of the changes that files in the world have gone through."""


def test_a_change_that_was_released_stays_as_it_was() -> None:
    folder = Path(migrations.__file__).with_name("changes")
    found = {n: sha256((folder / f"{n}.sql").read_bytes()).hexdigest() for n in RELEASED}
    assert found == RELEASED
    assert {path.name for path in folder.iterdir()} == {f"{n}.sql" for n in range(1, SCHEMA + 1)}


KILLED = """
import asyncio, os, signal, sys
from carstore import connect
from carstore.sqlite import migrations

path, at = sys.argv[1], int(sys.argv[2])
whole = migrations.change

def change(number):
    statements = whole(number)
    yield from statements[:at]
    if at <= len(statements):
        os.kill(os.getpid(), signal.SIGKILL)

migrations.change = change
asyncio.run(connect(path)._open())
"""


@pytest.mark.parametrize("at", [0, 2, 4, -1])
def test_a_migration_that_is_killed_leaves_the_old_schema_whole(older: Path, at: int) -> None:
    before = whole(older)
    statements = len(change_of(before[0] + 1))
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(older), str(at % (statements + 1))], cwd=ROOT
    )
    assert died.returncode == -signal.SIGKILL
    assert whole(older) == before
    asyncio.run(_open_and_close(older))
    assert whole(older)[0] == SCHEMA


def test_a_migration_without_room_leaves_the_old_schema_whole(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = whole(older)

    def migrate_without_room(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        migrate(connection)

    with monkeypatch.context() as patched:
        patched.setattr(database, "migrate", migrate_without_room)
        with pytest.raises(DiskFull):
            asyncio.run(_open_and_close(older))
    assert whole(older) == before
    asyncio.run(_open_and_close(older))
    assert whole(older)[0] == SCHEMA


@in_loop
async def test_an_older_file_keeps_its_id_and_its_epoch(older: Path) -> None:
    async with open_store(older, readonly=True) as store:
        was = (store.log_id, store.epoch, await store.log.head())
    async with open_store(older) as store:
        assert (store.log_id, store.epoch, await store.log.head()) == was


@in_loop
async def test_a_file_that_became_newer_while_it_was_being_opened_is_left_alone(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at it and the lock on it are two moments."""
    looked = database._check_identity

    def look_and_be_overtaken(connection: sqlite3.Connection, path: str) -> None:
        looked(connection, path)
        newer = stock(older)
        newer.execute(f"PRAGMA user_version = {SCHEMA + 1}")
        newer.close()

    monkeypatch.setattr(database, "_check_identity", look_and_be_overtaken)
    with pytest.raises(SchemaTooNew):
        await open_store(older)
    connection = stock(older)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA + 1,)
    connection.close()


async def _open_and_close(path: Path) -> None:
    async with open_store(path):
        pass


# The text of the schema.


def test_a_script_is_split_where_its_statements_end() -> None:
    script = "-- prose; with a semicolon\n\nCREATE TABLE a (b); -- note\nCREATE TRIGGER t BEFORE\n"
    script += "INSERT ON a BEGIN\n    SELECT 1; -- in the middle;\n    SELECT 2;\nEND;\n"
    statements = split(script.replace("; -- note", ";"))
    assert len(statements) == 2
    connection = sqlite3.connect(":memory:")
    for statement in statements:
        connection.execute(statement)
    connection.close()
    with pytest.raises(ValueError, match="within a statement"):
        split("CREATE TABLE a (b")


def test_statements_are_found_by_name() -> None:
    text = "-- prose\n-- name: one\nSELECT 1;\n\n-- why\n-- name: two\nSELECT\n    2;\n"
    assert parse_named(text) == {"one": "SELECT 1", "two": "SELECT\n    2"}


def test_every_statement_fits_the_schema(path: Path) -> None:
    connection = stock(path)
    for sql in SQL.values():
        if sql.startswith("CREATE TABLE IF NOT EXISTS"):  # tables that are made when they are used
            connection.execute(sql)
    for name, sql in SQL.items():
        parameters: Any = dict.fromkeys(
            ("after", "until", "limit", "kinds", "stream", "streams", "version", "scope", "key",
             "keys", "run_id"), None
        ) if ":" in sql else (None,) * sql.count("?")  # fmt: skip
        try:
            connection.execute(f"EXPLAIN {sql}", parameters)
        except sqlite3.OperationalError as error:  # pragma: no cover
            pytest.fail(f"{name}: {error}")
    connection.close()


# Newer files.


@pytest.mark.parametrize("readonly", [False, True])
@in_loop
async def test_a_newer_schema_is_refused_and_left_alone(path: Path, readonly: bool) -> None:
    connection = stock(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew) as refused:
        await open_store(path, readonly=readonly)
    assert (refused.value.found, refused.value.known) == (SCHEMA + 1, SCHEMA)
    assert "Upgrade" in refused.value.message
    assert path.read_bytes() == before


@in_loop
async def test_a_file_that_becomes_newer_while_it_is_open_is_not_written_to(path: Path) -> None:
    async with open_store(path) as store:
        await store.log.append(step())
        head = await store.log.head()
        connection = stock(path)
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
        for _ in range(2):
            with pytest.raises(SchemaTooNew):
                await store.log.append(step())
        assert await store.log.head() == head
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.close()
        await store.log.append(step())


# Several openers at once.

OPENER = """
import asyncio, json, sys
from carstore import Entry, connect
from carstore.events import ActionValidated

async def main():
    for line in sys.stdin:
        try:
            async with connect(line.strip(), durability="crash") as store:
                done = await store.log.append(Entry("notes", ActionValidated(action_id="a")))
                told = [store.log_id, done.first]
        except Exception as error:
            told = [type(error).__name__, str(error)]
        print(json.dumps(told), flush=True)

asyncio.run(main())
"""


def nothing(_: Path) -> int:
    return 1


def of_schema_1(path: Path) -> int:
    shutil.copyfile(path_of(1), path)
    position: int = load(path_of(1))["head"]["position"]
    return position


def race(folder: Path, processes: int, rounds: int, begin: Callable[[Path], int] = nothing) -> None:
    """Let processes open one file at once and append to it, each file anew.

    Args:
        begin: puts there what they find, and says at which position the log is once it is open.
    """
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=ROOT,
        )
        for _ in range(processes)
    ]  # fmt: skip
    try:
        for n in range(rounds):
            path = folder / f"{n}.db"
            head = begin(path)
            for opener in openers:
                assert opener.stdin is not None
                opener.stdin.write(f"{path}\n")
            for opener in openers:
                assert opener.stdin is not None
                opener.stdin.flush()
            told = [json.loads(opener.stdout.readline()) for opener in openers if opener.stdout]
            positions = list(range(head + 1, head + processes + 1))
            assert sorted(position for _, position in told) == positions, told
            assert len({log_id for log_id, _ in told}) == 1
            assert verify_file(path).problems == ()
    finally:
        for opener in openers:
            opener.communicate()


def test_processes_that_make_one_file_at_once_share_it(tmp_path: Path) -> None:
    race(tmp_path, processes=3, rounds=15)


def test_processes_that_migrate_one_file_at_once_share_it(tmp_path: Path) -> None:
    race(tmp_path, processes=3, rounds=8, begin=of_schema_1)


@pytest.mark.prove
def test_many_processes_that_migrate_one_file_at_once_share_it(tmp_path: Path) -> None:
    race(tmp_path, processes=8, rounds=100, begin=of_schema_1)


@pytest.mark.prove
def test_many_processes_that_make_one_file_at_once_share_it(tmp_path: Path) -> None:
    race(tmp_path, processes=8, rounds=200)


@in_loop
async def test_stores_that_make_one_file_at_once_share_it(tmp_path: Path) -> None:
    for n in range(10):
        path = tmp_path / f"{n}.db"
        stores = await asyncio.gather(*[_opened(path) for _ in range(3)])
        await asyncio.gather(*[store.log.append(change("k", 1)) for store in stores])
        assert len({store.log_id for store in stores}) == 1
        assert [r.position for r in await everything(stores[0])] == [1, 2, 3, 4]
        assert len(await everything(stores[0], stream=StreamName("log"))) == 1
        for store in stores:
            await store.close()


@pytest.mark.parametrize("moment", ["PRAGMA user_version", "PRAGMA application_id"])
@pytest.mark.parametrize("readonly", [False, True])
@in_loop
async def test_a_file_that_another_makes_at_this_moment_is_not_taken_for_a_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, readonly: bool
) -> None:
    path = tmp_path / "log.db"
    path.touch()
    stock(path).execute("PRAGMA journal_mode = WAL").connection.close()

    async def make() -> None:
        async with open_store(path):
            pass

    class Slow(JobConnection):
        pending = True

        def execute(self, sql: str, parameters: Any = ()) -> Any:
            result = super().execute(sql, parameters)
            if sql == moment and Slow.pending:
                Slow.pending = False
                row = result.fetchone()
                monkeypatch.undo()
                asyncio.run(make())
                return _Rows([row])
            return result

    monkeypatch.setattr(database, "JobConnection", Slow)
    try:
        store = await open_store(path, readonly=readonly)
    except CarstoreError as error:
        # A reader may have come too early, but then it says so.
        assert readonly, error
        assert isinstance(error, NotADatabase)
        assert "another program" not in error.message
    else:
        assert (await store.log.head()).position == 1
        await store.close()
    assert not Slow.pending


async def _opened(path: Path) -> Store:
    return await connect(path, durability="crash")


class _Rows:
    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def fetchone(self) -> Any:
        return self._rows[0]
