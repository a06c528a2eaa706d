"""What must hold of a file after any proof: the log is whole, and the views are what it says."""

from pathlib import Path
from typing import Any

from carstore import connect
from carstore.sqlite.verify import verify
from carstore.store import Store
from projections import LAZY, VIEWS, compare, rebuild, rows
from projections.memory import checksum
from projections.view import View

__all__ = ["faults", "faults_of", "view_faults"]


async def faults_of(path: Path) -> list[str]:
    """The same as `faults`, of a file that nobody has open."""
    async with connect(path, create=False, durability="crash") as store:
        return await faults(store)


async def faults(store: Store) -> list[str]:
    """What `verify` finds, and every view that differs from a rebuild, in sentences."""
    found = await verify(store)
    return [
        *[f"verify: {one.message}" for one in found.problems],
        *await view_faults(store),
    ]


async def view_faults(store: Store) -> list[str]:
    """Every view, stored and brought up to date, against one made anew from the log."""
    found = [difference.message for view in VIEWS for difference in await compare(store, view)]
    for view in LAZY:
        found += await _rebuilt(store, view)
    return found


async def _rebuilt(store: Store, view: View[Any, Any]) -> list[str]:
    before = checksum(view, await rows(store, view))
    made = await rebuild(store, view)
    after = checksum(view, await rows(store, view))
    if before == made.checksum == after:
        return []
    return [f"view {view.name!r}: rebuilt, it is another one ({before}, {made.checksum}, {after})"]
