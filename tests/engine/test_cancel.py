"""Asking runs to stop."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carstore import Store
from carstore import events as e
from carstore.errors import InvalidEvent, NotFound
from carstore.names import RunId, inbox_stream
from engine.cancel import cancel
from engine.inbox import RunOver
from engine.signals import signal
from tests.carstore.helpers import in_loop, new_file, open_store
from tests.projections.plausible import append, completed, received

R = RunId("r1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_file(tmp_path / "a.db")


async def asked(store: Store) -> list[e.CancelRequested]:
    """The requests in the inbox."""
    kinds = [e.CancelRequested.kind]
    events = [one.event async for one in store.log.read(stream=inbox_stream(R), kinds=kinds)]
    return [one for one in events if isinstance(one, e.CancelRequested)]


@in_loop
async def test_a_request_is_recorded_with_who_and_why(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"))
        assert await cancel(store, R, by="ann", reason="wrong customer", compensate=True)
        assert await asked(store) == [
            e.CancelRequested(by="ann", reason="wrong customer", compensate=True)
        ]


@given(st.lists(st.booleans(), max_size=5))
def test_only_what_asks_for_more_than_was_asked_is_recorded(
    tmp_path_factory: pytest.TempPathFactory, requests: list[bool]
) -> None:
    """A stop, and then that what was done is undone; nothing takes that back."""
    file = new_file(tmp_path_factory.mktemp("asked") / "a.db")

    async def run() -> None:
        async with open_store(file) as store:
            await append(store, received("a1"))
            outcomes = [await cancel(store, R, compensate=one) for one in requests]
            recorded = [one.compensate for one in await asked(store)]
            assert recorded in ([], [False], [True], [False, True])
            assert (recorded[-1:] == [True]) == any(requests)
            assert recorded[:1] == requests[:1]
            assert outcomes.count(True) == len(recorded)

    asyncio.run(run())


@in_loop
async def test_of_many_who_ask_at_once_one_is_recorded(path: Path) -> None:
    stores = [await open_store(path) for _ in range(4)]
    await append(stores[0], received("a1"))
    await signal(stores[0], R, "other")
    outcomes = await asyncio.gather(
        *[cancel(store, R, by=f"p{n}") for n, store in enumerate(stores)]
    )
    assert sorted(outcomes) == [False, False, False, True]
    assert len(await asked(stores[0])) == 1
    for store in stores:
        await store.close()


@in_loop
async def test_a_run_that_is_not_there_or_is_over_cannot_be_stopped(path: Path) -> None:
    async with open_store(path) as store:
        with pytest.raises(NotFound, match="carstore runs"):
            await cancel(store, R)
        await append(store, received("a1"))
        await cancel(store, R)
        await append(store, completed("cancelled"))
        for compensate in (False, True):
            with pytest.raises(RunOver, match="it has been cancelled"):
                await cancel(store, R, compensate=compensate)
        assert len(await asked(store)) == 1


@pytest.mark.parametrize(
    ("field", "wrong"), [("by", ""), ("by", None), ("reason", None), ("compensate", 1)]
)
@in_loop
async def test_wrong_input_leaves_nothing(path: Path, field: str, wrong: Any) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"))
        with pytest.raises(InvalidEvent) as refused:
            await cancel(store, R, **{field: wrong})
        assert refused.value.where == f"$.{field}"
        assert await asked(store) == []
