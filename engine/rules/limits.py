"""How often a tool may be called: a bucket that makes callers wait, and a window that counts.

A bucket holds up to `max_calls` tokens and is refilled evenly, `max_calls` within the interval. A
call takes a token. One that finds none takes the next that will be there, and is told how long that
is; so tokens go out in the order of asking, and a queue needs no lock and no list. The level of a
bucket is then negative: it owes what it has promised.

All of this is in whole numbers. A token is worth as many parts as the interval has microseconds,
and `max_calls` parts flow in within each microsecond: nothing is rounded but the wait, which is
rounded up. Source of the bucket: the rate limiter of CAR; of the window: the policies of CAR.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from fractions import Fraction

from attrs import define, field

from engine.tool_schema import RateLimit

__all__ = ["MAX_OPEN", "MAX_POINTS", "Bucket", "Window", "interval_us"]

MAX_OPEN = 10_000
"""Tokens of one bucket that can still be given back; more calls than that do not wait at once."""

MAX_POINTS = 10_000
"""Instants of one window. Beyond that, neighbours are counted as one, at the later instant."""


def interval_us(limit: RateLimit) -> int:
    """The interval of a limit in whole microseconds, 1 at least."""
    return max(1, round(Fraction(limit.interval_secs) * 10**6))


@define
class Bucket:
    """The tokens of one tool. Instants are microseconds of one clock; one that lies before an
    instant already seen is taken for that instant."""

    limit: RateLimit
    taken: int = field(default=0, init=False)
    """How many tokens were ever taken: the number of the last one, for `refund`."""
    _token: int = field(init=False)
    """The parts that a token is worth: one for each microsecond of the interval."""
    _level: int = field(init=False)
    """Parts there are; negative when tokens are promised that are not there yet."""
    _at_us: int | None = field(default=None, init=False)
    """When the level was worked out; None: never, and the bucket is full."""
    _open: deque[int] = field(factory=lambda: deque(maxlen=MAX_OPEN), init=False)
    """Numbers of the tokens that count, in the order of taking."""
    _unused: set[int] = field(factory=set, init=False)
    """Those of them that were given back while later ones were out."""

    def __attrs_post_init__(self) -> None:
        self._token = interval_us(self.limit)
        self._level = self._full

    @classmethod
    def empty(cls, limit: RateLimit, at_us: int) -> "Bucket":
        """One that has no token at `at_us`: the least that can be, where the past is not known."""
        bucket = cls(limit)
        bucket._level, bucket._at_us = 0, at_us
        return bucket

    @property
    def _full(self) -> int:
        return self.limit.max_calls * self._token

    def take(self, now_us: int) -> int:
        """Take a token; microseconds until it is there, 0 if it is."""
        self._refill(now_us)
        self._level -= self._token
        self.taken += 1
        self._open.append(self.taken)
        if self._level >= 0 or self._at_us is None:
            return 0
        return self._at_us - self._level // self.limit.max_calls - now_us

    def refund(self, number: int | None = None) -> None:
        """Give back a token that was never used: the one of that number, or the one taken last.

        What was promised to others stands: a token is there for somebody else once those taken
        after it were given back too, so that no two calls ever begin on one token.
        """
        if number is None and self._open:
            number = self._open[-1]
        if number is not None:
            self._unused.add(number)
        while self._open and self._open[-1] in self._unused:
            self._unused.discard(self._open.pop())
            self._level = min(self._full, self._level + self._token)
        if not self._open or len(self._unused) > MAX_OPEN:
            self._unused.intersection_update(self._open)

    def count(self, at_us: int) -> None:
        """Count a call that began at `at_us`: so it had a token, and the bucket owes nothing."""
        self._refill(at_us)
        self._level = max(0, self._level - self._token)
        self._open.clear()
        self._unused.clear()

    def _refill(self, now_us: int) -> None:
        if self._at_us is None:
            self._at_us = now_us
        passed_us = now_us - self._at_us
        if passed_us > 0:
            self._level = min(self._full, self._level + passed_us * self.limit.max_calls)
            self._at_us = now_us


@define
class Window:
    """How many calls began within an interval that ends now.

    Exact as long as calls began at no more than `MAX_POINTS` instants within the longest interval;
    beyond that never too few, and too many only at the interval's old end.
    """

    longest_us: int
    """The longest interval that can be asked for; what is older is forgotten."""
    _at_us: list[int] = field(factory=list, init=False)
    """Instants, in order."""
    _totals: list[int] = field(factory=list, init=False)
    """For each of them, how many calls were added up to it."""
    _forgotten: int = field(default=0, init=False)
    """How many calls are older than all of these."""

    @classmethod
    def of(cls, longest_us: int, at_us: Iterable[int]) -> "Window":
        """One to which calls at these instants were added, in this order."""
        window = cls(longest_us)
        for one in at_us:
            window.add(one)
        return window

    def add(self, at_us: int) -> None:
        """Count a call that began at `at_us`; before the newest, it counts as that one does."""
        total = (self._totals[-1] if self._totals else self._forgotten) + 1
        if self._at_us and at_us <= self._at_us[-1]:
            self._totals[-1] = total
            return
        self._at_us.append(at_us)
        self._totals.append(total)
        if len(self._at_us) > MAX_POINTS:
            self._shorten(at_us - self.longest_us)

    def count(self, now_us: int, interval_us: int) -> int:
        """How many calls began after `now_us - interval_us`, and not before.

        Raises:
            ValueError: the interval is longer than the window's longest.
        """
        if interval_us > self.longest_us:
            raise ValueError(f"{interval_us} us are longer than the window's {self.longest_us} us")
        if not self._totals:
            return 0
        older = bisect_right(self._at_us, now_us - interval_us)
        return self._totals[-1] - (self._totals[older - 1] if older else self._forgotten)

    def instants(self) -> list[int]:
        """When each call began that is still counted, oldest first."""
        before, found = self._forgotten, []
        for at_us, total in zip(self._at_us, self._totals, strict=True):
            found += [at_us] * (total - before)
            before = total
        return found

    def _shorten(self, from_us: int) -> None:
        """Forget what ended up to `from_us`; if that is little, halve the rest."""
        gone = bisect_right(self._at_us, from_us)
        if gone:
            self._forgotten = self._totals[gone - 1]
            del self._at_us[:gone], self._totals[:gone]
        if len(self._at_us) > MAX_POINTS // 2:  # of two neighbours, the later
            del self._at_us[-2::-2], self._totals[-2::-2]
