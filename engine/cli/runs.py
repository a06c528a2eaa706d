"""`carstore runs`: what has been run."""

import click
from attrs import frozen

from carstore import Store
from carstore.errors import LeaseHeld
from carstore.names import Json, RunId, run_lease
from engine.cli.meter import Meter
from engine.cli.options import (
    at_option,
    check_at,
    command_line,
    database,
    json_option,
    reading,
)
from engine.cli.screen import Cell, print_json, status_text, table, text, write
from engine.cli.stopping import run_stoppable
from engine.results import rfc3339
from projections import RUNS, rows
from projections.runs import Run

__all__ = ["driver_of", "runs"]


@click.command()
@database
@at_option
@json_option
def runs(database: str, at: int | None, as_json: bool) -> None:
    """List all runs of DB, oldest first, as they are now or were at some position."""
    found = run_stoppable(_load(database, at))
    if as_json:
        print_json([_json(one.run) for one in found])
        return
    if not found:
        write("No runs yet.")
        return
    titles = ("RUN", "STATUS", "PLAN", "FROM", ">ACTIONS", "STARTED", "ENDED")
    table(titles, [_cells(one, now=at is None) for one in found])
    if at is None:
        _tell_next(database, found)


@frozen
class _Found:
    run: Run
    driver: str | None
    """The process that drives it, if it is running and that process is not gone."""


async def _load(path: str, at: int | None) -> list[_Found]:
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("runs: folded") as meter:
            held = (await rows(store, RUNS, at=at, progress=meter)).values()
        found = sorted(held, key=lambda run: run.started_at)
        if at is not None:  # who drives a run is known of now only
            return [_Found(run, None) for run in found]
        return [_Found(run, await driver_of(store, run.run_id, run.status)) for run in found]


async def driver_of(store: Store, run_id: str, status: str) -> str | None:
    """The process that drives a running run, unless it is gone or has let go."""
    if status != "running":
        return None
    try:
        await store.leases.claim(run_lease(RunId(run_id)))  # only asks; nothing is appended
    except LeaseHeld as held:
        return held.holder
    return None


def _json(run: Run) -> Json:
    return {
        "run_id": run.run_id,
        "proposal_id": run.proposal_id,
        "source": run.source,
        "status": run.status,
        "started_at": rfc3339(run.started_at),
        "ended_at": None if run.ended_at is None else rfc3339(run.ended_at),
        **{name: value for name, value in _come_from(run) if value is not None},
    }


def _come_from(run: Run) -> list[tuple[str, str | None]]:
    return [("pursuit", run.pursuit), ("replaces", run.replaces), ("replan", run.replan)]


def _cells(one: _Found, *, now: bool) -> list[Cell]:
    run = one.run
    stopped = now and run.status == "running" and one.driver is None
    return [
        text(run.run_id),
        text("stopped", "yellow") if stopped else status_text(run.status),
        text(run.proposal_id),
        text(run.source),
        text(run.actions),
        text(rfc3339(run.started_at)),
        text("" if run.ended_at is None else rfc3339(run.ended_at)),
    ]


def _tell_next(database: str, found: list[_Found]) -> None:
    if any(one.run.status == "waiting" for one in found):
        asking = [command_line(name, database) for name in ("doubts", "approvals", "waits")]
        write(f"Some wait for a person, a signal or a time: {', '.join(asking)}")
    if any(one.run.status == "running" and one.driver is None for one in found):
        command = command_line("resume", database, "--tools", "FILE_OR_MODULE")
        write(f"Some were stopped in the middle: {command}")
