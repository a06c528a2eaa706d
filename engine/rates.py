"""How often each tool was called lately: the one place of a runtime that holds buckets and windows.

They live in memory, so asking costs nothing, and each process has its own. What they start from is
in the log: `ready` reads, once for each tool, when it was called lately, by whichever process. From
then on the runtime tells: `take` for a token of the bucket, `decided` and `begun` for each call.

Between the decision on a call and the call lies an append, and other runs decide meanwhile. So a
call counts from its decision on; one that is not made after all is taken back with `undecided`.

A call is known in the log by its intent, or, where there is none, by the event that says it was
validated. Further attempts of a call without intent are not in the log, so a restart forgets them.

A wall clock may step. A step back adds nothing to the time that has passed here; calls that the log
puts into the future count as of now.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from attrs import define, field

from carstore import Store
from carstore.errors import CorruptLog
from carstore.events import ActionExecuting, ActionValidated, CompensationExecuting
from carstore.log import Recorded
from carstore.names import Position
from engine.rules.limits import Bucket, Window, interval_us
from engine.tool_schema import RateLimit

__all__ = ["MAX_PAST_CALLS", "MAX_PAST_EVENTS", "Decided", "Rates"]

MAX_PAST_CALLS = 100_000
"""Calls of the past that are kept until their tools ask; a bucket of more than these is rare."""

MAX_PAST_EVENTS = 200_000
"""Events at the end of the log that are looked through: a few seconds. Before them, a bucket counts
as empty, and a window does not look."""

_CALLS = (ActionExecuting, ActionValidated, CompensationExecuting)
_KINDS = tuple([cls.kind for cls in _CALLS])


@define
class _Tool:
    """What is held for one tool."""

    bucket: Bucket | None = None
    window: Window | None = None


@define(eq=False)
class Decided:
    """A call that was decided on and is not made yet."""

    tool: str


@define
class _Past:
    """The calls that the log tells of, as far as it was read."""

    from_us: int
    """Calls from this instant on are there."""
    whole: bool
    """Whether there is nothing before that at all."""
    until: int = 0
    """Position up to which the log was read."""
    calls: deque[tuple[int, str]] = field(factory=lambda: deque(maxlen=MAX_PAST_CALLS))
    """When each call began, and of which tool, in order of the log."""


@define
class Rates:
    """Buckets and windows by tool. All instants are microseconds of the store's clock.

    Args:
        limit_of: the limit of a tool; None if it has none, or is not known.
    """

    store: Store
    limit_of: Callable[[str], RateLimit | None]
    _tools: dict[str, _Tool] = field(factory=dict, init=False)
    """The tools that have a limit, or about which somebody asks."""
    _ready: set[str] = field(factory=set, init=False)
    """The tools of which all is known that somebody asks."""
    _watched: dict[str | None, int] = field(factory=dict, init=False)
    """The longest interval asked about, by tool; None: of every tool."""
    _decided: dict[str, set[Decided]] = field(factory=dict, init=False)
    """The calls of all runs that are about to be made, by tool; of no tool an empty set."""
    _past: _Past | None = field(default=None, init=False)
    _reading: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    _wall_us: int | None = field(default=None, init=False)
    _now_us: int = field(default=0, init=False)

    def watch(self, tool: str | None, interval_us: int) -> None:
        """Let `recent` answer for intervals up to this, for one tool or (None) for every one.

        Takes effect with the next `ready` of the tool. Of several, the longest counts.
        """
        if interval_us > self._watched.get(tool, 0):
            self._watched[tool] = interval_us
            if tool is None:
                self._ready.clear()
            else:
                self._ready.discard(tool)

    def limit_changed(self, tool: str) -> None:
        """The limit of a tool is another one: the next `ready` makes its bucket anew."""
        self._ready.discard(tool)
        if tool in self._tools:
            self._tools[tool].bucket = None

    async def ready(self, tool: str) -> None:
        """Make sure that the tool's recent calls are known; nearly free after the first time.

        Raises what reading the log raises.
        """
        if tool in self._ready:
            return
        async with self._reading:
            if tool not in self._ready:
                await self._learn(tool)
                self._ready.add(tool)

    def take(self, tool: str) -> int:
        """Take a token of the tool's bucket; microseconds until it is there. 0 without a limit."""
        known = self._tools.get(tool)
        if known is None or known.bucket is None:
            return 0
        return known.bucket.take(self._now())

    def taken(self, tool: str) -> int:
        """The number of the token that was taken last: keep it to give back that very one."""
        known = self._tools.get(tool)
        return 0 if known is None or known.bucket is None else known.bucket.taken

    def refund(self, tool: str, number: int | None = None) -> None:
        """Give back a token for which no call was made: that one, or the one taken last."""
        known = self._tools.get(tool)
        if known is not None and known.bucket is not None:
            known.bucket.refund(number)

    def decided(self, tool: str) -> Decided:
        """Count a call that is about to be made, in whichever run.

        Call it without waiting for anything between the look at `recent` and this, and end it with
        `begun` or `undecided`.
        """
        one = Decided(tool)
        self._decided.setdefault(tool, set()).add(one)
        return one

    def undecided(self, one: Decided) -> None:
        """A call that was decided on is not made; nothing happens if that is known."""
        open_calls = self._decided.get(one.tool)
        if open_calls is not None:
            open_calls.discard(one)
            if not open_calls:
                del self._decided[one.tool]

    def begun(self, tool: str, decided: Decided | None = None) -> None:
        """Count a call that is made.

        Args:
            decided: what `decided` gave for it, if it was counted then; it is not counted twice.
        """
        if decided is not None:
            self.undecided(decided)
        known = self._tools.get(tool)
        if known is not None and known.window is not None:
            known.window.add(self._now())

    def recent(self, tool: str, interval_us: int) -> int:
        """How many calls of the tool began within the last `interval_us` microseconds, or are
        decided on and about to be made.

        Raises:
            ValueError: nobody watches so long an interval, or the tool was not made ready.
        """
        known = self._tools.get(tool)
        if known is None or known.window is None:
            raise ValueError(f"calls of {tool!r:.140} are not counted: watch them first")
        about_to_begin = len(self._decided.get(tool, ()))
        return known.window.count(self._now(), interval_us) + about_to_begin

    def _now(self) -> int:
        """The time, which never goes back."""
        wall_us = self.store.clock.now()
        if self._wall_us is None:
            self._now_us = wall_us
        elif wall_us > self._wall_us:
            self._now_us += wall_us - self._wall_us
        self._wall_us = wall_us
        return self._now_us

    async def _learn(self, tool: str) -> None:
        limit = self.limit_of(tool)
        reach_us = max(self._watched.get(None, 0), self._watched.get(tool, 0))
        if limit is None and not reach_us:
            return
        # After two intervals, a bucket that was empty at first is what it would be from any start
        # if it was full once meanwhile; else it is emptier, and so never gives too many.
        refilled_us = 0 if limit is None else 2 * interval_us(limit)
        past = await self._read(max(reach_us, refilled_us))
        now_us = self._now()
        calls = [min(at_us, now_us) for at_us, name in past.calls if name == tool]
        known = self._tools.setdefault(tool, _Tool())
        if known.bucket is None and limit is not None:
            known.bucket = _bucket(limit, past, calls, now_us)
        if reach_us and (known.window is None or known.window.longest_us < reach_us):
            known.window = _window(reach_us, calls, known.window, now_us)

    async def _read(self, reach_us: int) -> _Past:
        """The calls of the last `reach_us`; what was read before is not read again."""
        log, from_us = self.store.log, self._now() - reach_us
        head = (await log.head()).position
        past = self._past
        if past is None or (past.from_us > from_us and not past.whole):
            first, past = await _first(self.store, from_us, head)
            past.until = first - 1
        async for recorded in log.read(after=past.until, until=head, kinds=_KINDS):
            event = recorded.event
            if isinstance(event, _CALLS) and event.tool is not None:
                past.calls.append((recorded.recorded_at, event.tool))
        past.until = max(past.until, head)
        self._past = past
        return past


