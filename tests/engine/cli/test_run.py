"""`carstore run`."""

import json

import pytest

from tests.engine.cli.harness import BAD, GOOD, ROLLED_BACK, Folder, call, cli, plan, write


def test_a_plan_runs_and_its_result_has_the_documented_shape(folder: Folder) -> None:
    done = folder.run(GOOD, "--json", "--run-id", "first")
    assert done.code == 0
    result = done.json
    assert list(result) == [
        "run_id",
        "proposal_id",
        "status",
        "results",
        "not_undone",
        "conflicts",
        "cost",
    ]
    assert (result["run_id"], result["proposal_id"]) == ("first", "p1")
    assert result["status"] == "succeeded"
    assert [(one["action_id"], one["output"]) for one in result["results"]] == [
        ("set", "written: n"),
        ("get", 20),
        ("twice", 40),
        ("pay", "paid"),
    ]
    for one in result["results"]:
        assert list(one) == [
            "action_id",
            "status",
            "output",
            "error",
            "state_changes",
            "duration_ms",
            "attempts",
            "rolled_back",
            "timestamp",
        ]
    assert list(result["cost"]) == [
        "tool_calls",
        "actions_executed",
        "actions_rejected",
        "actions_skipped",
        "total_duration_ms",
        "retries",
    ]
    assert done.stderr == ""


def test_people_get_a_table_and_no_json(folder: Folder) -> None:
    done = folder.run(GOOD)
    assert done.code == 0
    assert "succeeded" in done.stdout
    assert "twice" in done.stdout
    assert "{" not in done.stdout


def test_each_call_is_a_new_run_of_the_same_plan(folder: Folder) -> None:
    runs = {folder.run(GOOD, "--json").json["run_id"] for _ in range(3)}
    assert len(runs) == 3
    assert {run["run_id"] for run in cli("runs", "a.db", "--json").json} == runs


def test_with_a_run_id_the_command_is_repeatable(folder: Folder) -> None:
    first = folder.run(GOOD, "--json", "--run-id", "x")
    head = cli("head", "a.db").stdout
    assert folder.run(GOOD, "--json", "--run-id", "x").json == first.json
    assert cli("head", "a.db").stdout == head


