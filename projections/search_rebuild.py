"""Making the index of the search anew, and holding it against the log.

Two indexes are compared by their words: in how many events each is, and how often. That this event
and no other holds a word is not compared; a search confirms each hit from the event itself.
"""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from itertools import zip_longest
from typing import TypeAlias

from attrs import define, field

from carstore.canonical import dumps
from carstore.errors import ReadOnly
from carstore.names import Position
from carstore.store import Store
from projections import kept
from projections import search_index as index
from projections.catch_up import CHECKPOINT_STEPS
from projections.compare import Difference
from projections.errors import ViewDamaged
from projections.rebuild import Before, Progress, Rebuilt
from projections.search_index import INDEX, NAME, SQL, VERSION

__all__ = ["compare_search", "rebuild_search"]

_CORRUPT = "SQLITE_CORRUPT"
"""What the words of a damaged index are refused with."""

Word: TypeAlias = tuple[str, int, int]
"""A word, in how many events it is, and how often."""


# --- comparing ---


async def compare_search(store: Store, *, progress: Progress | None = None) -> list[Difference]:
    """Index the log once more, outside of the file, and say the first word that differs, if any.

    Nothing is written. An index that is not stored yet differs in nothing.

    Raises:
        NoFullText
    """
    try:
        if (await index.search_place(store)).position is None:
            return []
        return await _compare(store, progress)
    except ViewDamaged as damaged:
        head = (await store.log.head()).position
        return [Difference(view=NAME, position=head, key=None, reason=damaged.reason)]


async def _compare(store: Store, progress: Progress | None) -> list[Difference]:
    with index.scratch() as scratch:
        until = Position(0)
        while True:
            found = await store.database.read(partial(_compared, scratch=scratch, until=until))
            if isinstance(found, list):
                return found
            if found < until:  # a rebuild ended, which began before this
                break
            while until < found:
                add = partial(index.add, scratch=scratch, after=until, until=found)
                until = await store.database.read(add)
                if progress:
                    progress(until, found)
    return await _compare(store, progress)


def _compared(
    connection: sqlite3.Connection, scratch: sqlite3.Connection, until: int
) -> list[Difference] | Position:
    """What differs; or the position of the stored index, if the other one is not there yet."""
    with index.damage(_CORRUPT), kept.snapshot(connection), kept.snapshot(scratch):
        position = index.place(connection).position
        if position is None:
            return []
        if position != until:
            return position
        return _differences(_words(connection, INDEX), _words(scratch, INDEX), position)


def _words(connection: sqlite3.Connection, name: str) -> Iterator[Word]:
    """The words of an index in their order, within a transaction that is rolled back."""
    (query_only,) = connection.execute("PRAGMA query_only").fetchone()
    # The reader may write nothing, and a temporary table counts.
    connection.execute("PRAGMA query_only = 0")
    try:
        connection.execute(SQL["create_words"].format(index=name))
    finally:
        connection.execute(f"PRAGMA query_only = {query_only:d}")
    return connection.execute(SQL["words"].format(index=name))


def _differences(
    stored: Iterator[Word], made: Iterator[Word], position: Position
) -> list[Difference]:
    for found, expected in zip_longest(stored, made):
        if found == expected:
            continue
        word = min(one[0] for one in (found, expected) if one is not None)
        is_, should = [
            f"in {one[1]:,} events, {one[2]:,} times"
            if one is not None and one[0] == word
            else "in no event"
            for one in (found, expected)
        ]
        reason = f"the word {word!r:.80} is {is_}, and by the log {should}"
        return [Difference(view=NAME, position=position, key=None, reason=reason)]
    return []


# --- making it anew ---


async def rebuild_search(store: Store, *, progress: Progress | None = None) -> Rebuilt:
    """Index the whole log beside the index that is there, and then put it in its place.

    As `rebuild` does for views; `rows` is the number of events, and `checksum` is over the words.

    Raises:
        NoFullText
        RebuildOvertaken: another rebuild of the index began meanwhile.
        ReadOnly, Busy, DiskFull, StoreFailed, Closed
    """
    if not store.writable:
        raise ReadOnly(store.path)
    head = (await store.log.head()).position
    work = _Work(store, head, kept.new_table(INDEX), progress)
    await work.write(work.begin)
    before = await work.compared()
    await work.index_until(head)
    checksum = await store.database.read(work.checksum)
    await work.write(work.finish)
    return Rebuilt(
        view=NAME, version=VERSION, position=head, rows=head, checksum=checksum, before=before
    )


@define
class _Work:
    """One rebuild."""

    store: Store
    head: Position
    table: str
    """The new index."""
    progress: Progress | None
    until: Position = field(default=Position(0))
    """How far it is."""
    steps: int = 0

    async def write(self, step: Callable[[sqlite3.Connection], None]) -> None:
        await self.store.database.write(partial(self._do, step=step))
        self.steps += 1
        if self.steps % CHECKPOINT_STEPS == 0:
            await self.store.database.checkpoint()

    def _do(
        self, connection: sqlite3.Connection, step: Callable[[sqlite3.Connection], None]
    ) -> None:
        with index.damage(), kept.transaction(connection, self.store.path):
            step(connection)

    async def compared(self) -> Before:
        """How the index that is there compares with the new one, made as far as it is."""
        try:
            while True:
                found = await self.store.database.read(self._compared)
                if not isinstance(found, int):
                    return found
                await self.index_until(Position(found))
        except ViewDamaged:
            return "damaged"

    def _compared(self, connection: sqlite3.Connection) -> Before | Position:
        with index.damage(_CORRUPT), kept.snapshot(connection):
            position = index.place(connection).position
            if position is None:
                return "none"
            if position > self.until:
                return position
            kept.check_there(connection, NAME, self.table)
            stored, made = _words(connection, INDEX), _words(connection, self.table)
            return "different" if _differences(stored, made, position) else "equal"

    async def index_until(self, end: Position) -> None:
        while self.until < end:
            page = partial(index.page, after=self.until, until=end)
            rows, until = await self.store.database.read(page)
            await self.write(partial(self._more, texts=[index.text_of(row) for row in rows]))
            self.until = until
            if self.progress:
                self.progress(until, max(end, self.head))

    def checksum(self, connection: sqlite3.Connection) -> str:
        """SHA-256 (hex) over the words of the new index."""
        digest = sha256(f"{NAME} {VERSION}\n".encode())
        with index.damage(), kept.snapshot(connection):
            kept.check_there(connection, NAME, self.table)
            for word in _words(connection, self.table):
                digest.update(f"{dumps(list(word))}\n".encode())
        return digest.hexdigest()

    def begin(self, connection: sqlite3.Connection) -> None:
        """Make the new index, and remove what rebuilds that were interrupted have left."""
        for name in kept.left_over(connection, INDEX):
            index.drop(connection, name)
        index.create(connection, self.table)

    def _more(self, connection: sqlite3.Connection, texts: list[index.Text]) -> None:
        kept.check_there(connection, NAME, self.table)
        index.insert(connection, self.table, texts)

    def finish(self, connection: sqlite3.Connection) -> None:
        """Put the new index in the place of the old one."""
        kept.check_there(connection, NAME, self.table)
        index.drop(connection, INDEX)
        kept.rename(connection, self.table, INDEX)
        kept.set_position(connection, NAME, VERSION, self.until)
