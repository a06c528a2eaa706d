"""Permissions and policies: what may be done at all, and who says so."""

from typing import Any

from tests.conformance.write import call, case, check, cost, ends, execute, read, tool, write

TOOLS = {
    "build": tool({"return": "app:1"}),
    "deploy": tool({"return": "up"}),
    "http": tool({"return": 200}),
    "undo": tool({"return": "undone"}),
}

DENIED = "capability denied: "


def judged(
    name: str, rule: dict[str, Any], action: dict[str, Any], reason: str | None, /, **more: Any
) -> dict[str, Any]:
    """A case of one rule that forbids one action for a reason, or has nothing against it."""
    events = ["proposal_received", "action_executing a", "action_succeeded a"]
    told: Any = "succeeded"
    if reason is not None:
        events = ["proposal_received", "policy_violation a", "action_rejected a"]
        told = ["rejected", reason]
    status = "succeeded" if reason is None else "failed"
    return case(
        name,
        [action],
        tools=TOOLS,
        options={"policies": [rule]},
        state=more.pop("state", {}),
        tags=["policies", *more.pop("tags", [])],
        expect=ends(
            status,
            {"a": told},
            [*events, f"proposal_completed {status}"],
            more.pop("after", {}),
            cost(1, 1) if reason is None else cost(0, 0, rejected=1),
            **more,
        ),
    )


