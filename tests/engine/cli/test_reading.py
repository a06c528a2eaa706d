"""The commands that ask: `runs`, `show`, `log`, `state`, `costs`, `why`, `head`."""

import json
import re
from typing import Any

import pytest

from tests.engine.cli.harness import BAD, ROLLED_BACK, Folder, call, cli, plan, write
from tests.engine.cli.test_approvals import put
from tests.projections.plausible import append_unknown, completed, metered, received

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")

HELPER = {"agent": "helper", "currency": "USD"}
PLANNER = {"agent": "planner", "currency": "USD"}

READING = [
    ("runs",),
    ("show", "first"),
    ("log",),
    ("state",),
    ("costs",),
    ("why", "n"),
    ("doubts",),
    ("verify",),
    ("head",),
]


def asked(command: tuple[str, ...], *options: str, db: str = "a.db") -> tuple[str, ...]:
    return (command[0], db, *command[1:], *options)


@pytest.mark.parametrize(
    "command",
    [*READING, ("resume",), ("resume", "first"), ("rebuild",), ("resolve", "r", "a", "--retry")],
    ids=" ".join,
)
def test_a_missing_file_is_told_and_not_made(folder: Folder, command: tuple[str, ...]) -> None:
    done = cli(*asked(command, "--json", db="no.db"))
    assert done.code == 2
    assert done.json["error"]["code"] == "not_found"
    assert done.json["error"]["path"] == "no.db"
    done = cli(*asked(command, db="no.db"))
    assert (done.code, done.stdout) == (2, "")
    assert "no.db" in done.stderr
    assert [path.name for path in folder.path.iterdir()] == ["tools.py"]


@pytest.mark.parametrize("command", READING, ids=" ".join)
@pytest.mark.parametrize("content", [b"", b"text" * 1000], ids=["empty", "text"])
def test_another_file_is_told_and_left_alone(
    folder: Folder, command: tuple[str, ...], content: bytes
) -> None:
    (folder / "a.db").write_bytes(content)
    done = cli(*asked(command, "--json"))
    assert (done.code, done.json["error"]["code"]) == (2, "not_a_database")
    assert (folder / "a.db").read_bytes() == content


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_asking_changes_nothing(ran: Folder, command: tuple[str, ...]) -> None:
    before = (ran / "a.db").read_bytes()
    for options in ((), ("--json",)):
        done = cli(*asked(command, *options))
        assert (done.code, done.stderr) == (0, "")
        assert done.stdout
    assert (ran / "a.db").read_bytes() == before


def test_runs_are_listed_oldest_first(ran: Folder) -> None:
    ran.run(BAD, "--run-id", "second")
    first, second = cli("runs", "a.db", "--json").json
    assert list(first) == [
        "run_id",
        "proposal_id",
        "source",
        "status",
        "started_at",
        "ended_at",
    ]
    assert (first["run_id"], first["status"], first["source"]) == ("first", "succeeded", "planner")
    assert (second["run_id"], second["status"]) == ("second", "failed")
    assert TIME.match(first["started_at"])
    assert TIME.match(first["ended_at"])
    assert "second" in cli("runs", "a.db").stdout


def test_show_prints_what_run_printed(folder: Folder) -> None:
    for name, content in (("bad", BAD), ("back", ROLLED_BACK)):
        done = folder.run(content, "--run-id", name, "--json")
        assert cli("show", "a.db", name, "--json").json == done.json


def test_show_is_a_tree_with_costs_attempts_and_errors(ran: Folder) -> None:
    shown = cli("show", "a.db", "first").stdout
    assert "level 3 of 4" in shown
    assert "8+1 tokens $0.000071" in shown
    assert "after twice" in shown
    ran.run(BAD, "--run-id", "bad")
    shown = cli("show", "a.db", "bad").stdout
    assert "2 attempts" in shown
    assert "ValueError: no" in shown
    ran.run(ROLLED_BACK, "--run-id", "back")
    shown = cli("show", "a.db", "back").stdout
    assert "rolled_back" in shown
    assert "undone" in shown


def test_show_sums_up_what_is_plain_in_a_large_plan(folder: Folder) -> None:
    folder.run(plan(*[write(f"w{n}", f"k{n}", n) for n in range(150)]), "--run-id", "x")
    shown = cli("show", "a.db", "x").stdout
    assert "and 50 more succeeded" in shown
    assert "w149" not in shown
    assert "w149" in cli("show", "a.db", "x", "--all").stdout