def test_a_run_id_of_another_plan_is_refused(folder: Folder) -> None:
    folder.run(GOOD, "--run-id", "x")
    done = folder.run(BAD, "--run-id", "x", "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "run_exists"


def test_a_plan_can_come_from_standard_input(folder: Folder) -> None:
    text = json.dumps(plan(write("w", "k", 1))).encode()
    done = cli("run", "a.db", "-", "--json", "--quiet", stdin=text)
    assert done.code == 0
    assert cli("state", "a.db", "--json").json == {"k": 1}


@pytest.mark.parametrize("schedule", ["levels", "eager"])
@pytest.mark.parametrize("durability", ["power", "crash"])
def test_schedule_and_durability_can_be_chosen(
    folder: Folder, schedule: str, durability: str
) -> None:
    options = ("--schedule", schedule, "--durability", durability, "--concurrency", "2")
    assert folder.run(GOOD, *options).code == 0
    [received] = cli("log", "a.db", "--kind", "proposal_received", "--json").stdout.splitlines()
    assert json.loads(received)["data"]["schedule"] == schedule
    assert json.loads(received)["data"]["concurrency"] == 2


def test_a_failed_run_ends_with_1_and_names_the_next_command(folder: Folder) -> None:
    done = folder.run(BAD, "--run-id", "b")
    assert done.code == 1
    assert "ValueError: no" in done.stdout
    assert done.stdout.endswith("Next: carstore show a.db b\n")


def test_a_rolled_back_run_ends_with_1(folder: Folder) -> None:
    done = folder.run(ROLLED_BACK, "--json")
    assert done.code == 1
    assert done.json["status"] == "rolled_back"
    assert done.json["results"][0]["rolled_back"]


def test_what_could_not_be_undone_is_told(folder: Folder) -> None:
    content = plan(call("pay", "spend", amount=1), call("f", "boom", "pay"))
    done = folder.run(content)
    assert done.code == 1
    assert "Not undone: pay" in done.stdout
    json_done = folder.run(content, "--json")
    assert [list(one) for one in json_done.json["not_undone"]] == [["action_id", "reason"]]


def test_a_waiting_run_ends_with_3_and_names_the_next_command(folder: Folder) -> None:
    late = plan(call("w", "wait", path="began", seconds=0.5, _timeout_ms=100))
    done = folder.run(late, "--run-id", "w")
    assert done.code == 3
    assert "Next: carstore doubts a.db" in done.stdout


def test_the_next_command_is_quoted_for_a_shell(folder: Folder) -> None:
    done = folder.run(BAD, "--run-id", "b", db="my files.db")
    assert "Next: carstore show 'my files.db' b" in done.stdout


def test_on_doubt_fail_makes_it_a_failure(folder: Folder) -> None:
    late = plan(call("w", "wait", path="began", seconds=0.5, _timeout_ms=100))
    assert folder.run(late, "--on-doubt", "fail").code == 1


def test_progress_is_told_line_by_line_unless_quiet(folder: Folder) -> None:
    name = folder.plan(GOOD)
    done = cli("run", "a.db", name, "--tools", "tools.py", "--run-id", "x")
    first, *lines = done.stderr.splitlines()
    assert first == "Run x. If it is stopped: carstore resume a.db x --tools tools.py"
    assert [line.split()[:2] for line in lines] == [
        [name, "succeeded"] for name in ("set", "get", "twice", "pay")
    ]


def test_how_to_go_on_is_not_said_of_a_file_that_cannot_be_opened(folder: Folder) -> None:
    (folder / "no.db").write_bytes(b"no database" * 1000)
    name = folder.plan(GOOD)
    for database in ("no.db", "missing/a.db"):
        done = cli("run", database, name, "--tools", "tools.py", "--run-id", "x")
        assert done.code == 2
        assert done.stderr.startswith("Error: ")
        assert "carstore resume" not in done.stderr


def test_a_large_plan_is_not_told_line_by_line(folder: Folder) -> None:
    many = plan(*[write(f"w{n}", f"k{n}", n) for n in range(500)])
    name = folder.plan(many)
    done = cli("run", "a.db", name)
    assert done.code == 0
    assert len(done.stderr.splitlines()) < 60
    assert "500 of 500 are settled" in done.stderr
    assert "500 succeeded" in done.stdout


def test_a_plan_without_tools_needs_none(folder: Folder) -> None:
    assert cli("run", "a.db", folder.plan(plan(write("w", "k", 1))), "--quiet").code == 0


def test_a_plan_that_only_waits_needs_none_either(folder: Folder) -> None:
    nap = {"id": "nap", "tool": "sleep", "parameters": {"seconds": 0.3}}
    name = folder.plan(plan(nap, write("w", "k", 1)))
    done = cli("run", "a.db", name, "--run-id", "n", "--json")
    assert (done.code, done.json["status"], done.json["waits_for"]) == (3, "waiting", "time")
    assert "Next: carstore " in done.stderr


def test_what_is_not_built_in_is_what_a_plan_lacks(folder: Folder) -> None:
    nap = {"id": "nap", "tool": "sleep", "parameters": {"seconds": 1}}
    error = refused(folder, "run", "a.db", folder.plan(plan(nap, call("d", "double", n=1))))
    assert (error["code"], error["path"]) == ("usage", "--tools")
    assert "calls double. Say" in error["message"]


# --- bad input: exit code 2, and no file is made ---


def refused(folder: Folder, *arguments: str, stdin: bytes | None = None) -> dict[str, str]:
    """The error of a command that must not have made a file."""
    before = sorted(folder.path.iterdir())
    done = cli(*arguments, "--json", stdin=stdin)
    assert done.code == 2, done
    assert sorted(folder.path.iterdir()) == before
    [(key, error)] = done.json.items()
    assert key == "error"
    assert list(error) == ["code", "path", "message"]
    for_people = cli(*arguments, stdin=stdin)
    assert (for_people.code, for_people.stdout) == (2, "")
    assert "Error: " in for_people.stderr
    found: dict[str, str] = error
    return found


def test_a_malformed_plan_is_refused_with_all_its_problems(folder: Folder) -> None:
    name = folder.plan({"actions": [{"id": 1, "tol": "x"}, {"type": "jump"}]})
    error = refused(folder, "run", "a.db", name)
    assert error["code"] == "invalid_proposal"
    assert error["path"].startswith("actions[0]")
    for said in ("actions[0].id", "actions[0].tol", "actions[1].type"):
        assert said in error["message"]


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":NaN}', b"\xff", b"[1]", b"[" * 100_000])
def test_what_is_no_plan_is_refused(folder: Folder, text: bytes) -> None:
    (folder / "plan.json").write_bytes(text)
    assert refused(folder, "run", "a.db", "plan.json")["code"] == "invalid_proposal"


def test_a_plan_that_is_too_large_is_refused(folder: Folder) -> None:
    (folder / "plan.json").write_bytes(b" " * (9 * 1024 * 1024))
    error = refused(folder, "run", "a.db", "plan.json")
    assert "are allowed" in error["message"]


def test_a_missing_plan_is_refused(folder: Folder) -> None:
    error = refused(folder, "run", "a.db", "nowhere.json")
    assert (error["code"], error["path"]) == ("not_found", "nowhere.json")


def test_a_folder_is_no_plan(folder: Folder) -> None:
    assert refused(folder, "run", "a.db", ".")["code"] == "usage"


def test_tools_that_are_missing_or_broken_are_refused(folder: Folder) -> None:
    name = folder.plan(GOOD)
    assert refused(folder, "run", "a.db", name, "--tools", "no.py")["code"] == "tools_not_found"
    (folder / "broken.py").write_text("1 +")
    assert refused(folder, "run", "a.db", name, "--tools", "broken.py")["code"] == "invalid_tool"
    (folder / "empty.py").write_text("x = 1\n")
    assert refused(folder, "run", "a.db", name, "--tools", "empty.py")["code"] == "invalid_tool"


def test_a_plan_that_calls_tools_needs_them(folder: Folder) -> None:
    error = refused(folder, "run", "a.db", folder.plan(GOOD))
    assert (error["code"], error["path"]) == ("usage", "--tools")
    assert "double, spend" in error["message"]


@pytest.mark.parametrize(
    ("options", "code", "path"),
    [
        (("--run-id", "a/b"), "invalid_run_id", "run_id"),
        (("--schedule", "random"), "usage", "--schedule"),
        (("--concurrency", "0"), "usage", "--concurrency"),
        (("--durability", "none"), "usage", "--durability"),
        (("--on-doubt", "maybe"), "usage", "--on-doubt"),
        (("--unknown",), "usage", "--unknown"),
    ],
)
def test_bad_options_are_refused(
    folder: Folder, options: tuple[str, ...], code: str, path: str
) -> None:
    name = folder.plan(GOOD)
    error = refused(folder, "run", "a.db", name, "--tools", "tools.py", *options)
    assert (error["code"], error["path"]) == (code, path)


def test_a_database_in_a_folder_that_does_not_exist_is_refused(folder: Folder) -> None:
    error = refused(folder, "run", "no/a.db", folder.plan(GOOD), "--tools", "tools.py")
    assert error["code"] == "not_found"


def test_a_file_of_something_else_is_refused_and_left_alone(folder: Folder) -> None:
    (folder / "a.db").write_text("something else, and long enough to look like a file" * 50)
    before = (folder / "a.db").read_bytes()
    error = refused(folder, "run", "a.db", folder.plan(GOOD), "--tools", "tools.py")
    assert error["code"] == "not_a_database"
    assert (folder / "a.db").read_bytes() == before
