"""The bell that wakes a driver."""

import asyncio

import pytest

from engine.bell import Bell


def far() -> float:
    return asyncio.get_running_loop().time() + 3600


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.01


async def waiting(bell: Bell, until: float) -> "asyncio.Task[None]":
    """A task that has begun to wait."""
    task = asyncio.create_task(bell.wait(until))
    await asyncio.sleep(0)
    return task


def test_what_was_rung_before_the_wait_ends_it_until_it_is_cleared() -> None:
    async def test() -> None:
        bell = Bell()
        bell.ring()
        await asyncio.wait_for(bell.wait(far()), 1)
        await asyncio.wait_for(bell.wait(far()), 1)
        bell.clear()
        task = await waiting(bell, far())
        assert not task.done()
        bell.ring()
        await asyncio.wait_for(task, 1)
        bell.stop()

    asyncio.run(test())


@pytest.mark.parametrize("earlier", [None, 3600])
def test_a_wait_ends_at_its_instant_whatever_an_earlier_one_was_for(earlier: int | None) -> None:
    async def test() -> None:
        bell = Bell()
        if earlier is not None:
            task = await waiting(bell, far())
            bell.ring()
            await task
            bell.clear()
        until = soon()
        await asyncio.wait_for(bell.wait(until), 1)
        assert asyncio.get_running_loop().time() >= until - 0.001

    asyncio.run(test())


def test_an_instant_that_has_passed_ends_the_wait_but_lets_others_run() -> None:
    async def test() -> None:
        bell, ran = Bell(), asyncio.Event()
        asyncio.get_running_loop().call_soon(ran.set)
        await asyncio.wait_for(bell.wait(0), 1)
        assert ran.is_set()

    asyncio.run(test())


def test_nothing_is_left_of_a_bell_that_stopped() -> None:
    async def test() -> None:
        bell = Bell()
        task = await waiting(bell, soon())
        bell.stop()
        await asyncio.sleep(0.03)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bell.ring()  # nobody waits any more

    asyncio.run(test())
