"""An agent behind HTTP: what is sent to it, and what comes of each of its answers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiohttp import web

from paceline.call import Caller, Tokens
from paceline.clock import SystemClock
from paceline.errors import (
    CallTimeoutError,
    Category,
    ConfigError,
    InvalidInputError,
    PacelineError,
    RuntimeClosedError,
)
from paceline.instances.http import HttpAgent
from paceline.pricing import PriceList
from paceline.redaction import Secret
from paceline.testing.fault_proxy import FaultProxy, Faults
from paceline.testing.target_suite import a_call, a_lease
from paceline.usage import Metering, metered
from tests.far_sides import SECRET, Handler, Served, an_agent, served

CLOCK: Final = SystemClock()
SECOND: Final = 1_000_000_000


@asynccontextmanager
async def asked(handler: Handler, path: str = "/run", **more: Any) -> AsyncIterator[Served]:
    """A server that answers by the handler, and the agent that asks it."""
    async with served(handler) as side:
        side.aim(HttpAgent(f"{side.url}{path}", clock=CLOCK, **more), ())
        async with side.target:
            yield side


@asynccontextmanager
async def through_proxy(faults: Faults, **more: Any) -> AsyncIterator[tuple[FaultProxy, HttpAgent]]:
    """An agent that is asked through a proxy."""
    async with (
        served(an_agent) as side,
        FaultProxy("127.0.0.1", side.port, faults) as proxy,
        HttpAgent(f"http://127.0.0.1:{proxy.port}/run", clock=CLOCK, **more) as agent,
    ):
        yield proxy, agent


async def value_of(side: Served) -> object:
    """What the agent answers."""
    return await side.target.execute(a_call(), a_lease(CLOCK))


async def error_of(target: Any, **more: Any) -> PacelineError:
    """What a call of it fails with."""
    with pytest.raises(PacelineError) as caught:
        await target.execute(a_call(**more), a_lease(CLOCK))
    return caught.value


def answering(*args: Any, **more: Any) -> Handler:
    """A handler with one answer."""

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(*args, **more)

    return handler


async def test_the_request_says_all_there_is_to_know() -> None:
    """An agent is sent the query, its context, on whose behalf it is asked, which call it is, and
    in body and header how long it may take, under its token. (S1-20)"""
    told: dict[str, Any] = {}
    headers: dict[str, str] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        told.update(await request.json())
        headers.update(request.headers)
        return web.json_response({"value": 1})

    async with asked(handler, token=Secret(SECRET)) as side:
        call = a_call("q", deadline_ns=CLOCK.monotonic_ns() + 30 * SECOND, city="Oslo")
        await side.target.execute(call, a_lease(CLOCK))
    assert (told["query"], told["context"]) == ("q", {"city": "Oslo"})
    assert told["caller"] == {"user": "ada", "session": "s-1", "tenant": "acme"}
    assert (told["call_id"], told["trace"]) == ("call-1", {"id": "trace-1", "parent": None})
    assert 0 < told["deadline_ms"] <= 30_000
    assert headers["Paceline-Deadline-Ms"] == str(told["deadline_ms"])
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert call.caller == Caller("ada", "s-1", "acme")


@pytest.mark.parametrize(
    ("status", "category", "started"),
    [
        (400, Category.INVALID, False),
        (401, Category.AUTHENTICATION, False),
        (403, Category.POLICY, False),
        (404, Category.NOT_FOUND, False),
        (408, Category.TIMEOUT, False),
        (413, Category.INVALID, False),
        (422, Category.INVALID, False),
        (418, Category.INVALID, False),
        (429, Category.RATE_LIMIT, False),
        (500, Category.UNAVAILABLE, True),
        (502, Category.UNAVAILABLE, True),
        (503, Category.UNAVAILABLE, True),
        (504, Category.TIMEOUT, True),
        (529, Category.UNAVAILABLE, True),
    ],
)
@pytest.mark.parametrize(
    "body", ['{"detail": "too warm"}', '{"error": {"message": "too warm"}}', "too warm"]
)
async def test_every_status_has_its_meaning(
    status: int, category: Category, started: bool, body: str
) -> None:
    """Each status is an error of its category that says what the answer says, and whether the work
    may have begun. (S1-23, V-31)"""
    async with asked(answering(status=status, text=body)) as side:
        error = await error_of(side.target)
    assert (error.category, error.may_have_started) == (category, started)
    assert error.message.endswith(f"answered {status}: too warm")
    assert error.next_step


async def test_what_an_error_says_is_short_and_plain() -> None:
    """Of a long or strange answer an error repeats a little, printable, without any secret, and
    nothing of a page. (S1-23)"""
    for body in (f"\x1b[31m{SECRET} " + "x" * 100_000, "é\x00" * 9_000, "[" * 9_000, "{}"):
        async with asked(answering(status=500, text=body), token=Secret(SECRET)) as side:
            message = (await error_of(side.target)).message
        assert len(message) < 400
        assert message.isprintable()
        assert SECRET not in message
    async with asked(answering(status=502, text="<html>Bad gateway</html>")) as side:
        assert "html" not in (await error_of(side.target)).message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2), ("0", 0), ("-5", 0), ("9" * 40, 86_400), ("soon", None), (None, None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)  # fmt: skip
async def test_it_says_how_long_to_wait(value: str | None, seconds: float | None) -> None:
    """What Retry-After asks for is in the error, within a day, whatever is in it. (V-32)"""
    headers = {} if value is None else {"Retry-After": value}
    async with asked(answering(status=429, headers=headers)) as side:
        assert (await error_of(side.target)).retry_after_s == seconds


async def test_rate_limits_are_learnt_from_every_answer() -> None:
    """The headers of answers, good and bad, reach the guard of the rate, and the instance is looked
    at again at once. (V-29)"""
    looked: list[object] = []
    for status in (200, 429):
        headers = {"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": "0"}
        async with served(answering(status=status, headers=headers)) as side:
            async with HttpAgent(side.url, clock=CLOCK, rates=side.rates) as agent:
                lease = a_lease(CLOCK)
                lease.instance.watcher = looked.append
                assert side.rates.opens_ns() <= CLOCK.monotonic_ns()
                outcome = await asyncio.gather(
                    agent.execute(a_call(), lease), return_exceptions=True
                )
            assert isinstance(outcome[0], PacelineError) == (status == 429)
            assert side.rates.opens_ns() > CLOCK.monotonic_ns()
    assert len(looked) >= 2


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (answering(text="hello"), "hello"),
        (answering(text=""), ""),
        (answering(status=204), None),
        (answering(text="[1]", content_type="application/problem+json"), [1]),
        (answering(text="null", content_type="application/json"), None),
        (answering(text='{"value":1,"unit":"m"}', content_type="application/json"),
         {"value": 1, "unit": "m"}),
        (answering(text='{"value":1,"usage":"?"}', content_type="application/json"), 1),
        (answering(text='{"value":1,"usage":{"input":-5}}', content_type="application/json"), 1),
    ],
)  # fmt: skip
async def test_agents_may_answer_in_any_form(answer: Handler, value: object) -> None:
    """Text, JSON of any kind and nothing at all are values; usage that makes no sense is left out."""
    async with asked(answer) as side:
        assert await value_of(side) == value


@pytest.mark.parametrize(
    "answer",
    [
        answering(text="<html>Sign in</html>", content_type="text/html"),
        answering(text='{"value": 1', content_type="application/json"),
        answering(text="", content_type="application/json"),
        answering(text="[" * 100_000, content_type="application/json"),
        answering(body=b"\xff\xfe", content_type="application/octet-stream"),
        answering(text="x" * 1_001),
    ],
)
async def test_an_answer_that_is_none_is_an_error(answer: Handler) -> None:
    """A page for browsers, broken JSON, bytes that are no text and what is too large are failures
    of the agent, not values. (S1-23)"""
    async with asked(answer, most_bytes=1_000) as side:
        error = await error_of(side.target)
        assert error.may_have_started
        assert error.category in {Category.EXECUTION, Category.NETWORK}
        assert side.busy() == 0


async def test_an_answer_without_end_is_left() -> None:
    """An answer that goes on for ever is read up to a limit, and no further."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 1_000)

    async with asked(handler, most_bytes=100_000, timeout_s=5.0) as side:
        assert "larger than is read" in (await error_of(side.target)).message
        while side.busy():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("status", "category"), [(429, Category.RATE_LIMIT), (500, Category.UNAVAILABLE)]
)
async def test_whoever_stands_between_is_heard(status: int, category: Category) -> None:
    """A gateway that answers in place of the agent is understood as the agent is. (S1-23)"""
    async with through_proxy(Faults(status=status, retry_after="2")) as (proxy, agent):
        error = await error_of(agent)
        assert (error.category, error.retry_after_s) == (category, 2)
        with pytest.raises(PacelineError) if status >= 500 else contextlib.nullcontext():
            await agent.probe()
        proxy.faults = Faults()
        assert await agent.execute(a_call(value=2), a_lease(CLOCK)) == 2


