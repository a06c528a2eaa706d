"""The tamper-evident chain: each event's hash covers the event before it.

The hash is the SHA-256 (hex) of the UTF-8 text of a canonical JSON array. Most of that text is
known before the event's place in the log is, so it comes as a `Frame` that the transaction
completes.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, TypeAlias

from carstore.canonical import quote

GENESIS = "0" * 64
"""The `prev_hash` of the first event."""


Frame: TypeAlias = tuple[str, str, str, str]
"""The parts of the text between the numbers that the transaction gives: the stream; kind and schema
version; run, scope and key; the data."""


def frame(
    stream: str,
    kind: str,
    schema_version: int,
    run_id: str | None,
    scope: str | None,
    key: str | None,
    data: str,
) -> Frame:
    """What an event's hash covers, but for its place, its time and its fence."""
    names = f"{_text(run_id)},{_text(scope)},{_text(key)}"
    return quote(stream), f"{quote(kind)},{schema_version}", names, quote(data)


def link(
    prev_hash: str,
    position: int,
    version: int,
    recorded_at: int,
    fence: str | None,
    fence_token: int | None,
    rest: Frame,
) -> str:
    """The hash of the event at `position`: of [prev_hash, position, stream, version, kind,
    schema_version, recorded_at, run_id, scope, key, fence, fence_token, data]."""
    stream, kind, names, data = rest
    token = "null" if fence_token is None else fence_token
    text = (
        f'["{prev_hash}",{position},{stream},{version},{kind},{recorded_at},{names},'
        f"{_text(fence)},{token},{data}]"
    )
    return sha256(text.encode()).hexdigest()


def hash_of_columns(columns: Sequence[Any]) -> str:
    """The hash of an event, given its columns as `Recorded` has them, up to `prev_hash` or beyond.

    Raises:
        TypeError: a name, or the data, is no text.
    """
    (position, stream, version, kind, schema_version, recorded_at, run_id, scope, key, fence, token,
     data, prev_hash) = columns[:13]  # fmt: skip
    covered = frame(stream, kind, schema_version, run_id, scope, key, data)
    return link(prev_hash, position, version, recorded_at, fence, token, covered)


def _text(value: str | None) -> str:
    return "null" if value is None else quote(value)
