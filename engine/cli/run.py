"""`carstore run`: run a plan."""

import asyncio
import sys
from typing import Any

import click
from attrs import field, frozen

from carstore import Store, connect
from carstore.errors import CarstoreError, NotFound
from carstore.names import RunId
from carstore.sqlite.database import Durability
from engine.cli.errors import BadUsage, Interrupted
from engine.cli.exits import of_status
from engine.cli.mcp_option import mcp_option, with_mcp_tools
from engine.cli.options import command_line, database, json_option, tools
from engine.cli.progress import Watcher, watcher
from engine.cli.redirect import tools_print_to_stderr
from engine.cli.result import next_step, show_result, tell_next
from engine.cli.screen import print_json, say
from engine.cli.stopping import run_stoppable
from engine.cli.terms import Given, Terms, read_terms, terms_options
from engine.ir import Proposal, RunResult
from engine.journal import load_run
from engine.plan_json import DEFAULT_LIMITS, parse_proposal
from engine.propose import check_run_id, new_run_id, tools_named
from engine.runtime import Runtime
from engine.tools import Tools, load_tools

__all__ = ["STOP_HINT", "interruption", "read_plan", "run"]

STOP_HINT = (
    "Stopping: nothing more is started, calls in flight are awaited for some seconds. "
    "Once more gives them up."
)


@click.command()
@database
@click.argument("plan", metavar="PLAN")
@tools
@mcp_option
@click.option("--run-id", metavar="ID", help="Name the run; repeated, the command goes on with it.")
@click.option(
    "--schedule",
    type=click.Choice(["levels", "eager"]),
    default="levels",
    show_default=True,
    help="Level by level, or each action as soon as what it needs is there.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=16,
    show_default=True,
    metavar="N",
    help="How many tools may be called at once.",
)
@click.option(
    "--durability",
    type=click.Choice(["power", "crash"]),
    default="power",
    show_default=True,
    help="What a recorded event survives: loss of power, or only the death of the process.",
)
@click.option(
    "--on-doubt",
    type=click.Choice(["hold", "fail", "retry"]),
    default="hold",
    show_default=True,
    help="What to do about a call whose outcome nobody knows: ask a person, or decide.",
)
@terms_options
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def run(
    database: str,
    plan: str,
    tools: str | None,
    mcp: tuple[str, ...],
    run_id: str | None,
    durability: Durability,
    as_json: bool,
    quiet: bool,
    schedule: str,
    concurrency: int,
    on_doubt: str,
    **terms: Any,
) -> int:
    """Run PLAN, a JSON file or - for standard input, and record all that happens in DB.

    DB is made if it does not exist. Each call begins a new run, unless --run-id names one: then the
    run is continued, or its recorded result printed.
    """
    name = new_run_id() if run_id is None else check_run_id(run_id)
    proposal = parse_proposal(read_plan(plan))
    given = Given(tools, terms["policies"], mcp)
    with tools_print_to_stderr():
        work = _Work(
            path=database,
            proposal=proposal,
            run_id=name,
            given=given,
            terms=read_terms(**terms),
            table=_tools(given, proposal),
            durability=durability,
            options={"schedule": schedule, "concurrency": concurrency, "on_doubt": on_doubt},
            watching=watcher(quiet=quiet),
            quiet=quiet,
        )
        result = run_stoppable(work.execute(), STOP_HINT)
    if as_json:
        print_json(result.to_dict())
    else:
        show_result(database, result)
    if not (as_json and quiet):
        tell_next(next_step(database, result, tools), as_json=as_json)
    return of_status(result.status)


@frozen(kw_only=True)
class _Work:
    """One run, from the opening of the file to its result."""

    path: str
    proposal: Proposal
    run_id: RunId
    given: Given
    terms: Terms
    table: Tools
    durability: Durability
    options: dict[str, Any]
    """How the run goes about it, as arguments of `Runtime`."""
    watching: Watcher
    quiet: bool
    resume: str = field(init=False)
    """The command that goes on with it."""

    @resume.default
    def _resume(self) -> str:
        return self.given.resume_command(self.path, self.run_id)

    async def execute(self) -> RunResult:
        """Run, or go on with, the proposal.

        Raises:
            Interrupted: with the command that goes on from there.
            CarstoreError: the same, if the run has been recorded.
        """
        budget = self.terms.budget
        opening = connect(
            self.path,
            create=budget is None or budget.parent is None,  # a budget to draw on is in a file
            durability=self.durability,
            instance="carstore run",
        )
        async with with_mcp_tools(self.table, self.given.mcp) as table, opening as store:
            runtime = Runtime(
                store, table, policies=self.terms.policies, budget=budget, **self.options
            )
            return await self._execute(store, runtime)

    async def _execute(self, store: Store, runtime: Runtime) -> RunResult:
        if not self.quiet:
            say(f"Run {self.run_id}. If it is stopped: {self.resume}")
        try:
            async with self.watching:
                return await runtime.execute(
                    self.proposal,
                    run_id=self.run_id,
                    timeout_secs=self.terms.timeout_secs,
                    observe=self.watching.observe,
                )
        except asyncio.CancelledError:
            raise await interruption(store, self.run_id, self.resume) from None
        except CarstoreError as error:
            if error.code in _STOPPED and await _is_recorded(store, self.run_id):
                error.add_note(f"Next: {self.resume}")
            raise


_STOPPED = frozenset({"busy", "closed", "corrupt", "disk_full", "io_error", "run_owned"})
"""Codes of errors after which the same run can go on."""


async def interruption(store: Store, run_id: RunId, resume: str) -> Interrupted:
    """What to tell of a run that was interrupted."""
    try:
        found = await load_run(store, run_id)
    except NotFound:
        return Interrupted(run_id, f"interrupted before run {run_id} was recorded; run it again")
    if found.completed is not None:
        stopped = Interrupted(run_id, f"interrupted, but run {run_id} has just finished")
        stopped.add_note(f"Next: {command_line('show', store.path, run_id)}")
        return stopped
    stopped = Interrupted(run_id, f"interrupted; run {run_id} can go on")
    stopped.add_note(f"Next: {resume}")
    return stopped


async def _is_recorded(store: Store, run_id: RunId) -> bool:
    try:
        await load_run(store, run_id)
    except CarstoreError:
        return False
    return True


def read_plan(plan: str) -> bytes:
    """The text of a plan, but not more of it than a plan may have.

    Raises:
        NotFound, BadUsage
    """
    most = DEFAULT_LIMITS.max_bytes + 1
    try:
        if plan == "-":
            return sys.stdin.buffer.read(most)
        with open(plan, "rb") as file:
            return file.read(most)
    except FileNotFoundError:
        hint = "Name a JSON file, or - for standard input."
        raise NotFound("plan", plan, hint) from None
    except OSError as error:
        raise BadUsage("PLAN", f"{plan} cannot be read: {error.strerror}") from None


def _tools(given: Given, proposal: Proposal) -> Tools:
    """The tools that are named; those of MCP servers are added once there is a connection.

    Raises:
        BadUsage: none are, and the plan calls some that are not built in.
        ToolsNotFound, InvalidTool: as `load_tools`.
    """
    if given.tools is not None:
        return load_tools(given.tools)
    table = Tools()
    named = tools_named(proposal.actions, table)
    unknown = sorted(name for name in named if table.get(name) is None)
    if unknown and not given.mcp:
        calls = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise BadUsage("--tools", f"the plan calls {calls}. Say where they are: --tools FILE.py")
    return table
