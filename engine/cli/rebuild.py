"""`carstore rebuild`: views made anew from the log."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import click
from attrs import frozen

from carstore import Store, connect
from carstore.names import Json
from engine.cli.meter import Meter
from engine.cli.options import all_views, database, json_option, views_option
from engine.cli.redirect import tools_print_to_stderr
from engine.cli.screen import Cell, print_json, say, table, text
from engine.cli.stopping import run_stoppable
from engine.cli.views import find_view
from projections import Rebuilt, View
from projections import rebuild as rebuild_view
from projections.search_index import NAME as SEARCH
from projections.search_index import search_place
from projections.search_rebuild import rebuild_search

__all__ = ["rebuild"]

_STYLES = {"different": "yellow", "damaged": "yellow"}


@click.command()
@database
@click.option("--view", "names", metavar="NAME", multiple=True, help="Only this view; repeatable.")
@views_option
@json_option
def rebuild(database: str, names: tuple[str, ...], views_file: str | None, as_json: bool) -> None:
    """Make views of DB anew from the log, and print the checksum of each.

    The old rows stay in use until the new ones are complete and at the head of the log. BEFORE says
    how the old rows compared with what the log says of their position.
    """
    with tools_print_to_stderr():
        known = all_views(views_file)
        found = run_stoppable(_rebuild(database, known, names))
    if as_json:
        print_json([_json(one) for one in found])
    else:
        titles = ("VIEW", ">VERSION", ">ROWS", ">POSITION", "CHECKSUM", ">SECONDS", "BEFORE")
        table(titles, [_cells(one) for one in found])
    for one in found:
        if one.rebuilt.before in _STYLES:
            say(
                f"The rows of {one.rebuilt.view} were not those of the log, and are now. Whoever "
                "read them meanwhile was told something wrong."
            )


@frozen
class _Done:
    rebuilt: Rebuilt
    seconds: float


_Work = Callable[[Store, Meter], Awaitable[Rebuilt]]


async def _rebuild(path: str, known: Sequence[View[Any, Any]], names: Sequence[str]) -> list[_Done]:
    work = _named(path, known, names)
    async with connect(path, create=False, instance="carstore rebuild") as store:
        if not names and (await search_place(store)).position is None:
            del work[SEARCH]  # nobody has searched yet
        done = []
        for name, one in work.items():
            began = time.monotonic()
            with Meter(f"view {name}: folded") as meter:
                rebuilt = await one(store, meter)
            done.append(_Done(rebuilt, time.monotonic() - began))
        return done


def _named(path: str, known: Sequence[View[Any, Any]], names: Sequence[str]) -> dict[str, _Work]:
    """How to rebuild each view that was named, or all.

    Raises:
        NotFound: there is no such view.
        InvalidView: the triggers of the file keep it.
    """
    every: dict[str, _Work] = {
        one.name: partial(_view, view=one) for one in known if one.inline is None
    }
    every[SEARCH] = _search
    for name in names:
        if name not in every:  # one that the file keeps goes on, and is told to need no rebuild
            every[name] = partial(_view, view=find_view(known, name, path))
    return {name: every[name] for name in (dict.fromkeys(names) if names else every)}


async def _view(store: Store, meter: Meter, view: View[Any, Any]) -> Rebuilt:
    return await rebuild_view(store, view, progress=meter)


async def _search(store: Store, meter: Meter) -> Rebuilt:
    return await rebuild_search(store, progress=meter)


def _json(one: _Done) -> Json:
    rebuilt = one.rebuilt
    return {
        "view": rebuilt.view,
        "version": rebuilt.version,
        "position": rebuilt.position,
        "rows": rebuilt.rows,
        "checksum": rebuilt.checksum,
        "before": rebuilt.before,
        "seconds": round(one.seconds, 3),
    }


def _cells(one: _Done) -> list[Cell]:
    rebuilt = one.rebuilt
    before = "not stored" if rebuilt.before == "none" else rebuilt.before
    return [
        text(rebuilt.view),
        text(rebuilt.version),
        text(f"{rebuilt.rows:,}"),
        text(f"{rebuilt.position:,}"),
        text(rebuilt.checksum),
        text(f"{one.seconds:.2f}"),
        text(before, _STYLES.get(before, "")),
    ]
