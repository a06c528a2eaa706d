"""What stands in the files beside the database: the WAL, its index, and who has them open.

Read as bytes, since SQLite does not tell: which frames of the WAL are damaged, how far each reader
has pinned it, and which process that is. See "The WAL-Index File Format" and "The Write-Ahead Log"
in SQLite's description of its formats. The locks come from Linux's list of them; elsewhere nobody
is named.

The locks of a file belong to the process, and closing any descriptor of it drops them all. So these
functions are for a process that does not have the database open.
"""

import os
import re
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from operator import mul
from pathlib import Path

from attrs import frozen

WRITE_LOCK, CHECKPOINT_LOCK, READ_LOCK, OPEN_LOCK = 120, 121, 123, 128
"""Bytes of the index that are locked: by the writer, the checkpointer, the readers of each of the
five marks, and by every process that has the database open."""

READ_MARKS = 5

_UNUSED_MARK = 0xFFFFFFFF
WAL_HEADER, FRAME_HEADER, _INDEX_HEADER = 32, 24, 136
"""Bytes."""
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""Of the WAL, by the byte order of its checksums."""
_WORD = 2**32

_LOCK = re.compile(
    r"\d+: POSIX +ADVISORY +(READ|WRITE) +(-?\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) +(\d+) +(\d+|EOF)"
)


@frozen
class Lock:
    """A lock on some bytes of a file, as the system lists it."""

    exclusive: bool
    pid: int
    first: int
    last: int

    def covers(self, byte: int) -> bool:
        return self.first <= byte <= self.last


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
    """Whether the checksums were looked at; else `valid` is `frames`."""


@frozen(kw_only=True)
class WalIndex:
    """The memory that the processes share, as it stands in the file."""

    frames: int
    """Committed frames of the WAL."""
    backfilled: int
    """Those that a checkpoint has copied into the database."""
    marks: tuple[int | None, ...]
    """For each of the readers' locks, the last frame that its holders may see; None: unused."""

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

    Raises:
        OSError
    """
    try:
        wal = os.open(f"{path}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return _read_wal(wal, max_checked)
    finally:
        os.close(wal)


def _read_wal(wal: int, max_checked: int) -> WalFile | None:
    size, header = os.fstat(wal).st_size, os.pread(wal, WAL_HEADER, 0)
    if size == 0:
        return None
    order = None
    if len(header) == WAL_HEADER:
        magic, _, page_size = struct.unpack(">3I", header[:12])
        order = _MAGIC.get(magic)
    if order is None or not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        return WalFile(bytes=size, page_size=0, frames=0, valid=0, commits_lost=0, checked=True)
    frame_size = FRAME_HEADER + page_size
    possible = range((size - WAL_HEADER) // frame_size)

    def is_of_old(frame: int) -> bool:
        return os.pread(wal, 8, WAL_HEADER + frame * frame_size + 8) != header[16:24]

    frames = bisect_left(possible, x=True, key=is_of_old)
    valid, lost, checked = frames, 0, frames <= max_checked
    if checked:
        bodies = (os.pread(wal, frame_size, WAL_HEADER + n * frame_size) for n in possible)
        valid, lost = _check(header, order, bodies)
    return WalFile(
        bytes=size,
        page_size=page_size,
        frames=max(frames, valid),
        valid=valid,
        commits_lost=lost,
        checked=checked,
    )


def _check(header: bytes, order: str, frames: Iterator[bytes]) -> tuple[int, int]:
    """How many frames are whole from the beginning, and how many transactions end behind them.

    Each frame holds a checksum over itself that begins with the one of the frame before. So a frame
    behind a damaged one can still be told to be whole, and not left over from an earlier round.
    """
    valid, lost, broken = 0, 0, False
    before = _checksum(order, (0, 0), header[:24])
    if before != struct.unpack(">2I", header[24:32]):
        return 0, 0
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


def locks_of(path: str, list_of_locks: str = "/proc/locks") -> list[Lock]:
    """The locks that processes hold on a file, as far as the system tells; none where it does not.

    A file system can give its files other device numbers than its locks, so a number of the file
    counts also without the device if the process has that very file open.
    """
    try:
        status = os.stat(path)
        lines = Path(list_of_locks).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        match = _LOCK.match(line)
        if match is None or int(match[5]) != status.st_ino:
            continue
        pid = int(match[2])
        device = os.makedev(int(match[3], 16), int(match[4], 16))
        if pid > 0 and (device == status.st_dev or _has_open(pid, status)):
            last = 2**63 if match[7] == "EOF" else int(match[7])
            found.append(Lock(match[1] == "WRITE", pid, int(match[6]), last))
    return found


def _has_open(pid: int, status: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            found = os.stat(f"{folder}/{name}")
            if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
                return True
    except OSError:  # another user's, or gone meanwhile
        pass
    return False


def processes(locks: Sequence[Lock]) -> dict[int, str]:
    """Who has the database open, given the locks on its index: names by process id."""
    return {lock.pid: process_name(lock.pid) for lock in locks if lock.covers(OPEN_LOCK)}


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


def process_name(pid: int) -> str:
    """`python agents.py (process 4711)`: the program and what it runs, without its arguments, which
    may hold secrets."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        raw = b""
    words = [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]
    if not words:
        return f"process {pid}"
    name = os.path.basename(words[0])
    if len(words) > 2 and words[1] == "-m":
        name += f" -m {words[2]}"
    elif len(words) > 1 and not words[1].startswith("-") and name.startswith("python"):
        name += f" {os.path.basename(words[1])}"
    return f"{name:.80} (process {pid})"
