"""Running plans in tests: tools that note their calls, and everything that can be seen of a run."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen

from carstore import connect
from carstore.clock import Clock, SystemClock
from carstore.holders import SystemProcesses
from carstore.log import Recorded
from carstore.names import RunId, Scope
from carstore.store import Store
from engine import Action, Proposal, Runtime, Tool, tool
from engine.ir import FailureBehavior, Reversibility, RunResult
from engine.journal import load_run
from engine.prove.people import People
from engine.rules.retries import Backoff
from engine.run import Run

NO_WAIT = Backoff(base_ms=0)
"""Retries without delay."""

_Event = TypeVar("_Event")
_Function = Callable[..., Coroutine[Any, Any, None]]

ANYTHING: dict[str, Any] = {"type": "object"}
"""The schema of a tool that takes any parameters."""


def in_loop(function: _Function) -> Callable[..., None]:
    """Run an asynchronous test; one that hangs fails."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(function(*args, **kwargs), 30))

    signature = inspect.signature(function)
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


@define
class Hands:
    """Makes tools that note their calls.

    `calls` holds (tool, parameters) in the order in which the calls began.
    """

    calls: list[tuple[str, Any]] = field(factory=list)

    def tool(
        self,
        name: str,
        output: Any = None,
        *,
        fails: int = 0,
        does: Callable[..., Any] | None = None,
        **declared: Any,
    ) -> Tool:
        """A tool that fails so many times, and then gives `output`, or what `does` returns."""
        left = [fails]

        async def function(**params: Any) -> Any:
            self.calls.append((name, params))
            if left[0] > 0:
                left[0] -= 1
                raise ValueError(f"{name} failed")
            if does is None:
                return output
            done = does(**params)
            return await done if inspect.isawaitable(done) else done

        return tool(name=name, parameters=ANYTHING, **declared)(function)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@frozen
class Seen:
    """What can be seen of a run after a driver has let go of it."""

    result: RunResult
    history: list[Recorded]
    """Of the run: its stream, its inbox and its lease."""
    state: dict[str, Any]
    live: Run
    """As the driver left it."""
    folded: Run
    """As the log tells it."""

    @property
    def status(self) -> str:
        return self.result.status.value

    @property
    def statuses(self) -> dict[str, str]:
        return {one.action_id: one.status.value for one in self.result.results}

    @property
    def errors(self) -> dict[str, str | None]:
        return {one.action_id: one.error for one in self.result.results}

    @property
    def outputs(self) -> dict[str, Any]:
        return {one.action_id: one.output for one in self.result.results}

    def of(self, action_id: str) -> Any:
        """The result of one action."""
        return next(one for one in self.result.results if one.action_id == action_id)

    def events(self, *kinds: type[_Event]) -> list[_Event]:
        return [one.event for one in self.history if isinstance(one.event, kinds)]  # type: ignore

    @property
    def kinds(self) -> list[str]:
        return [one.kind for one in self.history]


def tidy(run: Run) -> Run:
    """A run without what only its driver uses, which the log does not tell."""
    return evolve(run, settled=[], unstamped=[])


def plan(*actions: Action, **fields: Any) -> Proposal:
    return Proposal(id="p", actions=list(actions), **fields)


def call(name: str, tool_name: str | None = None, **fields: Any) -> Action:
    """An action that calls a tool, of the same name unless said."""
    for field_name, kind in (
        ("failure_behavior", FailureBehavior),
        ("reversibility", Reversibility),
    ):
        if field_name in fields:
            fields[field_name] = kind(fields[field_name])
    return Action(id=name, tool=tool_name or name, **fields)


def write(name: str, key: str, value: Any, **fields: Any) -> Action:
    return Action(id=name, type="state_write", parameters={"key": key, "value": value}, **fields)


def read(name: str, key: str, **fields: Any) -> Action:
    return Action(id=name, type="state_read", parameters={"key": key}, **fields)


def check(name: str, key: str, expected: Any, **fields: Any) -> Action:
    parameters = {"key": key, "expected": expected}
    return Action(id=name, type="assertion", parameters=parameters, **fields)


@asynccontextmanager
async def opened(
    path: Path, people: People | None = None, clock: Clock | None = None
) -> AsyncIterator[Store]:
    """The store of a test: as fast as it can be, and with processes that do what they are told."""
    async with connect(
        path,
        durability="crash",
        processes=people or SystemProcesses(),
        clock=clock or SystemClock(),
    ) as store:
        yield store


def runtime(store: Store, tools: Sequence[Any], **options: Any) -> Runtime:
    return Runtime(store, tools, **{"backoff": NO_WAIT, **options})


async def look(store: Store, result: RunResult, live: Run) -> Seen:
    """Everything about a run, and that the log tells the same as its driver knew."""
    folded = await load_run(store, result.run_id)
    assert tidy(folded) == tidy(live)
    return Seen(
        result=result,
        history=[one async for one in store.log.read(run=result.run_id)],
        state=await state_of(store, live.received.scope),
        live=live,
        folded=folded,
    )


async def state_of(store: Store, scope: str = "main") -> dict[str, Any]:
    return {str(k): v.value for k, v in (await store.log.state_of(Scope(scope))).items()}


async def execute(
    store: Store, tools: Sequence[Any], proposal: Any, *, run_id: str | None = None, **options: Any
) -> Seen:
    """Execute a proposal; options are those of `Runtime`."""
    runs: list[Run] = []
    result = await runtime(store, tools, **options).execute(
        proposal, run_id=run_id, observe=runs.append
    )
    live = runs[-1] if runs else await load_run(store, result.run_id)
    return await look(store, result, live)


async def resume(store: Store, tools: Sequence[Any], run_id: str, **options: Any) -> Seen:
    runs: list[Run] = []
    result = await runtime(store, tools, **options).resume(run_id, observe=runs.append)
    live = runs[-1] if runs else await load_run(store, RunId(run_id))
    return await look(store, result, live)


def run_plan(
    path: Path, tools: Sequence[Any], *actions: Action, before: Any = None, **options: Any
) -> Seen:
    """Execute a plan in a store of its own; `before` are state keys to set first."""

    async def go() -> Seen:
        async with opened(path) as store:
            if before:
                await set_state(store, before)
            return await execute(store, tools, plan(*actions), **options)

    return asyncio.run(asyncio.wait_for(go(), 30))


async def set_state(store: Store, values: dict[str, Any], run_id: str | None = None) -> None:
    """Change state as another run would."""
    actions = [write(f"w{n}", key, value) for n, (key, value) in enumerate(values.items())]
    done = await Runtime(store).execute(plan(*actions), run_id=run_id)
    assert done.status == "succeeded"


def count_appends(store: Store) -> list[int]:
    """The number of events of each append from now on."""
    sizes: list[int] = []
    append = store.log.append

    async def counting(*entries: Any, **kwargs: Any) -> Any:
        sizes.append(len(entries))
        return await append(*entries, **kwargs)

    store.log.append = counting  # type: ignore[method-assign]
    return sizes


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for something that other tasks or threads bring about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
