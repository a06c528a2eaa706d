"""Execute: make one call, and say what came of it as a value. Somebody else records it."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from enum import Enum
from typing import Any

from attrs import evolve, field, frozen

from carstore import canonical
from carstore.clock import Clock
from carstore.errors import InvalidJson
from carstore.names import Json
from engine.buffered import Buffered, LogLine
from engine.calling import call
from engine.context import ToolContext
from engine.declare import Tool
from engine.rules.copies import own_copy
from engine.rules.sensitive import CUT, Conceal, mapped, without
from engine.tools import ToolExecutor
from engine.unknown_outcome import OutcomeUnknown

__all__ = ["Call", "Ending", "Outcome", "masked", "perform"]

CANCEL_GRACE_SECONDS = 1.0
"""How long a cancelled asynchronous tool may take to clean up before it is left alone."""

MAX_OUTPUT_BYTES = 4 * 1024 * 1024
"""Bytes of an output as JSON. It stands in the log for ever; larger things belong in a file."""

MAX_ERROR_CHARS = 4_000
"""Characters of an error message kept."""


class Ending(Enum):
    """How a call ended."""

    RETURNED = "returned"
    RAISED = "raised"
    UNKNOWN = "unknown"
    """It was given up while it may still be running: nobody knows what it did or will do."""


@frozen(kw_only=True)
class Call:
    """A call that has been decided on and recorded, about to be made."""

    index: int
    """Of the action it is made for."""
    undo: bool
    """Whether it undoes the action."""
    attempt: int
    tool: Tool
    parameters: dict[str, Json] = field(repr=False)
    timeout_ms: int | None
    grounds: dict[str, int]
    """State key -> position at which it was read to decide on the call."""
    reuse_key: str | None = None
    """Under which the result will be remembered, if the action asks for that."""
    conceal: Conceal | None = None
    """Takes what is sensitive out of the output; None if nothing in it can be."""
    secrets: set[str] = field(factory=set, repr=False)
    """Texts that no message may hold: of the parameters, of the state that was read, and in the end
    of the output."""
    context: ToolContext


@frozen(kw_only=True)
class Outcome:
    """What came of a call."""

    call: Call
    ending: Ending
    output: Json = field(default=None, repr=False)
    error: str = ""
    duration_us: int
    buffered: Buffered = field(repr=False)


async def perform(
    made: Call,
    threads: Executor,
    executor: ToolExecutor | None,
    clock: Clock,
    why_stopped: Callable[[], str | None],
) -> Outcome:
    """Make a call and wait for its end, at most until its timeout.

    Args:
        why_stopped: asked when the waiting was cancelled: why the driver does not wait any longer;
            None if it did not cancel it.
    """
    started = clock.boot()
    ending, output, error = Ending.RETURNED, None, ""
    try:
        calling = call(made.tool, made.parameters, made.context, threads, executor=executor)
        if made.timeout_ms is not None:
            calling = _within(made, calling, made.timeout_ms)
        output = await calling
        output, error = _checked(made, output)
        if error:
            ending = Ending.RAISED
    except _TimedOut:
        ending, error = Ending.UNKNOWN, f"action timed out after {made.timeout_ms}ms"
    except asyncio.CancelledError:
        why = why_stopped()
        if why is None:
            raise
        ending, error = Ending.UNKNOWN, why
    except OutcomeUnknown as raised:
        ending, error = Ending.UNKNOWN, _text(raised)
    except Exception as raised:  # noqa: BLE001 - whatever a tool raises is its failure
        ending, error = Ending.RAISED, _text(raised)
    return masked(
        Outcome(
            call=made,
            ending=ending,
            output=output,
            error=error,
            duration_us=clock.boot() - started,
            buffered=made.context.close(),
        )
    )


def masked(outcome: Outcome) -> Outcome:
    """An outcome whose error and log lines do not hold the secrets of its call."""
    secrets = outcome.call.secrets
    if not secrets:
        return outcome
    mask = without(secrets)
    buffered = outcome.buffered
    lines = tuple(LogLine(mask(line.message), mapped(line.data, mask)) for line in buffered.lines)
    return evolve(outcome, error=mask(outcome.error), buffered=evolve(buffered, lines=lines))


class _TimedOut(Exception):
    pass


async def _within(made: Call, calling: Coroutine[Any, Any, Json], timeout_ms: int) -> Json:
    """Wait for a call, at most `timeout_ms`; then cancel it and leave it alone."""
    task = asyncio.ensure_future(calling)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_ms / 1000)
        if not done:
            made.context.request_cancel()
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=CANCEL_GRACE_SECONDS)
            raise _TimedOut
        return task.result()
    finally:
        if not task.done():
            task.cancel()
        task.add_done_callback(_look_away)


def _look_away(task: "asyncio.Future[Json]") -> None:
    """Take the late result of a call that was given up; it was recorded as unknown."""
    if not task.cancelled():
        task.exception()


def _checked(made: Call, output: Json) -> tuple[Json, str]:
    """The output, or what is known of one that cannot be recorded and why."""
    may_be_sensitive = made.conceal is not None
    try:
        text = canonical.dumps(output, "output")
    except InvalidJson as error:
        said = "output: holds what JSON cannot" if may_be_sensitive else error.message
        return {"type": type(output).__name__}, f"{said}; a tool returns JSON"
    size = len(text.encode())
    if size > MAX_OUTPUT_BYTES:
        known: dict[str, Json] = {"bytes": size}
        if not may_be_sensitive:
            known = {"sha256": canonical.digest(output), **known}
        return known, f"output has {size:,} bytes; at most {MAX_OUTPUT_BYTES:,} are kept"
    public = None
    if made.conceal is not None:
        public, secrets = made.conceal(output)
        made.secrets.update(secrets)
    problems = made.tool.schema.check_returns(output, public)
    # The tool may keep its object and change it later; what is recorded must not change.
    return own_copy(output), "; ".join(problems)


def _text(error: Exception) -> str:
    name = type(error).__name__
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - an error that cannot say what it is still is one
        said = "(it cannot be shown)"
    text = f"{name}: {said}" if said else name
    # What a tool says of its failure is data: it may hold what the log cannot.
    if len(text) > MAX_ERROR_CHARS:
        text = text[: MAX_ERROR_CHARS - len(CUT)] + CUT
    return text.encode("utf-8", "replace").decode()
