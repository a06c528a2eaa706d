"""Whole functions on the thread of a connection.

Every connection is an aiosqlite connection and so has a thread of its own. What a transaction needs
is done there in one go: a hop between threads costs more than most statements. aiosqlite has no
call for that, so its connections are made with `factory=JobConnection`, which takes a function
where a statement is expected.
"""

import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar, cast

import aiosqlite

_JOB = "-- a function on the connection's thread"

_Result = TypeVar("_Result")


class _Done:
    """What `execute` returns for a job: aiosqlite asks it for all its rows."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def fetchall(self) -> Any:
        return self._result


class JobConnection(sqlite3.Connection):
    """A connection that also executes functions."""

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        if sql is _JOB:
            (job,) = parameters
            return _Done(job(self))
        return super().execute(sql, parameters)


async def run_job(
    connection: aiosqlite.Connection, job: Callable[[sqlite3.Connection], _Result]
) -> _Result:
    """Run `job(connection)` on the connection's thread and return what it returns."""
    return cast(_Result, await connection.execute_fetchall(_JOB, (job,)))


async def open_connection(
    uri: str, timeout_ms: int, factory: type[JobConnection], *, cached_statements: int = 256
) -> aiosqlite.Connection:
    """Open a connection whose transactions begin and end by statements alone.

    Raises:
        sqlite3.Error: it cannot be opened; no thread is left.
    """
    connection = aiosqlite.connect(
        uri,
        uri=True,
        isolation_level=None,
        factory=factory,
        cached_statements=cached_statements,
        timeout=timeout_ms / 1000,
    )
    try:
        return await connection
    except sqlite3.Error:
        # aiosqlite has told its thread to end; one that outlives the loop ends with a traceback.
        connection._thread.join()
        raise
