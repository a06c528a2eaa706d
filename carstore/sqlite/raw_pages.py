"""Reading rows from the pages of a file without SQLite: for a file whose trees lead nowhere.

SQLite finds a row through its schema and the inner pages of a table. Where one of these is damaged,
all rows below it are out of its reach, though they stand in pages that are whole. Here every page
that looks like a leaf of a table is searched for rows that look like events, streams or values. A
row found so may be one that was never committed, or of another table, so nothing of it may be
trusted until the chain has proven it.

See "B-tree Pages" and "Record Format" in SQLite's description of its file format.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

from attrs import Factory, define

from carstore.sqlite.facts import Header
from carstore.sqlite.wal_facts import FRAME_HEADER, WAL_HEADER, read_wal

PAGE_BYTES = 4096
"""Assumed where the file does not say; carstore makes no others."""

MAX_ROW_BYTES = 2**30
"""SQLite's own limit of a row, about: more is damage."""

_LEAF_OF_TABLE = 0x0D
_EVENT_COLUMNS, _OTHER_COLUMNS = 14, 3
_HASH_CHARS = 64
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)

Record = tuple[Any, ...]


class NoRow(Exception):
    """What stands there is no row, or only a part of one."""


@define
class Pages:
    """A file, page by page, each as the WAL has it if that has it."""

    path: str
    size: int = PAGE_BYTES
    count: int = 0
    _usable: int = PAGE_BYTES
    _file: int = -1
    _wal: int = -1
    _in_wal: dict[int, int] = Factory(dict)
    """Where the newest committed content of a page begins in the WAL."""

    def open(self) -> None:
        """Raises OSError."""
        self._file = os.open(self.path, os.O_RDONLY)
        begin = os.pread(self._file, 100, 0)
        header = Header.parse(begin)
        wal = read_wal(self.path, 2**62)
        if header is not None and header.page_size:
            self.size, reserved = header.page_size, begin[20]
        else:
            self.size, reserved = (wal.page_size if wal and wal.page_size else PAGE_BYTES), 0
        self._usable = self.size - reserved
        self.count = -(-os.fstat(self._file).st_size // self.size)
        if wal is not None and wal.page_size == self.size and wal.valid:
            self._wal = os.open(f"{self.path}-wal", os.O_RDONLY)
            self._find_in_wal(wal.valid)

    def close(self) -> None:
        for descriptor in (self._file, self._wal):
            if descriptor >= 0:
                os.close(descriptor)

    def _find_in_wal(self, frames: int) -> None:
        pending: dict[int, int] = {}
        for frame in range(frames):
            at = WAL_HEADER + frame * (FRAME_HEADER + self.size)
            number, commit = struct.unpack(">2I", os.pread(self._wal, 8, at))
            pending[number] = at + FRAME_HEADER
            if commit:
                self._in_wal.update(pending)
                self.count = max(self.count, *pending)
                pending.clear()

    def read(self, number: int) -> bytes:
        """The page of that number, from 1 on; filled up with zeros if it was cut off."""
        at = self._in_wal.get(number)
        if at is not None:
            page = os.pread(self._wal, self.size, at)
        elif 1 <= number <= self.count:
            page = os.pread(self._file, self.size, (number - 1) * self.size)
        else:
            page = b""
        return page.ljust(self.size, b"\0")

    def cells(self, number: int) -> Iterator[int]:
        """Where the rows begin of a page that looks like a leaf of a table."""
        page = self.read(number)
        begin = 100 if number == 1 else 0
        if page[begin] != _LEAF_OF_TABLE:
            return
        (count,) = struct.unpack_from(">H", page, begin + 3)
        pointers = begin + 8
        for index in range(min(count, (self.size - pointers) // 2)):
            (at,) = struct.unpack_from(">H", page, pointers + 2 * index)
            if pointers + 2 * count <= at < self.size:
                yield at

    def row(self, number: int, at: int) -> tuple[int, Record]:
        """The number and the columns of the row at a place.

        Raises:
            NoRow
        """
        page = self.read(number)
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        if not 0 < length <= min(MAX_ROW_BYTES, self.count * self.size):
            raise NoRow
        return rowid - 2**64 if rowid >= 2**63 else rowid, _columns(self._payload(page, at, length))

    def _payload(self, page: bytes, at: int, length: int) -> bytes:
        """A row, from its page and those that it overflows to."""
        most = self._usable - 35
        if length <= most:
            return page[at : at + length]
        least = (self._usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (self._usable - 4)
        local = local if local <= most else least
        parts = [page[at : at + local]]
        seen: set[int] = set()
        left = length - local
        (following,) = struct.unpack(">I", page[at + local : at + local + 4].rjust(4, b"\0"))
        while left > 0:
            if not 1 < following <= self.count or following in seen:
                raise NoRow
            seen.add(following)
            more = self.read(following)
            parts.append(more[4 : 4 + min(left, self._usable - 4)])
            left -= self._usable - 4
            (following,) = struct.unpack_from(">I", more)
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        if at + index >= len(data):
            raise NoRow
        byte = data[at + index]
        if index == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + index + 1
    raise AssertionError("unreachable")


def _columns(payload: bytes) -> Record:
    """The values of a record.

    Raises:
        NoRow: it is none of a table that is looked for.
    """
    end, at = _varint(payload, 0)
    types = []
    while at < end:
        kind, at = _varint(payload, at)
        types.append(kind)
    if at != end or len(types) not in (_EVENT_COLUMNS, _OTHER_COLUMNS):
        raise NoRow
    values = []
    for kind in types:
        value, at = _value(payload, at, kind)
        values.append(value)
    return tuple(values)


def _value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind <= 6:
        end = at + _INTEGER_BYTES[kind]
    elif kind >= 12:
        end = at + (kind - 12) // 2
    else:
        raise NoRow  # a real number, or a type that is not used
    part = payload[at:end]
    if len(part) != end - at:
        raise NoRow
    if kind <= 6:
        return int.from_bytes(part, "big", signed=True), end
    if kind % 2 == 0:
        return part, end
    try:
        return part.decode(), end
    except UnicodeDecodeError:
        raise NoRow from None


@define
class Found:
    """Where rows stand that look like those of carstore's tables; a page and a place in it each."""

    events: dict[int, list[tuple[int, int]]] = Factory(dict)
    """By position. A table that was reorganised may have left a second copy behind."""
    streams: dict[int, list[str]] = Factory(dict)
    """Names by number; more than one if another table has rows of the same kind."""
    values: dict[str, list[tuple[int, int]]] = Factory(dict)
    """By hash."""


def search(pages: Pages, tell: Callable[[int, int], None]) -> Found:
    """Look through all pages; takes about a second for 50,000 rows."""
    found = Found()
    for number in range(1, pages.count + 1):
        for at in pages.cells(number):
            try:
                rowid, columns = pages.row(number, at)
            except NoRow:
                continue
            _note(found, rowid, columns, (number, at))
        if number % 1000 == 0 or number == pages.count:
            tell(number, pages.count)
    return found


def _note(found: Found, rowid: int, columns: Record, place: tuple[int, int]) -> None:
    if len(columns) == _EVENT_COLUMNS:
        digest = columns[13]
        if isinstance(digest, str) and len(digest) == _HASH_CHARS and columns[0] is None:
            found.events.setdefault(rowid, []).append(place)
        return
    first, second, third = columns
    if first is None and isinstance(second, str) and isinstance(third, str | None):
        names = found.streams.setdefault(rowid, [])
        if second not in names:
            names.append(second)
    elif isinstance(first, str) and len(first) == _HASH_CHARS and isinstance(third, bytes):
        found.values.setdefault(first, []).append(place)
