"""Tools of servers that speak the Model Context Protocol (`paceline[mcp]`)."""

from paceline.tools.mcp.server import McpServer

__all__ = ["McpServer"]
