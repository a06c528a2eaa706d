"""Buckets and windows, against simulations that do it the slow way."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.rules.limits import MAX_POINTS, Bucket, Window, interval_us
from engine.tool_schema import RateLimit

SECOND = 1_000_000

limits = st.builds(
    RateLimit,
    max_calls=st.integers(1, 7),
    interval_secs=st.sampled_from([0.000003, 0.00001, 0.1, 1 / 3, 1, 60.5]),
)


def paces(limit: RateLimit) -> st.SearchStrategy[list[int]]:
    """Times between callers, in microseconds: none, short ones, and more than an interval."""
    whole = interval_us(limit)
    gap = st.just(0) | st.integers(0, whole // limit.max_calls + 1) | st.integers(0, 2 * whole)
    return st.lists(gap, max_size=40)


limited = limits.flatmap(lambda limit: st.tuples(st.just(limit), paces(limit)))


def simulate(limit: RateLimit, arrivals: list[int]) -> list[Fraction]:
    """When each caller begins, one after the other: at the first instant with a whole token."""
    rate = Fraction(limit.max_calls, interval_us(limit))
    tokens, at, begins = Fraction(limit.max_calls), Fraction(0), []
    for arrival in arrivals:
        moment = max(at, Fraction(arrival))
        tokens = min(Fraction(limit.max_calls), tokens + (moment - at) * rate)
        if tokens < 1:
            moment += (1 - tokens) / rate
            tokens = Fraction(1)
        tokens, at = tokens - 1, moment
        begins.append(moment)
    return begins


def arrivals_of(gaps: list[int]) -> list[int]:
    found, now = [], 0
    for gap in gaps:
        now += gap
        found.append(now)
    return found


@given(limited)
def test_each_caller_waits_as_long_as_in_a_simulation(given_: tuple[RateLimit, list[int]]) -> None:
    limit, gaps = given_
    arrivals, bucket = arrivals_of(gaps), Bucket(limit)
    begins = [now + bucket.take(now) for now in arrivals]
    assert begins == [ceil(moment) for moment in simulate(limit, arrivals)]
    assert begins == sorted(begins)


@given(limited)
def test_no_stretch_of_time_has_more_calls_than_a_burst_and_the_refill(
    given_: tuple[RateLimit, list[int]],
) -> None:
    limit, gaps = given_
    bucket = Bucket(limit)
    begins = [now + bucket.take(now) for now in arrivals_of(gaps)]
    for first, begin in enumerate(begins):
        for last in range(first, len(begins)):
            longest = begins[last] - begin + 1  # a wait is rounded up by less than a microsecond
            refill = Fraction(longest * limit.max_calls, interval_us(limit))
            assert last - first + 1 <= limit.max_calls + ceil(refill)


def test_a_full_bucket_gives_all_its_tokens_at_once_and_then_one_at_a_time() -> None:
    bucket = Bucket(RateLimit(max_calls=3, interval_secs=3.0))
    assert [bucket.take(SECOND) for _ in range(5)] == [0, 0, 0, SECOND, 2 * SECOND]


def test_an_interval_that_does_not_divide_is_not_rounded_each_time() -> None:
    bucket = Bucket(RateLimit(max_calls=3, interval_secs=1.0))
    waits = [bucket.take(0) for _ in range(3 + 3_000)][3:]
    assert waits[:3] == [333_334, 666_667, SECOND]
    assert waits[-1] == 1_000 * SECOND


@pytest.mark.parametrize(("seconds", "us"), [(0.1, 100_000), (1e-9, 1), (0.3, 300_000)])
def test_an_interval_is_whole_microseconds(seconds: float, us: int) -> None:
    assert interval_us(RateLimit(max_calls=1, interval_secs=seconds)) == us


@given(limited, st.data())
def test_tokens_given_back_leave_the_bucket_as_if_never_taken(
    given_: tuple[RateLimit, list[int]], data: st.DataObject
) -> None:
    """Whoever gives up last or in any order: if all of the last ones do, nothing is left of it."""
    limit, gaps = given_
    arrivals = arrivals_of(gaps)
    kept = data.draw(st.integers(0, len(arrivals)))
    bucket, other = Bucket(limit), Bucket(limit)
    numbers = []
    for now in arrivals:
        bucket.take(now)
        numbers.append(bucket.taken)
    for number in data.draw(st.permutations(numbers[kept:])):
        bucket.refund(number)
    for now in arrivals[:kept]:
        other.take(now)
    later = (arrivals[-1] if arrivals else 0) + data.draw(st.integers(0, interval_us(limit)))
    assert [bucket.take(later) for _ in range(9)] == [other.take(later) for _ in range(9)]


@given(limited, st.data())
def test_tokens_given_back_never_let_more_calls_begin(
    given_: tuple[RateLimit, list[int]], data: st.DataObject
) -> None:
    limit, gaps = given_
    bucket, out, begun = Bucket(limit), [], []
    for now in arrivals_of(gaps):
        begin = now + bucket.take(now)
        out.append((bucket.taken, begin))
        gives_up = [one for one in out if one[1] >= now and data.draw(st.booleans())]
        for one in gives_up:
            bucket.refund(one[0])
            out.remove(one)
    begun = sorted(begin for _, begin in out)
    for first, begin in enumerate(begun):
        for last in range(first, len(begun)):
            refill = Fraction((begun[last] - begin + 1) * limit.max_calls, interval_us(limit))
            assert last - first + 1 <= limit.max_calls + ceil(refill)


def test_a_token_in_the_middle_is_there_again_when_those_behind_it_give_up_too() -> None:
    bucket = Bucket(RateLimit(max_calls=1, interval_secs=1.0))
    assert [bucket.take(0) for _ in range(3)] == [0, SECOND, 2 * SECOND]
    bucket.refund(2)
    bucket.refund(2)
    assert bucket.take(0) == 3 * SECOND
    bucket.refund()
    bucket.refund(3)
    assert bucket.take(0) == SECOND


def test_without_a_number_the_last_token_is_given_back_then_the_one_before() -> None:
    bucket = Bucket(RateLimit(max_calls=2, interval_secs=2.0))
    bucket.refund()
    waits = [bucket.take(0) for _ in range(4)]
    for _ in waits:
        bucket.refund()
    assert waits == [0, 0, SECOND, 2 * SECOND] == [bucket.take(0) for _ in range(4)]


@given(limited, st.integers(1, 10**6))
def test_a_bucket_rebuilt_from_its_calls_never_gives_more_than_it_had(
    given_: tuple[RateLimit, list[int]], pause: int
) -> None:
    limit, gaps = given_
    bucket = Bucket(limit)
    begins = [now + bucket.take(now) for now in arrivals_of(gaps)]
    now = (begins[-1] if begins else 0) + pause
    for forgotten in (0, len(begins) // 2):
        since = begins[forgotten] - 1 if begins else 0
        rebuilt = Bucket.empty(limit, since)
        for begin in begins[forgotten:]:
            rebuilt.count(begin)
        before = Bucket(limit)
        for begin in begins:
            before.take(begin)
        assert all(rebuilt.take(now) >= before.take(now) for _ in range(limit.max_calls + 2))


def test_a_clock_that_steps_back_gives_no_tokens() -> None:
    bucket = Bucket(RateLimit(max_calls=1, interval_secs=1.0))
    assert bucket.take(10 * SECOND) == 0
    assert bucket.take(9 * SECOND) == 2 * SECOND


calls = st.lists(st.integers(0, 50), max_size=60)


@given(calls, st.integers(0, 60), st.integers(1, 100))
def test_a_window_counts_what_began_within_its_interval(
    at: list[int], now: int, interval: int
) -> None:
    window = Window.of(100, sorted(at))
    now += max(at, default=0)
    assert window.count(now, interval) == sum(now - interval < one for one in at)
    assert window.instants() == sorted(at)


def test_a_call_before_the_newest_counts_as_the_newest_does() -> None:
    window = Window.of(100, [50, 10])
    assert window.count(60, 20) == 2


def test_a_longer_interval_than_is_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than the window's 10 us"):
        Window(10).count(0, 11)


def test_a_window_is_bounded_and_errs_on_the_side_of_too_many() -> None:
    window, calls = Window(10 * MAX_POINTS), 5 * MAX_POINTS
    for at_us in range(calls):
        window.add(at_us)
        assert len(window._at_us) <= MAX_POINTS
    for interval in (1, 10, 1_000, calls):
        found = window.count(calls - 1, interval)
        assert interval <= found <= interval + 64


def test_what_is_older_than_the_longest_interval_is_forgotten() -> None:
    window = Window(10)
    for at_us in range(3 * MAX_POINTS):
        window.add(at_us)
    assert len(window._at_us) <= MAX_POINTS
    assert window.count(3 * MAX_POINTS - 1, 10) == 10
