"""What goes beside an event: what was named, what a rule names, what is large; and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import canonical
from carstore.blobs import filled, has_references, hash_of, make_blob, references, referred
from carstore.errors import InvalidJson
from carstore.events import ActionSucceeded, ProposalReceived, StateChanged
from carstore.log import Entry
from carstore.names import LeaseName, StreamName
from carstore.redaction import Redaction
from carstore.sqlite.verify import verify
from tests.carstore.helpers import in_loop, open_store

NAMES = st.sampled_from(["a", "password", "Password", "db_password", "token", "*", "$blob"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
STEPS = st.lists(NAMES | st.integers(0, 3), max_size=3).map(tuple)


def succeeded(output: Any) -> ActionSucceeded:
    return ActionSucceeded(action_id="a", attempt=1, output=output, duration_us=0)


def names_in(value: Any) -> set[str]:
    """Names of fields that still have a value of their own."""
    if isinstance(value, dict) and referred(value) is None:
        own = {name for name, item in value.items() if item is not None and referred(item) is None}
        return own.union(*[names_in(item) for item in value.values()])
    return set().union(*[names_in(item) for item in value]) if isinstance(value, list) else set()


@given(VALUES, st.lists(STEPS, max_size=3), st.integers(0, 40))
def test_filling_gives_back_what_was_redacted(value: Any, paths: Any, limit: int) -> None:
    rules = Redaction(names=["*password"], inline_bytes=limit)
    event = succeeded(value)
    before = canonical.dumps(value)
    made, blobs = rules.applied(event, [("output", *path) for path in paths])
    assert isinstance(made, ActionSucceeded)
    assert canonical.dumps(value) == before  # the event that was given is as it was
    values = {blob.hash: canonical.loads(blob.body) for blob in blobs}
    assert filled(made.output, values) == value
    assert set(references(made.output)) <= values.keys()


@given(VALUES)
def test_no_value_stays_under_a_name_that_a_rule_names(value: Any) -> None:
    made, _ = Redaction(names=["*PASSWORD"]).applied(succeeded(value))
    assert not {name for name in names_in(made.output) if name.lower().endswith("password")}


@given(VALUES)
def test_redacting_twice_is_redacting_once(value: Any) -> None:
    rules = Redaction(names=["token"], inline_bytes=200)
    once, _ = rules.applied(succeeded(value), [("output", "a")])
    again, blobs = rules.applied(once, [("output", "a")])
    assert (again, blobs) == (once, [])


@given(VALUES)
def test_without_a_reason_nothing_is_changed(value: Any) -> None:
    event = succeeded(value)
    made, blobs = Redaction().applied(event)
    assert made is event
    assert blobs == []


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("password", ["password", "PassWord"], ["passwords", "a_password"]),
        ("*_key", ["api_key", "_KEY"], ["key", "api_key_id"]),
        ("secret*", ["secret", "Secret_3"], ["my_secret"]),
        ("*token*", ["token", "my_tokens"], ["tok"]),
    ],
)
def test_a_name_may_be_open_at_either_end(pattern: str, yes: list[str], no: list[str]) -> None:
    rules = Redaction(names=[pattern])
    assert all(map(rules.is_sensitive, yes))
    assert not any(map(rules.is_sensitive, no))


def test_the_value_of_a_sensitive_state_key_goes_as_a_whole() -> None:
    event = StateChanged(scope="main", key="db_password", value={"a": [1]})
    made, [blob] = Redaction(names=["*password"]).applied(event)
    assert isinstance(made, StateChanged)
    assert made.value == {"$blob": blob.hash, "bytes": 9, "sensitive": True}


def test_large_parameters_go_and_the_plan_stays_readable() -> None:
    large = {"rows": list(range(1000))}
    action = {"id": "a", "tool": "t", "parameters": {"table": large, "n": 1}}
    plan = {"actions": [action] * 3, "id": "p", "source": "s"}
    made, blobs = Redaction(inline_bytes=100).applied(received(plan))
    assert isinstance(made, ProposalReceived)
    assert len(made.proposal["actions"]) == 3
    assert [one["parameters"]["n"] for one in made.proposal["actions"]] == [1, 1, 1]
    assert len(blobs) == 3
    assert len({blob.hash for blob in blobs}) == 1  # equal values are one value


def test_equal_sensitive_values_cannot_be_told_to_be_equal() -> None:
    one, two = make_blob("1234", sensitive=True), make_blob("1234", sensitive=True)
    assert one.hash != two.hash
    assert one.hash == hash_of(one.nonce, one.body)
    assert len(one.nonce) == 16
    assert make_blob("1234", sensitive=False) == make_blob("1234", sensitive=False)


@pytest.mark.parametrize(
    "value",
    [
        {"$blob": "0" * 64},
        {"$blob": "0" * 63, "bytes": 1},
        {"$blob": "G" * 64, "bytes": 1},
        {"$blob": "0" * 64, "bytes": "1"},
        {"$blob": "0" * 64, "bytes": 1, "sensitive": False},
        {"$blob": "0" * 64, "bytes": 1, "more": 1},
        ["$blob", "bytes"],
    ],
)
def test_what_only_looks_like_a_reference_is_a_value(value: Any) -> None:
    assert referred(value) is None
    assert filled(value, {"0" * 64: "no"}) == value


def test_references_are_seen_in_canonical_text() -> None:
    blob = make_blob([1], sensitive=False)
    assert has_references(canonical.dumps({"deep": [blob.reference]}))
    assert not has_references(canonical.dumps({"deep": ["$blob"]}))


def test_rules_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(TypeError, match="list of names"):
        Redaction(names="password")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inline_bytes"):
        Redaction(inline_bytes=-1)


@pytest.mark.parametrize("name", ["", "a*b", "**", "*a*b*", "***"])
def test_a_rule_that_would_name_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="write a name, with a"):
        Redaction(names=[name])


def test_a_rule_is_a_text() -> None:
    with pytest.raises(TypeError, match="not a text"):
        Redaction(names=[7])


def test_a_value_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidJson):
        Redaction().applied(succeeded({"a": object()}), [("output", "a")])


def received(plan: Any) -> ProposalReceived:
    return ProposalReceived(
        proposal_id="p",
        source="s",
        proposal=plan,
        tools={},
        scope="main",
        schedule="levels",
        concurrency=1,
        on_doubt="hold",
        log_id="0" * 32,
        abort_on_exhausted_retry=False,
        abort_on_rejection=False,
    )


@in_loop
async def test_a_rule_does_not_take_the_log_its_leases(path: Path) -> None:
    """`token`, `host` and others are names that triggers and the runtime go by."""
    async with open_store(path, redaction=Redaction(names=["*"])) as store:
        held = await store.leases.acquire(LeaseName("x"))
        await store.leases.renew()
        assert not held.lost
        (row,) = await store.leases.rows()
        assert row.holder == store.leases.holder
        await store.leases.release(held)
        assert await store.leases.rows() == []
        assert (await verify(store)).problems == ()


PLAN = {
    "id": "p",
    "source": "s",
    "context": {"id": "c"},
    "actions": [
        {"id": "w", "type": "state_write", "parameters": {"key": "password", "value": "v"}},
        {"id": "k", "type": "state_write", "parameters": {"key": "a", "value": {"id": "v"}}},
        {
            "id": "t",
            "tool": "x",
            "parameters": {"key": "v", "n": 1},
            "dependencies": ["w"],
            "expected_effects": {"password": "v", "b": 1},
            "compensation": {"tool": "y", "parameters": {"id": "v"}},
            "metadata": {"key": "v"},
        },
    ],
}


def test_rules_reach_the_values_of_a_plan_and_not_its_structure() -> None:
    made, blobs = Redaction(names=["*password*", "key", "id", "dependencies", "tool"]).applied(
        received(PLAN)
    )
    assert isinstance(made, ProposalReceived)
    assert sorted(blob.body for blob in blobs) == [b'"c"', *[b'"v"'] * 6]
    plan = made.proposal
    write, inner, call = plan["actions"]
    assert (write["id"], write["parameters"]["key"]) == ("w", "password")
    assert referred(write["parameters"]["value"])
    assert inner["parameters"]["key"] == "a"
    assert referred(inner["parameters"]["value"]["id"])
    assert (call["id"], call["tool"], call["dependencies"]) == ("t", "x", ["w"])
    assert referred(call["parameters"]["key"])
    assert call["parameters"]["n"] == 1
    assert referred(call["expected_effects"]["password"])
    assert call["compensation"]["tool"] == "y"
    assert referred(call["compensation"]["parameters"]["id"])
    assert referred(call["metadata"]["key"])
    assert referred(plan["context"]["id"])
    assert plan["id"] == "p"


JUDGED = {
    "id": "p",
    "source": "s",
    "actions": [
        {
            "id": "a",
            "type": "assertion",
            "parameters": {"key": "password", "expected": "v1"},
            "preconditions": [
                {"key": "password", "operator": "eq", "value": "v2", "description": ""},
                {"key": "other", "operator": "eq", "value": {"password": "v3", "n": 1}},
                {"key": "n", "operator": "gt", "value": 4},
            ],
        },
    ],
}


def test_rules_reach_what_the_value_of_a_key_is_compared_with() -> None:
    rules = Redaction(names=["password", "key", "operator"])
    made, blobs = rules.applied(received(JUDGED))
    assert isinstance(made, ProposalReceived)
    assert sorted(blob.body for blob in blobs) == [b'"v1"', b'"v2"', b'"v3"']
    first, second, third = made.proposal["actions"][0]["preconditions"]
    assert (first["key"], first["operator"], second["value"]["n"]) == ("password", "eq", 1)
    assert third == {"key": "n", "operator": "gt", "value": 4}
    assert rules.applied(made) == (made, [])


def test_what_only_looks_like_a_reference_to_an_output_goes_too() -> None:
    """As what the tool is given: references are not looked for beside the log."""
    parameters = {"password": "$$in.output", "list": ["$in.output", "$$in.output"], "n": 1}
    action = {
        "id": "t",
        "tool": "x",
        "parameters": parameters,
        "expected_effects": {"password": "$in.output"},
        "metadata": {"password": "$$in.output"},
    }
    plan = {"id": "p", "source": "s", "actions": [action]}
    rules = Redaction(names=["password", "list"])
    made, blobs = rules.applied(received(plan))
    assert isinstance(made, ProposalReceived)
    assert sorted(blob.body for blob in blobs) == [
        b'"$$in.output"',
        *[b'"$in.output"'] * 3,
    ]
    after = made.proposal["actions"][0]["parameters"]["list"]
    assert after[0] == "$in.output"
    assert referred(after[1])
    assert rules.applied(made) == (made, [])


def test_values_that_refer_to_each_other_are_filled_up_to_a_size() -> None:
    values: dict[str, Any] = {}
    value: Any = "x" * 1000
    for _ in range(9):
        blob = make_blob(value, sensitive=False)
        values[blob.hash] = value
        value = [blob.reference] * 1000
    made = filled(value, values, max_chars=100_000)
    assert len(canonical.dumps(made)) < 2_000_000
    assert next(references(made)) in values


def test_a_long_chain_of_values_does_not_end_the_stack() -> None:
    values: dict[str, Any] = {}
    value: Any = "x"
    for _ in range(5000):
        blob = make_blob(value, sensitive=False)
        values[blob.hash] = value
        value = [blob.reference]
    assert next(references(filled(value, values))) in values


def test_a_value_does_not_show_in_a_message_about_it() -> None:
    blob = make_blob("hunter2-hunter2", sensitive=True)
    entry = Entry(StreamName("s"), succeeded(blob.reference), None, (blob,))
    assert "hunter2" not in f"{blob!r} {entry!r}"
    assert repr(blob.nonce) not in repr(entry)
