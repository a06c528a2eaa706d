"""What can be trusted of a damaged file, in a new one.

Copied is the beginning of the log, up to the first event that is missing, cannot be read or is not
what was written: all events before it are proven by the chain, and none behind it is. They are
copied as they are, so the chain of the copy goes on to verify; then the copy begins a life of its
own, like every copy. What can still be read behind that place is not trusted, and is told.

A file is read in the way that proves most of it: by SQLite, with its WAL or without; or, where its
schema or its trees are damaged, by looking through its pages for rows that look like events. The
original is never written to. (Beside one that has a WAL, SQLite may make a `-shm` file.)
"""

import os
import sqlite3
from collections.abc import Callable
from typing import TypeAlias

from attrs import Factory, define, frozen

from carstore.clock import Clock, SystemClock
from carstore.errors import CannotOpen, CopyFailed, NotFound
from carstore.holders import Processes, SystemProcesses
from carstore.log import Head
from carstore.names import Json, Position, StreamName, lease_of
from carstore.origin import Life, OpenRuns, Progress
from carstore.placing import placed
from carstore.sqlite.audit import BEGINNING, Audit
from carstore.sqlite.blob_audit import body_amiss
from carstore.sqlite.copies import check, new_file, opened
from carstore.sqlite.life import begin_life
from carstore.sqlite.locks import check_not_open_here
from carstore.sqlite.proven import best_source, problem_of
from carstore.sqlite.scan import Row, Unreadable
from carstore.sqlite.sources import PAGE_ROWS, Source, Way
from carstore.sqlite.statements import SQL
from carstore.verification import Problem

Leftover: TypeAlias = Callable[[dict[str, Json]], None]
"""Called with each event that could be read but is not trusted: its columns by name."""


@frozen(kw_only=True)
class Salvaged:
    """What became of a file."""

    path: str
    """The new file."""
    source: str
    head: Head
    """The last event that was copied."""
    problem: Problem | None
    """What ended the copy; None: all of the log was copied."""
    way: Way
    """How the file was read: in the way that proves most of it."""
    untrusted: int
    """Events from that place on that could be read, and were not copied."""
    values: int
    """Values beside the log that were copied."""
    values_lost: int
    """Values that the copied events refer to, and that are not there any more."""
    life: Life
    """The beginning of the copy's own life: its id, and the runs that wait."""


def salvage(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    open_runs: OpenRuns,
    leftover: Leftover | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
    processes: Processes | None = None,
) -> Salvaged:
    """Make the file `path` from what is proven of the log in `source`.

    Args:
        open_runs: says of a run whether it is unfinished; `engine.held.open_run`.
        leftover: is handed what could be read and is not trusted.

    Raises:
        NotFound, AlreadyThere: there is no such file; there is one of the new name.
        CannotOpen: the file cannot be read by this user, or this process has it open.
        SchemaTooNew, UnknownEvent: a newer carstore wrote it. It may be whole.
        CopyFailed: there is nothing to trust in it, or the new file cannot be made.
    """
    origin = os.fspath(source)
    if not os.path.isfile(origin):
        raise NotFound("database", origin)
    if not os.access(origin, os.R_OK):
        raise CannotOpen(origin, "this process may not read it", "Ask its owner for the right.")
    check_not_open_here(origin)
    tell = progress or _silent
    with placed(path) as place, best_source(origin, tell) as read:
        with new_file(place.part) as made:
            copy = _Copy(read, made)
            copy.run(tell)
            if copy.head == BEGINNING:
                reason = copy.problem.message if copy.problem else "there are no events"
                raise CopyFailed(place.name, f"nothing of {origin} can be trusted: {reason}")
            values, lost = copy.values()
        life = _begun(place.part, place.name, origin, open_runs, clock, processes)
        check(place.part, place.name, origin, copy.head, tell)
        place.finish()
        untrusted = _tell_rest(read, copy.head.position, leftover, tell) if copy.problem else 0
    return Salvaged(
        path=place.name,
        source=origin,
        head=copy.head,
        problem=copy.problem,
        way=read.way,
        untrusted=untrusted,
        values=values,
        values_lost=lost,
        life=life,
    )


def _silent(_what: str, _at: int, _last: int) -> None:
    pass


def _begun(
    part: str,
    name: str,
    origin: str,
    open_runs: OpenRuns,
    clock: Clock | None,
    processes: Processes | None,
) -> Life:
    with opened(part) as connection:
        return begin_life(
            connection,
            name,
            cause="salvaged",
            origin_path=origin,
            open_runs=open_runs,
            clock=clock or SystemClock(),
            holder=(processes or SystemProcesses()).current("carstore salvage"),
        )


# --- writing what is proven ---


@define
class _Copy:
    """The proven beginning of a log, on its way from one file into another."""

    source: Source
    made: sqlite3.Connection
    problem: Problem | None = None
    head: Head = BEGINNING
    """The last event that was copied."""
    _audit: Audit = Factory(Audit)
    _streams: dict[str, int] = Factory(dict)

    def run(self, tell: Progress) -> None:
        """Copy events until one is not what it must be."""
        self.made.execute("BEGIN IMMEDIATE")
        for item in self.source.items(0, tell):
            self.problem = problem_of(self._audit, item)
            if self.problem is None and not isinstance(item, Unreadable):
                self.problem = self._insert(item)
            if self.problem is not None:
                break
            if self.head.position % PAGE_ROWS == 0:
                self.made.execute("COMMIT")
                self.made.execute("BEGIN IMMEDIATE")
        else:
            self._audit.ended()
            self.problem = self._audit.problems[0] if self._audit.problems else None
        self.made.execute("COMMIT")

    def _insert(self, row: Row) -> Problem | None:
        """Write an event as it is. The triggers have the last word."""
        position, stream = row[0], row[1]
        number = self._streams.get(stream)
        try:
            if number is None:
                number = len(self._streams) + 1
                lease = lease_of(StreamName(stream))
                self.made.execute(SQL["insert_stream"], (number, stream, lease))
                self._streams[stream] = number
            self.made.execute(SQL["insert_event"], (position, number, *row[2:14]))
        except sqlite3.IntegrityError as error:
            return Problem(position, "schema", f"event {position} breaks a rule: {error}")
        self.head = Head(Position(position), row[13])
        return None

    def values(self) -> tuple[int, int]:
        """Copy the values beside the log that the copied events refer to. Returns how many, and how
        many are not there any more."""
        blobs, copied, lost = self._audit.blobs, 0, 0
        self.made.execute("BEGIN IMMEDIATE")
        for blob, position in blobs.referred.items():
            if position > self.head.position or position <= blobs.forgotten.get(blob, 0):
                continue
            whole = [row for row in self.source.value(blob) if body_amiss(*row) is None]
            if whole:
                self.made.execute(SQL["insert_blob"], whole[0])
                copied += 1
            else:
                lost += 1
        self.made.execute("COMMIT")
        return copied, lost


# --- what is left ---

_COLUMNS = (
    "position", "stream", "version", "kind", "schema_version", "recorded_at", "run_id", "scope",
    "key", "fence", "fence_token", "data", "prev_hash", "hash",
)  # fmt: skip


def _tell_rest(source: Source, copied: int, leftover: Leftover | None, tell: Progress) -> int:
    """Hand over every event behind the copied ones that can be read. Returns how many."""
    found = 0
    for row in source.rest(copied, tell):
        found += 1
        if leftover is not None:
            leftover(dict(zip(_COLUMNS, map(_as_json, row), strict=False)))
    return found


def _as_json(value: object) -> Json:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, float):
        return repr(value)
    return value


__all__ = ["Salvaged", "salvage"]
