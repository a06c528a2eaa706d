"""The commands as a whole: help, version, completion, and how errors become exit codes."""

import subprocess
import sys

import click
import pytest

from engine.cli import errors
from engine.cli.app import COMMANDS, app
from engine.cli.exits import Exit, of_status, worst
from engine.ir import RunStatus
from tests.docs.test_errors_doc import classes as all_errors
from tests.engine.cli.harness import Folder, cli, environment, process


def test_each_command_is_there_and_says_what_it_does() -> None:
    context = click.Context(app)
    for name in app.list_commands(context):
        command = app.get_command(context, name)
        assert isinstance(command, click.Command)
        assert command.name == name
        assert command.get_short_help_str(), name
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (name, option.name)


def test_help_lists_all_commands(folder: Folder) -> None:
    done = cli("--help")
    assert done.code == 0
    for name, place in COMMANDS.items():
        assert name in done.stdout
        assert place.summary in done.stdout


def test_help_of_a_command(folder: Folder) -> None:
    for name in COMMANDS:
        assert f"carstore {name}" in cli(name, "--help").stdout


def test_help_imports_neither_rich_nor_sqlite_utils() -> None:
    code = (
        "import sys; sys.argv = ['carstore', '--help']\n"
        "from engine.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('rich', 'sqlite_utils') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("arguments", [("zzz",), ("--zzz",), ("runs",), ("runs", "a", "b")])
def test_bad_usage_ends_with_2(folder: Folder, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    done = cli(*arguments, "--json")
    assert (done.code, done.stderr) == (2, "")
    assert done.json["error"]["code"] == "usage"


def test_a_missing_argument_is_named(folder: Folder) -> None:
    assert cli("runs", "--json").json["error"]["path"] == "DB"


def test_version(folder: Folder) -> None:
    found = cli("version", "--json").json
    assert list(found) == ["carstore", "schema", "python", "sqlite"]
    assert cli("version").stdout.startswith(f"carstore {found['carstore']} (schema ")


@pytest.mark.parametrize("module", ["engine", "engine.cli"])
def test_it_can_be_called_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "version"],
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"carstore ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_this_program(shell: str) -> None:
    done = process("completion", shell)
    assert done.code == 0
    assert "_CARSTORE_COMPLETE" in done.stdout


def test_completion_knows_commands_and_options() -> None:
    def complete(words: str, place: int) -> list[str]:
        asked = {"_CARSTORE_COMPLETE": "bash_complete", "COMP_WORDS": words}
        done = process(**asked, COMP_CWORD=str(place))
        assert done.code == 0
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("carstore re", 1) == [name for name in COMMANDS if name.startswith("re")]
    assert {"resume", "resolve", "reject"} <= set(complete("carstore re", 1))
    assert "--on-doubt" in complete("carstore run a.db p.json --on", 4)
    assert complete("carstore run a.db p.json --on-doubt h", 5) == ["hold"]


def test_an_unknown_shell_is_refused(folder: Folder) -> None:
    assert cli("completion", "tcsh").code == 2


# --- errors ---


def test_each_error_has_one_exit_code() -> None:
    codes = {one.code for one in all_errors()}
    assert not errors.BAD_INPUT & errors.FAILED
    assert codes - {"interrupted"} == (errors.BAD_INPUT | errors.FAILED) - {"internal"}


def test_a_fault_of_ours_is_not_swallowed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise ZeroDivisionError("\x1b[31m")

    monkeypatch.setattr("engine.cli.runs.reading", broken)
    done = cli("runs", "a.db", "--json")
    assert (done.code, done.json["error"]["code"]) == (1, "internal")
    assert "Traceback" in done.stderr
    done = cli("runs", "a.db")
    assert (done.code, done.stdout) == (1, "")
    assert "ZeroDivisionError" in done.stderr
    assert "\x1b" not in done.stderr


def test_where_an_error_arose_is_shown_on_request(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Traceback" not in cli("runs", "no.db").stderr
    monkeypatch.setenv("CARSTORE_DEBUG", "1")
    assert "Traceback" in cli("runs", "no.db").stderr


def test_every_status_has_an_exit_code() -> None:
    codes = {status: of_status(status) for status in RunStatus}
    assert [status for status in codes if codes[status] == Exit.DONE] == [RunStatus.SUCCEEDED]
    assert [status for status in codes if codes[status] == Exit.WAITING] == [RunStatus.WAITING]
    assert worst([Exit.DONE, Exit.WAITING, Exit.FAILED]) == Exit.FAILED
    assert worst([Exit.DONE, Exit.WAITING]) == Exit.WAITING
    assert worst([]) == Exit.DONE
