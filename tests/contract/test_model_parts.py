"""A model behind a server, heard while it answers, however well or badly the server speaks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from paceline.clock import SystemClock
from paceline.errors import Category, PacelineError
from paceline.hearing import Floor, current_floor
from paceline.instances.openai import OpenAITarget
from paceline.messages import (
    ModelReply,
    ModelRequest,
    Part,
    Restarted,
    TextPart,
    ToolUse,
    UsePart,
    UserMessage,
)
from paceline.models.openai import reply_of
from paceline.testing.target_suite import a_lease
from tests.far_sides import Handler, completion, served
from tests.model_stages import Endpoint, asking

CLOCK = SystemClock()
REQUEST = ModelRequest((UserMessage("Weather?"),))
OSLO = '{"city": "Oslo"}'
USE = ToolUse("c1", "weather", OSLO)
STOP = completion("", finish_reason="stop")
TOOLS = completion("", finish_reason="tool_calls")
DONE = "[DONE]"


def calls(*pieces: dict[str, Any]) -> dict[str, Any]:
    """An event with pieces of tool calls."""
    return {"choices": [{"index": 0, "delta": {"tool_calls": list(pieces)}}]}


def piece(
    arguments: object, index: int = 0, name: str | None = None, **more: Any
) -> dict[str, Any]:
    """A piece of a call."""
    return {"index": index, "function": {"name": name, "arguments": arguments}, **more}


BEGUN = calls(piece("", name="weather", id="c1"))


def streaming(*events: object, after: list[asyncio.Event] | None = None) -> Handler:
    """A handler that streams these events, each but the first when it may."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for place, event in enumerate(events):
            if after and place:
                await after[place - 1].wait()
            text = event if isinstance(event, str) else json.dumps(event)
            await answer.write(f"data: {text}\n\n".encode())
        return answer

    return handler


@asynccontextmanager
async def behind(handler: Handler) -> AsyncIterator[Endpoint]:
    """A model behind a server that answers so."""
    async with served(handler) as side:
        side.aim(OpenAITarget(f"{side.url}/v1", "small", clock=CLOCK), ())
        target: Any = side.target
        async with target:
            yield Endpoint(target)


async def answer(*events: object) -> tuple[ModelReply, list[Part]]:
    """What is answered, and heard."""
    heard: list[Part] = []
    async with behind(streaming(*events)) as model:
        return await model.complete(REQUEST, heard.append), heard


async def test_parts_are_heard_while_the_answer_comes() -> None:
    """Each piece of the text, and each tool use, is heard before the server says anything more
    (S2-41)."""
    heard: list[Part] = []
    more = [asyncio.Event() for _ in range(4)]
    events = (
        completion("Let me "),
        completion("look."),
        calls(piece(OSLO, name="weather", id="c1")),
        TOOLS,
        DONE,
    )
    async with behind(streaming(*events, after=more)) as model:
        task = asyncio.ensure_future(model.complete(REQUEST, heard.append))
        expected: list[Part] = [TextPart("Let me "), TextPart("look."), UsePart(USE)]
        for count, event in enumerate(more[:3], 1):
            while len(heard) < count:  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0)
            assert heard == expected[:count]
            event.set()
        assert not task.done()
        more[3].set()
        assert (await task).uses == (USE,)
    assert heard == expected


async def test_the_value_does_not_depend_on_who_hears_it() -> None:
    """Heard or not, the value of a call is the same, so that one that is kept serves everybody (V-13)."""
    events = (completion("Hm "), BEGUN, calls(piece(OSLO[:4])), calls(piece(OSLO[4:])), TOOLS, DONE)
    async with behind(streaming(*events)) as model:
        call = asking(REQUEST)
        alone: Any = await model.target.execute(call, a_lease(CLOCK))
        heard = await model.complete(REQUEST, lambda _: None)
    assert reply_of(alone) == heard
    assert alone["tool_calls"][0]["function"]["arguments"] == OSLO


