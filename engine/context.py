"""What a running tool may ask of the engine: its `ToolContext`.

One context serves one attempt of one action. Nothing that a tool does through it takes effect
before the attempt's outcome is recorded: writes, meterings and log lines are buffered, and the
engine takes them out with `close`. From then on the context refuses everything, so a thread that
outlives its timeout can no longer change anything.

A tool runs on the engine's event loop or, if it is not asynchronous, in a worker thread, while the
engine may cancel or close its context from the loop. A lock makes each step whole. The one place
where the two kinds of tool differ is reading state, which may have to wait: `await ctx.read(key)`
on a loop, `ctx.get(key)` in a thread.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from decimal import Decimal
from functools import partial
from typing import ClassVar

from attrs import define, field, setters

from carstore.errors import CarstoreError
from carstore.log import StateRead
from carstore.names import ActionId, Json, Position, RunId
from engine.buffered import DELETED, Buffer, Buffered, Deleted
from engine.cancellation import Cancellation
from engine.questions import Questions, QuestionsEnded
from engine.rules.copies import own_copy

__all__ = ["CapabilityDenied", "ContextClosed", "ToolCancelled", "ToolContext", "current_context"]


Reader = Callable[[str], Awaitable[StateRead]]
"""Reads a state key; only ever called on the engine's event loop."""

Spender = Callable[[str, int], Awaitable[int | None]]
"""Takes a currency and millionths; also only called there."""


@define(slots=False, eq=False)
class ContextClosed(CarstoreError):
    """A tool used its context after its attempt was over. Nothing happened."""

    code: ClassVar[str] = "context_closed"
    tool: str
    attempt: int

    @property
    def message(self) -> str:
        return (
            f"attempt {self.attempt} of tool {self.tool!r} is over, so its context does nothing "
            "any more. Stop here: another attempt may be running."
        )


@define(slots=False, eq=False)
class ToolCancelled(CarstoreError):
    """A tool stopped because it was asked to; raised by `ToolContext.raise_if_cancelled`."""

    code: ClassVar[str] = "tool_cancelled"
    tool: str

    @property
    def message(self) -> str:
        return f"tool {self.tool!r} stopped, as it was asked to"


@define(slots=False, eq=False)
class CapabilityDenied(CarstoreError):
    """A tool asked for a state key that its run may not use. Nothing happened."""

    code: ClassVar[str] = "capability_denied"
    tool: str
    key: str

    @property
    def message(self) -> str:
        return f"capability denied: state key {self.key!r:.140} not allowed (tool {self.tool!r})"

    @property
    def where(self) -> str | None:
        return self.key


