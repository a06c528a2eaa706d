"""The JSON Schema that type hints spell out."""

import collections.abc
import enum
import functools
import math
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    Union,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.context import ToolContext
from engine.schema_check import compile_schema
from engine.signature import Signature, read_signature
from engine.tool_schema import InvalidTool
from engine.type_hints import Untranslatable, schema_of

Name = NewType("Name", str)


class Point(TypedDict):
    x: int
    y: float
    label: NotRequired[Annotated[str, "shown beside it"]]


class Options(TypedDict, total=False):
    depth: int
    root: Required["str"]


class Deep(Options):
    points: list[Point]


class Node(TypedDict):
    children: "list[Node]"


class Colour(enum.StrEnum):
    RED = "red"


class Opaque: ...


def read(function: Callable[..., Any], given: dict[str, Any] | None = None) -> Signature:
    return read_signature(function, "tried", given)


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (type(None), {"type": "null"}),
        (Any, {}),
        (object, {}),
        (list, {"type": "array"}),
        (typing.List, {"type": "array"}),  # noqa: UP006
        (list[Any], {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (collections.abc.Sequence, {"type": "array"}),
        (dict, {"type": "object"}),
        (typing.Dict, {"type": "object"}),  # noqa: UP006
        (dict[str, Any], {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Mapping[str, str], {"type": "object", "additionalProperties": {"type": "string"}}),
        (Literal["a", 1, True, None], {"enum": ["a", 1, True, None]}),
        (Optional[str], {"type": ["string", "null"]}),  # noqa: UP045
        (str | None, {"type": ["string", "null"]}),
        (Union[int, str, None], {"type": ["integer", "string", "null"]}),  # noqa: UP007
        (int | float | None, {"type": ["integer", "number", "null"]}),
        (Literal["a"] | None, {"enum": ["a", None]}),
        (Literal["a", None] | None, {"enum": ["a", None]}),
        (list[int] | None, {"type": ["array", "null"], "items": {"type": "integer"}}),
        (str | list[str], {"anyOf": [schema_of(str), schema_of(list[str])]}),
        (str | Any, {}),
        (Annotated[int, "a count"], {"type": "integer"}),
        (list[Annotated[int, "a count"]], {"type": "array", "items": {"type": "integer"}}),
        (Name, {"type": "string"}),
    ],
)
def test_hints_that_json_satisfies_are_translated(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema


def test_typed_dicts_become_closed_objects() -> None:
    point = {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "number"}}
        | {"label": {"type": "string"}},
        "additionalProperties": False,
        "required": ["x", "y"],
    }
    assert schema_of(Point) == point
    assert schema_of(Deep) == {
        "type": "object",
        "properties": {
            "depth": {"type": "integer"},
            "root": {"type": "string"},
            "points": {"type": "array", "items": point},
        },
        "additionalProperties": False,
        "required": ["root", "points"],
    }


def test_qualifiers_written_as_strings_are_seen() -> None:
    """With `from __future__ import annotations` the class itself does not see them."""

    class Late(TypedDict):
        a: "NotRequired[int]"
        b: "int"

    assert schema_of(Late)["required"] == ["b"]


