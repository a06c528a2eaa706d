"""`carstore resume`: continue what has not finished."""

import asyncio
from collections.abc import Sequence

import click
from attrs import frozen

from carstore import Store, connect
from carstore.names import Json, RunId
from engine.cli.errors import Interrupted
from engine.cli.exits import Exit, of_status, worst
from engine.cli.mcp_option import mcp_option, with_mcp_tools
from engine.cli.options import database, json_option, tools
from engine.cli.origin import ASK_ORIGIN, call_said, call_there, look, origin_option, run_json
from engine.cli.person import person
from engine.cli.progress import Watcher, watcher
from engine.cli.redirect import tools_print_to_stderr
from engine.cli.result import (
    doubts_of,
    next_answer,
    next_step,
    show_result,
    tell_next,
)
from engine.cli.run import STOP_HINT, interruption
from engine.cli.screen import print_json, say, write
from engine.cli.stopping import run_stoppable
from engine.cli.terms import Given, code_policies, code_policies_option
from engine.errors import RunOwned
from engine.ir import RunResult, RunStatus
from engine.journal import load_run
from engine.origin import Found
from engine.policies import Policy, PolicyChanged
from engine.propose import check_run_id, check_tools
from engine.registry import bound
from engine.run import Run
from engine.runtime import Runtime
from engine.tools import Tools, load_tools

__all__ = ["resume"]


