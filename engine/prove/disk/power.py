"""Power loss: what a disk may hold at any moment of a real history of writes and syncs.

Disks are made as they may be after the power went at random moments, and each is opened and
compared with the log as it became: what survived must be its beginning, up to the end of an append,
and hold everything that had been acknowledged. With durability `crash` the last of what was
acknowledged may be missing, which is counted; all else holds there too.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from carstore import connect
from carstore.errors import CarstoreError
from carstore.sqlite.database import Durability
from engine.prove.aftermath import faults
from engine.prove.disk.history import History, record
from engine.prove.disk.images import VanishingDisk
from engine.prove.disk.lives import entries_of
from engine.prove.disk.nursery import Nursery, on_disk, only_those
from engine.prove.proof import Figure, Outcome, Progress, Proof, Scale, by_scale

__all__ = ["POWER_LOSS"]

IMAGES_OF_ONE_HISTORY = 2_000
FEW_IMAGES = 200
IMAGES_OF_ONE_MOMENT = 4
CRASH_SHARE = 5
"""One in so many images is of a history with durability `crash`."""
OPENED_EVERY = 200
"""One in so many images is opened by carstore, appended to, and verified with all its views."""
MOST_BROKEN = 20


@define
class Losses:
    """What was counted."""

    histories: int = 0
    operations: int = 0
    syncs: int = 0
    events: int = 0
    images: int = 0
    opened: int = 0
    crash_images: int = 0
    crash_lost: int = 0
    crash_most: int = 0
    lost: int = 0
    corrupt: int = 0
    torn: int = 0
    broken: list[str] = field(factory=list)

    def told(self) -> dict[str, Figure]:
        return {
            "histories recorded": self.histories,
            "writes and syncs in them": self.operations,
            "of them syncs": self.syncs,
            "events acknowledged": self.events,
            "disk images": self.images,
            "of them opened, appended to and verified": self.opened,
            "acknowledged events lost": self.lost,
            "corrupt files": self.corrupt,
            "survivors that are no beginning of the log": self.torn,
            "disk images with durability crash": self.crash_images,
            "of them without some acknowledged event": self.crash_lost,
            "most acknowledged events lost by one of them": self.crash_most,
        }


def _run(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
    wanted = by_scale(scale, 160, 2_000, 50_000)

    def prove(folder: Path, nursery: Nursery) -> Outcome:
        outage = _Outage(nursery, folder, random.Random(seed), wanted, progress)
        losses = outage.losses
        while losses.images < wanted and not losses.broken:
            now = min(wanted - losses.images, IMAGES_OF_ONE_HISTORY, max(wanted // 4, FEW_IMAGES))
            outage.lose("power", now)
            if not losses.broken:
                outage.lose("crash", now // CRASH_SHARE)
        return Outcome(figures=losses.told(), broken=only_those(losses.broken))

    return on_disk(place, prove)


# --- losing ---


@frozen
class Image:
    """Files as they may be after power was lost before operation `moment`."""

    number: int
    moment: int
    files: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """Make the files in an empty folder; where the database is, or would be."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder / "agents.db"


def images(history: History, count: int, source: random.Random) -> Iterator[Image]:
    """`count` images, of random moments in their order."""
    moments = sorted(
        source.randint(0, len(history.operations)) for _ in range(-(-count // IMAGES_OF_ONE_MOMENT))
    )
    disk, done, number = VanishingDisk(), 0, 0
    for moment in moments:
        for one in history.operations[done:moment]:
            disk.do(one)
        done = moment
        for _ in range(min(IMAGES_OF_ONE_MOMENT, count - number)):
            yield Image(number, moment, disk.image(source))
            number += 1


@define
class _Outage:
    """Histories are recorded, and power is lost in them."""

    nursery: Nursery
    folder: Path
    source: random.Random
    wanted: int
    progress: Progress
    losses: Losses = field(factory=Losses)

    def lose(self, durability: Durability, count: int) -> None:
        """Record one history, and lose power `count` times in it."""
        losses = self.losses
        history = record(self.nursery, self.folder / "history", durability, self.source)
        if durability == "power":
            losses.histories += 1
            losses.operations += len(history.operations)
            losses.syncs += sum(one.op == "S" for one in history.operations)
            losses.events += len(history.events)
        for image in images(history, count, self.source):
            self.progress(f"losing power: {losses.images:,} of {self.wanted:,} disk images")
            self._judge(image, history, durability)
            if len(losses.broken) >= MOST_BROKEN:
                return

    def _judge(self, image: Image, history: History, durability: Durability) -> None:
        losses = self.losses
        where = f"power lost before operation {image.moment:,} of {len(history.operations):,}"
        try:
            events = self._look(image)
        except (sqlite3.Error, CarstoreError, _Corrupt) as error:
            losses.corrupt += 1
            losses.broken.append(f"{where}: {type(error).__name__}: {error}")
            return
        acknowledged = history.acknowledged_before(image.moment)
        lost = max(acknowledged - len(events), 0)
        if events != history.events[: len(events)] or len(events) not in history.ends:
            losses.torn += 1
            losses.broken.append(
                f"{where}: the {len(events)} survivors are no beginning of the log"
            )
        elif durability == "crash":
            losses.crash_images += 1
            losses.crash_lost += lost > 0
            losses.crash_most = max(losses.crash_most, lost)
            return
        elif lost:
            losses.lost += lost
            losses.broken.append(f"{where}: of {acknowledged} acknowledged events {lost} are lost")
        losses.images += 1

    def _look(self, image: Image) -> list[tuple[Any, ...]]:
        """The events in an image; now and then, carstore opens it too."""
        database = image.write(self.folder / "image")
        events = _survivors(database)
        if image.number % OPENED_EVERY == OPENED_EVERY // 2:
            self.losses.opened += 1
            # Made anew: whoever opens it first recovers it.
            asyncio.run(_goes_on(image.write(self.folder / "image"), len(events)))
        return events


class _Corrupt(Exception):
    """What was found in a file that opened."""


def _survivors(database: Path) -> list[tuple[Any, ...]]:
    """The events in a file that nobody of ours has looked at before, and that SQLite finds sound as
    a whole.

    Raises:
        sqlite3.Error, _Corrupt
    """
    if not database.exists():
        return []
    connection = sqlite3.connect(database)
    try:
        (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise _Corrupt(said)
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
            return []
        return connection.execute("SELECT * FROM events ORDER BY position").fetchall()
    finally:
        connection.close()


async def _goes_on(database: Path, events: int) -> None:
    """The next life opens the file, appends, and finds everything sound."""
    async with connect(database, durability="crash") as store:
        done = await store.log.append(*entries_of(random.Random(0), "after"))
        if done.first != max(events, 1) + 1:
            raise _Corrupt(f"after {events} events the next append is at {done.first}")
        found = await faults(store)
        if found:
            raise _Corrupt("; ".join(found))


POWER_LOSS = Proof(
    "power loss",
    "Power lost at any moment takes no acknowledged event and leaves no corrupt file; what"
    " survives is the beginning of the log, up to the end of an append.",
    _run,
)
