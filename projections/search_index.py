"""The index of the search: which words stand in which event.

It is an FTS5 table without the texts themselves, since these are in the events. What is indexed of
an event are its kind, its stream, its run, its state key, and every text in its data, names and
values. A value that lies beside the log is there by its hash only: so what is sensitive never comes
here, and what is forgotten leaves nothing behind.

The index is kept as views are: caught up in chunks, words and position in one transaction. It only
ever grows, as the log does.
"""

import re
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from carstore.blobs import referred
from carstore.canonical import loads_trusted
from carstore.names import Json, Position
from carstore.sqlite.statements import parse_named
from carstore.store import Store
from projections import kept
from projections.catch_up import CHECKPOINT_STEPS
from projections.errors import NoFullText
from projections.kept import Place
from projections.rebuild import Progress

__all__ = ["INDEX", "NAME", "VERSION", "catch_up_search", "search_place"]

NAME = "search"
"""Of the index in the table `view_positions`."""

VERSION = 1
"""Raised whenever other words of an event are indexed, or in another way."""

INDEX = f"view_{NAME}_v{VERSION}"

PAGE_EVENTS = 2_000
"""Events of one transaction, which takes some tens of milliseconds."""

PAGE_CHARS = 4 * 1024 * 1024
"""Data of one transaction. Events may be megabytes each."""

SQL = parse_named(Path(__file__).with_name("search.sql").read_text(encoding="utf-8"))

_SHADOWS = ("data", "idx", "docsize", "config")
_DAMAGE = "SQLITE_CORRUPT_VTAB"

_UNUSABLE = re.compile("[\0\2\3\ud800-\udfff]")
"""What ends a text in SQLite, what marks hits in snippets, what UTF-8 has no bytes for."""

_SCRIPT_WITHOUT_SPACES = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)
"""Chinese and Japanese: each character is made a word, so that words are found within a text."""

SEPARATOR = "\u200b"
"""Put around such a character; it has no width, and is taken out of what is shown."""


class Text(NamedTuple):
    """What is indexed of an event."""

    position: int
    kind: str
    stream: str
    run: str
    key: str
    text: str


def usable(text: str) -> str:
    """`text` in which the tokenizer finds the words; for what is indexed and what is asked for."""
    text = _UNUSABLE.sub(" ", text)
    if text.isascii():
        return text
    return _SCRIPT_WITHOUT_SPACES.sub(rf"{SEPARATOR}\g<0>{SEPARATOR}", text)


def text_of(row: tuple[Any, ...]) -> Text:
    """The text of an event, from its row in `texts_after`."""
    position, _, kind, stream, run, key, data = row[:7]
    return Text(
        position, *[usable(part) for part in (kind, stream, run or "", key or "", strings(data))]
    )


def strings(data: str) -> str:
    """All texts in the data of an event, names and values, in order.

    Data that are no JSON, in a file that was damaged, are taken as they stand.
    """
    try:
        value = loads_trusted(data)
    except (ValueError, RecursionError):
        return data
    return " \u00b7 ".join(_strings(value))


def _strings(value: Json) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            pending.extend(reversed(item))
        elif isinstance(item, dict):
            found = referred(item)
            if found is not None:
                yield found
                continue
            for name, inner in reversed(item.items()):
                pending += [f"{name}: {inner}"] if isinstance(inner, str) else [inner, name]


# --- the table ---


@contextmanager
def damage(*more: str) -> Generator[None, None, None]:
    """Say that it is the index when SQLite refuses a statement on it: the store itself is well.

    Args:
        more: names of errors that can only mean the index, where nothing else is read.

    Raises:
        NoFullText, ViewDamaged
    """
    with kept.damage(NAME, _DAMAGE, *more):
        try:
            yield
        except sqlite3.Error as error:
            if str(error).startswith("no such module"):
                raise NoFullText(sqlite3.sqlite_version) from error
            raise


def place(connection: sqlite3.Connection) -> Place:
    """How far the index is.

    Raises:
        ViewDamaged: it has events that the log does not have.
    """
    wanted = {"name": NAME, "version": VERSION, "index": INDEX}
    position, head = connection.execute(SQL["place"], wanted).fetchone()
    return kept.checked(NAME, Place(position, head))


