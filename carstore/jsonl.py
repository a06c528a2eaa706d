"""A log as lines of JSON: a format that other programs read, and that proves itself.

The first line is a header: what log this is, and the head it leads to. Then comes a line for each
value beside the log, then one for each event, in order, with all that its hash covers; `data` is
the text that was hashed. The last line counts them, and has the SHA-256 of all bytes before it. So
a file that was cut, reordered or changed in one character is told from a whole one without the log
that it was made from.

What is read is trusted in nothing: the length of a line and the depth of what it holds are bounded
before it is parsed.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, BinaryIO, Protocol, cast

from attrs import Factory, asdict, define, fields, frozen

from carstore import canonical
from carstore.blobs import Blob, has_references, hash_of, references_in_text
from carstore.canonical import MAX_BYTES
from carstore.chain import GENESIS, hash_of_columns
from carstore.errors import InvalidExport, InvalidJson
from carstore.log import Head, Recorded
from carstore.names import Json, Position, is_storable

FORMAT = 1
"""Of the file; what stands in events has its own numbers."""

MAX_LINE_BYTES = 2 * MAX_BYTES + 64 * 1024
"""Of one line: every character of a value's text may need a second one within a string, and names
take some room too."""

NONCE_BYTES = 16
"""Of a sensitive value; others have none."""

_BEGINNING = Head(Position(0), GENESIS)

_Type = type | tuple[type, ...]
_None = type(None)
_COLUMNS: dict[str, _Type] = {
    "position": int, "stream": str, "version": int, "kind": str, "schema_version": int,
    "recorded_at": int, "run_id": (str, _None), "scope": (str, _None), "key": (str, _None),
    "fence": (str, _None), "fence_token": (int, _None), "data": str, "prev_hash": str, "hash": str,
}  # fmt: skip
_to_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@frozen(kw_only=True)
class Header:
    """The first line."""

    carstore: int
    """The number of this format."""
    schema: int
    """Of the file that was exported."""
    log_id: str
    epoch: int
    position: int
    """Of the last event in the file."""
    hash: str
    """Of that event."""


_HEADER: dict[str, _Type] = {
    attribute.name: cast(type, attribute.type) for attribute in fields(Header)
}
_BLOB: dict[str, _Type] = {"blob": str, "nonce": str, "body": str}
_TRAILER: dict[str, _Type] = {"events": int, "blobs": int, "sha256": str}


class Sink(Protocol):
    """What can be written to."""

    def write(self, data: bytes, /) -> object: ...


@define
class Writer:
    """Writes a file from its beginning to its end."""

    _file: Sink
    _events: int = 0
    _blobs: int = 0
    _digest: Any = Factory(sha256)

    def header(self, header: Header) -> None:
        """The first line."""
        self._write(asdict(header))

    def blob(self, blob: Blob) -> None:
        """A value beside the log."""
        self._blobs += 1
        self._write({"blob": blob.hash, "nonce": blob.nonce.hex(), "body": blob.body.decode()})

    def event(self, recorded: Recorded) -> None:
        """An event, with all its columns."""
        self._events += 1
        self._write(recorded._asdict())

    def end(self) -> None:
        """The last line."""
        digest = self._digest.hexdigest()
        self._write({"events": self._events, "blobs": self._blobs, "sha256": digest})

    def _write(self, document: Json) -> None:
        line = f"{_to_text(document)}\n".encode()
        self._digest.update(line)
        self._file.write(line)


def chained(recorded: Recorded) -> bool:
    """Whether the hash of an event is the one of what it says."""
    return hash_of_columns(recorded) == recorded.hash


@define
class Reader:
    """An exported file, read once from its beginning to its end."""

    path: str
    """What it is called in errors."""
    _file: BinaryIO
    number: int = 0
    """Of the line that was read last, counted from 1."""
    head: Head = _BEGINNING
    """The event that was read last."""
    blobs: int = 0
    _values: dict[str, frozenset[str]] = Factory(dict)
    """The values to which no event has referred so far, with those to which they refer."""
    _digest: Any = Factory(sha256)
    """Of all lines before the last one that was read."""
    _line: bytes = b""

    def header(self) -> Header:
        """The first line.

        Raises:
            InvalidExport: it is none.
        """
        document = self._next()
        if not isinstance(document, dict) or "carstore" not in document:
            raise self.wrong("this is no export of a carstore log")
        if document["carstore"] != FORMAT:
            raise self.wrong(
                f"the format has the number {document['carstore']!r:.40}; this carstore reads "
                f"{FORMAT}. Import it with the carstore that wrote it"
            )
        found = Header(**self._checked(document, _HEADER, "header"))
        if found.position < 1:
            raise self.wrong("the header names no event")
        if found.schema < 1 or found.epoch < 0:
            raise self.wrong(f"there is no schema {found.schema} with an epoch {found.epoch}")
        return found

    def entries(self, header: Header) -> Iterator[Blob | Recorded]:
        """All values and events, up to the last line, which must be the end.

        Raises:
            InvalidExport: with the line at which the file is not what was written.
        """
        while True:
            document = self._next()
            match document:
                case {"blob": _}:
                    yield self._blob(document)
                case {"events": _}:
                    self._end(header, document)
                    return
                case _:
                    yield self._event(header, document)

    def wrong(self, reason: str, line: int | None = None) -> InvalidExport:
        """The error that says what is wrong with the line that was read last, or another one."""
        return InvalidExport(self.path, self.number if line is None else line, reason)

    def _next(self) -> Json:
        self.number += 1
        self._digest.update(self._line)
        line = self._line = self._file.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise self.wrong(f"longer than {MAX_LINE_BYTES:,} bytes")
        if not line.endswith(b"\n"):
            end = "in the middle of a line" if line else "without its last line"
            raise self.wrong(f"the file ends {end}; it was cut")
        return self._parsed(line)

    def _parsed(self, line: bytes | str, max_bytes: int = MAX_LINE_BYTES) -> Json:
        try:
            return canonical.loads(line, max_bytes=max_bytes)
        except InvalidJson as error:
            raise self.wrong(error.reason) from None

    def _checked(self, document: Json, wanted: dict[str, _Type], what: str) -> dict[str, Any]:
        if not isinstance(document, dict) or document.keys() != wanted.keys():
            raise self.wrong(f"this is no {what}: its fields are not {', '.join(wanted)}")
        for name, kind in wanted.items():
            if type(document[name]) not in (kind if isinstance(kind, tuple) else (kind,)):
                raise self.wrong(f"{name} is a {type(document[name]).__name__}")
        return document

    def _blob(self, document: Json) -> Blob:
        if self.head.position:
            raise self.wrong("a value stands among the events; it was moved")
        found = self._checked(document, _BLOB, "value")
        self._parsed(found["body"], MAX_BYTES)
        try:
            blob = Blob(found["blob"], bytes.fromhex(found["nonce"]), found["body"].encode())
        except ValueError:
            raise self.wrong("the nonce is not in hex") from None
        if len(blob.nonce) not in (0, NONCE_BYTES):
            raise self.wrong(f"the nonce has {len(blob.nonce)} bytes, not {NONCE_BYTES} or none")
        if hash_of(blob.nonce, blob.body) != blob.hash:
            raise self.wrong("the value is not the one its hash was made for; it was changed")
        if blob.hash in self._values:
            raise self.wrong("the value stands there twice")
        self._values[blob.hash] = frozenset(references_in_text(found["body"]))
        self.blobs += 1
        return blob

    def _use(self, text: str) -> None:
        """Strike out the values that a text refers to, and those that they refer to in turn."""
        wanted = [*references_in_text(text)]
        while wanted:
            wanted += self._values.pop(wanted.pop(), ())

    def _event(self, header: Header, document: Json) -> Recorded:
        found = Recorded(**self._checked(document, _COLUMNS, "event"))
        expected = self.head.position + 1
        if found.position != expected:
            raise self.wrong(f"event {found.position} stands where event {expected} belongs")
        if found.position > header.position:
            raise self.wrong(f"the header says that event {header.position} is the last one")
        if found.prev_hash != self.head.hash:
            raise self.wrong(f"event {expected} does not continue the one before; one was changed")
        for name in (found.stream, found.kind, found.run_id, found.scope, found.key, found.fence):
            if name is not None and not is_storable(name):
                raise self.wrong(f"{name!r:.80} holds a NUL or half a surrogate pair")
        if not chained(found):
            raise self.wrong(f"event {expected} is not the one its hash was made for")
        self._parsed(found.data, MAX_BYTES)
        if self._values and has_references(found.data):
            self._use(found.data)
        self.head = Head(found.position, found.hash)
        return found

    def _end(self, header: Header, document: Json) -> None:
        counted = self._checked(document, _TRAILER, "last line")
        for name, read in (("events", self.head.position), ("blobs", self.blobs)):
            if counted[name] != read:
                raise self.wrong(f"{counted[name]:,} {name} were written, but {read:,} are here")
        for blob in self._values:
            raise self.wrong(f"no event refers to the value {blob}")
        if counted["sha256"] != self._digest.hexdigest():
            raise self.wrong("the lines before are not those that were written")
        if self.head != (header.position, header.hash):
            raise self.wrong(
                f"the events end with {self.head.position} {self.head.hash}, which is not the head "
                f"that the first line names: {header.position} {header.hash}"
            )
        if self._file.read(1):
            self.number += 1
            raise self.wrong("there is more after the last line")


__all__ = ["FORMAT", "Header", "Reader", "Sink", "Writer", "chained"]