async def test_redirects_are_not_followed() -> None:
    """A redirect is an error: it could carry the token elsewhere."""
    moved = answering(status=307, headers={"Location": "/elsewhere"})
    async with asked(moved, token=Secret(SECRET)) as side:
        error = await error_of(side.target)
        assert [request.path for request in side.requests] == ["/run"]
    assert error.category is Category.INVALID
    assert not error.may_have_started


async def test_one_session_serves_all_calls() -> None:
    """Calls one after the other use one connection."""
    async with through_proxy(Faults()) as (proxy, agent):
        for _ in range(3):
            await agent.execute(a_call(), a_lease(CLOCK))
        assert proxy.connections == 1


@pytest.mark.parametrize("faults", [Faults(reset_after=60), Faults(end_after=60)])
async def test_half_an_answer_is_none(faults: Faults) -> None:
    """A connection that breaks in the middle of an answer is an error after which the work may have
    been done. (S0-68, S1-19)"""
    async with through_proxy(faults) as (proxy, agent):
        error = await error_of(agent, value="x" * 1_000)
        assert (error.category, error.may_have_started) == (Category.NETWORK, True)
        proxy.faults = Faults()
        assert await agent.execute(a_call(value=2), a_lease(CLOCK)) == 2


async def test_what_was_never_sent_may_be_sent_again() -> None:
    """Where nobody listens, where no such host is known, and where the other side does not speak
    TLS, nothing was started. (S1-19)"""
    async with served(an_agent) as side:
        plain = f"https://127.0.0.1:{side.port}"
        for url in (plain, "http://nowhere.invalid/run"):
            async with HttpAgent(url, clock=CLOCK) as agent:
                error = await error_of(agent)
                assert (error.category, error.may_have_started) == (Category.NETWORK, False)
        gone = side.url
    async with HttpAgent(gone, clock=CLOCK) as agent:
        error = await error_of(agent)
        assert (error.category, error.may_have_started) == (Category.NETWORK, False)


