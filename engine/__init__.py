"""What happens next: propose, validate, execute, commit.

What is public is imported when it is first asked for: the command line comes through here too, and
has to be there, and able to be stopped, at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.context import ToolContext
    from engine.doubts import resolve
    from engine.errors import NoDoubt, RunExists, RunOwned, ToolsChanged
    from engine.formatting import format_tool_result
    from engine.ir import (
        Action,
        ActionRef,
        ActionResult,
        ActionStatus,
        ActionType,
        Assumption,
        FailureBehavior,
        Precondition,
        Proposal,
        Reversibility,
        RunResult,
        RunStatus,
        ToolCompensation,
    )
    from engine.plan_json import parse_proposal
    from engine.problems import InvalidProposal
    from engine.runtime import Runtime
    from engine.tools import Tool, ToolExecutor, ToolSchema, tool

__all__ = [
    "Action",
    "ActionRef",
    "ActionResult",
    "ActionStatus",
    "ActionType",
    "Assumption",
    "FailureBehavior",
    "InvalidProposal",
    "NoDoubt",
    "Precondition",
    "Proposal",
    "Reversibility",
    "RunExists",
    "RunOwned",
    "RunResult",
    "RunStatus",
    "Runtime",
    "Tool",
    "ToolCompensation",
    "ToolContext",
    "ToolExecutor",
    "ToolSchema",
    "ToolsChanged",
    "format_tool_result",
    "parse_proposal",
    "resolve",
    "tool",
]

_HOMES = {
    "context": ("ToolContext",),
    "doubts": ("resolve",),
    "errors": ("NoDoubt", "RunExists", "RunOwned", "ToolsChanged"),
    "formatting": ("format_tool_result",),
    "ir": (
        "Action",
        "ActionRef",
        "ActionResult",
        "ActionStatus",
        "ActionType",
        "Assumption",
        "FailureBehavior",
        "Precondition",
        "Proposal",
        "Reversibility",
        "RunResult",
        "RunStatus",
        "ToolCompensation",
    ),
    "plan_json": ("parse_proposal",),
    "problems": ("InvalidProposal",),
    "runtime": ("Runtime",),
    "tools": ("Tool", "ToolExecutor", "ToolSchema", "tool"),
}
"""Which module defines which of these names."""


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
