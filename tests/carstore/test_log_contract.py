"""The SQLite log keeps the promises of the port."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from carstore.clock import Clock
from carstore.log import Log
from tests.carstore.helpers import open_store
from tests.carstore.log_contract import LogContract


class TestSqliteLog(LogContract):
    def opened(self, path: Path, clock: Clock) -> AbstractAsyncContextManager[Log]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Log]:
            async with open_store(path, clock=clock) as store:
                yield store.log

        return opened()
