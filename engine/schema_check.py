"""Values against JSON Schemas, with every error at once and nothing fetched from anywhere.

A schema is compiled once and asked often. Those that allow any object are not compiled at all, so
a tool without a schema costs nothing. Patterns run in an engine of linear time. References must
stay inside the schema: others are refused before compiling, and the compiler is handed a
retriever that only raises, in case one was overlooked.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from attrs import field, frozen

from carstore.blobs import is_hidden
from carstore.names import Json
from engine.problems import Step, path_text, printable, shown

__all__ = ["BadSchema", "SchemaCheck", "compile_schema"]

MAX_ERRORS_FOUND = 1_000
"""Errors looked at for one value: a list of a million wrong items needs no million errors."""

MAX_ERRORS_TOLD = 50
"""Errors told for one value; whoever mends that many asks again."""

MAX_MESSAGE_CHARS = 300
"""Characters of one error after its path: it is stored in the log and read in a terminal."""

HIDDEN = "[sensitive]"
"""Stands for a sensitive value in an error."""

# Stands for the value in the compiler's messages; a private-use character that it cannot mean.
_MASK = "\ue000"

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_HOLDS_DATA = ("const", "default", "enum", "examples")
_ALLOWS_ANY_OBJECT = {"type", "title", "description"}


class BadSchema(Exception):
    """A JSON Schema that cannot be used. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Error(Protocol):
    @property
    def message(self) -> str: ...
    @property
    def instance_path(self) -> list[Step]: ...
    @property
    def schema_path(self) -> list[Step]: ...
    @property
    def instance(self) -> Json: ...


class _Validator(Protocol):
    def is_valid(self, instance: Any) -> bool: ...
    def iter_errors(self, instance: Any) -> Iterator[Any]: ...


@frozen
class SchemaCheck:
    """One compiled schema."""

    root: str
    """What the value is called in errors."""
    _objects_only: bool
    _validator: _Validator | None = field(repr=False)

    def errors(self, value: Json, public: Json = None) -> list[str]:
        """Everything wrong with `value`, a JSON value, in the order of its paths; [] if nothing.

        Args:
            public: the same with references in the place of what is sensitive. Of an error there,
                only the place and the keyword of the schema are told.
        """
        if self._validator is None:
            if not self._objects_only or type(value) is dict:
                return []
            said = HIDDEN if is_hidden(public) else shown(value)
            return [f"{self.root}: {said} is not an object"]
        if self._validator.is_valid(value):
            return []
        found = list(islice(self._validator.iter_errors(value), MAX_ERRORS_FOUND))
        told = [
            _told(self.root, error, public) for error in sorted(found, key=_place)[:MAX_ERRORS_TOLD]
        ]
        if len(found) > len(told):
            more = "at least " if len(found) == MAX_ERRORS_FOUND else ""
            told.append(f"{self.root}: and {more}{len(found) - len(told)} more errors")
        return told


def compile_schema(schema: dict[str, Json], root: str) -> SchemaCheck:
    """Make the check of `schema`, calling the values `root` in its errors.

    Raises:
        BadSchema: if it is not valid JSON Schema (2020-12, unless its `$schema` says otherwise),
            or refers to something outside itself.
    """
    if schema.keys() <= _ALLOWS_ANY_OBJECT and schema.get("type", "object") == "object":
        return SchemaCheck(root, objects_only="type" in schema, validator=None)
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise BadSchema(_outside(reference))

    import jsonschema_rs  # here, because most programs that import the engine check nothing

    try:
        validator = jsonschema_rs.validator_for(
            schema,
            mask=_MASK,
            retriever=_refuse_to_fetch,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except jsonschema_rs.ValidationError as error:
        raise BadSchema(_invalid(error)) from None
    return SchemaCheck(root, objects_only=False, validator=validator)


def _references(schema: Json) -> Iterator[str]:
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            for key, value in part.items():
                if isinstance(value, str) and key in _REFERENCES:
                    yield value
                elif key not in _HOLDS_DATA:
                    pending.append(value)


def _outside(reference: str) -> str:
    return (
        f"it refers to {shown(reference)}, outside itself. Nothing is ever fetched: put that "
        "schema under $defs and refer to it as #/$defs/NAME"
    )


def _refuse_to_fetch(uri: str) -> Json:
    raise LookupError(_outside(uri))


def _invalid(error: _Error) -> str:
    place = f" at {path_text(tuple(error.instance_path))}" if error.instance_path else ""
    return f"not valid JSON Schema{place}: {_clipped(error.message)}"


def _place(error: _Error) -> tuple[list[tuple[bool, int, str]], str]:
    """Numbers in order of size, names in order of letters; the two kinds of step never meet."""
    steps = [
        (False, step, "") if isinstance(step, int) else (True, 0, step)
        for step in error.instance_path
    ]
    return steps, error.message


def _told(root: str, error: _Error, public: Json) -> str:
    steps = error.instance_path
    hidden = None if public is None else _hidden_at(public, steps)
    if hidden is not None:
        keyword = shown(str(error.schema_path[-1]))
        return f"{path_text((root, *steps[:hidden]))}: {HIDDEN} breaks {keyword} of its schema"
    path = path_text((root, *steps))
    return f"{path}: {_clipped(error.message.replace(_MASK, shown(error.instance), 1))}"


def _hidden_at(public: Json, steps: list[Step]) -> int | None:
    """How many of `steps` lead to what is hidden, if it is on the way."""
    for taken, step in enumerate(steps):
        if is_hidden(public):
            return taken
        try:
            public = public[step]
        except (LookupError, TypeError):
            return taken
    return len(steps) if is_hidden(public) else None


def _clipped(text: str) -> str:
    text = printable(text)
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 3] + "..."
