"""docs/verify_chain.py tells whole logs from others, without any code of this project."""

import asyncio
import importlib.util
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from carstore import Entry, Head, connect
from carstore.events import StateChanged
from carstore.names import StreamName
from tests.docs.markdown import DOCS

SCRIPT = DOCS / "verify_chain.py"
EVENTS = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "näme with space.db"


@pytest.fixture
def head(path: Path) -> Head:
    """A log of some streams, with text that JSON can write in more than one way."""

    async def make() -> Head:
        async with connect(path) as store:
            for number in range(EVENTS - 1):
                value = ['"\\/\u2028\x7f<', number, 1e100, None]
                event = StateChanged(scope="main", key=f"ключ {number % 4}", value=value)
                await store.log.append(Entry(StreamName(f"notes/{number % 3}"), event))
            return await store.log.head()

    return asyncio.run(make())


def run_here(*arguments: object) -> int:
    """The same in this process, many times a second; what it raises is not caught."""
    spec = importlib.util.spec_from_file_location("verify_chain", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        try:
            script.main()
        except SystemExit as ended:
            if isinstance(ended.code, str):
                assert ended.code.startswith("not ok: ")
                assert ended.code.isascii()
                return 1
            return int(ended.code or 0)
    return 0


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-I", "-S", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def tamper(path: Path, *statements: str) -> None:
    """What somebody does who knows how to get rid of the triggers."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
    for (name,) in triggers.fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_whole_log_is_ok_and_its_head_is_told(path: Path, head: Head) -> None:
    done = run(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ok: the chain is whole up to {head.position} {head.hash}\n"
    assert head.position == EVENTS


def test_it_can_run_while_the_log_is_in_use(path: Path, head: Head) -> None:
    async def check() -> int:
        async with connect(path) as store:
            event = StateChanged(scope="main", key="a", value=1)
            await store.log.append(Entry(StreamName("notes/1"), event))
            return (await asyncio.to_thread(run, path)).returncode

    assert asyncio.run(check()) == 0


def test_a_kept_head_is_found(path: Path, head: Head) -> None:
    assert run(path, "--head", f"{head.position}:{head.hash}").returncode == 0
    assert run(path, "--head", f"{head.position} {head.hash}\n").returncode == 0


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE events SET data = \'{"prev":null,"value":2}\' WHERE position = 5',
        "UPDATE events SET recorded_at = recorded_at + 1 WHERE position = 5",
        "UPDATE events SET run_id = 'somebody' WHERE position = 5",
        "UPDATE events SET scope = 'other' WHERE position = 5",
        "UPDATE events SET key = 'other' WHERE position = 5",
        "UPDATE events SET kind = 'other' WHERE position = 5",
        "UPDATE events SET fence_token = 5 WHERE position = 5",
        "UPDATE events SET hash = 'x' WHERE position = 5",
        "UPDATE events SET prev_hash = 'x' WHERE position = 5",
        "UPDATE streams SET name = 'other' WHERE stream_id = 2",
        "DELETE FROM streams WHERE stream_id = 2",
        "DELETE FROM events WHERE position = 5",
        "DELETE FROM events WHERE position = 1",
        "DELETE FROM events",
        "DROP TABLE events",
    ],
)
def test_a_changed_log_is_not_ok(path: Path, head: Head, statement: str) -> None:
    tamper(path, statement)
    done = run(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("not ok: ")
    assert done.stderr.count("\n") == 1


def test_a_lost_end_shows_only_against_a_kept_head(path: Path, head: Head) -> None:
    tamper(path, f"DELETE FROM events WHERE position = {head.position}")
    assert run(path).returncode == 0
    done = run(path, "--head", f"{head.position}:{head.hash}")
    assert done.returncode == 1
    assert f"ends at position {head.position - 1}" in done.stderr


def test_another_history_shows_against_a_kept_head(path: Path, head: Head) -> None:
    done = run(path, "--head", f"{head.position}:{'0' * 64}")
    assert done.returncode == 1
    assert f"event {head.position} has the hash {head.hash}" in done.stderr


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:5000], lambda data: b"no database at all" * 100, lambda data: b""],
    ids=["cut off", "text", "empty"],
)
def test_a_damaged_file_is_not_ok(path: Path, head: Head, damage: Callable[[bytes], bytes]) -> None:
    path.write_bytes(damage(path.read_bytes()))
    done = run(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("not ok: ")


def test_no_damage_makes_it_fail(path: Path, head: Head) -> None:
    """Whatever is flipped, cut off or overwritten: 0 only if the whole log is read."""
    whole, chance, found = path.read_bytes(), random.Random(7), []
    for number in range(150):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        if number % 4 == 0:
            del data[at:]
        elif number % 4 == 1:
            data[at : at + 500] = chance.randbytes(500)
        else:
            data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        found.append(run_here(path, "--head", f"{head.position}:{head.hash}"))
        if found[-1] == 0:
            assert events_of(path) == (head.position, head.hash)
    assert set(found) == {0, 1}


def events_of(path: Path) -> tuple[int, str]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT position, hash FROM events ORDER BY position").fetchall()
    finally:
        connection.close()
    assert [position for position, _ in rows] == list(range(1, len(rows) + 1))
    position, digest = rows[-1]
    return int(position), str(digest)


@pytest.mark.parametrize("statement", [
    "UPDATE events SET data = CAST(x'ff' AS TEXT) WHERE position = 5",
    "UPDATE streams SET name = CAST(x'61ff' AS TEXT) WHERE stream_id = 2",
    "UPDATE events SET hash = 'x' || char(10) || 'y' WHERE position = 5",
])  # fmt: skip
def test_text_that_is_none_is_not_ok(path: Path, head: Head, statement: str) -> None:
    tamper(path, statement)
    done = run(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr


def test_a_database_of_another_program_is_not_ok(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE events (position BLOB, mine INTEGER)")
    connection.close()
    done = run(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("missing.db",),
        ("{path}", "--head", "12"),
        ("{path}", "--head", "x:" + "0" * 64),
        ("{path}", "--head", "1:" + "x" * 64),
        ("{path}", "--head", "9" * 5000 + ":" + "0" * 64),
        ("{path}", "--head", "²:" + "0" * 64),
    ],
)
def test_bad_usage_is_2(path: Path, head: Head, arguments: tuple[str, ...]) -> None:
    done = run(*[argument.format(path=path) for argument in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage:" in done.stderr


def test_nothing_is_written(path: Path, head: Head) -> None:
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert run(path).returncode == 0
    after = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert after[path.name] == before[path.name]


def test_the_script_is_short_and_imports_only_the_standard_library() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert text.count("\n") < 100
    imports = {line.split()[1].partition(".")[0] for line in text.splitlines()
               if line.startswith(("import ", "from "))}  # fmt: skip
    assert imports <= sys.stdlib_module_names
