"""Parameters against the schema of their tool, where some of them are not known.

Where all is known, the tool's own check decides. Otherwise the schema is relaxed so that it accepts
whatever the tool's would accept for some value of what is not known, and no less: around an unknown
part only the keywords stay whose answer does not depend on it. So what the relaxed schema refuses,
the tool refuses. Besides, the type that a tool says it returns can rule out a parameter.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from carstore import canonical
from carstore.names import Json
from engine.checks.unknown import ANYTHING, Unknown, has_unknown, marked, part_of, types_of
from engine.problems import Step, path_text
from engine.rules.references import Reference, UnresolvedReference, find, read, resolve
from engine.schema_check import compile_schema
from engine.tool_schema import ToolSchema

__all__ = ["may_refuse", "parameter_errors", "substituted"]

_INDEPENDENT = (
    "type",
    "required",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "dependentRequired",
)
"""Keywords that ask only which properties or how many items there are."""

_SAYS_NOTHING = frozenset(("title", "description", "default", "examples", "$defs", "definitions"))
"""Keywords that no value fails."""

_PLAIN = frozenset(
    ("type", "required", "properties", "items", "minItems", "maxItems", "additionalProperties")
)
"""Keywords of a container whose answer shows in its parts, or does not depend on them."""

_DEFINITIONS = ("$defs", "definitions")

_ELSEWHERE = ('"$id"', '"$anchor"', '"$dynamicRef"', '"$dynamicAnchor"', '"$recursiveRef"')
"""What can make a reference mean a part of the schema that was relaxed."""


def substituted(
    parameters: dict[str, Json],
    ids: Mapping[str, Any],
    outputs: Mapping[str, Any],
    doubtful: list[str] | None = None,
) -> dict[str, Any]:
    """`parameters` with every output reference replaced, by an `Unknown` where only that is there.

    Args:
        ids: the ids of all actions of the proposal.
        outputs: by action; they may hold `Unknown`s.
        doubtful: takes the references that may lead nowhere.

    Raises:
        UnresolvedReference: one certainly leads nowhere.
    """
    unknown: dict[tuple[Step, ...], Unknown] = {}
    for steps, text in find(parameters):
        reference = read(text, ids)
        if reference is not None:
            reached, certain = _unknown_on_the_way(reference, outputs)
            if reached is not None:
                unknown[steps] = reached
            if not certain and doubtful is not None:
                doubtful.append(text)
    found: dict[str, Any] = resolve(_replaced(parameters, unknown, ()), ids, outputs)
    return found


def parameter_errors(schema: ToolSchema, parameters: dict[str, Any]) -> list[str]:
    """Everything in which `parameters` certainly are not what a tool takes; [] if nothing.

    Raises:
        InvalidTool: if the schema is not valid JSON Schema.
    """
    if not has_unknown(parameters):
        return schema.check_parameters(parameters)
    whole = schema.parameters
    if not _can_be_relaxed(whole):
        return []
    shape = _relaxed(whole, parameters)
    if isinstance(shape, dict):
        shape = {**shape, **{name: whole[name] for name in _DEFINITIONS if name in whole}}
    check = compile_schema(shape if isinstance(shape, dict) else {}, "parameters")
    clashes = _clashes(whole, parameters, ("parameters",))
    return [*check.errors(marked(parameters, _null)), *clashes]


def _null() -> None:
    return None


def _unknown_on_the_way(
    reference: Reference, outputs: Mapping[str, Any]
) -> tuple[Unknown | None, bool]:
    """The `Unknown` that a reference leads to, and whether it certainly leads there; no `Unknown`
    if what it means, or that it means nothing, is known.

    Raises:
        UnresolvedReference: the schema of what is not known rules the path out.
    """
    if reference.action_id not in outputs:
        return None, True
    value, certain = outputs[reference.action_id], True
    for place, segment in enumerate(reference.path):
        if isinstance(value, Unknown):
            part = part_of(value, segment)
            if part is None:
                so_far = ".".join((f"${reference.action_id}.output", *reference.path[:place]))
                raise UnresolvedReference(
                    reference.text,
                    f"goes no further than {so_far}: by the schema of what the tool returns, "
                    f"there is no '{segment}'",
                )
            value, certain = part[0], certain and part[1]
        else:
            try:
                value = resolve([f"$a.output.{segment}"], {"a"}, {"a": value})[0]
            except UnresolvedReference:
                return None, True
    return (value, certain) if isinstance(value, Unknown) else (None, True)


def _replaced(value: Any, by: Mapping[tuple[Step, ...], Unknown], at: tuple[Step, ...]) -> Any:
    if not by:
        return value
    if at in by:
        return by[at]
    if isinstance(value, dict):
        return {key: _replaced(item, by, (*at, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, by, (*at, place)) for place, item in enumerate(value)]
    return value


def _can_be_relaxed(schema: dict[str, Json]) -> bool:
    """Whether its references lead to definitions only, which stay as they are."""
    text = canonical.dumps(schema)
    if "$schema" in schema or any(word in text for word in _ELSEWHERE):
        return False
    return text.count('"$ref":') == text.count('"$ref":"#/$defs/') + text.count(
        '"$ref":"#/definitions/'
    )


def _relaxed(schema: Json, value: Any) -> Json:
    if not has_unknown(value) or not isinstance(schema, dict):
        return schema
    if isinstance(value, Unknown):
        return ANYTHING
    kept = {name: schema[name] for name in _INDEPENDENT if name in schema}
    if isinstance(value, dict):
        kept |= _relaxed_object(schema, value)
    else:
        kept |= _relaxed_array(schema, value)
    if "allOf" in schema:
        kept["allOf"] = [_relaxed(part, value) for part in schema["allOf"]]
    return kept


def _relaxed_object(schema: dict[str, Json], value: dict[str, Any]) -> dict[str, Json]:
    found: dict[str, Json] = {
        "properties": {
            name: _relaxed(part, value[name]) if name in value else part
            for name, part in schema.get("properties", {}).items()
        }
    }
    if "patternProperties" in schema:
        found["patternProperties"] = dict.fromkeys(schema["patternProperties"], ANYTHING)
    if schema.get("additionalProperties") is False:
        found["additionalProperties"] = False
    return found


def _relaxed_array(schema: dict[str, Json], value: list[Any]) -> dict[str, Json]:
    first = schema.get("prefixItems", [])
    rest = schema.get("items", ANYTHING)
    parts = [*first[: len(value)], *[rest] * (len(value) - len(first))]
    relaxed = [_relaxed(part, item) for part, item in zip(parts, value, strict=True)]
    return {"prefixItems": relaxed} if relaxed else {}


def _clashes(schema: Json, value: Any, at: tuple[Step, ...]) -> Iterator[str]:
    """Where a tool takes another type than what is not known has."""
    if not isinstance(schema, dict):
        return
    if isinstance(value, Unknown):
        wanted, given = types_of(schema), types_of(value.schema)
        if wanted is not None and given is not None and not _meet(wanted, given):
            yield (
                f"{path_text(at)}: {value.why} is of type {' or '.join(sorted(given))}, not "
                f"{' or '.join(sorted(wanted))}"
            )
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, item in value.items():
            if name in properties:
                yield from _clashes(properties[name], item, (*at, name))
    elif isinstance(value, list):
        first = schema.get("prefixItems", [])
        for place, item in enumerate(value):
            part = first[place] if place < len(first) else schema.get("items", ANYTHING)
            yield from _clashes(part, item, (*at, place))


def may_refuse(schema: Json, value: Any) -> bool:
    """Whether a schema may refuse a value for what is not known of it."""
    if not has_unknown(value) or schema is True:
        return False
    if not isinstance(schema, dict):
        return True
    keywords = schema.keys() - _SAYS_NOTHING
    if isinstance(value, Unknown):
        wanted, given = types_of(schema), types_of(value.schema)
        if keywords <= {"type"} and given is not None and wanted is not None:
            return not all(one in wanted or _is_number(one, wanted) for one in given)
        return bool(keywords)
    if keywords - _PLAIN:
        return True
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        return any(may_refuse(properties.get(name, rest), item) for name, item in value.items())
    items = schema.get("items", ANYTHING)
    return any(may_refuse(items, item) for item in value)


def _is_number(given: str, wanted: frozenset[str]) -> bool:
    return given == "integer" and "number" in wanted


def _meet(wanted: frozenset[str], given: frozenset[str]) -> bool:
    numbers = {"integer", "number"}
    return bool(wanted & given) or bool(wanted & numbers and given & numbers)
