"""The values beside the log, in the table `blobs`."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from carstore.blobs import (
    BlobInfo,
    blob_stream,
    filled,
    has_references,
    references,
    references_in_text,
)
from carstore.canonical import dumps, loads_trusted
from carstore.errors import NotFound
from carstore.events import BlobForgotten
from carstore.log import Entry, Log, Recorded, StateRead
from carstore.names import Json
from carstore.sqlite.database import Database
from carstore.sqlite.statements import SQL

_Name = TypeVar("_Name")


class SqliteBlobs:
    """`carstore.blobs.Blobs` on a SQLite file."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log

    async def read(self, hashes: Collection[str]) -> dict[str, Json]:
        if not hashes:
            return {}
        wanted = json.dumps(sorted(hashes))

        def look(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            if not _has_blobs(connection):
                return []
            return connection.execute(SQL["blobs"], (wanted,)).fetchall()

        rows = await self._database.read(look)
        return {found: loads_trusted(body.decode()) for found, body in rows}

    async def fill(self, value: Json) -> Json:
        wanted = set(references(value))
        return filled(value, await self.read(wanted)) if wanted else value

    async def fill_events(self, events: Iterable[Recorded]) -> list[Recorded]:
        found = list(events)
        wanted = {one for event in found for one in references_in_text(event.data)}
        if not wanted:
            return found
        values = await self.read(wanted)
        return [
            event._replace(data=dumps(filled(loads_trusted(event.data), values)))
            if has_references(event.data)
            else event
            for event in found
        ]

    async def fill_reads(self, reads: Mapping[_Name, StateRead]) -> dict[_Name, StateRead]:
        wanted = {one for read in reads.values() for one in references(read.value)}
        if not wanted:
            return dict(reads)
        values = await self.read(wanted)
        return {
            name: read._replace(value=filled(read.value, values)) for name, read in reads.items()
        }

    async def infos(self) -> list[BlobInfo]:
        def look(connection: sqlite3.Connection) -> list[BlobInfo]:
            if not _has_blobs(connection):
                return []
            rows = connection.execute(SQL["blob_infos"])
            return [BlobInfo(name, size, bool(sensitive)) for name, size, sensitive in rows]

        return await self._database.read(look)

    async def forget(self, blob: str, *, reason: str, by: str) -> None:
        if blob not in await self.read([blob]):
            raise NotFound("value", blob, "It may have been forgotten already.")
        event = BlobForgotten(hash=blob, reason=reason, by=by)
        await self._log.append(Entry(blob_stream(blob), event))
        await self._database.truncate_wal()


def _has_blobs(connection: sqlite3.Connection) -> bool:
    """Whether the file has them: one of an older schema, opened for reading, does not."""
    return connection.execute(SQL["has_blobs"]).fetchone() is not None
