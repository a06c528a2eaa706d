"""A real history of writes and syncs, with what was acknowledged in between.

Processes append at once, checkpoint, close and open, while another program checkpoints the same
file. The library of `shim.c` records what they do to the disk.
"""

import random
import shutil
import sqlite3
from bisect import bisect_right
from pathlib import Path
from typing import Any

from attrs import frozen

from carstore.sqlite.database import Durability
from engine.prove.disk.nursery import Life, Nursery
from engine.prove.disk.shim import Disk
from engine.prove.disk.trace import Operation, read_trace

__all__ = ["History", "record"]


@frozen
class History:
    """What was done to one file, and the log that it became."""

    operations: list[Operation]
    events: list[tuple[Any, ...]]
    ends: frozenset[int]
    """Positions at which an append ends; 0 before there was a log."""
    acknowledged: list[tuple[int, int]]
    """(number of the operation, last position acknowledged before it), both growing."""

    def acknowledged_before(self, operation: int) -> int:
        known = bisect_right(self.acknowledged, (operation, 1 << 62))
        return self.acknowledged[known - 1][1] if known else 0


def record(
    nursery: Nursery, folder: Path, durability: Durability, source: random.Random
) -> History:
    """Let several processes work on a new file, and read what they did."""
    shutil.rmtree(folder, ignore_errors=True)
    watched = folder / "disk"
    watched.mkdir(parents=True)
    database, trace = watched / "agents.db", folder / "trace"
    disk = Disk(watched=watched, trace=trace)

    def writer(name: str, count: int) -> Life:
        seed = source.randrange(1 << 30)
        given = {"seed": seed, "name": name, "count": count, "durability": durability}
        return Life(name="appends", arguments={"database": str(database), **given}, disk=disk)

    def other_program(seconds: float) -> Life:
        given = {"seed": source.randrange(1 << 30), "seconds": seconds}
        return Life(name="outsider", arguments={"database": str(database), **given}, disk=disk)

    nursery.live(writer("a", 6))
    nursery.live(writer("b", 12), writer("c", 12), other_program(0.15))
    nursery.live(writer("d", 12))
    return _read(trace, watched, database)


def _read(trace: Path, watched: Path, database: Path) -> History:
    told = read_trace(trace, watched)
    ends, newest = {0, 1}, 0
    operations: list[Operation] = []
    acknowledged: list[tuple[int, int]] = []
    for one in told:
        if one.op == "N":
            last = int(one.name.split()[1])
            newest = max(newest, last)
            ends.add(last)
            acknowledged.append((len(operations), newest))
        else:
            operations.append(one)
    connection = sqlite3.connect(database)
    try:
        events = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
    finally:
        connection.close()
    return History(operations, events, frozenset(ends), acknowledged)
