"""The fault proxy: it does the harm it is asked for, and none else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from paceline.testing import virtual_time
from paceline.testing.fault_proxy import FaultProxy, Faults


@contextlib.asynccontextmanager
async def _echo() -> AsyncIterator[int]:
    """The port of a server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _got(port: int, request: bytes) -> bytes:
    """All that comes back for a request, until the other side has ended it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _through(
    faults: Faults | None = None,
) -> AsyncIterator[tuple[FaultProxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with _echo() as port, FaultProxy("127.0.0.1", port, faults) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        try:
            yield proxy, reader, writer
        finally:
            writer.transport.abort()


async def test_without_faults_it_passes_everything_on() -> None:
    """All bytes come through, in order, both ways; an end closes the other."""
    async with _through() as (proxy, reader, writer):
        data = bytes(range(256)) * 4_000
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        assert (proxy.connections, proxy.open) == (1, 1)
        writer.close()
        await writer.wait_closed()
        while proxy.open:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


def test_it_delays() -> None:
    """Every chunk is held back on its way there and on its way back."""

    async def main() -> None:
        async with _through(Faults(delay_s=3.0)) as (_, reader, writer):
            start = asyncio.get_running_loop().time()
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert asyncio.get_running_loop().time() - start >= 6

    virtual_time.run(main())


async def test_it_slices() -> None:
    """Replies come in pieces of the size asked for, and whole in the end."""
    async with _through(Faults(slice_bytes=1)) as (_, reader, writer):
        writer.write(b"hello")
        sizes: list[int] = []
        while sum(sizes) < 5:
            sizes.append(len(await reader.read(100)))
        assert len(sizes) > 1


async def test_it_resets_after_so_many_bytes() -> None:
    """Exactly the first bytes of the reply arrive, then the connection is gone."""
    async with _through(Faults(reset_after=3)) as (proxy, reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(3) == b"hel"
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        proxy.faults = Faults()
        _, again = await asyncio.open_connection(proxy.host, proxy.port)
        again.close()


async def test_it_resets_on_demand() -> None:
    """All open connections can be ended at once."""
    async with _through() as (proxy, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        await proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        assert proxy.open == 0


async def test_it_swallows_until_told_otherwise() -> None:
    """In a black hole bytes are lost and the connection stays; afterwards it works again."""
    async with _through(Faults(blackhole=True)) as (proxy, reader, writer):
        writer.write(b"lost")
        while proxy.swallowed < 4:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)
        proxy.faults = Faults()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"


async def test_it_refuses() -> None:
    """A new connection is reset before anything is sent; one that was open stays."""
    async with _through() as (proxy, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        proxy.faults = Faults(refuse=True)
        with pytest.raises(OSError):  # while connecting or while reading  # noqa: PT012
            refused, _ = await asyncio.open_connection(proxy.host, proxy.port)
            await refused.readexactly(1)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"


async def test_a_server_that_is_away_ends_the_connection() -> None:
    """Nobody behind it: the client is reset, the proxy goes on."""
    async with _echo() as port:
        pass
    async with FaultProxy("127.0.0.1", port) as proxy:
        with pytest.raises(OSError):  # noqa: PT012
            reader, _ = await asyncio.open_connection(proxy.host, proxy.port)
            await reader.readexactly(1)
        assert proxy.connections == 1


async def test_it_ends_after_so_many_bytes() -> None:
    """Exactly the first bytes of the reply arrive, then the connection ends in good order."""
    async with _echo() as port, FaultProxy("127.0.0.1", port, Faults(end_after=3)) as proxy:
        assert await _got(proxy.port, b"hello") == b"hel"
        while proxy.open:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


def test_it_takes_its_time() -> None:
    """Pieces of a reply come as far apart as asked for."""

    async def main() -> None:
        async with _through(Faults(slice_bytes=1, pause_s=2.0)) as (_, reader, writer):
            start = asyncio.get_running_loop().time()
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert asyncio.get_running_loop().time() - start >= 8

    virtual_time.run(main())


@pytest.mark.parametrize("at", [1, 20, 60])
async def test_it_answers_http_by_itself(at: int) -> None:
    """Each request is answered with the status asked for, however it comes, and the server does not
    see it; afterwards the connection serves as before."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + b"x" * 20
    async with _through(Faults(status=429, retry_after="2")) as (proxy, reader, writer):
        for _ in range(2):
            writer.write(request[:at])
            await writer.drain()
            writer.write(request[at:])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nRetry-After: 2\r\n" in head
            body = await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
            assert body.endswith(b"}")
        assert proxy.answered == 2
        proxy.faults = Faults()
        writer.write(b"echoed")
        assert await reader.readexactly(6) == b"echoed"


async def test_it_answers_heads_without_a_body() -> None:
    """The answer to a HEAD has no body, and without a wish to wait it says none."""
    async with _through(Faults(status=500)) as (_, reader, writer):
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" * 1)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b"Retry-After" not in head
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readexactly(9)) == b"HTTP/1.1 "
