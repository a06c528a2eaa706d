"""Policy files: what each rule says of an action, and that a file with a slip is not loaded."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import canonical
from carstore.errors import NotFound
from engine.ir import Action, ActionRef, ActionType, ToolCompensation
from engine.policies import Ask, InvalidPolicy, Policy, Violation, judge_all
from engine.policy_file import MAX_SEARCHES, load_permissions, load_policies, policies_of
from engine.rules import texts
from engine.rules.capabilities import CapabilitySet
from engine.rules.file_rules import values_at
from engine.rules.texts import texts_in
from tests.engine.test_policies import judged

PATTERN = '[[deny_tool_param_matching]]\ntool = "http"\nparam = "body"\nmatches = {}\n'

ALL = """
deny_tool    = ["deploy", "drop"]
deny_keyword = ["DROP TABLE"]
[[deny_tool_param]]
tool = "http"
param = "url"
contains = "169.254.169.254"
[[allow_tool_param]]
tool = "deploy"
param = "target"
allow = ["staging"]
[[require_state]]
tool = "deploy"
key = "tests_passed"
value = true
[[require_state]]
key = "open"
value = { since = 1 }
[[rate_limit_tool]]
tool = "http"
max_calls = 10
interval_secs = 60
[[require_approval]]
tool = "send_email"
reason = "goes outside"
expires_secs = 86400
approvers = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str, name: str = "rules.toml") -> tuple[Policy, ...]:
    Path(name).write_text(text)
    return load_policies(name)


def rule(kind: str, **body: Any) -> Policy:
    return policies_of({kind: body})


def call(tool: str = "http", /, **parameters: Any) -> Action:
    return Action(id="a", tool=tool, parameters=parameters)


def denied(policy: Policy, action: Action, **given: Any) -> bool:
    """Whether it forbids; and it says so without anything that stands in the parameters."""
    found = policy.judge(judged(action, **given))
    assert all(isinstance(one, Violation) and one.policy == policy.name for one in found)
    assert not any("failed" in one.reason for one in found)
    return bool(found)


# --- files ---


@pytest.mark.usefixtures("folder")
def test_all_rules_of_a_file_are_loaded_under_stable_names() -> None:
    policies = loaded(ALL)
    assert [one.name for one in policies] == [
        "deny_tool:deploy",
        "deny_tool:drop",
        "deny_keyword#e568d9ec",
        "deny_tool_param:http[url]#cf3ce86d",
        "allow_tool_param:deploy[target]",
        "require_state:deploy[tests_passed]",
        "require_state:*[open]",
        "rate_limit_tool:http[60s]",
        "require_approval:send_email",
    ]
    assert [one.reads for one in policies if one.reads] == [("tests_passed",), ("open",)]


@pytest.mark.usefixtures("folder")
def test_a_rule_is_made_again_from_its_data() -> None:
    for policy in loaded(ALL):
        stored = canonical.loads(canonical.dumps(policy.rule))
        again = policies_of(stored)
        assert again == policy
        assert again.digest == canonical.digest(stored)


@pytest.mark.usefixtures("folder")
def test_names_and_digests_do_not_hang_on_the_order_in_the_file() -> None:
    one = loaded(
        'deny_keyword = ["a", "b"]\n[[rate_limit_tool]]\ntool="t"\nmax_calls=1\ninterval_secs=1'
    )
    other = loaded(
        '[[rate_limit_tool]]\ninterval_secs=1.0\nmax_calls=1\ntool="t"\n', "other.toml"
    ) + loaded('deny_keyword = ["b", "a", "b"]')
    assert {(p.name, p.digest) for p in one} == {(p.name, p.digest) for p in other}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("text", ["", "# nothing", "deny_tool = []", "require_state = []"])
def test_a_file_may_hold_no_rule(text: str) -> None:
    assert loaded(text) == ()


