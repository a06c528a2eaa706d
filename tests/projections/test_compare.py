"""A check that cannot fail proves nothing: each fault planted here must be found."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from projections import ACTIONS, COSTS, LAZY, STATE, VIEWS, Difference, catch_up, compare
from projections.costs import Cost
from projections.streams import STREAMS
from tests.carstore.helpers import in_loop, open_store
from tests.projections.plausible import (
    a_row_of_each_view,
    append,
    changed,
    executing,
    harm,
    metered,
    received,
    sql,
)


@in_loop
async def test_untouched_views_differ_in_nothing(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), executing(), metered(), changed("k", 1))
        for view in VIEWS:
            assert await compare(store, view) == []
            await catch_up(store, view)
            assert await compare(store, view) == []
        await append(store, metered(), changed("k", 2))
        for view in VIEWS:
            assert await compare(store, view) == [], "stored rows that lag are not wrong"


@pytest.mark.parametrize(
    ("fault", "key", "reason"),
    [
        ("UPDATE view_costs_v2 SET calls = 7 WHERE agent = 'x'", ("x", "USD"),
         "calls is 7, and 1 by the log"),
        ("UPDATE view_costs_v2 SET calls = 7, tokens_in = 8 WHERE agent = 'x'", ("x", "USD"),
         "calls is 7, and 1 by the log; tokens_in is 8, and 0 by the log"),
        ("DELETE FROM view_costs_v2 WHERE agent = 'y'", ("y", "USD"),
         "is missing; the log makes it"),
        ("INSERT INTO view_costs_v2 VALUES ('z', 'USD', 1, 0, 0, 0)", ("z", "USD"),
         "is there, and nothing in the log makes it"),
        ("UPDATE view_positions SET position = 2", ("x", "USD"),
         "is there, and nothing in the log makes it"),
        ("UPDATE view_positions SET position = 99", None,
         "it is at position 99, and the log ends at 4"),
        ("DROP VIEW costs; ALTER TABLE view_costs_v2 DROP COLUMN calls", None,
         "no such column: r.calls"),
    ],
)  # fmt: skip
@in_loop
async def test_planted_faults_are_found(
    path: Path, fault: str, key: tuple[str, str] | None, reason: str
) -> None:
    async with open_store(path) as store:
        await append(store, changed("k", 1), metered("x"), metered("y"))
        await catch_up(store, COSTS)
        harm(path, fault)
        found = await compare(store, COSTS)
        assert (found[0].key, found[0].reason) == (key, reason)
        assert "view 'costs'" in found[0].message


@pytest.mark.parametrize("view", LAZY, ids=lambda view: view.name)
@in_loop
async def test_a_lost_row_of_any_view_is_found(path: Path, view: Any) -> None:
    async with open_store(path) as store:
        await append(store, *a_row_of_each_view())
        await catch_up(store, view)
        assert await compare(store, view) == []
        sql(path, f"DELETE FROM {view.table}")
        assert [found.reason for found in await compare(store, view)] != []


@in_loop
async def test_no_more_rows_than_asked_for_are_named(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, *[metered(f"a{number:02}") for number in range(30)])
        await catch_up(store, COSTS)
        sql(path, "UPDATE view_costs_v2 SET calls = 2")
        assert [found.key for found in await compare(store, COSTS, limit=2)] == [
            ("a00", "USD"),
            ("a01", "USD"),
        ]
        assert len(await compare(store, COSTS)) == 10


# Evolve functions with the faults that are made.


def _forgets(rows: Any, event: Any, recorded: Any) -> Any:
    return {} if recorded.position == 3 else COSTS.evolve(rows, event, recorded)


def _begins_anew(rows: Any, event: Any, recorded: Any) -> Any:
    return {
        (event.agent, event.currency): Cost(
            agent=event.agent, currency=event.currency, calls=1, cost_micros=event.cost_micros
        )
    }


def _counts_twice(rows: Any, event: Any, recorded: Any) -> Any:
    once = COSTS.evolve(rows, event, recorded)
    return COSTS.evolve({**rows, **once}, event, recorded)


def _deletes(rows: Any, event: Any, recorded: Any) -> Any:
    return {(event.agent, event.currency): None}


@pytest.mark.parametrize("broken", [_forgets, _begins_anew, _counts_twice, _deletes])
@in_loop
async def test_rows_of_a_broken_evolve_are_found(path: Path, broken: Any) -> None:
    async with open_store(path) as store:
        await append(store, *[metered(cost_micros=3)] * 3)
        await catch_up(store, attrs.evolve(COSTS, evolve=broken))
        assert await compare(store, COSTS) != []


@in_loop
async def test_an_evolve_that_depends_on_more_than_its_arguments_is_found(path: Path) -> None:
    calls: list[int] = []

    def impure(rows: Any, event: Any, recorded: Any) -> Any:
        calls.append(1)
        return {
            (event.agent, event.currency): Cost(
                agent=event.agent, currency=event.currency, calls=len(calls)
            )
        }

    view = attrs.evolve(COSTS, evolve=impure)
    async with open_store(path) as store:
        await append(store, *[metered()] * 3)
        await catch_up(store, view)
        assert await compare(store, view) != []


@in_loop
async def test_a_twin_is_held_against_what_the_file_says(path: Path) -> None:
    def wrong(rows: Any, event: Any, recorded: Any) -> Any:
        made = STREAMS.evolve(rows, event, recorded)
        return {key: head and attrs.evolve(head, lease=None) for key, head in made.items()}

    async with open_store(path) as store:
        last = await append(store, executing())
        assert await compare(store, STREAMS) == []
        assert await compare(store, attrs.evolve(STREAMS, evolve=wrong)) == [
            Difference(
                view="streams",
                position=last,
                key=("run/r1",),
                reason="lease is 'run/r1', and None by the log",
            )
        ]


@in_loop
async def test_a_lease_that_was_changed_behind_the_triggers_is_found(path: Path) -> None:
    from projections.leases import LEASES
    from tests.projections.test_inline import grant

    async with open_store(path) as store:
        token = await grant(store, "agent/x")
        [(trigger,)] = sql(path, "SELECT sql FROM sqlite_master WHERE name = 'leases_update'")
        sql(path, "DROP TRIGGER leases_update")
        other_epoch = token + 2**40
        sql(path, "UPDATE leases SET token = ?", (other_epoch,))
        sql(path, trigger)
        [found] = await compare(store, LEASES)
        assert found.reason == f"granted_position is {other_epoch}, and {token} by the log"


@in_loop
async def test_a_difference_of_many_columns_is_told_shortly(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), changed("k", "v" * 5000))
        for view in (ACTIONS, STATE):
            await catch_up(store, view)
        sql(path, "UPDATE view_state_v1 SET value = 'x' || value, position = 1, run_id = NULL")
        [found] = await compare(store, STATE)
        assert len(found.message) < 500
