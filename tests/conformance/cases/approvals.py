"""Approvals: a person is asked, answers, or does not."""

from typing import Any

from tests.conformance.write import call, case, cost, ends, execute, tool, write

MAIL = {
    "draft": tool({"return": "Dear all"}, read_only=True),
    "send": tool({"return": "sent"}),
    "pay": tool({"return": "paid"}),
}

ASK = {"policies": [{"require_approval": {"tool": "send", "reason": "goes outside"}}]}
SEND = [
    call("draft", "draft"),
    call("send", "send", params={"text": "$draft.output"}, expected_effects={"mailed": 1}),
    write("log", "drafted", 1, dependencies=["draft"]),
]

ASKED = [
    "proposal_received",
    "action_validated draft",
    "action_succeeded draft",
    "approval_requested send",
    "action_succeeded log",
    "state_changed drafted",
    "run_paused waiting",
]


def asked(**more: Any) -> dict[str, Any]:
    """The run asks, goes on with what does not wait for the answer, and is put down."""
    return execute(
        expect=ends(
            "waiting",
            {"draft": "succeeded", "log": "succeeded"},
            ASKED,
            {"drafted": 1},
            cost(1, 2),
            waits_for="approval",
            **more,
        )
    )


def answer(do: str, by: str, /, **more: Any) -> dict[str, Any]:
    """Somebody answers about `send`."""
    expect = {"expect": more.pop("expect")} if "expect" in more else {}
    return {"do": do, "answer": {"action_id": "send", "by": by, **more}, **expect}


def resume(expect: dict[str, Any]) -> dict[str, Any]:
    """The run is resumed."""
    return {"do": "resume", "expect": expect}


