"""Rules decide before anything is done, and stay bound to the runs that began under them."""

from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from engine import ToolCompensation, ToolContext, tool
from engine.approvals import approve
from engine.policies import Judged, PolicyChanged, ask, deny, policy
from engine.policy_file import policies_of
from engine.rules.capabilities import CapabilitySet
from engine.signals import signal
from projections import RULES, rows
from tests.engine.harness import (
    Hands,
    call,
    execute,
    in_loop,
    opened,
    plan,
    read,
    resume,
    run_plan,
    runtime,
    write,
)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def deny_tool(name: str) -> Any:
    return policies_of({"deny_tool": name})


@policy(reads=("frozen",))
def not_while_frozen(judged: Judged) -> Any:
    return deny("it is frozen") if judged.state("frozen").value else None


@policy
def ask_before_pay(judged: Judged) -> Any:
    return ask("money leaves") if judged.action.tool == "pay" else None


def test_every_violation_is_an_event_and_nothing_is_called(db: Path, hands: Hands) -> None:
    tools = [hands.tool("deploy")]
    rules = [deny_tool("deploy"), not_while_frozen]
    seen = run_plan(db, tools, call("deploy"), before={"frozen": True}, policies=rules)
    assert seen.status == "failed"
    assert hands.calls == []
    told = [(one.policy, one.reason) for one in seen.events(e.PolicyViolation)]
    assert [name for name, _ in told] == ["deny_tool:deploy", "not_while_frozen"]
    error = "; ".join(f"policy '{name}': {reason}" for name, reason in told)
    assert seen.errors["deploy"] == error


def test_what_an_action_may_not_use_it_does_not_use(db: Path, hands: Hands) -> None:
    """Tools, keys that it reads or writes, and keys that it expects to change."""
    caps = CapabilitySet(denied_tools=["deploy"], allowed_state_keys=["mine.*"])
    seen = run_plan(
        db,
        [hands.tool("deploy"), hands.tool("build")],
        call("deploy", failure_behavior="skip"),
        write("w", "theirs", 1, failure_behavior="skip"),
        read("r", "theirs", failure_behavior="skip"),
        call("build", expected_effects={"theirs": 1}, failure_behavior="skip"),
        write("mine", "mine.k", 1),
        capabilities=caps,
    )
    denied = "capability denied: state key 'theirs' not allowed"
    assert seen.errors == {
        "deploy": "capability denied: tool 'deploy' not allowed",
        "w": denied,
        "r": denied,
        "build": denied,
        "mine": None,
    }
    assert hands.calls == []
    assert seen.state == {"mine.k": 1}


def test_a_tool_uses_no_more_of_the_state_than_its_run_may(db: Path) -> None:
    @tool
    async def peek(ctx: ToolContext) -> Any:
        return await ctx.read("theirs")

    @tool
    def poke(ctx: ToolContext) -> None:
        ctx.set("theirs", 1)

    seen = run_plan(
        db,
        [peek, poke],
        call("peek", failure_behavior="skip"),
        call("poke", failure_behavior="skip"),
        capabilities=CapabilitySet(allowed_state_keys=["mine"]),
    )
    assert seen.state == {}
    for name in ("peek", "poke"):
        assert "capability denied: state key 'theirs' not allowed" in (seen.errors[name] or "")


def test_too_many_actions_are_all_refused(db: Path) -> None:
    actions = [write("a", "k", 1), write("b", "l", 2)]
    seen = run_plan(db, [], *actions, capabilities=CapabilitySet(max_actions=1))
    error = "capability denied: proposal has 2 actions, max allowed is 1"
    assert seen.errors == {"a": error, "b": error}
    assert seen.state == {}


def test_a_rule_that_raises_forbids(db: Path, hands: Hands) -> None:
    @policy
    def broken(judged: Judged) -> Any:
        raise RuntimeError("secret text")

    seen = run_plan(db, [hands.tool("build")], call("build"), policies=[broken])
    assert seen.errors["build"] == "policy 'broken': policy 'broken' failed: RuntimeError"
    assert hands.calls == []


