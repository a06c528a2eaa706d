"""Tools of MCP servers, as tools that plans may call. Needs the extra `mcp`.

Nothing is imported here, so that asking for one part does not load the SDK.
"""
