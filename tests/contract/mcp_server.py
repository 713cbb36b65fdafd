"""A server of the Model Context Protocol made with the official SDK, for the tests. Run, it speaks by
standard input and output."""

import asyncio
import os
import sys
from pathlib import Path

import mcp_types as types
from mcp.server.mcpserver import Context, Image, MCPServer

READ = types.ToolAnnotations(read_only_hint=True)
ADD = types.ToolAnnotations(read_only_hint=False, idempotent_hint=True, destructive_hint=False)
DESTROY = types.ToolAnnotations(destructive_hint=True)


def make() -> MCPServer:
    """The server, with notes of its own."""
    server = MCPServer("notes", version="1.0")
    notes = {"a": "first"}

    @server.tool(annotations=READ)
    def read_note(name: str) -> str:
        """The text of a note."""
        return notes[name]

    @server.tool(annotations=ADD)
    def write_note(name: str, text: str, copies: int = 1) -> dict[str, int]:
        """Writes a note."""
        notes[name] = text * copies
        return {"characters": len(notes[name])}

    @server.tool(annotations=DESTROY)
    def clear() -> list[str]:
        """Deletes all notes."""
        gone = list(notes)
        notes.clear()
        return gone

    @server.tool()
    async def slow(path: str) -> str:
        """Never ends by itself."""
        Path(path).write_text("started")
        try:
            await asyncio.Event().wait()
        finally:
            Path(path).write_text("cancelled")
        return ""

    @server.tool()
    def crash(path: str = "") -> str:
        """Ends the server."""
        sys.stderr.write(f"\x1b[31mout of notes, token {os.environ.get('NOTES_TOKEN')}\x1b[0m\n")
        sys.stderr.flush()
        os._exit(3)

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Adds a tool."""

        def grown() -> str:
            return "here"

        server.add_tool(grown)
        await ctx.report_progress(1, 2, "half")
        await ctx.notify_tools_changed()
        return "grown"

    add_plain(server)
    return server


def add_plain(server: MCPServer) -> None:
    """Tools that need nothing of the server."""

    @server.tool()
    def environment() -> list[str]:
        """The names of what it was handed."""
        return sorted(os.environ)

    @server.tool()
    def picture() -> Image:
        """An image."""
        return Image(data=b"x" * 30, format="png")

    @server.tool()
    def huge(characters: int) -> str:
        """A long text."""
        return "x" * characters


if __name__ == "__main__":
    make().run()
