"""Reading views, now and as of a position."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from projections import (
    ACTIONS,
    COSTS,
    DOUBTS,
    RUNS,
    STATE,
    VIEWS,
    catch_up,
    fold,
    kept,
    rows,
    select,
)
from projections import row as row_of
from projections.costs import Cost
from projections.errors import InvalidSelection
from projections.streams import STREAMS
from tests.carstore.helpers import in_loop, open_store
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


@in_loop
async def test_now_is_the_head_of_the_log(path: Path) -> None:
    async with open_store(path) as store:
        assert await rows(store, COSTS) == {}
        for calls in range(1, 4):
            await append(store, metered(cost_micros=2))
            assert await rows(store, COSTS) == {
                ("planner", "USD"): Cost(
                    agent="planner", currency="USD", calls=calls, cost_micros=2 * calls
                )
            }


@in_loop
async def test_rows_come_in_order_of_their_key(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered("b"), metered("ä"), metered("a"))
        await catch_up(store, COSTS)
        await append(store, metered("aa"), metered("Z"))
        assert list(await rows(store, COSTS)) == [
            ("Z", "USD"),
            ("a", "USD"),
            ("aa", "USD"),
            ("b", "USD"),
            ("ä", "USD"),
        ]
        assert list(await rows(store, COSTS, at=4)) == [("a", "USD"), ("b", "USD"), ("ä", "USD")]
        await append(store, metered("0"))
    async with open_store(path, readonly=True) as store:
        assert list(await rows(store, COSTS)) == [
            ("0", "USD"),
            ("Z", "USD"),
            ("a", "USD"),
            ("aa", "USD"),
            ("b", "USD"),
            ("ä", "USD"),
        ]


@in_loop
async def test_as_of_any_position_is_a_fold_of_the_prefix(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1", "a2"), executing(), metered(cost_micros=1))
        await append(store, failed(), in_doubt("a2"), changed("k", 1))
        middle = await append(store, succeeded("a2"))
        for view in VIEWS:
            await catch_up(store, view)
        last = await append(store, changed("k", deleted=True), completed("failed"))
        log = await all_of(store)
        for view in VIEWS:
            for position in range(last + 3):
                assert await rows(store, view, at=position) == fold(view, log[:position])
        assert middle < last


@in_loop
async def test_select_finds_rows_by_their_columns(path: Path) -> None:
    async with open_store(path) as store:
        for run in ("r1", "r2", "r3"):
            await append(store, received("a1", source=f"of {run}"), run=run)
        await append(store, completed(), run="r2")
        await append(store, in_doubt(), in_doubt(undo=True))
        assert [run.run_id for run in await select(store, RUNS, status="running")] == ["r1", "r3"]
        assert [run.run_id for run in await select(store, RUNS, ended_at=None)] == ["r1", "r3"]
        both = await select(store, RUNS, status="running", source="of r3")
        assert [run.run_id for run in both] == ["r3"]
        assert await select(store, RUNS, status="nonsense") == []
        assert len(await select(store, RUNS)) == 3
        assert [doubt.undo for doubt in await select(store, DOUBTS, undo=True)] == [True]


@pytest.mark.parametrize(
    "equals", [{"colour": "red"}, {"status": 1}, {"actions": "1"}, {"actions": True}], ids=str
)
@in_loop
async def test_select_refuses_what_could_match_nothing(path: Path, equals: dict[str, Any]) -> None:
    async with open_store(path) as store:
        with pytest.raises(InvalidSelection, match=r"column '(colour|status|actions)'"):
            await select(store, RUNS, **equals)


@in_loop
async def test_a_row_is_found_by_its_key_and_is_not_stored_for_that(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1", "a2"), executing("a2"))
        found = await row_of(store, ACTIONS, ("r1", "a2"))
        assert found is not None
        assert found.status == "executing"
        assert await row_of(store, ACTIONS, ("r1", "a3")) is None
        assert sql(path, "SELECT * FROM view_positions") == []
        with pytest.raises(InvalidSelection, match="its key is"):
            await row_of(store, ACTIONS, ("r1",))


@in_loop
async def test_a_row_far_behind_is_caught_up_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "TAIL_EVENTS", 3)
    async with open_store(path) as store:
        await append(store, *[metered()] * 6)
        found = await row_of(store, COSTS, ("planner", "USD"))
        assert found == Cost(agent="planner", currency="USD", calls=6)
        assert sql(path, "SELECT name, position FROM view_positions") == [("costs", 7)]


@in_loop
async def test_a_deleted_row_does_not_come_back_from_the_stored_ones(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, changed("k", 1), changed("m", 1))
        await catch_up(store, STATE)
        await append(store, changed("k", deleted=True), changed("m", 2))
        assert await row_of(store, STATE, ("main", "k")) is None
        found = await row_of(store, STATE, ("main", "m"))
        assert found is not None
        assert found.value == "2"
    async with open_store(path, readonly=True) as store:
        assert list(await rows(store, STATE)) == [("main", "m")]
        assert await select(store, STATE, key="k") == []
        assert await select(store, STATE, value="1") == []
        assert len(await select(store, STATE, value="2")) == 1


# Files that cannot be written.


def content(path: Path) -> bytes:
    return path.read_bytes()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Neither the file nor its folder can be written."""
    path.chmod(stat.S_IRUSR)
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        yield
    finally:
        path.parent.chmod(stat.S_IRWXU)
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)


async def _some_history(path: Path, *, stored: bool) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"), metered(cost_micros=1), changed("k", 1))
        if stored:
            for view in VIEWS:
                await catch_up(store, view)
        await append(store, executing(), metered(cost_micros=2), changed("m", 1), in_doubt())


@pytest.mark.parametrize("tail", [0, 500])
@pytest.mark.parametrize("stored", [True, False])
@in_loop
async def test_a_store_that_only_reads_answers_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, stored: bool, tail: int
) -> None:
    monkeypatch.setattr(kept, "TAIL_EVENTS", tail)
    await _some_history(path, stored=stored)
    before = content(path)
    async with open_store(path, readonly=True) as store:
        log = await all_of(store)
        for view in VIEWS:
            assert await rows(store, view) == fold(view, log)
            assert await rows(store, view, at=3) == fold(view, log[:3])
        assert (await select(store, RUNS, status="running"))[0].run_id == "r1"
        assert await row_of(store, COSTS, ("planner", "USD")) == Cost(
            agent="planner", currency="USD", calls=2, cost_micros=3
        )
    assert content(path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
@pytest.mark.parametrize("stored", [True, False])
@in_loop
async def test_a_file_in_a_folder_that_cannot_be_written_answers_the_same(
    path: Path, *, stored: bool
) -> None:
    await _some_history(path, stored=stored)
    with read_only(path):
        async with open_store(path, readonly=True) as store:
            log = await all_of(store)
            for view in VIEWS:
                assert await rows(store, view) == fold(view, log)


@pytest.mark.parametrize("tail", [0, 500])
@in_loop
async def test_a_file_that_somebody_keeps_locked_answers_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    monkeypatch.setattr(kept, "TAIL_EVENTS", tail)
    await _some_history(path, stored=True)
    async with open_store(path, busy_timeout_ms=1) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        log = await all_of(store)
        for view in VIEWS:
            assert await rows(store, view) == fold(view, log)
        assert await row_of(store, STREAMS, ("run/r1",)) is not None
        other.close()
