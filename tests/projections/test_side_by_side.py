"""Two versions of a view in one file: whoever knows only the older one goes on with it, while the
newer one is built; the plain name shows the newest that is complete, and never half of one."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from projections import catch_up, compare, fold, rebuild, rows, scan, standings
from projections.errors import ViewFailed
from tests.carstore.helpers import in_loop, open_store
from tests.projections.plausible import all_of, append, harm, metered, sql
from tests.projections.versions import NEW, OLD, VERSIONS

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 250


@contextmanager
def program(path: Path, version: int, what: str, pause_ms: float) -> Iterator[None]:
    """A process of its own; killed at the end, which it does not foresee."""
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.projections.versions",
            str(path),
            str(version),
            what,
            str(pause_ms),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        try:
            yield
            assert process.poll() is None, process.stderr and process.stderr.read()
        finally:
            process.kill()


class Look:
    """What a program that has never heard of carstore sees, at one moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        try:
            self.tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            self.positions = dict(
                connection.execute("SELECT version, position FROM view_positions").fetchall()
            )
            (text,) = connection.execute(
                "SELECT sql FROM sqlite_master WHERE name = 'spent'"
            ).fetchone()
            self.shown = int(text.rpartition('"view_spent_v')[2].partition('"')[0])
            self.rows = connection.execute("SELECT agent, calls FROM spent ORDER BY 1").fetchall()
            self.expected = connection.execute(
                "SELECT json_extract(data, '$.agent'), count(*) FROM events WHERE kind = "
                "'inference_metered' AND position <= ? GROUP BY 1 ORDER BY 1",
                (self.positions[self.shown],),
            ).fetchall()
        finally:
            connection.execute("ROLLBACK")


async def grown(path: Path, events: int = EVENTS) -> None:
    async with open_store(path) as store:
        await append(store, *[metered(f"a{n % 7}", cost_micros=n % 2) for n in range(events)])
        await catch_up(store, OLD)


def test_processes_of_two_versions_do_not_disturb_each_other(path: Path) -> None:
    """An older program catches up, another one rebuilds, somebody appends, a newer one builds."""
    in_loop(lambda: grown(path))()
    looks: list[Look] = []
    with ExitStack() as others, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for version, what, pause_ms in ((1, "catch-up", 0), (1, "rebuild", 0), (1, "append", 2)):
            others.enter_context(program(path, version, what, pause_ms))
        before = Look(connection)
        others.enter_context(program(path, 2, "catch-up", 1))
        end = time.monotonic() + 20
        after_new = 0
        while after_new < 20 and time.monotonic() < end:
            looks.append(Look(connection))
            after_new += looks[-1].shown == 2
            time.sleep(0.005)
        moved = looks[-1].positions[1] > before.positions[1]
    assert before.shown == 1
    for look in looks:
        assert look.rows == look.expected
        assert (look.shown == 2) == ("view_spent_v2" in look.tables)
    shown = [look.shown for look in looks]
    assert shown == sorted(shown), "the plain name went back"
    assert {1, 2} == set(shown)
    building = [look for look in looks if "view_spent_v2_building" in look.tables]
    assert building, "nobody has looked while the newer version was built"
    assert {look.shown for look in building} == {1}
    assert moved, "the older programs stood still"


@in_loop
async def test_the_plain_name_is_pointed_back_though_nothing_is_new(path: Path) -> None:
    await grown(path, 20)
    async with open_store(path) as store:
        await catch_up(store, NEW)
        shown = sql(path, "SELECT agent, calls FROM spent")
        for damage in (
            "DROP TABLE view_spent_v2; DELETE FROM view_positions WHERE version = 2",
            "DROP VIEW spent",
        ):
            harm(path, damage)
            head = (await store.log.head()).position
            assert await catch_up(store, OLD) == head
            assert sql(path, "SELECT * FROM spent") == shown, damage
            before = path.with_name(f"{path.name}-wal").stat().st_size
            await catch_up(store, OLD)
            assert path.with_name(f"{path.name}-wal").stat().st_size == before, "it wrote again"
        assert (await store.log.head()).position == head


@in_loop
async def test_a_name_that_is_something_elses_is_left_alone(path: Path) -> None:
    await grown(path, 20)
    harm(path, "DROP VIEW spent; CREATE VIEW spent AS SELECT 7 AS mine")
    async with open_store(path) as store:
        await catch_up(store, OLD)
    assert sql(path, "SELECT * FROM spent") == [(7,)]


