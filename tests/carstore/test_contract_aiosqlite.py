"""What the store relies on in aiosqlite: that `execute_fetchall` is one hop to the connection's
thread, there calls `execute` on the connection and `fetchall` on what that returns, and nothing
more. `carstore.sqlite.jobs` sends whole functions that way."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
import pytest

from carstore.sqlite.jobs import JobConnection, run_job
from tests.carstore.helpers import in_loop


@asynccontextmanager
async def connected() -> AsyncIterator[aiosqlite.Connection]:
    async with aiosqlite.connect(
        ":memory:", isolation_level=None, factory=JobConnection
    ) as connection:
        yield connection


@in_loop
async def test_a_job_runs_on_the_thread_of_the_connection_and_its_value_comes_back() -> None:
    async with connected() as connection:
        value = object()

        def job(raw: sqlite3.Connection) -> tuple[object, threading.Thread, Any]:
            return value, threading.current_thread(), raw.execute("SELECT 1 + 1").fetchone()

        returned, thread, row = await run_job(connection, job)
        assert returned is value
        assert row == (2,)
        assert thread is not threading.current_thread()
        again = await run_job(connection, lambda _: threading.current_thread())
        assert again is thread


@pytest.mark.parametrize("value", [None, [], 0, False, (), "rows", [(1,)]])
@in_loop
async def test_any_value_comes_back_as_it_is(value: object) -> None:
    async with connected() as connection:
        assert await run_job(connection, lambda _: value) is value


class _Told(Exception):
    pass


@pytest.mark.parametrize(
    "error", [_Told("x"), sqlite3.OperationalError("x"), KeyError("x"), ValueError("x")]
)
@in_loop
async def test_what_a_job_raises_is_raised(error: Exception) -> None:
    def job(_: sqlite3.Connection) -> None:
        raise error

    async with connected() as connection:
        with pytest.raises(type(error)) as raised:
            await run_job(connection, job)
        assert raised.value is error
        assert await run_job(connection, lambda _: 1) == 1


@in_loop
async def test_an_error_of_sqlite_keeps_its_name() -> None:
    async with connected() as connection:
        with pytest.raises(sqlite3.OperationalError) as raised:
            await run_job(connection, lambda raw: raw.execute("SELECT * FROM nothing"))
        assert raised.value.sqlite_errorname == "SQLITE_ERROR"


@in_loop
async def test_a_job_is_one_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as connection:
        hops = []
        put = connection._tx.put_nowait

        class Counting:
            def put_nowait(self, item: object) -> None:
                hops.append(item)
                put(item)  # type: ignore[arg-type]

        monkeypatch.setattr(connection, "_tx", Counting())
        await run_job(connection, lambda raw: [raw.execute("SELECT 1") for _ in range(10)])
        monkeypatch.undo()
        assert len(hops) == 1


@in_loop
async def test_jobs_run_in_the_order_in_which_they_were_sent() -> None:
    async with connected() as connection:
        order: list[int] = []
        await asyncio.gather(
            *[run_job(connection, lambda _, n=n: order.append(n)) for n in range(50)]  # type: ignore[misc]
        )
        assert order == list(range(50))


@in_loop
async def test_a_job_goes_on_when_nobody_waits_for_it_any_more() -> None:
    async with connected() as connection:
        began, may_end, done = threading.Event(), threading.Event(), threading.Event()

        def job(_: sqlite3.Connection) -> None:
            began.set()
            may_end.wait(5)
            done.set()

        task = asyncio.create_task(run_job(connection, job))
        await asyncio.to_thread(began.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_end.set()
        assert await run_job(connection, lambda _: done.is_set())


@in_loop
async def test_statements_are_still_statements() -> None:
    async with connected() as connection:
        await connection.execute("CREATE TABLE t (a)")
        await connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
        rows = await connection.execute_fetchall("SELECT a FROM t WHERE a > ?", (1,))
        assert list(rows) == [(2,)]
        assert await connection.execute_fetchall("-- a function on the connection's thread") == []
