"""Asking the engine from wherever a tool happens to run: on its loop, another loop, or a thread."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from attrs import define, field

from engine.buffered import ContextMisused

__all__ = ["Question", "Questions", "QuestionsEnded"]

T = TypeVar("T")

Question = Callable[[], Awaitable[T]]
"""What the engine is to do; only ever called on its event loop."""


class QuestionsEnded(Exception):
    """A question was asked after `close`, or was not answered by then."""


@define(eq=False)
class Questions:
    """Hands the questions of one attempt to the engine, until closed."""

    _loop: asyncio.AbstractEventLoop | None
    """The engine's loop; None if there is none, and they are answered on any."""

    _lock: threading.Lock = field(init=False, factory=threading.Lock)
    _closed: bool = field(init=False, default=False)
    _pending: set[concurrent.futures.Future[Any]] = field(init=False, factory=set)

    async def ask(self, question: Question[T]) -> T:
        """Ask from the engine's loop, or from another that the tool runs in its thread."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await question()
        with self._asking(question, self._loop) as future:
            return await asyncio.wrap_future(future)

    def wait_for(self, question: Question[T], asked: str, instead: str) -> T:
        """Ask while the calling thread waits.

        Args:
            asked: what the tool called, for the error.
            instead: what it has to call on the loop.

        Raises:
            ContextMisused: on the engine's loop, which would wait for itself.
        """
        running = _running_loop()
        if running is not None and self._loop in (None, running):
            reason = f"would stop the event loop. In an async tool write: {instead}"
            raise ContextMisused(asked, reason)
        if self._loop is None:
            return asyncio.run(_asked(question))
        with self._asking(question, self._loop) as future:
            return future.result()

    def close(self) -> None:
        """Give up the questions under way, and refuse further ones."""
        with self._lock:
            self._closed = True
            pending = list(self._pending)
        for future in pending:
            future.cancel()

    @contextlib.contextmanager
    def _asking(
        self, question: Question[T], loop: asyncio.AbstractEventLoop
    ) -> Iterator["concurrent.futures.Future[T]"]:
        asking = _asked(question)
        with self._lock:
            if self._closed or loop.is_closed():
                asking.close()
                raise QuestionsEnded
            future = asyncio.run_coroutine_threadsafe(asking, loop)
            self._pending.add(future)
        try:
            yield future
        except (concurrent.futures.CancelledError, asyncio.CancelledError):
            if self._closed:
                raise QuestionsEnded from None
            raise
        finally:
            with self._lock:
                self._pending.discard(future)


async def _asked(question: Question[T]) -> T:
    return await question()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
