"""`examine` says of any file what is the matter with it, and never fails."""

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from carstore.clock import ManualClock
from carstore.errors import CannotOpen, NotADatabase, NotFound
from carstore.leases import GRACE_US
from carstore.sqlite import judge_contents as jc
from carstore.sqlite import judge_file as jf
from carstore.sqlite.contents import Contents, HeldLease
from carstore.sqlite.doctor import examine
from carstore.sqlite.facts import FileFacts, Header, Mount
from carstore.sqlite.findings import Finding
from carstore.sqlite.locks import locks_of, processes_of
from carstore.sqlite.migrations import APPLICATION_ID, SCHEMA
from carstore.sqlite.wal_facts import Reader, WalFile
from tests.carstore.attack import lawless
from tests.carstore.helpers import FakeProcesses, change, in_loop, open_store, stock
from tests.carstore.test_wal_facts import PINS

BAD = ("warning", "fault")
GIB = 2**30

FACTS = FileFacts(
    path="a.db",
    bytes=8192,
    header=Header(
        page_size=4096, pages=2, wal=True, user_version=SCHEMA, application_id=APPLICATION_ID
    ),
    links=1,
    others_may_write=False,
    readable=True,
    writable=True,
    folder_writable=True,
    unwritable_beside=(),
    journal_bytes=0,
    wal_bytes=0,
    free_bytes=100 * GIB,
    mount=Mount("ext4", "/"),
)

WAL = WalFile(bytes=99_000, page_size=4096, frames=24, valid=24, commits_lost=0, checked=True)

CONTENTS = Contents(
    error=None,
    options=frozenset({"THREADSAFE=1", "ENABLE_FTS5"}),
    has_json=True,
    syncs=True,
    tables=5,
    application_id=APPLICATION_ID,
    user_version=SCHEMA,
    newest=7,
    amiss=(),
    leases=(),
    redaction=(),
    forgotten=0,
)


def levels(found: list[Finding]) -> dict[str, str]:
    assert len({one.code for one in found}) == len(found)
    assert all(one.what for one in found)
    assert all(one.do for one in found if one.level in BAD), "what is to be done?"
    return {one.code: one.level for one in found}


# Judgements.


def test_what_is_well_is_ok() -> None:
    assert {one.level for one in jf.judge_file(FACTS)} == {"ok"}
    assert {one.level for one in jc.judge_contents(CONTENTS)} == {"ok"}
    assert {one.level for one in jc.judge_sqlite((3, 53, 0), CONTENTS, 9)} == {"ok"}
    assert {jf.judge_wal_size(WAL, 0).level, jf.judge_wal_content(WAL).level} == {"ok"}


