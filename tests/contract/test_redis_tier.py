"""The cold tier against a real server: what it stores, for whom, how long, and who is told."""

import asyncio
import builtins
import importlib
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from paceline.cache.entry import About
from paceline.cache.redis.address import RedisAddress
from paceline.cache.redis.record import pack
from paceline.cache.redis.tier import RedisTier
from paceline.clock import SystemClock
from paceline.errors import Category, ConfigError, UsageError
from paceline.testing.virtual_time import VirtualClock
from tests.redis_server import RedisServer
from tests.redis_tiers import HOUR_NS, Told, key, open_tier, until

ABOUT = About("lookup", "user:ada", "q=1", ("node:/w",), 12, 0.5)
NAME = b"paceline:v:"


@pytest.mark.parametrize("value", [b"", b"0", b"\xc0", b"x" * 3_000_000])
async def test_a_value_comes_back_as_it_was(server: RedisServer, value: bytes) -> None:
    """Bytes of any kind and size come back in another process's tier, with what they are and the
    rest of their life. (S1-51, S0-45)"""
    async with open_tier(server.url) as one, open_tier(server.url) as other:
        assert await other.get(key(1)) is None
        assert await one.put(key(1), value, HOUR_NS, ABOUT)
        found = await other.get(key(1))
        assert found is not None
        assert (found.value, found.about) == (value, ABOUT)
        assert 0 < found.remaining_ns <= HOUR_NS
        assert (other.snapshot().hits, other.snapshot().misses) == (1, 1)


async def test_removed_values_are_gone(server: RedisServer) -> None:
    """Removal, a lifetime of 0, and clearing hold for every tier of the namespace, and for no
    other namespace. (S0-50)"""
    async with (
        open_tier(server.url) as one,
        open_tier(server.url) as other,
        open_tier(server.url, namespace="paceline.v") as apart,
    ):
        for number in range(4):
            assert await one.put(key(number), b"v", HOUR_NS)
        assert await apart.put(key(2), b"apart", HOUR_NS)
        assert await one.delete(key(0))
        assert not await one.put(key(1), b"v", 0)
        assert await other.get(key(0)) is None
        assert await other.get(key(1)) is None
        assert await other.get(key(2)) is not None
        assert await one.clear()
        assert await other.get(key(2)) is None
        assert await apart.get(key(2)) is not None
        assert await one.put(key(2), b"new", HOUR_NS)
        assert await other.get(key(2)) is not None


async def test_clearing_leaves_none_of_many(server: RedisServer) -> None:
    """More values than a page of the listing are all listed and all removed. (S0-50)"""
    async with open_tier(server.url) as tier:
        await asyncio.gather(*[tier.put(key(n), b"v" * n, HOUR_NS, ABOUT) for n in range(600)])
        kept = await tier.entries()
        assert {k.key for k in kept} == {key(n) for n in range(600)}
        assert {k.about for k in kept} == {ABOUT}
        assert all(k.size > 100 and 0 < k.remaining_ns <= HOUR_NS for k in kept)
        assert await tier.clear()
        assert await tier.entries() == []


async def test_the_server_forgets_what_expired(server: RedisServer) -> None:
    """The server is told the lifetime too, never a longer one than a millisecond more. (S1-51)"""
    async with open_tier(server.url) as tier:
        await tier.put(key(1), b"v", 1_500_000_001)
        left = int(server.command("PTTL", NAME + key(1))[1:-2])
        assert 0 < left <= 1501
        await tier.put(key(1), b"v", 2**70)
        assert int(server.command("PTTL", NAME + key(1))[1:-2]) > 10**12


@pytest.mark.parametrize(
    ("moved_s", "found"),
    [(9.9, True), (10.0, False), (86_400, False), (-30, True), (-3_600, False)],
)
async def test_no_clock_prolongs_a_life(server: RedisServer, moved_s: float, found: bool) -> None:
    """Whatever a reader's clock does, a value never has more life left than it was given, and
    one from far in the future is not believed. (D90)"""
    writer, reader = VirtualClock(), VirtualClock()
    reader.advance(moved_s)
    async with (
        open_tier(server.url, clock=writer) as one,
        open_tier(server.url, clock=reader) as other,
    ):
        await one.put(key(1), b"v", 10_000_000_000)
        seen = await other.get(key(1))
        assert (seen is not None) == found
        if seen is not None:
            assert 0 < seen.remaining_ns <= 10_000_000_000


def _record() -> bytes:
    return pack(key(1), b"payload" * 10, HOUR_NS, ABOUT, SystemClock().wall_ns())


def _with(place: int, word: bytes) -> bytes:
    """A record with something else at this place, and the checksum of that."""
    record = _record()
    body = record[:place] + word + record[place + len(word) : -4]
    return body + zlib.crc32(body).to_bytes(4, "little")


