"""A failing disk: the n-th write or sync fails, once, or it and all that come after it."""

import random
import shutil
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from carstore.errors import StoreFailed
from engine.prove.disk.lives import values_of
from engine.prove.disk.nursery import Life, Nursery, on_disk, only_those
from engine.prove.disk.shim import Counted, Disk, Fault
from engine.prove.proof import Figure, Outcome, Progress, Proof, Scale, by_scale

__all__ = ["FAILING_DISK"]

APPENDS = 30
ENOUGH = 5
"""Broken promises after which no further disk fails."""

FEW_TURNS = 5

HANG_SECONDS = 20.0
"""A life takes half a second, and waits for nobody."""

FATAL = StoreFailed.code


@frozen
class Kind:
    """Which operations fail."""

    fault: Fault
    on: Counted
    only: str
    most: int
    """About as many of them as a life comes to."""


FOLDER = "/disk"
"""The folder of the file. SQLite syncs it too, and ignores it when that fails; so carstore does it
once more while it opens the file, and later no name changes that matters."""

KINDS = (
    Kind("fail-once", "write", "", 900),
    Kind("fail-from", "write", "", 900),
    Kind("fail-once", "sync", "", 60),
    Kind("fail-from", "sync", "", 60),
    Kind("fail-once", "sync", "-wal", 40),
    Kind("fail-once", "sync", "agents.db", 12),  # what a checkpoint ends with
    Kind("fail-from", "sync", FOLDER, 3),
)


@define
class Heard:
    """What was counted."""

    lives: int = 0
    met: int = 0
    opening: int = 0
    syncs: int = 0
    checkpoints: int = 0
    acknowledged: int = 0
    refused: int = 0
    hung: int = 0
    broken: list[str] = field(factory=list)

    def told(self) -> dict[str, Figure]:
        return {
            "processes on a failing disk": self.lives,
            "of them that met the failure": self.met,
            "of them while opening": self.opening,
            "failed syncs while working": self.syncs,
            "of them in a checkpoint": self.checkpoints,
            "events acknowledged": self.acknowledged,
            "appends refused": self.refused,
            "processes that crashed or hung": self.hung,
            "promises broken": len(self.broken),
        }


def _run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
    wanted, source, heard = by_scale(scale, 14, 140, 1_260), random.Random(seed), Heard()

    def prove(folder: Path, nursery: Nursery) -> Outcome:
        for n in range(wanted):
            if len(heard.broken) >= ENOUGH:
                break
            progress(f"failing disks: {n:,} of {wanted:,}")
            kind = KINDS[n % len(KINDS)]
            at = _which(kind, n // len(KINDS), wanted // len(KINDS), source)
            _one(nursery, folder / "one", kind, at, source.randrange(1 << 30), heard)
        return Outcome(figures=heard.told(), broken=only_those(heard.broken))

    return on_disk(place, prove)


def _which(kind: Kind, turn: int, turns: int, source: random.Random) -> int:
    """The number of the operation that fails: each in turn, or a random one. If there are only a
    few turns, one that is met neither too early nor too late to see what comes of it."""
    if turns >= kind.most:
        return turn % kind.most + 1
    few = turns < FEW_TURNS
    return source.randint(kind.most // 3 if few else 1, kind.most // 2 if few else kind.most)


def _one(nursery: Nursery, folder: Path, kind: Kind, at: int, seed: int, heard: Heard) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    database = folder / "disk" / "agents.db"
    database.parent.mkdir(parents=True)
    watched = database.parent if kind.only == FOLDER else database
    disk = Disk(watched=watched, fault=kind.fault, on=kind.on, only=kind.only, at=at)
    arguments = {"database": str(database), "seed": seed, "count": APPENDS, "at": at}
    life = Life(name="failing", arguments=arguments, disk=disk)
    (ended,) = nursery.live(life, seconds=HANG_SECONDS)
    where = f"{kind.fault} of {kind.on} {at} of {kind.only or 'all files'}"
    heard.lives += 1
    if ended.code != 0:
        heard.hung += 1
        heard.broken.append(f"{where}: the process {'hung' if ended.code is None else 'died'}")
        return
    report: dict[str, Any] = ended.report
    _count(kind, report, heard)
    found = [*report["broken"], *_silent(kind, report)]
    next_life = Life(name="reopened", arguments={"database": str(database)})
    (after,) = nursery.live(next_life, seconds=HANG_SECONDS)
    if after.code != 0:
        found.append("the next life hung")
    else:
        found += after.report["broken"]
        found += _torn(seed, report["answers"], after.report["values"])
    heard.broken += [f"{where}: {one}" for one in found]


def _count(kind: Kind, report: dict[str, Any], heard: Heard) -> None:
    heard.met += report["met"] != ""
    heard.opening += report["met"] == "opening"
    if kind.on == "sync" and report["met"] == "working":
        heard.syncs += 1
        heard.checkpoints += kind.only == "agents.db"
    heard.acknowledged += sum(last - first + 1 for first, last in report["acknowledged"])
    heard.refused += sum(answer != "acknowledged" for answer in report["answers"])


def _silent(kind: Kind, report: dict[str, Any]) -> list[str]:
    """A store whose sync failed, or that can write no more, refuses every append from then on.
    (What fails while a file is opened, SQLite may do anew, and then nobody needs to hear of it.)"""
    if kind.only == FOLDER:
        told = report["met"] == "opening" and report["heard"] == [FATAL]
        return [] if told else ["the folder cannot be synced, and the opening does not tell"]
    if report["met"] == "working" and (kind.on == "sync" or kind.fault == "fail-from"):
        after = report["answers"][report["after"] :]
        if set(after) != {FATAL}:
            return [f"after the failure, appends were answered {after}"]
    return []


def _torn(seed: int, answers: list[str], values: list[str]) -> list[str]:
    """Each append is in the log as a whole or not at all, and is there if it was acknowledged."""
    source, at = random.Random(seed), 0
    for number, answer in enumerate(answers):
        wanted = values_of(source)
        if values[at : at + len(wanted)] == wanted:
            at += len(wanted)
        elif answer == "acknowledged":
            return [f"append {number} was acknowledged and is lost"]
    return [] if at == len(values) else [f"{len(values) - at} events are part of no whole append"]


FAILING_DISK = Proof(
    "failing disk",
    "A write or sync that fails ends in a typed error, never in a crash, a hang or a part of an"
    " append; after a failed sync the store refuses everything until it is opened again.",
    _run,
)
