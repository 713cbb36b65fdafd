"""`GET /metrics` over HTTP, for a Prometheus server or anybody who reads its formats, and pages of
figures as JSON beside it.

Figures are taken and written on another thread, one page at a time: who asks at the same moment, in
the same format, gets the same page. Whatever goes wrong here is told to who asked, and to the log;
calls notice nothing of it. Nothing can be changed here, because nobody is asked who they are.
"""

import asyncio
import errno
import gzip
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar, final

from aiohttp import web

from paceline.errors import (
    Category,
    ConfigError,
    PacelineError,
    UnknownAgentError,
    UsageError,
)
from paceline.metrics.export.pages import HEALTH, PATHS, SLOW, Pages

__all__ = ["DEFAULT_LISTEN", "Endpoint", "Served"]

DEFAULT_LISTEN: Final = "127.0.0.1:9464"
"""Loopback, and the port that exporters for Prometheus have in OpenTelemetry."""

_LAST_PORT: Final = 65_535
_PATH: Final = "/metrics"
_CONNECTIONS: Final = 64
_WAITING: Final = 16
"""Requests whose page is being made; one more is refused."""
_HEAD_S: Final = 90.0
"""For the head of the next request to arrive: servers that ask once a minute keep a connection."""
_WRITE_S: Final = 30.0
_LINE: Final = 4096
_COMPRESSION: Final = 3
_TYPE: Final = "text/plain; charset=utf-8"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "paceline",
}
_GZIP: Final = re.compile(r"\s*gzip\s*(;\s*q\s*=\s*(?P<q>[0-9.]+)\s*)?", re.IGNORECASE)
_log = logging.getLogger("paceline.metrics")

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Make = Callable[[], tuple[bytes, str]]
"""Makes a page, and its content type, on any thread."""
_Key = tuple[str, str, bool]
"""Who asks for the same page gives the same path with parameters, `Accept` and packing."""


class Served(NamedTuple):
    """A page in one of the formats, packed if that was asked for."""

    body: bytes
    content_type: str


