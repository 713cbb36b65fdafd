"""What a tool of a server answered, as a value. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import assert_never, cast

from paceline.tools.mcp.sdk import types

__all__ = ["text_of", "value_of"]


def value_of(result: types.CallToolResult, output_schema: Mapping[str, object] | None) -> object:
    """The data of a result, else its text.

    Data that the SDK of the server wrapped, as {"result": data}, is taken out. Servers repeat data
    as text for clients of old; text that is something else stands beside it: {"text", "data"}.
    """
    data = cast("object", result.structured_content)
    said = text_of(result.content)
    if data is None:
        return said
    inner = _inner(data, output_schema)
    if inner is not data and all(isinstance(block, types.TextContent) for block in result.content):
        return inner
    return data if not said or _same(said, data) else {"text": said, "data": data}


def text_of(content: Sequence[types.ContentBlock]) -> str:
    """The texts, and a note in the place of all that is none."""
    return "\n".join(map(_block, content))


def _inner(data: object, schema: Mapping[str, object] | None) -> object:
    """What is in data that is only there because data had to be an object."""
    properties = None if schema is None else schema.get("properties")
    for there in (properties, data):
        if not isinstance(there, dict) or list(cast("dict[str, object]", there)) != ["result"]:
            return data
    return cast("dict[str, object]", data)["result"]


def _same(said: str, data: object) -> bool:
    try:
        return bool(json.loads(said) == data)
    except (ValueError, RecursionError):
        return False


def _block(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return f"[{block.type}, {block.mime_type}, {_size(block.data)}]"
        case types.ResourceLink():
            return f"[resource {block.name}: {block.uri}]"
        case types.EmbeddedResource():
            if isinstance(block.resource, types.TextResourceContents):
                return block.resource.text
            kind = block.resource.mime_type or "of unknown type"
            return f"[resource {block.resource.uri}, {kind}, {_size(block.resource.blob)}]"
        case _:
            assert_never(block)


def _size(base64: str) -> str:
    return f"{len(base64) * 3 // 4:,} bytes"
