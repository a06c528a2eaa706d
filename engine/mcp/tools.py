"""The tools of an MCP server, as tools that plans may call.

    async with mcp_tools(command=["npx", "-y", "@modelcontextprotocol/server-everything"]) as tools:
        runtime = Runtime(store, tools=tools)

Needs the extra `mcp`; nothing of it is imported before the first connection. Source: the Model
Context Protocol, revisions 2025-11-25 and 2026-07-28.
"""

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

from carstore.names import Json
from engine.context import ToolContext
from engine.declare import Tool
from engine.mcp.connection import Connection, Server
from engine.mcp.errors import McpNotInstalled, McpToolFailed, clipped
from engine.problems import suggestion
from engine.rules.tool_hints import Hints, contradiction, effect_of
from engine.tool_schema import EffectMode, InvalidTool, ToolSchema

__all__ = ["Trust", "mcp_tools"]

Trust = Literal["nothing", "annotations"]
"""Which hints of a server may make a call repeatable: none, or those of its annotations."""

CALL_TIMEOUT_MS = 60_000
"""Milliseconds that a call may take unless something else is said. A server that hangs says
nothing, so there has to be a limit; the usual clients have the same one."""

CONNECT_TIMEOUT_MS = 60_000
"""Milliseconds until a server must have listed its tools; `npx` may have to download it first."""

CONTEXT = "carstore: the context"
"""Under which the engine hands over the context; no parameter of a tool is called so."""

MAX_TOOLS = 1_000
"""Tools of one server. No model is shown that many."""


