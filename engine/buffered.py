"""What one attempt has read and wants done, held until its outcome is recorded.

No thread, loop or clock here: `engine.context` decides who may call when.
"""

from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Final

from attrs import define, field, frozen

from carstore import canonical
from carstore.errors import CarstoreError
from carstore.log import StateRead
from carstore.names import Json, Position
from engine.rules.copies import own_copy
from engine.rules.identifiers import problem_with_id, problem_with_state_key
from engine.rules.money import MAX_MICROS, micros_of

__all__ = [
    "DELETED",
    "Buffer",
    "Buffered",
    "ContextMisused",
    "Deleted",
    "LogLine",
    "Metered",
]

MAX_KEYS = 10_000
"""State keys that one attempt may read, and that it may change: each is a row of its append."""

MAX_METERINGS = 1_000
"""Meterings of one attempt; a tool that has more can add them up."""

MAX_TOKENS = 10**15
"""Tokens of one metering: nine thousand of them still add up within 64 bits."""

MAX_LOG_LINES = 1_000
"""Log lines kept of one attempt; further ones are only counted."""

MAX_LOG_CHARS = 2_000
"""Characters of a log message; the rest is cut off."""

MAX_LOG_DATA_BYTES = 16 * 1024
"""Bytes of a log line's data as JSON; larger data is replaced by its size."""


class Deleted(Enum):
    """The type of `DELETED`."""

    DELETED = "deleted"


DELETED: Final = Deleted.DELETED
"""Stands in `Buffered.changes` for a key that is to be deleted; null is a value like any other."""


@frozen(kw_only=True)
class Metered:
    """What a tool said it spent; one `inference_metered` event."""

    tokens_in: int
    tokens_out: int
    cost_micros: int
    """Millionths of a unit of `currency`."""
    currency: str
    agent: str | None
    """Who spent it; None: the proposal's source."""
    model: str | None


@frozen
class LogLine:
    """What a tool wrote with `ctx.log`."""

    message: str
    data: dict[str, Json]


@frozen(kw_only=True)
class Buffered:
    """Everything that an attempt did through its context, each in its order."""

    reads: dict[str, int]
    """State key -> position of what was read; 0 where there was nothing."""
    changes: dict[str, Json | Deleted]
    """State key -> its new value, or `DELETED`."""
    metered: tuple[Metered, ...]
    lines: tuple[LogLine, ...]
    lines_left_out: int
    """How many log lines came after the first `MAX_LOG_LINES`."""


@define(slots=False, eq=False)
class ContextMisused(CarstoreError):
    """A tool asked its context for something that cannot be. Nothing happened."""

    code: ClassVar[str] = "context_misused"
    asked: str
    """The call, as `ctx.meter(cost)`."""
    reason: str

    @property
    def message(self) -> str:
        return f"{self.asked}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.asked


