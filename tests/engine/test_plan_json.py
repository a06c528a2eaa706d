import copy
import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import canonical
from engine.ir import Action, ActionRef, FailureBehavior, Precondition, Proposal, ToolCompensation
from engine.plan_json import (
    InvalidProposal,
    Limits,
    check_proposal,
    load_proposal,
    parse_proposal,
    proposal_to_dict,
)
from engine.problems import MAX_PATH_CHARS, Problem, ProblemCode
from tests.engine.proposals import json_values, knots, proposals

CALL = {"id": "a", "type": "tool_call", "tool": "t"}
NESTED: Any = []
for _ in range(56):
    NESTED = [NESTED]


def problems_of(source: Any, **options: Any) -> list[Problem]:
    with pytest.raises(InvalidProposal) as caught:
        parse_proposal(source, **options)
    return list(caught.value.problems)


def places(source: Any, **options: Any) -> list[tuple[str, str]]:
    return [(problem.code.value, problem.path) for problem in problems_of(source, **options)]


# What is accepted


@given(proposals())
def test_what_is_written_is_read_back_equal(proposal: Proposal) -> None:
    data = proposal_to_dict(proposal)
    assert parse_proposal(data) == proposal
    assert parse_proposal(json.dumps(data)) == proposal
    assert parse_proposal(canonical.dumps(data).encode()) == proposal
    assert load_proposal(data) == proposal
    assert check_proposal(proposal) == proposal


@given(proposals())
def test_writing_again_gives_the_same_text(proposal: Proposal) -> None:
    text = canonical.dumps(proposal_to_dict(proposal))
    assert canonical.dumps(proposal_to_dict(parse_proposal(text))) == text


def test_defaults_are_left_out_and_read_back() -> None:
    proposal = Proposal(id="p", actions=[Action(id="a", tool="t")])
    assert proposal_to_dict(proposal) == {"id": "p", "actions": [CALL]}
    assert parse_proposal({"id": "p", "actions": [{"id": "a", "tool": "t"}]}) == proposal


def test_the_whole_shape_is_read() -> None:
    action = {
        "id": "a",
        "type": "tool_call",
        "tool": "t",
        "parameters": {"x": [1, None]},
        "preconditions": [{"key": "k", "operator": "gte", "value": 2, "description": "d"}],
        "expected_effects": {"k": None},
        "state_dependencies": ["k"],
        "dependencies": ["b"],
        "read_set": ["k"],
        "write_set": ["k"],
        "assumptions": [{"key": "k", "expected_value": 1, "read_version": 7}],
        "reversibility": "compensable",
        "compensation": {"type": "tool", "tool": "u", "parameters": {"of": "$a.output"}},
        "idempotent": True,
        "max_retries": 0,
        "failure_behavior": "retry",
        "timeout_ms": 5,
        "metadata": {"anything": {"unknown": 1}},
    }
    other = {**CALL, "id": "b", "compensation": {"type": "action_ref", "action_id": "c"}}
    data = {
        "id": "p",
        "source": "model",
        "timestamp": "2026-01-31T12:00:00.5+01:00",
        "actions": [action, other, {**CALL, "id": "c"}],
        "context": {"free": 1},
    }
    proposal = parse_proposal(data)
    assert proposal_to_dict(proposal) == data
    assert proposal.actions[0].compensation == ToolCompensation(
        tool="u", parameters={"of": "$a.output"}
    )
    assert proposal.actions[1].compensation == ActionRef(action_id="c")


def test_a_proposal_without_actions_is_one() -> None:
    assert parse_proposal('{"actions": []}').actions == ()


def test_missing_ids_are_made() -> None:
    names = iter(["n1", "n2", "n3"])
    proposal = parse_proposal(
        {"actions": [{"tool": "t"}, CALL, {"tool": "t"}]}, make_id=lambda: next(names)
    )
    assert [proposal.id, *(action.id for action in proposal.actions)] == ["n1", "n2", "a", "n3"]


def test_what_was_read_does_not_change_with_its_source() -> None:
    source = {"actions": [{**CALL, "parameters": {"x": [1]}}]}
    built = Proposal(actions=[Action(tool="t", parameters={"x": [1]})])
    read, checked = parse_proposal(source), check_proposal(built)
    source["actions"][0]["parameters"]["x"].append(2)  # type: ignore[index]
    built.actions[0].parameters["x"].append(2)
    assert read.actions[0].parameters == checked.actions[0].parameters == {"x": [1]}


