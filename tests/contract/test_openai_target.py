"""A model behind a server that speaks OpenAI's chat completions: its answers, and its ways to fail."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiohttp import web

from paceline.call import Tokens
from paceline.clock import SystemClock
from paceline.errors import (
    CallTimeoutError,
    Category,
    ConfigError,
    InvalidInputError,
    PacelineError,
)
from paceline.instances.openai import OpenAITarget
from paceline.redaction import Secret
from paceline.testing.fault_proxy import FaultProxy, Faults
from paceline.testing.target_suite import a_call, a_lease
from tests.far_sides import SECRET, Handler, Served, a_model, completion, served

CLOCK: Final = SystemClock()
HELLO: Final = [{"role": "user", "content": "Hello"}]
STOP: Final = completion("", finish_reason="stop")
DONE: Final = "[DONE]"


def streaming(*events: object, hang: bool = False, kind: str = "text/event-stream") -> Handler:
    """A handler that streams these events, and then ends or says no more."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": kind})
        await answer.prepare(request)
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            await answer.write(f"data: {text}\n\n".encode() if text[:1] != ":" else text.encode())
        if hang:
            await asyncio.get_running_loop().create_future()
        return answer

    return handler


def refusing(status: int, headers: Mapping[str, str] | None = None, **error: object) -> Handler:
    """A handler that answers with an error."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=status, headers=headers)

    return handler


@asynccontextmanager
async def asked(handler: Handler, **more: Any) -> AsyncIterator[Served]:
    """A server that answers by the handler, and the target that asks it."""
    async with served(handler) as side:
        side.aim(OpenAITarget(f"{side.url}/v1", "small", clock=CLOCK, **more), ())
        async with side.target:
            yield side


async def value_of(handler: Handler, **arguments: Any) -> Any:
    """What becomes of an answer."""
    query = None if "messages" in arguments else "Hello"
    async with asked(handler) as side:
        return await side.target.execute(a_call(query, **arguments), a_lease(CLOCK))


async def error_of(handler: Handler, target: Mapping[str, Any] | None = None) -> PacelineError:
    """What a call fails with; its connection is free afterwards."""
    async with asked(handler, **(target or {})) as side:
        with pytest.raises(PacelineError) as caught:
            await side.target.execute(a_call(), a_lease(CLOCK))
        while side.busy():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)
    return caught.value


async def test_the_request_streams_and_asks_for_its_usage() -> None:
    """A query becomes one message after the system's, options are handed on, the model is that of
    the instance, and the usage is asked for. (S0-80)"""
    told: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        told.append((request.path, request.headers["Authorization"], await request.json()))
        return await streaming(completion("Hi"), STOP, DONE)(request)

    async with asked(handler, token=Secret(SECRET)) as side:
        call = a_call("Hello", system="Be short.", temperature=0.5)
        assert await side.target.execute(call, a_lease(CLOCK)) == "Hi"
    assert told == [
        (
            "/v1/chat/completions",
            f"Bearer {SECRET}",
            {
                "model": "small",
                "messages": [{"role": "system", "content": "Be short."}, *HELLO],
                "temperature": 0.5,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        )
    ]


async def test_messages_are_answered_by_a_message() -> None:
    """Tool calls that come in pieces are whole in the message, with its text and its end."""

    def piece(index: int, arguments: str, **more: object) -> dict[str, object]:
        call = {"index": index, "function": {"arguments": arguments}, **more}
        return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}

    named = {"function": {"name": "weather", "arguments": ""}, "id": "c1"}
    answer = streaming(
        completion("Let me"),
        completion(" look."),
        piece(0, "", **named),
        piece(0, '{"city":'),
        piece(1, "", function={"name": "time", "arguments": "{}"}, id="c2"),
        piece(0, '"Oslo"}'),
        completion("", finish_reason="tool_calls"),
        DONE,
    )
    got = await value_of(answer, messages=HELLO)
    assert (got["role"], got["content"], got["finish_reason"]) == (
        "assistant",
        "Let me look.",
        "tool_calls",
    )
    assert got["tool_calls"][0] == {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
    }
    assert [call["id"] for call in got["tool_calls"]] == ["c1", "c2"]


async def test_the_first_token_is_noted_when_it_comes() -> None:
    """The lease learns of the beginning of the answer long before its end, and not from a part
    without text. (S1-20)"""
    begun = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        for part in (role, completion("Hi"), STOP):
            await answer.write(f"data: {json.dumps(part)}\n\n".encode())
            if part is role:
                await asyncio.sleep(0)
                assert not lease.first_ns
            elif part is not STOP:
                await begun.wait()
        return answer

    async with asked(handler) as side:
        lease = a_lease(CLOCK)
        task = asyncio.create_task(side.target.execute(a_call(), lease))
        while not lease.first_ns:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)
        assert not task.done()
        begun.set()
        assert await task == "Hi"


@pytest.mark.parametrize("faults", [Faults(reset_after=400), Faults(end_after=400)])
async def test_a_stream_that_dies_half_way_is_an_error(faults: Faults) -> None:
    """A connection that breaks in the middle of a stream is an error of the network, never a
    shorter answer. (S0-68, V-31)"""
    parts = [completion(f"word {n} ") for n in range(50)]
    async with (
        served(streaming(*parts, STOP, DONE)) as side,
        FaultProxy("127.0.0.1", side.port, faults) as proxy,
        OpenAITarget(f"http://127.0.0.1:{proxy.port}/v1", "m", clock=CLOCK) as target,
    ):
        lease = a_lease(CLOCK)
        with pytest.raises(PacelineError) as caught:
            await target.execute(a_call(), lease)
        assert (caught.value.category, caught.value.may_have_started) == (Category.NETWORK, True)
        assert lease.first_ns
        proxy.faults = Faults(slice_bytes=1)
        assert str(await target.execute(a_call(), a_lease(CLOCK))).endswith("word 49 ")


async def test_a_stream_that_only_stops_is_an_error_too() -> None:
    """An orderly end of the connection is no end of the answer: that has to be said. (V-31)"""
    error = await error_of(streaming(completion("Hel")))
    assert (error.category, error.may_have_started) == (Category.NETWORK, True)


@pytest.mark.parametrize("ends", [(STOP,), (DONE,), (STOP, DONE), (STOP, DONE, DONE, STOP)])
async def test_any_end_that_is_said_is_one(ends: tuple[object, ...]) -> None:
    """A reason to stop, the end of the stream, or both, and even twice, end an answer."""
    assert await value_of(streaming(completion("Hi"), *ends)) == "Hi"


async def test_a_stream_that_never_ends_is_left_at_its_end() -> None:
    """After the answer has ended, a server that keeps the connection open is not waited for."""
    assert await value_of(streaming(completion("Hi"), STOP, DONE, hang=True)) == "Hi"


async def test_a_stream_of_tokens_without_end_ends_at_the_deadline() -> None:
    """However many tokens come, at its deadline the call is over. (S1-20)"""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        while True:
            await answer.write(f"data: {json.dumps(completion('word '))}\n\n".encode())
            await asyncio.sleep(0)

    async with asked(handler) as side:
        call = a_call(deadline_ns=CLOCK.monotonic_ns() + 200_000_000)
        with pytest.raises(CallTimeoutError):
            await side.target.execute(call, a_lease(CLOCK))


async def test_one_connection_serves_all_streams() -> None:
    """Streams one after the other use one connection, also where its end comes a little later than
    that of the answer."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = await streaming(completion("Hi"), STOP, DONE)(request)
        for _ in range(20):
            await asyncio.sleep(0)
        return answer

    async with (
        served(handler) as side,
        FaultProxy("127.0.0.1", side.port) as proxy,
        OpenAITarget(f"http://127.0.0.1:{proxy.port}/v1", "m", clock=CLOCK) as target,
    ):
        for _ in range(3):
            assert await target.execute(a_call(), a_lease(CLOCK)) == "Hi"
        assert proxy.connections == 1


