"""Reading state on the engine's event loop, from wherever a tool happens to run."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator

from attrs import define, field

from carstore.log import StateRead
from engine.buffered import ContextMisused

__all__ = ["Reader", "ReadsEnded", "StateReader"]

Reader = Callable[[str], Awaitable[StateRead]]
"""Reads a state key; only ever called on the engine's event loop."""


class ReadsEnded(Exception):
    """A read was begun after `close`, or was under way."""


@define(eq=False)
class StateReader:
    """Hands the reads of one attempt to a `Reader`, until closed."""

    _read: Reader
    _loop: asyncio.AbstractEventLoop | None
    """The engine's loop; None if there is none, and the reader runs on any."""

    _lock: threading.Lock = field(init=False, factory=threading.Lock)
    _closed: bool = field(init=False, default=False)
    _pending: set[concurrent.futures.Future[StateRead]] = field(init=False, factory=set)

    async def fetch(self, key: str) -> StateRead:
        """Read `key`, from the engine's loop or from another that the tool runs in its thread."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await self._read(key)
        with self._asking(key, self._loop) as future:
            return await asyncio.wrap_future(future)

    def wait_for(self, key: str) -> StateRead:
        """Read `key` while the calling thread waits.

        Raises:
            ContextMisused: on the engine's loop, which would wait for itself.
        """
        running = _running_loop()
        if running is not None and self._loop in (None, running):
            reason = "would stop the event loop. In an async tool write: await ctx.read(key)"
            raise ContextMisused("ctx.get", reason)
        if self._loop is None:
            return asyncio.run(self._ask(key))
        with self._asking(key, self._loop) as future:
            return future.result()

    def close(self) -> None:
        """Give up the reads under way, and refuse further ones."""
        with self._lock:
            self._closed = True
            pending = list(self._pending)
        for future in pending:
            future.cancel()

    async def _ask(self, key: str) -> StateRead:
        return await self._read(key)

    @contextlib.contextmanager
    def _asking(
        self, key: str, loop: asyncio.AbstractEventLoop
    ) -> Iterator[concurrent.futures.Future[StateRead]]:
        question = self._ask(key)
        with self._lock:
            if self._closed or loop.is_closed():
                question.close()
                raise ReadsEnded
            future = asyncio.run_coroutine_threadsafe(question, loop)
            self._pending.add(future)
        try:
            yield future
        except (concurrent.futures.CancelledError, asyncio.CancelledError):
            if self._closed:
                raise ReadsEnded from None
            raise
        finally:
            with self._lock:
                self._pending.discard(future)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