@pytest.mark.parametrize(("run", "code"), [("zzz", "not_found"), ("a/b", "invalid_run_id")])
def test_show_of_no_run_is_refused(ran: Folder, run: str, code: str) -> None:
    done = cli("show", "a.db", run, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, code)


def events(*options: str) -> list[dict[str, Any]]:
    done = cli("log", "a.db", "--json", *options)
    assert done.code == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_log_is_one_object_a_line(ran: Folder) -> None:
    found = events()
    assert [one["position"] for one in found] == list(range(1, len(found) + 1))
    for one in found:
        assert list(one) == [
            "position",
            "stream",
            "version",
            "kind",
            "schema_version",
            "recorded_at",
            "run_id",
            "scope",
            "key",
            "data",
            "hash",
        ]
        assert TIME.match(one["recorded_at"])
        assert isinstance(one["data"], dict)
    assert cli("head", "a.db").stdout == f"{found[-1]['position']} {found[-1]['hash']}\n"


def test_the_log_can_be_narrowed(ran: Folder) -> None:
    everything = events()
    ran.run(BAD, "--run-id", "other")
    assert [one for one in events() if one["run_id"] == "other"] == events("--run", "other")
    assert {one["run_id"] for one in events("--run", "first")} == {"first"}
    assert {one["kind"] for one in events("--kind", "state_changed")} == {"state_changed"}
    two = events("--kind", "state_changed", "--kind", "inference_metered")
    assert {one["kind"] for one in two} == {"state_changed", "inference_metered"}
    assert events("--after", "3", "--limit", "2") == everything[3:5]
    assert events("--after", "1000000") == []
    assert events("--after", "3", "--at", "5") == everything[3:5]
    streams = {one["stream"] for one in everything}
    for stream in streams:
        assert events("--stream", stream) == [one for one in events() if one["stream"] == stream]


def test_the_agent_of_an_event_is_the_source_but_of_a_metering_the_metered(ran: Folder) -> None:
    other = plan(call("pay", "spend", amount=1), source="other")
    ran.run(other, "--run-id", "second")
    found = events("--agent", "planner")
    assert {one["run_id"] for one in found} == {"first"}
    assert {one["data"]["agent"] for one in found if one["kind"] == "inference_metered"} == {
        "planner"
    }
    helpers = events("--agent", "helper")
    assert [(one["kind"], one["run_id"]) for one in helpers] == [
        ("inference_metered", "first"),
        ("inference_metered", "second"),
    ]
    assert events("--agent", "nobody") == []


def test_a_kind_that_only_the_file_knows_is_found(ran: Folder) -> None:
    position = append_unknown(ran / "a.db")
    for command in (("log",), ("search", "future")):
        done = cli(command[0], "a.db", *command[1:], "--kind", "of_the_future", "--json")
        assert done.code == 0, command
        found = json.loads(done.stdout)
        assert (found[0] if isinstance(found, list) else found)["position"] == position
        done = cli(command[0], "a.db", *command[1:], "--kind", "of_the_futur", "--json")
        assert (done.code, done.json["error"]["path"]) == (2, "--kind")


@pytest.mark.parametrize(
    "command",
    [
        ("log", "--after"),
        ("log", "--at"),
        ("log", "--tail"),
        ("log", "--limit"),
        ("search", "x", "--limit"),
        ("search", "x", "--at"),
        ("view", "runs", "--limit"),
        ("view", "runs", "--at"),
        ("state", "--at"),
        ("head", "--at"),
    ],
    ids=" ".join,
)
def test_a_number_that_sqlite_cannot_hold_is_refused(ran: Folder, command: tuple[str, ...]) -> None:
    for number in (2**63, 99999999999999999999, -1):
        done = cli(*asked(command, str(number), "--json"))
        assert (done.code, done.json["error"]["code"]) == (2, "usage")
    done = cli(*asked(command, str(2**63 - 2), "--json"))
    assert done.code in (0, 2)
    assert done.code == 0 or done.json["error"]["code"] == "not_found"


