"""Making stored rows anew."""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import pytest

from carstore.errors import ReadOnly, UnknownEvent
from projections import (
    COSTS,
    LAZY,
    RUNS,
    STATE,
    Rebuilt,
    View,
    catch_up,
    checksum,
    compare,
    fold,
    rebuild,
    rows,
    scan,
)
from projections.errors import RebuildOvertaken, ViewFailed
from tests.carstore.helpers import in_loop, open_store
from tests.projections.plausible import (
    all_of,
    append,
    append_unknown,
    changed,
    executing,
    harm,
    metered,
    received,
    sql,
)


def table_names(path: Path) -> list[str]:
    found = sql(path, "SELECT name FROM sqlite_master WHERE name LIKE 'view\\_%' ESCAPE '\\'")
    return sorted(name for (name,) in found if name != "view_positions")


@in_loop
async def test_a_rebuild_says_what_came_out_and_it_is_what_is_stored(path: Path) -> None:
    async with open_store(path) as store:
        last = await append(store, received("a1"), metered("x"), metered("y"), changed("k", 1))
        for view in LAZY:
            folded = fold(view, await all_of(store))
            assert await rebuild(store, view) == Rebuilt(
                view=view.name,
                version=view.version,
                position=last,
                rows=len(folded),
                checksum=checksum(view, folded),
            )
            assert await compare(store, view) == []
            assert await catch_up(store, view) == last
        assert sql(path, "SELECT agent FROM costs ORDER BY 1") == [("x",), ("y",)]
        assert table_names(path) == sorted(view.table for view in LAZY)


@in_loop
async def test_a_rebuild_repairs_whatever_was_done_to_the_rows(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered(cost_micros=5))
        for damage in (
            "UPDATE view_costs_v2 SET calls = 99",
            "DELETE FROM view_costs_v2",
            "DROP VIEW costs; ALTER TABLE view_costs_v2 DROP COLUMN calls",
            "DROP TABLE view_costs_v2",
            "UPDATE view_positions SET position = 99",
            "DROP VIEW costs",
        ):
            await catch_up(store, COSTS)
            harm(path, damage)
            await rebuild(store, COSTS)
            assert sql(path, "SELECT calls, cost_micros FROM costs") == [(1, 5)], damage
            assert await compare(store, COSTS) == []


@in_loop
async def test_views_of_other_people_survive_a_rebuild(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered(cost_micros=5))
        await catch_up(store, COSTS)
        sql(path, "CREATE VIEW dear AS SELECT agent FROM costs WHERE cost_micros > 3")
        sql(path, "CREATE VIEW raw AS SELECT agent FROM view_costs_v2")
        sql(path, "CREATE VIEW broken AS SELECT * FROM nowhere")
        await rebuild(store, COSTS)
        assert sql(path, "SELECT * FROM dear") == sql(path, "SELECT * FROM raw") == [("planner",)]
        legacy = await store.database.write(
            lambda connection: connection.execute("PRAGMA legacy_alter_table").fetchone()
        )
        assert legacy == (0,)


@in_loop
async def test_what_is_appended_meanwhile_is_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE_EVENTS", 10)
    async with open_store(path) as store, open_store(path) as other:
        positions = []

        async def write() -> None:
            for number in range(40):
                await append(
                    other, *[metered(cost_micros=1)] * 15, changed(f"k{number % 5}", number)
                )
                await rows(other, COSTS)

        async def again(view: View[Any, Any]) -> None:
            for _ in range(5):
                await rebuild(store, view)

        async def look() -> None:
            while True:
                found = "SELECT position FROM view_positions WHERE name = 'costs'"
                positions.extend(sql(path, found))
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        await asyncio.gather(write(), *[again(view) for view in (COSTS, STATE)])
        looking.cancel()
        assert positions == sorted(positions), "what people see went back"
        log = await all_of(store)
        views: list[View[Any, Any]] = [COSTS, STATE]
        for view in views:
            assert await rows(store, view) == fold(view, log)
            assert await compare(store, view) == []


@in_loop
async def test_progress_ends_at_the_head(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PAGE_POSITIONS", 4)
    seen: list[tuple[int, int]] = []
    async with open_store(path) as store:
        last = await append(store, *[executing()] * 9)
        await rebuild(store, RUNS, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(4, last), (8, last), (last, last)]


@in_loop
async def test_leftovers_of_an_interrupted_rebuild_are_removed(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered())
        sql(path, "CREATE TABLE view_costs_v2_new_0123abcd (x)")
        sql(path, "CREATE TABLE view_costs_v2_new_mine (x)")
        sql(path, "CREATE TABLE view_state_v1_new_0123abcd (x)")
        await rebuild(store, COSTS)
        assert table_names(path) == [
            "view_costs_v2",
            "view_costs_v2_new_mine",
            "view_state_v1_new_0123abcd",
        ]


@in_loop
async def test_a_rebuild_that_was_overtaken_by_another_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("projections.rebuild"), "STEP_ROWS", 2)
    async with open_store(path) as store:
        await append(store, *[metered(f"a{number}") for number in range(50)])
        await catch_up(store, COSTS)
        made = sql(path, "SELECT sql FROM sqlite_master WHERE name = 'view_costs_v2'")
        done = await asyncio.gather(
            *[rebuild(store, COSTS) for _ in range(3)], return_exceptions=True
        )
        overtaken = [result for result in done if isinstance(result, RebuildOvertaken)]
        assert 1 <= len(overtaken) <= 2
        assert len([result for result in done if isinstance(result, Rebuilt)]) + len(overtaken) == 3
        assert sql(path, "SELECT sql FROM sqlite_master WHERE name = 'view_costs_v2'") == made
        assert len(await rows(store, COSTS)) == 50
        assert await compare(store, COSTS) == []
        assert table_names(path) == ["view_costs_v2"]


@in_loop
async def test_a_rebuild_that_fails_leaves_the_old_rows(path: Path) -> None:
    def refuse(rows: Any, event: Any, recorded: Any) -> Any:
        raise RuntimeError

    async with open_store(path) as store:
        await append(store, metered())
        position = await catch_up(store, COSTS)
        with pytest.raises(ViewFailed, match=r"event 2, of kind inference_metered.*RuntimeError"):
            await rebuild(store, attrs.evolve(COSTS, evolve=refuse))
        append_unknown(path)
        with pytest.raises(UnknownEvent):
            await rebuild(store, COSTS)
        assert sql(path, "SELECT calls FROM costs") == [(1,)]
        assert sql(path, "SELECT position FROM view_positions") == [(position,)]


@in_loop
async def test_a_store_that_only_reads_rebuilds_nothing(path: Path) -> None:
    async with open_store(path, readonly=True) as store:
        with pytest.raises(ReadOnly):
            await rebuild(store, COSTS)
