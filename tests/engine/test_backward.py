"""The way back: an abort undoes what was done outside, then what was done to the state."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.names import RunId
from engine import ActionRef, ToolCompensation, ToolContext, resolve, tool
from engine.rules.retries import Backoff
from tests.engine.harness import (
    Hands,
    call,
    check,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    run_plan,
    set_state,
    write,
)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def bad(*needs: str) -> Any:
    return call("bad", dependencies=list(needs))


# --- state ---


def test_every_key_returns_to_what_it_was(db: Path) -> None:
    seen = run_plan(
        db,
        [],
        write("a", "changed", 1),
        write("b", "changed", 2),
        write("c", "new", 1),
        check("no", "changed", "other"),
        before={"changed": 0, "untouched": 0},
    )
    assert seen.status == "rolled_back"
    assert seen.state == {"changed": 0, "untouched": 0}
    assert seen.events(e.StateRollback) == [e.StateRollback(keys=("changed", "new"), conflicts=[])]
    assert [one.action_id for one in seen.events(e.ActionRolledBack)] == ["b", "c", "a"]
    assert [seen.of(name).rolled_back for name in ("a", "b", "c", "no")] == [True] * 3 + [False]


def test_a_key_that_was_deleted_comes_back(db: Path) -> None:
    @tool
    async def delete(ctx: ToolContext) -> None:
        ctx.delete("k")

    seen = run_plan(
        db,
        [delete],
        call("delete", reversibility="reversible"),
        check("no", "k", 5, dependencies=["delete"]),
        before={"k": {"deep": [1]}},
    )
    assert seen.status == "rolled_back"
    assert seen.state == {"k": {"deep": [1]}}


def test_only_a_failed_action_with_abort_aborts(db: Path, hands: Hands) -> None:
    seen = run_plan(
        db,
        [hands.tool("bad", fails=9)],
        write("w", "k", 1),
        call("skip", "bad", failure_behavior="skip"),
        call("retry", "bad", failure_behavior="retry", max_retries=0),
        call("rejected", "nope"),
    )
    assert seen.status == "failed"
    assert seen.state == {"k": 1}


def test_nothing_new_starts_after_an_abort(db: Path, hands: Hands) -> None:
    tools = [hands.tool("bad", fails=9), hands.tool("t")]
    seen = run_plan(
        db, tools, bad(), call("beside", "t"), call("after", "t", dependencies=["beside"])
    )
    assert hands.names == ["bad"]
    assert seen.errors["beside"] == "skipped due to abort"
    assert seen.errors["after"] == "skipped due to abort"


def test_a_call_decided_on_in_the_turn_of_the_abort_is_not_made(db: Path, hands: Hands) -> None:
    """Eager: the call's intent and the failing assertion fall into one turn."""
    seen = run_plan(
        db,
        [hands.tool("once"), hands.tool("again", read_only=True)],
        call("once"),
        call("again"),
        check("no", "k", 1),
        schedule="eager",
    )
    assert hands.calls == []
    assert seen.status == "rolled_back"
    assert seen.statuses == {"once": "skipped", "again": "skipped", "no": "failed"}
    assert "action_in_doubt" not in seen.kinds


@in_loop
async def test_a_key_somebody_else_has_written_since_is_left_alone(db: Path) -> None:
    async with opened(db) as store:

        @tool
        async def meddle() -> None:
            await set_state(store, {"shared": "theirs"}, run_id="them")
            raise ValueError("no")

        seen = await execute(
            store,
            [meddle],
            plan(
                write("a", "shared", "ours"),
                write("b", "own", "ours"),
                call("meddle", dependencies=["a", "b"]),
            ),
        )
        assert seen.status == "rolled_back"
        assert seen.state == {"shared": "theirs"}
        [conflict] = seen.result.conflicts
        changes = [one async for one in store.log.read(state=("main", "shared"))]  # type: ignore
        assert conflict.key == "shared"
        assert [conflict.ours, conflict.theirs] == [one.position for one in changes]
        assert seen.events(e.ProposalCompleted)[0].conflicts == [
            {"key": "shared", "ours": conflict.ours, "theirs": conflict.theirs}
        ]


