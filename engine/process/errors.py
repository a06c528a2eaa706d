"""What can become of a call in a process of its own, other than an output.

Where the answer says what went wrong, the call has failed. Where there is no answer, because the
process was killed or ended by itself, the error is an `OutcomeUnknown` too: nothing of the call
runs any more, and what it had done by then nobody knows.
"""

import signal
from typing import ClassVar

from attrs import define

from carstore.errors import CarstoreError
from engine.unknown_outcome import OutcomeUnknown

__all__ = [
    "InvalidExecutor",
    "ToolKilled",
    "ToolOutOfMemory",
    "ToolOutputInvalid",
    "ToolOutputTooLarge",
    "ToolProcessEnded",
    "ToolProcessNotStarted",
    "ToolRaised",
]


@define(slots=False, eq=False)
class InvalidExecutor(CarstoreError):
    """An executor was given a limit that it cannot have, or that this system cannot enforce."""

    code: ClassVar[str] = "invalid_executor"
    field: str
    reason: str

    @property
    def message(self) -> str:
        return f"{self.field}: {self.reason}"

    @property
    def where(self) -> str | None:
        return self.field


@define(slots=False, eq=False)
class ToolRaised(CarstoreError):
    """A tool raised in its own process."""

    code: ClassVar[str] = "tool_raised"
    tool: str
    error_type: str
    """The name of the class that was raised."""
    reason: str
    """What it said."""

    @property
    def message(self) -> str:
        return f"{self.error_type}: {self.reason}" if self.reason else self.error_type


@define(slots=False, eq=False)
class ToolOutOfMemory(CarstoreError):
    """A tool needed more memory than its limit allows, and could still say so."""

    code: ClassVar[str] = "tool_out_of_memory"
    tool: str
    memory_mb: int

    @property
    def message(self) -> str:
        return (
            f"tool {self.tool!r} needed more than {self.memory_mb:,} MB of address space "
            "(memory_mb). Let it need less, or raise the limit."
        )


@define(slots=False, eq=False)
class ToolOutputTooLarge(CarstoreError):
    """A tool returned more than its executor takes."""

    code: ClassVar[str] = "tool_output_too_large"
    tool: str
    size_bytes: int
    max_output_bytes: int

    @property
    def message(self) -> str:
        return (
            f"the output of tool {self.tool!r} has {self.size_bytes:,} bytes; at most "
            f"{self.max_output_bytes:,} are taken. Write it to a file and return its path."
        )


@define(slots=False, eq=False)
class ToolOutputInvalid(CarstoreError):
    """A tool returned what is not JSON."""

    code: ClassVar[str] = "tool_output_invalid"
    tool: str
    reason: str

    @property
    def message(self) -> str:
        return f"{self.reason}; a tool returns JSON"


@define(slots=False, eq=False)
class ToolProcessNotStarted(CarstoreError):
    """The process of a call could not be started. Nothing happened."""

    code: ClassVar[str] = "tool_process_not_started"
    tool: str
    reason: str

    @property
    def message(self) -> str:
        return f"no process could be started for tool {self.tool!r}: {self.reason}"


@define(slots=False, eq=False)
class ToolKilled(OutcomeUnknown, CarstoreError):
    """A call was killed for its limit of time. It is dead; what it had done by then is unknown."""

    code: ClassVar[str] = "tool_killed"
    tool: str
    limit: str
    """`timeout_ms` or `cpu_secs`."""
    value: int
    last_words: str
    left: bool = False
    """Whether something that the tool had started could not be killed."""

    @property
    def message(self) -> str:
        what = {"timeout_ms": "ms", "cpu_secs": "seconds of processor time"}[self.limit]
        text = f"tool {self.tool!r} was killed after {self.value:,} {what} ({self.limit})"
        return text + _ending(self.last_words, left=self.left)


@define(slots=False, eq=False)
class ToolProcessEnded(OutcomeUnknown, CarstoreError):
    """The process of a call ended without an answer. What it had done by then is unknown."""

    code: ClassVar[str] = "tool_process_ended"
    tool: str
    exit_code: int | None
    """None: it was killed by a signal."""
    signal: int | None
    last_words: str
    hint: str = ""
    left: bool = False
    """Whether something that the tool had started could not be killed."""

    @property
    def message(self) -> str:
        if self.signal is not None:
            how = f"was killed by {_signal_name(self.signal)}"
        else:
            how = f"exited with code {self.exit_code}"
        hint = f" ({self.hint})" if self.hint else ""
        text = f"the process of tool {self.tool!r} {how} without an answer{hint}"
        return text + _ending(self.last_words, left=self.left)


def _ending(last_words: str, *, left: bool) -> str:
    text = f". Its last words: {last_words}" if last_words else ""
    return f". Something that it started could not be killed{text}" if left else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
