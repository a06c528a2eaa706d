"""What the benchmarks run: tools that do next to nothing, plans of them, and logs with a past.

A past is not executed but appended in bulk, thousands of events at once: the same kinds of events
that executing leaves behind, for other runs and keys. That takes seconds instead of minutes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from attrs import evolve

from carstore import Store
from carstore.events import (
    ActionExecuting,
    ActionSucceeded,
    Event,
    InferenceMetered,
    StateChanged,
)
from carstore.log import Entry
from carstore.names import RunId, run_stream
from engine import Action, ActionType, Proposal, Runtime, tool

KEYS = 10_000
"""Different keys of state in a log with a past."""

AGENTS = 20

_BULK_EVENTS = 2_000
_BULKS_QUEUED = 4


@tool
async def count(n: int) -> int:
    """A tool that may not be repeated, on the event loop."""
    return n + 1


@tool
def count_in_thread(n: int) -> int:
    """The same, in a thread."""
    return n + 1


@tool
async def say(n: int) -> str:
    """A short answer of a model."""
    return said(n)


def said(n: int) -> str:
    """Two hundred characters, different for each number."""
    return (f"{n}: " + "what a model answers when it is asked to be brief, " * 4)[:200]


def chain(steps: int, name: str = "count") -> Proposal:
    """So many tool calls, one after the other."""
    return Proposal(
        source="bench",
        actions=[
            Action(
                id=f"s{number}",
                tool=name,
                parameters={"n": number},
                dependencies=[f"s{number - 1}"] if number else [],
            )
            for number in range(steps)
        ],
    )


def state_plan(first_key: int) -> Proposal:
    """Ten writes of state."""
    return Proposal(
        source="bench",
        actions=[
            Action(
                id=f"w{number}",
                type=ActionType.STATE_WRITE,
                parameters={"key": f"key-{(first_key + number) % KEYS}", "value": number},
            )
            for number in range(10)
        ],
    )


async def template(store: Store) -> list[Event]:
    """What one executed state plan leaves in the log."""
    result = await Runtime(store).execute(state_plan(0))
    return [recorded.event async for recorded in store.log.read(stream=run_stream(result.run_id))]


async def grow_plans(store: Store, plans: int) -> None:
    """Append the events of so many state plans, no two plans in a row on the same keys."""
    pattern = await template(store)

    def plan(number: int) -> Iterator[Entry]:
        run_id = RunId(f"past-{number:012d}")
        written = 0
        for event in pattern:
            if isinstance(event, StateChanged):
                key = f"key-{(number * 10 + written) % KEYS}"
                event = evolve(event, key=key, value=number, prev=None)
                written += 1
            yield Entry(run_stream(run_id), event, run_id)

    await _append(store, (entry for number in range(1, plans) for entry in plan(number)))


async def grow_mixed(store: Store, events: int) -> None:
    """Append so many events of metered tool calls: intent, metering, outcome, change of state."""
    makers: Sequence[Callable[[int], Event]] = (_intent, _metering, _outcome, _change)

    def entry(number: int) -> Entry:
        run_id = RunId(f"past-{number // 40:012d}")
        return Entry(run_stream(run_id), makers[number % 4](number // 4), run_id)

    await _append(store, map(entry, range(events)))


async def _append(store: Store, entries: Iterator[Entry]) -> None:
    queued: deque[asyncio.Future[object]] = deque()
    while bulk := list(islice(entries, _BULK_EVENTS)):
        queued.append(await store.log.submit(*bulk))  # type: ignore[arg-type]
        if len(queued) > _BULKS_QUEUED:
            await queued.popleft()
    await asyncio.gather(*queued)


def _intent(number: int) -> Event:
    return ActionExecuting(
        action_id=f"action-{number % 10}",
        attempt=1,
        tool="complete",
        effect="once",
        parameters_digest="ab" * 32,
    )


def _metering(number: int) -> Event:
    return InferenceMetered(
        agent=f"agent-{number % AGENTS}",
        action_id=f"action-{number % 10}",
        attempt=1,
        n=0,
        model="model-1",
        tokens_in=number % 4_000,
        tokens_out=number % 1_000,
        cost_micros=number % 50_000,
    )


def _outcome(number: int) -> Event:
    return ActionSucceeded(
        action_id=f"action-{number % 10}",
        attempt=1,
        output={"text": "a short answer", "number": number},
        duration_us=1_234,
    )


def _change(number: int) -> Event:
    return StateChanged(scope="main", key=f"key-{number % KEYS}", value={"number": number})
