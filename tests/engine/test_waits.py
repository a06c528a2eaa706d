"""Waits end by the clock of the store or by a signal: never early, and once."""

import asyncio
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import events as e
from carstore.clock import ManualClock
from carstore.names import RunId
from engine.built_in import instant_of
from engine.journal import load_run
from engine.results import rfc3339
from engine.signals import signal
from engine.waits import _due_at, can_go_on
from projections import WAITS, rows, select
from tests.engine.harness import Hands, call, execute, in_loop, opened, plan, resume, run_plan

SECOND = 1_000_000
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def sleep(name: str, **params: Any) -> Any:
    fields = {one: params.pop(one) for one in ("failure_behavior", "timeout_ms") if one in params}
    return call(name, "sleep", parameters=params, **fields)


def awaits(name: str, signal_name: str = "go", **fields: Any) -> Any:
    params = {"name": signal_name}
    if "timeout_secs" in fields:
        params["timeout_secs"] = fields.pop("timeout_secs")
    return call(name, "wait_signal", parameters=params, **fields)


@in_loop
async def test_a_sleep_ends_when_its_time_has_come_and_not_before(db: Path, hands: Hands) -> None:
    clock = ManualClock()
    proposal = plan(sleep("s", seconds=10), call("next", dependencies=("s",)))
    async with opened(db, clock=clock) as store:
        first = await execute(store, [hands.tool("next")], proposal, run_id="r")
        assert (first.status, first.result.waits_for) == ("waiting", "time")
        clock.advance(10 * SECOND - 1)
        assert (await resume(store, [hands.tool("next")], "r")).kinds == first.kinds
        assert hands.calls == []
    async with opened(db, clock=clock) as store:
        clock.advance(1)
        seen = await resume(store, [hands.tool("next")], "r")
        assert seen.status == "succeeded"
        assert hands.names == ["next"]
        assert await rows(store, WAITS) == {}


@given(seconds=st.floats(0, 1e6, allow_nan=False))
def test_a_duration_is_never_rounded_down(seconds: float) -> None:
    due = _due_at({"seconds": seconds}, 5)
    assert due is not None
    assert 0 <= due - 5 - Fraction(seconds) * SECOND < 1


@in_loop
async def test_until_an_instant(db: Path) -> None:
    clock = ManualClock(wall=1_767_225_600_000_000)  # 2026-01-01T00:00:00Z
    async with opened(db, clock=clock) as store:
        proposal = plan(sleep("s", until="2026-01-01T01:00:00+00:30"))
        assert (await execute(store, [], proposal, run_id="r")).status == "waiting"
        clock.advance(1800 * SECOND)
        seen = await resume(store, [], "r")
        assert seen.outputs == {"s": {"until": "2026-01-01T00:30:00.000000Z"}}


