"""The tools of the demonstration. They really read, hash and write; only the two models are stubs.

Each is declared read-only or idempotent, which is true of what it does, so a call that was in
flight when the process was killed is made again. A tool that is neither would stay in doubt and
wait for a person to say what became of it: `carstore doubts` lists such calls.
"""

import asyncio
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from engine.context import ToolContext
from engine.declare import tool
from engine.demo import report

__all__ = ["TOOLS"]

MAX_READ_BYTES = 32 * 1024 * 1024
"""Bytes read of one file. It was smaller when the plan was made, but may have grown since."""

LARGEST = 10
"""Files named as the largest ones."""

FIRST_BYTES = 8192
"""A NUL among so many first bytes makes a file binary."""


@tool(read_only=True)
def hash_file(folder: str, path: str) -> dict[str, Any]:
    """The SHA-256 of a file, and how many bytes it has."""
    data, problem = _read(folder, path)
    digest = None if data is None else hashlib.sha256(data).hexdigest()
    size = None if data is None else len(data)
    return {"path": path, "bytes": size, "sha256": digest, "problem": problem}


@tool(read_only=True)
def count(folder: str, path: str, language: str, sha256: str | None) -> dict[str, Any]:
    """Lines and words of the text that has this hash."""
    data, problem = _read(folder, path)
    if data is not None and hashlib.sha256(data).hexdigest() != sha256:
        data, problem = None, "it changed while it was being looked at"
    found = {"path": path, "language": language, "lines": 0, "words": 0, "problem": problem}
    if data is None:
        return found
    if b"\0" in data[:FIRST_BYTES]:
        return {**found, "language": "binary"}
    lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    return {**found, "lines": lines, "words": len(data.split())}


@tool(read_only=True)
async def classify(path: str, size: int, latency_ms: int, ctx: ToolContext) -> dict[str, Any]:
    """What a file is for, as the agent `reader` sees it. A stub of a model: it answers by name."""
    await asyncio.sleep(latency_ms / 1000)
    tokens_in, tokens_out = 40 + min(size, 8_000) // 4, 3
    cost_micros = tokens_in * 3 + tokens_out * 15
    ctx.meter(
        agent="reader",
        model="stub-small",
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost_micros=cost_micros,
    )
    return {"path": path, "purpose": report.purpose_of(path)}


@tool(read_only=True)
def prices(ctx: ToolContext) -> dict[str, int]:
    """Micro-dollars a token, from a service that refuses every first call: it is tried again."""
    if ctx.attempt == 1:
        raise ConnectionError("the price list is busy, try again")
    return {"in": 5, "out": 25}


@tool(idempotent=True)
def add_up(language: str, counts: list[dict[str, Any]], ctx: ToolContext) -> dict[str, Any]:
    """The lines and words of one language; the lines become state."""
    counted = [one for one in counts if one["language"] == language]
    lines = sum(one["lines"] for one in counted)
    words = sum(one["words"] for one in counted)
    ctx.set(f"lines/{language}", lines)
    return {"language": language, "files": len(counted), "lines": lines, "words": words}


@tool(idempotent=True)
def all_files(hashes: list[dict[str, Any]], ctx: ToolContext) -> dict[str, Any]:
    """How many files were looked into, which of them could not be read, and all their bytes."""
    unread = [one["path"] for one in hashes if one["problem"] is not None]
    total = sum(one["bytes"] or 0 for one in hashes)
    ctx.set("files/looked_into", len(hashes))
    ctx.set("files/unread", len(unread))
    return {"files": len(hashes), "unread": unread, "bytes": total}


@tool(idempotent=True)
def duplicates(hashes: list[dict[str, Any]], ctx: ToolContext) -> dict[str, Any]:
    """Groups of files with the same content, the most wasteful first; empty files do not count."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in hashes:
        if one["bytes"]:
            groups.setdefault(one["sha256"], []).append(one)
    same = [group for group in groups.values() if len(group) > 1]
    wasted = [group[0]["bytes"] * (len(group) - 1) for group in same]
    order = sorted(range(len(same)), key=lambda place: (-wasted[place], same[place][0]["path"]))
    ctx.set("files/duplicated", len(same))
    return {
        "groups": [[one["path"] for one in same[place]] for place in order],
        "wasted_bytes": sum(wasted),
    }


@tool(read_only=True)
def largest(hashes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The largest files, the largest first."""
    sized = [one for one in hashes if one["bytes"] is not None]
    sized.sort(key=lambda one: (-one["bytes"], one["path"]))
    return [{"path": one["path"], "bytes": one["bytes"]} for one in sized[:LARGEST]]


@tool(read_only=True)
async def write_section(
    topic: str, facts: Any, price: dict[str, int], latency_ms: int, ctx: ToolContext
) -> str:
    """A paragraph of the report by the agent `writer`. A stub of a model: it fills in a form."""
    await asyncio.sleep(latency_ms / 1000)
    text = report.paragraph(topic, facts)
    tokens_in, tokens_out = 200, len(text) // 4
    ctx.meter(
        agent="writer",
        model="stub-large",
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost_micros=tokens_in * price["in"] + tokens_out * price["out"],
    )
    return text


@tool(read_only=True)
def compose(
    folder: str,
    sections: list[str],
    languages: list[dict[str, Any]],
    purposes: list[dict[str, Any]],
    biggest: list[dict[str, Any]],
    same: list[list[str]],
    unread: list[str],
    left_out: list[dict[str, Any]],
    notes: list[str],
) -> str:
    """The report as Markdown."""
    return report.markdown(
        folder=folder,
        sections=sections,
        languages=languages,
        purposes=purposes,
        biggest=biggest,
        same=same,
        unread=unread,
        left_out=left_out,
        notes=notes,
    )


@tool(idempotent=True, compensation="withdraw")
def publish(file: str, text: str, ctx: ToolContext) -> dict[str, Any]:
    """Write the report, all of it or nothing; a rollback of the run would take it away again."""
    target = Path(file)
    unfinished = target.with_name(f"{target.name}.{ctx.idempotency_key[:16]}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(target)
    return {"file": file, "bytes": len(text.encode())}


@tool(idempotent=True)
def withdraw(parameters: dict[str, Any], output: dict[str, Any] | None) -> None:  # noqa: ARG001 - what every compensation is handed
    """Take a published report away."""
    Path(parameters["file"]).unlink(missing_ok=True)


TOOLS = (
    hash_file,
    count,
    classify,
    prices,
    add_up,
    all_files,
    duplicates,
    largest,
    write_section,
    compose,
    publish,
    withdraw,
)


def _read(folder: str, path: str) -> tuple[bytes | None, str | None]:
    """The bytes of a regular file, or why there are none. A folder that people work in changes."""
    try:
        # Without O_NONBLOCK, what has become a pipe since would be waited for without end.
        number = os.open(os.path.join(folder, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                return None, "no regular file any more"
            data = file.read(MAX_READ_BYTES + 1)
    except OSError as error:
        return None, str(error.strerror)
    if len(data) > MAX_READ_BYTES:
        return None, f"it has grown beyond {MAX_READ_BYTES:,} bytes"
    return data, None
