"""What a running tool may ask, from the event loop and from threads, until its attempt is over."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import PosixPath
from typing import Any

import pytest
from attrs.exceptions import FrozenAttributeError
from hypothesis import given
from hypothesis import strategies as st

from carstore.errors import InvalidJson
from carstore.log import StateRead
from carstore.names import ActionId, RunId
from engine.buffered import (
    DELETED,
    MAX_KEYS,
    MAX_LOG_LINES,
    MAX_METERINGS,
    Buffered,
    ContextMisused,
    LogLine,
    Metered,
)
from engine.context import ContextClosed, Reader, ToolCancelled, ToolContext

MISSING = StateRead(None, exists=False, position=0)


class Store:
    """State that changes under the hands of its readers, and counts the reads."""

    def __init__(self, **held: StateRead) -> None:
        self.held = held
        self.asked: list[str] = []

    async def read(self, key: str) -> StateRead:
        self.asked.append(key)
        await asyncio.sleep(0)
        return self.held.get(key, MISSING)


def context(reader: Reader, loop: asyncio.AbstractEventLoop | None = None) -> ToolContext:
    return ToolContext(
        run_id=RunId("r1"),
        action_id=ActionId("a1"),
        tool="t",
        attempt=2,
        idempotency_key="k" * 64,
        reader=reader,
        loop=loop,
    )


def with_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), timeout=20))


# State.


def test_reads_are_recorded_with_their_positions() -> None:
    store = Store(
        a=StateRead([1], exists=True, position=7), b=StateRead(None, exists=False, position=9)
    )
    ctx = context(store.read)

    async def tool() -> None:
        assert await ctx.read("a") == [1]
        assert await ctx.read("b", "none") == "none"
        assert await ctx.read("c") is None
        assert ctx.reads == {"a": 7, "b": 9, "c": 0}

    with_loop(tool)


def test_a_key_that_holds_null_exists() -> None:
    ctx = ToolContext.detached({"a": None})
    assert ctx.get("a", "default") is None
    assert ctx.get("b", "default") == "default"


def test_an_attempt_sees_one_value_of_what_others_change() -> None:
    store = Store(a=StateRead(1, exists=True, position=5))
    ctx = context(store.read)

    async def tool() -> None:
        assert await ctx.read("a") == 1
        store.held["a"] = StateRead(2, exists=True, position=6)
        assert await ctx.read("a") == 1
        assert ctx.reads == {"a": 5}
        assert store.asked == ["a"]

    with_loop(tool)


def test_of_concurrent_reads_of_a_key_the_first_wins() -> None:
    store = Store(a=StateRead(1, exists=True, position=5))
    ctx = context(store.read)

    async def tool() -> None:
        first = asyncio.create_task(ctx.read("a"))
        second = asyncio.create_task(ctx.read("a"))
        assert await first == await second == 1
        assert ctx.reads == {"a": 5}

    with_loop(tool)


def test_an_attempt_sees_its_own_changes_and_those_are_no_reads() -> None:
    ctx = ToolContext.detached({"a": 1, "b": 2})
    ctx.set("a", {"n": [1]})
    ctx.delete("b")
    assert ctx.get("a") == {"n": [1]}
    assert ctx.get("b", "gone") == "gone"
    ctx.set("b", None)
    assert ctx.get("b", "gone") is None
    assert ctx.reads == {}
    assert ctx.changes == {"a": {"n": [1]}, "b": None}


def test_changes_keep_the_order_of_the_last_ones() -> None:
    ctx = ToolContext.detached()
    for key in ("a", "b", "a"):
        ctx.set(key, key)
    ctx.delete("b")
    assert list(ctx.changes.items()) == [("a", "a"), ("b", DELETED)]


def test_values_are_not_shared_with_the_tool() -> None:
    mine, theirs = {"n": [1]}, {"n": [2]}
    ctx = ToolContext.detached({"read": theirs})
    ctx.set("set", mine)
    mine["n"].append(2)
    ctx.get("set")["n"].append(3)
    ctx.get("read")["n"].append(4)
    assert ctx.changes == {"set": {"n": [1]}}
    assert ctx.get("set") == {"n": [1]}
    assert ctx.get("read") == {"n": [2]} == theirs


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "delete", "get"]), st.sampled_from("abc"), st.integers())
    )
)
def test_a_context_is_a_dictionary_over_the_store(steps: list[tuple[str, str, int]]) -> None:
    model: dict[str, int | None] = {"a": -1, "b": -2}
    ctx = ToolContext.detached(model)
    for step, key, value in steps:
        match step:
            case "set":
                ctx.set(key, value % 2**60)
                model[key] = value % 2**60
            case "delete":
                ctx.delete(key)
                model.pop(key, None)
            case _:
                assert ctx.get(key, "none") == model.get(key, "none")


@pytest.mark.parametrize("key", ["", "a\n", "e\u0301", "x" * 513, 3, None])
def test_bad_keys_are_refused(key: Any) -> None:
    ctx = ToolContext.detached()
    calls: list[Callable[[], Any]] = [
        lambda: ctx.get(key),
        lambda: ctx.set(key, 1),
        lambda: ctx.delete(key),
        lambda: asyncio.run(ctx.read(key)),
    ]
    for call in calls:
        with pytest.raises(ContextMisused, match="the state key "):
            call()
    assert ctx.reads == ctx.changes == {}


@pytest.mark.parametrize("value", [{1}, (1,), float("nan"), 2**63, "\ud800", {1: 2}, object()])
def test_values_that_are_not_json_are_refused_at_the_call(value: Any) -> None:
    ctx = ToolContext.detached()
    with pytest.raises(InvalidJson, match=r"ctx\.set\('a'\) value\.deep\[0\]"):
        ctx.set("a", {"deep": [value]})
    assert ctx.changes == {}


def test_there_is_a_limit_on_keys() -> None:
    ctx = ToolContext.detached()
    for number in range(MAX_KEYS):
        ctx.set(f"k{number}", number)
    ctx.set("k0", "again")
    with pytest.raises(ContextMisused, match="more than 10,000 keys changed"):
        ctx.delete("one more")


# State from threads.


def test_a_thread_reads_through_the_engines_loop() -> None:
    store = Store(a=StateRead(1, exists=True, position=5))

    async def test() -> None:
        loop = asyncio.get_running_loop()
        ctx = context(store.read, loop)
        with ThreadPoolExecutor(1) as threads:
            assert await loop.run_in_executor(threads, ctx.get, "a") == 1
            assert await loop.run_in_executor(threads, ctx.get, "b", "none") == "none"
        assert ctx.reads == {"a": 5, "b": 0}

    with_loop(test)


def test_a_loop_of_the_tools_own_reads_through_the_engines_loop() -> None:
    homes: list[asyncio.AbstractEventLoop] = []

    async def read(key: str) -> StateRead:
        homes.append(asyncio.get_running_loop())
        return StateRead(key, exists=True, position=1)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        ctx = context(read, loop)

        async def inner() -> list[Any]:
            return [await ctx.read("a"), ctx.get("b")]

        with ThreadPoolExecutor(1) as threads:
            assert await loop.run_in_executor(threads, asyncio.run, inner()) == ["a", "b"]
        assert homes == [loop, loop]

    with_loop(test)


def test_get_on_the_event_loop_is_refused_instead_of_stopping_it() -> None:
    async def test() -> None:
        for ctx in (context(Store().read, asyncio.get_running_loop()), ToolContext.detached()):
            with pytest.raises(ContextMisused, match=r"write: await ctx\.read"):
                ctx.get("a")
            ctx.set("a", 1)
            assert ctx.get("a") == 1  # needs nobody else

    with_loop(test)


def test_what_the_reader_raises_reaches_the_tool() -> None:
    async def read(key: str) -> StateRead:
        raise OSError("no disk")

    async def test() -> None:
        loop = asyncio.get_running_loop()
        ctx = context(read, loop)
        with pytest.raises(OSError, match="no disk"):
            await ctx.read("a")
        with ThreadPoolExecutor(1) as threads, pytest.raises(OSError, match="no disk"):
            await loop.run_in_executor(threads, ctx.get, "a")
        assert ctx.reads == {}

    with_loop(test)


def test_closing_frees_a_thread_that_waits_for_the_store() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()

        async def never(key: str) -> StateRead:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        ctx = context(never, loop)
        with ThreadPoolExecutor(1) as threads:
            waiting = loop.run_in_executor(threads, ctx.get, "a")
            await asked.wait()
            ctx.close()
            with pytest.raises(ContextClosed):
                await waiting

    with_loop(test)


def test_a_thread_that_outlives_the_loop_is_told_so() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(ContextClosed):
        context(Store().read, loop).get("a")


# Costs and log.


def test_meterings_are_kept_in_order() -> None:
    ctx = ToolContext.detached()
    ctx.meter(tokens_in=3, tokens_out=4, cost_micros=5, agent="critic", model="m-1")
    ctx.meter(cost="0.0123", currency="EUR")
    ctx.meter(cost=Decimal("0.0000005"))
    assert ctx.buffered.metered == (
        Metered(
            tokens_in=3, tokens_out=4, currency="USD", cost_micros=5, agent="critic", model="m-1"
        ),
        Metered(
            tokens_in=0, tokens_out=0, currency="EUR", cost_micros=12_300, agent=None, model=None
        ),
        Metered(tokens_in=0, tokens_out=0, currency="USD", cost_micros=1, agent=None, model=None),
    )


@pytest.mark.parametrize(
    ("spent", "said"),
    [
        ({"tokens_in": -1}, "-1 is not an integer from 0"),
        ({"tokens_out": 1.0}, "1.0 is not an integer"),
        ({"tokens_out": True}, "True is not an integer"),
        ({"tokens_in": 10**16}, "is not an integer from 0"),
        ({"cost_micros": "5"}, "'5' is not an integer"),
        ({"cost": 0.5}, '0.5 is not exact. Pass it as a string or Decimal: cost="0.0123"'),
        ({"cost": 1}, "1 is not exact"),
        ({"cost": "-1"}, "'-1' is not an amount of money from 0 to 1,000,000,000"),
        ({"cost": "nan"}, "'nan' is not an amount"),
        ({"cost": "1", "cost_micros": 1}, "not both"),
        ({"agent": ""}, "the name is empty"),
        ({"model": "a\nb"}, "holds the control character"),
        ({"agent": 3}, "is of type int"),
    ],
)
def test_amounts_that_cannot_be_are_refused(spent: dict[str, Any], said: str) -> None:
    ctx = ToolContext.detached()
    with pytest.raises(ContextMisused) as caught:
        ctx.meter(**spent)
    assert said in caught.value.message
    assert caught.value.code == "context_misused"
    assert ctx.buffered.metered == ()


def test_there_is_a_limit_on_meterings() -> None:
    ctx = ToolContext.detached()
    for _ in range(MAX_METERINGS):
        ctx.meter()
    with pytest.raises(ContextMisused, match="add some up"):
        ctx.meter()


def test_log_lines_are_kept_in_order_and_not_shared() -> None:
    ctx = ToolContext.detached()
    seen = [1]
    ctx.log("walked", seen=seen, message="data may have any name")
    seen.append(2)
    ctx.log("done")
    assert ctx.buffered.lines == (
        LogLine("walked", {"seen": [1], "message": "data may have any name"}),
        LogLine("done", {}),
    )


def test_a_log_that_is_too_much_is_cut_and_does_not_fail_the_tool() -> None:
    ctx = ToolContext.detached()
    ctx.log("x" * 10_000, data="y" * 100_000)
    ctx.log("a\udcff.txt")
    for number in range(MAX_LOG_LINES):
        ctx.log(str(number))
    long, odd = ctx.buffered.lines[:2]
    assert long == LogLine("x" * 1_997 + "...", {"left_out": "100,011 bytes of data"})
    assert odd == LogLine("a\\udcff.txt", {})
    assert len(ctx.buffered.lines) == MAX_LOG_LINES
    assert ctx.buffered.lines_left_out == 2


def test_log_data_must_be_json() -> None:
    ctx = ToolContext.detached()
    with pytest.raises(InvalidJson, match=r"ctx\.log data\.where: a PosixPath is not JSON"):
        ctx.log("walked", where=PosixPath())
    with pytest.raises(ContextMisused, match="not a string"):
        ctx.log(3)  # type: ignore[arg-type]


# Cancellation.


def test_a_thread_sees_that_it_should_stop() -> None:
    ctx = ToolContext.detached()
    stopped = threading.Event()

    def tool() -> None:
        while not ctx.cancelled:
            time.sleep(0.001)
        stopped.set()

    thread = threading.Thread(target=tool)
    ctx.raise_if_cancelled()
    thread.start()
    ctx.request_cancel()
    assert stopped.wait(10)
    thread.join()
    with pytest.raises(ToolCancelled, match="'tool' stopped, as it was asked to"):
        ctx.raise_if_cancelled()


def test_whoever_waits_is_told_once_a_stop_is_requested() -> None:
    async def test() -> None:
        ctx = context(Store().read, asyncio.get_running_loop())
        waiting = [asyncio.create_task(ctx.wait_cancelled()) for _ in range(2)]
        given_up = asyncio.create_task(ctx.wait_cancelled())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        ctx.request_cancel()
        ctx.request_cancel()
        await asyncio.gather(*waiting)
        await ctx.wait_cancelled()
        assert ctx.cancelled

    with_loop(test)


def test_a_request_reaches_a_loop_in_another_thread() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        ctx = context(Store().read, loop)
        with ThreadPoolExecutor(1) as threads:
            waiting = loop.run_in_executor(threads, asyncio.run, ctx.wait_cancelled())
            await asyncio.sleep(0.01)
            ctx.request_cancel()
            await waiting

    with_loop(test)


def test_whoever_waits_for_a_stop_is_told_when_the_attempt_ends_without() -> None:
    async def test() -> None:
        ctx = context(Store().read, asyncio.get_running_loop())
        waiting = asyncio.create_task(ctx.wait_cancelled())
        await asyncio.sleep(0)
        ctx.close()
        with pytest.raises(ContextClosed):
            await waiting
        with pytest.raises(ContextClosed):
            await ctx.wait_cancelled()

    with_loop(test)


# The end of an attempt.


def test_closing_takes_out_all_that_was_buffered() -> None:
    ctx = ToolContext.detached({"a": 1})
    ctx.get("a")
    ctx.set("b", 2)
    ctx.meter(tokens_in=1)
    ctx.log("x")
    assert not ctx.closed
    assert ctx.close() == Buffered(
        reads={"a": 1},
        changes={"b": 2},
        metered=(
            Metered(
                tokens_in=1, tokens_out=0, currency="USD", cost_micros=0, agent=None, model=None
            ),
        ),
        lines=(LogLine("x", {}),),
        lines_left_out=0,
    )
    assert ctx.closed


def test_after_its_end_a_context_refuses_everything() -> None:
    ctx = ToolContext.detached({"a": 1})
    before = ctx.close()
    calls: list[Callable[[], Any]] = [
        lambda: ctx.get("a"),
        lambda: asyncio.run(ctx.read("a")),
        lambda: ctx.set("a", 1),
        lambda: ctx.delete("a"),
        lambda: ctx.meter(tokens_in=1),
        lambda: ctx.log("x"),
    ]
    for call in calls:
        with pytest.raises(ContextClosed, match="attempt 1 of tool 'tool' is over") as caught:
            call()
        assert caught.value.code == "context_closed"
    assert ctx.close() == before == ctx.buffered
    assert not ctx.cancelled


def test_a_read_that_comes_back_too_late_is_not_recorded() -> None:
    async def test() -> None:
        store = Store(a=StateRead(1, exists=True, position=5))
        ctx = context(store.read, asyncio.get_running_loop())
        reading = asyncio.create_task(ctx.read("a"))
        await asyncio.sleep(0)
        assert ctx.close().reads == {}
        with pytest.raises(ContextClosed):
            await reading

    with_loop(test)


def test_what_a_racing_thread_wrote_is_either_taken_out_or_refused() -> None:
    for _ in range(50):
        ctx = ToolContext.detached()
        written: list[str] = []

        def tool(ctx: ToolContext = ctx, written: list[str] = written) -> None:
            try:
                for number in range(100_000):
                    ctx.set(f"k{number % 100}", number)
                    written.append(f"k{number % 100}")
            except ContextClosed:
                written.append("refused")

        thread = threading.Thread(target=tool)
        thread.start()
        taken = ctx.close()
        thread.join()
        assert written[-1] == "refused"
        assert set(taken.changes) == set(written[:-1])
        assert ctx.buffered == taken


def test_the_identity_of_an_attempt_cannot_be_changed() -> None:
    ctx = context(Store().read)
    assert (ctx.run_id, ctx.action_id, ctx.tool, ctx.attempt) == ("r1", "a1", "t", 2)
    assert ctx.idempotency_key == "k" * 64
    assert "reader" not in repr(ctx)
    with pytest.raises(FrozenAttributeError):
        ctx.attempt = 3
