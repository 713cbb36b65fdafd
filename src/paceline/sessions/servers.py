"""The tools of the MCP servers in the settings."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

from paceline.agents.spec import AgentSpec
from paceline.errors import CallTimeoutError, InvalidInputError, PacelineError
from paceline.sessions.around import Around
from paceline.tools.spec import ToolSpec

if TYPE_CHECKING:
    from paceline.tools.mcp import McpServer

__all__ = ["McpTools", "ServedTools"]

_log = logging.getLogger("paceline")

_PATIENCE_S: Final = 10.0
"""How long one server may hold up those who use others, once."""
_SETTLING_S: Final = 2.0
"""How long a call may be held up once by a server that says that its tools changed."""


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
        self.revision = 0
        """Another one whenever the tools are others."""

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
        return self._distinct([(one, one.tools) for one in listed], own)

    def latest(self, own: Mapping[str, str]) -> Mapping[str, ToolSpec]:
        """The tools that the servers told of last, by name, as `read`."""
        listed = [one for one in self._servers.values() if one is not None]
        return self._distinct([(one, one.latest) for one in listed], own)

    @property
    def changing(self) -> "list[asyncio.Task[None]]":
        """Those under way that ask servers which say that their tools changed."""
        return [one.changing for one in self._servers.values() if one and one.changing]

    async def close(self) -> None:
        """Ends all servers."""
        for one in self._servers.values():
            if one is not None:
                one.server.when_changed = bool
        reading = [one.reading for one in self._servers.values() if one and one.reading]
        reading += self.changing
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
                entered = await self._parts.enter_async_context(server)
                self._servers[name] = _Listed(entered, self._changed)
            except PacelineError as exc:
                self._servers[name] = None
                self._notice(f"the MCP server {name}", exc)

    def _changed(self) -> None:
        self.revision += 1

    def _distinct(
        self, listed: "list[tuple[_Listed, list[ToolSpec]]]", own: Mapping[str, str]
    ) -> dict[str, ToolSpec]:
        there = dict(own)
        found: dict[str, ToolSpec] = {}
        for one, tools in listed:
            for tool in tools:
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
class ServedTools:
    """The tools of a session, of which those of MCP servers come and go while it is open."""

    __slots__ = ("_choose", "_own", "_seen", "_served", "_servers", "_tools", "_waited")

    def __init__(
        self,
        servers: McpTools,
        own: Mapping[str, str],
        tools: Sequence[ToolSpec | AgentSpec],
        choose: Callable[[Mapping[str, ToolSpec]], Collection[str]],
    ) -> None:
        """`tools` are those it begins with, and `own` as for `McpTools.read`. `choose` says which of
        the tools of servers it is to have."""
        self._servers = servers
        self._own = own
        self._tools = list(tools)
        self._choose = choose
        self._seen = servers.revision
        self._served = frozenset(servers.latest(own))
        self._waited: asyncio.Task[None] | None = None

    def latest(self) -> "Sequence[ToolSpec | AgentSpec] | None":
        """All that there are now, the new ones last; None if they are those of before."""
        if self._seen == self._servers.revision:
            return None
        self._seen = self._servers.revision
        there = self._servers.latest(self._own)
        wanted = self._choose(there)
        kept = [
            tool for tool in self._tools if tool.name not in self._served or tool.name in wanted
        ]
        found = {
            tool.name: there[tool.name] if tool.name in self._served else tool for tool in kept
        }
        for name in wanted:
            found.setdefault(name, there[name])
        self._served = frozenset(there)
        self._tools = list(found.values())
        return self._tools

    async def settled(self) -> None:
        """Waits for servers that say that their tools changed to tell which there are, for a
        moment, and for none twice."""
        for task in self._servers.changing:
            if task is not self._waited:
                self._waited = task
                await asyncio.wait((task,), timeout=_SETTLING_S)


@final
class _Listed:
    """A server, and the tools it has told of last."""

    __slots__ = (
        "_again",
        "_changed",
        "changing",
        "latest",
        "reading",
        "server",
        "tools",
        "trouble",
    )

    def __init__(self, server: "McpServer", changed: Callable[[], object]) -> None:
        self.server = server
        server.when_changed = self._change
        self._changed = changed
        self._again = False
        self.tools: list[ToolSpec] = []
        self.latest: list[ToolSpec] = []
        """The same, but those of before where it cannot be asked now."""
        self.changing: asyncio.Task[None] | None = None
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
            await self._ask()
        except PacelineError as exc:
            self.tools, self.trouble = [], exc
        finally:
            self.reading = None

    async def _ask(self) -> None:
        self.tools, self.trouble = await self.server.tools(), None
        if self.tools != self.latest:
            self.latest = self.tools
            self._changed()

    def _change(self) -> None:
        """It says that its tools changed."""
        self._again = True
        if self.changing is None:
            self.changing = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._ask()
        except PacelineError as exc:
            _log.warning("%s does not tell which tools it has now: %s", self.who, exc)
        finally:
            self.changing = None


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
