"""Plays a case of the table, and tells what is to be seen of it.

A case is data (see README.md). `Play` carries out its steps on a file of its own, under a clock
that moves only when a step or a tool says so, with tools that do what their script says.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from attrs import asdict, define, field

from carstore.clock import ManualClock
from carstore.errors import CarstoreError
from carstore.log import Recorded
from carstore.names import RunId, Scope, run_stream
from carstore.store import Store
from engine import InvalidProposal, Runtime, ToolContext, ToolSchema, resolve, tool
from engine.approvals import approve, reject
from engine.cancel import cancel
from engine.ledger import set_budget
from engine.prove.people import People, opened
from engine.rules.retries import Backoff
from engine.signals import signal
from engine.tools import RateLimit
from tests.conformance.rules import budget_of, rules_of, set_up
from tests.conformance.scripts import BadScript, Died, Script

__all__ = ["Case", "Play", "Step", "play"]

Case = dict[str, Any]
Step = dict[str, Any]

NO_WAIT = {"base_ms": 0}
"""Retries without delay, where a case says nothing of delays."""

STEP_SECONDS = 20
"""After which a step that hangs fails."""


@define
class Play:
    """One case being played."""

    case: Case
    path: Path
    clock: ManualClock = field(factory=ManualClock)
    people: People = field(factory=People)
    script: Script = field(init=False)
    dying: bool = False
    """Whether the process is to end at its next append."""
    _stack: AsyncExitStack | None = None
    _store: Store | None = None
    _runtime: Runtime | None = None
    _others: int = 0

    def __attrs_post_init__(self) -> None:
        self.script = Script(self)

    # --- the store ---

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    async def open(self) -> None:
        """Open the file as a process of its own."""
        self._stack = AsyncExitStack()
        self._store = await self._stack.enter_async_context(
            opened(self.path, self.people, self.clock)
        )
        append = self._store.log.append

        async def append_unless_dead(*entries: Any, **kwargs: Any) -> Any:
            if self.dying:
                raise Died
            return await append(*entries, **kwargs)

        self._store.log.append = append_unless_dead  # type: ignore[method-assign]
        self._runtime = None

    async def close(self) -> None:
        """End the process; if it was dying, whoever comes next finds it gone."""
        assert self._stack is not None
        self._runtime = None
        with suppress(Died):
            await self._stack.aclose()
        if self.dying:
            self.people.all_die()
        self.dying = False

    async def others_write(self, values: dict[str, Any], scope: str = "main") -> None:
        """Change the state as another run would."""
        self._others += 1
        actions = [
            {"id": f"w{n}", "type": "state_write", "parameters": {"key": key, "value": value}}
            for n, (key, value) in enumerate(values.items())
        ]
        name = f"other-{self._others}"
        done = await Runtime(self.store, scope=scope).execute({"actions": actions}, run_id=name)
        assert done.status == "succeeded"

    # --- the steps ---

    def runtime(self, options: dict[str, Any]) -> Runtime:
        """The runtime of the open store; a step with options of its own has one of its own."""
        given = {**self.case.get("options", {}), **options}
        if options or self._runtime is None:
            made = self._made(given)
            if options:
                return made
            self._runtime = made
        return self._runtime

    def _made(self, given: dict[str, Any]) -> Runtime:
        later = {name: given.pop(name, {}) for name in ("rate_limits", "caches")}
        backoff = Backoff(**given.pop("backoff", NO_WAIT))
        executor = self.script if given.pop("executor", True) else None
        tools = [self._tool(name, spec) for name, spec in self.case.get("tools", {}).items()]
        rules = rules_of(given)
        made = Runtime(self.store, tools, backoff=backoff, executor=executor, **rules, **given)
        set_up(made, later)
        return made

    def _tool(self, name: str, spec: dict[str, Any]) -> Any:
        declared = dict(spec.get("declare", {}))
        if "rate_limit" in declared:
            declared["rate_limit"] = RateLimit(**declared["rate_limit"])
        if spec.get("by") == "executor":
            return ToolSchema(name=name, **declared)
        declared.setdefault("parameters", {"type": "object"})

        async def act(ctx: ToolContext, **params: Any) -> Any:
            return await self.script.act(name, params, ctx)

        def act_in_thread(ctx: ToolContext, **params: Any) -> Any:
            return self.script.act_in_thread(name, params, ctx)

        function = act_in_thread if spec.get("by") == "thread" else act
        return tool(name=name, **declared)(function)

    async def step(self, step: Step) -> dict[str, Any]:
        """Carry out one step; what is seen of it, by the names of expectations."""
        self.script.begin_step()
        verb: Callable[[Step], Awaitable[dict[str, Any]]] = getattr(self, f"do_{step['do']}")
        try:
            seen = await asyncio.wait_for(verb(step), STEP_SECONDS)
        except InvalidProposal as error:
            told = [[one.code.value, one.path, one.message] for one in error.problems]
            seen = {"problems": told, "recorded": await self._is_recorded(step)}
        except CarstoreError as error:
            seen = {"error": [error.code, error.message]}
        except Died:
            seen = {"died": True}
        if self.script.faults:
            raise BadScript("; ".join(self.script.faults))
        return {**seen, "calls": self.script.calls, "trace": self.script.trace}

    async def _is_recorded(self, step: Step) -> bool:
        return bool([one async for one in self.store.log.read(run=RunId(step.get("run", "r")))])

    async def do_execute(self, step: Step) -> dict[str, Any]:
        plan: dict[str, Any] = step["plan"] if "plan" in step else self.case["plan"]
        runtime = self.runtime(step.get("options", {}))
        given = dict(step.get("given", {}))
        if "budget" in given:
            given["budget"] = budget_of(given["budget"])
        result = await runtime.execute(plan, run_id=step.get("run", "r"), **given)
        return await self.seen(result)

    async def do_together(self, step: Step) -> dict[str, Any]:
        """Several runs at once; what is seen of each, by its id."""
        seen = await asyncio.gather(*[self.do_execute(one) for one in step["runs"]])
        names = [one["run"] for one in step["runs"]]
        return {
            what: {name: one[what] for name, one in zip(names, seen, strict=True)}
            for what in ("status", "actions", "outputs", "events", "cost")
        }

    async def do_resume(self, step: Step) -> dict[str, Any]:
        runtime = self.runtime(step.get("options", {}))
        return await self.seen(await runtime.resume(step.get("run", "r")))

    async def do_restart(self, _: Step) -> dict[str, Any]:
        await self.close()
        await self.open()
        return {}

    async def do_write(self, step: Step) -> dict[str, Any]:
        await self.others_write(step["state"])
        return {}

    async def do_pass(self, step: Step) -> dict[str, Any]:
        self.clock.advance(round(step["seconds"] * 1_000_000))
        return {}

    async def do_resolve(self, step: Step) -> dict[str, Any]:
        answer = {"by": "ada", **step["answer"]}
        await resolve(self.store, RunId(step.get("run", "r")), step["action"], **answer)
        return {}

    async def do_approve(self, step: Step) -> dict[str, Any]:
        return {"missing": await approve(self.store, step.get("run", "r"), **step["answer"])}

    async def do_reject(self, step: Step) -> dict[str, Any]:
        await reject(self.store, step.get("run", "r"), **step["answer"])
        return {}

    async def do_signal(self, step: Step) -> dict[str, Any]:
        await signal(self.store, step.get("run", "r"), step["name"], step.get("value"), by="ada")
        return {}

    async def do_cancel(self, step: Step) -> dict[str, Any]:
        given = {"by": "ada", **step.get("given", {})}
        return {"asked": await cancel(self.store, step.get("run", "r"), **given)}

    async def do_set_budget(self, step: Step) -> dict[str, Any]:
        await set_budget(self.store, step["name"], step["costs"], by="ada")
        return {}

    # --- what is seen ---

    async def seen(self, result: Any) -> dict[str, Any]:
        """Everything a case may say of a run that was driven."""
        history = [one async for one in self.store.log.read(run=result.run_id)]
        stream = run_stream(result.run_id)
        scope = self.case.get("options", {}).get("scope", "main")
        state = await self.store.log.state_of(Scope(scope))
        cost = asdict(result.cost)
        return {
            "status": result.status.value,
            "waits_for": result.waits_for,
            "stopped": result.stopped,
            "replaces": result.replaces,
            "run_id": result.run_id,
            "actions": {one.action_id: _told(one) for one in result.results},
            "outputs": {one.action_id: one.output for one in result.results},
            "attempts": {one.action_id: one.attempts for one in result.results},
            "changes": {one.action_id: one.state_changes for one in result.results},
            "not_undone": {one.action_id: one.reason for one in result.not_undone},
            "conflicts": [one.key for one in result.conflicts],
            "cost": {name: value for name, value in cost.items() if value},
            "events": [_line(one) for one in history if one.stream == stream],
            "state": {str(key): found.value for key, found in state.items()},
            "details": [[one.kind, _data(one)] for one in history],
            "delays_ms": [one.event.delay_ms for one in history if hasattr(one.event, "delay_ms")],
        }


def _told(one: Any) -> Any:
    status = "rolled_back" if one.rolled_back else one.status.value
    # Where in the log something stands is not for a case to know.
    return status if one.error is None else [status, _POSITION.sub(r"\1 #", one.error)]


_POSITION = re.compile(r"\b(position|changed at) [0-9]+")


_SUBJECTS = ("action_id", "key", "status", "cause", "reason")
"""What an event is about: the first of these fields that it has."""

_WITHOUT_SUBJECT = ("proposal_received", "state_rollback")


def _data(recorded: Recorded) -> dict[str, Any]:
    """The fields of an event; the key of a change of state stands in a column of its own."""
    data: dict[str, Any] = json.loads(recorded.data)
    key = getattr(recorded.event, "key", None)
    return data if key is None else {**data, "key": key}


def _line(recorded: Recorded) -> str:
    """An event in a few words: its kind, and what it is about."""
    if recorded.kind in _WITHOUT_SUBJECT:
        return recorded.kind
    data = _data(recorded)
    words = [recorded.kind, *[str(data[name]) for name in _SUBJECTS if name in data][:1]]
    return " ".join([*words, "(deleted)"] if data.get("deleted") else words)


async def _play(case: Case, path: Path) -> list[dict[str, Any]]:
    stage = Play(case, path)
    await stage.open()
    try:
        if case.get("state"):
            await stage.others_write(case["state"], case.get("options", {}).get("scope", "main"))
        return [await stage.step(step) for step in case["steps"]]
    finally:
        await stage.close()


def play(case: Case, path: Path) -> list[dict[str, Any]]:
    """Play a case in a new file; what was seen of each of its steps."""
    return asyncio.run(_play(case, path))
