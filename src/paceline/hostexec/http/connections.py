"""What an HTTP server's connections may take: so many at once, and none that only ever waits.

aiohttp closes a connection whose next request does not come in time; the number of connections
and readers that do not read are left to this.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast, final

__all__ = ["Door"]

_SAID: Final = b'{"reason":"full","detail":"too many connections"}'
_FULL: Final = b"\r\n".join(
    (
        b"HTTP/1.1 503 Service Unavailable",
        b"Retry-After: 1",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(_SAID),
        b"Connection: close",
        b"",
        _SAID,
    )
)


@final
class Door:
    """Makes a protocol for each new connection: the one `inside`, or a polite refusal."""

    __slots__ = ("inside", "most", "open", "write_s")

    def __init__(
        self, inside: Callable[[], asyncio.Protocol], *, most: int, write_s: float
    ) -> None:
        """`most` connections at once; one whose peer reads nothing for `write_s` is dropped."""
        self.inside = inside
        self.most = most
        self.write_s = write_s
        self.open = 0

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self)


@final
class _Connection(asyncio.Protocol):
    """Hands everything on, and keeps count and time."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door.open += 1
        self._transport = cast("asyncio.Transport", transport)
        if self._door.open > self._door.most:
            self._transport.write(_FULL)
            self._transport.close()
            return
        self._inner = self._door.inside()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.open -= 1
        self._read_on()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is None or self._transport is None:
            return
        self._inner.pause_writing()
        loop = asyncio.get_running_loop()
        self._stuck = loop.call_later(self._door.write_s, self._transport.abort)

    def resume_writing(self) -> None:
        self._read_on()
        if self._inner is not None:
            self._inner.resume_writing()

    def _read_on(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
