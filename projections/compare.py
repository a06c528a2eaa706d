"""Holding stored rows against the log."""

import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from attrs import frozen

from carstore.names import Position
from carstore.store import Store
from projections import kept, tables
from projections.errors import ViewDamaged
from projections.memory import fold_into
from projections.scan import Progress, pages
from projections.view import Key, R, View

__all__ = ["Difference", "compare"]

MAX_DIFFERENCES = 10
"""Rows to name: one shows that something is wrong, a few show what."""


@frozen(kw_only=True)
class Difference:
    """One row of a view that is not what the log says, or (without a key) a view in disorder."""

    view: str
    position: Position
    """Of the last event that is in the stored rows."""
    key: Key | None
    reason: str

    @property
    def message(self) -> str:
        """One sentence for people. Values in it may hold any character."""
        row = "" if self.key is None else f", row {self.key!r:.200}"
        return f"view {self.view!r}{row}: {self.reason}"


async def compare(
    store: Store,
    view: View[Any, Any],
    *,
    limit: int = MAX_DIFFERENCES,
    progress: Progress | None = None,
) -> list[Difference]:
    """Fold `view` from the first event, compare with the rows in the file, and say what differs.

    Nothing is written. A view that is not stored yet differs in nothing.

    Args:
        limit: how many rows to name at most.

    Raises:
        UnknownEvent: at an event of a newer carstore.
        ViewFailed: a function of the view raises, or answers what no view can have.
    """
    try:
        position, stored = await store.database.read(partial(_stored, view=view))
    except ViewDamaged as damaged:
        head = (await store.log.head()).position
        return [Difference(view=view.name, position=head, key=None, reason=damaged.reason)]
    folded: dict[Key, Any] = {}
    async for events, _ in pages(store, view, 0, position, progress):
        fold_into(folded, view, events)
    found: list[Difference] = []
    for key, reason in _differences(view, stored, folded):
        if len(found) == limit:
            break
        found.append(Difference(view=view.name, position=position, key=key, reason=reason))
    return found


def _stored(connection: sqlite3.Connection, view: View[Any, R]) -> tuple[Position, dict[Key, R]]:
    with kept.damage(view.name), kept.snapshot(connection):
        place = tables.place(connection, view)
        if place.position is None:
            return Position(0), {}
        return place.position, tables.select(connection, view, place.table)


def _differences(
    view: View[Any, R], stored: Mapping[Key, R], folded: Mapping[Key, R]
) -> Iterator[tuple[Key, str]]:
    for key in sorted(stored.keys() | folded.keys()):
        if key not in stored:
            yield key, "is missing; the log makes it"
        elif key not in folded:
            yield key, "is there, and nothing in the log makes it"
        elif stored[key] != folded[key]:
            yield key, "; ".join(_columns(view, stored[key], folded[key]))


def _columns(view: View[Any, R], stored: R, folded: R) -> Iterator[str]:
    for column, was, should in zip(
        view.columns, view.values_of(stored), view.values_of(folded), strict=True
    ):
        if was != should:
            yield f"{column.name} is {was!r:.80}, and {should!r:.80} by the log"