CASES = [
    case(
        "an e-mail waits for consent, and is sent when that is given",
        SEND,
        tools=MAIL,
        options=ASK,
        tags=["approvals"],
        steps=[
            asked(
                details=[
                    [
                        "approval_requested",
                        {
                            "action_id": "send",
                            "tool": "send",
                            "reasons": [
                                {"policy": "require_approval:send", "reason": "goes outside"}
                            ],
                            "approvers": 1,
                            "expires_at": None,
                        },
                    ]
                ],
                calls=[["draft", {}]],
            ),
            answer("approve", "ada", reason="read it", expect={"missing": 0}),
            resume(
                ends(
                    "succeeded",
                    {"draft": "succeeded", "send": "succeeded", "log": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated draft",
                        "action_succeeded draft",
                        "approval_requested send",
                        "action_succeeded log",
                        "state_changed drafted",
                        "run_paused waiting",
                        "run_resumed",
                        "action_executing send",
                        "action_succeeded send",
                        "state_changed mailed",
                        "proposal_completed succeeded",
                    ],
                    {"drafted": 1, "mailed": 1},
                    cost(2, 3),
                    calls=[["send", {"text": "Dear all"}]],
                    details=[
                        [
                            "approval_answered",
                            {"approved": True, "by": "ada", "reason": "read it"},
                        ]
                    ],
                )
            ),
        ],
    ),
    case(
        "refused, the action is rejected, and says who refused and why",
        SEND,
        tools=MAIL,
        options=ASK,
        tags=["approvals"],
        steps=[
            asked(),
            answer("reject", "bob", reason="wrong list"),
            resume(
                ends(
                    "failed",
                    {
                        "draft": "succeeded",
                        "send": ["rejected", "refused by bob: wrong list"],
                        "log": "succeeded",
                    },
                    [
                        "proposal_received",
                        "action_validated draft",
                        "action_succeeded draft",
                        "approval_requested send",
                        "action_succeeded log",
                        "state_changed drafted",
                        "run_paused waiting",
                        "run_resumed",
                        "action_rejected send",
                        "proposal_completed failed",
                    ],
                    {"drafted": 1},
                    cost(1, 2, rejected=1),
                    calls=[],
                )
            ),
        ],
    ),
    case(
        "resumed without an answer, it waits on",
        SEND,
        tools=MAIL,
        options=ASK,
        tags=["approvals"],
        steps=[
            asked(),
            resume(
                ends(
                    "waiting",
                    {"draft": "succeeded", "log": "succeeded"},
                    ASKED,
                    {"drafted": 1},
                    cost(1, 2),
                    waits_for="approval",
                    calls=[],
                )
            ),
        ],
    ),
    case(
        "the answer stands in the file: it holds after a restart",
        SEND,
        tools=MAIL,
        options=ASK,
        tags=["approvals", "rules_bind_a_resume"],
        steps=[
            asked(),
            answer("approve", "ada", expect={"missing": 0}),
            {"do": "restart"},
            resume(
                ends(
                    "succeeded",
                    {"draft": "succeeded", "send": "succeeded", "log": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated draft",
                        "action_succeeded draft",
                        "approval_requested send",
                        "action_succeeded log",
                        "state_changed drafted",
                        "run_paused waiting",
                        "run_resumed",
                        "action_executing send",
                        "action_succeeded send",
                        "state_changed mailed",
                        "proposal_completed succeeded",
                    ],
                    {"drafted": 1, "mailed": 1},
                    cost(2, 3),
                )
            ),
        ],
    ),
    case(
        "nobody answered in time: that counts as a refusal",
        SEND,
        tools=MAIL,
        options={"policies": [{"require_approval": {"tool": "send", "expires_secs": 60}}]},
        tags=["approvals"],
        steps=[
            asked(),
            {"do": "pass", "seconds": 60},
            answer(
                "approve",
                "ada",
                expect={
                    "error": [
                        "no_approval",
                        "action 'send' of run r does not wait for this answer: the request has "
                        "expired, which counts as a refusal. `carstore approvals` lists what does.",
                    ]
                },
            ),
            resume(
                ends(
                    "failed",
                    {
                        "draft": "succeeded",
                        "send": ["rejected", "nobody approved it in time"],
                        "log": "succeeded",
                    },
                    [
                        "proposal_received",
                        "action_validated draft",
                        "action_succeeded draft",
                        "approval_requested send",
                        "action_succeeded log",
                        "state_changed drafted",
                        "run_paused waiting",
                        "run_resumed",
                        "action_rejected send",
                        "proposal_completed failed",
                    ],
                    {"drafted": 1},
                    cost(1, 2, rejected=1),
                )
            ),
        ],
    ),
    case(
        "four eyes: the consent of one person is not enough, nor twice that of the same",
        [call("send", "pay", params={"amount": 5000})],
        tools=MAIL,
        options={"policies": [{"code": "large_amounts"}]},
        tags=["approvals"],
        steps=[
            execute(
                expect=ends(
                    "waiting",
                    {},
                    ["proposal_received", "approval_requested send", "run_paused waiting"],
                    {},
                    cost(),
                    waits_for="approval",
                    details=[["approval_requested", {"approvers": 2}]],
                )
            ),
            answer("approve", "ada", expect={"missing": 1}),
            answer(
                "approve",
                "ada",
                expect={
                    "error": [
                        "no_approval",
                        "action 'send' of run r does not wait for this answer: ada has consented "
                        "already, and somebody else has to. `carstore approvals` lists what does.",
                    ]
                },
            ),
            resume(
                ends(
                    "waiting",
                    {},
                    ["proposal_received", "approval_requested send", "run_paused waiting"],
                    {},
                    cost(),
                    waits_for="approval",
                    calls=[],
                )
            ),
            answer("approve", "bob", expect={"missing": 0}),
            resume(
                ends(
                    "succeeded",
                    {"send": "succeeded"},
                    [
                        "proposal_received",
                        "approval_requested send",
                        "run_paused waiting",
                        "run_resumed",
                        "action_executing send",
                        "action_succeeded send",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                    calls=[["pay", {"amount": 5000}]],
                )
            ),
        ],
    ),
    case(
        "an action of which no rule wants that is called without asking",
        [call("send", "pay", params={"amount": 1000})],
        tools=MAIL,
        options={"policies": [{"code": "large_amounts"}]},
        tags=["approvals"],
        expect=ends(
            "succeeded",
            {"send": "succeeded"},
            [
                "proposal_received",
                "action_executing send",
                "action_succeeded send",
                "proposal_completed succeeded",
            ],
            {},
            cost(1, 1),
        ),
    ),
    case(
        "nobody is asked about an action that is forbidden, or cannot be called anyway",
        [
            call("forbidden", "send"),
            call("impossible", "send", state_dependencies=["missing"]),
        ],
        tools=MAIL,
        options={
            "policies": [
                {"require_approval": {"tool": "send"}},
                {"code": "not_while_frozen"},
            ]
        },
        state={"frozen": 1},
        tags=["approvals"],
        expect=ends(
            "failed",
            {
                "forbidden": [
                    "rejected",
                    "policy 'not_while_frozen': nothing is changed while it is frozen",
                ],
                "impossible": [
                    "rejected",
                    "policy 'not_while_frozen': nothing is changed while it is frozen",
                ],
            },
            [
                "proposal_received",
                "policy_violation forbidden",
                "action_rejected forbidden",
                "policy_violation impossible",
                "action_rejected impossible",
                "proposal_completed failed",
            ],
            {"frozen": 1},
            cost(0, 0, rejected=2),
        ),
    ),
    case(
        "with consent, everything is checked again: the state may be another one by then",
        [call("send", "send", preconditions=[{"key": "list", "value": "approved"}])],
        tools=MAIL,
        options=ASK,
        state={"list": "approved"},
        tags=["approvals"],
        steps=[
            execute(
                expect=ends(
                    "waiting",
                    {},
                    ["proposal_received", "approval_requested send", "run_paused waiting"],
                    {"list": "approved"},
                    cost(),
                    waits_for="approval",
                )
            ),
            answer("approve", "ada", expect={"missing": 0}),
            {"do": "write", "state": {"list": "changed"}},
            resume(
                ends(
                    "failed",
                    {
                        "send": [
                            "rejected",
                            'precondition failed: list eq "approved", but it is "changed"',
                        ]
                    },
                    [
                        "proposal_received",
                        "approval_requested send",
                        "run_paused waiting",
                        "run_resumed",
                        "action_rejected send",
                        "proposal_completed failed",
                    ],
                    {"list": "changed"},
                    cost(0, 0, rejected=1),
                    calls=[],
                )
            ),
        ],
    ),
    case(
        "nobody can consent to what is not asked",
        [call("send", "send")],
        tools=MAIL,
        tags=["approvals"],
        steps=[
            execute(
                expect=ends(
                    "succeeded",
                    {"send": "succeeded"},
                    [
                        "proposal_received",
                        "action_executing send",
                        "action_succeeded send",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(1, 1),
                )
            ),
            answer(
                "approve",
                "ada",
                expect={
                    "error": [
                        "no_approval",
                        "action 'send' of run r does not wait for this answer: the run is over. "
                        "`carstore approvals` lists what does.",
                    ]
                },
            ),
        ],
    ),
    case(
        "a deployment with approval that fails afterwards is undone like any other",
        [
            call("build", "draft"),
            call("deploy", "send", reversibility="reversible", expected_effects={"live": 2}),
            call("smoke", "smoke", dependencies=["deploy"]),
        ],
        tools={**MAIL, "smoke": tool({"raise": "500"})},
        options=ASK,
        state={"live": 1},
        tags=["approvals", "inverse_changes"],
        steps=[
            execute(
                expect=ends(
                    "waiting",
                    {"build": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated build",
                        "action_succeeded build",
                        "approval_requested deploy",
                        "run_paused waiting",
                    ],
                    {"live": 1},
                    cost(1, 1),
                    waits_for="approval",
                )
            ),
            {
                "do": "approve",
                "answer": {"action_id": "deploy", "by": "ada"},
                "expect": {"missing": 0},
            },
            resume(
                ends(
                    "rolled_back",
                    {
                        "build": "rolled_back",
                        "deploy": "rolled_back",
                        "smoke": ["failed", "ValueError: 500"],
                    },
                    [
                        "proposal_received",
                        "action_validated build",
                        "action_succeeded build",
                        "approval_requested deploy",
                        "run_paused waiting",
                        "run_resumed",
                        "action_executing deploy",
                        "action_succeeded deploy",
                        "state_changed live",
                        "action_executing smoke",
                        "action_failed smoke",
                        "action_rolled_back deploy",
                        "action_rolled_back build",
                        "state_rollback",
                        "state_changed live",
                        "proposal_completed rolled_back",
                    ],
                    {"live": 1},
                    cost(2, 3),
                )
            ),
        ],
    ),
]
