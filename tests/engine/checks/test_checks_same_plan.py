"""`equivalent` and `optimize`: what makes no difference, and what does."""

import random
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Precondition, Proposal, ToolCompensation
from engine.checks import equivalent, optimize, simulate
from engine.ir import Action, ActionRef
from engine.ir import ToolCompensation as Undo
from engine.plan_json import parse_proposal, proposal_to_dict
from engine.rules.graph import build_graph
from tests.engine.checks.plans import plans, states, table
from tests.engine.checks.test_checks_soundness import run
from tests.engine.harness import call, check, plan, read, write
from tests.engine.proposals import knots

MANY = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def renamed(proposal: Proposal, names: dict[str, str]) -> Proposal:
    """The same plan with other ids, wherever they stand."""

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(item) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item) for item in value]
        if isinstance(value, str) and value.startswith("$"):
            name, dot, rest = value[1:].partition(".output")
            return f"${names[name]}{dot}{rest}" if name in names else value
        return value

    data = put(proposal_to_dict(proposal))
    for action in data["actions"]:
        action["id"] = names[action["id"]]
        if "dependencies" in action:
            action["dependencies"] = [names[one] for one in action["dependencies"]]
    return parse_proposal(data)


def shuffled(proposal: Proposal, seed: int) -> Proposal:
    """The same actions, declared in another order that the graph allows."""
    graph, chance = build_graph(proposal.actions), random.Random(seed)
    left, order = set(range(len(proposal.actions))), []
    while left:
        free = [one for one in sorted(left) if not left & set(graph.needs[one])]
        order.append(chance.choice(free))
        left.remove(order[-1])
    return evolve(proposal, actions=[proposal.actions[one] for one in order])


dense = st.builds(lambda actions: Proposal(id="p", actions=actions), knots(most=6))


@MANY
@given(proposal=plans() | dense, seed=st.integers(0, 99))
def test_names_and_the_order_of_declaration_make_no_difference(
    proposal: Proposal, seed: int
) -> None:
    other = shuffled(proposal, seed)
    names = [action.id for action in proposal.actions]
    other = renamed(other, dict(zip(names, [f"n{seed}.{name}" for name in names], strict=True)))
    assert equivalent(proposal, other)
    assert equivalent(other, proposal)


@MANY
@given(proposal=plans() | dense)
def test_an_optimized_plan_is_equivalent_and_cannot_be_optimized_further(
    proposal: Proposal,
) -> None:
    found = optimize(proposal)
    assert equivalent(proposal, found.proposal)
    again = optimize(found.proposal)
    assert again.changes == ()
    assert again.proposal == found.proposal
    assert bool(found.changes) == (found.proposal.actions != proposal.actions)


@MANY
@given(proposal=dense, data=st.data())
def test_a_dependency_that_is_not_redundant_makes_a_difference(
    proposal: Proposal, data: st.DataObject
) -> None:
    graph = build_graph(proposal.actions)
    places = [i for i, action in enumerate(proposal.actions) if i and action.type == "tool_call"]
    if not places:
        return
    index = data.draw(st.sampled_from(places))
    other = data.draw(st.integers(0, index - 1))
    above, pending = set(), list(graph.hard[index])
    while pending:
        above.add(one := pending.pop())
        pending += graph.hard[one]
    action = proposal.actions[index]
    more = evolve(action, dependencies=(*action.dependencies, proposal.actions[other].id))
    actions = [*proposal.actions[:index], more, *proposal.actions[index + 1 :]]
    found = equivalent(proposal, evolve(proposal, actions=actions))
    assert found.same is (other in above)
    assert (found.difference is None) is found.same


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(proposal=plans(), before=states)
def test_an_optimized_plan_comes_to_the_same(proposal: Proposal, before: dict[str, Any]) -> None:
    found = optimize(proposal).proposal
    (result, after), (other, other_after) = (
        run(one, before, "levels") for one in (proposal, found)
    )
    statuses = {one.action_id: one.status for one in result.results}
    assert (result.status, after) == (other.status, other_after)
    assert {one.action_id: one.status for one in other.results}.items() <= statuses.items()


BASE = plan(
    read("r", "x"),
    call("a", "t", parameters={"of": "$r.output"}, failure_behavior="retry"),
    write("w", "x", 1, dependencies=["a"]),
)


def changed(place: int, **fields: Any) -> Proposal:
    actions = list(BASE.actions)
    actions[place] = evolve(actions[place], **fields)
    return evolve(BASE, actions=actions)


def test_what_no_run_looks_at_makes_no_difference() -> None:
    for other in (
        changed(1, metadata={"why": "because"}),
        changed(1, read_set=["k"], write_set=["l"]),
        evolve(BASE, id="q", source="somebody", context={"a": 1}, timestamp="2026-01-01T00:00:00Z"),
    ):
        assert equivalent(BASE, other)


def test_what_a_run_looks_at_makes_a_difference_that_is_told() -> None:
    for other in (
        changed(1, tool="u"),
        changed(1, parameters={"of": "$r.output.more"}),
        changed(1, parameters={"of": "plain"}),
        changed(1, max_retries=9),
        changed(1, preconditions=[Precondition(key="x")]),
        changed(1, compensation=Undo(tool="u")),
        changed(1, idempotent=True),
        changed(2, parameters={"key": "x", "value": 2}),
        changed(2, dependencies=[]),
    ):
        found = equivalent(BASE, other)
        assert not found
        assert found.difference is not None


