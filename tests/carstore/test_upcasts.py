"""What older programs wrote is read as what this one would have written."""

import copy

import pytest
from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st

from carstore import codec, upcasts
from carstore.codec import decode
from carstore.errors import InvalidEvent, UnknownEvent
from carstore.events import KINDS, SCHEMA_VERSIONS, ActionValidated, LogEpochStarted
from carstore.names import Json
from carstore.upcasts import UPCASTS, Upcast, upcast
from tests.carstore.values import JSON, TEXT

DATA = st.dictionaries(TEXT | st.sampled_from(["log_id", "epoch", "cause", "origin"]), JSON)


def test_there_is_a_way_from_every_version_to_the_newest_and_no_other() -> None:
    steps = {(kind, n) for kind, newest in SCHEMA_VERSIONS.items() for n in range(1, newest)}
    assert UPCASTS.keys() == steps
    assert SCHEMA_VERSIONS.keys() == KINDS.keys()


@pytest.mark.parametrize("step", UPCASTS, ids=lambda step: f"{step[0]} {step[1]}")
def test_each_step_is_pure_and_takes_any_object(step: tuple[str, int]) -> None:
    @settings(max_examples=40)
    @given(DATA)
    def holds(data: dict[str, Json]) -> None:
        before = copy.deepcopy(data)
        made = UPCASTS[step](data)
        assert type(made) is dict
        assert data == before
        assert made is not data
        assert repr(UPCASTS[step](data)) == repr(made)

    holds()


@settings(max_examples=40)
@given(st.sampled_from(sorted(KINDS)), DATA)
def test_data_of_the_newest_version_stays_as_it_is(kind: str, data: dict[str, Json]) -> None:
    newest = SCHEMA_VERSIONS[kind]
    assert upcast(kind, newest, newest, data) is data


def test_a_log_of_the_first_program_was_created() -> None:
    old = '{"epoch":0,"log_id":"abc","origin":null}'
    event = decode(LogEpochStarted.kind, 1, old)
    assert event == LogEpochStarted(log_id="abc", epoch=0, cause="created", origin=None)


@pytest.mark.parametrize(
    "data", ['{"epoch":0}', '{"epoch":"0","log_id":"abc","origin":null}', "[]"]
)
def test_data_that_was_never_well_formed_is_refused_in_old_versions_too(data: str) -> None:
    with pytest.raises(InvalidEvent, match="position 3"):
        decode(LogEpochStarted.kind, 1, data, position=3)


@pytest.mark.parametrize("version", [0, -1, 3])
def test_there_is_nothing_before_the_first_and_after_the_newest(version: int) -> None:
    with pytest.raises(UnknownEvent):
        decode(LogEpochStarted.kind, version, '{"epoch":0,"log_id":"abc","origin":null}')


def test_what_was_added_to_a_kind_says_in_older_events_that_it_was_not_there() -> None:
    """Each step for itself, so that a default that changes later changes nothing of the past."""
    for kind, made in ADDED.items():
        assert UPCASTS[kind, 1]({}) == made
        assert SCHEMA_VERSIONS[kind] == 2
        defaults = {one.name: one.default for one in fields(KINDS[kind]) if one.name in made}
        assert defaults == made


ADDED: dict[str, dict[str, Json]] = {
    "proposal_received": {
        "policies": None,
        "budget": None,
        "deadline_at": None,
        "replaces": None,
        "replans_left": 0,
        "replan_on_rejection": False,
        "pursuit": None,
    },
    "action_validated": {"tool": None},
    "action_executing": {"reserved": None, "reuse_key": None},
    "action_deduplicated": {"cause": "reuse"},
    "inference_metered": {"currency": "USD"},
}


# A chain of several steps, which no kind has yet.


def _from_1(data: dict[str, Json]) -> dict[str, Json]:
    return {"name": data.get("id")}


def _from_2(data: dict[str, Json]) -> dict[str, Json]:
    return {"action_id": data.get("name"), "tool": None}


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], Upcast]:
    """`action_validated` at version 3."""
    kind = ActionValidated.kind
    table = {**UPCASTS, (kind, 1): _from_1, (kind, 2): _from_2}
    monkeypatch.setattr(upcasts, "UPCASTS", table)
    monkeypatch.setitem(SCHEMA_VERSIONS, kind, 3)
    return table


def test_steps_are_taken_one_after_the_other(chain: object) -> None:
    newest = '{"action_id":"a","tool":null}'
    for version, data in ((1, '{"id":"a"}'), (2, '{"name":"a"}'), (3, newest)):
        assert decode("action_validated", version, data) == ActionValidated(action_id="a")
    assert codec.encode(ActionValidated(action_id="a")).schema_version == 3
    with pytest.raises(UnknownEvent):
        decode("action_validated", 4, newest)


def test_data_is_never_taken_for_that_of_another_version(chain: object) -> None:
    for version, data in ((1, '{"action_id":"a"}'), (2, '{"id":"a"}'), (3, '{"name":"a"}')):
        with pytest.raises(InvalidEvent):
            decode("action_validated", version, data)


def test_a_gap_in_the_chain_is_not_passed_over(chain: dict[tuple[str, int], Upcast]) -> None:
    del chain["action_validated", 2]
    with pytest.raises(InvalidEvent):
        decode("action_validated", 1, '{"id":"a"}')
    assert [field.name for field in fields(ActionValidated)] == ["action_id", "tool"]
