"""A `ToolExecutor` that makes each call in a process of its own, which can be killed.

A thread cannot be killed, so a plain function that hangs hangs on after its timeout, and nobody
knows what it will still do. A process can. What this buys: when a call ends, however it ends,
nothing of it runs any more; a crash of the tool's native code is an error of its call; and there
are limits on time and memory. What it does not buy: a killed call may have done anything before
that, so for a tool that cannot be repeated it is in doubt as ever. It is no sandbox: the tool has
all rights of this process.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carstore import canonical
from carstore.names import Json
from engine.context import ToolContext, current_context
from engine.execute import MAX_OUTPUT_BYTES
from engine.process.errors import (
    InvalidExecutor,
    ToolKilled,
    ToolOutOfMemory,
    ToolOutputInvalid,
    ToolOutputTooLarge,
    ToolProcessEnded,
    ToolProcessNotStarted,
    ToolRaised,
)
from engine.process.one_call import Ended, ProcessCall
from engine.tool_schema import ToolSchema
from engine.tools import load_tools

__all__ = ["SubprocessExecutor"]

MIN_MEMORY_MB = 64
"""Megabytes of address space that Python and carstore take by themselves."""

ENVELOPE_BYTES = 4 * 2**20
"""Bytes of an answer besides the output: what the tool metered and logged, and the guard's line.
A thousand log lines with small data fit; what is larger ends the call."""

Document = dict[str, Any]


class SubprocessExecutor:
    """Makes each call in a child process of this Python.

    The child loads the tools by itself, so nothing but JSON goes in and out: parameters on a pipe,
    the output on another. What a tool prints is kept only as the last words of an error.
    """

    def __init__(
        self,
        tools: str,
        *,
        timeout_ms: int | None = None,
        memory_mb: int | None = None,
        cpu_secs: int | None = None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        """Check the limits; nothing is started or imported yet.

        Args:
            tools: a `FILE.py`, or the name of a module, as `load_tools` takes it.
            timeout_ms: after how long a call is killed, start of its process included; None: only
                when the engine gives it up.
            memory_mb: megabytes (2**20 bytes) of address space that each process of a call may
                have, Python and libraries included.
            cpu_secs: seconds of processor time that each process of a call may take.
            max_output_bytes: bytes of an output as JSON.
            env: the whole environment of the child; None: that of this process.
            cwd: the child's working directory; None: that of this process.

        Raises:
            InvalidExecutor: a limit is not an integer above 0, or cannot be enforced here.
        """
        _check("timeout_ms", timeout_ms, 1)
        _check("memory_mb", memory_mb, MIN_MEMORY_MB)
        _check("cpu_secs", cpu_secs, 1)
        _check("max_output_bytes", max_output_bytes, 1)
        if memory_mb is not None and sys.platform != "linux":
            reason = f"{sys.platform} does not enforce a limit on memory. Leave it out here"
            raise InvalidExecutor("memory_mb", reason)
        path = Path(tools)
        is_file = tools.endswith(".py") or os.sep in tools or path.is_file()
        self.tools = str(path.absolute()) if is_file else tools
        self.timeout_ms = timeout_ms
        self.memory_mb = memory_mb
        self.cpu_secs = cpu_secs
        self.max_output_bytes = max_output_bytes
        self.env = None if env is None else dict(env)
        self.cwd = None if cwd is None else os.fspath(cwd)

    def schemas(self) -> list[ToolSchema]:
        """The schemas of the tools, to register with a runtime; imports them here for that.

        Raises:
            ToolsNotFound, InvalidTool: as `load_tools`.
        """
        return load_tools(self.tools).schemas()

    async def execute(self, tool: str, params: dict[str, Json]) -> Json:
        """Call `tool` in a new process. Whenever this ends, that process is dead.

        Raises:
            ToolRaised: the tool raised, or could not be loaded.
            ToolOutOfMemory, ToolOutputTooLarge, ToolOutputInvalid: as they say.
            ToolProcessNotStarted: nothing happened.
            ToolKilled, ToolProcessEnded: there is no answer, and what was done is unknown.
        """
        context = current_context.get()
        request = self._request(tool, params, context)
        call = ProcessCall(self.cwd, self.env, self.max_output_bytes + ENVELOPE_BYTES)
        task = asyncio.create_task(call.run(request), name=f"carstore process of {tool}")
        late = False
        try:
            timeout = None if self.timeout_ms is None else self.timeout_ms / 1000
            _, pending = await asyncio.wait({task}, timeout=timeout)
            late = bool(pending)
        finally:
            call.stop()
            await _settled(task)
        try:
            ended = task.result()
        except OSError as error:
            raise ToolProcessNotStarted(tool, f"{type(error).__name__}: {error}") from error
        answer, end = _parts(ended)
        if answer is None:
            raise self._death(tool, ended, end, late=late)
        if context is not None:
            _tell(context, answer)
        return self._outcome(tool, answer)

    def _request(self, tool: str, params: dict[str, Json], context: ToolContext | None) -> bytes:
        ids = None
        if context is not None:
            ids = {
                "run_id": context.run_id,
                "action_id": context.action_id,
                "attempt": context.attempt,
                "idempotency_key": context.idempotency_key,
            }
        request = {
            "tools": self.tools,
            "tool": tool,
            "params": params,
            "context": ids,
            "path": [folder or os.getcwd() for folder in sys.path],
            "memory_mb": self.memory_mb,
            "cpu_secs": self.cpu_secs,
            "max_output_bytes": self.max_output_bytes,
        }
        return canonical.dumps(request, "request").encode()

    def _outcome(self, tool: str, answer: Document) -> Json:
        if "output" in answer:
            return answer["output"]
        if "raised" in answer:
            raised = answer["raised"]
            raise ToolRaised(tool, raised["type"], raised["message"])
        if "too_large" in answer:
            raise ToolOutputTooLarge(tool, answer["too_large"], self.max_output_bytes)
        if "not_json" in answer:
            raise ToolOutputInvalid(tool, answer["not_json"])
        raise ToolOutOfMemory(tool, self.memory_mb or 0)

    def _death(self, tool: str, ended: Ended, end: Document, *, late: bool) -> Exception:
        """The error that says how a call ended without an answer."""
        words, left = ended.last_words, bool(end.get("left"))
        if late:
            return ToolKilled(tool, "timeout_ms", self.timeout_ms or 0, words, left)
        number = end.get("signal", -ended.guard_code if ended.guard_code < 0 else None)
        if self.cpu_secs is not None and _for_cpu(number, end, self.cpu_secs):
            return ToolKilled(tool, "cpu_secs", self.cpu_secs, words, left)
        hint = ""
        if ended.overflowed:
            hint = "it wrote more to the pipe of its answer than an answer may have"
        elif number is not None and self.memory_mb is not None:
            hint = f"memory_mb is {self.memory_mb:,}, which may be why"
        return ToolProcessEnded(tool, end.get("exit_code"), number, words, hint, left)


def _for_cpu(number: int | None, end: Document, cpu_secs: int) -> bool:
    """Whether a signal was that of the limit: the first, or the one for who does not heed it."""
    spent: int = end.get("cpu_ms", 0)
    return number == signal.SIGXCPU or (number == signal.SIGKILL and spent >= cpu_secs * 1000)


def _check(name: str, value: object, least: int) -> None:
    if value is not None and not (type(value) is int and least <= value < 2**40):
        raise InvalidExecutor(name, f"{value!r:.40} is not an integer from {least}")


async def _settled(task: "asyncio.Task[Ended]") -> None:
    """Wait for `task`, whoever cancels this meanwhile; a cancellation is passed on afterwards."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not tell of it
        raise asyncio.CancelledError


def _parts(ended: Ended) -> tuple[Document | None, Document]:
    """The worker's answer, if it is whole, and the guard's word of its end, if there is one."""
    answer, separator, end = ended.result.rpartition(b"\n")
    if not separator:
        return None, {}
    return _document(answer), _document(end) or {}


def _document(line: bytes) -> Document | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _tell(context: ToolContext, answer: Document) -> None:
    """Hand on what the tool metered and logged."""
    for metered in answer.get("metered", ()):
        context.meter(**metered)
    for line in answer.get("lines", ()):
        context.log(line["message"], **line["data"])
