"""Recalling: the result that is remembered under a reuse key, if it still may be had."""

from carstore import Store
from carstore.blobs import references
from carstore.canonical import loads_trusted
from engine.equipment import Remembered
from projections import REUSE, select

__all__ = ["recall"]


async def recall(store: Store, key: str) -> Remembered | None:
    """The newest success under `key` that was not rolled back."""
    rows = await select(store, REUSE, reuse_key=key)
    if not rows:
        return None
    found = max(rows, key=lambda row: row.position)
    output = loads_trusted(found.output)
    if any(references(await store.blobs.fill(output))):
        return None  # it was forgotten
    return Remembered(
        position=found.position,
        run_id=found.run_id,
        action_id=found.action_id,
        output=output,
        at=found.at,
    )
