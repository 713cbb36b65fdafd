"""Targets on stages of their own: with a function, a process, and real HTTP servers."""

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from paceline.balance.rate import Rates
from paceline.call import Tokens
from paceline.clock import SystemClock
from paceline.errors import InvalidInputError
from paceline.instances.function import FunctionTarget
from paceline.instances.http import HttpAgent
from paceline.instances.openai import OpenAITarget
from paceline.instances.protocol import Target
from paceline.instances.worker import Worker
from paceline.redaction import Secret
from paceline.testing.target_suite import play

__all__ = ["PLAIN", "SECRET", "STAGES", "FarSide", "Served", "completion", "served"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PLAIN: Final[tuple[object, ...]] = (
    1,
    0,
    "",
    "text é\n",
    None,
    False,
    [],
    {},
    [1, {"a": None}],
    {"value": 2},
    1.5,
)
"""Values that JSON has."""
SECRET: Final = "tok-4f9a8b7c6d5e4f3a"
USAGE: Final = Tokens(100, 20, 64, 0, 5)


class FarSide:
    """Nothing that can go away, with nothing secret."""

    clock = SystemClock()
    secrets: Sequence[str] = ()
    usage: Tokens | None = None

    def __init__(self, target: Target, values: Sequence[object], busy: Callable[[], int]) -> None:
        self.target = target
        self.values = values
        self.busy = busy

    async def go_away(self) -> bool:
        return False

    async def come_back(self) -> None:
        raise AssertionError("it did not go away")


class Served(FarSide):
    """An HTTP server on a port of its own, and a target that asks it."""

    secrets = (SECRET,)
    usage = USAGE

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.handling = 0
        self.requests: list[web.Request] = []
        self.port = 0
        self._runner: web.AppRunner | None = None
        self.rates = Rates(self.clock)

    async def come_back(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def go_away(self) -> bool:
        if self._runner is not None:
            await self._runner.cleanup()
        return True

    def aim(self, target: Target, values: Sequence[object]) -> None:
        """Has this target ask it."""
        endpoint: Any = target
        self.target = target
        self.values = values
        self.busy = lambda: max(self.handling, _in_use(endpoint._endpoint._session))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.handling += request.method == "POST"
        try:
            return await self.handler(request)
        finally:
            self.handling -= request.method == "POST"


def _in_use(session: Any) -> int:
    """Connections that a request holds."""
    return 0 if session is None else len(session.connector._acquired)


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[Served]:
    """A server that answers by a function."""
    side = Served(handler)
    await side.come_back()
    try:
        yield side
    finally:
        await side.go_away()


def refused(request: web.Request, status: int, message: str) -> web.Response:
    """An error that repeats what it was sent, as careless servers do."""
    said = f"{message}: {request.headers.get('Authorization')}"
    return web.json_response({"error": {"message": said}}, status=status)


async def an_agent(request: web.Request) -> web.StreamResponse:
    """An agent behind HTTP that plays."""
    if request.method != "POST":
        raise web.HTTPMethodNotAllowed(request.method, ["POST"])
    told = await request.json()
    try:
        value = await play(told["query"], **told["context"])
    except InvalidInputError as exc:
        return refused(request, 422, str(exc))
    except RuntimeError as exc:
        return refused(request, 500, str(exc))
    usage = {"model": "m", "input": 100, "output": 20, "cached_input": 64, "reasoning": 5}
    return web.json_response({"value": value, "usage": usage})


def completion(text: str, **choice: object) -> dict[str, object]:
    """A part of a streamed answer."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None} | choice]}


_USED: Final = {
    "choices": [],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}


async def a_model(request: web.Request) -> web.StreamResponse:
    """A server of models whose model plays."""
    if request.path == "/v1/models":
        return web.json_response({"object": "list", "data": []})
    told: Mapping[str, Any] = await request.json()
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    query = told["messages"][-1]["content"]
    if query == "refuse":
        return refused(request, 400, "no such option")
    if query == "fail":
        return refused(request, 500, "the far side failed")
    await answer.prepare(request)
    value = str(await play(query, value=told.get("value")))
    parts = [value[:1], value[1:]] if value[1:] else [value]
    for part in (*map(completion, parts), completion("", finish_reason="stop"), _USED):
        await answer.write(b"data: " + web.json_response(part).body + b"\n\n")  # type: ignore[operator]
    await answer.write(b"data: [DONE]\n\n")
    return answer


@asynccontextmanager
async def with_function() -> AsyncIterator[FarSide]:
    """A function of this process."""
    running = 0

    async def counted(query: str, **context: object) -> object:
        nonlocal running
        running += 1
        try:
            return await play(query, **context)
        finally:
            running -= 1

    async with FunctionTarget.of(counted, clock=FarSide.clock) as target:
        yield FarSide(target, (*PLAIN, (1, 2), b"bytes", {1, 2}), lambda: running)


@asynccontextmanager
async def with_worker() -> AsyncIterator[FarSide]:
    """A process of its own."""
    async with Worker(
        "paceline.testing.target_suite:play",
        clock=FarSide.clock,
        rng=random.Random(1),
        environ=os.environ,
    ) as target:
        values = (*PLAIN, (1, 2), b"bytes", {1, 2})
        yield FarSide(target, values, lambda: target.in_flight)
    assert target.processes == ()


@asynccontextmanager
async def with_http() -> AsyncIterator[FarSide]:
    """An agent behind HTTP."""
    async with served(an_agent) as side:
        target = HttpAgent(
            f"{side.url}/run", clock=side.clock, token=Secret(SECRET), rates=side.rates
        )
        side.aim(target, PLAIN)
        async with target:
            yield side


@asynccontextmanager
async def with_model() -> AsyncIterator[FarSide]:
    """A model behind HTTP."""
    async with served(a_model) as side:
        target = OpenAITarget(
            f"{side.url}/v1/", "m", clock=side.clock, token=Secret(SECRET), rates=side.rates
        )
        side.aim(target, ("text", "é\n\n", "0", "None"))
        async with target:
            yield side


STAGES: Final = (with_function, with_worker, with_http, with_model)
