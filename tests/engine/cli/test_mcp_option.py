"""How MCP servers are named on the command line, and that their tools are there then."""

import shlex
import sys
from pathlib import Path

import pytest

from engine.cli.errors import BadUsage
from engine.cli.mcp_option import McpServer, mcp_server, with_mcp_tools
from engine.tool_schema import InvalidTool
from engine.tools import Tools
from tests.engine.harness import in_loop

SERVER = shlex.join(
    [sys.executable, str(Path(__file__).parents[1] / "mcp" / "mcp_server.py"), "stdio"]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("npx -y 'a server'", McpServer("", ("npx", "-y", "a server"), "")),
        ("files=npx server --root=/tmp", McpServer("files/", ("npx", "server", "--root=/tmp"), "")),
        ("http://localhost:1/mcp?a=b", McpServer("", (), "http://localhost:1/mcp?a=b")),
        ("web=https://example.org/mcp", McpServer("web/", (), "https://example.org/mcp")),
        ("server --root=/tmp", McpServer("", ("server", "--root=/tmp"), "")),
    ],
)
def test_a_server_is_a_command_or_a_url_and_may_be_named(text: str, expected: McpServer) -> None:
    assert mcp_server(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "'open"])
def test_what_is_neither_is_bad_usage(text: str) -> None:
    with pytest.raises(BadUsage):
        mcp_server(text)


@in_loop
async def test_the_tools_of_the_servers_are_added_under_their_names() -> None:
    pytest.importorskip("mcp", reason="the extra mcp is not installed")
    table = Tools(["mine"])
    async with with_mcp_tools(table, [f"a={SERVER}", f"b={SERVER}"]) as full:
        names = full.names()
        assert {"mine", "a/add", "b/add"} <= set(names)
        add = full.get("a/add")
        assert add is not None
        assert (await add(a=1, b=2))["total"] == 3


@in_loop
async def test_two_tools_of_one_name_are_refused() -> None:
    pytest.importorskip("mcp", reason="the extra mcp is not installed")
    with pytest.raises(InvalidTool, match="two tools of this name"):
        async with with_mcp_tools(Tools(), [SERVER, SERVER]):
            raise AssertionError("it was accepted")
