"""A server somewhere else, spoken to over streamable HTTP.

The SDK does the speaking. What is below it here turns all that goes wrong on the way into answers
that name what it was, each to the one request that it befell, and bounds how much is read.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import msgspec

from paceline.clock import Clock
from paceline.errors import Category
from paceline.retry_after import retry_after_s
from paceline.tools.mcp.failures import broken
from paceline.tools.mcp.sdk import (
    httpx2,
    streamable_http_client,
    types,
)

__all__ = ["http_transport"]

_QUIET_S: Final = 300.0
"""How long a stream may say nothing before it counts as lost."""
_FAILED: Final = 400
_LOST: Final = 404
_MOST_OF_ERROR: Final = 65_536
_BY_STATUS: Final = {
    401: Category.AUTHENTICATION,
    403: Category.AUTHENTICATION,
    404: Category.UNAVAILABLE,
    408: Category.TIMEOUT,
    413: Category.INVALID,
    429: Category.RATE_LIMIT,
    500: Category.EXECUTION,
    502: Category.UNAVAILABLE,
    503: Category.UNAVAILABLE,
    504: Category.TIMEOUT,
}
_NEVER_RAN: Final = frozenset({401, 403, 404, 413, 429})
_WORDS: Final = {
    401: "refuses the token",
    403: "refuses the token",
    404: "is not at this address, or does not know the session any more",
    429: "gets too many requests",
}


@asynccontextmanager
async def http_transport(
    url: str, token: str, *, clock: Clock, most_bytes: int, grace_s: float
) -> AsyncGenerator[tuple[Any, Any]]:
    """The two streams of a session with the server there. One answer may have `most_bytes`; the end
    of the session may take `grace_s` seconds."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    guard = _Guard(httpx2.AsyncHTTPTransport(trust_env=False), clock, most_bytes, grace_s)
    limits = httpx2.Timeout(_QUIET_S, connect=30.0)
    async with (
        httpx2.AsyncClient(
            transport=guard, headers=headers, timeout=limits, trust_env=False
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=most_bytes) as streams,
    ):
        yield streams


@final
class _Guard(httpx2.AsyncBaseTransport):
    """A request always has an answer, and its body an end."""

    def __init__(
        self, inner: httpx2.AsyncBaseTransport, clock: Clock, most_bytes: int, grace_s: float
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._most_bytes = most_bytes
        self._grace_s = grace_s

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":  # the end of a session, which nobody waits for
            limits = dict.fromkeys(("connect", "read", "write", "pool"), self._grace_s)
            request.extensions = {**request.extensions, "timeout": limits}
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as exc:
            words = f"cannot be reached: {exc}" if str(exc) else "cannot be reached"
            return _answer(broken(words, Category.NETWORK, started=False))
        except httpx2.TransportError as exc:
            words = f"broke off ({type(exc).__name__})"
            return _answer(broken(words, Category.NETWORK))
        if request.method != "POST":
            return response
        if response.status_code >= _FAILED:
            return await self._refusal(response, known="mcp-session-id" in request.headers)
        if response.headers.get("content-type", "").lower().startswith("application/json"):
            response.stream = _Bounded(response, self._most_bytes)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _refusal(self, response: httpx2.Response, *, known: bool) -> httpx2.Response:
        """What the server says in its own words, or what its status means."""
        status = response.status_code
        response.stream = _Bounded(response, _MOST_OF_ERROR)
        try:
            body = await response.aread()
            said = msgspec.json.decode(body, type=dict[str, object])
        except (httpx2.StreamError, httpx2.DecodingError, msgspec.MsgspecError, UnicodeError):
            said = {}
        finally:
            await response.aclose()
        if "jsonrpc" in said and isinstance(said.get("error"), dict) and status != _LOST:
            return httpx2.Response(status, json=said)
        words = _WORDS.get(status, "cannot serve it")
        error = broken(
            f"{words} (HTTP {status})",
            _BY_STATUS.get(status, Category.INVALID if status < 500 else Category.UNAVAILABLE),  # noqa: PLR2004
            started=status not in _NEVER_RAN,
            retry_after_s=retry_after_s(response.headers.get("retry-after"), self._clock.wall_ns()),
            over=known and status == _LOST,
        )
        return _answer(error)


@final
class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer. What breaks off, or does not end, is said in the way that the SDK
    expects of a body."""

    def __init__(self, response: httpx2.Response, most: int) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 (it was asked async)
        self._inner = response.stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        try:
            async for piece in self._inner:
                length += len(piece)
                if length > self._most:
                    raise httpx2.StreamError(f"it has more than {self._most:,} bytes")
                yield piece
        except httpx2.TransportError as exc:
            raise httpx2.StreamError(f"it broke off ({type(exc).__name__})") from exc

    async def aclose(self) -> None:
        await self._inner.aclose()


def _answer(error: types.ErrorData) -> httpx2.Response:
    """As the server's own refusal would look."""
    said = types.JSONRPCError(jsonrpc="2.0", id=None, error=error)
    return httpx2.Response(
        500,
        content=said.model_dump_json(by_alias=True),
        headers={"content-type": "application/json"},
    )
