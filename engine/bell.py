"""What wakes a driver: something has happened to its run, or it is time to look.

A driver waits once for each turn, mostly for a fraction of a millisecond, and each time up to an
instant that hardly changes. So the timer for that instant is kept from wait to wait.
"""

import asyncio

from attrs import define

__all__ = ["Bell"]


@define(eq=False)
class Bell:
    """For one task that waits, on the event loop on which the bell is rung."""

    _rung: bool = False
    _waiter: "asyncio.Future[None] | None" = None
    _timer: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        """End the wait, or the next one if nobody waits."""
        self._rung = True
        self._wake()

    def clear(self) -> None:
        """Forget that it was rung: whoever is to wait looks at everything after this."""
        self._rung = False

    async def wait(self, until: float) -> None:
        """Return once it is rung, or about the instant `until`, by the clock of the loop; perhaps
        earlier, if an earlier wait was to end before."""
        if self._rung:
            return
        loop = asyncio.get_running_loop()
        if self._timer is None or self._timer.when() > until:
            self.stop()
            self._timer = loop.call_at(until, self._expire)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def stop(self) -> None:
        """Let go of the timer: nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
