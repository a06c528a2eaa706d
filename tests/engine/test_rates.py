"""The rates of a runtime: what the log tells of the past, and what is told since."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from carstore import Entry, Store
from carstore import events as e
from carstore.clock import ManualClock
from carstore.names import RunId, run_stream
from engine import rates as module
from engine.rates import Rates
from engine.tool_schema import RateLimit
from tests.carstore.helpers import in_loop, new_file, open_store

SECOND = 1_000_000
TWO = RateLimit(max_calls=2, interval_secs=2.0)
R = RunId("r")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_file(tmp_path / "log.db")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def intent(tool: str = "t") -> e.ActionExecuting:
    return e.ActionExecuting(
        action_id="a", attempt=1, tool=tool, effect="once", parameters_digest="0" * 64
    )


def undoing(tool: str = "t") -> e.CompensationExecuting:
    return e.CompensationExecuting(
        action_id="a", attempt=1, tool=tool, effect="once", parameters_digest="0" * 64
    )


async def record(store: Store, *events: Any) -> None:
    await store.log.append(*[Entry(run_stream(R), event, R) for event in events])


def rates_of(store: Store, **limits: RateLimit) -> Rates:
    return Rates(store, limits.get)


def waits(rates: Rates, count: int, tool: str = "t") -> list[int]:
    return [rates.take(tool) for _ in range(count)]


@in_loop
async def test_a_bucket_is_full_where_the_log_tells_of_no_call(
    path: Path, clock: ManualClock
) -> None:
    async with open_store(path, clock=clock) as store:
        rates = rates_of(store, t=TWO)
        await rates.ready("t")
        assert waits(rates, 3) == [0, 0, SECOND]


@pytest.mark.parametrize("event", [intent(), undoing(), e.ActionValidated(action_id="a", tool="t")])
def test_calls_of_the_log_have_taken_their_tokens(
    path: Path, clock: ManualClock, event: Any
) -> None:
    @in_loop
    async def check() -> None:
        async with open_store(path, clock=clock) as store:
            await record(store, event, intent("other"), e.ActionValidated(action_id="b"))
            clock.advance(SECOND // 2)
            rates = rates_of(store, t=TWO)
            rates.watch("t", 10 * SECOND)
            await rates.ready("t")
            assert rates.recent("t", SECOND) == 1
            assert rates.recent("t", SECOND // 2) == 0
            assert waits(rates, 3) == [0, SECOND // 2, 3 * SECOND // 2]

    check()


@in_loop
async def test_only_the_end_of_a_long_log_is_looked_at(path: Path, clock: ManualClock) -> None:
    """The first event of interest is found by halving, whatever its position."""
    async with open_store(path, clock=clock) as store:
        for _ in range(60):
            await record(store, intent())
            clock.advance(SECOND)
        for interval in (1, 2, 7, 30, 59, 60, 61, 1_000):
            rates = rates_of(store)
            rates.watch("t", interval * SECOND)
            await rates.ready("t")
            assert rates.recent("t", interval * SECOND) == min(interval - 1, 60)
            assert rates._past is not None
            assert len(rates._past.calls) == min(interval, 60)


@in_loop
async def test_a_bucket_that_was_in_steady_use_is_not_full_after_a_restart(
    path: Path, clock: ManualClock
) -> None:
    """Calls at the very rate of the refill leave nothing for a burst."""
    limit = RateLimit(max_calls=10, interval_secs=10.0)
    async with open_store(path, clock=clock) as store:
        await record(store, *[intent() for _ in range(10)])
        for _ in range(50):
            clock.advance(SECOND)
            await record(store, intent())
        rates = rates_of(store, t=limit)
        await rates.ready("t")
        assert waits(rates, 2) == [SECOND, 2 * SECOND]
        clock.advance(20 * SECOND)
        later = rates_of(store, t=limit)
        await later.ready("t")
        assert waits(later, 11) == [0] * 10 + [SECOND]


@in_loop
async def test_a_tool_without_limit_that_nobody_watches_reads_nothing_and_never_waits(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(path, clock=clock) as store:
        rates = rates_of(store)
        monkeypatch.setattr(module, "_first", None)  # reading would fail
        await rates.ready("t")
        rates.begun("t")
        rates.refund("t")
        assert (rates.take("t"), rates.taken("t")) == (0, 0)
        with pytest.raises(ValueError, match="not counted"):
            rates.recent("t", 1)


@in_loop
async def test_calls_are_counted_once_whether_told_or_read(path: Path, clock: ManualClock) -> None:
    async with open_store(path, clock=clock) as store:
        await record(store, intent())
        clock.advance(5 * SECOND)
        rates = rates_of(store, t=TWO)
        rates.watch("t", 3 * SECOND)
        await rates.ready("t")
        assert rates.recent("t", 3 * SECOND) == 0
        assert rates.take("t") == 0
        rates.begun("t")
        clock.advance(1)
        await record(store, intent())
        assert rates.recent("t", 3 * SECOND) == 1
        rates.watch(None, 60 * SECOND)
        await rates.ready("t")
        assert rates.recent("t", 60 * SECOND) == 2
        assert waits(rates, 2) == [0, SECOND - 1], "the bucket is the same one"


@in_loop
async def test_a_call_counts_once_from_its_decision_on(path: Path, clock: ManualClock) -> None:
    """So runs that decide at the same time know of each other."""
    async with open_store(path, clock=clock) as store:
        rates = rates_of(store)
        rates.watch("t", SECOND)
        await rates.ready("t")
        one, other, elsewhere = rates.decided("t"), rates.decided("t"), rates.decided("u")
        assert rates.recent("t", SECOND) == 2
        clock.advance(5 * SECOND)
        assert rates.recent("t", SECOND) == 2, "it is about to begin, however long ago it was"
        rates.begun("t", one)
        assert rates.recent("t", SECOND) == 2
        rates.undecided(other)
        rates.undecided(other)
        rates.undecided(one)
        rates.undecided(elsewhere)
        assert rates.recent("t", SECOND) == 1
        clock.advance(2 * SECOND)
        assert rates.recent("t", SECOND) == 0
        assert not rates._decided, "nothing is held for what is over"


@in_loop
async def test_a_shorter_interval_changes_nothing(path: Path, clock: ManualClock) -> None:
    async with open_store(path, clock=clock) as store:
        rates = rates_of(store)
        rates.watch(None, 60 * SECOND)
        await rates.ready("t")
        rates.watch("t", SECOND)
        rates.begun("t")
        assert rates.recent("t", 60 * SECOND) == 1
        with pytest.raises(ValueError, match="longer"):
            rates.recent("t", 61 * SECOND)


@in_loop
async def test_another_limit_makes_another_bucket_from_what_was_called(
    path: Path, clock: ManualClock
) -> None:
    limits = {"t": TWO}
    async with open_store(path, clock=clock) as store:
        rates = Rates(store, limits.get)
        await rates.ready("t")
        assert rates.take("t") == 0
        await record(store, intent())
        limits["t"] = RateLimit(max_calls=1, interval_secs=4.0)
        rates.limit_changed("t")
        await rates.ready("t")
        assert waits(rates, 1) == [4 * SECOND]


@in_loop
async def test_each_event_is_read_once_for_all_tools(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(path, clock=clock) as store:
        await record(store, intent("a"), intent("b"), intent("a"))
        read: list[int] = []
        original = store.log.read

        def noting(**arguments: Any) -> Any:
            read.append(arguments["after"])
            return original(**arguments)

        monkeypatch.setattr(type(store.log), "read", lambda _, **arguments: noting(**arguments))
        rates = rates_of(store, a=TWO, b=TWO)
        await asyncio.gather(*[rates.ready("a") for _ in range(5)])
        begun = len(read)
        await rates.ready("b")
        assert read[begun:] == [(await store.log.head()).position]
        assert (waits(rates, 1, "a"), waits(rates, 1, "b")) == ([SECOND], [0])


@in_loop
async def test_a_token_is_given_back_by_its_number(path: Path, clock: ManualClock) -> None:
    async with open_store(path, clock=clock) as store:
        rates = rates_of(store, t=TWO)
        await rates.ready("t")
        numbers = []
        for _ in range(4):
            rates.take("t")
            numbers.append(rates.taken("t"))
        for number in numbers[1:]:
            rates.refund("t", number)
        assert waits(rates, 2) == [0, SECOND]


@in_loop
async def test_a_clock_that_steps_back_stops_nothing_for_long(
    path: Path, clock: ManualClock
) -> None:
    """What the log has of the future counts as of now, and time goes on from there."""
    async with open_store(path, clock=clock) as store:
        await record(store, intent(), intent())
        clock.wall -= 3600 * SECOND
        rates = rates_of(store, t=TWO)
        rates.watch("t", 10 * SECOND)
        await rates.ready("t")
        assert rates.recent("t", SECOND) == 2
        assert waits(rates, 1) == [SECOND]
        clock.wall -= 3600 * SECOND
        assert waits(rates, 1) == [2 * SECOND]
        clock.advance(2 * SECOND)
        assert waits(rates, 1) == [SECOND]
        assert rates.recent("t", SECOND) == 0


@in_loop
async def test_more_past_than_is_looked_through_leaves_the_bucket_empty(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(name: str, value: int) -> None:
        monkeypatch.setattr(module, name, value)

    async with open_store(path, clock=clock) as store:
        await record(store, *[intent("other") for _ in range(20)])
        cut("MAX_PAST_EVENTS", 5)
        rates = rates_of(store, t=TWO)
        await rates.ready("t")
        assert waits(rates, 1) == [SECOND]


def test_a_tool_without_limit_costs_next_to_nothing() -> None:
    """Less than a microsecond in the best of many rounds: a look into a table."""
    rates, names = Rates(None, {}.get), ["t"] * 1_000  # type: ignore[arg-type] # no store is asked

    def once(tools: Sequence[str]) -> float:
        start = time.perf_counter()
        for tool in tools:
            rates.take(tool)
        return (time.perf_counter() - start) / len(tools)

    assert min(once(names) for _ in range(50)) < 1e-6