async def test_a_server_that_does_not_stream_is_heard_at_once() -> None:
    """An answer in one piece is heard whole (S2-41)."""

    async def handler(_: web.Request) -> web.StreamResponse:
        call = {"id": "c1", "function": {"name": "weather", "arguments": json.loads(OSLO)}}
        message = {"role": "assistant", "content": "I look.", "tool_calls": [call]}
        return web.json_response({"choices": [{"message": message, "finish_reason": "tool_calls"}]})

    heard: list[Part] = []
    async with behind(handler) as model:
        reply = await model.complete(REQUEST, heard.append)
    assert heard == [TextPart("I look."), UsePart(reply.uses[0])]
    assert json.loads(reply.uses[0].arguments) == {"city": "Oslo"}


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((BEGUN, BEGUN, calls(piece(OSLO)), TOOLS, DONE), id="begin"),
        pytest.param((BEGUN, calls(piece(OSLO)), calls(piece(OSLO)), TOOLS, DONE), id="arguments"),
        pytest.param(
            (BEGUN, calls(piece(OSLO[:3])), calls(piece(OSLO[3:])), calls(piece(OSLO[3:])), TOOLS, DONE),
            id="last piece",
        ),
        pytest.param((BEGUN, calls(piece(OSLO)), TOOLS, TOOLS, DONE, DONE), id="end"),
        pytest.param((BEGUN, calls(piece(OSLO)), TOOLS, calls(piece("")), DONE), id="nothing more"),
    ],
)  # fmt: skip
async def test_duplicated_events_make_no_second_use(events: tuple[object, ...]) -> None:
    """An event of a tool use that comes twice leaves one use, heard once, with the right arguments
    (S2-41)."""
    reply, heard = await answer(*events)
    assert heard == [UsePart(USE)]
    assert reply == ModelReply(uses=(USE,), finish="tools")


@pytest.mark.parametrize(
    ("events", "category"),
    [
        pytest.param((BEGUN, calls(piece(OSLO[:6]))), Category.NETWORK, id="cut off"),
        pytest.param((BEGUN, "{"), Category.EXECUTION, id="no JSON"),
        pytest.param((BEGUN, calls(piece(OSLO, index="x"))), Category.EXECUTION, id="no number"),  # type: ignore[arg-type]
        pytest.param((calls(piece(OSLO, id="c1")), TOOLS, DONE), Category.EXECUTION, id="no name"),
        pytest.param((completion(""), STOP, DONE), Category.UNAVAILABLE, id="nothing"),
    ],
)
async def test_what_cannot_be_used_is_a_typed_error(
    events: tuple[object, ...], category: Category
) -> None:
    """Streams that are cut off in a tool use, or make no sense, are errors of their kind, and no use is
    heard (S2-41)."""
    heard: list[Part] = []
    async with behind(streaming(*events)) as model:
        with pytest.raises(PacelineError) as caught:
            await model.complete(REQUEST, heard.append)
    assert (caught.value.category, caught.value.may_have_started) == (category, True)
    assert heard == []


async def test_a_use_that_changes_after_it_was_heard_is_an_error() -> None:
    """A server that goes on with a use after its arguments were whole is refused, so that what was run
    is what the answer has (S2-41)."""
    with pytest.raises(PacelineError) as caught:
        await answer(BEGUN, calls(piece(OSLO)), calls(piece(', "when": "now"}')), TOOLS, DONE)
    assert caught.value.category is Category.EXECUTION


async def test_arguments_that_are_no_json_reach_the_reply() -> None:
    """What the model itself writes wrong is no error of the server: it is heard at the end, as it is
    (S2-41)."""
    reply, heard = await answer(BEGUN, calls(piece('{"city": Oslo')), TOOLS, DONE)
    assert reply.uses == (ToolUse("c1", "weather", '{"city": Oslo'),)
    assert heard == [UsePart(reply.uses[0])]


