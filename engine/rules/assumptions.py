"""Whether what a proposer believed of the state still holds."""

from collections.abc import Mapping
from types import MappingProxyType

from carstore import canonical
from carstore.blobs import filled
from carstore.log import StateRead
from carstore.names import Json
from engine.ir import Assumption
from engine.problems import shown
from engine.rules.sensitive import veiled
from engine.rules.values import same

__all__ = ["stale"]


def stale(
    assumption: Assumption, read: StateRead, values: Mapping[str, Json] = MappingProxyType({})
) -> str | None:
    """Why `assumption` does not hold for the state of its key, or None if it does.

    A version holds if the key was not written or deleted since that position of the log, even to
    the same value again; the position of the change that was read will do as well. A value holds
    only if the key exists and has that value; None assumes nothing about the value. What stands
    beside the log is compared by its value, and not shown if sensitive.

    Args:
        read: the key as it is.
        values: beside the log, by hash, as far as the comparison may need them.
    """
    version, expected = assumption.read_version, assumption.expected_value
    if version is not None and read.position > version:
        reason = f"it was read at position {version} and was changed at {read.position}"
    elif expected is not None and not read.exists:
        reason = f"it was to be {_shown(expected, values)} and does not exist"
    elif expected is not None and not same(filled(read.value, values), filled(expected, values)):
        reason = f"it was to be {_shown(expected, values)} and is {_shown(read.value, values)}"
    else:
        return None
    return f"assumption on '{assumption.key}' is stale: {reason}"


MAX_SHOWN_CHARS = 80
"""Of a value, in a message."""


def _shown(value: Json, values: Mapping[str, Json]) -> str:
    public = veiled(filled(value, values, sensitive=False))
    text = canonical.dumps(public)
    return text if len(text) <= MAX_SHOWN_CHARS else shown(public)
