"""What is told of a copy's origin."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click

from carstore import Store, canonical
from carstore.names import Json, RunId
from engine.cli.errors import BadUsage
from engine.cli.options import command_line
from engine.cli.screen import brief
from engine.origin import CallThere, Found, look_at_origin
from projections.doubts import Doubt

__all__ = [
    "ASK_ORIGIN",
    "answer_command",
    "call_json",
    "call_said",
    "call_there",
    "look",
    "origin_option",
    "run_json",
]

ASK_ORIGIN = "If its origin can be read: --origin FILE tells how it went on there."

_Command = TypeVar("_Command", bound=Callable[..., Any])


def origin_option(command: _Command) -> _Command:
    """`--origin FILE`."""
    return click.option(
        "--origin",
        metavar="FILE",
        type=click.Path(),
        help="Of a copy: where its origin is, if not where it was when the copy was taken.",
    )(command)


async def look(store: Store, runs: Collection[str], path: str | None) -> Found | None:
    """What the origin says of some runs; None if there is nothing to ask, or nobody.

    Raises:
        BadUsage: the file that was named is not the origin.
    """
    if not runs and path is None:
        return None
    found = await look_at_origin(store, [RunId(run) for run in runs], path)
    if found is None and path is not None:
        raise BadUsage("--origin", f"{path} is not the file of which {store.path} is a copy")
    return found


def call_there(found: Found | None, doubt: Doubt) -> CallThere | None:
    """How a call in doubt ended in the origin, if it did."""
    if found is None:
        return None
    return found.calls.get((RunId(doubt.run_id), doubt.action_id, doubt.undo, doubt.attempt))


def answer_command(database: str, doubt: Doubt, call: CallThere) -> str:
    """The command that says of a call in doubt what the origin knows of it: it is the same call."""
    output = canonical.dumps(call.output)
    answer = ("--succeeded", output) if call.succeeded else ("--failed", call.error or "failed")
    return command_line("resolve", database, doubt.run_id, doubt.action_id, *answer)


def call_json(call: CallThere | None) -> Json:
    """The same for programs."""
    if call is None:
        return None
    return {
        "succeeded": call.succeeded,
        "output": call.output,
        "error": call.error,
        "position": call.position,
    }


def run_json(found: Found, run_id: str) -> Json:
    """How a run went on in the origin after the copy was taken, for programs."""
    return {
        "path": found.path,
        "status": found.statuses.get(RunId(run_id)),
        "calls": [
            {"action_id": action, "undo": undo, "attempt": attempt} | call_json(call)
            for (run, action, undo, attempt), call in found.calls.items()
            if run == run_id
        ],
    }


def call_said(call: CallThere) -> str:
    """The same for people, in some words."""
    if call.succeeded:
        return f"succeeded at position {call.position}, output {brief(call.output, 80)}"
    return f"failed at position {call.position}: {call.error or ''}"[:200]
