"""A stranger's hints never make a call repeatable unless somebody here says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rules.tool_hints import Hints, contradiction, effect_of
from engine.tool_schema import EffectMode

SAID = st.sampled_from([None, False, True])
HINTS = st.builds(Hints, read_only=SAID, destructive=SAID, idempotent=SAID)


@given(HINTS)
def test_hints_that_are_not_trusted_allow_nothing(hints: Hints) -> None:
    assert effect_of(hints, trusted=False) is EffectMode.ONCE


@given(HINTS)
def test_what_is_said_to_destroy_is_never_repeated(hints: Hints) -> None:
    if hints.destructive:
        assert effect_of(hints, trusted=True) is EffectMode.ONCE


@given(HINTS)
def test_a_trusted_server_is_never_contradicted_by_its_own_hints(hints: Hints) -> None:
    assert contradiction(effect_of(hints, trusted=True), hints) is None


@given(HINTS)
def test_who_declares_that_nothing_may_be_repeated_is_never_contradicted(hints: Hints) -> None:
    assert contradiction(EffectMode.ONCE, hints) is None


@pytest.mark.parametrize(
    ("read_only", "destructive", "idempotent", "expected"),
    [
        (True, None, None, EffectMode.READ_ONLY),
        (True, False, False, EffectMode.READ_ONLY),
        (True, True, True, EffectMode.ONCE),
        (None, False, True, EffectMode.IDEMPOTENT),
        (False, False, True, EffectMode.IDEMPOTENT),
        (None, None, True, EffectMode.ONCE),
        (None, True, True, EffectMode.ONCE),
        (None, False, None, EffectMode.ONCE),
        (None, None, None, EffectMode.ONCE),
    ],
)
def test_what_the_hints_of_a_trusted_server_mean(
    read_only: bool | None,
    destructive: bool | None,
    idempotent: bool | None,
    expected: EffectMode,
) -> None:
    hints = Hints(read_only=read_only, destructive=destructive, idempotent=idempotent)
    assert effect_of(hints, trusted=True) is expected


@pytest.mark.parametrize(
    ("declared", "hints", "said"),
    [
        ("read_only", Hints(read_only=False), "readOnlyHint: false"),
        ("read_only", Hints(destructive=True), "destructiveHint: true"),
        ("idempotent", Hints(idempotent=False), "idempotentHint: false"),
    ],
)
def test_a_restrictive_hint_overrules_what_is_declared_here(
    declared: str, hints: Hints, said: str
) -> None:
    assert said in (contradiction(EffectMode(declared), hints) or "")


@pytest.mark.parametrize("declared", ["read_only", "idempotent"])
def test_what_was_not_said_contradicts_nothing(declared: str) -> None:
    assert contradiction(EffectMode(declared), Hints()) is None
