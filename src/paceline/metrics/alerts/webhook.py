"""Sends alerts by HTTP. Addresses are secrets here: they stand in no message and no error."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from paceline.clock import Clock
from paceline.errors import Category, ConfigError, PacelineError
from paceline.metrics.alerts.alert import Alert
from paceline.metrics.alerts.forms import Form
from paceline.redaction import Redactor, Secret
from paceline.retry_after import LONGEST_S, retry_after_s

__all__ = ["WebhookSink"]

_MOST_READ: Final = 4_096
_MOST_SHOWN: Final = 200
_SENT: Final = range(200, 300)
_SERVERS_FAULT: Final = range(500, 600)
_REDIRECTS: Final = range(300, 400)
_CATEGORIES: Final = {
    401: Category.AUTHENTICATION,
    403: Category.AUTHENTICATION,
    404: Category.NOT_FOUND,
    408: Category.UNAVAILABLE,
    410: Category.NOT_FOUND,
    425: Category.UNAVAILABLE,
    429: Category.RATE_LIMIT,
}


@final
class WebhookSink:
    """Posts alerts as JSON, in the `form` that the other side reads.

    It follows no redirect, since that could carry the secret elsewhere, and keeps no cookie.
    `close` ends its connections. Raises ConfigError for an address that is none, without saying
    it.
    """

    def __init__(
        self,
        name: str,
        url: Secret,
        form: Form,
        *,
        clock: Clock,
        token: Secret | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """`token` is sent as a bearer token; `timeout_s` is the limit of one request."""
        self.name = name
        self.where = _checked(name, url)
        """The host, for messages."""
        self._url = url
        self._form = form
        self._clock = clock
        self._token = token
        self._redactor = Redactor([*_secrets(url), *([token] if token else [])])
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, alerts: Sequence[Alert]) -> None:
        """As many requests as the form makes of them. Raises PacelineError at the first that is
        not taken: then those before it are sent again with the rest."""
        for body in self._form(alerts):
            failure = await self._post(body)
            if failure is not None:
                # Raised here and not where it was caught: a foreign exception may hold the
                # address, and would travel along as its context.
                raise failure

    async def close(self) -> None:
        """Ends the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, body: Mapping[str, Any]) -> PacelineError | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        token = self._token
        headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
        try:
            async with self._session.post(
                self._url.reveal(), json=body, headers=headers, allow_redirects=False
            ) as answer:
                said = await answer.content.read(_MOST_READ)
                return self._refusal(answer.status, answer.headers, said)
        except TimeoutError:
            return self._failed("did not answer in time", Category.TIMEOUT)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            why = self._redactor.text(f"{type(exc).__name__}: {getattr(exc, 'strerror', '') or ''}")
            return self._failed(f"cannot be reached ({why.rstrip(': ')})", Category.NETWORK)

    def _refusal(
        self, status: int, headers: Mapping[str, str], said: bytes
    ) -> PacelineError | None:
        """None if the alerts were taken."""
        if status in _SENT:
            return None
        if status in _REDIRECTS:
            return self._failed(f"answered {status}, a redirect", Category.INVALID)
        known = Category.UNAVAILABLE if status in _SERVERS_FAULT else Category.INVALID
        text = self._redactor.text(said.decode("utf-8", "replace"))
        shown = "".join([c if c.isprintable() else " " for c in text[:_MOST_SHOWN]]).strip()
        return self._failed(
            f"answered {status}{f': {shown}' if shown else ''}",
            _CATEGORIES.get(status, known),
            self._asked_s(headers, said),
        )

    def _asked_s(self, headers: Mapping[str, str], said: bytes) -> float | None:
        """How long we are asked to wait: by the header, or as Discord has it, in the body."""
        asked_s = retry_after_s(headers.get("Retry-After"), self._clock.wall_ns())
        return _said_s(said) if asked_s is None else asked_s

    def _failed(self, what: str, category: Category, asked_s: float | None = None) -> PacelineError:
        return PacelineError(
            f"the alert sink {self.name} ({self.where}) {what}",
            category=category,
            retry_after_s=asked_s,
            next_step=f"Check its address, then `paceline alerts test --sink {self.name}`.",
        )


def _checked(name: str, url: Secret) -> str:
    """The host of an address, and its port if that is given."""
    try:
        parts = urlsplit(url.reveal())
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = None, None, None
    if parts is None or parts.scheme not in {"http", "https"} or not host:
        # Not raised where it was caught: the address would be in the context.
        raise ConfigError(
            f"the address of the alert sink {name} is no URL with http or https",
            next_step="Correct it; it is not shown here since it is a secret.",
        )
    return host if port is None else f"{host}:{port}"


def _secrets(url: Secret) -> list[Secret]:
    """The address, and the parts of it that an answer could repeat."""
    parts = urlsplit(url.reveal())
    pieces = [url.reveal(), parts.path, parts.query, parts.password or ""]
    return [Secret(piece) for piece in (*pieces, *parts.path.split("/")) if len(piece) >= 8]  # noqa: PLR2004 (shorter ones are ordinary words)


class _Limited(msgspec.Struct):
    """Discord's answer to one who asks too often."""

    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None


def _said_s(said: bytes) -> float | None:
    try:
        asked_s = msgspec.json.decode(said, type=_Limited).retry_after
    except (msgspec.DecodeError, RecursionError):  # another answer, or nesting without end
        return None
    return None if asked_s is None else min(asked_s, LONGEST_S)
