"""A result as text for a model."""

from carstore import canonical
from engine.ir import ActionResult, ActionStatus

__all__ = ["format_tool_result"]


def format_tool_result(result: ActionResult) -> str:
    """What to tell a model about the call it asked for: the output as JSON, or the status in
    brackets and why (seed 001)."""
    if result.status is ActionStatus.SUCCEEDED:
        return "" if result.output is None else canonical.dumps(result.output)
    return f"[{result.status.value.upper()}] {result.error or ''}"
