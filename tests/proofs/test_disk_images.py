"""What a disk may hold after power was lost, and what it must."""

import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prove.disk.images import SECTOR, VanishingDisk
from engine.prove.disk.power import Image, _Corrupt, _survivors
from engine.prove.disk.trace import Operation

CREATED = [Operation("C", "f"), Operation("S", ".")]
OLD, NEW = b"o" * SECTOR * 2, b"n" * SECTOR * 2


def disk_after(*done: Operation) -> VanishingDisk:
    disk = VanishingDisk()
    for one in done:
        disk.do(one)
    return disk


def images(*done: Operation, count: int = 300) -> set[bytes | None]:
    """What may be in the file `f`; `None` if there may be no such file."""
    disk, source = disk_after(*done), random.Random(1)
    return {disk.image(source).get("f") for _ in range(count)}


def test_what_was_synced_is_there() -> None:
    assert images(*CREATED, Operation("W", "f", 0, OLD), Operation("S", "f")) == {OLD}


def test_each_sector_of_a_write_is_there_or_not_by_itself() -> None:
    synced = [*CREATED, Operation("W", "f", 0, OLD), Operation("S", "f")]
    half = SECTOR * b"o", SECTOR * b"n"
    found = images(*synced, Operation("W", "f", 0, NEW))
    assert found == {a + b for a in half for b in half}


def test_sectors_are_cut_where_the_disk_cuts_them() -> None:
    synced = [*CREATED, Operation("W", "f", 0, OLD), Operation("S", "f")]
    found = images(*synced, Operation("W", "f", SECTOR - 1, b"xy"))
    cut = {
        OLD[: SECTOR - 1] + a + b + OLD[SECTOR + 1 :] for a in (b"o", b"x") for b in (b"o", b"y")
    }
    assert found == cut


def test_a_later_write_may_be_there_without_the_earlier_one() -> None:
    found = images(
        *CREATED, Operation("W", "f", 0, b"a" * SECTOR), Operation("W", "f", SECTOR, b"b" * SECTOR)
    )
    assert bytes(SECTOR) + b"b" * SECTOR in found
    assert b"a" * SECTOR in found


def test_a_truncation_is_there_or_not() -> None:
    synced = [*CREATED, Operation("W", "f", 0, OLD), Operation("S", "f")]
    assert images(*synced, Operation("T", "f", 5)) == {OLD, OLD[:5]}


def test_a_name_needs_a_sync_of_its_folder() -> None:
    made = [Operation("C", "f"), Operation("W", "f", 0, OLD), Operation("S", "f")]
    assert images(*made) == {None, OLD}
    assert images(*made, Operation("S", ".")) == {OLD}


def test_a_file_that_went_may_be_there_again() -> None:
    made = [*CREATED, Operation("W", "f", 0, OLD), Operation("S", "f")]
    assert images(*made, Operation("U", "f")) == {None, OLD}
    assert images(*made, Operation("U", "f"), Operation("S", ".")) == {None}


def test_a_file_made_anew_never_shows_what_the_earlier_one_held() -> None:
    again = [Operation("C", "f"), Operation("W", "f", 0, NEW), Operation("S", "f")]
    made = [*CREATED, Operation("W", "f", 0, OLD), Operation("S", "f"), Operation("U", "f")]
    assert images(*made, *again) == {OLD, None, NEW}
    assert images(*made, *again, Operation("S", ".")) == {NEW}


def test_what_a_trace_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="no 'X'"):
        disk_after(Operation("X", "f"))


WRITES = st.tuples(st.integers(0, 3_000), st.binary(min_size=1, max_size=2_000))


@given(st.lists(WRITES, max_size=8), st.lists(WRITES, max_size=8), st.integers(0, 1 << 30))
def test_every_byte_is_the_synced_one_or_one_that_was_written_since(
    before: list[tuple[int, bytes]], since: list[tuple[int, bytes]], seed: int
) -> None:
    first = [Operation("W", "f", at, data) for at, data in before]
    later = [Operation("W", "f", at, data) for at, data in since]
    synced = disk_after(*CREATED, *first, Operation("S", "f"))
    content = synced.image(random.Random(seed))["f"]
    assert synced.image(random.Random(seed + 1)) == {"f": content}
    image = disk_after(*CREATED, *first, Operation("S", "f"), *later).image(random.Random(seed))[
        "f"
    ]
    assert len(image) >= len(content)
    for at, byte in enumerate(image):
        known = {content[at] if at < len(content) else 0}
        known |= {data[at - start] for start, data in since if 0 <= at - start < len(data)}
        assert byte in known


def test_sqlite_checks_an_image_as_a_whole(tmp_path: Path) -> None:
    whole = tmp_path / "agents.db"
    connection = sqlite3.connect(whole)
    connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY, kind)")
    connection.execute("CREATE INDEX kinds ON events (kind)")
    connection.execute("INSERT INTO events VALUES (1, 'first kind')")
    connection.commit()
    connection.close()
    assert _survivors(whole) == [(1, "first kind")]
    content = whole.read_bytes()
    at = content.rindex(b"first kind")  # in the index, behind the table
    damaged = content[:at] + b"other" + content[at + 5 :]
    image = Image(1, 0, {"agents.db": damaged}).write(tmp_path / "image")
    with pytest.raises(_Corrupt):
        _survivors(image)
