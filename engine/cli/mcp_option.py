"""`--mcp SERVER`: the tools of MCP servers for a command that runs plans."""

import contextlib
import os
import re
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import click
from attrs import frozen

from engine.cli.errors import BadUsage
from engine.mcp.tools import mcp_tools
from engine.tools import Tools

__all__ = ["McpServer", "mcp_option", "mcp_server", "with_mcp_tools"]

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.+)", re.DOTALL)

_Command = TypeVar("_Command", bound=Callable[..., Any])


@frozen
class McpServer:
    """A server as it is named on the command line."""

    prefix: str
    """What goes before the names of its tools; "" if it was given no name."""
    command: tuple[str, ...]
    """Empty for a server that has a URL."""
    url: str


def mcp_option(command: _Command) -> _Command:
    """`--mcp SERVER`, as `mcp`; to be used with `with_mcp_tools`."""
    return click.option(
        "--mcp",
        metavar="SERVER",
        multiple=True,
        help="Also the tools of this MCP server, a command or a URL; repeatable. NAME=SERVER puts "
        "NAME/ before their names.",
    )(command)


def mcp_server(text: str) -> McpServer:
    """Read what was given for `--mcp`.

    Raises:
        BadUsage: it is neither a command nor a URL.
    """
    named = _NAMED.fullmatch(text)
    prefix, said = (f"{named[1]}/", named[2]) if named else ("", text)
    if said.startswith(("http://", "https://")):
        return McpServer(prefix, (), said)
    try:
        words = tuple(shlex.split(said))
    except ValueError as error:
        raise BadUsage("--mcp", f"{said!r:.100} is no command: {error}") from None
    if not words:
        raise BadUsage("--mcp", "name a command or a URL")
    return McpServer(prefix, words, "")


@contextlib.asynccontextmanager
async def with_mcp_tools(table: Tools, servers: Sequence[str]) -> AsyncIterator[Tools]:
    """Connect to the servers of `--mcp`, and yield `table` with their tools added.

    A command gets the whole environment, as from a shell: who types it knows what it is.

    Raises:
        BadUsage: one of `servers` is neither a command nor a URL.
        McpNotInstalled, McpNotConnected, InvalidTool: as `mcp_tools`; a name that is taken, too.
    """
    asked = [mcp_server(text) for text in servers]
    async with contextlib.AsyncExitStack() as stack:
        for one in asked:
            opening = (
                mcp_tools(url=one.url, prefix=one.prefix)
                if one.url
                else mcp_tools(one.command, prefix=one.prefix, env=dict(os.environ))
            )
            for tool in await stack.enter_async_context(opening):
                table.register(tool)
        table.check_compensations()
        yield table
