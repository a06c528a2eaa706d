"""Questions over time: who set a key, when and why, and what changed between two positions."""

from typing import Any

from attrs import frozen

from carstore.canonical import loads_trusted
from carstore.names import Json, Micros, Position, RunId, Scope, StateKey
from carstore.store import Store
from projections.statements import SQL

__all__ = ["Change", "changes_between", "why"]

MAX_POSITION = 2**63 - 1
"""The largest that SQLite can hold."""


@frozen(kw_only=True)
class Change:
    """One change of a state key, and where it came from."""

    scope: Scope
    key: StateKey
    position: Position
    value: Json
    """None for a deletion."""
    deleted: bool
    run_id: RunId | None
    """The run that made it, if one did."""
    action_id: str | None
    """The action of the run that made it; None if it was the run's rollback."""
    agent: str | None
    """Who proposed the run."""
    recorded_at: Micros


async def why(
    store: Store,
    scope: Scope,
    key: StateKey,
    *,
    at: int | None = None,
    limit: int | None = None,
) -> list[Change]:
    """The changes of a key until position `at` (None: now), newest first; at most `limit`."""
    wanted = {
        "scope": scope,
        "key": key,
        "until": MAX_POSITION if at is None else at,
        "limit": -1 if limit is None else limit,
    }
    return [_change(row) for row in await store.database.fetch(SQL["changes_of_key"], wanted)]


async def changes_between(store: Store, scope: Scope, after: int, until: int) -> list[Change]:
    """The changes in a scope from position `after` (exclusive) to `until` (inclusive), in order."""
    wanted = {"scope": scope, "after": after, "until": until}
    return [_change(row) for row in await store.database.fetch(SQL["changes_between"], wanted)]


def _change(row: tuple[Any, ...]) -> Change:
    scope, key, position, data, run_id, action_id, agent, recorded_at = row
    change = loads_trusted(data)
    return Change(
        scope=scope,
        key=key,
        position=position,
        value=change.get("value"),
        deleted="deleted" in change,
        run_id=run_id,
        action_id=action_id,
        agent=agent,
        recorded_at=recorded_at,
    )
