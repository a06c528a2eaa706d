"""`carstore doubts` and `carstore resolve`: calls of which nobody knows what became."""

import click
from attrs import frozen

from carstore import canonical, connect
from carstore.names import Json, RunId
from engine.cli.errors import BadUsage
from engine.cli.meter import Meter
from engine.cli.options import (
    at_option,
    check_at,
    command_line,
    database,
    json_option,
    reading,
)
from engine.cli.origin import (
    ASK_ORIGIN,
    answer_command,
    call_json,
    call_said,
    call_there,
    look,
    origin_option,
)
from engine.cli.person import person
from engine.cli.result import next_answer, resume_command, tell_next
from engine.cli.screen import Cell, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from engine.doubts import Resolution
from engine.doubts import resolve as record
from engine.held import REASON, held_runs
from engine.origin import Found
from engine.propose import check_run_id
from engine.results import rfc3339
from projections import DOUBTS, rows
from projections.doubts import Doubt

__all__ = ["doubts", "resolve"]


@click.command()
@database
@at_option
@origin_option
@json_option
def doubts(database: str, at: int | None, origin: str | None, as_json: bool) -> None:
    """List the calls that began, must not simply be repeated, and have no outcome.

    Find out at the other side, by the idempotency key, whether each was carried out; then tell it
    with `carstore resolve`. If DB is a copy and its origin can be read, it is told what the origin
    knows of each: how it ended there after the copy was taken.
    """
    found, there, held = run_stoppable(_load(database, at, origin))
    if as_json:
        print_json([_json(doubt, there) for doubt in found])
        return
    _show(database, found, there, at)
    if held:
        runs = "1 run was" if len(held) == 1 else f"{len(held):,} runs were"
        write(f"{runs} copied unfinished, and nothing is called until you accept that this copy")
        write(f"goes on too: {command_line('resume', database)}")


def _show(database: str, found: list[Doubt], there: Found | None, at: int | None) -> None:
    if not found:
        write("Nothing is in doubt." if at is None else f"Nothing was in doubt at position {at}.")
        return
    titles = ("RUN", "ACTION", "TOOL", ">ATTEMPT", "SINCE", "IDEMPOTENCY KEY", "WHY")
    table(titles, [_cells(doubt) for doubt in found])
    _show_there(database, found, there)
    if at is None:
        write(f"Next: {next_answer(database, found, there)}")


def _show_there(database: str, found: list[Doubt], there: Found | None) -> None:
    """Tell what the origin knows, and the command that takes its word."""
    if there is None:
        if any(doubt.reason == REASON for doubt in found):
            write(f"This is a copy. {ASK_ORIGIN}")
        return
    for doubt in found:
        call = call_there(there, doubt)
        if call is not None:
            name = f"run {doubt.run_id}, action {doubt.action_id}"
            write(f"In the origin ({there.path}), {name} {call_said(call)}. To take its word:")
            write(f"  {answer_command(database, doubt, call)}")


async def _load(
    path: str, at: int | None, origin: str | None
) -> tuple[list[Doubt], Found | None, list[RunId]]:
    """The doubts, what the origin of a copy says of their runs, and the runs that are held."""
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("doubts: folded") as meter:
            in_doubt = await rows(store, DOUBTS, at=at, progress=meter)
        found = sorted(in_doubt.values(), key=lambda doubt: doubt.since)
        held = await held_runs(store) if store.epoch and at is None else []
        return found, await look(store, {doubt.run_id for doubt in found}, origin), held


def _json(doubt: Doubt, there: Found | None) -> Json:
    return {
        "run_id": doubt.run_id,
        "action_id": doubt.action_id,
        "tool": doubt.tool,
        "attempt": doubt.attempt,
        "idempotency_key": doubt.idempotency_key,
        "since": rfc3339(doubt.since),
        "origin": call_json(call_there(there, doubt)),
    }


def _cells(doubt: Doubt) -> list[Cell]:
    return [
        text(doubt.run_id),
        text(f"{doubt.action_id} (undoing it)" if doubt.undo else doubt.action_id),
        text(doubt.tool),
        text(doubt.attempt),
        text(rfc3339(doubt.since)),
        text(doubt.idempotency_key),
        text(doubt.reason),
    ]


@frozen
class Answer:
    """What a person says about a call."""

    resolution: Resolution
    output: Json = None
    error: str | None = None


@click.command()
@database
@click.argument("run", metavar="RUN")
@click.argument("action", metavar="ACTION")
@click.option("--succeeded", metavar="JSON", help="It was carried out, and this is its output.")
@click.option("--failed", metavar="TEXT", help="It was not carried out, and this is why.")
@click.option("--retry", is_flag=True, help="Call it once more: on your word, that does no harm.")
@json_option
def resolve(
    database: str,
    run: str,
    action: str,
    succeeded: str | None,
    failed: str | None,
    retry: bool,
    as_json: bool,
) -> None:
    """Say what became of the call of ACTION in RUN; the next resume acts on it.

    Exactly one of --succeeded, --failed and --retry.
    """
    run_id = check_run_id(run)
    answer = _answer(succeeded, failed, retry=retry)
    run_stoppable(_record(database, run_id, action, answer))
    if as_json:
        print_json({"run_id": run_id, "action_id": action, "resolution": answer.resolution})
    else:
        write(f"Recorded for action {action} of run {run_id}: {answer.resolution}")
    tell_next(resume_command(database, run_id, "FILE_OR_MODULE"), as_json=as_json)


def _answer(succeeded: str | None, failed: str | None, *, retry: bool) -> Answer:
    """What the options say.

    Raises:
        BadUsage: not exactly one of them was given.
        InvalidJson: the output is no strict JSON.
    """
    given = (succeeded is not None) + (failed is not None) + retry
    if given != 1:
        raise BadUsage("--succeeded, --failed, --retry", f"give exactly one, not {given or 'none'}")
    if succeeded is not None:
        return Answer("succeeded", output=canonical.loads(succeeded, "--succeeded"))
    return Answer("retry") if retry else Answer("failed", error=failed)


async def _record(path: str, run_id: RunId, action: str, answer: Answer) -> None:
    async with connect(path, create=False, instance="carstore resolve") as store:
        await record(
            store,
            run_id,
            action,
            answer.resolution,
            output=answer.output,
            error=answer.error,
            by=person(),
        )
