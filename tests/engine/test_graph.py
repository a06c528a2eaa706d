import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.errors import NotFound
from engine.ir import Action, ActionRef, ActionType, Precondition
from engine.rules.graph import Graph, PlanCycle, build_graph, find_cycles, keys_read, keys_written
from engine.rules.references import UnresolvedReference
from tests.engine.proposals import knots


def call(name: str, *needed: str, **fields: Any) -> Action:
    return Action(id=name, tool="t", dependencies=needed, **fields)


def write(name: str, key: str = "k") -> Action:
    return Action(id=name, type=ActionType.STATE_WRITE, parameters={"key": key})


def read(name: str, key: str = "k") -> Action:
    return Action(id=name, type=ActionType.STATE_READ, parameters={"key": key})


def needs(*actions: Action) -> list[tuple[int, ...]]:
    return list(build_graph(actions).needs)


def test_an_empty_proposal_has_an_empty_graph() -> None:
    assert build_graph([]) == Graph((), (), (), (), (), ())
    assert build_graph([]).levels() == ()


def test_dependencies_may_point_forward_and_are_hard() -> None:
    graph = build_graph([call("a", "c"), call("b"), call("c", "b")])
    assert graph.needs == graph.hard == ((2,), (), (1,))
    assert graph.dependents == ((), (2,), (0,))
    assert graph.level_of == (2, 0, 1)
    assert graph.levels() == ((1,), (2,), (0,))


def test_output_references_are_hard_edges() -> None:
    parameters = {"x": [{"y": "$a.output.rows.0"}], "z": "$$b.output"}
    graph = build_graph([call("a"), call("b"), call("c", parameters=parameters)])
    assert graph.needs == graph.hard == ((), (), (0,))


@pytest.mark.parametrize(
    "reader",
    [
        read("r"),
        Action(id="r", type=ActionType.ASSERTION, parameters={"key": "k"}),
        call("r", state_dependencies=["k"]),
        call("r", preconditions=[Precondition(key="k")]),
    ],
    ids=["state_read", "assertion", "state_dependencies", "precondition"],
)
def test_a_reader_waits_for_the_nearest_writer_before_it_and_the_next_writer_for_the_reader(
    reader: Action,
) -> None:
    graph = build_graph([write("w1"), write("w2"), reader, write("w3"), write("other", "x")])
    assert graph.needs == ((), (0,), (1,), (1, 2), ())
    assert graph.hard == ((),) * 5


def test_expected_effects_write() -> None:
    effect = call("e", expected_effects={"k": 1})
    assert needs(read("r0"), effect, read("r1")) == [(), (0,), (1,)]


def test_a_reader_waits_for_no_writer_declared_after_it() -> None:
    assert needs(read("r"), write("w")) == [(), (0,)]


def test_readers_between_two_writers_do_not_wait_for_each_other() -> None:
    assert needs(write("w"), read("r1"), read("r2"), write("v")) == [(), (0,), (0,), (0, 1, 2)]


def test_an_action_that_reads_and_writes_a_key_does_not_wait_for_itself() -> None:
    both = call("b", state_dependencies=["k"], expected_effects={"k": 1})
    assert needs(write("w"), both, read("r"), write("v")) == [(), (0,), (1,), (1, 2)]


def test_declared_read_and_write_sets_make_no_order() -> None:
    assert needs(call("a", write_set=["k"]), call("b", read_set=["k"])) == [(), ()]


def test_an_action_that_undoes_another_is_no_part_of_the_graph() -> None:
    actions = [
        call("do", compensation=ActionRef(action_id="undo")),
        call("undo", "do", parameters={"x": "$do.output"}, expected_effects={"k": 0}),
        read("r"),
    ]
    graph = build_graph(actions)
    assert graph.forward == (0, 2)
    assert graph.needs == graph.dependents == ((), (), ())
    assert graph.levels() == ((0, 2),)
    assert graph.level_of == (0, -1, 0)


@pytest.mark.parametrize(
    "actions",
    [
        [call("a", "ghost")],
        [
            call("do", compensation=ActionRef(action_id="undo")),
            call("undo"),
            call("b", parameters={"x": "$undo.output"}),
        ],
    ],
)
def test_waiting_for_what_does_not_run_is_refused(actions: list[Action]) -> None:
    with pytest.raises(NotFound, match="there is no action"):
        build_graph(actions)


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(UnresolvedReference):
        build_graph([call("a", parameters={"x": "$ghost.output"})])


