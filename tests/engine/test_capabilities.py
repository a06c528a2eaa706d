"""Permission sets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ir import (
    Action,
    ActionRef,
    ActionType,
    Assumption,
    Operator,
    Precondition,
    ToolCompensation,
)
from engine.policies import InvalidPolicy
from engine.policy_file import policies_of
from engine.rules.capabilities import CapabilitySet, as_policy
from tests.engine.test_policies import judged

NAMES = ["a", "b", "c"]
KEYS = ["a", "ab", "b", "x/1", "x/2", "x"]

_names = st.lists(st.sampled_from(NAMES))
_patterns = st.lists(st.sampled_from([*KEYS, "*", "a*", "x/*", "a**"]))

sets = st.builds(
    CapabilitySet,
    allowed_tools=st.none() | _names,
    denied_tools=_names,
    allowed_state_keys=st.none() | _patterns,
    max_actions=st.none() | st.integers(0, 5),
)


def reasons(capabilities: CapabilitySet, action: Action) -> list[str]:
    found = capabilities.violations(action, action.parameters)
    assert {one.policy for one in found} <= {"capabilities"}
    return [one.reason for one in found]


@given(sets)
def test_what_is_denied_is_denied_and_what_is_not_allowed_too(one: CapabilitySet) -> None:
    for name in NAMES:
        allowed = one.allowed_tools is None or name in one.allowed_tools
        assert one.tool_allowed(name) == (allowed and name not in one.denied_tools)


def test_a_star_at_the_end_of_a_key_allows_what_begins_so() -> None:
    one = CapabilitySet(allowed_state_keys=["a", "x/*"])
    assert [key for key in KEYS if one.state_key_allowed(key)] == ["a", "x/1", "x/2"]
    everything = CapabilitySet(allowed_state_keys=["*"])
    assert all(everything.state_key_allowed(key) for key in KEYS)
    nothing = CapabilitySet(allowed_state_keys=[])
    assert not any(nothing.state_key_allowed(key) for key in KEYS)


def test_the_texts_are_those_of_the_seed() -> None:
    one = CapabilitySet(denied_tools=["t"], allowed_state_keys=[], max_actions=2)
    assert reasons(one, Action(tool="t")) == ["capability denied: tool 't' not allowed"]
    write = Action(type=ActionType.STATE_WRITE, parameters={"key": "k", "value": 1})
    assert reasons(one, write) == ["capability denied: state key 'k' not allowed"]
    assert one.too_many(2) is None
    assert one.too_many(3) == "capability denied: proposal has 3 actions, max allowed is 2"
    assert CapabilitySet().too_many(10**9) is None


@pytest.mark.parametrize("kind", [ActionType.STATE_READ, ActionType.ASSERTION])
def test_every_key_that_an_action_names_counts_once(kind: ActionType) -> None:
    action = Action(
        type=kind,
        parameters={"key": "k1"},
        preconditions=[Precondition(key="k2", operator=Operator.EXISTS)],
        assumptions=[Assumption(key="k3", expected_value=1), Assumption(key="fine")],
        state_dependencies=["k4", "k1"],
        expected_effects={"k5": 1, "fine": 2},
    )
    one = CapabilitySet(allowed_state_keys=["fine"])
    texts = [f"capability denied: state key 'k{n}' not allowed" for n in (1, 2, 3, 4, 5)]
    assert reasons(one, action) == texts
    assert reasons(CapabilitySet(), action) == []


def test_the_key_of_a_tool_call_is_a_parameter_like_any_other() -> None:
    one = CapabilitySet(allowed_state_keys=[])
    assert reasons(one, Action(tool="t", parameters={"key": "k"})) == []


@pytest.mark.parametrize("parameters", [{}, {"key": None}, {"key": ["k"]}])
def test_a_state_action_whose_key_cannot_be_read_is_not_allowed(parameters: dict[str, Any]) -> None:
    action = Action(type=ActionType.STATE_READ, parameters=parameters)
    assert reasons(CapabilitySet(allowed_state_keys=["*"]), action) == [
        "capability denied: state key is not a text"
    ]


def test_the_resolved_key_counts() -> None:
    action = Action(type=ActionType.STATE_READ, parameters={"key": "$a.output"})
    one = CapabilitySet(allowed_state_keys=["fine"])
    assert one.violations(action, {"key": "fine"}) == []
    assert len(one.violations(action, {"key": "other"})) == 1


def test_the_tool_that_undoes_an_action_has_to_be_allowed() -> None:
    named = Action(tool="a", compensation=ActionRef(action_id="u"))
    [found] = CapabilitySet(denied_tools=["b"]).violations(named, {}, Action(id="u", tool="b"))
    assert found.reason == "capability denied: tool 'b' not allowed"
    action = Action(tool="a", compensation=ToolCompensation(tool="b"))
    assert reasons(CapabilitySet(allowed_tools=["a"]), action) == [
        "capability denied: tool 'b' not allowed"
    ]
    assert reasons(CapabilitySet(allowed_tools=["a", "b"]), action) == []
    itself = Action(tool="a", compensation=ToolCompensation(tool="a"))
    assert len(reasons(CapabilitySet(denied_tools=["a"]), itself)) == 1


@given(sets)
def test_as_json_and_back_it_allows_the_same(one: CapabilitySet) -> None:
    back = CapabilitySet.from_json(one.to_json())
    assert back.to_json() == one.to_json()
    assert [back.tool_allowed(name) for name in NAMES] == [one.tool_allowed(name) for name in NAMES]
    assert [back.state_key_allowed(k) for k in KEYS] == [one.state_key_allowed(k) for k in KEYS]
    assert back.max_actions == one.max_actions


@given(sets)
def test_as_a_policy_it_is_made_again_from_its_data(one: CapabilitySet) -> None:
    policy = as_policy(one)
    again = policies_of(policy.rule)
    assert again == policy
    for action in (Action(tool="a"), Action(type=ActionType.STATE_READ, parameters={"key": "x/1"})):
        assert again.judge(judged(action)) == one.violations(action, action.parameters)


def test_null_is_not_given() -> None:
    names = ("allowed_tools", "denied_tools", "allowed_state_keys", "max_actions")
    assert CapabilitySet.from_json(dict.fromkeys(names)) == CapabilitySet()


@pytest.mark.parametrize(
    ("data", "path", "told"),
    [
        ([], "", "expected an object"),
        ({"allow_tools": []}, "", 'did you mean "allowed_tools"?'),
        ({"allowed_tools": "t"}, "allowed_tools", "is not a list"),
        ({"denied_tools": {"t": 1}}, "denied_tools", "is not a list"),
        ({"denied_tools": ["two words"]}, "denied_tools", "two words"),
        ({"denied_tools": [["t"]]}, "denied_tools", "is not a list of texts"),
        ({"allowed_tools": [5]}, "allowed_tools", "is not a list of texts"),
        ({"allowed_state_keys": [""]}, "allowed_state_keys", "is empty"),
        ({"allowed_state_keys": ["a\nb*"]}, "allowed_state_keys", "control character"),
        ({"max_actions": -1}, "max_actions", "is not a count"),
        ({"max_actions": True}, "max_actions", "is not a count"),
        ({"max_actions": 1.0}, "max_actions", "is not a count"),
    ],
)
def test_what_it_cannot_hold_is_refused_by_name(data: Any, path: str, told: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        CapabilitySet.from_json(data)
    assert caught.value.path == path
    assert told in caught.value.message


def test_one_name_is_no_list_of_names() -> None:
    with pytest.raises(InvalidPolicy):
        CapabilitySet(denied_tools="deploy")  # type: ignore[arg-type]
