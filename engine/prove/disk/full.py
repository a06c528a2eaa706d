"""A full disk: files may grow by so many bytes, and not by one more until somebody makes room."""

import random
import shutil
from pathlib import Path
from typing import Any

from attrs import define, field

from engine.prove.disk.nursery import Life, Nursery, on_disk, only_those
from engine.prove.disk.shim import Disk
from engine.prove.family import ProofFailed
from engine.prove.proof import Figure, Outcome, Progress, Proof, Scale, by_scale

__all__ = ["FULL_DISK"]

MOST_MS = 1000.0
"""How long it may take until somebody who appends is told that the disk is full."""

LITTLE_ROOM, MOST_ROOM = 100_000, 1_500_000
"""Bytes: from a file that cannot even be made to one of several checkpoints."""

MORE_APPENDS = 10
ENOUGH = 5
"""Broken promises after which no further disk is filled."""


@define
class Filled:
    """What was counted."""

    disks: int = 0
    refused: int = 0
    slowest_ms: float = 0.0
    acknowledged: int = 0
    broken: list[str] = field(factory=list)

    def add(self, room: int, report: dict[str, Any]) -> None:
        self.disks += 1
        self.refused += report["refused"]
        self.slowest_ms = max(self.slowest_ms, report["slowest_ms"])
        self.acknowledged += sum(last - first + 1 for first, last in report["acknowledged"])
        self.broken += [f"room for {room:,} bytes: {one}" for one in report["broken"]]
        if report["slowest_ms"] > MOST_MS:
            self.broken.append(f"an append was refused after {report['slowest_ms']:,.0f} ms")

    def told(self) -> dict[str, Figure]:
        return {
            "disks filled": self.disks,
            "appends and openings refused": self.refused,
            "slowest refusal, ms": round(self.slowest_ms, 1),
            "events acknowledged": self.acknowledged,
            "promises broken": len(self.broken),
        }


def _run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
    wanted, source, filled = by_scale(scale, 6, 40, 300), random.Random(seed), Filled()

    def prove(folder: Path, nursery: Nursery) -> Outcome:
        for n in range(wanted):
            if len(filled.broken) >= ENOUGH:
                break
            progress(f"filling disks: {n:,} of {wanted:,}")
            # Half of them fill up at the very beginning, where each write is another kind of thing.
            room = source.randint(0, source.choice((LITTLE_ROOM, MOST_ROOM)))
            filled.add(room, _one(nursery, folder / "one", room, source))
        return Outcome(figures=filled.told(), broken=only_those(filled.broken))

    return on_disk(place, prove)


def _one(nursery: Nursery, folder: Path, room: int, source: random.Random) -> dict[str, Any]:
    watched, freed = folder / "disk", folder / "freed"
    shutil.rmtree(folder, ignore_errors=True)
    watched.mkdir(parents=True)
    arguments = {
        "database": str(watched / "agents.db"),
        "seed": source.randrange(1 << 30),
        "freed": str(freed),
        "more": MORE_APPENDS,
    }
    disk = Disk(watched=watched, fault="full", room=room, freed=freed)
    (ended,) = nursery.live(Life(name="full", arguments=arguments, disk=disk))
    if ended.code != 0:
        raise ProofFailed(f"a process with {room:,} bytes of room hung or died")
    report: dict[str, Any] = ended.report
    return report


FULL_DISK = Proof(
    "full disk",
    "A full disk is told as such within a second, nothing is acknowledged that is not there,"
    " reading goes on, and once there is room so do the appends, without a restart.",
    _run,
)
