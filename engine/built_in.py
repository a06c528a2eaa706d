"""The tools that are always there: to wait for a time, and for a signal.

They are not called. An action that names one is held until what it waits for is there; meanwhile
the run needs no process. `engine.waits` carries them out. Whoever registers a tool of the same name
gets that one.
"""

import re
from datetime import UTC, datetime, timedelta

from engine.declare import Tool
from engine.tool_schema import ToolSchema

__all__ = ["BUILT_IN", "MAX_WAIT_SECONDS", "SLEEP", "WAIT_SIGNAL", "instant_of"]

MAX_WAIT_SECONDS = 10 * 365 * 24 * 3600
"""Ten years. Longer waits are mistakes, and far below what the clocks' integers hold."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LAST = datetime.max.replace(tzinfo=UTC)

_MICROSECOND = timedelta(microseconds=1)

_FINER = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")
"""A fraction of a second finer than microseconds, which `datetime` cuts off."""

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
        returns={
            "type": "object",
            "properties": {"until": {"type": "string"}},
            "required": ["until"],
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


def instant_of(text: str) -> int:
    """What `until` of `sleep` means: microseconds UTC, rounded up.

    Raises:
        ValueError: it is no instant in RFC 3339 with its offset, or none of 1970 to 9999 in UTC.
    """
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except (ValueError, TypeError):  # no instant, or no offset
        raise ValueError(
            f"until: {text!r:.60} is no instant; write it as 2030-01-31T12:00:00Z, with its offset"
        ) from None
    if not timedelta(0) <= since <= _LAST - _EPOCH:
        raise ValueError(
            f"until: {text!r:.60} is not between 1970 and 9999 in UTC; write an instant that is"
        )
    return since // _MICROSECOND + bool(_FINER.search(text))