# What is refused, and how it is told


def action(**fields: Any) -> dict[str, Any]:
    return {"actions": [{**CALL, **fields}]}


def state(**parameters: Any) -> dict[str, Any]:
    return {"actions": [{"id": "a", "type": "state_write", "parameters": parameters}]}


FAULTS = [
    ([], "wrong_type", "$", "an empty list; expected an object"),
    ("3", "wrong_type", "$", "3 is a number; expected an object"),
    ({}, "missing_field", "actions", "missing"),
    ({"actions": None}, "wrong_type", "actions", "null; expected a list"),
    ({"actions": {}}, "wrong_type", "actions", "an empty object; expected a list"),
    ({"actions": "abc"}, "wrong_type", "actions", '"abc" is a string; expected a list'),
    ({"actions": [3]}, "wrong_type", "actions[0]", "3 is a number; expected an object"),
    ({"actions": [], "id": ""}, "invalid_id", "id", '"" is empty'),
    ({"actions": [], "id": None}, "wrong_type", "id", "null; expected a string"),
    ({"actions": [], "source": "a\x00"}, "invalid_source", "source", "control character"),
    ({"actions": [], "timestamp": "yesterday"}, "invalid_timestamp", "timestamp", "2026-01-31T"),
    ({"actions": [], "timestamp": "2026-02-30T00:00:00Z"}, "invalid_timestamp", "timestamp", "RFC"),
    ({"actions": [], "timestamp": 5}, "wrong_type", "timestamp", "5 is a number"),
    ({"actions": [], "context": []}, "wrong_type", "context", "expected an object"),
    ({"actions": [], "action": []}, "unknown_field", "action", 'did you mean "actions"?'),
    ({"actions": [], "zzz": 1}, "unknown_field", "zzz", "known are id, source, timestamp, actions"),
    (action(id="a b"), "invalid_id", "actions[0].id", "allowed are A-Z a-z 0-9"),
    (action(id="x" * 129), "invalid_id", "actions[0].id", "at most 128"),
    (action(id="-x"), "invalid_id", "actions[0].id", "begin with a letter"),
    (action(type="toolcall"), "unknown_value", "actions[0].type", 'did you mean "tool_call"?'),
    (action(tool="a b"), "invalid_id", "actions[0].tool", "allowed are"),
    (action(tool=None), "missing_field", "actions[0].tool", "names the tool"),
    (action(parameters=None), "wrong_type", "actions[0].parameters", "null; expected an object"),
    (action(timeout_ms="12"), "wrong_type", "actions[0].timeout_ms", '"12" is a string; expected'),
    (action(timeout_ms=True), "wrong_type", "actions[0].timeout_ms", "true is a boolean; expected"),
    (action(timeout_ms=1.0), "wrong_type", "actions[0].timeout_ms", "1.0 is a number; expected an"),
    (
        action(timeout_ms=0),
        "out_of_range",
        "actions[0].timeout_ms",
        "0 is not an integer from 1 to",
    ),
    (action(max_retries=101), "out_of_range", "actions[0].max_retries", "from 0 to 100"),
    (action(max_retries=-1), "out_of_range", "actions[0].max_retries", "-1 is not"),
    (action(idempotent=1), "wrong_type", "actions[0].idempotent", "expected true or false"),
    (action(idempotent="no"), "wrong_type", "actions[0].idempotent", '"no" is a string'),
    (action(dependencies="b"), "wrong_type", "actions[0].dependencies", "expected a list"),
    (action(dependencies=[1]), "wrong_type", "actions[0].dependencies[0]", "1 is a number"),
    (action(dependencies=["b"]), "unknown_action", "actions[0].dependencies[0]", '"b" is not an'),
    (action(dependencies=["a"]), "cycle", "actions[0]", "a -> a (a waits for a: dependency)"),
    (action(timeout=5), "unknown_field", "actions[0].timeout", 'did you mean "timeout_ms"?'),
    (action(read_set=[""]), "invalid_key", "actions[0].read_set[0]", '"" is empty'),
    (action(write_set=["e\u0301"]), "invalid_key", "actions[0].write_set[0]", "NFC"),
    (
        action(state_dependencies=["x" * 513]),
        "invalid_key",
        "actions[0].state_dependencies[0]",
        "51",
    ),
    (
        action(expected_effects={"\n": 1}),
        "invalid_key",
        'actions[0].expected_effects["\\n"]',
        "contr",
    ),
    (
        action(expected_effects=[]),
        "wrong_type",
        "actions[0].expected_effects",
        "expected an object",
    ),
    (action(preconditions=[{}]), "missing_field", "actions[0].preconditions[0].key", "missing"),
    (
        action(preconditions=[{"key": "k", "operator": "equals"}]),
        "unknown_value",
        "actions[0].preconditions[0].operator",
        '"equals" is not one of eq, neq, gt, lt, gte, lte, exists, not_exists, contains',
    ),
    (
        action(preconditions=[{"key": "k", "op": "eq"}]),
        "unknown_field",
        "actions[0].preconditions[0].op",
        'did you mean "operator"?',
    ),
    (
        action(assumptions=[{"key": "k", "read_version": -1}]),
        "out_of_range",
        "actions[0].assumptions[0].read_version",
        "-1",
    ),
    (action(compensation="undo"), "wrong_type", "actions[0].compensation", "an object or null"),
    (
        action(compensation={}),
        "missing_field",
        "actions[0].compensation.type",
        "tool or action_ref",
    ),
    (
        action(compensation={"type": "tools"}),
        "unknown_value",
        "actions[0].compensation.type",
        '"tools" is not tool or action_ref',
    ),
    (
        action(compensation={"type": "tool", "tool": "u", "params": {}}),
        "unknown_field",
        "actions[0].compensation.params",
        'did you mean "parameters"?',
    ),
    (
        action(compensation={"type": "tool"}),
        "missing_field",
        "actions[0].compensation.tool",
        "missing",
    ),
    (
        action(compensation={"type": "action_ref", "action_id": "a"}),
        "invalid_compensation",
        "actions[0].compensation.action_id",
        '"a" is the action itself',
    ),
    (
        action(compensation={"type": "action_ref", "action_id": "b"}),
        "unknown_action",
        "actions[0].compensation.action_id",
        '"b" is not an action',
    ),
    (
        action(compensation={"type": "tool", "tool": "u", "parameters": {"x": "$b.output"}}),
        "unknown_reference",
        "actions[0].compensation.parameters.x",
        '"$b.output" names no action',
    ),
    (
        action(parameters={"x": [{"y": "$ab.output.z"}]}),
        "unknown_reference",
        "actions[0].parameters.x[0].y",
        'did you mean "a"?',
    ),
    (
        action(parameters={"x": "$a.output"}),
        "cycle",
        "actions[0]",
        "a waits for a: output reference",
    ),
    (state(), "missing_field", "actions[0].parameters.key", "state_write needs it"),
    (state(key=5), "wrong_type", "actions[0].parameters.key", "5 is not a string"),
    (state(key=""), "invalid_key", "actions[0].parameters.key", '"" is empty'),
    (state(key="$$b.output"), "invalid_key", "actions[0].parameters.key", "known beforehand"),
    ({"actions": [CALL, CALL]}, "duplicate_id", "actions[1].id", '"a" is the id of actions[0]'),
]


