"""What each stage of an action costs when it has nothing to do: no rules, budgets or limits.

The stages are called as the driver calls them, one action after the other, without a store behind:
nothing is appended and no tool is called. So the figures are of the engine's own code, warm.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from attrs import define, field

from benchmarks.harness import Goal, Options, Row, benchmark, folder
from benchmarks.plans import count
from carstore import Store, connect
from carstore import events as e
from engine import Action, Proposal, Runtime, bounds, dispatch
from engine.action_state import ActionState
from engine.begin import Ready, parameters_digest, resolved
from engine.buffered import Buffered
from engine.desk import Desk
from engine.drive import Driver
from engine.execute import Call, Ending, Outcome
from engine.journal import Journal, StateOverlay
from engine.propose import Terms, new_run_id, received
from engine.run import Run
from engine.stop import stop_if_due
from engine.taking import take
from engine.validate import reasons_against

MOST_MICROSECONDS = 10

NOTHING = Buffered(reads={}, changes={}, metered=(), lines=(), lines_left_out=0)


@benchmark("stages")
def stages(options: Options) -> list[Row]:
    """Microseconds of each stage for one action, the median of many rounds."""
    return asyncio.run(idle_stages(options, actions=100, rounds=21 if options.quick else 201))


async def idle_stages(options: Options, actions: int, rounds: int) -> list[Row]:
    """The same, for plans of so many actions, so many times."""
    taken: dict[str, list[float]] = {}
    with folder(options) as place:
        async with connect(Path(place) / "stages.db", durability="crash") as store:
            for _ in range(rounds):
                for name, micros in _Round.of(store, actions).taken().items():
                    taken.setdefault(name, []).append(micros)
    return [
        Row(
            case=f"{name}, with nothing to do",
            unit="us",
            measured=statistics.median(found),
            goal=Goal(at_most=MOST_MICROSECONDS),
            details={"least_us": min(found)},
        )
        for name, found in taken.items()
    ]


@define
class _Round:
    """A run of which nothing is recorded, and what its stages made of its actions so far."""

    desk: Desk
    driver: Driver
    begun: list[Ready] = field(factory=list)
    made: list[Call] = field(factory=list)

    @classmethod
    def of(cls, store: Store, actions: int) -> "_Round":
        runtime = Runtime(store, [count], schedule="eager")
        plan = Proposal(
            source="bench",
            actions=[
                Action(id=f"s{number}", tool="count", parameters={"n": number})
                for number in range(actions)
            ],
        )
        first = received(plan, runtime.tools, runtime.options, store.log_id, Terms())
        run = Run.begin(new_run_id(), first, plan)
        journal = Journal(store, run, StateOverlay(runtime.options.scope), is_new=True)
        desk = Desk(journal, runtime._runs.equipment)
        driver = Driver(desk, lambda _: None)
        _done(driver._read_inbox())  # the first look is due at once
        return cls(desk, driver)

    def taken(self) -> dict[str, float]:
        """Microseconds of each stage per action, in the order of the pipeline."""
        each: dict[str, Callable[[int, ActionState], object]] = {
            "resolve": self.resolve,
            "authority": self.authority,
            "validation": self.validation,
            "reuse": self.reuse,
            "rate limit": self.rate_limit,
            "budget": self.budget,
            "intent": self.intent,
            "dispatch": self.dispatch,
            "outcome": self.outcome,
            "inbox": self.inbox,
        }
        found = {}
        for name, stage in each.items():
            began = time.perf_counter_ns()
            for index, state in enumerate(self.desk.run.actions):
                stage(index, state)
            found[name] = (time.perf_counter_ns() - began) / len(self.desk.run.actions) / 1_000
        return found

    def resolve(self, _: int, state: ActionState) -> None:
        _done(self.desk.values_for(state.action.parameters))
        parameters = resolved(self.desk.run, state.action.parameters, {})
        self.begun.append(Ready(parameters=parameters, given=parameters, tool=count))

    def authority(self, index: int, state: ActionState) -> None:
        _done(bounds.count_calls(self.desk))
        bounds.judge(self.desk, state.action, count, self.begun[index].given)

    def validation(self, index: int, state: ActionState) -> None:
        read = self.desk.journal.state.read
        reasons_against(state.action, self.begun[index].given, count, read)

    def reuse(self, index: int, state: ActionState) -> None:
        dispatch._memory_key(self.desk, state, count, self.begun[index])

    def rate_limit(self, index: int, _: ActionState) -> None:
        _done(dispatch._rate_limited(self.desk, index, count))

    def budget(self, index: int, state: ActionState) -> None:
        bounds.over_budget(self.desk, index, state)
        _done(dispatch._reserve(self.desk, index, state, count, 1))

    def intent(self, index: int, state: ActionState) -> None:
        digest = parameters_digest(self.begun[index].parameters)
        intent = e.ActionExecuting(
            action_id=state.action.id,
            attempt=1,
            tool=count.name,
            effect=count.schema.effect.value,
            parameters_digest=digest,
        )
        self.desk.record([intent])

    def dispatch(self, index: int, state: ActionState) -> None:
        made = Call(
            index=index,
            undo=False,
            attempt=1,
            tool=count,
            parameters=self.begun[index].given,
            timeout_ms=None,
            grounds={},
            context=self.desk.context(state, count, 1, set(), undo=False),
        )
        self.made.append(made)

    def outcome(self, index: int, _: ActionState) -> None:
        outcome = Outcome(
            call=self.made[index],
            ending=Ending.RETURNED,
            output=index,
            duration_us=1,
            buffered=NOTHING,
        )
        _done(take(self.desk, outcome))

    def inbox(self, _: int, __: ActionState) -> None:
        _done(self.driver._read_inbox())
        stop_if_due(self.desk)
        _done(self.driver._hear_answers())


def _done(step: Coroutine[Any, Any, object]) -> None:
    """Take a step that does not have to wait for anything."""
    try:
        step.send(None)
    except StopIteration:
        return
    raise AssertionError(f"{step} waits")
