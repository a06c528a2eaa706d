"""Values that are not known before a plan runs, and what can be said of them all the same.

An `Unknown` stands in a JSON value wherever only the run itself can tell what is there: in the
place of an output, or of the state of a key.
"""

import re
from typing import Any

from attrs import field, frozen

from carstore.names import Json

__all__ = ["ANYTHING", "Unknown", "has_unknown", "marked", "part_of", "types_of"]

ANYTHING: Json = True
"""The JSON Schema that every value satisfies."""

MARK = "$unknown"
"""The key under which JSON for people and programs says why a value is not known."""

_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")


@frozen
class Unknown:
    """A value that nobody knows yet."""

    why: str
    """What it is, as part of a sentence: `the output of a1`."""
    schema: Json = field(default=ANYTHING, hash=False)
    """A JSON Schema that it satisfies; one that names another dialect says nothing here."""


def has_unknown(value: Any) -> bool:
    """Whether an `Unknown` stands anywhere in a value."""
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return isinstance(value, Unknown)


def marked(value: Any, mark: Any = None) -> Json:
    """`value` as JSON: each `Unknown` becomes `{"$unknown": why}`, or `mark` if one is given."""
    if isinstance(value, dict):
        return {key: marked(item, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item, mark) for item in value]
    if isinstance(value, Unknown):
        return {MARK: value.why} if mark is None else mark()
    return value


def types_of(schema: Json) -> frozenset[str] | None:
    """The JSON types that a schema's own `type` allows; None if it has none."""
    found = schema.get("type") if isinstance(schema, dict) and "$schema" not in schema else None
    if isinstance(found, str):
        return frozenset((found,))
    return frozenset(found) if isinstance(found, list) else None


def part_of(unknown: Unknown, segment: str) -> tuple[Unknown, bool] | None:
    """What a segment of a reference's path leads to, and whether that is certainly there; None if
    its schema rules it out."""
    schema = unknown.schema
    if not isinstance(schema, dict) or "$schema" in schema:
        return None if schema is False else (Unknown(unknown.why), False)
    types = types_of(schema) or frozenset(("object", "array"))
    as_object = _of_object(schema, segment) if "object" in types else False
    as_array = _of_array(schema, int(segment)) if _is_item(types, segment) else False
    found = [part for part in (as_object, as_array) if part is not False]
    if not found:
        return None
    part = Unknown(unknown.why, found[0] if len(found) == 1 else ANYTHING)
    return part, _is_there(schema, segment)


def _is_there(schema: dict[str, Json], segment: str) -> bool:
    types = types_of(schema)
    if types == frozenset(("object",)):
        return segment in schema.get("required", ())
    return types == frozenset(("array",)) and int(segment) < schema.get("minItems", 0)


def _is_item(types: frozenset[str], segment: str) -> bool:
    return "array" in types and _INDEX.match(segment) is not None


def _of_object(schema: dict[str, Json], name: str) -> Json:
    """The schema of a property; False if there can be none of that name."""
    properties = schema.get("properties", {})
    if name in properties:
        return properties[name]
    return ANYTHING if "patternProperties" in schema else schema.get("additionalProperties", True)


def _of_array(schema: dict[str, Json], index: int) -> Json:
    """The schema of an item; False if there can be none in that place."""
    first = schema.get("prefixItems", [])
    most = schema.get("maxItems")
    if most is not None and index >= most:
        return False
    return first[index] if index < len(first) else schema.get("items", ANYTHING)
