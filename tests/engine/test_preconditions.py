from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore.log import StateRead
from carstore.names import Position
from engine.ir import Operator, Precondition
from engine.rules.preconditions import violation
from tests.engine.proposals import json_values

ABSENT = StateRead(None, exists=False, position=Position(0))
VALUES = [op for op in Operator if op not in (Operator.EXISTS, Operator.NOT_EXISTS)]
ORDER = [Operator.GT, Operator.LT, Operator.GTE, Operator.LTE]


def held(value: Any) -> StateRead:
    return StateRead(value, exists=True, position=Position(1))


def holds(operator: Operator, found: Any, wanted: Any) -> bool:
    return violation(Precondition(key="k", operator=operator, value=wanted), held(found)) is None


@given(json_values, st.sampled_from(VALUES))
def test_a_missing_key_fails_every_operator_that_compares(value: Any, operator: Operator) -> None:
    condition = Precondition(key="k", operator=operator, value=value)
    assert "does not exist" in (violation(condition, ABSENT) or "")


@given(json_values)
def test_a_key_exists_whatever_it_holds(value: Any) -> None:
    assert holds(Operator.EXISTS, value, None)
    assert not holds(Operator.NOT_EXISTS, value, None)


def test_a_key_that_holds_null_exists() -> None:
    assert holds(Operator.EXISTS, None, None)
    assert holds(Operator.EQ, None, None)
    assert violation(Precondition(key="k", operator=Operator.EXISTS), ABSENT)
    assert violation(Precondition(key="k", operator=Operator.NOT_EXISTS), ABSENT) is None


@given(json_values, json_values)
def test_neq_is_the_opposite_of_eq(left: Any, right: Any) -> None:
    assert holds(Operator.EQ, left, right) is not holds(Operator.NEQ, left, right)


@given(st.integers(-9, 9) | st.floats(-9, 9), st.integers(-9, 9) | st.floats(-9, 9))
def test_numbers_are_ordered(left: float, right: float) -> None:
    assert holds(Operator.GT, left, right) == (left > right)
    assert holds(Operator.LT, left, right) == (left < right)
    assert holds(Operator.GTE, left, right) == (left >= right)
    assert holds(Operator.LTE, left, right) == (left <= right)


@pytest.mark.parametrize("operator", ORDER)
@pytest.mark.parametrize(
    ("left", "right"),
    [("1", 0), ("b", "a"), (True, 0), (1, False), (None, 0), ([2], [1]), (1, None), ({}, {})],
)
def test_only_numbers_have_an_order(operator: Operator, left: Any, right: Any) -> None:
    assert not holds(operator, left, right)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ([1, {"a": 1.0}], [1.0, {"a": 1}], True),
        ([1], [True], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ("a", "b", False),
        (None, 0, False),
    ],
)
def test_equality_is_that_of_json(left: Any, right: Any, equal: bool) -> None:
    assert holds(Operator.EQ, left, right) is equal


@pytest.mark.parametrize(
    ("whole", "part", "is_part"),
    [
        ("hello", "ell", True),
        ("hello", "", True),
        ("12", 1, False),
        ([1, 2], 2.0, True),
        ([1, 2], True, False),
        ([[1]], [1], True),
        ({"a": 1}, "a", True),
        ({"a": 1}, 1, False),
        (12, 1, False),
        (None, None, False),
    ],
)
def test_contains_asks_for_a_part(whole: Any, part: Any, is_part: bool) -> None:
    assert holds(Operator.CONTAINS, whole, part) is is_part


def test_an_unknown_operator_fails_closed() -> None:
    condition = Precondition(key="k", value=1)
    object.__setattr__(condition, "operator", type("Odd", (), {"value": "is_nice"})())
    assert "is_nice" in (violation(condition, held(1)) or "")


def test_the_message_names_key_operator_both_values_and_the_description() -> None:
    condition = Precondition(key="tests", operator=Operator.GTE, value=3, description="run them")
    assert violation(condition, held(1)) == (
        "precondition failed: tests gte 3, but it is 1 (run them)"
    )
    assert violation(condition, ABSENT) == (
        "precondition failed: tests gte 3, but it does not exist (run them)"
    )


def test_large_values_are_cut_in_the_message() -> None:
    text = violation(Precondition(key="k", value="x" * 10_000), held("y" * 10_000))
    assert text is not None
    assert len(text) < 300
