"""`carstore views` and `carstore view`: which views there are, and the rows of any."""

from collections.abc import Sequence
from typing import Any

import click

from carstore import __version__
from carstore.errors import NotFound
from carstore.log import Head
from carstore.names import Json
from engine.cli.errors import BadUsage
from engine.cli.meter import Meter
from engine.cli.options import (
    COUNT,
    all_views,
    at_option,
    check_at,
    command_line,
    database,
    json_option,
    reading,
    views_option,
)
from engine.cli.redirect import tools_print_to_stderr
from engine.cli.screen import Cell, print_csv, print_json, table, text, write
from engine.cli.stopping import run_stoppable
from engine.problems import suggestion
from projections import Standing, View, rows, standings
from projections.view import Column

__all__ = ["find_view", "view", "views"]

MAX_KINDS = 3
"""Kinds of events named in the table; `--json` names all."""

MAX_CELL_CHARS = 200
"""Characters of one value in the table; `--json` and `--csv` print all."""

_STYLES = {"damaged": "red", "building": "yellow", "not stored": "dim"}
_WORDS = {"inline": "always current", "not stored": "not stored yet"}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


# --- the views there are ---


@click.command()
@database
@views_option
@json_option
def views(database: str, views_file: str | None, as_json: bool) -> None:
    """List the views of DB: how far each is, and which version its plain SQL name shows.

    Also versions and views that the file has and this program does not know. Nothing is written.
    """
    with tools_print_to_stderr():
        known = all_views(views_file)
    head, found = run_stoppable(_standings(database, known))
    if as_json:
        print_json({"head": head.position, "views": [_standing_json(one) for one in found]})
        return
    titles = ("VIEW", ">VERSION", "STATUS", ">ROWS", ">POSITION", ">BEHIND", "IN SQL", "READS")
    table(titles, [_standing_cells(one) for one in found])
    _tell(database, found)


async def _standings(path: str, known: tuple[View[Any, Any], ...]) -> tuple[Head, list[Standing]]:
    async with reading(path) as store:
        return await store.log.head(), await standings(store, known)


def _standing_json(one: Standing) -> Json:
    stop = one.stopped_by
    return {
        "name": one.name,
        "version": one.version,
        "known": one.known,
        "status": one.status,
        "rows": one.rows,
        "position": one.position,
        "behind": one.behind,
        "shown": one.shown,
        "kinds": None if one.kinds is None else list(one.kinds),
        "stopped_by": None
        if stop is None
        else {
            "position": stop.position,
            "kind": stop.kind,
            "schema_version": stop.schema_version,
        },
    }


def _standing_cells(one: Standing) -> list[Cell]:
    def number(value: int | None) -> Cell:
        return text("" if value is None else f"{value:,}")

    if one.kinds is not None:
        more = len(one.kinds) - MAX_KINDS
        reads = ", ".join(one.kinds[:MAX_KINDS]) + (f" and {more} more" if more > 0 else "")
    else:
        reads = "all kinds" if one.known else "not known here"
    return [
        text(one.name),
        number(one.version),
        text(_WORDS.get(one.status, one.status), _STYLES.get(one.status, "")),
        number(one.rows),
        number(one.position),
        number(one.behind),
        text("shown" if one.shown else ""),
        text(reads, "" if one.known else "yellow"),
    ]


def _tell(database: str, found: Sequence[Standing]) -> None:
    """Say what is to be done, if anything is."""
    for name in [one.name for one in found if one.known and one.status == "damaged"]:
        command = command_line("rebuild", database, "--view", name)
        write(f"The stored rows of {name} cannot be used. Make them anew: {command}")
    if any(not one.known for one in found):
        write(
            "What is not known here belongs to another program or version, which goes on with it, "
            "or was given up. For views of your own: --views FILE.py"
        )
    stopped: dict[int, list[Standing]] = {}
    for one in found:
        if one.stopped_by is not None:
            stopped.setdefault(one.stopped_by.position, []).append(one)
    for position, behind in sorted(stopped.items()):
        event = behind[0].stopped_by
        assert event is not None
        names = ", ".join([one.name for one in behind])
        write(
            f"Stopped before event {position:,}: {names}. Appends and runs go on. This is carstore "
            f"{__version__}: {event.message}"
        )


# --- the rows of one ---


