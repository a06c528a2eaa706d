"""What runs may do: rules, permissions, budgets and deadlines on the command line."""

import json
import shlex
import subprocess
import sys
import time
from typing import Any

import pytest

from engine.cli import terms
from engine.policy_file import NEEDS_RE2
from engine.rules.money import micros_of
from tests.engine.cli.harness import (
    ROOT,
    Done,
    Folder,
    call,
    cli,
    command,
    environment,
    plan,
    wait_for,
    write,
)

TWO = plan(call("a", "double", n=1), call("b", "double", "a", n=2))
PAY = plan(call("pay", "spend", amount=7), call("more", "spend", "pay", amount=7))
"""Two payments of 71 micros each."""

WAIT = {"id": "wait", "tool": "wait_signal", "parameters": {"name": "go"}}

FROZEN = """
from engine.policies import policy

@policy(version={version})
def frozen(judged):
    if judged.action.tool == "double":
        return "it is frozen"
"""


def events(kind: str, db: str = "a.db") -> list[dict[str, Any]]:
    """The data of all events of one kind."""
    lines = cli("log", db, "--kind", kind, "--json").stdout.splitlines()
    return [json.loads(line)["data"] for line in lines]


def statuses(done: Done) -> dict[str, str]:
    return {one["action_id"]: one["status"] for one in done.json["results"]}


def errors(done: Done) -> dict[str, str]:
    return {one["action_id"]: one["error"] for one in done.json["results"]}


# --- rules ---


def test_a_rule_of_a_file_rejects_what_it_forbids(folder: Folder) -> None:
    (folder / "rules.toml").write_text('deny_tool = ["double"]\n')
    done = folder.run(TWO, "--policies", "rules.toml", "--json")
    assert done.code == 1
    assert statuses(done) == {"a": "rejected", "b": "skipped"}
    assert "deny_tool:double" in errors(done)["a"]
    [violation] = events("policy_violation")
    assert violation["policy"] == "deny_tool:double"


def test_rules_of_several_files_all_judge(folder: Folder) -> None:
    (folder / "one.toml").write_text('deny_tool = ["double"]\n')
    (folder / "two.toml").write_text('deny_tool = ["double", "spend"]\n')
    content = plan(call("a", "double", n=1), call("b", "spend", amount=1), write("c", "k", 1))
    done = folder.run(content, "--policies", "one.toml", "--policies", "two.toml", "--json")
    assert statuses(done) == {"a": "rejected", "b": "rejected", "c": "succeeded"}
    in_force = [one["policy"] for one in cli("rules", "a.db", "--json").json]
    assert sorted(in_force) == ["deny_tool:double", "deny_tool:spend"]


def test_every_policy_of_a_python_file_judges(folder: Folder) -> None:
    second = (
        '\n@policy\ndef small(judged):\n    return "too large" if judged.parameters else None\n'
    )
    (folder / "rules.py").write_text(FROZEN.format(version=1) + second)
    done = folder.run(TWO, "--policies", "rules.py", "--json")
    assert done.code == 1
    assert errors(done)["a"] == "policy 'frozen': it is frozen; policy 'small': too large"


def test_permissions_say_what_may_be_used(folder: Folder) -> None:
    (folder / "agent.json").write_text('{"allowed_tools": ["double"]}')
    done = folder.run(plan(call("a", "double", n=1), call("b", "spend", amount=1)),
                      "--permissions", "agent.json", "--json")  # fmt: skip
    assert done.code == 1
    assert statuses(done) == {"a": "succeeded", "b": "rejected"}
    assert errors(done)["b"] == "capability denied: tool 'spend' not allowed"


def held(folder: Folder, *options: str) -> None:
    """`a.db` with the run `w`, which waits for the signal `go` before it calls `double`."""
    content = plan(WAIT, call("a", "double", "wait", n=1))
    assert folder.run(content, "--run-id", "w", *options).code == 3
    assert cli("signal", "a.db", "w", "go", "1").code == 0


