"""Declaring tools, their schemas, the table of tools, and files of them."""

import functools
import hashlib
import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.errors import CarstoreError
from engine.context import ToolContext
from engine.tools import (
    EffectMode,
    InvalidTool,
    NoToolExecutor,
    RateLimit,
    Tool,
    Tools,
    ToolSchema,
    ToolsNotFound,
    load_tools,
    tool,
)


@tool
def greet(name: str, times: int = 1) -> str:
    """Say hello
    to somebody.

    More than models need to know.
    """
    return f"Hello {name}!" * times


@tool(idempotent=True, compensation=greet, timeout_ms=500)
async def fetch(url: str, ctx: ToolContext) -> dict[str, Any]:
    return {"url": url, "attempt": ctx.attempt}


# Declaring.


def test_a_bare_tool_is_still_the_function() -> None:
    assert greet("Ada", times=2) == "Hello Ada!Hello Ada!"
    assert greet.__name__ == "greet"
    assert greet.__doc__ is not None
    assert greet.__doc__.startswith("Say hello")
    assert list(inspect.signature(greet).parameters) == ["name", "times"]
    assert greet.function is greet.__wrapped__


def test_a_tool_tells_what_it_is() -> None:
    assert (greet.name, greet.is_async, greet.takes_context) == ("greet", False, False)
    assert greet.schema == ToolSchema(
        name="greet",
        description="Say hello to somebody.",
        parameters={
            "type": "object",
            "properties": {"name": {"type": "string"}, "times": {"type": "integer", "default": 1}},
            "additionalProperties": False,
            "required": ["name"],
        },
        returns={"type": "string"},
    )
    assert (fetch.is_async, fetch.takes_context, fetch.context_parameter) == (True, True, "ctx")
    assert (fetch.schema.compensation, fetch.undo) == ("greet", greet)
    assert (fetch.schema.idempotent, fetch.schema.timeout_ms) == (True, 500)


def test_every_field_of_the_schema_can_be_declared() -> None:
    @tool(
        name="db.query/v2",
        description="Ask",
        parameters={"properties": {"sql": {"type": "string"}}},
        returns={"type": "array"},
        read_only=True,
        cache_ttl_secs=60,
        rate_limit=RateLimit(10, 1),
        compensation="db.undo",
        sensitive=["output.*.password"],
        max_cost={"USD": "0.05"},
    )
    def query(**anything: Any) -> Any: ...

    assert query.schema.to_dict() == {
        "name": "db.query/v2",
        "description": "Ask",
        "parameters": {"properties": {"sql": {"type": "string"}}},
        "returns": {"type": "array"},
        "idempotent": False,
        "read_only": True,
        "cache_ttl_secs": 60,
        "rate_limit": {"max_calls": 10, "interval_secs": 1.0},
        "compensation": "db.undo",
        "timeout_ms": None,
        "sensitive": ["output.*.password"],
        "max_cost": {"USD": "0.05"},
    }
    assert query.__name__ == "query"


def test_asynchronous_callables_are_seen_as_such() -> None:
    class Caller:
        async def __call__(self, a: int) -> int:
            return a

        async def method(self, a: int) -> int:
            return a

    assert fetch.function is not None
    assert tool(name="a")(Caller()).is_async
    assert tool(Caller().method).is_async
    assert tool(name="b")(functools.partial(fetch.function, ctx=None)).is_async
    assert greet.function is not None
    assert not tool(name="c")(functools.partial(greet.function, times=2)).is_async


def test_functions_that_cannot_be_tools_say_why() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> Any:
        yield 1

    def fine(a: int) -> None: ...

    said: list[tuple[Callable[[], Any], str]] = [
        (lambda: tool(numbers), "yields its output in parts"),
        (lambda: tool(later), "yields its output in parts"),
        (lambda: tool(lambda: 1), r"its name '<lambda>' holds '<'.*@tool\(name=...\)"),
        (lambda: tool(name="a b")(fine), "holds ' '"),
        (lambda: tool(name="x" * 200)(fine), "has 200 characters"),
        (lambda: tool(greet), "is a tool already"),
        (lambda: tool(Path), "is a class"),
        (lambda: tool("greet"), r"is no function. Write @tool or @tool\(name=...\)"),  # type: ignore[call-overload]
        (lambda: tool(parameters={"type": "strin"})(fine), "parameters are always an object"),
        (lambda: tool(parameters={"properties": 3})(fine), "not valid JSON Schema at properties"),
        (lambda: tool(returns={"type": "strin"})(fine), "returns: not valid JSON Schema"),
        (lambda: tool(parameters={"$ref": "http://x/"})(fine), "refers to .*outside itself"),
        (lambda: tool(compensation="fine")(fine), "cannot undo itself"),
        (lambda: tool(timeout_ms=0)(fine), "timeout_ms: 0 is not an integer from 1"),
    ]
    for declare, pattern in said:
        with pytest.raises(InvalidTool, match=pattern) as caught:
            declare()
        assert isinstance(caught.value, CarstoreError)
        assert caught.value.code == "invalid_tool"