@pytest.mark.parametrize("until", ["soon", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_what_is_no_instant_fails_the_action(db: Path, until: str) -> None:
    seen = run_plan(db, [], sleep("s", until=until))
    assert "is no instant" in (seen.errors["s"] or "")


@pytest.mark.parametrize(
    "until",
    [
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59.9999999-00:01",
        "0001-01-01T00:00:00+23:59",
        "1969-12-31T23:59:59.999999Z",
    ],
)
@in_loop
async def test_what_no_clock_will_show_fails_the_action_alone(
    db: Path, hands: Hands, until: str
) -> None:
    """What else there is in the run goes on, and everybody can look at it."""
    async with opened(db) as store:
        tools = [hands.tool("other", 7)]
        proposal = plan(sleep("s", until=until, failure_behavior="skip"), call("other"))
        seen = await execute(store, tools, proposal, schedule="eager")
        assert "is not between 1970 and 9999 in UTC" in (seen.errors["s"] or "")
        assert seen.outputs["other"] == 7


@in_loop
async def test_the_last_instant_can_be_waited_for_and_shown(db: Path) -> None:
    async with opened(db) as store:
        proposal = plan(sleep("s", until="9999-12-31T23:59:59.999999Z"))
        assert (await execute(store, [], proposal)).status == "waiting"
        [wait] = await select(store, WAITS)
        assert rfc3339(wait.due_at or 0) == "9999-12-31T23:59:59.999999Z"


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_instant_that_a_log_can_hold_is_shown(at: int) -> None:
    shown = rfc3339(at)
    assert len(shown) == len("2030-01-31T12:00:00.000000Z")
    back = (datetime.fromisoformat(shown) - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
    assert back == min(max(at, -62_135_596_800_000_000), 253_402_300_799_999_999)


def test_an_instant_is_never_rounded_down() -> None:
    assert instant_of("1970-01-01T00:00:00.0000010Z") == 1
    assert instant_of("1970-01-01T00:00:00.0000011Z") == 2


def test_a_wait_without_time_ends_at_once(db: Path) -> None:
    assert run_plan(db, [], sleep("s", seconds=0)).status == "succeeded"


@in_loop
async def test_a_signal_is_taken_by_one_action_the_oldest_first(db: Path) -> None:
    """Also those that came before anybody waited for them."""
    proposal = plan(awaits("a"), awaits("b", dependencies=("a",)), awaits("c", "other"))
    async with opened(db) as store:
        await execute(store, [], proposal, run_id="r", schedule="eager")
        await signal(store, "r", "go", 1)
        await signal(store, "r", "go", 2)
        await signal(store, "r", "go", 3)
        seen = await resume(store, [], "r")
        assert seen.outputs == {"a": 1, "b": 2}
        assert (await resume(store, [], "r")).kinds == seen.kinds
        await signal(store, "r", "other", {"deep": [None]})
        seen = await resume(store, [], "r")
        assert (seen.status, seen.outputs["c"]) == ("succeeded", {"deep": [None]})
        taken = [(one.action_id, one.number) for one in seen.events(e.SignalTaken)]
        assert taken == [("a", 1), ("b", 2), ("c", 4)]


@in_loop
async def test_a_signal_that_does_not_come_in_time_fails_the_action(db: Path) -> None:
    clock = ManualClock()
    action = awaits("a", timeout_secs=5, failure_behavior="retry", max_retries=1)
    async with opened(db, clock=clock) as store:
        await execute(store, [], plan(action), run_id="r")
        clock.advance(5 * SECOND)
        assert (await resume(store, [], "r")).status == "waiting", "it is waited for once more"
        clock.advance(5 * SECOND)
        seen = await resume(store, [], "r")
        assert seen.errors == {"a": "no signal 'go' came in time"}
        assert len(seen.events(e.WaitStarted)) == 2


@in_loop
async def test_a_signal_wins_over_a_time_that_has_come_too(db: Path) -> None:
    clock = ManualClock()
    async with opened(db, clock=clock) as store:
        await execute(store, [], plan(awaits("a", timeout_secs=5)), run_id="r")
        await signal(store, "r", "go", "here")
        clock.advance(60 * SECOND)
        assert (await resume(store, [], "r")).outputs == {"a": "here"}


@in_loop
async def test_a_signal_that_came_when_the_time_was_over_stays_for_the_next_wait(
    db: Path,
) -> None:
    """Also if nobody drove the run meanwhile."""
    clock = ManualClock()
    late = awaits("a", timeout_secs=5, failure_behavior="skip")
    async with opened(db, clock=clock) as store:
        await execute(store, [], plan(late, awaits("b")), run_id="r", schedule="levels")
        clock.advance(5 * SECOND)
        await signal(store, "r", "go", "late")
        seen = await resume(store, [], "r")
        assert seen.errors["a"] == "no signal 'go' came in time"
        assert seen.outputs["b"] == "late"


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (sleep("a", seconds=10, timeout_ms=3000), "action timed out after 3000ms"),
        (sleep("a", seconds=3, timeout_ms=3000), None),
        (
            sleep("a", until="2030-01-31T12:00:00Z", timeout_ms=3000),
            "action timed out after 3000ms",
        ),
        (awaits("a", timeout_ms=3000), "action timed out after 3000ms"),
        (awaits("a", timeout_ms=3000, timeout_secs=9), "action timed out after 3000ms"),
        (awaits("a", timeout_ms=3000, timeout_secs=3), "no signal 'go' came in time"),
    ],
)
@in_loop
async def test_a_wait_takes_no_longer_than_its_action_may(
    db: Path, action: Any, error: str | None
) -> None:
    """Also if nobody drives the run then."""
    clock = ManualClock()
    async with opened(db, clock=clock) as store:
        first = await execute(store, [], plan(action), run_id="r")
        clock.advance(3 * SECOND - 1)
        assert (await resume(store, [], "r")).kinds == first.kinds
        clock.advance(1)
        assert (await resume(store, [], "r")).errors == {"a": error}


@in_loop
async def test_a_signal_in_time_that_was_not_heard_yet_ends_the_wait(db: Path) -> None:
    """Its driver looks into the inbox now and then, and may come to the end of the wait between."""
    proposal = plan(
        call("slow", failure_behavior="skip"),
        awaits("a", timeout_secs=0.3, failure_behavior="skip"),
    )

    async def go_on(**_: Any) -> None:
        await asyncio.sleep(1)

    async with opened(db) as store:
        tools = [Hands().tool("slow", does=go_on, read_only=True)]
        run = asyncio.create_task(execute(store, tools, proposal, run_id="r", schedule="eager"))
        async with asyncio.timeout(10):
            while not await select(store, WAITS):
                await asyncio.sleep(0.005)
        await signal(store, "r", "go", "here")
        assert (await run).outputs["a"] == "here"


@in_loop
async def test_a_driver_that_is_busy_wakes_in_time(db: Path, hands: Hands) -> None:
    """Something else is in flight, so the run is not put down; the sleep ends during that."""

    async def slow(**_: Any) -> None:
        await asyncio.sleep(0.4)

    tools = [hands.tool("slow", does=slow, read_only=True), hands.tool("next")]
    proposal = plan(
        sleep("s", seconds=0.05),
        call("slow", failure_behavior="skip"),
        call("next", dependencies=("s",)),
    )
    async with opened(db) as store:
        seen = await execute(store, tools, proposal, schedule="eager")
    assert seen.status == "succeeded"
    order = [one.action_id for one in seen.events(e.ActionSucceeded)]
    assert order == ["s", "next", "slow"]


@in_loop
async def test_whoever_registers_a_tool_of_that_name_gets_it(db: Path, hands: Hands) -> None:
    async with opened(db) as store:
        seen = await execute(store, [hands.tool("sleep", "mine")], plan(sleep("s", seconds=9)))
        assert seen.outputs == {"s": "mine"}


@in_loop
async def test_looking_whether_a_run_can_go_on_costs_no_event(db: Path) -> None:
    clock = ManualClock()
    async with opened(db, clock=clock) as store:
        await execute(store, [], plan(sleep("s", seconds=1)), run_id="r")
        head = await store.log.head()
        run = await load_run(store, RunId("r"))
        assert not can_go_on(run, clock.now())
        assert can_go_on(run, clock.now() + SECOND)
        await resume(store, [], "r")
        assert await store.log.head() == head


@in_loop
async def test_a_large_signal_stands_beside_the_log_and_reaches_the_call(
    db: Path, hands: Hands
) -> None:
    value = "x" * 200_000
    next_one = call("next", parameters={"given": "$a.output"})
    async with opened(db) as store:
        await execute(store, [hands.tool("next")], plan(awaits("a"), next_one), run_id="r")
        await signal(store, "r", "go", value)
        seen = await resume(store, [hands.tool("next")], "r")
        assert seen.status == "succeeded"
        assert hands.calls == [("next", {"given": value})]
        assert max(len(one.data) for one in seen.history) < 10_000
