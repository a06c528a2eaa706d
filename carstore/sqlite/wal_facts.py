"""What stands in the files beside the database: the WAL and its index.

Read as bytes, since SQLite does not tell: which frames of the WAL are damaged, and how far each
reader has pinned it. See "The WAL-Index File Format" and "The Write-Ahead Log" in SQLite's
description of its formats. For a process that does not have the database open: see `locks`.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from operator import mul

from attrs import evolve, frozen

from carstore.sqlite.locks import Lock, process_name

READ_LOCK = 123
"""Of the bytes of the index that are locked, that of the first of the readers' marks."""

_UNUSED_MARK = 0xFFFFFFFF
WAL_HEADER, FRAME_HEADER, _INDEX_HEADER = 32, 24, 136
"""Bytes."""
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""Of the WAL, by the byte order of its checksums."""
_WORD = 2**32

_TRIES = 3
"""A WAL that somebody writes to is read so often before it is left unchecked."""


@frozen(kw_only=True)
class WalFile:
    """The WAL: how long it is, and where it is damaged."""

    bytes: int
    page_size: int
    frames: int
    """Those of the present round; the file keeps its size, with older frames behind them."""
    valid: int
    """So many from the beginning are as they were written. SQLite reads no further."""
    commits_lost: int
    """Transactions that end behind the first damaged frame, in frames that are whole."""
    checked: bool
    """Whether the checksums of the frames were looked at; else `valid` is `frames`."""
    header_ok: bool = True
    """SQLite ignores all of a WAL whose header is not as it was written."""
    in_use: bool = False
    """Somebody wrote to it each time it was read, so that what looks damaged may not be."""

    @property
    def looks_damaged(self) -> bool:
        return not self.header_ok or self.valid < self.frames or self.commits_lost > 0


@frozen(kw_only=True)
class WalIndex:
    """The memory that the processes share, as it stands in the file."""

    frames: int
    """Committed frames of the WAL."""
    backfilled: int
    """Those that a checkpoint has copied into the database."""
    marks: tuple[int | None, ...]
    """For each of the readers' locks, the last frame that its holders may see; None: unused."""
    salts: bytes = b""
    """Of the round that the WAL is in; they stand in its header and in each of its frames."""

    @classmethod
    def parse(cls, data: bytes) -> "WalIndex | None":
        """None if it is not one that is in use, or is just being written."""
        if len(data) < _INDEX_HEADER or data[:48] != data[48:96] or not data[12]:
            return None
        (frames,) = struct.unpack_from("=I", data, 16)
        backfilled, *marks = struct.unpack_from("=6I", data, 96)
        return cls(
            frames=frames,
            backfilled=backfilled,
            marks=tuple(None if mark == _UNUSED_MARK else mark for mark in marks),
            salts=data[32:40],
        )


@frozen(kw_only=True)
class Reader:
    """A process that keeps the WAL from beginning anew: it may still read what is in it."""

    process: str
    behind: int
    """Frames written since its transaction began."""


def read_index(path: str) -> WalIndex | None:
    """The index of the WAL of the database `path`; None if there is none in use, or none that can
    be read."""
    try:
        with open(f"{path}-shm", "rb") as file:
            return WalIndex.parse(file.read(_INDEX_HEADER))
    except OSError:
        return None


