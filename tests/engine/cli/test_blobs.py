"""`carstore blobs` and `forget`."""

import asyncio
import json

import pytest

from carstore import Entry, connect
from carstore.events import StateChanged
from carstore.names import RunId, StreamName
from carstore.redaction import Redaction
from tests.engine.cli.harness import Folder, cli

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
    assert done.json == [{"hash": filled[0]}]
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("forget", "a.db", "--reason", "r"), "give one of"),
        (("forget", "a.db", "abcdef", "--run", "r", "--reason", "r"), "give one of"),
        (("forget", "a.db", "abcdef"), "--reason"),
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
