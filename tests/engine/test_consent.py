"""A run that asks people waits without a process, and does exactly what they consented to."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.clock import ManualClock
from carstore.names import LeaseName
from engine import Precondition
from engine.approvals import NoApproval, approve, reject
from engine.ir import Operator
from engine.policies import Judged, ask, policy
from tests.engine.harness import Hands, call, execute, in_loop, opened, plan, resume, write

SECOND = 1_000_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def asking(tool: str, **terms: Any) -> Any:
    @policy(name=f"ask_{tool}")
    def asks(judged: Judged) -> Any:
        return ask("goes outside", **terms) if judged.action.tool == tool else None

    return asks


SENDS = plan(
    write("before", "k", 1),
    call("send", parameters={"to": "ann"}, failure_behavior="skip"),
    call("other", failure_behavior="skip"),
    call("after", dependencies=("send",)),
)


@in_loop
async def test_consent_given_while_no_process_runs(db: Path, hands: Hands) -> None:
    """What does not depend on it goes on, the lease is free, and the next resume carries on."""
    tools, rules = [hands.tool(name) for name in ("send", "other", "after")], [asking("send")]
    async with opened(db) as store:
        first = await execute(store, tools, SENDS, run_id="r", policies=rules)
        assert (first.status, first.result.waits_for) == ("waiting", "approval")
        assert hands.names == ["other"]
        lease = await store.leases.row(LeaseName("run/r"))
        assert lease is not None
        assert lease.token is None
        again = await resume(store, tools, "r", policies=rules)
        assert again.kinds == first.kinds, "asking again is not an event"
    async with opened(db) as store:
        assert await approve(store, "r", "send", by="ann", reason="known") == 0
        seen = await resume(store, tools, "r", policies=rules)
        assert seen.status == "succeeded"
        assert hands.names == ["other", "send", "after"]
        with pytest.raises(NoApproval):
            await approve(store, "r", "send", by="bob")


@in_loop
async def test_a_refusal_rejects_the_action_and_says_who(db: Path, hands: Hands) -> None:
    tools, rules = [hands.tool(name) for name in ("send", "other", "after")], [asking("send")]
    async with opened(db) as store:
        await execute(store, tools, SENDS, run_id="r", policies=rules)
        await reject(store, "r", "send", by="ann", reason="no such customer")
        seen = await resume(store, tools, "r", policies=rules)
        assert seen.statuses["send"] == "rejected"
        assert seen.errors["send"] == "refused by ann: no such customer"
        assert seen.errors["after"] == "dependency 'send' rejected"
        assert "send" not in hands.names


@in_loop
async def test_two_people_have_to_consent_if_the_rule_says_so(db: Path, hands: Hands) -> None:
    tools = [hands.tool(name) for name in ("send", "other", "after")]
    rules = [asking("send", approvers=2)]
    async with opened(db) as store:
        await execute(store, tools, SENDS, run_id="r", policies=rules)
        assert await approve(store, "r", "send", by="ann") == 1
        with pytest.raises(NoApproval):
            await approve(store, "r", "send", by="ann")
        assert (await resume(store, tools, "r", policies=rules)).status == "waiting"
        assert await approve(store, "r", "send", by="bob") == 0
        assert (await resume(store, tools, "r", policies=rules)).status == "succeeded"


@in_loop
async def test_nobody_answering_in_time_is_a_refusal(db: Path, hands: Hands) -> None:
    tools, clock = [hands.tool(name) for name in ("send", "other", "after")], ManualClock()
    rules = [asking("send", expires_secs=60)]
    async with opened(db, clock=clock) as store:
        await execute(store, tools, SENDS, run_id="r", policies=rules)
        clock.advance(60 * SECOND - 1)
        assert (await resume(store, tools, "r", policies=rules)).status == "waiting"
        clock.advance(1)
        with pytest.raises(NoApproval):
            await approve(store, "r", "send", by="ann")
        seen = await resume(store, tools, "r", policies=rules)
        assert seen.errors["send"] == "nobody approved it in time"
        assert "send" not in hands.names


@in_loop
async def test_consent_in_time_holds_however_late_the_run_goes_on(db: Path, hands: Hands) -> None:
    tools, clock = [hands.tool(name) for name in ("send", "other", "after")], ManualClock()
    rules = [asking("send", expires_secs=60)]
    async with opened(db, clock=clock) as store:
        await execute(store, tools, SENDS, run_id="r", policies=rules)
        await approve(store, "r", "send", by="ann")
        clock.advance(3600 * SECOND)
        assert (await resume(store, tools, "r", policies=rules)).status == "succeeded"


@in_loop
async def test_consent_is_to_the_tool_and_what_it_is_really_given(db: Path, hands: Hands) -> None:
    """The binding covers the resolved parameters, so it differs with what was looked up."""
    bindings = []
    for run_id, found in (("one", "ann"), ("two", "bob")):
        tools = [hands.tool("look", found), hands.tool("send")]
        sends = call("send", parameters={"to": "$look.output"})
        async with opened(db) as store:
            seen = await execute(
                store, tools, plan(call("look"), sends), run_id=run_id, policies=[asking("send")]
            )
            [request] = seen.events(e.ApprovalRequested)
            bindings.append(request.binding)
            wrong = "0" * 64
            with pytest.raises(NoApproval):
                await approve(store, run_id, "send", by="ann", binding=wrong)
            await approve(store, run_id, "send", by="ann", binding=request.binding)
            assert (
                await resume(store, tools, run_id, policies=[asking("send")])
            ).status == "succeeded"
    assert bindings[0] != bindings[1]
    assert [params for name, params in hands.calls if name == "send"] == [
        {"to": "ann"},
        {"to": "bob"},
    ]


@in_loop
async def test_nobody_is_asked_for_what_could_not_be_done_anyway(db: Path, hands: Hands) -> None:
    condition = Precondition(key="k", operator=Operator.EXISTS)
    proposal = plan(call("send", preconditions=[condition]))
    async with opened(db) as store:
        seen = await execute(store, [hands.tool("send")], proposal, policies=[asking("send")])
        assert seen.events(e.ApprovalRequested) == []
        assert seen.statuses == {"send": "rejected"}


@in_loop
async def test_a_driver_that_is_busy_hears_the_answer(db: Path, hands: Hands) -> None:
    """Another call is in flight meanwhile, so the run is not put down."""
    started = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(**_: Any) -> None:
        started.set()
        await go_on.wait()

    tools = [hands.tool("send"), hands.tool("slow", does=slow, read_only=True)]
    proposal = plan(call("send", failure_behavior="skip"), call("slow", failure_behavior="skip"))
    async with opened(db) as store:
        run = asyncio.create_task(
            execute(store, tools, proposal, run_id="r", policies=[asking("send")])
        )
        await started.wait()
        await approve(store, "r", "send", by="ann")
        async with asyncio.timeout(5):
            while "send" not in hands.names:
                await asyncio.sleep(0.01)
        go_on.set()
        seen = await run
        assert seen.status == "succeeded"
        assert seen.events(e.RunPaused) == []
