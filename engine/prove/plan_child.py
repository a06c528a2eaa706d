"""The process that is killed while it runs somebody's own plan with their own tools.

Nothing in the tools knows of it: each call is noted around them, with one `write` to a file opened
with O_APPEND, together with what the log said at that moment of its intent and its completion.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve

from carstore import canonical, connect
from engine.context import ToolContext
from engine.declare import Tool
from engine.prove.workload import Place, note, tell_acknowledgements
from engine.runtime import Runtime
from engine.tools import load_tools

__all__ = ["FINISHED", "RUN_ID", "WAITS", "live", "watched"]

RUN_ID = "proof"

FINISHED = 0
WAITS = 3
"""Exit codes: how the run ended its turn."""

_CONTEXT = "carstore_prove_context"


def watched(tool: Tool, place: Place) -> Tool:
    """`tool`, but each of its calls is noted before it begins."""
    function = tool.function
    assert function is not None
    name = tool.context_parameter or _CONTEXT

    def tell(arguments: dict[str, Any]) -> None:
        context = arguments[name] if tool.takes_context else arguments.pop(name)
        _note_call(place, tool, context)

    def called(**arguments: Any) -> Any:
        tell(arguments)
        return function(**arguments)

    async def called_on_the_loop(**arguments: Any) -> Any:
        tell(arguments)
        return await function(**arguments)

    replaced: Callable[..., Any] = called_on_the_loop if tool.is_async else called
    return evolve(tool, function=replaced, context_parameter=name, undo=None)


def _note_call(place: Place, tool: Tool, context: ToolContext) -> None:
    [[epoch]] = place.look("first_data")
    of = [canonical.loads(epoch)["log_id"], context.run_id, context.action_id]
    undo = context.idempotency_key == canonical.digest([*of, "undo"])
    family = "compensation" if undo else "action"
    history = place.look("action_history", f"run/{context.run_id}", context.action_id)
    note(
        place.journal,
        run=context.run_id,
        action=context.action_id,
        undo=undo,
        attempt=context.attempt,
        effect="idempotent" if tool.schema.read_only or tool.schema.idempotent else "once",
        intent=(f"{family}_executing", context.attempt) in history,
        completed=any(kind == f"{family}_succeeded" for kind, _ in history),
        pid=os.getpid(),
    )


def live(folder: str, plan: bytes, tools: str, on_doubt: str) -> None:
    """Begin the run or go on with it, until it ends or waits for a person."""
    place = Place(Path(folder))
    status = asyncio.run(_live(place, plan, tools, on_doubt))
    place.close()
    os._exit(WAITS if status == "waiting" else FINISHED)  # threads of tools may never end


async def _live(place: Place, plan: bytes, tools: str, on_doubt: str) -> str:
    table = [watched(one, place) for one in load_tools(tools)]
    async with connect(place.database, instance="carstore prove") as store:
        tell_acknowledgements(store, place)
        note(place.acks, pid=os.getpid(), phase="open")
        runtime = Runtime(store, table, on_doubt=on_doubt)
        result = await runtime.execute(plan, run_id=RUN_ID)
        note(place.acks, pid=os.getpid(), phase="done")
    return result.status.value
