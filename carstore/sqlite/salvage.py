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
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import TypeAlias

from attrs import frozen

from carstore.blobs import references_in_text
from carstore.clock import Clock, SystemClock
from carstore.errors import CannotOpen, CopyFailed, NotFound
from carstore.holders import Processes, SystemProcesses
from carstore.log import Head
from carstore.names import Json, Position, StreamName, lease_of
from carstore.origin import Life, OpenRuns, Progress
from carstore.placing import placed
from carstore.sqlite.audit import BEGINNING
from carstore.sqlite.blob_audit import body_amiss
from carstore.sqlite.copies import check, new_file, opened
from carstore.sqlite.life import begin_life
from carstore.sqlite.locks import check_not_open_here
from carstore.sqlite.proven import Proof, best_proof
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
        leftover: is handed what could be read and is not trusted, when the new file is made. What
            it raises passes through.

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
    untrusted = 0
    with ExitStack() as until_the_end:
        with placed(path) as place:
            proof = until_the_end.enter_context(best_proof(origin, tell))
            with new_file(place.part) as made:
                copy = _Copy(proof, made)
                copy.run(tell)
                if copy.head == BEGINNING:
                    reason = copy.problem.message if copy.problem else "there are no events"
                    raise CopyFailed(place.name, f"nothing of {origin} can be trusted: {reason}")
                values, lost = copy.values()
            life = _begun(place.part, place.name, origin, open_runs, clock, processes)
            check(place.part, place.name, origin, copy.head, tell)
            place.finish()
        if copy.problem is not None:
            untrusted = _tell_rest(proof.source, copy.head.position, leftover, tell)
    return Salvaged(
        path=place.name,
        source=origin,
        head=copy.head,
        problem=copy.problem,
        way=proof.source.way,
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
            origin_path=os.path.abspath(origin),
            open_runs=open_runs,
            clock=clock or SystemClock(),
            holder=(processes or SystemProcesses()).current("carstore salvage"),
        )


# --- writing what is proven ---


class _Copy:
    """The proven beginning of a log, on its way from one file into another."""

    def __init__(self, proof: Proof, made: sqlite3.Connection) -> None:
        self.problem = proof.problem
        self.head = BEGINNING
        """The last event that was copied."""
        self._proof = proof
        self._made = made
        self._streams: dict[str, int] = {}

    def run(self, tell: Progress) -> None:
        """Copy what is proven, as it is. The triggers of the new file have the last word."""
        rows = islice(self._proof.source.items(0, _silent), self._proof.count)
        while self.head.position < self._proof.count:
            page = [row for row in islice(rows, PAGE_ROWS) if not isinstance(row, Unreadable)]
            if not page:
                position = self.head.position + 1
                what = f"event {position} was there a moment ago; is the file in use?"
                self.problem = Problem(position, "unreadable", what)
                return
            self._made.execute("BEGIN IMMEDIATE")
            try:
                self._insert(page)
            except sqlite3.IntegrityError as error:
                position, digest = self._made.execute(SQL["head"]).fetchone() or BEGINNING
                self.head = Head(Position(position), digest)
                what = f"event {position + 1} breaks a rule of the file: {error}"
                self.problem = Problem(position + 1, "schema", what)
                return
            finally:
                self._made.execute("COMMIT")
            self.head = Head(Position(page[-1][0]), page[-1][13])
            tell("events copied", self.head.position, self._proof.count)

    def _insert(self, page: list[Row]) -> None:
        for row in page:
            if row[1] not in self._streams:
                number = self._streams[row[1]] = len(self._streams) + 1
                lease = lease_of(StreamName(row[1]))
                self._made.execute(SQL["insert_stream"], (number, row[1], lease))
        rows = [(row[0], self._streams[row[1]], *row[2:14]) for row in page]
        self._made.executemany(SQL["insert_event"], rows)

    def values(self) -> tuple[int, int]:
        """Copy the values beside the log that the copied events refer to. Returns how many, and how
        many are not there any more."""
        blobs, copied, lost = self._proof.blobs, 0, 0
        self._made.execute("BEGIN IMMEDIATE")
        wanted, seen = deque(blobs.referred.items()), set(blobs.referred)
        while wanted:
            blob, position = wanted.popleft()
            if position > self.head.position or position <= blobs.forgotten.get(blob, 0):
                continue
            found = self._proof.source.value(blob)
            whole = next((row for row in found if body_amiss(*row) is None), None)
            if whole is None:
                lost += 1
            else:
                self._made.execute(SQL["insert_blob"], whole)
                copied += 1
                inner = references_in_text(_text_of(whole)) - seen
                seen |= inner
                wanted.extend([(one, position) for one in inner])
        self._made.execute("COMMIT")
        return copied, lost


# --- what is left ---


def _text_of(row: tuple[object, object, object]) -> str:
    """The text of a value whose hash is right."""
    body = row[2]
    return body.decode() if isinstance(body, bytes) else ""


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
