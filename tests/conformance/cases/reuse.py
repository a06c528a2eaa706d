"""Reuse: remembered results, across runs and restarts; what is forgotten; caches."""

from typing import Any

from tests.conformance.write import call, case, cost, ends, execute, tool, write

RESIZE = {"resize": tool({"return": "small-1"}, {"return": "small-2"})}
ASK = [call("a", "resize", params={"image": "i", "width": 100}, idempotent=True)]
SAME = [call("b", "resize", params={"width": 100, "image": "i"}, idempotent=True)]
OTHER = [call("c", "resize", params={"image": "i", "width": 101}, idempotent=True)]


def first(**more: Any) -> dict[str, Any]:
    """The run whose result is remembered."""
    return execute(
        ASK,
        run="r1",
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
            outputs={"a": "small-1"},
            **more,
        ),
    )


def hit(name: str, output: Any, /, **more: Any) -> dict[str, Any]:
    """A run of one action that calls nothing, because its result is remembered."""
    return ends(
        "succeeded",
        {name: "succeeded"},
        ["proposal_received", f"action_deduplicated {name}", "proposal_completed succeeded"],
        more.pop("state", {}),
        cost(1, 1),
        outputs={name: output},
        calls=[],
        **more,
    )


CASES = [
    case(
        "the same call in a later run is not made, whatever the order of its parameters",
        tools=RESIZE,
        tags=["log_is_memory"],
        steps=[
            first(),
            execute(
                SAME,
                run="r2",
                expect=hit(
                    "b",
                    "small-1",
                    details=[
                        [
                            "action_deduplicated",
                            {
                                "original_run_id": "r1",
                                "original_action_id": "a",
                                "cause": "reuse",
                            },
                        ]
                    ],
                    attempts={"b": 0},
                ),
            ),
        ],
    ),
    case(
        "it is remembered by the file: also after a restart",
        tools=RESIZE,
        tags=["log_is_memory"],
        steps=[first(), {"do": "restart"}, execute(SAME, run="r2", expect=hit("b", "small-1"))],
    ),
    case(
        "other parameters are another call",
        tools=RESIZE,
        steps=[
            first(),
            execute(
                OTHER,
                run="r2",
                expect=ends(
                    "succeeded",
                    {"c": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing c",
                        "action_succeeded c",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                    outputs={"c": "small-2"},
                ),
            ),
        ],
    ),
    case(
        "an action that does not ask for reuse is called",
        tools=RESIZE,
        steps=[
            first(),
            execute(
                [call("d", "resize", params={"image": "i", "width": 100})],
                run="r2",
                expect=ends(
                    "succeeded",
                    {"d": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing d",
                        "action_succeeded d",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                    outputs={"d": "small-2"},
                ),
            ),
        ],
    ),
    case(
        "the result of an action that did not ask for reuse is not remembered",
        tools=RESIZE,
        steps=[
            execute(
                [call("d", "resize", params={"image": "i", "width": 100})],
                run="r1",
                expect=ends(
                    "succeeded",
                    {"d": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing d",
                        "action_succeeded d",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                ),
            ),
            execute(
                ASK,
                run="r2",
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
                    outputs={"a": "small-2"},
                ),
            ),
        ],
    ),
    case(
        "twice in one plan: the second is served by the first",
        [
            *ASK,
            call("b", "resize", params={"image": "i", "width": 100}, idempotent=True),
            call("c", "resize", params={"image": "j", "width": 100}, idempotent=True),
        ],
        tools=RESIZE,
        expect=ends(
            "succeeded",
            {"a": "succeeded", "b": "succeeded", "c": "succeeded"},
            [
                "proposal_received",
                "action_executing a",
                "action_succeeded a",
                "action_deduplicated b",
                "action_executing c",
                "action_succeeded c",
                "proposal_completed succeeded",
            ],
            {},
            cost(3, 3),
            outputs={"a": "small-1", "b": "small-1", "c": "small-2"},
        ),
    ),
    case(
        "at the same time in one plan: the second waits for the first, and is served by it",
        [
            call("a", "resize", params={"image": "i"}, idempotent=True, failure_behavior="skip"),
            call("b", "resize", params={"image": "i"}, idempotent=True, failure_behavior="skip"),
        ],
        tools={"resize": tool([{"sleep_ms": 20}, {"return": "small-1"}])},
        expect=ends(
            "succeeded",
            {"a": "succeeded", "b": "succeeded"},
            [
                "proposal_received",
                "action_executing a",
                "action_succeeded a",
                "action_deduplicated b",
                "proposal_completed succeeded",
            ],
            {},
            cost(2, 2),
            calls=[["resize", {"image": "i"}]],
        ),
    ),
    case(
        "a failure is not remembered",
        tools={"resize": tool({"raise": "no memory"}, {"return": "small"})},
        steps=[
            execute(
                [call("a", "resize", idempotent=True, failure_behavior="skip")],
                run="r1",
                expect=ends(
                    "succeeded",
                    {"a": ["skipped", "ValueError: no memory"]},
                    [
                        "proposal_received",
                        "action_executing a",
                        "action_failed a",
                        "action_skipped a",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(0, 0, skipped=1),
                ),
            ),
            execute(
                [call("a", "resize", idempotent=True)],
                run="r2",
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
                    outputs={"a": "small"},
                ),
            ),
        ],
    ),
    case(
        "a result is forgotten when its run is rolled back",
        tools={**RESIZE, "fail": tool({"raise": "no"})},
        steps=[
            execute(
                [
                    call(
                        "a",
                        "resize",
                        params={"image": "i", "width": 100},
                        idempotent=True,
                        reversibility="reversible",
                    ),
                    call("bad", "fail"),
                ],
                run="r1",
                expect=ends(
                    "rolled_back",
                    {"a": "rolled_back", "bad": ["failed", "ValueError: no"]},
                    [
                        "proposal_received",
                        "action_executing a",
                        "action_succeeded a",
                        "action_executing bad",
                        "action_failed bad",
                        "action_rolled_back a",
                        "state_rollback",
                        "proposal_completed rolled_back",
                    ],
                    {},
                    cost(1, 2),
                ),
            ),
            execute(
                SAME,
                run="r2",
                expect=ends(
                    "succeeded",
                    {"b": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing b",
                        "action_succeeded b",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                    outputs={"b": "small-2"},
                ),
            ),
        ],
    ),
    case(
        "a run that only reused a result does not undo it when it is rolled back",
        tools={**RESIZE, "fail": tool({"raise": "no"})},
        steps=[
            first(),
            execute(
                [*SAME, call("bad", "fail")],
                run="r2",
                expect=ends(
                    "rolled_back",
                    {"b": "succeeded", "bad": ["failed", "ValueError: no"]},
                    [
                        "proposal_received",
                        "action_deduplicated b",
                        "action_executing bad",
                        "action_failed bad",
                        "state_rollback",
                        "proposal_completed rolled_back",
                    ],
                    {},
                    cost(1, 2),
                    calls=[["fail", {}]],
                ),
            ),
            execute(SAME, run="r3", expect=hit("b", "small-1")),
        ],
    ),
    case(
        "a hit applies no effects again, and is refused where they do not hold any more",
        tools={"create": tool({"return": 1}, {"return": 2})},
        tags=["reuse_checks_effects"],
        steps=[
            execute(
                [call("a", "create", idempotent=True, expected_effects={"exists": 1})],
                run="r1",
                expect=ends(
                    "succeeded",
                    {"a": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing a",
                        "action_succeeded a",
                        "state_changed exists",
                        "proposal_completed succeeded",
                    ],
                    {"exists": 1},
                    cost(1, 1),
                ),
            ),
            execute(
                [call("a", "create", idempotent=True, expected_effects={"exists": 1})],
                run="r2",
                expect=hit("a", 1, state={"exists": 1}, changes={"a": {}}),
            ),
            {"do": "write", "state": {"exists": 0}},
            execute(
                [call("a", "create", idempotent=True, expected_effects={"exists": 1})],
                run="r3",
                expect=ends(
                    "succeeded",
                    {"a": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing a",
                        "action_succeeded a",
                        "state_changed exists",
                        "proposal_completed succeeded",
                    ],
                    {"exists": 1},
                    cost(1, 1),
                    outputs={"a": 2},
                ),
            ),
        ],
    ),
    case(
        "a state action is never reused: it is done again",
        tags=["only_calls_are_reused"],
        steps=[
            execute(
                [write("w", "k", 1, idempotent=True)],
                run="r1",
                expect=ends(
                    "succeeded",
                    {"w": "succeeded"},
                    [
                        "proposal_received",
                        "action_succeeded w",
                        "state_changed k",
                        "proposal_completed succeeded",
                    ],
                    {"k": 1},
                    cost(0, 1),
                ),
            ),
            {"do": "write", "state": {"k": 5}},
            execute(
                [write("w", "k", 1, idempotent=True)],
                run="r2",
                expect=ends(
                    "succeeded",
                    {"w": "succeeded"},
                    [
                        "proposal_received",
                        "action_succeeded w",
                        "state_changed k",
                        "proposal_completed succeeded",
                    ],
                    {"k": 1},
                    cost(0, 1),
                ),
            ),
        ],
    ),
    case(
        "a precondition is checked before a result is reused",
        tools=RESIZE,
        tags=["rules_before_reuse"],
        steps=[
            first(),
            execute(
                [{**SAME[0], "preconditions": [{"key": "open", "operator": "exists"}]}],
                run="r2",
                expect=ends(
                    "failed",
                    {"b": ["rejected", "precondition failed: open exists, but it does not exist"]},
                    ["proposal_received", "action_rejected b", "proposal_completed failed"],
                    {},
                    cost(0, 0, rejected=1),
                ),
            ),
        ],
    ),
    case(
        "cache: within its time a result is served again, and recorded as that",
        tools={"rate": tool({"return": 1.1}, {"return": 1.2}, cache_ttl_secs=60, read_only=True)},
        tags=["cache_is_recorded"],
        steps=[
            execute(
                [call("a", "rate", params={"of": "EUR"})],
                run="r1",
                expect=ends(
                    "succeeded",
                    {"a": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated a",
                        "action_succeeded a",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                ),
            ),
            {"do": "pass", "seconds": 59.999},
            execute(
                [call("b", "rate", params={"of": "EUR"})],
                run="r2",
                expect=hit("b", 1.1, details=[["action_deduplicated", {"cause": "cache"}]]),
            ),
            {"do": "pass", "seconds": 0.001},
            execute(
                [call("c", "rate", params={"of": "EUR"})],
                run="r3",
                expect=ends(
                    "succeeded",
                    {"c": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated c",
                        "action_succeeded c",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                    outputs={"c": 1.2},
                ),
            ),
        ],
    ),
    case(
        "cache: other parameters are not served",
        tools={"rate": tool({"return": 1.1}, {"return": 1.2}, cache_ttl_secs=60, read_only=True)},
        tags=["cache_is_recorded"],
        steps=[
            execute(
                [call("a", "rate", params={"of": "EUR"}), call("b", "rate", params={"of": "USD"})],
                expect=ends(
                    "succeeded",
                    {"a": "succeeded", "b": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated a",
                        "action_succeeded a",
                        "action_validated b",
                        "action_succeeded b",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(2, 2),
                    outputs={"a": 1.1, "b": 1.2},
                ),
            ),
        ],
    ),
]
