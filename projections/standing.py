"""Which views there are in a file, in which versions, and how far each is behind the log."""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

from attrs import frozen

from carstore.errors import UnknownEvent
from carstore.events import KINDS, SCHEMA_VERSIONS
from carstore.names import Position
from carstore.store import Store
from projections import kept, search_index, tables
from projections.catalog import VIEWS
from projections.errors import ViewDamaged
from projections.statements import SQL
from projections.view import View

__all__ = ["Standing", "standings"]

Status = Literal["inline", "complete", "building", "not stored", "damaged"]
"""`inline`: kept by the triggers of the file, always up to date. `complete`: it was at the head of
the log once. `building`: it was not yet. `not stored`: it is made when somebody asks for it."""

_TABLE = re.compile(r"view_([a-z][a-z0-9_]*)_v(\d+)(_building)?\Z")


@frozen(kw_only=True)
class Standing:
    """One version of a view, as far as a file holds it."""

    name: str
    version: int
    known: bool
    """Whether this program has its definition. Others are another program's, or were given up."""
    kinds: tuple[str, ...] | None
    """The events it reads; None if it reads all, or that is not known."""
    status: Status
    rows: int | None
    """Rows that are stored; None if that cannot be told."""
    position: Position | None
    """Of the last event that is in the stored rows."""
    behind: int | None
    """How many events came after that one."""
    shown: bool
    """Whether the plain name of the view, in SQL, shows this version."""
    stopped_by: UnknownEvent | None
    """The event that this program does not know and at which it cannot go on with the view."""


async def standings(store: Store, views: Iterable[View[Any, Any]] = VIEWS) -> list[Standing]:
    """Every version of every view: those given, the search, and whatever else the file has.

    Nothing is caught up and nothing is written.
    """
    return await store.database.read(partial(_standings, views=tuple(views)))


class _File(NamedTuple):
    """What is to be known of a file for all views alike."""

    head: Position
    positions: dict[tuple[str, int], int]
    tables: frozenset[str]
    unknown: list[UnknownEvent]


def _standings(connection: sqlite3.Connection, views: tuple[View[Any, Any], ...]) -> list[Standing]:
    with kept.snapshot(connection):
        file = _file(connection)
        found = [_of_view(connection, view, file) for view in views]
        found.append(_of_search(connection, file))
        known = {(one.name, one.version) for one in found}
        others = [one for one in _in_file(file) if one not in known]
        found += [_of_other(connection, name, version, file) for name, version in others]
    return found


def _file(connection: sqlite3.Connection) -> _File:
    (head,) = connection.execute(SQL["head"]).fetchone()
    positions = {
        (name, version): position
        for name, version, position in connection.execute(SQL["view_positions"])
    }
    names = frozenset(kept.table_names(connection))
    return _File(Position(head), positions, names, unknown_events(connection))


def unknown_events(connection: sqlite3.Connection) -> list[UnknownEvent]:
    """The first event of each kind and schema version that this program does not know."""
    known = [
        (kind, version)
        for kind, newest in SCHEMA_VERSIONS.items()
        for version in range(1, newest + 1)
    ]
    found = connection.execute(SQL["unknown_events"], {"known": json.dumps(known)})
    return [UnknownEvent(kind, version, position) for kind, version, position in found]


def _in_file(file: _File) -> Iterator[tuple[str, int]]:
    """The names and versions of all views that have rows or a position in a file."""
    found = set(file.positions)
    for table in file.tables:
        match = _TABLE.match(table)
        if match is not None:
            found.add((match[1], int(match[2])))
    yield from sorted(found)


def _of_view(connection: sqlite3.Connection, view: View[Any, Any], file: _File) -> Standing:
    try:
        with kept.damage(view.name):
            place = tables.place(connection, view)
            status: Status = "complete" if place.complete else "building"
            rows = 0
            if view.inline is not None:
                status = "inline"
            elif place.position is None:
                status = "not stored"
            if status != "not stored":
                source = tables.source(view, place.table)
                (rows,) = connection.execute(SQL["count_rows"].format(source=source)).fetchone()
                next(tables.stored(connection, view, place.table, {}), None)
            position = place.position
    except ViewDamaged:
        status, rows, position = "damaged", None, None
    return Standing(
        name=view.name,
        version=view.version,
        known=True,
        kinds=tuple(sorted(view.reads)),
        status=status,
        rows=rows,
        position=position,
        behind=None if status == "damaged" else file.head - (position or 0),
        shown=_shown(connection, view.name) == view.version,
        stopped_by=_stop(view, position, file),
    )


def _stop(view: View[Any, Any], position: int | None, file: _File) -> UnknownEvent | None:
    """The first event after `position` that a fold of the view would refuse."""
    for event in file.unknown:
        refused = event.kind in view.reads or event.kind not in KINDS
        if refused and event.position > (position or 0):
            return event
    return None


def _of_search(connection: sqlite3.Connection, file: _File) -> Standing:
    status: Status = "complete"
    try:
        with search_index.damage():
            position = search_index.place(connection).position
    except ViewDamaged:
        status, position = "damaged", None
    if position is None and status != "damaged":
        status = "not stored"
    return Standing(
        name=search_index.NAME,
        version=search_index.VERSION,
        known=True,
        kinds=None,
        status=status,
        rows=None if status == "damaged" else position or 0,
        position=position,
        behind=None if status == "damaged" else file.head - (position or 0),
        shown=False,
        stopped_by=None,
    )


def _of_other(connection: sqlite3.Connection, name: str, version: int, file: _File) -> Standing:
    position = file.positions.get((name, version))
    table = f"view_{name}_v{version}"
    complete, building = table in file.tables, f"{table}_building" in file.tables
    status: Status = "complete" if complete else "building" if building else "not stored"
    if position is None or position > file.head:
        status, position = "damaged", None
    rows: int | None = None
    if complete or building:
        quoted = (table if complete else f"{table}_building").replace('"', '""')
        try:
            count = SQL["count_rows"].format(source=f'"{quoted}"')
            (rows,) = connection.execute(count).fetchone()
        except sqlite3.DatabaseError:  # of a kind of table that this SQLite cannot read, say
            status = "damaged"
    return Standing(
        name=name,
        version=version,
        known=False,
        kinds=None,
        status=status,
        rows=rows,
        position=None if position is None else Position(position),
        behind=None if position is None else file.head - position,
        shown=_shown(connection, name) == version,
        stopped_by=None,
    )


def _shown(connection: sqlite3.Connection, name: str) -> int | None:
    """The version that the plain name shows."""
    found = connection.execute(SQL["object"], {"name": name}).fetchone()
    return None if found is None else tables.shown_version(name, *found)
