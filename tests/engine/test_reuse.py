"""What was done once is not done again where that was asked for, and only as long as it stands."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import events as e
from carstore.clock import ManualClock
from engine import resolve
from engine.prove.people import People
from tests.engine.harness import (
    Hands,
    call,
    execute,
    in_loop,
    opened,
    plan,
    resume,
    runtime,
    set_state,
)

SECOND = 1_000_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def hands() -> Hands:
    return Hands()


def asks(name: str = "a", **fields: Any) -> Any:
    return call(name, "fetch", idempotent=True, **fields)


async def pause(**_: Any) -> str:
    await asyncio.sleep(0.1)
    return "made"


@pytest.mark.parametrize("processes", [1, 2])
@in_loop
async def test_equal_calls_in_flight_are_made_once(db: Path, hands: Hands, processes: int) -> None:
    """Whether the runs share a process or not; all have the one result."""
    tools = [hands.tool("fetch", does=pause)]
    async with opened(db) as one, opened(db) as two:
        stores = [one, two if processes == 2 else one]
        found = await asyncio.gather(
            *[execute(stores[n % 2], tools, plan(asks())) for n in range(6)]
        )
    assert hands.names == ["fetch"]
    assert {seen.outputs["a"] for seen in found} == {"made"}
    hits = [event for seen in found for event in seen.events(e.ActionDeduplicated)]
    assert len(hits) == 5


@in_loop
async def test_equal_calls_of_one_run_are_made_once(db: Path, hands: Hands) -> None:
    actions = [asks(f"a{n}", failure_behavior="skip") for n in range(4)]
    async with opened(db) as store:
        seen = await execute(store, [hands.tool("fetch", does=pause)], plan(*actions))
    assert hands.names == ["fetch"]
    assert set(seen.outputs.values()) == {"made"}


@in_loop
async def test_who_waits_for_a_call_that_fails_makes_it(db: Path, hands: Hands) -> None:
    async def fails_once(**_: Any) -> str:
        await asyncio.sleep(0.05)
        if len(hands.calls) == 1:
            raise ValueError("not this time")
        return "made"

    tools = [hands.tool("fetch", does=fails_once)]
    action = asks(failure_behavior="skip")
    async with opened(db) as store:
        found = await asyncio.gather(*[execute(store, tools, plan(action)) for _ in range(3)])
    assert len(hands.calls) == 2
    assert sorted(seen.statuses["a"] for seen in found) == ["skipped", "succeeded", "succeeded"]


@in_loop
async def test_a_dead_process_holds_nobody_up(db: Path, hands: Hands) -> None:
    """Its call is in doubt; who asks for the same makes it."""
    people = People()
    never = asyncio.Event()

    async def hang(**_: Any) -> None:
        await never.wait()

    async with opened(db, people) as store:
        dying = runtime(store, [hands.tool("fetch", does=hang)])
        task = asyncio.create_task(dying.execute(plan(asks()), run_id="dead"))
        async with asyncio.timeout(5):
            while not hands.calls:
                await asyncio.sleep(0.01)
        append = store.log.append

        async def dead(*_: Any, **__: Any) -> Any:
            raise OSError("dead")

        store.log.append = dead  # type: ignore[method-assign]
        task.cancel()
        never.set()
        with pytest.raises((asyncio.CancelledError, OSError)):
            await task
        store.log.append = append  # type: ignore[method-assign]
    people.all_die()
    async with opened(db, people) as store:
        seen = await execute(store, [hands.tool("fetch", "made")], plan(asks()))
        assert (seen.status, len(hands.calls)) == ("succeeded", 2)


@in_loop
async def test_a_success_that_was_rolled_back_is_forgotten_and_others_are_not(
    db: Path, hands: Hands
) -> None:
    """Two runs that made the same call: undoing one leaves what the other remembers."""
    tools = [hands.tool("fetch", "made"), hands.tool("bad", fails=9), hands.tool("ok")]
    action = asks(expected_effects={"k": 1})
    async with opened(db) as store:
        await execute(store, tools, plan(action))
        # The effect does not hold any more, so the call is made again; then it is undone.
        await set_state(store, {"k": 2})
        undone = await execute(store, tools, plan(action, call("bad", dependencies=("a",))))
        assert (undone.status, len(undone.events(e.ActionDeduplicated))) == ("rolled_back", 0)
        await set_state(store, {"k": 1})
        seen = await execute(store, tools, plan(action))
        assert len(seen.events(e.ActionDeduplicated)) == 1, "the first success still stands"


@in_loop
async def test_a_doubt_resolved_as_succeeded_is_remembered(db: Path, hands: Hands) -> None:
    people = People()

    async def hang(**_: Any) -> None:
        await asyncio.sleep(30)

    async with opened(db, people) as store:
        action = asks(timeout_ms=20)
        waits = await execute(store, [hands.tool("fetch", does=hang)], plan(action), run_id="r")
        assert waits.status == "waiting"
        await resolve(store, waits.result.run_id, "a", "succeeded", output="made")
        tools = [hands.tool("fetch", "again")]
        assert (await resume(store, tools, "r")).outputs == {"a": "made"}
        seen = await execute(store, tools, plan(asks()))
        assert seen.outputs == {"a": "made"}
        assert len(seen.events(e.ActionDeduplicated)) == 1


@in_loop
async def test_a_cache_serves_results_until_they_are_too_old(db: Path, hands: Hands) -> None:
    """Across runs and restarts; a hit is recorded as such, and applies no effects."""
    clock = ManualClock()
    tools = [hands.tool("look", 1, read_only=True, cache_ttl_secs=60)]
    action = call("look", expected_effects={"seen": True})
    async with opened(db, clock=clock) as store:
        await execute(store, tools, plan(action))
    async with opened(db, clock=clock) as store:
        clock.advance(60 * SECOND - 1)
        seen = await execute(store, tools, plan(action))
        [hit] = seen.events(e.ActionDeduplicated)
        assert (hit.cause, hit.output) == ("cache", 1)
        assert seen.events(e.StateChanged) == []
        clock.advance(1)
        assert (await execute(store, tools, plan(action))).events(e.ActionDeduplicated) == []
        assert len(hands.calls) == 2


@in_loop
async def test_other_parameters_tools_and_scopes_share_nothing(db: Path, hands: Hands) -> None:
    tools = [hands.tool("fetch", 1)]
    async with opened(db) as store:
        await execute(store, tools, plan(asks(parameters={"n": 1})))
        await execute(store, tools, plan(asks(parameters={"n": 2})))
        await execute(store, tools, plan(asks(parameters={"n": 1})), scope="other")
        changed = [hands.tool("fetch", 1, returns={"type": "integer"})]
        await execute(store, changed, plan(asks(parameters={"n": 1})))
        assert len(hands.calls) == 4
