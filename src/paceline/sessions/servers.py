"""The tools of the MCP servers in the settings."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

from paceline.errors import CallTimeoutError, InvalidInputError, PacelineError
from paceline.sessions.around import Around
from paceline.tools.spec import ToolSpec

if TYPE_CHECKING:
    from paceline.tools.mcp import McpServer

__all__ = ["McpTools"]

_PATIENCE_S: Final = 10.0
"""How long one server may hold up those who use others, once."""


@final
class McpTools:
    """Opens the servers when their tools are first asked for. One that cannot be used leaves the
    tools of the others; one that is silent is waited for once, and its tools are there when it has
    answered."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._servers: dict[str, _Listed | None] = {}
        """None for those that cannot be opened."""
        self._noticed: set[tuple[str, str]] = set()
        self._parts = contextlib.AsyncExitStack()
        self._one_at_a_time = asyncio.Lock()

    async def read(self, own: Mapping[str, str]) -> Mapping[str, ToolSpec]:
        """The tools there are now, by name. `own` are names that others have already, with what has
        them; of tools with one name the first is there, of the others somebody is told."""
        if not self._around.settings.mcp:
            return {}
        async with self._one_at_a_time:
            await self._open()
            listed = [one for one in self._servers.values() if one is not None]
            begun = {one.begin(): one for one in listed if one.reading is None}
            if begun:
                answered, silent = await asyncio.wait(begun, timeout=_PATIENCE_S)
                for task in answered:
                    task.result()
                for task in silent:
                    self._notice(begun[task].who, _silent())
            for one in listed:
                if one.trouble is not None:
                    self._notice(one.who, one.trouble)
        return self._distinct(listed, own)

    async def close(self) -> None:
        """Ends all servers."""
        reading = [
            one.reading
            for one in self._servers.values()
            if one is not None and one.reading is not None
        ]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await self._parts.aclose()

    async def _open(self) -> None:
        """Those that are not open yet."""
        from paceline.tools.mcp import McpServer  # noqa: PLC0415 (needs the extra)

        around = self._around
        for name, settings in around.settings.mcp.items():
            if name in self._servers:
                continue
            try:
                server = McpServer(
                    name,
                    settings,
                    environ=around.environ,
                    clock=around.clock,
                    rng=around.rng,
                )
                self._servers[name] = _Listed(await self._parts.enter_async_context(server))
            except PacelineError as exc:
                self._servers[name] = None
                self._notice(f"the MCP server {name}", exc)

    def _distinct(self, listed: "list[_Listed]", own: Mapping[str, str]) -> dict[str, ToolSpec]:
        there = dict(own)
        found: dict[str, ToolSpec] = {}
        for one in listed:
            for tool in one.tools:
                if tool.name in there:
                    self._notice(one.who, _taken(tool.name, there[tool.name]))
                else:
                    there[tool.name] = one.who
                    found[tool.name] = tool
        return found

    def _notice(self, who: str, error: PacelineError) -> None:
        """Tells of it once, however often they are read."""
        if (who, error.message) not in self._noticed:
            self._noticed.add((who, error.message))
            self._around.notice(who, error)


@final
class _Listed:
    """A server, and the tools it has told of last."""

    __slots__ = ("reading", "server", "tools", "trouble")

    def __init__(self, server: "McpServer") -> None:
        self.server = server
        self.tools: list[ToolSpec] = []
        self.reading: asyncio.Task[None] | None = None
        self.trouble: PacelineError | None = None
        """Why there are none now."""

    @property
    def who(self) -> str:
        """What people know it by."""
        return f"the MCP server {self.server.name}"

    def begin(self) -> asyncio.Task[None]:
        """Asks it, however long that takes."""
        self.reading = asyncio.create_task(self._read())
        return self.reading

    async def _read(self) -> None:
        try:
            self.tools, self.trouble = await self.server.tools(), None
        except PacelineError as exc:
            self.tools, self.trouble = [], exc
        finally:
            self.reading = None


def _taken(name: str, other: str) -> PacelineError:
    return InvalidInputError(
        f"its tool {name} is left out, as {other} has this name",
        next_step="Give the server another name in [mcp], or leave its tool out with `tools`.",
    )


def _silent() -> PacelineError:
    return CallTimeoutError(
        f"it has not told its tools within {_PATIENCE_S:g} seconds",
        next_step="They are there when it has; sessions go on with what is known of it.",
    )