@pytest.mark.parametrize(("source", "code", "path", "told"), FAULTS)
def test_a_fault_is_told_with_its_place_its_value_and_what_is_allowed(
    source: Any, code: str, path: str, told: str
) -> None:
    (problem,) = problems_of(source)
    assert (problem.code.value, problem.path) == (code, path)
    assert told in problem.message


@pytest.mark.parametrize("key", ["value", "key"])
def test_a_state_read_and_an_assertion_need_a_key_too(key: str) -> None:
    for kind in ("state_read", "assertion"):
        source = {"actions": [{"id": "a", "type": kind, "parameters": {key: "k"}}]}
        if key == "key":
            assert parse_proposal(source)
        else:
            assert places(source) == [("missing_field", "actions[0].parameters.key")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff", "not UTF-8"),
        ('{"actions": [], "actions": []}', "stands twice"),
        ('{"actions": [], "context": {"x": NaN}}', "NaN"),
        ('{"actions": [], "context": {"x": 1e999}}', "finite"),
        ('{"actions": [], "context": {"x": 99999999999999999999}}', "64 bits"),
        ('{"actions": [], "context": {"x": "\\ud800"}}', "surrogate"),
        ("[" * 100_000, "nested deeper"),
    ],
)
def test_a_text_that_is_not_strict_json_is_one_problem(text: Any, told: str) -> None:
    (problem,) = problems_of(text)
    assert problem.code is ProblemCode.INVALID_JSON
    assert told in problem.message


