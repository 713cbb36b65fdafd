"""The endpoint for metrics over real HTTP: what it answers, whom, and what it can take."""

import asyncio
import gzip
import logging
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from paceline.errors import Category, ConfigError, StorageError
from paceline.metrics.export import endpoint as module
from paceline.metrics.export.endpoint import Endpoint
from paceline.metrics.export.prometheus import Exposition, Page
from tests.exported import busy

FREE = "127.0.0.1:0"


def exposition() -> Exposition:
    return Exposition(busy().snapshot, version="1")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that takes pages as they are."""
    plain = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(headers=plain, auto_decompress=False) as session:
        yield session


class Held:
    """Pages that are made when the test allows it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.pages = 0

    def page(self, accept: str) -> Page:
        self.pages += 1
        self.loop.call_soon_threadsafe(self.begun.set)
        self.go.wait(30)
        return Page(b"figures 1\n", "text/plain")


async def test_metrics_are_served(http: aiohttp.ClientSession) -> None:
    """GET and HEAD of /metrics answer with the figures in the format asked for; nobody keeps them.
    (E-10, S0-25)"""
    async with Endpoint(exposition().page, listen=FREE) as endpoint:
        async with http.get(endpoint.url) as got:
            body = await got.read()
            assert got.status == 200
            assert got.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert got.headers["Cache-Control"] == "no-store"
            assert b'paceline_in_flight{agent="web",kind="agent"} 1.0' in body
        async with http.head(endpoint.url) as head:
            assert (head.status, await head.read()) == (200, b"")
            assert head.headers["Content-Length"] == got.headers["Content-Length"]
        accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
        async with http.get(endpoint.url, headers=accept) as opened:
            assert opened.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await opened.read()).endswith(b"# EOF\n")
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.get(endpoint.url)


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("br", False),
        ("", False),
    ],
)
async def test_compression(http: aiohttp.ClientSession, accepted: str, packed: bool) -> None:
    """Pages are compressed for those who say that they can read it, and only for them. (S0-25)"""
    async with (
        Endpoint(exposition().page, listen=FREE) as endpoint,
        http.get(endpoint.url, headers={"Accept-Encoding": accepted}) as got,
    ):
        body = await got.read()
        assert ("gzip" in got.headers.get("Content-Encoding", "")) == packed
        assert b"paceline_calls_total" in (gzip.decompress(body) if packed else body)
        assert "Accept-Encoding" in got.headers["Vary"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/", 404, "/metrics"),
        ("GET", "/metrics/", 404, "/metrics"),
        ("GET", "/%2e%2e/metrics/../x", 404, "/metrics"),
        ("POST", "/metrics", 405, "GET /metrics"),
        ("DELETE", "/metrics", 405, "GET /metrics"),
        ("OPTIONS", "/metrics", 405, "GET /metrics"),
    ],
)
async def test_there_is_nothing_else(
    http: aiohttp.ClientSession, method: str, path: str, status: int, said: str
) -> None:
    """Other paths and methods are refused with a line that says what there is."""
    async with Endpoint(exposition().page, listen=FREE) as endpoint:
        url = endpoint.url.removesuffix("/metrics") + path
        async with http.request(method, url) as got:
            assert got.status == status
            assert said in await got.text()
            assert got.headers.get("Allow", "GET,HEAD") == "GET,HEAD"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1:9464", 200), ("[::1]:1", 200), ("10.2.3.4", 200),
        ("Metrics.Internal:9464", 200), ("evil.example", 421), ("evil.example:9464", 421),
        ("localhost.evil.example", 421), ("", 421), ("127.0.0.1.evil.example", 421),
    ],
)  # fmt: skip
async def test_only_under_a_name_of_ours(
    http: aiohttp.ClientSession, host: str, status: int
) -> None:
    """A page in a browser whose name was made to point here cannot read the figures: the Host has
    to be an IP address or a name that is allowed."""
    async with (
        Endpoint(exposition().page, listen=FREE, hosts=["metrics.internal"]) as endpoint,
        http.get(endpoint.url, headers={"Host": host}) as got,
    ):
        assert got.status == status
        assert (b"paceline_calls" in await got.read()) == (status == 200)


