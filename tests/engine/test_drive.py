"""The loop itself: interruption, failure of the store, and what it tells its observer."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.errors import Busy, DiskFull
from carstore.leases import HeldLease
from carstore.names import RunId
from engine import Runtime, ToolContext, resolve, tool
from engine import runs as runs_module
from engine.journal import load_run
from engine.rules.retries import Backoff
from engine.run import Run
from tests.engine.harness import (
    Hands,
    call,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    run_plan,
    runtime,
    state_of,
    until,
    write,
)

R = RunId("r")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


class Slow:
    """A tool that waits until told, and another one after it."""

    def __init__(self, *, stubborn: bool = False, **declared: Any) -> None:
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()
        self.calls: list[str] = []
        self.cancelled = False

        async def slow(ctx: ToolContext) -> str:
            self.calls.append("slow")
            self.begun.set()
            try:
                if stubborn:
                    await self.go_on.wait()
                else:
                    await ctx.wait_cancelled()
            finally:
                self.cancelled = ctx.cancelled
            ctx.set("k", "done")
            return "done"

        async def after() -> str:
            self.calls.append("after")
            return "after"

        self.tools = [tool(name="slow", **declared)(slow), tool(name="after")(after)]
        self.plan = plan(call("slow"), call("after", dependencies=["slow"]))


async def interrupted(task: "asyncio.Task[Any]") -> None:
    with pytest.raises(asyncio.CancelledError):
        await task


@in_loop
async def test_a_cancelled_execute_waits_for_its_call_and_records_it(db: Path) -> None:
    """Ctrl-C: the call is asked to stop and awaited, nothing new starts, the run is put down."""
    slow = Slow()
    async with opened(db) as store:
        task = asyncio.create_task(runtime(store, slow.tools).execute(slow.plan, run_id="r"))
        await slow.begun.wait()
        task.cancel()
        await interrupted(task)
        assert slow.cancelled
        assert slow.calls == ["slow"]
        run = await load_run(store, R)
        assert run.status == "running"
        assert run.of("slow").output == "done"
        assert run.paused is not None
        assert run.paused.reason == "interrupted"
        assert await state_of(store) == {"k": "done"}
        assert not await store.leases.rows()
        seen = await resume(store, slow.tools, "r")
        assert seen.status == "succeeded"
        assert slow.calls == ["slow", "after"]


@pytest.mark.parametrize(("declared", "doubts"), [({}, 1), ({"idempotent": True}, 0)])
@pytest.mark.parametrize("how", ["grace", "again"])
@in_loop
async def test_a_call_that_does_not_stop_is_given_up(
    db: Path, declared: Any, doubts: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace, or at the second interruption, what becomes of it is unknown."""
    slow = Slow(stubborn=True, **declared)
    monkeypatch.setattr(runs_module, "GRACE_SECONDS", 0.05 if how == "grace" else 30)
    async with opened(db) as store:
        task = asyncio.create_task(runtime(store, slow.tools).execute(slow.plan, run_id="r"))
        await slow.begun.wait()
        task.cancel()
        if how == "again":
            await asyncio.sleep(0.02)
            task.cancel()
        await interrupted(task)
        slow.go_on.set()
        seen = await resume(store, slow.tools, "r")
        assert len(seen.events(e.ActionInDoubt)) == doubts
        if doubts:
            assert seen.status == "waiting"
            assert slow.calls == ["slow"]
            await resolve(store, R, "slow", "succeeded", output="done")
            seen = await resume(store, slow.tools, "r")
        else:
            assert slow.calls == ["slow", "slow", "after"]
        assert seen.status == "succeeded"


