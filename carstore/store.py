"""The store: one log, what lies beside it, and who owns what in it."""

import asyncio

from attrs import frozen

from carstore.blobs import Blobs
from carstore.clock import Clock
from carstore.leases import Leases
from carstore.log import Log
from carstore.names import LogId
from carstore.redaction import Redaction
from carstore.sqlite.database import Database


@frozen(kw_only=True)
class Store:
    """An open carstore database. `connect` makes it."""

    path: str
    log: Log
    leases: Leases
    blobs: Blobs
    redaction: Redaction
    """What does not go into an event but beside it: what `connect` was given, and what the file
    declared when it was opened."""
    clock: Clock
    log_id: LogId
    epoch: int
    database: Database
    """The file itself, for views and checks; not part of what a backend promises."""

    @property
    def writable(self) -> bool:
        """Whether appends are possible; a store opened for reading only refuses them."""
        return self.database.writable

    async def close(self) -> None:
        """Commit what was submitted, stop renewing leases, close the file."""
        try:
            await self.leases.close()
            await self.log.close()
        finally:
            await asyncio.shield(self.database.close())
