"""What a tool declares about itself: its schema, and how often it may be called."""

import hashlib
import math
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, cast

from attrs import define, field, fields_dict, frozen

from carstore import canonical
from carstore.errors import CarstoreError, InvalidJson
from carstore.names import Json
from engine.ir import MAX_TIMEOUT_MS
from engine.problems import shown, suggestion
from engine.rules.copies import own_copy
from engine.rules.identifiers import problem_with_id
from engine.rules.money import micros_of
from engine.schema_check import BadSchema, SchemaCheck, compile_schema

__all__ = ["EffectMode", "InvalidTool", "RateLimit", "ToolSchema"]

MAX_SCHEMA_BYTES = 256 * 1024
"""Bytes of one tool's schema as canonical JSON: models are shown it, and few read more."""

MAX_SECONDS = 10 * 365 * 24 * 3600
"""Ten years: longer than any process lives, and far from where the clocks' integers end."""


@define(slots=False, eq=False)
class InvalidTool(CarstoreError):
    """A tool that cannot be used as it is declared. `reason` says what to change."""

    code: ClassVar[str] = "invalid_tool"
    tool: str
    """Its name; "" if it has none yet, or the fault is not that of one tool."""
    reason: str
    path: str | None = None
    """The field at fault, or the file of tools."""

    @property
    def message(self) -> str:
        who = [f"tool {self.tool!r:.140}"] if self.tool else []
        return f"{', '.join([*who, *([self.path] if self.path else [])])}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.path


class EffectMode(StrEnum):
    """What a second call of a tool would do to the world. Only the tool itself may say so."""

    READ_ONLY = "read_only"
    """A call changes nothing."""
    IDEMPOTENT = "idempotent"
    """Two calls with one idempotency key do what one call does."""
    ONCE = "once"
    """A second call may do it a second time."""


@frozen
class RateLimit:
    """A token bucket: `max_calls` tokens, refilled within `interval_secs`."""

    max_calls: int
    interval_secs: float

    def __attrs_post_init__(self) -> None:
        if not _is_int(self.max_calls, 1, 10**9):
            raise InvalidTool(
                "", f"{self.max_calls!r:.40} is not an integer from 1", "rate_limit.max_calls"
            )
        seconds: Any = self.interval_secs
        if (
            type(seconds) not in (int, float)
            or not math.isfinite(seconds)
            or not 0 < seconds <= MAX_SECONDS
        ):
            raise InvalidTool(
                "", f"{seconds!r:.40} is not a number above 0", "rate_limit.interval_secs"
            )
        object.__setattr__(self, "interval_secs", float(seconds))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else value


