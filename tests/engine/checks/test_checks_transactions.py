"""Plans at the same time, and assumptions against the state."""

from typing import Any

from engine import Proposal
from engine.checks import Conflict, transaction_check
from engine.ir import Assumption
from tests.engine.harness import call, plan, read, write


def kinds(*plans: Proposal, **known: Any) -> list[tuple[str, str, list[tuple[int, Any]]]]:
    return [
        (one.kind.value, one.key, [(party.plan, party.actions) for party in one.parties])
        for one in transaction_check(plans, **known)
    ]


def test_plans_that_share_no_key_do_not_conflict() -> None:
    assert kinds(plan(write("a", "x", 1)), plan(write("b", "y", 1), read("c", "z"))) == []
    assert kinds(plan(read("a", "x")), plan(read("b", "x"))) == []
    assert kinds(plan(write("a", "x", 1), write("b", "x", 2))) == []


def test_two_writers_and_a_reader_with_a_writer_conflict() -> None:
    first = plan(write("a", "x", 1), call("b", expected_effects={"y": 1}), read("r", "z"))
    second = plan(write("c", "x", 2), call("d", state_dependencies=["y"]), write("w", "z", 0))
    assert kinds(first, second) == [
        ("write_write", "x", [(0, ("a",)), (1, ("c",))]),
        ("read_write", "z", [(0, ("r",)), (1, ("w",))]),
        ("read_write", "y", [(1, ("d",)), (0, ("b",))]),
    ]


def test_declared_sets_and_assumptions_count_like_what_is_named() -> None:
    first = plan(
        call("a", write_set=["x"]),
        call("b", read_set=["y"]),
        call("c", assumptions=[Assumption(key="z")]),
    )
    second = plan(call("d", read_set=["x"], write_set=["y", "z"]))
    assert [(kind, key) for kind, key, _ in kinds(first, second)] == [
        ("read_write", "y"),
        ("read_write", "z"),
        ("read_write", "x"),
    ]


def test_each_pair_of_plans_is_looked_at() -> None:
    plans = [plan(write("a", "x", number)) for number in range(3)]
    assert [[place for place, _ in parties] for _, _, parties in kinds(*plans)] == [
        [0, 1],
        [0, 2],
        [1, 2],
    ]


def test_assumptions_are_stale_by_value_and_by_version_as_far_as_these_are_known() -> None:
    def said(state: Any = None, positions: Any = None, **fields: Any) -> list[Conflict]:
        one = plan(read("a", "y", assumptions=[Assumption(key="x", **fields)]))
        return transaction_check([one], state=state, positions=positions)

    assert said({"x": 1}, {"x": 4}, expected_value=1, read_version=4) == []
    assert [one.message for one in said({"x": 1}, {"x": 5}, read_version=4)] == [
        "assumption on 'x' is stale: it was read at position 4 and was changed at 5. "
        "Read the state again, and propose anew"
    ]
    assert said({"x": 2}, None, expected_value=1)
    assert said({}, None, expected_value=1)
    assert said(None, {}, read_version=4) == []
    assert said(None, {}, expected_value=1) == []
    assert said({}, None, read_version=4) == []
    assert said({}, {}, read_version=0) == []


def test_what_a_plan_has_written_itself_breaks_no_assumption_of_it() -> None:
    own = plan(
        write("w", "x", 2),
        read("a", "y", dependencies=["w"], assumptions=[Assumption(key="x", expected_value=1)]),
    )
    assert transaction_check([own], state={}) == []
