"""What `simulate` says in cases that can be followed by hand."""

from typing import Any

from engine import Precondition, ToolContext, tool
from engine.checks import Simulation, Unknown, simulate
from engine.ir import Action, ActionRef, Operator
from engine.tools import Tools
from tests.engine.harness import call, check, plan, read, write


@tool
def give(n: int = 0) -> int:
    return n


@tool
def touch(ctx: ToolContext) -> None:
    ctx.set("k", 1)


TOOLS = Tools([give, touch])


def simulated(
    *actions: Action, state: Any = None, outputs: Any = None, tools: Tools | None = TOOLS
) -> Simulation:
    return simulate(plan(*actions), state, outputs, tools=tools)


def left(found: Simulation) -> dict[str, Any]:
    return {key: one.value if one.exists else one.exists for key, one in found.state.items()}


def statuses(found: Simulation) -> list[str | None]:
    return [None if one.status is None else one.status.value for one in found.actions]


def test_writes_effects_and_what_was_there_are_left() -> None:
    found = simulated(
        write("a", "x", 1),
        call("b", "give", expected_effects={"y": 2}),
        write("c", "z", {"of": ["$b.output", "$a.output"]}),
        state={"x": 0, "w": 9},
    )
    assert found.status == "succeeded"
    unknown = Unknown("the output of b", {"type": "integer"})
    assert left(found) == {"w": 9, "x": 1, "y": 2, "z": {"of": [unknown, "written: x"]}}
    assert found.to_dict()["state"]["z"]["value"] == {
        "of": [{"$unknown": "the output of b"}, "written: x"]
    }


def test_what_is_rejected_writes_nothing_and_what_needs_it_is_skipped() -> None:
    found = simulated(
        write("a", "x", 1, preconditions=[Precondition(key="no", operator="exists")]),
        write("b", "y", 1, dependencies=["a"]),
        check("c", "x", None),
        state={},
    )
    assert statuses(found) == ["rejected", "skipped", "succeeded"]
    assert found.actions[1].reason == "dependency 'a' rejected"
    assert (found.status, left(found)) == ("failed", {})


def test_after_an_abort_nothing_begins_and_the_state_is_as_before() -> None:
    found = simulated(write("a", "x", 1), check("b", "x", 2), write("c", "x", 3), state={"x": 0})
    assert statuses(found) == ["succeeded", "failed", None]
    assert found.status == "rolled_back"
    assert left(found) == {"x": 0}
    kept = simulated(check("b", "x", 2, failure_behavior="skip"), write("c", "x", 3), state={})
    assert (kept.status, statuses(kept), left(kept)) == (
        "succeeded",
        ["skipped", "succeeded"],
        {"x": 3},
    )


def test_outputs_are_taken_by_action_before_tool_and_checked() -> None:
    outputs = {"give": 1, "b": 2}
    found = simulated(
        call("a", "give"), call("b", "give"), write("w", "x", "$b.output"), outputs=outputs
    )
    assert [one.output for one in found.actions] == [1, 2, "written: x"]
    assert left(found) == {"x": 2}
    bad = simulated(call("a", "give", failure_behavior="retry"), outputs={"a": "text"}, state={})
    assert (bad.status, statuses(bad)) == ("failed", ["failed"])
    assert "returns" in str(bad.actions[0].reason) or "output" in str(bad.actions[0].reason)


def test_what_only_the_run_can_tell_is_assumed_and_listed() -> None:
    found = simulated(check("a", "x", 1), check("b", "x", 1), state=None)
    assert [one.certain for one in found.actions] == [False, True]
    assert len(found.assumes) == 1
    assert left(found) == {"x": 1}
    assert not simulated(check("a", "x", 1), state={"x": 1}).assumes


def test_a_tool_with_a_context_makes_unknown_what_may_come_before_it() -> None:
    found = simulated(
        write("a", "x", 1),
        call("t", "touch"),
        write("b", "y", 1, dependencies=["t"]),
        state={"z": 1},
    )
    assert found.outside_writers == ("t",)
    assert left(found) == {"x": None, "y": 1, "z": None}
    reads = simulated(write("a", "x", 1), call("t", "touch"), check("c", "x", 1), state={})
    assert not reads.actions[2].certain


def test_a_tool_that_is_never_called_writes_nothing() -> None:
    rejected = call("t", "touch", parameters={"no": 1})
    skipped = call("t", "touch", dependencies=["a"])
    bad = write("a", "y", 1, state_dependencies=["no"])
    for actions in ((rejected,), (bad, skipped)):
        found = simulated(*actions, state={"x": 1})
        assert found.outside_writers == ()
        assert left(found) == {"x": 1}


def test_an_action_that_only_undoes_is_skipped() -> None:
    found = simulated(call("u", "give"), call("a", "give", compensation=ActionRef(action_id="u")))
    assert found.actions[0].reason == "compensation, not needed"
    assert statuses(found) == ["skipped", "succeeded"]


def test_without_tools_any_call_may_write_anything() -> None:
    found = simulated(read("r", "x"), call("a", "give"), state={"x": 1}, tools=None)
    assert left(found) == {"x": None}
    assert not found.actions[1].certain


def test_what_fails_for_certain_once_it_begins_is_not_certain_to_begin() -> None:
    """A condition beside it is open: then the engine would reject it, and nothing is undone."""
    action = check("c", "x", 2, preconditions=[Precondition(key="y", operator=Operator.EXISTS)])

    found = simulate(plan(write("w", "x", 1), action), None)
    forecast = found.actions[1]
    assert (forecast.status, forecast.certain) == ("failed", False)
    assert any("y exists" in one for one in found.assumes)