@pytest.mark.parametrize(
    ("change_of", "code", "level"),
    [
        ({"bytes": 0, "header": None}, "file", "fault"),
        ({"header": None}, "file", "fault"),
        ({"bytes": 4096}, "file", "fault"),
        ({"bytes": 9000}, "file", "fault"),
        ({"bytes": 4096, "wal_bytes": 10}, "file", "ok"),
        ({"bytes": 12288}, "file", "ok"),
        ({"header": evolve(FACTS.header, page_size=0)}, "file", "fault"),
        ({"header": evolve(FACTS.header, page_size=512)}, "file", "note"),
        ({"header": evolve(FACTS.header, wal=False)}, "journal_mode", "note"),
        ({"readable": False}, "file", "fault"),
        ({"mount": Mount("nfs4", "/mnt")}, "file_system", "fault"),
        ({"mount": Mount("cifs", "/mnt")}, "file_system", "fault"),
        ({"mount": Mount("smbfs", "/Volumes/x")}, "file_system", "fault"),
        ({"mount": Mount("9p", "/mnt")}, "file_system", "fault"),
        ({"mount": Mount("fuse.sshfs", "/mnt")}, "file_system", "fault"),
        ({"mount": Mount("fuse.rclone", "/mnt")}, "file_system", "fault"),
        ({"mount": Mount("fuseblk", "/mnt")}, "file_system", "note"),
        ({"mount": Mount("tmpfs", "/dev/shm")}, "file_system", "warning"),
        ({"mount": Mount("overlay", "/")}, "file_system", "note"),
        ({"mount": Mount("", "")}, "file_system", "note"),
        ({"mount": Mount("apfs", "/")}, "file_system", "ok"),
        ({"free_bytes": 1_000_000}, "free_space", "fault"),
        ({"free_bytes": 50_000_000}, "free_space", "warning"),
        ({"free_bytes": 5 * GIB, "bytes": 60 * GIB}, "free_space", "warning"),
        ({"free_bytes": 50 * GIB, "bytes": 60 * GIB}, "free_space", "note"),
        ({"others_may_write": True}, "permissions", "warning"),
        ({"writable": False}, "permissions", "note"),
        ({"folder_writable": False}, "permissions", "warning"),
        ({"unwritable_beside": ("a.db-wal",)}, "permissions", "warning"),
        ({"links": 2}, "names", "warning"),
        ({"journal_bytes": 512}, "journal", "warning"),
    ],
)  # fmt: skip
def test_a_file_is_judged_from_outside(change_of: dict[str, Any], code: str, level: str) -> None:
    found = levels(list(jf.judge_file(evolve(FACTS, **change_of))))
    assert found[code] == level


@pytest.mark.parametrize(
    ("change_of", "size", "content"),
    [
        ({}, "ok", "ok"),
        ({"frames": 16_001, "checked": False}, "warning", "ok"),
        ({"bytes": 100_000_000}, "note", "ok"),
        ({"valid": 20}, "ok", "note"),
        ({"valid": 20, "commits_lost": 3}, "ok", "fault"),
        ({"valid": 0, "header_ok": False}, "ok", "fault"),
        ({"valid": 20, "commits_lost": 3, "in_use": True}, "ok", "note"),
        ({"valid": 0, "frames": 0}, "ok", "ok"),
        ({"valid": 0, "frames": 0, "header_ok": False}, "ok", "fault"),
    ],
)
def test_a_wal_is_judged(change_of: dict[str, Any], size: str, content: str) -> None:
    wal = evolve(WAL, **change_of)
    assert jf.judge_wal_size(wal, 1000).level == size
    assert jf.judge_wal_content(wal).level == content


def test_readers_matter_when_the_wal_is_large() -> None:
    slow = [Reader(process=f"p (process {n})", behind=n) for n in range(9, 0, -1)]
    assert jf.judge_readers([], WAL).level == "ok"
    assert jf.judge_readers(slow, WAL).level == "note"
    large = jf.judge_readers(slow, evolve(WAL, frames=20_000))
    assert large.level == "warning"
    assert "process 9" in large.what
    assert "process 1)" not in large.what


@pytest.mark.parametrize(
    ("version", "has_bug"),
    [
        ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False), ((3, 44, 9), False),
        ((3, 45, 0), True), ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 0), True),
        ((3, 51, 2), True), ((3, 51, 3), False), ((3, 52, 0), False), ((4, 0, 0), False),
    ],
)  # fmt: skip
def test_the_wal_reset_bug_concerns_some_versions(version: tuple[int, ...], has_bug: bool) -> None:
    assert jc.has_wal_reset_bug(version) is has_bug
    alone, shared = jc.judge_version(version, 1), jc.judge_version(version, 2)
    assert (alone.level, shared.level) == (("note", "warning") if has_bug else ("ok", "ok"))


