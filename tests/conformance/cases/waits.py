"""Waits: for a time, for a signal; stopping a run; proposing again after an abort."""

from typing import Any

from tests.conformance.write import call, case, cost, ends, execute, tool, write

T = {"t": tool({"return": 1}), "use": tool({"return_params": True})}
PAID = [
    call("payment", "wait_signal", params={"name": "paid", "timeout_secs": 60}),
    call("ship", "use", params={"amount": "$payment.output.amount"}),
    write("note", "waiting", 1),
]
UNDOABLE = {
    "book": tool({"return": "b-1"}, compensation="unbook"),
    "unbook": tool({"return": "gone"}),
    **T,
}
CANCELLED = "the run was cancelled"


def waits(reason: str, *told: Any) -> dict[str, Any]:
    """A step that executes the plan of the case, which then waits."""
    return execute(expect=ends("waiting", *told, waits_for=reason))


CASES = [
    case(
        "a signal that is sent while the run waits goes on with its value",
        PAID,
        tools=T,
        tags=["waits"],
        steps=[
            waits(
                "signal",
                {"note": "succeeded"},
                [
                    "proposal_received",
                    "wait_started payment",
                    "action_succeeded note",
                    "state_changed waiting",
                    "run_paused waiting",
                ],
                {"waiting": 1},
                cost(0, 1),
            ),
            {"do": "signal", "name": "paid", "value": {"amount": 7}},
            {
                "do": "resume",
                "expect": ends(
                    "succeeded",
                    {"payment": "succeeded", "ship": "succeeded", "note": "succeeded"},
                    [
                        "proposal_received",
                        "wait_started payment",
                        "action_succeeded note",
                        "state_changed waiting",
                        "run_paused waiting",
                        "run_resumed",
                        "signal_taken payment",
                        "action_succeeded payment",
                        "action_executing ship",
                        "action_succeeded ship",
                        "proposal_completed succeeded",
                    ],
                    {"waiting": 1},
                    cost(1, 3),
                    outputs={"payment": {"amount": 7}, "ship": {"amount": 7}},
                    details=[
                        ["signal_sent", {"signal": "paid", "value": {"amount": 7}, "by": "ada"}],
                        ["signal_taken", {"action_id": "payment", "signal": "paid", "number": 1}],
                    ],
                ),
            },
        ],
    ),
    case(
        "signals are taken oldest first, each once, also those sent before anybody waits",
        [
            call("hold", "wait_signal", params={"name": "go"}),
            call("one", "wait_signal", params={"name": "item"}, dependencies=["hold"]),
            call("two", "wait_signal", params={"name": "item"}, dependencies=["one"]),
            call("three", "wait_signal", params={"name": "item"}, dependencies=["two"]),
        ],
        tags=["waits"],
        steps=[
            waits(
                "signal",
                {},
                ["proposal_received", "wait_started hold", "run_paused waiting"],
                {},
                cost(),
            ),
            {"do": "signal", "name": "item", "value": "a"},
            {"do": "signal", "name": "item", "value": "b"},
            {"do": "signal", "name": "go"},
            {"do": "restart"},
            {
                "do": "resume",
                "expect": ends(
                    "waiting",
                    {"hold": "succeeded", "one": "succeeded", "two": "succeeded"},
                    [
                        "proposal_received",
                        "wait_started hold",
                        "run_paused waiting",
                        "run_resumed",
                        "signal_taken hold",
                        "action_succeeded hold",
                        "wait_started one",
                        "signal_taken one",
                        "action_succeeded one",
                        "wait_started two",
                        "signal_taken two",
                        "action_succeeded two",
                        "wait_started three",
                        "run_paused waiting",
                    ],
                    {},
                    cost(0, 3),
                    waits_for="signal",
                    outputs={"hold": None, "one": "a", "two": "b"},
                ),
            },
        ],
    ),
    case(
        "a signal of another name does not count, and no signal in time fails the wait",
        PAID,
        tools=T,
        tags=["waits"],
        steps=[
            waits(
                "signal",
                {"note": "succeeded"},
                [
                    "proposal_received",
                    "wait_started payment",
                    "action_succeeded note",
                    "state_changed waiting",
                    "run_paused waiting",
                ],
                {"waiting": 1},
                cost(0, 1),
            ),
            {"do": "signal", "name": "payed", "value": 1},
            {"do": "pass", "seconds": 59.999999},
            {
                "do": "resume",
                "expect": ends(
                    "waiting",
                    {"note": "succeeded"},
                    [
                        "proposal_received",
                        "wait_started payment",
                        "action_succeeded note",
                        "state_changed waiting",
                        "run_paused waiting",
                    ],
                    {"waiting": 1},
                    cost(0, 1),
                    waits_for="signal",
                ),
            },
            {"do": "pass", "seconds": 0.000001},
            {
                "do": "resume",
                "expect": ends(
                    "rolled_back",
                    {
                        "payment": ["failed", "no signal 'paid' came in time"],
                        "ship": ["skipped", "skipped due to abort"],
                        "note": "rolled_back",
                    },
                    [
                        "proposal_received",
                        "wait_started payment",
                        "action_succeeded note",
                        "state_changed waiting",
                        "run_paused waiting",
                        "run_resumed",
                        "action_failed payment",
                        "action_skipped ship",
                        "action_rolled_back note",
                        "state_rollback",
                        "state_changed waiting (deleted)",
                        "proposal_completed rolled_back",
                    ],
                    {},
                    cost(0, 2, skipped=1),
                ),
            },
        ],
    ),
    case(
        "a sleep ends when its time has come, and not before; a restart does not begin it anew",
        [
            call("cool_down", "sleep", params={"seconds": 90.5}),
            call("after", "t", dependencies=["cool_down"]),
        ],
        tools=T,
        tags=["waits"],
        steps=[
            waits(
                "time",
                {},
                ["proposal_received", "wait_started cool_down", "run_paused waiting"],
                {},
                cost(),
            ),
            {"do": "pass", "seconds": 90},
            {"do": "restart"},
            {
                "do": "resume",
                "expect": ends(
                    "waiting",
                    {},
                    ["proposal_received", "wait_started cool_down", "run_paused waiting"],
                    {},
                    cost(),
                    waits_for="time",
                    calls=[],
                ),
            },
            {"do": "pass", "seconds": 0.5},
            {
                "do": "resume",
                "expect": ends(
                    "succeeded",
                    {"cool_down": "succeeded", "after": "succeeded"},
                    [
                        "proposal_received",
                        "wait_started cool_down",
                        "run_paused waiting",
                        "run_resumed",
                        "action_succeeded cool_down",
                        "action_executing after",
                        "action_succeeded after",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 2),
                    outputs={"cool_down": {"until": "2023-11-14T22:14:50.500000Z"}},
                ),
            },
        ],
    ),
    case(
        "a sleep until an instant that has passed ends at once",
        [call("past", "sleep", params={"until": "2020-01-31T12:00:00+01:00"})],
        tags=["waits"],
        expect=ends(
            "succeeded",
            {"past": "succeeded"},
            [
                "proposal_received",
                "wait_started past",
                "action_succeeded past",
                "proposal_completed succeeded",
            ],
            {},
            cost(0, 1),
        ),
    ),
    case(
        "an instant without its offset fails the wait",
        [call("when", "sleep", params={"until": "2030-01-31T12:00:00"}, failure_behavior="skip")],
        tags=["waits"],
        expect=ends(
            "succeeded",
            {
                "when": [
                    "skipped",
                    "until: '2030-01-31T12:00:00' is no instant; "
                    "write it as 2030-01-31T12:00:00Z, with its offset",
                ]
            },
            [
                "proposal_received",
                "action_failed when",
                "action_skipped when",
                "proposal_completed succeeded",
            ],
            {},
            cost(0, 0, skipped=1),
        ),
    ),
    case(
        "a wait that says neither how long nor until when is rejected",
        [call("when", "sleep")],
        tags=["waits", "schemas_are_enforced"],
        expect=ends(
            "failed",
            {
                "when": [
                    "rejected",
                    "parameters: an empty object is not valid under any of the schemas listed in "
                    "the 'oneOf' keyword",
                ]
            },
            ["proposal_received", "action_rejected when", "proposal_completed failed"],
            {},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "a run that has ended takes no signal",
        [call("a", "t")],
        tools=T,
        tags=["waits"],
        steps=[
            execute(
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
                )
            ),
            {
                "do": "signal",
                "name": "late",
                "expect": {
                    "error": [
                        "run_over",
                        "run r is over: it has succeeded. `carstore show DB r` tells how it went.",
                    ]
                },
            },
        ],
    ),
    case(
        "cancelled while it waits: the rest is skipped, and what was done stays",
        [
            call("book", "book"),
            write("w", "k", 1),
            call("ask", "wait_signal", params={"name": "go"}),
            call("after", "t", dependencies=["ask"]),
        ],
        tools=UNDOABLE,
        tags=["cancel"],
        steps=[
            waits(
                "signal",
                {"book": "succeeded", "w": "succeeded"},
                [
                    "proposal_received",
                    "action_executing book",
                    "action_succeeded book",
                    "action_succeeded w",
                    "state_changed k",
                    "wait_started ask",
                    "run_paused waiting",
                ],
                {"k": 1},
                cost(1, 2),
            ),
            {"do": "cancel", "given": {"reason": "wrong customer"}, "expect": {"asked": True}},
            {"do": "cancel", "expect": {"asked": False}},
            {
                "do": "resume",
                "expect": ends(
                    "cancelled",
                    {
                        "book": "succeeded",
                        "w": "succeeded",
                        "ask": ["skipped", CANCELLED],
                        "after": ["skipped", CANCELLED],
                    },
                    [
                        "proposal_received",
                        "action_executing book",
                        "action_succeeded book",
                        "action_succeeded w",
                        "state_changed k",
                        "wait_started ask",
                        "run_paused waiting",
                        "run_resumed",
                        "run_stopping cancelled",
                        "action_skipped ask",
                        "action_skipped after",
                        "proposal_completed cancelled",
                    ],
                    {"k": 1},
                    cost(1, 2, skipped=2),
                    stopped="cancelled: wrong customer",
                    calls=[],
                ),
            },
        ],
    ),
    case(
        "cancelled to be undone: compensations are called and the state returns",
        [
            call("book", "book"),
            write("w", "k", 1),
            call("ask", "wait_signal", params={"name": "go"}),
        ],
        tools=UNDOABLE,
        tags=["cancel", "compensation"],
        steps=[
            waits(
                "signal",
                {"book": "succeeded", "w": "succeeded"},
                [
                    "proposal_received",
                    "action_executing book",
                    "action_succeeded book",
                    "action_succeeded w",
                    "state_changed k",
                    "wait_started ask",
                    "run_paused waiting",
                ],
                {"k": 1},
                cost(1, 2),
            ),
            {"do": "cancel", "given": {"compensate": True}, "expect": {"asked": True}},
            {
                "do": "resume",
                "expect": ends(
                    "rolled_back",
                    {"book": "rolled_back", "w": "rolled_back", "ask": ["skipped", CANCELLED]},
                    [
                        "proposal_received",
                        "action_executing book",
                        "action_succeeded book",
                        "action_succeeded w",
                        "state_changed k",
                        "wait_started ask",
                        "run_paused waiting",
                        "run_resumed",
                        "run_stopping cancelled",
                        "action_skipped ask",
                        "compensation_executing book",
                        "compensation_succeeded book",
                        "action_rolled_back w",
                        "action_rolled_back book",
                        "state_rollback",
                        "state_changed k (deleted)",
                        "proposal_completed rolled_back",
                    ],
                    {},
                    cost(1, 2, skipped=1),
                    stopped="cancelled",
                    calls=[["unbook", {"parameters": {}, "output": "b-1"}]],
                ),
            },
        ],
    ),
    case(
        "cancelled during a call that may not be repeated: what it did is named as unknown",
        [call("long", "long"), call("after", "t", dependencies=["long"])],
        tools={**T, "long": tool([{"cancel": {}}, {"sleep": True}])},
        tags=["cancel", "timeout_is_doubt"],
        expect=ends(
            "cancelled",
            {
                "long": ["failed", "in doubt: the run was cancelled during the call"],
                "after": ["skipped", "the run was cancelled"],
            },
            [
                "proposal_received",
                "action_executing long",
                "run_stopping cancelled",
                "action_skipped after",
                "action_in_doubt long",
                "doubt_resolved long",
                "action_failed long",
                "proposal_completed cancelled",
            ],
            {},
            {"actions_executed": 1, "actions_skipped": 1},
            stopped="cancelled",
            not_undone={"long": "attempt 1 may have been carried out"},
        ),
    ),
    case(
        "cancelled during a call that may be repeated: it failed, and nothing is left unknown",
        [call("long", "long"), call("after", "t", dependencies=["long"])],
        tools={**T, "long": tool([{"cancel": {}}, {"sleep": True}], read_only=True)},
        tags=["cancel"],
        expect=ends(
            "cancelled",
            {
                "long": ["failed", "the run was cancelled during the call"],
                "after": ["skipped", "the run was cancelled"],
            },
            [
                "proposal_received",
                "action_validated long",
                "run_stopping cancelled",
                "action_skipped after",
                "action_failed long",
                "proposal_completed cancelled",
            ],
            {},
            {"actions_executed": 1, "actions_skipped": 1},
            stopped="cancelled",
        ),
    ),
    case(
        "a run that has ended cannot be cancelled",
        [call("a", "t")],
        tools=T,
        tags=["cancel"],
        steps=[
            execute(
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
                )
            ),
            {
                "do": "cancel",
                "expect": {
                    "error": [
                        "run_over",
                        "run r is over: it has succeeded. `carstore show DB r` tells how it went.",
                    ]
                },
            },
        ],
    ),
    case(
        "replan: after an abort another plan is asked for, and runs in the place of the first",
        [write("w", "k", 1), call("bad", "bad")],
        tools={**T, "bad": tool({"raise": "no"})},
        options={"replan": [{"after": ["bad"], "plan": {"actions": [call("other", "t")]}}]},
        tags=["replans"],
        expect=ends(
            "succeeded",
            {"other": "succeeded"},
            [
                "proposal_received",
                "action_executing other",
                "action_succeeded other",
                "proposal_completed succeeded",
            ],
            {},
            cost(1, 1),
            run_id="r-r1",
            replaces="r",
        ),
    ),
    case(
        "replan: whoever is asked may propose nothing; then the first result stands",
        [call("bad", "bad")],
        tools={"bad": tool({"raise": "no"})},
        options={"replan": [{"after": ["bad"], "plan": None}]},
        tags=["replans"],
        expect=ends(
            "rolled_back",
            {"bad": ["failed", "ValueError: no"]},
            [
                "proposal_received",
                "action_executing bad",
                "action_failed bad",
                "state_rollback",
                "proposal_completed rolled_back",
            ],
            {},
            cost(0, 1),
            details=[["replan_declined", {"run": "r"}]],
        ),
    ),
    case(
        "replan: it is asked again for a plan that fails as well, so many times",
        [call("bad", "bad")],
        tools={"bad": tool({"raise": "no"})},
        options={
            "max_replans": 2,
            "replan": [
                {"after": ["bad"], "plan": {"actions": [call("bad2", "bad")]}},
                {"after": ["bad2"], "plan": {"actions": [call("bad3", "bad")]}},
            ],
        },
        tags=["replans"],
        expect=ends(
            "rolled_back",
            {"bad3": ["failed", "ValueError: no"]},
            [
                "proposal_received",
                "action_executing bad3",
                "action_failed bad3",
                "state_rollback",
                "proposal_completed rolled_back",
            ],
            {},
            cost(0, 1),
            run_id="r-r2",
            replaces="r-r1",
        ),
    ),
    case(
        "replan: a rejected action is no reason, unless that was asked for",
        tools=T,
        tags=["replans"],
        steps=[
            execute(
                [call("odd", "nowhere")],
                options={"replan": []},
                expect=ends(
                    "failed",
                    {"odd": ["rejected", "unknown tool 'nowhere'"]},
                    ["proposal_received", "action_rejected odd", "proposal_completed failed"],
                    {},
                    cost(0, 0, rejected=1),
                ),
            ),
            execute(
                [call("odd", "nowhere")],
                run="s",
                options={
                    "replan_on_rejection": True,
                    "replan": [{"after": ["odd"], "plan": {"actions": [call("even", "t")]}}],
                },
                expect=ends(
                    "succeeded",
                    {"even": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing even",
                        "action_succeeded even",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                    run_id="s-r1",
                    replaces="s",
                ),
            ),
        ],
    ),
    case(
        "two runs that ask for the same result at once: one call is made, and both have it",
        tools={"slow": tool([{"sleep_ms": 30}, {"return": "s"}])},
        tags=["log_is_memory"],
        steps=[
            {
                "do": "together",
                "runs": [
                    execute([call("a", "slow", idempotent=True)], run="r1"),
                    execute([call("b", "slow", idempotent=True)], run="r2"),
                ],
                "expect": {
                    "status": {"r1": "succeeded", "r2": "succeeded"},
                    "actions": {"r1": {"a": "succeeded"}, "r2": {"b": "succeeded"}},
                    "events": {
                        "r1": [
                            "proposal_received",
                            "action_executing a",
                            "action_succeeded a",
                            "proposal_completed succeeded",
                        ],
                        "r2": [
                            "proposal_received",
                            "action_deduplicated b",
                            "proposal_completed succeeded",
                        ],
                    },
                    "cost": {"r1": cost(1, 1), "r2": cost(1, 1)},
                    "outputs": {"r1": {"a": "s"}, "r2": {"b": "s"}},
                    "calls": [["slow", {}]],
                },
            }
        ],
    ),
]