def test_following_from_beyond_the_end_is_refused(ran: Folder) -> None:
    done = cli("log", "a.db", "--after", "9999", "--follow", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")


def test_a_kind_or_run_that_does_not_exist_is_refused(ran: Folder) -> None:
    done = cli("log", "a.db", "--kind", "state_change", "--json")
    assert done.code == 2
    assert 'did you mean "state_changed"?' in done.json["error"]["message"]
    done = cli("log", "a.db", "--run", "zzz", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")


@pytest.mark.parametrize(
    "options",
    [(), ("--kind", "state_changed"), ("--run", "first"), ("--agent", "planner"), ("--after", "3")],
)
@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_the_tail_is_the_end_of_the_rest(
    ran: Folder, options: tuple[str, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cli.log.LOOK_BACK_EVENTS", 3)
    found = events(*options)
    assert events(*options, "--tail", str(count)) == found[max(0, len(found) - count) :]
    until = [one for one in found if one["position"] <= 9]
    last = events(*options, "--tail", str(count), "--at", "9")
    assert last == until[max(0, len(until) - count) :]


def test_a_run_and_a_stream_at_once_are_refused(ran: Folder) -> None:
    done = cli("log", "a.db", "--run", "first", "--stream", "log", "--json")
    assert (done.code, done.json["error"]["path"]) == (2, "--stream")


def test_the_log_up_to_a_position_that_is_not_there_is_refused(ran: Folder) -> None:
    done = cli("log", "a.db", "--at", "100000", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")


def test_following_begins_with_what_is_there(ran: Folder) -> None:
    assert events("--follow", "--limit", "3") == events("--limit", "3")


@pytest.mark.parametrize(
    "options",
    [(), ("--kind", "state_changed"), ("--run", "first"), ("--stream", "run/first"),
     ("--agent", "planner"), ("--after", "3"), ("--tail", "4")],
)  # fmt: skip
def test_following_up_to_a_position_ends_there(ran: Folder, options: tuple[str, ...]) -> None:
    head = len(events())
    for at in (0, 5, head):
        bounds = ("--at", str(at))
        assert events(*options, *bounds, "--follow") == events(*options, *bounds)


def test_the_log_for_people_has_a_line_for_each_event(ran: Folder) -> None:
    assert len(cli("log", "a.db").stdout.splitlines()) == len(events())


def test_the_state_is_an_object(ran: Folder) -> None:
    assert cli("state", "a.db", "--json").json == {"n": 20, "spent": 7}
    assert cli("state", "a.db", "--scope", "other", "--json").json == {}
    assert "spent" in cli("state", "a.db").stdout
    assert cli("state", "a.db", "--scope", "other").stdout == "No keys in scope other.\n"


def test_the_state_as_of_a_position(ran: Folder) -> None:
    ran.run(plan(write("again", "n", [1, {"x": None}])))
    first, _, last = events("--kind", "state_changed")
    for at, expected in (
        (0, {}),
        (first["position"] - 1, {}),
        (first["position"], {"n": 20}),
        (last["position"] - 1, {"n": 20, "spent": 7}),
        (last["position"], {"n": [1, {"x": None}], "spent": 7}),
    ):
        assert cli("state", "a.db", "--at", str(at), "--json").json == expected


@pytest.mark.parametrize("command", ["state", "costs"])
def test_a_position_beyond_the_end_is_refused(ran: Folder, command: str) -> None:
    head = cli("head", "a.db", "--json").json["position"]
    assert cli(command, "a.db", "--at", str(head), "--json").code == 0
    done = cli(command, "a.db", "--at", str(head + 1), "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert f"The log ends at {head}." in done.json["error"]["message"]
    for wrong in ("-1", "x", "1.5"):
        done = cli(command, "a.db", "--at", wrong, "--json")
        assert (done.code, done.json["error"]["path"]) == (2, "--at")


def test_costs_are_added_up_by_agent(ran: Folder) -> None:
    assert cli("costs", "a.db", "--json").json == [
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
    assert cli("costs", "a.db", "--at", "1", "--json").json == []
    assert "$0.000071" in cli("costs", "a.db").stdout


def test_each_currency_has_a_row_and_a_total_of_its_own(ran: Folder) -> None:
    put(ran, metered("planner", cost_micros=1_500_000, currency="EUR"), run="late")
    put(ran, metered("critic", cost_micros=250_000, currency="EUR"), run="late")
    lines = [line.split() for line in cli("costs", "a.db").stdout.splitlines()[1:]]
    assert [(line[0], *line[4:]) for line in lines] == [
        ("critic", "0.25", "EUR"),
        ("helper", "$0.000001"),
        ("planner", "1.50", "EUR"),
        ("planner", "$0.000070"),
        ("all", "1.75", "EUR"),
        ("all", "$0.000071"),
    ]
    assert {one["currency"] for one in cli("costs", "a.db", "--json").json} == {"EUR", "USD"}


WAITING = [
    (call("nap", "sleep", seconds=3600), "waiting until it is time", "resume a.db w --tools "),
    (
        {**call("word", "wait_signal"), "parameters": {"name": "paid"}},
        "waiting for a signal",
        "signal a.db w paid JSON",
    ),
    (call("ask", "keep"), "waiting for a person", "approvals a.db"),
]


@pytest.mark.parametrize(("action", "words", "command"), WAITING, ids=["time", "signal", "consent"])
def test_what_waits_says_for_what_and_what_to_type(
    folder: Folder, action: dict[str, Any], words: str, command: str
) -> None:
    (folder / "rules.toml").write_text('[[require_approval]]\ntool = "keep"\n', encoding="utf-8")
    rules = ("--policies", "rules.toml")
    done = folder.run(plan(action), "--run-id", "w", *rules)
    assert done.code == 3
    shown = cli("show", "a.db", "w")
    for text in (done.stdout, shown.stdout):
        assert words in text
        assert f"Next: carstore {command}" in text
    if words.endswith("time"):
        assert "(from " in shown.stdout


def test_why_a_run_was_stopped_is_told(folder: Folder) -> None:
    done = folder.run(plan(call("d", "double", n=1)), "--run-id", "s", "--max-actions", "0")
    assert done.code == 1
    for text in (done.stdout, cli("show", "a.db", "s").stdout):
        assert "Stopped: budget: " in text


def test_what_comes_in_the_place_of_a_run_says_so(folder: Folder) -> None:
    put(folder, received("a", replans_left=1), completed("rolled_back"), run="old")
    [old] = cli("runs", "a.db", "--json").json
    assert old["replan"] == "pending"
    put(folder, received("a", replaces="old", pursuit="goal"), run="new")
    old, new = cli("runs", "a.db", "--json").json
    assert (old["replan"], new["replaces"], new["pursuit"]) == ("new", "old", "goal")
    assert "replaces" not in old
    shown = cli("show", "a.db", "new").stdout
    assert "in the place of run old" in shown
    assert "step of pursuit goal" in shown


def test_why_tells_each_change_newest_first(ran: Folder) -> None:
    ran.run(plan(write("again", "n", 21), source="other"), "--run-id", "second")
    newest, oldest = cli("why", "a.db", "n", "--json").json
    assert list(newest) == [
        "position",
        "value",
        "deleted",
        "run_id",
        "action_id",
        "agent",
        "recorded_at",
    ]
    assert (newest["value"], newest["run_id"], newest["action_id"]) == (21, "second", "again")
    assert (oldest["value"], oldest["run_id"], oldest["action_id"]) == (20, "first", "set")
    assert (newest["agent"], oldest["agent"]) == ("other", "planner")
    assert newest["position"] > oldest["position"]
    assert TIME.match(newest["recorded_at"])
    assert "second" in cli("why", "a.db", "n").stdout


def test_a_deletion_is_a_change(folder: Folder) -> None:
    content = plan(write("w", "k", 1), call("f", "boom", "w"))
    assert folder.run(content).code == 1
    newest, oldest = cli("why", "a.db", "k", "--json").json
    assert (newest["deleted"], newest["value"]) == (True, None)
    assert (oldest["deleted"], oldest["value"]) == (False, 1)


def test_a_key_that_was_never_set_has_no_history(ran: Folder) -> None:
    assert cli("why", "a.db", "zzz", "--json").json == []
    assert "Nobody has ever set zzz" in cli("why", "a.db", "zzz").stdout


def test_head_as_json(ran: Folder) -> None:
    position, digest = cli("head", "a.db").stdout.split()
    assert cli("head", "a.db", "--json").json == {"position": int(position), "hash": digest}
