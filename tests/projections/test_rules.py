"""Which rules are in force, and which ones were."""

import asyncio
from pathlib import Path

import pytest
from attrs import evolve as changed
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import Entry
from carstore.events import Event, PolicyRegistered, PolicyRemoved
from carstore.names import RULES_STREAM
from projections import RULES, catch_up, fold, rows
from projections.rules import Rule
from tests.carstore.helpers import new_file, open_store
from tests.projections.plausible import all_of, at, record

ADDED = PolicyRegistered(policy="deny_tool:t", digest="1" * 64, rule={"deny_tool": "t"}, by="cli")
REMOVED = PolicyRemoved(policy="deny_tool:t", digest="1" * 64, by="ann")
KEY = ("deny_tool:t", "1" * 64)

ROW = Rule(
    policy="deny_tool:t",
    digest="1" * 64,
    rule='{"deny_tool":"t"}',
    registered_at=at(1),
    registered_by="cli",
    position=1,
    removed_at=None,
    removed_by=None,
)


def test_a_rule_is_in_force_from_its_registration() -> None:
    assert fold(RULES, record(ADDED, run=None)) == {KEY: ROW}


def test_code_has_no_data() -> None:
    code = PolicyRegistered(policy="p", digest="2" * 64, rule=None, by="app")
    [row] = fold(RULES, record(code, run=None)).values()
    assert row.rule is None


def test_a_removed_rule_is_kept_with_who_removed_it() -> None:
    found = fold(RULES, record(ADDED, REMOVED, run=None))
    assert found == {KEY: changed(ROW, removed_at=at(2), removed_by="ann")}


def test_a_rule_that_comes_back_is_in_force_since_then() -> None:
    found = fold(RULES, record(ADDED, REMOVED, changed(ADDED, by="again"), run=None))
    assert found == {KEY: changed(ROW, registered_at=at(3), registered_by="again", position=3)}


def test_each_thing_that_a_name_has_said_is_a_row() -> None:
    other = changed(ADDED, digest="3" * 64, rule={"deny_tool": "u"})
    found = fold(RULES, record(ADDED, REMOVED, other, run=None))
    assert [row.removed_at for row in found.values()] == [at(2), None]


@pytest.mark.parametrize(
    "event",
    [
        changed(ADDED, by="again"),
        changed(REMOVED, policy="deny_tool:u"),
        changed(REMOVED, digest="4" * 64),
    ],
)
def test_what_is_no_news_leaves_it(event: Event) -> None:
    assert fold(RULES, record(ADDED, event, run=None))[KEY] == ROW


def test_what_was_removed_before_stays_removed_then() -> None:
    events = record(REMOVED, ADDED, REMOVED, changed(REMOVED, by="late"), run=None)
    [row] = fold(RULES, events).values()
    assert (row.removed_at, row.removed_by) == (at(3), "ann")


_names = st.sampled_from(["p", "q"])
_digests = st.sampled_from(["1" * 64, "2" * 64])
_events: st.SearchStrategy[Event] = st.builds(
    PolicyRegistered,
    policy=_names,
    digest=_digests,
    rule=st.none() | st.just({"deny_tool": "t"}),
    by=st.text(max_size=3),
) | st.builds(PolicyRemoved, policy=_names, digest=_digests, by=st.text(max_size=3))


def test_stored_rows_are_a_fold_in_any_order_of_events(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def run(events: list[Event]) -> None:
        async with open_store(path) as store:
            for event in events:
                await store.log.append(Entry(RULES_STREAM, event))
                await catch_up(store, RULES)
            log = await all_of(store)
            assert await rows(store, RULES) == fold(RULES, log)
            for position in range(len(log) + 1):
                assert await rows(store, RULES, at=position) == fold(RULES, log[:position])

    @settings(max_examples=15)
    @given(st.lists(_events, max_size=8))
    def check(events: list[Event]) -> None:
        new_file(path)
        asyncio.run(run(events))

    check()
