"""The process that kills: it starts the worker, follows the log read-only, kills it, and again."""

import asyncio
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, ClassVar, Protocol

from attrs import define, field

import engine
from carstore import Recorded, Store, connect
from carstore.errors import CarstoreError
from carstore.events import (
    ActionDeduplicated,
    ActionFailed,
    ActionRejected,
    ActionRetrying,
    ActionSkipped,
    ActionSucceeded,
)
from engine.demo.calls import Kill, read_calls
from engine.demo.place import Place

__all__ = ["SHARES", "DemoFailed", "Notice", "TooFast", "run_and_kill"]

SHARES = (0.3, 0.6)
"""At which shares of settled actions the process is killed."""

MAX_SECONDS = 120
"""For one process. The whole demonstration takes some seconds; this only ends what hangs."""

_ABOVE = str(Path(engine.__file__).resolve().parents[1])
"""Where this very package was imported from: never a namesake in the current folder."""

_ENDED = (ActionSucceeded, ActionFailed)
_KINDS = [
    event.kind
    for event in (*_ENDED, ActionRetrying, ActionSkipped, ActionRejected, ActionDeduplicated)
]


@define(slots=False, eq=False)
class DemoFailed(CarstoreError):
    """The demonstration did not come to its end."""

    code: ClassVar[str] = "demo_failed"
    reason: str

    @property
    def message(self) -> str:
        return f"the demonstration failed: {self.reason}"


@define(slots=False, eq=False)
class TooFast(DemoFailed):
    """The run was over before it could be killed as often as promised."""


class Notice(Protocol):
    """Is told how it goes."""

    def started(self, pid: int) -> None: ...

    def progressed(self, settled: int) -> None: ...

    def killed(self, kill: Kill) -> None: ...


@define
class _Seen:
    """What the log says of the run, up to `position`."""

    position: int = 0
    settled: set[str] = field(factory=set)
    ended: set[tuple[str, int]] = field(factory=set)

    def take(self, recorded: Recorded) -> None:
        self.position = recorded.position
        data = json.loads(recorded.data)
        name = data["action_id"]
        if recorded.kind == ActionRetrying.kind:
            self.settled.discard(name)
            return
        self.settled.add(name)
        if "attempt" in data:
            self.ended.add((name, data["attempt"]))


async def run_and_kill(
    place: Place, actions: int, notice: Notice, shares: Sequence[float] = SHARES
) -> list[Kill]:
    """Run the plan of `place` to its end, in as many processes as it takes, and return the kills.

    Args:
        actions: how many the plan has.

    Raises:
        DemoFailed: a process of the work failed.
        TooFast: the run was over before the last kill.
    """
    async with connect(place.database):
        pass  # now there is a file to follow
    kills: list[Kill] = []
    seen = _Seen()
    async with connect(place.database, readonly=True) as store:
        for share in shares:
            kill = await _one_process(store, place, seen, notice, math.ceil(actions * share))
            if kill is None:
                raise TooFast(
                    f"the run was over after {len(kills)} of {len(shares)} kills, because this "
                    "machine did not let the watching process look in time. Try again"
                )
            kills.append(kill)
            notice.killed(kill)
        await _one_process(store, place, seen, notice, None)
    return kills


async def _one_process(
    store: Store, place: Place, seen: _Seen, notice: Notice, kill_at: int | None
) -> Kill | None:
    """Start a process, kill it once `kill_at` actions are settled; None if it ended by itself."""
    with tempfile.TemporaryFile() as errors:
        process = await _start(place, errors)
        notice.started(process.pid)
        try:
            async with asyncio.timeout(MAX_SECONDS):
                was_killed = await _kill_at(process, store, seen, notice, kill_at)
        except TimeoutError:
            reason = f"process {process.pid} did not end within {MAX_SECONDS} s"
            raise DemoFailed(f"{reason}. {_end_of(errors)}") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await _catch_up(store, seen, notice)
        # It may have ended by itself in the moment before the signal; then the code is its own.
        if process.returncode == 0:
            return None
        if not was_killed or process.returncode != -signal.SIGKILL:
            reason = f"process {process.pid} ended with {process.returncode}"
            raise DemoFailed(f"{reason}. {_end_of(errors)}")
    return Kill(
        pid=process.pid,
        position=(await store.log.head()).position,
        completed=frozenset(seen.settled),
        ended=frozenset(seen.ended),
        calls=len(read_calls(place.calls)),
    )


async def _start(place: Place, errors: IO[bytes]) -> asyncio.subprocess.Process:
    paths = [_ABOVE, *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-P", "-m", "engine.demo.child"],
        *map(str, (place.database, place.plan, place.calls)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,  # Ctrl-C is for the parent, which then kills this one
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


async def _kill_at(
    process: asyncio.subprocess.Process,
    store: Store,
    seen: _Seen,
    notice: Notice,
    kill_at: int | None,
) -> bool:
    """Wait until the process ends or has settled so many actions; then kill it, and say so."""
    ended = asyncio.create_task(process.wait())
    reached = asyncio.create_task(_follow(store, seen, notice, kill_at))
    try:
        await asyncio.wait({ended, reached}, return_when=asyncio.FIRST_COMPLETED)
        if reached.done():
            reached.result()
            if process.returncode is None:
                process.kill()  # SIGKILL
            await ended
        return reached.done()
    finally:
        for task in (ended, reached):
            task.cancel()
        await asyncio.gather(ended, reached, return_exceptions=True)


async def _follow(store: Store, seen: _Seen, notice: Notice, kill_at: int | None) -> None:
    async for recorded in store.log.follow(after=seen.position, kinds=_KINDS):
        seen.take(recorded)
        notice.progressed(len(seen.settled))
        if kill_at is not None and len(seen.settled) >= kill_at:
            return


async def _catch_up(store: Store, seen: _Seen, notice: Notice) -> None:
    async for recorded in store.log.read(after=seen.position, kinds=_KINDS):
        seen.take(recorded)
    notice.progressed(len(seen.settled))


def _end_of(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode("utf-8", "replace").strip()[-2000:]
