"""What is shown of the events that a search has found."""

import json
import re
import sqlite3
from typing import Any

from attrs import frozen

from carstore.names import Micros, Position, RunId, Scope, StateKey, StreamName
from projections import search_index as index
from projections.errors import ViewDamaged
from projections.search_index import SQL

__all__ = ["Hit", "hits_of"]

SNIPPET_WORDS = 24
"""Words shown of an event, at most."""

SNIPPET_CHARS = 400
"""Characters of these: what counts as a word may be a megabyte without a space."""

_MARK, _MARK_END = "\2", "\3"
_BEFORE_MARK = 100
_CUT = "\u2026"


@frozen(kw_only=True)
class Hit:
    """An event in which the words were found."""

    position: Position
    stream: StreamName
    kind: str
    recorded_at: Micros
    run_id: RunId | None
    scope: Scope | None
    key: StateKey | None
    """The state key that was changed, if it is such an event."""
    snippet: str
    """The part of its data where most of the words are; if they are not there, its kind, stream,
    run or key."""
    marks: tuple[tuple[int, int], ...]
    """Where in `snippet` they are: begin and end, as of a slice."""


def hits_of(
    connection: sqlite3.Connection,
    scratch: sqlite3.Connection,
    query: str,
    positions: list[Position],
) -> list[Hit]:
    """The events at `positions`, with what `query` finds in them.

    Raises:
        ViewDamaged: it finds nothing in one of them; so the index was wrong.
    """
    rows = connection.execute(SQL["found"], {"positions": json.dumps(positions)}).fetchall()
    scratch.execute(SQL["clear_shown"])
    scratch.executemany(SQL["insert_shown"], [index.text_of(row) for row in rows])
    wanted = {"query": query, "words": SNIPPET_WORDS}
    snippets: dict[int, str] = {
        position: of_data if _MARK in of_data else of_any
        for position, of_data, of_any in scratch.execute(SQL["snippets"], wanted)
    }
    hits = {row[0]: _hit(row, snippets[row[0]]) for row in rows if row[0] in snippets}
    for position in positions:
        if position not in hits:
            raise ViewDamaged(index.NAME, f"it finds event {position}, which has no such words")
    return [hits[position] for position in positions]


def _hit(row: tuple[Any, ...], snippet: str) -> Hit:
    position, _, kind, stream, run_id, key, _, scope, recorded_at = row
    shown, marks = _cut(*_unmarked(snippet))
    return Hit(
        position=position,
        stream=stream,
        kind=kind,
        recorded_at=recorded_at,
        run_id=run_id,
        scope=scope,
        key=key,
        snippet=shown,
        marks=tuple(marks),
    )


def _unmarked(snippet: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without the signs that FTS5 put around hits, and where these were."""
    shown, marks = "", []
    parts = re.split(f"[{_MARK}{_MARK_END}]", snippet.replace(index.SEPARATOR, ""))
    for number, part in enumerate(parts):
        if number % 2:
            marks.append((len(shown), len(shown) + len(part)))
        shown += part
    return shown, marks


def _cut(shown: str, marks: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """At most `SNIPPET_CHARS`, with the first hit in them."""
    if len(shown) <= SNIPPET_CHARS:
        return shown, marks
    begin = max(0, marks[0][0] - _BEFORE_MARK) if marks else 0
    end = begin + SNIPPET_CHARS - 2
    before, after = _CUT if begin else "", _CUT if end < len(shown) else ""
    moved = [
        (max(first - begin, 0) + len(before), min(last, end) - begin + len(before))
        for first, last in marks
        if first < end
    ]
    return f"{before}{shown[begin:end]}{after}", moved
