"""Runs that were copied unfinished: nothing is called for them until somebody accepts the copy."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carstore import Entry, Recorded, copies
from carstore import events as e
from carstore.errors import CarstoreError, NotFound
from carstore.names import RunId
from carstore.origin import Copied
from carstore.sqlite.verify import verify, verify_file
from carstore.store import Store
from engine import Runtime, ToolsChanged, resolve
from engine.held import REASON, open_run
from engine.ir import FailureBehavior
from engine.journal import load_run
from engine.origin import look_at_origin
from projections import VIEWS, checksum, rows
from tests.carstore.helpers import new_file, open_store
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
    state_of,
    until,
    write,
)
from tests.projections.plausible import all_of, chunks, executing, received, record

MAKERS = ["fork", "restore", "import"]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


async def copied(db: Path, how: str = "fork", name: str = "n.db", at: int | None = None) -> Path:
    """Another log that begins with that of `db`."""
    new = db.with_name(name)
    if how == "fork":
        if at is None:
            async with opened(db) as store:
                at = (await store.log.head()).position
        await copies.fork(db, new, at=at, open_runs=open_run)
    elif how == "restore":
        await copies.backup(db, db.with_name(f"{name}.backup"))
        await copies.restore(db.with_name(f"{name}.backup"), new, open_runs=open_run)
    else:
        await copies.export(db, db.with_name(f"{name}.jsonl"), at=at)
        await copies.import_(db.with_name(f"{name}.jsonl"), new, open_runs=open_run)
    return new


@define
class Underway:
    """A run whose calls wait for `go`."""

    hands: Hands = field(factory=Hands)
    go: asyncio.Event = field(factory=asyncio.Event)

    def tools(self) -> list[Any]:
        async def slow(**params: Any) -> str:
            await self.go.wait()
            return "done"

        return [
            self.hands.tool("pay", does=slow),
            self.hands.tool("look", does=slow, read_only=True),
            self.hands.tool("then", "later"),
        ]

    @asynccontextmanager
    async def run(self, db: Path, *, on_doubt: str = "hold") -> AsyncIterator[Store]:
        """The run `r` with two calls in flight, one of which must not be repeated; at the end of
        the block it goes on to its end."""
        skip: Any = {"failure_behavior": "skip"}  # so that calls of a level are made at once
        proposal = plan(
            call("pay", **skip),
            call("look", **skip),
            call("then", dependencies=["pay", "look"], **skip),
            write("w", "k", 1, failure_behavior=FailureBehavior.SKIP),
        )
        async with opened(db) as store:
            driver = runtime(store, self.tools(), on_doubt=on_doubt)
            task = asyncio.create_task(driver.execute(proposal, run_id="r"))
            await until(lambda: len(self.hands.calls) == 2)
            yield store
            self.go.set()
            assert (await task).status == "succeeded"


def kinds(history: list[Recorded]) -> list[str]:
    return [one.kind for one in history]


async def history_of(store: Store, run_id: str = "r") -> list[Recorded]:
    return [one async for one in store.log.read(run=RunId(run_id))]


def begun(hands: Hands, calls: int) -> bool:
    return len(hands.calls) == calls


# --- holding ---


@pytest.mark.parametrize("how", MAKERS)
@in_loop
async def test_no_tool_is_called_for_a_copied_run_until_it_is_accepted(db: Path, how: str) -> None:
    work, hands = Underway(), Hands()
    async with work.run(db):
        new = await copied(db, how)
    tools = [hands.tool("pay", "paid"), hands.tool("look", "seen", read_only=True)]
    tools.append(hands.tool("then", "later"))
    async with opened(new) as store:
        driver = runtime(store, tools)
        before = await store.log.head()
        held: list[Any] = [await driver.resume("r"), *await driver.recover()]
        held.append(await driver.execute((await load_run(store, RunId("r"))).proposal, run_id="r"))
        assert [(one.status, one.waits_for) for one in held] == [("waiting", "acceptance")] * 3
        assert hands.calls == []
        assert await store.log.head() == before

        seen = await resume_accepted(store, tools)
        assert hands.names == ["look"]  # `pay` is in doubt, `then` waits for it
        assert (seen.status, seen.waits_for) == ("waiting", "answer")
        await resolve(store, RunId("r"), "pay", "succeeded", output="paid there")
        done = await resume(store, tools, "r")
        assert done.status == "succeeded"
        assert hands.names == ["look", "then"]
        assert done.outputs["pay"] == "paid there"
        assert (await verify(store)).ok


async def resume_accepted(store: Store, tools: list[Any], **options: Any) -> Any:
    return await runtime(store, tools).resume("r", accept_copy=True, by="anna", **options)


@in_loop
async def test_acceptance_is_recorded_with_who_and_in_which_epoch(db: Path) -> None:
    work, hands = Underway(), Hands()
    async with work.run(db):
        new = await copied(db)
    async with opened(new) as store:
        await resume_accepted(store, work.tools())
        history = await history_of(store)
        begun = kinds(history).index("copy_accepted")
        assert kinds(history)[begun - 1 : begun + 2] == [
            "lease_granted",
            "copy_accepted",
            "run_resumed",
        ]
        assert history[begun].event == e.CopyAccepted(by="anna", epoch=1)
        assert hands.calls == []
    # It is accepted once: after a crash the run simply goes on.
    async with opened(new) as store:
        assert (await runtime(store, work.tools()).resume("r")).waits_for == "answer"


@in_loop
async def test_recover_accepts_all_copies_if_it_is_told_to(db: Path) -> None:
    hands = Hands()
    async with opened(db) as store:
        for name in ("r1", "r2"):
            waiting = hands.tool("pay", does=asyncio.Event().wait)
            task = asyncio.create_task(
                runtime(store, [waiting]).execute(plan(call("pay")), run_id=name)
            )
            await until(partial(begun, hands, int(name[1:])))
            task.cancel()
        new = await copied(db)
    hands = Hands()
    async with opened(new) as store:
        driver = runtime(store, [hands.tool("pay", "paid")])
        assert {one.waits_for for one in await driver.recover()} == {"acceptance"}  # type: ignore
        accepted = await driver.recover(accept_copies=True, by="anna")
        assert {one.waits_for for one in accepted} == {"answer"}  # type: ignore
        assert hands.calls == []


@in_loop
async def test_tools_are_asked_for_only_by_what_may_go_on(db: Path) -> None:
    work = Underway()
    async with work.run(db):
        new = await copied(db)
    async with opened(new) as store:
        without = runtime(store, [])
        assert (await without.resume("r")).waits_for == "acceptance"
        assert len(await without.recover()) == 1
        with pytest.raises(ToolsChanged):
            await without.resume("r", accept_copy=True)
        with pytest.raises(ToolsChanged):
            await without.recover(accept_copies=True)
        assert (await load_run(store, RunId("r"))).held


@in_loop
async def test_accepting_what_is_no_copy_changes_nothing(db: Path) -> None:
    hands = Hands()
    async with opened(db) as store:
        await execute(store, [hands.tool("t", 1)], plan(call("t")), run_id="r")
        before = await store.log.head()
        result = await runtime(store, [hands.tool("t", 1)]).resume("r", accept_copy=True)
        assert result.status == "succeeded"
        assert await store.log.head() == before


@in_loop
async def test_the_origin_goes_on_undisturbed(db: Path) -> None:
    work = Underway()
    async with work.run(db) as store:
        head = await store.log.head()
        for how in MAKERS:
            await copied(db, how, f"{how}.db")
        assert await store.log.head() == head
    assert work.hands.names == ["pay", "look", "then"]
    assert verify_file(db).ok


# --- what is open ---


@pytest.mark.parametrize("on_doubt", ["hold", "fail", "retry"])
@in_loop
async def test_a_call_under_way_is_in_doubt_whatever_the_policy_is(db: Path, on_doubt: str) -> None:
    work = Underway()
    async with work.run(db, on_doubt=on_doubt):
        new = await copied(db)
    async with opened(new) as store:
        run = await load_run(store, RunId("r"))
        doubt = run.of("pay").do.doubt
        assert doubt is not None
        assert (doubt.attempt, doubt.tool, doubt.reason, doubt.answer) == (1, "pay", REASON, None)
        assert run.of("look").do.doubt is None
        paused = run.paused
        assert paused is not None
        assert paused.waiting_for == [{"action_id": "pay", "what": "doubt"}]
        [recorded] = [one.event for one in await history_of(store) if one.kind == "action_in_doubt"]
        assert isinstance(recorded, e.ActionInDoubt)
    assert recorded.idempotency_key == await key_given_in(db)


async def key_given_in(db: Path) -> str:
    from engine.begin import idempotency_key

    async with opened(db) as store:
        run = await load_run(store, RunId("r"))
        assert run.received.log_id == store.log_id
        return idempotency_key(run, run.of("pay"), undo=False)


@in_loop
async def test_a_compensation_under_way_is_in_doubt_too(db: Path) -> None:
    hands, never = Hands(), asyncio.Event()
    undo = hands.tool("undo", does=lambda **_: never.wait())
    keep = hands.tool("keep", "kept", compensation=undo)
    tools = [undo, keep, hands.tool("boom", fails=9)]
    async with opened(db) as store:
        proposal = plan(
            call("k", "keep", reversibility="compensable"),
            call("b", "boom", dependencies=["k"], failure_behavior="abort"),
        )
        task = asyncio.create_task(runtime(store, tools).execute(proposal, run_id="r"))
        await until(lambda: "undo" in hands.names)
        new = await copied(db)
        task.cancel()
    async with opened(new) as store:
        run = await load_run(store, RunId("r"))
        assert run.held
        assert run.of("k").undo.doubt is not None
        seen = await runtime(store, tools).resume("r", accept_copy=True)
        assert (seen.status, seen.waits_for) == ("waiting", "answer")
        await resolve(store, RunId("r"), "k", "succeeded")
        assert (await runtime(store, tools).resume("r")).status == "rolled_back"
    assert hands.names.count("undo") == 1


@in_loop
async def test_a_run_that_waited_before_waits_for_the_same_answer(db: Path) -> None:
    people, hands = People(), Hands()
    never = asyncio.Event()
    async with opened(db, people) as store:
        task = asyncio.create_task(
            runtime(store, [hands.tool("pay", does=never.wait)]).execute(
                plan(call("pay")), run_id="r"
            )
        )
        await until(lambda: hands.calls)
    people.all_die()
    task.cancel()
    tools = [hands.tool("pay", "paid")]
    async with opened(db, people) as store:
        assert (await runtime(store, tools).resume("r")).waits_for == "answer"
        new = await copied(db)
    async with opened(new) as store:
        history = await history_of(store)
        assert kinds(history).count("action_in_doubt") == 1
        paused = history[-2].event
        assert isinstance(paused, e.RunPaused)
        assert paused.waiting_for == [{"action_id": "pay", "what": "doubt"}]
        await resolve(store, RunId("r"), "pay", "retry")  # also while it is held
        assert (await runtime(store, tools).resume("r")).waits_for == "acceptance"
        done = await runtime(store, tools).resume("r", accept_copy=True)
        assert done.status == "succeeded"


@in_loop
async def test_finished_runs_are_left_as_they_are(db: Path) -> None:
    hands = Hands()
    async with opened(db) as store:
        await execute(store, [hands.tool("t", 1)], plan(call("t")), run_id="r")
        at = (await store.log.head()).position
    made: Copied = await copies.fork(db, db.with_name("n.db"), at=at, open_runs=open_run)
    assert made.life is not None
    assert made.life.held == ()
    async with opened(db.with_name("n.db")) as store:
        assert (await history_of(store))[-1].position <= at
        assert await state_of(store) == {}


@pytest.mark.parametrize(("effect", "doubts"), [("once", 1), ("idempotent", 0), ("read_only", 0)])
def test_only_calls_that_must_not_be_repeated_are_in_doubt(effect: str, doubts: int) -> None:
    """The intent of a repeatable call is recorded too, if its result may be reused."""
    intent = evolve(executing("a1"), effect=effect)
    found = open_run(RunId("r1"), record(received("a1"), intent))
    assert found is not None
    assert len(found.doubts) == doubts


def test_a_run_that_cannot_be_read_is_held_and_what_is_none_is_not() -> None:
    assert open_run(RunId("r1"), record(executing())) is None
    broken = open_run(RunId("r1"), record(received(proposal={"actions": 1})))
    assert broken is not None
    assert broken.doubts == ()
    assert open_run(RunId("r1"), record(received("a1"), executing("a9"))) is not None


# --- what the origin knows ---


@pytest.mark.parametrize("how", MAKERS)
@in_loop
async def test_the_origin_tells_how_a_call_ended_there(db: Path, how: str) -> None:
    work = Underway()
    async with work.run(db):
        new = await copied(db, how)
        async with opened(new) as store:
            early = await look_at_origin(store, [RunId("r")], str(db))
            assert early is not None
            assert (early.calls, early.statuses) == ({}, {})
    async with opened(new) as store:
        found = await look_at_origin(store, [RunId("r")], str(db))
        assert found is not None
        there = found.calls[RunId("r"), "pay", False, 1]
        assert (there.succeeded, there.output, there.error) == (True, "done", None)
        assert found.statuses == {"r": "succeeded"}
        by_itself = await look_at_origin(store, [RunId("r")])
        assert (by_itself == found) is (how == "fork")  # others were not taken from that file


@in_loop
async def test_a_failure_in_the_origin_is_told_with_its_error(db: Path) -> None:
    hands, go = Hands(), asyncio.Event()

    async def fail(**_: Any) -> None:
        await go.wait()
        raise ValueError("no money")

    async with opened(db) as store:
        task = asyncio.create_task(
            runtime(store, [hands.tool("pay", does=fail)]).execute(plan(call("pay")), run_id="r")
        )
        await until(lambda: hands.calls)
        new = await copied(db)
        go.set()
        await task
    async with opened(new) as store:
        found = await look_at_origin(store, [RunId("r")])
        assert found is not None
        there = found.calls[RunId("r"), "pay", False, 1]
        assert (there.succeeded, there.output) == (False, None)
        assert "no money" in (there.error or "")


@in_loop
async def test_only_the_origin_is_believed(db: Path) -> None:
    work = Underway()
    async with work.run(db):
        new = await copied(db)
    other = db.with_name("other.db")
    async with opened(other) as store:
        await execute(store, [Hands().tool("t", 1)], plan(call("t")), run_id="r")
    async with opened(new) as store:
        assert await look_at_origin(store, [RunId("r")], str(other)) is None
        assert await look_at_origin(store, [RunId("r")], str(new)) is None
        with pytest.raises(NotFound):
            await look_at_origin(store, [RunId("r")], str(db.with_name("none.db")))
        db.unlink()
        assert await look_at_origin(store, [RunId("r")]) is None
    async with opened(other) as store:
        assert await look_at_origin(store, [RunId("r")]) is None  # it is no copy


@in_loop
async def test_a_run_of_the_same_name_that_began_later_is_another_run(db: Path) -> None:
    async with opened(db):
        pass
    new = await copied(db, at=1)
    work = Underway()
    async with work.run(db):
        pass
    async with opened(new) as store:
        found = await look_at_origin(store, [RunId("r")])
        assert found is not None
        assert found.calls == {}


# --- any log ---


logs = st.lists(chunks, min_size=1, max_size=4)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=logs, data=st.data())
def test_any_log_is_copied_as_it_is(parts: list[list[Entry]], data: st.DataObject) -> None:
    """Forked at any position, restored, exported and imported: the events, and all views, are what
    they were there; what comes after verifies; no lease is held and no run goes on."""
    copy_and_compare(parts, data)


@pytest.mark.prove
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=logs, data=st.data())
def test_many_more_logs_are_copied_as_they_are(
    parts: list[list[Entry]], data: st.DataObject
) -> None:
    copy_and_compare(parts, data)


def copy_and_compare(parts: list[list[Entry]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = new_file(Path(folder) / "a.db")

        async def go() -> None:
            async with open_store(path) as store:
                for entries in parts:
                    await store.log.append(*entries)
                head = (await store.log.head()).position
                at = data.draw(st.integers(1, head), label="at")
                await compare(store, await copied(path, "fork", "f.db", at), at)
                await compare(store, await copied(path, "import", "i.db", at), at)
                await compare(store, await copied(path, "restore", "r.db"), head)

        asyncio.run(go())


async def compare(origin: Store, new: Path, at: int) -> None:
    assert verify_file(new).ok
    async with open_store(new) as store:
        log = await all_of(store)
        assert log[:at] == (await all_of(origin))[:at]
        assert log[at].kind == "log_epoch_started"
        for view in VIEWS:
            there = await rows(origin, view, at=at)
            here = await rows(store, view, at=at)
            assert checksum(view, here) == checksum(view, there), view.name
        assert await store.leases.rows() == []
        assert (await store.log.head()).position == len(log)
        for run_id in await Runtime(store).unfinished():
            assert await is_held(store, run_id), run_id


async def is_held(store: Store, run_id: RunId) -> bool:
    """Whether no driver goes on with a run that its view says has not ended."""
    try:
        run = await load_run(store, run_id)
    except CarstoreError:  # its plan is none
        [*_, last] = await history_of(store, run_id)
        return last.kind == "lease_released"
    return run.held or run.completed is not None
