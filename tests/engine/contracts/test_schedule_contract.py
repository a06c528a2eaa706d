"""What every schedule keeps to, those that are built in and one of an application."""

import asyncio
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore.names import RunId
from engine import resolve
from engine.ir import Action, ActionRef
from engine.rules.graph import Graph, build_graph
from engine.rules.schedule import SCHEDULES, Schedule, ScheduleFactory
from tests.engine.harness import Hands, call, execute, in_loop, opened, plan, resume
from tests.engine.proposals import knots


class LastFirst:
    """One action at a time, and of those that are free the one declared last: an application's."""

    def __init__(self, graph: Graph, settled: Iterable[int] = ()) -> None:
        self._graph = graph
        self._settled = set(settled)
        self._flying: set[int] = set()
        self._held: set[int] = set()

    @property
    def finished(self) -> bool:
        return self._settled == set(self._graph.forward)

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    @property
    def held(self) -> tuple[int, ...]:
        return tuple(sorted(self._held))

    def ready(self) -> list[int]:
        begun = self._settled | self._flying | self._held
        for index in reversed(self._graph.forward if not self._flying else ()):
            if index not in begun and self._settled.issuperset(self._graph.needs[index]):
                self._flying.add(index)
                return [index]
        return []

    def done(self, index: int) -> None:
        if index in self._settled or index not in self._graph.forward:
            raise ValueError(index)
        self._flying.discard(index)
        self._held.discard(index)
        self._settled.add(index)

    def hold(self, index: int) -> None:
        self._between(index, self._flying, self._held)

    def release(self, index: int) -> None:
        self._between(index, self._held, self._flying)

    def _between(self, index: int, one: set[int], other: set[int]) -> None:
        if index not in one:
            raise ValueError(index)
        one.remove(index)
        other.add(index)


