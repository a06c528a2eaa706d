"""What a function says about its parameters and its output, as JSON Schema.

A parameter without a hint takes any value, one with a default may be left out, and the one
annotated `ToolContext` is filled in by the engine and is no part of the schema.
"""

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from attrs import frozen

from carstore import canonical
from carstore.errors import InvalidJson
from carstore.names import Json
from engine.context import ToolContext
from engine.tool_schema import InvalidTool
from engine.type_hints import Untranslatable, evaluate, is_union, schema_of

__all__ = ["Signature", "read_signature"]

_Schema = dict[str, Json]

# How a hint may name the context where it cannot be evaluated, as under `if TYPE_CHECKING`.
_CONTEXT = r"(?:\w+\.)*ToolContext"
_CONTEXT_BY_NAME = re.compile(
    rf"\s*(?:{_CONTEXT}(?:\s*\|\s*None)?|(?:\w+\.)*Optional\[\s*{_CONTEXT}\s*\])\s*\Z"
)

_HOW_TO_GO_ON = "Give the JSON Schema yourself: @tool(parameters={...})"


@frozen
class Signature:
    """What a function says about itself."""

    parameters: _Schema
    returns: _Schema | None
    """None where the return hint is missing, allows anything or cannot be translated."""
    context_parameter: str | None
    """The name of the parameter that takes the `ToolContext`."""


def read_signature(
    function: Callable[..., Any], tool: str, given: dict[str, Json] | None
) -> Signature:
    """Read the signature of `function`, which becomes the tool `tool`.

    Args:
        given: the JSON Schema of the parameters, if the user wrote one; hints are then not read.

    Raises:
        InvalidTool: if the function cannot be called with an object's fields by name, or has a
            hint that cannot be translated.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        reason = "Python does not tell its parameters. Write a function that calls it"
        raise InvalidTool(tool, reason) from None
    for parameter in parameters:
        problem = _problem_with_kind(parameter, function, given is not None)
        if problem is not None:
            raise InvalidTool(tool, problem)
    hints = {one.name: _hint(one.annotation, function) for one in parameters}
    contexts = [name for name, hint in hints.items() if _is_context(hint)]
    if len(contexts) > 1:
        raise InvalidTool(tool, f"{' and '.join(contexts)} both take the ToolContext; one may")
    context: str | None = contexts[0] if contexts else None
    taken = [one for one in parameters if one.name != context]
    if given is None:
        schema = _schema_of_parameters(taken, hints, tool)
    else:
        schema = given
        _check_names(given, taken, context, tool)
    return Signature(schema, _returns(function), context)


def _problem_with_kind(
    parameter: inspect.Parameter, function: Callable[..., Any], schema_given: bool
) -> str | None:
    name = parameter.name
    match parameter.kind:
        case inspect.Parameter.POSITIONAL_ONLY:
            return f"{name} is positional-only, but parameters are passed by name. Drop the `/`"
        case inspect.Parameter.VAR_POSITIONAL:
            return f"*{name} cannot be passed by name. Take a list: {name}: list[...]"
        case inspect.Parameter.VAR_KEYWORD if not schema_given:
            return f"**{name} does not say which parameters there are. {_HOW_TO_GO_ON}"
    if name in ("self", "cls") and "." in getattr(function, "__qualname__", "").split(">.")[-1]:
        return f"{name} shows a method. Use a function, or make a tool of the bound method"
    return None


def _hint(annotation: Any, function: Callable[..., Any]) -> Any:
    """`annotation` with its names evaluated, or the `Untranslatable` that says why it is not."""
    if annotation is inspect.Parameter.empty:
        return Any
    if isinstance(annotation, str) and _CONTEXT_BY_NAME.match(annotation):
        return ToolContext
    inner = inspect.unwrap(function.func if isinstance(function, functools.partial) else function)
    try:
        return evaluate(annotation, getattr(inner, "__globals__", {}))
    except Untranslatable as error:
        return error


def _schema(hint: Any) -> _Schema:
    if isinstance(hint, Untranslatable):
        raise hint
    return schema_of(hint)


def _is_context(hint: Any) -> bool:
    return hint is ToolContext or (
        is_union(hint) and set(typing.get_args(hint)) == {ToolContext, types.NoneType}
    )


def _schema_of_parameters(
    parameters: list[inspect.Parameter], hints: dict[str, Any], tool: str
) -> _Schema:
    properties: dict[str, _Schema] = {}
    required: list[str] = []
    for parameter in parameters:
        hint = hints[parameter.name]
        try:
            schema = _schema(hint)
        except Untranslatable as error:
            problem = f"the type hint of {parameter.name} {error.reason}. {_HOW_TO_GO_ON}"
            raise InvalidTool(tool, problem) from None
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
        elif _is_json(parameter.default):
            schema = schema | {"default": parameter.default}
        properties[parameter.name] = schema
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": required} if required else schema


def _check_names(
    given: _Schema, taken: list[inspect.Parameter], context: str | None, tool: str
) -> None:
    """Raise if `given` lets through a parameter that the function would choke on."""
    properties = given.get("properties") if isinstance(given, dict) else None
    named = list(properties) if isinstance(properties, dict) else []
    if context in named:
        problem = f"{context} takes the ToolContext and cannot be a parameter of plans too"
        raise InvalidTool(tool, problem, "parameters.properties")
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
        return
    known = {one.name for one in taken}
    for name in named:
        if name not in known:
            problem = f"the schema has {name!r:.80}, but the function takes no such parameter"
            raise InvalidTool(tool, problem, "parameters.properties")


def _returns(function: Callable[..., Any]) -> _Schema | None:
    hint = _hint(inspect.signature(function).return_annotation, function)
    try:
        return _schema(hint) or None
    except Untranslatable:
        return None


def _is_json(value: Any) -> bool:
    try:
        canonical.check(value)
    except InvalidJson:
        return False
    return True
