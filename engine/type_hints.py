"""JSON Schemas that type hints spell out.

Values reach a tool as the JSON they are: no hint converts anything. So only hints that JSON
values satisfy can be translated: `str int float bool None Any`, `list[T]`, `dict[str, T]`,
`Sequence[T]`, `Mapping[str, T]`, `Literal[...]`, `Optional`, unions, and `TypedDict`. Enums,
tuples, sets, bytes and classes cannot, because the function would be handed something else than it
says.
"""

import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from carstore.names import Json

__all__ = ["Untranslatable", "evaluate", "is_union", "schema_of"]

_Schema = dict[str, Json]

_PLAIN: dict[Any, _Schema] = {
    Any: {},
    object: {},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    types.NoneType: {"type": "null"},
    list: {"type": "array"},
    dict: {"type": "object"},
}
_ARRAYS = (list, Sequence, Collection, Iterable)
_OBJECTS = (dict, Mapping)

# What may stand around the type of a TypedDict's field, and what it says about being required.
_QUALIFIERS: dict[Any, bool | None] = {
    typing.Required: True,
    typing.NotRequired: False,
    Annotated: None,
} | ({typing.ReadOnly: None} if hasattr(typing, "ReadOnly") else {})

_CANNOT_BE_EVALUATED = (NameError, AttributeError, SyntaxError, TypeError, ValueError)


class Untranslatable(Exception):
    """A type hint that no JSON Schema says. `reason` says which and why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def evaluate(annotation: Any, names: dict[str, Any]) -> Any:
    """`annotation` with what is written as a string evaluated among `names`, extras left out.

    Raises:
        Untranslatable: if that fails.
    """

    def probe() -> None: ...

    probe.__annotations__ = {"hint": annotation}
    try:
        return typing.get_type_hints(probe, names)["hint"]
    except _CANNOT_BE_EVALUATED as error:
        why = f"{type(error).__name__}: {error}"
        raise Untranslatable(f"cannot be evaluated here ({why})") from None


def schema_of(hint: Any) -> dict[str, Json]:
    """The JSON Schema of a type hint that holds no unevaluated names.

    Raises:
        Untranslatable: if none says the same.
    """
    return _translated(hint, ())


def is_union(hint: Any) -> bool:
    """Whether `hint` is `A | B`, `Union` or `Optional`."""
    return typing.get_origin(hint) in (Union, types.UnionType)


def _translated(hint: Any, within: tuple[Any, ...]) -> _Schema:
    """`within`: the named types around the hint, none of which it may name again."""
    if hint is Any or (isinstance(hint, type) and hint in _PLAIN):
        return dict(_PLAIN[hint])
    if hint in within:
        raise Untranslatable(f"is {_named(hint)}, which holds itself")
    if typing.is_typeddict(hint):
        return _of_typed_dict(hint, (*within, hint))
    if isinstance(hint, typing.NewType):
        return _translated(hint.__supertype__, within)
    if type(hint).__name__ == "TypeAliasType":  # of `type X = ...`, since Python 3.12
        return _translated(hint.__value__, (*within, hint))
    return _of_special_form(hint, typing.get_origin(hint), typing.get_args(hint), within)


def _of_special_form(
    hint: Any, origin: Any, arguments: tuple[Any, ...], within: tuple[Any, ...]
) -> _Schema:
    if origin is Annotated:
        return _translated(arguments[0], within)
    if is_union(hint):
        return _of_union([_translated(member, within) for member in arguments])
    if origin is Literal:
        return _of_literal(arguments)
    if origin in _ARRAYS or hint in _ARRAYS:
        items = _translated(arguments[0], within) if arguments else {}
        return {"type": "array"} | ({"items": items} if items else {})
    if origin in _OBJECTS or hint in _OBJECTS:
        return _of_mapping(hint, arguments or (str, Any), within)
    raise Untranslatable(f"is {_named(hint)}, which JSON has no values of")


def _of_mapping(hint: Any, arguments: tuple[Any, ...], within: tuple[Any, ...]) -> _Schema:
    if arguments[0] not in (str, Any):
        raise Untranslatable(f"is {_named(hint)}, but keys of JSON objects are strings")
    values = _translated(arguments[1], within)
    return {"type": "object"} | ({"additionalProperties": values} if values else {})


def _of_literal(values: tuple[Any, ...]) -> _Schema:
    for value in values:
        if type(value) not in (str, int, bool, types.NoneType):
            raise Untranslatable(f"has the literal {value!r:.80}, which is not a JSON value")
    return {"enum": list(values)}


def _of_union(members: list[_Schema]) -> _Schema:
    """One schema for several. Where a list of types says it, errors name the types."""
    if {} in members:
        return {}
    null = {"type": "null"}
    others = [member for member in members if member != null]
    if all(member.keys() == {"type"} for member in members):
        names = dict.fromkeys(name for member in members for name in _types(member))
        return {"type": list(names)}
    if len(others) == 1 and len(members) > 1:
        (other,) = others
        if "enum" in other:
            return {"enum": [*other["enum"], *([] if None in other["enum"] else [None])]}
        if "type" in other:
            return other | {"type": list(dict.fromkeys([*_types(other), "null"]))}
    return {"anyOf": members}


def _types(schema: _Schema) -> list[str]:
    return schema["type"] if isinstance(schema["type"], list) else [schema["type"]]


def _of_typed_dict(hint: Any, within: tuple[Any, ...]) -> _Schema:
    try:
        hints = typing.get_type_hints(hint, include_extras=True)
    except _CANNOT_BE_EVALUATED as error:
        why = f"{type(error).__name__}: {error}"
        raise Untranslatable(f"is {_named(hint)}, which cannot be evaluated ({why})") from None
    properties: dict[str, _Schema] = {}
    required: list[str] = []
    for name, given in hints.items():
        # Where annotations are strings, the class itself has not seen the qualifiers.
        needed, field = name in hint.__required_keys__, given
        while (origin := typing.get_origin(field)) in _QUALIFIERS:
            qualified = _QUALIFIERS[origin]
            needed = needed if qualified is None else qualified
            field = typing.get_args(field)[0]
        properties[name] = _translated(field, within)
        if needed:
            required.append(name)
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": required} if required else schema


def _named(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else f"{hint!r:.80}"
