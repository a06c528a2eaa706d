"""The engine against a dictionary, and against itself with a crash between any two appends."""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carstore import events as e
from carstore.log import Entry
from carstore.names import RunId
from carstore.sqlite.verify import verify
from carstore.store import Store
from engine import RunOwned, Runtime, Tool, ToolContext, resolve, tool
from engine.ir import Proposal, RunResult
from engine.journal import load_run
from engine.prove.broken import BREAKAGES
from engine.run import Run
from tests.engine.harness import ANYTHING, NO_WAIT, People, call, opened, plan, state_of, tidy
from tests.engine.interpreter import ALWAYS, EFFECT, Came, Interpreter, Outcome, small_plans

QUICK = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=int(os.environ.get("EXAMPLES", "40")),
)


MAX_LIVES = 40
"""Lives without a death until a run has to be over: each ends with people answering."""


class Death(Exception):
    """Stands for the end of the process."""


@define
class World:
    """What the tools have really done, and what was durable when they did it."""

    run_id: str = "r0"
    done: Counter[str] = field(factory=Counter)
    made: dict[tuple[str, int, bool], Any] = field(factory=dict)
    """(action, attempt, undo) -> what a call came to that was carried out: its output or error."""
    tries: Counter[tuple[str, bool]] = field(factory=Counter)
    intents: set[tuple[str, int, bool]] = field(factory=set)
    """Durable ones."""
    completed: set[tuple[str, bool]] = field(factory=set)
    """Actions, and compensations, whose success is durable."""
    faults: list[str] = field(factory=list)

    def tools(self) -> list[Tool]:
        return [
            self._tool("undo", "once"),
            self._tool("undo_again", "idempotent"),
            *(
                self._tool(name, effect, compensation="undo" if name == "made" else None)
                for name, effect in EFFECT.items()
            ),
        ]

    def _tool(self, name: str, effect: str, compensation: str | None = None) -> Tool:
        undo = name.startswith("undo")

        async def function(ctx: ToolContext, **params: Any) -> Any:
            given = params["parameters"] if undo else params
            await self._check(given["who"], ctx.attempt, effect, undo, given["steps"])
            return self._carry_out(given, ctx, effect, undo=undo)

        return tool(
            name=name,
            parameters=ANYTHING,
            read_only=effect == "read_only",
            idempotent=effect == "idempotent",
            compensation=compensation,
        )(function)

    async def _check(self, who: str, attempt: int, effect: str, undo: bool, steps: int) -> None:
        if effect == "once" and (who, attempt, undo) not in self.intents:
            self.faults.append(f"{who} was called without a durable intent")
        if (who, undo) in self.completed:
            self.faults.append(f"{who} was called again")
        for _ in range(steps):
            await asyncio.sleep(0)

    def _carry_out(
        self, given: dict[str, Any], ctx: ToolContext, effect: str, *, undo: bool
    ) -> Any:
        who, place = given["who"], (given["who"], ctx.attempt, undo)
        self.tries[who, undo] += 1
        # What may be repeated fails by the number of its attempt, which a lost outcome gives again.
        nth = self.tries[who, undo] if effect == "once" else ctx.attempt
        if nth <= given["undo_fails" if undo else "fails"]:
            self.made[place] = ValueError(f"{who} fails")
            raise self.made[place]
        self.done[f"undo {who}" if undo else who] += 1
        output: Any = {"of": who}
        self.made[place] = output
        if not undo and effect != "once":
            ctx.set(f"own {who}", value=True)
        return output

    def see(self, entries: tuple[Entry, ...]) -> None:
        """What has become durable."""
        for entry in entries:
            match entry.event:
                case e.ActionExecuting(action_id=who, attempt=attempt):
                    self.intents.add((who, attempt, False))
                case e.CompensationExecuting(action_id=who, attempt=attempt):
                    self.intents.add((who, attempt, True))
                case e.ActionSucceeded(action_id=who) | e.ActionDeduplicated(action_id=who):
                    self.completed.add((who, False))
                case e.CompensationSucceeded(action_id=who):
                    self.completed.add((who, True))

    def new_run(self, run_id: str) -> None:
        self.run_id = run_id
        for memory in (self.done, self.made, self.tries, self.intents, self.completed):
            memory.clear()  # type: ignore[attr-defined]


