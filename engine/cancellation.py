"""Asking a tool to stop, across threads and event loops. Nothing is ever interrupted."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from attrs import define, field

__all__ = ["Cancellation"]


@define(eq=False)
class Cancellation:
    """Whether one attempt should stop, and those who wait to be told.

    Args:
        lock: of the attempt; never held by whoever calls.
    """

    _lock: threading.Lock
    _requested: bool = field(init=False, default=False)
    _ended: Callable[[], Exception] | None = field(init=False, default=None)
    _waiting: tuple[asyncio.Future[None], ...] = field(init=False, default=())

    @property
    def requested(self) -> bool:
        """Whether the tool should stop."""
        return self._requested

    def request(self) -> None:
        """Tell the tool that it should stop. May be called more than once, from any thread."""
        with self._lock:
            self._requested = True
            self._wake(None)

    def end(self, error: Callable[[], Exception]) -> None:
        """Tell all who wait for a request that none will come, by raising there what `error`
        gives."""
        with self._lock:
            self._ended = error
            if self._waiting:
                self._wake(error())

    async def wait(self) -> None:
        """Return once a stop is requested, or raise what `end` was given."""
        with self._lock:
            if self._requested:
                return
            if self._ended is not None:
                raise self._ended()
            told = asyncio.get_running_loop().create_future()
            self._waiting = (*self._waiting, told)
        try:
            await told
        finally:
            with self._lock:
                self._waiting = tuple(one for one in self._waiting if one is not told)

    def _wake(self, error: Exception | None) -> None:
        for told in self._waiting:
            # A loop of the tool's own may be closed by now, and then nobody waits on it.
            with contextlib.suppress(RuntimeError):
                told.get_loop().call_soon_threadsafe(_tell, told, error)


def _tell(told: asyncio.Future[None], error: Exception | None) -> None:
    if told.done():
        return
    if error is None:
        told.set_result(None)
    else:
        told.set_exception(error)
