"""Showing what a run came to, and what to do next."""

from collections import Counter

from carstore.names import RunId
from engine.cli.options import command_line
from engine.cli.screen import brief, duration, say, status_text, table, text, write
from engine.ir import ActionResult, ActionStatus, RunResult, RunStatus

__all__ = ["next_step", "resume_command", "show_result", "tell_next"]

MAX_LISTED = 30
"""Actions listed after a run; of a larger one, only those that did not succeed are."""

_BAD = (
    RunStatus.FAILED,
    RunStatus.ROLLED_BACK,
    RunStatus.PARTIALLY_COMPENSATED,
    RunStatus.CANCELLED,
)


def show_result(result: RunResult) -> None:
    """Print a result for people."""
    write(f"Run {result.run_id} of plan {result.proposal_id}: {_said(result.status)}")
    listed = list(result.results)
    if len(listed) > MAX_LISTED:
        listed = [one for one in listed if one.status is not ActionStatus.SUCCEEDED]
    if listed:
        write("")
        _show_actions(listed[:MAX_LISTED])
        if len(listed) > MAX_LISTED:
            write(f"... and {len(listed) - MAX_LISTED:,} more")
    write("")
    for left in result.not_undone:
        write(f"Not undone: {left.action_id}: {left.reason}")
    for conflict in result.conflicts:
        write(
            f"Left alone: state key {conflict.key!r}, which somebody else has set since "
            f"(position {conflict.theirs}; the run's own change is {conflict.ours})"
        )
    write(_summary(result))


def next_step(database: str, result: RunResult) -> str | None:
    """The command to type next, if the run did not simply succeed."""
    if result.status is RunStatus.WAITING:
        return command_line("doubts", database)
    if result.status in _BAD:
        return command_line("show", database, result.run_id)
    return None


def resume_command(database: str, run_id: RunId | str, tools: str | None) -> str:
    """The command that goes on with a run."""
    return command_line("resume", database, run_id, *(("--tools", tools) if tools else ()))


def tell_next(command: str | None, *, as_json: bool) -> None:
    """Print the next command: with the result, or beside it if that is JSON."""
    if command is not None:
        (say if as_json else write)(f"Next: {command}")


def _said(status: RunStatus) -> str:
    if status is RunStatus.WAITING:
        return "waiting for a person"
    return status.value.replace("_", " ")


def _show_actions(actions: list[ActionResult]) -> None:
    rows = []
    for one in actions:
        status = status_text("rolled_back" if one.rolled_back else one.status.value)
        outcome = one.error if one.error is not None else brief(one.output, 80)
        rows.append(
            [
                text(one.action_id),
                status,
                text(duration(one.duration_ms)),
                text(one.attempts or ""),
                text(outcome[:300]),
            ]
        )
    table(("ACTION", "STATUS", ">TIME", ">ATTEMPTS", "OUTPUT OR ERROR"), rows)


def _summary(result: RunResult) -> str:
    counts = Counter(one.status for one in result.results)
    parts = [f"{counts[status]:,} {status.value}" for status in ActionStatus if counts[status]]
    cost = result.cost
    parts.append(f"{cost.tool_calls:,} tool calls")
    parts.append(f"{cost.retries:,} retries")
    parts.append(f"{duration(cost.total_duration_ms) or '0 ms'} in actions")
    return ", ".join(parts)
