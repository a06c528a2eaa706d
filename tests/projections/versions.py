"""Two versions of one view, and a program that knows only one of them.

python -m tests.projections.versions PATH 1|2 catch-up|rebuild|append PAUSE_MS
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from carstore.events import InferenceMetered
from carstore.log import Recorded
from projections import View, catch_up, rebuild, scan
from projections.view import Key, Rows
from tests.carstore.helpers import open_store
from tests.projections.plausible import append, metered


@frozen(kw_only=True)
class SpentOnce:
    agent: str
    calls: int = 0


@frozen(kw_only=True)
class Spent:
    agent: str
    calls: int = 0
    dear: bool = False
    """Whether any call cost something."""
    cost_micros: int = 0


def keys(event: InferenceMetered, _: Recorded) -> list[Key]:
    return [(event.agent,)]


def evolve_old(rows: Rows[SpentOnce], event: InferenceMetered, _: Recorded) -> Rows[SpentOnce]:
    before = rows[(event.agent,)] or SpentOnce(agent=event.agent)
    return {(event.agent,): attrs.evolve(before, calls=before.calls + 1)}


def evolve_new(rows: Rows[Spent], event: InferenceMetered, _: Recorded) -> Rows[Spent]:
    before = rows[(event.agent,)] or Spent(agent=event.agent)
    cost = min(2**63 - 1, before.cost_micros + event.cost_micros)
    after = attrs.evolve(
        before, calls=before.calls + 1, dear=before.dear or cost > 0, cost_micros=cost
    )
    return {(event.agent,): after}


OLD: View[InferenceMetered, SpentOnce] = View(
    name="spent",
    version=1,
    kinds=(InferenceMetered,),
    row=SpentOnce,
    key=("agent",),
    keys=keys,
    evolve=evolve_old,
)
NEW: View[InferenceMetered, Spent] = View(
    name="spent",
    version=2,
    kinds=(InferenceMetered,),
    row=Spent,
    key=("agent",),
    keys=keys,
    evolve=evolve_new,
)


VERSIONS: tuple[View[Any, Any], View[Any, Any]] = (OLD, NEW)


def slowly(view: View[Any, Any], pause_ms: float) -> View[Any, Any]:
    """The same, in no hurry."""

    def evolve(rows: Any, event: Any, recorded: Any) -> Any:
        time.sleep(pause_ms / 1000)
        return view.evolve(rows, event, recorded)

    return attrs.evolve(view, evolve=evolve)


async def work(path: Path, view: View[Any, Any], what: str, pause_ms: float) -> None:
    """Do one thing over and over, until killed."""
    async with open_store(path) as store:
        print("began", flush=True)
        number = 0
        while True:
            number += 1
            if what == "append":
                await append(store, metered(f"a{number % 7}", cost_micros=number % 2))
                await asyncio.sleep(pause_ms / 1000)
            elif what == "rebuild":
                await rebuild(store, slowly(view, pause_ms))
            else:
                await catch_up(store, slowly(view, pause_ms))
                await asyncio.sleep(0.001)


if __name__ == "__main__":
    scan.PAGE_EVENTS = 9
    asyncio.run(
        work(Path(sys.argv[1]), VERSIONS[int(sys.argv[2]) - 1], sys.argv[3], float(sys.argv[4]))
    )