@pytest.mark.parametrize("what", ["catch-up", "rebuild"])
def test_a_newer_version_that_was_killed_half_way_does_not_show(path: Path, what: str) -> None:
    in_loop(lambda: grown(path, 120))()
    begun = "view_spent_v2_building" if what == "catch-up" else "view_spent_v2_new_%"
    with program(path, 2, what, 3):
        end = time.monotonic() + 20
        found = "SELECT name FROM sqlite_master WHERE name LIKE ?"
        while not sql(path, found, (begun,)) and time.monotonic() < end:
            time.sleep(0.005)
    left = sql(path, found, ("view_spent_v2%",))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        look = Look(connection)
    assert left
    assert look.shown == (2 if ("view_spent_v2",) in left else 1), "or it was quicker than the kill"
    assert look.rows == look.expected

    async def go_on() -> None:
        async with open_store(path) as store:
            await append(store, metered("late"))
            for view in VERSIONS:
                expected: Any = fold(view, await all_of(store))
                assert await rows(store, view) == expected
                await rebuild(store, view)
                assert await compare(store, view) == []

    in_loop(go_on)()
    assert sql(path, "SELECT agent, cost_micros FROM spent WHERE agent = 'late'") == [("late", 0)]
    assert {name for (name,) in sql(path, found, ("view_spent%",))} == {
        "view_spent_v1",
        "view_spent_v2",
    }


@in_loop
async def test_an_older_program_points_nowhere_else_whatever_it_does(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered(cost_micros=3))
        await catch_up(store, NEW)
        for _ in range(2):
            await append(store, metered())
            await catch_up(store, OLD)
            await append(store, metered())
            await rebuild(store, OLD)
            assert sql(path, "SELECT cost_micros FROM spent") == [(3,)]
        assert sql(path, "SELECT calls FROM spent") == [(1,)], "the newer one stands where it was"
        await catch_up(store, NEW)
        assert sql(path, "SELECT calls FROM spent") == [(5,)]


@in_loop
async def test_when_the_newer_one_is_dropped_the_older_one_shows_again(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, metered())
        await catch_up(store, OLD)
        await catch_up(store, NEW)
        sql(path, "DROP TABLE view_spent_v2")
        await append(store, metered())
        await catch_up(store, OLD)
        assert sql(path, "SELECT * FROM spent") == [("planner", 2)]
        await catch_up(store, NEW)
        assert sql(path, "SELECT calls, dear FROM spent") == [(2, 0)]


@in_loop
async def test_what_is_built_half_is_read_as_what_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are those of its position; a read goes on from there in memory."""
    monkeypatch.setattr(scan, "PAGE_EVENTS", 2)

    def failing(rows: Any, event: Any, recorded: Any) -> Any:
        if recorded.position == 8:
            raise RuntimeError
        return NEW.evolve(rows, event, recorded)

    async with open_store(path) as store:
        await append(store, *[metered(cost_micros=n) for n in range(12)])
        with pytest.raises(ViewFailed):
            await catch_up(store, attrs.evolve(NEW, evolve=failing))
        [found] = [one for one in await standings(store, [NEW]) if one.name == "spent"]
        assert (found.status, found.position, found.shown) == ("building", 7, False)
        assert await compare(store, NEW) == []
        log = await all_of(store)
        for at in range(len(log) + 1):
            assert await rows(store, NEW, at=at) == fold(NEW, log[:at])
    async with open_store(path, readonly=True) as store:
        assert await rows(store, NEW) == fold(NEW, log)
    async with open_store(path) as store:
        assert await catch_up(store, NEW) == len(log)
        assert sql(path, "SELECT calls FROM spent") == [(12,)]


@in_loop
async def test_a_view_whose_columns_were_changed_in_place_is_mended_by_a_rebuild(
    path: Path,
) -> None:
    """Its author forgot to raise the version."""
    async with open_store(path) as store:
        await append(store, metered(cost_micros=1))
        await catch_up(store, OLD)
        changed: Any = attrs.evolve(NEW, version=1)
        await rebuild(store, changed)
        assert sql(path, "SELECT dear FROM spent") == [(1,)]
        assert await compare(store, changed) == []


@in_loop
async def test_a_version_that_nobody_needs_can_be_dropped_as_the_page_says(path: Path) -> None:
    page = (ROOT / "docs" / "views.md").read_text(encoding="utf-8")
    script = page.partition("```sql\n")[2].partition("```")[0]
    assert "view_tools_v1" in script
    async with open_store(path) as store:
        await append(store, metered())
        for view in VERSIONS:
            await catch_up(store, view)
        harm(path, script.replace("tools", "spent"))
        found = [one.version for one in await standings(store, ()) if one.name == "spent"]
        assert found == [2]
        assert sql(path, "SELECT calls FROM spent") == [(1,)]