BAD = [
    ("deny_tool = [", "", "is not TOML"),
    ("deny_tools = []", "", 'did you mean "deny_tool"?'),
    ("zzz = []", "", "known are deny_tool, deny_keyword"),
    ('deny_tool = "deploy"', "deny_tool", "expected a list of texts"),
    ("deny_tool = [5]", "deny_tool[0]", "not a string"),
    ('deny_tool = ["a", "two words"]', "deny_tool[1]", "two words"),
    ("deny_tool = [2026-01-01]", "deny_tool[0]", "not a string"),
    ('deny_keyword = [""]', "deny_keyword[0]", "is empty"),
    ("deny_keyword = [5]", "deny_keyword[0]", "is not a text"),
    (f'deny_keyword = ["{"x" * 1001}"]', "deny_keyword[0]", "1,001 characters"),
    ('[deny_tool_param]\ntool = "t"', "deny_tool_param", "write [[deny_tool_param]]"),
    ("deny_tool_param = [5]", "deny_tool_param[0]", "expected a table"),
    ('[[deny_tool_param]]\ntool = "t"', "deny_tool_param[0]", "the key 'param' is missing"),
    (
        '[[deny_tool_param]]\ntool = "t"\nparam = "p"\nequal = 1',
        "deny_tool_param[0].equal",
        'did you mean "equals"?',
    ),
    ('[[deny_tool_param]]\ntool = "t"\nparam = "a..b"', "deny_tool_param[0].param", "empty step"),
    (
        '[[deny_tool_param]]\ntool = "t"\nparam = "p"\ncontains = 5',
        "deny_tool_param[0].contains",
        "5 is not a text",
    ),
    (
        '[[deny_tool_param]]\ntool = "t"\nparam = "p"\nequals = inf',
        "deny_tool_param[0].equals",
        "not a finite number",
    ),
    (
        '[[allow_tool_param]]\ntool = "t"\nparam = "p"\nallow = "a"',
        "allow_tool_param[0].allow",
        "is not a list",
    ),
    (
        '[[allow_tool_param]]\ntool = "t"\nparam = "p"\nallow = [1, 07:00:00]',
        "allow_tool_param[0].allow",
        "[1]: a time is not JSON",
    ),
    ('[[require_state]]\nkey = "k"', "require_state[0]", "the key 'value' is missing"),
    ('[[require_state]]\nkey = ""\nvalue = 1', "require_state[0].key", "is empty"),
    (
        '[[require_state]]\nkey = "k"\nvalue = 99999999999999999999',
        "require_state[0].value",
        "outside 64 bits",
    ),
    (
        '[[rate_limit_tool]]\ntool = "t"\nmax_calls = 0\ninterval_secs = 1',
        "rate_limit_tool[0].max_calls",
        "not an integer from 1",
    ),
    (
        '[[rate_limit_tool]]\ntool = "t"\nmax_calls = true\ninterval_secs = 1',
        "rate_limit_tool[0].max_calls",
        "not an integer from 1",
    ),
    (
        '[[rate_limit_tool]]\ntool = "t"\nmax_calls = 1\ninterval_secs = nan',
        "rate_limit_tool[0].interval_secs",
        "not a number of seconds",
    ),
    (
        '[[rate_limit_tool]]\ntool = "t"\nmax_calls = 1\ninterval_secs = 0',
        "rate_limit_tool[0].interval_secs",
        "not above 0",
    ),
    (
        '[[require_approval]]\ntool = "t"\napprovers = 3',
        "require_approval[0].approvers",
        "from 1 to 2",
    ),
    ('[[require_approval]]\nreason = "r"', "require_approval[0]", "the key 'tool' is missing"),
    (
        '[[allow_tool_param]]\ntool="t"\nparam="p"\nallow=[1]\n'
        '[[allow_tool_param]]\ntool="t"\nparam="p"\nallow=[2]',
        "",
        "two different things about 'allow_tool_param:t[p]'",
    ),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("text", "path", "told"), BAD)
def test_a_file_with_a_slip_is_refused_with_its_name_and_the_place(
    text: str, path: str, told: str
) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        loaded(text)
    assert (caught.value.source, caught.value.path) == ("rules.toml", path)
    assert caught.value.message.startswith("rules.toml")
    assert told in caught.value.message


