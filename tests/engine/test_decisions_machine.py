"""Rules, people, signals, clocks, budgets and replanning, with a death between any two appends.

A plan is run twice on the same decisions of people: once undisturbed, and once by a process that
dies up to three times, at any append. Both have to come to the same, no call that must not be
repeated is made twice, and the ledger has to add up.
"""

import asyncio
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carstore import events as e
from carstore.clock import ManualClock
from carstore.log import Entry
from carstore.names import RunId
from carstore.sqlite.verify import verify
from carstore.store import Store
from engine import Action, Proposal, RunOwned, Runtime, ToolContext, resolve, tool
from engine.action_state import ActionState
from engine.approvals import NoApproval, approve, reject
from engine.inbox import RunOver
from engine.journal import load_run
from engine.ledger import balances
from engine.policies import Judged, ask, deny, policy
from engine.replan import Aborted
from engine.rules.budget import Budget
from engine.run import Run
from engine.signals import signal
from projections import LAZY, compare
from tests.engine.harness import NO_WAIT, People, call, opened, plan, state_of, tidy, write

QUICK = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    max_examples=int(os.environ.get("EXAMPLES", "20")),
)

SECOND = 1_000_000
CENT = 10_000
MAX_LIVES = 60
"""Lives until a run has to be over: after each people act, and a minute passes."""


class Death(Exception):
    """Stands for the end of the process."""


@policy
def rules(judged: Judged) -> Any:
    match judged.action.tool:
        case "forbidden":
            return deny("never")
        case "send":
            return ask("goes outside", approvers=judged.parameters["approvers"])
    return None