def test_recorded_rules_bind_a_resume_that_does_not_name_them(folder: Folder) -> None:
    (folder / "rules.toml").write_text('deny_tool = ["double"]\n')
    held(folder, "--policies", "rules.toml")
    (folder / "rules.toml").unlink()
    done = cli("resume", "a.db", "w", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 1
    assert [one["status"] for one in done.json[0]["results"]] == ["succeeded", "rejected"]


def test_recorded_permissions_bind_a_resume(folder: Folder) -> None:
    (folder / "agent.toml").write_text('denied_tools = ["double"]\n')
    held(folder, "--permissions", "agent.toml")
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert (done.code, done.json[0]["results"][1]["status"]) == (1, "rejected")


@pytest.mark.parametrize("runs", [("w",), ()])
@pytest.mark.parametrize("given", ["missing", "changed"])
def test_a_rule_in_python_has_to_be_given_again(
    folder: Folder, runs: tuple[str, ...], given: str
) -> None:
    (folder / "rules.py").write_text(FROZEN.format(version=1))
    held(folder, "--policies", "rules.py")
    (folder / "other.py").write_text(FROZEN.format(version=2))
    options = ("--policies", "other.py") if given == "changed" else ()
    head = cli("head", "a.db").stdout
    done = cli("resume", "a.db", *runs, "--tools", "tools.py", *options, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "policies_changed")
    assert "frozen" in done.json["error"]["message"]
    assert cli("head", "a.db").stdout == head
    if runs:
        assert "run w " in done.json["error"]["message"]
    done = cli("resume", "a.db", *runs, "--tools", "tools.py", "--policies", "rules.py", "--json")
    assert done.code == 1
    assert done.json[0]["results"][1]["error"] == "policy 'frozen': it is frozen"


def test_a_resume_refuses_rules_that_it_would_not_hear(folder: Folder) -> None:
    held(folder)
    (folder / "rules.toml").write_text('deny_tool = ["double"]\n')
    done = cli("resume", "a.db", "--tools", "tools.py", "--policies", "rules.toml", "--json")
    assert (done.code, done.json["error"]["path"]) == (2, "--policies")


def test_the_command_that_goes_on_names_what_is_code(folder: Folder) -> None:
    (folder / "rules.py").write_text(FROZEN.format(version=1))
    (folder / "rules.toml").write_text('deny_tool = ["boom"]\n')
    rules = ("--policies", "rules.toml", "--policies", "rules.py")
    done = cli("run", "a.db", folder.plan(TWO), "--tools", "tools.py", "--run-id", "x", *rules)
    first = done.stderr.splitlines()[0]
    assert first.endswith("carstore resume a.db x --tools tools.py --policies rules.py")


def test_what_is_named_again_is_quoted_for_a_shell() -> None:
    given = terms.Given("my tools.py", ("a.py", "b.toml"), ("npx server",))
    assert given.resume_command("a.db") == (
        "carstore resume a.db --tools 'my tools.py' --mcp 'npx server' --policies a.py"
    )


# --- MCP servers ---


def test_a_run_goes_on_with_the_mcp_servers_that_are_named_again(folder: Folder) -> None:
    pytest.importorskip("mcp", reason="the extra mcp is not installed")
    server = shlex.join([sys.executable, str(ROOT / "tests/engine/mcp/mcp_server.py"), "stdio"])
    content = plan(WAIT, call("sum", "calc/add", "wait", a=1, b=2))
    name = folder.plan(content)
    done = cli("run", "a.db", name, "--mcp", f"calc={server}", "--run-id", "m")
    assert done.code == 3
    assert f"--mcp {shlex.quote(f'calc={server}')}" in done.stderr.splitlines()[0]
    cli("signal", "a.db", "m", "go", "1")
    without = cli("resume", "a.db", "m", "--json")
    assert (without.code, without.json["error"]["code"]) == (2, "tools_changed")
    done = cli("resume", "a.db", "m", "--mcp", f"calc={server}", "--json", "--quiet")
    assert done.code == 0
    assert done.json[0]["results"][1]["output"]["total"] == 3


def test_a_server_that_cannot_be_named_so_is_refused(folder: Folder) -> None:
    assert refused(folder, "--mcp", "'open")["path"] == "--mcp"


# --- consent ---


def test_a_call_that_asks_for_consent_is_made_once_somebody_has_given_it(folder: Folder) -> None:
    (folder / "rules.toml").write_text('[[require_approval]]\ntool = "spend"\nreason = "money"\n')
    content = plan(call("pay", "spend", amount=7), call("after", "double", "pay", n=2))
    done = folder.run(content, "--run-id", "r", "--policies", "rules.toml", "--json")
    assert (done.code, done.json["waits_for"]) == (3, "approval")
    assert cli("state", "a.db", "--json").json == {}
    resume = ("resume", "a.db", "r", "--tools", "tools.py", "--json", "--quiet")
    assert cli(*resume).code == 3
    [asked] = cli("approvals", "a.db", "--json").json
    assert (asked["action_id"], asked["parameters"]) == ("pay", {"amount": 7})
    assert cli("approve", "a.db", "r", "pay", "--by", "ann").code == 0
    done = cli(*resume)
    assert done.code == 0
    assert [one["output"] for one in done.json[0]["results"]] == ["paid", 4]
    assert cli("state", "a.db", "--json").json == {"spent": 7}


def test_a_call_that_is_refused_is_rejected_with_the_reason(folder: Folder) -> None:
    (folder / "rules.toml").write_text('[[require_approval]]\ntool = "spend"\n')
    folder.run(PAY, "--run-id", "r", "--policies", "rules.toml")
    assert cli("reject", "a.db", "r", "pay", "--by", "ann", "--reason", "no money").code == 0
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 1
    assert done.json[0]["results"][0]["error"] == "refused by ann: no money"


# --- budgets ---


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--max-actions", "max_actions: 1 of 1 used"),
        ("--max-tool-calls", "max_tool_calls: 1 of 1 used"),
    ],
)
def test_a_run_that_has_used_up_its_budget_stops_and_says_so(
    folder: Folder, option: str, reason: str
) -> None:
    done = folder.run(TWO, option, "1", "--json", "--run-id", "x")
    assert (done.code, done.json["status"]) == (1, "failed")
    assert done.json["stopped"] == f"budget: {reason}"
    assert statuses(done) == {"a": "succeeded", "b": "skipped"}
    assert errors(done)["b"] == "cost budget exceeded"


