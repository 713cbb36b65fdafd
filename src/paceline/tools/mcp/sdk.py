"""The official SDK of the Model Context Protocol, as far as it is used here.

It is large, so this module is imported when a server is first used. Needs the extra `paceline[mcp]`.
"""

import logging
from typing import Any, Final, cast

from paceline.extras import missing

try:
    import anyio
    import httpx2
    import jsonschema
    import mcp_types as types
    import referencing
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp import Client, MCPError
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.message import SessionMessage
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS
    from referencing.exceptions import Unresolvable
except ImportError as exc:
    raise missing("tools from MCP servers need", "mcp", "mcp") from exc

__all__ = [
    "MODERN_PROTOCOL_VERSIONS",
    "Client",
    "MCPError",
    "MemoryObjectReceiveStream",
    "MemoryObjectSendStream",
    "SessionMessage",
    "Unresolvable",
    "anyio",
    "httpx2",
    "json_schema",
    "no_references",
    "streamable_http_client",
    "types",
]

json_schema: Final[Any] = jsonschema
"""It has no types of its own."""
no_references: Final[referencing.Registry[object]] = cast("Any", referencing.Registry)()
"""References lead within a schema, never to the network."""

# It logs what servers write, with tracebacks, and without a handler Python prints that.
logging.getLogger("mcp").addHandler(logging.NullHandler())
