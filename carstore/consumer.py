"""Exactly once: what follows from the log is kept together with the place it was read up to.

A consumer reads events and changes rows of its own, in a database of its own: it fills a data
warehouse, sends what is due, keeps a search index. If it kept its place elsewhere, a crash between
the two would repeat an event or lose one. So the place, its cursor, lies in that same database and
moves in the same transaction as the rows. Whatever dies, and when: either both are there or none.

    async with consumer(store, "billing.db", "billing", kinds=["inference_metered"]) as billing:
        await billing.run(charge)

A cursor is a position and the hash of the event there. So a consumer finds out that the log is
another one, or one that was cut or replaced, and applies nothing of it.
"""

import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, TypeVar

from attrs import define, field, frozen

from carstore.chain import GENESIS
from carstore.errors import CursorRefused, NotFound
from carstore.log import Recorded
from carstore.names import RunId, StreamName, check_kinds
from carstore.store import Store

__all__ = ["Cursor", "Sink", "consumer"]

BATCH_EVENTS = 250
"""Events of one transaction while there are many: more gain little and lock the rows for longer."""


@frozen
class Cursor:
    """The place in a log up to which a consumer has applied events."""

    log_id: str
    position: int
    """0: nothing yet."""
    hash: str
    """Of the event there; 64 zeros at 0."""


_Apply = TypeVar("_Apply", contravariant=True)


class Sink(Protocol[_Apply]):
    """A database that keeps a consumer's rows and its cursor. `carstore.sqlite.sink` is the one for
    SQLite files; one for another database has these three methods."""

    async def load(self, consumer: str) -> Cursor | None:
        """The cursor of a consumer; None if it has none yet."""
        ...

    async def apply(
        self,
        consumer: str,
        batch: Sequence[Recorded],
        apply: _Apply,
        *,
        seen: Cursor | None,
        to: Cursor,
    ) -> Cursor | None:
        """In one transaction, durable when this returns: apply the events of `batch` in order, and
        move the cursor from `seen` to `to`.

        If the cursor is not `seen`, nothing is done: another process was faster. The transaction
        has to hold off others between looking at the cursor and committing.

        Returns:
            The cursor afterwards.
        """
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...


