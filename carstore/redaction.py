"""What does not go into an event but beside it: decided as an event is about to be appended.

Three things put a value into a blob. Whoever appends says where in the event a sensitive value
stands (`Entry.sensitive`). A rule of the store names fields and state keys that are sensitive
wherever they stand. And what is larger than a limit goes, if it is a value of somebody's (an
output, a parameter, the value of a state key) and not what the runtime itself has to read.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from operator import is_
from typing import TypeAlias

import attrs
from attrs import field, frozen

from carstore import canonical
from carstore.blobs import Blob, make_blob, referred
from carstore.events import Event, ProposalReceived, StateChanged
from carstore.names import Json, is_output_reference

JsonPath: TypeAlias = tuple[str | int, ...]
"""A way into an event: the name of a field, then names and indexes; `*` is any of them."""

_Change: TypeAlias = Callable[[Json], Json]

INLINE_BYTES = 64 * 1024
"""Bytes of canonical text up to which a value stands in its event."""

_OF_AN_ACTION: tuple[JsonPath, ...] = (
    ("parameters",),
    ("expected_effects",),
    ("compensation", "parameters"),
    ("metadata",),
)
"""Objects of an action whose fields are somebody's values."""

_ON_STATE = ("state_write", "state_read", "assertion")
"""Types of actions whose parameters are the name of a state key and a value of it."""

_LARGE: dict[str, tuple[JsonPath, ...]] = {
    "proposal_received": (
        *[("proposal", "actions", "*", *path, "*") for path in _OF_AN_ACTION],
        ("proposal", "context", "*"),
    ),
    "action_succeeded": (("output",),),
    "action_failed": (("output",),),
    "action_deduplicated": (("output",),),
    "action_logged": (("data",),),
    "compensation_succeeded": (("output",),),
    "doubt_resolved": (("output",),),
    "signal_sent": (("value",),),
    "pursuit_started": (("goal",),),
    "pursuit_ended": (("answer",),),
    "state_changed": (("value",),),
}
"""Where values of any size stand, per kind. Other kinds hold nothing of anybody's: triggers and the
runtime read them, by names like `token` that a rule may well mean."""


def _lower(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"names is a list of names, not the text {names!r:.80}")
    return tuple(map(_pattern, names))


def _pattern(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"names holds {name!r:.80}, which is not a text")
    bare = name.removeprefix("*").removesuffix("*")
    if "*" in bare or (not bare and name != "*"):
        raise ValueError(
            f"names holds {name!r:.80}: write a name, with a * at its beginning, its end or both"
        )
    return name.lower()


@frozen(kw_only=True)
class Redaction:
    """The rules of a store.

    Args:
        names: of fields of JSON objects and of state keys whose values are sensitive wherever they
            stand; case does not matter, and a `*` at either end stands for anything.
        inline_bytes: how large a value may be to stand in its event.
    """

    names: tuple[str, ...] = field(default=(), converter=_lower)
    inline_bytes: int = field(default=INLINE_BYTES, validator=attrs.validators.ge(0))

    def union(self, names: Iterable[str]) -> "Redaction":
        """These rules, and that `names` are sensitive too.

        Raises:
            ValueError: one of them is no rule.
        """
        return attrs.evolve(self, names=tuple(dict.fromkeys([*names, *self.names])))

    def is_sensitive(self, name: str) -> bool:
        """Whether a field or a state key of this name is."""
        lower = name.lower()
        return any(_matches(pattern, lower) for pattern in self.names)

    def applied(self, event: Event, sensitive: Iterable[JsonPath] = ()) -> tuple[Event, list[Blob]]:
        """`event` with references in it, and the values they stand for.

        Raises:
            InvalidJson: a value is none that JSON can hold.
        """
        blobs: list[Blob] = []
        changed: dict[str, Json] = {}
        for name in _json_fields(event.kind):
            value = getattr(event, name)
            made = self._redacted(event, name, value, sensitive, blobs)
            if made is not value:
                changed[name] = made
        return (attrs.evolve(event, **changed) if changed else event), blobs

    def _redacted(
        self, event: Event, name: str, value: Json, sensitive: Iterable[JsonPath], blobs: list[Blob]
    ) -> Json:
        def hide(value: Json) -> Json:
            return _beside(value, blobs, sensitive=True)

        def shorten(value: Json) -> Json:
            if len(canonical.dumps(value).encode()) <= self.inline_bytes:
                return value
            return _beside(value, blobs, sensitive=False)

        for path in sensitive:
            if path[0] == name:
                value = _replaced(value, path[1:], _at(path, event, hide))
        if self.names:
            value = self._by_name(event, value, hide)
        for path in _LARGE.get(event.kind, ()):
            if path[0] == name:
                value = _replaced(value, path[1:], _at(path, event, shorten))
        return value

    def _by_name(self, event: Event, value: Json, hide: _Change) -> Json:
        if isinstance(event, StateChanged):
            return self._of_key(event.key, hide)(value)
        walk = partial(self._without_names, hidden=hide)
        if isinstance(event, ProposalReceived):
            value = _replaced(value, ("context",), walk)
            return _replaced(
                value, ("actions", "*"), lambda action: self._in_action(action, hide, walk)
            )
        return walk(value)

    def _of_key(self, key: object, hide: _Change) -> _Change:
        """What becomes of a value of this state key."""
        if self.is_sensitive(str(key)):
            return hide
        return partial(self._without_names, hidden=hide)

    def _in_action(self, action: Json, hide: _Change, walk: _Change) -> Json:
        """An action of a plan. The parameters of one on the state are the name of a key and its
        value; those of others are named as the tool names them."""
        kept = partial(_but_references, change=hide)
        parameters = action.get("parameters")
        on_state = action.get("type") in _ON_STATE and type(parameters) is dict
        for path in _OF_AN_ACTION:
            if path[-1] != "parameters":
                action = _replaced(action, path, walk)
            elif path == ("parameters",) and on_state:
                change = self._of_key(parameters.get("key"), kept)
                action = _replaced(action, ("parameters", "value"), change)
                action = _replaced(action, ("parameters", "expected"), change)
            else:
                action = _replaced(action, path, partial(self._without_names, hidden=kept))

        def in_condition(condition: Json) -> Json:
            change = self._of_key(condition.get("key"), hide)
            return _replaced(condition, ("value",), change)

        return _replaced(action, ("preconditions", "*"), in_condition)

    def _without_names(self, value: Json, hidden: _Change) -> Json:
        if type(value) is dict:
            if referred(value) is not None:
                return value
            made = {
                name: hidden(item)
                if self.is_sensitive(str(name))
                else self._without_names(item, hidden)
                for name, item in value.items()
            }
            return made if any(made[name] is not value[name] for name in made) else value
        if type(value) is list:
            items = [self._without_names(item, hidden) for item in value]
            same = all(map(is_, items, value))
            return value if same else items
        return value