DAMAGED = {
    "pickle": pickle.dumps(ABOUT.name),
    "empty": b"",
    "cut in the head": _record()[:7],
    "cut in the header": _record()[:30],
    "cut in the payload": _record()[:-1],
    "grown": _record() + b"x",
    "another version": _with(0, b"\x01"),
    "flipped bit": _record()[:-5] + bytes([_record()[-5] ^ 1]) + _record()[-4:],
    "flipped checksum": _record()[:-2] + bytes([_record()[-2] ^ 1]) + _record()[-1:],
    "two gigabytes of header": _with(5, (2**31).to_bytes(4, "big")),
    "half a header": _with(5, (9).to_bytes(4, "big")),
}


@pytest.mark.parametrize("kind", DAMAGED)
async def test_damaged_values_are_misses(server: RedisServer, kind: str) -> None:
    """Bytes that are not a whole value of this version are a miss that is counted, and what is
    stored over them is found. (D80, S0-45)"""
    async with open_tier(server.url) as tier:
        server.command("SET", NAME + key(1), DAMAGED[kind])
        assert await tier.get(key(1)) is None
        assert await tier.entries() == [] or kind != "pickle"
        assert tier.snapshot().damaged == 1
        assert await tier.put(key(1), b"good", HOUR_NS)
        assert await tier.get(key(1)) is not None


async def test_a_key_of_another_type_is_a_miss(server: RedisServer) -> None:
    """Something else than a value under one of our names is a miss and hurts no other read in
    the same batch. (D80)"""
    async with open_tier(server.url) as tier:
        server.command("RPUSH", NAME + key(1), "x")
        await tier.put(key(2), b"v", HOUR_NS)
        first, second = await asyncio.gather(tier.get(key(1)), tier.get(key(2)))
        assert first is None
        assert second is not None
        assert await tier.put(key(1), b"v", HOUR_NS)


async def test_a_value_under_another_key_is_not_served(server: RedisServer) -> None:
    """What lies under a key that is not its own, or belongs to another scope, is a miss and
    counted. (D73, S1-54)"""
    async with open_tier(server.url) as tier:
        server.command("SET", NAME + key(2), _record())
        assert await tier.get(key(2)) is None
        assert tier.snapshot().foreign == 1
        server.command("SET", NAME + key(1), _record())
        assert await tier.get(key(1), scope="user:eve") is None
        assert tier.snapshot().foreign == 2
        assert await tier.get(key(1), scope="user:ada") is not None


async def test_reads_at_once_travel_together(server: RedisServer) -> None:
    """Reads of one turn of the loop are one command of at most 256 keys, each key once, and
    everybody gets their own. (S1-51)"""
    async with open_tier(server.url) as tier:
        for number in range(0, 300, 2):
            await tier.put(key(number), b"%d" % number, HOUR_NS)
        asked = [*range(32), *range(32)]
        found = await asyncio.gather(*[tier.get(key(n)) for n in asked])
        assert [f and f.value for f in found] == [None if n % 2 else b"%d" % n for n in asked]
        assert tier.snapshot().batches == 1
        found = await asyncio.gather(*[tier.get(key(n)) for n in range(300)])
        assert sum(f is not None for f in found) == 150
        assert tier.snapshot().batches == 3


async def test_a_caller_reads_what_it_wrote(server: RedisServer) -> None:
    """A read sees every write that was asked for before it, awaited or not."""
    async with open_tier(server.url) as tier:
        for turn in range(50):
            write = asyncio.ensure_future(tier.put(key(1), b"%d" % turn, HOUR_NS))
            await asyncio.sleep(0)
            found = await tier.get(key(1))
            assert found is not None
            assert found.value == b"%d" % turn
            assert await write


async def test_others_are_told_of_changes(server: RedisServer) -> None:
    """Whoever else uses the namespace is told of every key that is stored or removed; who did it
    is not; losing everything is told as None. (S1-51)"""
    mine, theirs = Told(), Told()
    async with open_tier(server.url, told=mine) as one, open_tier(server.url, told=theirs) as other:
        await one.put(key(1), b"v", HOUR_NS)
        await one.delete(key(2))
        await one.put(key(2), b"v", HOUR_NS)
        await one.delete(key(1))
        await until(lambda: len(theirs.keys) >= 3)
        await other.get(key(1))
        assert theirs.keys == [key(1), key(2), key(1)]
        assert mine.keys == []
        server.flush()
        await until(lambda: None in theirs.keys and None in mine.keys)


