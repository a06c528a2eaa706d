"""Goals that were pursued."""

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from carstore import Entry
from carstore.events import Event, ProposalReceived, PursuitEnded, PursuitStarted
from carstore.names import RunId, pursuit_stream, run_stream
from projections import PURSUITS, catch_up, compare, fold, rows
from projections.pursuits import Pursuit
from tests.carstore.helpers import in_loop, new_file, open_store
from tests.projections.plausible import all_of, at, received, record


def started(name: str = "p", goal: Any = "g", **limits: Any) -> PursuitStarted:
    return PursuitStarted(pursuit=name, goal=goal, **{"max_steps": 20, **limits})


def ended(name: str = "p", status: str = "done", **fields: Any) -> PursuitEnded:
    return PursuitEnded(pursuit=name, status=status, **{"steps": 1, **fields})


def step(name: str | None = "p", replaces: str | None = None) -> ProposalReceived:
    return evolve(received("a1"), pursuit=name, replaces=replaces)


RUNNING = Pursuit(
    pursuit="p",
    goal='{"find":"x"}',
    status="running",
    steps=0,
    started_at=at(1),
    ended_at=None,
    max_steps=7,
    max_cost_micros=5,
    ends_at=at(9),
    answer=None,
    reason=None,
)
BEGUN = started(goal={"find": "x"}, max_steps=7, max_cost_micros=5, ends_at=at(9))


def test_a_pursuit_is_listed_with_its_goal_and_limits() -> None:
    assert fold(PURSUITS, record(BEGUN)) == {("p",): RUNNING}


def test_it_counts_the_steps_but_not_what_came_in_the_place_of_one() -> None:
    events: list[Event] = [BEGUN, step(), step(replaces="p-s1"), step(), step("q"), step(None)]
    assert fold(PURSUITS, record(*events)) == {("p",): evolve(RUNNING, steps=2)}


@pytest.mark.parametrize(
    "status", ["done", "failed", "max_steps", "max_cost", "deadline", "cancelled"]
)
def test_its_end_tells_status_answer_and_reason(status: str) -> None:
    end = ended(status=status, answer={"b": 1, "a": [None]}, reason="so")
    assert fold(PURSUITS, record(BEGUN, step(), end))["p",] == evolve(
        RUNNING, status=status, steps=1, ended_at=at(3), answer='{"a":[null],"b":1}', reason="so"
    )


def test_no_answer_is_none() -> None:
    assert fold(PURSUITS, record(started(), ended()))["p",].answer is None


@pytest.mark.parametrize("event", [ended(), step()])
def test_what_never_began_is_not_there(event: Event) -> None:
    assert fold(PURSUITS, record(event)) == {}


def test_each_has_a_row_of_its_own() -> None:
    found = fold(PURSUITS, record(started("p"), started("q"), step("q"), ended("p", steps=0)))
    assert {key: (row.status, row.steps) for (key,), row in found.items()} == {
        "p": ("done", 0),
        "q": ("running", 1),
    }


_name = st.sampled_from(["p", "q"])
_json = st.none() | st.integers(-9, 9) | st.lists(st.text(max_size=3), max_size=2)
_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(started, _name, _json),
    st.builds(step, st.none() | _name, st.none() | st.just("r")),
    st.builds(ended, _name, st.sampled_from(["done", "failed"]), answer=_json),
)


@given(st.lists(_events, max_size=12), st.data())
def test_the_stored_rows_are_those_of_the_fold(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], data: st.DataObject
) -> None:
    file = new_file(tmp_path_factory.mktemp("pursuits") / "a.db")
    cut = data.draw(st.integers(0, len(events)))

    @in_loop
    async def check() -> None:
        async with open_store(file) as store:
            for number, event in enumerate(events):
                if number == cut:
                    await catch_up(store, PURSUITS)
                run = RunId("r") if isinstance(event, ProposalReceived) else None
                stream = run_stream(run) if run else pursuit_stream("any")
                await store.log.append(Entry(stream, event, run))
            assert await rows(store, PURSUITS) == fold(PURSUITS, await all_of(store))
            assert await compare(store, PURSUITS) == []

    check()


@in_loop
async def test_it_can_be_asked_as_of_a_position(tmp_path: Path) -> None:
    async with open_store(new_file(tmp_path / "a.db")) as store:
        stream = pursuit_stream("p")
        first = await store.log.append(Entry(stream, started()))
        await store.log.append(Entry(stream, ended()))
        then = await rows(store, PURSUITS, at=first.last)
        assert [one.status for one in then.values()] == ["running"]
        assert [one.status for one in (await rows(store, PURSUITS)).values()] == ["done"]