@click.command()
@database
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@tools
@mcp_option
@code_policies_option
@click.option(
    "--accept-copy",
    is_flag=True,
    help="Also go on with runs that were copied unfinished, although the origin may go on too.",
)
@click.option("--by", metavar="NAME", help="Who accepts that, if not the account.")
@origin_option
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
def resume(
    database: str,
    runs: tuple[str, ...],
    tools: str | None,
    mcp: tuple[str, ...],
    policies: tuple[str, ...],
    accept_copy: bool,
    by: str | None,
    origin: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Continue the RUNs named, or all that have not finished.

    Nothing that is recorded as done is done again. The tools must be those the runs were begun
    with; they are always named again, never loaded from a path found in the file. So are rules in
    Python; all other rules, permissions, budgets and deadlines are in the file, and hold.

    In a copy (`carstore restore`, `fork`, `import`), no tool is called for a run that had not
    finished, until that is accepted; it is told how it went on in the origin, if that can be read.
    """
    names = [check_run_id(run) for run in dict.fromkeys(runs)]
    with tools_print_to_stderr():
        work = _Work(
            path=database,
            names=names,
            given=Given(tools, policies, mcp),
            table=load_tools(tools) if tools is not None else Tools(),
            policies=code_policies(policies),
            watching=watcher(quiet=quiet),
            accepted_by=(by or person()) if accept_copy else None,
            origin=origin,
        )
        outcomes, there = run_stoppable(work.resume(), STOP_HINT)
    if len(outcomes) == 1 and isinstance(outcomes[0], RunOwned):
        raise outcomes[0]
    if as_json:
        print_json([_json(outcome, there) for outcome in outcomes])
    else:
        _show(database, outcomes, there)
    if not (as_json and quiet):
        _tell_origin(outcomes, there, as_json=as_json)
        _tell_next(database, outcomes, there, tools, as_json=as_json)
    return worst([_exit(outcome) for outcome in outcomes])


@frozen(kw_only=True)
class _Work:
    """What is to be resumed, and with what."""

    path: str
    names: Sequence[RunId]
    given: Given
    table: Tools
    policies: Sequence[Policy]
    watching: Watcher
    accepted_by: str | None
    """Who accepts that runs which were copied unfinished go on; None: nobody does."""
    origin: str | None

    async def resume(self) -> tuple[list[RunResult | RunOwned], Found | None]:
        """What came of the runs, and what their origin says of those that wait."""
        opening = connect(self.path, create=False, instance="carstore resume")
        async with with_mcp_tools(self.table, self.given.mcp) as table, opening as store:
            try:
                async with self.watching:
                    runtime = Runtime(store, table, policies=self.policies)
                    outcomes = await self._outcomes(store, runtime)
            except asyncio.CancelledError:
                raise await self._interruption(store) from None
            waiting = {one.run_id for one in _waiting(outcomes)}
            return outcomes, await look(store, waiting, self.origin)

    async def _outcomes(self, store: Store, runtime: Runtime) -> list[RunResult | RunOwned]:
        accepts, by = self.accepted_by is not None, self.accepted_by or ""
        observe = self.watching.observe
        if not self.names:
            return await runtime.recover(accept_copies=accepts, by=by, observe=observe)
        for name in self.names:
            found = await load_run(store, name)
            if found.completed is None and (accepts or not found.held):
                await self._check(store, found, runtime.tools)  # of none if one cannot go on

        async def one(name: RunId) -> RunResult | RunOwned:
            try:
                return await runtime.resume(name, accept_copy=accepts, by=by, observe=observe)
            except RunOwned as owned:
                return owned

        outcomes = await asyncio.gather(*[one(name) for name in self.names], return_exceptions=True)
        done: list[RunResult | RunOwned] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome  # only now, so that the other runs were not left in the middle
            done.append(outcome)
        return done

    async def _check(self, store: Store, run: Run, tools: Tools) -> None:
        """Refuse a run that was begun with other tools, or under other rules in Python.

        Raises:
            ToolsChanged, PolicyChanged: naming the run.
            InvalidPolicy: a recorded rule needs google-re2, which is not installed.
        """
        check_tools(run, tools)
        try:
            await bound(store, run.received.policies or {}, self.policies)
        except PolicyChanged as changed:
            changed.run_id = run.run_id
            raise

    async def _interruption(self, store: Store) -> Interrupted:
        command = self.given.resume_command(self.path, *self.names)
        if len(self.names) == 1:
            return await interruption(store, self.names[0], command)
        stopped = Interrupted(None, "interrupted; what has not finished can go on")
        stopped.add_note(f"Next: {command}")
        return stopped


def _waiting(outcomes: Sequence[RunResult | RunOwned]) -> list[RunResult]:
    found = [one for one in outcomes if isinstance(one, RunResult)]
    return [one for one in found if one.status is RunStatus.WAITING]


def _is_held(outcome: RunResult | RunOwned) -> bool:
    return isinstance(outcome, RunResult) and outcome.waits_for == "acceptance"


def _exit(outcome: RunResult | RunOwned) -> Exit:
    return Exit.FAILED if isinstance(outcome, RunOwned) else of_status(outcome.status)


def _json(outcome: RunResult | RunOwned, there: Found | None) -> Json:
    if isinstance(outcome, RunOwned):
        error = {"code": outcome.code, "path": outcome.where, "message": outcome.message}
        return {"error": error}
    document = outcome.to_dict()
    if _is_held(outcome):
        document["origin"] = None if there is None else run_json(there, outcome.run_id)
    return document


def _show(database: str, outcomes: Sequence[RunResult | RunOwned], there: Found | None) -> None:
    if not outcomes:
        write("Nothing to resume: every run has finished.")
    for number, outcome in enumerate(outcomes):
        if number:
            write("")
        if isinstance(outcome, RunOwned):
            write(outcome.message)
        else:
            show_result(database, outcome, there)


def _tell_origin(
    outcomes: Sequence[RunResult | RunOwned], there: Found | None, *, as_json: bool
) -> None:
    """Tell how the runs that are held went on in the origin."""
    tell = say if as_json else write
    held = [one.run_id for one in outcomes if isinstance(one, RunResult) and _is_held(one)]
    if there is None:
        if held:
            tell(f"This is a copy. {ASK_ORIGIN}")
        return
    for run_id in held:
        status = there.statuses.get(run_id)
        ended = "has not ended" if status is None else f"ended: {status}"
        tell(f"In the origin ({there.path}), run {run_id} {ended}.")
        for (run, action, undo, _), call in there.calls.items():
            if run == run_id:
                what = f"undoing action {action}" if undo else f"action {action}"
                tell(f"  there, after the copy was taken, {what} {call_said(call)}")


def _tell_next(
    database: str,
    outcomes: Sequence[RunResult | RunOwned],
    there: Found | None,
    tools: str | None,
    *,
    as_json: bool,
) -> None:
    if as_json and not outcomes:
        say("Nothing to resume: every run has finished.")
    commands = [
        _known_answer(database, one, there) or next_step(database, one, tools)
        for one in outcomes
        if isinstance(one, RunResult)
    ]
    for command in dict.fromkeys(commands):
        tell_next(command, as_json=as_json)


def _known_answer(database: str, result: RunResult, there: Found | None) -> str | None:
    """The command that takes the origin's word for a call that the run waits for, if it knows."""
    if there is None or result.status is not RunStatus.WAITING:
        return None
    known = [doubt for doubt in doubts_of(database, result) if call_there(there, doubt)]
    return next_answer(database, known, there) if known else None