@click.command()
@database
@click.argument("name", metavar="NAME")
@at_option
@views_option
@click.option(
    "--where",
    "wheres",
    metavar="COLUMN=VALUE",
    multiple=True,
    help="Only rows with this value; repeatable. Nothing after the = means: no value.",
)
@click.option("--limit", type=COUNT, metavar="N", help="The first N rows.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
def view(
    database: str,
    name: str,
    at: int | None,
    views_file: str | None,
    wheres: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print the rows of the view NAME, as they are now or were at some position.

    They are those of now also where the stored ones are behind. `carstore views` lists the views.
    """
    if as_json and as_csv:
        raise BadUsage("--csv", "give --json or --csv, not both")
    with tools_print_to_stderr():
        wanted = find_view(all_views(views_file), name, database)
        equals = _equals(wanted, wheres)
        found = run_stoppable(_rows(database, wanted, at, equals))
    shown = found[:limit]
    names = [column.name for column in wanted.columns]
    if as_json:
        print_json([dict(zip(names, wanted.values_of(row), strict=True)) for row in shown])
        return
    if as_csv:
        print_csv(names, [[_csv_cell(cell) for cell in wanted.values_of(row)] for row in shown])
        return
    if not found:
        write(f"No rows in view {wanted.name}.")
        return
    titles = [f"{'' if one.type is str else '>'}{one.name.upper()}" for one in wanted.columns]
    table(titles, [[_cell(value) for value in wanted.values_of(row)] for row in shown])
    if len(shown) < len(found):
        write(f"... and {len(found) - len(shown):,} more")


async def _rows(
    path: str, wanted: View[Any, Any], at: int | None, equals: dict[str, str | int | None]
) -> list[Any]:
    async with reading(path) as store:
        await check_at(store, at)
        with Meter(f"view {wanted.name}: folded") as meter:
            found = await rows(store, wanted, at=at, where=equals, progress=meter)
        return list(found.values())


def find_view(known: Sequence[View[Any, Any]], name: str, database: str) -> View[Any, Any]:
    """The view of that name.

    Raises:
        NotFound: saying where the names stand.
    """
    for one in known:
        if one.name == name:
            return one
    if name == "search":
        hint = f"It is an index: {command_line('search', database)} WORDS."
        raise NotFound("view", name, hint)
    near = suggestion(name, [one.name for one in known])
    command = command_line("views", database)
    hint = f"{near.removeprefix('; ').capitalize()} " if near else ""
    hint += f"{command} lists them; those of a file are there with --views FILE.py."
    raise NotFound("view", name, hint)


def _equals(wanted: View[Any, Any], wheres: Sequence[str]) -> dict[str, str | int | None]:
    """The values asked for.

    Raises:
        BadUsage: a condition is none, or its column or value cannot be.
    """
    columns = {column.name: column for column in wanted.columns}
    equals: dict[str, str | int | None] = {}
    for where in wheres:
        name, is_one, value = where.partition("=")
        if not is_one:
            raise BadUsage("--where", f"write COLUMN=VALUE, not {where!r:.100}")
        if name not in columns:
            near = suggestion(name, columns) or f"; it has {', '.join(columns)}"
            raise BadUsage("--where", f"view {wanted.name} has no column {name!r:.100}{near}")
        if name in equals:
            raise BadUsage("--where", f"column {name} is named twice")
        equals[name] = _value(columns[name], value)
    return equals


def _value(column: Column, given: str) -> str | int | None:
    if given == "" and column.nullable:
        return None
    if column.type is str:
        return given
    try:
        if column.type is bool:
            return _TRUTH[given.lower()]
        if abs(value := int(given)) < 2**63:
            return value
    except (KeyError, ValueError):
        pass
    what = "true or false" if column.type is bool else "an integer of 64 bits"
    raise BadUsage("--where", f"column {column.name} holds {what}, not {given!r:.100}")


def _csv_cell(value: str | int | None) -> str | int | None:
    """As in JSON: Python would write `True`."""
    return str(value).lower() if isinstance(value, bool) else value


def _cell(value: str | int | None) -> Cell:
    if value is None:
        return text("")
    shown = str(_csv_cell(value))
    return text(shown if len(shown) <= MAX_CELL_CHARS else f"{shown[: MAX_CELL_CHARS - 3]}...")
