"""Values sent to runs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carstore import Store
from carstore import events as e
from carstore.canonical import MAX_BYTES
from carstore.errors import InvalidEvent, InvalidJson, NotFound
from carstore.names import RunId, inbox_stream
from engine.inbox import RunOver
from engine.signals import signal
from tests.carstore.helpers import in_loop, new_file, open_store
from tests.projections.plausible import append, completed, received

R = RunId("r1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new_file(tmp_path / "a.db")


async def sent(store: Store) -> list[e.Event]:
    """What stands in the inbox, numbered without gaps."""
    found = [one async for one in store.log.read(stream=inbox_stream(R))]
    assert [one.version for one in found] == list(range(1, len(found) + 1))
    assert all(one.run_id == R for one in found)
    return [one.event for one in found]


@in_loop
async def test_signals_stand_in_the_inbox_in_the_order_in_which_they_were_sent(path: Path) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"))
        await signal(store, R, "paid", {"amount": 7}, by="shop")
        await signal(store, R, "paid", {"amount": 7}, by="shop")
        await signal(store, R, "order/1:ready")
        assert await sent(store) == [
            e.SignalSent(signal="paid", value={"amount": 7}, by="shop"),
            e.SignalSent(signal="paid", value={"amount": 7}, by="shop"),
            e.SignalSent(signal="order/1:ready", value=None, by="somebody"),
        ]


@in_loop
async def test_of_many_that_are_sent_at_once_none_is_lost(path: Path) -> None:
    async with open_store(path) as store, open_store(path) as other:
        await append(store, received("a1"))
        await asyncio.gather(*[signal(one, R, "n", n) for n in range(20) for one in (store, other)])
        values = [one.value for one in await sent(store) if isinstance(one, e.SignalSent)]
        assert sorted(values) == sorted([*range(20), *range(20)])


@in_loop
async def test_a_run_that_is_not_there_or_is_over_is_sent_nothing(path: Path) -> None:
    async with open_store(path) as store:
        with pytest.raises(NotFound, match="carstore runs"):
            await signal(store, R, "paid")
        await append(store, received("a1"), completed("rolled_back"))
        with pytest.raises(RunOver, match="run r1 is over: it has been rolled back") as over:
            await signal(store, R, "paid")
        assert over.value.where == R
        assert await sent(store) == []


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("given", "error", "where"),
    [
        ({"name": ""}, InvalidEvent, "$.signal"),
        ({"name": "two words"}, InvalidEvent, "$.signal"),
        ({"name": "x" * 129}, InvalidEvent, "$.signal"),
        ({"name": None}, InvalidEvent, "$.signal"),
        ({"by": ""}, InvalidEvent, "$.by"),
        ({"value": object()}, InvalidJson, "value"),
        ({"value": {"a": [float("nan")]}}, InvalidJson, "value.a[0]"),
        ({"value": 2**63}, InvalidJson, "value"),
        ({"value": nested(65)}, InvalidJson, None),
        ({"value": "x" * MAX_BYTES}, InvalidJson, "value"),
    ],
)
@in_loop
async def test_wrong_input_leaves_nothing(
    path: Path, given: dict[str, Any], error: type[InvalidEvent | InvalidJson], where: str | None
) -> None:
    async with open_store(path) as store:
        await append(store, received("a1"))
        with pytest.raises(error) as refused:
            await signal(store, R, **{"name": "paid", "value": 1, **given})
        assert where is None or refused.value.where == where
        assert await sent(store) == []