@pytest.mark.parametrize("value", [float("nan"), 2**63, {1: 2}, {3}, object(), ("tuple",), b"x"])
def test_an_object_that_is_not_json_is_one_problem_with_its_path(value: Any) -> None:
    (problem,) = problems_of({"actions": [], "context": {"x": [value]}})
    assert problem.code is ProblemCode.INVALID_JSON
    assert problem.path.startswith("context.x[0]")


@pytest.mark.parametrize("source", [None, 5, object(), [CALL], {"actions": [object()]}])
def test_a_source_of_another_kind_is_refused(source: Any) -> None:
    assert problems_of(source)


def test_all_faults_of_a_proposal_come_in_one_pass_in_order_of_place() -> None:
    source = {
        "sorce": "x",
        "actions": [
            {"id": "a", "tool": 5, "dependencies": ["b", 7, "ghost"], "max_retries": 1_000},
            "no action",
            {"id": "b", "type": "state_write", "timeout_ms": None, "idempotent": "yes"},
            {"id": "a", "tool": "t", "parameters": {"x": "$ghost.output", "y": "$a.output."}},
            {"id": "c", "tool": "t", "dependencies": ["d"]},
            {"id": "d", "tool": "t", "dependencies": ["c"]},
        ],
    }
    assert places(source) == [
        ("unknown_field", "sorce"),
        ("wrong_type", "actions[0].tool"),
        ("wrong_type", "actions[0].dependencies[1]"),
        ("out_of_range", "actions[0].max_retries"),
        ("unknown_action", "actions[0].dependencies[2]"),
        ("wrong_type", "actions[1]"),
        ("wrong_type", "actions[2].idempotent"),
        ("missing_field", "actions[2].parameters.key"),
        ("duplicate_id", "actions[3].id"),
        ("unknown_reference", "actions[3].parameters.x"),
        ("unknown_reference", "actions[3].parameters.y"),
        ("cycle", "actions[4]"),
    ]


def test_a_cycle_names_its_actions_and_why_they_wait() -> None:
    source = {
        "actions": [
            {**CALL, "id": "read", "state_dependencies": ["k"], "dependencies": ["write"]},
            {"id": "write", "type": "state_write", "parameters": {"key": "k"}},
        ]
    }
    (problem,) = problems_of(source)
    assert problem.path == "actions[0]"
    assert problem.message == (
        "actions that wait for each other: read -> write -> read "
        '(read waits for write: dependency; write waits for read: state key "k")'
    )


def undoing(**fields: Any) -> dict[str, Any]:
    reference = {"type": "action_ref", "action_id": "undo"}
    return {
        "actions": [
            {**CALL, "id": "do", "compensation": reference},
            {**CALL, "id": "undo", "dependencies": ["do"], "parameters": {"x": "$do.output"}},
            {**CALL, "id": "next", **fields},
        ]
    }


def test_an_action_cannot_wait_for_one_that_runs_only_to_undo() -> None:
    assert parse_proposal(undoing())
    assert places(undoing(dependencies=["undo"])) == [
        ("waits_for_compensation", "actions[2].dependencies[0]")
    ]
    assert places(undoing(parameters={"x": "$undo.output"})) == [
        ("waits_for_compensation", "actions[2].parameters.x")
    ]


def test_what_runs_only_to_undo_may_name_any_action() -> None:
    source = undoing(compensation={"type": "action_ref", "action_id": "undo"})
    source["actions"] += [
        {**CALL, "id": "do2", "compensation": {"type": "action_ref", "action_id": "undo2"}},
        {**CALL, "id": "undo2", "dependencies": ["undo"], "parameters": {"x": "$undo.output"}},
    ]
    assert parse_proposal(source)


def test_only_tool_calls_undo_and_they_are_not_undone_themselves() -> None:
    source = undoing()
    source["actions"][1] = {"id": "undo", "type": "state_write", "parameters": {"key": "k"}}
    assert places(source) == [("invalid_compensation", "actions[0].compensation.action_id")]
    source = undoing()
    source["actions"][1]["compensation"] = {"type": "action_ref", "action_id": "next"}
    assert places(source) == [("invalid_compensation", "actions[1].compensation.action_id")]
    source["actions"][1]["compensation"] = {"type": "action_ref", "action_id": "do"}
    assert ("invalid_compensation", "actions[0].compensation.action_id") in places(source)