# Schemas.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("description", None),
        ("parameters", None),
        ("parameters", True),
        ("parameters", {"type": "array"}),
        ("parameters", {"default": float("nan")}),
        ("parameters", {"default": {1, 2}}),
        ("parameters", {"enum": ["x" * 300_000]}),
        ("returns", []),
        ("idempotent", 1),
        ("read_only", "yes"),
        ("cache_ttl_secs", -1),
        ("cache_ttl_secs", 1.5),
        ("timeout_ms", True),
        ("timeout_ms", 10**15),
        ("rate_limit", {"max_calls": 1, "interval_secs": 1}),
        ("compensation", "no good"),
        ("compensation", "a"),
    ],
)
def test_fields_of_a_schema_are_checked(field: str, value: Any) -> None:
    with pytest.raises(InvalidTool):
        ToolSchema(**{"name": "a", field: value})


@pytest.mark.parametrize("limits", [(0, 1), (1, 0), (1, float("inf")), (True, 1), (1, True)])
def test_rate_limits_are_checked(limits: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidTool, match=r"^rate_limit\."):
        RateLimit(*limits)


@pytest.mark.parametrize(
    ("declared", "effect", "repeatable"),
    [
        ({}, "once", False),
        ({"idempotent": True}, "idempotent", True),
        ({"read_only": True}, "read_only", True),
        ({"read_only": True, "idempotent": True}, "read_only", True),
    ],
)
def test_the_declaration_decides_whether_a_call_may_be_repeated(
    declared: dict[str, bool], effect: str, repeatable: bool
) -> None:
    schema = ToolSchema(name="a", **declared)  # type: ignore[arg-type]
    assert schema.effect is EffectMode(effect)
    assert schema.repeatable is repeatable


schemas = st.builds(
    ToolSchema,
    name=st.from_regex(r"[a-z]{1,9}", fullmatch=True),
    description=st.text(max_size=9),
    parameters=st.sampled_from([{}, {"type": "object"}, {"properties": {"b": {}, "a": {}}}]),
    returns=st.sampled_from([None, {}, {"type": "string"}]),
    idempotent=st.booleans(),
    read_only=st.booleans(),
    cache_ttl_secs=st.none() | st.integers(1, 99),
    rate_limit=st.none() | st.builds(RateLimit, st.integers(1, 9), st.floats(0.1, 9)),
    compensation=st.sampled_from([None, "UNDO"]),
    timeout_ms=st.none() | st.integers(1, 99),
)


@given(schemas)
def test_schemas_survive_json(schema: ToolSchema) -> None:
    back = ToolSchema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert back == schema
    assert hash(back) == hash(schema)
    assert back.digest == schema.digest


@given(schemas, schemas)
def test_digests_differ_exactly_where_more_than_the_description_does(
    one: ToolSchema, other: ToolSchema
) -> None:
    def promised(schema: ToolSchema) -> dict[str, Any]:
        return schema.to_dict() | {"description": None, "returns": schema.returns or None}

    assert (one.digest == other.digest) == (promised(one) == promised(other))


def test_a_digest_can_be_made_by_anybody() -> None:
    text = '{"idempotent":true,"name":"a","parameters":{"type":"object"}}'
    schema = ToolSchema(name="a", description="x", parameters={"type": "object"}, idempotent=True)
    assert schema.digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_schema_does_not_change_with_what_it_was_made_from() -> None:
    parameters: dict[str, Any] = {"properties": {"b": {}, "a": {}}}
    schema = ToolSchema(name="a", parameters=parameters)
    parameters["properties"]["c"] = False
    assert schema.check_parameters({"c": 1}) == []
    assert list(schema.parameters["properties"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "must be an object, not a list"),
        ({}, "the field 'name' is missing"),
        ({"name": "a", "parmeters": {}}, 'no field "parmeters"; did you mean "parameters"'),
        ({"name": "a", "zzz": {}}, 'no field "zzz"; known are name, '),
        ({"name": "a", "rate_limit": {"max_calls": 1}}, "'interval_secs' is missing"),
        ({"name": "a", "rate_limit": 3}, "rate_limit: must be an object"),
        ({"name": "a", "idempotent": "true"}, "idempotent: 'true' is neither true nor false"),
    ],
)
def test_from_dict_is_strict(data: Any, said: str) -> None:
    with pytest.raises(InvalidTool) as caught:
        ToolSchema.from_dict(data)
    assert said in caught.value.message