@pytest.mark.parametrize(
    ("change_of", "code", "level"),
    [
        ({"options": frozenset({"NO_SYNC"})}, "compile_options", "fault"),
        ({"options": frozenset({"THREADSAFE=0"})}, "compile_options", "fault"),
        ({"has_json": False}, "compile_options", "fault"),
        ({"options": frozenset()}, "compile_options", "note"),
        ({"syncs": False}, "synchronous", "fault"),
        ({"error": "no", "user_version": None}, "identity", "fault"),
        ({"application_id": 0, "tables": 3}, "identity", "fault"),
        ({"application_id": 0, "tables": 0}, "identity", "fault"),
        ({"user_version": SCHEMA + 1}, "identity", "fault"),
        ({"user_version": SCHEMA - 1}, "identity", "note"),
        ({"amiss": None}, "schema", "fault"),
        ({"amiss": tuple("abcdefgh")}, "schema", "fault"),
        ({"newest": None}, "events", "fault"),
        ({"redaction": None}, "redaction", "fault"),
        ({"redaction": ("*password*",)}, "redaction", "ok"),
        ({"quick_check": ()}, "quick_check", "ok"),
        ({"quick_check": ("row missing",)}, "quick_check", "fault"),
    ],
)
def test_contents_are_judged(change_of: dict[str, Any], code: str, level: str) -> None:
    contents = evolve(CONTENTS, **change_of)
    found = [*jc.judge_sqlite((3, 53, 0), contents, 1), *jc.judge_contents(contents)]
    assert levels(found)[code] == level


@pytest.mark.parametrize(
    ("forgotten", "wal_bytes", "level"),
    [(0, 0, "ok"), (0, 99, "ok"), (3, 0, "ok"), (3, 99, "note"), (None, 0, "fault")],
)
def test_what_was_forgotten_may_be_in_the_wal(
    forgotten: int | None, wal_bytes: int, level: str
) -> None:
    assert levels([jc.judge_forgotten(forgotten, wal_bytes)]) == {"forgotten": level}


def test_an_old_sqlite_is_a_fault() -> None:
    assert jc.judge_version((3, 36, 9), 1).level == "fault"


def test_leases_of_the_gone_and_of_the_silent_are_told() -> None:
    fakes, clock = FakeProcesses(), ManualClock()
    alive, gone = fakes.current("alive"), fakes.current("gone")
    fakes.gone.add(gone.incarnation)

    def judged(*leases: HeldLease) -> Finding:
        return jc.judge_leases(leases, clock, fakes)

    later = clock.now() + 1
    assert judged(HeldLease("run/a", alive, later)).level == "ok"
    assert judged(HeldLease("run/a", None, later)).level == "ok"
    found = judged(HeldLease("run/a", alive, later), HeldLease("run/b", gone, later))
    assert found.level == "note"
    assert "run/b" in found.what
    assert "run/a" not in found.what
    silent = HeldLease("run/c", alive, clock.now() - GRACE_US)
    assert "run/c" in judged(silent).what
    assert jc.judge_leases(None, clock, fakes).level == "fault"


# Files.


def filled(path: Path, events: int = 400) -> Path:
    async def fill() -> None:
        async with open_store(path) as store:
            await store.log.append(*[change(f"k{n % 7}", [n] * 50) for n in range(events)])

    asyncio.run(fill())
    return path


def faults(path: Path, *, deep: bool = True) -> set[str]:
    return {one.code for one in examine(path, deep=deep) if one.level in BAD}


def test_a_good_file_has_no_faults(path: Path) -> None:
    before = filled(path).read_bytes()
    found = examine(path, deep=True)
    assert not set(levels(found).values()) & {"fault"}
    assert path.read_bytes() == before
    assert "quick_check" not in levels(examine(path))


def test_a_file_in_use_is_told_with_its_users(path: Path) -> None:
    """By a process of its own: to look at a file that this one has open would drop its locks."""
    code = (
        "import sys; from carstore.sqlite.doctor import examine;"
        "print(*[one.what for one in examine(sys.argv[1]) if one.code == 'processes'])"
    )

    async def look() -> str:
        async with open_store(path) as store:
            await store.log.append(change("k"))
            found = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", code, str(path)],
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).parents[2],
            )
            await store.log.append(change("k"))
            return found.stdout

    told = asyncio.run(look())
    if Path("/proc/locks").exists():
        assert f"process {os.getpid()}" in told


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists locks")
@in_loop
async def test_a_process_that_has_the_file_open_keeps_its_locks(path: Path) -> None:
    async with open_store(path):
        with pytest.raises(CannotOpen, match="lose its locks"):
            examine(path)
        assert os.getpid() in processes_of(locks_of(f"{path}-shm"))
    assert levels(examine(path))["identity"] == "ok"


