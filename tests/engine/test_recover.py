"""Crash and resume: a driver dies, and another one goes on where the log ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.clock import ManualClock
from carstore.errors import NotFound
from carstore.leases import GRACE_US, TTL_US
from carstore.names import RunId, run_lease
from carstore.sqlite.verify import verify
from engine import (
    RunExists,
    RunOwned,
    Runtime,
    ToolContext,
    ToolsChanged,
    ToolSchema,
    resolve,
    tool,
)
from engine.errors import InvalidRunId
from tests.engine.harness import (
    Hands,
    People,
    call,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    runtime,
    set_state,
    state_of,
    until,
    write,
)

R = RunId("r")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


class Death(Exception):
    """Stands for the end of the process."""


def die(store: Any, at: int, *, after: bool = False) -> None:
    """Let the store's process die at its n-th append, before or after the commit."""
    append, count = store.log.append, [0]

    async def append_or_die(*entries: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] > at or (count[0] == at and not after):
            raise Death
        done = await append(*entries, **kwargs)
        if count[0] == at:
            raise Death
        return done

    store.log.append = append_or_die


async def crash(
    db: Path,
    people: People,
    tools: Any,
    proposal: Any,
    at: int,
    *,
    after: bool = False,
    **options: Any,
) -> None:
    """Execute the proposal as run `r` in a process that dies at its n-th append."""
    async with opened(db, people) as store:
        die(store, at, after=after)
        with pytest.raises(Death):
            await runtime(store, tools, **options).execute(proposal, run_id="r")
    people.all_die()


def chain(length: int, **fields: Any) -> Any:
    return plan(
        *[
            call(f"a{n}", "t", dependencies=[f"a{n - 1}"] if n else [], **fields)
            for n in range(length)
        ]
    )


# --- what is done again ---


@pytest.mark.parametrize("at", range(1, 6))
@pytest.mark.parametrize("after", [False, True])
@in_loop
async def test_what_succeeded_is_never_called_again(db: Path, at: int, after: bool) -> None:
    """A chain of four calls that may not be repeated; each is in doubt or was recorded."""
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1)]
    await crash(db, people, tools, chain(4), at, after=after)
    begun = len(hands.calls)
    async with opened(db, people) as store:
        if at == 1 and not after:
            assert begun == 0
            assert await runtime(store, tools).recover() == []
            return
        results = await runtime(store, tools).recover()
        if at == 5 and after:
            assert results == []
            assert begun == 4
            return
        seen = await resume(store, tools, "r")
        doubts = [one.action_id for one in seen.events(e.ActionInDoubt)]
        assert doubts == [f"a{at - 1 if after else at - 2}"]
        assert seen.status == "waiting"
        # The intent is durable; nobody but us knows whether the call was made.
        assert len(hands.calls) == begun
        await resolve(store, R, doubts[0], "retry" if begun < at - (not after) else "succeeded")
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert len(hands.calls) == 4
        assert (await verify(store)).ok


@pytest.mark.parametrize("declared", [{"read_only": True}, {"idempotent": True}])
@pytest.mark.parametrize("at", range(2, 6))
@in_loop
async def test_what_can_be_repeated_is_simply_called_again(
    db: Path, declared: Any, at: int
) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, **declared)]
    await crash(db, people, tools, chain(4), at)
    async with opened(db, people) as store:
        [result] = await runtime(store, tools).recover()
        assert isinstance(result, object)
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert not seen.events(e.ActionInDoubt)
        assert len(hands.calls) == 5


@in_loop
async def test_the_idempotency_key_survives_the_crash(db: Path) -> None:
    people, keys = People(), []

    @tool(idempotent=True)
    async def t(ctx: ToolContext) -> None:
        keys.append((ctx.idempotency_key, ctx.attempt))

    await crash(db, people, [t], plan(call("a", "t", idempotent=True)), 2)
    async with opened(db, people) as store:
        await runtime(store, [t]).recover()
    assert [key for key, _ in keys] == [keys[0][0]] * 2
    assert [attempt for _, attempt in keys] == [1, 2]


@pytest.mark.parametrize(
    ("on_doubt", "status", "calls"), [("fail", "rolled_back", 1), ("retry", "succeeded", 2)]
)
@in_loop
async def test_a_policy_decides_about_a_crash_in_a_call(
    db: Path, on_doubt: str, status: str, calls: int
) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1)]
    proposal = plan(write("w", "k", 1), call("a", "t", dependencies=["w"]))
    await crash(db, people, tools, proposal, 2, on_doubt=on_doubt)
    async with opened(db, people) as store:
        # The policy the run began with binds; what the resuming runtime says does not matter.
        seen = await resume(store, tools, "r", on_doubt="hold")
        assert seen.status == status
        assert len(hands.calls) == calls
        assert "run_paused" not in seen.kinds
        assert seen.events(e.ActionInDoubt)[0].reason == "the process ended during the call"


