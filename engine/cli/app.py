"""The commands by name. Listing them imports none, so help and completion are quick.

Whatever a command raises ends here, and becomes a message and an exit code.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

__all__ = ["COMMANDS", "PROGRAM", "app"]

PROGRAM = "carstore"

COMPLETE_VARIABLE = "_CARSTORE_COMPLETE"
"""The environment variable in which the scripts of `carstore completion` ask."""


class Place(NamedTuple):
    """Where a command is defined, and the line that `--help` shows of it."""

    module: str
    name: str
    summary: str


COMMANDS = {
    "run": Place("engine.cli.run", "run", "Run a plan."),
    "resume": Place("engine.cli.resume", "resume", "Continue runs that have not finished."),
    "runs": Place("engine.cli.runs", "runs", "List all runs."),
    "show": Place("engine.cli.show", "show", "Show a run: its plan as a tree, and what it cost."),
    "log": Place("engine.cli.log", "log", "Print events, in order."),
    "search": Place("engine.cli.search", "search", "Find events by the words in them."),
    "state": Place("engine.cli.state", "state", "Print the state, now or as of a position."),
    "costs": Place("engine.cli.costs", "costs", "Print what each agent has spent."),
    "budgets": Place("engine.cli.budgets", "budgets", "List what each budget has left."),
    "budget": Place("engine.cli.budgets", "budget", "Set the limits of a budget."),
    "why": Place("engine.cli.state", "why", "Tell who set a state key, when, and in which run."),
    "views": Place("engine.cli.views", "views", "List the views, and how far each is behind."),
    "view": Place("engine.cli.views", "view", "Print the rows of any view."),
    "doubts": Place("engine.cli.doubts", "doubts", "List calls of which nobody knows the outcome."),
    "resolve": Place("engine.cli.doubts", "resolve", "Say what became of a call in doubt."),
    "approvals": Place("engine.cli.approvals", "approvals", "List calls that wait for consent."),
    "approve": Place("engine.cli.approvals", "approve", "Consent to a call."),
    "reject": Place("engine.cli.approvals", "reject", "Refuse a call."),
    "waits": Place("engine.cli.signals", "waits", "List what waits for a time or a signal."),
    "signal": Place("engine.cli.signals", "signal", "Send a run a value that it waits for."),
    "cancel": Place("engine.cli.signals", "cancel", "Ask a run to stop."),
    "pursuits": Place("engine.cli.pursuits", "pursuits", "List the goals that were pursued."),
    "rules": Place("engine.cli.rules", "rules", "List the rules in force, and who brought them."),
    "check": Place("engine.cli.check_plan", "check", "Check a plan before it runs."),
    "verify": Place("engine.cli.check", "verify", "Check the whole file."),
    "rebuild": Place("engine.cli.rebuild", "rebuild", "Make views anew from the log."),
    "doctor": Place("engine.cli.doctor", "doctor", "Look at the file and its surroundings."),
    "salvage": Place("engine.cli.salvage", "salvage", "Copy what is proven of a damaged file."),
    "head": Place("engine.cli.head", "head", "Print position and hash of the newest event."),
    "blobs": Place("engine.cli.blobs", "blobs", "List the values that are kept beside the log."),
    "forget": Place("engine.cli.blobs", "forget", "Delete a value for good, and record that."),
    "backup": Place("engine.cli.copies", "backup", "Copy a database while it is in use."),
    "restore": Place("engine.cli.copies", "restore", "Make a database from a backup."),
    "fork": Place("engine.cli.copies", "fork", "Make a database as of a position."),
    "export": Place("engine.cli.copies", "export", "Write a database as lines of JSON."),
    "import": Place("engine.cli.copies", "import_", "Make a database from such lines."),
    "demo": Place("engine.demo.command", "demo", "Watch a large plan be killed and go on."),
    "prove": Place(
        "engine.cli.prove", "prove", "Try to break every promise, and tell the figures."
    ),
    "new": Place("engine.cli.new", "new", "Make a folder with a plan and tools to begin with."),
    "completion": Place("engine.cli.about", "completion", "Print a script that completes words."),
    "version": Place("engine.cli.about", "version", "Print the version."),
}


class Application(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command: click.Command = getattr(import_module(place.module), place.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in COMMANDS.items()])

    def main(  # type: ignore[override] # the original returns, or not, by `standalone_mode`
        self, args: Sequence[str] | None = None, **extra: Any
    ) -> NoReturn:
        """Run one command and exit with its code."""
        given = list(sys.argv[1:] if args is None else args)
        settings = {
            **extra,
            "prog_name": PROGRAM,
            "complete_var": COMPLETE_VARIABLE,
            "standalone_mode": False,
        }
        try:
            code = super().main(given, **settings)
        except Exception as error:  # noqa: BLE001 - the one place where every error is told
            from engine.cli.errors import report

            code = report(error, as_json="--json" in given)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Application, context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Run plans of AI agents so that a crash is only a pause, and ask what happened.

    Everything is kept in one SQLite file, DB. Only run, demo and new make files; all other
    commands need one that is there.

    Exit codes: 0 done, 1 the work failed or a check found a fault, 2 bad usage or input, 3 waiting
    for a person, 130 interrupted.
    """
