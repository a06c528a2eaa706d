"""What a driver has decided and not yet recorded, and the append that records it."""

from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.errors import LeaseHeld, LeaseLost, StaleFence, StateConflict, VersionConflict
from carstore.log import StateRead
from carstore.names import Position, RunId, Scope, run_lease
from engine.journal import Journal, StateOverlay, load_run
from engine.propose import Options, Terms, received
from engine.run import Run
from engine.tools import Tools
from tests.engine.harness import (
    People,
    count_appends,
    in_loop,
    opened,
    plan,
    set_state,
    tidy,
    write,
)

R = RunId("r")
MAIN = Scope("main")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def journal(store: Any) -> Journal:
    """A new run `r` of two writes, with its receipt recorded but not appended."""
    proposal = plan(write("a", "k", 1), write("b", "l", 1))
    event = received(proposal, Tools(), Options(scope=MAIN), store.log_id, Terms())
    made = Journal(store, Run.begin(R, event, proposal), StateOverlay(MAIN), is_new=True)
    made.record(event)
    return made


def succeeded(name: str) -> e.ActionSucceeded:
    return e.ActionSucceeded(action_id=name, attempt=1, output="", duration_us=0)


async def taken_up(store: Any) -> Journal:
    """The run as another process takes it up."""
    run = await load_run(store, R)
    found = Journal(store, run, StateOverlay(MAIN), is_new=False)
    found.record(e.RunResumed(holder="me"))
    return found


def test_an_overlay_shows_what_was_written_over_what_was_read() -> None:
    overlay = StateOverlay(MAIN)
    assert overlay.missing(["a", "b"]) == ["a", "b"]
    overlay.known["a"] = StateRead(1, exists=True, position=Position(7))
    overlay.pending["b"] = (None, False)
    assert overlay.missing(["a", "b"]) == []
    assert overlay.read("a").value == 1
    assert not overlay.read("b").exists
    assert overlay.reads == {"a": 7}  # what was not read from the log is no condition


@in_loop
async def test_what_is_recorded_is_applied_at_once_and_durable_after_the_flush(db: Path) -> None:
    async with opened(db) as store:
        made = journal(store)
        made.record(succeeded("a"))
        assert made.run.of("a").status == "succeeded"
        assert (await store.log.head()).position == 1
        await made.flush()
        assert made.entries == []
        assert tidy(await load_run(store, R)) == tidy(made.run)


@in_loop
async def test_the_grant_rides_in_the_first_append_and_the_release_in_the_last(db: Path) -> None:
    async with opened(db) as store:
        sizes = count_appends(store)
        made = journal(store)
        await made.flush()
        assert made.lease is not None
        assert len(await store.leases.rows()) == 1
        made.record(succeeded("a"))
        made.ends_turn = True
        await made.flush()
        assert not await store.leases.rows()
        assert sizes == [2, 2]
        history = [one async for one in store.log.read(run=R)]
        token = made.lease.token
        assert [one.fence_token for one in history if one.stream == "run/r"] == [token, token]


@in_loop
async def test_a_history_of_one_append_takes_no_lease(db: Path) -> None:
    async with opened(db) as store:
        sizes = count_appends(store)
        made = journal(store)
        made.ends_turn = True
        await made.flush()
        assert sizes == [1]
        assert await store.leases.row(run_lease(R)) is None


@in_loop
async def test_a_turn_that_is_the_first_and_last_of_a_resume_gives_the_lease_back(db: Path) -> None:
    async with opened(db) as store:
        made = journal(store)
        made.ends_turn = True
        await made.flush()
        again = await taken_up(store)
        again.ends_turn = True
        await again.flush()
        assert not await store.leases.rows()


@in_loop
async def test_nothing_to_record_is_no_append(db: Path) -> None:
    async with opened(db) as store:
        made = journal(store)
        await made.flush()
        sizes = count_appends(store)
        assert await made.flush() is None
        assert sizes == []


@in_loop
async def test_a_decision_on_state_that_changed_is_not_recorded(db: Path) -> None:
    async with opened(db) as store:
        made = journal(store)
        await made.flush()
        await made.fetch(["k"])
        assert not made.state.read("k").exists
        made.record(succeeded("a"))
        await set_state(store, {"k": 5}, run_id="other")
        with pytest.raises(StateConflict) as caught:
            await made.flush()
        assert (caught.value.key, caught.value.read_at) == ("k", 0)
        await made.forget()
        assert made.run.of("a").status is None
        await made.fetch(["k"])
        assert made.state.read("k").value == 5
        made.record(succeeded("a"))
        await made.flush()


@in_loop
async def test_forgetting_a_run_that_was_never_recorded_begins_it_anew(db: Path) -> None:
    async with opened(db) as store:
        made = journal(store)
        made.record(succeeded("a"))
        await made.forget()
        assert made.run.of("a").status is None
        assert made.is_new
        assert made.entries == []


@in_loop
async def test_what_a_run_wrote_itself_is_known_at_its_position(db: Path) -> None:
    async with opened(db) as store:
        made = journal(store)
        made.record(succeeded("a"))
        made.record(e.StateChanged(scope="main", key="k", value=1))
        assert made.state.read("k") == StateRead(1, exists=True, position=Position(0))
        await made.flush()
        found = made.state.read("k")
        [change] = [one async for one in store.log.read(state=(MAIN, "k"))]  # type: ignore[arg-type]
        assert found == StateRead(1, exists=True, position=change.position, run_id=R)


@in_loop
async def test_a_run_of_a_live_holder_cannot_be_taken_up(db: Path) -> None:
    people = People()
    async with opened(db, people) as one, opened(db, people) as other:
        await journal(one).flush()
        with pytest.raises(LeaseHeld):
            await (await taken_up(other)).flush()


@in_loop
async def test_who_was_taken_over_is_refused_by_the_file(db: Path) -> None:
    people = People()
    async with opened(db, people) as one, opened(db, people) as other:
        made = journal(one)
        await made.flush()
        people.all_die()
        await (await taken_up(other)).flush()
        made.record(succeeded("a"))
        head = await one.log.head()
        with pytest.raises((StaleFence, VersionConflict, LeaseLost)):
            await made.flush()
        assert await one.log.head() == head


@in_loop
async def test_of_two_who_take_up_a_run_one_succeeds(db: Path) -> None:
    people = People()
    async with opened(db, people) as one, opened(db, people) as two, opened(db, people) as three:
        await journal(one).flush()
        people.dead.add(one.leases.holder.incarnation)
        first, second = await taken_up(two), await taken_up(three)
        claims = [await first._claim(), await second._claim()]
        assert all(claims)
        await first.flush()
        with pytest.raises((LeaseHeld, LeaseLost, VersionConflict)):
            await second.flush()


@in_loop
async def test_a_new_run_of_a_taken_name_is_refused(db: Path) -> None:
    async with opened(db) as store:
        first, second = journal(store), journal(store)
        first.ends_turn = True
        await first.flush()
        with pytest.raises(VersionConflict):
            await second.flush()


@in_loop
async def test_letting_go_gives_the_run_to_whoever_comes_next(db: Path) -> None:
    people = People()
    async with opened(db, people) as one, opened(db, people) as other:
        made = journal(one)
        await made.flush()
        await made.let_go()
        await made.let_go()
        await (await taken_up(other)).flush()
        with pytest.raises(LeaseLost):
            made.check_held()
