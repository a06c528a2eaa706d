"""`carstore waits`, `signal` and `cancel`: what runs wait for, and what others tell them."""

from collections.abc import Sequence

import click

from carstore import canonical, connect
from carstore.names import Json
from engine.cancel import cancel as ask_to_stop
from engine.cli.approvals import by_option, reason_option
from engine.cli.meter import Meter
from engine.cli.options import (
    at_option,
    check_at,
    command_line,
    database,
    json_option,
    reading,
)
from engine.cli.result import resume_command, tell_next
from engine.cli.screen import Cell, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from engine.propose import check_run_id
from engine.results import rfc3339
from engine.signals import signal as send
from projections import WAITS, rows
from projections.waits import Wait

__all__ = ["cancel", "signal", "waits"]


@click.command()
@database
@at_option
@json_option
def waits(database: str, at: int | None, as_json: bool) -> None:
    """List the actions that wait for a time or a signal."""
    found = run_stoppable(_load(database, at))
    if as_json:
        print_json([_json(wait) for wait in found])
        return
    if not found:
        write("Nothing waits." if at is None else f"Nothing waited at position {at}.")
        return
    table(("RUN", "ACTION", "SIGNAL", "UNTIL", "SINCE"), [_cells(wait) for wait in found])
    if at is None:
        tell_next(_next(database, found), as_json=False)


async def _load(path: str, at: int | None) -> list[Wait]:
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("waits: folded") as meter:
            waiting = await rows(store, WAITS, at=at, progress=meter)
        return sorted(waiting.values(), key=lambda wait: (wait.since, wait.run_id))


def _json(wait: Wait) -> Json:
    return {
        "run_id": wait.run_id,
        "action_id": wait.action_id,
        "signal": wait.signal,
        "due_at": None if wait.due_at is None else rfc3339(wait.due_at),
        "since": rfc3339(wait.since),
    }


def _cells(wait: Wait) -> list[Cell]:
    return [
        text(wait.run_id),
        text(wait.action_id),
        text(wait.signal or ""),
        text("" if wait.due_at is None else rfc3339(wait.due_at)),
        text(rfc3339(wait.since)),
    ]


def _next(database: str, found: Sequence[Wait]) -> str:
    """The command for what waits longest: a signal if it needs one, else going on in time."""
    first = found[0]
    if first.signal is not None:
        return command_line("signal", database, first.run_id, first.signal, "JSON")
    then = "" if first.due_at is None else f" (from {rfc3339(first.due_at)})"
    return resume_command(database, first.run_id, "FILE_OR_MODULE") + then


@click.command()
@database
@click.argument("run", metavar="RUN")
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="JSON")
@by_option
@json_option
def signal(database: str, run: str, name: str, value: str, by: str, as_json: bool) -> None:
    """Send RUN the signal NAME with a value, which an action that waits for it takes as its output.

    It may come before anybody waits for it. Signals of one name are taken in order, each once.
    """
    run_id = check_run_id(run)
    content = canonical.loads(value, "JSON")

    async def record() -> None:
        async with connect(database, create=False, instance="carstore signal") as store:
            await send(store, run_id, name, content, by=by)

    run_stoppable(record())
    if as_json:
        print_json({"run_id": run_id, "signal": name, "value": content})
    else:
        write(f"Sent to run {run_id}: {name}")
    tell_next(resume_command(database, run_id, "FILE_OR_MODULE"), as_json=as_json)


@click.command()
@database
@click.argument("run", metavar="RUN")
@click.option("--compensate", is_flag=True, help="Also undo what was done, as after an abort.")
@by_option
@reason_option
@json_option
def cancel(database: str, run: str, compensate: bool, by: str, reason: str, as_json: bool) -> None:
    """Ask RUN to stop: it starts nothing more, and ends as cancelled."""
    run_id = check_run_id(run)

    async def record() -> bool:
        async with connect(database, create=False, instance="carstore cancel") as store:
            return await ask_to_stop(store, run_id, by=by, reason=reason, compensate=compensate)

    recorded = run_stoppable(record())
    if as_json:
        print_json({"run_id": run_id, "compensate": compensate, "recorded": recorded})
    else:
        how = "stop, and undo what was done" if compensate else "stop"
        said = "is asked to" if recorded else "had been asked already to"
        write(f"Run {run_id} {said} {how}")
    tell_next(resume_command(database, run_id, "FILE_OR_MODULE"), as_json=as_json)
