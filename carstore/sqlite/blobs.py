"""The values beside the log, in the table `blobs`."""

import json
import sqlite3
from collections.abc import Collection, Mapping
from functools import partial
from typing import TypeVar

from carstore.blobs import BlobInfo, blob_stream, filled, references
from carstore.canonical import loads_trusted
from carstore.errors import Busy, DiskFull, NotFound
from carstore.events import BlobForgotten
from carstore.log import MAX_APPEND_EVENTS, Entry, Log, StateRead
from carstore.names import Json
from carstore.sqlite.database import Database
from carstore.sqlite.statements import SQL

_Name = TypeVar("_Name")


class SqliteBlobs:
    """`carstore.blobs.Blobs` on a SQLite file."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log

    async def read(self, hashes: Collection[str], *, sensitive: bool = True) -> dict[str, Json]:
        found: dict[str, Json] = {}
        wanted = set(hashes)
        while wanted:
            look = partial(_values, wanted=json.dumps(sorted(wanted)))
            further = await self._database.read(look)
            found.update(further)
            wanted = {
                inner
                for value in further.values()
                for inner in references(value, sensitive=sensitive)
                if inner not in found
            }
        return found

    async def fill(self, value: Json, *, sensitive: bool = True) -> Json:
        wanted = set(references(value, sensitive=sensitive))
        return filled(value, await self.read(wanted, sensitive=sensitive)) if wanted else value

    async def fill_reads(
        self, reads: Mapping[_Name, StateRead], *, sensitive: bool = True
    ) -> dict[_Name, StateRead]:
        wanted = {
            one for read in reads.values() for one in references(read.value, sensitive=sensitive)
        }
        if not wanted:
            return dict(reads)
        values = await self.read(wanted, sensitive=sensitive)
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

    async def forget(self, *blobs: str, reason: str, by: str) -> bool:
        wanted = sorted(set(blobs))
        present = await self._database.read(partial(_present, wanted=json.dumps(wanted)))
        for blob in wanted:
            if blob not in present:
                raise NotFound("value", blob, "It may have been forgotten already.")
        entries = [
            Entry(blob_stream(blob), BlobForgotten(hash=blob, reason=reason, by=by))
            for blob in wanted
        ]
        for first in range(0, len(entries), MAX_APPEND_EVENTS):
            await self._log.append(*entries[first : first + MAX_APPEND_EVENTS])
        try:
            return await self.scrub()
        except (Busy, DiskFull):  # they are deleted, and what is left to do can be done later
            return False

    async def scrub(self, *, rewrite: bool = False) -> bool:
        if rewrite:
            await self._database.rewrite()
        return await self._database.truncate_wal()


def _values(connection: sqlite3.Connection, wanted: str) -> dict[str, Json]:
    if not _has_blobs(connection):
        return {}
    rows = connection.execute(SQL["blobs"], (wanted,))
    return {found: loads_trusted(body.decode()) for found, body in rows}


def _present(connection: sqlite3.Connection, wanted: str) -> set[str]:
    if not _has_blobs(connection):
        return set()
    return {found for (found,) in connection.execute(SQL["present_blobs"], (wanted,))}


def _has_blobs(connection: sqlite3.Connection) -> bool:
    """Whether the file has them: one of an older schema, opened for reading, does not."""
    return connection.execute(SQL["has_blobs"]).fetchone() is not None