@define(eq=False)
class Buffer:
    """The growing `Buffered` of an attempt. Every method either does all it says or raises."""

    _reads: dict[str, StateRead] = field(init=False, factory=dict)
    _changes: dict[str, Json | Deleted] = field(init=False, factory=dict)
    _metered: list[Metered] = field(init=False, factory=list)
    _lines: list[LogLine] = field(init=False, factory=list)
    _lines_left_out: int = field(init=False, default=0)

    def content(self) -> Buffered:
        """What has been buffered so far."""
        return Buffered(
            reads={key: read.position for key, read in self._reads.items()},
            changes=dict(self._changes),
            metered=tuple(self._metered),
            lines=tuple(self._lines),
            lines_left_out=self._lines_left_out,
        )

    def known(self, key: str) -> StateRead | None:
        """What the attempt must see under `key` without asking the store, if it must.

        That is its own last change, or else what it read before, so that one attempt never sees
        two values of which it wrote neither.
        """
        _check_key("ctx.get", key)
        if key not in self._changes:
            return self._reads.get(key)
        value = self._changes[key]
        exists = value is not DELETED
        return StateRead(value if exists else None, exists, Position(0))

    def record(self, key: str, read: StateRead) -> StateRead:
        """Remember the first `read` of `key`; returns the first one."""
        if key not in self._reads and len(self._reads) >= MAX_KEYS:
            raise ContextMisused("ctx.get", f"more than {MAX_KEYS:,} keys read in one attempt")
        return self._reads.setdefault(key, read)

    def change(self, asked: str, key: str, value: Json | Deleted) -> None:
        """Set `key`, or delete it."""
        _check_key(asked, key)
        if value is not DELETED:
            canonical.check(value, f"{asked}({key!r:.80}) value")
            value = own_copy(value)
        if key not in self._changes and len(self._changes) >= MAX_KEYS:
            raise ContextMisused(asked, f"more than {MAX_KEYS:,} keys changed in one attempt")
        self._changes.pop(key, None)  # so that the order is that of the last changes
        self._changes[key] = value

    def meter(
        self,
        *,
        tokens_in: int,
        tokens_out: int,
        cost_micros: int,
        cost: Decimal | str | None,
        currency: str = "USD",
        agent: str | None = None,
        model: str | None = None,
    ) -> None:
        """Add one metering."""
        if len(self._metered) >= MAX_METERINGS:
            reason = f"more than {MAX_METERINGS:,} meterings in one attempt; add some up"
            raise ContextMisused("ctx.meter", reason)
        if cost is not None:
            if type(cost_micros) is not int or cost_micros != 0:
                raise ContextMisused("ctx.meter", "say cost or cost_micros, not both")
            cost_micros = _micros(cost)
        self._metered.append(
            Metered(
                tokens_in=_count("tokens_in", tokens_in, MAX_TOKENS),
                tokens_out=_count("tokens_out", tokens_out, MAX_TOKENS),
                cost_micros=_count("cost_micros", cost_micros, MAX_MICROS),
                currency=_unit(currency),
                agent=_label("agent", agent),
                model=_label("model", model),
            )
        )

    def charge_of(self, currency: str, amount: Decimal | str) -> int:
        """What a charge comes to, in millionths; there has to be room to meter it."""
        _unit(currency)
        if len(self._metered) >= MAX_METERINGS:
            reason = f"more than {MAX_METERINGS:,} meterings in one attempt; add some up"
            raise ContextMisused("ctx.charge", reason)
        return _micros(amount)

    def log(self, message: str, data: dict[str, Json]) -> None:
        """Add a line. Too many or too long ones are cut: a log line is no reason to fail."""
        if not isinstance(message, str):
            raise ContextMisused(
                "ctx.log", f"the message is of type {type(message).__name__}, not a string"
            )
        text = canonical.dumps(data, "ctx.log data")
        if len(self._lines) >= MAX_LOG_LINES:
            self._lines_left_out += 1
            return
        size_bytes = len(text.encode())
        if size_bytes > MAX_LOG_DATA_BYTES:
            kept: dict[str, Json] = {"left_out": f"{size_bytes:,} bytes of data"}
        else:
            kept = own_copy(data)
        if len(message) > MAX_LOG_CHARS:
            message = message[: MAX_LOG_CHARS - 3] + "..."
        # File names may hold lone surrogates, which JSON cannot.
        message = message.encode("utf-8", "backslashreplace").decode()
        self._lines.append(LogLine(message, kept))


def _check_key(asked: str, key: str) -> None:
    problem = problem_with_state_key(key)
    if problem is not None:
        raise ContextMisused(asked, f"the state key {problem}")


def _micros(cost: Any) -> int:
    if not isinstance(cost, Decimal | str):
        reason = f'{cost!r:.40} is not exact. Pass it as a string or Decimal: cost="0.0123"'
        raise ContextMisused("ctx.meter(cost)", reason)
    micros = micros_of(cost)
    if micros is None:
        reason = f"{str(cost)!r:.60} is not an amount of money from 0 to {MAX_MICROS // 10**6:,}"
        raise ContextMisused("ctx.meter(cost)", reason)
    return micros


def _count(name: str, value: Any, most: int) -> int:
    if type(value) is int and 0 <= value <= most:
        return value
    reason = f"{value!r:.40} is not an integer from 0 to {most:,}"
    raise ContextMisused(f"ctx.meter({name})", reason)


def _unit(currency: Any) -> str:
    problem = problem_with_id(currency)
    if problem is not None:
        raise ContextMisused("ctx.meter(currency)", f"the currency {problem}")
    return str(currency)


def _label(name: str, value: Any) -> str | None:
    problem = None if value is None else problem_with_state_key(value)
    if problem is not None:
        raise ContextMisused(f"ctx.meter({name})", f"the name {problem}")
    return value  # type: ignore[no-any-return]
