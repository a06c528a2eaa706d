"""The last words of a process: the end of what it wrote, made safe to show."""

import asyncio
import functools
from collections.abc import Callable
from typing import IO

from attrs import define, field

from engine.problems import printable

__all__ = ["PipeReader", "Tail", "read_pipe"]

MAX_TAIL_BYTES = 4_096
"""Bytes kept of what a process wrote. A traceback's last lines fit, and an error stays readable."""

MAX_TAIL_CHARS = 1_000
"""Characters shown of them, after escaping."""


SEPARATOR = " / "
"""Between two lines, where an error has one."""


@define(eq=False)
class Tail:
    """Takes bytes for ever, and keeps the last `MAX_TAIL_BYTES`."""

    _kept: bytearray = field(init=False, factory=bytearray)
    _cut: bool = field(init=False, default=False)

    def take(self, data: bytes) -> None:
        """Add what was written next."""
        self._kept += data
        if len(self._kept) > MAX_TAIL_BYTES:
            self._cut = True
            del self._kept[:-MAX_TAIL_BYTES]

    @property
    def text(self) -> str:
        """The end of it in one line, control characters escaped; "" if nothing was written.

        If something was cut off, so is the rest of its line: part of a secret is one that is not
        recognised and masked.
        """
        text = self._kept.decode("utf-8", "replace")
        if self._cut:
            text = text.partition("\n")[2]
        lines = [line.rstrip() for line in text.splitlines()]
        shown, size = [], 0
        for line in reversed([printable(line) for line in lines if line]):
            size += len(line) + len(SEPARATOR)
            if size > MAX_TAIL_CHARS:
                break
            shown.append(line)
        return SEPARATOR.join(reversed(shown))


class PipeReader(asyncio.Protocol):
    """Hands on what is read from a pipe, until its end."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._transport: asyncio.BaseTransport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once nobody can write to the pipe any more, or it was closed here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For asyncio."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """For asyncio."""
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """For asyncio."""
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Read no further, and close the pipe."""
        if self._transport is not None:
            self._transport.close()


async def read_pipe(pipe: IO[bytes], take: Callable[[bytes], None]) -> PipeReader:
    """Have `take` called with everything that is written to `pipe` from now on."""
    loop = asyncio.get_running_loop()
    _, reader = await loop.connect_read_pipe(functools.partial(PipeReader, take), pipe)
    return reader