@contextlib.asynccontextmanager
async def mcp_tools(
    command: Sequence[str] | None = None,
    *,
    url: str | None = None,
    prefix: str = "",
    only: Collection[str] | None = None,
    trust: Trust = "nothing",
    effects: Mapping[str, EffectMode | str] | None = None,
    timeout_ms: int | None = CALL_TIMEOUT_MS,
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[list[Tool]]:
    """Connect to an MCP server and yield its tools, which work until the end of the block.

    Args:
        command: program and arguments of a server that speaks on its standard input and output.
        url: of one that speaks streamable HTTP; give this or `command`.
        prefix: put before each name, as `"files/"`: two servers may have tools of one name.
        only: the names of the tools to take, as the server has them; None: all.
        trust: "annotations" lets the server's hints make a tool read-only or idempotent.
        effects: name of a tool, as the server has it, -> what is known of it here: "read_only",
            "idempotent" or "once". Overrules hints that allow more, but not hints that allow less.
        timeout_ms: how long a call may take, unless its action says otherwise; None: for ever.
        connect_timeout_ms: how long starting, connecting and listing may take together.
        env: for `command`: variables beside the few that are passed on (HOME, PATH, USER ...).
        cwd: for `command`: its working directory.
        headers: for `url`: sent with each request, such as `Authorization`.

    Raises:
        McpNotInstalled: the extra `mcp` is not installed.
        McpNotConnected: the server cannot be started or reached, or does not answer.
        InvalidTool: a tool that was asked for is not there or cannot be used.
        ValueError: neither or both of `command` and `url`, or what does not belong to the one.
    """
    _check(command, url, env=env, cwd=cwd, headers=headers, trust=trust)
    try:
        import mcp  # noqa: F401 - whether it is there is asked before anything is started
    except ImportError as error:
        raise McpNotInstalled(str(error)) from error
    server = Server(
        command=tuple(command or ()),
        env=dict(env or {}),
        cwd=cwd,
        url=url or "",
        headers=dict(headers or {}),
    )
    async with Connection(server, connect_timeout_ms) as connection:
        listed = _chosen(connection.tools, only, effects or {})
        yield [
            _tool(connection, one, prefix, trust, (effects or {}).get(one.name), timeout_ms)
            for one in listed
        ]


def _check(command: Sequence[str] | None, url: str | None, *, trust: str, **others: Any) -> None:
    if (command is None) == (url is None):
        raise ValueError("name the server by command= or by url=")
    if isinstance(command, str) or (command is not None and not command):
        raise ValueError(f"command is a list of words, as ['npx', 'server'], not {command!r:.80}")
    if trust not in ("nothing", "annotations"):
        raise ValueError(f"trust is 'nothing' or 'annotations', not {trust!r:.40}")
    for name in ("headers",) if url is None else ("env", "cwd"):
        if others[name] is not None:
            raise ValueError(f"{name}= does not go with {'command' if url is None else 'url'}=")


class _Listed(Protocol):
    """What is needed of a tool as the SDK lists it."""

    name: str
    title: str | None
    description: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    annotations: Any


def _chosen(
    listed: Sequence[_Listed], only: Collection[str] | None, effects: Mapping[str, object]
) -> list[_Listed]:
    """The tools to take. Raises `InvalidTool` for a name that the server does not have."""
    names = [one.name for one in listed]
    for name in (*(only or ()), *effects):
        if name not in names:
            hint = suggestion(name, names)
            raise InvalidTool(name[:128], f"the MCP server has no tool of this name{hint}")
    chosen = [one for one in listed if only is None or one.name in only]
    if len(chosen) > MAX_TOOLS:
        reason = f"the MCP server has {len(chosen):,} tools; at most {MAX_TOOLS:,} are taken"
        raise InvalidTool("", f"{reason}. Name those you want: only=[...]")
    return chosen


def _tool(
    connection: Connection,
    listed: _Listed,
    prefix: str,
    trust: Trust,
    declared: EffectMode | str | None,
    timeout_ms: int | None,
) -> Tool:
    effect = _effect(listed, trust, declared)
    schema = ToolSchema(
        name=prefix + listed.name,
        description=listed.description or listed.title or "",
        parameters=listed.input_schema,
        returns=listed.output_schema,
        idempotent=effect is EffectMode.IDEMPOTENT,
        read_only=effect is EffectMode.READ_ONLY,
        timeout_ms=timeout_ms,
    )
    schema.compile()
    name, has_schema = listed.name, listed.output_schema is not None

    async def function(**arguments: Json) -> Json:
        context: ToolContext | None = arguments.pop(CONTEXT, None)
        key = None if context is None else context.idempotency_key
        result = await connection.call(name, arguments, key)
        return _output(connection.server.label, name, result, has_schema=has_schema)

    function.__name__ = function.__qualname__ = schema.name
    function.__doc__ = schema.description
    return Tool(schema=schema, function=function, is_async=True, context_parameter=CONTEXT)


def _effect(listed: _Listed, trust: Trust, declared: EffectMode | str | None) -> EffectMode:
    given = listed.annotations
    hints = Hints()
    if given is not None:
        hints = Hints(
            read_only=given.read_only_hint,
            destructive=given.destructive_hint,
            idempotent=given.idempotent_hint,
        )
    if declared is None:
        return effect_of(hints, trusted=trust == "annotations")
    known = [mode.value for mode in EffectMode]
    if declared not in known:
        reason = f"{declared!r:.40} is not one of {', '.join(known)}"
        raise InvalidTool(listed.name[:128], reason, "effects")
    effect = EffectMode(declared)
    problem = contradiction(effect, hints)
    if problem is not None:
        raise InvalidTool(listed.name[:128], problem, "effects")
    return effect


def _output(server: str, tool: str, result: Any, *, has_schema: bool) -> Json:
    """The result as JSON: the structured content as it is, else `{"content": [...]}`.

    Raises:
        McpToolFailed: it says that the call failed.
    """
    blocks = [
        block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content
    ]
    if result.is_error:
        texts = [block["text"] for block in blocks if block.get("type") == "text"]
        raise McpToolFailed(server, tool, clipped("\n".join(texts)))
    if result.structured_content is not None or has_schema:
        return result.structured_content
    for block in blocks:
        block.pop("_meta", None)
    return {"content": blocks}
