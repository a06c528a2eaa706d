"""`carstore new`."""

import shlex
from pathlib import Path

import pytest

from tests.engine.cli.harness import Folder, cli


@pytest.mark.parametrize("name", ["hello", "my folder/it's new"])
def test_what_is_made_runs_as_printed(folder: Folder, name: str) -> None:
    done = cli("new", name)
    assert done.code == 0
    commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("  carstore")]
    assert len(commands) == 3
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "carstore"
        ended = cli(*words)
        assert ended.code == 0, ended
    assert "your text has 6 words" in ended.stdout


def test_the_rules_that_are_made_judge_the_plan_that_is_made(folder: Folder) -> None:
    cli("new", "hello")
    words = ("run", "a.db", "hello/plan.json", "--tools", "hello/tools.py", "--policies")
    assert cli(*words, "hello/policies.toml").code == 0
    text = (folder / "hello" / "plan.json").read_text()
    (folder / "hello" / "plan.json").write_text(text.replace('"world"', '"nobody"'))
    assert cli(*words, "hello/policies.toml").code == 1
    [violation] = cli("log", "a.db", "--kind", "policy_violation", "--json").stdout.splitlines()
    assert "allow_tool_param:write_greeting[name]" in violation


def test_the_files_and_commands_are_told_as_json(folder: Folder) -> None:
    done = cli("new", "hello", "--json").json
    assert done["folder"] == "hello"
    assert all(Path(name).is_file() for name in done["files"])
    assert len(done["commands"]) == 3


def test_an_empty_folder_is_used(folder: Folder) -> None:
    (folder / "there").mkdir()
    assert cli("new", "there").code == 0


def test_a_folder_with_something_in_it_is_refused(folder: Folder) -> None:
    (folder / "there").mkdir()
    (folder / "there" / "mine.txt").write_text("x")
    done = cli("new", "there", "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "usage")
    assert [path.name for path in (folder / "there").iterdir()] == ["mine.txt"]


def test_a_file_in_its_place_is_refused(folder: Folder) -> None:
    (folder / "there").write_text("x")
    for name in ("there", "there/deeper"):
        assert cli("new", name, "--json").code == 2
    assert (folder / "there").read_text() == "x"
