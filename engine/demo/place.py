"""The folder that the demonstration leaves, and what it may replace in it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from engine.cli.errors import BadUsage

__all__ = ["Place", "taken"]

_MARK = ".carstore-demo"


@frozen
class Place:
    """The files of one demonstration."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "demo.db"

    @property
    def plan(self) -> Path:
        """The proposal, as JSON."""
        return self.folder / "plan.json"

    @property
    def calls(self) -> Path:
        """The journal of calls: see `engine.demo.calls`."""
        return self.folder / "calls.jsonl"

    @property
    def report(self) -> Path:
        return self.folder / "report.md"

    def clear(self) -> None:
        """Remove what a former demonstration left, and nothing else."""
        database = self.database.name
        ours = [database, f"{database}-wal", f"{database}-shm"]
        for name in [*ours, self.plan.name, self.calls.name, self.report.name]:
            (self.folder / name).unlink(missing_ok=True)


@contextmanager
def taken(folder: Path) -> Iterator[Place]:
    """An empty place in `folder`, which is made if need be and belongs to us meanwhile.

    Raises:
        BadUsage: it is no folder, holds something that no demonstration left, cannot be
            written, or another demonstration is at work there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / _MARK
        if not mark.exists() and any(folder.iterdir()):
            raise _refused(folder, "is not empty, and no demo made it")
        number = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            place = Place(folder)
            place.clear()
            yield place
        finally:
            os.close(number)
    except BlockingIOError:
        raise _refused(folder, "is in use by a demo that runs now") from None
    except FileExistsError:
        raise _refused(folder, "is no folder") from None
    except OSError as error:
        raise _refused(folder, f"cannot be used: {error.strerror}") from error


def _refused(folder: Path, reason: str) -> BadUsage:
    return BadUsage("--keep", f"{folder} {reason}. Name another folder: carstore demo --keep DIR")
