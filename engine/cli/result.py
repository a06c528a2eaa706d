"""Showing what a run came to, and what to do next."""

from collections import Counter
from collections.abc import Sequence

from carstore.names import RunId
from engine.cli.options import command_line, reading
from engine.cli.origin import answer_command, call_there
from engine.cli.screen import Cell, brief, duration, say, status_text, table, text, write
from engine.cli.stopping import run_stoppable
from engine.ir import ActionResult, ActionStatus, RunResult, RunStatus
from engine.origin import Found
from engine.results import rfc3339
from projections import DOUBTS, WAITS, rows
from projections.doubts import Doubt
from projections.waits import Wait

__all__ = [
    "accept_command",
    "answer",
    "doubts_of",
    "next_answer",
    "next_step",
    "resolve_command",
    "resume_command",
    "show_result",
    "tell_next",
    "waits_what",
]

MAX_COMMANDS = 5
"""Commands printed for calls in doubt; `carstore doubts` lists all of them."""

MAX_LISTED = 30
"""Actions listed after a run; of a larger one, only those that did not succeed are."""

_WAITS = {
    "acceptance": "copied unfinished, waiting until somebody accepts that it goes on here",
    "signal": "waiting for a signal",
    "time": "waiting until it is time",
}
"""What a run is said to do that waits for this; for anything else it waits for a person."""

_BAD = (
    RunStatus.FAILED,
    RunStatus.ROLLED_BACK,
    RunStatus.PARTIALLY_COMPENSATED,
    RunStatus.CANCELLED,
)


def show_result(database: str, result: RunResult, there: Found | None = None) -> None:
    """Print a result for people; of a run that waits, also for what.

    Args:
        there: of a copy, what its origin says.
    """
    write(f"Run {result.run_id} of plan {result.proposal_id}: {_said(result)}")
    doubts = doubts_of(database, result) if result.status is RunStatus.WAITING else []
    listed = list(result.results)
    if len(listed) > MAX_LISTED:
        listed = [one for one in listed if one.status is not ActionStatus.SUCCEEDED]
    if listed or doubts:
        write("")
        _show_actions(listed[:MAX_LISTED], doubts[:MAX_LISTED])
        more = max(0, len(listed) - MAX_LISTED) + max(0, len(doubts) - MAX_LISTED)
        if more:
            write(f"... and {more:,} more")
    write("")
    if result.stopped is not None:
        write(f"Stopped: {result.stopped}")
    if result.replaces is not None:
        write(f"It came in the place of run {result.replaces}, which was aborted")
    if doubts:
        write("Find out, by its idempotency key, whether it was carried out; then say so:")
    for doubt in doubts[:MAX_COMMANDS]:
        write(f"  {answer(database, doubt, there)}")
    for left in result.not_undone:
        write(f"Not undone: {left.action_id}: {left.reason}")
    for conflict in result.conflicts:
        write(
            f"Left alone: state key {conflict.key!r}, which somebody else has set since "
            f"(position {conflict.theirs}; the run's own change is {conflict.ours})"
        )
    write(_summary(result))


def resolve_command(database: str, doubt: Doubt) -> str:
    """The command that says what became of a call in doubt."""
    command = command_line("resolve", database, doubt.run_id, doubt.action_id)
    return f"{command} --retry (or --succeeded JSON, or --failed TEXT)"


def answer(database: str, doubt: Doubt, there: Found | None) -> str:
    """The same, with the answer that the origin of a copy knows, if it does."""
    call = call_there(there, doubt)
    return (
        resolve_command(database, doubt) if call is None else answer_command(database, doubt, call)
    )


def next_answer(database: str, doubts: Sequence[Doubt], there: Found | None) -> str:
    """The command that answers for the first of some doubts of which the origin of a copy knows
    what became; for the first one, if it knows of none."""
    known = [doubt for doubt in doubts if call_there(there, doubt) is not None]
    return answer(database, (known or doubts)[0], there)


