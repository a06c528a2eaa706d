"""How an action, and a key of the state, is undone: pure decisions."""

from typing import Any

import pytest

from carstore.log import StateRead
from carstore.names import Position, RunId
from engine.ir import Action, ActionRef, ToolCompensation
from engine.rules.undo import Irreversible, NothingToUndo, UndoCall, restore, undo_of
from engine.tools import Tool, ToolSchema
from tests.engine.harness import call, write

OTHER = Action(id="other", tool="clean", parameters={"of": 1})


def undo(action: Action, **declared: Any) -> Any:
    tool = Tool(schema=ToolSchema(name="t", **declared))
    return undo_of(action, {"id": 9}, tool, lambda name: OTHER, lambda found: {**found, "r": 1})


def test_the_actions_own_compensation_goes_before_the_tools() -> None:
    own = ToolCompensation(tool="own", parameters={"x": 1})
    action = call("a", parameters={"p": 1}, compensation=own)
    assert undo(action, compensation="tools") == UndoCall("own", {"x": 1, "r": 1})


def test_an_action_can_name_another_action() -> None:
    action = call("a", compensation=ActionRef(action_id="other"))
    assert undo(action, compensation="tools") == UndoCall("clean", {"of": 1, "r": 1})


def test_a_tools_compensation_is_handed_parameters_and_output() -> None:
    given = {"parameters": {"p": 1, "r": 1}, "output": {"id": 9}}
    assert undo(call("a", parameters={"p": 1}), compensation="tools") == UndoCall("tools", given)


@pytest.mark.parametrize(
    ("reversibility", "expected"),
    [("irreversible", Irreversible), ("compensable", Irreversible), ("reversible", NothingToUndo)],
)
def test_without_a_compensation_the_declared_reversibility_decides(
    reversibility: str, expected: type
) -> None:
    assert isinstance(undo(call("a", reversibility=reversibility)), expected)


def test_there_is_nothing_to_undo_about_reading_or_state() -> None:
    assert isinstance(undo(call("a"), read_only=True), NothingToUndo)
    assert isinstance(undo(write("a", "k", 1)), NothingToUndo)


def at(position: int, run: str | None, value: Any = "v", *, exists: bool = True) -> StateRead:
    return StateRead(value, exists, Position(position), RunId(run) if run else None)


BASE = at(3, "before", "base")


def test_a_key_returns_to_what_was_there_before_the_run() -> None:
    decided = restore(at(9, "me"), BASE, "me", pending=False)
    assert decided.change == BASE
    assert decided.theirs is None


def test_a_key_written_by_somebody_else_since_is_left_alone() -> None:
    decided = restore(at(12, "them"), at(12, "them"), "me", pending=False)
    assert decided.change is None
    assert decided.theirs == 12


def test_a_write_that_waits_for_its_append_returns_to_the_newest_of_others() -> None:
    assert restore(at(12, "them"), at(12, "them"), "me", pending=True).change == at(12, "them")
    assert restore(at(9, "me"), BASE, "me", pending=True).change == BASE
