import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ir import Action, ActionRef, FailureBehavior
from engine.rules.graph import Graph, build_graph
from engine.rules.schedule import Schedule, ScheduleMode
from tests.engine.proposals import knots

ABORT, SKIP = FailureBehavior.ABORT, FailureBehavior.SKIP
modes = st.sampled_from(ScheduleMode)


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
        assert not set(fresh) & (flying | settled)
        flying |= set(fresh)
        assert schedule.in_flight == len(flying)
        look(settled, flying)
        if fresh:
            batches.append(fresh)
        if not flying:
            return batches
        index = source.choice(sorted(flying))
        flying.remove(index)
        settled.add(index)
        schedule.done(index)


def check_edges(graph: Graph) -> Callable[[set[int], set[int]], None]:
    def look(settled: set[int], flying: set[int]) -> None:
        for index in flying:
            assert set(graph.needs[index]) <= settled

    return look


@given(knots(), modes, st.randoms(use_true_random=False))
def test_every_action_is_handed_out_once_and_after_all_it_waits_for(
    actions: list[Action], mode: ScheduleMode, source: random.Random
) -> None:
    graph = build_graph(actions)
    schedule = Schedule(graph, mode)
    batches = drive(graph, schedule, source, check_edges(graph))
    assert sorted(index for batch in batches for index in batch) == list(graph.forward)
    assert all(batch == sorted(batch) for batch in batches)
    assert schedule.finished
    assert schedule.ready() == []


@given(knots(), st.randoms(use_true_random=False))
def test_eager_holds_nothing_back(actions: list[Action], source: random.Random) -> None:
    graph = build_graph(actions)

    def look(settled: set[int], flying: set[int]) -> None:
        free = {i for i in graph.forward if set(graph.needs[i]) <= settled}
        assert settled | flying == free | settled

    drive(graph, Schedule(graph, ScheduleMode.EAGER), source, look)


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

    drive(graph, Schedule(graph), source, look)


@given(knots(), modes, st.randoms(use_true_random=False), st.integers(0, 8))
def test_a_half_finished_run_goes_on_with_the_rest(
    actions: list[Action], mode: ScheduleMode, source: random.Random, steps: int
) -> None:
    graph = build_graph(actions)
    settled: set[int] = set()
    before = Schedule(graph, mode)
    for _ in range(steps):
        flying = before.ready()
        for index in flying[: 1 + len(flying) // 2]:
            before.done(index)
            settled.add(index)
    after = Schedule(graph, mode, settled)
    rest = sorted(set(graph.forward) - settled)
    batches = drive(graph, after, source, check_edges(graph), settled)
    assert sorted(index for batch in batches for index in batch) == rest
    assert after.finished


@given(knots(), modes, st.randoms(use_true_random=False))
def test_a_run_with_held_actions_ends_waiting_and_finishes_once_they_are_settled(
    actions: list[Action], mode: ScheduleMode, source: random.Random
) -> None:
    graph = build_graph(actions)
    schedule = Schedule(graph, mode)
    settled: set[int] = set()
    held: set[int] = set()
    while fresh := schedule.ready():
        for index in fresh:
            if source.random() < 0.3:
                schedule.hold(index)
                held.add(index)
            else:
                schedule.done(index)
                settled.add(index)
    assert schedule.in_flight == 0
    assert schedule.held == tuple(sorted(held))
    assert schedule.finished == (not held)
    blocked = set(graph.forward) - settled - held
    if mode is ScheduleMode.EAGER:
        assert all(set(graph.needs[i]) - settled for i in blocked)
    elif held:
        (level,) = {graph.level_of[index] for index in held}
        assert all(graph.level_of[index] > level for index in blocked)
    for index in held:
        schedule.done(index)
    drive(graph, schedule, source, check_edges(graph), settled | held)
    assert schedule.finished


def test_a_level_without_aborts_runs_at_once_and_the_next_waits_for_all_of_it() -> None:
    schedule = Schedule(graph_of(a="", b="", c="a"))
    assert schedule.ready() == [0, 1]
    assert schedule.ready() == []
    schedule.done(0)
    assert schedule.ready() == []
    schedule.done(1)
    assert schedule.ready() == [2]


def test_a_level_with_an_abort_runs_one_by_one_as_declared() -> None:
    schedule = Schedule(graph_of(a="", B="", c=""))
    assert schedule.ready() == [0]
    assert schedule.ready() == []
    schedule.done(0)
    assert schedule.ready() == [1]


def test_eager_starts_what_is_free_while_others_run() -> None:
    schedule = Schedule(graph_of(A="", B="", c="A"), ScheduleMode.EAGER)
    assert schedule.ready() == [0, 1]
    schedule.done(0)
    assert schedule.ready() == [2]


def test_the_rest_of_the_level_goes_on_while_one_is_held() -> None:
    schedule = Schedule(graph_of(A="", b="", c=""))
    assert schedule.ready() == [0]
    schedule.hold(0)
    assert schedule.ready() == [1]
    schedule.release(0)
    assert schedule.in_flight == 2
    schedule.done(1)
    assert schedule.ready() == []
    schedule.done(0)
    assert schedule.ready() == [2]


def test_what_undoes_another_action_is_never_handed_out() -> None:
    do = Action(id="do", tool="t", compensation=ActionRef(action_id="undo"))
    for mode in ScheduleMode:
        schedule = Schedule(build_graph([Action(id="undo", tool="t"), do]), mode)
        assert schedule.ready() == [1]
        with pytest.raises(ValueError, match="undo"):
            schedule.done(0)
        schedule.done(1)
        assert schedule.finished


def test_settling_early_is_allowed_and_hands_nothing_out_twice() -> None:
    for mode, first, then in ((ScheduleMode.LEVELS, [0], [2]), (ScheduleMode.EAGER, [0, 2], [])):
        schedule = Schedule(graph_of(a="", b="a", c="b"), mode)
        schedule.done(1)
        assert schedule.ready() == first
        schedule.done(0)
        assert schedule.ready() == then


def test_impossible_moves_are_refused() -> None:
    schedule = Schedule(graph_of(a="", b="a"))
    with pytest.raises(ValueError, match="a \\(index 0\\) is not in flight"):
        schedule.hold(0)
    schedule.ready()
    with pytest.raises(ValueError, match="not held"):
        schedule.release(0)
    schedule.done(0)
    with pytest.raises(ValueError, match="settled already"):
        schedule.done(0)


def test_the_mode_may_be_given_by_its_name_and_no_other() -> None:
    assert Schedule(graph_of(a=""), "eager").ready() == [0]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sideways"):
        Schedule(graph_of(a=""), "sideways")  # type: ignore[arg-type]


def test_an_empty_schedule_is_finished() -> None:
    assert Schedule(build_graph([])).finished
    assert Schedule(build_graph([])).ready() == []
