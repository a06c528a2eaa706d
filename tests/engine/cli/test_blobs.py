"""`carstore blobs` and `forget`."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from carstore import Entry, connect
from carstore.blobs import make_blob
from carstore.events import ActionSucceeded, StateChanged
from carstore.names import RunId, StreamName
from carstore.redaction import Redaction
from tests.carstore.helpers import stock
from tests.engine.cli.harness import Folder, call, cli, plan, shape, write
from tests.engine.cli.test_cli_docs import documented

LARGE = "x" * 100_000


@pytest.fixture
def filled(folder: Folder) -> list[str]:
    """A file with a large value under `big` and two passwords, one of them in run r; the hashes of
    the passwords."""

    async def fill() -> list[str]:
        rules = Redaction(names=["password"])
        async with connect(folder / "a.db", redaction=rules) as store:
            for value, run in (("first secret", None), ("second secret", RunId("r"))):
                event = StateChanged(scope="main", key="password", value=value)
                stream = StreamName("notes" if run is None else "run/r")
                await store.log.append(Entry(stream, event, run))
            event = StateChanged(scope="main", key="big", value=LARGE)
            await store.log.append(Entry(StreamName("notes"), event))
            states = [r async for r in store.log.read(kinds=["state_changed"])]
            return [json.loads(one.data)["value"]["$blob"] for one in states[:2]]

    return asyncio.run(fill())


def test_values_are_listed_by_size_and_not_shown(folder: Folder, filled: list[str]) -> None:
    done = cli("blobs", "a.db")
    assert done.code == 0
    assert "secret" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["HASH", "BYTES", "SENSITIVE"]
    assert lines[1].split()[1:] == ["100,002"]
    assert {line.split()[0] for line in lines[2:]} == set(filled)
    listed = cli("blobs", "a.db", "--json").json
    assert [one["sensitive"] for one in listed] == [False, True, True]
    assert "secret" not in cli("log", "a.db").stdout
    assert "secret" not in cli("state", "a.db", "--json").stdout


def test_one_is_printed_when_it_is_named(folder: Folder, filled: list[str]) -> None:
    assert cli("blobs", "a.db", filled[0][:8]).json == "first secret"


def test_forgetting_by_hash_by_run_and_by_key(folder: Folder, filled: list[str]) -> None:
    done = cli("forget", "a.db", "--run", "r", "--reason", "asked")
    assert (done.code, done.stdout) == (0, f"forgotten: {filled[1]}\n")
    done = cli("forget", "a.db", filled[0][:6], "--reason", "asked", "--by", "ada", "--json")
    assert done.json == {"forgotten": [filled[0]], "wal_emptied": True}
    assert shape(done.json) == documented("forget")
    said = [json.loads(line) for line in cli("log", "a.db", "--json").stdout.splitlines()]
    assert [one["data"] for one in said if one["kind"] == "blob_forgotten"] == [
        {"by": "somebody", "hash": filled[1], "reason": "asked"},
        {"by": "ada", "hash": filled[0], "reason": "asked"},
    ]
    assert cli("forget", "a.db", "--key", "big", "--reason", "space").code == 0
    assert cli("blobs", "a.db").stdout == "No values are kept beside the log.\n"
    done = cli("forget", "a.db", "--key", "big", "--reason", "again")
    assert (done.code, done.stdout) == (2, "")
    assert "Nothing was changed" in done.stderr
    assert cli("verify", "a.db").code == 0


# What others refer to.


@pytest.fixture
def shared(folder: Folder) -> str:
    """A file in which run a and run b hold the same large value, a under a key of its own and
    within a further one, b under another key and in an output. Its hash."""

    async def fill() -> str:
        async with connect(folder / "a.db") as store:
            for run, key, value in (
                ("a", "plan", LARGE),
                ("a", "plan", {"inner": "y" * 100_000}),
                ("b", "copy", LARGE),
            ):
                event = StateChanged(scope="main", key=key, value=value)
                await store.log.append(Entry(StreamName(f"run/{run}"), event, RunId(run)))
            done = ActionSucceeded(action_id="x", attempt=1, output=LARGE, duration_us=0)
            await store.log.append(Entry(StreamName("run/b"), done, RunId("b")))
            states = [r async for r in store.log.read(kinds=["state_changed"])]
            found: str = json.loads(states[0].data)["value"]["$blob"]
            return found

    return asyncio.run(fill())


@pytest.mark.parametrize(
    ("option", "others"),
    [
        (("--run", "a"), "1 in all, run b."),
        (("--run", "b"), "1 in all, run a."),
        (("--key", "plan"), "2 in all, state key copy, run b."),
        (("--key", "copy"), "1 in all, state key plan."),
    ],
)
def test_what_others_refer_to_is_forgotten_only_if_asked(
    folder: Folder, shared: str, option: tuple[str, str], others: str
) -> None:
    before = cli("head", "a.db").stdout
    done = cli("forget", "a.db", *option, "--reason", "asked")
    assert (done.code, done.stdout) == (2, "")
    assert "others refer to 1 of these" in done.stderr
    assert others in done.stderr
    assert "--shared" in done.stderr
    assert cli("head", "a.db").stdout == before
    done = cli("forget", "a.db", *option, "--reason", "asked", "--shared")
    assert done.code == 0
    assert f"forgotten: {shared}\n" in done.stdout


def test_by_hash_it_is_asked_for(folder: Folder, shared: str) -> None:
    assert cli("forget", "a.db", shared, "--reason", "asked").code == 0


def test_the_runs_that_wrote_a_key_are_not_others(folder: Folder) -> None:
    assert folder.run(plan(write("w", "big", LARGE)), "--run-id", "r").code == 0
    assert cli("forget", "a.db", "--key", "big", "--reason", "asked").code == 0


def test_values_within_values_of_others_count(folder: Folder) -> None:
    async def fill() -> None:
        async with connect(folder / "a.db") as store:
            secret = make_blob("a secret", sensitive=True)
            for run, value in (("a", secret.reference), ("b", [secret.reference, LARGE])):
                event = StateChanged(scope="main", key=run, value=value)
                entry = Entry(StreamName(f"run/{run}"), event, RunId(run), [secret])
                await store.log.append(entry)
            assert len(await store.blobs.infos()) == 2

    asyncio.run(fill())
    assert "run b" in cli("forget", "a.db", "--run", "a", "--reason", "asked").stderr


# What a reader keeps in the WAL.


READING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
print(*connection.execute("SELECT count(*) FROM events").fetchone(), flush=True)
sys.stdin.read()
"""


