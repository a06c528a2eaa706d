"""Whatever happens to a log, and in whatever order its views are read, caught up, rebuilt, left
half built and dropped, by one process or two, in one version or two: stored rows, folded rows and
rebuilt rows are the same, and the plain name shows the newest version that is complete."""

import asyncio
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from carstore import Entry, Recorded, Store
from carstore.clock import ManualClock
from projections import (
    LAZY,
    VIEWS,
    View,
    catch_up,
    checksum,
    compare,
    fold,
    kept,
    rebuild,
    row,
    rows,
    scan,
    select,
)
from projections.errors import ViewFailed
from projections.view import Key
from tests.carstore.helpers import new_file, open_store
from tests.projections.plausible import all_of, append, chunks, metered, sql
from tests.projections.versions import VERSIONS

STORED = (*LAZY, *VERSIONS)

BUILDS = (catch_up, rebuild)

views = st.sampled_from((*VIEWS, *VERSIONS))
lazy = st.sampled_from(STORED) | st.sampled_from(VERSIONS)
which = st.integers(0, 1)


class ViewsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.stores: list[Store] = []
        self.log: list[Recorded] = []
        self.sizes = (scan.PAGE_EVENTS, kept.TAIL_EVENTS)

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def open(self) -> Store:
        async def opened() -> Store:
            return await open_store(self.path, clock=self.clock)

        return self.loop.run_until_complete(opened())

    @initialize(page=st.integers(1, 9), tail=st.integers(0, 12))
    def begin(self, page: int, tail: int) -> None:
        scan.PAGE_EVENTS, kept.TAIL_EVENTS = page, tail
        self.path = new_file(self.folder / "log.db")
        self.stores = [self.open(), self.open()]
        self.log = self.run(all_of(self.stores[0]))

    @rule(which=which, entries=chunks, micros=st.integers(-(10**6), 10**6))
    def append(self, which: int, entries: list[Entry], micros: int) -> None:
        self.clock.advance(micros)
        self.run(self.stores[which].log.append(*entries))
        self.log = self.run(all_of(self.stores[which]))

    @rule(which=which, number=st.integers(1, 5), micros=st.integers(0, 2))
    def meter(self, which: int, number: int, micros: int) -> None:
        store = self.stores[which]
        events = [metered(f"a{n}", cost_micros=micros) for n in range(number)]
        self.run(append(store, *events))
        self.log = self.run(all_of(store))

    @rule(which=which, view=views)
    def catch_up(self, which: int, view: View[Any, Any]) -> None:
        assert self.run(catch_up(self.stores[which], view)) == len(self.log)
        assert view.inline is not None or view.table in self.tables()

    @rule(view=views)
    def catch_up_at_once(self, view: View[Any, Any]) -> None:
        async def both() -> None:
            await asyncio.gather(*[catch_up(store, view) for store in self.stores * 2])

        self.run(both())

    @rule(which=which, view=views)
    def read(self, which: int, view: View[Any, Any]) -> None:
        assert self.run(rows(self.stores[which], view)) == fold(view, self.log)

    @rule(which=which, view=views, data=st.data())
    def read_one(self, which: int, view: View[Any, Any], data: st.DataObject) -> None:
        folded = fold(view, self.log)
        if folded:
            key = data.draw(st.sampled_from(sorted(folded)))
            assert self.run(row(self.stores[which], view, key)) == folded[key]

    @rule(which=which, view=views, data=st.data())
    def read_some(self, which: int, view: View[Any, Any], data: st.DataObject) -> None:
        folded = fold(view, self.log)
        column = data.draw(st.sampled_from([column.name for column in view.columns]))
        values = sorted({getattr(row, column) for row in folded.values()}, key=repr)
        value = data.draw(st.sampled_from([None, *values]))
        expected = [folded[key] for key in sorted(folded) if getattr(folded[key], column) == value]
        assert self.run(select(self.stores[which], view, **{column: value})) == expected

    @rule(which=which, view=views, data=st.data())
    def read_as_of(self, which: int, view: View[Any, Any], data: st.DataObject) -> None:
        position = data.draw(st.integers(0, len(self.log) + 1))
        found = self.run(rows(self.stores[which], view, at=position))
        assert found == fold(view, self.log[:position])
        assert list(found) == sorted(found)

    @rule(which=which, view=lazy)
    def rebuild(self, which: int, view: View[Any, Any]) -> None:
        folded = fold(view, self.log)
        rebuilt = self.run(rebuild(self.stores[which], view))
        assert (rebuilt.position, rebuilt.rows) == (len(self.log), len(folded))
        assert rebuilt.checksum == checksum(view, folded) == checksum(view, self.stored(view))

    @rule(view=lazy, after=st.integers(0, 20), what=st.sampled_from(BUILDS))
    def leave_half_built(self, view: View[Any, Any], after: int, what: Any) -> None:
        """As a process does that is killed, or meets an event of a newer carstore."""
        stop = len(self.log) - after

        def evolve(rows: Any, event: Any, recorded: Recorded) -> Any:
            if recorded.position >= stop:
                raise RuntimeError
            return view.evolve(rows, event, recorded)

        with suppress(ViewFailed):
            self.run(what(self.stores[0], attrs.evolve(view, evolve=evolve)))

    @rule(view=lazy)
    def drop(self, view: View[Any, Any]) -> None:
        sql(self.path, f"DROP TABLE IF EXISTS {view.table}")

    @rule(which=which)
    def reopen(self, which: int) -> None:
        self.run(self.stores[which].close())
        self.stores[which] = self.open()

    @precondition(lambda self: self.log)
    @rule(view=views)
    def check(self, view: View[Any, Any]) -> None:
        assert self.run(compare(self.stores[0], view)) == []

    @invariant()
    def stored_rows_are_those_of_their_position(self) -> None:
        tables = self.tables()
        for view in STORED if self.log else ():
            assert not tables.issuperset({view.table, view.building})
            for table in tables.intersection({view.table, view.building}):
                folded = fold(view, self.log[: self.position(view)])
                assert checksum(view, self.stored(view, table)) == checksum(view, folded)

    @invariant()
    def the_plain_name_shows_the_newest_complete_version(self) -> None:
        if not self.log:
            return
        tables = self.tables()
        complete = [view for view in VERSIONS if view.table in tables]
        found = sql(self.path, "SELECT sql FROM sqlite_master WHERE name = 'spent'")
        assert found or not complete
        for (text,) in found:
            match = re.search(r'"(view_spent_v[12])"', text)
            assert match is not None
            if match[1] in tables:  # else it was dropped, and nobody was there since
                assert match[1] == complete[-1].table
                folded = fold(complete[-1], self.log[: self.position(complete[-1])])
                shown = self.stored(complete[-1], "spent")
                assert checksum(complete[-1], shown) == checksum(complete[-1], folded)

    def tables(self) -> set[str]:
        """The names of all tables of the file."""
        found = sql(self.path, "SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in found}

    def position(self, view: View[Any, Any]) -> int:
        """How far a view is stored."""
        wanted = (view.name, view.version)
        found = "SELECT position FROM view_positions WHERE name = ? AND version = ?"
        [(position,)] = sql(self.path, found, wanted)
        return int(position)

    def stored(self, view: View[Any, Any], table: str | None = None) -> dict[Key, Any]:
        """The rows as a stock connection reads them."""
        columns = ", ".join(column.name for column in view.columns)
        found = {}
        for values in sql(self.path, f"SELECT {columns} FROM {table or view.table}"):
            row = view.row(
                **{
                    column.name: bool(value) if column.type is bool else value
                    for column, value in zip(view.columns, values, strict=True)
                }
            )
            found[view.key_of(row)] = row
        return found

    def teardown(self) -> None:
        scan.PAGE_EVENTS, kept.TAIL_EVENTS = self.sizes
        for store in self.stores:
            self.run(store.close())
        self.loop.close()
        shutil.rmtree(self.folder)


ViewsMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestViews = ViewsMachine.TestCase


@pytest.mark.prove
def test_views_at_length() -> None:
    """The same, many times and for longer."""
    usual = ViewsMachine.TestCase.settings
    longer = settings(usual, max_examples=150, stateful_step_count=50)
    run_state_machine_as_test(ViewsMachine, settings=longer)


def test_as_of_every_position_is_a_fold_of_the_prefix(tmp_path: Path) -> None:
    """All positions of one long log, with rows stored half way."""
    path = new_file(tmp_path / "log.db")
    log_entries = chunks.filter(lambda entries: len(entries) > 3)

    async def run(entries: list[Entry]) -> None:
        async with open_store(path) as store:
            half = len(entries) // 2
            await store.log.append(*entries[:half])
            for view in VIEWS:
                await catch_up(store, view)
            await store.log.append(*entries[half:])
            log = await all_of(store)
            for view in VIEWS:
                for position in range(len(log) + 2):
                    assert await rows(store, view, at=position) == fold(view, log[:position])

    @settings(max_examples=10, deadline=None)
    @given(log_entries)
    def check(entries: list[Entry]) -> None:
        new_file(path)
        asyncio.run(run(entries))

    check()
