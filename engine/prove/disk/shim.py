"""The library of `shim.c`, from Python: compile it, tell it what to do, ask it what it saw.

It is compiled once, with the machine's own `cc`, into a folder that goes when this process ends.
Only children have it loaded; see `nursery`.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from attrs import frozen

__all__ = ["Disk", "Fault", "compiled", "configure", "counted", "note", "why_not"]

Fault = Literal["", "kill-before", "kill-after", "tear", "fail-once", "fail-from", "full"]
Counted = Literal["any", "write", "sync"]

_COMPILE_SECONDS = 120
_SOURCE = "shim.c"


@frozen(kw_only=True)
class Disk:
    """What the library is told. Paths are absolute and without symbolic links."""

    watched: Path
    """Files whose path begins with this are looked at."""
    trace: Path | None = None
    """Where to record what is done to them."""
    fault: Fault = ""
    on: Counted = "any"
    """What is counted: writes (with truncates, unlinks and renames), syncs, or any of them."""
    only: str = ""
    """Count files only whose path ends with this."""
    at: int = 0
    """Which operation, counted from 1, meets the fault."""
    keep: int = 0
    """`tear`: bytes of the write that reach the file, modulo its length."""
    room: int = 0
    """`full`: bytes by which files may still grow."""
    freed: Path | None = None
    """`full`: while there is a file of this name, there is room without end."""

    def settings(self) -> dict[str, str]:
        """The environment that says it."""
        return {
            "CARSTORE_DISK_PREFIX": str(self.watched),
            "CARSTORE_DISK_TRACE": str(self.trace or ""),
            "CARSTORE_DISK_FAULT": self.fault,
            "CARSTORE_DISK_ON": self.on,
            "CARSTORE_DISK_ONLY": self.only,
            "CARSTORE_DISK_AT": str(self.at),
            "CARSTORE_DISK_KEEP": str(self.keep),
            "CARSTORE_DISK_ROOM": str(self.room),
            "CARSTORE_DISK_FREED": str(self.freed or ""),
        }


def why_not() -> str | None:
    """Why a disk cannot be made to fail on this machine, or `None` if it can."""
    if not sys.platform.startswith("linux"):
        return (
            f"needs Linux: it stands between SQLite and the disk with LD_PRELOAD ({sys.platform})"
        )
    if shutil.which("cc") is None:
        return "needs a C compiler (cc): there is none on the PATH"
    made = compiled()
    return made if isinstance(made, str) else None


@cache
def compiled() -> Path | str:
    """The library, or why it cannot be had."""
    library = Path(_folder().name) / "disk.so"
    source = (resources.files("engine.prove.disk") / _SOURCE).read_text(encoding="utf-8")
    command = ["cc", "-O2", "-Wall", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    done = subprocess.run(
        [*command, "-ldl", "-lpthread"],
        input=source,
        text=True,
        capture_output=True,
        timeout=_COMPILE_SECONDS,
        check=False,
    )
    if done.returncode:
        return f"needs a C compiler (cc) with the headers of the C library: {done.stderr[:200]}"
    return library


@cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="carstore-disk-")


# --- inside of a child ---

_IDLE = {"CARSTORE_DISK_PREFIX": "", "CARSTORE_DISK_TRACE": "", "CARSTORE_DISK_FAULT": ""}


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.disk_count.restype = ctypes.c_long
    library.disk_note.argtypes = [ctypes.c_char_p]
    return library


def configure(settings: Mapping[str, str] | None) -> None:
    """Do what `Disk.settings` say from now on, counting from 1 again; `None`: watch nothing."""
    os.environ.update(_IDLE if settings is None else settings)
    _library().disk_configure()


def counted() -> int:
    """Operations counted since `configure`."""
    return int(_library().disk_count())


def note(text: str) -> None:
    """Put `text` into the trace, between what was done before and what comes after."""
    _library().disk_note(text.encode())
