"""Each finding of `verify`, the case next to it in which there is none, and how it is explained."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.log import StateRead
from carstore.names import Position
from engine import Precondition, ToolCompensation, ToolContext, tool
from engine.checks import Code, Issue, Severity, Unknown, verify
from engine.checks.judging import never_holds
from engine.errors import CarstoreError
from engine.ir import Action, ActionRef, Assumption, Operator
from engine.plan_json import InvalidProposal
from engine.policy_file import policies_of
from engine.rules.capabilities import CapabilitySet
from engine.rules.policies import Ask, Judged, Policy, Violation
from engine.rules.preconditions import violation
from engine.tools import Tools
from tests.engine.checks.plans import values
from tests.engine.harness import call, check, plan, read, write


@tool
def add(n: int) -> int:
    return n


@tool(read_only=True)
def look() -> dict[str, Any]:
    return {}


@tool
def touch(ctx: ToolContext) -> None:
    ctx.set("k", 1)


@tool
def undo_add(parameters: dict[str, Any], output: int) -> None:
    pass


TOOLS = Tools([add, look, touch, undo_add])
SAFE: dict[str, Any] = {"parameters": {"n": 1}, "reversibility": "reversible"}


def issues(*actions: Action, **known: Any) -> list[Issue]:
    return list(verify(plan(*actions), **{"tools": TOOLS, "state": {}, **known}).issues)


def codes(*actions: Action, **known: Any) -> list[tuple[str | None, str]]:
    return [(one.action_id, one.code.value) for one in issues(*actions, **known)]


def demand(key: str, operator: str = "eq", value: Any = None) -> Precondition:
    return Precondition(key=key, operator=Operator(operator), value=value)


def test_a_plan_without_a_problem_has_no_issue_and_its_levels() -> None:
    found = verify(
        plan(write("a", "x", 1), call("b", "add", **SAFE), read("c", "x")), tools=TOOLS, state={}
    )
    assert found.valid
    assert found.issues == ()
    assert found.levels == (("a", "b"), ("c",))


def test_all_problems_are_found_in_one_pass_and_told_by_action() -> None:
    found = codes(
        call("a", "ad", **SAFE),
        call("b", "add", parameters={"n": "1"}, reversibility="reversible"),
        check("c", "x", 1),
        write("d", "y", "$c.output.value", preconditions=[demand("z", "exists")]),
        capabilities=CapabilitySet(max_actions=3, denied_tools=["add"]),
    )
    assert found == [
        (None, "too_many_actions"),
        ("a", "unknown_tool"),
        ("b", "bad_parameters"),
        ("b", "capability_denied"),
        ("c", "assertion_fails"),
        ("d", "precondition_fails"),
    ]


def test_a_message_says_what_is_wrong_and_how_that_is_known() -> None:
    [found] = issues(
        write("a1", "x", 5),
        write("a2", "x", 7, expected_effects={"y": 1}),
        call("a3", "add", preconditions=[demand("x", "eq", 5)], **SAFE),
    )
    assert found.message.startswith("precondition failed: x eq 5, but it is 7")
    assert found.derived == "a3.preconditions[0] reads 'x', which a2 writes as 7"
    [missing] = issues(call("a", "ad", **SAFE))
    assert missing.message == "there is no tool 'ad'; did you mean \"add\"?"


def test_a_plan_that_nothing_can_run_is_refused_as_it_is_for_a_run() -> None:
    with pytest.raises(InvalidProposal):
        verify(plan(call("a", dependencies=["b"]), call("b", dependencies=["a"])), tools=TOOLS)


# --- parameters ---


def output_of(schema: dict[str, Any], taken: dict[str, Any], path: str = "") -> list[str]:
    """What is said of handing the output of one tool to another."""
    tools = Tools(
        [
            tool(name="give", parameters={}, returns=schema, read_only=True)(lambda **_: None),
            tool(name="take", parameters=taken, read_only=True)(lambda **_: None),
        ]
    )
    found = verify(
        plan(call("g", "give"), call("t", "take", parameters={"p": [f"$g.output{path}"]})),
        tools=tools,
        state={},
    )
    return [one.code.value for one in found.errors]


LIST = {"type": "array", "items": {"type": "integer"}}


def test_what_a_tool_returns_decides_about_parameters() -> None:
    taken = {"properties": {"p": LIST}}
    assert output_of({"type": "integer"}, taken) == []
    assert output_of({"type": "number"}, taken) == []
    assert output_of({"type": ["string", "integer"]}, taken) == []
    assert output_of({}, taken) == []
    assert output_of({"type": "string"}, taken) == ["bad_parameters"]
    assert output_of({"type": ["string", "null"]}, taken) == ["bad_parameters"]


def test_what_a_tool_returns_decides_about_references() -> None:
    thing = {"type": "object", "properties": {"n": {"type": "integer"}, "l": LIST}}
    closed = {**thing, "additionalProperties": False}
    for path in (".n", ".l", ".l.0"):
        assert output_of(closed, {}, path) == []
    assert output_of(thing, {}, ".other") == []
    for path in (".other", ".n.deeper", ".l.name"):
        assert output_of(closed, {}, path) == ["unresolved_reference"]
    assert (
        output_of({**closed, "$schema": "http://json-schema.org/draft-07/schema#"}, {}, ".q") == []
    )


def test_known_parts_are_checked_around_what_is_not_known() -> None:
    def said(schema: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
        tools = Tools([look, tool(name="t", parameters=schema, read_only=True)(lambda **_: None)])
        found = verify(plan(call("a", "look"), call("t", parameters=parameters)), tools=tools)
        return [one.message for one in found.errors]

    unknown = "$a.output"
    whole = {"properties": {"n": {"type": "integer"}}, "required": ["m"]}
    assert len(said(whole, {"n": "no", "u": unknown})) == 2
    assert said({"additionalProperties": False, "properties": {"n": {}}}, {"u": unknown})
    assert said({"properties": {"l": {"maxItems": 1}}}, {"l": [unknown, 1]})
    assert said({"allOf": [{"required": ["m"]}]}, {"u": unknown})
    assert said({"properties": {"u": False}}, {"u": unknown})
    # These may turn out right, depending on the output.
    for fine in (
        {"properties": {"u": {"enum": ["a"]}}},
        {"if": {"properties": {"u": {"const": 1}}}, "else": {"required": ["m"]}},
        {"not": {"required": ["m"], "properties": {"u": {"const": 1}}}},
        {"anyOf": [{"properties": {"u": {"const": 1}}}]},
        {"properties": {"u": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"type": "string"}}},
    ):
        assert said(fine, {"u": unknown}) == []


def test_an_output_that_is_known_is_looked_into() -> None:
    found = issues(
        check("a", "x", 1),
        call("b", "add", parameters={"n": "$a.output.value"}, reversibility="reversible"),
        call("c", "add", parameters={"n": "$a.output.asserted"}, reversibility="reversible"),
        call("d", "add", parameters={"n": "$a.output.no"}, reversibility="reversible"),
        state={"x": 1},
    )
    assert [(one.action_id, one.code) for one in found] == [
        ("c", Code.BAD_PARAMETERS),
        ("d", Code.UNRESOLVED_REFERENCE),
    ]


# --- the state ---


def test_state_is_judged_as_the_plan_leaves_it() -> None:
    reader = call("r", "add", preconditions=[demand("x", "gt", 3)], **SAFE)
    assert codes(reader, state={"x": 4}) == []
    assert codes(reader, state={"x": 3}) == [("r", "precondition_fails")]
    assert codes(reader, state={}) == [("r", "precondition_fails")]
    assert codes(reader, state=None) == []
    assert codes(write("w", "x", 4), reader, state={"x": 3}) == []
    assert codes(reader, write("w", "x", 4), state={"x": 3}) == [("r", "precondition_fails")]
    needs = call("r", "add", state_dependencies=["x"], **SAFE)
    assert codes(needs) == [("r", "state_dependency_missing")]
    assert codes(write("w", "x", "$l.output"), call("l", "look"), needs) == []


def test_what_a_tool_may_write_is_not_known_unless_it_is_ordered() -> None:
    reader = check("r", "x", 1)
    after = check("r", "x", 1, dependencies=["t"])
    touches = call("t", "touch", reversibility="reversible")
    before = call("t", "touch", dependencies=["r"], reversibility="reversible")
    assert codes(touches, reader) == [("r", "may_fail")]
    assert codes(touches, after) == [("r", "may_fail")]
    assert codes(before, reader) == [("r", "assertion_fails")]
    assert codes(write("w", "x", 1), touches, reader) == [("r", "may_fail")]
    own = call("t", "touch", expected_effects={"x": 2}, reversibility="reversible")
    assert codes(own, reader) == [("r", "assertion_fails")]
    assert codes(touches, write("w", "x", 2, dependencies=["t"]), reader) == [
        ("r", "assertion_fails")
    ]


@given(st.sampled_from(Operator), values, st.none() | st.tuples(values))
def test_a_condition_that_never_holds_holds_for_no_state(
    operator: Operator, value: Any, there: tuple[Any] | None
) -> None:
    condition = demand("x", operator, value)
    found = StateRead(there[0] if there else None, there is not None, Position(0))
    if never_holds(condition):
        assert violation(condition, found) is not None


def test_what_no_state_satisfies_is_found_without_a_state() -> None:
    def said(*conditions: Precondition, **fields: Any) -> list[str]:
        found = codes(call("a", "add", preconditions=conditions, **fields, **SAFE), state=None)
        return [code for _, code in found]

    assert said(demand("x", "gt", "a")) == ["precondition_never_holds"]
    assert said(demand("x", "gt", 1), demand("x", "eq", 1)) == ["precondition_fails"]
    assert said(demand("x", "gt", 0), demand("x", "eq", 1)) == []
    assert said(demand("x", "eq", 2), demand("x", "eq", 1)) == ["precondition_fails"]
    assert said(demand("x", "not_exists"), demand("x", "exists")) == ["precondition_fails"]
    assert said(demand("x", "not_exists"), state_dependencies=["x"]) == ["state_dependency_missing"]


def test_a_failing_assertion_that_is_to_be_skipped_is_a_warning_and_skips_what_depends_on_it() -> (
    None
):
    found = issues(
        check("a", "x", 1, failure_behavior="skip", expected_effects={"y": 1}),
        call("b", "add", dependencies=["a"], **SAFE),
        check("c", "y", 1, failure_behavior="skip"),
    )
    assert [(one.action_id, one.code.value, one.severity) for one in found] == [
        ("a", "assertion_fails", Severity.WARNING),
        ("b", "unreachable", Severity.WARNING),
        ("c", "assertion_fails", Severity.WARNING),
    ]


def test_a_state_that_is_partly_unknown_decides_only_what_it_can() -> None:
    state = {"x": Unknown("is sensitive")}
    assert codes(call("a", "add", state_dependencies=["x"], **SAFE), state=state) == []
    assert codes(check("a", "x", 1), state=state) == [("a", "may_fail")]
    gone = call("a", "add", preconditions=[demand("x", "not_exists")], **SAFE)
    assert codes(gone, state=state) == [("a", "precondition_fails")]


# --- assumptions ---


def assuming(**fields: Any) -> Action:
    return read("a", "y", assumptions=[Assumption(key="x", **fields)])


def test_assumptions_are_judged_by_the_state_before_the_plan() -> None:
    known: dict[str, Any] = {"state": {"x": 1}, "positions": {"x": 7}}
    assert codes(assuming(expected_value=1, read_version=7), **known) == []
    assert codes(assuming(expected_value=2), **known) == [("a", "stale_assumption")]
    assert codes(assuming(read_version=6), **known) == [("a", "stale_assumption")]
    assert codes(assuming(read_version=0), state={}, positions={}) == []
    assert codes(assuming(read_version=6), state={"x": 1}) == [("a", "may_fail")]
    own = write("w", "x", 5)
    after = read("a", "y", assumptions=[Assumption(key="x", read_version=6)], dependencies=["w"])
    assert codes(own, after, **known) == []
    assert codes(own, assuming(read_version=6), **known) == [("a", "may_fail"), ("a", "race")]


# --- authority ---


def rule(**data: Any) -> Policy:
    return policies_of(data)


def test_policies_deny_what_is_certain() -> None:
    action = call("a", "add", **SAFE)
    assert codes(action, policies=[rule(deny_tool="add")]) == [("a", "policy_denied")]
    assert codes(action, policies=[rule(deny_tool="look")]) == []
    demands = rule(require_state={"tool": "add", "key": "ok", "value": True})
    assert codes(action, policies=[demands]) == [("a", "policy_denied")]
    assert codes(action, policies=[demands], state={"ok": True}) == []
    assert codes(action, policies=[demands], state=None) == []
    said = write("w", "ok", value=True)
    after = call("a", "add", dependencies=["w"], **SAFE)
    assert codes(said, after, policies=[demands]) == []
    assert codes(said, action, policies=[demands]) == []  # nothing says which comes first
    limited = rule(rate_limit_tool={"tool": "add", "max_calls": 1, "interval_secs": 60.0})
    assert codes(action, policies=[limited]) == []
    asks = rule(require_approval={"tool": "add", "reason": "goes outside"})
    [found] = issues(action, policies=[asks])
    assert (found.code, found.severity) == (Code.NEEDS_APPROVAL, Severity.WARNING)


def test_a_policy_about_what_is_not_known_says_nothing() -> None:
    first, given_it = call("l", "look"), {"n": 1, "of": "$l.output"}
    tools = Tools([look, tool(name="t", parameters={}, read_only=True)(lambda **_: None)])
    action = call("t", parameters=given_it)

    def said(*policies: Policy) -> list[str]:
        found = verify(plan(first, action), tools=tools, state={}, policies=policies)
        return [one.code.value for one in found.errors]

    assert said(rule(allow_tool_param={"tool": "t", "param": "of", "allow": ["a"]})) == []
    assert said(rule(deny_tool_param={"tool": "t", "param": "of", "contains": "a"})) == []
    assert said(rule(deny_tool_param={"tool": "t", "param": "of", "equals": {}})) == []
    assert said(rule(deny_tool_param={"tool": "t", "param": "n", "equals": 1})) == ["policy_denied"]
    assert said(rule(deny_tool_param={"tool": "t", "param": "of"})) == ["policy_denied"]


def test_a_policy_that_is_code_is_asked_where_all_is_known() -> None:
    asked: list[Any] = []

    def decide(judged: Judged) -> Violation | None:
        asked.append((judged.action.id, judged.parameters))
        read = judged.state("x")
        return Violation("p", "because") if read.exists else None

    policy = Policy(name="p", digest="d", reads=("x",), decide=decide)
    actions = (call("a", "add", **SAFE), call("b", "look"), write("w", "y", "$b.output"))
    assert codes(*actions, policies=[policy], state={"x": 1}) == [
        ("a", "policy_denied"),
        ("b", "policy_denied"),
    ]
    assert asked == [("a", {"n": 1}), ("b", {})]
    assert codes(*actions, policies=[policy], state=None) == []

    def fails(_: Judged) -> Ask:
        raise CarstoreError

    failing = Policy(name="p", digest="d", decide=fails)
    assert codes(actions[0], policies=[failing]) == [("a", "policy_denied")]


# --- the way back ---


def test_a_compensation_that_cannot_be_called_is_an_error() -> None:
    def said(**compensation: Any) -> list[str]:
        undo = ToolCompensation(**compensation)
        return [code for _, code in codes(call("a", "add", compensation=undo, parameters={"n": 1}))]

    assert said(tool="ad") == ["unknown_compensation_tool"]
    assert said(tool="add", parameters={"n": "$a.output"}) == []
    assert said(tool="add", parameters={"n": "x"}) == ["bad_compensation"]
    assert said(tool="add", parameters={"n": "$a.output.no"}) == ["bad_compensation"]
    other = call("u", "ad", parameters={"n": 1})
    undone = call("a", "add", compensation=ActionRef(action_id="u"), parameters={"n": 1})
    assert codes(other, undone) == [("a", "unknown_compensation_tool")]


def test_what_cannot_be_undone_before_what_may_abort_is_told_once() -> None:
    stays = [call(name, "add", parameters={"n": 1}) for name in ("a", "b", "c")]
    [found] = issues(*stays)
    assert (found.action_id, found.code) == ("a", Code.IRREVERSIBLE_BEFORE_ABORT)
    assert "1 more" in found.message
    assert codes(stays[0]) == []
    assert codes(call("l", "look"), stays[0]) == []
    assert codes(call("a", "add", parameters={"n": 1}, reversibility="compensable")) == [
        ("a", "no_way_back")
    ]


def test_a_retry_of_what_may_be_done_twice_is_told() -> None:
    fields: dict[str, Any] = {"failure_behavior": "retry", "reversibility": "reversible"}
    assert codes(call("a", "add", parameters={"n": 1}, **fields)) == [("a", "retry_of_once")]
    assert codes(call("a", "look", **fields)) == []
    assert codes(call("a", "add", parameters={"n": 1}, max_retries=0, **fields)) == []


# --- what actions share ---


def test_declared_writes_that_nothing_orders_are_races() -> None:
    one = call("a", "add", write_set=["x"], **SAFE)
    assert codes(one, read("b", "x")) == [("b", "race")]
    assert codes(one, call("b", "add", write_set=["x"], **SAFE)) == [("b", "race")]
    assert codes(one, call("b", "add", write_set=["y"], **SAFE)) == []
    assert codes(one, read("b", "x", dependencies=["a"])) == []


def test_sets_that_leave_out_what_is_named_are_told() -> None:
    assert codes(read("a", "x", read_set=["y"])) == [("a", "read_set_incomplete")]
    assert codes(read("a", "x", read_set=["x", "y"])) == []
    assert codes(write("a", "x", 1, write_set=["y"])) == [("a", "write_set_incomplete")]
    assert codes(write("a", "x", 1)) == []


def test_without_tools_nothing_is_said_of_calls_but_that() -> None:
    assert codes(call("a", "whatever", failure_behavior="retry"), tools=None) == [
        (None, "tools_not_given")
    ]
    assert codes(read("a", "x"), tools=None) == []


def test_every_code_is_documented_and_nothing_else_is() -> None:
    import re

    from tests.docs.markdown import DOCS

    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| `(\w+)` \| (?:error|warning)", text) == [one.value for one in Code]


# --- the tools that are built in ---


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize(
    ("action", "code"),
    [
        (call("s", "sleep", parameters={"seconds": -1}), "bad_parameters"),
        (call("s", "sleep", parameters={"until": "tomorrow"}), "bad_parameters"),
        (call("s", "sleep", parameters={"until": "2030-01-31T12:00:00"}), "bad_parameters"),
        (call("s", "sleep", parameters={"until": "9999-12-31T23:59:59-01:00"}), "bad_parameters"),
        (call("s", "wait_signal"), "bad_parameters"),
    ],
)
def test_what_is_built_in_is_checked_also_if_no_tools_are_given(
    tools: Any, action: Action, code: str
) -> None:
    assert codes(action, tools=tools) == [("s", code)]


def test_an_instant_is_judged_as_the_engine_judges_it() -> None:
    skips = call("s", "sleep", parameters={"until": "soon"}, failure_behavior="skip")
    [issue] = issues(skips)
    assert (issue.severity, issue.code) == (Severity.WARNING, Code.BAD_PARAMETERS)
    assert "'soon' is no instant" in issue.message
    assert issues(call("s", "sleep", parameters={"until": "2030-01-31T12:00:00Z"})) == []


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_what_a_sleep_gives_is_known(tools: Any) -> None:
    nap = call("s", "sleep", parameters={"seconds": 1})
    assert codes(nap, write("w", "k", "$s.output.until"), tools=tools) == []
    assert codes(nap, write("w", "k", "$s.output.nope"), tools=tools) == [
        ("w", "unresolved_reference")
    ]


def test_a_tool_of_the_same_name_is_the_one_that_is_checked() -> None:
    own = tool(name="sleep", parameters={"type": "object"}, read_only=True)(lambda **_: None)
    assert issues(call("s", "sleep", parameters={"until": "tomorrow"}), tools=Tools([own])) == []