def watch(store: Store, world: World, crash: tuple[int, bool] | None) -> list[int]:
    """Tell the world what is durable; die at the n-th append of the run, before or after it."""
    append, count = store.log.append, [0]

    async def watched(*entries: Entry, **kwargs: Any) -> Any:
        count[0] += 1
        at, after = crash or (10**9, False)
        if count[0] > at or (count[0] == at and not after):
            raise Death
        done = await append(*entries, **kwargs)
        world.see(entries)
        if count[0] == at:
            raise Death
        return done

    store.log.append = watched  # type: ignore[method-assign]
    return count


def seen_of(result: RunResult, world: World) -> Outcome:
    return Outcome(
        status=result.status.value,
        actions={
            one.action_id: Came(one.status.value, one.output, one.rolled_back)
            for one in result.results
        },
        not_undone=frozenset(one.action_id for one in result.not_undone),
        done=dict(world.done),
    )


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """An empty store: making one takes longer than a small plan."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"

        async def make() -> None:
            async with opened(path):
                pass

        asyncio.run(make())
        yield path


def in_a_copy(template: Path, go: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        shutil.copy(template, path)
        return asyncio.run(asyncio.wait_for(go(path), 30))


def runtime(store: Store, world: World, schedule: str = "levels") -> Runtime:
    return Runtime(store, world.tools(), backoff=NO_WAIT, schedule=schedule)


async def finish(store: Store, world: World, proposal: Proposal, run_id: str) -> RunResult:
    """Execute, or go on with, a run that is not to crash; the folded run is what the driver had."""
    runs: list[Run] = []
    result = await runtime(store, world).execute(proposal, run_id=run_id, observe=runs.append)
    if runs:
        assert tidy(await load_run(store, RunId(run_id))) == tidy(runs[-1])
    return result


# --- against a dictionary ---


@QUICK
@given(st.lists(small_plans(), min_size=1, max_size=3), st.booleans())
def test_plans_come_to_what_a_plain_interpreter_says(
    template: Path, proposals: list[Proposal], again: bool
) -> None:
    """Also one after the other on one file: state and remembered results go on."""
    if again:
        proposals = [proposals[0], proposals[0], *proposals[1:]]

    async def go(path: Path) -> None:
        interpreter, world = Interpreter(), World()
        async with opened(path) as store:
            watch(store, world, None)
            for n, proposal in enumerate(proposals):
                world.new_run(f"r{n}")
                wanted = interpreter.run(proposal)
                result = await finish(store, world, proposal, f"r{n}")
                assert world.faults == []
                assert seen_of(result, world) == wanted
                assert await state_of(store) == interpreter.state

    in_a_copy(template, go)


# --- with crashes ---


async def live(
    path: Path, people: People, world: World, proposal: Proposal, crash: Any, schedule: str
) -> RunResult | None:
    """One life of a process that works on run `r0`; None if it died."""
    async with opened(path, people) as store:
        watch(store, world, crash)
        try:
            one = runtime(store, world, schedule)
            if [event async for event in store.log.read(run=RunId("r0"))]:
                found = await one.recover()
                assert not [r for r in found if isinstance(r, RunOwned)]
            return await one.execute(proposal, run_id="r0")
        except Death:
            return None
        finally:
            people.all_die()


async def answer_truthfully(store: Store, world: World, *, aborts: bool) -> bool:
    """A person looks at what really happened and answers each doubt.

    Returns whether the run may now come to something else than without the crash: because a call
    that was not made used up an attempt, or because others went on, and failed, while it waited.
    """
    run = await load_run(store, RunId("r0"))
    shifted = False
    for state in run.actions:
        for attempts, undo in ((state.do, False), (state.undo, True)):
            doubt, name = attempts.doubt, state.action.id
            if doubt is None or doubt.answer is not None:
                continue
            place = (name, doubt.attempt, undo)
            shifted |= aborts and not undo
            if place not in world.made:
                shifted |= 0 < state.action.parameters["undo_fails" if undo else "fails"] < ALWAYS
                await resolve(store, run.run_id, name, "retry")
            elif isinstance(world.made[place], ValueError):
                retries = undo or state.action.failure_behavior == "retry"
                left = retries and doubt.attempt <= state.action.max_retries
                await resolve(store, run.run_id, name, "retry" if left else "failed", error="fails")
            else:
                await resolve(store, run.run_id, name, "succeeded", output=world.made[place])
    return shifted


async def outlive(
    path: Path, proposal: Proposal, deaths: list[tuple[int, bool]], schedule: str = "levels"
) -> None:
    """Die as told, answer truthfully, go on until the run is over; then look at what came of it."""
    people, world, interpreter = People(), World(), Interpreter()
    wanted = interpreter.run(proposal)
    aborts = wanted.status in ("rolled_back", "partially_compensated")
    result, shifted = None, False
    for crash in [*deaths, *[None] * MAX_LIVES]:
        result = await live(path, people, world, proposal, crash, schedule)
        if result is not None and result.status != "waiting":
            break
        async with opened(path, people) as store:
            world.completed = await completed(store)
            if result is not None:
                shifted |= await answer_truthfully(store, world, aborts=aborts)
    assert result is not None
    assert world.faults == []
    check_counts(world, proposal)
    async with opened(path, people) as store:
        assert (await verify(store)).ok
        assert all(row.holder and people.is_gone(row.holder) for row in await store.leases.rows())
        if shifted or (aborts and schedule == "eager"):
            return  # time decides what an abort meets
        found = seen_of(result, world)
        assert (found.status, found.not_undone) == (wanted.status, wanted.not_undone)
        assert found.actions == wanted.actions
        assert await state_of(store) == interpreter.state


async def completed(store: Store) -> set[tuple[str, bool]]:
    """The actions, and compensations, whose success the log holds."""
    world = World()
    world.see(tuple([Entry(r.stream, r.event) async for r in store.log.read()]))
    return world.completed


def check_counts(world: World, proposal: Proposal) -> None:
    """What may not be repeated was done at most once, whatever crashed."""
    for action in proposal.actions:
        if action.tool is not None and EFFECT[action.tool] == "once":
            assert world.done[action.id] <= 1
        own = action.compensation
        if own is None or own.tool == "undo":  # type: ignore[union-attr]
            assert world.done[f"undo {action.id}"] <= 1


@QUICK
@given(
    proposal=small_plans(),
    deaths=st.lists(st.tuples(st.integers(1, 14), st.booleans()), min_size=1, max_size=3),
    schedule=st.sampled_from(["levels", "levels", "eager"]),
)
def test_a_crash_between_any_two_appends_changes_nothing_of_the_outcome(
    template: Path, proposal: Proposal, deaths: list[tuple[int, bool]], schedule: str
) -> None:
    """The process dies up to three times; then people answer truthfully until the run is over."""
    in_a_copy(template, lambda path: outlive(path, proposal, deaths, schedule))


def chain(*tools: str) -> Proposal:
    given = {"fails": 0, "undo_fails": 0, "steps": 0}
    return plan(
        *[
            call(
                f"a{n}",
                name,
                parameters=given | {"who": f"a{n}"} | ({"fails": ALWAYS} if name == "look" else {}),
                dependencies=[f"a{n - 1}"] if n else [],
            )
            for n, name in enumerate(tools)
        ]
    )


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 9))
def test_every_crash_of_a_chain_that_is_undone_comes_to_the_same(
    template: Path, at: int, after: bool
) -> None:
    """Three calls, a failure, three compensations: eight appends, and a death at each."""
    proposal = chain("made", "made", "made", "look")
    in_a_copy(template, lambda path: outlive(path, proposal, [(at, after)]))


@pytest.mark.parametrize("name", ["no intent", "run completed again"])
def test_an_engine_broken_on_purpose_is_caught(template: Path, name: str) -> None:
    with BREAKAGES[name].applied(), pytest.raises(AssertionError):
        in_a_copy(template, lambda path: outlive(path, chain("once", "once"), [(3, False)]))
