"""The tool that an action of a plan calls, as far as that is known before the run."""

from engine.built_in import BUILT_IN
from engine.declare import Tool
from engine.ir import Action, ActionType
from engine.tools import Tools

__all__ = ["calls_unknown_tool", "tool_called"]


def tool_called(action: Action, tools: Tools | None) -> Tool | None:
    """The tool of that name, if there is one; if nobody knows the tools, those that are built in
    are still there."""
    name = action.tool or ""
    return BUILT_IN.get(name) if tools is None else tools.get(name)


def calls_unknown_tool(action: Action, tools: Tools | None) -> bool:
    """Whether an action calls a tool of which nothing is known because no tools were given."""
    is_call = action.type is ActionType.TOOL_CALL
    return tools is None and is_call and tool_called(action, tools) is None
