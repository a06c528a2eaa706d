"""`carstore search`: events by the words in them."""

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from attrs import frozen

from carstore import Store, connect
from carstore.errors import Busy, CannotOpen, DiskFull, ReadOnly
from carstore.names import Json, RunId
from carstore.sqlite.migrations import SCHEMA
from engine.cli.meter import Meter
from engine.cli.options import (
    COUNT,
    at_option,
    check_at,
    check_kinds,
    check_run,
    database,
    json_option,
    kind_option,
    reading,
)
from engine.cli.screen import print_json, say, show, text, to_terminal, write
from engine.cli.stopping import run_stoppable
from engine.propose import check_run_id
from engine.results import rfc3339
from projections.search import LIMIT, is_worth_storing
from projections.search import search as find
from projections.search_hits import Hit
from projections.search_index import catch_up_search

if TYPE_CHECKING:
    from engine.cli.screen import Cell

__all__ = ["search"]

BUSY_TIMEOUT_MS = 1_000
"""How long to wait for other processes before searching without storing the index."""


@click.command()
@database
@click.argument("words", metavar="WORDS...", nargs=-1, required=True)
@kind_option
@click.option("--run", metavar="RUN", help="Only events of this run.")
@click.option(
    "--limit",
    type=COUNT,
    default=LIMIT,
    show_default=True,
    metavar="N",
    help="At most N events.",
)
@at_option
@click.option("--best", is_flag=True, help="The best first, instead of the newest.")
@click.option("--query", is_flag=True, help="Take WORDS as a query in the syntax of FTS5.")
@json_option
def search(
    database: str,
    words: tuple[str, ...],
    kinds: tuple[str, ...],
    run: str | None,
    limit: int,
    at: int | None,
    best: bool,
    query: bool,
    as_json: bool,
) -> None:
    """Print the events in which all WORDS are, the newest first.

    Names and texts in the data of events are searched, and their kinds, streams, runs and state
    keys. Several words in quotes are a phrase. The index is stored in DB and brought up to date
    when it is needed.
    """
    wanted = Wanted(
        words=words,
        kinds=kinds or None,
        run=None if run is None else check_run_id(run),
        limit=limit,
        at=at,
        best=best,
        query=query,
    )
    hits = run_stoppable(_search(database, wanted))
    if as_json:
        print_json([_json(hit) for hit in hits[:limit]])
        return
    if not hits:
        write("Nothing was found.")
        return
    show(_lines(hits[:limit]))
    if len(hits) > limit:
        say(f"There are more than {limit}; --limit shows more.")


@frozen(kw_only=True)
class Wanted:
    """What to search for."""

    words: tuple[str, ...]
    kinds: Collection[str] | None
    run: RunId | None
    limit: int
    at: int | None
    best: bool
    query: bool


async def _search(path: str, wanted: Wanted) -> list[Hit]:
    """The hits, and one more than asked for, if there is one."""
    async with reading(path) as store:
        await check_kinds(store, wanted.kinds or ())
        await check_at(store, wanted.at)
        if wanted.run is not None:
            await check_run(store, wanted.run)
        await _store_index(store, best=wanted.best)
        with Meter("search: indexed") as meter:
            return await find(
                store,
                wanted.words,
                kinds=wanted.kinds,
                run=wanted.run,
                limit=wanted.limit + 1,
                at=wanted.at,
                best=wanted.best,
                syntax=wanted.query,
                progress=meter,
            )


async def _store_index(store: Store, *, best: bool) -> None:
    """Bring the stored index up to date, where that is worth it and can be done; a file of an older
    carstore is not migrated for a search."""
    [(schema,)] = await store.database.fetch("PRAGMA user_version")
    if schema != SCHEMA or not await is_worth_storing(store, best=best):
        return
    with suppress(Busy, CannotOpen, DiskFull, ReadOnly):
        async with connect(
            store.path, create=False, instance="carstore search", busy_timeout_ms=BUSY_TIMEOUT_MS
        ) as writing:
            with Meter("search: indexed") as meter:
                await catch_up_search(writing, progress=meter)


def _json(hit: Hit) -> Json:
    return {
        "position": hit.position,
        "stream": hit.stream,
        "kind": hit.kind,
        "recorded_at": rfc3339(hit.recorded_at),
        "run_id": hit.run_id,
        "scope": hit.scope,
        "key": hit.key,
        "snippet": hit.snippet,
        "marks": [list(mark) for mark in hit.marks],
    }


def _lines(hits: list[Hit]) -> "Cell":
    """Two lines for each hit."""
    shown = text("")
    for number, hit in enumerate(hits):
        key = "" if hit.key is None else f" {hit.scope}:{hit.key}"
        shown.append("\n" if number else "")
        shown.append(text(f"{hit.position:>6}", "bold"))
        shown.append(text(f"  {rfc3339(hit.recorded_at)}  {hit.stream}  {hit.kind}{key}"))
        shown.append("\n        ")
        shown.append(_marked(hit))
    return shown


def _marked(hit: Hit) -> "Cell":
    """The snippet with its hits in colour, or in brackets where there is none."""
    style, opening, closing = ("bold red", "", "") if to_terminal() else ("", "[", "]")
    shown, after = text(""), 0
    for begin, end in hit.marks:
        shown.append(text(hit.snippet[after:begin]))
        shown.append(text(f"{opening}{hit.snippet[begin:end]}{closing}", style))
        after = end
    return shown.append(text(hit.snippet[after:]))
