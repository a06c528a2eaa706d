"""Long work on files, on a thread of its own, that ends when nobody waits for it any more."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from carstore.origin import Progress

_Result = TypeVar("_Result")


class _Stopped(Exception):
    """Nobody waits for the work any more."""


async def beside_the_loop(
    work: Callable[[Progress], _Result], progress: Progress | None
) -> _Result:
    """Do `work` beside the event loop.

    Args:
        work: is given a function to be called at each step, which ends it if the caller is gone.
        progress: is told of the same steps, on the loop.
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def tell(what: str, done: int, last: int) -> None:
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            loop.call_soon_threadsafe(progress, what, done, last)

    task = loop.run_in_executor(None, work, tell)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({task})  # it takes away what it has made so far
        task.exception()
        raise


__all__ = ["beside_the_loop"]
