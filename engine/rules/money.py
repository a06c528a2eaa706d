"""Amounts of money: exact decimals outside, whole micro-units inside, never a float."""

from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation

__all__ = ["MAX_MICROS", "micros_of"]

MAX_MICROS = 10**15
"""A thousand million units: nine thousand such amounts still add up within 64 bits."""

_MAX_DIGITS = 64
_MAX_UNITS = Decimal(MAX_MICROS // 10**6)

# Wide enough for `_MAX_DIGITS` digits to be scaled without a rounding of its own before the one
# that counts. decimal's ROUND_HALF_UP is half away from zero.
_EXACT = Context(prec=2 * _MAX_DIGITS, rounding=ROUND_HALF_UP)


def micros_of(amount: Decimal | str) -> int | None:
    """`amount` of a currency in millionths, rounded half away from zero.

    None if it is not a decimal number, not finite, negative, above `MAX_MICROS`, or written with
    more than 64 digits. Source: the budget tracker of ARCP.
    """
    try:
        units = Decimal(amount) if len(str(amount)) <= 2 * _MAX_DIGITS else None
    except InvalidOperation:
        return None
    if units is None or not units.is_finite() or not 0 <= units <= _MAX_UNITS:
        return None
    if len(units.as_tuple().digits) > _MAX_DIGITS:
        return None
    return int(units.scaleb(6, context=_EXACT).to_integral_value(context=_EXACT))
