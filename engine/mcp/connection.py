"""A connection to one MCP server, held by a task of its own.

The client of the SDK belongs to the task that opens it: when its transport fails, that task is
cancelled, whatever it is doing. So it is opened by a task that does nothing else. Calls come from
other tasks, and are told when it ends. The SDK is imported where it is used: it is an extra.
"""

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import define, field, frozen

from carstore.names import Json
from engine.mcp.errors import (
    McpBadResult,
    McpNotConnected,
    McpRefused,
    McpServerGone,
    McpServerLost,
    clipped,
)
from engine.process.tail import Tail, read_pipe

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import CallToolResult
    from mcp_types import Tool as Listed

__all__ = ["IDEMPOTENCY_KEY", "Connection", "Server"]

IDEMPOTENCY_KEY = "carstore/idempotencyKey"
"""Key of a call's `_meta` under which the idempotency key stands."""

MAX_PAGES = 100
"""Pages of a list of tools; a server that never ends its list is not asked for ever."""

CANCEL_SECONDS = 0.5
"""How long telling the server of a cancellation may take. The engine waits for one second."""

SETTLE_SECONDS = 0.1
"""After a call that failed, how long the end of its connection is waited for."""

HTTP_SECONDS = 30.0
"""For connecting and writing. For the answer there is no limit here: the engine has one."""


@frozen(kw_only=True)
class Server:
    """Where a server is: either a command or a URL."""

    command: tuple[str, ...] = ()
    """Program and arguments; it speaks on its standard input and output."""
    env: Mapping[str, str] = field(factory=dict, repr=False)
    """For a command: beside the few variables that the SDK passes on."""
    cwd: str | None = None
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    """For a URL: sent with each request."""

    @property
    def label(self) -> str:
        """How messages call it, without what may be secret: other arguments, user, query."""
        if self.url:
            parts = urlsplit(self.url)
            port = f":{parts.port}" if parts.port else ""
            return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
        named = [word for word in self.command[1:] if not word.startswith("-")][:1]
        return shlex.join([os.path.basename(self.command[0]), *named])