@in_loop
async def test_a_rollback_that_is_overtaken_is_decided_again(db: Path) -> None:
    """Somebody writes the key between the look at it and the append of its inverse."""
    async with opened(db) as store:
        append = store.log.append
        meddled: list[int] = []

        async def append_late(*entries: Any, **kwargs: Any) -> Any:
            rolls_back = any(isinstance(one.event, e.StateRollback) for one in entries)
            if rolls_back and not meddled:
                meddled.append(1)
                await set_state(store, {"k": "theirs"})
            return await append(*entries, **kwargs)

        store.log.append = append_late  # type: ignore[method-assign]
        hands = Hands()
        seen = await execute(
            store,
            [hands.tool("bad", fails=9)],
            plan(write("w", "k", "ours"), call("bad", dependencies=["w"])),
        )
        assert seen.status == "rolled_back"
        assert seen.state == {"k": "theirs"}
        assert [one.key for one in seen.result.conflicts] == ["k"]
        assert hands.names == ["bad"]


# --- outside ---


def test_compensations_run_in_reverse_order_of_success(db: Path, hands: Hands) -> None:
    tools = [
        hands.tool("undo"),
        hands.tool("do", {"id": 1}, compensation="undo"),
        hands.tool("bad", fails=9),
    ]
    seen = run_plan(
        db,
        tools,
        call("a", "do", parameters={"x": "a"}),
        call("b", "do", parameters={"x": "b"}),
        call("c", "do", parameters={"x": "$b.output.id"}, dependencies=["a"]),
        bad("c"),
    )
    assert hands.calls[4:] == [
        ("undo", {"parameters": {"x": 1}, "output": {"id": 1}}),
        ("undo", {"parameters": {"x": "b"}, "output": {"id": 1}}),
        ("undo", {"parameters": {"x": "a"}, "output": {"id": 1}}),
    ]
    assert seen.status == "rolled_back"
    assert seen.result.not_undone == ()
    kinds = [kind for kind in seen.kinds if kind.startswith("compensation")]
    assert kinds == ["compensation_executing", "compensation_succeeded"] * 3


def test_the_actions_own_compensation_goes_before_the_tools(db: Path, hands: Hands) -> None:
    own = ToolCompensation(tool="own", parameters={"id": "$do.output.id", "x": 1})
    tools = [
        hands.tool("own"),
        hands.tool("undo"),
        hands.tool("do", {"id": 7}, compensation="undo"),
        hands.tool("bad", fails=9),
    ]
    seen = run_plan(db, tools, call("do", compensation=own), bad("do"))
    assert hands.calls[2:] == [("own", {"id": 7, "x": 1})]
    assert seen.status == "rolled_back"


def test_a_named_action_is_no_part_of_the_way_forward(db: Path, hands: Hands) -> None:
    tools = [hands.tool("do", 7), hands.tool("clean", "cleaned"), hands.tool("bad", fails=9)]
    do = call("do", compensation=ActionRef(action_id="clean"))
    clean = call("clean", parameters={"of": "$do.output"})
    seen = run_plan(db, tools, do, clean)
    assert seen.status == "succeeded"
    assert seen.errors["clean"] == "compensation, not needed"
    assert hands.names == ["do"]
    seen = run_plan(db, tools, do, clean, bad("do"))
    assert hands.calls[1:] == [("do", {}), ("bad", {}), ("clean", {"of": 7})]
    assert seen.statuses == {"do": "succeeded", "clean": "succeeded", "bad": "failed"}
    assert seen.outputs["clean"] == "cleaned"
    assert seen.of("do").rolled_back


def test_an_irreversible_success_is_named(db: Path, hands: Hands) -> None:
    tools = [hands.tool("t"), hands.tool("look", read_only=True), hands.tool("bad", fails=9)]
    seen = run_plan(
        db,
        tools,
        call("gone", "t"),
        call("half", "t", reversibility="compensable"),
        call("free", "t", reversibility="reversible"),
        call("look"),
        bad("gone", "half", "free", "look"),
    )
    assert seen.status == "rolled_back"
    assert {one.action_id: one.reason for one in seen.result.not_undone} == {
        "gone": "irreversible",
        "half": "declared compensable, but neither it nor its tool names how",
    }
    assert {one.action_id for one in seen.events(e.ActionRolledBack)} == {"free", "look"}


