"""Whether what a proposer believed of the state still holds."""

from carstore import canonical
from carstore.log import StateRead
from carstore.names import Json
from engine.ir import Assumption
from engine.problems import shown
from engine.rules.sensitive import veiled
from engine.rules.values import same

__all__ = ["stale"]


def stale(assumption: Assumption, read: StateRead) -> str | None:
    """Why `assumption` does not hold for the state of its key, or None if it does.

    A version holds if the key was not written or deleted since that position of the log, even to
    the same value again; the position of the change that was read will do as well. A value holds
    only if the key exists and has that value; None assumes nothing about the value.

    Args:
        read: the key as it is; large values filled in.
    """
    version, expected = assumption.read_version, assumption.expected_value
    if version is not None and read.position > version:
        reason = f"it was read at position {version} and was changed at {read.position}"
    elif expected is not None and not read.exists:
        reason = f"it was to be {_shown(expected)} and does not exist"
    elif expected is not None and not same(read.value, expected):
        reason = f"it was to be {_shown(expected)} and is {_shown(read.value)}"
    else:
        return None
    return f"assumption on '{assumption.key}' is stale: {reason}"


MAX_SHOWN_CHARS = 80
"""Of a value, in a message."""


def _shown(value: Json) -> str:
    text = canonical.dumps(veiled(value))
    return text if len(text) <= MAX_SHOWN_CHARS else shown(value)