async def test_a_hang_before_the_first_token_is_noticed() -> None:
    """A server that takes the request and gives no token is given up after its own limit, and
    signs of life are no tokens. (V-33)"""
    role = {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    for events in ((), (":waiting\n\n", role, ":waiting\n\n")):
        error = await error_of(streaming(*events, hang=True), {"first_token_s": 0.1})
        assert isinstance(error, CallTimeoutError)
        assert error.may_have_started
        assert "did not begin" in error.message


async def test_a_pause_in_the_answer_is_noticed() -> None:
    """A stream that stops in the middle without ending is given up after a limit of its own."""
    error = await error_of(streaming(completion("Hel"), hang=True), {"stall_s": 0.1})
    assert isinstance(error, CallTimeoutError)
    assert "in the middle" in error.message


@pytest.mark.parametrize(
    ("status", "error", "category"),
    [
        (429, {"code": "rate_limit_exceeded", "message": "Slow down"}, Category.RATE_LIMIT),
        (429, {"code": "insufficient_quota", "message": "Pay first"}, Category.EXHAUSTED),
        (429, {"message": "Request too large for small"}, Category.TOO_LONG),
        (400, {"code": "context_length_exceeded", "message": "Too long"}, Category.TOO_LONG),
        (500, {"message": "the maximum context length is 1024 tokens"}, Category.TOO_LONG),
        (400, {"code": "content_filter", "message": "No"}, Category.POLICY),
        (401, {"code": "invalid_api_key", "message": "Who?"}, Category.AUTHENTICATION),
        (400, {"message": "Incorrect API key provided"}, Category.AUTHENTICATION),
        (404, {"code": "model_not_found", "message": "No such model"}, Category.NOT_FOUND),
        (400, {"code": 400, "type": None, "message": "No"}, Category.INVALID),
        (400, {"code": [], "message": 5}, Category.INVALID),
        (500, {"type": "server_error", "message": "Sorry"}, Category.UNAVAILABLE),
        (529, {"type": "overloaded_error", "message": "Sorry"}, Category.UNAVAILABLE),
    ],
)
async def test_refusals_have_their_meaning(
    status: int, error: dict[str, object], category: Category
) -> None:
    """What a server of models says beyond its status decides what kind of trouble it is: used-up
    money is no rate, and a prompt too long is no failure of the server. (S1-23, V-31)"""
    found = await error_of(refusing(status, {"Retry-After": "3"}, **error))
    assert found.category is category
    assert found.retry_after_s == 3
    assert found.may_have_started == (status >= 500)


async def test_an_error_in_the_stream_is_an_error() -> None:
    """A server that fails after it has begun says so in the stream: that is raised, whatever came
    before. (V-31)"""
    told = {"error": {"message": "out of memory", "type": "server_error", "code": 500}}
    error = await error_of(streaming(completion("Hel"), told, DONE))
    assert (error.category, error.may_have_started) == (Category.UNAVAILABLE, True)
    assert "out of memory" in error.message
    limited = {"error": {"message": "slow down", "code": 429}}
    error = await error_of(streaming(limited))
    assert (error.category, error.may_have_started) == (Category.RATE_LIMIT, True)


@pytest.mark.parametrize(
    ("answer", "category"),
    [
        (streaming(STOP, DONE), Category.UNAVAILABLE),
        (streaming(DONE), Category.UNAVAILABLE),
        (streaming(completion("", finish_reason="content_filter")), Category.POLICY),
        (streaming(completion("Half", finish_reason="content_filter")), Category.POLICY),
        (streaming(completion("Half", finish_reason="length")), Category.EXHAUSTED),
        (streaming({"choices": [{"delta": {"refusal": "No."}, "finish_reason": "stop"}]}),
         Category.POLICY),
        (streaming({"choices": [{"delta": {"tool_calls": [{"id": "c"}]}, "finish_reason": "x"}]}),
         Category.EXECUTION),
        (streaming("<html>"), Category.EXECUTION),
        (streaming("x", kind="text/html"), Category.EXECUTION),
        (streaming('"text"'), Category.EXECUTION),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_an_error(answer: Handler, category: Category) -> None:
    """An empty answer, one that was cut off, a refusal, and what is no completion at all are
    failures where a text was asked for. (V-32)"""
    error = await error_of(answer)
    assert error.category is category
    assert error.may_have_started


async def test_an_answer_may_be_as_short_as_was_asked() -> None:
    """Cut at the limit that the call itself set, an answer is a value; and whoever passes messages
    sees for himself why it ended."""
    short = streaming(completion("Half", finish_reason="length"))
    assert await value_of(short, max_tokens=1) == "Half"
    got = await value_of(short, messages=HELLO)
    assert (got["content"], got["finish_reason"]) == ("Half", "length")


async def test_a_server_that_does_not_stream_is_understood() -> None:
    """An answer in one piece is as good."""

    async def handler(_: web.Request) -> web.StreamResponse:
        message = {"role": "assistant", "content": "Hi"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 7}})

    async with asked(handler) as side:
        lease = a_lease(CLOCK)
        assert await side.target.execute(a_call(), lease) == "Hi"
    assert lease.tokens == Tokens(7)


async def test_usage_is_counted_once_and_kept_when_things_go_wrong() -> None:
    """Usage that is repeated counts once, and what was used counts even where no value came of it."""
    usage = {"choices": None, "usage": {"prompt_tokens": 9, "completion_tokens": -1}}
    async with asked(streaming(STOP, usage, usage, DONE)) as side:
        lease = a_lease(CLOCK)
        with pytest.raises(PacelineError):
            await side.target.execute(a_call(), lease)
    assert lease.tokens == Tokens(9)


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "a", "messages": HELLO},
        {"query": "a", "model": "large"},
        {"query": "a", "n": 2},
        {"query": "a", "stream": False},
        {"query": None, "messages": "Hello"},
        {"query": None, "messages": [{"content": "Hello"}]},
        {"query": "a", "tools": object()},
    ],
)
async def test_calls_that_make_no_sense_are_refused_here(arguments: dict[str, Any]) -> None:
    """What cannot be a request of one answer by this model is refused, and nothing is sent."""
    async with asked(a_model) as side:
        with pytest.raises(InvalidInputError) as caught:
            await side.target.execute(a_call(**arguments), a_lease(CLOCK))
        assert not caught.value.may_have_started
        assert side.requests == []


