"""Tools that do what a case says.

The script of a tool is a list with one entry for each of its calls, the last one for all later
calls too. An entry is one instruction, or a list of them that are carried out in order; an
instruction is an object with one field, its name, and the tool returns None where no `return`
is reached.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import define, field

from engine import ToolContext

if TYPE_CHECKING:
    from tests.conformance.harness import Play

__all__ = ["BadScript", "Died", "Script"]

UNTIL_SECONDS = 5
"""How long a tool waits for another one before it fails."""


class BadScript(Exception):
    """A case that says what cannot be done."""


class Died(Exception):
    """Stands for the end of the process."""


@define
class Returned:
    """What a script gives, once it comes to that."""

    value: Any


@define
class Script:
    """All tools of one case, and what they were asked."""

    play: "Play"
    calls: list[list[Any]] = field(factory=list)
    """Tool and parameters of each call of the step, in the order in which they began."""
    trace: list[str] = field(factory=list)
    """`tool begins` and `tool ends`, in the order in which that happened."""
    faults: list[str] = field(factory=list)
    """What the case asks of its tools that they cannot do."""
    _made: dict[str, int] = field(factory=dict)
    _keys: dict[str, list[str]] = field(factory=dict)
    """The idempotency keys that each tool was handed."""
    _last_read: Any = None

    def begin_step(self) -> None:
        """Forget the calls of the step before; how often each tool was called stays."""
        self.calls, self.trace = [], []

    def _next(self, tool: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        self.calls.append([tool, params])
        self.trace.append(f"{tool} begins")
        entries = self.play.case["tools"][tool].get("script", [{"return": None}])
        count = self._made.get(tool, 0)
        self._made[tool] = count + 1
        entry = entries[min(count, len(entries) - 1)]
        return entry if isinstance(entry, list) else [entry]

    # --- the three ways in which a tool is called ---

    async def act(self, tool: str, params: dict[str, Any], ctx: ToolContext) -> Any:
        """An asynchronous function."""
        self._keys.setdefault(tool, []).append(ctx.idempotency_key)
        try:
            for one in self._next(tool, params):
                [(name, value)] = one.items()
                if await self._wait(name, value, ctx):
                    continue
                given = self._do(name, value, params, ctx)
                if isinstance(given, Returned):
                    return given.value
        finally:
            self.trace.append(f"{tool} ends")
        return None

    def act_in_thread(self, tool: str, params: dict[str, Any], ctx: ToolContext) -> Any:
        """A plain function."""
        for one in self._next(tool, params):
            [(name, value)] = one.items()
            if name == "sleep_ms":
                time.sleep(value / 1000)
            elif name == "read":
                self._last_read = ctx.get(value)
            else:
                given = self._do(name, value, params, ctx)
                if isinstance(given, Returned):
                    return given.value
        return None

    async def execute(self, tool: str, params: dict[str, Any]) -> Any:
        """The `ToolExecutor` of the case: the tools without a function."""
        for one in self._next(tool, params):
            [(name, value)] = one.items()
            given = self._do(name, value, params, None)
            if isinstance(given, Returned):
                return given.value
        return None

    # --- the instructions ---

    async def _wait(self, name: str, value: Any, ctx: ToolContext) -> bool:
        """The instructions that take time; whether it was one of them."""
        match name:
            case "read":
                self._last_read = await ctx.read(value)
            case "sleep":
                await asyncio.Event().wait()
            case "sleep_ms":
                await asyncio.sleep(value / 1000)
            case "until":
                async with asyncio.timeout(UNTIL_SECONDS):
                    while value not in self.trace:
                        await asyncio.sleep(0.001)
            case "until_asked_to_stop":
                async with asyncio.timeout(UNTIL_SECONDS):
                    await ctx.wait_cancelled()
            case "cancel":
                await self.play.do_cancel({"given": value})
            case "signal":
                await self.play.do_signal(value)
            case "others_write":
                await self.play.others_write(value)
            case _:
                return False
        return True

    def _do(
        self, name: str, value: Any, params: dict[str, Any], ctx: ToolContext | None
    ) -> Returned | None:
        match name:
            case "return":
                return Returned(value)
            case "return_params":
                return Returned(params)
            case "return_read":
                return Returned(self._last_read)
            case "return_no_json":
                return Returned({"a set", "is no JSON"})
            case "return_chars":
                return Returned("x" * value)
            case "raise":
                raise ValueError(value)
            case "pass_ms":
                self.play.clock.advance(value * 1000)
            case "die":
                self.play.dying = True
            case _ if ctx is not None:
                return self._with_context(name, value, ctx)
            case _:
                self._refuse(f"{name} needs a context")
        return None

    def _refuse(self, why: str) -> NoReturn:
        """The engine takes whatever a tool raises for its failure; so the case is told apart."""
        self.faults.append(why)
        raise BadScript(why)

    def _with_context(self, name: str, value: Any, ctx: ToolContext) -> Returned | None:
        match name:
            case "set":
                for key, item in value.items():
                    ctx.set(key, item)
            case "add_to_read":
                ctx.set(value["key"], self._last_read + value["amount"])
            case "delete":
                ctx.delete(value)
            case "meter":
                ctx.meter(**value)
            case "log":
                ctx.log(value["message"], **value.get("data", {}))
            case "return_attempt":
                return Returned(ctx.attempt)
            case "return_whether_key_is_old":
                return Returned(self._keys[ctx.tool].count(ctx.idempotency_key) > 1)
            case _:
                self._refuse(f"there is no instruction {name}")
        return None
