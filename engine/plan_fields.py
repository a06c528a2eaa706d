"""The fields of a proposal as strict cattrs hooks: what each can hold, and how it says no."""

import re
from collections.abc import Callable
from datetime import date
from enum import Enum
from typing import Any

from carstore.names import Json
from engine.ir import Bounds
from engine.problems import ProblemCode, Step, shown, suggestion, with_value
from engine.rules.identifiers import problem_with_id, problem_with_state_key

__all__ = [
    "Hook",
    "Refused",
    "a_boolean",
    "a_key",
    "a_source",
    "a_string",
    "a_timestamp",
    "an_id",
    "an_integer",
    "an_object",
    "one_of",
    "wrong_type",
]

Hook = Callable[[Any, Any], Any]
"""Takes a JSON value and the type of its field; gives the value of the field."""


class Refused(ValueError):
    """A value that its field cannot hold; `step` leads to a part of it that is at fault."""

    def __init__(self, code: ProblemCode, reason: str, step: Step | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.step = step


_KINDS = {bool: "boolean", int: "number", float: "number", str: "string"}


def wrong_type(value: Json, expected: str) -> Refused:
    """`value` is not what is `expected`."""
    kind = _KINDS.get(type(value))
    given = f"{shown(value)} is a {kind}" if kind else shown(value)
    return Refused(ProblemCode.WRONG_TYPE, f"{given}; expected {expected}")


def a_string(value: Json, _: Any) -> str:
    if type(value) is not str:
        raise wrong_type(value, "a string")
    return value


def a_boolean(value: Json, _: Any) -> bool:
    if type(value) is not bool:
        raise wrong_type(value, "true or false")
    return value


def an_object(value: Json, _: Any) -> dict[str, Json]:
    if type(value) is not dict:
        raise wrong_type(value, "an object")
    return value


def an_id(value: Json, _: Any) -> str:
    if type(value) is not str:
        raise wrong_type(value, "a string, an id")
    return _spelled(value, ProblemCode.INVALID_ID, problem_with_id(value))


def a_key(value: Json, _: Any) -> str:
    if type(value) is not str:
        raise wrong_type(value, "a string, a state key")
    return _spelled(value, ProblemCode.INVALID_KEY, problem_with_state_key(value))


def a_source(value: Json, _: Any) -> str:
    if type(value) is not str:
        raise wrong_type(value, "a string, the name of who proposes")
    return _spelled(value, ProblemCode.INVALID_SOURCE, problem_with_state_key(value))


def _spelled(value: str, code: ProblemCode, reason: str | None) -> str:
    if reason is None:
        return value
    raise Refused(code, with_value(value, reason))


_RFC_3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)"
    r"(?:\.[0-9]{1,12})?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])\Z"
)


def a_timestamp(value: Json, _: Any) -> str:
    if type(value) is not str:
        raise wrong_type(value, "a string, an RFC 3339 timestamp")
    match = _RFC_3339.match(value)
    if match is None or not _is_date(*map(int, match.groups())):
        text = f"{shown(value)} is not RFC 3339; expected the like of 2026-01-31T12:00:00Z"
        raise Refused(ProblemCode.INVALID_TIMESTAMP, text)
    return value


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def one_of(kind: type[Enum]) -> Hook:
    """The hook for an enum whose values are strings."""
    members: dict[str, Enum] = {member.value: member for member in kind}
    allowed = ", ".join(members)

    def read(value: Json, _: Any) -> Enum:
        if type(value) is not str:
            raise wrong_type(value, f"one of {allowed}")
        if value not in members:
            text = f"{shown(value)} is not one of {allowed}{suggestion(value, members)}"
            raise Refused(ProblemCode.UNKNOWN_VALUE, text)
        return members[value]

    return read


def an_integer(kind: Any) -> Hook:
    """The hook for an int annotated with its `Bounds`."""
    bounds: Bounds = kind.__metadata__[0]
    expected = f"an integer from {bounds.least} to {bounds.most}"

    def read(value: Json, _: Any) -> int:
        if type(value) is not int:
            raise wrong_type(value, expected)
        if not bounds.least <= value <= bounds.most:
            raise Refused(ProblemCode.OUT_OF_RANGE, f"{value} is not {expected}")
        return value

    return read
