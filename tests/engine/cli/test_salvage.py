"""`carstore salvage`: what it prints, and what it leaves."""

import errno
import json
import os
import stat
from typing import TextIO

import pytest

from engine.cli.salvage import _Lines
from tests.carstore.attack import lawless
from tests.engine.cli.harness import Folder, call, cli, plan, shape
from tests.engine.cli.test_cli_docs import documented


@pytest.fixture
def damaged(ran: Folder) -> Folder:
    """The run's file, in which event 6 was changed."""
    with lawless(ran / "a.db") as connection:
        connection.execute("UPDATE events SET recorded_at = 1 WHERE position = 6")
    return ran


def last_position() -> int:
    return int(cli("head", "a.db", "--json").json["position"])


def test_what_is_proven_is_copied_and_the_rest_is_told(damaged: Folder) -> None:
    done = cli("salvage", "a.db", "new.db")
    assert done.code == 0
    assert f"Made {damaged / 'new.db'}: 5 events" in done.stdout
    assert "event 6 is not the one its hash was made for" in done.stdout
    assert f"{last_position() - 5} later events can be read, and are not trusted" in done.stdout
    assert "1 run was not finished" in done.stdout
    assert cli("verify", "new.db").code == 0
    assert "waiting" in cli("runs", "new.db").stdout


def test_programs_get_a_document(damaged: Folder) -> None:
    document = cli("salvage", "a.db", "new.db", "--list", "rest.jsonl", "--json").json
    assert shape(document) == documented("salvage")
    assert document["position"] == 5
    assert document["problem"]["position"] == 6
    assert document["held"] == ["first"]
    lines = (damaged / "rest.jsonl").read_text().splitlines()
    assert len(lines) == document["untrusted"] == last_position() - 5
    assert json.loads(lines[0])["position"] == 6


def test_the_rest_can_go_to_standard_output(damaged: Folder) -> None:
    done = cli("salvage", "a.db", "new.db", "--list", "-")
    assert json.loads(done.stdout.splitlines()[0])["position"] == 6
    assert "Made " in done.stderr


def test_a_whole_file_loses_nothing(ran: Folder) -> None:
    done = cli("salvage", "a.db", "new.db", "--list", "rest.jsonl")
    assert "All events of the log are in it" in done.stdout
    assert not (ran / "rest.jsonl").exists()
    assert cli("verify", "new.db").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("none.db", "new.db"), 2, "not_found"),
        (("a.db", "a.db"), 2, "already_there"),
        (("a.db", "no/new.db"), 2, "not_found"),
        (("plan.json", "new.db"), 1, "copy_failed"),
        (("a.db", "new.db", "--list", "-"), 2, "usage"),
        (("a.db", "new.db", "--list", "tools.py"), 2, "already_there"),
        (("a.db", "new.db", "--list", "no/rest"), 2, "usage"),
        (("a.db", "new.db", "--list", "./new.db"), 2, "usage"),
    ],
)
def test_what_cannot_be_done_leaves_no_file(
    damaged: Folder, arguments: tuple[str, ...], code: int, error: str
) -> None:
    damaged.plan(plan(call("a", "double", n=1)))
    done = cli("salvage", *arguments, "--json")
    assert (done.code, done.json["error"]["code"]) == (code, error)
    assert sorted(damaged.path.glob("*.part")) == []
    assert not (damaged / "new.db").exists()


def test_a_list_that_fails_is_told_as_that_and_the_new_file_stays(
    damaged: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = _Lines._to_write, 0

    def full(lines: _Lines, path: str) -> TextIO:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(lines, path)

    monkeypatch.setattr(_Lines, "_to_write", full)
    done = cli("salvage", "a.db", "new.db", "--list", "rest.jsonl")
    assert done.code == 1
    assert "rest.jsonl was not made: No space left on device." in done.stderr
    assert f"The new file {damaged / 'new.db'} is made, up to position 5." in done.stderr
    assert cli("verify", "new.db").code == 0
    assert sorted(one.name for one in damaged.path.glob("*rest*")) == []


def test_who_may_not_read_the_file_may_not_read_the_list(damaged: Folder) -> None:
    (damaged / "a.db").chmod(0o400)
    assert cli("salvage", "a.db", "new.db", "--list", "rest.jsonl").code == 0
    assert stat.S_IMODE((damaged / "rest.jsonl").stat().st_mode) == 0o600


def test_where_the_original_was_is_recorded_whole(damaged: Folder) -> None:
    assert cli("salvage", "a.db", "new.db").code == 0
    started = cli("log", "new.db", "--kind", "log_epoch_started", "--tail", "1", "--json").json
    assert started["data"]["origin"]["path"] == str(damaged / "a.db")
