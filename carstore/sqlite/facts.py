"""What can be told of a database from outside: its size and header, its place, who may write it.

Nothing here asks SQLite, so it works for files that SQLite refuses. The process must not have
the database open: see `locks`.
"""

import os
import re
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from carstore.errors import CannotOpen, NotADatabase, NotFound

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100


@frozen(kw_only=True)
class Header:
    """What stands at the beginning of every SQLite file. What is in the WAL is not in it yet."""

    page_size: int
    """Bytes; 0 if what stands there is none."""
    pages: int
    wal: bool
    """Whether the file says that it is used with a WAL."""
    user_version: int
    application_id: int

    @classmethod
    def parse(cls, data: bytes) -> "Header | None":
        """None if it is not the beginning of a SQLite file."""
        if len(data) < _HEADER_BYTES or data[:16] != _MAGIC:
            return None
        size = int.from_bytes(data[16:18], "big")
        size = 65536 if size == 1 else size
        return cls(
            page_size=size if size >= 512 and size & (size - 1) == 0 else 0,
            pages=int.from_bytes(data[28:32], "big"),
            wal=data[18:20] == b"\x02\x02",
            user_version=int.from_bytes(data[60:64], "big", signed=True),
            application_id=int.from_bytes(data[68:72], "big"),
        )


@frozen
class Mount:
    """The file system that a file is on."""

    kind: str
    """`ext4`, `nfs4`, ...; "" if that cannot be told."""
    point: str


@frozen(kw_only=True)
class FileFacts:
    """A database and the files beside it."""

    path: str
    bytes: int
    header: Header | None
    links: int
    """Names that the file has."""
    others_may_write: bool
    readable: bool
    writable: bool
    """By whoever asks; so also the next one."""
    folder_writable: bool
    unwritable_beside: tuple[str, ...]
    """Files of SQLite beside it that cannot be written by who can write the database."""
    journal_bytes: int
    """Size of a rollback journal beside it, 0: there is none."""
    wal_bytes: int
    free_bytes: int
    """What ordinary users may still write where it is."""
    mount: Mount


def read_facts(path: str) -> FileFacts:
    """Look at the file `path`.

    Raises:
        NotFound: there is none.
        NotADatabase: it is not a file.
        CannotOpen: it cannot even be looked at.
    """
    try:
        status = os.stat(path)
        space = os.statvfs(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("database", path) from None
    except OSError as error:
        hint = "Ask the owner of its folder for the right to look into it."
        raise CannotOpen(path, error.strerror or str(error), hint) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no ordinary file"
        raise NotADatabase(path, f"it is {kind}")
    whole = os.path.realpath(path)
    head = b""
    with suppress(PermissionError), open(path, "rb") as file:
        head = file.read(_HEADER_BYTES)
    return FileFacts(
        path=path,
        bytes=status.st_size,
        header=Header.parse(head),
        links=status.st_nlink,
        others_may_write=bool(status.st_mode & stat.S_IWOTH),
        readable=os.access(path, os.R_OK),
        writable=os.access(path, os.W_OK),
        folder_writable=os.access(os.path.dirname(whole), os.W_OK),
        unwritable_beside=_unwritable_beside(path),
        journal_bytes=_size(f"{path}-journal"),
        wal_bytes=_size(f"{path}-wal"),
        free_bytes=space.f_bavail * space.f_frsize,
        mount=mount_of(whole, _mounts()),
    )


def _unwritable_beside(path: str) -> tuple[str, ...]:
    beside = (f"{path}-wal", f"{path}-shm")
    return tuple(name for name in beside if os.path.exists(name) and not os.access(name, os.W_OK))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def mount_of(path: str, mounts: list[Mount]) -> Mount:
    """The mount of an absolute path: the one with the longest matching point, of these the last."""
    found = Mount("", "")
    for mount in mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(found.point):
            found = mount
    return found


def _mounts() -> list[Mount]:
    """What is mounted where, as this process sees it; empty where the system does not tell."""
    if sys.platform == "darwin":
        said = subprocess.run(["/sbin/mount"], capture_output=True, check=False).stdout
        return parse_mounts_of_macos(os.fsdecode(said))
    try:
        return parse_mounts(os.fsdecode(Path("/proc/self/mounts").read_bytes()))
    except OSError:
        return []


def parse_mounts(text: str) -> list[Mount]:
    """Lines like `/dev/vda / ext4 rw,relatime 0 0`."""
    lines = [line.split(" ") for line in text.splitlines()]
    return [Mount(fields[2], _unescaped(fields[1])) for fields in lines if len(fields) > 2]


def parse_mounts_of_macos(text: str) -> list[Mount]:
    """Lines like `//me@host/share on /Volumes/share (smbfs, nodev, nosuid)`."""
    found = re.findall(r"(?m)^.+? on (/.*) \(([^,)]+)[^()]*\)$", text)
    return [Mount(kind, point) for point, kind in found]


def _unescaped(point: str) -> str:
    """Blanks and the like stand in the list as octal numbers."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        point = point.replace(code, chr(int(code[1:], 8)))
    return point