@in_loop
async def test_a_retry_that_was_due_is_made_by_whoever_resumes(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, fails=2)]
    await crash(db, people, tools, chain(1, failure_behavior="retry"), 2, after=True)
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert seen.of("a0").attempts == 3
        assert seen.result.cost.retries == 2


@in_loop
async def test_a_retry_that_is_not_due_yet_is_waited_for(db: Path) -> None:
    from engine.rules.retries import Backoff

    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, fails=1)]
    slow = Backoff(base_ms=80)
    await crash(db, people, tools, chain(1, failure_behavior="retry"), 2, after=True, backoff=slow)
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r", backoff=slow)
        failed = [one.recorded_at for one in seen.history if one.kind == "action_failed"]
        again = [one.recorded_at for one in seen.history if one.kind == "action_executing"]
        assert again[1] - failed[0] >= 80_000
        assert seen.status == "succeeded"


@in_loop
async def test_options_of_the_run_bind_its_resume(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1)]
    proposal = plan(call("a", "t"), write("w", "k", 1, dependencies=["a"]))
    await crash(db, people, tools, proposal, 2, scope="mine", schedule="eager", concurrency=2)
    async with opened(db, people) as store:
        await runtime(store, tools).recover()
        await resolve(store, R, "a", "succeeded")
        seen = await resume(store, tools, "r")
        assert seen.live.received.schedule == "eager"
        assert await state_of(store, "mine") == {"k": 1}
        assert await state_of(store) == {}


@pytest.mark.parametrize("at", range(3, 8))
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("declared", [{}, {"idempotent": True}])
@in_loop
async def test_a_crash_inside_compensation_goes_on_compensating(
    db: Path, at: int, after: bool, declared: Any
) -> None:
    hands, people = Hands(), People()
    tools = [
        hands.tool("undo", **declared),
        hands.tool("do", compensation="undo", idempotent=True),
        hands.tool("bad", fails=99, idempotent=True),
    ]
    proposal = plan(
        write("w", "k", 1),
        call("a", "do", dependencies=["w"]),
        call("b", "do", dependencies=["a"]),
        call("c", "do", dependencies=["b"]),
        call("bad", dependencies=["c"]),
    )
    async with opened(db, people) as store:
        die(store, at, after=after)
        try:
            await runtime(store, tools).execute(proposal, run_id="r")
        except Death:
            pass
    people.all_die()
    done_before = hands.names.count("do")
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r")
        while seen.status == "waiting":
            doubt = seen.events(e.ActionInDoubt)[-1]
            assert doubt.undo
            assert not declared
            await resolve(store, R, doubt.action_id, "succeeded")
            seen = await resume(store, tools, "r")
        assert seen.status == "rolled_back"
        assert seen.state == {}
        undone = [one.action_id for one in seen.events(e.CompensationSucceeded)]
        assert undone == ["c", "b", "a"]
        assert hands.names.count("do") <= done_before + 3
        assert len(seen.events(e.StateRollback)) == 1
        if not declared:
            assert hands.names.count("undo") <= 3