def _matches(pattern: str, name: str) -> bool:
    bare = pattern.strip("*")
    if pattern == bare:
        return name == bare
    if pattern.startswith("*") and pattern.endswith("*"):
        return bare in name
    return name.endswith(bare) if pattern.startswith("*") else name.startswith(bare)


def _at(path: JsonPath, event: Event, change: _Change) -> _Change:
    """What becomes of the value at `path`: parameters in a plan may be references to outputs."""
    of_action = path[3:] if isinstance(event, ProposalReceived) else ()
    if of_action[:1] == ("parameters",) or of_action[:2] == ("compensation", "parameters"):
        return partial(_but_references, change=change)
    return change


def _but_references(value: Json, change: _Change) -> Json:
    """`value` changed as a whole, or if it holds references to outputs, all but these: what they
    stand for is not known before the actions are done. A text that is escaped, so as not to be
    taken for one, goes as what the tool is given: nobody unescapes what stands beside the log."""
    if type(value) is str:
        if not is_output_reference(value):
            return change(value)
        if not value.startswith("$$"):
            return value
        text = value[1:]
        made = change(text)
        return value if made is text else made
    if (type(value) is dict or type(value) is list) and _holds_reference(value):
        return _replaced(value, ("*",), partial(_but_references, change=change))
    return change(value)


def _holds_reference(value: Json) -> bool:
    if type(value) is str:
        return is_output_reference(value)
    if type(value) is dict:
        return any(map(_holds_reference, value.values()))
    return type(value) is list and any(map(_holds_reference, value))


def _beside(value: Json, blobs: list[Blob], *, sensitive: bool) -> Json:
    """A reference to `value`. Nothing, and what is a reference already, stays as it is."""
    if value is None or referred(value) is not None:
        return value
    blob = make_blob(value, sensitive=sensitive)
    blobs.append(blob)
    return blob.reference


def _replaced(value: Json, path: JsonPath, replace: _Change) -> Json:
    """`value` with what stands at `path` replaced, if anything does; copies along the way."""
    if not path:
        return replace(value)
    step, rest = path[0], path[1:]
    if type(value) is dict:
        if referred(value) is not None:
            return value
        names = list(value) if step == "*" else [step] if step in value else []
        made = {
            name: changed
            for name in names
            if (changed := _replaced(value[name], rest, replace)) is not value[name]
        }
        return {**value, **made} if made else value
    if type(value) is list and step == "*":
        items = [_replaced(item, rest, replace) for item in value]
        return value if all(map(is_, items, value)) else items
    if type(value) is list and type(step) is int and 0 <= step < len(value):
        item = _replaced(value[step], rest, replace)
        return value if item is value[step] else [*value[:step], item, *value[step + 1 :]]
    return value


@cache
def _json_fields(kind: str) -> tuple[str, ...]:
    """The fields of a kind that hold values of somebody's."""
    return tuple(dict.fromkeys([str(path[0]) for path in _LARGE.get(kind, ())]))