@define
class Story:
    """What people decide, and what the world has seen."""

    refused: frozenset[str]
    """The actions that people refuse."""
    intents: set[tuple[str, int]] = field(factory=set)
    calls: Counter[str] = field(factory=Counter)
    done: set[tuple[str, int]] = field(factory=set)
    completed: set[str] = field(factory=set)
    faults: list[str] = field(factory=list)

    def tools(self) -> list[Any]:
        return [
            self._tool("send"),
            self._tool("pay", max_cost={"USD": "0.10"}),
            self._tool("look", read_only=True, cache_ttl_secs=10**6),
            self._tool("fetch", idempotent=True),
            self._tool("forbidden"),
            self._tool("bad"),
        ]

    def _tool(self, name: str, **declared: Any) -> Any:
        once = not (declared.get("read_only") or declared.get("idempotent"))

        @tool(name=name, parameters={"type": "object"}, **declared)
        async def function(ctx: ToolContext, **_: Any) -> str:
            who = ctx.action_id
            if once and (who, ctx.attempt) not in self.intents:
                self.faults.append(f"{who} was called without a durable intent")
            if who in self.completed:
                self.faults.append(f"{who} was called again")
            self.calls[f"{ctx.run_id}/{who}"] += 1
            self.done.add((f"{ctx.run_id}/{who}", ctx.attempt))
            if name == "pay":
                await ctx.charge("USD", "0.02")
                ctx.meter(cost="0.08")
            if name == "bad":
                raise ValueError("bad")
            return f"made {name}"

        return function

    def see(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            match entry.event:
                case e.ActionExecuting(action_id=who, attempt=attempt):
                    self.intents.add((who, attempt))
                case e.ActionSucceeded(action_id=who):
                    self.completed.add(who)


def watch(store: Store, story: Story, crash: tuple[int, bool] | None) -> None:
    """Die at the n-th append, before or after it."""
    append, count = store.log.append, [0]

    async def watched(*entries: Entry, **kwargs: Any) -> Any:
        count[0] += 1
        at, after = crash or (10**9, False)
        if count[0] > at or (count[0] == at and not after):
            raise Death
        done = await append(*entries, **kwargs)
        story.see(entries)
        if count[0] == at:
            raise Death
        return done

    store.log.append = watched  # type: ignore[method-assign]


def instead(aborted: Aborted) -> Proposal:
    return plan(write("instead", "instead", len(aborted.failed)))


def runtime(store: Store, story: Story, budget: Budget | None, schedule: str) -> Runtime:
    return Runtime(
        store,
        story.tools(),
        policies=[rules],
        budget=budget,
        backoff=NO_WAIT,
        replan=instead,
        max_replans=1,
        schedule=schedule,
    )


async def live(
    path: Path, people: People, clock: ManualClock, story: Story, crash: Any, **how: Any
) -> Any:
    """One life of a process; the result of the run, or None if it died."""
    proposal = how.pop("proposal")
    async with opened(path, people, clock) as store:
        watch(store, story, crash)
        runs: list[Run] = []
        try:
            one = runtime(store, story, **how)
            if [event async for event in store.log.read(run=RunId("r"))]:
                for found in await one.recover():
                    assert not isinstance(found, RunOwned)
            result = await one.execute(proposal, run_id="r", observe=runs.append)
        except Death:
            return None
        finally:
            people.all_die()
        if runs and crash is None and runs[-1].run_id == result.run_id:
            assert tidy(await load_run(store, result.run_id)) == tidy(runs[-1])
        return result


async def people_act(store: Store, story: Story, run_id: str) -> None:
    """Answer what is asked, send what is waited for, tell what became of calls in doubt."""
    try:
        run = await load_run(store, RunId(run_id))
    except LookupError:
        return
    for state in run.actions:
        name, doubt = state.action.id, state.do.doubt
        if doubt is not None and doubt.answer is None:
            made = (f"{run_id}/{name}", doubt.attempt) in story.done
            if state.action.tool == "bad" and made:
                await resolve(store, run.run_id, name, "failed", error="ValueError: bad")
            elif made:
                output = f"made {state.action.tool}"
                await resolve(store, run.run_id, name, "succeeded", output=output)
            else:
                await resolve(store, run.run_id, name, "retry")
        approval = state.approval
        if approval is not None and approval.is_open(store.clock.now()) and state.status is None:
            for who in ("ann", "bob"):
                try:
                    if name in story.refused:
                        await reject(store, run.run_id, name, by=who)
                    else:
                        await approve(store, run.run_id, name, by=who)
                except (NoApproval, RunOver):
                    break
        if state.wait is not None and state.wait.signal is not None:
            await signal(store, run.run_id, state.wait.signal, "sent")


async def outlive(
    path: Path, deaths: list[tuple[int, bool]], refused: frozenset[str], **how: Any
) -> tuple[dict[str, Any], Story]:
    """Go on until the run, or the one in its place, is over; what it came to, and the story."""
    people, clock, story = People(), ManualClock(), Story(refused)
    result = None
    for crash in [*deaths, *[None] * MAX_LIVES]:
        result = await live(path, people, clock, story, crash, **how)
        if result is not None and result.status != "waiting":
            break
        clock.advance(60 * SECOND)
        async with opened(path, people, clock) as store:
            if await store.log.head() and [x async for x in store.log.read(run=RunId("r"))]:
                await people_act(store, story, "r")
        people.all_die()
    assert result is not None
    assert result.status != "waiting", "it never ended"
    assert story.faults == []
    async with opened(path, people, clock) as store:
        assert (await verify(store)).ok
        for view in LAZY:
            assert await compare(store, view) == []
        for row in await store.leases.rows():
            assert row.holder is None or people.is_gone(row.holder)
        first = await load_run(store, RunId("r"))
        came = {
            "run": result.run_id,
            "status": result.status.value,
            "first": {s.action.id: _came(s) for s in first.actions},
            "state": await state_of(store),
        }
        budget: Budget | None = how["budget"]
        if budget is not None and budget.has_account:
            purse = (await balances(store, "run/r"))["USD"]
            assert purse.reserved == 0
            assert purse.limit is not None
            assert purse.spent <= purse.limit
        return came, story


def _came(state: ActionState) -> Any:
    # When a sleep has ended depends on when it began.
    return state.status, None if state.action.tool == "sleep" else state.output


NAMES = ["send", "pay", "look", "fetch", "forbidden", "bad", "sleep", "wait_signal", "write"]


@st.composite
def plans(draw: st.DrawFn) -> Proposal:
    actions: list[Action] = []
    for n, what in enumerate(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))):
        name = f"{what}{n}"
        behavior = draw(st.sampled_from(["abort", "skip"]))
        needs = [one.id for one in actions if draw(st.integers(0, 3)) == 0]
        fields: dict[str, Any] = {"failure_behavior": behavior, "dependencies": tuple(needs)}
        match what:
            case "write":
                fields["failure_behavior"] = "abort"
                actions.append(write(name, f"k{n}", n, dependencies=tuple(needs)))
                continue
            case "send":
                fields["parameters"] = {"approvers": draw(st.integers(1, 2))}
            case "sleep":
                fields["parameters"] = {"seconds": draw(st.sampled_from([0, 30, 90]))}
            case "wait_signal":
                fields["parameters"] = {"name": "go"}
            case "fetch":
                fields["idempotent"] = draw(st.booleans())
        actions.append(call(name, what, **fields))
    return plan(*actions)


@QUICK
@given(
    proposal=plans(),
    deaths=st.lists(st.tuples(st.integers(1, 16), st.booleans()), min_size=1, max_size=3),
    refused=st.sets(st.sampled_from([f"send{n}" for n in range(5)])),
    budget=st.sampled_from([None, None, Budget(costs={"USD": "0.25"}), Budget(max_actions=3)]),
    schedule=st.sampled_from(["levels", "eager"]),
)
def test_a_death_changes_nothing_of_what_was_decided(
    proposal: Proposal,
    deaths: list[tuple[int, bool]],
    refused: set[str],
    budget: Budget | None,
    schedule: str,
) -> None:
    async def go() -> None:
        how: dict[str, Any] = {"proposal": proposal, "schedule": schedule}
        how["budget"] = budget
        with TemporaryDirectory() as folder:
            calm, _ = await outlive(Path(folder) / "calm.db", [], frozenset(refused), **how)
            found, story = await outlive(Path(folder) / "a.db", deaths, frozenset(refused), **how)
        for name, count in story.calls.items():
            tool_name = name.rpartition("/")[2].rstrip("0123456789")
            if tool_name in ("send", "pay", "bad"):
                assert count == 1, f"{name} was called {count} times"
        aborts = calm["run"] != "r"
        if budget is not None:
            return  # what is lost in a death counts, and a run that stops tries nothing again
        if not aborts:
            assert found == calm
        elif schedule == "levels":
            assert (found["run"], found["state"]) == (calm["run"], calm["state"])

    asyncio.run(asyncio.wait_for(go(), 60))
