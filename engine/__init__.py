"""What happens next: propose, validate, execute, commit."""

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
