"""Tools of servers over HTTP: one made with the official SDK, and one that answers as badly as it can."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import web

from paceline.call import Effect
from paceline.errors import AgentError, CallTimeoutError, Category
from paceline.session_settings import McpSettings
from paceline.tools.mcp import McpServer
from paceline.tools.spec import ToolSpec
from tests.contract.mcp_server import make

TOKEN = "token-of-the-server-1"


class SetClock:
    """1970, so that a date in a header is a length of time."""

    now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns


def server(url: str, **more: Any) -> McpServer:
    """The tools of the server there."""
    return McpServer(
        "far",
        McpSettings(url=url, token_env="FAR_TOKEN", **more),
        environ={"FAR_TOKEN": TOKEN},
        clock=SetClock(),
        most_bytes=50_000,
        grace_s=1.0,
    )


async def named(server: McpServer) -> dict[str, ToolSpec]:
    return {spec.name: spec for spec in await server.tools()}


async def call(spec: ToolSpec, **arguments: object) -> Any:
    """As a session runs it."""
    run: Any = spec.run
    return await run(**spec.check(arguments))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def of_the_sdk(**options: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """Where it is, and the tokens that it was shown."""
    app = make().streamable_http_app(**options)
    tokens: list[str] = []

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            tokens.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await app(scope, receive, send)

    config = uvicorn.Config(asked, port=0, log_level="critical", timeout_graceful_shutdown=1)
    serving = uvicorn.Server(config)
    task = asyncio.create_task(serving._serve())
    await until(lambda: serving.started)
    port = serving.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/mcp", tokens
    finally:
        serving.should_exit = True
        await task


class Far:
    """A server of the protocol as it was in 2025, with one tool, which answers as `answer` does."""

    def __init__(self) -> None:
        self.answer: Callable[[web.Request, object], Awaitable[web.StreamResponse]] = echoed
        self.sessions = 0
        self.calls = 0
        self.ended = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            self.ended += request.method == "DELETE"
            return web.Response(status=405)
        message = await request.json()
        method, number = message["method"], message.get("id")
        if number is None:
            return web.Response(status=202)
        if method == "initialize":
            self.sessions += 1
            told = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            told["serverInfo"] = {"name": "far", "version": "0"}
            return web.json_response(
                result(number, told), headers={"Mcp-Session-Id": f"s-{self.sessions}"}
            )
        if method == "tools/list":
            tool = {"name": "ask", "inputSchema": {"type": "object"}}
            return web.json_response(result(number, {"tools": [tool]}))
        if method == "tools/call":
            self.calls += 1
            return await self.answer(request, number)
        return web.Response(status=404, text="no such thing")


def result(number: object, value: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "result": value}


def said(number: object, text: str) -> dict[str, object]:
    return result(number, {"content": [{"type": "text", "text": text}]})


async def echoed(_: web.Request, number: object) -> web.StreamResponse:
    return web.json_response(said(number, "here"))


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    there = Far()
    app = web.Application()
    app.router.add_route("*", "/mcp", there.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    yield there
    await runner.cleanup()


async def refused(spec: ToolSpec) -> AgentError:
    """How a call fails."""
    with pytest.raises(AgentError) as caught:
        await call(spec)
    assert "server far" in caught.value.message
    assert TOKEN not in f"{caught.value.message} {caught.value.next_step}"
    return caught.value


async def test_a_server_of_the_sdk(tmp_path: Path) -> None:
    """Over HTTP tools are listed with their effects, called with the token, learn of cancellation, and
    come and go. (S2-35, S2-37, V-36)"""
    async with of_the_sdk() as (url, tokens), server(url) as there:
        tools = await named(there)
        assert tools["far_read_note"].effect == Effect.read("mcp:far")
        assert await call(tools["far_read_note"], name="a") == "first"
        with pytest.raises(AgentError) as failed:
            await call(tools["far_read_note"], name="none")
        assert failed.value.category is Category.EXECUTION
        assert set(tokens) == {f"Bearer {TOKEN}"}

        file = tmp_path / "slow"
        waiting = asyncio.create_task(call(tools["far_slow"], path=str(file)))
        await until(lambda: file.exists() and file.read_text() == "started")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: file.read_text() == "cancelled")

        assert await call(tools["far_grow"]) == "grown"
        await until(lambda: bool(there._connection and there._connection.changed))
        assert set(await named(there)) - set(tools) == {"far_grown"}


async def test_a_server_that_answers_in_json() -> None:
    """A server that answers without streams, and keeps no sessions, is used in the same way."""
    options = {"json_response": True, "stateless_http": True}
    async with of_the_sdk(**options) as (url, _), server(url) as there:
        tools = await named(there)
        assert await call(tools["far_write_note"], name="b", text="x") == {"characters": 1}


@pytest.mark.parametrize(
    ("status", "after", "told"),
    [
        (429, "7", (Category.RATE_LIMIT, 7.0, False)),
        (429, "Thu, 01 Jan 1970 00:00:09 GMT", (Category.RATE_LIMIT, 9.0, False)),
        (429, "-5", (Category.RATE_LIMIT, 0.0, False)),
        (429, "9" * 20, (Category.RATE_LIMIT, 86_400.0, False)),
        (429, "", (Category.RATE_LIMIT, None, False)),
        (401, "", (Category.AUTHENTICATION, None, False)),
        (500, "", (Category.EXECUTION, None, True)),
        (503, "", (Category.UNAVAILABLE, None, True)),
        (418, "", (Category.INVALID, None, True)),
    ],
)
async def test_statuses_are_told(far: Far, status: int, after: str, told: object) -> None:
    """A status that is no success fails the one call with what it means, how long to wait, and whether
    anything ran; the session goes on. (S2-54)"""

    async def answer(_: web.Request, __: object) -> web.StreamResponse:
        headers = {"Retry-After": after} if after else {}
        return web.json_response({"error": TOKEN}, status=status, headers=headers)

    async with server(far.url) as there:
        spec = (await named(there))["far_ask"]
        far.answer = answer
        error = await refused(spec)
        assert (error.category, error.retry_after_s, error.may_have_started) == told
        assert f"HTTP {status}" in error.message
        far.answer = echoed
        assert await call(spec) == "here"
        assert (far.sessions, far.calls) == (1, 2)
    assert far.ended == 1


async def html(_: web.Request, __: object) -> web.StreamResponse:
    return web.Response(text="<p>Welcome</p>", content_type="text/html")


async def empty(_: web.Request, __: object) -> web.StreamResponse:
    return web.Response(body=b"", content_type="application/json")


async def no_json(_: web.Request, __: object) -> web.StreamResponse:
    return web.Response(body=b'{"jsonrpc": "2.0", ', content_type="application/json")


async def long(_: web.Request, number: object) -> web.StreamResponse:
    return web.json_response(said(number, "x" * 60_000))


async def long_event(request: web.Request, number: object) -> web.StreamResponse:
    return await events(request, json.dumps(said(number, "x" * 60_000)))


async def broken_off(request: web.Request, _: object) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "500"})
    response.content_type = "application/json"
    await response.prepare(request)
    await response.write(b'{"jsonrpc"')
    assert request.transport is not None
    request.transport.close()
    return response


async def hung_up(request: web.Request, _: object) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def half_an_event(request: web.Request, number: object) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'event: message\ndata: {"jsonrpc": "2.0", "id')
    return response


async def events(request: web.Request, *data: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for datum in data:
        await response.write(f"event: message\ndata: {datum}\n\n".encode())
    return response


async def endless(request: web.Request, _: object) -> web.StreamResponse:
    response = await events(request)
    await response.write(b": still here\n\n")
    await asyncio.Event().wait()
    return response


async def forgotten(_: web.Request, __: object) -> web.StreamResponse:
    return web.Response(status=404)


async def twice(request: web.Request, number: object) -> web.StreamResponse:
    datum = json.dumps(said(number, "once"))
    return await events(request, datum, datum)


@pytest.mark.parametrize(
    "answer", [html, empty, no_json, long, long_event, broken_off, hung_up, half_an_event]
)
async def test_bad_answers_fail_one_call(far: Far, answer: Any) -> None:
    """A page, nothing, half of an answer, one that is too long and a line that is cut fail their own
    call, as one that may have had effects; the session goes on. (S2-53)"""
    async with server(far.url) as there:
        spec = (await named(there))["far_ask"]
        far.answer = answer
        waiting = asyncio.create_task(refused(spec))
        error = await waiting
        assert error.may_have_started
        assert not isinstance(error, CallTimeoutError)
        far.answer = echoed
        assert await call(spec) == "here"
        assert far.sessions == 1


async def test_events_that_come_twice(far: Far) -> None:
    """An answer that comes twice is one answer."""
    async with server(far.url) as there:
        spec = (await named(there))["far_ask"]
        far.answer = twice
        assert [await call(spec) for _ in range(2)] == ["once", "once"]
        assert far.calls == 2


async def test_streams_that_never_end(far: Far) -> None:
    """A stream that says nothing of use for ever is left when the time is up. (S2-52)"""

    async with server(far.url) as there:
        spec = (await named(there))["far_ask"]
        far.answer = endless
        assert there._connection is not None
        there._connection._limit_s = 0.05
        with pytest.raises(CallTimeoutError, match="answer a call of ask"):
            await call(spec)


async def test_sessions_that_are_forgotten(far: Far) -> None:
    """A server that does not know the session any more ran nothing, and is given a new one by the next
    call."""

    async with server(far.url) as there:
        spec = (await named(there))["far_ask"]
        far.answer = forgotten
        error = await refused(spec)
        assert (error.category, error.may_have_started) == (Category.UNAVAILABLE, False)
        far.answer = echoed
        assert await call(spec) == "here"
        assert far.sessions == 2


async def test_leaving_ends_what_waits(far: Far) -> None:
    """Calls of a session that was given up are still answered; when the server is left they fail at
    once."""
    async with server(far.url) as there:
        spec = (await named(there))["far_ask"]
        far.answer = endless
        waiting = asyncio.create_task(call(spec))
        await until(lambda: far.calls == 1)
        far.answer = forgotten
        await refused(spec)
        far.answer = echoed
        assert await call(spec) == "here"
        assert not waiting.done()
    with pytest.raises(AgentError, match="it was closed"):
        await waiting


async def test_servers_that_are_not_there(far: Far) -> None:
    """An address where nobody listens, and one that does not speak TLS, are told as troubles of the
    network before anything ran. (S2-53)"""
    for url in ("http://127.0.0.1:9/mcp", far.url.replace("http://", "https://")):
        async with server(url) as there:
            with pytest.raises(AgentError, match="cannot be reached") as caught:
                await there.tools()
        assert caught.value.category is Category.NETWORK
        assert not caught.value.may_have_started


async def test_servers_that_go_away(far: Far) -> None:
    """A server that goes away while its tools are used fails the call as one that did not start, and is
    used again when it is back."""
    async with of_the_sdk() as (url, _):
        there = server(url)
        await there.__aenter__()
        tools = await named(there)
    try:
        error = await refused(tools["far_environment"])
        assert (error.category, error.may_have_started) == (Category.NETWORK, False)
    finally:
        await there.__aexit__(None, None, None)
