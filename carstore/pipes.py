"""Reading and writing a pipe without being stuck in it when nobody waits for the work any more."""

import io
import os
import select
from collections.abc import Callable
from typing import BinaryIO, TypeAlias

from attrs import define, field

Check: TypeAlias = Callable[[], None]
"""Called while the other end is waited for; ends that by raising."""

_LOOK_MS = 100
_KEPT_BYTES = 64 * 1024


class Inflow(io.RawIOBase):
    """What comes out of a pipe; to be put into an `io.BufferedReader`."""

    def __init__(self, file: int, check: Check) -> None:
        self._file = file
        self._check = check

    def readable(self) -> bool:
        return True

    def readinto(self, into: "memoryview | bytearray") -> int:  # type: ignore[override]
        while True:
            _wait(self._file, select.POLLIN, self._check)
            try:
                found = os.read(self._file, len(into))
            except BlockingIOError:  # somebody else reads from it too
                continue
            into[: len(found)] = found
            return len(found)


@define
class Outflow:
    """What goes into a pipe. Nothing is kept back after `flush`."""

    _file: int
    _check: Check
    _left: bytearray = field(factory=bytearray, init=False)

    def write(self, data: bytes) -> None:
        self._left += data
        if len(self._left) >= _KEPT_BYTES:
            self.flush()

    def flush(self) -> None:
        done = 0
        with memoryview(bytes(self._left)) as left:
            while done < len(left):
                _wait(self._file, select.POLLOUT, self._check)
                try:  # so much is taken at once by a pipe that is ready
                    done += os.write(self._file, left[done : done + select.PIPE_BUF])
                except BlockingIOError:
                    continue
        self._left.clear()


def without_waiting(path: str, flags: int) -> int:
    """Open a file, as an `opener`; a pipe also if nobody has opened the other end so far."""
    return os.open(path, flags | os.O_NONBLOCK)


def ahead(file: BinaryIO, check: Check) -> BinaryIO:
    """A file to be read in lines. One with a buffer is taken as it is: nobody can know what is in
    it, and so whether there is anything to wait for."""
    if not isinstance(file, io.RawIOBase):
        return file
    return io.BufferedReader(Inflow(file.fileno(), check), _KEPT_BYTES)


def _wait(file: int, event: int, check: Check) -> None:
    """Wait until a file is ready, or will never be: then using it says so."""
    poll = select.poll()
    poll.register(file, event)
    check()
    while not poll.poll(_LOOK_MS):
        check()


__all__ = ["Check", "Inflow", "Outflow", "ahead", "without_waiting"]
