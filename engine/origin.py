"""What the origin of a copy knows that the copy does not: how the calls ended that were under way.

Hints, and no more: the origin is another file, which may be gone, or may go on at this moment. What
it says is for a person who answers for a call in doubt.
"""

import os
from collections.abc import Collection, Sequence
from typing import TypeAlias

from attrs import frozen

from carstore import Store, connect
from carstore import events as e
from carstore.errors import CarstoreError, NotFound
from carstore.log import Recorded
from carstore.names import Json, RunId
from carstore.sqlite.rights import kept

__all__ = ["CallThere", "Found", "look_at_origin"]

Attempt: TypeAlias = tuple[RunId, str, bool, int]
"""Of a call: its run, its action, whether it undoes that, and which attempt it is."""

_Done: TypeAlias = (
    e.ActionSucceeded | e.ActionFailed | e.CompensationSucceeded | e.CompensationFailed
)


@frozen(kw_only=True)
class CallThere:
    """How a call ended in the origin, after the copy was taken."""

    succeeded: bool
    output: Json
    error: str | None
    position: int
    """In the origin."""


@frozen(kw_only=True)
class Found:
    """What the origin says."""

    path: str
    calls: dict[Attempt, CallThere]
    statuses: dict[RunId, str]
    """How the runs ended there that did."""


async def look_at_origin(
    store: Store, runs: Collection[RunId], path: str | None = None
) -> Found | None:
    """Ask the origin of a copy about some of its runs. Nothing is written to it.

    Args:
        path: where the origin is; None: where it was when the copy was taken, and if it cannot be
            read there, nothing is known.

    Returns:
        None if `store` is no copy, or what is at `path` is not its origin.

    Raises:
        NotFound, NotADatabase, ...: as `connect`, of a `path` that was given.
    """
    began = await _epoch(store)
    there = path or (began.origin or {}).get("path")
    if not began.origin or not there or _same_file(there, store.path):
        return None
    if path is None and _is_backup(there):
        return None  # it knows no more than the copy
    if path is not None:
        _check_there(path)
    try:
        async with connect(there, create=False, readonly=True) as origin:
            return await _ask(origin, began.origin, runs)
    except CarstoreError:
        if path is not None:
            raise
        return None  # it was a guess, and a copy is whole without its origin


async def _epoch(store: Store) -> e.LogEpochStarted:
    """How this log began: the newest of its epochs."""
    newest: Recorded | None = None
    async for recorded in store.log.read(kinds=[e.LogEpochStarted.kind]):
        newest = recorded
    event = newest.event if newest is not None else None
    assert isinstance(event, e.LogEpochStarted)
    return event


def _same_file(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _check_there(path: str) -> None:
    if not os.path.exists(path):
        raise NotFound("database", path, "Name the one from which the copy was taken.")


def _is_backup(path: str) -> bool:
    return os.path.exists(path) and kept(path) is not None


async def _ask(origin: Store, copied: Json, runs: Collection[RunId]) -> Found | None:
    last = int(copied["position"])
    async for recorded in origin.log.read(after=last - 1, until=last):
        if recorded.hash == copied["hash"]:
            break  # the same history up to there
    else:
        return None
    calls: dict[Attempt, CallThere] = {}
    statuses: dict[RunId, str] = {}
    for run_id in runs:
        history = [recorded async for recorded in origin.log.read(run=run_id)]
        if history and history[0].position <= last:  # else it is another run of the same name
            news = [recorded for recorded in history if recorded.position > last]
            calls.update(_calls(run_id, news))
            statuses.update(_status(run_id, news))
    return Found(path=origin.path, calls=calls, statuses=statuses)


def _calls(run_id: RunId, news: Sequence[Recorded]) -> dict[Attempt, CallThere]:
    found: dict[Attempt, CallThere] = {}
    for recorded in news:
        event = recorded.event
        if not isinstance(event, _Done):
            continue
        undo = isinstance(event, e.CompensationSucceeded | e.CompensationFailed)
        succeeded = isinstance(event, e.ActionSucceeded | e.CompensationSucceeded)
        found[run_id, event.action_id, undo, event.attempt] = CallThere(
            succeeded=succeeded,
            output=None if isinstance(event, e.CompensationFailed) else event.output,
            error=event.error if isinstance(event, e.ActionFailed | e.CompensationFailed) else None,
            position=recorded.position,
        )
    return found


def _status(run_id: RunId, news: Sequence[Recorded]) -> dict[RunId, str]:
    found: dict[RunId, str] = {}
    for event in [one.event for one in news if one.kind == e.ProposalCompleted.kind]:
        assert isinstance(event, e.ProposalCompleted)
        found[run_id] = event.status
    return found
