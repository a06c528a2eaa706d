"""State: reads, writes, assertions, preconditions, what tools do to it, and conflicts."""

from typing import Any

from tests.conformance.write import call, case, check, cost, ends, execute, read, tool, write

STALE = "was read at position # and has changed at position #"


def needs(key: str, operator: str, value: Any = None, **more: Any) -> list[dict[str, Any]]:
    """The preconditions of one comparison."""
    return [{"key": key, "operator": operator, "value": value, **more}]


def holds(operator: str, value: Any, actual: Any) -> dict[str, Any]:
    """A case in which a precondition holds."""
    return case(
        f"precondition {operator}: holds for {actual!r} and {value!r}",
        [write("go", "done", 1, preconditions=needs("k", operator, value))],
        state={"k": actual},
        expect=ends(
            "succeeded",
            {"go": "succeeded"},
            [
                "proposal_received",
                "action_succeeded go",
                "state_changed done",
                "proposal_completed succeeded",
            ],
            {"k": actual, "done": 1},
            cost(0, 1),
        ),
    )


def fails(operator: str, value: Any, actual: Any, said: str) -> dict[str, Any]:
    """A case in which a precondition does not hold."""
    return case(
        f"precondition {operator}: does not hold for {actual!r} and {value!r}",
        [write("go", "done", 1, preconditions=needs("k", operator, value))],
        state={"k": actual},
        expect=ends(
            "failed",
            {"go": ["rejected", f"precondition failed: {said}"]},
            ["proposal_received", "action_rejected go", "proposal_completed failed"],
            {"k": actual},
            cost(0, 0, rejected=1),
        ),
    )


