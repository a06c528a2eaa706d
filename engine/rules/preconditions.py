"""Whether the state is as an action demands. A condition that cannot be judged does not hold."""

import operator as python
from collections.abc import Callable, Mapping
from types import MappingProxyType

from carstore import canonical
from carstore.blobs import filled
from carstore.log import StateRead
from carstore.names import Json
from engine.ir import Operator, Precondition
from engine.rules.sensitive import veiled
from engine.rules.values import is_number, same

__all__ = ["violation"]

MAX_SHOWN_CHARS = 80
"""Of a value, in a message."""


def violation(
    condition: Precondition, found: StateRead, values: Mapping[str, Json] = MappingProxyType({})
) -> str | None:
    """Why `condition` does not hold for the state of its key, or None if it does.

    A missing key fails every operator that compares; a key that holds null exists. Order is
    defined for numbers only. `contains` asks for a part of a string, an item of a list or a key
    of an object. What stands beside the log is compared by its value, and not shown if sensitive.

    Args:
        values: beside the log, by hash, as far as the comparison may need them.
    """
    kind = condition.operator
    if kind is Operator.EXISTS:
        holds = found.exists
    elif kind is Operator.NOT_EXISTS:
        holds = not found.exists
    else:
        compare = _COMPARE.get(kind)
        actual, wanted = found.value, condition.value
        if values:
            actual, wanted = filled(actual, values), filled(wanted, values)
        holds = found.exists and compare is not None and compare(actual, wanted)
    return None if holds else _message(condition, found)


def _ordered(compare: Callable[[Json, Json], bool]) -> Callable[[Json, Json], bool]:
    return lambda left, right: is_number(left) and is_number(right) and compare(left, right)


def _contains(whole: Json, part: Json) -> bool:
    if isinstance(whole, list):
        return any(same(item, part) for item in whole)
    return isinstance(part, str) and isinstance(whole, str | dict) and part in whole


_COMPARE: Mapping[Operator, Callable[[Json, Json], bool]] = {
    Operator.EQ: same,
    Operator.NEQ: lambda left, right: not same(left, right),
    Operator.GT: _ordered(python.gt),
    Operator.LT: _ordered(python.lt),
    Operator.GTE: _ordered(python.ge),
    Operator.LTE: _ordered(python.le),
    Operator.CONTAINS: _contains,
}


def _message(condition: Precondition, found: StateRead) -> str:
    wanted = f"{condition.key} {condition.operator.value}"
    if condition.operator not in (Operator.EXISTS, Operator.NOT_EXISTS):
        wanted += f" {_shown(condition.value)}"
    actual = f"it is {_shown(found.value)}" if found.exists else "it does not exist"
    text = f"precondition failed: {wanted}, but {actual}"
    return f"{text} ({condition.description})" if condition.description else text


def _shown(value: Json) -> str:
    text = canonical.dumps(veiled(value))
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