async def test_a_guard_that_lets_all_in_is_found(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that believes any Host would be found by the test above."""
    monkeypatch.setattr(Endpoint, "_is_ours", lambda *_: True)
    async with (
        Endpoint(exposition().page, listen=FREE) as endpoint,
        http.get(endpoint.url, headers={"Host": "evil.example"}) as got,
    ):
        assert got.status == 200


async def test_one_page_for_all_who_ask_at_once(http: aiohttp.ClientSession) -> None:
    """Requests in the same format that come while a page is made get that page; the event loop is
    free meanwhile. (S0-25)"""
    held = Held()
    async with Endpoint(held.page, listen=FREE) as endpoint:
        asking = [asyncio.ensure_future(http.get(endpoint.url)) for _ in range(5)]
        while endpoint._asking < len(asking):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0)
        async with http.get(endpoint.url + "x") as other:  # answered while the page is not
            assert other.status == 404
        held.go.set()
        for got in await asyncio.gather(*asking):
            assert await got.read() == b"figures 1\n"
    assert held.pages == 1


async def test_too_many_who_ask(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a number of requests that wait for a page, the next is told to come again."""
    monkeypatch.setattr(module, "_WAITING", 1)
    held = Held()
    async with Endpoint(held.page, listen=FREE) as endpoint:
        first = asyncio.ensure_future(http.get(endpoint.url))
        await held.begun.wait()
        async with http.get(endpoint.url) as second:
            assert (second.status, second.headers["Retry-After"]) == (503, "1")
        held.go.set()
        assert (await first).status == 200
        async with http.get(endpoint.url) as third:
            assert third.status == 200


async def test_too_many_connections(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections beyond a limit are closed; those there are go on, and make room by ending."""
    monkeypatch.setattr(module, "_CONNECTIONS", 1)
    async with Endpoint(exposition().page, listen=FREE) as endpoint:
        async with http.get(endpoint.url) as got:
            await got.read()
        port = got.url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""  # the client above keeps the only one
        writer.close()
        async with http.get(endpoint.url) as got:
            assert got.status == 200


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StorageError("the history is gone"), "the history is gone"),
        (RuntimeError("a secret of ours"), "the log says why"),
    ],
)
async def test_a_failing_scrape(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    """Figures that cannot be taken are an answer of status 500 and a line in the log; the next
    scrape may succeed. (S0-25)"""
    trouble: list[Exception] = [error]

    def page(accept: str) -> Page:
        if trouble:
            raise trouble.pop()
        return exposition().page(accept)

    caplog.set_level(logging.WARNING, "paceline.metrics")
    async with Endpoint(page, listen=FREE) as endpoint:
        async with http.get(endpoint.url) as got:
            text = await got.text()
            assert got.status == 500
            assert said in text
            assert "secret" not in text
        assert len(caplog.records) == 1
        async with http.get(endpoint.url) as got:
            assert got.status == 200


async def test_who_leaves_early(http: aiohttp.ClientSession) -> None:
    """A client that does not wait for its page leaves nothing behind that others notice."""
    held = Held()
    async with Endpoint(held.page, listen=FREE) as endpoint:
        leaving = asyncio.ensure_future(http.get(endpoint.url))
        await held.begun.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        held.go.set()
        async with http.get(endpoint.url) as got:
            assert got.status == 200


async def test_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read what it asked for is dropped; it holds nobody up."""
    monkeypatch.setattr(module, "_WRITE_S", 0.0)
    page = Page(b"x" * 50_000_000, "text/plain")
    async with Endpoint(lambda _: page, listen=FREE) as endpoint:
        port = int(endpoint.url.split(":")[2].partition("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(len(page.body))
        writer.close()


async def test_closing_waits_for_no_page(http: aiohttp.ClientSession) -> None:
    """The endpoint can be closed while a page is made; who waits for it is cut off."""
    held = Held()
    async with Endpoint(held.page, listen=FREE) as endpoint:
        asking = asyncio.ensure_future(http.get(endpoint.url))
        await held.begun.wait()
    held.go.set()
    answers = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(answers[0], aiohttp.ClientError)


async def test_a_port_that_is_taken() -> None:
    """An address that another has is an error that names it, says what to do, and tells by its
    category that there is nothing wrong with it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=address) as caught:
            await Endpoint(exposition().page, listen=address).__aenter__()
    assert "Choose another address" in caught.value.next_step
    assert caught.value.category is Category.UNAVAILABLE


async def test_an_address_that_is_not_ours() -> None:
    """An address that this machine does not have is a wrong setting."""
    with pytest.raises(ConfigError, match="cannot be served at 203") as caught:
        await Endpoint(exposition().page, listen="203.0.113.1:9464").__aenter__()
    assert caught.value.category is Category.INVALID


@pytest.mark.parametrize(
    "listen",
    [
        "",
        ":",
        "9464",
        ":9464",
        "localhost",
        "localhost:",
        "a:b",
        "a:65536",
        "a:-1",
        "a:\N{FULLWIDTH DIGIT ONE}",
    ],
)
def test_addresses_that_are_none(listen: str) -> None:
    """An address that is none is refused with an example, before anything is opened."""
    with pytest.raises(ConfigError, match="is no address") as caught:
        Endpoint(exposition().page, listen=listen)
    assert "127.0.0.1:9464" in caught.value.next_step


async def test_ipv6(http: aiohttp.ClientSession) -> None:
    """Addresses of IPv6 stand in brackets, as in a URL."""
    async with Endpoint(exposition().page, listen="[::1]:0") as endpoint:
        assert endpoint.url.startswith("http://[::1]:")
        async with http.get(endpoint.url) as got:
            assert got.status == 200


async def test_nonsense_on_the_wire(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no HTTP, or has endless headers, is refused in a line without a traceback; others
    are served all the same."""
    async with Endpoint(exposition().page, listen=FREE) as endpoint:
        async with http.get(endpoint.url) as got:
            port: Any = got.url.port
        for sent in (
            b"\0\1\2\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 50_000 + b"\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert (await reader.read()).startswith(b"HTTP/1.0 400")
            writer.close()
        async with http.get(endpoint.url) as got:
            assert got.status == 200
    assert all(record.exc_info is None for record in caplog.records)
