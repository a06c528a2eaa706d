"""The agent loop: asked once for each step, whatever happens in between."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, fields

from carstore import Store, connect
from carstore import events as e
from carstore.clock import ManualClock
from carstore.copies import restore
from carstore.errors import InvalidJson
from carstore.names import RunId, pursuit_stream
from carstore.redaction import Redaction
from carstore.sqlite.verify import verify
from engine import Proposal, RunExists, Runtime, ToolContext, tool
from engine.buffered import ContextMisused
from engine.cancel import cancel
from engine.errors import InvalidRunId
from engine.held import open_run
from engine.ledger import balances, set_budget
from engine.prove.people import People
from engine.pursue import (
    MAX_REFUSALS,
    MAX_STEPS,
    Done,
    PursuitExists,
    PursuitOwned,
    PursuitResult,
    PursuitStatus,
    Situation,
)
from engine.pursuit import step_id
from engine.replan import Aborted
from engine.rules.budget import Budget
from engine.rules.money import InvalidBudget
from engine.signals import signal
from projections import COSTS, RUNS, rows, select
from tests.docs.markdown import DOCS, body, plain, sections
from tests.engine.harness import (
    Hands,
    call,
    count_appends,
    in_loop,
    opened,
    plan,
    runtime,
    until,
    write,
)
from tests.engine.test_recover import Death, die

GOAL = {"find": "x"}

RECEIVED = e.ProposalReceived.kind


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@define
class Model:
    """Proposes two calls a step, each time other ones; done after so many steps."""

    steps: int = 3
    cost: str | None = None
    asked: Counter[int] = field(factory=Counter)
    situations: list[Situation] = field(factory=list)

    def __call__(self, situation: Situation) -> Proposal | Done:
        self.situations.append(situation)
        self.asked[situation.step] += 1
        if self.cost is not None:
            situation.meter(cost=self.cost, tokens_in=1, agent="model")
        if situation.step > self.steps:
            found = [one.output for result in situation.results for one in result.results]
            return Done(answer=found, reason="all found")
        parameters = {"step": situation.step, "asking": sum(self.asked.values())}
        return plan(
            call("a", "t", parameters=parameters),
            call("b", "t", parameters=parameters, dependencies=["a"]),
            source="model",
        )


def tools(hands: Hands) -> list[Any]:
    return [hands.tool("t", does=lambda **given: given["step"], idempotent=True)]


async def of_pursuit(store: Store, *kinds: type[e.Event], name: str = "p") -> list[Any]:
    stream = pursuit_stream(name)
    found = [one.event async for one in store.log.read(stream=stream)]
    return [one for one in found if not kinds or isinstance(one, kinds)]


async def received(store: Store) -> list[Any]:
    return [one.event async for one in store.log.read(kinds=[RECEIVED])]


async def position(store: Store) -> int:
    return (await store.log.head()).position


def said(*answers: Any) -> Callable[[Situation], Any]:
    """A proposer that gives these answers, one after the other."""
    left = list(answers)
    return lambda _: left.pop(0)


SET = plan(write("w", "k", 1))


# --- the loop ---


@in_loop
async def test_each_step_is_a_run_and_what_came_of_it_is_told_to_the_next(db: Path) -> None:
    hands, model = Hands(), Model(steps=2)
    async with opened(db) as store:
        found = await runtime(store, tools(hands)).pursue(GOAL, model, pursuit="p")
        assert (found.status, found.steps, found.reason) == ("done", 2, "all found")
        assert found.answer == [1, 1, 2, 2]
        assert [one.run_id for one in found.results] == ["p-s1", "p-s2"]
        first, second, third = model.situations
        assert (first.goal, first.step, first.last, first.results) == (GOAL, 1, None, ())
        assert (second.last, second.results) == (found.results[0], found.results[:1])
        assert third.last == found.results[1]
        assert [one.left.steps for one in model.situations] == [20, 19, 18]
        assert (first.left.cost, first.left.seconds, first.problem) == (None, None, None)
        runs = await select(store, RUNS, pursuit="p")
        assert [run.run_id for run in runs] == ["p-s1", "p-s2"]
        [started, ended] = await of_pursuit(store)
        assert (started.goal, started.max_steps) == (GOAL, 20)
        assert (ended.status, ended.steps, ended.answer) == ("done", 2, [1, 1, 2, 2])
        assert await store.leases.rows() == []
        assert (await verify(store)).ok


@in_loop
async def test_a_pursuit_that_ended_is_returned_without_asking_or_recording(db: Path) -> None:
    async with opened(db) as store:
        made = runtime(store, tools(Hands()))
        found = await made.pursue(GOAL, Model(), pursuit="p")
        before = await position(store)
        never = Model()
        assert await made.pursue(GOAL, never, pursuit="p") == found
        assert await position(store) == before
        assert not never.asked


@in_loop
async def test_without_an_id_each_is_another_pursuit(db: Path) -> None:
    async with opened(db) as store:
        made = runtime(store, [])
        found = [await made.pursue(GOAL, said(Done(answer=n))) for n in (1, 2)]
        assert [one.answer for one in found] == [1, 2]
        assert found[0].pursuit != found[1].pursuit


@in_loop
async def test_the_state_is_told_as_it_is_now_and_large_values_are_in_it(db: Path) -> None:
    large, seen = "x" * 100_000, []

    def model(situation: Situation) -> Any:
        seen.append(dict(situation.state))
        situation.state["k"] = situation.goal["find"] = "changed by the model"
        if situation.step == 1:
            return plan(call("t"), write("w", "k", large))
        assert situation.last is not None
        seen.append(situation.last.results[0].output)
        if len(seen) == 3:
            raise ValueError("once")
        return Done()

    goal = dict(GOAL)
    async with opened(db) as store:
        made = runtime(store, [Hands().tool("t", large)])
        with pytest.raises(ValueError, match="once"):
            await made.pursue(goal, model, pursuit="p")
        await made.pursue(goal, model, pursuit="p")
    assert seen == [{}, {"k": large}, large, {"k": large}, large]
    assert goal == GOAL


@in_loop
async def test_sensitive_values_are_told_as_references(db: Path) -> None:
    seen: list[Situation] = []

    def model(situation: Situation) -> Any:
        seen.append(situation)
        return plan(write("w", "token", "secret-1")) if situation.step == 1 else Done()

    async with connect(db, durability="crash", redaction=Redaction(names=["token"])) as store:
        await runtime(store, []).pursue(GOAL, model)
    assert seen[1].state["token"].keys() == {"$blob", "bytes", "sensitive"}


@pytest.mark.parametrize("kind", ["object", "json", "proposal", "async"])
@in_loop
async def test_an_answer_may_have_any_form_that_execute_takes(db: Path, kind: str) -> None:
    data = {"actions": [{"id": "w", "type": "state_write", "parameters": {"key": "k", "value": 1}}]}

    async def later(situation: Situation) -> Any:
        return SET if situation.step == 1 else Done()

    answers: dict[str, Any] = {
        "object": said(data, Done()),
        "json": said('{"actions": []}', Done()),
        "proposal": said(SET, Done()),
        "async": later,
    }
    async with opened(db) as store:
        found = await runtime(store, []).pursue(GOAL, answers[kind])
        assert (found.status, found.steps) == ("done", 1)


@in_loop
async def test_a_plain_function_does_not_hold_up_the_loop(db: Path) -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(_: Situation) -> Done:
        asked.set()
        assert go.wait(10)
        return Done(answer=threading.current_thread() is not threading.main_thread())

    async with opened(db) as store:
        task = asyncio.create_task(runtime(store, []).pursue(GOAL, slow))
        await until(asked.is_set)
        go.set()
        assert (await task).answer is True


# --- bad answers ---


@in_loop
async def test_what_is_wrong_with_a_proposal_is_told_back(db: Path) -> None:
    problems = []
    answers = said({"actions": [{"tol": "x"}]}, "{", SET, {"actons": []}, SET, Done())

    def model(situation: Situation) -> Any:
        problems.append((situation.step, situation.problem))
        return answers(situation)

    async with opened(db) as store:
        found = await runtime(store, []).pursue(GOAL, model)
    assert (found.status, found.steps) == ("done", 2)
    assert [step for step, _ in problems] == [1, 1, 1, 2, 2, 3]
    assert [problem is None for _, problem in problems] == [True, False, False, True, False, True]
    assert problems[1][1] is not None
    assert "tol" in problems[1][1]


@in_loop
async def test_a_model_that_cannot_correct_its_proposal_has_failed(db: Path) -> None:
    asked = []

    def model(situation: Situation) -> Any:
        asked.append(situation)
        situation.meter(cost="0.01", agent="m")
        return {"actions": 7}

    async with opened(db) as store:
        found = await runtime(store, []).pursue(GOAL, model, pursuit="p", max_cost="5")
        assert (found.status, found.steps, len(asked)) == ("failed", 0, MAX_REFUSALS)
        assert found.reason is not None
        assert "actions" in found.reason
        metered = await of_pursuit(store, e.InferenceMetered)
        assert [(one.attempt, one.n) for one in metered] == [(1, 0), (1, 1), (1, 2)]
        assert (await balances(store, "pursuit/p"))["USD"].spent == 30_000


@pytest.mark.parametrize("answer", [None, 7, ["a"]])
@in_loop
async def test_something_that_is_no_answer_is_an_error_of_the_program(
    db: Path, answer: Any
) -> None:
    async with opened(db) as store:
        made = runtime(store, [])
        with pytest.raises(TypeError, match="Done"):
            await made.pursue(GOAL, said(answer), pursuit="p")
        assert await store.leases.rows() == []
        assert (await made.pursue(GOAL, said(Done()), pursuit="p")).status == "done"


@in_loop
async def test_what_a_model_raises_is_raised_and_its_cost_is_kept(db: Path) -> None:
    def broken(situation: Situation) -> Any:
        situation.meter(tokens_out=3, cost="0.5", agent="m")
        raise StopIteration if situation.state else ConnectionError("no model")

    async with opened(db) as store:
        made = runtime(store, [])
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await made.pursue(GOAL, broken, pursuit="p")
        await made.execute(SET)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await made.pursue(GOAL, broken, pursuit="p")
        metered = await of_pursuit(store, e.InferenceMetered)
        assert [(one.attempt, one.n, one.action_id) for one in metered] == [
            (1, n, "propose") for n in range(3)
        ]
        [cost] = (await rows(store, COSTS)).values()
        assert (cost.agent, cost.cost_micros, cost.tokens_out) == ("m", 1_500_000, 9)


@in_loop
async def test_metering_that_names_nobody_is_put_down_to_the_source(db: Path) -> None:
    def model(situation: Situation) -> Any:
        situation.meter(tokens_in=1)
        return plan(source="ada") if situation.step == 1 else Done()

    async with opened(db) as store:
        await runtime(store, []).pursue(GOAL, model, pursuit="p")
        agents = [one.agent for one in await of_pursuit(store, e.InferenceMetered)]
        assert agents == ["ada", "ada"]


@in_loop
async def test_metering_is_judged_and_ends_with_the_asking(db: Path) -> None:
    kept: list[Situation] = []

    def model(situation: Situation) -> Any:
        kept.append(situation)
        with pytest.raises(ContextMisused, match=r"situation\.meter"):
            situation.meter(cost="much")
        return Done()

    async with opened(db) as store:
        await runtime(store, []).pursue(GOAL, model, pursuit="p")
        with pytest.raises(ContextMisused, match="not asked for any more"):
            kept[0].meter(tokens_in=1)
        assert await of_pursuit(store, e.InferenceMetered) == []


# --- limits ---


@in_loop
async def test_after_the_last_step_only_an_end_is_an_answer(db: Path) -> None:
    for name, steps, status in (("p", 9, "max_steps"), ("q", 2, "done")):
        model = Model(steps=steps)
        async with opened(db) as store:
            made = runtime(store, tools(Hands()))
            found = await made.pursue(GOAL, model, pursuit=name, max_steps=2)
            assert (found.status, found.steps, len(found.results)) == (status, 2, 2)
            assert model.situations[-1].left.steps == 0
            assert len(model.situations) == 3


@in_loop
async def test_nothing_is_proposed_once_the_money_is_spent(db: Path) -> None:
    model = Model(steps=9, cost="0.40")
    async with opened(db) as store:
        made = runtime(store, tools(Hands()))
        found = await made.pursue(GOAL, model, pursuit="p", max_cost=Decimal("1.00"))
        assert (found.status, found.steps, len(model.situations)) == ("max_cost", 3, 3)
        assert found.reason == "budget 'pursuit/p': -0.2 USD left"
        assert [one.left.cost for one in model.situations] == [
            Decimal("1"), Decimal("0.6"), Decimal("0.2")
        ]  # fmt: skip
        assert (await balances(store, "pursuit/p"))["USD"].spent == 1_200_000


@in_loop
async def test_what_its_runs_spend_counts_and_no_call_may_take_more_than_is_left(db: Path) -> None:
    called = []

    @tool(max_cost={"USD": "0.50"}, idempotent=True)
    def buy(ctx: ToolContext) -> None:
        called.append(1)
        ctx.meter(cost="0.30")

    seen: list[Situation] = []

    def model(situation: Situation) -> Any:
        seen.append(situation)
        last = situation.last
        if last is not None and last.stopped is not None:
            return Done(failed=True, reason=last.stopped)
        return plan(call("buy"))

    async with opened(db) as store:
        found = await runtime(store, [buy]).pursue(GOAL, model, pursuit="p", max_cost="0.75")
        assert [one.left.cost for one in seen] == [
            Decimal("0.75"), Decimal("0.45"), Decimal("0.45")
        ]  # fmt: skip
        assert len(called) == 1
        assert (found.status, found.steps) == ("failed", 2)
        assert found.reason is not None
        assert found.reason.startswith("budget: ")
        balance = (await balances(store, "pursuit/p"))["USD"]
        assert (balance.spent, balance.reserved) == (300_000, 0)


@in_loop
async def test_it_takes_from_the_budget_that_its_runtime_takes_from(db: Path) -> None:
    async with opened(db) as store:
        await set_budget(store, "team", {"USD": "1"})
        made = runtime(store, tools(Hands()), budget=Budget(parent="team", max_actions=5))
        found = await made.pursue(GOAL, Model(steps=9, cost="0.6"), pursuit="p")
        assert (found.status, found.steps) == ("max_cost", 2)
        assert found.reason == "budget 'team': -0.2 USD left"
        assert (await balances(store, "team"))["USD"].spent == 1_200_000
        assert (await received(store))[0].budget == {"max_actions": 5, "parent": "pursuit/p"}


@in_loop
async def test_nothing_is_proposed_after_the_deadline_and_its_runs_have_it(db: Path) -> None:
    clock = ManualClock()

    def model(situation: Situation) -> Any:
        seen.append(situation.left.seconds)
        clock.advance(4_000_000)
        return plan(call("t"))

    seen: list[float | None] = []
    async with opened(db, clock=clock) as store:
        made = runtime(store, [Hands().tool("t")])
        ends_at = clock.now() + 10_000_000
        found = await made.pursue(GOAL, model, pursuit="p", timeout_secs=10)
        assert (found.status, found.steps, seen) == ("deadline", 2, [10.0, 6.0, 2.0])
        assert [one.deadline_at for one in await received(store)] == [ends_at] * 2


@in_loop
async def test_a_model_that_does_not_answer_in_time_is_not_waited_for(db: Path) -> None:
    async def hangs(situation: Situation) -> Any:
        situation.meter(cost="0.01", agent="m")
        await asyncio.sleep(30)

    async with opened(db) as store:
        made = runtime(store, [])
        found = await made.pursue(GOAL, hangs, pursuit="p", timeout_secs=0.05)
        assert (found.status, found.steps) == ("deadline", 0)
        assert len(await of_pursuit(store, e.InferenceMetered)) == 1


@in_loop
async def test_a_time_out_of_the_model_itself_is_its_own(db: Path) -> None:
    async def times_out(_: Situation) -> Any:
        raise TimeoutError

    async with opened(db) as store:
        with pytest.raises(TimeoutError):
            await runtime(store, []).pursue(GOAL, times_out, timeout_secs=30)


@in_loop
async def test_the_limits_are_those_it_began_with(db: Path) -> None:
    async with opened(db) as store:
        made = runtime(store, tools(Hands()))
        with pytest.raises(ValueError, match="no more"):
            await made.pursue(GOAL, _raises_at(2), pursuit="p", max_steps=2)
        model = Model(steps=9)
        found = await made.pursue(GOAL, model, pursuit="p", max_steps=7)
        assert (found.status, found.steps) == ("max_steps", 2)


def _raises_at(step: int) -> Callable[[Situation], Any]:
    def model(situation: Situation) -> Any:
        if situation.step == step:
            raise ValueError("no more")
        return SET

    return model


# --- waiting, cancelling, replanning ---


@in_loop
async def test_it_waits_as_long_as_its_run_waits_and_then_goes_on_with_it(db: Path) -> None:
    wait = plan(call("w", "wait_signal", parameters={"name": "go"}))
    async with opened(db) as store:
        made = runtime(store, [])
        found = await made.pursue(GOAL, said(wait), pursuit="p")
        assert (found.status, found.steps, found.answer) == ("waiting", 1, None)
        assert found.results[-1].waits_for == "signal"
        before = await position(store)
        assert await made.pursue(GOAL, said(), pursuit="p") == found
        assert await position(store) == before
        await signal(store, RunId("p-s1"), "go", 5)

        def model(situation: Situation) -> Any:
            assert situation.last is not None
            return Done(answer=situation.last.results[0].output)

        found = await made.pursue(GOAL, model, pursuit="p")
        assert (found.status, found.steps, found.answer) == ("done", 1, 5)


@pytest.mark.parametrize("compensate", [False, True])
@in_loop
async def test_a_person_who_cancels_a_run_ends_the_pursuit(db: Path, compensate: bool) -> None:
    wait = plan(call("w", "wait_signal", parameters={"name": "go"}))
    async with opened(db) as store:
        made = runtime(store, [])
        await made.pursue(GOAL, said(wait), pursuit="p")
        await cancel(store, RunId("p-s1"), by="ann", reason="enough", compensate=compensate)
        found = await made.pursue(GOAL, said(), pursuit="p")
        assert (found.status, found.steps) == ("cancelled", 1)
        assert found.reason == "cancelled: enough"


@in_loop
async def test_a_run_in_the_place_of_an_aborted_one_stands_for_the_step(db: Path) -> None:
    hands = Hands()
    options = {"replan": lambda _: plan(call("good")), "max_replans": 2}
    given = [hands.tool("bad", fails=9), hands.tool("good", 1, idempotent=True)]
    async with opened(db) as store:
        made = runtime(store, given, **options)
        found = await made.pursue(GOAL, said(plan(call("bad")), Done()), pursuit="p")
        assert (found.status, found.steps) == ("done", 1)
        assert [(one.run_id, one.status) for one in found.results] == [("p-s1-r1", "succeeded")]
        assert {one.run_id for one in await select(store, RUNS, pursuit="p")} == {
            "p-s1", "p-s1-r1"
        }  # fmt: skip
        assert await runtime(store, given).pursue(GOAL, said(), pursuit="p") == found


@in_loop
async def test_such_a_run_is_gone_on_with_also_where_nobody_replans(db: Path) -> None:
    wait = plan(call("w", "wait_signal", parameters={"name": "go"}))
    given = [Hands().tool("bad", fails=9)]
    async with opened(db) as store:
        made = runtime(store, given, replan=lambda _: wait)
        found = await made.pursue(GOAL, said(plan(call("bad"))), pursuit="p")
        assert (found.status, found.results[0].run_id) == ("waiting", "p-s1-r1")
        await signal(store, RunId("p-s1-r1"), "go", 5)
        found = await runtime(store, given).pursue(GOAL, said(Done()), pursuit="p")
        assert (found.status, found.results[0].status) == ("done", "succeeded")
        assert found.results[0].run_id == "p-s1-r1"


# --- who may go on ---


@in_loop
async def test_bad_input_leaves_nothing(db: Path) -> None:
    async with opened(db) as store:
        made = runtime(store, [])
        before = await position(store)
        for error, options in (
            (InvalidRunId, {"pursuit": "a/b"}),
            (InvalidRunId, {"pursuit": "x" * 128}),
            (ValueError, {"max_steps": 0}),
            (ValueError, {"max_steps": True}),
            (ValueError, {"max_steps": MAX_STEPS + 1}),
            (InvalidBudget, {"max_cost": "-1"}),
            (InvalidBudget, {"max_cost": "much"}),
            (ValueError, {"timeout_secs": 0}),
            (InvalidJson, {"goal": {1: 2}}),
        ):
            given: Any = {"goal": GOAL, **options}
            with pytest.raises(error):
                await made.pursue(given.pop("goal"), said(Done()), **given)
        assert await position(store) == before


@in_loop
async def test_an_id_belongs_to_one_goal_and_its_steps_to_it(db: Path) -> None:
    async with opened(db) as store:
        made = runtime(store, [])
        await made.pursue(GOAL, said(Done()), pursuit="p")
        with pytest.raises(PursuitExists, match="another goal"):
            await made.pursue({"find": "y"}, said(Done()), pursuit="p")
        await made.execute(SET, run_id="q-s1")
        before = await position(store)
        with pytest.raises(RunExists):
            await made.pursue(GOAL, said(Done()), pursuit="q")
        assert await position(store) == before


@in_loop
async def test_of_two_at_once_one_asks(db: Path) -> None:
    go, model = asyncio.Event(), Model(steps=1)

    async def slow(situation: Situation) -> Any:
        answer = model(situation)
        await go.wait()
        return answer

    async with opened(db) as one, opened(db) as other:
        first = asyncio.create_task(runtime(one, tools(Hands())).pursue(GOAL, slow, pursuit="p"))
        await until(lambda: model.asked)
        for store in (one, other):
            with pytest.raises(PursuitOwned, match="p is being driven by"):
                await runtime(store, []).pursue(GOAL, said(), pursuit="p")
        go.set()
        assert (await first).status == "done"
        assert set(model.asked.values()) == {1}


@pytest.mark.parametrize("same_plan", [False, True])
@in_loop
async def test_who_was_taken_over_while_asking_runs_nothing(db: Path, same_plan: bool) -> None:
    people, hands, lost = People(), Hands(), Hands()
    go, asked = asyncio.Event(), asyncio.Event()

    def proposal(n: int) -> Proposal:
        return plan(call("t", parameters={"step": 1 if same_plan else n}))

    async def slow(_: Situation) -> Any:
        asked.set()
        await go.wait()
        return proposal(1)

    async with opened(db, people) as one, opened(db, People(dead=people.dead)) as other:
        first = asyncio.create_task(runtime(one, tools(lost)).pursue(GOAL, slow, pursuit="p"))
        await asked.wait()
        people.all_die()
        made = runtime(other, tools(hands))
        found = await made.pursue(GOAL, said(proposal(2), Done(answer=2)), pursuit="p")
        go.set()
        with pytest.raises(PursuitOwned):
            await first
        assert (found.status, found.answer) == ("done", 2)
        assert (len(hands.calls), len(lost.calls)) == (1, 0)


@in_loop
async def test_who_comes_second_sees_what_the_first_did_meanwhile(db: Path) -> None:
    async with opened(db) as one, opened(db) as other:
        with pytest.raises(ValueError, match="no more"):
            await runtime(one, []).pursue(GOAL, _raises_at(2), pursuit="p")
        claim, ended = one.leases.claim, []

        async def slow(*given: Any) -> Any:
            made = runtime(other, [])
            ended.append(await made.pursue(GOAL, said(SET, Done(answer=1)), pursuit="p"))
            return await claim(*given)

        one.leases.claim = slow  # type: ignore[method-assign, assignment]
        assert await runtime(one, []).pursue(GOAL, said(), pursuit="p") == ended[0]
        assert ended[0].steps == 2
        assert await one.leases.rows() == []


@in_loop
async def test_who_is_cancelled_lets_go_at_once(db: Path) -> None:
    asked = asyncio.Event()

    async def slow(situation: Situation) -> Any:
        situation.meter(tokens_in=1)
        asked.set()
        await asyncio.sleep(30)

    async with opened(db) as store:
        made = runtime(store, [])
        task = asyncio.create_task(made.pursue(GOAL, slow, pursuit="p"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.leases.rows() == []
        assert len(await of_pursuit(store, e.InferenceMetered)) == 1
        assert (await made.pursue(GOAL, said(Done()), pursuit="p")).status == "done"


@in_loop
async def test_a_copy_goes_on_by_itself_but_not_with_a_run_that_was_copied_unfinished(
    db: Path, tmp_path: Path
) -> None:
    wait = plan(call("w", "wait_signal", parameters={"name": "go"}))
    async with opened(db) as store:
        await runtime(store, []).pursue(GOAL, said(SET, wait), pursuit="p")
        with pytest.raises(ValueError, match="no more"):
            await runtime(store, []).pursue(GOAL, _raises_at(2), pursuit="q")
    await restore(db, tmp_path / "copy.db", open_runs=open_run)
    async with opened(tmp_path / "copy.db") as store:
        made = runtime(store, [])
        found = await made.pursue(GOAL, said(), pursuit="p")
        assert (found.status, found.results[-1].waits_for) == ("waiting", "acceptance")
        await made.resume("p-s2", accept_copy=True)
        await signal(store, RunId("p-s2"), "go")
        for name in ("p", "q"):
            assert (await made.pursue(GOAL, said(Done()), pursuit=name)).status == "done"


# --- crashes ---


@asynccontextmanager
async def mortal(
    db: Path, people: People, at: int | None = None, *, after: bool = False
) -> AsyncIterator[Store]:
    """A process that dies at its n-th append, if that comes."""
    async with opened(db, people) as store:
        if at is not None:
            die(store, at, after=after)
        yield store
    people.all_die()


OPTIONS: dict[str, Any] = {"pursuit": "p", "max_cost": "5.00"}


async def recorded(store: Store) -> tuple[set[int], set[tuple[int, str]]]:
    """The steps that were proposed, and the actions that succeeded, by step."""
    steps, succeeded = set(), set()
    async for one in store.log.read(kinds=[RECEIVED, e.ActionSucceeded.kind]):
        step = int(str(one.run_id).removeprefix("p-s"))
        if isinstance(one.event, e.ActionSucceeded):
            succeeded.add((step, one.event.action_id))
        else:
            steps.add(step)
    return steps, succeeded


async def appends_of_one(path: Path) -> tuple[int, PursuitResult]:
    async with opened(path) as store:
        sizes = count_appends(store)
        found = await runtime(store, tools(Hands())).pursue(GOAL, Model(cost="0.01"), **OPTIONS)
        return len(sizes), found


@pytest.mark.parametrize("after", [False, True])
def test_wherever_it_is_killed_no_recorded_proposal_is_asked_for_again(
    tmp_path: Path, after: bool
) -> None:
    """And no call that completed is made again, and the answer is the same."""

    async def check() -> None:
        appends, whole = await appends_of_one(tmp_path / "whole.db")
        assert appends > 15
        for at in range(1, appends + 1):
            await _killed_at(tmp_path / f"{at}.db", at, whole, after=after)

    asyncio.run(asyncio.wait_for(check(), 120))


async def _killed_at(db: Path, at: int, whole: PursuitResult, *, after: bool) -> None:
    people, model, hands = People(), Model(cost="0.01"), Hands()
    async with mortal(db, people, at, after=after) as store:
        with pytest.raises(Death):
            await runtime(store, tools(hands)).pursue(GOAL, model, **OPTIONS)
    calls = len(hands.calls)
    async with opened(db, people) as store:
        steps, succeeded = await recorded(store)
        again = Model(cost="0.01")
        found = await runtime(store, tools(hands)).pursue(GOAL, again, **OPTIONS)
        assert (found.status, found.answer) == ("done", whole.answer)
        assert found.steps == whole.steps
        assert not steps & set(again.asked)
        assert set(again.asked.values()) <= {1}
        assert len(hands.calls) - calls == 6 - len(succeeded)
        metered = await of_pursuit(store, e.InferenceMetered)
        ids = [(one.attempt, one.n) for one in metered]
        assert len(set(ids)) == len(ids)
        assert (await balances(store, "pursuit/p"))["USD"].spent == 10_000 * len(ids)
        assert (await verify(store)).ok


@pytest.mark.parametrize("every", [3, 5, 8])
@in_loop
async def test_it_ends_however_often_it_is_killed(db: Path, every: int) -> None:
    people, hands, asked = People(), Hands(), Counter[int]()
    for _ in range(60):
        model = Model()
        async with mortal(db, people, every, after=True) as store:
            try:
                found = await runtime(store, tools(hands)).pursue(GOAL, model, pursuit="p")
            except Death:
                asked += model.asked
                continue
            break
    else:
        pytest.fail("it did not end")
    asked += model.asked
    assert (found.status, found.answer) == ("done", [1, 1, 2, 2, 3, 3])
    async with opened(db, people) as store:
        runs = [one.run_id async for one in store.log.read(kinds=[RECEIVED])]
        assert runs == ["p-s1", "p-s2", "p-s3"]


# --- documentation ---


def test_the_page_names_arguments_statuses_and_limits() -> None:
    page = sections(DOCS / "agent_loop.md")
    rows_ = body(page["Pursuing a goal"], "Argument", "Default", "Meaning")
    given = [one for one in signature(Runtime.pursue).parameters.values() if one.name != "self"]
    assert [plain(name) for name, *_ in rows_] == [one.name for one in given]
    for (_, default, _), one in zip(rows_, given, strict=True):
        assert not default.startswith("`") or plain(default) == repr(one.default)
    statuses = [plain(row[0]) for row in body(page["How it ends"], "Status", "When")]
    assert statuses == [one.value for one in PursuitStatus]
    told = body(page["What `propose` is told"], "`Situation`", "Meaning")
    named = {name for row in told for name in plain(row[0]).replace("(...)", "").split(", ")}
    public = {name for name in dir(Situation) if not name.startswith("_")}
    assert {name.strip("`") for name in named} == public - {"close"}
    aborted = body(page["Replanning"], "`Aborted`", "Meaning")
    assert [plain(row[0]) for row in aborted] == [one.name for one in fields(Aborted)]
    text = (DOCS / "agent_loop.md").read_text(encoding="utf-8")
    assert f"`MAX_REFUSALS` ({MAX_REFUSALS})" in text
    assert f"up to {MAX_STEPS:,}" in text


def test_the_longest_id_is_as_long_as_the_page_says() -> None:
    assert len(step_id("x" * 121, MAX_STEPS)) == 128


@in_loop
async def test_an_id_that_would_be_too_long_for_a_later_step_is_refused_at_the_start(
    db: Path,
) -> None:
    """For the replacement of the last step too, if there may be one."""
    async with opened(db) as store:
        for most, room in ((0, 121), (2, 118), (12, 117)):
            options: dict[str, Any] = (
                {"replan": lambda _: None, "max_replans": most} if most else {}
            )
            made = runtime(store, [], **options)
            done = await made.pursue("goal", lambda _: Done(), pursuit="p" * room)
            assert done.status == "done"
            head = await store.log.head()
            with pytest.raises(InvalidRunId):
                await made.pursue("goal", lambda _: Done(), pursuit="q" * (room + 1))
            assert await store.log.head() == head
