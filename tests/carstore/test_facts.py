"""What is told of a file from outside."""

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.errors import NotADatabase, NotFound
from carstore.sqlite.facts import (
    Header,
    Mount,
    mount_of,
    parse_mounts,
    parse_mounts_of_macos,
    read_facts,
)

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/share /mnt/share nfs4 rw 0 0
me@host: /mnt/with\\040blank fuse.sshfs rw 0 0
/dev/vdb /mnt/share/local xfs rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/vdc /tmp ext4 rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/a.db", "ext4"),
        ("/mnt/share/a.db", "nfs4"),
        ("/mnt/shared/a.db", "ext4"),
        ("/mnt/share/local/deep/a.db", "xfs"),
        ("/mnt/with blank/a.db", "fuse.sshfs"),
        ("/tmp/a.db", "ext4"),  # mounted over the first
    ],
)
def test_a_file_is_on_the_mount_nearest_above_it(path: str, kind: str) -> None:
    assert mount_of(path, parse_mounts(MOUNTS)).kind == kind


def test_where_no_mounts_are_listed_nothing_is_known() -> None:
    assert mount_of("/a.db", []) == Mount("", "")


def test_mounts_as_macos_lists_them() -> None:
    text = (
        "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n"
        "//me@host/share on /Volumes/a share (smbfs, nodev, nosuid, mounted by me)\n"
    )
    assert parse_mounts_of_macos(text) == [
        Mount("apfs", "/"),
        Mount("smbfs", "/Volumes/a share"),
    ]


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_header_says_what_sqlite_wrote(tmp_path: Path, page_size: int) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA user_version = -3")
    connection.execute("PRAGMA application_id = 77")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    facts = read_facts(str(path))
    assert facts.header == Header(
        page_size=page_size, pages=pages, wal=True, user_version=-3, application_id=77
    )
    assert facts.bytes == pages * page_size


@given(st.binary(max_size=120))
def test_anything_can_be_read_as_a_header(data: bytes) -> None:
    assert Header.parse(data) is None
    found = Header.parse(b"SQLite format 3\x00" + data)
    assert (found is None) is (len(data) < 84)
    assert found is None or found.page_size in [0, *[2**n for n in range(9, 17)]]


def test_what_is_beside_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"x")
    Path(f"{path}-journal").write_bytes(b"123")
    Path(f"{path}-wal").write_bytes(b"12345")
    os.link(path, tmp_path / "b.db")
    path.chmod(0o666)
    facts = read_facts(str(path))
    assert (facts.journal_bytes, facts.wal_bytes, facts.links) == (3, 5, 2)
    assert facts.others_may_write
    assert facts.header is None
    assert facts.free_bytes > 0


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path / "no" / "folder"):
        with pytest.raises(NotFound):
            read_facts(str(missing))
    for other in (str(tmp_path), "/dev/null"):
        with pytest.raises(NotADatabase):
            read_facts(other)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_rights_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"x")
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        facts = read_facts(str(path))
    finally:
        tmp_path.chmod(0o700)
    assert (facts.readable, facts.writable, facts.folder_writable) == (True, False, False)
