"""The facade: what it accepts, what it refuses, and the seed's surface."""

import json
from pathlib import Path
from typing import Any

import pytest

from carstore import connect
from carstore.errors import CarstoreError, Closed, ReadOnly
from engine import (
    Action,
    InvalidProposal,
    Proposal,
    Runtime,
    Tool,
    ToolSchema,
    format_tool_result,
    tool,
)
from engine.tool_schema import InvalidTool
from tests.engine.harness import Hands, call, count_appends, in_loop, opened, plan, write


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@tool
async def greet(name: str, loud: bool = False) -> str:
    """Greet somebody.

    More about that.
    """
    return name.upper() if loud else name


@in_loop
async def test_a_proposal_is_a_value_or_its_json(db: Path) -> None:
    data = {"id": "p", "actions": [{"id": "a", "tool": "greet", "parameters": {"name": "x"}}]}
    data["actions"][0]["type"] = "tool_call"  # type: ignore[index]
    value = Proposal(id="p", actions=[Action(id="a", tool="greet", parameters={"name": "x"})])
    async with opened(db) as store:
        runtime = Runtime(store, [greet])
        for proposal in (data, json.dumps(data), json.dumps(data).encode(), value):
            result = await runtime.execute(proposal)  # type: ignore[arg-type]
            assert result.status == "succeeded"
            assert result.proposal_id == "p"
            assert result.results[0].output == "x"


BAD: list[Any] = [
    "",
    "{",
    b"\xff",
    "[]",
    {},
    {"actions": None},
    {"actions": [{"id": "a"}]},
    {"actions": [{"id": "a", "tool": "t", "dependencies": ["b"]}]},
    {"actions": [{"id": "a", "tool": "t", "dependencies": ["a"]}]},
    {"actions": [{"id": "a", "tool": "t"}] * 2},
    {"actions": [], "surplus": 1},
    {"actions": [{"id": "a", "tool": "t", "parameters": {"x": float("nan")}}]},
    {"actions": [{"id": "a", "tool": "t", "parameters": {"x": "$b.output"}}]},
    Proposal(actions=[Action(id="a b", tool="t")]),
    Proposal(actions=[Action(id="a")]),
    Proposal(actions=[Action(id="a", tool="t", parameters={"x": object()})]),
]


@pytest.mark.parametrize("proposal", BAD, ids=range(len(BAD)))
@in_loop
async def test_bad_input_changes_nothing(db: Path, proposal: Any) -> None:
    async with opened(db) as store:
        sizes = count_appends(store)
        with pytest.raises(InvalidProposal):
            await Runtime(store, [greet]).execute(proposal)
        assert sizes == []
        assert (await store.log.head()).position == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "random"}, "schedule"),
        ({"on_doubt": "guess"}, "on_doubt"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 10**9}, "concurrency"),
    ],
)
@in_loop
async def test_options_are_checked_at_once(db: Path, options: Any, said: str) -> None:
    async with opened(db) as store:
        with pytest.raises(ValueError, match=said):
            Runtime(store, [], **options)


@in_loop
async def test_a_compensation_that_is_not_there_is_found_at_once(db: Path) -> None:
    hands = Hands()
    async with opened(db) as store:
        with pytest.raises(InvalidTool, match="undo"):
            Runtime(store, [hands.tool("do", compensation="undo")])


@in_loop
async def test_tools_can_be_registered_by_name_with_schema_or_function(db: Path) -> None:
    class Executor:
        async def execute(self, tool: str, params: Any) -> Any:
            return tool

    async with opened(db) as store:
        runtime = Runtime(store, executor=Executor())
        runtime.register_tool("bare")
        runtime.register_tool(ToolSchema(name="typed", parameters={"required": ["x"]}))
        runtime.register_tool(greet)
        with pytest.raises(InvalidTool):
            runtime.register_tool("bare")
        assert [one["name"] for one in runtime.tool_schemas()] == ["bare", "typed", "greet"]
        assert runtime.tool_schemas()[2]["description"] == "Greet somebody."
        result = await runtime.execute(
            plan(call("bare"), call("typed", parameters={"x": 1}), call("again", "typed"))
        )
        assert [one.output for one in result.results[:2]] == ["bare", "typed"]
        assert result.results[2].status == "rejected"


def test_a_tool_is_still_a_function() -> None:
    import asyncio

    assert isinstance(greet, Tool)
    assert asyncio.run(greet("x", loud=True)) == "X"


@in_loop
async def test_a_result_is_json(db: Path) -> None:
    async with opened(db) as store:
        result = await Runtime(store, [greet]).execute(
            plan(call("greet", parameters={"name": "x"}), write("w", "k", 1)), run_id="r"
        )
        told = json.loads(json.dumps(result.to_dict()))
        assert list(told) == [
            "run_id", "proposal_id", "status", "results", "not_undone", "conflicts", "cost",
        ]  # fmt: skip
        assert list(told["results"][0]) == [
            "action_id", "status", "output", "error", "state_changes", "duration_ms", "attempts",
            "rolled_back", "timestamp",
        ]  # fmt: skip
        assert list(told["cost"]) == [
            "tool_calls", "actions_executed", "actions_rejected", "actions_skipped",
            "total_duration_ms", "retries",
        ]  # fmt: skip
        assert told["results"][1]["state_changes"] == {"k": 1}
        assert told["results"][0]["timestamp"].endswith("Z")
        assert isinstance(format_tool_result(result.results[0]), str | dict)


@in_loop
async def test_a_store_that_cannot_be_written_executes_nothing(db: Path) -> None:
    hands = Hands()
    async with opened(db):
        pass
    async with connect(db, readonly=True) as store:
        with pytest.raises((ReadOnly, Closed)):
            await Runtime(store, [hands.tool("t")]).execute(plan(call("t")))
        assert hands.calls == []


@in_loop
async def test_a_closed_store_says_so(db: Path) -> None:
    hands = Hands()
    async with opened(db) as store:
        runtime = Runtime(store, [hands.tool("t")])
    with pytest.raises(CarstoreError):
        await runtime.execute(plan(call("t")))
    assert hands.calls == []


@in_loop
async def test_what_the_caller_does_to_its_plan_later_changes_nothing(db: Path) -> None:
    import asyncio

    parameters = {"name": "x"}
    proposal = plan(call("a", "greet", parameters=parameters))
    async with opened(db) as store:
        task = asyncio.create_task(Runtime(store, [greet]).execute(proposal))
        await asyncio.sleep(0)
        parameters["name"] = "changed"
        assert (await task).results[0].output == "x"
