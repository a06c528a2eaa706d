"""One child process of a call, from its start until everything in it is dead."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field, frozen

from engine.process.child import GRACE_SECONDS, SWEEP_SECONDS
from engine.process.tail import Tail, read_pipe

__all__ = ["Ended", "ProcessCall"]

CHILD = str(Path(__file__).with_name("child.py"))

DRAIN_SECONDS = 1.0
"""How long pipes are read after the guard's end. Only a process that got away holds them open."""

PATIENCE_SECONDS = GRACE_SECONDS + SWEEP_SECONDS + 5.0
"""How long a guard that was told to stop may take. It needs a tenth of that; one that is stopped by
a debugger does not hold up the run for ever."""

_GROUP = re.compile(rb"\A([1-9][0-9]{0,9})\n")
"""The first line of the result: the worker's process group."""


@frozen(kw_only=True)
class Ended:
    """What is known of a call whose process is dead."""

    result: bytes
    """What was written to the result: the answer, if there is one, and the guard's line."""
    guard_code: int
    """0, unless the guard itself was killed: then the negative number of the signal."""
    last_words: str
    """The end of what the tool printed."""
    overflowed: bool
    """Whether more was written to the result than any answer has."""


@define(eq=False)
class ProcessCall:
    """Starts the child, feeds it its request, and collects what it answers."""

    cwd: str | None
    env: Mapping[str, str] | None
    max_result_bytes: int

    _lifeline: int | None = field(init=False, default=None)
    _process: asyncio.subprocess.Process | None = field(init=False, default=None)
    _last_resort: asyncio.TimerHandle | None = field(init=False, default=None)
    _stopped: bool = field(init=False, default=False)
    _result: bytearray = field(init=False, factory=bytearray)
    _overflowed: bool = field(init=False, default=False)

    def stop(self) -> None:
        """Have everything killed. May be called at any time, and more than once."""
        self._stopped = True
        if self._lifeline is not None:
            # Said, and not only hung up: a process forked meanwhile may hold this end too.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, b".")
            os.close(self._lifeline)
            self._lifeline = None
            if self._process is not None:
                loop = asyncio.get_running_loop()
                self._last_resort = loop.call_later(PATIENCE_SECONDS, _kill, self._process)

    async def run(self, request: bytes) -> Ended:
        """Make the call, and return once nothing of it runs any more.

        To be run as a task of its own that nobody cancels; if the whole loop is being ended, it
        stops the child and still waits for its end.

        Raises:
            OSError: the child could not be started.
        """
        tail = Tail()
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            lifeline, self._lifeline = os.pipe()
            ours.callback(self._end)
            theirs.callback(os.close, lifeline)
            ends, pipes = [], []
            for _ in ("result", "errors"):
                pipe, end = os.pipe()
                pipes.append(ours.enter_context(os.fdopen(pipe, "rb", 0)))
                theirs.callback(os.close, end)
                ends.append(end)
            self._process = await self._start(lifeline, *ends)
            theirs.close()
            if self._stopped:  # meanwhile
                self.stop()
            sinks = [
                await read_pipe(pipe, take)
                for pipe, take in zip(pipes, (self._take, tail.take), strict=True)
            ]
            await self._feed_and_wait(self._process, request)
            if self._process.returncode:
                await self._kill_group(sinks[0].ended)
            await asyncio.wait([sink.ended for sink in sinks], timeout=DRAIN_SECONDS)
            for sink in sinks:
                sink.close()
        return Ended(
            result=_GROUP.sub(b"", bytes(self._result), count=1),
            guard_code=self._process.returncode or 0,
            last_words=tail.text,
            overflowed=self._overflowed,
        )

    async def _start(
        self, lifeline: int, result_end: int, errors_end: int
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from a folder only because the call is made in it
            CHILD,
            str(lifeline),
            str(result_end),
            stdin=asyncio.subprocess.PIPE,
            stdout=errors_end,
            stderr=errors_end,
            pass_fds=(lifeline, result_end),
            start_new_session=True,
            cwd=self.cwd,
            env=None if self.env is None else dict(self.env),
        )

    async def _feed_and_wait(self, process: asyncio.subprocess.Process, request: bytes) -> None:
        feeding = asyncio.create_task(_feed(process, request))
        while True:
            try:
                await process.wait()
                break
            except asyncio.CancelledError:  # the loop ends: stop, but still see the end
                self.stop()
        feeding.cancel()
        await asyncio.wait({feeding})

    async def _kill_group(self, result_ended: "asyncio.Future[None]") -> None:
        """Do what the guard, which was killed, cannot do any more."""
        until = asyncio.get_running_loop().time() + DRAIN_SECONDS
        # The number may still be in the pipe. While any process is in the group, it is no other's.
        while self._group is None and not result_ended.done():
            if asyncio.get_running_loop().time() > until:
                return  # the worker was killed before it called anything
            await asyncio.sleep(0.005)
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)

    def _end(self) -> None:
        self.stop()
        if self._last_resort is not None:
            self._last_resort.cancel()

    def _take(self, data: bytes) -> None:
        if len(self._result) + len(data) > self.max_result_bytes:
            self._overflowed = True
            self.stop()
        else:
            self._result += data

    @property
    def _group(self) -> int | None:
        """The worker's process group, once it has told."""
        told = _GROUP.match(self._result)
        return None if told is None else int(told[1])


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _feed(process: asyncio.subprocess.Process, request: bytes) -> None:
    """Write the request; a child that is dead by then is told of by its end."""
    pipe = process.stdin
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.write(request)
        await pipe.drain()
    pipe.close()
