"""The only place that reads the time; everything else is handed a `Clock`."""

import time
from typing import Protocol

from attrs import define

from carstore.names import Micros


class Clock(Protocol):
    """Two readings: what the wall says, and what has passed since the machine started."""

    def now(self) -> Micros:
        """Microseconds since 1970-01-01 UTC. May step back; only good for telling people when."""
        ...

    def boot(self) -> Micros:
        """Microseconds since boot, running through suspend. Good for deadlines in one boot."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Micros:
        return Micros(time.time_ns() // 1000)

    def boot(self) -> Micros:
        return Micros(time.clock_gettime_ns(_BOOT) // 1000)


# Linux has CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC itself goes on during sleep.
_BOOT: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@define
class ManualClock:
    """A clock that moves when told to, for tests and replays.

    `wall` and `booted` are microseconds.
    """

    wall: int = 1_700_000_000_000_000
    booted: int = 1_000_000

    def now(self) -> Micros:
        return Micros(self.wall)

    def boot(self) -> Micros:
        return Micros(self.booted)

    def advance(self, micros: int) -> None:
        """Let `micros` pass on both readings."""
        self.wall += micros
        self.booted += micros
