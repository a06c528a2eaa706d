"""Plans over few keys, with tools that succeed: what the static checks say of them is compared with
what becomes of them."""

from typing import Any

from hypothesis import strategies as st

from engine import ToolContext, tool
from engine.ir import (
    Action,
    ActionType,
    Assumption,
    FailureBehavior,
    Operator,
    Precondition,
    Proposal,
)
from engine.tools import Tool, Tools

KEYS = ["x", "y", "z"]
NUMBERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "list": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "perhaps": {},
    },
    "required": ["n", "list"],
    "additionalProperties": False,
}


def toolbox() -> list[Tool]:
    """Tools that succeed whatever they are given."""

    @tool(name="typed", returns=NUMBERS)
    def typed(n: int, text: str = "") -> Any:
        return {"n": n % 3, "list": ["a"]}

    @tool(name="free", parameters={"type": "object"})
    def free(**given: Any) -> Any:
        return {"n": 1, "deep": [given]}

    @tool(
        name="strict",
        parameters={
            "type": "object",
            "properties": {
                "n": {"type": "integer", "maximum": 1},
                "one": {"anyOf": [{"const": "a"}, {"type": "integer"}]},
                "many": {"type": "array", "items": {"$ref": "#/$defs/short"}, "maxItems": 2},
            },
            "if": {"properties": {"n": {"const": 1}}},
            "then": {"required": ["one"]},
            "additionalProperties": False,
            "$defs": {"short": {"type": "string", "maxLength": 2}},
        },
        idempotent=True,
    )
    def strict(**given: Any) -> str:
        return "done"

    @tool(name="writes")
    def writes(ctx: ToolContext, sets: dict[str, int] | None = None, drops: str = "") -> int:
        for key, value in (sets or {}).items():
            ctx.set(key, value)
        if drops:
            ctx.delete(drops)
        return 1

    return [typed, free, strict, writes]


def table() -> Tools:
    return Tools(toolbox())


values = st.sampled_from([0, 1, 2, "a", "abc", None, [1], {"n": 1}])
keys = st.sampled_from(KEYS)
states = st.dictionaries(keys, values, max_size=3)
preconditions = st.builds(Precondition, key=keys, operator=st.sampled_from(Operator), value=values)
assumptions = st.lists(
    st.builds(
        Assumption, key=keys, expected_value=values, read_version=st.none() | st.integers(0, 5)
    ),
    max_size=1,
)


@st.composite
def _value(draw: st.DrawFn, earlier: list[str]) -> Any:
    if not earlier or draw(st.integers(0, 2)) > 0:
        return draw(values)
    path = draw(st.sampled_from(["", "", ".n", ".list", ".list.0", ".list.5", ".perhaps", ".no"]))
    path = draw(st.sampled_from([path, path, path, ".asserted", ".value", ".deep.0.n"]))
    return f"${draw(st.sampled_from(earlier))}.output{path}"


@st.composite
def _parameters(draw: st.DrawFn, name: str | None, earlier: list[str]) -> dict[str, Any]:
    value = _value(earlier)
    if name == "writes":
        return {
            "sets": draw(st.dictionaries(keys, st.integers(0, 2), max_size=1)),
            "drops": draw(st.sampled_from(["", "", "x"])),
        }
    if name == "typed":
        return {"n": draw(value), **draw(st.fixed_dictionaries({}, optional={"text": value}))}
    if name == "strict":
        many = st.lists(value, max_size=3)
        some: dict[str, Any] = {"n": value, "one": value, "many": many | value, "other": value}
        return draw(st.fixed_dictionaries({}, optional=some))
    return draw(st.dictionaries(st.sampled_from(["n", "m"]), value, max_size=2))


@st.composite
def _actions(draw: st.DrawFn, name: str, earlier: list[str]) -> Action:
    kind = draw(st.sampled_from([ActionType.TOOL_CALL, *ActionType]))
    called = None
    if kind is ActionType.TOOL_CALL:
        known = ["typed", "typed", "free", "free", "strict", "writes"]
        called = draw(st.sampled_from(known * 3 + ["missing"]))
        parameters = draw(_parameters(called, earlier))
    else:
        wanted = _value(earlier)
        parameters = {"key": draw(keys), "value": draw(wanted), "expected": draw(wanted)}
    rarely = st.integers(0, 3)
    return Action(
        id=name,
        type=kind,
        tool=called,
        parameters=parameters,
        preconditions=[draw(preconditions) for _ in range(draw(st.sampled_from([0, 0, 1, 2])))],
        state_dependencies=[draw(keys)] if draw(rarely) == 0 else [],
        expected_effects=draw(st.dictionaries(keys, values, max_size=1)),
        assumptions=draw(assumptions) if draw(rarely) == 0 else [],
        dependencies=draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True))
        if earlier
        else [],
        failure_behavior=draw(st.sampled_from(FailureBehavior)),
        max_retries=1,
        metadata=draw(st.sampled_from([{}, {"note": 1}])),
    )


@st.composite
def plans(draw: st.DrawFn, most: int = 5) -> Proposal:
    names = [f"a{n}" for n in range(draw(st.integers(1, most)))]
    return Proposal(
        id="p", actions=[draw(_actions(name, names[:n])) for n, name in enumerate(names)]
    )