@frozen(kw_only=True)
class ToolSchema:
    """A tool as models and the engine know it; the seed's schema, with what recovery needs.

    Raises:
        InvalidTool: if a field has a value that it cannot have. Whether `parameters` and
            `returns` are valid JSON Schema is found out by `compile`.
    """

    name: str
    """1 to 128 of `A-Z a-z 0-9 . _ : / -`, first a letter or digit."""
    description: str = ""
    parameters: dict[str, Json] = field(factory=dict, hash=False)
    """JSON Schema of the parameters; {} allows any object."""
    returns: dict[str, Json] | None = field(default=None, hash=False)
    """JSON Schema of the output; None leaves it unchecked."""
    idempotent: bool = False
    """Two calls with one idempotency key do what one call does."""
    read_only: bool = False
    """A call changes nothing."""
    cache_ttl_secs: int | None = None
    """For how long an output may be given again for the same parameters; None: never."""
    rate_limit: RateLimit | None = None
    compensation: str | None = None
    """The tool that undoes a call; it is handed `{parameters, output}`."""
    timeout_ms: int | None = None
    """How long a call may take, unless its action says otherwise; None: for ever."""
    sensitive: tuple[str, ...] = field(default=(), converter=_tuple)
    """Paths to what goes beside the log and can be forgotten: `parameters.password`,
    `output.keys.*.secret` (`*`: each item)."""

    max_cost: dict[str, str] = field(factory=dict, hash=False)
    """Unit -> decimal amount that one call costs at most, `{"USD": "0.05"}`: so much is set aside
    from the budgets of a run before the call."""

    def __attrs_post_init__(self) -> None:
        for path, problem in _problems(self):
            if problem is not None:
                raise InvalidTool(str(self.name)[:128], problem, path)
        # Own copies, so that nobody can change a schema whose digest was taken.
        for path in ("parameters", "returns", "max_cost"):
            object.__setattr__(self, path, self._copied(path))
        size_bytes = len(canonical.dumps(self.to_dict()).encode())
        if size_bytes > MAX_SCHEMA_BYTES:
            raise InvalidTool(
                self.name, f"its schema has {size_bytes:,} bytes, above {MAX_SCHEMA_BYTES:,}"
            )

    @property
    def effect(self) -> EffectMode:
        """What a second call would do; `read_only` says more than `idempotent`."""
        if self.read_only:
            return EffectMode.READ_ONLY
        return EffectMode.IDEMPOTENT if self.idempotent else EffectMode.ONCE

    @property
    def repeatable(self) -> bool:
        """Whether a call whose outcome is unknown may simply be made again."""
        return self.read_only or self.idempotent

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what the tool promises, as canonical JSON.

        The description is left out: a better description does not make another tool. So is what
        stands at its default, so that a field of a later carstore changes no digest.
        """
        promised = {
            name: value
            for name, value in self.to_dict().items()
            if name != "description" and value not in (None, False, {}, [])
        }
        return hashlib.sha256(canonical.dumps(promised).encode()).hexdigest()

    @cached_property
    def sensitive_paths(self) -> tuple[tuple[str, ...], ...]:
        """`sensitive` in steps."""
        return tuple([tuple(path.split(".")) for path in self.sensitive])

    @cached_property
    def max_cost_micros(self) -> dict[str, int]:
        """`max_cost` in millionths."""
        return {unit: micros_of(amount) or 0 for unit, amount in self.max_cost.items()}

    def check_parameters(self, parameters: Json, public: Json = None) -> list[str]:
        """Everything in which `parameters` are not what the schema says; [] if nothing.

        Args:
            public: the same with references in the place of what is sensitive.

        Raises:
            InvalidTool: if `parameters` of the schema is not valid JSON Schema.
        """
        return self._parameters_check.errors(parameters, public)

    def check_returns(self, output: Json, public: Json = None) -> list[str]:
        """Everything in which `output` is not what `returns` says; [] if nothing.

        Args:
            public: the same with references in the place of what is sensitive.

        Raises:
            InvalidTool: if `returns` of the schema is not valid JSON Schema.
        """
        check = self._returns_check
        return [] if check is None else check.errors(output, public)

    def compile(self) -> None:
        """Raise `InvalidTool` unless `parameters` and `returns` are JSON Schema we can use."""
        _ = self._parameters_check, self._returns_check

    def to_dict(self) -> dict[str, Json]:
        """All fields, as JSON; `from_dict` reads it back."""
        found = {name: getattr(self, name) for name in fields_dict(ToolSchema)}
        limit = self.rate_limit
        if limit is not None:
            found["rate_limit"] = {
                "max_calls": limit.max_calls,
                "interval_secs": limit.interval_secs,
            }
        found["sensitive"] = list(self.sensitive)
        return found

    @classmethod
    def from_dict(cls, data: Json) -> "ToolSchema":
        """Read what `to_dict` wrote, or what somebody wrote by hand; only `name` is required.

        Raises:
            InvalidTool: naming the field that is unknown, missing or wrong.
        """
        given = _known_fields(cls, data, "")
        limit = given.get("rate_limit")
        if limit is not None:
            given["rate_limit"] = RateLimit(**_known_fields(RateLimit, limit, "rate_limit"))
        return cls(**given)

    @cached_property
    def _parameters_check(self) -> SchemaCheck:
        return self._compiled("parameters")

    @cached_property
    def _returns_check(self) -> SchemaCheck | None:
        return None if self.returns is None else self._compiled("returns")

    def _compiled(self, path: str) -> SchemaCheck:
        root = "output" if path == "returns" else path
        try:
            return compile_schema(getattr(self, path), root)
        except BadSchema as error:
            raise InvalidTool(self.name, error.reason, path) from None

    def _copied(self, path: str) -> Json:
        value = getattr(self, path)
        try:
            canonical.check(value, path)
        except InvalidJson as error:
            raise InvalidTool(self.name, error.reason, error.path) from None
        return own_copy(value)


def _problems(schema: ToolSchema) -> list[tuple[str, str | None]]:
    return [
        ("name", problem_with_id(schema.name)),
        ("description", None if isinstance(schema.description, str) else "must be a string"),
        ("parameters", _problem_with_parameters(schema.parameters)),
        ("returns", _problem_with_object(schema.returns, or_none=True)),
        ("idempotent", _problem_with_bool(schema.idempotent)),
        ("read_only", _problem_with_bool(schema.read_only)),
        ("cache_ttl_secs", _problem_with_count(schema.cache_ttl_secs, MAX_SECONDS)),
        ("rate_limit", _problem_with_limit(schema.rate_limit)),
        ("compensation", _problem_with_compensation(schema)),
        ("timeout_ms", _problem_with_count(schema.timeout_ms, MAX_TIMEOUT_MS)),
        ("sensitive", _problem_with_paths(schema.sensitive, schema.parameters)),
        ("max_cost", _problem_with_amounts(schema.max_cost)),
    ]


def _problem_with_parameters(value: Any) -> str | None:
    problem = _problem_with_object(value, or_none=False)
    if problem is not None:
        return problem
    kind = value.get("type", "object")
    if kind == "object" or (isinstance(kind, list) and "object" in kind):
        return None
    return f"parameters are always an object, but the schema says {kind!r:.40}"


def _problem_with_object(value: Any, *, or_none: bool) -> str | None:
    if isinstance(value, dict) or (or_none and value is None):
        return None
    return f"must be a JSON Schema object, not a {type(value).__name__}"


def _problem_with_bool(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{value!r:.40} is neither true nor false"


def _problem_with_count(value: Any, most: int) -> str | None:
    if value is None or _is_int(value, 1, most):
        return None
    return f"{value!r:.40} is not an integer from 1 to {most:,}"


def _problem_with_limit(value: Any) -> str | None:
    if value is None or isinstance(value, RateLimit):
        return None
    return f"must be a RateLimit, not a {type(value).__name__}"


def _problem_with_amounts(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"must be an object of amounts by unit, not a {type(value).__name__}"
    for unit, amount in value.items():
        problem = problem_with_id(unit)
        if problem is not None:
            return f"the name of a unit {problem}"
        if not isinstance(amount, str) or micros_of(amount) is None:
            return f"{unit}: {amount!r:.40} is no amount; write a decimal number as text, '0.05'"
    return None


def _problem_with_paths(value: Any, parameters: Any) -> str | None:
    known = _all_names(parameters)
    for path in value if isinstance(value, tuple) else (value,):
        steps = path.split(".") if isinstance(path, str) else []
        whole_parameters = steps == ["parameters"]
        if not steps or steps[0] not in ("parameters", "output") or "" in steps or whole_parameters:
            return (
                f"{path!r:.80} is no path to a parameter or to the output; write for example "
                "'parameters.password' or 'output.token'"
            )
        if steps[0] == "parameters" and known is not None and steps[1] not in (*known, "*"):
            hint = suggestion(steps[1], known) or f"; there are {', '.join(known) or 'none'}"
            return f"{path!r:.80} names no parameter{hint}"
    return None


def _all_names(parameters: Any) -> list[str] | None:
    """The names that parameters can have, if their schema lists them."""
    closed = isinstance(parameters, dict) and parameters.get("additionalProperties") is False
    if not closed or "patternProperties" in parameters:
        return None
    properties = parameters.get("properties", {})
    return list(properties) if isinstance(properties, dict) else None


def _problem_with_compensation(schema: ToolSchema) -> str | None:
    if schema.compensation is None:
        return None
    if schema.compensation == schema.name:
        return "a tool cannot undo itself; name another tool"
    return problem_with_id(schema.compensation)


def _is_int(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _known_fields(cls: type, data: Json, path: str) -> dict[str, Json]:
    """The fields of a JSON object that makes a `cls`; raises `InvalidTool` for any other."""
    tool = str(data.get("name", ""))[:128] if isinstance(data, dict) else ""
    if not isinstance(data, dict):
        raise InvalidTool(tool, f"must be an object, not a {type(data).__name__}", path or "$")
    known = fields_dict(cast(Any, cls))
    for name in data:
        if name not in known:
            hint = suggestion(str(name), known) or f"; known are {', '.join(known)}"
            raise InvalidTool(tool, f"there is no field {shown(str(name))}{hint}", path or "$")
    for name in ("name",) if cls is ToolSchema else known:
        if name not in data:
            raise InvalidTool(tool, f"the field {name!r} is missing", path or "$")
    return dict(data)
