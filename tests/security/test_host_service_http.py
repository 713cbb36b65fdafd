"""The host command service as HTTP: malformed, oversized, slow, foreign and too many requests."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from paceline.hostexec.http import connections, wire
from paceline.hostexec.http import service as service_module
from paceline.hostexec.http.guard import Guard, HttpLimits, Refused
from tests.security import service_host
from tests.security.service_host import (
    FakeHost,
    ask,
    connected,
    patience,
    raw,
    read_all,
    request,
    result,
    serving,
)
from tests.security.shell_host import until

Headers = dict[str, str | None]
KEPT: Headers = {"Connection": "keep-alive"}


# -- foreign ----------------------------------------------------------------------------------


async def check_hosts() -> None:
    host = FakeHost()
    async with serving(host, hosts=frozenset({"tools.internal:80"})) as url:
        port = url.rpartition(":")[2]
        for name, status in (
            (f"127.0.0.1:{port}", 200),
            (f"LOCALHOST:{port}", 200),
            (f"[::1]:{port}", 200),
            ("tools.internal:80", 200),
            ("tools.internal:81", 421),
            ("evil", 421),
            (f"evil:{port}", 421),
            ("127.0.0.1", 421),
            ("127.0.0.1:1", 421),
            (f"127.0.0.1.evil:{port}", 421),
            (f"evil@127.0.0.1:{port}", 421),
            (f"127.0.0.1:{port}, evil", 421),
            (f"[::ffff:127.0.0.1]:{port}", 421),
            ("", 421),
            (None, 400),
            (f"127.0.0.1:{port}\r\nHost: 127.0.0.1:{port}", 400),
        ):
            told = await ask(url, headers={"Host": name})
            assert told.status == status, name
        old = request(url, headers={"Host": None}).replace(b"HTTP/1.1", b"HTTP/1.0")
        assert (await raw(url, old)).status == 400
    assert len(host.asked) == 4


async def check_targets() -> None:
    async with serving(FakeHost()) as url:
        for target in (f"{url}/v1/exec", "http://evil/v1/exec", "*", "evil:80"):
            assert (await ask(url, path=target)).status in {400, 401}, target
        assert (await ask(url, path="http://evil/health", method="GET")).status == 400


async def check_origins() -> None:
    host = FakeHost()
    async with serving(host, origins=frozenset({"http://ours:1"})) as url:
        for origin, status in (
            ("https://evil", 403),
            ("null", 403),
            ("", 403),
            (url, 403),
            ("http://ours:1\r\nOrigin: https://evil", 403),
            ("http://ours:1", 200),
        ):
            assert (await ask(url, headers={"Origin": origin})).status == status, origin
    assert len(host.asked) == 1


async def check_content() -> None:
    host = FakeHost()
    async with serving(host) as url:
        for kind in (
            None,
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "text/plain; application/json",
            "application/json\r\nContent-Type: text/plain",
        ):
            assert (await ask(url, headers={"Content-Type": kind})).status in {400, 415}, kind
        bomb = gzip.compress(b'{"argv": ["uname"]' + b" " * 1_000_000 + b"}")
        for encoding in ("gzip", "deflate", "br", "GZIP"):
            for value in (encoding, f"identity\r\nContent-Encoding: {encoding}"):
                told = await ask(url, bomb, headers={"Content-Encoding": value})
                assert (told.status, told.json["reason"]) == (415, "encoded")
        assert not host.asked
        kind = "application/json; charset=utf-8"
        assert (await ask(url, headers={"Content-Type": kind})).status == 200


async def test_only_our_own_hosts() -> None:
    """A request under any Host but loopback or an allowed name, each with its port, is 421; none
    or two are 400. (C-56)"""
    await check_hosts()


async def test_only_paths() -> None:
    """A target with a scheme and a host in it is refused. (C-56)"""
    await check_targets()


async def test_no_pages() -> None:
    """A request with an Origin that is not allowed, `null` included, is 403. (C-57)"""
    await check_origins()


async def test_no_forms() -> None:
    """A POST of anything but plain JSON is 415, compressed JSON included. (C-57, C-59)"""
    await check_content()


# -- malformed --------------------------------------------------------------------------------


def _smuggled(url: str) -> bytes:
    return request(url, headers=KEPT)


async def check_malformed() -> None:
    host = FakeHost()
    async with serving(host, limits=HttpLimits(linger_s=0.1)) as url:
        inner = _smuggled(url)
        oddities: tuple[Headers, ...] = (
            {"Content-Length": "6", "Transfer-Encoding": "chunked"},
            {"Content-Length": "0\r\nContent-Length: 40"},
            {"Content-Length": "+0"},
            {"Content-Length": "-1"},
            {"Content-Length": "4_0"},
            {"Content-Length": "0x10"},
            {"Content-Length": None, "Transfer-Encoding": "xchunked"},
            {"Content-Length": None, "Transfer-Encoding": "\x0bchunked"},
            {"Content-Length": None, "Transfer-Encoding": "chunked, identity"},
            {"X": "a\r\n folded"},
            {"X": "a\x00b"},
            {"X": "a\rb"},
            {"X ": "a"},
            {"X\x00": "a"},
        )
        for headers in oddities:
            told = await raw(url, request(url, b"0\r\n\r\n", headers=KEPT | headers), inner)
            assert (told.status, told.responses) == (400, 1), headers
        for first in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"POST /v1/exec HTTP/9.9\r\n",
            b"POST /v1/exec\r\n",
            b"POST /v1/exec HTTP/1.1\n",
            b"P\x00ST /v1/exec HTTP/1.1\r\n",
            b"POST /v1/\rexec HTTP/1.1\r\n",
        ):
            told = await raw(url, first + inner.partition(b"\r\n")[2])
            assert (told.status, told.responses) == (400, 1), first
    assert not host.asked


async def check_chunks() -> None:
    host = FakeHost()
    body = b'{"argv": ["uname"]}'
    plain = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    headers: Headers = KEPT | {"Content-Length": None, "Transfer-Encoding": "chunked"}
    async with serving(host) as url:
        head = request(url, b"", headers=headers)
        for chunks in (
            plain.replace(b"13\r\n", b"xyz\r\n"),
            plain.replace(b"13\r\n", b"-13\r\n"),
            plain.replace(b"13\r\n", b"0x13\r\n"),
            plain.replace(b"13\r\n", b"ffffffffffffffffff\r\n"),
            plain.replace(b"}\r\n", b"}xx"),
        ):
            told = await raw(url, head + chunks, _smuggled(url))
            assert (told.status, told.responses) == (400, 1), chunks
        assert not host.asked
        closing = request(url, b"", headers=headers | {"Connection": "close"})
        assert (await raw(url, closing + plain)).status == 200


async def test_malformed_http_is_refused_and_the_connection_closed() -> None:
    """Two lengths, odd lengths and encodings, folded or broken headers and lines get one 400, and
    what follows on the connection is not read as a request. (C-58)"""
    await check_malformed()


async def test_broken_chunks_are_refused() -> None:
    """A chunked body that breaks its own framing is 400, and the connection is closed. (C-58)"""
    await check_chunks()


# -- large ------------------------------------------------------------------------------------


async def check_heads() -> None:
    async with serving(FakeHost()) as url:
        many = {f"X-{i}": "a" for i in range(10_000)}
        long = {f"X-{i}": "a" * 2_000 for i in range(10)}
        for headers in (many, long, {"X": "a" * 100_000}, {"X" * 5_000: "a"}):
            told = await ask(url, headers=headers)
            assert told.status in {400, 431}
        assert (await ask(url, path="/" + "a" * 10_000)).status == 400


async def check_bodies() -> None:
    host = FakeHost()
    limits = HttpLimits(body_s=0.5, linger_s=0.1)
    body = b'{"argv": ["uname"]' + b" " * (64 * 1024 - 19) + b"}"
    assert len(body) == 64 * 1024
    chunked: Headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    async with serving(host, limits=limits) as url:
        for data in (body, body + b" "):
            status = 200 if data == body else 413
            assert (await ask(url, data)).status == status
            head = request(url, b"", headers=chunked)
            pieces = [b"1000\r\n%s\r\n" % data[i : i + 4096] for i in range(0, 64 * 1024, 4096)]
            rest = data[64 * 1024 :]
            end = (b"%x\r\n%s\r\n" % (len(rest), rest) if rest else b"") + b"0\r\n\r\n"
            assert (await raw(url, head, *pieces, end)).status == status
        # Told before any of it is sent, and without its end.
        early: tuple[tuple[Headers, bytes], ...] = (
            ({"Content-Length": str(10**9)}, b""),
            ({"Content-Length": "9" * 30}, b""),
            (chunked, b"40000\r\n" + b"a" * 0x11000),
        )
        for headers, data in early:
            told = await raw(url, request(url, b"", headers=headers) + data)
            assert told.status in {400, 413}
    assert len(host.asked) == 2


async def test_large_heads_are_refused() -> None:
    """Too many header lines, too long ones, or too much of them is refused. (C-59)"""
    await check_heads()


async def test_large_bodies_are_refused() -> None:
    """A body of 64 KiB is read and one byte more is 413, with a length, without one, and before
    all of it has come. (C-59)"""
    await check_bodies()


# -- slow -------------------------------------------------------------------------------------


async def check_slow_heads() -> None:
    limits = HttpLimits(header_s=0.15)
    async with serving(FakeHost(), limits=limits) as url:
        whole = request(url, headers=KEPT)
        starts = [b"", b"P", b"POST /v1/exec HTTP/1.1\r\nHost: x\r\nX: ", whole[:-40], whole]
        slow = [asyncio.ensure_future(raw(url, start)) for start in starts * 20]
        assert (await ask(url)).status == 200
        told = await asyncio.gather(*slow)
        assert [one.status for one in told] == [0, 0, 0, 0, 200] * 20
        assert (await ask(url)).status == 200


async def check_trickled_heads() -> None:
    limits = HttpLimits(header_s=0.15)
    async with serving(FakeHost(), limits=limits) as url, connected(url) as (reader, writer):
        writer.write(b"POST /v1/exec HTTP/1.1\r\n")
        ended = asyncio.ensure_future(read_all(reader))

        async def trickle() -> None:
            while not ended.done():
                writer.write(b"X: a\r\n")
                await asyncio.wait({ended}, timeout=0.03)

        async with patience():
            await trickle()


async def check_slow_bodies() -> None:
    host = FakeHost()
    async with serving(host, limits=HttpLimits(body_s=0.1, linger_s=0.1)) as url:
        announced: tuple[Headers, ...] = (
            {"Content-Length": "100"},
            {"Content-Length": None, "Transfer-Encoding": "chunked"},
        )
        for headers in announced:
            start = request(url, b"", headers=KEPT | headers)
            told = await raw(url, start)
            assert (told.status, told.json["reason"]) == (408, "slow_body")
    assert not host.asked


async def check_readers(patch: pytest.MonkeyPatch) -> None:
    doors: list[Any] = []
    make = cast("Any", service_module).Door

    def door(*args: Any, **options: Any) -> Any:
        doors.append(make(*args, **options))
        return doors[-1]

    patch.setattr(service_module, "Door", door)
    large = FakeHost(result(stdout="x" * 4_000_000))
    async with serving(large, limits=HttpLimits(write_s=0.1)) as url:
        async with connected(url) as (_, writer):
            cast("asyncio.Transport", writer.transport).pause_reading()
            writer.write(request(url, headers=KEPT))
            await large.started.wait()
            assert doors[0].open == 1
            assert await until(lambda: doors[0].open == 0, service_host.PATIENCE_S)
        assert len((await ask(url)).json["stdout"]) == 4_000_000


async def check_crowds() -> None:
    host = FakeHost()
    async with serving(host, limits=HttpLimits(connections=3)) as url:
        async with connected(url), connected(url), connected(url):
            for _ in range(5):
                told = await raw(url)
                assert (told.status, told.headers["retry-after"]) == (503, "1")
        async with patience():
            while (await ask(url)).status == 503:
                pass
    assert len(host.asked) == 1


async def test_slow_heads_are_closed() -> None:
    """A hundred connections that send nothing, half a head, or nothing after a response are closed
    at the deadline, and the service answers others meanwhile. (C-60)"""
    await check_slow_heads()


async def test_a_trickle_is_no_progress() -> None:
    """A head that comes line by line without end is closed at the same deadline. (C-60)"""
    await check_trickled_heads()


async def test_slow_bodies_are_refused() -> None:
    """A body that does not come in time is 408, and the connection is closed. (C-60)"""
    await check_slow_bodies()


async def test_clients_that_do_not_read_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks and reads nothing is dropped at the deadline. (C-60)"""
    await check_readers(monkeypatch)