@define(eq=False)
class Connection:
    """Use `async with`: it is connected inside, and ended afterwards."""

    server: Server
    connect_timeout_ms: int
    tools: "list[Listed]" = field(init=False, factory=list)
    """What the server had to offer when it was connected."""

    _tail: Tail = field(init=False, factory=Tail)
    _client: "Client | None" = field(init=False, default=None)
    _owner: "asyncio.Task[None] | None" = field(init=False, default=None)
    _end: asyncio.Event = field(init=False, factory=asyncio.Event)
    _lost: str | None = field(init=False, default=None)

    async def __aenter__(self) -> "Connection":
        """Connect, and ask for the tools.

        Raises:
            McpNotConnected: it cannot be started or reached, or does not answer in time.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        owner = asyncio.create_task(self._own(ready), name=f"carstore mcp {self.server.label}")
        self._owner = owner
        reason = None
        try:
            timeout = self.connect_timeout_ms / 1000
            await asyncio.wait({ready, owner}, timeout=timeout, return_when=_FIRST)
            if not ready.done():
                late = f"no answer within {self.connect_timeout_ms:,} ms"
                reason = _reason(owner) if owner.done() else late
        finally:
            if not ready.done():
                await self._finish(cancel=True)
        if reason is not None:
            raise McpNotConnected(self.server.label, reason, self._tail.text)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._finish(cancel=False)

    async def call(
        self, tool: str, arguments: dict[str, Json], key: str | None
    ) -> "CallToolResult":
        """Call a tool. If this is cancelled, the server is told so; it is free to go on.

        Args:
            tool: its name at the server.
            key: the idempotency key, for the call's `_meta`.

        Raises:
            McpServerGone: the connection had ended; nothing was sent.
            McpServerLost: no answer came; what was done is unknown.
            McpRefused: the server answered with an error of the protocol.
            McpBadResult: the answer is not what the server promised.
        """
        owner, client = self._owner, self._client
        if owner is None or client is None or owner.done() or self._end.is_set() or self._lost:
            raise McpServerGone(self.server.label, tool, self._lost or "it was closed")
        meta: Any = None if key is None else {IDEMPOTENCY_KEY: key}
        calling = asyncio.create_task(client.call_tool(tool, arguments, meta=meta))
        calling.add_done_callback(_look_away)
        try:
            await asyncio.wait({calling, owner}, return_when=_FIRST)
        finally:
            if not calling.done():
                calling.cancel()
                await asyncio.wait({calling}, timeout=CANCEL_SECONDS)
        if calling.done() and not calling.cancelled() and calling.exception() is None:
            return calling.result()
        # What ended the connection may just be coming to its end, and last words be on their way.
        await asyncio.wait({owner}, timeout=SETTLE_SECONDS)
        if owner.done():
            self._lost = _reason(owner)
        raise self._failure(tool, calling)

    def _failure(self, tool: str, calling: "asyncio.Task[CallToolResult]") -> Exception:
        """What to say of a call that has no result."""
        label, words = self.server.label, self._tail.text
        if calling.cancelled() or not calling.done():
            return McpServerLost(label, tool, self._lost or "cancelled", words)
        return self._told(tool, calling.exception(), words)

    def _told(self, tool: str, error: BaseException | None, words: str) -> Exception:
        """What to say of an error of the SDK."""
        import mcp_types
        from mcp import MCPError
        from pydantic import ValidationError

        # The SDK gives the last two codes also to an answer that it cannot read, or that a proxy
        # gave in the place of the server's; the call may have been made all the same.
        unknown = {
            mcp_types.CONNECTION_CLOSED,
            mcp_types.REQUEST_TIMEOUT,
            mcp_types.PARSE_ERROR,
            mcp_types.INTERNAL_ERROR,
            mcp_types.INVALID_REQUEST,
        }
        label = self.server.label
        if isinstance(error, MCPError) and error.code not in unknown:
            return McpRefused(label, tool, error.code, clipped(error.message))
        if isinstance(error, RuntimeError | ValidationError):
            return McpBadResult(label, tool, clipped(str(error)))
        reason = self._lost or clipped(str(error)) or type(error).__name__
        closed = isinstance(error, MCPError) and error.code == mcp_types.CONNECTION_CLOSED
        if closed and self.server.command:
            self._lost = reason  # a pipe does not come back; a request over HTTP may
        return McpServerLost(label, tool, reason, words)

    async def _own(self, ready: "asyncio.Future[None]") -> None:
        from mcp import Client

        async with contextlib.AsyncExitStack() as stack:
            transport = await stack.enter_async_context(self._transport())
            client = await stack.enter_async_context(Client(transport, cache=None))
            self.tools = await _listed(client)
            self._client = client
            ready.set_result(None)
            await self._end.wait()

    @contextlib.asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        """What the SDK is to connect through, and what that needs."""
        if self.server.url:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            timeout = httpx2.Timeout(HTTP_SECONDS, read=None)
            headers = dict(self.server.headers)
            async with httpx2.AsyncClient(headers=headers, timeout=timeout) as http:
                yield streamable_http_client(self.server.url, http_client=http)
            return
        from mcp import StdioServerParameters, stdio_client

        program, *arguments = self.server.command
        asked = StdioServerParameters(
            command=program, args=arguments, env=dict(self.server.env), cwd=self.server.cwd
        )
        errors, errors_end = os.pipe()
        with os.fdopen(errors, "rb", 0) as pipe, os.fdopen(errors_end, "w") as end:
            reader = await read_pipe(pipe, self._tail.take)
            try:
                yield stdio_client(asked, errlog=end)
            finally:
                reader.close()

    async def _finish(self, *, cancel: bool) -> None:
        """End the connection, whoever cancels this meanwhile."""
        owner = self._owner
        assert owner is not None
        self._end.set()
        if cancel:
            owner.cancel()
        cancelled = False
        while not owner.done():
            try:
                await asyncio.wait({owner})
            except asyncio.CancelledError:
                cancelled = True
        if not owner.cancelled():
            owner.exception()  # looked at; whoever called meanwhile was told
        if cancelled:
            raise asyncio.CancelledError


_FIRST = asyncio.FIRST_COMPLETED


async def _listed(client: "Client") -> "list[Listed]":
    found: list[Listed] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise RuntimeError(f"its list of tools has more than {MAX_PAGES} pages")


def _look_away(calling: "asyncio.Task[CallToolResult]") -> None:
    """Take the error of a call that nobody waits for any more."""
    if not calling.cancelled():
        calling.exception()


def _reason(owner: "asyncio.Task[None]") -> str:
    """Why the connection ended: the first error that is not a group of others."""
    if owner.cancelled():
        return "it was cancelled"
    error = owner.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is None:
        return "it was closed"
    said = clipped(str(error))
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
