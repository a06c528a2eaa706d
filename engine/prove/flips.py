"""Single bits of a file flipped, one at a time: what is read then is what was written, or `verify`
names the first event that is not."""

import asyncio
import os
import random
import sqlite3
from itertools import zip_longest
from pathlib import Path
from typing import Any

from attrs import define, field

from carstore.sqlite.verify import verify_file
from engine.context import ToolContext
from engine.declare import tool
from engine.ir import Action, Proposal
from engine.prove.outside import SQL, connected
from engine.prove.people import opened
from engine.prove.proof import Outcome, Progress, Proof, Scale, by_scale
from engine.runtime import Runtime

__all__ = ["FLIPS"]

RUNS = 6
"""Runs in the file whose bits are flipped: some tens of kilobytes."""

MAX_BROKEN = 3

_Rows = list[tuple[Any, ...]]


@define
class _Counts:
    """What the flips did."""

    flips: int = 0
    changed: int = 0
    """Flips after which some event reads otherwise, or not at all."""
    unreadable: int = 0
    """Those of them at which SQLite itself stops reading, wherever on its way that is."""
    silent: int = 0
    """Those of them that nothing was reported of."""
    elsewhere: int = 0
    """Flips that were reported though every event reads as it was written."""
    broken: list[str] = field(factory=list)


def _flips(place: Path, scale: Scale, seed: int, progress: Progress) -> Outcome:
    path = place / "a.db"
    asyncio.run(_filled(path))
    whole, expected = path.read_bytes(), _rows(path)[0]
    bits = len(whole) * 8
    wanted = min(bits, by_scale(scale, 100, 1_000, 10_000))
    counts = _Counts()
    for bit in random.Random(f"flips {seed}").sample(range(bits), wanted):
        if counts.flips % 50 == 0:
            progress(f"flipping bits: {counts.flips:,} of {wanted:,}")
        _flip(path, whole, bit)
        _judge(path, expected, bit, counts)
        _flip(path, whole, bit, back=True)
        if len(counts.broken) >= MAX_BROKEN:
            break
    return Outcome(
        figures={
            "bits in the file": bits,
            "events in it": len(expected),
            "bits flipped, one at a time": counts.flips,
            "of them changed or dropped an event": counts.changed,
            "of these not reported": counts.silent,
            "of these at the first bad position": counts.changed
            - counts.unreadable
            - len(counts.broken),
            "of these where SQLite stops reading": counts.unreadable,
            "other damage reported": counts.elsewhere,
        },
        broken=counts.broken,
    )


async def _filled(path: Path) -> None:
    """A file with events of many kinds, and nothing in its WAL."""

    @tool
    async def add(n: int, ctx: ToolContext) -> int:
        ctx.set("sum", n)
        ctx.meter(tokens_in=n)
        return n

    async with opened(path) as store:
        runtime = Runtime(store, [add])
        for n in range(RUNS):
            actions = [
                Action(
                    id=f"a{i}", tool="add", parameters={"n": n + i}, expected_effects={f"k{i}": n}
                )
                for i in range(3)
            ]
            await runtime.execute(Proposal(id=f"p{n}", actions=actions), run_id=f"r{n}")


def _flip(path: Path, whole: bytes, bit: int, *, back: bool = False) -> None:
    """Change one bit in place, or put it back; what readers left beside the file goes."""
    at = bit // 8
    byte = whole[at] if back else whole[at] ^ 1 << bit % 8
    number = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(number, bytes([byte]), at)
    finally:
        os.close(number)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _rows(path: Path) -> tuple[_Rows, bool]:
    """The events as SQLite alone reads them, and whether all could be read."""
    rows: _Rows = []
    connection = connected(path)
    try:
        for row in connection.execute(SQL["everything"]):
            rows.append(row)
    except (sqlite3.Error, UnicodeError):
        return rows, False
    finally:
        connection.close()
    return rows, True


def _judge(path: Path, expected: _Rows, bit: int, counts: _Counts) -> None:
    counts.flips += 1
    found, readable = _rows(path)
    try:
        verification = verify_file(path)
    except Exception as error:  # noqa: BLE001 - that it never dies is the promise
        counts.broken.append(f"bit {bit}: verify died of {error!r:.200}")
        return
    if readable and found == expected:
        counts.elsewhere += not verification.ok
        return
    counts.changed += 1
    if verification.ok:
        counts.silent += 1
        counts.broken.append(f"bit {bit}: an event was changed, and nothing is reported")
        return
    if not readable:  # it stops somewhere on its way, which need not be at a damaged event
        counts.unreadable += 1
        return
    first = _first_difference(found, expected)
    told = [one.position for one in verification.problems if one.position is not None]
    if first != (told[0] if told else None):
        where = f"position {told[0]}" if told else "no position"
        counts.broken.append(f"bit {bit}: event {first} was changed, {where} is reported")


def _first_difference(found: _Rows, expected: _Rows) -> int:
    """The position of the first event that is missing, is another one, or was never written."""
    pairs = zip_longest(found, expected)
    return next(position for position, (one, two) in enumerate(pairs, 1) if one != two)


FLIPS = Proof(
    "bit flips",
    "A flipped bit that changes or drops an event is reported by verify, at its first bad position"
    " where the file can be read that far; verify never dies.",
    _flips,
)
