"""What can go wrong between carstore and an MCP server."""

from typing import ClassVar

from attrs import define

from carstore.errors import CarstoreError
from engine.problems import printable
from engine.unknown_outcome import OutcomeUnknown

__all__ = [
    "McpBadResult",
    "McpNotConnected",
    "McpNotInstalled",
    "McpRefused",
    "McpServerGone",
    "McpServerLost",
    "McpToolFailed",
    "clipped",
]

MAX_SAID_CHARS = 2_000
"""Characters kept of what a server says: it goes into the log, and a server may say anything."""


def clipped(text: str) -> str:
    """What a server said, bounded, with whatever a terminal could act on escaped."""
    cut = text if len(text) <= MAX_SAID_CHARS else text[: MAX_SAID_CHARS - 3] + "..."
    return " / ".join(printable(line) for line in cut.splitlines() if line.strip())


@define(slots=False, eq=False)
class McpNotInstalled(CarstoreError):
    """The package that speaks with MCP servers is not installed."""

    code: ClassVar[str] = "mcp_not_installed"
    reason: str

    @property
    def message(self) -> str:
        return (
            "tools of MCP servers need another package: pip install 'carstore[mcp]' "
            f"({self.reason})"
        )


@define(slots=False, eq=False)
class McpNotConnected(CarstoreError):
    """An MCP server could not be started or reached, or did not answer as one. Nothing happened."""

    code: ClassVar[str] = "mcp_not_connected"
    server: str
    reason: str
    last_words: str = ""

    @property
    def message(self) -> str:
        words = f". Its last words: {self.last_words}" if self.last_words else ""
        return f"there is no connection to the MCP server {self.server}: {self.reason}{words}"

    @property
    def where(self) -> str | None:
        return self.server


@define(slots=False, eq=False)
class McpToolFailed(CarstoreError):
    """A tool of an MCP server answered that it failed (`isError`)."""

    code: ClassVar[str] = "mcp_tool_failed"
    server: str
    tool: str
    text: str
    """What it said, as text."""

    @property
    def message(self) -> str:
        return self.text or f"tool {self.tool!r} of {self.server} failed, and did not say why"


@define(slots=False, eq=False)
class McpRefused(CarstoreError):
    """An MCP server answered a call with an error of the protocol. The call has failed."""

    code: ClassVar[str] = "mcp_refused"
    server: str
    tool: str
    error_code: int
    """Of JSON-RPC."""
    text: str

    @property
    def message(self) -> str:
        return f"{self.server} refused the call of {self.tool!r} ({self.error_code}): {self.text}"


@define(slots=False, eq=False)
class McpBadResult(CarstoreError):
    """The call was made, and its result is not what the server had promised."""

    code: ClassVar[str] = "mcp_bad_result"
    server: str
    tool: str
    reason: str

    @property
    def message(self) -> str:
        return f"the result of {self.tool!r} of {self.server} cannot be used: {self.reason}"


@define(slots=False, eq=False)
class McpServerLost(OutcomeUnknown, CarstoreError):
    """A call was sent and no usable answer came. Whether it was made is unknown."""

    code: ClassVar[str] = "mcp_server_lost"
    server: str
    tool: str
    reason: str
    last_words: str = ""

    @property
    def message(self) -> str:
        words = f". Its last words: {self.last_words}" if self.last_words else ""
        return (
            f"the call of {self.tool!r} was sent to {self.server}, and no answer came: "
            f"{self.reason}{words}"
        )


@define(slots=False, eq=False)
class McpServerGone(CarstoreError):
    """The connection had ended before the call. Nothing was sent."""

    code: ClassVar[str] = "mcp_server_gone"
    server: str
    tool: str
    reason: str

    @property
    def message(self) -> str:
        return (
            f"{self.tool!r} was not called: the connection to {self.server} has ended "
            f"({self.reason}). Connect again with mcp_tools and resume the run."
        )
