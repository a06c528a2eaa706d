"""Costs: what is counted, what tools meter, and how long things took."""

from tests.conformance.write import call, case, check, cost, ends, execute, read, tool, write

CASES = [
    case(
        "calls that succeeded, actions that ran, were rejected and skipped are counted apart",
        [
            call("ok", "ok", failure_behavior="skip"),
            call("bad", "bad", failure_behavior="retry", max_retries=2),
            call("unknown", "nowhere", failure_behavior="skip"),
            call("left", "ok", dependencies=["bad"], failure_behavior="skip"),
            write("w", "k", 1, failure_behavior="skip"),
        ],
        tools={"ok": tool({"return": 1}), "bad": tool({"raise": "no"})},
        tags=["rejected_are_counted", "dependency_skips", "terminal_event"],
        expect=ends(
            "failed",
            {
                "ok": "succeeded",
                "bad": ["failed", "ValueError: no"],
                "unknown": ["rejected", "unknown tool 'nowhere'"],
                "left": ["skipped", "dependency 'bad' failed"],
                "w": "succeeded",
            },
            [
                "proposal_received",
                "action_executing ok",
                "action_executing bad",
                "action_rejected unknown",
                "action_succeeded w",
                "state_changed k",
                "action_succeeded ok",
                "action_failed bad",
                "action_retrying bad",
                "action_executing bad",
                "action_failed bad",
                "action_retrying bad",
                "action_executing bad",
                "action_failed bad",
                "action_skipped left",
                "proposal_completed failed",
            ],
            {"k": 1},
            cost(1, 3, rejected=1, skipped=1, retries=2),
            details=[
                [
                    "proposal_completed",
                    {
                        "status": "failed",
                        "tool_calls": 1,
                        "actions_executed": 3,
                        "actions_rejected": 1,
                        "actions_skipped": 1,
                        "retries": 2,
                    },
                ]
            ],
        ),
    ),
    case(
        "the time of every attempt counts, also of those that failed; waits do not",
        [call("slow", "slow", failure_behavior="retry"), call("quick", "quick")],
        tools={
            "slow": tool(
                [{"pass_ms": 30}, {"raise": "no"}],
                [{"pass_ms": 20}, {"raise": "no"}],
                [{"pass_ms": 5}, {"return": 1}],
            ),
            "quick": tool([{"pass_ms": 7}, {"return": 1}]),
        },
        options={"backoff": {"base_ms": 1}},
        tags=["failed_time_counts"],
        expect=ends(
            "succeeded",
            {"slow": "succeeded", "quick": "succeeded"},
            [
                "proposal_received",
                "action_executing slow",
                "action_failed slow",
                "action_retrying slow",
                "action_executing slow",
                "action_failed slow",
                "action_retrying slow",
                "action_executing slow",
                "action_succeeded slow",
                "action_executing quick",
                "action_succeeded quick",
                "proposal_completed succeeded",
            ],
            {},
            cost(2, 2, retries=2, ms=62),
            delays_ms=[1, 2],
        ),
    ),
    case(
        "the time of an action that failed for good counts",
        [call("slow", "slow")],
        tools={"slow": tool([{"pass_ms": 40}, {"raise": "no"}])},
        tags=["failed_time_counts"],
        expect=ends(
            "rolled_back",
            {"slow": ["failed", "ValueError: no"]},
            [
                "proposal_received",
                "action_executing slow",
                "action_failed slow",
                "state_rollback",
                "proposal_completed rolled_back",
            ],
            {},
            cost(0, 1, ms=40),
        ),
    ),
    case(
        "state actions and assertions are no calls, and take no time",
        [write("w", "k", 1), read("r", "k"), check("a", "k", 1)],
        expect=ends(
            "succeeded",
            {"w": "succeeded", "r": "succeeded", "a": "succeeded"},
            [
                "proposal_received",
                "action_succeeded w",
                "state_changed k",
                "action_succeeded r",
                "action_succeeded a",
                "proposal_completed succeeded",
            ],
            {"k": 1},
            cost(0, 3),
        ),
    ),
    case(
        "what a tool meters is recorded with its action, under the name of who proposed",
        tools={
            "summarise": tool(
                [
                    {
                        "meter": {
                            "tokens_in": 1200,
                            "tokens_out": 80,
                            "cost": "0.0123",
                            "model": "m-1",
                        }
                    },
                    {"meter": {"tokens_in": 10, "cost_micros": 5, "agent": "checker"}},
                    {"return": "short"},
                ],
                read_only=True,
            )
        },
        tags=["metered"],
        steps=[
            {
                "do": "execute",
                "plan": {
                    "id": "p",
                    "source": "researcher",
                    "actions": [call("sum", "summarise")],
                },
                "expect": ends(
                    "succeeded",
                    {"sum": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated sum",
                        "inference_metered sum",
                        "inference_metered sum",
                        "action_succeeded sum",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                    details=[
                        [
                            "inference_metered",
                            {
                                "agent": "researcher",
                                "action_id": "sum",
                                "attempt": 1,
                                "n": 0,
                                "model": "m-1",
                                "tokens_in": 1200,
                                "tokens_out": 80,
                                "cost_micros": 12300,
                            },
                        ],
                        ["inference_metered", {"agent": "checker", "n": 1, "cost_micros": 5}],
                        ["action_succeeded", {"action_id": "sum"}],
                    ],
                ),
            }
        ],
    ),
    case(
        "what a failed attempt has metered was spent, too",
        [call("sum", "summarise", failure_behavior="retry")],
        tools={
            "summarise": tool(
                [{"meter": {"cost": "0.5"}}, {"raise": "cut off"}],
                [{"meter": {"cost": "0.25"}}, {"return": "short"}],
            )
        },
        tags=["metered"],
        expect=ends(
            "succeeded",
            {"sum": "succeeded"},
            [
                "proposal_received",
                "action_executing sum",
                "inference_metered sum",
                "action_failed sum",
                "action_retrying sum",
                "action_executing sum",
                "inference_metered sum",
                "action_succeeded sum",
                "proposal_completed succeeded",
            ],
            {},
            cost(1, 1, retries=1),
            details=[
                ["inference_metered", {"attempt": 1, "n": 0, "cost_micros": 500_000}],
                ["action_failed", {"attempt": 1}],
                ["inference_metered", {"attempt": 2, "n": 0, "cost_micros": 250_000}],
            ],
        ),
    ),
    case(
        "costs are rounded to millionths, half away from zero",
        [call("sum", "summarise")],
        tools={
            "summarise": tool(
                [
                    {"meter": {"cost": "0.0000005"}},
                    {"meter": {"cost": "0.00000049"}},
                    {"return": 1},
                ]
            )
        },
        tags=["metered"],
        expect=ends(
            "succeeded",
            {"sum": "succeeded"},
            [
                "proposal_received",
                "action_executing sum",
                "inference_metered sum",
                "inference_metered sum",
                "action_succeeded sum",
                "proposal_completed succeeded",
            ],
            {},
            cost(1, 1),
            details=[
                ["inference_metered", {"n": 0, "cost_micros": 1}],
                ["inference_metered", {"n": 1, "cost_micros": 0}],
            ],
        ),
    ),
    case(
        "a cost that is not exact, or negative, fails the call that reports it",
        [
            call("float", "float", failure_behavior="skip"),
            call("negative", "negative", failure_behavior="skip"),
        ],
        tools={
            "float": tool([{"meter": {"cost": 0.1}}, {"return": 1}]),
            "negative": tool([{"meter": {"cost": "-0.1"}}, {"return": 1}]),
        },
        tags=["metered"],
        expect=ends(
            "succeeded",
            {
                "float": [
                    "skipped",
                    "ContextMisused: ctx.meter(cost): 0.1 is not exact. Pass it as a string or "
                    'Decimal: cost="0.0123"',
                ],
                "negative": [
                    "skipped",
                    "ContextMisused: ctx.meter(cost): '-0.1' is not an amount of money from 0 "
                    "to 1,000,000,000",
                ],
            },
            [
                "proposal_received",
                "action_executing float",
                "action_executing negative",
                "action_failed float",
                "action_skipped float",
                "action_failed negative",
                "action_skipped negative",
                "proposal_completed succeeded",
            ],
            {},
            cost(0, 0, skipped=2),
        ),
    ),
    case(
        "what a tool logs stands in the log of the run",
        [call("crawl", "crawl")],
        tools={
            "crawl": tool([{"log": {"message": "page 1", "data": {"bytes": 9}}}, {"return": 1}])
        },
        tags=["metered"],
        expect=ends(
            "succeeded",
            {"crawl": "succeeded"},
            [
                "proposal_received",
                "action_executing crawl",
                "action_logged crawl",
                "action_succeeded crawl",
                "proposal_completed succeeded",
            ],
            {},
            cost(1, 1),
            details=[["action_logged", {"message": "page 1", "data": {"bytes": 9}}]],
        ),
    ),
    case(
        "a remembered result takes no time, and counts as a call that succeeded",
        tools={"slow": tool([{"pass_ms": 50}, {"return": 1}])},
        steps=[
            execute(
                [call("a", "slow", idempotent=True)],
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
                    cost(1, 1, ms=50),
                ),
            ),
            execute(
                [call("a", "slow", idempotent=True)],
                run="r2",
                expect=ends(
                    "succeeded",
                    {"a": "succeeded"},
                    ["proposal_received", "action_deduplicated a", "proposal_completed succeeded"],
                    {},
                    cost(1, 1),
                ),
            ),
        ],
    ),
]
