"""How much of a damaged file the chain proves, and the way of reading it that proves most."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from carstore.errors import UnknownEvent
from carstore.names import Position, StreamName, lease_of
from carstore.origin import Progress
from carstore.sqlite import wal
from carstore.sqlite.audit import Audit, Enough
from carstore.sqlite.readonly import READ_ERRORS
from carstore.sqlite.scan import Row, Unreadable
from carstore.sqlite.sources import ByPages, BySqlite, Source
from carstore.verification import Problem


@contextmanager
def best_source(origin: str, tell: Progress) -> Iterator[Source]:
    """The file, opened in the way that proves most events. Looking through all pages is slow, so it
    is tried only where SQLite does not reach the end."""
    best: tuple[int, Source] | None = None
    try:
        for way in _ways(origin, tell):
            source = way()
            if source is None:
                continue
            try:
                proven, whole = _proven(source, tell)
            except BaseException:
                source.close()
                raise
            if best is not None and proven <= best[0]:
                source.close()
                continue
            if best is not None:
                best[1].close()
            best = (proven, source)
            if whole:
                break
        assert best is not None, "the last way opens every file that can be read"
        yield best[1]
    finally:
        if best is not None:
            best[1].close()


def _ways(origin: str, tell: Progress) -> list[Callable[[], Source | None]]:
    def by_sqlite(with_wal: bool) -> Source | None:
        try:
            return BySqlite.open(origin, with_wal=with_wal)
        except READ_ERRORS:
            return None

    with_wal = (True, False) if wal.holds_something(origin) else (False,)
    return [*[partial(by_sqlite, one) for one in with_wal], partial(ByPages.open, origin, tell)]


def _proven(source: Source, tell: Progress) -> tuple[int, bool]:
    """How many events of the file are proven, and whether these are all."""
    audit, proven = Audit(), 0
    for item in source.items(0, tell):
        if problem_of(audit, item) is not None:
            return proven, False
        proven += 1
    return proven, proven > 0


def problem_of(audit: Audit, item: Row | Unreadable) -> Problem | None:
    """The first thing that is wrong with the next event.

    Raises:
        UnknownEvent: it is what was written, by a newer carstore.
    """
    with suppress(Enough):
        if isinstance(item, Unreadable):
            audit.unreadable(item.position, item.error, again=False)
        else:
            # The lease that a stream names is no event, and follows from the stream's name.
            lease = lease_of(StreamName(item[1])) if isinstance(item[1], str) else None
            audit.row((*item[:14], lease))
    if not audit.problems:
        return None
    found = audit.problems[0]
    if found.code == "unknown_event" and not isinstance(item, Unreadable):
        raise UnknownEvent(item[3], item[4], Position(item[0]))
    return found