def test_a_file_that_cannot_be_read_is_told(folder: Path) -> None:
    with pytest.raises(NotFound, match=r"no\.toml"):
        load_policies("no.toml")
    with pytest.raises(InvalidPolicy, match="cannot be read"):
        load_policies(folder)
    (folder / "bytes.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(InvalidPolicy, match="not UTF-8 at byte 5"):
        load_policies(folder / "bytes.toml")
    (folder / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(InvalidPolicy, match=r"deep\.toml"):
        load_policies(folder / "deep.toml")
    (folder / "long.toml").write_text("#" * 2**20 + "\n")
    with pytest.raises(InvalidPolicy, match="1,048,576 bytes"):
        load_policies(folder / "long.toml")


@pytest.mark.parametrize("data", [None, [], {}, {"deny_tool": "t", "x": 1}, {"of_the_future": {}}])
def test_data_that_are_no_rule_are_refused(data: Any) -> None:
    with pytest.raises(InvalidPolicy):
        policies_of(data)


@pytest.mark.usefixtures("folder")
def test_permissions_are_read_from_json_and_from_toml() -> None:
    expected = CapabilitySet(allowed_tools=["a"], allowed_state_keys=["k/*"], max_actions=3)
    Path("p.toml").write_text(
        'allowed_tools = ["a"]\nallowed_state_keys = ["k/*"]\nmax_actions = 3'
    )
    Path("p.json").write_text(canonical.dumps(expected.to_json()))
    assert load_permissions("p.toml") == load_permissions(Path("p.json")) == expected


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("p.json", "{", "p.json: not JSON at line 1"),
        ("p.json", "[]", "p.json: an empty list; expected an object"),
        ("p.json", '{"max_actions": 1, "max_actions": 2}', "stands twice"),
        ("p.json", '{"max_action": 1}', 'did you mean "max_actions"?'),
        ("p.json", '{"denied_tools": "t"}', "p.json, denied_tools: "),
        ("p.toml", "max_actions = ", "p.toml: is not TOML"),
        ("p.toml", 'max_actions = "1"', "p.toml, max_actions: "),
        ("p.toml", "max_actions = 2026-01-01", "p.toml, max_actions: "),
    ],
)
def test_a_permission_file_with_a_slip_is_refused(name: str, text: str, told: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(InvalidPolicy) as caught:
        load_permissions(name)
    assert told in caught.value.message


# --- rules ---


def test_deny_tool() -> None:
    policy = policies_of({"deny_tool": "deploy"})
    assert denied(policy, call("deploy"))
    assert not denied(policy, call("http", tool="deploy"))
    assert not denied(policy, Action(type=ActionType.STATE_READ, parameters={"key": "deploy"}))


def test_deny_keyword_looks_at_every_depth_of_every_action() -> None:
    policy = policies_of({"deny_keyword": "DROP TABLE"})
    assert denied(policy, call(q="x; DROP TABLE y"))
    assert denied(policy, call(q=[{"a": ["DROP TABLE"]}]))
    assert denied(policy, call(q={"DROP TABLE": 1}))
    write = {"key": "k", "value": "DROP TABLE"}
    assert denied(policy, Action(type=ActionType.STATE_WRITE, parameters=write))
    assert not denied(policy, call(q="drop table"))
    assert not denied(policy, call(q=["DROP", " TABLE"]))
    assert "DROP" not in policy.name
    assert "DROP" not in policy.judge(judged(call(q="DROP TABLE")))[0].reason
    assert denied(policies_of({"deny_keyword": "4111"}), call(card=41111))


def test_a_text_is_found_however_unicode_spells_it() -> None:
    composed, taken_apart = "caf\u00e9", "cafe\u0301"
    for keyword in (composed, taken_apart):
        for text in (composed, taken_apart):
            assert denied(policies_of({"deny_keyword": keyword}), call(q=f"a {text}!"))
            body = {"tool": "http", "param": "q", "contains": keyword}
            assert denied(policies_of({"deny_tool_param": body}), call(q=[text]))
    assert denied(policies_of({"deny_keyword": "cafe"}), call(q=taken_apart)), "as it is written"
    assert not denied(policies_of({"deny_keyword": "cafe"}), call(q=composed))


def test_texts_next_to_each_other_are_not_one() -> None:
    for keyword in ("ab", "a\0b", "a\ufffdb"):
        assert not denied(policies_of({"deny_keyword": keyword}), call(q=["a", "b"], a="b"))


def test_all_rules_that_look_for_a_text_walk_through_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walked = []
    monkeypatch.setattr(texts, "texts_in", lambda value: walked.append(1) or texts_in(value))
    rules = [policies_of({"deny_keyword": f"k{n}"}) for n in range(200)]
    rules += [rule("require_approval", tool="http", contains=f"c{n}") for n in range(100)]
    assert judge_all(rules, judged(call(q=["a" * 20] * 1000))) == ([], [])
    assert len(walked) == 1


@pytest.mark.usefixtures("folder")
def test_a_file_has_no_more_rules_that_look_for_a_text_than_can_be_asked() -> None:
    words = [f'"w{n}"' for n in range(MAX_SEARCHES + 1)]
    assert len(loaded(f"deny_keyword = [{', '.join(words[1:])}]")) == MAX_SEARCHES
    with pytest.raises(InvalidPolicy, match="at most 200 are allowed") as caught:
        loaded(f"deny_keyword = [{', '.join(words)}]")
    assert caught.value.path == f"deny_keyword[{MAX_SEARCHES}]"
    param = '[[deny_tool_param]]\ntool = "t"\nparam = "p"\ncontains = "w"\n'
    with pytest.raises(InvalidPolicy, match="look for a text"):
        loaded(f"deny_keyword = [{', '.join(words[1:])}]\n{param}")
    tools = [f'"t{n}"' for n in range(500)]
    assert len(loaded(f"deny_tool = [{', '.join(tools)}]")) == 500


def test_deny_tool_param_by_presence() -> None:
    policy = rule("deny_tool_param", tool="http", param="proxy")
    assert denied(policy, call(proxy=None))
    assert not denied(policy, call(url="proxy"))
    assert not denied(policy, call("other", proxy="x"))


def test_deny_tool_param_by_what_it_equals_and_contains() -> None:
    equals = rule("deny_tool_param", tool="http", param="n", equals=1)
    assert denied(equals, call(n=1.0))
    assert not denied(equals, call(n=True))
    contains = rule("deny_tool_param", tool="http", param="url", contains="evil")
    assert denied(contains, call(url="http://evil/"))
    assert denied(contains, call(url=["x", {"evil.org": 1}]))
    assert not denied(contains, call(url="EVIL", other="evil"))
    both = rule("deny_tool_param", tool="http", param="x", equals=["a", "b"], contains="b")
    assert denied(both, call(x=["a", "b"]))
    assert not denied(both, call(x=["b"]))
    assert "evil" not in contains.judge(judged(call(url="evil")))[0].reason


@pytest.mark.parametrize("value", [None, "prod", ["staging"], {"staging": 1}, "staging "])
def test_allow_tool_param_fails_closed(value: Any) -> None:
    policy = rule("allow_tool_param", tool="deploy", param="target", allow=["staging", 7])
    assert denied(policy, call("deploy", target=value))
    assert denied(policy, call("deploy"))
    assert not denied(policy, call("deploy", target="staging"))
    assert not denied(policy, call("deploy", target=7.0))
    assert not denied(policy, call("other", target="prod"))
    nothing = rule("allow_tool_param", tool="deploy", param="target", allow=[])
    assert denied(nothing, call("deploy", target=value))


def test_where_a_path_has_two_meanings_the_stricter_one_counts() -> None:
    both = {"a.b": "good", "a": {"b": "bad"}}
    assert sorted(values_at(both, "a.b")) == ["bad", "good"]
    deny = rule("deny_tool_param", tool="http", param="a.b", equals="bad")
    allow = rule("allow_tool_param", tool="http", param="a.b", allow=["good"])
    for policy in (deny, allow):
        assert denied(policy, call(**both))
        assert denied(policy, call(**{"a.b": "bad", "a": {"b": "good"}}))
        assert not denied(policy, call(**{"a.b": "good"}))
        assert not denied(policy, call(a={"b": "good"}))


@given(
    st.recursive(
        st.integers(),
        lambda x: (
            st.lists(x, min_size=1, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b.c", "0"]), x, min_size=1, max_size=3)
        ),
    ),
    st.data(),
)
def test_a_path_leads_to_each_value(value: Any, data: st.DataObject) -> None:
    steps: list[str] = []
    at: Any = {"p": value}
    while isinstance(at, dict | list):
        step = data.draw(
            st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at))))
        )
        steps.append(str(step))
        at = at[step]
    assert at in list(values_at({"p": value}, ".".join(steps)))


