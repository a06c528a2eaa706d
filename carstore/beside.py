"""Long work on files, on a thread of its own, that ends when nobody waits for it any more."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from attrs import frozen

from carstore.origin import Progress

_Result = TypeVar("_Result")


class _Stopped(Exception):
    """Nobody waits for the work any more."""


@frozen
class Steps:
    """To be called at each step of the work, which it ends if nobody waits for it any more."""

    _tell: Progress
    _stop: threading.Event

    def __call__(self, what: str, done: int, last: int) -> None:
        self.check()
        self._tell(what, done, last)

    def check(self) -> None:
        """The same where there is nothing to tell: while something else is waited for."""
        if self._stop.is_set():
            raise _Stopped


async def beside_the_loop(work: Callable[[Steps], _Result], progress: Progress | None) -> _Result:
    """Do `work` beside the event loop.

    Args:
        work: is given what is to be called at each step.
        progress: is told of the same steps, on the loop.
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def tell(what: str, done: int, last: int) -> None:
        if progress is not None:
            loop.call_soon_threadsafe(progress, what, done, last)

    task = loop.run_in_executor(None, work, Steps(tell, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({task})  # it takes away what it has made so far
        task.exception()
        raise


__all__ = ["Steps", "beside_the_loop"]