def test_parameters_and_outputs_are_checked_against_the_schema() -> None:
    assert greet.schema.check_parameters({"name": "Ada"}) == []
    assert greet.schema.check_parameters({"name": 1, "tims": 2}) == [
        "parameters: Additional properties are not allowed ('tims' was unexpected)",
        'parameters.name: 1 is not of type "string"',
    ]
    assert greet.schema.check_returns("x") == []
    assert greet.schema.check_returns(None) == ['output: null is not of type "string"']
    assert ToolSchema(name="a").check_parameters({"any": object}) == []
    assert ToolSchema(name="a").check_returns(object) == []


# The table.


def test_a_table_knows_its_tools_in_order() -> None:
    tools = Tools([fetch, "bare", ToolSchema(name="with.schema", description="x")])
    assert tools.names() == ("fetch", "greet", "bare", "with.schema")
    assert [schema.name for schema in tools.schemas()] == list(tools.names())
    assert tools.get("fetch") is fetch
    assert tools.get("other") is None
    assert "bare" in tools
    assert len(tools) == len(list(tools)) == 4


def test_tools_without_a_function_wait_for_an_executor() -> None:
    bare = Tools().register("bare")
    assert bare.function is None
    assert bare.schema == ToolSchema(name="bare")
    with pytest.raises(TypeError, match="ToolExecutor"):
        bare()
    assert str(NoToolExecutor()) == "no tool executor configured"


def test_names_are_unique_but_a_tool_may_come_twice() -> None:
    @tool(name="greet")
    def other() -> None: ...

    tools = Tools([greet, fetch, greet])
    assert len(tools) == 2
    with pytest.raises(InvalidTool, match=r"two tools of this name \(.*py:\d+ and .*py:\d+\)"):
        tools.register(other)
    with pytest.raises(InvalidTool, match="two tools of this name"):
        tools.register("greet")
    assert tools.get("greet") is greet


def test_what_is_no_tool_is_refused() -> None:
    def plain() -> None: ...

    with pytest.raises(InvalidTool, match=r"'plain': is a plain function\. Write @tool above it"):
        Tools([plain])  # type: ignore[list-item]
    with pytest.raises(InvalidTool, match="is of type int"):
        Tools([3])  # type: ignore[list-item]
    with pytest.raises(InvalidTool, match="not valid JSON Schema"):
        Tools([ToolSchema(name="a", parameters={"properties": 3})])
    with pytest.raises(InvalidTool, match="holds ' '"):
        Tools(["a b"])


def test_compensations_must_be_there() -> None:
    @tool(compensation="unpay")
    def pay() -> None: ...

    tools = Tools([pay, fetch])
    with pytest.raises(InvalidTool, match="there is no tool 'unpay', which is to undo it"):
        tools.check_compensations()
    tools.register("unpay")
    with pytest.raises(InvalidTool, match=r"'greet' is to undo it and will be handed `parameters`"):
        tools.check_compensations()


@pytest.mark.parametrize(
    ("parameters", "fits"),
    [
        ({}, True),
        ({"properties": {"parameters": {}}}, True),
        ({"properties": {"parameters": {}, "output": {}}, "additionalProperties": False}, True),
        ({"properties": {"parameters": {}}, "additionalProperties": False}, False),
        ({"required": ["output", "reason"]}, False),
    ],
)
def test_compensations_must_take_what_they_are_handed(
    parameters: dict[str, Any], fits: bool
) -> None:
    tools = Tools(
        [
            ToolSchema(name="pay", compensation="unpay"),
            ToolSchema(name="unpay", parameters=parameters),
        ]
    )
    if fits:
        tools.check_compensations()
    else:
        with pytest.raises(InvalidTool, match=r"Write: def unpay\(parameters: dict, output\)"):
            tools.check_compensations()


# Files and modules.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory; what tests import from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> str:
    path.write_text(textwrap.dedent(text))
    return str(path)


def test_a_file_gives_its_tools_in_order_with_imported_ones(folder: Path) -> None:
    write(
        folder / "sibling_a.py",
        "from engine import tools\n@tools.tool\ndef zulu(parameters, output): ...\n",
    )
    spec = write(
        folder / "mytools.py",
        """
        from sibling_a import zulu
        from engine.tools import tool, Tool

        @tool(compensation="zulu")
        def beta(): ...

        @tool
        def alpha(x: int): ...

        again = beta
        """,
    )
    assert load_tools(spec).names() == ("zulu", "beta", "alpha")


def test_a_file_is_read_anew_each_time(folder: Path) -> None:
    for name in ("one", "two"):
        spec = write(
            folder / "t_anew.py", f"from engine.tools import tool\n@tool\ndef {name}(): ..."
        )
        assert load_tools(spec).names() == (name,)


