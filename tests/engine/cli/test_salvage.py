"""`carstore salvage`: what it prints, and what it leaves."""

import json

import pytest

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
    assert "1 runs were not finished" in done.stdout
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
