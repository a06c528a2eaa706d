"""Compares what was seen of a step with what it expects; knows nothing of the engine."""

from collections.abc import Callable
from typing import Any

__all__ = ["differences"]


def differences(expected: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """Everything in which what was seen is not what was expected; [] if nothing."""
    found = []
    for name, wanted in expected.items():
        compare = _COMPARE.get(name, _equal)
        said = compare(wanted, seen.get(name))
        if said is not None:
            found.append(f"{name}: {said}")
    surprises = [name for name in _SURPRISES if seen.get(name) and name not in expected]
    return found + [f"{name}: was not expected, but is {seen[name]!r}" for name in surprises]


_SURPRISES = (
    "problems",
    "error",
    "died",
    "not_undone",
    "conflicts",
    "waits_for",
    "stopped",
    "replaces",
)
"""What a case has to say if it is so."""


def _equal(wanted: Any, seen: Any) -> str | None:
    if wanted == seen and type(wanted) is type(seen):
        return None
    return f"expected {wanted!r}\n    but it is {seen!r}"


def _ordered(wanted: dict[str, Any], seen: Any) -> str | None:
    """Equal, and in the same order."""
    return _equal(list(wanted.items()), list((seen or {}).items()))


def _part(wanted: dict[str, Any], seen: Any) -> str | None:
    """Each of the named ones is equal; others are not looked at."""
    found = {name: (seen or {}).get(name, "(nothing)") for name in wanted}
    return _equal(wanted, found)


def _in_order(wanted: list[Any], seen: Any) -> str | None:
    """Each `[kind, fields]` is found, in this order, with at least these fields."""
    left = iter(seen or ())
    for kind, fields in wanted:
        if not any(
            kind == other and all(name in data and data[name] == fields[name] for name in fields)
            for other, data in left
        ):
            return f"there is no {kind} with {fields!r} (in this order) in {seen!r}"
    return None


_COMPARE: dict[str, Callable[[Any, Any], str | None]] = {
    "actions": _ordered,
    "outputs": _part,
    "attempts": _part,
    "changes": _part,
    "details": _in_order,
}
