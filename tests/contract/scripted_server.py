"""A server that speaks OpenAI's chat completions and answers as it is told to, hostile answers too."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from aiohttp import web

from tests.far_sides import Handler, completion, served

__all__ = [
    "DONE",
    "End",
    "Event",
    "ScriptedServer",
    "answer",
    "answering",
    "called",
    "calling",
    "said",
    "stream",
]

DONE: Final = "[DONE]"
Event = Mapping[str, object] | str | Callable[[], Awaitable[object]]
"""A part of an answer, the data of an event as it is, or what is waited for before the next one."""
End = Literal["orderly", "cut", "reset"]


class ScriptedServer:
    """Answers each request for a completion with the next of its answers, and then with the last
    one; `requests` are those that came, as JSON."""

    def __init__(self, answers: Iterable[Handler]) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.busy = 0
        """Requests that it is at."""
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":  # a probe
            return web.json_response({"object": "list", "data": []})
        self.requests.append(await request.json())
        at = min(len(self.requests), len(self.answers))
        self.busy += 1
        try:
            return await self.answers[at - 1](request)
        finally:
            self.busy -= 1

    def told(self, at: int) -> list[dict[str, Any]]:
        """The messages of one request."""
        messages: list[dict[str, Any]] = self.requests[at]["messages"]
        return messages


@asynccontextmanager
async def answering(*answers: Handler) -> AsyncIterator[ScriptedServer]:
    """A server on a port of its own."""
    server = ScriptedServer(answers)
    async with served(server.handle) as side:
        server.url = f"{side.url}/v1"
        yield server


def said(text: str, *, finish: str = "stop", usage: Mapping[str, int] | None = None) -> list[Event]:
    """The events of an answer in words."""
    words = [completion(f"{word} ") for word in text.split()]
    used = [] if usage is None else [{"choices": [], "usage": dict(usage)}]
    return [*words, completion("", finish_reason=finish), *used, DONE]


def calling(
    *uses: tuple[str, str, str], text: str = "", size: int = 1_000, ended: bool = True
) -> list[Event]:
    """The events of an answer that asks for tools, given as (id, name, arguments), whose arguments
    come in pieces of `size` characters; an answer that is not `ended` stops after them."""
    events: list[Event] = [completion(text)] if text else []
    for index, (use_id, name, arguments) in enumerate(uses):
        events.append(_piece(index, "", id=use_id, type="function", name=name))
        pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
        events += [_piece(index, piece) for piece in pieces]
    if ended:
        events += [completion("", finish_reason="tool_calls"), DONE]
    return events


def stream(
    events: Sequence[Event], *, end: End = "orderly", kind: str = "text/event-stream"
) -> Handler:
    """A handler that streams these events. Its `end` is orderly, or the connection is reset; in the
    middle of the last event, if that is cut."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        for place, event in enumerate(events, 1):
            if callable(event):
                await event()
                continue
            data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
            if end == "cut" and place == len(events):
                data = data[: len(data) // 2]
            await response.write(data)
            await asyncio.sleep(0)
        if end != "orderly" and request.transport is not None:
            for _ in range(20):  # what was written is read first
                await asyncio.sleep(0)
            request.transport.abort()
        return response

    return handler


def answer(
    status: int = 200, body: str = "", kind: str = "application/json", **headers: str
) -> Handler:
    """A handler that answers with this, headers in words_of_this_kind."""

    async def handler(_: web.Request) -> web.StreamResponse:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=body, content_type=kind, headers=told)

    return handler


def called(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The tools that a message of a request says were called, with their arguments."""
    return [(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]]


def _piece(index: int, arguments: str, *, name: str = "", **more: object) -> Mapping[str, object]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    call = {"index": index, "function": function, **more}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