@in_loop
async def test_an_abort_that_was_not_finished_starts_nothing_new(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [
        hands.tool("undo"),
        hands.tool("do", compensation="undo"),
        hands.tool("bad", fails=1),
        hands.tool("never"),
    ]
    proposal = plan(
        call("do"), call("bad", dependencies=["do"]), call("never", dependencies=["bad"])
    )
    await crash(db, people, tools, proposal, 3, after=True)
    assert hands.names == ["do", "bad"]
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r")
        assert seen.status == "waiting"  # the compensation's intent was durable
        await resolve(store, R, "do", "retry")
        seen = await resume(store, tools, "r")
        assert seen.status == "rolled_back"
        assert hands.names == ["do", "bad", "undo"]


@pytest.mark.parametrize(("on_doubt", "named"), [("hold", None), ("fail", False), ("retry", True)])
@in_loop
async def test_a_call_in_flight_at_a_crash_is_settled_before_the_way_back(
    db: Path, on_doubt: str, named: bool | None
) -> None:
    """Eager: `slow` is in flight when `bad` fails and the process dies."""
    hands, people = Hands(), People()

    async def hang() -> None:
        await asyncio.sleep(60)

    tools = [
        hands.tool("undo"),
        hands.tool("slow", does=hang, compensation="undo"),
        hands.tool("bad", fails=9, idempotent=True),
    ]
    options = {"schedule": "eager", "on_doubt": on_doubt}
    await crash(db, people, tools, plan(call("slow"), call("bad")), 2, after=True, **options)
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r")
        if named is None:
            assert seen.status == "waiting"
            await resolve(store, R, "slow", "succeeded", output=1)
            seen = await resume(store, tools, "r")
            assert hands.names.count("undo") == 1
        assert seen.status == "rolled_back"
        assert hands.names.count("slow") == 1
        if named:  # it may have happened, was not repeated, and so could not be undone
            [item] = seen.result.not_undone
            assert item.action_id == "slow"
            assert "in doubt" in item.reason


@in_loop
async def test_many_runs_are_recovered_in_the_order_in_which_they_began(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, idempotent=True)]
    names = [f"run{n}" for n in (3, 1, 2)]
    for name in names:
        async with opened(db, people) as store:
            die(store, 2)
            with pytest.raises(Death):
                await runtime(store, tools).execute(chain(2), run_id=name)
    people.all_die()
    async with opened(db, people) as store:
        assert await runtime(store, tools).unfinished() == names
        results = await runtime(store, tools).recover()
        assert [one.run_id for one in results] == names
        assert {one.status for one in results} == {"succeeded"}  # type: ignore[union-attr]
        assert await runtime(store, tools).recover() == []


# --- who owns a run ---


async def held(store: Any) -> Any:
    """A run that is being driven: its tool waits. Returns its task and what lets it go on."""
    go_on = asyncio.Event()

    async def wait() -> str:
        await go_on.wait()
        return "done"

    hands = Hands()
    tools = [hands.tool("t", does=wait)]
    task = asyncio.create_task(runtime(store, tools).execute(chain(1), run_id="r"))
    await until(lambda: hands.calls)
    return task, go_on, tools, hands


@in_loop
async def test_a_run_of_a_live_process_is_left_alone_and_its_owner_named(db: Path) -> None:
    people = People()
    async with opened(db, people) as one, opened(db, people) as other:
        task, go_on, tools, hands = await held(one)
        with pytest.raises(RunOwned, match=str(one.leases.holder)) as caught:
            await runtime(other, tools).resume("r")
        assert 0 < caught.value.expires_in_us <= TTL_US + GRACE_US
        assert caught.value.code == "run_owned"
        [found] = await runtime(other, tools).recover()
        assert isinstance(found, RunOwned)
        with pytest.raises(RunOwned):
            await runtime(other, tools).execute(chain(1), run_id="r")
        go_on.set()
        assert (await task).status == "succeeded"
        assert len(hands.calls) == 1
        assert not [r async for r in other.log.read(kinds=["run_resumed"])]


@in_loop
async def test_a_second_recover_in_one_process_steals_nothing(db: Path) -> None:
    async with opened(db) as store:
        task, go_on, tools, hands = await held(store)
        [found] = await runtime(store, tools).recover()
        assert isinstance(found, RunOwned)
        go_on.set()
        assert (await task).status == "succeeded"
        assert len(hands.calls) == 1


@in_loop
async def test_two_recoveries_at_once_resume_each_run_once(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, idempotent=True)]
    for name in ("x", "y", "z"):
        async with opened(db, people) as store:
            die(store, 2)
            with pytest.raises(Death):
                await runtime(store, tools).execute(chain(2), run_id=name)
    people.all_die()
    async with opened(db, people) as one, opened(db, people) as other:
        both = await asyncio.gather(runtime(one, tools).recover(), runtime(other, tools).recover())
        for name in ("x", "y", "z"):
            history = [r async for r in one.log.read(run=RunId(name))]
            assert [r.kind for r in history].count("run_resumed") == 1
            assert history[-1].kind in ("lease_released", "proposal_completed")
            assert [r.kind for r in history].count("proposal_completed") == 1
        finished = [r for found in both for r in found if not isinstance(r, RunOwned)]
        assert sorted({r.run_id for r in finished}) == ["x", "y", "z"]
        assert (await verify(one)).ok


@in_loop
async def test_a_holder_that_is_provably_gone_is_taken_over_at_once(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, idempotent=True)]
    await crash(db, people, tools, chain(1), 2)
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r")
        grants = seen.events(e.LeaseGranted)
        assert [one.taken_over for one in grants] == [
            None,
            {"token": grants[1].taken_over["token"], "reason": "gone"},
        ]