CASES = [
    case(
        "what is written is read, with the texts of the seed",
        [write("w", "cart", {"items": 2}), read("r", "cart"), check("a", "cart", {"items": 2})],
        expect=ends(
            "succeeded",
            {"w": "succeeded", "r": "succeeded", "a": "succeeded"},
            [
                "proposal_received",
                "action_succeeded w",
                "state_changed cart",
                "action_succeeded r",
                "action_succeeded a",
                "proposal_completed succeeded",
            ],
            {"cart": {"items": 2}},
            cost(0, 3),
            outputs={
                "w": "written: cart",
                "r": {"items": 2},
                "a": {"asserted": "cart", "value": {"items": 2}},
            },
            changes={"w": {"cart": {"items": 2}}, "r": {}, "a": {}},
        ),
    ),
    case(
        "a key that is not there reads as null",
        [read("r", "nothing"), check("a", "nothing", None)],
        expect=ends(
            "succeeded",
            {"r": "succeeded", "a": "succeeded"},
            [
                "proposal_received",
                "action_succeeded r",
                "action_succeeded a",
                "proposal_completed succeeded",
            ],
            {},
            cost(0, 2),
            outputs={"r": None, "a": {"asserted": "nothing", "value": None}},
        ),
    ),
    case(
        "a write without a value writes null",
        [{"id": "w", "type": "state_write", "parameters": {"key": "k"}}],
        expect=ends(
            "succeeded",
            {"w": "succeeded"},
            [
                "proposal_received",
                "action_succeeded w",
                "state_changed k",
                "proposal_completed succeeded",
            ],
            {"k": None},
            cost(0, 1),
        ),
    ),
    case(
        "a failed assertion tells both values as JSON, and rolls back",
        [write("w", "k", 1), check("a", "k", 2)],
        tags=["assertions_as_json"],
        expect=ends(
            "rolled_back",
            {
                "w": "rolled_back",
                "a": ["failed", "assertion failed: state['k'] = 1, expected 2"],
            },
            [
                "proposal_received",
                "action_succeeded w",
                "state_changed k",
                "action_failed a",
                "action_rolled_back w",
                "state_rollback",
                "state_changed k (deleted)",
                "proposal_completed rolled_back",
            ],
            {},
            cost(0, 2),
        ),
    ),
    case(
        "an assertion tells texts with their quotes",
        [check("a", "stage", "prod", failure_behavior="skip")],
        state={"stage": "test"},
        tags=["assertions_as_json"],
        expect=ends(
            "succeeded",
            {"a": ["skipped", 'assertion failed: state[\'stage\'] = "test", expected "prod"']},
            [
                "proposal_received",
                "action_failed a",
                "action_skipped a",
                "proposal_completed succeeded",
            ],
            {"stage": "test"},
            cost(0, 0, skipped=1),
        ),
    ),
    case(
        "a state action writes what an earlier output gave",
        [
            call("count", "count"),
            {
                "id": "w",
                "type": "state_write",
                "parameters": {"key": "rows", "value": "$count.output.rows"},
            },
        ],
        tools={"count": tool({"return": {"rows": 41}}, read_only=True)},
        tags=["output_references"],
        expect=ends(
            "succeeded",
            {"count": "succeeded", "w": "succeeded"},
            [
                "proposal_received",
                "action_validated count",
                "action_succeeded count",
                "action_succeeded w",
                "state_changed rows",
                "proposal_completed succeeded",
            ],
            {"rows": 41},
            cost(1, 2),
        ),
    ),
    case(
        "a state action has effects besides its own write",
        [write("w", "k", 1, expected_effects={"also": 2})],
        expect=ends(
            "succeeded",
            {"w": "succeeded"},
            [
                "proposal_received",
                "action_succeeded w",
                "state_changed k",
                "state_changed also",
                "proposal_completed succeeded",
            ],
            {"k": 1, "also": 2},
            cost(0, 1),
            changes={"w": {"k": 1, "also": 2}},
        ),
    ),
    holds("eq", 1, 1),
    fails("eq", 2, 1, "k eq 2, but it is 1"),
    fails("eq", 1, [1], "k eq 1, but it is [1]"),
    holds("neq", 2, 1),
    fails("neq", 1, 1, "k neq 1, but it is 1"),
    holds("gt", 4, 5),
    fails("gt", 5, 5, "k gt 5, but it is 5"),
    fails("gt", 4, "5", 'k gt 4, but it is "5"'),
    holds("lt", 6, 5),
    fails("lt", 5, 5, "k lt 5, but it is 5"),
    holds("gte", 5, 5),
    fails("gte", 6, 5, "k gte 6, but it is 5"),
    holds("lte", 5, 5),
    fails("lte", 4, 5, "k lte 4, but it is 5"),
    holds("exists", None, None),
    fails("not_exists", None, None, "k not_exists, but it is null"),
    holds("contains", "b", ["a", "b"]),
    holds("contains", "lum", "column"),
    holds("contains", "name", {"name": 1}),
    fails("contains", "c", ["a", "b"], 'k contains "c", but it is ["a","b"]'),
    case(
        "preconditions: a missing key fails all that compare, and all failures are told",
        [
            write(
                "go",
                "done",
                1,
                preconditions=[
                    *needs("k", "neq", 1),
                    *needs("k", "lt", 1),
                    *needs("k", "exists"),
                    *needs("k", "contains", "x", description="ask Ada"),
                    *needs("k", "not_exists"),
                ],
            )
        ],
        tags=["skipped_events"],
        expect=ends(
            "failed",
            {
                "go": [
                    "rejected",
                    "precondition failed: k neq 1, but it does not exist; "
                    "precondition failed: k lt 1, but it does not exist; "
                    "precondition failed: k exists, but it does not exist; "
                    'precondition failed: k contains "x", but it does not exist (ask Ada)',
                ]
            },
            ["proposal_received", "action_rejected go", "proposal_completed failed"],
            {},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "preconditions and state dependencies are told together with what is wrong with the tool",
        [
            call(
                "go",
                "nowhere",
                preconditions=needs("tests", "eq", "green"),
                state_dependencies=["image", "config"],
            )
        ],
        state={"tests": "red", "config": 1},
        expect=ends(
            "failed",
            {
                "go": [
                    "rejected",
                    "unknown tool 'nowhere'; "
                    'precondition failed: tests eq "green", but it is "red"; '
                    "state dependency 'image' does not exist",
                ]
            },
            ["proposal_received", "action_rejected go", "proposal_completed failed"],
            {"tests": "red", "config": 1},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "a precondition sees what an earlier action of the plan has written",
        [
            call("test", "test", expected_effects={"tests_passed": 1}),
            call("deploy", "deploy", preconditions=needs("tests_passed", "eq", 1)),
        ],
        tools={"test": tool({"return": "ok"}), "deploy": tool({"return": "up"})},
        expect=ends(
            "succeeded",
            {"test": "succeeded", "deploy": "succeeded"},
            [
                "proposal_received",
                "action_executing test",
                "action_succeeded test",
                "state_changed tests_passed",
                "action_executing deploy",
                "action_succeeded deploy",
                "proposal_completed succeeded",
            ],
            {"tests_passed": 1},
            cost(2, 2),
        ),
    ),
    case(
        "a deployment whose tests failed is rejected, and not called",
        [
            call("test", "test", expected_effects={"tests_passed": 1}, failure_behavior="skip"),
            call("deploy", "deploy", preconditions=needs("tests_passed", "eq", 1)),
        ],
        tools={"test": tool({"raise": "red"}), "deploy": tool({"return": "up"})},
        expect=ends(
            "failed",
            {
                "test": ["skipped", "ValueError: red"],
                "deploy": [
                    "rejected",
                    "precondition failed: tests_passed eq 1, but it does not exist",
                ],
            },
            [
                "proposal_received",
                "action_executing test",
                "action_failed test",
                "action_skipped test",
                "action_rejected deploy",
                "proposal_completed failed",
            ],
            {},
            cost(0, 0, rejected=1, skipped=1),
            calls=[["test", {}]],
        ),
    ),
    case(
        "a state dependency that holds null exists",
        [write("go", "done", 1, state_dependencies=["k"])],
        state={"k": None},
        expect=ends(
            "succeeded",
            {"go": "succeeded"},
            [
                "proposal_received",
                "action_succeeded go",
                "state_changed done",
                "proposal_completed succeeded",
            ],
            {"k": None, "done": 1},
            cost(0, 1),
        ),
    ),
    case(
        "tools: what is written through the context is there with the success",
        [call("count", "count"), read("look", "total", dependencies=["count"])],
        state={"total": 40},
        tools={
            "count": tool(
                [
                    {"read": "total"},
                    {"add_to_read": {"key": "total", "amount": 2}},
                    {"set": {"by": "count"}},
                    {"delete": "old"},
                    {"return_read": True},
                ],
                read_only=True,
            )
        },
        tags=["tool_context"],
        expect=ends(
            "succeeded",
            {"count": "succeeded", "look": "succeeded"},
            [
                "proposal_received",
                "action_validated count",
                "action_succeeded count",
                "state_changed total",
                "state_changed by",
                "state_changed old (deleted)",
                "action_succeeded look",
                "proposal_completed succeeded",
            ],
            {"total": 42, "by": "count"},
            cost(1, 2),
            outputs={"count": 40, "look": 42},
        ),
    ),
    case(
        "tools: what a failed attempt has written is not there",
        [call("count", "count", failure_behavior="retry")],
        tools={
            "count": tool(
                [{"set": {"half": 1}}, {"raise": "no"}], [{"set": {"whole": 1}}, {"return": 1}]
            )
        },
        tags=["tool_context"],
        expect=ends(
            "succeeded",
            {"count": "succeeded"},
            [
                "proposal_received",
                "action_executing count",
                "action_failed count",
                "action_retrying count",
                "action_executing count",
                "action_succeeded count",
                "state_changed whole",
                "proposal_completed succeeded",
            ],
            {"whole": 1},
            cost(1, 1, retries=1),
        ),
    ),
    case(
        "tools: an expected effect goes before what the tool wrote of the same key",
        [call("set", "set", expected_effects={"k": "promised"})],
        tools={"set": tool([{"set": {"k": "written", "l": 1}}, {"return": 1}])},
        tags=["tool_context"],
        expect=ends(
            "succeeded",
            {"set": "succeeded"},
            [
                "proposal_received",
                "action_executing set",
                "action_succeeded set",
                "state_changed k",
                "state_changed l",
                "proposal_completed succeeded",
            ],
            {"k": "promised", "l": 1},
            cost(1, 1),
        ),
    ),
    case(
        "tools: a function in a thread reads and writes, too",
        [call("count", "count")],
        state={"total": 1},
        tools={
            "count": tool(
                [
                    {"read": "total"},
                    {"add_to_read": {"key": "total", "amount": 1}},
                    {"return": "ok"},
                ],
                by="thread",
            )
        },
        tags=["tool_context"],
        expect=ends(
            "succeeded",
            {"count": "succeeded"},
            [
                "proposal_received",
                "action_executing count",
                "action_succeeded count",
                "state_changed total",
                "proposal_completed succeeded",
            ],
            {"total": 2},
            cost(1, 1),
        ),
    ),
    case(
        "conflict: what a tool has read was changed meanwhile; its changes are not applied",
        [call("count", "count", failure_behavior="retry")],
        state={"total": 1},
        tools={
            "count": tool(
                [
                    {"read": "total"},
                    {"others_write": {"total": 10}},
                    {"add_to_read": {"key": "total", "amount": 1}},
                    {"return": "done"},
                ]
            )
        },
        tags=["state_conflict"],
        expect=ends(
            "failed",
            {"count": ["failed", f"state key 'total' {STALE}"]},
            [
                "proposal_received",
                "action_executing count",
                "action_failed count",
                "proposal_completed failed",
            ],
            {"total": 10},
            cost(0, 1),
            outputs={"count": "done"},
            calls=[["count", {}]],
        ),
    ),
    case(
        "conflict: a call that may be repeated is, on what is there then",
        [call("count", "count", failure_behavior="retry")],
        state={"total": 1},
        tools={
            "count": tool(
                [
                    {"read": "total"},
                    {"others_write": {"total": 10}},
                    {"add_to_read": {"key": "total", "amount": 1}},
                    {"return": "first"},
                ],
                [
                    {"read": "total"},
                    {"add_to_read": {"key": "total", "amount": 1}},
                    {"return": "second"},
                ],
                idempotent=True,
            )
        },
        tags=["state_conflict"],
        expect=ends(
            "succeeded",
            {"count": "succeeded"},
            [
                "proposal_received",
                "action_validated count",
                "action_failed count",
                "action_retrying count",
                "action_validated count",
                "action_succeeded count",
                "state_changed total",
                "proposal_completed succeeded",
            ],
            {"total": 11},
            cost(1, 1, retries=1),
            outputs={"count": "second"},
        ),
    ),
    case(
        "conflict: a precondition that others have made untrue during the call counts, too",
        [
            call(
                "ship",
                "ship",
                preconditions=needs("stock", "gt", 0),
                expected_effects={"shipped": 1},
                failure_behavior="skip",
            )
        ],
        state={"stock": 1},
        tools={"ship": tool([{"others_write": {"stock": 0}}, {"return": "gone"}])},
        tags=["state_conflict"],
        expect=ends(
            "succeeded",
            {"ship": ["skipped", f"state key 'stock' {STALE}"]},
            [
                "proposal_received",
                "action_executing ship",
                "action_failed ship",
                "action_skipped ship",
                "proposal_completed succeeded",
            ],
            {"stock": 0},
            cost(0, 0, skipped=1),
        ),
    ),
    case(
        "conflict: a key that is only written, and not read, is written over",
        [call("ship", "ship", expected_effects={"shipped": 1})],
        tools={"ship": tool([{"others_write": {"shipped": 0}}, {"return": "gone"}])},
        expect=ends(
            "succeeded",
            {"ship": "succeeded"},
            [
                "proposal_received",
                "action_executing ship",
                "action_succeeded ship",
                "state_changed shipped",
                "proposal_completed succeeded",
            ],
            {"shipped": 1},
            cost(1, 1),
        ),
    ),
    case(
        "scopes: a run sees and writes only the state of its own",
        [read("r", "k"), write("w", "k", "b", dependencies=["r"])],
        options={"scope": "tenant-b"},
        steps=[
            {"do": "write", "state": {"k": "of main"}},
            execute(
                expect=ends(
                    "succeeded",
                    {"r": "succeeded", "w": "succeeded"},
                    [
                        "proposal_received",
                        "action_succeeded r",
                        "action_succeeded w",
                        "state_changed k",
                        "proposal_completed succeeded",
                    ],
                    {"k": "b"},
                    cost(0, 2),
                    outputs={"r": None},
                )
            ),
        ],
    ),
    case(
        "an assumption that still holds lets the action go on",
        [
            write("w", "done", 1, assumptions=[{"key": "rate", "expected_value": 1.1}]),
        ],
        state={"rate": 1.1},
        tags=["assumptions"],
        expect=ends(
            "succeeded",
            {"w": "succeeded"},
            [
                "proposal_received",
                "action_succeeded w",
                "state_changed done",
                "proposal_completed succeeded",
            ],
            {"rate": 1.1, "done": 1},
            cost(0, 1),
        ),
    ),
    case(
        "an assumption about a value that is another one rejects the action, before its call",
        [call("buy", "buy", assumptions=[{"key": "rate", "expected_value": 1.1}])],
        state={"rate": 1.2},
        tools={"buy": tool()},
        tags=["assumptions"],
        expect=ends(
            "failed",
            {
                "buy": [
                    "rejected",
                    "assumption on 'rate' is stale: it was to be 1.1 and is 1.2",
                ]
            },
            ["proposal_received", "action_rejected buy", "proposal_completed failed"],
            {"rate": 1.2},
            cost(0, 0, rejected=1),
            calls=[],
        ),
    ),
    case(
        "an assumption about a key that is gone, and one about a key that has been written since",
        [
            call(
                "buy",
                "buy",
                assumptions=[
                    {"key": "offer", "expected_value": 1},
                    {"key": "rate", "read_version": 0},
                ],
            )
        ],
        state={"rate": 1.2},
        tools={"buy": tool()},
        tags=["assumptions"],
        expect=ends(
            "failed",
            {
                "buy": [
                    "rejected",
                    "assumption on 'offer' is stale: it was to be 1 and does not exist; "
                    "assumption on 'rate' is stale: it was read at position # and was changed at #",
                ]
            },
            ["proposal_received", "action_rejected buy", "proposal_completed failed"],
            {"rate": 1.2},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "what the run itself has written does not make its assumptions stale",
        [
            write("w", "rate", 1.3),
            write(
                "v",
                "done",
                1,
                assumptions=[{"key": "rate", "expected_value": 1.1}],
                dependencies=["w"],
            ),
        ],
        state={"rate": 1.1},
        tags=["assumptions"],
        expect=ends(
            "succeeded",
            {"w": "succeeded", "v": "succeeded"},
            [
                "proposal_received",
                "action_succeeded w",
                "state_changed rate",
                "action_succeeded v",
                "state_changed done",
                "proposal_completed succeeded",
            ],
            {"rate": 1.3, "done": 1},
            cost(0, 2),
        ),
    ),
]