@pytest.mark.parametrize(
    ("limit_s", "connect_s", "category"),
    [(0.1, 5.0, Category.TIMEOUT), (5.0, 0.1, Category.NETWORK)],
)
async def test_a_connection_that_is_not_accepted_has_started_nothing(
    limit_s: float, connect_s: float, category: Category
) -> None:
    """Where the limit is over while the connection is still being made, of the call or of
    connecting, nothing was started. (S1-19)"""
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # more than it queues: the next is not answered
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        async with HttpAgent(url, clock=CLOCK, timeout_s=limit_s, connect_s=connect_s) as agent:
            error = await error_of(agent)
    assert (error.category, error.may_have_started) == (category, False)


async def test_slow_bytes_are_waited_for_and_silence_is_not() -> None:
    """An answer that comes byte by byte is whole in the end; one that does not come is given up at
    the deadline, and its connection too. (S1-20)"""
    async with through_proxy(Faults(slice_bytes=1)) as (proxy, agent):
        assert await agent.execute(a_call(value="slow"), a_lease(CLOCK)) == "slow"
        proxy.faults = Faults(blackhole=True)
        error = await error_of(agent, deadline_ns=CLOCK.monotonic_ns() + SECOND // 5)
        assert isinstance(error, CallTimeoutError)
        assert error.may_have_started
        while proxy.open:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


async def test_a_call_without_a_deadline_has_that_of_the_agent() -> None:
    """No call waits for ever."""
    async with through_proxy(Faults(blackhole=True), timeout_s=0.1) as (_, agent):
        assert isinstance(await error_of(agent), CallTimeoutError)


async def test_arguments_that_json_has_not_are_refused_here() -> None:
    """What cannot be sent as JSON is refused before anything is sent."""
    async with asked(an_agent) as side:
        for value in (object(), "\ud800", {1.5j: 1}):
            error = await error_of(side.target, value=value)
            assert isinstance(error, InvalidInputError)
            assert not error.may_have_started
        assert side.requests == []


async def test_a_probe_costs_nothing() -> None:
    """A probe asks for no work: HEAD, or the address for it, which has to answer with success.
    (S0-79)"""
    async with asked(an_agent) as side:
        await side.target.probe()
        assert [request.method for request in side.requests] == ["HEAD"]
    async with served(an_agent) as side:
        health = f"{side.url}/health"
        async with HttpAgent(f"{side.url}/run", clock=CLOCK, probe_url=health) as agent:
            with pytest.raises(PacelineError, match="405"):
                await agent.probe()
        assert [(r.method, r.path) for r in side.requests] == [("GET", "/health")]


@pytest.mark.parametrize(
    ("status", "category"), [(401, Category.AUTHENTICATION), (503, Category.UNAVAILABLE)]
)
async def test_a_probe_tells_what_would_fail(status: int, category: Category) -> None:
    """A server in trouble, or one that does not know the token, is found by the probe. (S0-79)"""
    async with asked(answering(status=status)) as side:
        with pytest.raises(PacelineError) as caught:
            await side.target.probe()
        assert caught.value.category is category


async def test_outside_its_block_it_is_closed() -> None:
    """Before it is entered it says so, and twice at once it is not entered."""
    agent = HttpAgent("http://127.0.0.1:1/", clock=CLOCK)
    with pytest.raises(RuntimeClosedError):
        await agent.execute(a_call(), a_lease(CLOCK))
    async with agent:
        with pytest.raises(ConfigError, match="open already"):
            await agent.__aenter__()


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ftp://host/", ""),
        ("host:80", ""),
        ("http:///run", ""),
        ("http://[", ""),
        ("http://host:99999/", ""),
        (f"http://user:{SECRET}@host/", ""),
        ("http://host/\r\nX: y", ""),
        ("http://host/a b", ""),
        ("http://host/", f"{SECRET}\n"),
        ("http://host/", f"{SECRET} x"),
    ],
)
def test_addresses_and_tokens_are_checked_at_once(url: str, token: str) -> None:
    """An address or a token that cannot be used is refused when the target is made, and is not
    repeated."""
    with pytest.raises(ConfigError) as caught:
        HttpAgent(url, clock=CLOCK, token=Secret(token))
    assert SECRET not in repr(caught.value)
    assert caught.value.__context__ is None