def test_who_holds_a_wal_back_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    process = subprocess.Popen(
        [sys.executable, "-c", PINS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        found = {one.code: one for one in examine(path)}
    finally:
        process.kill()
        process.communicate()
    if Path("/proc/locks").exists():
        assert found["readers"].level == "note"
        assert f"process {process.pid}" in found["readers"].what
    assert found["identity"].level == "fault"


def test_a_damaged_wal_is_a_fault_though_sqlite_says_nothing(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    async def fill() -> None:
        async with open_store(path) as store:
            for n in range(20):
                await store.log.append(change("k", n))
            for end in ("", "-wal"):
                subprocess.run(["cp", f"{path}{end}", f"{copy}{end}"], check=True)

    asyncio.run(fill())
    assert "wal_content" not in faults(copy)
    wal = bytearray(Path(f"{copy}-wal").read_bytes())
    wal[32 + 4120 * 9 + 100] ^= 1
    Path(f"{copy}-wal").write_bytes(wal)
    assert faults(copy) == {"wal_content"}
    wal[32 + 4120 * 9 + 100] ^= 1
    wal[20] ^= 1  # a salt of the header
    Path(f"{copy}-wal").write_bytes(wal)
    assert "wal_content" in faults(copy)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("DROP TRIGGER events_delete", "schema"),
        ("CREATE TRIGGER mine AFTER INSERT ON events BEGIN SELECT 1; END", "schema"),
        ("PRAGMA user_version = 99", "identity"),
        ("PRAGMA application_id = 1", "identity"),
    ],
)
def test_a_changed_file_is_a_fault(path: Path, statement: str, code: str) -> None:
    connection = stock(path)
    connection.execute(statement)
    connection.close()
    assert code in faults(path)


def test_a_file_without_events_is_a_fault(path: Path) -> None:
    with lawless(path) as connection:
        connection.execute("DELETE FROM events")
    assert "events" in faults(path)


@pytest.mark.parametrize("holder", ["'no JSON'", "'[]'", "'{\"pid\":1}'", "NULL", "'[[[['"])
def test_a_lease_of_any_holder_is_told(path: Path, holder: str) -> None:
    with lawless(path) as connection:
        connection.execute(
            "INSERT INTO leases (name, token, holder, expires_at, position) "
            f"VALUES ('x', 1, {holder}, 5, 1)"
        )
    [found] = [one for one in examine(path) if one.code == "leases"]
    assert "nobody knows whom" in found.what


def test_no_damage_makes_it_fail(path: Path) -> None:
    whole, chance, found = filled(path).read_bytes(), random.Random(3), set()
    for number in range(80):
        data = bytearray(whole)
        if number % 4 == 0:
            del data[chance.randrange(len(data)) :]
        elif number % 4 == 1:
            at = chance.randrange(len(data) // 4096) * 4096
            data[at : at + 4096] = bytes(4096)
        elif number % 4 == 2:
            data[chance.randrange(200)] ^= 1 << chance.randrange(8)
        else:
            data = bytearray(chance.randbytes(5000))
        path.write_bytes(data)
        Path(f"{path}-wal").write_bytes(chance.randbytes(5000 if number % 2 else 0))
        found |= set(levels(examine(path, deep=True)))
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
    assert {"file", "identity", "schema", "quick_check", "wal_content"} <= found


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        examine(tmp_path / "none.db")
    with pytest.raises(NotADatabase):
        examine(tmp_path)


def test_a_database_of_another_program_is_told(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE events (a)")
    connection.close()
    assert faults(tmp_path / "other.db") == {"identity"}
