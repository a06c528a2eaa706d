"""A log from a SQLite file to lines of JSON, and back into a new file."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing

from attrs import Factory, define

from carstore.blobs import Blob
from carstore.chain import GENESIS
from carstore.errors import CorruptLog, NotFound, SchemaTooNew
from carstore.jsonl import FORMAT, Header, Reader, Sink, Writer, chained
from carstore.log import Head, Recorded
from carstore.names import Position, StreamName, lease_of
from carstore.sqlite.copies import Tell, new_file, reading
from carstore.sqlite.life import COPIES, referred_blobs
from carstore.sqlite.migrations import SCHEMA
from carstore.sqlite.objects import has_blobs
from carstore.sqlite.statements import SQL

STEP_EVENTS = 1_000
"""Events read, or inserted in one transaction."""

STEP_CHARS = 4 * 1024 * 1024
"""Data inserted in one transaction: events may be megabytes each."""

MAX_KNOWN_STREAMS = 100_000
"""Numbers of streams kept in memory while events are inserted; others are looked up."""


# --- export ---


def write_export(origin: str, file: Sink, at: int | None, tell: Tell) -> Head:
    """Write the events up to `at` (None: all that are there now) to `file`. Returns the last.

    Raises:
        NotFound: there is no such event.
        CorruptLog: the chain does not hold.
        sqlite3.Error, OSError
    """
    with reading(origin) as connection:
        header, writer = _header(connection, origin, at), Writer(file)
        writer.header(header)
        _write_blobs(connection, writer, header.position)
        last = _write_events(connection, writer, origin, header, tell)
        writer.end()
        return last


def _header(connection: sqlite3.Connection, origin: str, at: int | None) -> Header:
    last, digest = connection.execute(SQL["head"]).fetchone() or (0, GENESIS)
    position = last if at is None else at
    if position != last:
        row = connection.execute(COPIES["hash_at"], (position,)).fetchone()
        if row is None:
            raise NotFound("position", str(position), f"{origin} ends at {last}.")
        (digest,) = row
    epoch, log_id = connection.execute(COPIES["epoch_at"], (position,)).fetchone() or (None, None)
    if type(epoch) is not int or type(log_id) is not str:
        raise CorruptLog(origin, "its epoch and id cannot be read")
    (schema,) = connection.execute(SQL["schema"]).fetchone()
    return Header(
        carstore=FORMAT, schema=schema, log_id=log_id, epoch=epoch, position=position, hash=digest
    )


def _write_blobs(connection: sqlite3.Connection, writer: Writer, until: int) -> None:
    if not has_blobs(connection):
        return
    wanted = json.dumps(sorted(referred_blobs(connection, until)))
    with closing(connection.execute(COPIES["blobs_of"], (wanted,))) as rows:
        for row in rows:
            writer.blob(Blob(*row))


def _write_events(
    connection: sqlite3.Connection, writer: Writer, origin: str, header: Header, tell: Tell
) -> Head:
    last = Head(Position(0), GENESIS)
    while last.position < header.position:
        wanted = {"after": last.position, "until": header.position, "limit": STEP_EVENTS}
        rows = connection.execute(SQL["page_all"], wanted).fetchall()
        for recorded in map(Recorded._make, rows):
            if (recorded.position, recorded.prev_hash) != (last.position + 1, last.hash) or not (
                chained(recorded)
            ):
                raise CorruptLog(origin, "the chain of hashes is broken", recorded.position)
            writer.event(recorded)
            last = Head(recorded.position, recorded.hash)
        if not rows:
            missing = Position(last.position + 1)
            raise CorruptLog(origin, "the event is missing", missing)
        tell("events written", last.position, header.position)
    return last


# --- import ---


def read_import(reader: Reader, part: str, tell: Tell) -> Head:
    """Make a new file at `part` from what `reader` reads. Returns the last event.

    Raises:
        InvalidExport: at the first line that is not what was written.
        SchemaTooNew: a newer carstore wrote it.
        sqlite3.Error, OSError
    """
    header = reader.header()
    if header.schema > SCHEMA:
        raise SchemaTooNew(reader.path, header.schema, SCHEMA)
    with new_file(part) as connection:
        into = _Into(connection, reader)
        for entry in reader.entries(header):
            into.add(entry)
            if reader.head.position % STEP_EVENTS == 0:
                tell("events read", reader.head.position, header.position)
        into.flush()
        found = connection.execute(SQL["epoch"]).fetchone()
        if found != (header.epoch, header.log_id):
            raise reader.wrong("the header names another log than the events do", line=1)
    return reader.head


@define
class _Into:
    """What was read and is to be inserted."""

    connection: sqlite3.Connection
    reader: Reader
    events: list[tuple[object, ...]] = Factory(list)
    lines: list[int] = Factory(list)
    """Of `events`."""
    chars: int = 0
    streams: dict[str, int] = Factory(dict)
    """The numbers of some."""

    def add(self, entry: Blob | Recorded) -> None:
        if isinstance(entry, Blob):
            self.connection.execute(SQL["insert_blob"], (entry.hash, entry.nonce, entry.body))
            return
        position, stream, *others = entry
        self.events.append((position, self._number(stream), *others))
        self.lines.append(self.reader.number)
        self.chars += len(entry.data)
        if len(self.events) >= STEP_EVENTS or self.chars > STEP_CHARS:
            self.flush()

    def flush(self) -> None:
        """Insert the events, each judged by the triggers."""
        self.connection.execute("BEGIN")
        try:
            self.connection.executemany(SQL["insert_event"], self.events)
        except sqlite3.IntegrityError as error:
            (head,) = self.connection.execute(COPIES["last_position"]).fetchone()
            first = self.events[0][0]
            assert isinstance(first, int)
            line = self.lines[(head or 0) + 1 - first]
            raise self.reader.wrong(f"no log has such an event: {error}", line) from None
        self.connection.execute("COMMIT")
        self.events.clear()
        self.lines.clear()
        self.chars = 0

    def _number(self, stream: str) -> int:
        found = self.streams.get(stream)
        if found is None:
            rows: Iterable[tuple[int]] = self.connection.execute(COPIES["stream_id"], (stream,))
            found = next(iter(rows), (0,))[0] or self._new(stream)
            if len(self.streams) >= MAX_KNOWN_STREAMS:
                self.streams.clear()
            self.streams[stream] = found
        return found

    def _new(self, stream: str) -> int:
        (number,) = self.connection.execute(SQL["next_stream_id"]).fetchone()
        self.connection.execute(
            SQL["insert_stream"], (number, stream, lease_of(StreamName(stream)))
        )
        return int(number)


__all__ = ["read_import", "write_export"]
