"""What a file and its surroundings are like, and what to do about it.

Facts are read first and judged by pure functions, one for each code, so that each judgement can be
tried without the circumstances it is about. This works on damaged, read-only and foreign files, and
then says less. Nothing is written.

The process must not have the file open: closing it would drop the locks of the store.
"""

import os
import sqlite3
from collections.abc import Sequence

from carstore.clock import Clock, SystemClock
from carstore.holders import Processes, SystemProcesses
from carstore.sqlite import wal_facts
from carstore.sqlite.contents import read_contents
from carstore.sqlite.facts import FileFacts, read_facts
from carstore.sqlite.findings import Finding
from carstore.sqlite.judge_contents import (
    judge_contents,
    judge_forgotten,
    judge_leases,
    judge_sqlite,
)
from carstore.sqlite.judge_file import (
    judge_file,
    judge_processes,
    judge_readers,
    judge_wal_content,
    judge_wal_size,
)
from carstore.sqlite.locks import Lock, check_not_open_here, locks_of, processes_of
from carstore.sqlite.wal import CHECKPOINT_PAGES

MAX_CHECKED_FRAMES = 5 * CHECKPOINT_PAGES
"""Of a larger WAL the checksums are looked at only if asked: 10,000 frames take a second."""


def examine(
    path: str | os.PathLike[str],
    *,
    deep: bool = False,
    clock: Clock | None = None,
    processes: Processes | None = None,
) -> list[Finding]:
    """Look at the file `path`, and at what is beside and around it.

    Args:
        deep: also have SQLite go through the whole file, and check a WAL of any size.

    Raises:
        NotFound: there is no such file.
        NotADatabase: it is not a file at all.
        CannotOpen: it cannot even be looked at, or this process has it open.
    """
    name = os.fspath(path)
    check_not_open_here(name)
    facts = read_facts(name)
    found = list(judge_file(facts))
    # All that is read as bytes comes before SQLite opens the file: closing it drops our locks.
    locks = locks_of(f"{name}-shm")
    open_in = processes_of(locks)
    if facts.readable:
        found += _wal(facts, locks, deep=deep)
    found.append(judge_processes(open_in))
    contents = read_contents(name, deep=deep)
    found += judge_sqlite(sqlite3.sqlite_version_info, contents, len(open_in))
    found += judge_contents(contents)
    if contents.is_ours:
        found.append(judge_forgotten(contents.forgotten, facts.wal_bytes))
        found.append(
            judge_leases(contents.leases, clock or SystemClock(), processes or SystemProcesses())
        )
    return found


def _wal(facts: FileFacts, locks: Sequence[Lock], *, deep: bool) -> list[Finding]:
    try:
        wal = wal_facts.read_wal(facts.path, 2**62 if deep else MAX_CHECKED_FRAMES)
    except OSError as error:
        what = f"the WAL cannot be read: {error.strerror}"
        return [Finding("wal_content", "fault", what, "Ask its owner for the right.")]
    readers = wal_facts.readers(wal_facts.read_index(facts.path), locks)
    return [
        judge_wal_size(wal, facts.bytes),
        judge_wal_content(wal),
        judge_readers(readers, wal),
    ]


__all__ = ["MAX_CHECKED_FRAMES", "Finding", "examine"]