@define(eq=False)
class consumer:  # noqa: N801 - read as a function: `async with consumer(...) as billing`
    """Apply events of a log, each exactly once, to rows in a database.

    Two processes may consume under one name: each event is applied by one of them, in order, and
    when one dies the other goes on.

    Args:
        store: whose log is read; it may be open for reading only.
        target: the SQLite file of the rows, made if need be; or a `Sink` for another database,
            which whoever made it closes.
        name: of this consumer, to which the cursor belongs. Several may share a target.
        kinds, stream, run: which events; as for `Log.follow`. A consumer whose filters change goes
            on from its cursor: it does not go back for what it passed over.
        after: where a consumer begins that has no cursor yet; 0 is the beginning.
        accept_copy: go on in a log with another id, as a restored or forked file is, if the event
            at the cursor is the same there.

    Raises:
        CursorRefused: the cursor is not a place in this log.
        NotFound: `after` lies past the end of the log.
        ValueError: the target is the log's own file, or the name is no text that can be stored.
        TypeError: `kinds` is a text.
    """

    store: Store
    target: "str | os.PathLike[str] | Sink[Any]"
    name: str
    kinds: Collection[str] | None = field(default=None, kw_only=True)
    stream: StreamName | None = field(default=None, kw_only=True)
    run_id: RunId | None = field(default=None, kw_only=True, alias="run")
    after: int = field(default=0, kw_only=True)
    accept_copy: bool = field(default=False, kw_only=True)
    _sink: "Sink[Any] | None" = field(default=None, init=False)
    _kept: Cursor | None = field(default=None, init=False)
    """The cursor in the target, as last seen."""
    _place: Cursor = field(default=Cursor("", 0, GENESIS), init=False)
    """The same in this log: where to go on."""

    def __attrs_post_init__(self) -> None:
        check_kinds(self.kinds)
        if any("\ud800" <= character <= "\udfff" for character in self.name):
            raise ValueError(f"{self.name!r:.100} is no name: it holds half a surrogate pair")

    async def __aenter__(self) -> "consumer":
        self._sink = await self._open()
        try:
            await self._go_to(await self._sink.load(self.name))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    @property
    def position(self) -> int:
        """Up to which position events were applied."""
        return self._place.position

    async def run(self, apply: Callable[..., None]) -> None:
        """Apply every event there is, then each new one within milliseconds, until cancelled.

        Args:
            apply: called with the connection, within the transaction, and the event; for a SQLite
                file on the thread of the connection. It changes rows and nothing else, since it is
                called again if the transaction fails; it does not begin, commit or roll back. What
                it raises undoes the whole transaction and is raised here; the next `run` tries
                again from there.

        Raises:
            CursorRefused: another process moved the cursor to where this log has no such event.
            TransactionEnded: a statement of `apply` ended the transaction; nothing of it is kept.
            Busy, DiskFull, StoreFailed: the target; nothing is lost, run it again.
            Closed: the store was closed.
        """
        while True:
            await self._work(
                apply,
                lambda: self.store.log.follow_pages(
                    after=self.position, kinds=self.kinds, stream=self.stream, run=self.run_id
                ),
            )

    async def catch_up(self, apply: Callable[..., None]) -> int:
        """Apply the events there are by now, and return how many this process applied.

        Args, Raises: as for `run`.
        """
        until = (await self.store.log.head()).position
        applied, is_done = 0, False
        while not is_done:
            more, is_done = await self._work(apply, partial(self._pages, until))
            applied += more
        return applied

    async def _pages(self, until: int) -> AsyncGenerator[list[Recorded], None]:
        read = self.store.log.read(
            after=self.position, until=until, kinds=self.kinds, stream=self.stream, run=self.run_id
        )
        batch: list[Recorded] = []
        async for recorded in read:
            batch.append(recorded)
            if len(batch) == BATCH_EVENTS:
                yield batch
                batch = []
        yield batch

    async def _work(
        self,
        apply: Callable[..., None],
        pages: Callable[[], AsyncGenerator[list[Recorded], None]],
    ) -> tuple[int, bool]:
        """Apply `pages` until they end, or another process has moved the cursor.

        Returns:
            How many events were applied, and whether all of them were.
        """
        applied = 0
        async with aclosing(pages()) as found:
            async for page in found:
                for batch in _batches(page):
                    if not await self._apply(batch, apply):
                        return applied, False
                    applied += len(batch)
        return applied, True

    async def _apply(self, batch: Sequence[Recorded], apply: Callable[..., None]) -> bool:
        assert self._sink is not None
        to = Cursor(self.store.log_id, batch[-1].position, batch[-1].hash)
        found = await self._sink.apply(self.name, batch, apply, seen=self._kept, to=to)
        if found != to:
            await self._go_to(found)
            return False
        self._kept = self._place = to
        return True

    async def _go_to(self, kept: Cursor | None) -> None:
        """Go on from a cursor of the target.

        Raises:
            CursorRefused, NotFound
        """
        if kept is None:
            there = await self._hash_at(self.after)
            if there is None:
                head = (await self.store.log.head()).position
                raise NotFound("position", str(self.after), f"The log ends at {head}.")
            place = Cursor(self.store.log_id, self.after, there)
        else:
            await self._check(kept)
            place = Cursor(self.store.log_id, kept.position, kept.hash)
        self._kept, self._place = kept, place

    async def _check(self, kept: Cursor) -> None:
        refused = partial(CursorRefused, self.name, kept.position, self.store.path)
        there = await self._hash_at(kept.position)
        if there is None:
            head = (await self.store.log.head()).position
            raise refused(
                f"it ends at position {head}. It was cut, or restored from an older copy. Restore "
                "the consumer's database of that time too, or begin anew under another name"
            )
        if there != kept.hash:
            raise refused(
                "it has another event there. It was replaced, or cut and then written again. Use "
                "the log that was followed, or begin anew under another name"
            )
        if kept.log_id != self.store.log_id and not self.accept_copy:
            raise refused(
                f"its id is {self.store.log_id}, not {kept.log_id}, although the history up to "
                "there is the same. To go on in this copy, and no more in the original, pass "
                "accept_copy=True"
            )

    async def _hash_at(self, position: int) -> str | None:
        if position == 0:
            return GENESIS
        async for recorded in self.store.log.read(after=position - 1, until=position):
            return recorded.hash
        return None

    async def _open(self) -> "Sink[Any]":
        if not isinstance(self.target, (str, os.PathLike)):
            return self.target
        from carstore.sqlite.sink import open_sink

        return await open_sink(self.target, log=self.store.path)

    async def _close(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None and sink is not self.target:
            await sink.close()


def _batches(events: Iterable[Recorded]) -> Iterable[list[Recorded]]:
    rest = iter(events)
    while batch := list(islice(rest, BATCH_EVENTS)):
        yield batch
