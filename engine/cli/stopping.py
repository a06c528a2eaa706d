"""Running a coroutine so that Ctrl-C and SIGTERM stop it in good order.

The first one cancels it: a run starts nothing more, waits some seconds for the calls in flight and
is put down. The second gives these calls up. The third ends the process at once; what was recorded
is safe even then.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from engine.cli.errors import Interrupted
from engine.cli.exits import Exit
from engine.cli.screen import say

__all__ = ["run_stoppable"]

CLEANUP_SECONDS = 1.0
"""How long tasks that are left over may take to stop; a tool's may refuse to."""

_LAST_WORDS = b"Stopped at once. What was recorded is safe; `carstore resume` goes on from there.\n"

_Result = TypeVar("_Result")


def run_stoppable(work: Coroutine[Any, Any, _Result], hint: str = "") -> _Result:
    """Run `work` to its end and return its result.

    Args:
        hint: said when the first signal arrives.

    Raises:
        Interrupted: it was stopped and did not say so itself.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    try:
        with _signals(loop, task, hint):
            return loop.run_until_complete(task)
    except asyncio.CancelledError:
        raise Interrupted from None
    finally:
        _finish(loop)


@contextmanager
def _signals(
    loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]", hint: str
) -> Generator[None, None, None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    count = 0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1 and hint:
            loop.call_soon_threadsafe(say, hint)
        if count <= 2:
            loop.call_soon_threadsafe(task.cancel)
        else:
            os.write(2, _LAST_WORDS)
            os._exit(Exit.INTERRUPTED)

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        _, left = loop.run_until_complete(asyncio.wait(left, timeout=CLEANUP_SECONDS))
    loop.run_until_complete(loop.shutdown_asyncgens())
    if left:
        _refusing.append(loop)
    else:
        loop.close()


_refusing: list[asyncio.AbstractEventLoop] = []
"""Loops with tasks that would not stop: kept, since dropping them is an error message each."""