async def test_connections_have_a_limit() -> None:
    """One connection more than allowed is told so and closed; when others go there is room again.
    (C-60)"""
    await check_crowds()


# -- JSON -------------------------------------------------------------------------------------


async def check_json() -> None:
    host = FakeHost()
    async with serving(host) as url:
        for body in (
            "",
            "null",
            "[]",
            '"uname"',
            "{}",
            '{"argv": "uname"}',
            '{"argv": [1]}',
            '{"argv": [["uname"]]}',
            '{"argv": [null]}',
            '{"argv": ["a"], "shell": true}',
            '{"argv": ["a"], "env": {}}',
            '{"argv": ["a"], "cwd": "/"}',
            '{"argv": ["a"], "timeout_s": "5"}',
            '{"argv": ["a"], "timeout_s": true}',
            '{"argv": ["a"], "timeout_s": 0}',
            '{"argv": ["a"], "timeout_s": -1}',
            '{"argv": ["a"], "timeout_s": NaN}',
            '{"argv": ["a"], "timeout_s": Infinity}',
            '{"argv": ["a"], "timeout_s": 1e400}',
            '{"argv": ["a"], "timeout_s": 86401}',
            '{"argv": ["a"], "deadline_s": 1e308}',
            '{"argv": ["a"], "deadline_s": 1e12}',
            '{"argv": ["a"], "timeout_s": ' + "9" * 60_000 + "}",
            '{"argv": ["a"], "who": "' + "x" * 300 + '"}',
            '{"argv": ' + "[" * 60_000,
            '{"x": ' + "[" * 60_000,
            '{"x": ' * 10_000,
            "[" * 60_000,
            '{"argv": ["a"], "argv": ["b"]}',
            '{"argv": ["a"], "\\u0061rgv": ["b"]}',
            '{"argv": ["a"], "timeout_s": 1, "timeout_s": 2}',
            '{"argv": ["\\ud800"]}',
            '{"argv": ["\\udc00"]}',
            b'{"argv": ["\xff"]}',
            b'{"argv": ["\xed\xa0\x80"]}',
            b'\xef\xbb\xbf{"argv": ["a"]}',
            '{"argv": ["a"]}'.encode("utf-16"),
            '{"argv": ["a"]} {}',
            "{'argv': ['a']}",
        ):
            told = await ask(url, body)
            assert told.status == 400, body[:40]
            assert told.json["reason"] == "invalid_input"
            assert len(told.body) < 1_000
    assert not host.asked


