"""One session with a server, from its beginning to its end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar, cast, final

from paceline.errors import Category, PacelineError
from paceline.tools.mcp.failures import Failures
from paceline.tools.mcp.sdk import (
    MODERN_PROTOCOL_VERSIONS,
    Client,
    MCPError,
    types,
)

__all__ = ["Connection", "Transport"]

T = TypeVar("T")
Transport = AbstractAsyncContextManager[tuple[Any, Any]]
"""Gives the two streams that the SDK speaks through; its own name for them is private."""

_MOST_PAGES: Final = 100


@final
class Connection:
    """Lives in a task of its own, as what the SDK enters has to be left in the same task. Requests
    are made in tasks of their own too: who waits for one and is cancelled is free at once, while
    the server is told."""

    def __init__(
        self, failures: Failures, *, limit_s: float, told: Callable[[], object] = bool
    ) -> None:
        """One request, and the beginning, may take `limit_s` seconds. `told` is called when the server
        says that its tools changed."""
        self._failures = failures
        self._limit_s = limit_s
        self._told = told
        self._story: Callable[[], str] = str
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._over = asyncio.Event()
        self._requests: set[asyncio.Future[Any]] = set()
        self._listener: asyncio.Task[None] | None = None
        self.changed = True
        """Whether the list of tools may be another one than when it was read."""
        self.lost = False
        """Whether the server ended it."""

    @property
    def usable(self) -> bool:
        """Whether requests can be made."""
        return self._client is not None and not self._over.is_set()

    @property
    def version(self) -> str:
        """The name and version that the server gives itself."""
        info = None if self._client is None else self._client.server_info
        return "" if info is None else f"{info.name} {info.version}"

    @property
    def story(self) -> str:
        """What is known of how the server ended; not fit to be shown as it is."""
        return self._story()

    def end(self) -> None:
        """The server is gone: no more requests."""
        self.lost = self.lost or not self._over.is_set()
        self._over.set()

    def retire(self) -> None:
        """No more requests; it is closed when those that run are answered."""
        self._over.set()

    async def open(self, transport: Transport, story: Callable[[], str]) -> None:
        """Begins it. `story` tells what is known of how the server ended. Raises PacelineError; then
        nothing of it is left."""
        self._story = story
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(transport, begun))
        try:
            await begun
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Ends it, and what waits for it. Returns when nothing of it is left."""
        self._over.set()
        task = self._task
        if task is None:
            return
        if self._client is None:  # it has not begun
            task.cancel()
        for request in tuple(self._requests):
            request.cancel()
        await asyncio.wait((task,))

    async def settled(self) -> None:
        """Until it has ended, by `retire` or by itself."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def list_tools(self) -> list[types.Tool]:
        """All tools. Raises PacelineError."""
        self.changed = False
        self._listen()
        tools: list[types.Tool] = []
        cursor: str | None = None
        try:
            for _ in range(_MOST_PAGES):
                after = cursor

                async def page(client: Client, after: str | None = after) -> types.ListToolsResult:
                    return await client.list_tools(cursor=after)

                listed = await self.request(page, "list its tools")
                tools += listed.tools
                cursor = listed.next_cursor
                if cursor is None:
                    return tools
        except BaseException:
            self.changed = True
            raise
        self.changed = True
        raise self._failures.failed("lists tools without end", Category.EXECUTION)

    async def request(self, ask: Callable[[Client], Awaitable[T]], what: str) -> T:
        """The answer. Cancelled, it tells the server, and does not wait for that.

        Raises PacelineError; CallTimeoutError where it takes too long, saying that the server did
        not do `what`.
        """
        if self._client is None or self._over.is_set():
            raise self._failures.closed(self._story(), started=False)
        asked: asyncio.Future[T] = asyncio.ensure_future(ask(self._client))
        self._requests.add(asked)
        asked.add_done_callback(self._requests.discard)
        try:
            async with asyncio.timeout(self._limit_s):
                return await asyncio.shield(asked)
        except TimeoutError as exc:
            story = self._story() if self.lost else ""
            raise self._failures.late(what, self._limit_s, started=True, story=story) from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if not asked.cancelled() or task is None or task.cancelling():
                raise
            raise self._failures.closed("it was closed", started=True) from exc
        # The SDK raises errors of many kinds for what servers answer.
        except Exception as exc:
            raise await self._failed(exc) from exc
        finally:
            asked.cancel()

    async def _failed(self, exc: Exception) -> PacelineError:
        if self._failures.ends_session(exc):
            self.retire()
        elif isinstance(exc, MCPError) and exc.code == types.CONNECTION_CLOSED:
            if not self.lost:
                return self._failures.failed(
                    f"broke off its answer: {exc.message}", Category.NETWORK, started=True
                )
            await self.settled()  # the end is bounded, and tells how it came
            return self._failures.closed(self._story(), started=True)
        return self._failures.of_error(exc)

    async def _run(self, transport: Transport, begun: asyncio.Future[None]) -> None:
        """All of it, in one task."""
        try:
            client = Client(transport, message_handler=self._hear, cache=None)
            async with asyncio.timeout(self._limit_s) as limit:
                await client.__aenter__()
                limit.reschedule(None)
            # By schemas of the server's, of which a bad one would hold up everything (see `schema`).
            client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
            try:
                self._client = client
                begun.set_result(None)
                await self._over.wait()
                while self._requests and not self.lost:
                    await asyncio.wait(tuple(self._requests))
            finally:
                if self._listener is not None:
                    self._listener.cancel()
                    await asyncio.wait((self._listener,))
                await client.__aexit__(None, None, None)
        except TimeoutError as exc:
            error: PacelineError = self._failures.late(
                "answer the first message", self._limit_s, started=False, story=self._story()
            )
            error.__cause__ = exc
            self._tell(begun, error)
        # It raises groups of what went wrong in its tasks.
        except Exception as exc:  # noqa: BLE001
            self._tell(begun, self._unbegun(exc))
        finally:
            self.lost = self.lost or not self._over.is_set()
            self._over.set()
            if not begun.done():
                begun.cancel()
            for request in tuple(self._requests):
                request.cancel()

    def _unbegun(self, exc: Exception) -> PacelineError:
        exc = _alone(exc)
        if self.lost or (isinstance(exc, MCPError) and exc.code == types.CONNECTION_CLOSED):
            error: PacelineError = self._failures.closed(self._story(), started=False)
        else:
            error = self._failures.of_error(exc)
            error.may_have_started = False
        if error is not exc:
            error.__cause__ = exc
        return error

    def _tell(self, begun: asyncio.Future[None], error: PacelineError) -> None:
        if not begun.done():
            begun.set_exception(error)
            return
        # Those who wait for an answer are told.
        self._story = lambda: error.message

    async def _hear(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._change()

    def _change(self) -> None:
        self.changed = True
        self._told()

    def _listen(self) -> None:
        """By the newer revisions of the protocol servers tell of changes only those who ask."""
        client = self._client
        if client is None or client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return
        tools = client.server_capabilities.tools
        if tools is None or not tools.list_changed:
            return
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._hear_changes(client))

    async def _hear_changes(self, client: Client) -> None:
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._change()
        # A server that does not tell of changes is asked again at the next use instead.
        except (MCPError, RuntimeError, TimeoutError):
            self.changed = True
        else:
            self.changed = True


async def _unchecked(name: str, result: types.CallToolResult) -> None:
    """In place of the SDK's check of what tools answer: whoever asked checks that."""


def _alone(exc: Exception) -> Exception:
    """What went wrong, where the groups around it have nothing else in them."""
    if not isinstance(exc, ExceptionGroup):
        return exc
    group = cast("ExceptionGroup[Exception]", exc)
    return _alone(group.exceptions[0]) if len(group.exceptions) == 1 else group
