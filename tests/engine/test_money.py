"""Amounts of money as whole micro-units."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rules.money import MAX_MICROS, micros_of


@given(st.integers(0, MAX_MICROS))
def test_micros_written_as_units_come_back(micros: int) -> None:
    text = f"{micros // 10**6}.{micros % 10**6:06}"
    assert micros_of(text) == micros == micros_of(Decimal(text))


@given(st.decimals(0, 10**9, places=12))
def test_the_rest_is_rounded_half_away_from_zero(amount: Decimal) -> None:
    assert micros_of(amount) == (Fraction(amount) * 10**6 + Fraction(1, 2)).__floor__()


def test_rounding_happens_once() -> None:
    assert micros_of("0.0000005") == 1
    assert micros_of("0." + "0" * 6 + "4" + "9" * 50) == 0


@pytest.mark.parametrize(
    "amount", ["", "x", "NaN", "-NaN", "sNaN", "Infinity", "-1", "-0.0000001", "1e999999999"]
)
def test_what_is_no_amount_is_none(amount: str) -> None:
    assert micros_of(amount) is None


def test_too_much_and_too_many_digits_are_none() -> None:
    assert micros_of(Decimal(MAX_MICROS) / 10**6) == MAX_MICROS
    assert micros_of("1000000000.0000001") is None
    assert micros_of("0." + "1" * 65) is None
    assert micros_of("0" * 10_000_000) is None