@pytest.mark.parametrize(
    "hint",
    [
        tuple[int, str],
        tuple,
        set[int],
        bytes,
        Colour,
        Opaque,
        dict[int, str],
        list[Opaque],
        dict[str, Opaque],
        str | Opaque,
        Literal[Colour.RED],
        Literal[b"a"],
        Callable[[], int],
        Node,
        typing.TypeVar("T"),
        5,
    ],
)
def test_hints_that_no_json_value_satisfies_are_refused(hint: Any) -> None:
    with pytest.raises(Untranslatable) as caught:
        schema_of(hint)
    assert len(caught.value.reason) < 300


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = ...` came with Python 3.12")
def test_type_aliases_are_what_they_stand_for() -> None:
    names: dict[str, Any] = {}
    exec("type Names = list[str] | None; type Tree = list[Tree]", names)
    assert schema_of(names["Names"]) == schema_of(list[str] | None)
    assert schema_of(names["Names"] | None) == schema_of(list[str] | None)
    with pytest.raises(Untranslatable, match="holds itself"):
        schema_of(names["Tree"])


plain_hints: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([str, int, float, bool, type(None), Any, Literal["a", 2]]),
    lambda inner: st.one_of(
        inner.map(lambda hint: list.__class_getitem__(hint)),
        inner.map(lambda hint: dict.__class_getitem__((str, hint))),
        st.tuples(inner, inner).map(lambda pair: Union[pair]),  # noqa: UP007
    ),
    max_leaves=6,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "b", 0.5, 2.0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("kl"), inner),
    max_leaves=6,
)


def satisfies(value: Any, hint: Any) -> bool:
    """What a hint means for JSON values, said a second time."""
    arguments = typing.get_args(hint)
    match typing.get_origin(hint) or hint:
        case typing.Any:
            return True
        case typing.Literal:
            return any(value == one and type(value) is not bool for one in arguments)
        case typing.Union:
            return any(satisfies(value, one) for one in arguments)
        case builtin if builtin is list:
            return type(value) is list and all(satisfies(one, arguments[0]) for one in value)
        case builtin if builtin is dict:
            return type(value) is dict and all(
                satisfies(one, arguments[1]) for one in value.values()
            )
        case builtin if builtin is int:
            return type(value) is int or (type(value) is float and value.is_integer())
        case builtin if builtin is float:
            return type(value) in (int, float)
        case builtin:
            return type(value) is builtin


@given(plain_hints, json_values)
def test_a_value_passes_the_schema_exactly_if_it_satisfies_the_hint(hint: Any, value: Any) -> None:
    errors = compile_schema(schema_of(hint), "$").errors(value)
    assert (errors == []) == satisfies(value, hint)


def test_parameters_without_a_default_are_required_and_others_carry_it() -> None:
    def tried(path, limit: int = 3, *, tags: list[str] | None = None, deep: float = 1): ...  # type: ignore[no-untyped-def]

    assert read(tried) == Signature(
        {
            "type": "object",
            "properties": {
                "path": {},
                "limit": {"type": "integer", "default": 3},
                "tags": {"type": ["array", "null"], "items": {"type": "string"}, "default": None},
                "deep": {"type": "number", "default": 1},
            },
            "additionalProperties": False,
            "required": ["path"],
        },
        None,
        None,
    )


def test_a_default_that_is_not_json_only_makes_its_parameter_optional() -> None:
    def tried(limit: float = math.inf, other: Any = Opaque()) -> None: ...  # noqa: B008

    schema = read(tried).parameters
    assert schema["properties"] == {"limit": {"type": "number"}, "other": {}}
    assert "required" not in schema


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def tried() -> None: ...

    schema = read(tried).parameters
    assert compile_schema(schema, "$").errors({}) == []
    assert compile_schema(schema, "$").errors({"a": 1}) != []


def test_return_hints_become_schemas_where_they_can() -> None:
    def point() -> Point: ...  # type: ignore[empty-body]
    def nothing() -> None: ...
    def anything() -> Any: ...
    def unhinted(): ...  # type: ignore[no-untyped-def]
    def pair() -> tuple[int, int]: ...  # type: ignore[empty-body]
    def unknown() -> "NoSuchName": ...  # type: ignore[name-defined]  # noqa: F821
    async def number() -> int: ...  # type: ignore[empty-body]

    assert read(point).returns == schema_of(Point)
    assert read(nothing).returns == {"type": "null"}
    assert read(number).returns == {"type": "integer"}
    for function in (anything, unhinted, pair, unknown):
        assert read(function).returns is None


def test_the_context_is_found_and_is_no_part_of_the_schema() -> None:
    def plain(a: int, ctx: ToolContext) -> None: ...
    def optional(a: int, ctx: ToolContext | None = None) -> None: ...
    def old(a: int, ctx: Optional[ToolContext] = None) -> None: ...  # noqa: UP045
    def quoted(a: int, ctx: "ToolContext") -> None: ...

    for function in (plain, optional, old, quoted):
        signature = read(function)
        assert signature.context_parameter == "ctx"
        assert list(signature.parameters["properties"]) == ["a"]


@pytest.mark.parametrize(
    "written",
    ["ToolContext", "engine.ToolContext", "ToolContext | None", "typing.Optional[ToolContext]"],
)
def test_the_context_is_found_by_name_where_it_is_only_imported_for_type_checkers(
    written: str,
) -> None:
    names: dict[str, Any] = {}
    exec(f"def tried(a: int, ctx: '{written}' = None): ...", names)
    assert read(names["tried"]).context_parameter == "ctx"


def test_other_types_whose_names_only_resemble_it_are_no_context() -> None:
    names: dict[str, Any] = {}
    exec("def tried(ctx: 'MyToolContext'): ...", names)
    with pytest.raises(InvalidTool, match="cannot be evaluated"):
        read(names["tried"])


def test_names_are_looked_up_where_the_function_was_written() -> None:
    class Mine(TypedDict):
        a: int

    names: dict[str, Any] = {"Mine": Mine}
    exec("def tried(x: 'list[Mine]'): ...", names)

    @functools.wraps(names["tried"])
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    for function in (names["tried"], wrapper, functools.partial(names["tried"])):
        items = read(function).parameters["properties"]["x"]["items"]
        assert items["properties"] == {"a": {"type": "integer"}}


def test_bound_methods_and_partials_are_functions() -> None:
    class Box:
        def put(self, item: str, times: int) -> None: ...

    assert list(read(Box().put).parameters["properties"]) == ["item", "times"]
    partial = functools.partial(Box().put, "a")
    assert list(read(partial).parameters["properties"]) == ["times"]


def test_what_cannot_be_called_by_name_is_refused() -> None:
    def only(a: int, /) -> None: ...
    def many(*parts: int) -> None: ...
    def named(**rest: int) -> None: ...
    def two(a: ToolContext, b: ToolContext) -> None: ...
    def pair(size: tuple[int, int]) -> None: ...

    class Box:
        def put(self, item: str) -> None: ...

    said: dict[Any, str] = {
        only: "a is positional-only",
        many: r"\*parts cannot be passed by name",
        named: r"\*\*rest does not say .*parameters=",
        two: "a and b both take the ToolContext",
        pair: r"hint of size is tuple\[int, int\], .*@tool\(parameters=\{...\}\)",
        Box.put: "self shows a method",
        dict.get: "self is positional-only",
    }
    for function, pattern in said.items():
        with pytest.raises(InvalidTool, match=pattern):
            read(function)


def test_a_given_schema_replaces_the_hints() -> None:
    def tried(size: tuple[int, int], ctx: ToolContext, **rest: Opaque) -> None: ...

    given = {"type": "object", "properties": {"size": {"type": "array"}, "more": {}}}
    assert read(tried, given) == Signature(given, {"type": "null"}, "ctx")


def test_a_given_schema_must_fit_the_function() -> None:
    def tried(a: int, ctx: ToolContext) -> None: ...

    assert read(tried, {}).parameters == {}
    assert read(tried, {"properties": {"a": {}}}).context_parameter == "ctx"
    with pytest.raises(InvalidTool, match="takes no such parameter"):
        read(tried, {"properties": {"b": {}}})
    with pytest.raises(InvalidTool, match="ctx takes the ToolContext"):
        read(tried, {"properties": {"a": {}, "ctx": {}}})
