"""How much of a damaged file the chain proves, and the way of reading it that proves most."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from attrs import Factory, define

from carstore.errors import UnknownEvent
from carstore.events import BlobForgotten
from carstore.names import Position, StreamName, lease_of
from carstore.origin import Progress
from carstore.sqlite import wal
from carstore.sqlite.audit import Audit, Enough
from carstore.sqlite.blob_audit import BlobAudit
from carstore.sqlite.readonly import READ_ERRORS
from carstore.sqlite.scan import Row, Unreadable
from carstore.sqlite.sources import ByPages, BySqlite, Source
from carstore.verification import Problem


@define
class Proof:
    """How far a file was read in one way before something was wrong."""

    source: Source
    count: int = 0
    """Events, so also the position of the last one."""
    problem: Problem | None = None
    """What is wrong with the next one; None: there is none."""
    blobs: BlobAudit = Factory(BlobAudit)
    """What the proven events say of values beside the log."""

    @property
    def is_whole(self) -> bool:
        return self.problem is None


@contextmanager
def best_proof(origin: str, tell: Progress) -> Iterator[Proof]:
    """The file, opened in the way that proves most events. Looking through all pages is slow, so it
    is tried only where SQLite does not reach the end.

    Raises:
        SchemaTooNew, UnknownEvent: a newer carstore wrote it.
        OSError
    """
    best: Proof | None = None
    try:
        for way in _ways(origin, tell):
            source = way()
            if source is None:
                continue
            try:
                proof = prove(source, tell)
            except BaseException:
                source.close()
                raise
            if best is None or proof.count > best.count:
                best, proof = proof, best or proof
            if proof is not best:
                proof.source.close()
            if best.is_whole:
                break
        assert best is not None, "the last way opens every file that can be read"
        yield best
    finally:
        if best is not None:
            best.source.close()


def _ways(origin: str, tell: Progress) -> list[Callable[[], Source | None]]:
    def by_sqlite(with_wal: bool) -> Source | None:
        try:
            return BySqlite.open(origin, with_wal=with_wal)
        except READ_ERRORS:
            return None

    with_wal = (True, False) if wal.holds_something(origin) else (False,)
    return [*[partial(by_sqlite, one) for one in with_wal], partial(ByPages.open, origin, tell)]


def prove(source: Source, tell: Progress) -> Proof:
    """Read events until one is not what it must be.

    Raises:
        UnknownEvent: one is what was written, by a newer carstore.
    """
    audit, proof = Audit(), Proof(source)
    for item in source.items(0, tell):
        proof.problem = _problem_of(audit, item)
        if proof.problem is not None or isinstance(item, Unreadable):
            return proof
        proof.count += 1
        forgets = json.loads(item[11])["hash"] if item[3] == BlobForgotten.kind else None
        proof.blobs.follow(item[0], item[11], forgets)
    audit.ended()
    proof.problem = audit.problems[0] if audit.problems else None
    return proof


def _problem_of(audit: Audit, item: Row | Unreadable) -> Problem | None:
    """The first thing that is wrong with the next event.

    Raises:
        UnknownEvent
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