@final
class Endpoint:
    """Serves `page(accept)` at `/metrics`, and `pages` where they are, while the block runs:

    exposition = Exposition(runtime.metrics.snapshot, version=version)
    async with Endpoint(exposition.page) as endpoint:
        print(endpoint.url)
    """

    def __init__(
        self,
        page: Callable[[str], tuple[bytes, str]],
        *,
        pages: Pages | None = None,
        listen: str = DEFAULT_LISTEN,
        hosts: Collection[str] = (),
    ) -> None:
        """`page` makes the page for a header `Accept`, and its content type, on any thread; without
        `pages` there is no other.

        `listen` is `address:port`; port 0 takes a free one. A request has to name us by an IP
        address, `localhost`, the host of `listen` or one of `hosts`: a page in a browser whose name
        was made to point here cannot read the figures. Raises ConfigError for an address that
        cannot be one.
        """
        self._page = page
        self._pages = pages
        self._host, self._port = _address(listen)
        self._hosts = frozenset({"localhost", self._host, *[name.lower() for name in hosts]})
        self._making: dict[_Key, asyncio.Task[Served]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._asking = 0
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self.url = ""
        """Where the page is, once it is served."""

    async def __aenter__(self) -> Self:
        """Raises ConfigError where the address cannot be listened at, of category UNAVAILABLE if
        another has it."""
        app = web.Application(middlewares=[self._front])
        app.router.add_get(_PATH, self._metrics)
        if self._pages is not None:
            app.router.add_get(HEALTH, partial(self._health, self._pages))
            for path in PATHS:
                app.router.add_get(path, partial(self._figures, self._pages))
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=1.0,
            keepalive_timeout=_HEAD_S,
            max_line_size=_LINE,
            max_field_size=_LINE,
            logger=_OneLine(_log, None),
        )
        await runner.setup()
        try:
            self._listener = await self._listen(runner)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        port = self._listener.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{port}{_PATH}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops; a page that is being made is not waited for."""
        if self._listener is not None:
            self._listener.close()
        for task in self._making.values():
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        server = runner.server
        if server is None:
            raise ConfigError("the endpoint for metrics is not set up")

        def connection() -> asyncio.Protocol:
            return server() if len(server.connections) < _CONNECTIONS else _Full()

        try:
            return await asyncio.get_running_loop().create_server(
                connection, self._host, self._port
            )
        except OSError as exc:
            busy = exc.errno == errno.EADDRINUSE
            raise ConfigError(
                f"metrics cannot be served at {self._host}:{self._port}: {exc.strerror or exc}",
                next_step="Choose another address, or stop what uses that port.",
                category=Category.UNAVAILABLE if busy else Category.INVALID,
            ) from exc

    @web.middleware
    async def _front(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Who asks under a name that is not ours gets nothing; the answers that aiohttp gives get a
        line that says what there is."""
        if not self._is_ours(request.headers.getall("Host", ())):
            response = _line(421, "not known by that Host; add it to the allowed hosts")
            response.force_close()
            return response
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as exc:
            response = _line(405, f"GET {self._there} is what there is")
            response.headers["Allow"] = exc.headers["Allow"]
            return response
        except web.HTTPNotFound:
            return _line(404, f"metrics are at {self._there}")

    @property
    def _there(self) -> str:
        others = (HEALTH, "/performance", "/performance/AGENT", SLOW)
        return ", ".join([_PATH, *(others if self._pages is not None else ())])

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        """`GET /metrics`, in the format that `Accept` prefers."""
        accept = ",".join(request.headers.getall("Accept", ()))
        return await self._send(request, accept, partial(self._page, accept))

    async def _figures(self, pages: Pages, request: web.Request) -> web.StreamResponse:
        """A page of `PATHS`."""
        try:
            make = pages.of(request.path, list(request.query.items()))
        except UsageError as exc:
            return _line(400, f"{exc}. {exc.next_step}")
        return await self._send(request, "", make)

    async def _health(self, pages: Pages, _: web.Request) -> web.StreamResponse:
        """At once, however many wait for other pages."""
        return _response(pages.health())

    async def _send(self, request: web.Request, accept: str, make: Make) -> web.StreamResponse:
        if self._asking >= _WAITING:
            response = _line(503, "too many scrapes at once")
            response.headers["Retry-After"] = "1"
            return response
        self._asking += 1
        try:
            response = await self._answer(request, accept, make)
        finally:
            self._asking -= 1
        try:
            async with asyncio.timeout(_WRITE_S):  # a reader who does not read is dropped
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _answer(self, request: web.Request, accept: str, make: Make) -> web.Response:
        packed = _accepts_gzip(",".join(request.headers.getall("Accept-Encoding", ())))
        try:
            served = await self._made((request.path_qs, accept, packed), make)
        except UnknownAgentError as exc:
            return _line(404, f"{exc}. {exc.next_step}")
        except PacelineError as exc:
            _log.warning("metrics cannot be read: %s", exc)
            return _line(500, f"the figures cannot be read: {exc}")
        except Exception as exc:  # noqa: BLE001 (a scrape that fails must not end the endpoint)
            _log.error("metrics cannot be read", exc_info=exc)
            return _line(500, "the figures cannot be read; the log says why")
        response = _response(served)
        response.headers["Vary"] = "Accept, Accept-Encoding"
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        return response

    async def _made(self, key: _Key, make: Make) -> Served:
        """The page; one that is being made already is waited for."""
        making = self._making.get(key)
        if making is None:
            making = asyncio.ensure_future(self._make(make, packed=key[-1]))
            self._making[key] = making
            making.add_done_callback(partial(self._made_it, key))
        return await asyncio.shield(making)

    def _made_it(self, key: _Key, task: asyncio.Task[Served]) -> None:
        self._making.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone, and then it is nobody's

    async def _make(self, make: Make, *, packed: bool) -> Served:
        async with self._one_at_a_time:
            return await asyncio.to_thread(_written, make, packed)

    def _is_ours(self, given: Collection[str]) -> bool:
        if len(given) != 1:
            return False
        name = re.sub(r":\d+$", "", next(iter(given)).lower())
        return name in self._hosts or _is_ip(name.removeprefix("[").removesuffix("]"))


@final
class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ends it."""
        transport.close()


@final
class _OneLine(logging.LoggerAdapter[logging.Logger]):
    """Tells of bad HTTP in a line of ours: what a stranger sent is worth no traceback."""

    def exception(self, msg: object, *args: object, **_: Any) -> None:
        """As every logger does."""
        self.warning(msg, *args)


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        raise ConfigError(
            f"{listen!r} is no address to serve metrics at",
            next_step=f"Write address:port, such as {DEFAULT_LISTEN} or [::1]:9464.",
        )
    return host.lower(), int(port)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _accepts_gzip(accepted: str) -> bool:
    for part in accepted.split(","):
        found = _GZIP.fullmatch(part)
        if found:
            return found["q"] is None or found["q"].strip("0.") != ""
    return False


def _written(make: Make, packed: bool) -> Served:  # noqa: FBT001 (only for the thread)
    body, content_type = make()
    return Served(gzip.compress(body, _COMPRESSION) if packed else body, content_type)


def _line(status: int, text: str) -> web.Response:
    return _response((f"{text}\n".encode(), _TYPE), status)


def _response(served: tuple[bytes, str], status: int = 200) -> web.Response:
    body, content_type = served
    response = web.Response(status=status, body=body, headers=_HEADERS)
    response.headers["Content-Type"] = content_type
    return response
