"""A server of the Model Context Protocol whose tools are used.

::

    async with McpServer("files", settings, environ=environ, clock=clock, rng=rng) as server:
        tools = await server.tools()
"""

import asyncio
import functools
import random
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

import msgspec

from paceline.breaker import Breaker
from paceline.clock import Clock
from paceline.errors import (
    AgentError,
    CallTimeoutError,
    Category,
    ConfigError,
    InvalidInputError,
    RuntimeClosedError,
)
from paceline.redaction import Redactor, Secret
from paceline.session_settings import McpSettings
from paceline.tools.spec import ToolSpec

if TYPE_CHECKING:
    from paceline.tools.mcp.connection import Connection, Transport
    from paceline.tools.mcp.failures import Failures
    from paceline.tools.mcp.process import ServerProcess
    from paceline.tools.mcp.schema import Finder
    from paceline.tools.mcp.sdk import Client, types
    from paceline.tools.mcp.specs import ToolSpecs

__all__ = ["McpServer", "Progress"]

Progress = Callable[[str, float, float | None, str | None], None]
"""Is told of a tool by name: how far it is, of how much, and what it says. Returns at once."""

_HANDED_ON: Final = ("HOME", "LANG", "PATH")
_MOST_BYTES: Final = 8 * 1024 * 1024
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 60.0


