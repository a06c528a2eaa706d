"""`carstore state` and `carstore why`: what the state is, and how it came about."""

import click

from carstore.log import StateRead
from carstore.names import MAIN_SCOPE, Json, Scope, StateKey
from engine.cli.options import at_option, check_at, database, json_option, reading
from engine.cli.screen import Cell, brief, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from engine.results import rfc3339
from projections import Change
from projections import why as changes_of

__all__ = ["state", "why"]

scope_option = click.option(
    "--scope",
    default=str(MAIN_SCOPE),
    show_default=True,
    metavar="S",
    help="Which state: runs of different scopes do not see each other's.",
)


@click.command()
@database
@at_option
@scope_option
@json_option
def state(database: str, at: int | None, scope: str, as_json: bool) -> None:
    """Print every key of the state with its value, as it is now or was at some position."""
    found = run_stoppable(_state(database, Scope(scope), at))
    if as_json:
        print_json({key: read.value for key, read in found.items()})
    elif not found:
        write(f"No keys in scope {scope}.")
    else:
        rows = [
            [text(key), text(brief(read.value)), text(read.position), text(read.run_id or "")]
            for key, read in found.items()
        ]
        table(("KEY", "VALUE", ">SET AT", "BY RUN"), rows)


async def _state(path: str, scope: Scope, at: int | None) -> dict[StateKey, StateRead]:
    async with reading(path) as store:
        await check_at(store, at)
        return await store.log.state_of(scope, at=at)


@click.command()
@database
@click.argument("key", metavar="KEY")
@at_option
@scope_option
@json_option
def why(database: str, key: str, at: int | None, scope: str, as_json: bool) -> None:
    """Tell every change of KEY, newest first: its value, and what run, action and agent made it."""
    found = run_stoppable(_why(database, Scope(scope), StateKey(key), at))
    if as_json:
        print_json([_json(change) for change in found])
    elif not found:
        until = "has ever" if at is None else f"had, until position {at},"
        write(f"Nobody {until} set {key} in scope {scope}.")
    else:
        titles = (">POSITION", "VALUE", "RUN", "ACTION", "AGENT", "TIME")
        table(titles, [_cells(change) for change in found])


async def _why(path: str, scope: Scope, key: StateKey, at: int | None) -> list[Change]:
    async with reading(path) as store:
        await check_at(store, at)
        return await changes_of(store, scope, key, at=at)


def _json(change: Change) -> Json:
    return {
        "position": change.position,
        "value": change.value,
        "deleted": change.deleted,
        "run_id": change.run_id,
        "action_id": change.action_id,
        "agent": change.agent,
        "recorded_at": rfc3339(change.recorded_at),
    }


def _cells(change: Change) -> list[Cell]:
    return [
        text(change.position),
        text("deleted", "yellow") if change.deleted else text(brief(change.value)),
        text(change.run_id or ""),
        text(change.action_id or ""),
        text(change.agent or ""),
        text(rfc3339(change.recorded_at)),
    ]