def next_step(database: str, result: RunResult, tools: str | None = None) -> str | None:
    """The command to type next, if the run did not simply succeed."""
    if result.waits_for == "acceptance":
        return accept_command(database, result.run_id, tools)
    if result.waits_for == "approval":
        return command_line("approvals", database)
    if result.waits_for in ("signal", "time"):
        return _next_wait(database, result, tools)
    if result.status is RunStatus.WAITING:
        return command_line("doubts", database)
    if result.status in _BAD:
        return command_line("show", database, result.run_id)
    return None


def _next_wait(database: str, result: RunResult, tools: str | None) -> str:
    """The command for what a run waits for longest: a signal if it needs one, else going on in
    time."""

    async def load() -> list[Wait]:
        async with reading(database) as store:
            found = await rows(store, WAITS, where={"run_id": result.run_id})
            return sorted(found.values(), key=lambda wait: (wait.since, wait.action_id))

    waits = run_stoppable(load())
    for wait in waits:
        if wait.signal is not None and result.waits_for == "signal":
            return command_line("signal", database, result.run_id, wait.signal, "JSON")
    due = [wait.due_at for wait in waits if wait.due_at is not None]
    then = f" (from {rfc3339(min(due))})" if due else ""
    return resume_command(database, result.run_id, tools or "FILE_OR_MODULE") + then


def resume_command(database: str, run_id: RunId | str, tools: str | None) -> str:
    """The command that goes on with a run."""
    return command_line("resume", database, run_id, *(("--tools", tools) if tools else ()))


def accept_command(database: str, run_id: RunId | str, tools: str | None) -> str:
    """The command that goes on with a run that was copied unfinished."""
    return f"{resume_command(database, run_id, tools or 'FILE_OR_MODULE')} --accept-copy"


def tell_next(command: str | None, *, as_json: bool) -> None:
    """Print the next command: with the result, or beside it if that is JSON."""
    if command is not None:
        (say if as_json else write)(f"Next: {command}")


def _said(result: RunResult) -> str:
    if result.status is RunStatus.WAITING:
        return waits_what(result)
    return result.status.value.replace("_", " ")


def waits_what(result: RunResult) -> str:
    """What a waiting run waits for, in words."""
    return _WAITS.get(result.waits_for or "", "waiting for a person")


def doubts_of(database: str, result: RunResult) -> list[Doubt]:
    """The calls that a run waits for, the oldest first."""

    async def load() -> list[Doubt]:
        async with reading(database) as store:
            found = await rows(store, DOUBTS, where={"run_id": result.run_id})
            return sorted(found.values(), key=lambda doubt: doubt.since)

    return run_stoppable(load())


def _show_actions(actions: Sequence[ActionResult], doubts: Sequence[Doubt]) -> None:
    lines: list[list[Cell]] = []
    for one in actions:
        status = status_text("rolled_back" if one.rolled_back else one.status.value)
        outcome = one.error if one.error is not None else brief(one.output, 80)
        lines.append(
            [
                text(one.action_id),
                status,
                text(duration(one.duration_ms)),
                text(one.attempts or ""),
                text(outcome[:300]),
            ]
        )
    for doubt in doubts:
        what = "undoing it, " if doubt.undo else ""
        why = f"{what}{doubt.tool}: {doubt.reason}; idempotency key {doubt.idempotency_key}"
        lines.append(
            [
                text(doubt.action_id),
                status_text("in doubt"),
                text(""),
                text(doubt.attempt),
                text(why[:300]),
            ]
        )
    table(("ACTION", "STATUS", ">TIME", ">ATTEMPTS", "OUTPUT OR ERROR"), lines)


def _summary(result: RunResult) -> str:
    counts = Counter(one.status for one in result.results)
    parts = [f"{counts[status]:,} {status.value}" for status in ActionStatus if counts[status]]
    cost = result.cost
    parts.append(f"{cost.tool_calls:,} tool calls")
    parts.append(f"{cost.retries:,} retries")
    parts.append(f"{duration(cost.total_duration_ms) or '0 ms'} in actions")
    return ", ".join(parts)
