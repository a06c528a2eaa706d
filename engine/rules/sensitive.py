"""What of a tool's calls must be possible to forget: where it stands, and how it is kept out of
messages.

A tool names it by paths from `parameters` or `output`: `parameters.password`, `output.*.secret`.
These values go beside the log as the events that hold them are recorded.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from carstore import events as e
from carstore.blobs import references, referred
from carstore.names import Json
from carstore.redaction import JsonPath
from engine.tools import Tools

__all__ = ["forgotten_in", "hidden_in", "mapped", "secrets_in", "without"]

MIN_SECRET_CHARS = 4
"""Shorter texts are not looked for in messages: they would be found everywhere."""

MASK = "[sensitive]"

_OUTPUT_OF = (e.ActionSucceeded, e.ActionFailed, e.ActionDeduplicated)


def hidden_in(event: e.Event, tools: Tools, tool: str | None) -> list[JsonPath]:
    """Where in an event sensitive values stand, by what the tools say.

    Args:
        tool: of the action that the event is about.
    """
    if not tools.any_sensitive:
        return []
    if isinstance(event, e.ProposalReceived):
        return _in_proposal(event.proposal, tools)
    if isinstance(event, e.CompensationSucceeded):
        tool = event.tool
    elif not isinstance(event, _OUTPUT_OF):
        return []
    return _paths(tools, tool, "output")


def _in_proposal(proposal: Json, tools: Tools) -> list[JsonPath]:
    found: list[JsonPath] = []
    for index, action in enumerate(proposal["actions"]):
        place: JsonPath = ("proposal", "actions", index)
        found += [(*place, *path) for path in _paths(tools, action.get("tool"), "parameters")]
        undo = action.get("compensation")
        if isinstance(undo, dict):
            paths = _paths(tools, undo.get("tool"), "parameters")
            found += [(*place, "compensation", *path) for path in paths]
    return found


def _paths(tools: Tools, name: str | None, root: str) -> list[JsonPath]:
    tool = tools.get(name) if isinstance(name, str) else None
    if tool is None:
        return []
    return [path for path in tool.schema.sensitive_paths if path[0] == root]


def forgotten_in(parameters: Json) -> str | None:
    """The first value that a call would need and that is not there any more."""
    return next(references(parameters), None)


def secrets_in(parameters: Json, values: Mapping[str, Json]) -> frozenset[str]:
    """The texts in the sensitive values that `parameters` refer to."""
    found: set[str] = set()
    _collect(parameters, values, found, inside=False)
    return frozenset(found)


def _collect(value: Json, values: Mapping[str, Json], found: set[str], *, inside: bool) -> None:
    if type(value) is dict:
        blob = referred(value)
        if blob is not None:
            _collect(values.get(blob), values, found, inside=inside or "sensitive" in value)
            return
        for item in value.values():
            _collect(item, values, found, inside=inside)
    elif type(value) is list:
        for item in value:
            _collect(item, values, found, inside=inside)
    elif inside and value is not None and type(value) is not bool:
        text = str(value)
        if len(text) >= MIN_SECRET_CHARS:
            found.add(text)


def mapped(value: Json, change: Callable[[str], str]) -> Json:
    """`value` with each text in it changed, names included."""
    if type(value) is str:
        return change(value)
    if type(value) is dict:
        return {change(name): mapped(item, change) for name, item in value.items()}
    if type(value) is list:
        return [mapped(item, change) for item in value]
    return value


def without(secrets: Iterable[str], text: str) -> str:
    """`text` with each secret masked, the longest first."""
    ordered = sorted(secrets, key=len, reverse=True)
    if not ordered:
        return text
    return re.sub("|".join(map(re.escape, ordered)), MASK, text)
