"""The plan of the demonstration: valid for every listing, and literal about names."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.demo.plan import MAX_CLASSIFIED, make_plan
from engine.demo.tools import TOOLS
from engine.demo.walk import MAX_FILES, FoundFile, LeftOut, Listing
from engine.ir import Action, ActionType, FailureBehavior
from engine.plan_json import check_proposal, proposal_to_dict
from engine.rules.graph import build_graph
from engine.rules.references import references, resolve
from engine.tools import Tools

NAMES = ["a.py", "b.md", "src/c.rs", "d", "e.h", "f.cpp", "g.cs"]

paths = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1)


def listing(names: list[str], **more: object) -> Listing:
    return Listing(root="/some/folder", files=[FoundFile(name, 10) for name in names], **more)


def actions_of(names: list[str]) -> dict[str, Action]:
    return {action.id: action for action in make_plan(listing(names), "/r.md").actions}


@given(st.lists(paths, max_size=6))
def test_every_listing_makes_a_valid_plan(names: list[str]) -> None:
    check_proposal(make_plan(listing(names), "/out/report.md"))


@given(paths)
def test_a_file_name_reaches_the_tool_as_it_is(name: str) -> None:
    actions = actions_of([name])
    for action in (actions["hash:0001"], actions["classify:0001"]):
        assert not references(action.parameters, actions)
        assert resolve(action.parameters, actions, {})["path"] == name


@pytest.mark.parametrize("name", ["$hash:0001.output", "$$hash:0001.output.x", "$files.output"])
def test_a_name_that_looks_like_a_reference_is_none(name: str) -> None:
    left = Listing(root="/f", left_out=[LeftOut(name, "why")], files=[FoundFile(name, 1)])
    plan = make_plan(left, "/r.md")
    check_proposal(plan)
    actions = {action.id: action for action in plan.actions}
    assert resolve(actions["hash:0001"].parameters, actions, {})["path"] == name
    literal = actions["report"].parameters["left_out"]
    assert resolve(literal, actions, {}) == [{"path": name, "reason": "why"}]


def test_a_few_hundred_files_make_several_hundred_actions() -> None:
    names = [f"{number}.py" for number in range(MAX_FILES)]
    plan = make_plan(listing(names), "/r.md")
    check_proposal(plan)
    assert 800 < len(plan.actions) < 1000
    kinds = Counter(action.tool for action in plan.actions)
    assert kinds["hash_file"] == kinds["count"] == MAX_FILES
    assert kinds["classify"] <= MAX_CLASSIFIED


def test_the_plan_shows_what_plans_can_hold() -> None:
    actions = actions_of(NAMES)
    types = {action.type for action in actions.values()}
    assert types >= {ActionType.TOOL_CALL, ActionType.STATE_WRITE, ActionType.ASSERTION}
    assert actions["prices"].failure_behavior is FailureBehavior.RETRY
    assert actions["publish"].reversibility == "compensable"
    assert actions["publish"].dependencies == ("check:files",)
    assert actions["count:0001"].parameters["sha256"] == "$hash:0001.output.sha256"


def test_what_is_published_is_checked_afterwards() -> None:
    plan = make_plan(listing(NAMES), "/r.md")
    graph = build_graph(plan.actions)
    places = {action.id: place for place, action in enumerate(plan.actions)}
    assert places["publish"] in graph.needs[places["check:published"]]


def test_every_tool_of_the_plan_exists_and_none_would_leave_a_call_in_doubt() -> None:
    tools = Tools(TOOLS)
    tools.check_compensations()
    for action in actions_of(NAMES).values():
        if action.type is ActionType.TOOL_CALL:
            assert action.tool is not None
            tool = tools.get(action.tool)
            assert tool is not None
            assert tool.schema.repeatable


def test_the_plan_is_a_function_of_what_was_found() -> None:
    once, again = (
        json.dumps(proposal_to_dict(make_plan(listing(NAMES), "/r.md"))) for _ in range(2)
    )
    assert once == again


def test_a_bounded_walk_is_said_in_the_report() -> None:
    cut = listing(["a"], seen=9, left_out_count=3, is_cut=True)
    report = next(a for a in make_plan(cut, "/r.md").actions if a.id == "report")
    notes = " ".join(report.parameters["notes"])
    assert "first 9 files" in notes
    assert "5 further files" in notes
    assert "3 were left out" in notes