def test_a_budget_of_time_counts_the_actions_and_no_wait(folder: Folder) -> None:
    content = plan(call("a", "nap", ms=60), call("b", "double", "a", n=1))
    done = folder.run(content, "--max-duration-ms", "50", "--json")
    assert done.code == 1
    assert statuses(done) == {"a": "succeeded", "b": "skipped"}
    assert done.json["stopped"].startswith("budget: max_duration_ms: ")
    assert folder.run(TWO, "--max-duration-ms", "60000").code == 0


def test_nothing_is_called_with_a_budget_of_no_calls(folder: Folder) -> None:
    content = plan(write("w", "k", 1), call("a", "spend", "w", amount=1))
    done = folder.run(content, "--max-tool-calls", "0", "--json")
    assert statuses(done) == {"w": "succeeded", "a": "skipped"}
    assert cli("state", "a.db", "--json").json == {"k": 1}


def test_what_is_spent_beyond_the_budget_stops_the_next_call(folder: Folder) -> None:
    done = folder.run(PAY, "--budget", "USD:0.00005", "--budget", "EUR:1", "--json")
    assert done.code == 1
    assert statuses(done) == {"pay": "succeeded", "more": "skipped"}
    assert done.json["stopped"].startswith("budget: ")
    assert "USD" in done.json["stopped"]
    [set_] = events("budget_set")
    assert set_["limits"] == {"USD": micros_of("0.00005"), "EUR": 1_000_000}


def test_a_budget_that_suffices_changes_nothing(folder: Folder) -> None:
    assert folder.run(PAY, "--budget", "USD:5.00").code == 0


def test_runs_draw_on_a_shared_budget_until_it_is_used_up(folder: Folder) -> None:
    folder.run(plan(write("w", "k", 1)))
    assert cli("budget", "a.db", "team", "--limit", "USD:0.0001").code == 0
    assert folder.run(PAY, "--draw-on", "team", "--json").code == 0  # it overspends, in the end
    done = folder.run(PAY, "--draw-on", "team", "--budget", "USD:5", "--json")
    assert (done.code, statuses(done)["pay"]) == (1, "skipped")
    assert "team" in done.json["stopped"]


def test_a_budget_binds_a_resume(folder: Folder) -> None:
    held(folder, "--max-actions", "1")
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 1
    assert done.json[0]["stopped"] == "budget: max_actions: 1 of 1 used"


# --- time ---


