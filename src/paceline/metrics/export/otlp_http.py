"""Sends encoded OTLP by HTTP. Headers are secrets here: they stand in no message and no error.

The sending is ours, not the SDK's: its exporters take headers and certificates from the process's
environment whatever they are told, log every failure, and have no limit for a request as a whole.
"""

import gzip
from collections.abc import Mapping
from typing import Final, final

import aiohttp

from paceline.clock import Clock
from paceline.errors import Category, PacelineError
from paceline.metrics.export.otlp_options import OtlpOptions
from paceline.retry_after import retry_after_s

__all__ = ["OtlpHttp"]

_MOST_READ: Final = 65_536
_WORTH_PACKING: Final = 1_024
_TAKEN: Final = range(200, 300)
_CATEGORIES: Final = {
    401: Category.AUTHENTICATION,
    403: Category.AUTHENTICATION,
    404: Category.NOT_FOUND,
    429: Category.RATE_LIMIT,
    502: Category.UNAVAILABLE,
    503: Category.UNAVAILABLE,
    504: Category.UNAVAILABLE,
}
"""After which a request may be sent again is said by OTLP: 429, 502, 503 and 504."""


@final
class OtlpHttp:
    """Connections to one receiver. It follows no redirect, since that could carry secrets
    elsewhere, and keeps no cookie."""

    def __init__(self, options: OtlpOptions, clock: Clock) -> None:
        self._base = options.endpoint.rstrip("/")
        self._where = options.where
        self._headers = options.headers
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=options.timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes) -> bytes:
        """Sends one message and returns the answer. Raises PacelineError if it was not taken, of
        a transient category if the same may be taken later."""
        answer = await self._post(path, body)
        if isinstance(answer, bytes):
            return answer
        # Raised here and not where it was caught: a foreign exception may hold the headers, and
        # would travel along as its context.
        raise answer

    async def close(self) -> None:
        """Ends the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, path: str, body: bytes) -> bytes | PacelineError:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {name: value.reveal() for name, value in self._headers.items()}
        headers["Content-Type"] = "application/x-protobuf"
        if len(body) >= _WORTH_PACKING:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1, mtime=0)
        try:
            async with self._session.post(
                self._base + path, data=body, headers=headers, allow_redirects=False
            ) as answer:
                said = await answer.content.read(_MOST_READ)
                if answer.status in _TAKEN:
                    return said
                return self._refused(answer.status, answer.headers)
        except TimeoutError:
            return self._failed("did not answer in time", Category.TIMEOUT)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return self._failed(f"cannot be reached ({type(exc).__name__})", Category.NETWORK)

    def _refused(self, status: int, headers: Mapping[str, str]) -> PacelineError:
        return self._failed(
            f"answered {status}",
            _CATEGORIES.get(status, Category.INVALID),
            retry_after_s(headers.get("Retry-After"), self._clock.wall_ns()),
        )

    def _failed(self, what: str, category: Category, asked_s: float | None = None) -> PacelineError:
        return PacelineError(
            f"the OTLP receiver {self._where} {what}",
            category=category,
            retry_after_s=asked_s,
            next_step="See that it runs there, and takes OTLP by HTTP with these headers.",
        )
