"""What comes in the place of a run that was aborted."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from carstore import Store
from carstore import events as e
from carstore.clock import ManualClock
from carstore.names import RunId, inbox_stream
from engine import Proposal, RunExists, RunOwned
from engine.cancel import cancel
from engine.errors import InvalidRunId
from engine.ir import RunResult
from engine.prove.people import People
from engine.replan import Aborted
from engine.rules.budget import Budget
from engine.rules.capabilities import CapabilitySet
from projections import RUNS, row
from tests.engine.harness import Hands, call, in_loop, opened, plan, runtime, until, write
from tests.engine.test_recover import Death, die

BAD = plan(write("w", "k", 1), call("bad", dependencies=["w"]), source="first")
GOOD = plan(call("good"), source="second")
WORSE = plan(call("bad"))


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@define
class Planner:
    """Gives these answers, one after the other, and then nothing."""

    answers: list[Proposal | None] = field(factory=list)
    told: list[Aborted] = field(factory=list)

    def __call__(self, aborted: Aborted) -> Proposal | None:
        self.told.append(aborted)
        return self.answers.pop(0) if self.answers else None


def tools(hands: Hands | None = None) -> list[Any]:
    made = hands or Hands()
    return [made.tool("bad", fails=99), made.tool("good", 7)]


async def of_run(store: Store, run: str, kind: type[e.Event]) -> list[Any]:
    found = [one.event async for one in store.log.read(run=RunId(run))]
    return [one for one in found if isinstance(one, kind)]


async def replan_of(store: Store, run: str) -> str | None:
    found = await row(store, RUNS, (run,))
    assert found is not None
    return found.replan


# --- when ---


@in_loop
async def test_an_aborted_run_makes_way_for_what_is_proposed_then(db: Path) -> None:
    planner = Planner([GOOD])
    async with opened(db) as store:
        found = await runtime(store, tools(), replan=planner).execute(BAD, run_id="r")
        assert (found.run_id, found.status, found.replaces) == ("r-r1", "succeeded", "r")
        [told] = planner.told
        assert (told.result.run_id, told.result.status) == ("r", "rolled_back")
        assert told.proposal.source == "first"
        assert [one.action_id for one in told.failed] == ["bad"]
        assert [one.action_id for one in told.rolled_back] == ["w"]
        assert told.replans_left == 1
        [received] = await of_run(store, "r-r1", e.ProposalReceived)
        assert (received.replaces, received.replans_left) == ("r", 1)
        assert await replan_of(store, "r") == "r-r1"


@in_loop
async def test_a_coroutine_may_propose(db: Path) -> None:
    async def later(_: Aborted) -> Proposal:
        await asyncio.sleep(0)
        return GOOD

    async with opened(db) as store:
        assert (await runtime(store, tools(), replan=later).execute(BAD)).status == "succeeded"


@pytest.mark.parametrize("most", [1, 2, 3])
@in_loop
async def test_it_is_asked_so_often_in_a_row_at_most(db: Path, most: int) -> None:
    planner = Planner([WORSE] * 9)
    async with opened(db) as store:
        made = runtime(store, tools(), replan=planner, max_replans=most)
        found = await made.execute(BAD, run_id="r")
        assert (found.run_id, found.status) == (f"r-r{most}", "rolled_back")
        assert [one.replans_left for one in planner.told] == list(reversed(range(most)))
        assert await made.unfinished() == []
        assert await replan_of(store, f"r-r{most}") is None


@pytest.mark.parametrize("most", [0, -1, True, "2"])
@in_loop
async def test_how_often_is_a_whole_number_from_1(db: Path, most: Any) -> None:
    async with opened(db) as store:
        with pytest.raises(ValueError, match="max_replans"):
            runtime(store, [], replan=Planner(), max_replans=most)


@in_loop
async def test_what_succeeds_or_fails_without_abort_needs_no_other(db: Path) -> None:
    planner = Planner([GOOD] * 9)
    skipping = plan(call("bad", failure_behavior="skip"))
    async with opened(db) as store:
        made = runtime(store, tools(), replan=planner)
        for proposal in (GOOD, skipping):
            await made.execute(proposal)
    assert not planner.told


@pytest.mark.parametrize("on_rejection", [False, True])
@in_loop
async def test_a_rejection_counts_if_that_was_asked_for(db: Path, on_rejection: bool) -> None:
    planner = Planner([GOOD])
    denied = plan(call("denied", "bad"))
    async with opened(db) as store:
        made = runtime(
            store,
            tools(),
            replan=planner,
            replan_on_rejection=on_rejection,
            capabilities=CapabilitySet(denied_tools=["bad"]),
        )
        found = await made.execute(denied, run_id="r")
        assert found.run_id == ("r-r1" if on_rejection else "r")
        assert [[one.action_id for one in told.failed] for told in planner.told] == (
            [["denied"]] * on_rejection
        )


@in_loop
async def test_nothing_comes_in_the_place_of_what_a_person_stopped(db: Path) -> None:
    planner = Planner([GOOD])
    wait = plan(write("w", "k", 1), call("a", "wait_signal", parameters={"name": "go"}))
    async with opened(db) as store:
        made = runtime(store, tools(), replan=planner)
        await made.execute(wait, run_id="r")
        await cancel(store, RunId("r"), compensate=True)
        assert (await made.resume("r")).run_id == "r"
        assert not planner.told
        assert await made.unfinished() == []


@in_loop
async def test_that_nothing_is_proposed_is_recorded_and_not_asked_again(db: Path) -> None:
    planner = Planner()
    async with opened(db) as store:
        made = runtime(store, tools(), replan=planner)
        found = await made.execute(BAD, run_id="r")
        assert (found.run_id, found.status) == ("r", "rolled_back")
        stream = inbox_stream(RunId("r"))
        [declined] = [one.event async for one in store.log.read(stream=stream)]
        assert declined == e.ReplanDeclined(run="r", reason="nothing else was proposed")
        assert await replan_of(store, "r") == "declined"
        assert await made.recover() == []
        assert await made.resume("r") == found
        assert len(planner.told) == 1


# --- after a crash ---


async def aborted(db: Path, people: People, **options: Any) -> None:
    """Run `r` was aborted, and its process died before anything else was proposed."""

    def killed(_: Aborted) -> Proposal:
        raise Death

    async with opened(db, people) as store:
        with pytest.raises(Death):
            await runtime(store, tools(), replan=killed).execute(BAD, run_id="r", **options)
    people.all_die()


@pytest.mark.parametrize("how", ["resume", "execute", "recover"])
@in_loop
async def test_between_the_abort_and_the_proposal_it_is_asked_again(db: Path, how: str) -> None:
    people, planner = People(), Planner([GOOD])
    await aborted(db, people)
    async with opened(db, people) as store:
        assert await replan_of(store, "r") == "pending"
        made = runtime(store, tools(), replan=planner)
        assert await made.unfinished() == ["r"]
        if how == "recover":
            [found] = await made.recover()
        elif how == "resume":
            found = await made.resume("r")
        else:
            found = await made.execute(BAD, run_id="r")
        assert isinstance(found, RunResult)
        assert (found.run_id, found.status) == ("r-r1", "succeeded")
        assert len(planner.told) == 1
        assert [one.action_id for one in planner.told[0].rolled_back] == ["w"]
        assert await made.unfinished() == []


@in_loop
async def test_a_runtime_that_asks_nobody_leaves_it(db: Path) -> None:
    people = People()
    await aborted(db, people)
    async with opened(db, people) as store:
        made = runtime(store, tools())
        assert await made.unfinished() == []
        assert (await made.resume("r")).run_id == "r"
        assert await replan_of(store, "r") == "pending"


@pytest.mark.parametrize("after", [False, True])
@in_loop
async def test_wherever_it_is_killed_what_was_recorded_is_not_asked_for_again(
    db: Path, after: bool
) -> None:
    for at in range(1, 30):
        file, people, hands = db.with_name(f"{at}.db"), People(), Hands()
        first, second = Planner([WORSE, GOOD]), Planner([WORSE, GOOD])
        async with opened(file, people) as store:
            die(store, at, after=after)
            try:
                await runtime(store, tools(hands), replan=first, on_doubt="retry").execute(
                    BAD, run_id="r"
                )
            except Death:
                died = True
            else:
                died = False
        people.all_die()
        if not died:
            assert at > 6
            return
        async with opened(file, people) as store:
            recorded = {one.run_id async for one in store.log.read(kinds=[e.ProposalReceived.kind])}
            second.answers = second.answers[max(0, len(recorded) - 1) :]
            made = runtime(store, tools(hands), replan=second, on_doubt="retry")
            found = await made.execute(BAD, run_id="r")
            assert (found.run_id, found.status) == ("r-r2", "succeeded")
            assert len(second.told) == (2 if not recorded else 3 - len(recorded))
            received = [one async for one in store.log.read(kinds=[e.ProposalReceived.kind])]
            assert [one.run_id for one in received] == ["r", "r-r1", "r-r2"]
    pytest.fail("it never ran to its end")


@in_loop
async def test_of_two_that_ask_at_once_one_proposal_is_run(db: Path) -> None:
    people, go = People(), asyncio.Event()
    await aborted(db, people)
    asked: list[int] = []
    hands = Hands()

    def planner(n: int) -> Any:
        async def propose(_: Aborted) -> Proposal:
            asked.append(n)
            await go.wait()
            return plan(call("good", parameters={"n": n}))

        return propose

    async with opened(db, people) as one, opened(db, people) as other:
        both = [
            asyncio.create_task(runtime(store, tools(hands), replan=planner(n)).resume("r"))
            for n, store in enumerate((one, other))
        ]
        await until(lambda: len(asked) == 2)
        go.set()
        ended = await asyncio.gather(*both, return_exceptions=True)
        won = [item for item in ended if isinstance(item, RunResult)]
        lost = [item for item in ended if not isinstance(item, RunResult)]
        assert {item.run_id for item in won} == {"r-r1"}
        assert all(isinstance(item, RunOwned | RunExists) for item in lost)
        assert hands.names == ["good"]
        assert len(await of_run(one, "r-r1", e.ProposalReceived)) == 1


# --- what is carried over ---


@in_loop
async def test_budget_and_deadline_go_on_to_the_next(db: Path) -> None:
    clock, planner = ManualClock(), Planner([WORSE, GOOD])
    budget = Budget(max_actions=5, max_duration_ms=60_000, costs={"USD": "0.50"})
    async with opened(db, clock=clock) as store:
        made = runtime(store, tools(), replan=planner, budget=Budget(max_actions=1))
        found = await made.execute(BAD, run_id="r", budget=budget, timeout_secs=60)
        assert (found.run_id, found.status) == ("r-r2", "succeeded")
        for run in ("r", "r-r1", "r-r2"):
            [received] = await of_run(store, run, e.ProposalReceived)
            assert received.budget == {
                "max_actions": 5, "max_duration_ms": 60_000, "costs": {"USD": 500_000}
            }  # fmt: skip
            assert received.deadline_at == clock.now() + 60_000_000


@in_loop
async def test_whether_rejections_count_goes_on_to_the_next(db: Path) -> None:
    planner = Planner([plan(call("denied", "good")), plan(write("w", "k", 1))])
    async with opened(db) as store:
        made = runtime(
            store,
            tools(),
            replan=planner,
            replan_on_rejection=True,
            capabilities=CapabilitySet(denied_tools=["good"]),
        )
        found = await made.execute(BAD, run_id="r")
        assert (found.run_id, found.status) == ("r-r2", "succeeded")


@in_loop
async def test_a_run_whose_name_ends_like_one_is_no_replacement(db: Path) -> None:
    async with opened(db) as store:
        made = runtime(store, tools(), replan=Planner([GOOD]))
        assert (await made.execute(BAD, run_id="x-r7")).run_id == "x-r7-r1"


@in_loop
async def test_a_name_that_has_no_room_for_another_is_refused_when_that_is_due(db: Path) -> None:
    async with opened(db) as store:
        made = runtime(store, tools(), replan=Planner([GOOD]))
        with pytest.raises(InvalidRunId):
            await made.execute(BAD, run_id="x" * 127)


# --- how it is asked ---


@in_loop
async def test_a_plain_function_takes_its_time_and_holds_up_nobody(db: Path) -> None:
    """It is called in a thread."""
    asked, answer = threading.Event(), threading.Event()

    def slow(_: Aborted) -> Proposal:
        asked.set()
        assert answer.wait(10)
        return GOOD

    async with opened(db) as store:
        run = asyncio.create_task(runtime(store, tools(), replan=slow).execute(BAD, run_id="r"))
        await until(asked.is_set)
        answer.set()  # which nobody could, if the loop were held up
        assert (await run).status == "succeeded"


@in_loop
async def test_it_is_not_waited_for_beyond_the_deadline(db: Path) -> None:
    async def never(_: Aborted) -> Proposal:
        await asyncio.Event().wait()
        return GOOD

    async with opened(db) as store:
        made = runtime(store, tools(), replan=never)
        found = await asyncio.wait_for(made.execute(BAD, run_id="r", timeout_secs=0.5), 10)
        assert (found.run_id, found.status) == ("r", "rolled_back")
        [declined] = await of_run(store, "r", e.ReplanDeclined)
        assert declined.reason == "its time was over before anything else was proposed"
        assert await made.unfinished() == []


@in_loop
async def test_it_is_not_asked_when_the_deadline_has_passed(db: Path) -> None:
    clock, planner = ManualClock(), Planner([GOOD])
    async with opened(db, clock=clock) as store:

        def dies(_: Aborted) -> Proposal:
            raise RuntimeError("no answer")

        with pytest.raises(RuntimeError):
            await runtime(store, tools(), replan=dies).execute(BAD, run_id="r", timeout_secs=60)
        clock.advance(60_000_000)
        found = await runtime(store, tools(), replan=planner).resume("r")
        assert (found.run_id, planner.told) == ("r", [])
        assert await replan_of(store, "r") == "declined"


@in_loop
async def test_what_cannot_be_run_is_no_replacement_and_is_not_asked_for_again(db: Path) -> None:
    """What came of the aborted run is told all the same."""
    planner = Planner([plan(call("a", dependencies=["nobody"])), GOOD])
    async with opened(db) as store:
        made = runtime(store, tools(), replan=planner)
        found = await made.execute(BAD, run_id="r")
        assert (found.run_id, found.status) == ("r", "rolled_back")
        [declined] = await of_run(store, "r", e.ReplanDeclined)
        assert declined.reason.startswith("what was proposed cannot be run: ")
        assert (await made.resume("r")).run_id == "r"
        assert len(planner.told) == 1
