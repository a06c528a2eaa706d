"""The call itself, in the worker of `engine.process.child`: limits, the tool, its answer."""

import asyncio
import inspect
import json
import sys
from typing import Any, NoReturn

from attrs import asdict

from carstore import canonical
from carstore.errors import CarstoreError, InvalidJson
from carstore.log import StateRead
from carstore.names import ActionId, Json, RunId
from engine.buffered import ContextMisused
from engine.context import ToolContext
from engine.declare import Tool
from engine.tools import load_tools

__all__ = ["ProcessContext", "answer"]

MAX_MESSAGE_CHARS = 4_000
"""Characters of what a tool raised; the engine keeps no more of an error."""

CPU_GRACE_SECS = 2
"""Seconds between SIGXCPU, which a tool may catch, and SIGKILL."""


class ProcessContext(ToolContext):
    """The context of a tool in a process of its own: it knows the ids, and has no store.

    Meterings and log lines travel back with the answer, and are lost if there is none. State
    cannot be read or written from here.
    """

    __slots__ = ()

    async def read(self, key: str, default: Json = None) -> Json:
        """Refused.

        Raises:
            ContextMisused: always.
        """
        self._refuse("ctx.read", key, default)

    def get(self, key: str, default: Json = None) -> Json:
        """Refused. Raises as `read`."""
        self._refuse("ctx.get", key, default)

    def set(self, key: str, value: Json) -> None:
        """Refused. Raises as `read`."""
        self._refuse("ctx.set", key, value)

    def delete(self, key: str) -> None:
        """Refused. Raises as `read`."""
        self._refuse("ctx.delete", key)

    def _refuse(self, asked: str, *_: Json) -> NoReturn:
        reason = (
            f"tool {self.tool!r} runs in a process of its own, which has no state. Hand it what it "
            "needs as parameters, and write state from the plan (expected_effects)"
        )
        raise ContextMisused(asked, reason)


def answer(request: bytes) -> bytes:
    """Make the call that `request` asks for, and return its answer as one line of JSON.

    The line is `{"output": ...}`, or `{"raised": {"type", "message"}}`, `{"too_large": bytes}`,
    `{"not_json": message}` or `{"out_of_memory": true}`; beside that, `metered` and `lines` if the
    tool used its context.
    """
    asked = json.loads(request)
    sys.path += [folder for folder in asked["path"] if folder not in sys.path]
    _limit(asked["memory_mb"], asked["cpu_secs"])
    context = None if asked["context"] is None else _context(asked["tool"], asked["context"])
    try:
        output = _call(asked, context)
        said = _answered(output, asked["max_output_bytes"])
    except MemoryError:
        said = _out_of_memory(asked)
    except SystemExit as error:
        if type(error) is not SystemExit:
            raise  # the guard's request to stop
        said = _raised("ToolStopped", f"called sys.exit({error.code!r:.80})")
    except BaseException as error:  # noqa: BLE001 - whatever a tool raises is its failure
        said = _out_of_memory(asked) if _for_memory(error) else _raised_by(error)
    return said[:-1] + _told(context) + b"}"


def _limit(memory_mb: int | None, cpu_secs: int | None) -> None:
    import resource

    if memory_mb is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, hard))
    if cpu_secs is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_secs, cpu_secs + CPU_GRACE_SECS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _context(tool: str, ids: dict[str, Any]) -> ProcessContext:
    return ProcessContext(
        run_id=RunId(ids["run_id"]),
        action_id=ActionId(ids["action_id"]),
        tool=tool,
        attempt=ids["attempt"],
        idempotency_key=ids["idempotency_key"],
        reader=_no_state,
    )


async def _no_state(key: str) -> StateRead:
    raise ContextMisused("ctx.read", f"there is no state to read {key!r:.80} from")


def _call(asked: dict[str, Any], context: ProcessContext | None) -> Json:
    name = asked["tool"]
    tool = load_tools(asked["tools"]).get(name)
    if tool is None or tool.function is None:
        raise LookupError(f"there is no tool {name!r:.140} in {asked['tools']}")
    output = tool.function(**asked["params"], **_given(tool, context))
    return asyncio.run(_awaited(output)) if inspect.isawaitable(output) else output


def _given(tool: Tool, context: ProcessContext | None) -> dict[str, ProcessContext]:
    if tool.context_parameter is None:
        return {}
    if context is None:
        raise TypeError(f"tool {tool.name!r} takes a ToolContext, but there is no run")
    return {tool.context_parameter: context}


async def _awaited(output: Any) -> Json:
    return await output


def _answered(output: Json, max_bytes: int) -> bytes:
    try:
        text = canonical.dumps(output, "output").encode()
    except InvalidJson as error:
        return _line({"not_json": error.message})
    if len(text) > max_bytes:
        return _line({"too_large": len(text)})
    return b'{"output":' + text + b"}"


def _raised_by(error: BaseException) -> bytes:
    try:
        said = error.message if isinstance(error, CarstoreError) else str(error)
    except Exception:  # noqa: BLE001 - an error that cannot say what it is still is one
        said = "(it cannot be shown)"
    return _raised(type(error).__name__, said)


def _raised(kind: str, said: str) -> bytes:
    return _line({"raised": {"type": kind, "message": said[:MAX_MESSAGE_CHARS]}})


def _for_memory(error: BaseException) -> bool:
    """Whether a tools file could not be imported for want of memory."""
    return isinstance(error, CarstoreError) and isinstance(error.__cause__, MemoryError)


def _out_of_memory(asked: dict[str, Any]) -> bytes:
    if asked["memory_mb"] is None:
        return _raised("MemoryError", "")
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))  # there must be room for the answer
    return _line({"out_of_memory": True})


def _told(context: ProcessContext | None) -> bytes:
    """What the tool metered and logged, as further fields."""
    if context is None:
        return b""
    done = context.buffered
    metered = [asdict(one) for one in done.metered]
    lines = [{"message": line.message, "data": line.data} for line in done.lines]
    told = {name: value for name, value in (("metered", metered), ("lines", lines)) if value}
    return b"," + _line(told)[1:-1] if told else b""


def _line(document: dict[str, Json]) -> bytes:
    # Escaped to ASCII, since what a tool raises may hold what UTF-8 cannot.
    return json.dumps(document).encode("ascii")
