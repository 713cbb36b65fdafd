"""A TCP proxy that behaves badly on request, for tests of whatever talks over a network.

::

    async with FaultProxy("127.0.0.1", port) as proxy:
        client = await connect(proxy.host, proxy.port)
        proxy.faults = Faults(delay_s=0.1)          # from now on, open connections included
        proxy.faults = Faults(reset_after=100)      # cut after 100 more bytes of replies
        proxy.faults = Faults(status=429, retry_after="2")  # answers HTTP requests by itself

It delays, cuts replies into pieces, resets or ends connections in the middle of a reply, swallows
everything, refuses, and answers with an HTTP status of your choice. Time is the loop's.
"""

import asyncio
import contextlib
import re
import struct
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Final, Self, final

import msgspec

__all__ = ["FaultProxy", "Faults"]

_CHUNK: Final = 65_536
_HEAD_ENDS: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


@final
class Faults(msgspec.Struct, frozen=True):
    """What goes wrong. `delay_s` holds every chunk back that many seconds, each way; `slice_bytes`
    passes replies on in pieces of this size (0: as they come), `pause_s` apart; `reset_after` resets
    a connection once so many bytes of replies have passed since this was set, `end_after` ends it
    in good order; `blackhole` swallows all bytes and answers nothing; `refuse` resets every new
    connection. `status` answers each HTTP request with it, and with `retry_after` as Retry-After;
    the server behind the proxy does not see the request.
    """

    delay_s: float = 0.0
    slice_bytes: int = 0
    pause_s: float = 0.0
    reset_after: int | None = None
    end_after: int | None = None
    blackhole: bool = False
    refuse: bool = False
    status: int = 0
    retry_after: str = ""


@final
class FaultProxy:
    """Listens on a free loopback port and passes bytes on to the server at `host`:`port`.

    `faults` may be replaced at any time. `connections` counts those that were taken, `open` are
    there now, `swallowed` counts bytes that went into the black hole, `answered` requests that it
    answered itself.
    """

    def __init__(self, host: str, port: int, faults: Faults | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.connections = 0
        self.swallowed = 0
        self.answered = 0
        self._target = (host, port)
        self._faults = faults or Faults()
        self._passed = 0  # bytes of replies since the faults were set
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def faults(self) -> Faults:
        """What goes wrong at present."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._passed = 0

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._open)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self.reset()

    async def reset(self) -> None:
        """Resets all open connections now."""
        open_now = list(self._open)
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        if task is None or self._faults.refuse:
            _reset(writer)
            return
        self._open.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            # By `reset`, or because the loop ends: a handler that ends so is reported as an error.
            return
        finally:
            self._open.discard(task)
            _reset(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            return
        ways = [
            asyncio.ensure_future(self._pass_requests(reader, server_writer, writer)),
            asyncio.ensure_future(self._pass_replies(server_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            _reset(server_writer)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_requests(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # an end is gone
            while data := await source.read(_CHUNK):
                if self._faults.status:
                    await self._answer(data, source, back)
                elif await self._let_pass(data):
                    sink.write(data)
                    await sink.drain()

    async def _pass_replies(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if not await self._let_pass(data):
                    continue
                for piece in self._pieces(data):
                    if not await self._reply(piece, sink):
                        return
                await sink.drain()

    async def _let_pass(self, data: bytes) -> bool:
        if self._faults.delay_s:
            await asyncio.sleep(self._faults.delay_s)
        if self._faults.blackhole:
            self.swallowed += len(data)
        return not self._faults.blackhole

    async def _answer(
        self, data: bytes, source: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        """Answers one HTTP request of which this is the beginning, when all of it is there."""
        head, end, body = data.partition(_HEAD_ENDS)
        if not end:
            more = await source.readuntil(_HEAD_ENDS)
            head, body = data + more, b""
        length = _LENGTH.search(head)
        await source.readexactly(max(0, (int(length[1]) if length else 0) - len(body)))
        if self._faults.delay_s:
            await asyncio.sleep(self._faults.delay_s)
        self.answered += 1
        back.write(_answer(self._faults, with_body=not head.startswith(b"HEAD ")))
        await back.drain()

    def _pieces(self, data: bytes) -> list[bytes]:
        size = self._faults.slice_bytes or len(data) or 1
        return [data[start : start + size] for start in range(0, len(data), size)]

    async def _reply(self, piece: bytes, sink: asyncio.StreamWriter) -> bool:
        """Passes a piece on; False where the connection is to be cut."""
        faults = self._faults
        limits = [limit for limit in (faults.reset_after, faults.end_after) if limit is not None]
        left = max(0, min(limits) - self._passed) if limits else len(piece)
        self._passed += len(piece)
        sink.write(piece[:left])
        if faults.slice_bytes or left < len(piece):
            await asyncio.sleep(faults.pause_s)  # let the other side read what there is
        if left < len(piece) and faults.reset_after is None:
            sink.write_eof()
            await asyncio.get_running_loop().create_future()  # the other side ends it now
        return left >= len(piece)


def _answer(faults: Faults, *, with_body: bool) -> bytes:
    body = b'{"error":{"message":"so says the fault proxy"}}'
    lines = [
        f"HTTP/1.1 {faults.status} Fault",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"Retry-After: {faults.retry_after}"] if faults.retry_after else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (body if with_body else b"")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection as a crashed process would: by a reset, not by an orderly end."""
    wire = writer.get_extra_info("socket")
    if wire is not None and wire.fileno() >= 0:
        _linger(wire)
    writer.transport.abort()


def _linger(wire: socket) -> None:
    wire.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