@define(kw_only=True, eq=False, on_setattr=setters.frozen)
class ToolContext:
    """The handle that a tool gets through its parameter annotated `ToolContext`."""

    run_id: RunId
    action_id: ActionId
    tool: str
    attempt: int
    """Counts from 1 over the whole run, restarts included."""
    idempotency_key: str
    """Equal for all attempts of the action. Hand it to whatever the tool calls outside."""

    _reader: Reader = field(repr=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, repr=False)
    """The engine's loop, on which the reader runs. None: there is no engine (`detached`)."""
    _may_use: Callable[[str], bool] | None = field(default=None, repr=False)
    """Which state keys the tool may read and change; None: all."""
    _spender: Spender | None = field(default=None, repr=False)
    """Sets an amount aside and tells what is left; None: nothing is limited."""

    _lock: threading.Lock = field(init=False, repr=False, factory=threading.Lock)
    _closed: bool = field(init=False, repr=False, default=False, on_setattr=setters.NO_OP)
    _buffer: Buffer = field(init=False, repr=False, factory=Buffer)
    _cancellation: Cancellation = field(init=False, repr=False)
    _questions: Questions | None = field(
        init=False, repr=False, default=None, on_setattr=setters.NO_OP
    )
    """None until the first one: most tools ask nothing."""

    @_cancellation.default
    def _under_lock(self) -> Cancellation:
        return Cancellation(self._lock)

    @classmethod
    def detached(
        cls,
        state: Mapping[str, Json] | None = None,
        *,
        tool: str = "tool",
        attempt: int = 1,
        idempotency_key: str = "0" * 64,
    ) -> "ToolContext":
        """A context without an engine that reads from `state`: to call a tool from a test.

        What the tool did stands in `buffered` afterwards; `state` itself is not changed.
        """
        held = {
            key: StateRead(own_copy(value), exists=True, position=Position(1))
            for key, value in (state or {}).items()
        }

        async def read(key: str) -> StateRead:
            return held.get(key, StateRead(None, exists=False, position=Position(0)))

        return cls(
            run_id=RunId("detached"),
            action_id=ActionId("detached"),
            tool=tool,
            attempt=attempt,
            idempotency_key=idempotency_key,
            reader=read,
        )

    async def read(self, key: str, default: Json = None) -> Json:
        """The value of a state key, `default` if there is none; for asynchronous tools.

        An attempt sees its own changes, and otherwise what it saw the first time. Its changes are
        applied only if nobody has changed since what it read.

        Raises:
            ContextMisused: if `key` cannot be a state key.
            CapabilityDenied: if the run may not use it.
            ContextClosed: if the attempt is over.
        """
        known = self._known(key)
        if known is None:
            try:
                known = self._recorded(key, await self._asking().ask(partial(self._reader, key)))
            except QuestionsEnded:
                raise self._over() from None
        return own_copy(known.value) if known.exists else default

    def get(self, key: str, default: Json = None) -> Json:
        """As `read`, for tools that are plain functions: waits in the tool's own thread.

        Raises:
            ContextMisused: also if called on the event loop, which it would stop.
            ContextClosed: also if the attempt ends while it waits.
        """
        known = self._known(key)
        if known is None:
            try:
                read = partial(self._reader, key)
                known = self._recorded(
                    key, self._asking().wait_for(read, "ctx.get", "await ctx.read(key)")
                )
            except QuestionsEnded:
                raise self._over() from None
        return own_copy(known.value) if known.exists else default

    def set(self, key: str, value: Json) -> None:
        """Set a state key once the attempt has succeeded.

        Raises:
            InvalidJson: if `value` is not a JSON value.
            ContextMisused: if `key` cannot be a state key.
            CapabilityDenied: if the run may not use it.
            ContextClosed: if the attempt is over.
        """
        with self._lock:
            self._check_open(key)
            self._buffer.change("ctx.set", key, value)

    def delete(self, key: str) -> None:
        """Delete a state key, if it exists, once the attempt has succeeded. Raises as `set`."""
        with self._lock:
            self._check_open(key)
            self._buffer.change("ctx.delete", key, DELETED)

    def meter(
        self,
        *,
        tokens_in: int = 0,
        tokens_out: int = 0,
        cost_micros: int = 0,
        cost: Decimal | str | None = None,
        currency: str = "USD",
        agent: str | None = None,
        model: str | None = None,
    ) -> None:
        """Say what one call of a model or service took; its budgets are charged with that.

        Args:
            tokens_in: tokens read.
            tokens_out: tokens written.
            cost_micros: millionths of a unit of `currency`.
            cost: units instead, exact; rounded to millionths, half away from zero.
            currency: of what; its name is spelled like an id.
            agent: who spent it, if not the proposal's source.
            model: of what.

        Raises:
            ContextMisused: if an amount is negative, too large or inexact, or a name unusable.
            ContextClosed: if the attempt is over.
        """
        with self._lock:
            self._check_open()
            self._buffer.meter(
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                cost_micros=cost_micros,
                cost=cost,
                currency=currency,
                agent=agent,
                model=model,
            )

    async def charge(
        self, currency: str, amount: Decimal | str, *, agent: str | None = None
    ) -> int | None:
        """Spend an amount before it is spent outside, or be refused; for asynchronous tools.

        It is set aside from the budgets of the run at once, beyond what the tool has declared, and
        metered when the attempt is over. Source: the budget tracker of ARCP; exactly what is left
        may be spent, and a refused charge changes nothing.

        Returns what is left then, in millionths; None: the currency has no limit.

        Raises:
            BudgetExhausted: there is less left.
            ContextMisused: the amount is no decimal number from 0, or a name is unusable.
            ContextClosed: the attempt is over.
        """
        with self._lock:
            self._check_open()
            micros = self._buffer.charge_of(currency, amount)
        try:
            left = await self._asking().ask(partial(self._spend, currency, micros))
        except QuestionsEnded:
            raise self._over() from None
        self.meter(cost_micros=micros, currency=currency, agent=agent)
        return left

    def spend(
        self, currency: str, amount: Decimal | str, *, agent: str | None = None
    ) -> int | None:
        """As `charge`, for tools that are plain functions: waits in the tool's own thread."""
        with self._lock:
            self._check_open()
            micros = self._buffer.charge_of(currency, amount)
        question = partial(self._spend, currency, micros)
        try:
            left = self._asking().wait_for(question, "ctx.spend", "await ctx.charge(...)")
        except QuestionsEnded:
            raise self._over() from None
        self.meter(cost_micros=micros, currency=currency, agent=agent)
        return left

    async def _spend(self, currency: str, micros: int) -> int | None:
        return None if self._spender is None else await self._spender(currency, micros)

    def log(self, message: str, /, **data: Json) -> None:
        """Write a line into the log of the run. Too many or too long ones are cut.

        Raises:
            InvalidJson: if `data` are not JSON values.
            ContextClosed: if the attempt is over.
        """
        with self._lock:
            self._check_open()
            self._buffer.log(message, data)

    @property
    def cancelled(self) -> bool:
        """Whether the tool should stop. May be asked from any thread, also after the attempt."""
        return self._cancellation.requested

    def raise_if_cancelled(self) -> None:
        """Raise `ToolCancelled` if the tool should stop. Call it where stopping leaves no mess."""
        if self._cancellation.requested:
            raise ToolCancelled(self.tool)

    async def wait_cancelled(self) -> None:
        """Return once the tool should stop.

        Raises:
            ContextClosed: if the attempt ends without that.
        """
        await self._cancellation.wait()

    @property
    def closed(self) -> bool:
        """Whether the attempt is over."""
        return self._closed

    @property
    def buffered(self) -> Buffered:
        """What the tool has done through the context so far."""
        with self._lock:
            return self._buffer.content()

    @property
    def reads(self) -> dict[str, int]:
        """State key -> position of what was read first."""
        return self.buffered.reads

    @property
    def changes(self) -> dict[str, Json | Deleted]:
        """State key -> new value or `DELETED`, in the order of the last changes."""
        return self.buffered.changes

    def request_cancel(self) -> None:
        """For the engine: ask the tool to stop. It is free not to; nothing is interrupted."""
        self._cancellation.request()

    def close(self) -> Buffered:
        """For the engine: end the attempt, take out what was buffered, refuse all from now on.

        A thread that waits in `get`, and tasks that wait in `wait_cancelled`, get `ContextClosed`.
        """
        with self._lock:
            self._closed = True
            content = self._buffer.content()
        if self._questions is not None:
            self._questions.close()
        self._cancellation.end(partial(ContextClosed, self.tool, self.attempt))
        return content

    def _asking(self) -> Questions:
        with self._lock:
            self._check_open()
            if self._questions is None:
                self._questions = Questions(self._loop)
            return self._questions

    def _known(self, key: str) -> StateRead | None:
        with self._lock:
            self._check_open(key)
            return self._buffer.known(key)

    def _recorded(self, key: str, read: StateRead) -> StateRead:
        with self._lock:
            self._check_open()
            return self._buffer.record(key, read)

    def _check_open(self, key: str | None = None) -> None:
        """Whether the tool may still do something, and may use `key`."""
        if self._closed:
            raise self._over()
        if key is not None and self._may_use is not None and not self._may_use(key):
            raise CapabilityDenied(self.tool, key)

    def _over(self) -> ContextClosed:
        return ContextClosed(self.tool, self.attempt)


current_context: ContextVar[ToolContext | None] = ContextVar("carstore_tool_context", default=None)
"""The context of the call that is being made: for executors, which are handed a name and
parameters only."""