async def search_place(store: Store) -> Place:
    """How far the stored index is (None: there is none), and the head of the log."""
    return await store.database.read(place)


class Page(NamedTuple):
    """Rows of `texts_after`, and the position up to which there is none that was left out."""

    rows: list[tuple[Any, ...]]
    until: Position


def page(connection: sqlite3.Connection, after: int, until: int) -> Page:
    """The first events after position `after` (exclusive), up to `until`."""
    wanted = {"after": after, "until": until, "limit": PAGE_EVENTS}
    rows: list[tuple[Any, ...]] = []
    chars = 0
    with closing(connection.execute(SQL["texts_after"], wanted)) as cursor:
        for row in cursor:
            rows.append(row)
            chars += len(row[6])
            if chars > PAGE_CHARS:
                return Page(rows, row[0])
    return Page(rows, rows[-1][0] if len(rows) == PAGE_EVENTS else Position(until))


def create(connection: sqlite3.Connection, index: str) -> None:
    """Make an empty index."""
    connection.execute(SQL["create"].format(index=index))


def insert(connection: sqlite3.Connection, index: str, texts: list[Text]) -> None:
    """Index some texts."""
    connection.executemany(SQL["insert"].format(index=index), texts)


def drop(connection: sqlite3.Connection, index: str) -> None:
    """Remove an index if it is there, also one that SQLite cannot open any more."""
    if connection.execute(SQL["sql_of"], (index,)).fetchone() is None:
        return
    empty = f"{index}_empty"
    create(connection, empty)
    for part in _SHADOWS:
        old, new = f"{index}_{part}", f"{empty}_{part}"
        (sql,) = connection.execute(SQL["sql_of"], (new,)).fetchone()
        connection.execute(SQL["drop"].format(table=old))
        connection.execute(sql.replace(new, old))
        connection.execute(SQL["copy"].format(table=old, other=new))
    for table in (index, empty):
        connection.execute(SQL["drop"].format(table=table))


# --- keeping it ---


async def catch_up_search(store: Store, *, progress: Progress | None = None) -> Position:
    """Index what is new, and return the position that the index is at.

    Raises:
        NoFullText, ViewDamaged
        ReadOnly, Busy, DiskFull, StoreFailed, SchemaTooNew, Closed
    """
    found = await store.database.read(place)
    steps = 0
    while found.position is None or found.position < found.head:
        found = await store.database.write(partial(_step, path=store.path))
        steps += 1
        if progress:
            progress(found.position or Position(0), found.head)
        if steps % CHECKPOINT_STEPS == 0:
            await store.database.checkpoint()
    return found.position


def _step(connection: sqlite3.Connection, path: str) -> Place:
    with damage(), kept.transaction(connection, path):
        found = place(connection)
        if found.position is None:
            drop(connection, INDEX)
            create(connection, INDEX)
        elif found.position == found.head:  # somebody else was faster
            return found
        rows, until = page(connection, found.position or 0, found.head)
        insert(connection, INDEX, [text_of(row) for row in rows])
        kept.set_position(connection, NAME, VERSION, until)
        return Place(until, found.head)


# --- outside of the file ---


@contextmanager
def scratch() -> Generator[sqlite3.Connection, None, None]:
    """A database for one search, in memory and, if it grows large, in a temporary file: an empty
    index, with as much of the log's tables as a search reads. For the thread of the reader.

    Raises:
        NoFullText
    """
    with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as connection:
        with damage():
            create(connection, INDEX)
            for statement in ("shown", "events", "streams", "tokens"):
                connection.execute(SQL[f"create_{statement}"])
        yield connection


def add(
    connection: sqlite3.Connection, scratch: sqlite3.Connection, after: int, until: int
) -> Position:
    """Index some events there, and return the position of the last."""
    rows, reached = page(connection, after, until)
    scratch.execute("BEGIN")
    insert(scratch, INDEX, [text_of(row) for row in rows])
    scratch.executemany(SQL["insert_event"], [row[:3] for row in rows])
    scratch.executemany(SQL["insert_stream"], {(row[1], row[3]) for row in rows})
    scratch.execute("COMMIT")
    return reached
