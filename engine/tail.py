"""The last words of a process: the end of what it wrote, made safe to show."""

from attrs import define, field

from engine.problems import printable

__all__ = ["Tail"]

MAX_TAIL_BYTES = 4_096
"""Bytes kept of what a process wrote. A traceback's last lines fit, and an error stays readable."""

MAX_TAIL_CHARS = 1_000
"""Characters shown of them, after escaping."""


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


SEPARATOR = " / "
"""Between two lines, where an error has one."""