def test_tools_may_import_siblings_when_they_are_called(folder: Path) -> None:
    (folder / "sub").mkdir()
    write(folder / "sub" / "sibling_b.py", "VALUE = 7\n")
    spec = write(
        folder / "sub" / "t_late.py",
        """
        import sys
        from engine.tools import tool

        FIRST = sys.path[0]

        @tool
        def late() -> int:
            from sibling_b import VALUE
            return VALUE

        @tool
        def first() -> str:
            return FIRST
        """,
    )
    tools = load_tools(spec)
    late, first = tools.get("late"), tools.get("first")
    assert late is not None
    assert late() == 7
    assert first is not None
    assert first() == str(folder / "sub")
    assert sys.path[-1] == str(folder / "sub")


def test_a_file_named_like_a_module_does_not_replace_it(folder: Path) -> None:
    spec = write(folder / "json.py", "from engine.tools import tool\n@tool\ndef a(): ...\n")
    assert load_tools(spec).names() == ("a",)
    assert sys.modules["json"] is json
    spec = write(folder / "my-tools.v1.py", "from engine.tools import tool\n@tool\ndef b(): ...\n")
    assert load_tools(spec).names() == ("b",)


def test_a_module_is_found_by_name_also_in_the_working_directory(folder: Path) -> None:
    (folder / "pack_c").mkdir()
    write(folder / "pack_c" / "__init__.py", "")
    write(folder / "pack_c" / "inner.py", "from engine.tools import tool\n@tool\ndef a(): ...\n")
    assert load_tools("pack_c.inner").names() == ("a",)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("none.py", "none.py does not exist"),
        ("./none", "./none does not exist"),
        ("folder.py", "folder.py is a folder"),
        ("no_such_module", "there is no module 'no_such_module'"),
        ("json.no_such_module", "there is no module 'json.no_such_module'"),
        ("not a module", "there is no file 'not a module'"),
        ("", "there is no file ''"),
    ],
)
def test_tools_that_are_not_there_are_not_found(folder: Path, spec: str, said: str) -> None:
    (folder / "folder.py").mkdir()
    with pytest.raises(ToolsNotFound) as caught:
        load_tools(spec)
    assert said in caught.value.message
    assert "Name a FILE.py" in caught.value.message
    assert caught.value.where == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = nope\n", "failed at line 2: NameError: name 'nope' is not defined"),
        ("x = 1\ndef f(:\n", "failed at line 2: SyntaxError: "),
        ("import broken_d\n", "failed at line 1: ZeroDivisionError: division by zero ("),
        ("\nimport no_such_d\n", "failed at line 2: ModuleNotFoundError: No module named"),
        ("import sys\nsys.exit(3)\n", "failed at line 2: SystemExit: 3"),
        ("x = 1\n", "no tools in it. Write @tool"),
        ("from engine.tools import tool\n@tool\ndef f(*a): ...\n", "failed at line 2: InvalidTool"),
        ("from engine.tools import tool\n@tool(compensation='g')\ndef f(): ...\n", "tool 'g'"),
        ("raise ValueError('x' * 10_000)\n", "failed at line 1: ValueError: xxx"),
    ],
)
def test_files_that_cannot_be_used_say_where(folder: Path, text: str, said: str) -> None:
    write(folder / "broken_d.py", "def f():\n    return 1 / 0\nf()\n")
    spec = write(folder / "t_broken.py", text)
    for name in (spec, "t_broken"):
        with pytest.raises(InvalidTool) as caught:
            load_tools(name)
        assert said in caught.value.message
        assert len(caught.value.message) < 1_000
        assert ("t_broken" in sys.modules) == ("import" not in caught.value.message)
        sys.modules.pop("t_broken", None)


@pytest.mark.parametrize("name", ["json", "sys", "m_without_tools"])
def test_a_module_without_tools_is_named_with_its_file(folder: Path, name: str) -> None:
    """The name may have found another module than was meant."""
    write(folder / "m_without_tools.py", "x = 1\n")
    with pytest.raises(InvalidTool) as caught:
        load_tools(name)
    assert caught.value.message.startswith(f"{name}: this module (")
    where = {
        "json": json.__file__,
        "sys": "a part of Python itself",
        "m_without_tools": str(folder / "m_without_tools.py"),
    }
    assert f"({where[name]}) has no tools in it" in caught.value.message
    assert caught.value.message.endswith("name a file: --tools FILE.py")
    sys.modules.pop("m_without_tools", None)


def test_declaring_tools_with_hints_costs_no_import() -> None:
    program = (
        "import sys; from engine.tools import tool\n"
        "def f(a: int) -> int: return a\n"
        "tool(f); sys.exit('jsonschema_rs' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_tools_are_values_that_can_be_told_apart() -> None:
    assert greet != fetch
    assert len({greet, fetch, greet}) == 2
    assert isinstance(greet, Tool)
