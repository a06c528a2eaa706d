"""A small MCP server, run as a process: `python mcp_server.py stdio`, or `http PORT`."""

import asyncio
import os
import sys
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import BaseModel

server = MCPServer("small")


class Sum(BaseModel):
    total: int
    of: list[int]


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> Sum:
    """Add two numbers.

    The rest of the description.
    """
    return Sum(total=a + b, of=[a, b])


@server.tool(structured_output=False)
def say(text: str) -> Any:
    """Content without structure."""
    return [
        TextContent(type="text", text=text),
        ImageContent(type="image", data="aGk=", mime_type="image/png"),
    ]


@server.tool(
    annotations=ToolAnnotations(idempotent_hint=True, destructive_hint=False),
    structured_output=False,
)
def fail(text: str) -> CallToolResult:
    """Fail, and say why."""
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


@server.tool(annotations=ToolAnnotations(idempotent_hint=True, destructive_hint=True))
async def slow(path: str) -> str:
    """Note that it began, and take a minute."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("began\n")
    await asyncio.sleep(60)
    return "done"


@server.tool()
def crash(path: str) -> str:
    """Note that it began, and end the server."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("began\n")
    print("the last words", file=sys.stderr, flush=True)
    os._exit(9)


@server.tool(structured_output=False)
def meta(ctx: Context[Any, Any]) -> CallToolResult:
    """What the call carried beside its arguments, and the server's environment."""
    found = dict(ctx.request_context.meta or {})
    return CallToolResult(
        content=[],
        structured_content={
            "key": found.get("carstore/idempotencyKey"),
            "env": os.environ.get("OF_THE_TEST"),
            "pid": os.getpid(),
        },
    )


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
