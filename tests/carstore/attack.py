"""Writing by hand, with and against the law, from a connection that has never heard of carstore."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.carstore.helpers import stock

COLUMNS = (
    "position", "stream_id", "version", "kind", "schema_version", "recorded_at", "run_id", "scope",
    "key", "fence", "fence_token", "data", "prev_hash", "hash",
)  # fmt: skip


def hash_of(event: dict[str, Any], stream: str) -> str:
    """The hash of an event, from the definition in schema.sql alone."""
    covered = [
        event["prev_hash"], event["position"], stream, event["version"], event["kind"],
        event["schema_version"], event["recorded_at"], event["run_id"], event["scope"],
        event["key"], event["fence"], event["fence_token"], event["data"],
    ]  # fmt: skip
    text = json.dumps(covered, separators=(",", ":"), ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def next_event(
    connection: sqlite3.Connection, stream: str = "notes", **other: Any
) -> dict[str, Any]:
    """The columns of an event that the law allows, but for what `other` says."""
    position, prev_hash = connection.execute(
        "SELECT position, hash FROM events ORDER BY position DESC LIMIT 1"
    ).fetchone()
    stream_id, lease = connection.execute(
        "SELECT stream_id, lease FROM streams WHERE name = ?", (stream,)
    ).fetchone()
    (version,) = connection.execute(
        "SELECT coalesce(max(version), 0) FROM events WHERE stream_id = ?", (stream_id,)
    ).fetchone()
    (token,) = connection.execute(
        "SELECT (SELECT token FROM leases WHERE name = ?)", (lease,)
    ).fetchone()
    event = {
        "position": position + 1, "stream_id": stream_id, "version": version + 1,
        "kind": "action_validated", "schema_version": 1, "recorded_at": 5, "run_id": None,
        "scope": None, "key": None, "fence": lease if token else None, "fence_token": token,
        "data": '{"action_id":"x"}', "prev_hash": prev_hash,
    }  # fmt: skip
    assert not other.keys() - set(COLUMNS)
    event |= other
    return {"hash": hash_of(event, stream), **event}


def insert(
    connection: sqlite3.Connection, event: dict[str, Any], verb: str = "INSERT", tail: str = ""
) -> None:
    names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
    connection.execute(
        f"{verb} INTO events ({names}) VALUES ({marks}) {tail}", [event[name] for name in COLUMNS]
    )


@contextmanager
def lawless(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file whose triggers are gone for as long as it lasts."""
    connection = stock(path)
    try:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in triggers:
            connection.execute(sql)
    finally:
        connection.close()


def hash_again(connection: sqlite3.Connection, first: int, last: int = 2**62) -> None:
    """Make the chain whole from position `first` on, as somebody would who hides a change."""
    streams = dict(connection.execute("SELECT stream_id, name FROM streams").fetchall())
    rows = connection.execute(
        f"SELECT {', '.join(COLUMNS)} FROM events WHERE position BETWEEN ? AND ? ORDER BY position",
        (first, last),
    ).fetchall()
    before = connection.execute(
        "SELECT hash FROM events WHERE position < ? ORDER BY position DESC LIMIT 1", (first,)
    ).fetchone()
    digest = before[0] if before else "0" * 64
    for row in rows:
        event = {**dict(zip(COLUMNS, row, strict=True)), "prev_hash": digest}
        digest = hash_of(event, streams[event["stream_id"]])
        connection.execute(
            "UPDATE events SET prev_hash = ?, hash = ? WHERE position = ?",
            (event["prev_hash"], digest, event["position"]),
        )
