"""Searching the log for words.

The stored index is brought up to date first where that takes a while; what is new since, or all if
the file cannot be written, is indexed for this one search, in a database of its own that SQLite
keeps in memory and, if it is large, in a temporary file. What is shown of an event is cut out by
FTS5 from the event itself, so a hit is one that the log confirms.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

from carstore.errors import Busy, DiskFull, ReadOnly, SchemaTooNew
from carstore.names import (
    Position,
    RunId,
    StreamName,
    check_kinds,
    inbox_stream,
    lease_stream,
    run_lease,
    run_stream,
)
from carstore.store import Store
from projections import kept
from projections import search_index as index
from projections.errors import InvalidSearch
from projections.rebuild import Progress
from projections.search_hits import Hit, hits_of
from projections.search_index import INDEX, SQL

__all__ = ["is_worth_storing", "search"]

LIMIT = 20
"""Hits, unless asked for more or fewer."""

MAX_QUERY_CHARS = 4_000
"""Of all words together. People type a few; a program that asks for more means something else."""

_PAGE_HITS = 100
_SYNTAX = (
    "Put words with signs in them in double quotes; for all that can be asked see "
    "https://sqlite.org/fts5.html#full_text_query_syntax"
)
_FOREVER = 2**63 - 1


async def search(
    store: Store,
    words: str | Sequence[str],
    *,
    kinds: Collection[str] | None = None,
    run: RunId | None = None,
    limit: int = LIMIT,
    at: int | None = None,
    best: bool = False,
    syntax: bool = False,
    progress: Progress | None = None,
) -> list[Hit]:
    """The events in which all `words` are, the newest first.

        await search(store, "connection refused", kinds=["action_failed"])

    A word is a whole one; capitals and accents make no difference.

    Args:
        words: a text, of whose words each must be there, or a list of words and phrases.
        kinds: only events of these kinds.
        run: only events of this run, its inbox and its lease.
        limit: how many hits at most; 1 or more.
        at: only events up to this position.
        best: the best first, by FTS5's bm25, instead of the newest.
        syntax: take `words` as a query in the syntax of FTS5, with the columns kind, stream, run,
            key and text.
        progress: called while the log is indexed.

    Raises:
        InvalidSearch: no words, too many, or a query that FTS5 does not understand.
        NoFullText: this SQLite has no FTS5.
        ViewDamaged: the stored index is not what this program stored.
        CorruptLog, StoreFailed, Closed
    """
    check_kinds(kinds)
    if limit < 1:
        raise ValueError(f"limit is 1 or more, not {limit}")
    given = ([words] if syntax else words.split()) if isinstance(words, str) else list(words)
    make_query = _as_it_is if syntax else _all_of
    with index.scratch() as scratch:
        wanted = _Wanted(
            query=make_query(scratch, given),
            kinds=None if kinds is None else json.dumps(sorted(kinds)),
            streams=None if run is None else json.dumps(_streams(run)),
            limit=limit,
            best=best,
        )
        if store.writable and await is_worth_storing(store, best=best):
            with suppress(Busy, DiskFull, ReadOnly, SchemaTooNew):
                await index.catch_up_search(store, progress=progress)
        positions = await _find(store, scratch, wanted, _FOREVER if at is None else at, progress)
        hits: list[Hit] = []
        remaining = iter(positions)
        while some := list(islice(remaining, _PAGE_HITS)):
            show = partial(hits_of, scratch=scratch, query=wanted.query, positions=some)
            hits += await store.database.read(show)
        return hits


def _streams(run: RunId) -> list[StreamName]:
    return [run_stream(run), inbox_stream(run), lease_stream(run_lease(run))]


# --- what is asked for ---


class _Wanted(NamedTuple):
    query: str
    kinds: str | None
    """JSON."""
    streams: str | None
    """JSON."""
    limit: int
    best: bool


def _all_of(scratch: sqlite3.Connection, words: list[str]) -> str:
    """A query for all of `words`, in which nothing of them is syntax."""
    parts = []
    for word in words:
        part = index.usable(word)
        scratch.execute(SQL["insert_shown"], (1, "", "", "", "", part))
        has_token = scratch.execute(SQL["has_token"], (1,)).fetchone() is not None
        scratch.execute(SQL["clear_shown"])
        if not has_token:
            raise InvalidSearch(word, "it has no letter and no digit, and only these are indexed.")
        parts.append('"{}"'.format(part.replace('"', '""')))
    return _checked(scratch, parts, words)


def _as_it_is(scratch: sqlite3.Connection, words: list[str]) -> str:
    """A query in the syntax of FTS5."""
    return _checked(scratch, [index.usable(word) for word in words], words)


def _checked(scratch: sqlite3.Connection, parts: list[str], given: list[str]) -> str:
    """A query that FTS5 understands."""
    query, told = " ".join(parts), " ".join(given)
    if not query.strip():
        raise InvalidSearch(told, "there is no word in it.")
    if len(query) > MAX_QUERY_CHARS:
        raise InvalidSearch(told, f"it is longer than {MAX_QUERY_CHARS:,} characters.")
    try:
        scratch.execute(SQL["try_query"], (query,)).fetchone()
    except sqlite3.OperationalError as error:
        raise InvalidSearch(told, f"{_reason(error)}. {_SYNTAX}") from error
    return query


def _reason(error: sqlite3.OperationalError) -> str:
    reason = str(error).removeprefix("fts5: ").replace(index.SEPARATOR, "")
    if reason == 'syntax error near ""':
        return "it ends too early"
    if reason.startswith("no such column"):
        return f"{reason}; there are kind, stream, run, key and text"
    return reason


# --- looking for it ---


async def is_worth_storing(store: Store, *, best: bool) -> bool:
    """Whether the stored index is to be brought up to date for a search, if that is possible; for
    the best, it has to hold everything."""
    return (await index.search_place(store)).behind > (0 if best else kept.TAIL_EVENTS)


class _Found(NamedTuple):
    positions: list[Position]
    known: int
    """Up to where the index was searched."""
    until: int
    """Up to where to search."""


async def _find(
    store: Store,
    scratch: sqlite3.Connection,
    wanted: _Wanted,
    at: int,
    progress: Progress | None,
) -> list[Position]:
    stored = await store.database.read(partial(_in_index, wanted=wanted, at=at))
    after, until = stored.known, stored.until
    if after == until:
        return stored.positions
    while after < until:
        after = await store.database.read(
            partial(index.add, scratch=scratch, after=after, until=until),
        )
        if progress:
            progress(Position(after), Position(until))
    newer = await store.database.read(lambda _: _positions(scratch, wanted, until))
    return [*newer, *stored.positions][: wanted.limit]


def _in_index(connection: sqlite3.Connection, wanted: _Wanted, at: int) -> _Found:
    """What the stored index has. Ranks of two indexes cannot be compared: the best are looked for
    in this one only if it has all events."""
    with index.damage(), kept.snapshot(connection):
        place = index.place(connection)
        until = min(at, place.head)
        known = min(place.position or 0, until)
        if not known or (wanted.best and known < until):
            return _Found([], 0, until)
        return _Found(_positions(connection, wanted, known), known, until)


def _positions(connection: sqlite3.Connection, wanted: _Wanted, until: int) -> list[Position]:
    order = "i.rank, i.rowid DESC" if wanted.best else "i.rowid DESC"
    sql = SQL["matching"].format(index=INDEX, order=order)
    return [found for (found,) in connection.execute(sql, {**wanted._asdict(), "until": until})]