@final
class McpServer:
    """Its tools, over one session with it.

    The session begins at the first use. When it ended, or could not begin, the next use tries
    again; from the second time in a row without a call that was answered between, it waits longer
    and longer before that, and what is asked meanwhile is refused.
    """

    def __init__(
        self,
        name: str,
        settings: McpSettings,
        *,
        environ: Mapping[str, str],
        clock: Clock,
        rng: random.Random | None = None,
        progress: Progress | None = None,
        most_bytes: int = _MOST_BYTES,
        grace_s: float = 2.0,
    ) -> None:
        """`environ` is the environment here; of it the process gets PATH, HOME, LANG and what the
        settings name. One message of the server may have `most_bytes`. When it is left it has
        `grace_s` seconds to end by itself, and as many again before it is killed. `rng` varies the
        pauses before it is started again.

        Raises ConfigError for settings that name no server, or a token that is not set.
        """
        if bool(settings.command) == bool(settings.url):
            raise ConfigError(
                f"MCP server {name} has {'both' if settings.url else 'neither'} a command and a url",
                next_step=f"Set one of them in [mcp.{name}].",
            )
        if settings.url and not settings.url.lower().startswith(("http://", "https://")):
            raise ConfigError(
                f"the url of MCP server {name} is not one of http or https",
                next_step=f"Correct `url` of [mcp.{name}].",
            )
        if settings.token_env and not environ.get(settings.token_env):
            raise ConfigError(
                f"MCP server {name} needs a token, and {settings.token_env} is not set",
                next_step=f"Set it in the environment, or correct `token_env` of [mcp.{name}].",
            )
        self.name = name
        self.when_changed: Callable[[], object] = bool
        """Is told when the tools may be others than they were. Returns at once."""
        self._settings = settings
        self._clock = clock
        self._progress = progress
        self._most_bytes = most_bytes
        self._grace_s = grace_s
        self._env = {key: environ[key] for key in (*_HANDED_ON, *settings.env) if key in environ}
        self._token = Secret(environ.get(settings.token_env, "") if settings.token_env else "")
        handed = [Secret(environ[key]) for key in settings.env if key in environ]
        self._redactor = Redactor((self._token, *handed))
        self._restarts = Breaker(
            clock, failures=2, wait_s=_FIRST_WAIT_S, longest_wait_s=_LONGEST_WAIT_S, dice=rng
        )
        self._open = False
        self._connection: Connection | None = None
        self._process: ServerProcess | None = None
        self._permit = 0  # of the session there is, until it answered a call
        self._starting: asyncio.Task[Connection] | None = None
        self._retired: dict[Connection, asyncio.Task[None]] = {}
        self._why = ""
        self._specs: ToolSpecs | None = None
        self._tools: list[ToolSpec] = []
        self._listed: Connection | None = None
        self._listing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def pid(self) -> int | None:
        """The number of its process, if it has one."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> Self:
        if self._open:
            raise ConfigError(f"{self!r} is open already", next_step="Use it in one place only.")
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the session, and the process. What waits for an answer fails."""
        self._open = False
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait((self._starting,))
        if self._connection is not None:
            self._retire(self._connection)
        retired = list(self._retired.items())
        await asyncio.gather(*(connection.close() for connection, _ in retired))
        await asyncio.gather(*(task for _, task in retired))

    async def tools(self) -> list[ToolSpec]:
        """Its tools that the settings let through; the same objects until the server says that
        they changed. Raises PacelineError."""
        async with self._listing:
            connection = await self._ready()
            if connection is not self._listed or connection.changed:
                try:
                    listed = await connection.list_tools()
                except (AgentError, CallTimeoutError):
                    self._settle(connection)
                    raise
                self._tools = self._made_by().of(listed, connection.version)
                self._listed = connection
            return list(self._tools)

    def _made_by(self) -> "ToolSpecs":
        if self._specs is None:
            from paceline.tools.mcp.specs import ToolSpecs  # noqa: PLC0415 (needs the extra)

            self._specs = ToolSpecs(self.name, self._settings, self._runner)
        return self._specs

    def _runner(self, tool: "types.Tool") -> Callable[..., object]:
        find = functools.cache(functools.partial(_finder, tool))

        async def run(**arguments: object) -> object:
            return await self._call(tool, arguments, find)

        return run

    async def _call(
        self, tool: "types.Tool", arguments: dict[str, object], find: "Callable[[], Finder]"
    ) -> object:
        """What the tool answers. Raises PacelineError."""
        try:
            msgspec.json.encode(arguments)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise InvalidInputError(
                f"an argument of {tool.name!r} cannot be sent to MCP server {self.name}: {exc}",
                next_step="Pass plain data (text, numbers, lists, dicts).",
            ) from exc
        connection = await self._ready()

        async def heard(
            progress: float, total: float | None = None, message: str | None = None
        ) -> None:
            if self._progress is not None:
                self._progress(tool.name, progress, total, message)

        async def ask(client: "Client") -> "types.CallToolResult":
            listen = None if self._progress is None else heard
            return await client.call_tool(tool.name, arguments, progress_callback=listen)

        try:
            result = await connection.request(ask, f"answer a call of {tool.name}")
        except (AgentError, CallTimeoutError):
            self._settle(connection)
            raise
        self._proved()
        return self._value(tool, result, find)

    def _value(
        self, tool: "types.Tool", result: "types.CallToolResult", find: "Callable[[], Finder]"
    ) -> object:
        from paceline.tools.mcp.results import text_of, value_of  # noqa: PLC0415 (needs the extra)

        if result.is_error:
            raise self._failures().of_tool(text_of(result.content))
        wrong = find()(result.structured_content)
        if wrong:
            raise self._failures().failed(
                f"gave no answer that can be used: {tool.name}: {'; '.join(wrong)}",
                Category.EXECUTION,
                started=True,
            )
        return value_of(result, tool.output_schema)

    def _failures(self) -> "Failures":
        from paceline.tools.mcp.failures import Failures  # noqa: PLC0415 (needs the extra)

        return Failures(self.name, self._redactor)

    def _proved(self) -> None:
        """A call was answered."""
        if self._permit:
            self._restarts.succeeded(self._permit)
            self._permit = 0

    def _settle(self, connection: "Connection") -> None:
        """Notes, once, that the server ended the session."""
        if connection is not self._connection or not connection.lost:
            return
        self._why = self._failures().shown(connection.story)
        self._restarts.failed(self._permit or self._restarts.admit())
        self._permit = 0
        self._retire(connection)

    def _retire(self, connection: "Connection") -> None:
        """It gets no more requests, and ends when those that run are answered."""
        self._connection = None
        connection.retire()
        self._retired[connection] = asyncio.create_task(self._see_off(connection))

    async def _see_off(self, connection: "Connection") -> None:
        await connection.settled()
        del self._retired[connection]

    async def _ready(self) -> "Connection":
        """The session that requests go to."""
        if not self._open:
            raise RuntimeClosedError(f"{self!r} is not open", next_step="Use it in `async with`.")
        connection = self._connection
        if connection is not None:
            if connection.usable:
                return connection
            self._settle(connection)
        if self._starting is None:
            permit = self._restarts.admit()
            if not permit:
                raise AgentError(
                    f"MCP server {self.name} failed again and again, and is left alone for a while"
                    f"{': ' if self._why else ''}{self._why}",
                    next_step=f"See why it fails; its settings are in [mcp.{self.name}].",
                    category=Category.UNAVAILABLE,
                    retry_after_s=self._restarts.remaining_ns() / 1e9,
                )
            self._starting = asyncio.create_task(self._start(permit))
            self._starting.add_done_callback(_look)
        waited = self._starting
        await asyncio.wait((waited,))  # whoever is cancelled meanwhile leaves the others theirs
        if waited.cancelled():
            raise RuntimeClosedError(f"{self!r} was closed", next_step="Use it in `async with`.")
        return waited.result()

    async def _start(self, permit: int) -> "Connection":
        from paceline.tools.mcp.connection import Connection  # noqa: PLC0415 (needs the extra)

        try:
            if self._connection is not None:
                self._retire(self._connection)
            failures = self._failures()
            connection = Connection(
                failures, limit_s=self._settings.timeout_s, told=self._list_changed
            )
            await connection.open(*self._transport(failures, connection.end))
        except (AgentError, CallTimeoutError) as exc:
            self._why = exc.message
            self._restarts.failed(permit)
            raise
        except BaseException:
            self._restarts.abandoned(permit)
            raise
        finally:
            self._starting = None
        self._permit = permit
        self._connection = connection
        if self._listed is not None:  # it was started again, and may be another version
            self.when_changed()
        return connection

    def _list_changed(self) -> None:
        self.when_changed()

    def _transport(
        self, failures: "Failures", ended: Callable[[], None]
    ) -> "tuple[Transport, Callable[[], str]]":
        if self._settings.url:
            from paceline.tools.mcp.http import http_transport  # noqa: PLC0415 (needs the extra)

            transport = http_transport(
                self._settings.url,
                self._token.reveal(),
                clock=self._clock,
                most_bytes=self._most_bytes,
                grace_s=self._grace_s,
            )
            return transport, lambda: "the connection was lost"
        from paceline.tools.mcp.process import ServerProcess  # noqa: PLC0415 (needs the extra)

        process = self._process = ServerProcess(
            self._settings.command,
            self._env,
            failures=failures,
            most_bytes=self._most_bytes,
            grace_s=self._grace_s,
            ended=ended,
        )
        return process, lambda: process.story


def _finder(tool: "types.Tool") -> "Finder":
    """What finds faults in answers of a tool; none where it says nothing of them, or no sense."""
    from paceline.tools.mcp.schema import finder  # noqa: PLC0415 (needs the extra)

    try:
        return finder({} if tool.output_schema is None else tool.output_schema)
    except ValueError:
        return finder({})


def _look(started: "asyncio.Task[Connection]") -> None:
    """Whoever waited may have been cancelled: then nobody else asks what came of it."""
    if not started.cancelled():
        started.exception()
