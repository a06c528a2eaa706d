"""When two JSON values are equal, as JSON means it: `true` is not 1, but 1.0 is 1."""

from carstore.names import Json

__all__ = ["is_number", "same"]


def same(left: Json, right: Json) -> bool:
    """Whether two JSON values are equal."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def is_number(value: Json) -> bool:
    """Whether `value` is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