async def test_what_was_read_before_a_change_is_handed_out_before_it_is_told(
    server: RedisServer,
) -> None:
    """A reader who keeps a value at once keeps it before hearing of its change, never after: no
    kept value is older than the last that was told. (S1-51)"""
    kept: dict[bytes, bytes] = {}

    def forget(changed: bytes | None) -> None:
        assert changed is not None
        kept.pop(changed, None)

    reader = RedisTier(
        server.url, clock=SystemClock(), budget_s=5, on_trouble=_unexpected, on_invalidated=forget
    )
    async with open_tier(server.url) as writer, reader:

        async def read() -> None:
            found = await reader.get(key(1))
            if found is not None:
                kept[key(1)] = found.value

        for turn in range(200):
            tasks = [asyncio.ensure_future(read()) for _ in range(3)]
            await writer.put(key(1), b"%d" % turn, HOUR_NS)
            await asyncio.gather(*tasks)
            await reader.get(key(0))  # behind all that the server told
            assert kept.get(key(1), b"%d" % turn) == b"%d" % turn


def _unexpected(exc: Exception) -> None:
    raise exc


async def test_one_computes_and_the_others_wait(server: RedisServer) -> None:
    """Of eight processes that miss at the same moment one gets the lease; the others get its
    result. (D79, S1-51)"""
    computed = 0

    async def ask(tier: RedisTier) -> bytes:
        nonlocal computed
        found = await tier.get(key(1))
        while found is None:
            lease = await tier.lease(key(1), 30)
            if lease is None:
                found = await tier.wait(key(1), 30)
                continue
            async with lease:
                computed += 1
                await tier.get(key(99))  # takes a while
                await tier.put(key(1), b"v", HOUR_NS)
                found = await tier.get(key(1))
        return found.value

    tiers = [open_tier(server.url) for _ in range(8)]
    for tier in tiers:
        await tier.__aenter__()
    assert await asyncio.gather(*[ask(tier) for tier in tiers]) == [b"v"] * 8
    assert computed == 1
    for tier in tiers:
        await tier.__aexit__()


async def test_a_lease_that_ends_without_a_result_frees_who_waits(server: RedisServer) -> None:
    """Waiting ends with nothing as soon as the lease is given back, has run out, or was never
    held. (D79)"""
    async with open_tier(server.url) as one, open_tier(server.url) as other:
        assert await other.wait(key(1), 30) is None
        lease = await one.lease(key(1), 30)
        assert lease is not None
        assert await other.lease(key(1), 30) is None
        waiting = asyncio.ensure_future(other.wait(key(1), 30))
        await until(lambda: other.snapshot().batches == 2)
        assert await lease.release()
        assert await waiting is None
        assert await one.lease(key(1), 0.02) is not None
        assert await other.wait(key(1), 30) is None
        assert await other.wait(key(1), 0) is None


async def test_nobody_gives_back_the_lease_of_another(server: RedisServer) -> None:
    """A lease that has run out and become another's is not released by its former holder."""
    async with open_tier(server.url) as one, open_tier(server.url) as other:
        late = await one.lease(key(1), 0.001)
        assert late is not None
        await until(lambda: server.command("EXISTS", b"paceline:l:" + key(1)) == b":0\r\n")
        lease = await other.lease(key(1), 30)
        assert lease is not None
        assert not await late.release()
        assert await one.lease(key(1), 30) is None
        assert await lease.release()


async def test_a_lease_given_to_somebody_who_has_gone_goes_back(server: RedisServer) -> None:
    """A caller who is cancelled while asking leaves no lease behind, at whatever moment. (D79)"""
    async with open_tier(server.url) as tier:
        for turns in range(6):
            asking = asyncio.ensure_future(tier.lease(key(1), 3_600))
            for _ in range(turns):
                await asyncio.sleep(0)
            if asking.done():
                lease = asking.result()
                assert lease is not None
                assert await lease.release()
                continue
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await tier.get(key(0))
            await tier.get(key(0))  # behind the return
            assert server.command("EXISTS", b"paceline:l:" + key(1)) == b":0\r\n"


async def test_what_cannot_be_stored_leaves_nothing_old(server: RedisServer) -> None:
    """A value that is too large, that is no text where text belongs, or that a full server
    refuses, is not stored, and what was there before is not served for it."""
    async with open_tier(server.url) as tier:
        for attempt in (b"x" * (33 * 1024 * 1024), b"small"):
            await tier.put(key(1), b"old", HOUR_NS)
            about = About(summary="\ud800") if attempt == b"small" else ABOUT
            assert not await tier.put(key(1), attempt, HOUR_NS, about)
            assert await tier.get(key(1)) is None
        await tier.put(key(1), b"old", HOUR_NS)
        server.command("CONFIG", "SET", "maxmemory", "1")
        try:
            assert not await tier.put(key(1), b"new", HOUR_NS)
            assert await tier.get(key(1)) is None
        finally:
            server.command("CONFIG", "SET", "maxmemory", "0")
        assert tier.snapshot().errors == 1


