"""Bringing stored rows up to the head of the log."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import Entry
from carstore.errors import Busy, ReadOnly, SchemaTooNew, UnknownEvent
from carstore.names import StreamName
from projections import (
    COSTS,
    DOUBTS,
    LAZY,
    RUNS,
    STATE,
    View,
    ViewDamaged,
    catch_up,
    checksum,
    fold,
    rows,
    scan,
)
from projections.errors import ViewFailed
from projections.streams import STREAMS
from tests.carstore.helpers import in_loop, new_file, open_store
from tests.projections.plausible import (
    all_of,
    append,
    append_unknown,
    changed,
    harm,
    in_doubt,
    metered,
    received,
    resolved,
    sql,
)


def stored_position(path: Path, name: str = "costs") -> int | None:
    found = sql(path, "SELECT position FROM view_positions WHERE name = ?", (name,))
    return found[0][0] if found else None


@in_loop
async def test_rows_and_position_are_stored(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered(cost_micros=5), metered(cost_micros=6))
        last = await append(store, changed())
        assert await catch_up(store, COSTS) == last
        assert stored_position(path) == last, "also past events that it does not read"
        assert sql(path, "SELECT agent, calls, cost_micros FROM costs") == [("planner", 2, 11)]
        await append(store, metered(cost_micros=7))
        await catch_up(store, COSTS)
        assert sql(path, "SELECT calls, cost_micros FROM view_costs_v2") == [(3, 18)]


@in_loop
async def test_rows_that_go_are_deleted(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, in_doubt("a1"), in_doubt("a2"), changed("k", 1), changed("m", 2))
        for view in (DOUBTS, STATE):
            await catch_up(store, view)
        await append(store, resolved("retry", "a1"), changed("k", deleted=True))
        for view in (DOUBTS, STATE):
            await catch_up(store, view)
    assert sql(path, "SELECT action_id, undo FROM doubts") == [("a2", 0)]
    assert sql(path, "SELECT scope, key, value FROM state") == [("main", "m", "2")]


@in_loop
async def test_nothing_new_writes_nothing(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered())
        last = await catch_up(store, COSTS)
        before = await store.database.write(lambda connection: connection.total_changes)
        assert await catch_up(store, COSTS) == last
        assert await store.database.write(lambda connection: connection.total_changes) == before


@in_loop
async def test_a_view_that_the_file_keeps_is_always_at_the_head(path: Path) -> None:
    async with open_store(path) as store:
        assert await catch_up(store, STREAMS) == await append(store, metered()) - 1
    assert stored_position(path, "streams") is None


@in_loop
async def test_pages_of_any_size_give_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(path) as store:
        for number in range(30):
            await append(store, metered(f"a{number % 4}", cost_micros=number), changed("k", number))
        expected = fold(COSTS, await all_of(store))
        sizes = [("PAGE_EVENTS", 3), ("PAGE_POSITIONS", 4), ("PAGE_CHARS", 300)]
        for name, size in sizes:
            with monkeypatch.context() as patch:
                patch.setattr(scan, name, size)
                harm(path, "DROP TABLE IF EXISTS view_costs_v2")
                assert await catch_up(store, COSTS) == 61
                assert await rows(store, COSTS, at=61) == expected, name
                assert await rows(store, COSTS, at=60) == fold(COSTS, (await all_of(store))[:60])


@in_loop
async def test_two_stores_and_many_tasks_fold_each_event_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE_EVENTS", 7)
    async with open_store(path) as one, open_store(path) as two:
        for _ in range(20):
            await append(one, *[metered(cost_micros=1)] * 5)
        places = await asyncio.gather(
            *[catch_up(store, COSTS) for _ in range(8) for store in (one, two)],
            append(two, *[metered(cost_micros=1)] * 20),
        )
        assert min(places[:-1]) >= 101
        assert (await rows(one, COSTS))[("planner", "USD")].calls == 120
        assert await rows(one, COSTS) == await rows(two, COSTS)


@in_loop
async def test_an_unknown_kind_is_refused_and_nothing_is_stored_past_it(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered())
        before = await catch_up(store, COSTS)
        unknown = append_unknown(path)
        await append(store, metered())
        for view in LAZY:
            with pytest.raises(UnknownEvent, match="Read the file with the newer carstore"):
                await catch_up(store, view)
            with pytest.raises(UnknownEvent):
                await rows(store, view)
            with pytest.raises(UnknownEvent):
                await rows(store, view, at=unknown)
            await rows(store, view, at=unknown - 1)
        assert stored_position(path) == before
        assert stored_position(path, "runs") is None
        assert (await store.log.head()).position == unknown + 1, "the store itself goes on"


@in_loop
async def test_a_dropped_table_is_made_again(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered())
        await catch_up(store, COSTS)
        sql(path, "DROP TABLE view_costs_v2")
        assert (await rows(store, COSTS))[("planner", "USD")].calls == 1
        sql(path, "DELETE FROM view_positions")
        await append(store, metered())
        assert (await rows(store, COSTS))[("planner", "USD")].calls == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("DROP VIEW costs; ALTER TABLE view_costs_v2 DROP COLUMN calls", "no such column"),
        ("ALTER TABLE view_costs_v2 RENAME COLUMN agent TO who", "no such column"),
        ("UPDATE view_positions SET position = 99", "the log ends at 3"),
        (
            "CREATE TRIGGER t BEFORE INSERT ON view_costs_v2 "
            "BEGIN SELECT RAISE(ABORT, 'mine'); END;",
            "mine",
        ),
    ],
)
@in_loop
async def test_a_damaged_table_is_reported_and_the_store_goes_on(
    path: Path, damage: str, reason: str
) -> None:
    async with open_store(path) as store:
        await append(store, metered())
        await catch_up(store, COSTS)
        harm(path, damage)
        await append(store, metered())
        with pytest.raises(ViewDamaged, match=reason) as caught:
            await catch_up(store, COSTS)
        assert caught.value.code == "view_damaged"
        assert "`carstore rebuild`" in caught.value.message
        await append(store, metered())


@in_loop
async def test_a_file_that_was_migrated_meanwhile_is_left_alone(path: Path) -> None:
    async with open_store(path) as store:
        sql(path, "PRAGMA user_version = 99")
        with pytest.raises(SchemaTooNew):
            await catch_up(store, COSTS)


@in_loop
async def test_a_file_that_cannot_be_written_says_so(path: Path) -> None:
    async with open_store(path, readonly=True) as store:
        with pytest.raises(ReadOnly):
            await catch_up(store, COSTS)
    async with open_store(path, busy_timeout_ms=1) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy):
            await catch_up(store, COSTS)
        other.close()
        await catch_up(store, COSTS)


# Names.


@in_loop
async def test_the_plain_name_shows_the_newest_complete_version(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(version: int) -> Any:
        return attrs.evolve(COSTS, version=version)

    def shown() -> str:
        [(text,)] = sql(path, "SELECT sql FROM sqlite_master WHERE name = 'costs'")
        return str(text)

    async with open_store(path) as store:
        await append(store, *[metered()] * 5)
        await catch_up(store, of(2))
        assert '"view_costs_v2"' in shown()
        await catch_up(store, of(1))
        assert '"view_costs_v2"' in shown(), "an older program keeps to its own table"
        await catch_up(store, of(10))
        assert '"view_costs_v10"' in shown()
        assert sql(path, "SELECT calls FROM costs") == [(5,)]
        monkeypatch.setattr(scan, "PAGE_EVENTS", 2)
        half = attrs.evolve(COSTS, version=11, evolve=_failing_at(4))
        with pytest.raises(ViewFailed):
            await catch_up(store, half)
        assert '"view_costs_v10"' in shown(), "version 11 is not complete"
        await catch_up(store, of(11))
        assert '"view_costs_v11"' in shown()
        assert sql(path, "SELECT calls FROM costs") == [(5,)]


def _failing_at(position: int) -> Callable[..., Any]:
    def evolve(rows: Any, event: Any, recorded: Any) -> Any:
        if recorded.position == position:
            raise RuntimeError
        return COSTS.evolve(rows, event, recorded)

    return evolve


@pytest.mark.parametrize(
    "own",
    [
        "CREATE TABLE costs (x)",
        "CREATE TABLE Costs (x)",
        "CREATE VIEW costs AS SELECT 1 AS x",
        'CREATE VIEW costs AS SELECT * FROM "view_runs_v1"',
        "CREATE INDEX costs ON events (recorded_at)",
    ],
)
@in_loop
async def test_what_has_the_name_of_a_view_and_is_none_stays(path: Path, own: str) -> None:
    sql(path, own)
    async with open_store(path) as store:
        await append(store, metered())
        assert (await rows(store, COSTS))[("planner", "USD")].calls == 1
    named = "SELECT sql FROM sqlite_master WHERE name = 'costs' COLLATE NOCASE"
    assert sql(path, named) == [(own,)]
    assert sql(path, "SELECT calls FROM view_costs_v2") == [(1,)]


# Anything.


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_any_text_and_number_is_stored_as_it_is_folded(
    tmp_path_factory: pytest.TempPathFactory, spent: list[tuple[str, str, int]]
) -> None:
    path = new_file(tmp_path_factory.mktemp("any") / "log.db")
    views: list[View[Any, Any]] = [COSTS, STATE]

    async def run() -> None:
        async with open_store(path) as store:
            for agent, value, amount in spent:
                stream = StreamName("notes")
                event = metered(agent, cost_micros=amount, tokens_in=amount)
                await store.log.append(Entry(stream, event), Entry(stream, changed("k", value)))
                for view in views:
                    await catch_up(store, view)
            for view in views:
                folded = fold(view, await all_of(store))
                assert await rows(store, view) == folded
                assert checksum(view, await rows(store, view)) == checksum(view, folded)

    asyncio.run(run())


@in_loop
async def test_large_values_are_stored(path: Path) -> None:
    async with open_store(path) as store:
        text = '"\\\n' * 2_000_000
        await append(store, received("a1"), changed("k", text), changed("m", text))
        await catch_up(store, STATE)
        await catch_up(store, RUNS)
        stored = await rows(store, STATE)
        assert checksum(STATE, stored) == checksum(STATE, fold(STATE, await all_of(store)))
