"""What of a tool's calls must be possible to forget: where it stands, and how it is kept out of
messages.

A tool names it by paths from `parameters` or `output`: `parameters.password`, `output.*.secret`.
These values go beside the log as the events that hold them are recorded.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias
from urllib.parse import quote, quote_plus

from attrs import evolve

from carstore import canonical
from carstore import events as e
from carstore.blobs import is_hidden, references, referred
from carstore.names import Json
from carstore.redaction import JsonPath, Redaction
from engine.schema_check import HIDDEN
from engine.tool_schema import ToolSchema
from engine.tools import Tools

__all__ = [
    "CUT",
    "Conceal",
    "concealing",
    "hidden_in",
    "mapped",
    "not_there",
    "secrets_in",
    "veiled",
    "without",
]

Conceal: TypeAlias = Callable[[Json], tuple[Json, set[str]]]
"""Takes an output; gives it with references in the place of what is sensitive, and the texts in
that."""

MIN_SECRET_CHARS = 4
"""Shorter texts are not looked for in messages: they would be found everywhere."""

MAX_SECRETS = 500
"""Texts that are looked for. A message about a call that was given more is not kept at all."""

CUT = "..."
"""Ends a message that was cut off."""

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


def not_there(parameters: Json, values: Mapping[str, Json]) -> str | None:
    """Why a call cannot be given `parameters`, which were filled with `values`; None if it can."""
    left = next(references(parameters), None)
    if left is None:
        return None
    if left in values:
        return f"its parameters become too large with the value {left}"
    return f"its parameters need the value {left}, which was forgotten"


def veiled(value: Json) -> Json:
    """`value` with a fixed text in the place of each reference to a sensitive one: to be shown."""
    if type(value) is dict:
        return HIDDEN if is_hidden(value) else {name: veiled(item) for name, item in value.items()}
    return [veiled(item) for item in value] if type(value) is list else value


def concealing(schema: ToolSchema, redaction: Redaction) -> Conceal | None:
    """What takes sensitive values out of a tool's output before anything is said of it; None if
    nothing in it can be sensitive."""
    paths = [path for path in schema.sensitive_paths if path[0] == "output"]
    if not paths and not redaction.names:
        return None
    rules = evolve(redaction, inline_bytes=canonical.MAX_BYTES)

    def conceal(output: Json) -> tuple[Json, set[str]]:
        event = e.ActionSucceeded(action_id="", attempt=1, output=output, duration_us=0)
        made, blobs = rules.applied(event, paths)
        assert isinstance(made, e.ActionSucceeded)
        values = {blob.hash: canonical.loads_trusted(blob.body.decode()) for blob in blobs}
        return made.output, secrets_in(made.output, values)

    return conceal


def secrets_in(value: Json, values: Mapping[str, Json]) -> set[str]:
    """The texts in the sensitive values that `value` refers to, names included."""
    found: set[str] = set()
    if values:
        _collect(value, values, found, inside=False)
    return found


def _collect(value: Json, values: Mapping[str, Json], found: set[str], *, inside: bool) -> None:
    if type(value) is dict:
        blob = referred(value)
        if blob is not None:
            _collect(values.get(blob), values, found, inside=inside or "sensitive" in value)
            return
        for name, item in value.items():
            _collect(name, values, found, inside=inside)
            _collect(item, values, found, inside=inside)
    elif type(value) is list:
        for item in value:
            _collect(item, values, found, inside=inside)
    elif inside and value is not None and type(value) is not bool:
        text = str(value)
        if len(text) >= MIN_SECRET_CHARS:
            found.add(text)


def mapped(value: Json, change: Callable[[str], str]) -> Json:
    """`value` with each text in it changed, names included, and each number whose text changes."""
    kind = type(value)
    if kind is str:
        return change(value)
    if kind is dict:
        return {change(name): mapped(item, change) for name, item in value.items()}
    if kind is list:
        return [mapped(item, change) for item in value]
    if kind is int or kind is float:
        text = str(value)
        changed = change(text)
        return value if changed == text else changed
    return value


def without(secrets: Collection[str]) -> Callable[[str], str]:
    """What masks each secret in a text, as it is and as programs write it: escaped in one way or
    another. Where a text was cut off, the beginning of a secret there is masked too."""
    if len(secrets) > MAX_SECRETS:
        return lambda text: text and HIDDEN
    written = {form for secret in secrets for form in _written(secret)}

    def mask(text: str) -> str:
        spans = [span for form in written for span in _spans(form, text)]
        return _masked(text, spans) if spans else text

    return mask


def _written(secret: str) -> set[str]:
    """How a program may write `secret`, and how another may write that."""
    once = {secret}.union(*[way(secret) for way in _WAYS])
    return once.union(*[way(text) for text in once for way in _WAYS])


_WAYS: tuple[Callable[[str], set[str]], ...] = (
    # Within a text that holds both quotes, the single ones are escaped.
    lambda text: {repr(text)[1:-1], repr(text + '"')[1:-2], ascii(text + '"')[1:-2]},
    lambda text: {repr(text.encode())[2:-1], repr(text.encode() + b'"')[2:-2]},
    lambda text: {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]},
    lambda text: {quote(text), quote(text, safe=""), quote_plus(text)},
)


def _spans(form: str, text: str) -> list[tuple[int, int]]:
    """Where in `text` it stands, from and to; and where its beginning does, before a cut."""
    found, at = [], text.find(form)
    while at >= 0:
        found.append((at, at + len(form)))
        at = text.find(form, at + 1)
    if text.endswith(CUT):
        end = len(text) - len(CUT)
        begins = range(max(0, end - len(form) + 1), end)
        cut = next((at for at in begins if form.startswith(text[at:end])), None)
        if cut is not None:
            found.append((cut, end))
    return found


def _masked(text: str, spans: list[tuple[int, int]]) -> str:
    parts, done = [], 0
    for begin, end in sorted(spans):
        if end <= done:
            continue
        if begin >= done:
            parts += [text[done:begin], HIDDEN]
        done = end
    return "".join([*parts, text[done:]])
