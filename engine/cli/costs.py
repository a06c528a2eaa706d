"""`carstore costs`: what each agent has spent."""

import click

from engine.cli.meter import Meter
from engine.cli.options import at_option, check_at, database, json_option, reading
from engine.cli.screen import Cell, dollars, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from projections import COSTS, rows
from projections.costs import Cost

__all__ = ["costs"]


@click.command()
@database
@at_option
@json_option
def costs(database: str, at: int | None, as_json: bool) -> None:
    """Print what each agent has spent over all runs, failed attempts included."""
    found = run_stoppable(_load(database, at))
    if as_json:
        print_json([_json(cost) for cost in found])
    elif not found:
        write("Nothing has been metered.")
    else:
        table(
            ("AGENT", ">CALLS", ">TOKENS IN", ">TOKENS OUT", ">COST"),
            [_cells(cost) for cost in [*found, _total(found)]],
        )


async def _load(path: str, at: int | None) -> list[Cost]:
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("costs: folded") as meter:
            return list((await rows(store, COSTS, at=at, progress=meter)).values())


def _total(found: list[Cost]) -> Cost:
    return Cost(
        agent="all",
        calls=sum(cost.calls for cost in found),
        tokens_in=sum(cost.tokens_in for cost in found),
        tokens_out=sum(cost.tokens_out for cost in found),
        cost_micros=sum(cost.cost_micros for cost in found),
    )


def _json(cost: Cost) -> dict[str, object]:
    return {
        "agent": cost.agent,
        "calls": cost.calls,
        "tokens_in": cost.tokens_in,
        "tokens_out": cost.tokens_out,
        "cost_micros": cost.cost_micros,
    }


def _cells(cost: Cost) -> list[Cell]:
    return [
        text(cost.agent),
        text(f"{cost.calls:,}"),
        text(f"{cost.tokens_in:,}"),
        text(f"{cost.tokens_out:,}"),
        text(dollars(cost.cost_micros)),
    ]