def test_a_cycle_is_named_with_the_reason_of_each_arrow() -> None:
    actions = [
        call("free"),
        call("a", "b"),
        call("b", parameters={"x": "$c.output"}, state_dependencies=["k"]),
        call("c", expected_effects={"k": 1}),
    ]
    with pytest.raises(PlanCycle) as caught:
        build_graph(actions)
    assert caught.value.code == "cycle"
    assert str(caught.value) == (
        "actions that wait for each other: b -> c -> b "
        '(b waits for c: output reference; c waits for b: state key "k")'
    )


def test_a_long_cycle_is_told_briefly() -> None:
    actions = [call(f"a{n}", f"a{(n + 1) % 5_000}") for n in range(5_000)]
    with pytest.raises(PlanCycle) as caught:
        build_graph(actions)
    assert "a7 -> ... 4,992 more ... -> a0 (" in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_separate_cycles_are_all_found_and_what_waits_for_one_is_not_on_it() -> None:
    actions = [call("x", "a"), call("a", "b"), call("b", "a"), call("c", "c"), call("d")]
    assert find_cycles(actions) == [(1, 2), (3,)]


def test_unknown_actions_do_not_hide_a_cycle() -> None:
    actions = [call("a", "ghost", "b", parameters={"x": "$ghost.output"}), call("b", "a")]
    assert find_cycles(actions) == [(0, 1)]


@given(knots())
def test_edges_point_to_earlier_actions_when_dependencies_do(actions: list[Action]) -> None:
    graph = build_graph(actions)
    for index, needed in enumerate(graph.needs):
        assert list(needed) == sorted(set(needed))
        assert all(other < index for other in needed)
        assert set(graph.hard[index]) <= set(needed)
        assert all(index in graph.dependents[other] for other in needed)
    assert sum(map(len, graph.needs)) == sum(map(len, graph.dependents))


@given(knots(), st.randoms(use_true_random=False))
def test_every_order_that_the_graph_allows_sees_the_state_of_the_declared_order(
    actions: list[Action], source: random.Random
) -> None:
    graph = build_graph(actions)
    order: list[int] = []
    while len(order) < len(actions):
        free = [
            index
            for index, needed in enumerate(graph.needs)
            if index not in order and set(needed) <= set(order)
        ]
        order.append(source.choice(free))
    assert run(actions, order) == run(actions, list(range(len(actions))))


def run(actions: list[Action], order: list[int]) -> tuple[dict[int, Any], dict[str, int]]:
    """What each action reads, and the state at the end: each key holds its last writer."""
    state: dict[str, int] = {}
    seen: dict[int, Any] = {}
    for index in order:
        seen[index] = {key: state.get(key) for key in keys_read(actions[index])}
        state.update(dict.fromkeys(keys_written(actions[index]), index))
    return seen, state


@given(knots())
def test_levels_are_longest_paths(actions: list[Action]) -> None:
    graph = build_graph(actions)
    longest: dict[int, int] = {}
    for index, needed in enumerate(graph.needs):
        longest[index] = 1 + max((longest[other] for other in needed), default=-1)
    assert list(graph.level_of) == [longest[index] for index in range(len(actions))]
    flat = [index for level in graph.levels() for index in level]
    assert sorted(flat) == list(graph.forward)
    for depth, level in enumerate(graph.levels()):
        assert level
        assert list(level) == sorted(level)
        assert all(longest[index] == depth for index in level)


@given(knots(ahead=True))
def test_a_graph_has_either_levels_for_all_or_a_cycle_along_its_edges(
    actions: list[Action],
) -> None:
    cycles = find_cycles(actions)
    try:
        graph = build_graph(actions)
    except PlanCycle:
        assert cycles
    else:
        assert not cycles
        assert all(
            graph.level_of[n] < graph.level_of[i] for i, ns in enumerate(graph.needs) for n in ns
        )
        return
    for cycle in cycles:
        assert cycle[0] == min(cycle)
        assert len(set(cycle)) == len(cycle)
        ring = [actions[index].id for index in (*cycle, cycle[0])]
        for waiter, needed in pairwise(ring):
            assert waits(actions, waiter, needed)


def waits(actions: list[Action], waiter: str, needed: str) -> bool:
    """Whether some rule of the module's prose makes `waiter` wait for `needed`, directly."""
    at = {action.id: index for index, action in enumerate(actions)}
    one, other = actions[at[waiter]], actions[at[needed]]
    if needed in one.dependencies or f"${needed}.output" in one.parameters.values():
        return True
    if at[needed] >= at[waiter]:
        return False
    between = actions[at[needed] + 1 : at[waiter]]
    rewritten = set().union(*map(keys_written, between))
    touched = (keys_read(one) | keys_written(one)) & keys_written(other)
    touched |= keys_written(one) & keys_read(other)
    return bool(touched - rewritten)
