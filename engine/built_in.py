"""The tools that are always there: to wait for a time, and for a signal.

They are not called. An action that names one is held until what it waits for is there; meanwhile
the run needs no process. `engine.waits` carries them out. Whoever registers a tool of the same name
gets that one.
"""

from engine.declare import Tool
from engine.tool_schema import ToolSchema

__all__ = ["BUILT_IN", "MAX_WAIT_SECONDS", "SLEEP", "WAIT_SIGNAL"]

MAX_WAIT_SECONDS = 10 * 365 * 24 * 3600
"""Ten years. Longer waits are mistakes, and far below what the clocks' integers hold."""

SLEEP = Tool(
    schema=ToolSchema(
        name="sleep",
        description="Wait for some seconds, or until an instant (RFC 3339).",
        parameters={
            "type": "object",
            "properties": {
                "seconds": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
                "until": {"type": "string", "minLength": 1},
            },
            "oneOf": [{"required": ["seconds"]}, {"required": ["until"]}],
            "additionalProperties": False,
        },
        read_only=True,
    ),
    waits=True,
)

WAIT_SIGNAL = Tool(
    schema=ToolSchema(
        name="wait_signal",
        description="Wait until somebody sends this run a signal of that name; gives its value.",
        parameters={
            "type": "object",
            "properties": {
                "name": {
                    "type": "string",
                    "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
                    "maxLength": 128,
                },
                "timeout_secs": {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
            },
            "required": ["name"],
            "additionalProperties": False,
        },
        read_only=True,
    ),
    waits=True,
)

BUILT_IN = {tool.name: tool for tool in (SLEEP, WAIT_SIGNAL)}
"""By name."""