@in_loop
async def test_a_remembered_success_does_not_get_around_a_rule(db: Path, hands: Hands) -> None:
    tools = [hands.tool("fetch", 1)]
    action = call("fetch", idempotent=True)
    async with opened(db) as store:
        assert (await execute(store, tools, plan(action))).status == "succeeded"
        seen = await execute(store, tools, plan(action), policies=[deny_tool("fetch")])
        assert seen.statuses == {"fetch": "rejected"}


@in_loop
async def test_what_undoes_an_action_is_judged_with_what_it_is_given(
    db: Path, hands: Hands
) -> None:
    """Nobody is asked for it; what is denied is not done, and the result says so."""
    undo = ToolCompensation(tool="refund", parameters={"of": "$pay.output"})
    rules = [
        policies_of({"deny_tool_param": {"tool": "refund", "param": "of", "equals": "p1"}}),
        ask_before_pay,
    ]
    tools = [hands.tool("pay", "p1"), hands.tool("refund"), hands.tool("ship", fails=9)]
    proposal = plan(call("pay", compensation=undo), call("ship", dependencies=("pay",)))
    async with opened(db) as store:
        waits = await execute(store, tools, proposal, run_id="r", policies=rules)
        assert waits.status == "waiting"
        await approve(store, "r", "pay", by="ann")
        seen = await resume(store, tools, "r", policies=rules)
        assert seen.status == "partially_compensated"
        assert "refund" not in hands.names
        assert "policy 'deny_tool_param" in seen.result.not_undone[0].reason


@in_loop
async def test_a_run_is_judged_by_the_rules_it_began_under(db: Path, hands: Hands) -> None:
    """Those of files are in the log; code has to be given again, the same; others do not count."""
    tools = [hands.tool("build"), hands.tool("deploy")]
    rules = [ask_before_pay, deny_tool("deploy")]
    waits = call("wait", "wait_signal", parameters={"name": "go"}, failure_behavior="skip")
    proposal = plan(waits, call("deploy", dependencies=("wait",)))
    async with opened(db) as store:
        first = await execute(store, tools, proposal, run_id="r", policies=rules)
        assert first.status == "waiting"
        await signal(store, "r", "go", None)
        with pytest.raises(PolicyChanged):
            await resume(store, tools, "r")
        changed = policy(name="ask_before_pay", version=2)(lambda judged: None)
        with pytest.raises(PolicyChanged):
            await resume(store, tools, "r", policies=[changed])
        assert hands.calls == []
        seen = await resume(store, tools, "r", policies=[ask_before_pay, deny_tool("build")])
        assert seen.statuses["deploy"] == "rejected"
        assert (await execute(store, tools, plan(call("deploy")))).status == "succeeded"


@in_loop
async def test_registering_and_removing_are_events(db: Path, hands: Hands) -> None:
    async with opened(db) as store:
        one = runtime(store, [hands.tool("build")], policies=[deny_tool("deploy")])
        await one.execute(plan(call("build")))
        await one.execute(plan(call("build")))
        assert [row.policy for row in (await rows(store, RULES)).values()] == ["deny_tool:deploy"]
        at = (await store.log.head()).position
        await one.remove_policy("deny_tool:deploy", by="ann")
        [row] = (await rows(store, RULES)).values()
        assert (row.removed_by, row.removed_at is None) == ("ann", False)
        assert [row.removed_at for row in (await rows(store, RULES, at=at)).values()] == [None]
        kinds = [one.kind async for one in store.log.read(kinds=["policy_registered"])]
        assert len(kinds) == 1


@in_loop
async def test_a_limit_of_calls_denies_across_runs_and_restarts(db: Path, hands: Hands) -> None:
    tools = [hands.tool("http", 1)]
    rule = policies_of({"rate_limit_tool": {"tool": "http", "max_calls": 2, "interval_secs": 60.0}})
    two = [call(name, "http", failure_behavior="skip") for name in ("a", "b")]
    async with opened(db) as store:
        assert (await execute(store, tools, plan(*two), policies=[rule])).status == "succeeded"
    async with opened(db) as store:
        seen = await execute(store, tools, plan(*two), policies=[rule])
        assert set(seen.statuses.values()) == {"rejected"}
    assert len(hands.calls) == 2
