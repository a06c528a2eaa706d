"""One call of a tool: on the event loop if it is asynchronous, else in a thread.

What a tool does, its call either returns or raises as an `Exception`. A tool that ends the
interpreter, or cancels itself, has failed like any other; it does not take the engine along.
"""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, ClassVar

from attrs import define

from carstore.errors import CarstoreError
from carstore.names import Json
from engine.context import ToolContext, current_context
from engine.rules.copies import own_copy
from engine.tools import NoToolExecutor, Tool, ToolExecutor

__all__ = ["ToolStopped", "call"]


@define(slots=False, eq=False)
class ToolStopped(CarstoreError):
    """A tool ended in a way that would have ended more than its call."""

    code: ClassVar[str] = "tool_stopped"
    tool: str
    how: str

    @property
    def message(self) -> str:
        return f"tool {self.tool!r} {self.how}"


async def call(
    tool: Tool,
    params: dict[str, Json],
    context: ToolContext | None,
    threads: Executor,
    *,
    executor: ToolExecutor | None = None,
) -> Json:
    """Call `tool` once and return its output, whatever that is.

    The tool gets its own copy of `params`, so that what it does to them is not seen by the next
    attempt. A plain function runs in one of `threads`, with the context variables of the caller.
    If this is cancelled, an asynchronous tool is too, but a thread goes on.

    Args:
        executor: carries out tools without a function.

    Raises:
        NoToolExecutor: if the tool has no function and there is no `executor`.
        ToolStopped: if the tool called `sys.exit`, cancelled itself, or raised `StopIteration`.
        Exception: what the tool raised.
    """
    params = own_copy(params)
    if tool.function is None:
        if executor is None:
            raise NoToolExecutor
        token = current_context.set(context)
        try:
            return await _outcome(tool.name, executor.execute(tool.name, params))
        finally:
            current_context.reset(token)
    function = _with_context(tool, tool.function, context)
    if tool.is_async:
        return await _outcome(tool.name, _awaited(function, params))
    work = functools.partial(_in_thread, tool.name, function, params)
    run = contextvars.copy_context().run
    loop = asyncio.get_running_loop()
    output = await _outcome(tool.name, loop.run_in_executor(threads, run, work))
    # A decorator may hide that a function is asynchronous; what it returned is not run yet.
    return await _outcome(tool.name, output) if inspect.isawaitable(output) else output


def _with_context(
    tool: Tool, function: Callable[..., Any], context: ToolContext | None
) -> Callable[..., Any]:
    if tool.context_parameter is None:
        return function
    if context is None:
        raise TypeError(f"tool {tool.name!r} takes a ToolContext, but there is none")
    return functools.partial(_call_with, function, tool.context_parameter, context)


def _call_with(
    function: Callable[..., Any], name: str, context: ToolContext, /, **params: Json
) -> Any:
    return function(**params, **{name: context})


async def _awaited(function: Callable[..., Any], params: dict[str, Json]) -> Json:
    return await function(**params)


def _in_thread(name: str, function: Callable[..., Any], params: dict[str, Json]) -> Json:
    try:
        return function(**params)
    except (StopIteration, GeneratorExit, KeyboardInterrupt) as error:
        # Futures cannot hold the first, and the others would end more than the call.
        raise ToolStopped(name, f"raised {type(error).__name__}") from error


async def _outcome(name: str, call: Awaitable[Json]) -> Json:
    try:
        return await call
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ToolStopped(name, "cancelled itself") from error
    except SystemExit as error:
        raise ToolStopped(name, f"called sys.exit({error.code!r:.80})") from error