def test_a_failing_compensation_is_retried(db: Path, hands: Hands) -> None:
    tools = [
        hands.tool("undo", "ok", fails=2),
        hands.tool("do", compensation="undo"),
        hands.tool("bad", fails=9),
    ]
    seen = run_plan(db, tools, call("do", max_retries=2), bad("do"), backoff=Backoff(base_ms=1))
    assert hands.names.count("undo") == 3
    assert [one.attempt for one in seen.events(e.CompensationExecuting)] == [1, 2, 3]
    assert [one.delay_ms for one in seen.events(e.CompensationRetrying)] == [1, 2]
    assert seen.status == "rolled_back"


def test_a_compensation_that_fails_leaves_the_others_to_run(db: Path, hands: Hands) -> None:
    tools = [
        hands.tool("undo"),
        hands.tool("broken", fails=99),
        hands.tool("a", compensation="undo"),
        hands.tool("b", compensation="broken"),
        hands.tool("bad", fails=9),
    ]
    seen = run_plan(
        db,
        tools,
        write("w", "k", 1),
        call("a"),
        call("b", max_retries=1, dependencies=["a"]),
        bad("a", "b"),
    )
    assert hands.names == ["a", "b", "bad", "broken", "broken", "undo"]
    assert seen.status == "partially_compensated"
    assert [(one.action_id, one.reason) for one in seen.result.not_undone] == [
        ("b", "compensation failed: ValueError: broken failed")
    ]
    assert seen.state == {}
    assert seen.of("a").rolled_back
    assert not seen.of("b").rolled_back


@pytest.mark.parametrize(
    ("compensation", "said"),
    [
        (ToolCompensation(tool="nope"), "unknown tool 'nope'"),
        (ToolCompensation(tool="typed", parameters={"x": "text"}), "'x'|x:|parameters.x"),
        (ToolCompensation(tool="typed", parameters={"x": "$do.output.no"}), "output"),
    ],
)
def test_a_compensation_that_cannot_be_called_has_failed(
    db: Path, hands: Hands, compensation: ToolCompensation, said: str
) -> None:
    @tool
    async def typed(x: int) -> None:
        hands.calls.append(("typed", x))

    tools = [typed, hands.tool("do", {}), hands.tool("bad", fails=9)]
    seen = run_plan(db, tools, call("do", compensation=compensation), bad("do"))
    assert seen.status == "partially_compensated"
    import re

    assert re.search(said, seen.result.not_undone[0].reason)
    assert hands.names == ["do", "bad"]


def test_a_reused_result_is_not_this_runs_to_undo(db: Path, hands: Hands) -> None:
    tools = [hands.tool("undo"), hands.tool("do", compensation="undo"), hands.tool("bad", fails=9)]
    run_plan(db, tools, call("a", "do", idempotent=True))
    seen = run_plan(db, tools, call("b", "do", idempotent=True), bad("b"))
    assert seen.status == "rolled_back"
    assert "undo" not in hands.names
    assert not seen.of("b").rolled_back


def test_the_idempotency_keys_of_doing_and_undoing_differ(db: Path) -> None:
    keys: list[str] = []

    @tool
    async def undo(parameters: dict[str, Any], output: Any, ctx: ToolContext) -> None:
        keys.append(ctx.idempotency_key)
        if ctx.attempt == 1:
            raise ValueError("again")

    @tool(compensation=undo)
    async def do(ctx: ToolContext) -> None:
        keys.append(ctx.idempotency_key)

    @tool
    async def fail() -> None:
        raise ValueError("no")

    run_plan(db, [undo, do, fail], call("do"), call("fail", dependencies=["do"]))
    assert len(keys) == 3
    assert keys[1] == keys[2] != keys[0]