@in_loop
async def test_a_silent_holder_is_taken_over_after_ttl_and_grace(db: Path) -> None:
    """It may be on another machine; nothing proves that it is gone."""
    hands, people, clock = Hands(), People(), ManualClock()
    tools = [hands.tool("t", 1, idempotent=True)]
    async with opened(db, people, clock) as store:
        die(store, 2)
        with pytest.raises(Death):
            await runtime(store, tools).execute(chain(1), run_id="r")
    async with opened(db, people, clock) as store:
        with pytest.raises(RunOwned):
            await runtime(store, tools).resume("r")
        clock.advance(TTL_US + GRACE_US - 1)
        with pytest.raises(RunOwned):
            await runtime(store, tools).resume("r")
        clock.advance(1)
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert seen.events(e.LeaseGranted)[1].taken_over["reason"] == "expired"


@in_loop
async def test_a_driver_whose_run_was_taken_over_records_nothing_more(db: Path) -> None:
    """It was only believed dead; what its call did it may not record."""
    people = People()
    async with opened(db, people) as one:
        task, go_on, tools, hands = await held(one)
        people.all_die()
        async with opened(db, people) as other:
            seen = await resume(other, tools, "r")
            assert seen.status == "waiting"
            head = await other.log.head()
            go_on.set()
            with pytest.raises(RunOwned):
                await task
            assert await other.log.head() == head
            assert len(hands.calls) == 1


@in_loop
async def test_a_driver_starts_no_call_after_its_own_deadline(db: Path) -> None:
    """By its own clock its lease is over, though nobody has taken it yet."""
    hands, clock = Hands(), ManualClock()

    async def oversleep() -> None:
        clock.advance(TTL_US)

    tools = [hands.tool("long", does=oversleep), hands.tool("t")]
    async with opened(db, None, clock) as store:
        proposal = plan(call("long"), call("next", "t", dependencies=["long"]))
        with pytest.raises(RunOwned):
            await runtime(store, tools).execute(proposal, run_id="r")
        assert hands.names == ["long"]


@in_loop
async def test_a_finished_run_owns_nothing(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, idempotent=True)]
    await crash(db, people, tools, chain(2), 2)
    async with opened(db, people) as store:
        await resume(store, tools, "r")
        assert not await store.leases.rows()
        row = await store.leases.row(run_lease(R))
        assert row is not None
        assert row.token is None


# --- with which tools ---


@in_loop
async def test_missing_and_changed_tools_are_refused_before_anything_happens(db: Path) -> None:
    hands, people = Hands(), People()
    undo = hands.tool("undo")
    a, b = hands.tool("a", compensation="undo"), hands.tool("b")
    proposal = plan(call("a"), call("b"), call("c", "unknown", failure_behavior="skip"))
    await crash(db, people, [undo, a, b], proposal, 2)
    calls = len(hands.calls)
    async with opened(db, people) as store:
        head = await store.log.head()
        changed = hands.tool("b", returns={"type": "string"})
        for tools, missing, other in (
            ([a, undo, changed], (), ("b",)),
            ([undo], ("a", "b"), ()),
            ([hands.tool("a"), b], ("undo",), ("a",)),
        ):
            for go in (
                runtime(store, tools).resume("r"),
                runtime(store, tools).recover(),
                runtime(store, tools).execute(proposal, run_id="r"),
            ):
                with pytest.raises(ToolsChanged, match="r cannot go on") as caught:
                    await go
                assert caught.value.missing == missing
                assert caught.value.changed == other
        assert await store.log.head() == head
        assert len(hands.calls) == calls
        described = hands.tool("b", description="better words make no other tool")
        seen = await resume(store, [undo, a, described], "r")
        assert seen.status == "waiting"


@in_loop
async def test_one_run_that_cannot_go_on_stops_the_others_before_they_begin(db: Path) -> None:
    hands, people = Hands(), People()
    one, two = hands.tool("t", 1, idempotent=True), hands.tool("u", 1, idempotent=True)
    for name, tools in (("x", [one]), ("y", [two])):
        async with opened(db, people) as store:
            die(store, 2)
            with pytest.raises(Death):
                await runtime(store, tools).execute(plan(call("a", tools[0].name)), run_id=name)
    people.all_die()
    async with opened(db, people) as store:
        head = await store.log.head()
        with pytest.raises(ToolsChanged):
            await runtime(store, [one]).recover()
        assert await store.log.head() == head


# --- the name of a run ---