def test_a_path_that_leads_nowhere_finds_nothing() -> None:
    value = {"a": [1, {"b": 2}], "t": "text"}
    for path in ("b", "a.2", "a.-1", "a.b", "t.0", "a.1.b.c", "a.99999999999", "a.\u0661"):
        assert not list(values_at(value, path))
    assert list(values_at(value, "a.1.b")) == [2]


def test_all_texts_of_a_value_are_found() -> None:
    value = {"a": ["b", {"c": 1.5}], "d": [None, True, 10**17]}
    assert sorted(texts_in(value)) == ["1.5", "100000000000000000", "a", "b", "c", "d"]


def test_require_state() -> None:
    policy = rule("require_state", tool="deploy", key="ready", value=True)
    assert policy.reads_for(call("deploy")) == ("ready",)
    assert policy.reads_for(call("http")) == ()
    assert denied(policy, call("deploy"))
    assert denied(policy, call("deploy"), state={"ready": 1})
    assert not denied(policy, call("deploy"), state={"ready": True})
    assert not denied(policy, call("http"))
    each = rule("require_state", key="ready", value={"by": "ann"})
    read = Action(type=ActionType.STATE_READ, parameters={"key": "k"})
    assert each.reads_for(read) == ("ready",)
    assert denied(each, read)
    assert not denied(each, read, state={"ready": {"by": "ann"}})


