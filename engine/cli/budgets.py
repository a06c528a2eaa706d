"""`carstore budgets` and `carstore budget`: what may be spent, and setting that."""

import click

from carstore import connect
from carstore.errors import NotFound
from carstore.names import Json
from engine.cli.approvals import by_option
from engine.cli.errors import BadUsage
from engine.cli.meter import Meter
from engine.cli.options import at_option, check_at, command_line, database, json_option, reading
from engine.cli.screen import Cell, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from engine.ledger import set_budget
from engine.results import rfc3339
from engine.rules.budget import Account
from engine.rules.money import InvalidBudget, units_of
from projections import BUDGETS, rows
from projections.budgets import ITSELF, BudgetLine

__all__ = ["budget", "budgets"]

UNLIMITED = "none"
"""Written in the place of an amount: counted, not limited."""


@click.command()
@database
@click.argument("name", metavar="[NAME]", required=False)
@at_option
@json_option
def budgets(database: str, name: str | None, at: int | None, as_json: bool) -> None:
    """List what each budget, or the one called NAME, allows, holds back and has spent.

    A run with amounts of its own has the budget run/RUN.
    """
    found = run_stoppable(_load(database, name, at))
    if as_json:
        print_json([_json(line) for line in found])
    elif not found:
        write("There is no budget." if at is None else f"There was no budget at position {at}.")
    else:
        titles = ("BUDGET", "UNIT", ">LIMIT", ">RESERVED", ">SPENT", ">LEFT", "PART OF")
        table(titles, [_cells(line) for line in found])


async def _load(path: str, name: str | None, at: int | None) -> list[BudgetLine]:
    """The lines by budget and unit; that of a budget itself only where it has no other."""
    async with reading(path) as store:
        await check_at(store, at)
        with Meter("budgets: folded") as meter:
            where = None if name is None else {"budget": name}
            found = await rows(store, BUDGETS, at=at, where=where, progress=meter)
        if name is not None and not found:
            hint = f"{command_line('budgets', path)} lists them."
            raise NotFound("budget", name, hint)
    with_units = {line.budget for line in found.values() if line.unit != ITSELF}
    lines = found.values()
    return [line for line in lines if line.unit != ITSELF or line.budget not in with_units]


def _json(line: BudgetLine) -> Json:
    return {
        "budget": line.budget,
        "unit": line.unit or None,
        "limit_micros": line.limit_micros,
        "reserved_micros": line.reserved_micros,
        "spent_micros": line.spent_micros,
        "left_micros": line.left_micros,
        "parent": line.parent,
        "changed_at": rfc3339(line.changed_at),
    }


def _cells(line: BudgetLine) -> list[Cell]:
    left = line.left_micros
    return [
        text(line.budget),
        text(line.unit),
        text("" if line.limit_micros is None else units_of(line.limit_micros)),
        text(units_of(line.reserved_micros)),
        text(units_of(line.spent_micros)),
        text(
            "" if left is None else units_of(left), "red" if left is not None and left < 0 else ""
        ),
        text(line.parent or ""),
    ]


@click.command()
@database
@click.argument("name", metavar="NAME")
@click.option(
    "--limit",
    "limits",
    metavar="UNIT:AMOUNT",
    multiple=True,
    required=True,
    help="How much of a unit, as USD:5.00, or USD:none for no limit; repeatable.",
)
@click.option("--parent", metavar="BUDGET", help="The budget of which it is a part; '' for none.")
@by_option
@json_option
def budget(
    database: str, name: str, limits: tuple[str, ...], parent: str | None, by: str, as_json: bool
) -> None:
    """Open the budget NAME, or change its limits; what is spent and reserved stays.

    The limits given are all there are: a unit that is not named is not limited any more.
    """
    wanted = _limits(limits)

    async def record() -> Account:
        async with connect(database, create=False, instance="carstore budget") as store:
            return await set_budget(store, name, wanted, parent=parent, by=by)

    try:
        account = run_stoppable(record())
    except InvalidBudget as error:
        raise BadUsage(_option(error.path), error.reason) from None
    if as_json:
        print_json({"budget": name, "limits": account.limits, "parent": account.parent})
        return
    told = [f"{units_of(micros)} {unit}" for unit, micros in sorted(account.limits.items())]
    part = "" if account.parent is None else f", as a part of {account.parent}"
    write(f"Budget {name}: {', '.join(told) or 'no limit'}{part}")
    write(f"Look: {command_line('budgets', database, name)}")


def _limits(given: tuple[str, ...]) -> dict[str, str | None]:
    """Unit -> amount as it was written; None for no limit.

    Raises:
        BadUsage: not of the form UNIT:AMOUNT, or a unit twice.
    """
    found: dict[str, str | None] = {}
    for one in given:
        unit, colon, amount = one.rpartition(":")
        if not colon or not unit or not amount:
            raise BadUsage("--limit", f"write UNIT:AMOUNT, such as USD:5.00, not {one!r:.80}")
        if unit in found:
            raise BadUsage("--limit", f"{unit!r:.80} is limited twice; give it once")
        found[unit] = None if amount == UNLIMITED else amount
    return found


def _option(path: str) -> str:
    """The argument that is at fault."""
    names = {"budget": "NAME", "parent": "--parent"}
    return names.get(path, "--limit") if path in names or path.startswith("limits") else path
