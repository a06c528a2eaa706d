"""The classes of a proposal as cattrs rules: read strictly, written without defaults.

Two converters read by the same rules. One stops at the first fault, which is fast; the other goes
over everything and collects, which is for telling people.

The one that writes is forgiving: a proposal that was built in a program may hold anything, and
what it holds must come out as it is for the others to judge.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Annotated, Any, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import homogenous_tuple_structure_factory, mapping_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from carstore.names import Json
from engine import plan_fields
from engine.ir import (
    ActionRef,
    ActionType,
    Bounds,
    Compensation,
    FailureBehavior,
    Id,
    Key,
    Operator,
    Reversibility,
    Source,
    Timestamp,
    ToolCompensation,
)
from engine.plan_fields import Hook, Refused, wrong_type
from engine.problems import Problem, ProblemCode, Step, path_text, shown, suggestion

__all__ = ["ALL_FAULTS", "FIRST_FAULT", "problems_in", "reader", "writer"]

FIRST_FAULT = (Refused, KeyError, ForbiddenExtraKeysError)
"""What a reader that stops at the first fault raises."""

ALL_FAULTS = (Refused, BaseValidationError)
"""What a collecting reader raises."""


_ENUMS: tuple[type[Enum], ...] = (ActionType, FailureBehavior, Operator, Reversibility)


def reader(*, collect: bool) -> Converter:
    """A converter from JSON: collecting all faults, or stopping at the first."""
    converter = Converter(detailed_validation=collect, forbid_extra_keys=True)
    converter.register_structure_hook_factory(attrs.has, _class)
    converter.register_structure_hook_factory(_is_tuple, _list)
    converter.register_structure_hook_factory(_is(dict[Key, Json]), _keyed)
    converter.register_structure_hook_factory(_is(Compensation | None), _compensation)
    converter.register_structure_hook_factory(_is_optional, _optional)
    converter.register_structure_hook_factory(_is_bounded, plan_fields.an_integer)
    # Plain classes are registered as such: for these cattrs asks its own hooks before predicates.
    converter.register_structure_hook(str, plan_fields.a_string)
    converter.register_structure_hook(bool, plan_fields.a_boolean)
    for enum in _ENUMS:
        converter.register_structure_hook(enum, plan_fields.one_of(enum))
    for kind, hook in {
        Id: plan_fields.an_id,
        Key: plan_fields.a_key,
        Source: plan_fields.a_source,
        Timestamp: plan_fields.a_timestamp,
        dict[str, Json]: plan_fields.an_object,
    }.items():
        converter.register_structure_hook_func(_is(kind), hook)
    return converter


def writer() -> Converter:
    """A converter to JSON: ids and types always, other fields only where not the default."""
    converter = Converter()
    converter.register_unstructure_hook_factory(attrs.has, _fields)
    converter.register_unstructure_hook_factory(_is_tuple, _array)
    converter.register_unstructure_hook_factory(_is(Compensation | None), _tagged)
    for enum in _ENUMS:
        converter.register_unstructure_hook(enum, _enum_value)
    for kind in (dict[str, Json], dict[Key, Json]):
        converter.register_unstructure_hook_func(_is(kind), _as_it_is)
    return converter


def problems_in(error: Exception, steps: tuple[Step, ...]) -> Iterator[Problem]:
    """The faults in what a collecting reader raised for the value at `steps`."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            steps = (*steps, note.name)
        elif isinstance(note, IterableValidationNote):
            steps = (*steps, note.index)
    match error:
        case BaseValidationError():
            for inner in error.exceptions:
                yield from problems_in(inner, steps)
        case Refused():
            if error.step is not None:
                steps = (*steps, error.step)
            yield Problem(error.code, path_text(steps), error.reason)
        case KeyError():
            yield Problem(ProblemCode.MISSING_FIELD, path_text(steps), "missing")
        case ForbiddenExtraKeysError():
            known = _field_names(error.cl)
            for name in sorted(error.extra_fields):
                hint = suggestion(name, known) or f"; known are {', '.join(known)}"
                path = path_text((*steps, name))
                yield Problem(ProblemCode.UNKNOWN_FIELD, path, f"not a field here{hint}")
        case _:
            raise error


