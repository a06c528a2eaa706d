"""`carstore rebuild`."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.engine.cli.harness import ROOT, Folder, cli


def sql(folder: Folder, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "a.db")) as connection, connection:
        return connection.execute(statement).fetchall()


def test_it_prints_position_checksum_and_seconds_of_each_view(ran: Folder) -> None:
    found = cli("rebuild", "a.db", "--json").json
    head = cli("head", "a.db", "--json").json["position"]
    for one in found:
        assert list(one) == [
            "view",
            "version",
            "position",
            "rows",
            "checksum",
            "before",
            "seconds",
        ]
        assert (one["position"], one["before"]) == (head, "none")
        assert 0 <= one["seconds"] < 60
    assert [one["view"] for one in found] == [
        "state",
        "runs",
        "actions",
        "spans",
        "costs",
        "doubts",
        "reuse",
        "approvals",
        "waits",
        "rules",
        "pursuits",
        "budgets",
    ]
    again = cli("rebuild", "a.db", "--json").json
    assert {one["before"] for one in again} == {"equal"}
    assert [one["checksum"] for one in again] == [one["checksum"] for one in found]
    assert "costs" in cli("rebuild", "a.db").stdout


def test_it_says_when_the_rows_were_not_those_of_the_log(ran: Folder) -> None:
    cli("rebuild", "a.db")
    sql(ran, "UPDATE view_costs_v2 SET calls = 99")
    sql(ran, "UPDATE view_positions SET position = 9999 WHERE name = 'runs'")
    done = cli("rebuild", "a.db", "--json")
    assert done.code == 0
    before = {one["view"]: one["before"] for one in done.json}
    assert {name for name in before if before[name] != "equal"} == {"costs", "runs"}
    assert (before["costs"], before["runs"]) == ("different", "damaged")
    assert "The rows of costs were not those of the log" in done.stderr
    assert cli("verify", "a.db").code == 0
    assert "The rows of" not in cli("rebuild", "a.db").stderr


def test_only_the_views_that_are_named_are_rebuilt(ran: Folder) -> None:
    found = cli("rebuild", "a.db", "--view", "runs", "--view", "costs", "--json").json
    assert [one["view"] for one in found] == ["runs", "costs"]
    assert sql(ran, "SELECT name FROM view_positions ORDER BY 1") == [("costs",), ("runs",)]


def test_the_index_of_the_search_is_rebuilt_if_it_is_there_or_named(ran: Folder) -> None:
    assert "search" not in {one["view"] for one in cli("rebuild", "a.db", "--json").json}
    [one] = cli("rebuild", "a.db", "--view", "search", "--json").json
    assert (one["view"], one["before"]) == ("search", "none")
    found = {one["view"]: one["before"] for one in cli("rebuild", "a.db", "--json").json}
    assert found["search"] == "equal"


def test_views_of_a_file_are_rebuilt_too(ran: Folder) -> None:
    shutil.copy(ROOT / "examples" / "view_tools.py", ran / "mine.py")
    found = cli("rebuild", "a.db", "--views", "mine.py", "--json").json
    assert [one["view"] for one in found][-1] == "tools"
    assert sql(ran, "SELECT tool FROM tools ORDER BY 1") == [("double",), ("spend",)]
    sql(ran, "UPDATE view_tools_v1 SET calls = 7")
    assert cli("verify", "a.db").code == 0, "nobody said what this view is"
    done = cli("verify", "a.db", "--views", "mine.py", "--json")
    assert done.code == 1
    assert {one["code"] for one in done.json["problems"]} == {"view"}


@pytest.mark.parametrize(("name", "code"), [("zzz", "not_found"), ("leases", "invalid_view")])
def test_a_view_that_cannot_be_rebuilt_is_refused(ran: Folder, name: str, code: str) -> None:
    done = cli("rebuild", "a.db", "--view", "costs", "--view", name, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)