def test_rate_limit_tool_counts_the_calls_of_its_own_stretch_of_time() -> None:
    policy = rule("rate_limit_tool", tool="http", max_calls=2, interval_secs=1.5)
    asked: list[tuple[str, int]] = []

    def calls(count: int) -> Any:
        def recent(tool: str, interval_us: int) -> int:
            asked.append((tool, interval_us))
            return count

        return recent

    assert [denied(policy, call(), calls=calls(n)) for n in (0, 1, 2, 3)] == [
        False,
        False,
        True,
        True,
    ]
    assert set(asked) == {("http", 1_500_000)}
    asked.clear()
    undone = Action(tool="other", compensation=ToolCompensation(tool="http"))
    assert not denied(policy, undone, calls=calls(9))
    assert not asked


def asked(policy: Policy, action: Action) -> list[Ask]:
    violations, asks = judge_all([policy], judged(action))
    assert not violations
    return asks


def test_require_approval() -> None:
    plain = rule("require_approval", tool="mail")
    assert asked(plain, call("mail")) == [
        Ask("require_approval:mail", "calls of 'mail' have to be approved")
    ]
    assert asked(plain, call("other")) == []
    full = rule("require_approval", tool="mail", reason="outside", expires_secs=60, approvers=2)
    assert asked(full, call("mail")) == [Ask("require_approval:mail", "outside", 60_000_000, 2)]
    to = rule("require_approval", tool="mail", param="to", contains="@other.org")
    assert asked(to, call("mail", to=["a@here.org", "b@other.org"]))
    assert not asked(to, call("mail", to="a@here.org", subject="@other.org"))
    present = rule("require_approval", tool="mail", param="bcc")
    assert asked(present, call("mail", bcc=None))
    assert not asked(present, call("mail"))
    anywhere = rule("require_approval", tool="mail", contains="secret")
    assert asked(anywhere, call("mail", text={"body": "a secret"}))
    assert not asked(anywhere, call("mail", text="nothing"))
    assert len({one.name for one in (plain, to, present, anywhere)}) == 4


@pytest.mark.parametrize(
    "policy",
    [
        policies_of({"deny_tool": "http"}),
        policies_of({"deny_keyword": "evil"}),
        rule("deny_tool_param", tool="http", param="url", contains="evil"),
        rule("allow_tool_param", tool="http", param="url", allow=["good"]),
        rule("require_state", tool="http", key="k", value=1),
    ],
    ids=lambda policy: policy.name,
)
def test_the_call_that_undoes_an_action_is_judged_too(policy: Policy) -> None:
    undo = ToolCompensation(tool="http", parameters={"url": "evil"})
    assert denied(policy, Action(tool="other", compensation=undo))
    asks = rule("require_approval", tool="http")
    assert asked(asks, Action(tool="other", compensation=undo))


@pytest.mark.parametrize(
    "policy",
    [
        policies_of({"deny_tool": "http"}),
        policies_of({"deny_keyword": "evil"}),
        rule("deny_tool_param", tool="http", param="url", contains="evil"),
        rule("allow_tool_param", tool="http", param="url", allow=["good"]),
        rule("require_state", tool="http", key="k", value=1),
    ],
    ids=lambda policy: policy.name,
)
def test_an_action_that_undoes_another_is_judged_with_that_one(policy: Policy) -> None:
    action = Action(tool="other", compensation=ActionRef(action_id="u"))
    undo = Action(id="u", tool="http", parameters={"url": "evil"})
    assert denied(policy, action, undo=undo)
    assert policy.reads_for(action, undo) == policy.reads
    fine = Action(id="u", tool="http", parameters={"url": "good"})
    assert denied(policy, action, undo=fine, state={"k": 1}) is policy.name.endswith("tool:http")


def undone(tool: str, **parameters: Any) -> Action:
    return Action(tool="other", compensation=ToolCompensation(tool=tool, parameters=parameters))


