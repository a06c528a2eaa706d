"""Values against JSON Schemas."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.schema_check import (
    MAX_ERRORS_TOLD,
    MAX_MESSAGE_CHARS,
    BadSchema,
    compile_schema,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_the_empty_schema_lets_everything_through(value: object) -> None:
    assert compile_schema({}, "$").errors(value) == []


@given(json_values)
def test_the_object_schema_lets_objects_through(value: object) -> None:
    errors = compile_schema({"type": "object", "title": "any"}, "$").errors(value)
    assert (errors == []) == isinstance(value, dict)


def test_schemas_without_demands_cost_no_import() -> None:
    """The compiler takes longer to import than all of the engine's other modules."""
    program = (
        "import sys; from engine.schema_check import compile_schema as c;"
        "assert c({}, '$').errors(1) == [] and c({'type': 'object'}, '$').errors(1) != [];"
        "sys.exit('jsonschema_rs' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_all_errors_are_told_with_their_paths_in_order() -> None:
    check = compile_schema(
        {
            "properties": {
                "b": {"type": "array", "items": {"type": "string"}},
                "a": {"type": "integer", "minimum": 3},
                "z": True,
            },
            "required": ["z"],
            "additionalProperties": False,
        },
        "parameters",
    )
    assert check.errors({"b": [1] * 11, "a": "x", "q": 1}) == [
        'parameters: "z" is a required property',
        "parameters: Additional properties are not allowed ('q' was unexpected)",
        'parameters.a: "x" is not of type "integer"',
        *(f'parameters.b[{index}]: 1 is not of type "string"' for index in range(11)),
    ]
    assert check.errors({"z": 1}) == []


def test_errors_are_bounded_in_number_and_length() -> None:
    check = compile_schema({"items": {"type": "string"}}, "output")
    errors = check.errors([1] * 20_000)
    assert len(errors) == MAX_ERRORS_TOLD + 1
    assert errors[-1] == "output: and at least 950 more errors"
    wide = compile_schema({"additionalProperties": False}, "output")
    (error,) = wide.errors({"x" * 10_000: 1})
    assert len(error) < MAX_MESSAGE_CHARS + 50
    (error,) = compile_schema({"type": "integer"}, "output").errors("y" * 1_000_000)
    assert error.endswith('..." is not of type "integer"')
    assert len(error) < 200


def test_errors_show_control_characters_escaped() -> None:
    check = compile_schema({"additionalProperties": {"type": "integer"}}, "output")
    errors = check.errors({"\x1b[2J": "\x1b[2J\u202e"})
    assert all(error.isprintable() for error in errors)
    closed = compile_schema({"additionalProperties": False}, "output")
    assert all(error.isprintable() for error in closed.errors({"\x1b[2J": 1}))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "no such"}, "not valid JSON Schema at type"),
        ({"properties": {"a": 1}}, "not valid JSON Schema at properties.a"),
        ({"pattern": "("}, "not valid JSON Schema"),
        ({"pattern": "(?=a)b"}, "not valid JSON Schema"),
        ({"$ref": "#/$defs/none"}, "not valid JSON Schema"),
        ({"$schema": "https://example.org/mine"}, "not valid JSON Schema"),
        ({"$ref": "https://example.org/x.json"}, 'refers to "https://example.org/x.json"'),
        ({"$ref": "other.json#/a"}, "outside itself"),
        ({"items": [{"$dynamicRef": "http://example.org"}]}, "outside itself"),
        ({"properties": {"default": {"$ref": "file:///etc/passwd"}}}, "outside itself"),
        ({"allOf": [{"not": {"$ref": "https://example.org/"}}]}, "put that schema under $defs"),
    ],
)
def test_schemas_that_cannot_be_used_are_refused(schema: dict[str, object], said: str) -> None:
    with pytest.raises(BadSchema) as caught:
        compile_schema(schema, "parameters")
    assert said in caught.value.reason
    assert len(caught.value.reason) < 600


def test_references_inside_the_schema_are_followed() -> None:
    tree = {
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "$ref": "#/$defs/tree",
    }
    check = compile_schema(tree, "$")
    assert check.errors([[], [[]]]) == []
    assert len(check.errors([[], [1]])) == 1


def test_data_that_looks_like_a_reference_is_data() -> None:
    check = compile_schema({"const": {"$ref": "https://example.org/"}}, "$")
    assert check.errors({"$ref": "https://example.org/"}) == []


def test_properties_called_like_keywords_are_properties() -> None:
    check = compile_schema({"properties": {"$ref": {"type": "integer"}}}, "$")
    assert len(check.errors({"$ref": "x"})) == 1


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {
            "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#"}]}},
            "$ref": "#/$defs/a",
        },
        {"$dynamicAnchor": "x", "$dynamicRef": "#x"},
    ],
)
def test_a_schema_that_only_names_itself_ends(schema: dict[str, object]) -> None:
    """Checked in a process of its own: a compiler that does not end would end this one."""
    program = f"from engine.schema_check import compile_schema as c; c({schema!r}, '$').errors(1)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_patterns_take_linear_time() -> None:
    check = compile_schema({"pattern": "^(a+)+$"}, "$")
    assert len(check.errors("a" * 100_000 + "b")) == 1
