"""What the bytes beside a database tell: damage in the WAL, readers that hold it back, users."""

import os
import random
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.sqlite.locks import Lock, locks_of, process_name, processes_of
from carstore.sqlite.wal_facts import (
    WalFile,
    WalIndex,
    _checksum,
    read_index,
    read_wal,
    readers,
)

ALL = 2**62
FRAME = 24 + 4096

# A process that pins the WAL at its second commit and then writes on.
PINS = """
import sqlite3, sys
path = sys.argv[1]
reader = sqlite3.connect(path, isolation_level=None)
reader.execute("PRAGMA journal_mode = WAL")
reader.execute("CREATE TABLE t (a)")
writer = sqlite3.connect(path, isolation_level=None)
writer.execute("PRAGMA wal_autocheckpoint = 0")
reader.execute("BEGIN")
reader.execute("SELECT * FROM t").fetchall()
for n in range(30):
    writer.execute("INSERT INTO t VALUES (?)", (n,))
print("ready", flush=True)
sys.stdin.read()
"""


WAITS = "import sys; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def pinned(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A database whose WAL is held back by a process of its own; its id."""
    path = tmp_path / "a.db"
    process = subprocess.Popen(
        [sys.executable, "-c", PINS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    yield path, process.pid
    process.kill()
    process.communicate()


def shared(pid: int, first: int, last: int) -> Lock:
    return Lock(exclusive=False, pid=pid, first=first, last=last)


def exclusive(pid: int, first: int, last: int) -> Lock:
    return Lock(exclusive=True, pid=pid, first=first, last=last)


def wal_of(data: bytes, folder: Path) -> WalFile | None:
    (folder / "copy.db-wal").write_bytes(data)
    return read_wal(str(folder / "copy.db"), ALL)


def checked(data: bytes, folder: Path) -> WalFile:
    found = wal_of(data, folder)
    assert found is not None
    return found


def test_a_whole_wal_is_whole(pinned: tuple[Path, int]) -> None:
    path, _ = pinned
    found = read_wal(str(path), ALL)
    assert found is not None
    assert found.frames == found.valid >= 30
    assert (found.page_size, found.commits_lost, found.checked) == (4096, 0, True)
    unchecked = read_wal(str(path), 5)
    assert unchecked is not None
    assert (unchecked.frames, unchecked.checked) == (found.frames, False)


def test_damage_is_found_where_it_is_and_what_it_costs_is_counted(
    pinned: tuple[Path, int], tmp_path: Path
) -> None:
    data, chance = Path(f"{pinned[0]}-wal").read_bytes(), random.Random(1)
    frames = (len(data) - 32) // FRAME
    for _ in range(40):
        at = chance.randrange(32, len(data))
        damaged = bytearray(data)
        damaged[at] ^= 1 << chance.randrange(8)
        found, frame = checked(bytes(damaged), tmp_path), (at - 32) // FRAME
        assert found.valid == frame
        # A frame is known to be whole by the checksum in the one before, so damage there costs two.
        in_checksum = 16 <= (at - 32) % FRAME < 24
        assert found.commits_lost == frames - frame - 1 - (in_checksum and frame < frames - 1)


def test_sqlite_reads_as_far_as_we_say(pinned: tuple[Path, int], tmp_path: Path) -> None:
    data = bytearray(Path(f"{pinned[0]}-wal").read_bytes())
    data[32 + 12 * FRAME + 1000] ^= 1
    found = checked(bytes(data), tmp_path)
    (tmp_path / "copy.db").write_bytes(pinned[0].read_bytes())
    connection = sqlite3.connect(tmp_path / "copy.db")
    (rows,) = connection.execute("SELECT count(*) FROM t").fetchone()
    connection.close()
    assert rows == 30 - found.commits_lost - 1


def test_an_end_that_was_cut_off_costs_nothing(pinned: tuple[Path, int], tmp_path: Path) -> None:
    data = Path(f"{pinned[0]}-wal").read_bytes()
    found = checked(data[: 32 + 10 * FRAME + 2000], tmp_path)
    assert (found.frames, found.valid, found.commits_lost) == (10, 10, 0)
    torn = data[: 32 + 10 * FRAME + 2000] + bytes(FRAME - 2000)
    found = checked(torn, tmp_path)
    assert (found.frames, found.valid, found.commits_lost) == (11, 10, 0)


def test_frames_of_an_earlier_round_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (a)")
    for n in range(20):
        connection.execute("INSERT INTO t VALUES (?)", (n,))
    connection.execute("PRAGMA wal_checkpoint")
    connection.execute("INSERT INTO t VALUES (1)")
    data = subprocess.run(["cat", f"{path}-wal"], capture_output=True, check=True).stdout
    connection.close()
    found = checked(data, tmp_path)
    assert (found.frames, found.valid, found.commits_lost) == (1, 1, 0)
    assert found.bytes > 20 * FRAME


@pytest.mark.parametrize("data", [b"x", b"no WAL at all" * 100, bytes(5000)])
def test_what_is_no_wal_is_told(data: bytes, tmp_path: Path) -> None:
    found = checked(data, tmp_path)
    assert (found.page_size, found.valid) == (0, 0)


def test_a_wal_with_a_damaged_header_is_not_read(pinned: tuple[Path, int], tmp_path: Path) -> None:
    data = bytearray(Path(f"{pinned[0]}-wal").read_bytes())
    data[27] ^= 1
    found = checked(bytes(data), tmp_path)
    assert (found.frames > 0, found.valid) == (True, 0)


@pytest.mark.parametrize("byte", range(32))
def test_a_wal_is_ignored_from_any_damage_in_its_header_on(
    pinned: tuple[Path, int], tmp_path: Path, byte: int
) -> None:
    data = bytearray(Path(f"{pinned[0]}-wal").read_bytes())
    assert checked(bytes(data), tmp_path).header_ok
    data[byte] ^= 0x10
    found = checked(bytes(data), tmp_path)
    assert (found.header_ok, found.valid, found.in_use) == (False, 0, False)
    (tmp_path / "copy.db").write_bytes(pinned[0].read_bytes())
    connection = sqlite3.connect(tmp_path / "copy.db")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    connection.close()
    assert tables == 0, "SQLite ignores all of it"


class Rounds:
    """A WAL that begins anew whenever one of its frames was read, `times` at most."""

    into: int
    """The file that is read, which follows the writer's."""

    def __init__(self, folder: Path, times: int) -> None:
        self.name, self.times, self.pread = folder / "live.db", times, os.pread
        writer = self.writer = sqlite3.connect(self.name, isolation_level=None)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("CREATE TABLE t (a)")
        self.fill()
        # A file that was closed would drop the locks of the writer, so we look at its bytes only.
        subprocess.run(["cp", f"{self.name}-wal", f"{folder}/copy.db-wal"], check=True)

    def fill(self) -> None:
        for n in range(12):
            self.writer.execute("INSERT INTO t VALUES (?)", (n,))

    def read(self, file: int, count: int, offset: int) -> bytes:
        found = self.pread(file, count, offset)
        if self.times and count == FRAME and offset == 32 + 3 * FRAME:
            self.times -= 1
            self.writer.execute("PRAGMA wal_checkpoint(RESTART)")
            self.fill()
            live = subprocess.run(["cat", f"{self.name}-wal"], capture_output=True, check=True)
            os.pwrite(self.into, live.stdout, 0)
        return found


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_wal_that_begins_anew_while_it_is_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    rounds = Rounds(tmp_path, times)
    rounds.into = os.open(tmp_path / "copy.db-wal", os.O_RDWR)
    monkeypatch.setattr(os, "pread", rounds.read)
    found = read_wal(str(tmp_path / "copy.db"), ALL)
    os.close(rounds.into)
    rounds.writer.close()
    assert found is not None
    assert rounds.times == 0
    assert found.in_use is (times == 3)
    if times < 3:
        assert (found.header_ok, found.commits_lost, found.valid) == (True, 0, 12)


def test_damage_in_what_was_committed_is_told_of_a_wal_in_use(pinned: tuple[Path, int]) -> None:
    wal = Path(f"{pinned[0]}-wal")
    with wal.open("r+b") as file:
        file.seek(32 + 5 * FRAME + 99)
        file.write(b"damage")
    found = read_wal(str(pinned[0]), ALL)
    assert found is not None
    assert (found.in_use, found.valid, found.commits_lost > 0) == (False, 5, True)


def test_no_wal_and_an_empty_one_are_none(tmp_path: Path) -> None:
    assert wal_of(b"", tmp_path) is None
    assert read_wal(str(tmp_path / "none.db"), ALL) is None


@given(st.binary(max_size=3 * FRAME))
def test_anything_can_be_read_as_a_wal(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    header = struct.pack(">3I", 0x377F0682, 3007000, 4096)
    for content in (data, header + data):
        found = wal_of(content, folder)
        assert found is None or found.valid <= found.frames


@given(
    st.sampled_from("<>"),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.integers(0, 40).flatmap(lambda n: st.binary(min_size=8 * n, max_size=8 * n)),
)
def test_the_checksum_is_that_of_the_description(
    order: str, before: tuple[int, int], data: bytes
) -> None:
    a, b = before
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for x, y in zip(words[::2], words[1::2], strict=True):
        a = (a + x + b) % 2**32
        b = (b + y + a) % 2**32
    assert _checksum(order, before, data) == (a, b)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists locks")
def test_who_holds_the_wal_back_is_named(pinned: tuple[Path, int]) -> None:
    path, pid = pinned
    locks = locks_of(f"{path}-shm")
    assert list(processes_of(locks)) == [pid]
    [reader] = readers(read_index(str(path)), locks)
    assert reader.behind == 30
    assert f"process {pid}" in reader.process


def test_a_reader_of_now_holds_nothing_back() -> None:
    index = WalIndex(frames=9, backfilled=9, marks=(0, 9, 4, None, None))
    locks = [shared(os.getpid(), 123, 124), shared(os.getpid(), 128, 128)]
    assert readers(index, locks) == []
    [one] = readers(index, [shared(os.getpid(), 125, 127)])
    assert one.behind == 5
    assert readers(index, [exclusive(os.getpid(), 125, 125)]) == []  # a writer that moves the mark
    assert readers(None, locks) == []


def test_only_locks_of_that_very_file_count(tmp_path: Path) -> None:
    file, listed = tmp_path / "a.db-shm", tmp_path / "locks"
    file.touch()
    status = os.stat(file)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    listed.write_text(
        f"1: POSIX  ADVISORY  READ 7 {device}:{status.st_ino} 123 127\n"
        f"1: -> POSIX  ADVISORY  WRITE 8 {device}:{status.st_ino} 120 120\n"
        f"2: POSIX  ADVISORY  WRITE 7 {device}:{status.st_ino} 120 EOF\n"
        f"3: POSIX  ADVISORY  READ 9 {device}:{status.st_ino + 1} 123 127\n"
        f"4: POSIX  ADVISORY  READ 2147483646 ff:ff:{status.st_ino} 123 127\n"
        f"5: FLOCK  ADVISORY  WRITE 7 {device}:{status.st_ino} 0 EOF\n"
        f"6: POSIX  ADVISORY  READ -1 {device}:{status.st_ino} 123 127\n"
        "7: something else\n"
    )
    assert locks_of(str(file), str(listed)) == [shared(7, 123, 127), exclusive(7, 120, 2**63)]
    assert locks_of(str(file), str(tmp_path / "no list")) == []
    assert locks_of(str(tmp_path / "none"), str(listed)) == []


@given(st.binary(max_size=200))
def test_anything_can_be_read_as_an_index(data: bytes) -> None:
    WalIndex.parse(data)
    found = WalIndex.parse(bytes(12) + b"\1" + bytes(35) + bytes(12) + b"\1" + bytes(35) + data)
    assert (found is None) is (len(data) < 40)


def test_a_process_is_named_without_its_arguments() -> None:
    name = process_name(os.getpid())
    assert name.endswith(f"(process {os.getpid()})")
    assert process_name(2**22 + 1) == f"process {2**22 + 1}"


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="only Linux tells")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-c", WAITS, "secret"], ""),
        (["-m", "timeit", "-n1", "-s", WAITS, "1"], " -m timeit"),
    ],
)
def test_what_a_python_runs_is_named(arguments: list[str], expected: str) -> None:
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        name = process_name(process.pid)
    finally:
        process.kill()
        process.communicate()
    assert name == f"{os.path.basename(sys.executable)}{expected} (process {process.pid})"
