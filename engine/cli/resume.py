"""`carstore resume`: continue what has not finished."""

import asyncio
from collections.abc import Sequence

import click

from carstore import Store, connect
from carstore.names import Json, RunId
from engine.cli.errors import Interrupted
from engine.cli.exits import Exit, of_status, worst
from engine.cli.options import command_line, database, json_option, tools
from engine.cli.progress import Watcher, watcher
from engine.cli.redirect import tools_print_to_stderr
from engine.cli.result import next_step, resume_command, show_result, tell_next
from engine.cli.run import STOP_HINT, interruption
from engine.cli.screen import print_json, say, write
from engine.cli.stopping import run_stoppable
from engine.errors import RunOwned
from engine.ir import RunResult
from engine.journal import load_run
from engine.propose import check_run_id, check_tools
from engine.runtime import Runtime
from engine.tools import Tools, load_tools

__all__ = ["resume"]


@click.command()
@database
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@tools
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def resume(
    database: str, runs: tuple[str, ...], tools: str | None, as_json: bool, quiet: bool
) -> int:
    """Continue the RUNs named, or all that have not finished.

    Nothing that is recorded as done is done again. The tools must be those the runs were begun
    with; they are always named again, never loaded from a path found in the file.
    """
    names = [check_run_id(run) for run in dict.fromkeys(runs)]
    with tools_print_to_stderr():
        table = load_tools(tools) if tools is not None else Tools()
        outcomes = run_stoppable(
            _resume(database, names, tools, table, watcher(quiet=quiet)), STOP_HINT
        )
    if len(outcomes) == 1 and isinstance(outcomes[0], RunOwned):
        raise outcomes[0]
    if as_json:
        print_json([_json(outcome) for outcome in outcomes])
    else:
        _show(database, outcomes)
    if not (as_json and quiet):
        _tell_next(database, outcomes, as_json=as_json)
    return worst([_exit(outcome) for outcome in outcomes])


async def _resume(
    path: str,
    names: Sequence[RunId],
    tools: str | None,
    table: Tools,
    watching: Watcher,
) -> list[RunResult | RunOwned]:
    async with connect(path, create=False, instance="carstore resume") as store:
        runtime = Runtime(store, table)
        try:
            async with watching:
                if not names:
                    return await runtime.recover(observe=watching.observe)
                return await _resume_named(store, runtime, names, watching)
        except asyncio.CancelledError:
            if len(names) == 1:
                command = resume_command(path, names[0], tools)
                raise await interruption(store, names[0], command) from None
            given = ("--tools", tools) if tools else ()
            stopped = Interrupted(None, "interrupted; what has not finished can go on")
            stopped.add_note(f"Next: {command_line('resume', path, *names, *given)}")
            raise stopped from None


async def _resume_named(
    store: Store, runtime: Runtime, names: Sequence[RunId], watching: Watcher
) -> list[RunResult | RunOwned]:
    """Continue some runs at once; none of them if one cannot go on with these tools."""
    for name in names:
        found = await load_run(store, name)
        if found.completed is None:
            check_tools(found, runtime.tools)

    async def one(name: RunId) -> RunResult | RunOwned:
        try:
            return await runtime.resume(name, observe=watching.observe)
        except RunOwned as owned:
            return owned

    outcomes = await asyncio.gather(*[one(name) for name in names], return_exceptions=True)
    done: list[RunResult | RunOwned] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome  # only now, so that the other runs were not left in the middle
        done.append(outcome)
    return done


def _exit(outcome: RunResult | RunOwned) -> Exit:
    return Exit.FAILED if isinstance(outcome, RunOwned) else of_status(outcome.status)


def _json(outcome: RunResult | RunOwned) -> Json:
    if isinstance(outcome, RunOwned):
        error = {"code": outcome.code, "path": outcome.where, "message": outcome.message}
        return {"error": error}
    return outcome.to_dict()


def _show(database: str, outcomes: Sequence[RunResult | RunOwned]) -> None:
    if not outcomes:
        write("Nothing to resume: every run has finished.")
    for number, outcome in enumerate(outcomes):
        if number:
            write("")
        if isinstance(outcome, RunOwned):
            write(outcome.message)
        else:
            show_result(database, outcome)


def _tell_next(database: str, outcomes: Sequence[RunResult | RunOwned], *, as_json: bool) -> None:
    if as_json and not outcomes:
        say("Nothing to resume: every run has finished.")
    commands = [next_step(database, one) for one in outcomes if isinstance(one, RunResult)]
    for command in dict.fromkeys(commands):
        tell_next(command, as_json=as_json)