async def test_a_second_try_is_heard_from_its_beginning() -> None:
    """After a try that broke off, the listener is told that it does not count, and then all of the next
    one (S2-41)."""
    answers = iter((streaming(completion("Hel")), streaming(completion("Hello"), STOP, DONE)))

    async def handler(request: web.Request) -> web.StreamResponse:
        return await next(answers)(request)

    heard: list[str] = []
    floor = Floor(lambda part: heard.append(getattr(part, "text", type(part).__name__)))
    async with behind(handler) as model:
        token = current_floor.set(floor)
        call = asking(REQUEST)
        with pytest.raises(PacelineError):
            await model.target.execute(call, a_lease(CLOCK))
        value: Any = await model.target.execute(call, a_lease(CLOCK))
        current_floor.reset(token)
    floor.settle(reply_of(value))
    assert heard == ["Hel", "Restarted", "Hello"]


def saying(status: int, text: str = "", kind: str = "application/json", **headers: str) -> Handler:
    """A handler that answers with this."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type=kind, headers=headers)

    return handler


@pytest.mark.parametrize(
    ("handler", "category", "wait_s"),
    [
        (saying(429), Category.RATE_LIMIT, None),
        (saying(429, **{"Retry-After": "7"}), Category.RATE_LIMIT, 7),
        (saying(429, **{"Retry-After": "-7"}), Category.RATE_LIMIT, 0),
        (saying(429, **{"Retry-After": "9" * 30}), Category.RATE_LIMIT, 86_400),
        (saying(429, **{"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}), Category.RATE_LIMIT, 0),
        (saying(500), Category.UNAVAILABLE, None),
        (saying(200, "<html>", "text/html"), Category.EXECUTION, None),
        (saying(200), Category.EXECUTION, None),
        (saying(200, "", "text/event-stream"), Category.NETWORK, None),
    ],
)
async def test_servers_that_fail_are_typed_errors(
    handler: Handler, category: Category, wait_s: float | None
) -> None:
    """Refusals with and without a time to wait, pages, and empty answers are errors of their kind;
    nothing is heard (S2-41, E94)."""
    heard: list[Part] = []
    async with behind(handler) as model:
        with pytest.raises(PacelineError) as caught:
            await model.complete(REQUEST, heard.append)
    assert (caught.value.category, caught.value.retry_after_s) == (category, wait_s)
    assert heard == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nobody_there_is_a_typed_error(scheme: str) -> None:
    """A refused connection, and a server that does not speak TLS, are errors of the network, and nothing
    has begun (S2-41, E94)."""
    async with served(streaming(DONE)) as side:
        address = f"{scheme}://127.0.0.1:{side.port}/v1"
        if scheme == "http":
            await side.go_away()
        async with OpenAITarget(address, "small", clock=CLOCK) as target:
            with pytest.raises(PacelineError) as caught:
                await Endpoint(target).complete(REQUEST, lambda _: None)
    assert (caught.value.category, caught.value.may_have_started) == (Category.NETWORK, False)


async def test_a_stream_without_end_is_left_at_the_deadline() -> None:
    """However much a server says, at the deadline the call is over, and what was heard of it does not
    count (S2-41, E94)."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        while True:
            await answer.write(f"data: {json.dumps(completion('word '))}\n\n".encode())
            await asyncio.sleep(0)

    heard: list[Part] = []
    floor = Floor(heard.append)
    async with behind(handler) as model:
        until_ns = CLOCK.monotonic_ns() + 200_000_000
        call = asking(REQUEST, deadline_ns=until_ns)
        token = current_floor.set(floor)
        with pytest.raises(PacelineError) as caught:
            await model.target.execute(call, a_lease(CLOCK))
        current_floor.reset(token)
    assert caught.value.category is Category.TIMEOUT
    floor.settle(ModelReply("other"))
    assert heard[0] == TextPart("word ")
    assert heard[-2:] == [Restarted(), TextPart("other")]