@in_loop
async def test_a_thread_that_does_not_stop_is_given_up_too(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @tool
    def slow() -> None:
        begun.set()
        go_on.wait(10)

    monkeypatch.setattr(runs_module, "GRACE_SECONDS", 0.05)
    async with opened(db) as store:
        task = asyncio.create_task(runtime(store, [slow]).execute(plan(call("slow")), run_id="r"))
        await until(begun.is_set)
        task.cancel()
        await interrupted(task)
        go_on.set()
        run = await load_run(store, R)
        assert run.of("slow").do.doubt is not None


@in_loop
async def test_interruption_between_retries_does_not_wait_for_them(db: Path) -> None:
    hands = Hands()
    tools = [hands.tool("t", fails=1)]
    proposal = plan(call("t", failure_behavior="retry"))
    async with opened(db) as store:
        waiting = Runtime(store, tools, backoff=Backoff(base_ms=60_000))
        task = asyncio.create_task(waiting.execute(proposal, run_id="r"))
        async with asyncio.timeout(5):
            while not [one async for one in store.log.read(kinds=["action_retrying"])]:
                await asyncio.sleep(0.002)
        task.cancel()
        await interrupted(task)
        # Whoever resumes waits no longer than its own cap.
        seen = await resume(store, tools, "r", backoff=Backoff(base_ms=1, cap_ms=10))
        assert seen.status == "succeeded"
        assert seen.of("t").attempts == 2


@in_loop
async def test_interruption_on_the_way_back_goes_on_there(db: Path) -> None:
    slow = Slow()
    hands = Hands()

    @tool
    async def undo(parameters: dict[str, Any], output: Any, ctx: ToolContext) -> None:
        hands.calls.append(("undo", output))
        slow.begun.set()
        await ctx.wait_cancelled()

    tools = [undo, hands.tool("do", 1, compensation="undo"), hands.tool("bad", fails=9)]
    proposal = plan(
        write("w", "k", 1),
        call("a", "do"),
        call("b", "do", dependencies=["a"]),
        call("bad", dependencies=["b", "w"]),
    )
    async with opened(db) as store:
        task = asyncio.create_task(runtime(store, tools).execute(proposal, run_id="r"))
        await slow.begun.wait()
        task.cancel()
        await interrupted(task)
        assert hands.names == ["do", "do", "bad", "undo"]

        other = tool(name="undo", parameters=undo.schema.parameters)(
            lambda parameters, output: hands.calls.append(("undo", output))
        )
        object.__setattr__(other, "schema", undo.schema)
        seen = await resume(store, [other, *tools[1:]], "r")
        assert seen.status == "rolled_back"
        assert hands.names == ["do", "do", "bad", "undo", "undo"]
        assert seen.state == {}


@pytest.mark.parametrize("pause", [0, 0.001, 0.005])
@in_loop
async def test_interruption_at_any_moment_leaves_a_run_that_can_go_on(
    db: Path, pause: float
) -> None:
    hands = Hands()
    tools = [hands.tool("t", 1)]
    proposal = plan(
        *[call(f"a{n}", "t", dependencies=[f"a{n - 1}"] if n else []) for n in range(20)]
    )
    async with opened(db) as store:
        for _ in range(40):
            task = asyncio.create_task(runtime(store, tools).execute(proposal, run_id="r"))
            await asyncio.sleep(pause)
            if task.cancel():
                await interrupted(task)
            else:
                break
            if not [one async for one in store.log.read(run=R)]:
                continue  # it had not begun
            if (await load_run(store, R)).completed:
                break
        seen = await execute(store, tools, proposal, run_id="r")
        assert seen.status == "succeeded"
        assert len(hands.calls) == 20
        assert not seen.events(e.ActionInDoubt)


@pytest.mark.parametrize("error", [DiskFull("a.db"), Busy("a.db", 1)])
@in_loop
async def test_an_outcome_is_kept_until_a_store_that_refuses_takes_it(
    db: Path, error: Exception
) -> None:
    hands = Hands()
    tools = [hands.tool("t", 1), hands.tool("u", 2, idempotent=True)]
    async with opened(db) as store:
        append, refused = store.log.append, []

        async def refusing(*entries: Any, **kwargs: Any) -> Any:
            if any(isinstance(one.event, e.ActionSucceeded) for one in entries):
                refused.append(1)
                if len(refused) < 3:
                    raise error
            return await append(*entries, **kwargs)

        store.log.append = refusing  # type: ignore[method-assign]
        proposal = plan(call("t"), call("u", dependencies=["t"]))
        result = await runtime(store, tools).execute(proposal, run_id="r")
        assert result.status == "succeeded"
        assert hands.names == ["t", "u"]


@pytest.mark.parametrize("error", [DiskFull("a.db"), Busy("a.db", 1)])
@in_loop
async def test_a_store_that_refuses_for_too_long_ends_the_turn_and_the_run_can_go_on(
    db: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome could not be recorded; the run is let go of, also for this very process."""
    refused: list[int] = []
    monkeypatch.setattr(HeldLease, "is_held", lambda self, clock: not refused)
    hands = Hands()
    tools = [hands.tool("t", 1), hands.tool("u", 2, idempotent=True)]
    async with opened(db) as store:
        append = store.log.append

        async def refusing(*entries: Any, **kwargs: Any) -> Any:
            if any(isinstance(one.event, e.ActionSucceeded) for one in entries) and not refused:
                refused.append(1)
                raise error
            return await append(*entries, **kwargs)

        store.log.append = refusing  # type: ignore[method-assign]
        proposal = plan(call("t"), call("u", dependencies=["t"]))
        with pytest.raises(type(error)):
            await runtime(store, tools).execute(proposal, run_id="r")
        monkeypatch.undo()
        seen = await resume(store, tools, "r")
        assert seen.status == "waiting"  # an intent without an outcome
        await resolve(store, R, "t", "succeeded")
        assert (await resume(store, tools, "r")).status == "succeeded"
        assert hands.names == ["t", "u"]


@in_loop
async def test_the_observer_is_told_after_each_turn_what_is_durable(db: Path) -> None:
    hands = Hands()
    told: list[tuple[int, int]] = []

    async with opened(db) as store:
        durable: list[int] = []
        append = store.log.append

        async def counting(*entries: Any, **kwargs: Any) -> Any:
            done = await append(*entries, **kwargs)
            durable.append(sum(one.stream == "run/r" for one in entries))
            return done

        store.log.append = counting  # type: ignore[method-assign]

        def observe(run: Run) -> None:
            told.append((run.version, sum(durable)))

        proposal = plan(call("a", "t"), call("b", "t", dependencies=["a"]))
        await runtime(store, [hands.tool("t")]).execute(proposal, run_id="r", observe=observe)
        assert len(told) == 3
        assert all(version == recorded for version, recorded in told)


@in_loop
async def test_many_runs_at_once_share_commits_and_do_not_disturb_each_other(db: Path) -> None:
    hands = Hands()
    tools = [hands.tool("t", 1)]
    async with opened(db) as store:
        one = runtime(store, tools)

        def proposal(n: int) -> Any:
            return plan(call("a", "t"), write("w", f"k{n}", "$a.output"))

        results = await asyncio.gather(*[one.execute(proposal(n)) for n in range(50)])
        assert {result.status for result in results} == {"succeeded"}
        assert await state_of(store) == {f"k{n}": 1 for n in range(50)}
        assert len(hands.calls) == 50


@in_loop
async def test_counters_of_many_runs_lose_no_update(db: Path) -> None:
    """Each run reads and writes one key without a call; whoever is late decides again."""

    @tool
    async def count(ctx: ToolContext) -> int:
        value: int = await ctx.read("n", 0)
        ctx.set("n", value + 1)
        return value

    async with opened(db) as store:
        one = runtime(store, [count])
        results = await asyncio.gather(
            *[one.execute(plan(call("count", failure_behavior="skip"))) for _ in range(20)]
        )
        done = [r for r in results if r.results[0].status == "succeeded"]
        assert (await state_of(store))["n"] == len(done) >= 1
        assert len({r.results[0].output for r in done}) == len(done)


def test_a_large_plan_takes_no_time_of_its_own(db: Path) -> None:
    import time

    actions = [write(f"a{n}", f"k{n % 50}", n) for n in range(2_000)]
    began = time.perf_counter()
    seen = run_plan(db, [], *actions, schedule="eager")
    assert seen.status == "succeeded"
    assert time.perf_counter() - began < 5
