"""Which processes have a database open, and what they lock of it, as Linux lists them. On other
systems nobody is known.

The locks of a file belong to the process, and closing any descriptor of it drops them all. So a
process that has a database open must not look at its bytes.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from carstore.errors import CannotOpen

OPEN_LOCK = 128
"""The byte of the WAL's index that every process locks that has the database open."""

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


def check_not_open_here(path: str) -> None:
    """Refuse to look at the bytes of a database that this process has open, as far as the system
    tells.

    Raises:
        CannotOpen
    """
    if any(lock.pid == os.getpid() for lock in locks_of(f"{path}-shm")):
        hint = "Close it first, or do this in a process of its own."
        raise CannotOpen(path, "this process has it open, and would lose its locks", hint)


def processes_of(locks: Sequence[Lock]) -> dict[int, str]:
    """Who has the database open, given the locks on its index: names by process id."""
    return {lock.pid: process_name(lock.pid) for lock in locks if lock.covers(OPEN_LOCK)}


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
