"""The codec: every kind of event to text and back, strictly on both sides."""

import json
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import canonical
from carstore.canonical import MAX_BYTES
from carstore.codec import decode, encode, make_converter, with_prev
from carstore.errors import CarstoreError, InvalidEvent, UnknownEvent
from carstore.events import (
    KINDS,
    SCHEMA_VERSIONS,
    ActionFailed,
    ActionRejected,
    ActionSucceeded,
    ActionValidated,
    Event,
    InferenceMetered,
    LeaseReleased,
    StateChanged,
    StateRollback,
)
from carstore.names import Json, StateKey
from tests.carstore.helpers import MAIN
from tests.carstore.values import EVENTS, TEXT, events_of


def text_of(event: Event) -> str:
    """The whole text of an event, as if the log had filled in what it fills in."""
    encoded = encode(event)
    return with_prev(encoded, event.prev) if isinstance(event, StateChanged) else encoded.data


def by_the_rules(event: Event) -> str:
    """The same text, slowly, from the fields."""
    if isinstance(event, StateChanged):
        data = {"deleted": True} if event.deleted else {"value": event.value}
        return canonical.dumps({**data, "prev": event.prev})
    values = make_converter().unstructure(event)
    return canonical.dumps(
        {name: list(value) if type(value) is tuple else value for name, value in values.items()}
    )


def read(event: Event, text: str) -> Event:
    scope, key = (event.scope, event.key) if isinstance(event, StateChanged) else (None, None)
    return decode(event.kind, SCHEMA_VERSIONS[event.kind], text, scope, key, 7)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_written_by_the_rules_and_comes_back(kind: str) -> None:
    @settings(max_examples=30)
    @given(events_of(kind))
    def holds(event: Event) -> None:
        encoded = encode(event)
        assert (encoded.kind, encoded.schema_version) == (kind, SCHEMA_VERSIONS[kind])
        text = text_of(event)
        assert text == by_the_rules(event)
        assert canonical.dumps(json.loads(text)) == text
        assert read(event, text) == event

    holds()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_fields_that_the_codec_knows(kind: str) -> None:
    allowed = {str, int, bool, str | None, int | None, tuple[str, ...], Json}
    assert {field.type for field in fields(KINDS[kind])} <= allowed


def test_scope_and_key_of_a_change_are_columns() -> None:
    encoded = encode(StateChanged(scope="s", key="k", value=[1]))
    assert (encoded.scope, encoded.key) == ("s", "k")
    assert with_prev(encoded, None) == '{"prev":null,"value":[1]}'
    deletion = encode(StateChanged(scope="s", key="k", deleted=True))
    assert with_prev(deletion, 12) == '{"deleted":true,"prev":12}'
    assert encode(ActionValidated(action_id="a"))[2:4] == (None, None)


# Writing: what an event may not hold.

_WRONG: dict[Any, tuple[Any, ...]] = {
    str: (1, None, b"x", "\ud800", ["x"]),
    int: ("1", 1.0, True, None, 2**63, -(2**63) - 1),
    bool: (1, 0, "true", None),
    str | None: (1, "\udfff", b""),
    int | None: ("1", 1.5, False, 2**63),
    tuple[str, ...]: (["x"], "x", (1,), ("\ud800",), (None,), None),
    Json: (float("nan"), {1: 2}, (1,), object(), {"a": "\ud800"}, 2**63, b"x"),
}


def _sample(kind: str) -> Event:
    values: dict[Any, Any] = {
        str: "x", int: 1, bool: False, str | None: "x", int | None: 1, tuple[str, ...]: ("x",),
        Json: [],
    }  # fmt: skip
    return KINDS[kind](**{field.name: values[field.type] for field in fields(KINDS[kind])})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_value_that_its_field_does_not_allow_is_refused_by_name(kind: str) -> None:
    event = _sample(kind)
    encode(event)
    for field in fields(KINDS[kind]):
        if (kind, field.name) == ("state_changed", "prev"):
            continue  # not looked at: the log fills it in
        for wrong in _WRONG[field.type]:
            with pytest.raises(InvalidEvent) as refused:
                encode(evolve(event, **{field.name: wrong}))
            assert refused.value.kind == kind
            assert refused.value.path.startswith(f"$.{field.name}"), (field.name, wrong)
            assert len(refused.value.message) < 300


def test_the_path_leads_into_the_value() -> None:
    with pytest.raises(InvalidEvent) as refused:
        encode(
            ActionSucceeded(
                action_id="a", attempt=1, output={"rows": [1, float("nan")]}, duration_us=0
            )
        )
    assert refused.value.path == "$.output.rows[1]"
    assert refused.value.code == "invalid_event"


def test_a_deletion_has_no_value() -> None:
    with pytest.raises(InvalidEvent):
        encode(StateChanged(scope="s", key="k", deleted=True, value=1))


