"""The journal of tool calls: who called what, written by the tools outside of the database.

The database says what was recorded. Whether a call was really made, or made twice, only the caller
knows; so each call appends a line to a file before it does anything else. One write to a file
opened with O_APPEND is whole, and what was written survives the death of its process.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from engine.context import ToolContext
from engine.declare import Tool

__all__ = ["Kill", "MadeCall", "Verdict", "judge", "read_calls", "written_down"]

_CONTEXT = "carstore_demo_context"


@frozen
class MadeCall:
    """One line of the journal: a call that was begun."""

    pid: int
    action_id: str
    tool: str
    attempt: int


@frozen(kw_only=True)
class Kill:
    """What was durable when a process had been killed."""

    pid: int
    position: int
    """The head of the log."""
    completed: frozenset[str]
    """Actions recorded as settled."""
    ended: frozenset[tuple[str, int]]
    """Actions and attempts whose outcome was recorded."""
    calls: int
    """Lines in the journal."""


@frozen(kw_only=True)
class Verdict:
    """What the journal and the log say together."""

    calls: int
    """All calls that were made."""
    run_again: tuple[MadeCall, ...]
    """Calls of an action that had been recorded as completed before: there must be none."""
    made_again: int
    """Calls that were in flight at a kill, and were made once more."""


def written_down(tool: Tool, journal: Path) -> Tool:
    """`tool`, but each of its calls is first written into `journal`."""
    function = tool.function
    assert function is not None
    name = tool.context_parameter or _CONTEXT
    number = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def write(arguments: dict[str, Any]) -> None:
        context = arguments[name] if tool.takes_context else arguments.pop(name)
        os.write(number, _line(context))

    def called(**arguments: Any) -> Any:
        write(arguments)
        return function(**arguments)

    async def called_on_the_loop(**arguments: Any) -> Any:
        write(arguments)
        return await function(**arguments)

    replaced: Callable[..., Any] = called_on_the_loop if tool.is_async else called
    return evolve(tool, function=replaced, context_parameter=name)


def _line(context: ToolContext) -> bytes:
    call = [os.getpid(), context.action_id, context.tool, context.attempt]
    return json.dumps(call).encode() + b"\n"


def read_calls(journal: Path) -> list[MadeCall]:
    """The calls made so far, in order."""
    if not journal.exists():
        return []
    lines = journal.read_text(encoding="utf-8").splitlines()
    return [MadeCall(*json.loads(line)) for line in lines]


def judge(calls: Sequence[MadeCall], kills: Iterable[Kill]) -> Verdict:
    """Compare what was called with what had been recorded at each kill.

    A compensation is called for an action that is completed, but by another tool; so an action is
    told by both.
    """
    run_again: dict[int, MadeCall] = {}
    made_again = 0
    for kill in kills:
        before, after = calls[: kill.calls], calls[kill.calls :]
        done = {(c.action_id, c.tool) for c in before if c.action_id in kill.completed}
        run_again |= {
            place: call
            for place, call in enumerate(after, kill.calls)
            if (call.action_id, call.tool) in done
        }
        later = {(call.action_id, call.tool) for call in after}
        made_again += sum(
            call.pid == kill.pid
            and (call.action_id, call.attempt) not in kill.ended
            and (call.action_id, call.tool) in later
            for call in before
        )
    return Verdict(calls=len(calls), run_again=tuple(run_again.values()), made_again=made_again)
