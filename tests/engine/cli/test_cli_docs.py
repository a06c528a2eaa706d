"""`docs/cli.md` says what the commands are, and nothing else."""

import json
import re
from typing import Any

import click
import pytest

from engine.cli import errors
from engine.cli.app import app
from engine.cli.exits import Exit
from tests.docs.markdown import DOCS
from tests.engine.cli.harness import GOOD, Folder, call, cli, plan, shape

TEXT = (DOCS / "cli.md").read_text(encoding="utf-8")

SECTIONS = {
    found[1]: found[2] for found in re.finditer(r"(?ms)^### carstore (\w+)\n(.*?)(?=^##|\Z)", TEXT)
}

CONTEXT = click.Context(app)


def options_of(command: click.Command) -> set[str]:
    return {
        max(option.opts, key=len) for option in command.params if isinstance(option, click.Option)
    }


def test_each_command_has_a_section_and_each_section_a_command() -> None:
    assert set(SECTIONS) == set(app.list_commands(CONTEXT))


@pytest.mark.parametrize("name", app.list_commands(CONTEXT))
def test_each_option_is_documented_and_nothing_else_is(name: str) -> None:
    command = app.get_command(CONTEXT, name)
    assert command is not None
    rows = re.findall(r"(?m)^\| `(--[a-z-]+)", SECTIONS[name])
    assert sorted(rows) == sorted(options_of(command))
    choices = {
        max(option.opts, key=len): option.type.choices
        for option in command.params
        if isinstance(option, click.Option) and isinstance(option.type, click.Choice)
    }
    for option, values in choices.items():
        listed = "\\|".join(values)
        assert f"`{option} {listed}`" in SECTIONS[name]


@pytest.mark.parametrize("name", app.list_commands(CONTEXT))
def test_the_usage_names_the_arguments(name: str) -> None:
    command = app.get_command(CONTEXT, name)
    assert command is not None
    usage = next(line for line in SECTIONS[name].splitlines() if line.startswith("    carstore"))
    for argument in command.params:
        if isinstance(argument, click.Argument):
            assert argument.metavar or argument.name
            assert (argument.metavar or f"[{str(argument.name).upper()}]") in usage


def test_the_exit_codes_are_those_of_the_program() -> None:
    section = TEXT.split("### Exit codes")[1].split("###")[0]
    assert {int(code) for code in re.findall(r"(?m)^\| (\d+) ", section)} == set(map(int, Exit))


def test_the_error_codes_are_those_of_the_program() -> None:
    section = TEXT.split("### Errors")[1].split("###")[0]
    found = dict(re.findall(r"(?m)^\| `(\w+)` \| (\d+) ", section))
    expected = dict.fromkeys(errors.BAD_INPUT, "2") | dict.fromkeys(errors.FAILED, "1")
    assert found == {**expected, "interrupted": "130"}


def documented(name: str) -> Any:
    [block] = re.findall(r"(?s)```json\n(.*?)```", SECTIONS[name])
    return shape(json.loads(block))


def test_documents_have_the_documented_shape(folder: Folder) -> None:
    late = plan(call("w", "wait", path="began", seconds=0.3, _timeout_ms=50))
    result = folder.run(GOOD, "--json", "--run-id", "first").json
    example = documented("run")
    for one in (result, example):  # these three are empty, or have any keys
        one["not_undone"] = one["conflicts"] = one["results"][0]["state_changes"] = None
    assert shape(result) == shape(example)
    undone = folder.run(plan(call("p", "spend", amount=1), call("f", "boom", "p")), "--json").json
    assert shape(undone)["not_undone"] == documented("run")["not_undone"]
    assert folder.run(late, "--run-id", "late").code == 3
    for name, *rest in (
        ("runs",),
        ("doubts",),
        ("why", "spent"),
        ("costs",),
        ("head",),
        ("rebuild",),
        ("views",),
        ("view", "costs"),
    ):
        assert shape(cli(name, "a.db", *rest, "--json").json) == documented(name), name
    kept = "99999:" + "0" * 64
    assert shape(cli("verify", "a.db", "--head", kept, "--json").json) == documented("verify")
    line = cli("log", "a.db", "--kind", "state_changed", "--limit", "1", "--json")
    assert shape(line.json) == documented("log")
    answer = cli("resolve", "a.db", "late", "w", "--retry", "--json")
    assert shape(answer.json) == documented("resolve")
    assert shape(cli("new", "hello", "--json").json) == documented("new")
    assert shape(cli("version", "--json").json) == documented("version")
