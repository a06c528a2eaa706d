"""Many processes that append to one file at once.

What they note is read by somebody who was not there, and held against the log.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from carstore import connect
from carstore import events as e
from carstore.errors import Busy
from carstore.log import Entry
from carstore.names import StreamName
from engine.prove.aftermath import faults_of
from engine.prove.family import Family, wait_until
from engine.prove.outside import SQL, looking
from engine.prove.proof import Outcome, Progress, Proof, Scale, by_scale
from engine.prove.workload import Place, note, notes

__all__ = ["MANY_WRITERS"]

WRITERS = 16
"""Processes that append to one file at the same time."""

AT_ONCE = 4
"""Appends that each of them has under way."""

EARLY = 0.9
"""A `Busy` that comes before this share of its timeout is a failure without a reason."""


def write_many(folder: str, number: int, appends: int) -> None:
    """The life of one writer."""
    asyncio.run(_write_many(Place(Path(folder)), number, appends))


async def _write_many(place: Place, number: int, appends: int) -> None:
    async with connect(place.database) as store:
        note(place.acks, ready=number)
        while not (place.folder / "go").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.002)
        left = iter(range(appends))

        async def some() -> None:
            for n in left:
                event = e.StateChanged(scope="main", key=f"writer {number}", value=[number, n])
                entry = Entry(StreamName(f"writer/{number}"), event)
                while True:
                    began = time.monotonic()
                    try:
                        done = await store.log.append(entry)
                    except Busy:
                        share = (time.monotonic() - began) / store.database.busy_timeout_ms * 1000
                        note(place.acks, busy=share)
                        if share < EARLY:
                            return
                    except Exception as error:  # noqa: BLE001 - told to whoever judges
                        note(place.acks, failed=repr(error)[:300])
                        return
                    else:
                        note(place.acks, at=done.first, wrote=[number, n])
                        break

        await asyncio.gather(*[some() for _ in range(AT_ONCE)])


def _many_writers(folder: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:  # noqa: ARG001
    place, each = Place(folder), by_scale(scale, 15, 250, 2_000)
    asyncio.run(_made(place.database))
    with Family(folder) as family:
        children = [family.born(write_many, str(folder), n, each) for n in range(WRITERS)]
        wait_until(
            lambda: len(notes(place.acks)) >= WRITERS or not all(c.is_alive() for c in children),
            "all writers are there",
        )
        began = time.monotonic()
        (folder / "go").touch()
        for child in children:
            while child.is_alive():
                child.join(1)
                progress(f"many writers: {len(notes(place.acks)) - WRITERS:,} appends")
            family.check(child)
        seconds = time.monotonic() - began
    figures, broken = _judge_writers(place, each)
    figures["appends a second, all together"] = round(WRITERS * each / seconds)
    return Outcome(figures=figures, broken=[*broken, *asyncio.run(faults_of(place.database))])


async def _made(path: Path) -> None:
    async with connect(path):
        pass


def _judge_writers(place: Place, each: int) -> tuple[dict[str, Any], list[str]]:
    said, broken = notes(place.acks), []
    with looking(place.database) as log:
        rows = log.execute(SQL["changes"])
        there = {position: json.loads(data)["value"] for position, data in rows}
    told = {one["at"]: one["wrote"] for one in said if "at" in one}
    lost = [at for at, wrote in told.items() if there.get(at) != wrote]
    failed = [one["failed"] for one in said if "failed" in one]
    busy = [one["busy"] for one in said if "busy" in one]
    early = [share for share in busy if share < EARLY]
    broken += [f"the append acknowledged at {at} is not there" for at in lost[:5]]
    broken += [f"an append failed: {text}" for text in failed[:5]]
    broken += [f"Busy came after {share:.0%} of the timeout" for share in early[:5]]
    if not failed and not early and len(there) != WRITERS * each:
        broken.append(f"{WRITERS * each} events were appended, {len(there)} are there")
    return {
        "processes": WRITERS,
        "appends acknowledged": len(told),
        "acknowledged appends lost": len(lost),
        "failures without a reason": len(failed) + len(early),
        "typed Busy after the whole timeout": len(busy) - len(early),
    }, broken


MANY_WRITERS = Proof(
    "many writers",
    "Sixteen processes that append to one file at once lose nothing, and none fails without a"
    " reason.",
    _many_writers,
)
