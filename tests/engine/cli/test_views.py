"""`carstore views` and `carstore view`."""

import csv
import io
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cli.harness import BAD, ROOT, Folder, call, cli, plan
from tests.projections.plausible import append_unknown

NAMES = [
    "streams", "leases", "state", "runs", "actions", "spans", "costs", "doubts", "reuse",
    "approvals", "waits", "rules", "pursuits", "budgets",
]  # fmt: skip

HELPER = {"agent": "helper", "currency": "USD"}
PLANNER = {"agent": "planner", "currency": "USD"}


def run_sql(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def listed(*options: str) -> dict[str, Any]:
    found = cli("views", "a.db", "--json", *options).json
    return {f"{one['name']} {one['version']}": one for one in found["views"]}


@pytest.fixture
def mine(ran: Folder) -> Folder:
    """The same, with a file of views."""
    shutil.copy(ROOT / "examples" / "view_tools.py", ran / "mine.py")
    return ran


# --- views ---


def test_all_views_are_listed_with_how_far_they_are(ran: Folder) -> None:
    head = cli("head", "a.db", "--json").json["position"]
    found = cli("views", "a.db", "--json").json
    assert found["head"] == head
    assert [one["name"] for one in found["views"]] == [*NAMES, "search"]
    assert {one["status"] for one in found["views"]} == {"inline", "not stored"}
    cli("rebuild", "a.db")
    cost = listed()["costs 2"]
    assert cost == {
        "name": "costs",
        "version": 2,
        "known": True,
        "status": "complete",
        "rows": 2,
        "position": head,
        "behind": 0,
        "shown": True,
        "kinds": ["inference_metered"],
        "stopped_by": None,
    }
    ran.run(BAD)
    later = cli("head", "a.db", "--json").json["position"]
    assert (listed()["costs 2"]["position"], listed()["costs 2"]["behind"]) == (head, later - head)
    assert "inference_metered" in cli("views", "a.db").stdout


def test_views_of_a_file_and_of_others_are_told_apart(mine: Folder) -> None:
    assert listed("--views", "mine.py")["tools 1"]["status"] == "not stored"
    cli("rebuild", "a.db", "--views", "mine.py")
    assert listed("--views", "mine.py")["tools 1"]["known"]
    other = listed()["tools 1"]
    assert (other["known"], other["kinds"], other["status"]) == (False, None, "complete")
    assert (other["shown"], other["rows"]) == (True, 2)
    shown = cli("views", "a.db").stdout
    assert "not known here" in shown
    assert "--views FILE.py" in shown


def test_versions_of_others_are_shown_as_they_stand(ran: Folder) -> None:
    cli("rebuild", "a.db", "--view", "costs")
    run_sql(
        ran / "a.db",
        "CREATE TABLE view_costs_v3 (agent); INSERT INTO view_costs_v3 VALUES ('x');"
        "INSERT INTO view_positions VALUES ('costs', 3, 5), ('costs', 4, 4), ('gone', 1, 9);"
        "CREATE TABLE view_costs_v4_building (agent);"
        'DROP VIEW costs; CREATE VIEW costs AS SELECT r.agent FROM "view_costs_v3" AS r;',
    )
    found = listed()
    assert (found["costs 2"]["status"], found["costs 2"]["shown"]) == ("complete", False)
    assert (found["costs 3"]["status"], found["costs 3"]["shown"]) == ("complete", True)
    assert (found["costs 3"]["rows"], found["costs 3"]["position"]) == (1, 5)
    assert (found["costs 4"]["status"], found["costs 4"]["shown"]) == ("building", False)
    assert (found["gone 1"]["status"], found["gone 1"]["rows"]) == ("not stored", None)


def test_a_damaged_view_is_told_with_what_to_do(ran: Folder) -> None:
    cli("rebuild", "a.db")
    run_sql(ran / "a.db", "DROP VIEW costs; ALTER TABLE view_costs_v2 DROP COLUMN calls;")
    run_sql(ran / "a.db", "UPDATE view_positions SET position = 999 WHERE name = 'runs'")
    found = listed()
    assert (found["costs 2"]["status"], found["runs 2"]["status"]) == ("damaged", "damaged")
    shown = cli("views", "a.db").stdout
    assert "carstore rebuild a.db --view costs" in shown
    assert "carstore rebuild a.db --view runs" in shown


def test_an_event_of_a_newer_carstore_stops_views_and_it_is_told_what_to_do(ran: Folder) -> None:
    cli("rebuild", "a.db", "--view", "costs")
    unknown = append_unknown(ran / "a.db")
    found = {one["name"]: one for one in cli("views", "a.db", "--json").json["views"]}
    for name in (*NAMES[2:], "leases"):
        stop = {"position": unknown, "kind": "of_the_future", "schema_version": 1}
        assert found[name]["stopped_by"] == (None if name == "leases" else stop)
    shown = cli("views", "a.db")
    assert shown.code == 0
    assert f"Stopped before event {unknown}: state, runs" in shown.stdout
    assert "newer carstore" in shown.stdout
    for command in (("view", "runs"), ("runs",), ("costs",)):
        done = cli(command[0], "a.db", *command[1:], "--json")
        assert (done.code, done.json["error"]["code"]) == (2, "unknown_event"), command
        assert f"event {unknown}" in done.json["error"]["message"]
    assert cli("view", "a.db", "runs", "--at", str(unknown - 1), "--json").code == 0
    assert ran.run(plan(call("d", "double", n=1))).code == 0, "runs go on"
    codes = [one["code"] for one in cli("verify", "a.db", "--json").json["problems"]]
    assert "unknown_event" in codes


# --- view ---


def test_the_rows_of_a_view_as_json_csv_and_table(ran: Folder) -> None:
    found = cli("view", "a.db", "costs", "--json").json
    assert found == [
        {
            "agent": "helper",
            "currency": "USD",
            "calls": 1,
            "tokens_in": 1,
            "tokens_out": 0,
            "cost_micros": 1,
        },
        {
            "agent": "planner",
            "currency": "USD",
            "calls": 1,
            "tokens_in": 7,
            "tokens_out": 1,
            "cost_micros": 70,
        },
    ]
    text = cli("view", "a.db", "costs", "--csv").stdout
    assert text.splitlines()[0] == "agent,currency,calls,tokens_in,tokens_out,cost_micros"
    assert text.splitlines()[2] == "planner,USD,1,7,1,70"
    assert "planner" in cli("view", "a.db", "costs").stdout
    assert cli("view", "a.db", "doubts").stdout == "No rows in view doubts.\n"
    assert cli("view", "a.db", "doubts", "--json").json == []
    assert cli("view", "a.db", "doubts", "--csv").stdout.count("\n") == 1


def test_csv_holds_exactly_what_the_rows_hold(folder: Folder) -> None:
    nasty = 'a,"b"\r\n\x1b[31m ü'
    folder.run(plan({"id": "w", "type": "state_write", "parameters": {"key": "k", "value": nasty}}))
    done = cli("view", "a.db", "state", "--csv")
    [_, row] = csv.reader(io.StringIO(done.stdout, newline=""))
    assert json.loads(row[2]) == nasty


def test_every_view_can_be_read_now_and_as_of_a_position(mine: Folder) -> None:
    head = cli("head", "a.db", "--json").json["position"]
    for name in (*NAMES, "tools"):
        options = ("--views", "mine.py", "--json")
        now = cli("view", "a.db", name, *options).json
        assert cli("view", "a.db", name, "--at", str(head), *options).json == now
        assert cli("view", "a.db", name, "--at", "0", *options).json == []
        done = cli("view", "a.db", name, "--at", str(head + 1), *options)
        assert (done.code, done.json["error"]["code"]) == (2, "not_found")


def test_rows_are_chosen_by_their_values(ran: Folder) -> None:
    ran.run(BAD, "--run-id", "bad")

    def chosen(name: str, *options: str) -> list[dict[str, Any]]:
        return list(cli("view", "a.db", name, "--json", *options).json)

    assert [one["run_id"] for one in chosen("runs", "--where", "status=failed")] == ["bad"]
    everything = chosen("actions")
    once = chosen("actions", "--where", "run_id=first", "--where", "attempts=1")
    assert once == [one for one in everything if one["run_id"] == "first" and one["attempts"] == 1]
    assert chosen("actions", "--where", "tool=") == [
        one for one in everything if one["tool"] is None
    ]
    assert chosen("actions", "--where", "rolled_back=False") == [
        one for one in everything if not one["rolled_back"]
    ]
    assert chosen("actions", "--where", "rolled_back=true") == []
    assert chosen("actions", "--limit", "2") == everything[:2]
    head = cli("head", "a.db", "--json").json["position"]
    then = chosen("runs", "--where", "run_id=bad", "--at", str(head - 3))
    assert [one["status"] for one in then] == ["running"]
    limited = cli("view", "a.db", "actions", "--limit", "2").stdout.splitlines()
    assert limited[3:] == [f"... and {len(everything) - 2} more"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("status", "write COLUMN=VALUE"),
        ("stat=x", 'did you mean "status"?'),
        ("zzz=x", "it has run_id, proposal_id"),
        ("actions=x", "an integer of 64 bits"),
        (f"actions={2**63}", "an integer of 64 bits"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(ran: Folder, where: str, words: str) -> None:
    done = cli("view", "a.db", "runs", "--where", where, "--json")
    assert (done.code, done.json["error"]["path"]) == (2, "--where")
    assert words in done.json["error"]["message"]


def test_other_bad_input_is_refused(ran: Folder) -> None:
    done = cli("view", "a.db", "actoins", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert 'Did you mean "actions"?' in done.json["error"]["message"]
    assert cli("view", "a.db", "runs", "--json", "--csv").code == 2
    twice = ("--where", "status=a", "--where", "status=b")
    assert cli("view", "a.db", "runs", *twice).code == 2
    done = cli("view", "a.db", "actions", "--where", "rolled_back=maybe")
    assert "true or false" in done.stderr


def test_what_a_file_of_views_prints_does_not_spoil_the_output(mine: Folder) -> None:
    with open(mine / "mine.py", "a", encoding="utf-8") as file:
        file.write("\nprint('hello from the file')\n")
    done = cli("view", "a.db", "tools", "--views", "mine.py", "--json")
    assert len(done.json) == 2
    assert "hello" in done.stderr


def test_a_view_that_raises_is_told_with_its_line(mine: Folder) -> None:
    text = (mine / "mine.py").read_text(encoding="utf-8")
    (mine / "mine.py").write_text(text.replace("use.calls + 1", "use.calls / 0"), encoding="utf-8")
    done = cli("view", "a.db", "tools", "--views", "mine.py", "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "view_failed")
    line = next(n for n, text in enumerate(text.splitlines(), 1) if "after = changed(" in text)
    message = done.json["error"]["message"]
    assert "ZeroDivisionError" in message
    assert any(f"mine.py, line {n})" in message for n in (line, line + 2))
    assert cli("verify", "a.db", "--views", "mine.py").code == 0, "nothing of it is stored"


def test_a_view_that_ends_the_program_does_not_pass_for_a_good_one(mine: Folder) -> None:
    text = (mine / "mine.py").read_text(encoding="utf-8")
    ending = text.replace("use.calls + 1", "sys.exit(0)")
    (mine / "mine.py").write_text(f"import sys\n{ending}", encoding="utf-8")
    for command in ("view", "rebuild"):
        name = ("tools",) if command == "view" else ("--view", "tools")
        done = cli(command, "a.db", *name, "--views", "mine.py", "--json")
        assert (done.code, done.json["error"]["code"]) == (1, "view_failed")
        assert "SystemExit: 0" in done.json["error"]["message"]
    (mine / "mine.py").write_text(text, encoding="utf-8")
    assert cli("rebuild", "a.db", "--view", "tools", "--views", "mine.py").code == 0
    (mine / "mine.py").write_text(f"import sys\n{ending}", encoding="utf-8")
    done = cli("verify", "a.db", "--views", "mine.py", "--json")
    assert (done.code, [one["code"] for one in done.json["problems"]]) == (1, ["view_failed"])


@pytest.mark.parametrize("command", ["views", "view", "rebuild", "verify"])
def test_a_file_of_views_that_cannot_be_used_is_refused(ran: Folder, command: str) -> None:
    name = ("costs",) if command == "view" else ()
    done = cli(command, "a.db", *name, "--views", "no.py", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    (ran / "bad.py").write_text("x = 1\n\nraise RuntimeError('no')\n")
    done = cli(command, "a.db", *name, "--views", "bad.py", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "invalid_view")
    assert done.json["error"]["path"] == "bad.py"
    assert "line 3: RuntimeError: no" in done.json["error"]["message"]
