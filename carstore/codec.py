"""Events to text and back.

The rules are cattrs hooks made strict: no coercion, no missing and no surplus field. Decoding uses
them as they are. Encoding is on the path of every append, so each class gets, from the same
fields, one f-string that writes its canonical text; cattrs generates its hooks in the same way. A
test holds the two equal for every class.

`StateChanged` is the one exception to "the fields are the data": its scope and key are columns, and
the position of the change it replaces is known only inside the transaction. Its text comes in two
parts, between which the log writes that number.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import cattrs
from attrs import fields
from cattrs.gen import make_dict_structure_fn

from carstore import canonical
from carstore.errors import InvalidEvent, InvalidJson, UnknownEvent
from carstore.events import KINDS, SCHEMA_VERSIONS, Event, StateChanged
from carstore.names import Json, Position, Scope, StateKey
from carstore.upcasts import upcast


class Encoded(NamedTuple):
    """An event as columns. `data` is whole, or lacks the number that goes before `rest`."""

    kind: str
    schema_version: int
    scope: str | None
    key: str | None
    data: str
    rest: str | None = None


def encode(event: Event) -> Encoded:
    """The columns of `event`.

    Raises:
        InvalidEvent: if a field does not hold what its class says, or JSON cannot hold it.
    """
    kind = event.kind
    if KINDS.get(kind) is not type(event):
        raise InvalidEvent(str(kind), "kind", "not a class of carstore.events")
    try:
        if kind == "state_changed":
            return _encode_state_changed(cast(StateChanged, event))
        data = canonical.bounded(_writer(kind)(event))
        if not data.isascii():
            data.encode()
    except (InvalidJson, TypeError, UnicodeEncodeError) as error:
        raise _named(event) or error from None
    return Encoded(kind, SCHEMA_VERSIONS[kind], None, None, data)


def decode(
    kind: str,
    schema_version: int,
    data: str,
    scope: str | None = None,
    key: str | None = None,
    position: int = 0,
) -> Event:
    """The event that `encode` was given.

    Raises:
        UnknownEvent: for a kind or schema version that this program does not know.
        InvalidEvent: if the data is not what the class says.
    """
    newest = SCHEMA_VERSIONS.get(kind, 0)
    if not 1 <= schema_version <= newest:
        raise UnknownEvent(kind, schema_version, Position(position))
    try:
        fields_of = canonical.loads_trusted(data)
        if type(fields_of) is not dict:
            raise ValueError("the data is not an object")
        if schema_version != newest:
            fields_of = upcast(kind, schema_version, newest, fields_of)
        if kind == "state_changed":
            return _decode_state_changed(fields_of, cast(Scope, scope), cast(StateKey, key))
        if fields_of.keys() != _names(kind):
            raise ValueError(f"fields {sorted(fields_of)} are not those of its class")
        return _structure(kind)(fields_of, None)
    except (cattrs.BaseValidationError, cattrs.ForbiddenExtraKeysError) as error:
        raise InvalidEvent(kind, f"position {position}", str(error)) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidEvent(kind, f"position {position}", f"{error!r}") from error


# --- encoding -------------------------------------------------------------------------------------


def _int(value: int) -> str:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise InvalidJson("$", f"{value!r:.80} is not an integer of 64 bits")
    return repr(value)


def _bool(value: bool) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    raise InvalidJson("$", f"{value!r:.80} is not true or false")


def _strings(value: tuple[str, ...]) -> str:
    if type(value) is not tuple:
        raise InvalidJson("$", f"{value!r:.80} is not a tuple")
    return "[" + ",".join([canonical.quote(item) for item in value]) + "]"


def _json(value: Json) -> str:
    return canonical.dumps(value)


# How each type of field is written: an expression in which {} is the field's value. `quote` itself
# refuses what is no string.
_EXPRESSIONS: dict[Any, str] = {
    str: "quote({})",
    int: "_int({})",
    bool: "_bool({})",
    str | None: "'null' if {0} is None else quote({0})",
    int | None: "'null' if {0} is None else _int({0})",
    tuple[str, ...]: "_strings({})",
    Json: "'null' if {0} is None else _json({0})",
}


@cache
def _writer(kind: str) -> Callable[[Event], str]:
    """A function from an event of `kind` to its canonical text, keys in order."""
    ordered = sorted(fields(KINDS[kind]), key=lambda attribute: attribute.name)
    parts = (
        f'"{attribute.name}":{{{_EXPRESSIONS[attribute.type].format(f"event.{attribute.name}")}}}'
        for attribute in ordered
    )
    source = f"lambda event: f'''{{{{{','.join(parts)}}}}}'''"
    names = {"quote": canonical.quote, "_int": _int, "_bool": _bool, "_strings": _strings,
             "_json": _json}  # fmt: skip
    return cast(Callable[[Event], str], eval(source, names))


def _encode_state_changed(event: StateChanged) -> Encoded:
    for text in (event.scope, event.key):
        if not canonical.quote(text).isascii():
            text.encode()
    if _bool(event.deleted) == "true":
        if event.value is not None:
            raise InvalidEvent(event.kind, "$.value", "a deletion has no value")
        head, rest = '{"deleted":true,"prev":', "}"
    else:
        head, rest = '{"prev":', f',"value":{canonical.dumps(event.value, "$.value")}}}'
    return Encoded("state_changed", 1, event.scope, event.key, head, rest)


def with_prev(encoded: Encoded, prev: int | None) -> str:
    """The whole text of a `state_changed`, given the position of the change it replaces."""
    return f"{encoded.data}{'null' if prev is None else prev}{encoded.rest}"


def _named(event: Event) -> InvalidEvent | None:
    """What is wrong, and in which field: looked for slowly, since nothing goes on."""
    for attribute in fields(type(event)):
        value, path = getattr(event, attribute.name), f"$.{attribute.name}"
        allowed = _ALLOWED[attribute.type]
        if allowed and type(value) not in allowed:
            wanted = " or ".join(kind.__name__ for kind in allowed)
            return InvalidEvent(event.kind, path, f"{value!r:.80} is not of type {wanted}")
        if type(value) is tuple and allowed:
            for index, item in enumerate(value):
                if type(item) is not str:
                    reason = f"{item!r:.80} is not of type str"
                    return InvalidEvent(event.kind, f"{path}[{index}]", reason)
            value = list(value)
        try:
            canonical.check(value, path)
        except InvalidJson as error:
            return InvalidEvent(event.kind, error.path, error.reason)
    return None


_ALLOWED: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    str | None: (str, type(None)),
    int | None: (int, type(None)),
    tuple[str, ...]: (tuple,),
    Json: (),
}


# --- decoding -------------------------------------------------------------------------------------


def _strictly(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"{value!r:.80} is not of type {kind.__name__}")
        return value

    return structure


def make_converter() -> cattrs.Converter:
    """The codec's rules: strict primitives, tuples of strings, free JSON, no surplus fields."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    for primitive in (str, int, bool):
        converter.register_structure_hook(primitive, _strictly(primitive))
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[str, ...],
        lambda value, _: tuple(
            [_strictly(str)(item, str) for item in _strictly(list)(value, None)]
        ),
    )
    return converter


_converter = make_converter()


@cache
def _names(kind: str) -> frozenset[str]:
    return frozenset(attribute.name for attribute in fields(KINDS[kind]))


@cache
def _structure(kind: str) -> Callable[[Json, Any], Event]:
    cls = KINDS[kind]
    return cast(
        Callable[[Json, Any], Event],
        make_dict_structure_fn(
            cls, _converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=False
        ),
    )


def _decode_state_changed(data: Json, scope: Scope, key: StateKey) -> StateChanged:
    prev = data.get("prev")
    if prev is not None and type(prev) is not int:
        raise ValueError(f"prev {prev!r:.80} is not a position")
    if data.keys() == {"deleted", "prev"} and data["deleted"] is True:
        return StateChanged(scope=scope, key=key, deleted=True, prev=prev)
    if data.keys() == {"prev", "value"}:
        return StateChanged(scope=scope, key=key, value=data["value"], prev=prev)
    raise ValueError(f"fields {sorted(data)} are not those of a state_changed")
