"""When an assumption is stale."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from carstore.log import NEVER_WRITTEN, StateRead
from carstore.names import Position
from engine.ir import Assumption
from engine.rules.assumptions import stale
from engine.rules.values import same
from tests.engine.proposals import plain_values


def found(value: Any, position: int, *, exists: bool = True) -> StateRead:
    return StateRead(value, exists, Position(position))


@given(value=plain_values, position=st.integers(1, 9), version=st.none() | st.integers(0, 9))
def test_it_holds_exactly_if_nothing_was_written_since_and_the_value_is_that(
    value: Any, position: int, version: int | None
) -> None:
    for expected in (value, None, [value]):
        assumption = Assumption(key="x", expected_value=expected, read_version=version)
        unchanged = version is None or position <= version
        holds = unchanged and (expected is None or same(expected, value))
        assert (stale(assumption, found(value, position)) is None) is holds


def test_a_missing_key_has_no_value_and_was_not_changed() -> None:
    assert stale(Assumption(key="x", expected_value=1), NEVER_WRITTEN) == (
        "assumption on 'x' is stale: it was to be 1 and does not exist"
    )
    assert stale(Assumption(key="x", read_version=0), NEVER_WRITTEN) is None
    assert stale(Assumption(key="x", read_version=3), NEVER_WRITTEN) is None
    deleted = found(None, 5, exists=False)
    assert stale(Assumption(key="x", read_version=5), deleted) is None
    assert stale(Assumption(key="x", read_version=4), deleted) is not None
    assert stale(Assumption(key="x"), deleted) is None


def test_a_sensitive_value_is_not_shown() -> None:
    secret = {"$blob": "0" * 64, "bytes": 8, "sensitive": True}
    said = stale(Assumption(key="x", expected_value=1), found(secret, 1))
    assert said is not None
    assert "$blob" not in said


def test_a_sensitive_value_is_compared_and_not_shown() -> None:
    values = {"0" * 64: "hunter2"}
    secret = {"$blob": "0" * 64, "bytes": 9, "sensitive": True}
    for state, plain in ((secret, "hunter2"), ({"inner": [secret]}, {"inner": ["hunter2"]})):
        right = Assumption(key="x", expected_value=plain)
        assert stale(right, found(state, 1), values) is None
        said = stale(Assumption(key="x", expected_value="guess"), found(state, 1), values)
        assert said is not None
        assert "hunter2" not in said
    wrong = stale(Assumption(key="x", expected_value=secret), found("other", 1), values)
    assert wrong is not None
    assert "hunter2" not in wrong


def test_a_large_value_is_compared_and_shown_by_its_size() -> None:
    values = {"0" * 64: list(range(500))}
    large = {"$blob": "0" * 64, "bytes": 1900}
    assert (
        stale(Assumption(key="x", expected_value=list(range(500))), found(large, 1), values) is None
    )
    said = stale(Assumption(key="x", expected_value=1), found(large, 1), values)
    assert said is not None
    assert "a list of 500" in said


def test_long_values_are_not_shown_in_full() -> None:
    said = stale(Assumption(key="x", expected_value="a" * 900), found(1, 1))
    assert said is not None
    assert len(said) < 250