async def test_json_that_is_not_a_request_is_refused() -> None:
    """Unknown or repeated keys, wrong types, endless depth, numbers that are none, text that is
    not Unicode, and anything but one object are 400. (C-63, A-17)"""
    await check_json()


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent together on one connection are answered one after the other."""
    host = FakeHost()
    async with serving(host) as url:
        first = request(url, json.dumps({"argv": ["a"]}), headers=KEPT)
        told = await raw(url, first + request(url, json.dumps({"argv": ["b"]})))
    assert told.responses == 2
    assert [asked["argv"] for asked in host.asked] == [("a",), ("b",)]


# -- seeded bugs ------------------------------------------------------------------------------


def _without(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """The guard, with one of its checks gone."""

    def seed(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Guard, name, lambda *_: None)

    return seed


def _runner(**changed: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """The server, with other options."""

    def seed(patch: pytest.MonkeyPatch) -> None:
        runner = web.AppRunner
        patch.setattr(
            web,
            "AppRunner",
            lambda made, **options: runner(made, **(options | changed)),
        )

    return seed


def _any_port(patch: pytest.MonkeyPatch) -> None:
    def host(self: Guard, asked: Any) -> Any:
        names = {own.rpartition(":")[0] for own in self._own(asked)}
        given = asked.headers.get("Host", "").lower()
        right = given.rpartition(":")[0] in names or given in self.hosts
        return None if right else Refused(421, "", "")

    patch.setattr(Guard, "_host", host)


def _whole_body_first(patch: pytest.MonkeyPatch) -> None:
    async def body(_: Guard, asked: Any) -> bytes:
        return b"".join([chunk async for chunk in asked.content.iter_any()])

    patch.setattr(Guard, "body", body)


def _keys_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wire, "_keys", lambda pairs: list(dict(pairs)))


def _loose_types(patch: pytest.MonkeyPatch) -> None:
    decode = partial(msgspec.json.decode, strict=False)
    patch.setattr(msgspec.json, "decode", decode)


def _door(**changed: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """The door, with other bounds."""

    def seed(patch: pytest.MonkeyPatch) -> None:
        door = connections.Door
        patch.setattr(service_module, "Door", lambda inside, **o: door(inside, **(o | changed)))

    return seed


def _never_leaves(patch: pytest.MonkeyPatch) -> None:
    lost = connections._Connection.connection_lost

    def forgets(self: Any, exc: Exception | None) -> None:
        lost(self, exc)
        self._door.open += 1

    patch.setattr(connections._Connection, "connection_lost", forgets)


@pytest.mark.parametrize(
    ("seed", "check"),
    [
        (_without("_host"), check_hosts),
        (_any_port, check_hosts),
        (_without("_target"), check_targets),
        (_without("_origin"), check_origins),
        (_without("_content"), check_content),
        (_without("_size"), check_heads),
        (_without("_size"), check_bodies),
        (_whole_body_first, check_bodies),
        (_whole_body_first, check_slow_bodies),
        (_runner(keepalive_timeout=9.0), check_slow_heads),
        (_runner(keepalive_timeout=9.0), check_trickled_heads),
        (_door(write_s=99.0), check_readers),
        (_door(most=99), check_crowds),
        (_never_leaves, check_crowds),
        (_keys_not_counted, check_json),
        (_loose_types, check_json),
    ],
)
async def test_seeded_bugs_of_the_guard_are_caught(
    seed: Callable[[pytest.MonkeyPatch], None],
    check: Callable[..., Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each guard, taken away, is missed by its check."""
    seed(monkeypatch)
    monkeypatch.setattr(service_host, "PATIENCE_S", 0.4)
    with pytest.raises((AssertionError, TimeoutError)):
        await (check(monkeypatch) if check is check_readers else check())
