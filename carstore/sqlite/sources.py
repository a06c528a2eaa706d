"""The ways in which a damaged file can be read: by SQLite, with its WAL or without; page by page.

Each gives rows as they stand, in order; what they are worth is for others to judge.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal, Protocol, TypeAlias

from attrs import define

from carstore.chain import GENESIS, hash_of_columns
from carstore.errors import SchemaTooNew
from carstore.origin import Progress
from carstore.sqlite import wal
from carstore.sqlite.migrations import APPLICATION_ID, SCHEMA
from carstore.sqlite.raw_pages import Found, NoRow, Pages, Record, search
from carstore.sqlite.readonly import READ_ERRORS, open_tolerant
from carstore.sqlite.scan import VERIFY, Row, Unreadable, read_page

Way: TypeAlias = Literal["whole", "without_wal", "pages"]
"""`whole`: by SQLite, as it is; `without_wal`: by SQLite, the WAL left out; `pages`: by looking
through all pages for what looks like an event."""

PAGE_ROWS = 1_000

MAX_EMPTY_PAGES = 100
"""So many pages without one readable row are skipped when what is left is looked for."""


class Source(Protocol):
    """A damaged file, opened in one way."""

    way: Way

    def items(self, after: int, tell: Progress) -> Iterator[Row | Unreadable]:
        """The rows after a position, at least until the first that cannot be read."""
        ...

    def rest(self, after: int, tell: Progress) -> Iterator[Row]:
        """All rows after a position that can be read, the bytes of texts that are none written as
        `\\xff`."""
        ...

    def value(self, blob: str) -> Iterator[tuple[object, object, object]]:
        """Hash, nonce and body of what may be a value beside the log."""
        ...

    def close(self) -> None: ...


@define
class BySqlite:
    """As SQLite reads it."""

    way: Way
    _connection: sqlite3.Connection

    @classmethod
    def open(cls, path: str, *, with_wal: bool) -> "BySqlite":
        """Raises READ_ERRORS, or SchemaTooNew: a newer carstore has migrated it."""
        connection = open_tolerant(path, with_wal=with_wal)
        try:
            (mark,) = connection.execute(VERIFY["application_id"]).fetchone()
            (schema,) = connection.execute(VERIFY["schema_number"]).fetchone()
            if mark == APPLICATION_ID and schema > SCHEMA:
                raise SchemaTooNew(path, schema, SCHEMA)
        except BaseException:
            connection.close()
            raise
        left_out = not with_wal and wal.holds_something(path)
        return cls("without_wal" if left_out else "whole", connection)

    def items(self, after: int, tell: Progress) -> Iterator[Row | Unreadable]:
        last, more = self._last(), True
        while more:
            page = read_page(self._connection, after, PAGE_ROWS, last)
            yield from page.items
            after, more = page.after, page.more
            tell("events read", min(after, last), last)

    def rest(self, after: int, tell: Progress) -> Iterator[Row]:
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        last, empty = self._last(), 0
        while empty < MAX_EMPTY_PAGES:
            page = read_page(self._connection, after, PAGE_ROWS, last)
            rows = [item for item in page.items if not isinstance(item, Unreadable)]
            yield from rows
            empty = 0 if rows else empty + 1
            if page.after <= after or (not page.more and page.after >= last):
                return
            after = page.after
            tell("events looked for", min(after, last), last)

    def value(self, blob: str) -> Iterator[tuple[object, object, object]]:
        with suppress(*READ_ERRORS):
            yield from self._connection.execute(VERIFY["blob"], (blob,)).fetchall()

    def close(self) -> None:
        self._connection.close()

    def _last(self) -> int:
        with suppress(*READ_ERRORS):
            for (last,) in self._connection.execute(VERIFY["last_position"]):
                return last if isinstance(last, int) else 0
        return 0


@define
class ByPages:
    """As the pages have it, whatever the trees say. Remembers where each event stands, in about
    0.3 KB."""

    way: Way
    _pages: Pages
    _found: Found

    @classmethod
    def open(cls, path: str, tell: Progress) -> "ByPages":
        """Raises OSError."""
        pages = Pages(path)
        pages.open()
        try:
            found = search(pages, lambda at, last: tell("pages searched", at, last))
        except BaseException:
            pages.close()
            raise
        return cls("pages", pages, found)

    def items(self, after: int, tell: Progress) -> Iterator[Row | Unreadable]:
        last, before = max(self._found.events, default=0), GENESIS
        for position in sorted(one for one in self._found.events if one > after):
            row = self._at(position, before)
            if row is None:
                yield Unreadable(position, "its pages do not hold all of it")
                return
            yield row
            before = row[13]
            if position % PAGE_ROWS == 0 or position == last:
                tell("events read", position, last)

    def rest(self, after: int, tell: Progress) -> Iterator[Row]:
        positions = sorted(position for position in self._found.events if position > after)
        for number, position in enumerate(positions, 1):
            row = self._at(position, None)
            if row is not None:
                yield row
            if number % PAGE_ROWS == 0:
                tell("events looked for", number, len(positions))

    def value(self, blob: str) -> Iterator[tuple[object, object, object]]:
        for place in self._found.values.get(blob, ()):
            with suppress(NoRow):
                first, second, third = self._pages.row(*place)[1]
                yield first, second, third

    def close(self) -> None:
        self._pages.close()

    def _at(self, position: int, before: str | None) -> Row | None:
        """The event at a position: of several, the one that continues the event before."""
        rows = list(self._rows(position))
        proven = [row for row in rows if row[12] == before and _is_hashed(row)]
        return (proven or rows)[0] if rows else None

    def _rows(self, position: int) -> Iterator[Row]:
        for place in self._found.events[position]:
            try:
                columns = self._pages.row(*place)[1]
            except NoRow:
                continue
            names: list[str | None] = [*self._found.streams.get(columns[1], ())]
            for name in names or [None]:
                yield (position, name, *columns[2:], None)


def _is_hashed(row: Record) -> bool:
    """Whether a row is the one its hash was made for."""
    try:
        return bool(hash_of_columns(row) == row[13])
    except TypeError:
        return False
