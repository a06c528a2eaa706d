"""Showing how runs get on, while they do: a line that changes on a terminal, else plain lines.

The driver hands over its run after each turn, which may be thousands of times a second, so all
that is done then is to remember it. A task looks at what is remembered ten times a second, and less
often where looking takes long.
"""

import asyncio
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from attrs import define, field

from carstore.clock import SystemClock
from carstore.names import RunId
from engine.action_state import ActionState
from engine.cli.screen import duration, safe, say
from engine.ir import ActionStatus
from engine.run import Run

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Watcher", "watcher"]

LOOK_SECONDS = 0.1
"""How often a look is taken. People do not see more."""

LOOK_SHARE = 20
"""A look may take one part in so many of the time: a run can have thousands of actions."""

MAX_LINES = 20
"""Lines printed at one look; what is more is summed up in one line."""

MAX_NAMES = 3
"""Actions under way that are named."""


@define
class Watched:
    """A run and what was told of it."""

    run: Run
    told: list[ActionStatus | None]
    done: int = 0
    """How many actions are settled."""
    changed: bool = True

    def news(self, since_us: int) -> list[ActionState]:
        """The actions settled since the last look, but for those settled before `since_us`."""
        found = []
        self.changed = False
        # After a conflict the driver reads its run again: another value, with the same actions.
        for index, state in enumerate(self.run.actions):
            if state.status is self.told[index]:
                continue
            self.done += (state.status is not None) - (self.told[index] is not None)
            self.told[index] = state.status
            is_old = state.settled_at is not None and state.settled_at < since_us
            if state.status is not None and not is_old:
                found.append(state)
        return found


class Display(Protocol):
    """Where progress is shown."""

    def update(self, news: list[ActionState], done: int, total: int, under_way: list[str]) -> None:
        """Show what happened since the last time, and where things stand."""
        ...

    def finish(self, news: list[ActionState], done: int, total: int) -> None:
        """Show what happened since the last time, and then nothing more."""
        ...


@define
class Watcher:
    """Watches runs: `observe` is for the runtime, `async with` says from when to when."""

    display: Display | None
    _runs: dict[RunId, Watched] = field(factory=dict)
    _looking: "asyncio.Task[None] | None" = None
    _since_us: int = field(factory=lambda: SystemClock().now())

    def observe(self, run: Run) -> None:
        """Remember a run as it is now."""
        watched = self._runs.get(run.run_id)
        if watched is None:
            self._runs[run.run_id] = Watched(run, [None] * len(run.actions))
        else:
            watched.run, watched.changed = run, True

    async def __aenter__(self) -> "Watcher":
        if self.display is not None:
            self._looking = asyncio.create_task(self._look_on(self.display))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._looking is None or self.display is None:
            return
        self._looking.cancel()
        with suppress(asyncio.CancelledError):
            await self._looking
        self.display.finish(*self._news())

    async def _look_on(self, display: Display) -> None:
        took = 0.0
        while True:
            await asyncio.sleep(max(LOOK_SECONDS, took * LOOK_SHARE))
            began = time.perf_counter()
            seen = (*self._news(), self._under_way())
            took = time.perf_counter() - began
            display.update(*seen)

    def _news(self) -> tuple[list[ActionState], int, int]:
        """What was settled since the last look; how many actions are settled, of how many."""
        news: list[ActionState] = []
        for watched in self._runs.values():
            if watched.changed:
                news += watched.news(self._since_us)
        done = sum(watched.done for watched in self._runs.values())
        return news, done, sum(len(watched.told) for watched in self._runs.values())

    def _under_way(self) -> list[str]:
        """The first calls that have begun and not ended, as far as their intents are recorded."""
        found: list[str] = []
        for watched in self._runs.values():
            if watched.run.completed is not None:
                continue
            for state in watched.run.actions:
                if state.do.open or state.undo.open:
                    found.append(state.action.id)
                    if len(found) > MAX_NAMES:
                        return found
        return found


def watcher(*, quiet: bool) -> Watcher:
    """The watcher that suits standard error."""
    if quiet:
        return Watcher(None)
    return Watcher(Bar() if sys.stderr.isatty() else Lines())


@define
class Lines:
    """A line for each action that is settled."""

    def update(self, news: list[ActionState], done: int, total: int, under_way: list[str]) -> None:  # noqa: ARG002
        lines, more = _lines(news)
        for line in lines:
            say(f"  {line}")
        if more:
            say(f"  ... and {more:,} more; {done:,} of {total:,} are settled")

    def finish(self, news: list[ActionState], done: int, total: int) -> None:
        self.update(news, done, total, [])


@define
class Bar:
    """A bar that changes in its place, and above it a line for each action that did not succeed."""

    _progress: "Progress | None" = None
    _task: "TaskID | None" = None

    def update(self, news: list[ActionState], done: int, total: int, under_way: list[str]) -> None:
        if self._progress is None or self._task is None:
            self._progress, self._task = _bar(total)
        bad = [state for state in news if state.status is not ActionStatus.SUCCEEDED]
        lines, more = _lines(bad)
        for line in [*lines, *([f"... and {more:,} more that did not succeed"] if more else [])]:
            self._progress.console.print(safe(line), markup=False, highlight=False, emoji=False)
        names = ", ".join(under_way[:MAX_NAMES]) + (" ..." if len(under_way) > MAX_NAMES else "")
        self._progress.update(self._task, completed=done, total=total or None, names=safe(names))
        self._progress.refresh()

    def finish(self, news: list[ActionState], done: int, total: int) -> None:
        # A run that ends before the first look needs no bar: its result tells everything.
        if self._progress is not None:
            self.update(news, done, total, [])
            self._progress.stop()


def _bar(total: int) -> "tuple[Progress, TaskID]":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    progress = Progress(
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[names]}", markup=False),
        console=Console(file=sys.stderr, force_terminal=True, force_jupyter=False, emoji=False),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task("", total=total or None, names="")
    progress.start()
    return progress, task


def _lines(news: list[ActionState]) -> tuple[list[str], int]:
    """Lines for the first of `news`, what did not succeed before the rest; how many are left."""
    if len(news) > MAX_LINES:
        news = sorted(news, key=lambda state: state.status is ActionStatus.SUCCEEDED)
    return [_line(state) for state in news[:MAX_LINES]], max(0, len(news) - MAX_LINES)


def _line(state: ActionState) -> str:
    assert state.status is not None
    parts = [state.action.id, state.status.value]
    if state.duration_us:
        parts.append(f"({duration(state.duration_us / 1000)})")
    if state.do.number > 1:
        parts.append(f"at attempt {state.do.number}")
    if state.error:
        parts.append(f"- {state.error:.300}")
    return " ".join(parts)
