"""Each query of docs/sql.md, run by a program that has never heard of carstore."""

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from carstore import Store
from carstore.events import Event, StateRollback
from carstore.names import Scope, StateKey
from projections import (
    ACTIONS,
    COSTS,
    DOUBTS,
    LAZY,
    RUNS,
    catch_up,
    changes_between,
    rows,
    select,
    why,
)
from tests.carstore.helpers import in_loop, open_store
from tests.projections.audits import AUDITS
from tests.projections.plausible import (
    all_of,
    append,
    changed,
    completed,
    executing,
    failed,
    in_doubt,
    metered,
    received,
    sql,
    succeeded,
)
from tests.projections.sql_page import PAGE, QUERIES

MAIN = Scope("main")
FIRST: list[Event] = [
    received("a1", "a2", source="critic"),
    executing("a1"),
    metered("critic", tokens_in=10, tokens_out=2, cost_micros=77),
    metered("critic", cost_micros=1, currency="EUR"),
    succeeded("a1", output={"n": 1}),
    changed("report", {"title": "ü", "done": [True, None]}),
    changed("flag", value=True),
    changed("one", 1),
    executing("a2"),
    failed("a2", error="no"),
    succeeded("a2", attempt=2),
    changed("report", "second"),
    changed("one", deleted=True),
    changed("nothing"),
]
SECOND: list[Event] = [
    received("b1", "b2"),
    metered("planner", tokens_in=5),
    succeeded("b1"),
    changed("report", 3),
    changed("half", 0.5),
    in_doubt("b2"),
    StateRollback(keys=("report",), conflicts=[]),
    changed("report", "second"),
    changed("late", 1),
]


async def sample(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, *FIRST)
        await append(store, *SECOND, run="r2")
        await append(store, completed("failed"))
        for view in LAZY:
            await catch_up(store, view)
        await append(store, metered("planner", cost_micros=3), run="r2")


async def the_newest_events(store: Store) -> list[Any]:
    newest = [
        (event.position, event.stream, event.kind, event.data) for event in await all_of(store)
    ]
    return newest[:-21:-1]


async def the_state_as_of_a_position(store: Store) -> list[Any]:
    state = await store.log.state_of(MAIN, at=20)
    return [
        (key, json.dumps(read.value), read.position, read.run_id) for key, read in state.items()
    ]


async def the_history_of_a_key(store: Store) -> list[Any]:
    return [
        (c.position, c.recorded_at, c.value, c.deleted, c.run_id, c.action_id, c.agent)
        for c in await why(store, MAIN, StateKey("report"))
    ]


async def what_changed_between_two_positions(store: Store) -> list[Any]:
    found = await changes_between(store, MAIN, 10, 20)
    return [(c.position, c.scope, c.key, c.value, c.run_id) for c in found]


async def cost_by_agent(store: Store) -> list[Any]:
    return [COSTS.values_of(cost) for cost in (await rows(store, COSTS)).values()]


async def the_slowest_actions(store: Store) -> list[Any]:
    actions = [row for row in await select(store, ACTIONS) if row.duration_us is not None]
    actions.sort(key=lambda row: (-(row.duration_us or 0), row.run_id, row.action_id))
    return [
        (a.run_id, a.action_id, a.tool, a.agent, a.status, a.attempts, a.duration_us)
        for a in actions
    ]


async def what_a_run_did(store: Store) -> list[Any]:
    return [event.kind async for event in store.log.read(run="r1")]  # type: ignore[arg-type]


async def runs_that_have_not_ended(store: Store) -> list[Any]:
    return [
        (run.run_id, run.proposal_id, run.source, run.status, run.started_at)
        for run in await select(store, RUNS, ended_at=None)
    ]


async def what_waits_for_a_person(store: Store) -> list[Any]:
    return [
        (d.run_id, d.action_id, d.tool, d.attempt, d.idempotency_key, d.since, d.reason)
        for d in await select(store, DOUBTS)
    ]


async def how_far_the_stored_views_are(store: Store) -> list[Any]:
    head = (await store.log.head()).position
    versions = sorted((view.name, view.version) for view in LAZY)
    return [(name, version, head - 1, 1) for name, version in versions]


def _by_type(kind: str, value: Any) -> str:
    """A JSON text from what json_type and json_extract give for it."""
    if kind in ("array", "object"):
        return json.dumps(json.loads(value))
    return json.dumps({"true": True, "false": False, "null": None}.get(kind, value))


def _plain(values: list[Any], column: int) -> list[Any]:
    """Rows in which a JSON value in `column` is as json_extract alone gives it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict | list):
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
        return value

    return [(*row[:column], plain(row[column]), *row[column + 1 :]) for row in values]


Api = Callable[[Store], Coroutine[Any, Any, list[Any]]]
Shape = Callable[[list[Any]], list[Any]]


def same(values: list[Any]) -> list[Any]:
    return values


CHECKS: dict[str, tuple[Api, Shape, Shape]] = {
    "The newest events": (
        the_newest_events,
        same,
        lambda found: [(position, *rest) for position, _, *rest in found],
    ),
    "The state as of a position": (
        the_state_as_of_a_position,
        same,
        lambda found: [(key, _by_type(kind, value), *rest) for key, kind, value, *rest in found],
    ),
    "The history of a key": (the_history_of_a_key, lambda values: _plain(values, 2), same),
    "What changed between two positions": (
        what_changed_between_two_positions,
        lambda values: _plain(values, 3),
        same,
    ),
    "Cost by agent": (cost_by_agent, same, same),
    "The slowest actions": (the_slowest_actions, same, same),
    "What a run did": (what_a_run_did, same, lambda found: [kind for _, kind, *_ in found]),
    "Runs that have not ended": (runs_that_have_not_ended, same, same),
    "What waits for a person": (what_waits_for_a_person, same, same),
    "How far the stored views are": (how_far_the_stored_views_are, same, same),
}


def test_every_query_of_the_page_is_checked() -> None:
    assert QUERIES.keys() == CHECKS.keys() | {title for title, _ in AUDITS}
    assert PAGE.read_text().count("```sql") == len(QUERIES)


@pytest.mark.parametrize("title", CHECKS)
@in_loop
async def test_a_query_of_the_page_gives_what_the_api_gives(path: Path, title: str) -> None:
    await sample(path)
    found = sql(path, QUERIES[title])
    api, as_sql, as_api = CHECKS[title]
    async with open_store(path) as store:
        expected = as_sql(await api(store))
    assert expected, "the sample shows nothing of it"
    assert as_api(found) == expected