def test_after_its_timeout_a_run_begins_nothing_more(folder: Folder) -> None:
    content = plan(call("a", "nap", ms=60_000), call("b", "double", "a", n=1))
    began = time.monotonic()
    done = folder.run(content, "--timeout", "0.2", "--json")
    assert time.monotonic() - began < 20
    assert (done.code, done.json["status"]) == (1, "failed")
    assert done.json["stopped"].startswith("deadline: ")
    assert statuses(done)["b"] == "skipped"


def test_a_deadline_goes_on_while_nobody_drives_the_run(folder: Folder) -> None:
    content = plan(WAIT, call("a", "double", "wait", n=1))
    assert folder.run(content, "--run-id", "w", "--timeout", "0.3").code == 3
    time.sleep(0.4)
    done = cli("resume", "a.db", "--tools", "tools.py", "--json", "--quiet")
    assert (done.code, done.json[0]["status"]) == (1, "failed")
    assert done.json[0]["stopped"].startswith("deadline: ")


# --- cancel ---


def running(folder: Folder, content: Any, *options: str) -> "subprocess.Popen[bytes]":
    words = command("run", "a.db", folder.plan(content), "--tools", "tools.py", *options)
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=folder.path
    )


def test_a_run_in_a_slow_call_hears_another_process_that_cancels_it(folder: Folder) -> None:
    content = plan(
        write("w", "k", 1),
        call("slow", "wait", "w", path="began"),
        call("b", "double", "slow", n=1),
    )
    started = running(folder, content, "--run-id", "x", "--json", "--quiet")
    try:
        wait_for(folder / "began")
        assert cli("cancel", "a.db", "x", "--by", "ann", "--reason", "wrong customer").code == 0
        out, err = started.communicate(timeout=30)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 1, err
    result = json.loads(out)
    assert result["status"] == "cancelled"
    assert result["stopped"] == "cancelled: wrong customer"
    found = {one["action_id"]: one["status"] for one in result["results"]}
    assert found == {"w": "succeeded", "slow": "failed", "b": "skipped"}
    assert [one["action_id"] for one in result["not_undone"]] == ["slow"]
    assert cli("resume", "a.db", "x", "--json").json == [result]
    assert cli("state", "a.db", "--json").json == {"k": 1}


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_run_that_died_in_a_call_and_is_to_stop_ends_with_its_next_resume(
    folder: Folder, how: str
) -> None:
    content = plan(call("slow", "wait", path="began"), call("b", "double", "slow", n=1))
    options = ("--timeout", "2") if how == "deadline" else ()
    died = running(folder, content, "--run-id", "x", "--quiet", *options)
    wait_for(folder / "began")
    died.kill()
    died.communicate()
    if how == "cancelled":
        assert cli("cancel", "a.db", "x").code == 0
    else:
        time.sleep(2)
    done = cli("resume", "a.db", "x", "--tools", "tools.py", "--json", "--quiet")
    assert done.code == 1
    [result] = done.json
    assert result["stopped"].startswith(how)
    assert [one["status"] for one in result["results"]] == ["failed", "skipped"]
    assert [one["action_id"] for one in result["not_undone"]] == ["slow"]


# --- input that cannot be used ---


def refused(folder: Folder, *options: str) -> dict[str, str]:
    """The error of a run that must not have been recorded, or a file made for it."""
    name = folder.plan(TWO)
    done = cli("run", "a.db", name, "--tools", "tools.py", *options, "--json")
    assert done.code == 2, done
    assert not (folder / "a.db").exists()
    for_people = cli("run", "a.db", name, "--tools", "tools.py", *options)
    assert (for_people.code, for_people.stdout) == (2, "")
    error: dict[str, str] = done.json["error"]
    return error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "5.00"), "UNIT:AMOUNT"),
        (("--budget", "USD:"), "UNIT:AMOUNT"),
        (("--budget", ":5"), "UNIT:AMOUNT"),
        (("--budget", "USD:five"), "'five' is no amount"),
        (("--budget", "USD:-1"), "'-1' is no amount"),
        (("--budget", "USD:nan"), "'nan' is no amount"),
        (("--budget", "USD:1e30"), "'1e30' is no amount"),
        (("--budget", "US D:1"), "unit"),
        (("--budget", "USD:1", "--budget", "EUR:1", "--budget", "USD:1"), "'USD' is limited twice"),
        (("--draw-on", "a b"), "a b"),
        (("--max-actions", "-1"), "-1"),
        (("--max-tool-calls", "many"), "many"),
        (("--max-duration-ms", "1.5"), "1.5"),
        (("--timeout", "0"), "0"),
        (("--timeout", "-1"), "-1"),
        (("--timeout", "nan"), "nan"),
        (("--timeout", "inf"), "inf"),
        (("--timeout", "2592001"), "2,592,000 seconds"),
    ],
)
def test_bad_amounts_and_times_are_refused(
    folder: Folder, options: tuple[str, ...], said: str
) -> None:
    error = refused(folder, *options)
    assert (error["code"], error["path"]) == ("usage", options[-2])
    assert said in error["message"]


