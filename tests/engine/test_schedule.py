"""The schedules that are built in, and what an application may add; what all of them keep to is in
`contracts/test_schedule_contract.py`."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.events import ProposalReceived
from carstore.names import RunId
from engine import Runtime
from engine.ir import Action, ActionRef, FailureBehavior
from engine.propose import Options
from engine.rules.graph import Graph, build_graph
from engine.rules.schedule import (
    SCHEDULES,
    EagerSchedule,
    LevelSchedule,
    Schedule,
    ScheduleMissing,
    ScheduleMode,
    known_schedules,
)
from tests.engine.harness import Hands, call, count_appends, execute, in_loop, opened, plan, runtime
from tests.engine.proposals import knots

ABORT, SKIP = FailureBehavior.ABORT, FailureBehavior.SKIP
BUILT_IN = [LevelSchedule, EagerSchedule]
built_in = st.sampled_from(BUILT_IN)
each = pytest.mark.parametrize("kind", BUILT_IN)


def graph_of(**edges: str) -> Graph:
    """One action per name, `skip`; capital names `abort`; a string of the names it waits for."""
    return build_graph(
        [
            Action(
                id=name,
                tool="t",
                dependencies=list(needed),
                failure_behavior=ABORT if name.isupper() else SKIP,
            )
            for name, needed in edges.items()
        ]
    )


def drive(
    graph: Graph,
    schedule: Schedule,
    source: random.Random,
    look: Callable[[set[int], set[int]], None] = lambda settled, flying: None,
    settled: set[int] | None = None,
) -> list[list[int]]:
    """Settle what is handed out in random order; the batches, the empty ones left out."""
    settled = set() if settled is None else settled
    flying: set[int] = set()
    batches = []
    while True:
        fresh = schedule.ready()
        flying |= set(fresh)
        look(settled, flying)
        if fresh:
            batches.append(fresh)
        if not flying:
            return batches
        index = source.choice(sorted(flying))
        flying.remove(index)
        settled.add(index)
        schedule.done(index)


# --- what they hand out ---


@given(knots(), built_in, st.randoms(use_true_random=False))
def test_what_is_handed_out_together_is_in_the_order_of_declaration(
    actions: list[Action], kind: Any, source: random.Random
) -> None:
    graph = build_graph(actions)
    batches = drive(graph, kind(graph), source)
    assert all(batch == sorted(batch) for batch in batches)
    assert sorted(index for batch in batches for index in batch) == list(graph.forward)


@given(knots(), st.randoms(use_true_random=False))
def test_eager_hands_out_whatever_may_start(actions: list[Action], source: random.Random) -> None:
    graph = build_graph(actions)

    def look(settled: set[int], flying: set[int]) -> None:
        for index in set(graph.forward) - settled - flying:
            assert not settled.issuperset(graph.needs[index])

    drive(graph, EagerSchedule(graph), source, look)


@given(knots(), st.randoms(use_true_random=False))
def test_levels_run_one_after_the_other_and_one_by_one_where_a_failure_aborts(
    actions: list[Action], source: random.Random
) -> None:
    graph = build_graph(actions)

    def look(settled: set[int], flying: set[int]) -> None:
        for level in graph.levels():
            if flying & set(level):
                assert flying <= set(level)
                if any(actions[index].failure_behavior is ABORT for index in level):
                    assert len(flying) == 1
                else:
                    assert flying | settled >= set(level)
            if not settled >= set(level):
                assert not any(graph.level_of[i] > graph.level_of[level[0]] for i in settled)

    drive(graph, LevelSchedule(graph), source, look)


@given(knots(), built_in, st.randoms(use_true_random=False))
def test_what_a_held_action_holds_up(
    actions: list[Action], kind: Any, source: random.Random
) -> None:
    graph = build_graph(actions)
    schedule = kind(graph)
    settled: set[int] = set()
    held: set[int] = set()
    while fresh := schedule.ready():
        for index in fresh:
            is_held = source.random() < 0.3
            (schedule.hold if is_held else schedule.done)(index)
            (held if is_held else settled).add(index)
    blocked = set(graph.forward) - settled - held
    if kind is EagerSchedule:
        assert all(set(graph.needs[index]) - settled for index in blocked)
    elif held:
        (level,) = {graph.level_of[index] for index in held}
        assert all(graph.level_of[index] > level for index in blocked)


def test_a_level_without_aborts_runs_at_once_and_the_next_waits_for_all_of_it() -> None:
    schedule = LevelSchedule(graph_of(a="", b="", c="a"))
    assert schedule.ready() == [0, 1]
    assert schedule.ready() == []
    schedule.done(0)
    assert schedule.ready() == []
    schedule.done(1)
    assert schedule.ready() == [2]


def test_a_level_with_an_abort_runs_one_by_one_as_declared() -> None:
    schedule = LevelSchedule(graph_of(a="", B="", c=""))
    assert schedule.ready() == [0]
    assert schedule.ready() == []
    schedule.done(0)
    assert schedule.ready() == [1]


def test_eager_starts_what_is_free_while_others_run() -> None:
    schedule = EagerSchedule(graph_of(A="", B="", c="A"))
    assert schedule.ready() == [0, 1]
    schedule.done(0)
    assert schedule.ready() == [2]


def test_the_rest_of_the_level_goes_on_while_one_is_held() -> None:
    schedule = LevelSchedule(graph_of(A="", b="", c=""))
    assert schedule.ready() == [0]
    schedule.hold(0)
    assert schedule.ready() == [1]
    schedule.release(0)
    assert schedule.in_flight == 2
    schedule.done(1)
    assert schedule.ready() == []
    schedule.done(0)
    assert schedule.ready() == [2]


@each
def test_what_undoes_another_action_is_never_handed_out(kind: Any) -> None:
    do = Action(id="do", tool="t", compensation=ActionRef(action_id="undo"))
    schedule = kind(build_graph([Action(id="undo", tool="t"), do]))
    assert schedule.ready() == [1]
    with pytest.raises(ValueError, match="undo"):
        schedule.done(0)
    schedule.done(1)
    assert schedule.finished


@pytest.mark.parametrize(
    ("kind", "first", "then"), [(LevelSchedule, [0], [2]), (EagerSchedule, [0, 2], [])]
)
def test_settling_early_is_allowed_and_hands_nothing_out_twice(
    kind: Any, first: list[int], then: list[int]
) -> None:
    schedule = kind(graph_of(a="", b="a", c="b"))
    schedule.done(1)
    assert schedule.ready() == first
    schedule.done(0)
    assert schedule.ready() == then


@each
def test_impossible_moves_say_which_action_they_are_about(kind: Any) -> None:
    schedule = kind(graph_of(a="", b="a"))
    with pytest.raises(ValueError, match="a \\(index 0\\) is not in flight"):
        schedule.hold(0)
    schedule.ready()
    with pytest.raises(ValueError, match="not held"):
        schedule.release(0)
    schedule.done(0)
    with pytest.raises(ValueError, match="settled already"):
        schedule.done(0)


@each
def test_an_empty_schedule_is_finished(kind: Any) -> None:
    assert kind(build_graph([])).finished
    assert kind(build_graph([])).ready() == []


# --- their names ---


def test_every_name_has_a_schedule() -> None:
    assert (SCHEDULES["levels"], SCHEDULES["eager"]) == (LevelSchedule, EagerSchedule)
    assert list(SCHEDULES) == [mode.value for mode in ScheduleMode]


def test_own_schedules_come_after_those_that_are_built_in() -> None:
    assert list(known_schedules({"mine": LevelSchedule})) == ["levels", "eager", "mine"]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"levels": EagerSchedule}, "'levels' is built in"),
        ({"my own": EagerSchedule}, "holds ' '"),
        ({"": EagerSchedule}, "empty"),
        ({"mine": EagerSchedule(build_graph([]))}, "is of type EagerSchedule; give a class"),
    ],
)
@in_loop
async def test_a_schedule_that_cannot_be_used_is_refused_at_once(
    tmp_path: Path, own: Any, said: str
) -> None:
    async with opened(tmp_path / "log.db") as store:
        with pytest.raises(ValueError, match=said):
            Runtime(store, schedules=own)


def test_the_name_of_the_schedule_has_to_be_known() -> None:
    with pytest.raises(ValueError, match="'levels', 'eager', not 'mine'"):
        Options(scope="main", schedule="mine")  # type: ignore[arg-type]


# --- a run under an application's own ---


@in_loop
async def test_the_factory_is_given_what_is_settled_and_its_name_is_recorded(
    tmp_path: Path,
) -> None:
    given: list[list[int]] = []

    def mine(graph: Graph, settled: Any) -> Schedule:
        given.append(list(settled))
        return EagerSchedule(graph, given[-1])

    tool = Hands().tool("t", 1)
    async with opened(tmp_path / "log.db") as store:
        actions = [call("a", "t"), call("b", "t", dependencies=["a"])]
        seen = await execute(
            store, [tool], plan(*actions), schedule="mine", schedules={"mine": mine}
        )
    assert seen.status == "succeeded"
    assert given == [[]]
    [received] = seen.events(ProposalReceived)
    assert received.schedule == "mine"


@in_loop
async def test_a_run_whose_schedule_is_not_given_is_refused_before_anything_happens(
    tmp_path: Path,
) -> None:
    tools = [Hands().tool("t", 1)]
    waits = Action(id="w", tool="sleep", parameters={"seconds": 3600})
    own = {"mine": EagerSchedule}
    async with opened(tmp_path / "log.db") as store:
        begun = runtime(store, tools, schedule="mine", schedules=own)
        assert (await begun.execute(plan(waits), run_id="r")).status == "waiting"
        sizes = count_appends(store)
        other = runtime(store, tools)
        for again in (
            lambda: other.resume("r"),
            lambda: other.execute(plan(waits), run_id="r"),
            lambda: other.recover(),
        ):
            with pytest.raises(ScheduleMissing) as caught:
                await again()
            error = caught.value
            assert (error.code, error.where) == ("schedule_missing", "schedule")
            assert (error.run_id, error.schedule) == (RunId("r"), "mine")
            assert "'mine', which is not given; known are levels, eager." in error.message
        assert sizes == []
        resumed = await runtime(store, tools, schedules=own).resume("r")
        assert resumed.status == "waiting"