async def test_what_speaks_no_http_is_told_no_secret_of() -> None:
    """A server that answers nonsense is a failure whose causes, which know the headers that were
    sent, are left behind. (S1-23)"""

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"nonsense\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with HttpAgent(url, clock=CLOCK, token=Secret(SECRET)) as agent:
            error = await error_of(agent)
    assert (error.category, error.may_have_started) == (Category.NETWORK, True)
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_secret_in_the_address_is_not_shown() -> None:
    """What follows the question mark of an address is in no error and no representation."""
    url = f"http://127.0.0.1:1/run?key={SECRET}"
    async with HttpAgent(url, clock=CLOCK) as agent:
        error = await error_of(agent)
    assert SECRET not in f"{error} {error!r} {agent!r} {error.__cause__!r} {error.__context__!r}"


async def test_usage_with_a_price_is_noted() -> None:
    """An agent that knows what its model calls used, and cost, has that noted. (K-05)"""
    body = '{"value":1,"usage":{"input":3,"output":2,"cost_usd":0.5}}'
    async with asked(answering(text=body, content_type="application/json")) as side:
        lease = a_lease(CLOCK)
        with metered(Metering(PriceList(), CLOCK).meter()) as meter:
            assert await side.target.execute(a_call(), lease) == 1
    assert lease.tokens == Tokens(3, 2)
    assert meter.spent is not None
    assert meter.spent.cost_usd == 0.5


async def test_an_error_says_which_instance() -> None:
    """An error names the instance, as `paceline instances` does, and where that is. (S0-83)"""
    async with HttpAgent("http://127.0.0.1:1/run", clock=CLOCK) as agent:
        error = await error_of(agent)
    assert str(error).startswith("instance one: the agent at 127.0.0.1:1 cannot be reached")
    assert error.args == (error.message,)
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/elsewhere", "http://127.0.0.1:{port}/elsewhere"),
        (f"https://ada:{SECRET}@other:8443/run?key={SECRET}#x", "https://other:8443/run"),
        ("https://[", ""),
        ("", ""),
    ],
)
async def test_a_redirect_is_told_with_where_it_leads(location: str, shown: str) -> None:
    """An address that leads elsewhere is told with where to, without what may be secret in it, and
    with what to do. (S0-83)"""
    headers = {"Location": location} if location else {}
    async with asked(answering(status=302, headers=headers)) as side:
        error = await error_of(side.target)
    where = shown.format(port=side.port)
    assert ("answered 302: it leads " + (f"to {where}" if where else "elsewhere")) in str(error)
    assert str(error).endswith(where or "elsewhere")
    assert "url" in error.next_step
    assert "Correct the request" not in error.next_step


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("host:80/run", "host:80/run"),
        ("htp://host/run", "htp://host/run"),
        (f"htp://ada:{SECRET}@host/run", "htp://[redacted]@host/run"),
        (f"host/run?key={SECRET}", "host/run?[redacted]"),
        ("", "is '', which"),
    ],
)
def test_an_address_that_is_none_is_shown(url: str, shown: str) -> None:
    """An address that cannot be used is shown as it was given, without what may be secret in it.
    (S0-83)"""
    with pytest.raises(ConfigError) as caught:
        HttpAgent(url, clock=CLOCK)
    assert shown in str(caught.value)
    assert SECRET not in str(caught.value)
