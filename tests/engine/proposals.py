"""Hypothesis strategies for proposals, shared by the tests of the engine."""

import string
from typing import Any

from hypothesis import strategies as st

from engine.ir import (
    Action,
    ActionRef,
    ActionType,
    Assumption,
    FailureBehavior,
    Operator,
    Precondition,
    Proposal,
    Reversibility,
    ToolCompensation,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
plain_values = json_values.filter(lambda value: "$" not in repr(value))
objects = st.dictionaries(texts, plain_values, max_size=3)

_LETTERS = string.ascii_letters + string.digits
ids = st.builds(str.__add__, st.sampled_from(_LETTERS), st.text(_LETTERS + "._:/-", max_size=6))
keys = st.text(string.ascii_lowercase + ".:é ", min_size=1, max_size=3)
few_keys = st.sampled_from(["x", "y", "z"])


def _some(strategy: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=most, unique=True)


preconditions = st.builds(
    Precondition,
    key=keys,
    operator=st.sampled_from(Operator),
    value=json_values,
    description=texts,
)
assumptions = st.builds(
    Assumption,
    key=keys,
    expected_value=json_values,
    read_version=st.none() | st.integers(0, 2**63 - 1),
)


@st.composite
def actions(draw: st.DrawFn, name: str, earlier: list[str]) -> Action:
    """An action that waits for some of `earlier` at most, and undoes itself by a tool at most."""
    kind = draw(st.sampled_from(ActionType))
    parameters = draw(objects)
    if kind is not ActionType.TOOL_CALL:
        parameters["key"] = draw(keys)
    known = st.sampled_from(earlier or [""])
    if earlier and draw(st.booleans()):
        parameters["from"] = [f"${draw(known)}.output", {"deep": f"${draw(known)}.output.a.0"}]
    return Action(
        id=name,
        type=kind,
        tool=draw(ids) if kind is ActionType.TOOL_CALL else draw(st.none() | ids),
        parameters=parameters,
        preconditions=draw(st.lists(preconditions, max_size=2)),
        expected_effects=draw(st.dictionaries(keys, json_values, max_size=2)),
        state_dependencies=draw(_some(keys)),
        dependencies=draw(_some(known)) if earlier else (),
        read_set=draw(_some(keys)),
        write_set=draw(_some(keys)),
        assumptions=draw(st.lists(assumptions, max_size=2)),
        reversibility=draw(st.sampled_from(Reversibility)),
        compensation=draw(
            st.none()
            | st.builds(ToolCompensation, tool=ids, parameters=objects)
            | st.builds(ToolCompensation, tool=ids, parameters=st.just({"of": f"${name}.output"}))
        ),
        idempotent=draw(st.booleans()),
        max_retries=draw(st.integers(0, 100)),
        failure_behavior=draw(st.sampled_from(FailureBehavior)),
        timeout_ms=draw(st.none() | st.integers(1, 10_000)),
        metadata=draw(objects),
    )


@st.composite
def proposals(draw: st.DrawFn, most: int = 4) -> Proposal:
    """A proposal that every rule accepts."""
    names = draw(st.lists(ids, max_size=most, unique=True))
    made = [draw(actions(name, names[:place])) for place, name in enumerate(names)]
    if made and draw(st.booleans()):
        made.append(Action(id="undo_it", tool="undo", parameters={"of": f"${names[0]}.output"}))
        made.append(Action(id="do_it", tool="do", compensation=ActionRef(action_id="undo_it")))
    return Proposal(
        id=draw(ids),
        source=draw(keys),
        timestamp=draw(
            st.sampled_from([None, "2026-01-31T12:00:00Z", "2024-02-29t23:59:60.5-07:00"])
        ),
        actions=made,
        context=draw(objects),
    )


@st.composite
def knots(draw: st.DrawFn, most: int = 8, *, ahead: bool = False) -> list[Action]:
    """Actions over few keys with many edges; with `ahead`, dependencies may make cycles."""
    count = draw(st.integers(0, most))
    made = []
    for place in range(count):
        others = range(count if ahead else place)
        needed = draw(_some(st.sampled_from(others), 2)) if others else []
        kind = draw(st.sampled_from(ActionType))
        parameters: dict[str, Any] = {"key": draw(few_keys), "value": place}
        if others and draw(st.integers(0, 4)) == 0:
            parameters["from"] = f"$a{draw(st.sampled_from(others))}.output"
        made.append(
            Action(
                id=f"a{place}",
                type=kind,
                tool="t",
                parameters=parameters,
                preconditions=[Precondition(key=key) for key in draw(_some(few_keys, 1))],
                expected_effects=dict.fromkeys(draw(_some(few_keys, 1)), place),
                state_dependencies=draw(_some(few_keys, 1)),
                dependencies=[f"a{other}" for other in needed],
                failure_behavior=draw(st.sampled_from(FailureBehavior)),
            )
        )
    return made
