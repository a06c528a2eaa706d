"""`carstore doctor`: what it says of runs and views, and how it ends."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from carstore.names import Position
from engine.cli.doctor import FAR_BEHIND, judge_runs, judge_tables, judge_views
from projections import Standing
from tests.engine.cli.harness import GOOD, Folder, call, cli, plan, shape
from tests.engine.cli.test_cli_docs import documented


def levels(*arguments: str) -> dict[str, str]:
    found = cli("doctor", *arguments, "--json").json
    assert all(shape(one) == documented("doctor")[0] for one in found)
    return {one["code"]: one["level"] for one in found}


def test_a_good_file_is_ok(ran: Folder) -> None:
    done = cli("doctor", "a.db")
    assert (done.code, done.stderr) == (0, "")
    assert "runs: 0 under way, none stopped or waiting" in done.stdout
    found = levels("a.db", "--deep")
    assert {found[code] for code in ("runs", "views", "tables", "schema", "quick_check")} == {"ok"}


def test_an_altered_file_is_a_fault(ran: Folder) -> None:
    connection = sqlite3.connect(ran / "a.db")
    connection.execute("DROP TRIGGER events_update")
    connection.close()
    done = cli("doctor", "a.db")
    assert done.code == 1
    assert "fault   schema: the trigger events_update of schema.sql is missing" in done.stdout
    assert "          do: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 fault")


def test_runs_that_wait_are_told_with_what_to_do(folder: Folder) -> None:
    late = plan(call("w", "wait", path="began", seconds=0.3, _timeout_ms=50))
    assert folder.run(late, "--run-id", "late").code == 3
    assert folder.run(GOOD).code == 0
    done = cli("doctor", "a.db")
    assert done.code == 0
    assert "note    runs: waiting for a person: late" in done.stdout
    assert "do: carstore doubts a.db" in done.stdout
    assert cli("restore", "a.db", "b.db").code == 0
    done = cli("doctor", "b.db")
    assert "held, since the file is a copy: late" in done.stdout
    assert "do: carstore resume b.db late --tools FILE_OR_MODULE --accept-copy" in done.stdout
    done = cli("resume", "b.db", "late", "--tools", "tools.py", "--accept-copy")
    assert done.code == 3
    assert "waiting for a person: late" in cli("doctor", "b.db").stdout


@pytest.mark.parametrize("data", [b"", b"text", b"SQLite format 3\0" * 900])
def test_what_is_no_database_is_told(folder: Folder, data: bytes) -> None:
    (folder / "x.db").write_bytes(data)
    done = cli("doctor", "x.db")
    assert done.code == 1
    assert "fault   file: " in done.stdout
    assert {"file", "identity"} <= levels("x.db").keys()


def test_what_is_no_file_is_bad_input(folder: Folder) -> None:
    assert cli("doctor", "none.db").code == 2
    assert cli("doctor", ".").code == 2


def test_a_file_that_may_only_be_read_is_looked_at(ran: Folder) -> None:
    before = (ran / "a.db").read_bytes()
    (ran / "a.db").chmod(0o400)
    assert levels("a.db")["identity"] == "ok"
    assert (ran / "a.db").read_bytes() == before


# Judgements.


def test_each_kind_of_unfinished_run_has_its_remedy() -> None:
    nothing: dict[str, list[str]] = {"driven": ["d"], "stopped": [], "waiting": [], "held": []}
    assert judge_runs("a.db", nothing).level == "ok"
    found = judge_runs("a b.db", {**nothing, "stopped": [f"s{n}" for n in range(9)], "held": ["h"]})
    assert found.level == "note"
    assert "s0, s1, s2, s3, s4 and 4 more" in found.what
    assert "carstore resume 'a b.db' --tools" in found.do
    assert "'a b.db' h --tools FILE_OR_MODULE --accept-copy" in found.do
    many = judge_runs("a.db", {**nothing, "held": [f"h{n}" for n in range(9)]})
    assert "carstore resume a.db --tools FILE_OR_MODULE --accept-copy" in many.do


def standing(**other: Any) -> Standing:
    return Standing(
        **{
            "name": "costs",
            "version": 1,
            "known": True,
            "kinds": (),
            "status": "complete",
            "rows": 1,
            "position": Position(5),
            "behind": 0,
            "shown": True,
            "stopped_by": None,
            **other,
        }
    )


@pytest.mark.parametrize(
    ("other", "level"),
    [
        ({}, "ok"),
        ({"behind": FAR_BEHIND + 1}, "note"),
        ({"behind": FAR_BEHIND + 1, "status": "not stored"}, "ok"),
        ({"behind": None, "status": "damaged"}, "warning"),
        ({"behind": None, "status": "damaged", "known": False}, "ok"),
    ],
)
def test_views_are_judged(other: dict[str, Any], level: str) -> None:
    assert judge_views("a.db", [standing(), standing(name="x", **other)]).level == level


def test_what_a_rebuild_left_is_told() -> None:
    mine = ["events", "view_costs_v1", "view_costs_v1_building", "my_view_new"]
    assert judge_tables("a.db", mine).level == "ok"
    assert judge_tables("a.db", [*mine, "view_costs_v1_new_0123abcd"]).level == "note"


def test_names_in_a_file_cannot_act_on_the_terminal(ran: Folder) -> None:
    connection = sqlite3.connect(ran / "a.db")
    connection.execute('CREATE TRIGGER "\x1b[31m" AFTER INSERT ON events BEGIN SELECT 1; END')
    connection.close()
    assert "\x1b" not in cli("doctor", "a.db").stdout
    assert Path("a.db").exists()
