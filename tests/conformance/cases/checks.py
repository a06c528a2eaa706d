"""Checks: what is wrong with a plan by itself, with the tools it names, and with what they give."""

from typing import Any

from tests.conformance.write import call, case, cost, ends, tool, write

ORDER = {
    "type": "object",
    "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
    "required": ["sku", "count"],
    "additionalProperties": False,
}


def invalid(name: str, plan: Any, *problems: list[str], tags: tuple[str, ...] = ()) -> Any:
    """A case whose plan cannot be executed as it is: nothing is recorded."""
    expect = {"problems": list(problems), "recorded": False, "calls": []}
    tags = ("invalid_plans", *tags)
    return case(
        name,
        tools={"t": tool()},
        tags=list(tags),
        steps=[{"do": "execute", "plan": plan, "expect": expect}],
    )


CASES = [
    case(
        "an unknown tool rejects its action, and says which",
        [call("a", "teleport"), call("b", "t")],
        tools={"t": tool()},
        tags=["rejected_are_counted", "skipped_events"],
        expect=ends(
            "failed",
            {"a": ["rejected", "unknown tool 'teleport'"], "b": "succeeded"},
            [
                "proposal_received",
                "action_rejected a",
                "action_executing b",
                "action_succeeded b",
                "proposal_completed failed",
            ],
            {},
            cost(1, 1, rejected=1),
            details=[["action_rejected", {"action_id": "a", "error": "unknown tool 'teleport'"}]],
        ),
    ),
    case(
        "parameters that the schema does not allow are all told, and nothing is called",
        [call("a", "order", params={"count": 0, "colour": "red"})],
        tools={"order": tool(parameters=ORDER)},
        tags=["schemas_are_enforced"],
        expect=ends(
            "failed",
            {
                "a": [
                    "rejected",
                    'parameters: "sku" is a required property; '
                    "parameters: Additional properties are not allowed ('colour' was unexpected); "
                    "parameters.count: 0 is less than the minimum of 1",
                ]
            },
            ["proposal_received", "action_rejected a", "proposal_completed failed"],
            {},
            cost(0, 0, rejected=1),
            calls=[],
        ),
    ),
    case(
        "parameters are checked with the outputs in them",
        [call("pick", "pick"), call("a", "order", params={"sku": "$pick.output", "count": 1})],
        tools={"pick": tool({"return": 7}), "order": tool(parameters=ORDER)},
        tags=["schemas_are_enforced", "output_references"],
        expect=ends(
            "failed",
            {
                "pick": "succeeded",
                "a": ["rejected", 'parameters.sku: 7 is not of type "string"'],
            },
            [
                "proposal_received",
                "action_executing pick",
                "action_succeeded pick",
                "action_rejected a",
                "proposal_completed failed",
            ],
            {},
            cost(1, 1, rejected=1),
        ),
    ),
    case(
        "parameters that the schema allows are handed over as they are",
        [call("a", "order", params={"sku": "mug", "count": 2})],
        tools={"order": tool({"return_params": True}, parameters=ORDER)},
        expect=ends(
            "succeeded",
            {"a": "succeeded"},
            [
                "proposal_received",
                "action_executing a",
                "action_succeeded a",
                "proposal_completed succeeded",
            ],
            {},
            cost(1, 1),
            outputs={"a": {"sku": "mug", "count": 2}},
        ),
    ),
    case(
        "an output that is not what the tool promises fails, is kept, and has no effects",
        [call("a", "count", expected_effects={"counted": 1})],
        tools={"count": tool({"return": "many"}, returns={"type": "integer"})},
        tags=["schemas_are_enforced"],
        expect=ends(
            "rolled_back",
            {"a": ["failed", 'output: "many" is not of type "integer"']},
            [
                "proposal_received",
                "action_executing a",
                "action_failed a",
                "state_rollback",
                "proposal_completed rolled_back",
            ],
            {},
            cost(0, 1),
            details=[["action_failed", {"output": "many"}]],
        ),
    ),
    case(
        "an output that is no JSON fails; the call is not in doubt",
        [call("a", "odd", failure_behavior="retry", max_retries=0)],
        tools={"odd": tool({"return_no_json": True})},
        tags=["schemas_are_enforced"],
        expect=ends(
            "failed",
            {"a": ["failed", "output: a set is not JSON; a tool returns JSON"]},
            [
                "proposal_received",
                "action_executing a",
                "action_failed a",
                "proposal_completed failed",
            ],
            {},
            cost(0, 1),
            outputs={"a": {"type": "set"}},
        ),
    ),
    case(
        "an output that is too large fails, and its digest and size are kept",
        [call("a", "large", failure_behavior="retry", max_retries=0)],
        tools={"large": tool({"return_chars": 5_000_000})},
        tags=["schemas_are_enforced"],
        expect=ends(
            "failed",
            {"a": ["failed", "output has 5,000,002 bytes; at most 4,194,304 are kept"]},
            [
                "proposal_received",
                "action_executing a",
                "action_failed a",
                "proposal_completed failed",
            ],
            {},
            cost(0, 1),
        ),
    ),
    case(
        "a bad output is tried again where the plan says so",
        [call("a", "count", failure_behavior="retry")],
        tools={"count": tool({"return": "many"}, {"return": 3}, returns={"type": "integer"})},
        tags=["schemas_are_enforced"],
        expect=ends(
            "succeeded",
            {"a": "succeeded"},
            [
                "proposal_received",
                "action_executing a",
                "action_failed a",
                "action_retrying a",
                "action_executing a",
                "action_succeeded a",
                "proposal_completed succeeded",
            ],
            {},
            cost(1, 1, retries=1),
            outputs={"a": 3},
        ),
    ),
    case(
        "a read-only tool is called without an intent; one that acts has one",
        [call("look", "look"), call("act", "act"), call("put", "put")],
        tools={
            "look": tool({"return": 1}, read_only=True),
            "act": tool({"return": 2}),
            "put": tool({"return": 3}, idempotent=True),
        },
        tags=["no_intent"],
        expect=ends(
            "succeeded",
            {"look": "succeeded", "act": "succeeded", "put": "succeeded"},
            [
                "proposal_received",
                "action_validated look",
                "action_succeeded look",
                "action_executing act",
                "action_succeeded act",
                "action_validated put",
                "action_succeeded put",
                "proposal_completed succeeded",
            ],
            {},
            cost(3, 3),
        ),
    ),
    invalid(
        "an id that stands twice",
        {"actions": [call("a", "t"), call("b", "t"), call("a", "t")]},
        ["duplicate_id", "actions[2].id", '"a" is the id of actions[0] already; ids are unique'],
    ),
    invalid(
        "actions that wait for each other",
        {"actions": [call("a", "t", dependencies=["b"]), call("b", "t", dependencies=["a"])]},
        [
            "cycle",
            "actions[0]",
            "actions that wait for each other: a -> b -> a "
            "(a waits for b: dependency; b waits for a: dependency)",
        ],
    ),
    invalid(
        "a reader that waits for what is declared after it and writes what it reads",
        {
            "actions": [
                call("deploy", "t", state_dependencies=["image"], dependencies=["build"]),
                call("build", "t", expected_effects={"image": "app:1"}),
            ]
        },
        [
            "cycle",
            "actions[0]",
            "actions that wait for each other: deploy -> build -> deploy (deploy waits for build: "
            'dependency; build waits for deploy: state key "image")',
        ],
        tags=("reader_between_writers",),
    ),
    invalid(
        "an action that waits for itself",
        {"actions": [call("a", "t", dependencies=["a"])]},
        [
            "cycle",
            "actions[0]",
            "actions that wait for each other: a -> a (a waits for a: dependency)",
        ],
    ),
    invalid(
        "a dependency that is not there",
        {"actions": [call("build", "t"), call("ship", "t", dependencies=["biuld"])]},
        [
            "unknown_action",
            "actions[1].dependencies[0]",
            '"biuld" is not an action of this proposal; did you mean "build"?',
        ],
    ),
    invalid(
        "an output of an action that is not there",
        {"actions": [call("a", "t", params={"x": "$nobody.output"})]},
        [
            "unknown_reference",
            "actions[0].parameters.x",
            '"$nobody.output" names no action of this proposal '
            "(plain text of this form is written with $$)",
        ],
        tags=("output_references",),
    ),
    invalid(
        "a field that does not exist, with the one that was meant",
        {"actions": [call("a", "t", max_retrys=3)]},
        ["unknown_field", "actions[0].max_retrys", 'not a field here; did you mean "max_retries"?'],
    ),
    invalid(
        "a kind of action that does not exist",
        {"actions": [{"id": "a", "type": "tool_cal"}]},
        [
            "unknown_value",
            "actions[0].type",
            '"tool_cal" is not one of tool_call, state_write, state_read, assertion; '
            'did you mean "tool_call"?',
        ],
    ),
    invalid(
        "a call that names no tool",
        {"actions": [{"id": "a"}]},
        [
            "missing_field",
            "actions[0].tool",
            "missing; an action of type tool_call names the tool that it calls",
        ],
    ),
    invalid(
        "a state action without a key",
        {"actions": [{"id": "a", "type": "state_write", "parameters": {"value": 1}}]},
        [
            "missing_field",
            "actions[0].parameters.key",
            "missing; an action of type state_write needs it, a state key",
        ],
    ),
    invalid(
        "several faults are told at once",
        {"actions": [call("a", "t", timeout_ms=0), call("a", "t", max_retries=-1)]},
        [
            "out_of_range",
            "actions[0].timeout_ms",
            "0 is not an integer from 1 to 2592000000",
        ],
        [
            "out_of_range",
            "actions[1].max_retries",
            "-1 is not an integer from 0 to 100",
        ],
        ["duplicate_id", "actions[1].id", '"a" is the id of actions[0] already; ids are unique'],
    ),
    invalid(
        "a plan without a list of actions",
        {"id": "p"},
        ["missing_field", "actions", "missing"],
    ),
    invalid(
        "an operator that does not exist",
        {"actions": [write("w", "k", 1, preconditions=[{"key": "k", "operator": "like"}])]},
        [
            "unknown_value",
            "actions[0].preconditions[0].operator",
            '"like" is not one of eq, neq, gt, lt, gte, lte, exists, not_exists, contains',
        ],
    ),
    invalid(
        "an action that waits for one that only undoes",
        {
            "actions": [
                call("a", "t", compensation={"type": "action_ref", "action_id": "u"}),
                call("u", "t"),
                call("b", "t", dependencies=["u"]),
            ]
        },
        [
            "waits_for_compensation",
            "actions[2].dependencies[0]",
            '"u" runs only to undo another action, as its compensation; no action can wait for it',
        ],
    ),
]