async def test_it_is_used_where_it_was_opened(server: RedisServer) -> None:
    """On another loop it says so; closed or not yet open it knows nothing and stores nothing."""
    tier = open_tier(server.url)
    assert await tier.get(key(1)) is None
    async with tier:
        with pytest.raises(UsageError):
            await tier.__aenter__()
        with pytest.raises(UsageError, match="loop"):
            await asyncio.to_thread(lambda: asyncio.run(tier.get(key(1))))
        assert await tier.put(key(1), b"v", HOUR_NS)
    assert await tier.get(key(1)) is None
    assert await tier.lease(key(1), 1) is None
    assert not await tier.delete(key(1))
    assert await tier.entries() == []
    async with tier:  # which makes good the removal of before
        assert await tier.get(key(1)) is None


async def test_passwords_databases_and_sockets(tmp_path: Path) -> None:
    """User, password, database and a socket in the file system come from the address."""
    path = tmp_path / "socket"
    with RedisServer(("requirepass", "s3cret-word"), ("unixsocket", str(path))) as server:
        for url in (
            f"redis://:s3cret-word@127.0.0.1:{server.port}/3",
            f"unix://default:s3cret-word@{path}?db=3",
        ):
            async with open_tier(url) as tier:
                assert tier.connected
                await tier.put(key(1), b"v", HOUR_NS)
        async with open_tier(f"redis://:s3cret-word@127.0.0.1:{server.port}/3") as tier:
            assert await tier.get(key(1)) is not None
        async with open_tier(f"redis://:s3cret-word@127.0.0.1:{server.port}/4") as tier:
            assert await tier.get(key(1)) is None


@pytest.mark.parametrize("url", ["redis://ada:wr0ng-word@{}/0", "redis://:wr0ng-word@{}"])
async def test_a_refused_password_is_told_and_not_shown(url: str) -> None:
    """A server that refuses is a trouble, told once, and neither it nor anything else that can
    be printed shows the password. (D68)"""
    told = Told()
    with RedisServer(("requirepass", "right-word")) as server:
        place = f"127.0.0.1:{server.port}"
        async with open_tier(url.format(place), told=told, budget_s=0.1) as tier:
            await until(lambda: told.troubles)
            assert not tier.connected
            assert await tier.get(key(1)) is None
            shown = [str(told.troubles), repr(told.troubles), repr(tier.address), str(tier.address)]
            shown.append(repr([told.troubles[0].next_step, told.troubles[0].args]))
    assert len(told.troubles) == 1
    assert told.troubles[0].category is Category.UNAVAILABLE
    assert place in shown[0]
    assert "wr0ng-word" not in "".join(shown)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:6379", "http://s3cret@host", "redis://", "redis://:s3cret@host:port/0",
     "redis://h/s3cret", "redis://h/-1", "redis://h?password=s3cret", "unix://", "redis://[s3cret"],
)  # fmt: skip
def test_no_address_no_tier(url: str) -> None:
    """An address that cannot be used is refused without repeating any of it. (D68)"""
    with pytest.raises(ConfigError) as caught:
        open_tier(url)
    assert "s3cret" not in str(caught.value) + repr(caught.value) + caught.value.next_step
    assert caught.value.__cause__ is None


def test_addresses_with_tls_verify_the_server() -> None:
    """TLS is on for rediss alone, and always verifies certificate and name."""
    context = RedisAddress.parse("rediss://u:p%40ss@example.test:7000/2").tls_context()
    assert context is not None
    assert context.check_hostname
    assert RedisAddress.parse("redis://example.test").tls_context() is None
    address = RedisAddress.parse("redis://u:p%40ss@[::1]:7000/2")
    assert (str(address), address.db, address.user) == ("[::1]:7000", 2, "u")
    assert address.password.reveal() == "p@ss"


@pytest.mark.parametrize("options", [{"namespace": "a b"}, {"namespace": ""}, {"budget_s": 0}])
def test_senseless_settings_are_refused(options: dict[str, Any]) -> None:
    """A namespace that would not stay apart, and no time at all, are refused."""
    with pytest.raises(ConfigError):
        open_tier("redis://localhost", **options)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client's package the error says what to install."""
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "hiredis":
            raise ModuleNotFoundError(name)
        return real(name, *args)

    for name in [n for n in sys.modules if n.startswith("paceline.cache.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError) as caught:
        importlib.import_module("paceline.cache.redis.tier")
    assert "paceline[redis]" in caught.value.next_step


async def test_opening_can_be_cancelled(server: RedisServer) -> None:
    """A caller who is cancelled while opening leaves nothing running, and may open it again."""
    for turns in range(8):
        tier = open_tier(server.url)
        opening = asyncio.ensure_future(tier.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        if not opening.cancelled():
            await tier.__aexit__()
        assert [t for t in asyncio.all_tasks() if t.get_name() == "redis link"] == []
        async with tier:
            assert tier.connected