def _bucket(limit: RateLimit, past: _Past, calls: list[int], now_us: int) -> Bucket:
    """A bucket as the calls of the past have left it."""
    from_us = past.from_us
    if len(past.calls) == MAX_PAST_CALLS:
        from_us = max(from_us, past.calls[0][0])
    elif past.whole:
        from_us = min(from_us, now_us) - 2 * interval_us(limit)
    bucket = Bucket.empty(limit, min(from_us, now_us))
    for at_us in calls:
        bucket.count(at_us)
    return bucket


def _window(longest_us: int, calls: list[int], told: Window | None, now_us: int) -> Window:
    """A window over the calls of the past; those that an earlier window knows are in it once."""
    known = [] if told is None else told.instants()
    begins_us = known[0] if known else now_us + 1
    return Window.of(longest_us, [*[at_us for at_us in calls if at_us < begins_us], *known])


async def _first(store: Store, from_us: int, head: int) -> tuple[int, _Past]:
    """The first position whose event was recorded at `from_us` or later, by halving the log.

    Clocks step back now and then, so an event or two before it may be younger.
    """
    lowest = max(1, head - MAX_PAST_EVENTS + 1)
    low, high = lowest, head + 1
    while low < high:
        middle = (low + high) // 2
        if (await _at(store, middle)).recorded_at < from_us:
            low = middle + 1
        else:
            high = middle
    cut = low == lowest > 1
    if cut:
        from_us = max(from_us, (await _at(store, low)).recorded_at)
    return low, _Past(from_us=from_us, whole=low == 1)


async def _at(store: Store, position: int) -> Recorded:
    async for recorded in store.log.read(after=position - 1, until=position):
        return recorded
    raise CorruptLog(store.path, "an event is missing", Position(position))
