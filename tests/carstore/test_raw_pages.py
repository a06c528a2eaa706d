"""Rows are found in pages without SQLite exactly as SQLite wrote them."""

import random
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.sqlite.raw_pages import Found, NoRow, Pages, _columns, search

COLUMNS = ", ".join(f"c{n}" for n in range(13))


def make(path: Path, page_size: int, rows: list[tuple[Any, ...]], wal: bool = False) -> Any:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    if wal:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"CREATE TABLE events (position INTEGER PRIMARY KEY, {COLUMNS})")
    marks = ", ".join("?" * 14)
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO events VALUES ({marks})", rows)
    connection.execute("COMMIT")
    return connection


def rows(count: int, seed: int) -> list[tuple[Any, ...]]:
    chance = random.Random(seed)
    sizes = [0, 1, 100, 3900, 4040, 4061, 4062, 5000, 20_000]
    return [
        (
            n, chance.randrange(-(2**63), 2**63), chance.choice([0, 1, -1, 127, 128, 2**31]),
            "é" * chance.choice(sizes), None, "", 5, None, "x", None, 2**47, "y" * n, "p" * 64,
            f"{n:064}",
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


def found_in(path: Path) -> dict[int, tuple[Any, ...]]:
    pages = Pages(str(path))
    pages.open()
    try:
        found = search(pages, lambda *_: None)
        assert all(len(places) >= 1 for places in found.events.values())
        return {
            position: (position, *pages.row(*places[-1])[1][1:])
            for position, places in found.events.items()
        }
    finally:
        pages.close()


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_all_rows_are_found_as_they_are(tmp_path: Path, page_size: int) -> None:
    expected = rows(200, page_size)
    make(tmp_path / "a.db", page_size, expected).close()
    assert found_in(tmp_path / "a.db") == {row[0]: row for row in expected}


def test_pages_are_read_as_the_wal_has_them(tmp_path: Path) -> None:
    expected = rows(150, 1)
    connection = make(tmp_path / "a.db", 4096, expected[:50], wal=True)
    connection.execute("PRAGMA wal_checkpoint")
    connection.executemany(f"INSERT INTO events VALUES ({', '.join('?' * 14)})", expected[50:])
    for end in ("", "-wal"):
        subprocess.run(["cp", f"{tmp_path}/a.db{end}", f"{tmp_path}/b.db{end}"], check=True)
    connection.close()
    assert found_in(tmp_path / "b.db") == {row[0]: row for row in expected}
    (tmp_path / "b.db-wal").write_bytes(b"")
    assert len(found_in(tmp_path / "b.db")) >= 50


def test_damage_costs_the_rows_of_its_page(tmp_path: Path) -> None:
    path, chance = tmp_path / "a.db", random.Random(5)
    expected = {row[0]: row for row in rows(120, 2)}
    make(path, 4096, list(expected.values())).close()
    whole = path.read_bytes()
    for number in range(40):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        if number % 2:
            data[at : at + 300] = chance.randbytes(300)
        else:
            del data[at:]
        path.write_bytes(data)
        found = found_in(path)
        same = [position for position, row in found.items() if expected.get(position) == row]
        assert len(same) > 0 or at < len(whole) // 8


@given(st.lists(st.binary(min_size=1, max_size=600), max_size=6), st.sampled_from([b"", b"\x0d"]))
def test_anything_can_be_searched(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], begin: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.db"
    path.write_bytes(b"".join((begin + part).ljust(4096, part[:1]) for part in parts))
    pages = Pages(str(path))
    pages.open()
    try:
        assert isinstance(search(pages, lambda *_: None), Found)
    finally:
        pages.close()


@given(st.binary(max_size=100))
def test_anything_can_be_a_record(data: bytes) -> None:
    try:
        assert len(_columns(data)) in (3, 14)
    except NoRow:
        pass


def test_a_row_that_overflows_in_circles_ends(tmp_path: Path) -> None:
    """Pages that are said to follow themselves, for a row that is said to be a gigabyte long."""
    path = tmp_path / "a.db"
    make(path, 4096, rows(30, 3)).close()
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        if data[page * 4096] == 0:
            data[page * 4096 : page * 4096 + 4] = (page + 1).to_bytes(4, "big")
    path.write_bytes(data)
    assert len(found_in(path)) > 5