# Whatever comes


@given(json_values | st.fixed_dictionaries({"actions": json_values}))
def test_any_json_is_read_or_refused(value: Any) -> None:
    read_or_refuse(value if isinstance(value, dict) else json.dumps(value))


@given(st.text() | st.binary())
def test_any_text_is_read_or_refused(text: Any) -> None:
    read_or_refuse(text)


@given(proposals(), st.randoms(use_true_random=False), json_values, st.booleans())
def test_a_damaged_proposal_is_read_or_refused(
    proposal: Proposal, source: random.Random, junk: Any, renames: bool
) -> None:
    data = copy.deepcopy(proposal_to_dict(proposal))
    parent: Any = data
    while True:
        step = source.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        inner = parent[step]
        if not isinstance(inner, dict | list) or not inner or source.random() < 0.2:
            break
        parent = inner
    if renames and isinstance(parent, dict):
        parent[f"{step}x"] = parent.pop(step)
    else:
        parent[step] = junk
    read_or_refuse(data)


@given(knots(ahead=True))
def test_any_tangle_of_actions_is_read_or_refused(actions: list[Action]) -> None:
    read_or_refuse(proposal_to_dict(Proposal(actions=actions)))


def test_an_id_of_any_type_is_refused_where_actions_undo_each_other() -> None:
    undo = {"type": "action_ref", "action_id": "u"}
    for name in ([], {}, 7, None):
        actions = [
            {"id": "a", "type": "tool_call", "tool": "t", "compensation": undo},
            {"id": name, "type": "tool_call", "tool": "t", "compensation": undo},
            {"id": "u", "type": "tool_call", "tool": "t"},
        ]
        read_or_refuse({"actions": actions})


def read_or_refuse(source: Any) -> None:
    try:
        proposal = parse_proposal(source)
    except InvalidProposal as error:
        refusal = error
    else:
        assert parse_proposal(proposal_to_dict(proposal)) == proposal
        return
    assert refusal.problems
    assert refusal.where == refusal.problems[0].path
    assert len(set(refusal.problems)) == len(refusal.problems)
    for problem in refusal.problems:
        assert len(problem.message) < 1_500
        assert len(problem.path) <= MAX_PATH_CHARS + 3
        assert str(problem).isprintable()


# Bounds


def test_the_message_shows_the_first_problems_and_counts_the_others() -> None:
    source = {"actions": [{**CALL, "id": f"a{n}", "max_retries": n} for n in range(99, 150)]}
    with pytest.raises(InvalidProposal) as caught:
        parse_proposal(source)
    lines = str(caught.value).splitlines()
    assert lines[0] == "the proposal has 49 problems:"
    assert lines[1].startswith("  actions[2].max_retries: 101 is not")
    assert lines[-1] == "  and 39 more"
    assert len(lines) == 12
    assert caught.value.code == "invalid_proposal"


def test_one_problem_is_a_message_of_one_line() -> None:
    with pytest.raises(InvalidProposal) as caught:
        parse_proposal({"actions": []}, limits=Limits(max_bytes=5))
    assert str(caught.value) == "$: 14 bytes; at most 5 are allowed"


@pytest.mark.parametrize(
    ("source", "limits", "place"),
    [
        ('{"actions": []}', Limits(max_bytes=14), ("too_large", "$")),
        ({"actions": [CALL] * 3}, Limits(max_actions=2), ("too_large", "actions")),
        (
            action(dependencies=["a"] * 3),
            Limits(max_items=2),
            ("too_large", "actions[0].dependencies"),
        ),
        (
            action(parameters={"x": [[]]}),
            Limits(max_depth=5),
            ("too_large", "actions[0].parameters"),
        ),
        (action(parameters={"x": NESTED}), Limits(), ("too_large", "actions[0].parameters")),
        ({"actions": [], "context": {"x": {}}}, Limits(max_depth=2), ("too_large", "context")),
    ],
)
def test_what_is_too_large_is_refused(source: Any, limits: Limits, place: Any) -> None:
    assert place in places(source, limits=limits)