@pytest.mark.parametrize(
    "event",
    [
        ActionRejected(action_id="a", error="x" * MAX_BYTES),
        ActionFailed(action_id="a", attempt=1, error="é" * (MAX_BYTES // 2)),
        StateRollback(keys=("x" * MAX_BYTES,), conflicts=[]),
        StateChanged(scope="s", key="k", value="x" * MAX_BYTES),
    ],
    ids=lambda event: event.kind,
)
def test_the_size_of_an_event_is_bounded(event: Event) -> None:
    with pytest.raises(InvalidEvent, match="larger"):
        encode(event)


def test_a_value_may_be_as_deep_as_values_may_be() -> None:
    deep: Any = None
    for _ in range(canonical.MAX_DEPTH):
        deep = [deep]
    event = StateChanged(scope="s", key="k", value=deep)
    assert read(event, text_of(event)) == event
    with pytest.raises(InvalidEvent, match="deeper"):
        encode(evolve(event, value=[deep]))


class _Stranger:
    kind = "action_validated"
    action_id = "a"


def test_other_classes_are_refused() -> None:
    class Impostor(ActionValidated):
        pass

    for stranger in (Impostor(action_id="a"), _Stranger()):
        with pytest.raises(CarstoreError):
            encode(stranger)  # type: ignore[arg-type]


# Reading: what a text may not say.


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_missing_a_surplus_and_a_coerced_field_are_refused(kind: str) -> None:
    event = _sample(kind)
    whole = json.loads(text_of(event))
    types = {field.name: field.type for field in fields(KINDS[kind])}
    assert read(event, json.dumps(whole)) == event
    bad = [{**whole, "surplus": 1}]
    bad += [{name: v for name, v in whole.items() if name != missing} for missing in whole]
    coerced = {str: 1, int: "1", bool: 1, str | None: 1, int | None: "1", tuple[str, ...]: "xy"}
    bad += [{**whole, name: coerced[types[name]]} for name in whole if types[name] in coerced]
    bad += [{**whole, name: True} for name in whole if types[name] in (int, int | None)]
    bad += [{**whole, name: [1]} for name in whole if types[name] == tuple[str, ...]]
    for data in bad:
        with pytest.raises(InvalidEvent):
            read(event, json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "[1]", "{}", "[" * 5000])
def test_a_text_that_is_no_object_of_fields_is_refused(text: str) -> None:
    for kind in KINDS:
        with pytest.raises(InvalidEvent, match="position 7"):
            read(_sample(kind), text)


@pytest.mark.parametrize("prev", ['"1"', "true", "1.5", "[]"])
def test_a_change_replaces_a_position_or_nothing(prev: str) -> None:
    for text in (f'{{"prev":{prev},"value":1}}', f'{{"deleted":true,"prev":{prev}}}'):
        with pytest.raises(InvalidEvent, match="position 7"):
            decode("state_changed", 1, text, MAIN, StateKey("k"), 7)


@pytest.mark.parametrize(
    "text",
    [
        '{"prev":null}', '{"deleted":false,"prev":null}', '{"deleted":1,"prev":null}',
        '{"deleted":true,"prev":null,"value":1}', '{"prev":null,"value":1,"scope":"s"}',
    ],
)  # fmt: skip
def test_a_change_is_a_value_or_a_deletion(text: str) -> None:
    with pytest.raises(InvalidEvent, match="position 7"):
        decode("state_changed", 1, text, MAIN, StateKey("k"), 7)


@given(EVENTS, st.data())
def test_a_text_cut_or_changed_anywhere_decodes_or_is_refused(
    event: Event, data: st.DataObject
) -> None:
    text = text_of(event)
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(TEXT) + text[at + data.draw(st.integers(0, 3)) :]
    try:
        read(event, changed)
    except InvalidEvent:
        pass


@pytest.mark.parametrize(
    ("kind", "schema_version"),
    [("no_such_kind", 1), ("action_validated", 3), ("action_validated", 0), ("", 1)],
)
def test_unknown_kinds_and_versions_are_told_apart_from_bad_data(
    kind: str, schema_version: int
) -> None:
    with pytest.raises(UnknownEvent) as unknown:
        decode(kind, schema_version, "{}", position=9)
    assert (unknown.value.kind, unknown.value.schema_version) == (kind, schema_version)
    assert "event 9" in unknown.value.message


def test_numbers_keep_their_kind() -> None:
    event = ActionSucceeded(action_id="a", attempt=1, output=[1, 1.0, True, "1"], duration_us=0)
    again = read(event, text_of(event))
    assert isinstance(again, ActionSucceeded)
    assert list(map(type, again.output)) == [int, float, bool, str]


def test_defaults_are_written_down() -> None:
    """A default may change; what was recorded may not."""
    event = InferenceMetered(agent="a", action_id="b", attempt=1, n=0)
    assert json.loads(text_of(event)).keys() == {field.name for field in fields(type(event))}


def test_a_token_of_64_bits_is_kept() -> None:
    event = LeaseReleased(lease="l", token=2**63 - 1)
    assert read(event, text_of(event)) == event