@pytest.mark.parametrize(
    "narrowed",
    [{"contains": "@other"}, {"param": "to"}, {"param": "to.all", "contains": "@other"}],
    ids=str,
)
def test_consent_is_asked_where_it_cannot_be_told_what_undoes_an_action(
    narrowed: dict[str, Any],
) -> None:
    """Nobody is asked again when it is undone, so what is not known yet counts as meant."""
    policy = rule("require_approval", tool="mail", **narrowed)
    blob = {"$blob": "0" * 64, "bytes": 9}
    for unknown in ("$find.output", "$find.output.to", [{"x": "$find.output"}], blob, {"y": blob}):
        assert asked(policy, undone("mail", to=unknown))
        assert not asked(policy, undone("wipe", to=unknown))
        ref = Action(tool="other", compensation=ActionRef(action_id="u"))
        verdict = policy.judge(judged(ref, undo=call("mail", to=unknown)))
        assert [type(one) for one in verdict] == [Ask]
    for known in ("costs $5", "see $find.output", "$$find.output"):
        assert not asked(policy, undone("mail", text=known))
        assert not asked(policy, call("mail", text=known))
    literal = call("mail", text="$find.output")
    assert not asked(policy, literal), "its own parameters are known: that is text"


def test_consent_is_asked_for_an_action_that_undoes_another() -> None:
    policy = rule("require_approval", tool="mail")
    action = Action(tool="other", compensation=ActionRef(action_id="u"))
    assert not judge_all([policy], judged(action, undo=call("wipe")))[1]
    [ask] = judge_all([policy], judged(action, undo=call("mail")))[1]
    assert ask.reason.endswith("('mail' undoes this action)")


def test_rules_about_different_things_have_different_names() -> None:
    pairs = [("a", "b.c"), ("a.b", "c"), ("a:b", "c")]
    for kind in ("deny_tool_param", "require_approval"):
        assert len({rule(kind, tool=tool, param=param).name for tool, param in pairs}) == 3
    states = {rule("require_state", tool=t, key=k, value=1).name for t, k in pairs}
    assert len(states) == 3


# --- patterns ---


def test_without_an_engine_of_linear_time_patterns_are_refused_when_they_are_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(InvalidPolicy) as caught:
        loaded(PATTERN.format('"x"'))
    assert caught.value.path == "deny_tool_param_matching[0]"
    assert "pip install 'carstore[re2]'" in caught.value.message
    with pytest.raises(InvalidPolicy, match="re2"):
        rule("deny_tool_param_matching", tool="t", param="p", matches="x")


def test_the_engine_is_imported_where_it_is_needed_only(folder: Path) -> None:
    (folder / "re2.py").write_text("raise AssertionError('imported')")
    (folder / "rules.toml").write_text(ALL)
    code = "from engine.policy_file import load_policies as l; print(len(l('rules.toml')))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{folder}:{root}"},
        cwd=folder,
        check=True,
    )
    assert done.stdout.split() == ["9"]


@pytest.mark.usefixtures("folder")
def test_patterns_are_found_anywhere_in_a_parameter() -> None:
    pytest.importorskip("re2")
    [policy] = loaded(PATTERN.format("'sk-[A-Za-z0-9]{20,}'"))
    key = "sk-" + "a1" * 10
    assert denied(policy, call(body=f"my key is {key}."))
    assert denied(policy, call(body={"auth": [key]}))
    assert denied(policy, call(body={key: 1}))
    assert not denied(policy, call(body="sk-short", other=key))
    assert not denied(policy, call("other", body=key))
    assert policies_of(policy.rule) == policy
    [found] = policy.judge(judged(call(body=key)))
    assert found.reason == "tool 'http': parameter 'body' matches a denied pattern"
    assert denied(
        rule("deny_tool_param_matching", tool="http", param="n", matches="^4[0-9]$"), call(n=42)
    )
    assert denied(
        rule("deny_tool_param_matching", tool="http", param="t", matches="(?i)ÄB"), call(t="xäb")
    )


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1", "a{2000}{2000}", "[z-a]"])
def test_a_bad_pattern_denies_the_tool(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("re2")
    [policy] = loaded(PATTERN.format(f"'{pattern}'"))
    assert denied(policy, call())
    assert not denied(policy, call("other"))
    assert policies_of(policy.rule) == policy
    assert capfd.readouterr() == ("", "")


def test_no_pattern_takes_for_ever() -> None:
    pytest.importorskip("re2")
    policy = rule("deny_tool_param_matching", tool="http", param="body", matches="(a+)+$")
    began = time.monotonic()
    assert not denied(policy, call(body="a" * 100_000 + "b"))
    assert time.monotonic() - began < 5
