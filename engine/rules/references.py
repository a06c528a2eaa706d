"""Output references: a parameter that stands for what an earlier action gave.

A string that is exactly `$<id>.output` is replaced by the output of the action `<id>`, and
`$<id>.output.<path>` by a part of it: each segment of the path, dots between, is the key of an
object or the index (0, 1, 2 ...) of an array. References are looked for anywhere in the parameters
of an action or of its compensation, in values, never in keys, and only whole strings are
references: `"see $a.output"` is plain text.

Ids may hold dots, so a reference is read against the ids of its proposal, the longest one that
fits. A key that holds a dot, or is empty, cannot be reached; refer to the object around it.

Literal text of this form is written with one more `$`: whatever the id, `"$$a.output"` is handed to
the tool as `"$a.output"`. Other strings, with any number of `$`, are what they are.
"""

import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import ClassVar

from attrs import define, frozen

from carstore import canonical
from carstore.errors import CarstoreError
from carstore.names import Json, is_output_reference
from engine.problems import Step, shown
from engine.rules.identifiers import MAX_ID_CHARS

__all__ = [
    "Reference",
    "UnresolvedReference",
    "find",
    "read",
    "references",
    "resolve",
]

_OUTPUT = ".output"
_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")


@define(slots=False, eq=False)
class UnresolvedReference(CarstoreError):
    """An output reference that leads nowhere."""

    code: ClassVar[str] = "unresolved_reference"
    reference: str
    reason: str

    @property
    def message(self) -> str:
        return f"{shown(self.reference)} {self.reason}"


@frozen
class Reference:
    """A string that was read as a reference."""

    text: str
    action_id: str
    path: tuple[str, ...]


def read(text: str, ids: Container[str]) -> Reference | None:
    """`text` as a reference to one of the actions `ids`; None if it is plain or escaped text.

    Raises:
        UnresolvedReference: it has the form of a reference, but names no action of `ids`, or a
            segment of its path is empty.
    """
    if not is_output_reference(text) or text.startswith("$$"):
        return None
    end = text.rfind(_OUTPUT, 0, 1 + MAX_ID_CHARS + len(_OUTPUT))
    while end > 0:
        rest = text[end + len(_OUTPUT) :]
        if (not rest or rest[0] == ".") and text[1:end] in ids:
            path = tuple(rest[1:].split(".")) if rest else ()
            if "" in path:
                raise UnresolvedReference(text, "has an empty segment in its path")
            return Reference(text, text[1:end], path)
        end = text.rfind(_OUTPUT, 0, end)
    raise UnresolvedReference(
        text, "names no action of this proposal (plain text of this form is written with $$)"
    )


def find(value: Json) -> list[tuple[tuple[Step, ...], str]]:
    """Every string in the object or list `value` that begins with `$`, and the steps to it."""
    found: list[tuple[tuple[Step, ...], str]] = []
    _find(value, (), found)
    return found


def _find(value: Json, steps: tuple[Step, ...], found: list[tuple[tuple[Step, ...], str]]) -> None:
    items: Iterable[tuple[Step, Json]] = value.items() if type(value) is dict else enumerate(value)
    for step, item in items:
        kind = type(item)
        if kind is str:
            if item.startswith("$"):
                found.append(((*steps, step), item))
        elif kind is dict or kind is list:
            _find(item, (*steps, step), found)


def references(value: Json, ids: Container[str]) -> set[str]:
    """The ids of the actions whose outputs `value`, an object or a list, refers to.

    Raises:
        UnresolvedReference: as `read` does.
    """
    found = set()
    for _, text in find(value):
        reference = read(text, ids)
        if reference is not None:
            found.add(reference.action_id)
    return found


def resolve(
    value: Json,
    ids: Container[str],
    outputs: Mapping[str, Json] | Callable[[str], Json],
    *,
    max_chars: int = canonical.MAX_BYTES,
) -> Json:
    """`value` with every reference replaced, sharing no list or dict with `value` or an output.

    Args:
        value: parameters; they are not changed.
        ids: the ids of all actions of the proposal.
        outputs: gives the output of an action; a KeyError means that there is none.
        max_chars: about how large the result may become, in characters of JSON. Plans can double
            an output from action to action.

    Raises:
        UnresolvedReference: a reference that leads nowhere, and how far it went; or the one that
            makes the result too large.
    """
    output_of = outputs.__getitem__ if isinstance(outputs, Mapping) else outputs
    return _Resolver(ids, output_of, max_chars).parameters(value)


@define
class _Resolver:
    ids: Container[str]
    output_of: Callable[[str], Json]
    chars_left: int

    def parameters(self, value: Json) -> Json:
        kind = type(value)
        if kind is dict:
            return {key: self.parameters(item) for key, item in value.items()}
        if kind is list:
            return [self.parameters(item) for item in value]
        if kind is not str or not value.startswith("$"):
            return value
        reference = read(value, self.ids)
        if reference is not None:
            return self.copy(self.target(reference), reference)
        return value[1:] if is_output_reference(value) else value

    def target(self, reference: Reference) -> Json:
        try:
            value = self.output_of(reference.action_id)
        except KeyError:
            raise UnresolvedReference(
                reference.text, f"refers to {reference.action_id}, which has no output"
            ) from None
        for place, segment in enumerate(reference.path):
            try:
                value = _step(value, segment)
            except LookupError:
                so_far = ".".join((f"${reference.action_id}{_OUTPUT}", *reference.path[:place]))
                raise UnresolvedReference(
                    reference.text,
                    f"goes no further than {shown(so_far)}, which is {_described(value)} "
                    f"without {shown(segment)}",
                ) from None
        return value

    def copy(self, value: Json, reference: Reference) -> Json:
        kind = type(value)
        self.chars_left -= len(value) + 2 if kind is str or kind is dict or kind is list else 1
        if self.chars_left < 0:
            raise UnresolvedReference(
                reference.text, "makes the parameters too large; refer to a part of the output"
            )
        if kind is dict:
            self.chars_left -= sum(map(len, value))
            return {key: self.copy(item, reference) for key, item in value.items()}
        if kind is list:
            return [self.copy(item, reference) for item in value]
        return value


def _step(value: Json, segment: str) -> Json:
    if type(value) is dict:
        return value[segment]
    if type(value) is list and _INDEX.match(segment):
        return value[int(segment)]
    raise LookupError(segment)


def _described(value: Json) -> str:
    return f"the string {shown(value)}" if type(value) is str else shown(value)
