"""Every benchmark runs, in a tiny size; the times are for `make bench` to judge."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import append, comparing, curves, engine, fold, footprint, stages
from benchmarks.__main__ import find, table
from benchmarks.harness import BENCHMARKS, Goal, Options, Row, Skipped
from carstore import connect
from engine.runtime import Runtime

pytestmark = pytest.mark.slow

NAMES = {
    "append", "curve-history", "curve-producers", "fold-eventsourcing", "follow", "imports",
    "plans",
    "read", "resume", "scheduler", "stages", "steps-dbos", "steps-durabl", "steps-eventsourcing",
    "steps-langgraph", "syncs",
}  # fmt: skip


class Tiny(Options):
    """One repetition after the warm-up."""

    @property
    def repetitions(self) -> int:
        return 1


@pytest.fixture
def tiny(tmp_path: Path) -> Options:
    return Tiny(quick=True, folder=tmp_path)


def check(rows: list[Row]) -> None:
    assert rows
    assert all(row.measured >= 0 for row in rows)
    assert table("shown", rows).row_count == len(rows)


def test_all_benchmarks_are_found() -> None:
    find()
    assert set(BENCHMARKS) >= NAMES


def test_a_goal_is_held_against_the_ratio_or_else_the_figure() -> None:
    goal = Goal(at_least=2)
    assert Row(case="", unit="", measured=3, goal=goal).is_met
    assert not Row(case="", unit="", measured=3, reference=2, goal=goal).is_met


def test_state_plans(tiny: Options) -> None:
    check(asyncio.run(engine.against_raw(tiny, (3, 5), 2)))


def test_a_past_is_what_executing_leaves(tmp_path: Path) -> None:
    async def kinds(past: int, executed: int) -> list[str]:
        async with connect(tmp_path / f"{past}-{executed}.db") as store:
            if past:
                await engine.grow_plans(store, past)
            for number in range(executed):
                await Runtime(store).execute(engine.state_plan(number * 10))
            return [recorded.kind async for recorded in store.log.read()]

    assert asyncio.run(kinds(past=3, executed=0)) == asyncio.run(kinds(past=0, executed=3))


def test_the_scheduler(tiny: Options) -> None:
    check(asyncio.run(engine.schedule_graph(tiny, 50)))


def test_the_stages(tiny: Options) -> None:
    check(asyncio.run(stages.idle_stages(tiny, 3, 2)))


def test_syncs(tiny: Options) -> None:
    check([engine.count_syncs(tiny, 5)])


def test_commits_stand_in_for_syncs(tiny: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    row = engine.count_syncs(tiny, 20)
    assert row.measured == 1


def test_the_way_back_after_a_kill(tiny: Options) -> None:
    check([engine.first_new_step(tiny, steps=20, times=1)])


def test_reading(tiny: Options) -> None:
    check(asyncio.run(fold.read_log(tiny, 2_000)))


def test_following(tiny: Options) -> None:
    check(asyncio.run(footprint.follow_log(tiny, events=5, idle_seconds=0.1)))


def test_imports() -> None:
    check(footprint.import_times(1))


def test_appending(tmp_path: Path) -> None:
    async def both() -> tuple[float, float]:
        with append.raw_group_commit(tmp_path / "raw.db") as raw:
            limit = await append.produce(raw.appender(2, 5), 2, 5)
        async with connect(tmp_path / "ours.db") as store:
            ours = await append.produce(append.appender(store.log), 2, 5)
        return ours.per_second, limit.per_second

    assert min(asyncio.run(both())) > 0


def test_our_steps(tmp_path: Path) -> None:
    async def steps() -> float:
        async with connect(tmp_path / "log.db") as store:
            return await comparing.our_steps(store, 3, runs=2)

    assert asyncio.run(steps()) > 0


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Skipped, match="no_such_library is not installed"):
        comparing.installed("no_such_library.part")


@pytest.mark.parametrize("name", ["dbos", "langgraph", "eventsourcing", "durabl"])
def test_an_alternative_that_is_missing_is_skipped(name: str, tiny: Options) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed; `make bench` runs against it")
    with pytest.raises(Skipped, match=name):
        BENCHMARKS[f"steps-{name}"](tiny)


def test_curves(tiny: Options) -> None:
    check(asyncio.run(curves.by_history(tiny, (0, 50), appends=100)))
    check(asyncio.run(curves.by_producers(tiny, (1, 3), appends=10)))