async def test_a_probe_is_never_a_completion() -> None:
    """A probe asks for the list of models, which costs nothing, and finds a wrong address. (S0-79)"""
    async with asked(a_model) as side:
        await side.target.probe()
        assert [(r.method, r.path) for r in side.requests] == [("GET", "/v1/models")]
    async with asked(refusing(404, message="Not here")) as side:
        with pytest.raises(PacelineError) as caught:
            await side.target.probe()
    assert caught.value.category is Category.NOT_FOUND


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_a_list_of_models_is_there(status: int) -> None:
    """A server that answers is not taken for gone because it lists no models; where nothing is found
    before it has answered, its address may be wrong. (S0-79)"""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"error": {"message": "No list"}}, status=status)
        return await a_model(request)

    async with asked(handler) as side:
        if status == 404:
            with pytest.raises(PacelineError):
                await side.target.probe()
        await side.target.execute(a_call(), a_lease(CLOCK))
        await side.target.probe()


async def test_addresses_may_have_a_query() -> None:
    """Paths go before the question mark of the base address."""
    async with served(a_model) as side:
        base = f"{side.url}/v1/?version=1"
        async with OpenAITarget(base, "m", clock=CLOCK) as target:
            await target.probe()
        assert side.requests[0].path_qs == "/v1/models?version=1"
    with pytest.raises(ConfigError):
        OpenAITarget("", "m", clock=CLOCK)


async def test_an_error_says_which_instance() -> None:
    """An error names the instance, as `paceline instances` does, and where that is. (S0-83)"""
    async with OpenAITarget("http://127.0.0.1:1/v1", "small", clock=CLOCK) as target:
        with pytest.raises(PacelineError) as caught:
            await target.execute(a_call(), a_lease(CLOCK))
    assert str(caught.value).startswith("instance one: the model server at 127.0.0.1:1 cannot be")