@pytest.mark.parametrize(
    ("option", "name", "text", "place"),
    [
        ("--policies", "a.toml", "deny_tool = [", ""),
        ("--policies", "a.toml", 'deny_tol = ["x"]', ""),
        ("--policies", "a.toml", "deny_tool = [1]", "deny_tool[0]"),
        ("--policies", "a.toml", "[[require_approval]]\nreason = 'x'", "require_approval[0]"),
        ("--policies", "a.py", "1 +", ""),
        ("--policies", "a.py", "raise SystemExit(3)", ""),
        ("--policies", "a.py", "x = 1", ""),
        ("--permissions", "a.json", "{", ""),
        ("--permissions", "a.json", '{"allowed_tool": []}', ""),
        ("--permissions", "a.toml", "max_actions = -1", "max_actions"),
    ],
)
def test_a_file_with_a_slip_is_refused_with_the_place(
    folder: Folder, option: str, name: str, text: str, place: str
) -> None:
    (folder / name).write_text(text)
    error = refused(folder, option, name)
    assert (error["code"], error["path"]) == ("invalid_policy", place or name)
    assert error["message"].startswith(name)


@pytest.mark.parametrize("option", ["--policies", "--permissions"])
@pytest.mark.parametrize("name", ["no.toml", "no.py"])
def test_a_missing_file_is_refused(folder: Folder, option: str, name: str) -> None:
    error = refused(folder, option, name)
    assert (error["code"], error["path"]) == ("not_found", name)


def test_a_pattern_without_re2_is_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    rule = '[[deny_tool_param_matching]]\ntool = "double"\nparam = "n"\nmatches = "1"\n'
    (folder / "a.toml").write_text(rule)
    assert NEEDS_RE2 in refused(folder, "--policies", "a.toml")["message"]


def test_two_files_that_contradict_each_other_are_refused(folder: Folder) -> None:
    for name, secs in (("a.toml", 60), ("b.toml", 90)):
        rule = f'[[require_approval]]\ntool = "double"\nexpires_secs = {secs}\n'
        (folder / name).write_text(rule)
    error = refused(folder, "--policies", "a.toml", "--policies", "b.toml")
    assert (error["code"], error["path"]) == ("invalid_policy", "b.toml")
    assert "'require_approval:double' than a.toml" in error["message"]
    assert folder.run(TWO, "--policies", "a.toml", "--policies", "a.toml").code == 3


def test_rules_in_python_cannot_take_the_place_of_permissions(folder: Folder) -> None:
    rule = "from engine.policies import policy\n@policy(name='capabilities')\ndef any(_): ...\n"
    (folder / "a.py").write_text(rule)
    (folder / "agent.json").write_text('{"denied_tools": ["double"]}')
    error = refused(folder, "--policies", "a.py", "--permissions", "agent.json")
    assert (error["code"], error["path"]) == ("invalid_policy", "a.py")


def test_a_budget_to_draw_on_has_to_be_there(folder: Folder) -> None:
    assert refused(folder, "--draw-on", "team")["code"] == "not_found"
    folder.run(plan(write("w", "k", 1)))
    head = cli("head", "a.db").stdout
    done = folder.run(TWO, "--draw-on", "team", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert cli("head", "a.db").stdout == head


def test_a_budget_that_is_missing_leaves_no_rules_behind(folder: Folder) -> None:
    folder.run(plan(write("w", "k", 1)))
    (folder / "rules.toml").write_text('deny_tool = ["double"]\n')
    head = cli("head", "a.db").stdout
    done = folder.run(TWO, "--draw-on", "team", "--policies", "rules.toml", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "not_found")
    assert cli("head", "a.db").stdout == head
