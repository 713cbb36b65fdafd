"""Host commands through the service: the same as a HostExec of one's own."""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Final, final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from paceline.clock import Clock
from paceline.errors import (
    CallTimeoutError,
    Category,
    ConfigError,
    ExecServiceError,
    InvalidInputError,
    PacelineError,
)
from paceline.hostexec.http import token as tokens
from paceline.hostexec.http.wire import MOST_S, MOST_WHO, ExecRequest, outcome
from paceline.hostexec.result import CommandResult
from paceline.hostexec.text import split
from paceline.redaction import Secret
from paceline.retry_after import retry_after_s

__all__ = ["HostExecClient"]

_NS: Final = 1_000_000_000
_LONGEST_REPLY: Final = 16 * 1024**2
_PATHS: Final = frozenset({"", "/", "/run"})


def _session_of_its_own() -> aiohttp.ClientSession:
    """A connection of its own for each command: none that was kept can turn out to be closed
    just when a command was sent through it, which would leave open whether it ran."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@final
class HostExecClient:
    """Runs commands through a host command service.

    Repeats nothing: `may_have_started` of its errors says whether repeating is safe. Has
    nothing to close.
    """

    __slots__ = ("_clock", "_connect_s", "_grace_s", "_patience_s", "_session", "_token", "url")

    def __init__(
        self,
        url: str,
        token: Secret,
        *,
        clock: Clock,
        allow_remote: bool = False,
        connect_s: float = 5.0,
        patience_s: float = 330.0,
        session: Callable[[], aiohttp.ClientSession] = _session_of_its_own,
    ) -> None:
        """`url` is the service's root; that of its `/run` is understood too.

        `connect_s` bounds connecting, `patience_s` a command without a deadline. Raises
        ConfigError for a URL that is none of a service, or not on loopback unless
        `allow_remote`, and for an unusable token.
        """
        self.url = _endpoint(url, allow_remote=allow_remote)
        self._token = tokens.checked(token)
        self._clock = clock
        self._connect_s = connect_s
        self._patience_s = patience_s
        self._grace_s = 1.0
        self._session = session

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        deadline_ns: int | None = None,
        who: str = "",
    ) -> CommandResult:
        """As HostExec.run, errors included; the service keeps the deadline.

        Raises in addition ExecServiceError: category `unavailable` with nothing started where
        the service cannot be reached, `authentication` where it does not know the token,
        `network` where the connection broke later. Being cancelled cancels the command.
        """
        left_s = self._left_s(deadline_ns)
        if left_s is not None and left_s <= 0:
            raise CallTimeoutError("the deadline passed before the command was sent")
        argv = split(command) if isinstance(command, str) else tuple(command)
        asked = ExecRequest(
            argv=argv,
            timeout_s=None if timeout_s is None else min(timeout_s, MOST_S),
            deadline_s=None if left_s is None else min(left_s, MOST_S),
            who=who[:MOST_WHO],
        )
        try:
            body = msgspec.json.encode(asked)
        except UnicodeEncodeError as exc:
            raise InvalidInputError("the command is not valid Unicode") from exc
        # The service ends the command at its deadline, and tells so a little later.
        limit_s = self._patience_s if left_s is None else left_s + self._grace_s
        try:
            status, said, asked_s = await self._post(body, limit_s)
        except (aiohttp.ClientError, OSError) as exc:
            raise _broken(self.url, exc) from exc
        return outcome(status, said, asked_s)

    async def _post(self, body: bytes, limit_s: float) -> tuple[int, bytes, float | None]:
        timeout = aiohttp.ClientTimeout(total=limit_s, connect=self._connect_s)
        headers = {"X-Exec-Token": self._token.reveal(), "Content-Type": "application/json"}
        async with (
            self._session() as session,
            session.post(
                self.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response,
        ):
            said = bytearray()
            async for chunk in response.content.iter_any():
                said += chunk
                if len(said) > _LONGEST_REPLY:
                    raise ExecServiceError(
                        "the reply of the host command service has no end",
                        category=Category.INVALID,
                        may_have_started=True,
                    )
            asked_s = retry_after_s(response.headers.get("Retry-After"), self._clock.wall_ns())
            return response.status, bytes(said), asked_s

    def _left_s(self, deadline_ns: int | None) -> float | None:
        return None if deadline_ns is None else (deadline_ns - self._clock.monotonic_ns()) / _NS


def _broken(url: str, exc: Exception) -> PacelineError:
    """The error for a connection that failed: before the request was sent, or after."""
    if isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        why = getattr(exc, "strerror", None) or "no answer in time"
        return ExecServiceError(f"the host command service at {url} cannot be reached: {why}")
    if isinstance(exc, TimeoutError):
        return CallTimeoutError(
            "the host command service did not answer in time", may_have_started=True
        )
    return ExecServiceError(
        "the connection to the host command service broke before the answer",
        category=Category.NETWORK,
        may_have_started=True,
    )


def _endpoint(url: str, *, allow_remote: bool) -> str:
    """Where commands are posted."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError("hostexec.url is not a URL") from exc
    if parts.scheme not in {"http", "https"} or not name:
        raise ConfigError("hostexec.url has to be http://host:port")
    # Not shown: what stands before an @ is a password.
    if "@" in parts.netloc or parts.query or parts.fragment or parts.path not in _PATHS:
        raise ConfigError("hostexec.url has to be http://host:port and nothing more")
    if not allow_remote and not _is_loopback(name):
        raise ConfigError(
            f"hostexec.url leads to another machine ({name})",
            next_step="Use an address on loopback, or allow remote access explicitly.",
        )
    host = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}/v1/exec"


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