# --- in flight, and in doubt ---


def test_calls_in_flight_are_asked_to_stop_awaited_and_undone(db: Path, hands: Hands) -> None:
    asked: list[bool] = []

    @tool(compensation="undo")
    async def slow(ctx: ToolContext) -> str:
        await asyncio.wait_for(ctx.wait_cancelled(), 5)
        asked.append(ctx.cancelled)
        return "done all the same"

    seen = run_plan(
        db,
        [slow, hands.tool("undo"), hands.tool("bad", fails=9)],
        call("slow"),
        call("bad"),
        schedule="eager",
    )
    assert asked == [True]
    assert seen.statuses == {"slow": "succeeded", "bad": "failed"}
    assert seen.status == "rolled_back"
    assert hands.names == ["bad", "undo"]


@pytest.mark.parametrize(
    ("answer", "undone", "status"),
    [("succeeded", True, "rolled_back"), ("failed", False, "rolled_back")],
)
@in_loop
async def test_an_attempt_in_doubt_holds_the_way_back(
    db: Path, answer: Any, undone: bool, status: str
) -> None:
    hands = Hands()

    async def hang() -> None:
        await asyncio.sleep(30)

    tools = [
        hands.tool("undo"),
        hands.tool("slow", does=hang, timeout_ms=30, compensation="undo"),
        hands.tool("done", compensation="undo"),
        hands.tool("bad", fails=9),
    ]
    async with opened(db) as store:
        proposal = plan(call("done"), call("slow"), call("bad", dependencies=["done"]))
        seen = await execute(store, tools, proposal, run_id="r", schedule="eager")
        assert seen.status == "waiting"
        assert "undo" not in hands.names
        await resolve(store, RunId("r"), "slow", answer, output="late", error="no")
        seen = await resume(store, tools, "r")
        assert seen.status == status
        undo = [given["output"] for name, given in hands.calls if name == "undo"]
        assert undo == (["late", None] if undone else [None])


@pytest.mark.parametrize(
    ("answer", "calls", "status"),
    [
        ("succeeded", 1, "rolled_back"),
        ("failed", 1, "partially_compensated"),
        ("retry", 2, "rolled_back"),
    ],
)
@in_loop
async def test_a_compensation_in_doubt_waits_for_a_person(
    db: Path, answer: Any, calls: int, status: str
) -> None:
    hands = Hands()
    first = [True]

    async def hang(**_: Any) -> str:
        if first.pop() if first else False:
            await asyncio.sleep(30)
        return "undone"

    tools = [
        hands.tool("undo", does=hang, timeout_ms=20),
        hands.tool("do", compensation="undo"),
        hands.tool("bad", fails=9),
    ]
    async with opened(db) as store:
        proposal = plan(write("w", "k", 1), call("do"), call("bad", dependencies=["do", "w"]))
        seen = await execute(store, tools, proposal, run_id="r")
        assert seen.status == "waiting"
        assert seen.events(e.ActionInDoubt)[0].undo
        assert seen.state == {"k": 1}
        await resolve(store, RunId("r"), "do", answer, error="it stays")
        seen = await resume(store, tools, "r")
        assert hands.names.count("undo") == calls
        assert seen.status == status
        assert seen.state == {}


@pytest.mark.parametrize(
    ("on_doubt", "calls", "status"),
    [("fail", 1, "partially_compensated"), ("retry", 2, "rolled_back")],
)
def test_a_policy_answers_for_a_compensation_in_doubt(
    db: Path, hands: Hands, on_doubt: str, calls: int, status: str
) -> None:
    first = [True]

    async def hang(**_: Any) -> None:
        if first:
            first.clear()
            await asyncio.sleep(30)

    tools = [
        hands.tool("undo", does=hang, timeout_ms=20),
        hands.tool("do", compensation="undo"),
        hands.tool("bad", fails=9),
    ]
    seen = run_plan(db, tools, call("do"), bad("do"), on_doubt=on_doubt)
    assert hands.names.count("undo") == calls
    assert seen.status == status
    assert seen.result.cost.retries == calls - 1