def test_an_embedding_program_can_raise_the_limits() -> None:
    source = {"actions": [{**CALL, "id": f"a{n}"} for n in range(10_001)]}
    assert places(source) == [("too_large", "actions")]
    proposal = parse_proposal(source, limits=Limits(max_actions=20_000))
    assert len(proposal.actions) == 10_001
    assert load_proposal(proposal_to_dict(proposal)) == proposal


def test_a_proposal_as_deep_as_allowed_fits_into_an_event() -> None:
    proposal = parse_proposal(action(parameters={"x": NESTED[0]}))
    canonical.check({"data": [proposal_to_dict(proposal)]})


@pytest.mark.parametrize(
    "source",
    [
        {"actions": [{"tool": 5, f"x{'y' * 70}{n}": 1} for n in range(10_000)]},
        {"actions": [{"tool": "t", "dependencies": [0] * 10_000}] * 50},
        {"actions": [{"tool": "t", "dependencies": ["nobody"] * 10_000}] * 50},
        {"actions": [{"tool": "t", "parameters": {"x": ["$nobody.output"] * 100_000}}]},
        {"actions": [], "x" * 1_000_000: "y" * 1_000_000},
        {"actions": [{**CALL, "parameters": {"x" * 1_000_000: "$b.output." + "y" * 1_000_000}}]},
        {"actions": [{**CALL, "type": "y" * 1_000_000, "compensation": {"type": "z" * 1_000_000}}]},
    ],
)
def test_hostile_proposals_are_refused_quickly_and_briefly(source: Any) -> None:
    text = json.dumps(source)
    start = time.perf_counter()
    with pytest.raises(InvalidProposal) as caught:
        parse_proposal(text)
    assert time.perf_counter() - start < 5
    assert len(caught.value.problems) <= 1_000
    assert len(str(caught.value)) < 10_000


# Built in a program


@settings(max_examples=50)
@given(proposals(), st.sampled_from(["id", "dependencies", "parameters", "max_retries", "type"]))
def test_what_is_built_is_judged_like_what_is_read(proposal: Proposal, name: str) -> None:
    built = Proposal(
        actions=[*proposal.actions, Action(**{"id": "z1", "tool": "t", name: object()})]
    )
    with pytest.raises(InvalidProposal) as caught:
        check_proposal(built)
    assert caught.value.where == f"actions[{len(proposal.actions)}].{name}"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"timeout_ms": "12"}, ("wrong_type", "actions[0].timeout_ms")),
        ({"max_retries": True}, ("wrong_type", "actions[0].max_retries")),
        ({"dependencies": "ab"}, ("wrong_type", "actions[0].dependencies")),
        ({"preconditions": [5]}, ("wrong_type", "actions[0].preconditions[0]")),
        (
            {"preconditions": [ActionRef(action_id="b")]},
            ("invalid_json", "actions[0].preconditions[0]"),
        ),
        ({"compensation": "b"}, ("wrong_type", "actions[0].compensation")),
        ({"failure_behavior": "explode"}, ("unknown_value", "actions[0].failure_behavior")),
        ({"parameters": {"x": {1, 2}}}, ("invalid_json", "actions[0].parameters.x")),
        ({"tool": None}, ("missing_field", "actions[0].tool")),
    ],
)
def test_wrong_types_in_a_built_proposal_are_problems(fields: Any, place: Any) -> None:
    built = Proposal(actions=[Action(**{"id": "a", "tool": "t", **fields})])
    with pytest.raises(InvalidProposal) as caught:
        check_proposal(built)
    assert [(p.code.value, p.path) for p in caught.value.problems] == [place]


def test_names_and_json_in_place_of_nouns_are_made_into_them() -> None:
    built: Any = Action(id="a", tool="t", failure_behavior="skip", preconditions=[{"key": "k"}])  # type: ignore[arg-type, list-item]
    (checked,) = check_proposal(Proposal(actions=[built])).actions
    assert checked.failure_behavior is FailureBehavior.SKIP
    assert checked.preconditions == (Precondition(key="k"),)


@pytest.mark.parametrize("data", [None, [], {}, {"actions": [{"ID": "a"}]}, {"actions": 5}])
def test_loading_what_is_no_proposal_is_refused(data: Any) -> None:
    with pytest.raises(InvalidProposal) as caught:
        load_proposal(data)
    assert caught.value.problems
