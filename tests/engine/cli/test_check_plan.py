"""`carstore check`."""

import json
import re
from pathlib import Path
from typing import Any

from tests.docs.markdown import DOCS
from tests.engine.cli.harness import GOOD, Done, Folder, call, cli, plan, process, shape, write


def checked(folder: Folder, content: Any, *options: str) -> Done:
    return cli("check", folder.plan(content), "--tools", "tools.py", *options)


def codes(done: Done) -> list[str]:
    return [issue["code"] for issue in done.json["issues"] if issue["severity"] == "error"]


def assuming(**fields: Any) -> dict[str, Any]:
    return plan({**write("a", "m", 1), "assumptions": [{"key": "n", **fields}]})


def test_a_plan_that_can_be_run_is_valid(folder: Folder) -> None:
    done = checked(folder, GOOD, "--json")
    assert done.code == 0
    assert done.json["valid"] is True
    assert done.json["levels"] == [["set"], ["get"], ["twice"], ["pay"]]
    assert done.json["conflicts"] == []
    assert list(folder.path.glob("*.db")) == []


def test_a_plan_with_an_error_is_not(folder: Folder) -> None:
    done = checked(folder, plan(call("a", "duble", n=1), call("b", "double", n="x")), "--json")
    assert done.code == 1
    assert done.json["valid"] is False
    assert codes(done) == ["unknown_tool", "bad_parameters"]
    assert set(done.json["issues"][0]) == {"action_id", "severity", "code", "message", "derived"}


def test_a_plan_that_cannot_be_read_is_refused_as_by_run(folder: Folder) -> None:
    for content in ({"actions": [{"id": "a"}]}, {"action": []}, 7):
        name = folder.plan(content)
        ran = cli("run", "a.db", name, "--tools", "tools.py", "--json")
        assert cli("check", name, "--json") == ran
        assert ran.code == 2
    assert cli("check", "missing.json", "--json").json["error"]["code"] == "not_found"
    assert cli("check", folder.plan(GOOD), "--at", "3").code == 2
    assert cli("check", folder.plan(GOOD), "--db", "missing.db").code == 2
    assert not (folder / "missing.db").exists()


def test_a_plan_comes_from_standard_input(folder: Folder) -> None:
    given = Path(folder.plan(GOOD)).read_bytes()
    assert cli("check", "-", "--json", stdin=given).json["valid"] is True


def test_the_state_of_a_database_is_what_the_plan_meets(ran: Folder) -> None:
    reader = plan({"id": "a", "type": "assertion", "parameters": {"key": "n", "expected": 20}})
    assert checked(ran, reader, "--db", "a.db", "--json").code == 0
    before = checked(ran, reader, "--db", "a.db", "--at", "1", "--json")
    assert (before.code, codes(before)) == (1, ["assertion_fails"])
    other = checked(ran, reader, "--db", "a.db", "--scope", "other", "--json")
    assert codes(other) == ["assertion_fails"]
    assert checked(ran, reader, "--json").code == 0  # nothing is known of the state
    assert cli("check", ran.plan(reader), "--db", "a.db", "--at", "99999").code == 2
    left = checked(ran, plan(write("w", "n", 1)), "--db", "a.db", "--json").json["simulated_state"]
    assert left["n"] == {"exists": True, "value": 1, "why": "w writes as 1"}
    assert left["spent"] == {"exists": True, "value": 7, "why": "is 7 in the given state"}


def test_assumptions_are_compared_with_the_positions_of_the_database(ran: Folder) -> None:
    position = cli("why", "a.db", "n", "--json").json[0]["position"]
    right = assuming(expected_value=20, read_version=position)
    assert checked(ran, right, "--db", "a.db").code == 0
    for wrong in (assuming(read_version=position - 1), assuming(expected_value=1)):
        done = checked(ran, wrong, "--db", "a.db", "--json")
        assert (done.code, codes(done)) == (1, ["stale_assumption"])
        assert [one["kind"] for one in done.json["conflicts"]] == ["stale"]


def test_the_version_of_a_deleted_key_is_that_of_its_deletion(folder: Folder) -> None:
    (folder / "tools.py").write_text(
        "from engine import ToolContext, tool\n"
        "@tool\ndef drop(ctx: ToolContext) -> None:\n    ctx.delete('n')\n"
    )
    assert folder.run(plan(write("w", "n", 1), call("d", "drop", "w"))).code == 0
    position = cli("why", "a.db", "n", "--json").json[0]["position"]
    assert checked(folder, assuming(read_version=position), "--db", "a.db").code == 0
    assert checked(folder, assuming(read_version=0), "--db", "a.db").code == 1


def test_other_plans_can_be_in_the_way(folder: Folder) -> None:
    other = folder.plan(plan(write("o", "n", 1)), "other.json")
    done = checked(folder, GOOD, "--with", other, "--json")
    assert done.code == 1
    assert [(one["kind"], one["key"]) for one in done.json["conflicts"]] == [
        ("write_write", "n"),
        ("read_write", "n"),
    ]
    assert done.json["issues"] == checked(folder, GOOD, "--json").json["issues"]


def test_policies_and_permissions_are_asked(folder: Folder) -> None:
    (folder / "rules.toml").write_text('deny_tool = ["spend"]\n')
    (folder / "may.toml").write_text('denied_tools = ["double"]\n')
    assert codes(checked(folder, GOOD, "--policies", "rules.toml", "--json")) == ["policy_denied"]
    denied = checked(folder, GOOD, "--permissions", "may.toml", "--json")
    assert codes(denied) == ["capability_denied"]
    (folder / "rules.toml").write_text("deny_tools = 1\n")
    assert checked(folder, GOOD, "--policies", "rules.toml").code == 2


def test_people_are_told_issues_levels_and_state(folder: Folder) -> None:
    bad = plan(write("set", "n", 20), call("b", "double", "set", n="x"))
    done = checked(folder, bad)
    assert done.code == 1
    assert "bad_parameters" in done.stdout
    assert "level 2 of 2" in done.stdout
    assert "set writes as 20" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("not ok: 1 errors")
    assert "\x1b" not in process("check", str(folder / "plan.json")).stdout


def test_what_a_plan_says_cannot_act_on_a_terminal(folder: Folder) -> None:
    done = checked(folder, plan(write("w", "n", "\x1b[31m"), call("b", "double", n="\x1b[2J")))
    assert "\x1b" not in done.stdout


def test_a_sensitive_value_is_not_shown(folder: Folder) -> None:
    (folder / "tools.py").write_text(
        "from engine import ToolContext, tool\n"
        "@tool(sensitive=['output'])\ndef key() -> str:\n    return 'hunter2hunter2'\n"
    )
    kept = plan(call("k", "key"), write("w", "secret", "$k.output"))
    assert folder.run(kept).code == 0
    asks = {"id": "a", "type": "assertion", "parameters": {"key": "secret", "expected": "no"}}
    done = checked(folder, plan(asks), "--db", "a.db", "--json")
    assert "hunter2" not in done.stdout
    assert done.code == 0
    [issue] = done.json["issues"]
    assert issue["code"] == "may_fail"


def test_the_document_has_the_documented_shape(folder: Folder) -> None:
    section = (DOCS / "cli.md").read_text(encoding="utf-8").split("### carstore check\n")[1]
    [example] = re.findall(r"(?s)```json\n(.*?)```", section.split("\n### ")[0])
    other = folder.plan(plan(write("o", "n", 1)), "other.json")
    bad = plan(write("set", "n", 20), call("pay", "spent", "set", amount=1))
    done = checked(folder, bad, "--with", other, "--json")
    assert shape(done.json) == shape(json.loads(example))
