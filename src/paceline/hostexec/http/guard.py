"""What a request to the host command service has to look like before anything in it is believed."""

import asyncio
from typing import Final, final

import msgspec
from aiohttp import HttpVersion10, web

__all__ = ["Guard", "HttpLimits", "Refused"]

_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the service. Times in seconds, sizes in bytes."""

    body_bytes: int = 64 * 1024
    body_s: float = 5.0
    """For the whole body of a request to arrive."""
    header_s: float = 5.0
    """For the whole head of a request to arrive, from the connection or the last response on."""
    headers: int = 64
    """Header lines of a request."""
    header_line_bytes: int = 4096
    header_bytes: int = 16 * 1024
    """All header lines together."""
    connections: int = 512
    write_s: float = 10.0
    """A client that does not read what it asked for is dropped after this."""
    linger_s: float = 1.0
    """How long the rest of a refused request is still taken in, so that its sender gets to read
    the answer."""
    drain_s: float = 2.0
    """How long closing waits for running commands before it cancels them."""


class Refused(msgspec.Struct, frozen=True):
    """An answer given without looking further."""

    status: int
    reason: str
    detail: str


@final
class Guard(msgspec.Struct, frozen=True):
    """Judges requests before anybody asks who sent them.

    A page in a browser reaches loopback too: under a name of its own that was made to point
    here (so the Host has to be ours), or by a plain form (so there must be no foreign Origin,
    and the content JSON).
    """

    limits: HttpLimits
    hosts: frozenset[str] = frozenset()
    """`name:port` by which the service may be addressed, beside loopback and the address it is
    reached at."""
    origins: frozenset[str] = frozenset()
    """Origins whose pages may ask; without one here, none."""

    def refusal(self, request: web.Request) -> Refused | None:
        """Why this request is refused, from its head alone; None where it is not."""
        return (
            self._size(request)
            or self._target(request)
            or self._host(request)
            or self._origin(request)
            or self._content(request)
        )

    async def body(self, request: web.Request) -> bytes | Refused:
        """The body, as far as it is allowed to be large and slow."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > self.limits.body_bytes:
                        return self._too_large()
        except TimeoutError:
            return Refused(408, "slow_body", "the body did not arrive in time")
        except web.RequestPayloadError:
            return Refused(400, "bad_body", "the body is not what its headers say")
        return bytes(body)

    def _size(self, request: web.Request) -> Refused | None:
        head = sum(len(name) + len(value) for name, value in request.raw_headers)
        if head > self.limits.header_bytes:
            return Refused(431, "headers_too_large", "the headers are too large")
        if (request.content_length or 0) > self.limits.body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> Refused:
        most = self.limits.body_bytes
        return Refused(413, "body_too_large", f"a body has at most {most} bytes")

    @staticmethod
    def _target(request: web.Request) -> Refused | None:
        if request.version < HttpVersion10:
            return Refused(400, "bad_version", "HTTP/1.0 or HTTP/1.1 is spoken here")
        if not request.raw_path.startswith("/"):
            return Refused(400, "bad_target", "the target has to be a path")
        return None

    def _host(self, request: web.Request) -> Refused | None:
        given = request.headers.getall("Host", ())
        if len(given) != 1:
            return Refused(400, "bad_host", "there has to be one Host")
        if given[0].lower() in self._own(request) | self.hosts:
            return None
        return Refused(421, "host_not_allowed", "this service is not known by that Host")

    @staticmethod
    def _own(request: web.Request) -> frozenset[str]:
        """Loopback, and the address this connection came to, with its port."""
        name = request.get_extra_info("sockname")
        if not name:  # the client is gone
            return frozenset()
        address, port = name[:2]
        literal = f"[{address}]" if ":" in address else address
        return frozenset(f"{own}:{port}" for own in (*_LOOPBACK_NAMES, literal))

    def _origin(self, request: web.Request) -> Refused | None:
        if all(origin in self.origins for origin in request.headers.getall("Origin", ())):
            return None
        return Refused(403, "origin_not_allowed", "pages of that origin may not ask")

    @staticmethod
    def _content(request: web.Request) -> Refused | None:
        if request.method != "POST":
            return None
        types = request.headers.getall("Content-Type", ())
        if len(types) != 1 or request.content_type != "application/json":
            return Refused(415, "not_json", "the Content-Type has to be application/json")
        encodings = request.headers.getall("Content-Encoding", ())
        if any(encoding.lower() != "identity" for encoding in encodings):
            return Refused(415, "encoded", "the body may not be compressed")
        return None