def _is(kind: Any) -> Callable[[Any], bool]:
    return lambda asked: bool(asked == kind)


def _is_tuple(kind: Any) -> bool:
    origin: object = get_origin(kind)
    return origin is tuple


def _is_bounded(kind: Any) -> bool:
    return get_origin(kind) is Annotated and isinstance(kind.__metadata__[0], Bounds)


def _is_optional(kind: Any) -> bool:
    return kind != Compensation | None and len(get_args(kind)) == 2 and type(None) in get_args(kind)


def _optional(kind: Any, converter: Converter) -> Hook:
    (present,) = set(get_args(kind)) - {type(None)}
    hook = converter.get_structure_hook(present)
    return lambda value, _: None if value is None else hook(value, present)


def _class(kind: type, converter: Converter) -> Hook:
    return _guarded(make_dict_structure_fn(kind, converter), dict, "an object")


def _list(kind: Any, converter: Converter) -> Hook:
    return _guarded(homogenous_tuple_structure_factory(kind, converter), list, "a list")


def _keyed(kind: Any, converter: Converter) -> Hook:
    base: Hook = mapping_structure_factory(kind, converter)
    return _guarded(base, dict, "an object of state keys and values")


def _guarded(base: Hook, container: type, expected: str) -> Hook:
    """cattrs takes any iterable for a list and looks for fields in strings; this one does not."""

    def read(value: Json, kind: Any) -> Any:
        if type(value) is not container:
            raise wrong_type(value, expected)
        return base(value, kind)

    return read


_TAGS: dict[str, type] = {"tool": ToolCompensation, "action_ref": ActionRef}


def _compensation(_: Any, converter: Converter) -> Hook:
    def read(value: Json, _: Any) -> Any:
        if value is None:
            return None
        if type(value) is not dict:
            raise wrong_type(value, "an object or null")
        expected = " or ".join(_TAGS)
        if "type" not in value:
            raise Refused(ProblemCode.MISSING_FIELD, f"missing; expected {expected}", "type")
        tag = value["type"]
        if type(tag) is not str or tag not in _TAGS:
            text = f"{shown(tag)} is not {expected}"
            raise Refused(ProblemCode.UNKNOWN_VALUE, text, "type")
        return converter.structure({k: v for k, v in value.items() if k != "type"}, _TAGS[tag])

    return read


def _field_names(kind: type) -> list[str]:
    names = [field.name for field in attrs.fields(kind)]
    return ["type", *names] if kind in _TAGS.values() else names


_ALWAYS = {"id", "type"}
"""Fields that are written also when they hold their default: an id's is another one each time."""


def _fields(kind: type, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    overrides: dict[str, Any] = {
        field.name: override(omit_if_default=False)
        for field in attrs.fields(kind)
        if field.name in _ALWAYS
    }
    return make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True, **overrides)


def _as_it_is(value: Any) -> Any:
    return value


def _enum_value(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _array(kind: Any, converter: Converter) -> Callable[[Any], Any]:
    item = get_args(kind)[0]
    if not attrs.has(item):
        return lambda value: list(value) if type(value) is tuple else value
    write = converter.get_unstructure_hook(item)

    def array(value: Any) -> Any:
        if type(value) is not tuple:
            return value
        return [write(each) if type(each) is item else each for each in value]

    return array


def _tagged(_: Any, converter: Converter) -> Callable[[Any], Any]:
    writers = {kind: (tag, converter.get_unstructure_hook(kind)) for tag, kind in _TAGS.items()}

    def write(value: Any) -> Any:
        if type(value) not in writers:
            return value
        tag, fields = writers[type(value)]
        return {"type": tag, **fields(value)}

    return write