CASES = [
    case(
        "permissions: what is not allowed is rejected, with the text of the seed, and not called",
        [call("build", "build"), call("deploy", "deploy")],
        tools=TOOLS,
        options={"capabilities": {"allowed_tools": ["build"]}},
        tags=["violations_are_told", "rejected_are_counted"],
        expect=ends(
            "failed",
            {
                "build": "succeeded",
                "deploy": ["rejected", DENIED + "tool 'deploy' not allowed"],
            },
            [
                "proposal_received",
                "action_executing build",
                "action_succeeded build",
                "policy_violation deploy",
                "action_rejected deploy",
                "proposal_completed failed",
            ],
            {},
            cost(1, 1, rejected=1),
            calls=[["build", {}]],
            details=[
                [
                    "policy_violation",
                    {"policy": "capabilities", "reason": DENIED + "tool 'deploy' not allowed"},
                ]
            ],
        ),
    ),
    case(
        "permissions: denied wins over allowed",
        [call("deploy", "deploy")],
        tools=TOOLS,
        options={"capabilities": {"allowed_tools": ["deploy"], "denied_tools": ["deploy"]}},
        expect=ends(
            "failed",
            {"deploy": ["rejected", DENIED + "tool 'deploy' not allowed"]},
            [
                "proposal_received",
                "policy_violation deploy",
                "action_rejected deploy",
                "proposal_completed failed",
            ],
            {},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "permissions: an empty list of tools allows none, and no list allows all",
        [call("deploy", "deploy"), write("w", "k", 1)],
        tools=TOOLS,
        options={"capabilities": {"allowed_tools": []}},
        expect=ends(
            "failed",
            {"deploy": ["rejected", DENIED + "tool 'deploy' not allowed"], "w": "succeeded"},
            [
                "proposal_received",
                "policy_violation deploy",
                "action_rejected deploy",
                "action_succeeded w",
                "state_changed k",
                "proposal_completed failed",
            ],
            {"k": 1},
            cost(0, 1, rejected=1),
        ),
    ),
    case(
        "permissions: state keys of writes, reads and assertions, by their beginnings",
        [
            write("mine", "job/1", "x"),
            write("theirs", "config", "x"),
            read("look", "config"),
            check("ok", "config", 1, failure_behavior="skip"),
        ],
        state={"config": 1},
        options={"capabilities": {"allowed_state_keys": ["job/*"]}},
        tags=["permissions_cover_all_keys"],
        expect=ends(
            "failed",
            {
                "mine": "succeeded",
                "theirs": ["rejected", DENIED + "state key 'config' not allowed"],
                "look": ["rejected", DENIED + "state key 'config' not allowed"],
                "ok": ["rejected", DENIED + "state key 'config' not allowed"],
            },
            [
                "proposal_received",
                "action_succeeded mine",
                "state_changed job/1",
                "policy_violation theirs",
                "action_rejected theirs",
                "policy_violation look",
                "action_rejected look",
                "policy_violation ok",
                "action_rejected ok",
                "proposal_completed failed",
            ],
            {"config": 1, "job/1": "x"},
            cost(0, 1, rejected=3),
        ),
    ),
    case(
        "permissions: expected effects, preconditions and dependencies name keys, too",
        [
            call("a", "build", expected_effects={"admin": 1}),
            call("b", "build", preconditions=[{"key": "secret", "operator": "exists"}]),
            call("c", "build", state_dependencies=["secret"]),
        ],
        tools=TOOLS,
        state={"secret": 1},
        options={"capabilities": {"allowed_state_keys": []}},
        tags=["permissions_cover_all_keys"],
        expect=ends(
            "failed",
            {
                "a": ["rejected", DENIED + "state key 'admin' not allowed"],
                "b": ["rejected", DENIED + "state key 'secret' not allowed"],
                "c": ["rejected", DENIED + "state key 'secret' not allowed"],
            },
            [
                "proposal_received",
                "policy_violation a",
                "action_rejected a",
                "policy_violation b",
                "action_rejected b",
                "policy_violation c",
                "action_rejected c",
                "proposal_completed failed",
            ],
            {"secret": 1},
            cost(0, 0, rejected=3),
            calls=[],
        ),
    ),
    case(
        "permissions: a tool that asks its context for another key fails",
        [
            call("reads", "reads", failure_behavior="skip"),
            call("writes", "writes", failure_behavior="skip"),
            call("deletes", "deletes", failure_behavior="skip"),
            call("own", "own", failure_behavior="skip"),
        ],
        tools={
            "reads": tool([{"read": "secret"}, {"return_read": True}]),
            "writes": tool([{"set": {"secret": 0}}, {"return": 1}]),
            "deletes": tool([{"delete": "secret"}, {"return": 1}]),
            "own": tool([{"set": {"mine": 1}}, {"read": "mine"}, {"return_read": True}]),
        },
        state={"secret": 1},
        options={"capabilities": {"allowed_state_keys": ["mine"]}},
        tags=["permissions_cover_all_keys", "tool_context"],
        expect=ends(
            "succeeded",
            {
                **{
                    name: [
                        "skipped",
                        "CapabilityDenied: capability denied: state key 'secret' not allowed "
                        f"(tool '{name}')",
                    ]
                    for name in ("reads", "writes", "deletes")
                },
                "own": "succeeded",
            },
            [
                "proposal_received",
                "action_executing reads",
                "action_executing writes",
                "action_executing deletes",
                "action_executing own",
                "action_failed reads",
                "action_skipped reads",
                "action_failed writes",
                "action_skipped writes",
                "action_failed deletes",
                "action_skipped deletes",
                "action_succeeded own",
                "state_changed mine",
                "proposal_completed succeeded",
            ],
            {"secret": 1, "mine": 1},
            cost(1, 1, skipped=3),
        ),
    ),
    case(
        "permissions: a plan of too many actions is rejected as a whole, action by action",
        [call("a", "build"), call("b", "build"), write("c", "k", 1)],
        tools=TOOLS,
        options={"capabilities": {"max_actions": 2}},
        tags=["too_many_actions"],
        expect=ends(
            "failed",
            {
                name: [
                    "rejected",
                    DENIED + "proposal has 3 actions, max allowed is 2",
                ]
                for name in ("a", "b", "c")
            },
            [
                "proposal_received",
                "policy_violation a",
                "action_rejected a",
                "policy_violation b",
                "action_rejected b",
                "policy_violation c",
                "action_rejected c",
                "proposal_completed failed",
            ],
            {},
            cost(0, 0, rejected=3),
            calls=[],
        ),
    ),
    case(
        "permissions: as many actions as are allowed may run",
        [call("a", "build"), write("c", "k", 1)],
        tools=TOOLS,
        options={"capabilities": {"max_actions": 2}},
        expect=ends(
            "succeeded",
            {"a": "succeeded", "c": "succeeded"},
            [
                "proposal_received",
                "action_executing a",
                "action_succeeded a",
                "action_succeeded c",
                "state_changed k",
                "proposal_completed succeeded",
            ],
            {"k": 1},
            cost(1, 2),
        ),
    ),
    case(
        "permissions: the tool that an action names to undo it counts, too",
        [call("a", "build", compensation={"type": "tool", "tool": "undo"})],
        tools=TOOLS,
        options={"capabilities": {"denied_tools": ["undo"]}},
        tags=["permissions_cover_all_keys"],
        expect=ends(
            "failed",
            {"a": ["rejected", DENIED + "tool 'undo' not allowed"]},
            [
                "proposal_received",
                "policy_violation a",
                "action_rejected a",
                "proposal_completed failed",
            ],
            {},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "permissions: a tool that is not allowed is not judged further, so nothing else is told",
        [call("a", "nowhere", state_dependencies=["missing"])],
        options={"capabilities": {"denied_tools": ["nowhere"]}},
        tags=["rules_before_reuse"],
        expect=ends(
            "failed",
            {"a": ["rejected", DENIED + "tool 'nowhere' not allowed"]},
            [
                "proposal_received",
                "policy_violation a",
                "action_rejected a",
                "proposal_completed failed",
            ],
            {},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "permissions: a remembered result is no way around them",
        tools=TOOLS,
        tags=["rules_before_reuse"],
        steps=[
            execute(
                [call("a", "build", idempotent=True)],
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
                ),
            ),
            execute(
                [call("a", "build", idempotent=True)],
                run="r2",
                options={"capabilities": {"denied_tools": ["build"]}},
                expect=ends(
                    "failed",
                    {"a": ["rejected", DENIED + "tool 'build' not allowed"]},
                    [
                        "proposal_received",
                        "policy_violation a",
                        "action_rejected a",
                        "proposal_completed failed",
                    ],
                    {},
                    cost(0, 0, rejected=1),
                ),
            ),
        ],
    ),
    case(
        "permissions: they bind a run that is resumed without them",
        [call("first", "first"), call("second", "deploy", dependencies=["first"])],
        tools={"first": tool([{"die": True}], {"return": 1}, idempotent=True), **TOOLS},
        tags=["rules_bind_a_resume", "log_is_memory"],
        steps=[
            execute(options={"capabilities": {"denied_tools": ["deploy"]}}, expect={"died": True}),
            {"do": "restart"},
            {
                "do": "resume",
                "expect": ends(
                    "failed",
                    {
                        "first": "succeeded",
                        "second": ["rejected", DENIED + "tool 'deploy' not allowed"],
                    },
                    [
                        "proposal_received",
                        "action_validated first",
                        "run_resumed",
                        "action_validated first",
                        "action_succeeded first",
                        "policy_violation second",
                        "action_rejected second",
                        "proposal_completed failed",
                    ],
                    {},
                    cost(1, 1, rejected=1),
                ),
            },
        ],
    ),
    judged(
        "deny_tool forbids every call of a tool",
        {"deny_tool": "deploy"},
        call("a", "deploy"),
        "policy 'deny_tool:deploy': tool 'deploy' is denied",
        tags=["violations_are_told"],
    ),
    judged(
        "deny_tool says nothing of other tools", {"deny_tool": "deploy"}, call("a", "build"), None
    ),
    judged(
        "deny_tool forbids an action that would call it to be undone",
        {"deny_tool": "undo"},
        call("a", "build", compensation={"type": "tool", "tool": "undo"}),
        "policy 'deny_tool:undo': tool 'undo' is denied",
    ),
    judged(
        "deny_keyword looks into parameters at any depth, and does not repeat what it found",
        {"deny_keyword": "DROP TABLE"},
        call("a", "http", params={"body": {"queries": ["SELECT 1", "DROP TABLE users"]}}),
        "policy 'deny_keyword#e568d9ec': its parameters hold a denied keyword",
    ),
    judged(
        "deny_keyword is about its text only",
        {"deny_keyword": "DROP TABLE"},
        call("a", "http", params={"body": "drop table users"}),
        None,
    ),
    judged(
        "deny_tool_param forbids a parameter that holds something",
        {"deny_tool_param": {"tool": "http", "param": "url", "contains": "169.254.169.254"}},
        call("a", "http", params={"url": "http://169.254.169.254/latest"}),
        "policy 'deny_tool_param:http[url]#cf3ce86d': tool 'http': parameter 'url' holds what is "
        "denied",
    ),
    judged(
        "deny_tool_param without a value forbids that the parameter is there",
        {"deny_tool_param": {"tool": "http", "param": "proxy"}},
        call("a", "http", params={"proxy": None}),
        "policy 'deny_tool_param:http[proxy]': tool 'http': parameter 'proxy' is denied",
    ),
    judged(
        "deny_tool_param says nothing where the parameter is not there",
        {"deny_tool_param": {"tool": "http", "param": "proxy"}},
        call("a", "http", params={"url": "u"}),
        None,
    ),
    judged(
        "allow_tool_param allows what it lists",
        {"allow_tool_param": {"tool": "deploy", "param": "target", "allow": ["staging"]}},
        call("a", "deploy", params={"target": "staging"}),
        None,
    ),
    judged(
        "allow_tool_param forbids what it does not list",
        {"allow_tool_param": {"tool": "deploy", "param": "target", "allow": ["staging"]}},
        call("a", "deploy", params={"target": "production"}),
        "policy 'allow_tool_param:deploy[target]': tool 'deploy': parameter 'target' is not an "
        "allowed one",
    ),
    judged(
        "allow_tool_param forbids a call without the parameter",
        {"allow_tool_param": {"tool": "deploy", "param": "target", "allow": ["staging"]}},
        call("a", "deploy"),
        "policy 'allow_tool_param:deploy[target]': tool 'deploy': parameter 'target' is missing",
    ),
    judged(
        "allow_tool_param with an empty list forbids every call",
        {"allow_tool_param": {"tool": "deploy", "param": "target", "allow": []}},
        call("a", "deploy", params={"target": "staging"}),
        "policy 'allow_tool_param:deploy[target]': tool 'deploy': parameter 'target' is not an "
        "allowed one",
    ),
    judged(
        "require_state holds where the key has the value",
        {"require_state": {"tool": "deploy", "key": "tests", "value": "green"}},
        call("a", "deploy"),
        None,
        state={"tests": "green"},
        after={"tests": "green"},
    ),
    judged(
        "require_state forbids where the key has another value, which is not told",
        {"require_state": {"tool": "deploy", "key": "tests", "value": "green"}},
        call("a", "deploy"),
        "policy 'require_state:deploy[tests]': state key 'tests' has not the required value",
        state={"tests": "red"},
        after={"tests": "red"},
    ),
    judged(
        "require_state without a tool is about every action",
        {"require_state": {"key": "open", "value": 1}},
        write("a", "k", 1),
        "policy 'require_state:*[open]': state key 'open' does not exist",
    ),
    judged(
        "a policy that raises forbids, and does not tell what it raised",
        {"code": "broken"},
        call("a", "build"),
        "policy 'broken': policy 'broken' failed: KeyError",
    ),
    judged(
        "a policy that answers what nobody understands forbids",
        {"code": "undecided"},
        call("a", "build"),
        "policy 'undecided': policy 'undecided' answers with a int",
    ),
    judged(
        "a policy that looks at a key that it did not declare forbids",
        {"code": "peeks"},
        call("a", "build"),
        "policy 'peeks': policy 'peeks' failed: KeyError",
    ),
    judged(
        "a policy that is code looks at the state",
        {"code": "not_while_frozen"},
        call("a", "deploy"),
        "policy 'not_while_frozen': nothing is changed while it is frozen",
        state={"frozen": 1},
        after={"frozen": 1},
    ),
    case(
        "policies: all of them are asked, and all reasons told",
        [call("a", "deploy", params={"target": "production"})],
        tools=TOOLS,
        options={
            "capabilities": {"denied_tools": ["deploy"]},
            "policies": [
                {"code": "talks"},
                {"deny_tool": "deploy"},
                {"allow_tool_param": {"tool": "deploy", "param": "target", "allow": ["staging"]}},
            ],
        },
        tags=["policies", "violations_are_told"],
        expect=ends(
            "failed",
            {
                "a": [
                    "rejected",
                    "policy 'talks': one reason; policy 'talks': another reason; "
                    "policy 'deny_tool:deploy': tool 'deploy' is denied; "
                    "policy 'allow_tool_param:deploy[target]': tool 'deploy': parameter 'target' "
                    "is not an allowed one; capability denied: tool 'deploy' not allowed",
                ]
            },
            [
                "proposal_received",
                "policy_violation a",
                "policy_violation a",
                "policy_violation a",
                "policy_violation a",
                "policy_violation a",
                "action_rejected a",
                "proposal_completed failed",
            ],
            {},
            cost(0, 0, rejected=1),
        ),
    ),
    case(
        "policies: rate_limit_tool counts the calls of a time that slides",
        tools=TOOLS,
        options={
            "policies": [{"rate_limit_tool": {"tool": "http", "max_calls": 2, "interval_secs": 60}}]
        },
        tags=["policies"],
        steps=[
            execute(
                [call("a", "http"), call("b", "http"), call("c", "http")],
                run="r1",
                expect=ends(
                    "failed",
                    {
                        "a": "succeeded",
                        "b": "succeeded",
                        "c": [
                            "rejected",
                            "policy 'rate_limit_tool:http[60s]': "
                            "tool 'http' may be called 2 times in 60s",
                        ],
                    },
                    [
                        "proposal_received",
                        "action_executing a",
                        "action_succeeded a",
                        "action_executing b",
                        "action_succeeded b",
                        "policy_violation c",
                        "action_rejected c",
                        "proposal_completed failed",
                    ],
                    {},
                    cost(2, 2, rejected=1),
                ),
            ),
            {"do": "pass", "seconds": 61},
            execute(
                [call("a", "http")],
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
                ),
            ),
        ],
    ),
    case(
        "policies: they judge parameters with the outputs in them",
        [
            call("pick", "pick"),
            call("deploy", "deploy", params={"target": "$pick.output.target"}),
        ],
        tools={**TOOLS, "pick": tool({"return": {"target": "production"}})},
        options={
            "policies": [
                {"allow_tool_param": {"tool": "deploy", "param": "target", "allow": ["staging"]}}
            ]
        },
        tags=["policies", "output_references"],
        expect=ends(
            "failed",
            {
                "pick": "succeeded",
                "deploy": [
                    "rejected",
                    "policy 'allow_tool_param:deploy[target]': tool 'deploy': parameter 'target' "
                    "is not an allowed one",
                ],
            },
            [
                "proposal_received",
                "action_executing pick",
                "action_succeeded pick",
                "policy_violation deploy",
                "action_rejected deploy",
                "proposal_completed failed",
            ],
            {},
            cost(1, 1, rejected=1),
        ),
    ),
    case(
        "policies: one that is code has to be given again to resume",
        [call("first", "first"), call("second", "deploy", dependencies=["first"])],
        tools={"first": tool([{"die": True}], {"return": 1}, idempotent=True), **TOOLS},
        tags=["rules_bind_a_resume"],
        steps=[
            execute(options={"policies": [{"code": "not_while_frozen"}]}, expect={"died": True}),
            {"do": "restart"},
            {
                "do": "resume",
                "expect": {
                    "error": [
                        "policies_changed",
                        "run r cannot go on with these policies (not given: not_while_frozen). "
                        "Give it the policies it was begun with.",
                    ]
                },
            },
            {
                "do": "resume",
                "options": {"policies": [{"code": "not_while_frozen"}]},
                "expect": ends(
                    "succeeded",
                    {"first": "succeeded", "second": "succeeded"},
                    [
                        "proposal_received",
                        "action_validated first",
                        "run_resumed",
                        "action_validated first",
                        "action_succeeded first",
                        "action_executing second",
                        "action_succeeded second",
                        "proposal_completed succeeded",
                    ],
                    {},
                    cost(2, 2),
                ),
            },
        ],
    ),
]