def read_wal(path: str, max_checked: int) -> WalFile | None:
    """The WAL of the database `path`, unless it is empty. Checksums are looked at if it has no more
    than `max_checked` frames.

    It may begin anew, or grow, while it is read, which then looks like damage. So damage counts if
    it lies in what was committed before, or is found a second time.

    Raises:
        OSError
    """
    try:
        wal = os.open(f"{path}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        before = None
        for _ in range(_TRIES):
            index, header = read_index(path), os.pread(wal, WAL_HEADER, 0)
            found = _read_wal(wal, header, max_checked)
            if found is None or not found.looks_damaged:
                return found
            committed = index.frames if index and index.salts == header[16:24] else 0
            is_same_round = os.pread(wal, WAL_HEADER, 0) == header
            if is_same_round and (found.valid < committed or found == before):
                return found
            before = found
        return None if before is None else evolve(before, in_use=True)
    finally:
        os.close(wal)


def _read_wal(wal: int, header: bytes, max_checked: int) -> WalFile | None:
    size = os.fstat(wal).st_size
    if size == 0:
        return None
    order = None
    if len(header) == WAL_HEADER:
        magic, _, page_size = struct.unpack(">3I", header[:12])
        order = _MAGIC.get(magic)
    if order is None or not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        return WalFile(
            bytes=size,
            page_size=0,
            frames=0,
            valid=0,
            commits_lost=0,
            checked=True,
            header_ok=False,
        )
    frame_size = FRAME_HEADER + page_size
    possible = range((size - WAL_HEADER) // frame_size)

    def is_of_old(frame: int) -> bool:
        return os.pread(wal, 8, WAL_HEADER + frame * frame_size + 8) != header[16:24]

    frames = bisect_left(possible, x=True, key=is_of_old)
    header_ok = _checksum(order, (0, 0), header[:24]) == struct.unpack(">2I", header[24:])
    valid, lost, checked = frames, 0, frames <= max_checked
    if not header_ok:
        valid = 0
    elif checked:
        bodies = (os.pread(wal, frame_size, WAL_HEADER + n * frame_size) for n in possible)
        valid, lost = _check(header, order, bodies)
    return WalFile(
        bytes=size,
        page_size=page_size,
        frames=max(frames, valid),
        valid=valid,
        commits_lost=lost,
        checked=checked,
        header_ok=header_ok,
    )


def _check(header: bytes, order: str, frames: Iterator[bytes]) -> tuple[int, int]:
    """How many frames are whole from the beginning, and how many transactions end behind them.

    Each frame holds a checksum over itself that begins with the one of the frame before. So a frame
    behind a damaged one can still be told to be whole, and not left over from an earlier round.
    """
    valid, lost, broken = 0, 0, False
    before = struct.unpack(">2I", header[24:])
    for body in frames:
        found: tuple[int, int] = struct.unpack_from(">2I", body, 16)
        of_this_round = body[8:16] == header[16:24]
        whole = of_this_round and _checksum(order, before, body[:8] + body[FRAME_HEADER:]) == found
        if whole and not broken:
            valid += 1
        elif whole:
            lost += body[4:8] != bytes(4)
        elif broken and not of_this_round:
            break
        broken = broken or not whole
        before = found
    return valid, lost


def _checksum(order: str, before: tuple[int, int], data: bytes) -> tuple[int, int]:
    """The checksum of a WAL: `a += x + b; b += y + a` for each two words x, y, modulo 2^32.

    That is linear, so it is a sum of products, which Python computes fifty times as fast."""
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    of_a, of_b, (aa, ab, ba, bb) = _coefficients(len(words))
    a, b = before
    return (
        (aa * a + ab * b + sum(map(mul, of_a, words))) % _WORD,
        (ba * a + bb * b + sum(map(mul, of_b, words))) % _WORD,
    )


@cache
def _coefficients(words: int) -> tuple[list[int], list[int], tuple[int, int, int, int]]:
    """What each word counts for in each half, and what the halves before count for."""
    of_a, of_b = [0] * words, [0] * words
    # One step is (a, b) -> (a + b + x, a + 2b + x + y); from the last step backwards, its power.
    aa, ab, ba, bb = 1, 0, 0, 1
    for place in range(words - 2, -1, -2):
        of_a[place], of_a[place + 1] = (aa + ab) % _WORD, ab
        of_b[place], of_b[place + 1] = (ba + bb) % _WORD, bb
        aa, ab = (aa + ab) % _WORD, (aa + 2 * ab) % _WORD
        ba, bb = (ba + bb) % _WORD, (ba + 2 * bb) % _WORD
    return of_a, of_b, (aa, ab, ba, bb)


def readers(index: WalIndex | None, locks: Sequence[Lock]) -> list[Reader]:
    """Who keeps a checkpoint from finishing, the farthest behind first.

    Mark 0 is that of readers who need nothing of the WAL, since all of it was in the database; what
    was written since may not overwrite what they read.
    """
    found: dict[int, int] = {}
    for number, mark in enumerate(index.marks if index else ()):
        for lock in locks:
            if mark is None or lock.exclusive or not lock.covers(READ_LOCK + number):
                continue
            assert index is not None
            behind = index.frames - (index.backfilled if number == 0 else mark)
            found[lock.pid] = max(behind, found.get(lock.pid, 0))
    return [
        Reader(process=process_name(pid), behind=behind)
        for pid, behind in sorted(found.items(), key=lambda one: -one[1])
        if behind > 0
    ]
