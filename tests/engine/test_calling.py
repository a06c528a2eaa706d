"""One call of a tool, on the loop or in a thread."""

import asyncio
import concurrent.futures
import contextvars
import functools
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from carstore.names import Json
from engine.calling import ToolStopped, call
from engine.context import ToolContext
from engine.tools import NoToolExecutor, Tool, ToolExecutor, Tools, tool

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


def run(test: Callable[[ThreadPoolExecutor], Coroutine[Any, Any, Any]]) -> Any:
    with ThreadPoolExecutor(2) as threads:
        return asyncio.run(asyncio.wait_for(test(threads), timeout=20))


def called(
    called: Tool,
    params: dict[str, Json],
    context: ToolContext | None = None,
    executor: ToolExecutor | None = None,
) -> Json:
    return run(lambda threads: call(called, params, context, threads, executor=executor))


@tool
def add(a: int, b: int = 1) -> int:
    return a + b


@tool
async def add_later(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@pytest.mark.parametrize("one", [add, add_later])
def test_the_output_is_what_the_function_returns(one: Tool) -> None:
    assert called(one, {"a": 1}) == 2
    assert called(one, {"a": 1, "b": 2}) == 3


def test_plain_functions_run_in_a_thread_and_others_on_the_loop() -> None:
    @tool
    def plain() -> bool:
        return threading.current_thread() is threading.main_thread()

    @tool
    async def on_loop() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert called(plain, {}) is False
    assert called(on_loop, {}) is True


def test_the_context_is_handed_over() -> None:
    @tool
    def plain(a: int, ctx: ToolContext) -> Any:
        ctx.set("seen", a)
        return [ctx.attempt, ctx.get("held")]

    @tool
    async def on_loop(a: int, handle: ToolContext) -> Any:
        handle.set("seen", a)
        return [handle.attempt, await handle.read("held")]

    for one in (plain, on_loop):
        context = ToolContext.detached({"held": 5}, attempt=3)
        assert called(one, {"a": 1}, context) == [3, 5]
        assert context.changes == {"seen": 1}
        with pytest.raises(TypeError, match="takes a ToolContext, but there is none"):
            called(one, {"a": 1})


def test_a_plan_cannot_pass_off_a_parameter_as_the_context() -> None:
    @tool(parameters={})
    def plain(ctx: ToolContext, **rest: Any) -> Any:
        return ctx.attempt

    with pytest.raises(TypeError, match="multiple values"):
        called(plain, {"ctx": {"attempt": 9}}, ToolContext.detached())


def test_a_tool_may_have_parameters_of_any_name() -> None:
    @tool(parameters={})
    def plain(ctx: ToolContext, **rest: Any) -> Any:
        return rest

    names = {"function": 1, "name": 2, "context": 3, "self": 4, "params": 5, "tool": 6}
    assert called(plain, names, ToolContext.detached()) == names


def test_context_variables_reach_the_thread_and_do_not_come_back() -> None:
    @tool
    def plain() -> str:
        before = request.get()
        request.set("changed")
        return before

    async def test(threads: ThreadPoolExecutor) -> None:
        request.set("mine")
        assert await call(plain, {}, None, threads) == "mine"
        assert request.get() == "mine"

    run(test)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_tool_does_to_its_parameters_stays_with_it(asynchronous: bool) -> None:
    def plain(items: list[Any]) -> int:
        items[0]["n"].append(1)
        return len(items)

    async def on_loop(items: list[Any]) -> int:
        return plain(items)

    params: dict[str, Json] = {"items": [{"n": []}]}
    assert called(tool(on_loop if asynchronous else plain), params) == 1
    assert params == {"items": [{"n": []}]}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), KeyError("k"), TimeoutError(), MemoryError()])
def test_what_a_tool_raises_is_raised(asynchronous: bool, error: Exception) -> None:
    def plain() -> None:
        raise error

    async def on_loop() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        called(tool(on_loop if asynchronous else plain), {})
    assert caught.value.args == error.args


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(3), r"called sys.exit\(3\)"),
        (asyncio.CancelledError(), "cancelled itself"),
    ],
)
def test_a_tool_that_would_end_more_than_its_call_has_failed(
    asynchronous: bool, error: BaseException, said: str
) -> None:
    def plain() -> None:
        raise error

    async def on_loop() -> None:
        raise error

    with pytest.raises(ToolStopped, match=said) as caught:
        called(tool(on_loop if asynchronous else plain), {})
    assert caught.value.code == "tool_stopped"


def test_a_cancelled_future_in_a_thread_does_not_cancel_the_caller() -> None:
    @tool
    def plain() -> None:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.cancel()
        future.result()

    with pytest.raises(ToolStopped, match="cancelled itself"):
        called(plain, {})


def test_stop_iteration_does_not_leave_the_caller_waiting() -> None:
    @tool
    def plain() -> Any:
        return next(iter([]))

    @tool
    async def on_loop() -> Any:
        return next(iter([]))

    with pytest.raises(ToolStopped, match="raised StopIteration"):
        called(plain, {})
    with pytest.raises(RuntimeError, match="StopIteration"):
        called(on_loop, {})


def test_cancelling_the_call_cancels_an_asynchronous_tool() -> None:
    seen: list[str] = []

    @tool
    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def test(threads: ThreadPoolExecutor) -> None:
        calling = asyncio.create_task(call(waits, {}, None, threads))
        await asyncio.sleep(0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await call(waits, {}, None, threads)

    run(test)
    assert seen == ["cancelled", "cancelled"]


def test_cancelling_the_call_does_not_stop_a_thread() -> None:
    go_on, done = threading.Event(), threading.Event()

    @tool
    def waits() -> None:
        go_on.wait(20)
        done.set()

    async def test(threads: ThreadPoolExecutor) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await call(waits, {}, None, threads)
        assert not done.is_set()
        go_on.set()

    run(test)
    assert done.wait(20)


def test_a_hidden_coroutine_is_awaited() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @tool
    @logged
    async def hidden(a: int) -> int:
        await asyncio.sleep(0)
        return a

    assert not hidden.is_async
    assert called(hidden, {"a": 4}) == 4


def test_tools_without_a_function_run_through_the_executor() -> None:
    class Executor:
        async def execute(self, tool: str, params: dict[str, Json]) -> Json:
            if tool == "quits":
                sys.exit("bye")
            return [tool, params]

    bare = Tools().register("bare")
    assert called(bare, {"a": 1}, executor=Executor()) == ["bare", {"a": 1}]
    with pytest.raises(ToolStopped, match=r"called sys.exit\('bye'\)"):
        called(Tools().register("quits"), {}, executor=Executor())
    with pytest.raises(NoToolExecutor, match="no tool executor configured"):
        called(bare, {})


def test_the_executor_is_not_asked_for_tools_that_have_a_function() -> None:
    class Executor:
        async def execute(self, tool: str, params: dict[str, Json]) -> Json:
            raise AssertionError

    assert called(add, {"a": 1}, executor=Executor()) == 2
