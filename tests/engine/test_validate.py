from typing import Any

from carstore.log import StateRead
from carstore.names import Position
from engine import tool
from engine.ir import Action, Operator, Precondition
from engine.validate import reasons_against
from tests.engine.harness import Hands, call, check, read, run_plan, write


@tool
def add(a: int, b: int) -> int:
    return a + b


def state(**values: Any) -> Any:
    def look(key: str) -> StateRead:
        return StateRead(values.get(key), exists=key in values, position=Position(1))

    return look


def test_nothing_is_said_against_a_sound_call() -> None:
    action = call("a", "add", state_dependencies=["k"], preconditions=[Precondition(key="k")])
    assert reasons_against(action, {"a": 1, "b": 2}, add, state(k=None)) == []


def test_every_reason_is_found_in_one_pass() -> None:
    action = call(
        "a",
        "add",
        preconditions=[
            Precondition(key="x", value=1),
            Precondition(key="y", operator=Operator.NOT_EXISTS),
        ],
        state_dependencies=["p", "q"],
    )
    reasons = reasons_against(action, {"a": "one", "c": 3}, add, state(x=2, y=0, p=1))
    assert len([reason for reason in reasons if "precondition failed" in reason]) == 2
    assert "state dependency 'q' does not exist" in reasons
    assert len(reasons) >= 6  # a is no integer, b is missing, c is not known


def test_an_unknown_tool_is_one_reason_among_others() -> None:
    action = call("a", "nope", state_dependencies=["q"])
    assert reasons_against(action, {}, None, state()) == [
        "unknown tool 'nope'",
        "state dependency 'q' does not exist",
    ]


def test_state_actions_are_validated_too() -> None:
    for action in (write("a", "k", 1), read("a", "k"), check("a", "k", 1)):
        guarded = Action(
            id="a", type=action.type, parameters=action.parameters, state_dependencies=["z"]
        )
        assert reasons_against(guarded, dict(guarded.parameters), None, state()) == [
            "state dependency 'z' does not exist"
        ]


def test_a_rejected_action_is_not_called_and_its_reasons_are_joined(tmp_path: Any) -> None:
    hands = Hands()
    bad = call("a", preconditions=[Precondition(key="x", value=1)], state_dependencies=["y"])
    seen = run_plan(tmp_path / "a.db", [hands.tool("a")], bad, write("w", "z", 1))
    assert seen.errors["a"] == (
        "precondition failed: x eq 1, but it does not exist; state dependency 'y' does not exist"
    )
    assert seen.statuses == {"a": "rejected", "w": "succeeded"}
    assert seen.status == "failed"
    assert hands.calls == []
    assert seen.of("a").attempts == 0


def test_a_rejection_aborts_only_if_asked(tmp_path: Any) -> None:
    bad = call("a", "nope")
    seen = run_plan(tmp_path / "a.db", [], write("w", "z", 1), bad, abort_on_rejection=True)
    assert seen.status == "rolled_back"
    assert seen.state == {}
    assert seen.errors["a"] == "unknown tool 'nope'"


def test_references_are_resolved_before_validation(tmp_path: Any) -> None:
    first = call("one", "add", parameters={"a": 1, "b": 2})
    good = call("two", "add", parameters={"a": "$one.output", "b": 2})
    hands = Hands()
    text = call("text", parameters={})
    bad = call("three", "add", parameters={"a": "$text.output", "b": 2})
    seen = run_plan(tmp_path / "a.db", [add, hands.tool("text", "seven")], first, good, text, bad)
    assert seen.outputs["two"] == 5
    assert seen.statuses["three"] == "rejected"
    assert "seven" in (seen.errors["three"] or "")


def test_a_reference_that_leads_nowhere_rejects(tmp_path: Any) -> None:
    hands = Hands()
    tools = [hands.tool("a", {"x": [1]}), hands.tool("b")]
    seen = run_plan(
        tmp_path / "a.db", tools, call("a"), call("b", parameters={"v": "$a.output.x.7"})
    )
    assert seen.statuses == {"a": "succeeded", "b": "rejected"}
    assert "$a.output.x" in (seen.errors["b"] or "")
    assert hands.names == ["a"]