OWN: dict[str, ScheduleFactory] = {"last-first": LastFirst}
ALL = {**SCHEDULES, **OWN}
each = pytest.mark.parametrize("name", ALL)
dice = st.randoms(use_true_random=False)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Actions with many edges; at times one that only undoes another is among them."""
    actions = draw(knots())
    if draw(st.booleans()):
        undo = Action(id="undo", tool="t")
        does = Action(id="does", tool="t", compensation=ActionRef(action_id="undo"))
        actions.insert(draw(st.integers(0, len(actions))), undo)
        actions.append(does)
    return build_graph(actions)


@define
class Model:
    """What a schedule was told, as plain sets."""

    graph: Graph
    settled: set[int] = field(factory=set)
    flying: set[int] = field(factory=set)
    held: set[int] = field(factory=set)

    @property
    def unsettled(self) -> set[int]:
        return set(self.graph.forward) - self.settled

    def check(self, schedule: Schedule) -> None:
        assert schedule.finished == (not self.unsettled)
        assert schedule.in_flight == len(self.flying)
        assert schedule.held == tuple(sorted(self.held))

    def ready(self, schedule: Schedule) -> list[int]:
        """Ask for more, and judge the answer."""
        fresh = schedule.ready()
        assert len(set(fresh)) == len(fresh)
        assert self.unsettled.issuperset(fresh)
        assert not (self.flying | self.held).intersection(fresh)
        assert all(self.settled.issuperset(self.graph.needs[index]) for index in fresh)
        if self.unsettled and not self.flying and not self.held:
            assert fresh, "nothing would ever happen any more"
        self.flying.update(fresh)
        return fresh

    def done(self, schedule: Schedule, index: int) -> None:
        schedule.done(index)
        self.settled.add(index)
        self.flying.discard(index)
        self.held.discard(index)

    def hold(self, schedule: Schedule, index: int) -> None:
        schedule.hold(index)
        self.flying.remove(index)
        self.held.add(index)

    def release(self, schedule: Schedule, index: int) -> None:
        schedule.release(index)
        self.held.remove(index)
        self.flying.add(index)

    def step(self, schedule: Schedule, source: random.Random) -> None:
        """One thing that can happen."""
        moves: list[tuple[Callable[[Schedule, int], None], set[int]]] = [
            (self.done, self.flying),
            (self.done, self.held),
            (self.hold, self.flying),
            (self.release, self.held),
        ]
        if source.random() < 0.1:  # it is skipped before its turn
            moves = [(self.done, self.unsettled)]
        possible = [(move, indexes) for move, indexes in moves if indexes]
        if possible and source.random() < 0.7:
            move, indexes = source.choice(possible)
            move(schedule, source.choice(sorted(indexes)))
        else:
            self.ready(schedule)

    def finish(self, schedule: Schedule) -> None:
        for index in sorted(self.held):
            self.done(schedule, index)
        while self.unsettled:
            self.ready(schedule)
            self.done(schedule, min(self.flying))
            self.check(schedule)


def walk(schedule: Schedule, graph: Graph, source: random.Random, steps: int) -> Model:
    model = Model(graph)
    for _ in range(steps):
        model.check(schedule)
        model.step(schedule, source)
    model.check(schedule)
    return model


@each
@settings(max_examples=60)
@given(graph=graphs(), source=dice, steps=st.integers(0, 40))
def test_whatever_happens_each_action_is_handed_out_once_when_it_may_and_all_end(
    name: str, graph: Graph, source: random.Random, steps: int
) -> None:
    schedule = ALL[name](graph, ())
    model = walk(schedule, graph, source, steps)
    model.finish(schedule)
    assert schedule.finished
    assert schedule.ready() == []
    assert (schedule.in_flight, schedule.held) == (0, ())


def refused(move: Callable[[int], None], index: int) -> bool:
    try:
        move(index)
    except ValueError:
        return True
    return False


@each
@settings(max_examples=60)
@given(graph=graphs(), source=dice, steps=st.integers(0, 30))
def test_moves_that_cannot_be_are_refused_and_change_nothing(
    name: str, graph: Graph, source: random.Random, steps: int
) -> None:
    schedule = ALL[name](graph, ())
    model = walk(schedule, graph, source, steps)
    for index in range(len(graph.actions)):
        if index not in model.flying:
            assert refused(schedule.hold, index)
        if index not in model.held:
            assert refused(schedule.release, index)
        if index not in model.unsettled:
            assert refused(schedule.done, index)
        model.check(schedule)
    model.finish(schedule)


@each
@settings(max_examples=60)
@given(graph=graphs(), source=dice, steps=st.integers(0, 30))
def test_a_resumed_run_goes_on_with_what_is_not_settled(
    name: str, graph: Graph, source: random.Random, steps: int
) -> None:
    """What was in flight or held is handed out again: whoever resumes knows what became of it."""
    before = walk(ALL[name](graph, ()), graph, source, steps)
    after = ALL[name](graph, sorted(before.settled))
    model = Model(graph, settled=set(before.settled))
    model.check(after)
    model.finish(after)


@each
@given(graph=graphs(), source=dice)
def test_held_actions_hold_up_no_more_than_the_run(
    name: str, graph: Graph, source: random.Random
) -> None:
    """With some held for ever, the rest ends; then the run waits with nothing in flight."""
    schedule = ALL[name](graph, ())
    model = Model(graph)
    while model.ready(schedule) or model.flying:
        index = source.choice(sorted(model.flying))
        (model.hold if source.random() < 0.3 else model.done)(schedule, index)
        model.check(schedule)
    assert bool(model.held) == bool(model.unsettled)
    for index in sorted(model.held):
        model.release(schedule, index)
        model.done(schedule, index)
    model.finish(schedule)


@each
@given(graph=graphs())
def test_the_same_history_is_scheduled_the_same_way(name: str, graph: Graph) -> None:
    def batches() -> list[list[int]]:
        schedule, model, found = ALL[name](graph, ()), Model(graph), []
        while model.unsettled:
            found.append(model.ready(schedule))
            model.done(schedule, max(model.flying))
        return found

    assert batches() == batches()


@each
def test_the_list_that_is_handed_out_is_the_callers(name: str) -> None:
    graph = build_graph([Action(id=f"a{n}", tool="t") for n in range(3)])
    schedule, model = ALL[name](graph, ()), Model(graph)
    model.ready(schedule).clear()
    model.check(schedule)
    model.finish(schedule)


# --- under the engine ---


@each
@in_loop
async def test_a_run_comes_to_the_same_under_every_schedule(name: str, tmp_path: Path) -> None:
    hands = Hands()
    tools = [hands.tool("t", 1), hands.tool("bad", fails=9)]
    async with opened(tmp_path / "log.db") as store:
        seen = await execute(
            store,
            tools,
            plan(
                call("a", "t"),
                call("b", "bad", dependencies=["a"], failure_behavior="skip"),
                call("c", "t", parameters={"x": "$a.output"}),
                call("d", "t", dependencies=["b", "c"]),
                call("e", "t", dependencies=["c"]),
            ),
            schedule=name,
            schedules=OWN,
        )
    assert seen.statuses == {
        "a": "succeeded", "b": "skipped", "c": "succeeded", "d": "skipped", "e": "succeeded",
    }  # fmt: skip
    assert [one.action_id for one in seen.result.results] == list("abcde")
    assert sorted(hands.names) == ["bad", "t", "t", "t"]
    assert seen.live.received.schedule == name


@each
@in_loop
async def test_a_run_that_waits_is_resumed_under_its_schedule(name: str, tmp_path: Path) -> None:
    hands = Hands()
    tools = [hands.tool("lost", does=_hang, timeout_ms=20), hands.tool("t", 1)]
    async with opened(tmp_path / "log.db") as store:
        actions = [call("a", "lost"), call("b", "t"), call("c", "t", dependencies=["a"])]
        first = await execute(
            store, tools, plan(*actions), run_id="r", schedule=name, schedules=OWN
        )
        assert first.status == "waiting"
        assert hands.names.count("t") == 1
        await resolve(store, RunId("r"), "a", "succeeded", output=1)
        seen = await resume(store, tools, "r", schedules=OWN)
    assert seen.status == "succeeded"
    assert sorted(hands.names) == ["lost", "t", "t"]


async def _hang(**_: Any) -> None:
    await asyncio.sleep(60)
