"""What bounds a run is asked with all that is known, also of what other runs are about to do."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from engine import ToolCompensation, tool
from engine.approvals import approve
from engine.ir import ActionRef, Assumption
from engine.policy_file import policies_of
from engine.tool_schema import RateLimit
from tests.engine.harness import (
    Hands,
    call,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    runtime,
    write,
)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def limit(tool_name: str, most: int) -> Any:
    body = {"tool": tool_name, "max_calls": most, "interval_secs": 60}
    return policies_of({"rate_limit_tool": body})


@in_loop
async def test_runs_that_decide_at_the_same_time_share_a_limit(db: Path, hands: Hands) -> None:
    async with opened(db) as store:
        one = runtime(store, [hands.tool("hit")], policies=[limit("hit", 2)])
        results = await asyncio.gather(*[one.execute(plan(call("hit"))) for _ in range(20)])
        assert len(hands.calls) == 2
        statuses = [result.results[0].status.value for result in results]
        assert (statuses.count("succeeded"), statuses.count("rejected")) == (2, 18)


@in_loop
async def test_a_call_that_is_put_off_does_not_count_against_others(db: Path) -> None:
    """Two may be called; the second waits for its turn by the limit of the tool itself."""
    called = []

    @tool(rate_limit=RateLimit(max_calls=1, interval_secs=0.2))
    async def hit() -> None:
        called.append(1)

    async with opened(db) as store:
        one = runtime(store, [hit], policies=[limit("hit", 3)])
        seen = await asyncio.gather(*[one.execute(plan(call("hit"))) for _ in range(3)])
        assert [result.status.value for result in seen] == ["succeeded"] * 3
        assert len(called) == 3
        again = await one.execute(plan(call("hit")))
        assert again.results[0].status.value == "rejected"
        assert not one._rates._decided, "nothing counts for ever"


@in_loop
async def test_whoever_names_an_action_to_undo_another_is_asked_for_that_one(
    db: Path, hands: Hands
) -> None:
    rules = [policies_of({"require_approval": {"tool": "mail"}})]
    tools = [hands.tool("work"), hands.tool("mail"), hands.tool("boom", fails=9)]
    proposal = plan(
        call("work", compensation=ActionRef(action_id="mail")),
        call("mail"),
        call("boom", dependencies=("work",)),
    )
    async with opened(db) as store:
        first = await execute(store, tools, proposal, run_id="r", policies=rules)
        assert first.status == "waiting"
        assert hands.names == []
        await approve(store, "r", "work", by="ann")
        seen = await resume(store, tools, "r", policies=rules)
        assert hands.names == ["work", "boom", "mail"]
        assert seen.status == "rolled_back"


@in_loop
async def test_nobody_is_passed_over_by_a_reference_in_what_undoes_an_action(
    db: Path, hands: Hands
) -> None:
    rules = [policies_of({"require_approval": {"tool": "mail", "contains": "@other.org"}})]
    tools = [hands.tool("find", "x@other.org"), hands.tool("work"), hands.tool("mail")]
    undo = ToolCompensation(tool="mail", parameters={"to": "$find.output"})
    proposal = plan(call("find"), call("work", dependencies=("find",), compensation=undo))
    async with opened(db) as store:
        first = await execute(store, tools, proposal, run_id="r", policies=rules)
        assert (first.status, hands.names) == ("waiting", ["find"])


@tool(sensitive=["output.token"])
async def login() -> dict[str, str]:
    return {"token": "tops3cret-abc"}


@in_loop
async def test_an_assumption_about_a_sensitive_value_is_compared_and_shows_nothing(
    db: Path, hands: Hands
) -> None:
    tools = [login, hands.tool("hit")]
    kept = write("w", "k", "$login.output.token", dependencies=("login",))

    def assuming(name: str, value: str) -> Any:
        assumptions = (Assumption(key="k", expected_value=value),)
        return call(name, "hit", assumptions=assumptions, failure_behavior="skip")

    async with opened(db) as store:
        await execute(store, tools, plan(call("login"), kept))
        guesses = plan(assuming("wrong", "guess"), assuming("right", "tops3cret-abc"))
        seen = await execute(store, tools, guesses, run_id="g")
        assert seen.statuses == {"wrong": "rejected", "right": "succeeded"}
        [said] = [one.error for one in seen.events(e.ActionRejected)]
        assert "tops3cret" not in said
        assert "is stale" in said
