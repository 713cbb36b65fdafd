"""An HTTP server that is asked things: its connections, and what goes wrong with them as our errors."""

import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Container, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, final

import aiohttp

from paceline.balance.quotas import asked_to_wait_s
from paceline.clock import Clock
from paceline.errors import AgentError, Category, ConfigError, PacelineError, RuntimeClosedError
from paceline.instances.address import address, led_to, place, secrets_of, usable
from paceline.instances.limits import late
from paceline.instances.statuses import MOST_SAID, detail_of, refused
from paceline.redaction import Redactor, Secret

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.rate import Rates

__all__ = ["Answer", "Endpoint"]

_OK: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_NEVER_S: Final = 1e9


@final
class Endpoint:
    """One server. Follows no redirect and keeps no cookie: both could carry the token elsewhere.

    Errors never hold the token, nor anything of the address but host and port; nor do their
    causes, since they have none.
    """

    __slots__ = ("_category_of", "_clock", "_connect_s", "_rates", "_redactor", "_session", "_token",
                 "most_bytes", "url", "who")  # fmt: skip

    def __init__(
        self,
        what: str,
        url: str,
        *,
        clock: Clock,
        token: Secret | None = None,
        rates: "Rates | None" = None,
        connect_s: float = 5.0,
        most_bytes: int = 16 * 1024**2,
        category_of: Callable[[int, bytes], Category | None] = lambda _, __: None,
    ) -> None:
        """`what` it is, for messages. `rates` are told the headers of each answer. Connecting may
        take `connect_s` seconds, an answer have `most_bytes`.

        Raises ConfigError for an address or a token that cannot be used.
        """
        self.url = address(url)
        self.who = f"the {what} at {place(url)}"
        self.most_bytes = most_bytes
        self._token = usable(token)
        self._redactor = Redactor(secrets_of(url, self._token))
        self._clock = clock
        self._rates = rates
        self._category_of = category_of
        self._connect_s = connect_s
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.who})"

    def open(self) -> None:
        """Has a place for connections; makes none. Raises ConfigError if it is open."""
        if self._session is not None:
            raise ConfigError(f"{self.who} is open already", next_step="Use it in one place only.")
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # whoever leases it knows how many it takes
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},  # what is bounded is what comes
            auto_decompress=False,
            trace_configs=[tracing],
        )

    async def close(self) -> None:
        """Ends all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(
        self,
        method: str,
        url: str,
        limit_s: float,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        lease: "Lease | None" = None,
        accepts: Container[int] = _OK,
    ) -> "Answer":
        """The answer to one request, if its status is one of `accepts`; it has to be closed. The
        whole may take `limit_s` seconds. Raises PacelineError for all else."""
        if self._session is None:
            raise RuntimeClosedError(
                f"{self.who} is not open", next_step="Use it inside `async with`."
            )
        sent: dict[str, str] = {**(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if self._token:
            sent["Authorization"] = f"Bearer {self._token.reveal()}"
        progress = SimpleNamespace(sent=False)
        failure: PacelineError | None = None
        try:
            response = await self._session.request(
                method,
                url,
                data=body,
                headers=sent,
                timeout=aiohttp.ClientTimeout(
                    total=limit_s, connect=self._connect_s, ceil_threshold=_NEVER_S
                ),
                allow_redirects=False,
                trace_request_ctx=progress,
            )
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            failure = self._broken(exc, limit_s, started=progress.sent)
        else:
            answer = Answer(self, response, limit_s)
            try:
                self._told(response, lease)
                if response.status in accepts:
                    return answer
                failure = await self._refused(answer)
            except BaseException:
                answer.close()
                raise
            answer.close()
        # Not raised where it was caught: the foreign error, which may hold the token, would go
        # along as its context.
        raise failure

    def broken(self, exc: Exception, limit_s: float) -> PacelineError:
        """The error for an answer that breaks off."""
        return self._broken(exc, limit_s, started=True)

    def refusal(
        self,
        status: int,
        body: bytes,
        *,
        retry_after_s: float | None = None,
        started: bool = False,
    ) -> PacelineError:
        """The error for a status that is no success, and what comes with it; `started` if the work
        has begun whatever the status."""
        error = refused(
            self.who,
            status,
            detail_of(body, self._redactor),
            category=self._category_of(status, body),
            retry_after_s=retry_after_s,
        )
        error.may_have_started = error.may_have_started or started
        return error

    def unfinished(self) -> PacelineError:
        """The error for an answer that ends too soon."""
        return AgentError(
            f"{self.who} broke off before its answer was complete",
            next_step="Look at its own log.",
            category=Category.NETWORK,
            may_have_started=True,
        )

    def useless(self, why: str) -> PacelineError:
        """The error for an answer that cannot be used."""
        return AgentError(
            f"{self.who} {why}",
            next_step="Check its address, and its own log.",
            may_have_started=True,
        )

    def _told(self, response: aiohttp.ClientResponse, lease: "Lease | None") -> None:
        """An answer begins: what does its head say of limits?"""
        if self._rates is None:
            return
        self._rates.told(response.headers, response.status)
        if lease is not None:
            lease.instance.changed()

    async def _refused(self, answer: "Answer") -> PacelineError:
        """The error for an answer that is no success."""
        if answer.status in _REDIRECTS:
            return self._moved(answer)
        body = bytearray()
        with contextlib.suppress(PacelineError):  # the status is known already
            async for chunk in answer.chunks():
                body += chunk
                if len(body) >= MOST_SAID:
                    break
        wait_s = asked_to_wait_s(answer.headers, self._clock.wall_ns())
        return self.refusal(answer.status, bytes(body), retry_after_s=wait_s)

    def _moved(self, answer: "Answer") -> PacelineError:
        """The error for an answer that leads elsewhere."""
        where = led_to(answer.url, answer.headers.get("Location", ""))
        shown = detail_of(where.encode("utf-8", "replace"), self._redactor)
        return AgentError(
            f"{self.who} answered {answer.status}: it leads {f'to {shown}' if shown else 'elsewhere'}",
            next_step="Redirects are not followed: give the address it leads to as its url, if you "
            "trust that.",
            category=Category.INVALID,
        )

    def _broken(self, exc: Exception, limit_s: float, *, started: bool) -> PacelineError:
        """The error for a connection that failed."""
        unconnected = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        if not started or isinstance(exc, unconnected):
            if isinstance(exc, TimeoutError) and limit_s <= self._connect_s:
                return late(self.who, limit_s, started=False)
            return AgentError(
                f"{self.who} cannot be reached: {_why(exc)}",
                next_step="See whether it runs, and check its address.",
                category=Category.NETWORK,
            )
        if isinstance(exc, TimeoutError):
            return late(self.who, limit_s)
        return self.unfinished()


@final
class Answer:
    """An answer that begins to come. Closed before it is complete, its connection is not used again."""

    __slots__ = ("_endpoint", "_limit_s", "_response")

    def __init__(
        self, endpoint: Endpoint, response: aiohttp.ClientResponse, limit_s: float
    ) -> None:
        """An Endpoint makes them."""
        self._endpoint = endpoint
        self._response = response
        self._limit_s = limit_s

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def url(self) -> str:
        """What was asked."""
        return str(self._response.url)

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, whatever their case."""
        return self._response.headers

    @property
    def kind(self) -> str:
        """Its content type, without parameters and in lower case."""
        return self._response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """What it says, as it comes. Raises PacelineError where it breaks off or is too large."""
        failure: PacelineError | None = None
        read = 0
        try:
            async for chunk in self._response.content.iter_any():
                read += len(chunk)
                if read > self._endpoint.most_bytes:
                    failure = self._endpoint.useless("gave an answer larger than is read")
                    break
                yield chunk
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            failure = self._endpoint.broken(exc, self._limit_s)
        if failure is not None:
            raise failure

    async def body(self) -> bytes:
        """All of it."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def drain(self) -> None:
        """Reads what is left, of which nothing is wanted, so that the connection can serve again."""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async for _ in self._response.content.iter_any():
                pass

    def close(self) -> None:
        """Ends it."""
        self._response.close()


async def _note_sent(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
) -> None:
    """From here on the server may have begun."""
    context.trace_request_ctx.sent = True


def _why(exc: Exception) -> str:
    """In words, without the address."""
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "no such host"
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return "its certificate or its encryption is not accepted"
    number = exc.errno if isinstance(exc, OSError) else None
    return os.strerror(number) if number and number > 0 else "the connection failed"
