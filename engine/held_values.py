"""Whether what a tool gives refers to values that the file holds: the log takes nothing else."""

from attrs import evolve

from carstore import Store
from carstore.blobs import blob_stream, references
from carstore.names import Json
from engine.buffered import DELETED, LogLine
from engine.execute import Ending, Outcome

__all__ = ["only_held", "referred_by"]

_LEFT_OUT = "a reference to a value that this file does not hold"


def referred_by(outcome: Outcome) -> set[str]:
    """The hashes that stand in what would be recorded of it."""
    noted = [line.data for line in outcome.buffered.lines if line.data]
    return {one for value in (*_given(outcome), *noted) for one in references(value)}


async def only_held(outcome: Outcome, hashes: set[str], store: Store) -> Outcome:
    """The outcome itself, if the values that it refers to are there, or were until somebody forgot
    them; else a failed one, and no log line with such a reference."""
    missing = await _missing(hashes, store)
    if not missing:
        return outcome

    def is_held(value: Json) -> bool:
        return missing.isdisjoint(references(value))

    lines = [
        line if is_held(line.data) else LogLine(line.message, {"left_out": _LEFT_OUT})
        for line in outcome.buffered.lines
    ]
    outcome = evolve(outcome, buffered=evolve(outcome.buffered, lines=tuple(lines)))
    if all(map(is_held, _given(outcome))):
        return outcome
    error = (
        f"what the tool gave looks like a reference to the value {min(missing)}, which this file "
        "does not hold; give the value itself"
    )
    ending = Ending.RAISED if outcome.ending is Ending.RETURNED else outcome.ending
    return evolve(outcome, ending=ending, output=None, error=outcome.error or error)


def _given(outcome: Outcome) -> list[Json]:
    changes = outcome.buffered.changes.values()
    return [outcome.output, *[value for value in changes if value is not DELETED]]


async def _missing(hashes: set[str], store: Store) -> set[str]:
    absent = hashes.difference(await store.blobs.read(hashes))
    return {one for one in absent if not await _was_forgotten(one, store)}


async def _was_forgotten(blob: str, store: Store) -> bool:
    async for _ in store.log.read(stream=blob_stream(blob)):
        return True
    return False
