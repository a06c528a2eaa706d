"""A file that a newer program migrates while an older one has it open."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from carstore import Entry
from carstore.events import CopyAccepted
from carstore.names import RunId, StreamName
from carstore.sqlite import migrations
from carstore.sqlite.migrations import SCHEMA
from carstore.sqlite.verify import verify_file
from projections import COSTS, LAZY, RUNS, STATE, rows
from projections.memory import checksum
from tests.carstore.helpers import change, in_loop, open_store, step, stock
from tests.golden.record import load, path_of

ROOT = Path(migrations.__file__).parents[2]
GOLDEN = path_of(1)
HEAD = load(GOLDEN)["head"]["position"]


@define
class Older:
    """The older program; each word to it is answered."""

    process: "subprocess.Popen[str]"

    def __call__(self, word: str) -> Any:
        self.say(word)
        return self.hear()

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def followed_to(self, position: int) -> list[Any]:
        """What it has followed, once it is at `position`."""
        deadline = time.monotonic() + 10
        while (found := self("followed")["done"])[0] < position:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        done: list[Any] = found
        return done


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(GOLDEN, tmp_path / "shared.db"))


@pytest.fixture
def older(file: Path) -> Iterator[Older]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.carstore.older_program", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Older(process)
    finally:
        process.kill()
        process.communicate()


def schema_of(path: Path) -> int:
    connection = stock(path)
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(number)


async def views_of(store: Any) -> dict[str, str]:
    return {view.name: checksum(view, await rows(store, view)) for view in (STATE, RUNS, COSTS)}


@in_loop
async def test_the_older_program_reads_on_and_is_told_that_it_cannot_append(
    file: Path, older: Older
) -> None:
    before = older("views")
    assert older("append") == {"done": HEAD + 1}
    assert schema_of(file) == 1
    assert older.followed_to(HEAD + 1)[2] == HEAD + 1
    async with open_store(file) as newer:
        assert schema_of(file) == SCHEMA
        assert older("views") == before == {"done": await views_of(newer)}
        for _ in range(2):
            refused = older("append")
            assert refused["code"] == "schema_too_new"
            assert f"has schema {SCHEMA}" in refused["message"]
            assert "up to 1. Upgrade carstore" in refused["message"]
        await newer.log.append(change("k", "after"), step())
        for view in LAZY:
            await rows(newer, view)
        assert older.followed_to(HEAD + 3)[2] == HEAD + 3
        assert older("views") == {"done": await views_of(newer)} != before
        assert older("read") == {"done": list(range(1, HEAD + 4))}
        assert older("append")["code"] == "schema_too_new"
    assert older("append")["code"] == "schema_too_new"  # also when the newer one has gone
    older.process.communicate("\n", timeout=20)
    assert older.process.returncode == 0
    assert verify_file(file).problems == ()
    assert verify_file(file).head.position == HEAD + 3


@in_loop
async def test_a_kind_of_the_newer_program_is_followed_but_not_folded(
    file: Path, older: Older
) -> None:
    older("followed")
    async with open_store(file) as newer:
        accepted = Entry(StreamName("run/x/inbox"), CopyAccepted(by="b", epoch=0), RunId("x"))
        await newer.log.append(accepted)
        assert older.followed_to(HEAD + 1)[:2] == [HEAD + 1, "copy_accepted"]
        for told in (older("event"), older("views")):
            assert told["code"] == "unknown_event"
            for part in (f"event {HEAD + 1}", "'copy_accepted'", "schema version 1", "newer"):
                assert part in told["message"]
        await newer.log.append(step())
        assert older.followed_to(HEAD + 2)[1] == "action_validated"
        assert older("event") == {"done": "action_validated"}
    assert verify_file(file).problems == ()


@in_loop
async def test_what_the_older_program_was_told_is_appended_is_there(
    file: Path, older: Older
) -> None:
    """It appends as fast as it can while the newer one migrates."""
    older("followed")
    for _ in range(300):
        older.say("append")
    async with open_store(file) as newer:
        told = [older.hear() for _ in range(300)]
        done = [one["done"] for one in told if "done" in one]
        assert done == list(range(HEAD + 1, HEAD + 1 + len(done)))
        assert {one["code"] for one in told[len(done) :]} <= {"schema_too_new"}
        assert (await newer.log.head()).position == HEAD + len(done)
    assert verify_file(file).problems == ()