@contextmanager
def being_read(path: Path) -> Iterator[None]:
    """Another process has a transaction open."""
    command = [sys.executable, "-c", READING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        yield


def test_a_wal_that_is_held_back_is_told_and_emptied_later(
    folder: Folder, filled: list[str]
) -> None:
    path = folder / "a.db"
    open_elsewhere = stock(path)  # so that no command is the last to close the file
    open_elsewhere.execute("SELECT count(*) FROM events").fetchone()
    with being_read(path):
        done = cli("forget", "a.db", filled[0], "--reason", "asked")
        assert (done.code, done.stdout) == (1, f"forgotten: {filled[0]}\n")
        assert "still in the WAL" in done.stderr
        assert "carstore forget a.db --scrub" in done.stderr
        done = cli("forget", "a.db", filled[1], "--reason", "asked", "--json")
        assert done.code == 1
        assert done.json == {"forgotten": [filled[1]], "wal_emptied": False}
        done = cli("forget", "a.db", "--scrub")
        assert (done.code, done.stdout) == (1, "")
    for more in ([], ["--rewrite"], ["--json"]):
        assert cli("forget", "a.db", "--scrub", *more).code == 0
    assert Path(f"{path}-wal").stat().st_size == 0
    open_elsewhere.close()
    assert cli("verify", "a.db").code == 0


def test_the_doctor_tells_of_a_wal_that_may_hold_what_was_forgotten(
    folder: Folder, filled: list[str]
) -> None:
    def found() -> tuple[str, str]:
        [said] = [one for one in cli("doctor", "a.db", "--json").json if one["code"] == "forgotten"]
        return said["level"], said["do"]

    with being_read(folder / "a.db"):
        assert found()[0] == "ok"
        assert cli("forget", "a.db", filled[0], "--reason", "asked").code == 1
        level, do = found()
        assert (level, "--scrub" in do) == ("note", True)
    assert cli("forget", "a.db", "--scrub").code == 0
    assert found()[0] == "ok"


# Rules.


def test_the_rules_of_a_file_apply_to_commands(folder: Folder, filled: list[str]) -> None:
    """Nothing on the command line names them."""
    secret = plan(write("w", "password", "third secret"), call("c", "boom", text="no"))
    folder.run(secret, "--run-id", "c")
    assert len(cli("blobs", "a.db", "--json").json) == 4
    assert "third secret" not in cli("log", "a.db", "--json").stdout
    assert "redaction: kept beside the log: values of password" in cli("doctor", "a.db").stdout


def test_copies_keep_the_rules(folder: Folder, filled: list[str]) -> None:
    head = str(cli("head", "a.db", "--json").json["position"])
    for made in (
        ("restore", "a.db", "restored.db"),
        ("fork", "a.db", "forked.db", "--at", head),
        ("export", "a.db", "lines"),
        ("import", "lines", "imported.db"),
        ("salvage", "a.db", "salvaged.db"),
    ):
        assert cli(*made).code == 0, made

    async def rules(name: str) -> tuple[str, ...]:
        async with connect(folder / name) as store:
            return store.redaction.names

    for name in ("restored.db", "forked.db", "imported.db", "salvaged.db"):
        assert asyncio.run(rules(name)) == ("password",), name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("forget", "a.db", "--reason", "r"), "give one of"),
        (("forget", "a.db", "abcdef", "--run", "r", "--reason", "r"), "give one of"),
        (("forget", "a.db", "abcdef"), "--reason"),
        (("forget", "a.db", "abcdef", "--scrub"), "--scrub"),
        (("forget", "a.db", "abc", "--reason", "r"), "at least 6"),
        (("forget", "a.db", "zzzzzz", "--reason", "r"), "zzzzzz"),
        (("forget", "a.db", "--run", "no such", "--reason", "r"), "no such"),
        (("blobs", "a.db", "zzzzzz"), "carstore blobs a.db"),
        (("blobs", "no.db"), "no.db"),
    ],
)
def test_what_names_nothing_is_told(
    folder: Folder, filled: list[str], given: tuple[str, ...], said: str
) -> None:
    done = cli(*given)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(cli("blobs", "a.db", "--json").json) == 3
