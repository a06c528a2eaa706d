"""What the library of `shim.c` has recorded: operations in an order in which they could all have
happened one by one."""

import os
import struct
from pathlib import Path

from attrs import frozen

__all__ = ["Operation", "read_trace"]

_HEADER = struct.Struct("=c3xIQQ")
"""`struct record` of shim.c."""


@frozen
class Operation:
    """One thing that was done to a file of the watched folder, or a note of the program."""

    op: str
    """C create, W write, T truncate, S sync, U unlink, R rename, N note."""
    name: str
    """Of the file within the folder, "." for the folder itself; the text of a note."""
    offset: int = 0
    """Of a write; the new length of a truncate."""
    data: bytes = b""
    to: str = ""
    """The new name of a rename."""


def read_trace(path: Path, folder: Path) -> list[Operation]:
    """All of a trace, of files in `folder`. What memory-maps share (-shm) is left out: it is made
    anew after every crash."""
    raw, at, found = path.read_bytes(), 0, []
    while at < len(raw):
        code, path_length, offset, length = _HEADER.unpack_from(raw, at)
        at += _HEADER.size
        name = raw[at : at + path_length].decode()
        at += path_length
        data = raw[at : at + length]
        at += length
        op = code.decode()
        if op == "N":
            found.append(Operation(op, name))
            continue
        names = [os.path.relpath(one, folder) for one in name.split("\0")]
        if not names[0].endswith("-shm"):
            found.append(Operation(op, names[0], offset, data, names[-1] if op == "R" else ""))
    return found