def test_which_action_undoes_which_makes_a_difference() -> None:
    def undone(first: str, second: str) -> Proposal:
        return plan(
            call("u1", "undo", parameters={"n": 1}),
            call("u2", "undo", parameters={"n": 2}),
            call("a", compensation=ActionRef(action_id=first)),
            call("b", compensation=ActionRef(action_id=second)),
        )

    assert equivalent(undone("u1", "u2"), undone("u1", "u2"))
    assert not equivalent(undone("u1", "u2"), undone("u2", "u1"))


def test_sharing_one_output_differs_from_having_two() -> None:
    def fan(second: str) -> Proposal:
        return plan(
            call("a", "t"),
            call("b", "t"),
            call("c", "u", parameters={"of": "$a.output"}),
            call("d", "u", parameters={"of": f"${second}.output"}),
        )

    assert not equivalent(fan("a"), fan("b"))


def ring(*sizes: int) -> Proposal:
    """Makers and users, each user of two makers, in rings: locally they all look alike."""
    actions: list[Action] = []
    for number, size in enumerate(sizes):
        actions += [call(f"m{number}.{n}", "make") for n in range(size)]
        actions += [
            call(f"u{number}.{n}", "use", dependencies=[f"m{number}.{n}", f"m{number}.{m}"])
            for n, m in ((n, (n + 1) % size) for n in range(size))
        ]
    return plan(*actions)


def test_plans_that_look_alike_everywhere_are_told_apart() -> None:
    assert equivalent(ring(6), shuffled(ring(6), 5))
    assert not equivalent(ring(6), ring(3, 3))
    assert not equivalent(ring(3, 3), ring(6))


def test_the_order_of_writes_to_one_key_makes_a_difference() -> None:
    one, other = write("a", "x", 1), write("b", "x", 2)
    assert not equivalent(plan(one, other), plan(other, one))
    assert equivalent(plan(one, write("b", "y", 2)), plan(write("b", "y", 2), one))


def test_with_a_state_plans_without_tools_are_judged_by_what_they_leave() -> None:
    twice = plan(write("a", "x", 1), write("b", "x", 2))
    once = plan(write("b", "x", 2))
    assert not equivalent(twice, once)
    assert equivalent(twice, once, state={"y": 1})
    assert not equivalent(twice, plan(write("b", "x", 3)), state={"y": 1})
    assert not equivalent(once, plan(write("b", "x", 2), check("c", "y", 2)), state={"y": 1})
    assert not equivalent(plan(call("t")), plan(call("u")), state={})


def test_redundant_dependencies_are_left_out_and_told() -> None:
    found = optimize(
        plan(
            call("a"),
            call("b", dependencies=["a"]),
            call("c", dependencies=["a", "b"]),
            call("d", dependencies=["c"], parameters={"of": "$c.output"}),
            write("w", "x", 1),
            check("e", "x", 1, dependencies=["w"]),
        )
    )
    assert [list(action.dependencies) for action in found.proposal.actions] == [
        [], ["a"], ["b"], [], [], ["w"],  # state only orders: that w must succeed it does not say
    ]  # fmt: skip
    assert len(found.changes) == 2


def test_what_looks_at_the_same_state_is_merged_and_its_output_found_again() -> None:
    found = optimize(
        plan(
            read("a", "x"),
            read("b", "x"),
            write("w", "x", "$b.output"),
            read("c", "x"),
            write(
                "v", "y", "$b.output", dependencies=["b"], compensation=ToolCompensation(tool="t")
            ),
        )
    ).proposal
    assert [action.id for action in found.actions] == ["a", "w", "c", "v"]
    assert found.actions[1].parameters["value"] == "$a.output"
    assert found.actions[3].dependencies == ()


def test_a_call_that_could_write_in_between_keeps_reads_apart() -> None:
    apart = plan(read("a", "x"), call("t", dependencies=["a"]), read("b", "x", dependencies=["t"]))
    assert optimize(apart).changes == ()
    free = plan(read("a", "x"), call("t"), read("b", "x"))
    assert optimize(free).changes == ()
    after = plan(read("a", "x"), read("b", "x"), call("t", dependencies=["a", "b"]))
    assert [one.id for one in optimize(after).proposal.actions] == ["a", "t"]


def test_a_repeated_condition_is_left_out() -> None:
    twice = [Precondition(key="x", value=1), Precondition(key="x", value=1, description="again")]
    found = optimize(plan(call("a", preconditions=twice, state_dependencies=["x", "x"])))
    assert found.proposal.actions[0].preconditions == (twice[0],)
    assert found.proposal.actions[0].state_dependencies == ("x",)
    assert len(found.changes) == 2


def test_a_large_plan_is_compared_within_seconds() -> None:
    alike = plan(*[call(f"a{n}", "t") for n in range(2_000)])
    assert equivalent(alike, alike)
    chain = plan(*[call(f"a{n}", "t", dependencies=[f"a{n - 1}"] if n else []) for n in range(300)])
    assert equivalent(chain, chain)
    assert simulate(chain, {}, tools=table()).status == "failed"
