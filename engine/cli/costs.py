"""`carstore costs`: what each agent has spent, by currency."""

from collections.abc import Iterable

import click

from engine.cli.meter import Meter
from engine.cli.options import at_option, check_at, database, json_option, reading
from engine.cli.screen import Cell, money, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from projections import COSTS, rows
from projections.costs import Cost

__all__ = ["costs"]


@click.command()
@database
@at_option
@json_option
def costs(database: str, at: int | None, as_json: bool) -> None:
    """Print what each agent has spent over all runs, failed attempts included, by currency."""
    found = run_stoppable(_load(database, at))
    if as_json:
        print_json([_json(cost) for cost in found])
    elif not found:
        write("Nothing has been metered.")
    else:
        table(
            ("AGENT", ">CALLS", ">TOKENS IN", ">TOKENS OUT", ">COST"),
            [_cells(cost) for cost in [*found, *_totals(found)]],
        )


async def _load(path: str, at: int | None) -> list[Cost]:
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("costs: folded") as meter:
            return list((await rows(store, COSTS, at=at, progress=meter)).values())


def _totals(found: list[Cost]) -> list[Cost]:
    """A line for each currency: amounts of different ones are not added up."""
    currencies = sorted({cost.currency for cost in found})
    return [_total(one, (c for c in found if c.currency == one)) for one in currencies]


def _total(currency: str, costs: Iterable[Cost]) -> Cost:
    found = list(costs)
    return Cost(
        agent="all",
        currency=currency,
        calls=sum(cost.calls for cost in found),
        tokens_in=sum(cost.tokens_in for cost in found),
        tokens_out=sum(cost.tokens_out for cost in found),
        cost_micros=sum(cost.cost_micros for cost in found),
    )


def _json(cost: Cost) -> dict[str, object]:
    return {
        "agent": cost.agent,
        "currency": cost.currency,
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
        text(money(cost.cost_micros, cost.currency)),
    ]