@in_loop
async def test_a_named_run_is_repeatable(db: Path) -> None:
    hands = Hands()
    tools = [hands.tool("t", {"n": 1})]
    async with opened(db) as store:
        first = await runtime(store, tools).execute(chain(2), run_id="r")
        head = await store.log.head()
        again = await runtime(store, tools).execute(chain(2), run_id="r")
        resumed = await runtime(store, tools).resume("r")
        assert first == again == resumed
        assert len(hands.calls) == 2
        assert await store.log.head() == head
        # A finished run needs no tools to tell what it came to.
        assert await Runtime(store).execute(chain(2), run_id="r") == first


@in_loop
async def test_a_named_run_is_continued_by_executing_it_again(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, idempotent=True)]
    await crash(db, people, tools, chain(3), 3)
    async with opened(db, people) as store:
        seen = await execute(store, tools, chain(3), run_id="r")
        assert seen.status == "succeeded"
        assert seen.kinds.count("proposal_received") == 1
        assert seen.kinds.count("run_resumed") == 1


@in_loop
async def test_the_name_of_another_plans_run_is_refused(db: Path) -> None:
    hands = Hands()
    tools = [hands.tool("t", 1)]
    async with opened(db) as store:
        await runtime(store, tools).execute(chain(2), run_id="r")
        head = await store.log.head()
        with pytest.raises(RunExists):
            await runtime(store, tools).execute(chain(3), run_id="r")
        assert await store.log.head() == head


@in_loop
async def test_without_a_name_each_execution_is_a_new_run(db: Path) -> None:
    hands = Hands()
    tools = [hands.tool("t", 1)]
    async with opened(db) as store:
        ids = {(await runtime(store, tools).execute(chain(1))).run_id for _ in range(3)}
        assert len(ids) == len(hands.calls) == 3


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a b", "x" * 129, "é", "a\n"])
@in_loop
async def test_a_name_that_can_name_no_run_is_refused(db: Path, name: str) -> None:
    async with opened(db) as store:
        head = await store.log.head()
        for go in (
            Runtime(store).execute(chain(1), run_id=name),
            Runtime(store).resume(name),
        ):
            with pytest.raises(InvalidRunId):
                await go
        assert await store.log.head() == head


@in_loop
async def test_a_run_that_is_not_there_cannot_be_resumed(db: Path) -> None:
    async with opened(db) as store:
        with pytest.raises(NotFound, match="carstore runs"):
            await Runtime(store).resume("nobody")


@in_loop
async def test_the_executor_is_given_anew_at_each_resume(db: Path) -> None:
    people = People()

    class Executor:
        async def execute(self, tool: str, params: Any) -> Any:
            return "remote"

    tools = [ToolSchema(name="t", idempotent=True)]
    async with opened(db, people) as store:
        die(store, 2)
        with pytest.raises(Death):
            await runtime(store, tools, executor=Executor()).execute(chain(1), run_id="r")
    people.all_die()
    async with opened(db, people) as store:
        seen = await resume(store, tools, "r", executor=Executor())
        assert seen.outputs == {"a0": "remote"}


@in_loop
async def test_what_others_wrote_meanwhile_is_what_the_resumed_run_sees(db: Path) -> None:
    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, idempotent=True)]
    proposal = plan(call("a", "t"), write("w", "k", "ours"), call("b", "t", dependencies=["a"]))
    await crash(db, people, tools, proposal, 2, after=True)
    async with opened(db, people) as store:
        await set_state(store, {"k": "theirs"})
        seen = await resume(store, tools, "r")
        assert seen.status == "succeeded"
        assert seen.state == {"k": "theirs"}


@in_loop
async def test_a_run_that_fails_to_go_on_does_not_keep_others_from_it(db: Path) -> None:
    """The store refuses one run; the others are continued all the same, and then it is told."""
    from carstore.errors import DiskFull

    hands, people = Hands(), People()
    tools = [hands.tool("t", 1, idempotent=True)]
    for name in ("x", "y"):
        async with opened(db, people) as store:
            die(store, 2)
            with pytest.raises(Death):
                await runtime(store, tools).execute(chain(2), run_id=name)
    people.all_die()
    async with opened(db, people) as store:
        append = store.log.append

        async def refusing(*entries: Any, **kwargs: Any) -> Any:
            if entries[0].run_id == "x":
                raise DiskFull("a.db")
            return await append(*entries, **kwargs)

        store.log.append = refusing  # type: ignore[method-assign]
        with pytest.raises(DiskFull):
            await runtime(store, tools).recover()
        assert await runtime(store, tools).unfinished() == ["x"]
