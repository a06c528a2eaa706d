"""Turns: what a run decides while outcomes that have just come are not recorded yet."""

from tests.conformance.write import call, case, cost, ends, tool


def exhausted(why: str) -> str:
    """What is said of a run whose own budget does not cover a call."""
    return f"budget: budget 'run/r' is exhausted: {why}"


CASES = [
    case(
        "money: what a failed attempt has spent is spent",
        [call("a", "ask", failure_behavior="retry", max_retries=5)],
        tools={
            "ask": tool([{"meter": {"cost": "0.50"}}, {"raise": "no"}], max_cost={"USD": "0.5"})
        },
        options={"budget": {"costs": {"USD": "1"}}},
        tags=["currency_budgets"],
        expect=ends(
            "failed",
            {"a": ["skipped", "cost budget exceeded"]},
            [
                "proposal_received",
                "action_executing a",
                "inference_metered a",
                "action_failed a",
                "action_retrying a",
                "action_executing a",
                "inference_metered a",
                "action_failed a",
                "action_retrying a",
                "run_stopping budget",
                "action_skipped a",
                "proposal_completed failed",
            ],
            {},
            {"actions_skipped": 1, "retries": 2},
            stopped=exhausted("0 USD remaining, 0.5 USD asked"),
            calls=[["ask", {}], ["ask", {}]],
        ),
    ),
    case(
        "abort: eager, a call that is to be tried again ends as skipped if another aborts then",
        [
            call("x", "bad", failure_behavior="retry"),
            call("y", "worse"),
            call("z", "worse", dependencies=["x"]),
        ],
        tools={"bad": tool({"raise": "x"}), "worse": tool({"raise": "y"})},
        options={"schedule": "eager"},
        tags=["eager", "skipped_events"],
        expect=ends(
            "rolled_back",
            {
                "x": ["skipped", "skipped due to abort"],
                "y": ["failed", "ValueError: y"],
                "z": ["skipped", "skipped due to abort"],
            },
            [
                "proposal_received",
                "action_executing x",
                "action_executing y",
                "action_failed x",
                "action_retrying x",
                "action_failed y",
                "action_skipped x",
                "action_skipped z",
                "state_rollback",
                "proposal_completed rolled_back",
            ],
            {},
            cost(0, 1, skipped=2, retries=1),
        ),
    ),
]
