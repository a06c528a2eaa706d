"""`carstore pursuits`: the goals that agents pursue, and what came of them."""

import click

from carstore import canonical
from carstore.names import Json
from engine.cli.meter import Meter
from engine.cli.options import at_option, check_at, database, json_option, reading
from engine.cli.screen import Cell, brief, print_json, status_text, table, text, write
from engine.cli.stopping import run_stoppable
from engine.results import rfc3339
from projections import PURSUITS, rows
from projections.pursuits import Pursuit

__all__ = ["pursuits"]


@click.command()
@database
@at_option
@json_option
def pursuits(database: str, at: int | None, as_json: bool) -> None:
    """List the goals that were pursued by one proposal after the other, oldest first."""
    found = run_stoppable(_load(database, at))
    if as_json:
        print_json([_json(pursuit) for pursuit in found])
    elif not found:
        write("No pursuits yet." if at is None else f"There was no pursuit at position {at}.")
    else:
        titles = ("PURSUIT", "STATUS", ">STEPS", "GOAL", "ANSWER", "STARTED", "ENDED")
        table(titles, [_cells(pursuit) for pursuit in found])


async def _load(path: str, at: int | None) -> list[Pursuit]:
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("pursuits: folded") as meter:
            found = await rows(store, PURSUITS, at=at, progress=meter)
        return sorted(found.values(), key=lambda one: (one.started_at, one.pursuit))


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def _value(json: str | None) -> Json:
    return None if json is None else canonical.loads_trusted(json)


def _json(one: Pursuit) -> Json:
    return {
        "pursuit": one.pursuit,
        "goal": _value(one.goal),
        "status": one.status,
        "steps": one.steps,
        "answer": _value(one.answer),
        "reason": one.reason,
        "started_at": rfc3339(one.started_at),
        "ended_at": _time(one.ended_at),
        "max_steps": one.max_steps,
        "max_cost_micros": one.max_cost_micros,
        "ends_at": _time(one.ends_at),
    }


def _cells(one: Pursuit) -> list[Cell]:
    return [
        text(one.pursuit),
        status_text(one.status),
        text(f"{one.steps} of {one.max_steps}"),
        text(brief(_value(one.goal))),
        text("" if one.answer is None else brief(_value(one.answer))),
        text(rfc3339(one.started_at)),
        text(_time(one.ended_at) or ""),
    ]
