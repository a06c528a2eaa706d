"""How far something long is, on standard error: a bar on a terminal, else a line now and then.

What is over within a second says nothing.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from attrs import define, field

from engine.cli.screen import safe, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Meter"]

SAY_SECONDS = 1.0
"""How often a line says how far it is, and how long a bar waits before it is shown."""

DRAW_SECONDS = 0.1
"""How often a bar changes. People do not see more."""


@define
class Meter:
    """To be called with how much is done and of how much; `with` takes its bar away at the end."""

    what: str
    """What is being done, such as `view costs: folded`."""
    unit: str = "events"
    _clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    _began: float = field(default=0.0, init=False)
    _next: float | None = field(default=None, init=False)
    _bar: "tuple[Progress, TaskID] | None" = field(default=None, init=False)

    def __enter__(self) -> "Meter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if self._next is None:
            self._began, self._next = now, now + SAY_SECONDS
        if now < self._next:
            return
        if sys.stderr.isatty():
            self._next = now + DRAW_SECONDS
            self._draw(done, total, self._pace(done, total, now))
        else:
            self._next = now + SAY_SECONDS
            say(f"{self.what} {done:,} of {total:,} {self.unit}{self._pace(done, total, now)}")

    def _pace(self, done: int, total: int, now: float) -> str:
        """How fast it goes, and how long the rest takes at that."""
        rate = done / max(now - self._began, 1e-9)
        if rate < 1 or total < done:
            return ""
        return f", {rate:,.0f} a second, {(total - done) / rate:,.0f} s left"

    def _draw(self, done: int, total: int, pace: str) -> None:
        if self._bar is None:
            self._bar = _bar(self.what, self.unit)
        progress, task = self._bar
        progress.update(task, completed=done, total=total or None, pace=pace)
        progress.refresh()


def _bar(what: str, unit: str) -> "tuple[Progress, TaskID]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{safe(unit)}{{task.fields[pace]}}", markup=False),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr, force_terminal=True, force_jupyter=False, emoji=False),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task(safe(what), total=None, pace="")
    progress.start()
    return progress, task
