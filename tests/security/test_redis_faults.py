"""The cold tier when server, network and callers fail: a miss in time, and never another's data."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, Protocol

import pytest

from paceline.cache.redis.tier import RedisTier
from paceline.testing.fault_proxy import FaultProxy, Faults
from tests.redis_server import RedisServer
from tests.redis_tiers import HOUR_NS, Told, key, open_tier, until

BUDGET_S: Final = 0.03
USERS: Final = 6


@pytest.fixture(scope="module")
def process() -> Iterator[RedisServer]:
    """A server for the tests of this file."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(process: RedisServer) -> RedisServer:
    """The server, empty."""
    process.flush()
    return process


@contextlib.asynccontextmanager
async def _behind_proxy(
    server: RedisServer, told: Told | None = None, budget_s: float = BUDGET_S
) -> AsyncIterator[tuple[FaultProxy, RedisTier]]:
    async with (
        FaultProxy("127.0.0.1", server.port) as proxy,
        open_tier(f"redis://127.0.0.1:{proxy.port}", told=told, budget_s=budget_s) as tier,
    ):
        await until(lambda: tier.connected)
        yield proxy, tier


class Reader(Protocol):
    """What the sweep tries."""

    async def get(self, user: int) -> bytes | None:
        """The user's own value, or None."""
        ...


async def _sweep(reader: Reader, rounds: int) -> tuple[int, int]:
    """Cancels reads at every moment of their way while others read; how many reads in all gave
    the user's own value, and how many another's."""
    own = foreign = 0
    for turns in range(rounds):
        victims = [asyncio.ensure_future(reader.get(user)) for user in range(2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for victim in victims:
            victim.cancel()
        asked = [2 + turns % (USERS - 2), *range(USERS)]
        found = await asyncio.gather(*[reader.get(user) for user in asked])
        for user, value in zip(asked, found, strict=True):
            own += value == b"of %d" % user
            foreign += value not in {None, b"of %d" % user}
        await asyncio.gather(*victims, return_exceptions=True)
    return own, foreign


class _TierReader:
    """The tier, and writes of the same value beside the reads."""

    def __init__(self, tier: RedisTier, *, writes: bool) -> None:
        self._tier = tier
        self._writes = writes

    async def get(self, user: int) -> bytes | None:
        if self._writes:
            await self._tier.put(key(user), b"of %d" % user, HOUR_NS)
        found = await self._tier.get(key(user))
        return found and found.value


class _Naive:
    """A connection that callers take in turn and leave as it is when they are cancelled."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()

    async def get(self, user: int) -> bytes | None:
        async with self._lock:
            self._writer.write(b"*2\r\n$3\r\nGET\r\n$1\r\n%d\r\n" % user)
            length = int((await self._reader.readline())[1:])
            return (await self._reader.readexactly(length + 2))[:-2]


@pytest.mark.parametrize("writes", [False, True])
async def test_no_cancelled_caller_leaves_anything_to_another(
    server: RedisServer, writes: bool
) -> None:
    """Callers are cancelled at every turn of the loop between asking and being answered, over a
    slow network: everybody else gets their own value, nobody another's. (D72)"""
    async with _behind_proxy(server, budget_s=5) as (proxy, tier):
        for user in range(USERS):
            await tier.put(key(user), b"of %d" % user, HOUR_NS)
        proxy.faults = Faults(delay_s=0.001)
        own, foreign = await _sweep(_TierReader(tier, writes=writes), 200)
        assert foreign == 0
        assert own == 200 * (USERS + 1)


async def test_nobody_is_mixed_up_while_the_network_fails(server: RedisServer) -> None:
    """The same with budgets that run out, replies in pieces and connections that are cut: own
    values or misses. (D72, D92)"""
    rng = random.Random(1)
    async with _behind_proxy(server) as (proxy, tier):
        for user in range(USERS):
            await tier.put(key(user), b"of %d" % user, HOUR_NS)
        reader, hits = _TierReader(tier, writes=False), 0
        for _ in range(12):
            proxy.faults = rng.choice(
                [
                    Faults(delay_s=0.01),
                    Faults(slice_bytes=7),
                    Faults(reset_after=rng.randrange(400)),
                    Faults(delay_s=0.03, slice_bytes=50),
                    Faults(),
                ]
            )
            own, foreign = await _sweep(reader, 12)
            hits += own
            assert foreign == 0
        assert hits > 0


async def test_the_sweep_catches_a_connection_left_half_read(server: RedisServer) -> None:
    """A client whose cancelled callers leave their replies in the shared connection hands them
    to others, and the sweep sees it. (D72)"""
    for user in range(USERS):
        server.command("SET", str(user), b"of %d" % user)
    async with FaultProxy("127.0.0.1", server.port, Faults(delay_s=0.001)) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        _, foreign = await _sweep(_Naive(reader, writer), 5)
        writer.close()
        await writer.wait_closed()
    assert foreign > 0


async def _all_kinds(tier: RedisTier) -> list[object]:
    """One request of every kind at once; what each said."""
    requests: list[Awaitable[object]] = [
        tier.get(key(1)),
        tier.put(key(2), b"v", HOUR_NS),
        tier.delete(key(3)),
        tier.lease(key(4), 1),
        tier.wait(key(4), 0.01),
        tier.entries(),
        tier.clear(),
    ]
    return list(await asyncio.gather(*requests))


NOTHING: Final[list[object]] = [None, False, False, None, None, [], False]


async def test_a_server_that_is_away_costs_nothing() -> None:
    """Opening does not fail, every request is answered with nothing, the trouble is told once,
    and it is tried again less and less. (D92)"""
    told = Told()
    with RedisServer() as server:
        server.stop()
        async with open_tier(server.url, told=told, budget_s=BUDGET_S) as tier:
            for _ in range(100):
                assert await _all_kinds(tier) == NOTHING
            assert not tier.connected
            assert len(told.troubles) == 1
            assert tier.snapshot().refused > 100
            server.start()
            await until(lambda: tier.connected)
            assert await tier.put(key(1), b"v", HOUR_NS)
            assert await tier.get(key(1)) is not None
        assert len(told.troubles) == 1


async def test_a_server_that_does_not_answer_is_left_alone(server: RedisServer) -> None:
    """When nothing comes back each request ends at its budget; soon nothing is sent any more, and
    when answers come again it is used again. (D92)"""
    told = Told()
    async with _behind_proxy(server, told) as (proxy, tier):
        await tier.put(key(1), b"v", HOUR_NS)
        proxy.faults = Faults(blackhole=True)
        for _ in range(50):
            assert await _all_kinds(tier) == NOTHING
            if not tier.connected:
                break
        assert not tier.connected
        assert 0 < tier.snapshot().timeouts <= 60
        asked = tier.snapshot().timeouts
        for _ in range(50):
            assert await tier.get(key(1)) is None
        assert tier.snapshot().timeouts == asked
        await until(lambda: told.troubles)
        proxy.faults = Faults()
        await until(lambda: tier.connected)
        assert await tier.put(key(1), b"w", HOUR_NS)
        assert await tier.get(key(1)) is not None
        assert len(told.troubles) == 1


async def test_a_silent_connection_is_noticed_without_requests(server: RedisServer) -> None:
    """Who asks nothing still learns that the connection is dead, and that anything may have
    changed meanwhile. (D92)"""
    told = Told()
    async with _behind_proxy(server, told) as (proxy, tier):
        proxy.faults = Faults(blackhole=True)
        await until(lambda: not tier.connected)
        proxy.faults = Faults()
        await until(lambda: tier.connected)
        await until(lambda: told.keys)
        assert told.keys == [None]


async def test_a_slow_server_is_a_miss_until_it_is_fast(server: RedisServer) -> None:
    """Answers after the budget are misses, whoever gets them late; too many of them end it.
    (D92)"""
    async with _behind_proxy(server) as (proxy, tier):
        await tier.put(key(1), b"v", HOUR_NS)
        proxy.faults = Faults(delay_s=BUDGET_S)
        assert await tier.get(key(1)) is None
        while tier.connected:
            assert await tier.get(key(1)) is None
        proxy.faults = Faults()
        await until(lambda: tier.connected)
        assert await tier.get(key(1)) is not None


async def test_a_hiccup_is_no_failure(server: RedisServer) -> None:
    """Many requests that wait for one short pause of the server miss, and the connection, with
    all that depends on it, stays. (D92)"""
    told = Told()
    async with _behind_proxy(server, told) as (proxy, tier):
        await tier.put(key(1), b"v", HOUR_NS)
        proxy.faults = Faults(delay_s=2 * BUDGET_S)
        found = await asyncio.gather(*[tier.get(key(1)) for _ in range(20)])
        proxy.faults = Faults()
        assert found == [None] * 20
        await until(lambda: tier.snapshot().timeouts == 1)
        assert tier.connected
        while await tier.get(key(1)) is None:
            assert tier.connected
        assert tier.snapshot().connections == 1
        assert told.troubles == []


@pytest.mark.parametrize("after", [0, 1, 4, 5, 30, 90, 1_000])
async def test_a_reset_in_the_middle_of_a_reply_is_a_miss(server: RedisServer, after: int) -> None:
    """Whatever part of a reply came before the connection was cut, it is a miss, and the next
    connection is clean. (D92)"""
    async with _behind_proxy(server, budget_s=2) as (proxy, tier):
        await tier.put(key(1), b"v" * 5_000, HOUR_NS)
        proxy.faults = Faults(reset_after=after)
        assert await tier.get(key(1)) is None
        proxy.faults = Faults()
        await until(lambda: tier.snapshot().connections == 2)
        found = await tier.get(key(1))
        assert found is not None
        assert found.value == b"v" * 5_000


async def test_replies_in_pieces_are_whole(server: RedisServer) -> None:
    """Bytes that come one by one make the same replies. (D92)"""
    async with _behind_proxy(server, budget_s=5) as (proxy, tier):
        proxy.faults = Faults(slice_bytes=1)
        for number in range(3):
            assert await tier.put(key(number), b"%d" % number, HOUR_NS)
        found = await asyncio.gather(*[tier.get(key(number)) for number in range(4)])
        assert [f and f.value for f in found] == [b"0", b"1", b"2", None]


async def test_a_flapping_server_is_tried_less_and_less(server: RedisServer) -> None:
    """A connection that is lost again and again is opened anew after growing waits, and no
    request fails. (D92)"""
    async with _behind_proxy(server) as (proxy, tier):
        waits: list[float] = []
        loop = asyncio.get_running_loop()
        for _ in range(4):
            await proxy.reset()
            await until(lambda: not tier.connected)
            lost = loop.time()
            assert await tier.get(key(1)) is None
            await until(lambda: tier.connected)
            waits.append(loop.time() - lost)
        assert waits[-1] > 4 * 0.05
        assert tier.snapshot().connections == 5


async def test_what_could_not_be_removed_is_not_served_later(server: RedisServer) -> None:
    """A removal or replacement that fails for want of a connection is made good before anything
    is read again. (D92)"""
    async with (
        _behind_proxy(server, budget_s=1) as (proxy, tier),
        open_tier(server.url) as other,
    ):
        for number in range(4):
            await tier.put(key(number), b"old", HOUR_NS)
        proxy.faults = Faults(refuse=True)
        await proxy.reset()
        await until(lambda: not tier.connected)
        assert not await tier.delete(key(0))
        assert not await tier.put(key(1), b"new", HOUR_NS)
        assert await other.get(key(1)) is not None
        assert tier.snapshot().owed == 2
        proxy.faults = Faults()
        await until(lambda: tier.connected)
        found = await asyncio.gather(*[tier.get(key(number)) for number in range(4)])
        assert [f is not None for f in found] == [False, False, True, True]
        assert await other.get(key(1)) is None
        assert tier.snapshot().owed == 0


async def test_too_many_lost_removals_remove_all(server: RedisServer) -> None:
    """More removals than are kept in mind, or a clearing, without a connection: nothing of
    before is served again, and the server is cleared. (D92)"""
    async with _behind_proxy(server, budget_s=1) as (proxy, tier):
        await tier.put(key(99_999), b"old", HOUR_NS)
        proxy.faults = Faults(refuse=True)
        await proxy.reset()
        await until(lambda: not tier.connected)
        for number in range(10_002):
            await tier.delete(key(number))
        proxy.faults = Faults()
        await until(lambda: tier.connected)
        assert await tier.get(key(99_999)) is None
        await until(lambda: server.command("DBSIZE") == b":0\r\n")
        assert await tier.put(key(99_999), b"new", HOUR_NS)
        assert await tier.get(key(99_999)) is not None


async def test_closing_in_the_middle_leaves_nobody_waiting(server: RedisServer) -> None:
    """Requests under way when the tier is closed end with nothing. (D92)"""
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        tier = open_tier(f"redis://127.0.0.1:{proxy.port}", budget_s=60)
        async with tier:
            proxy.faults = Faults(blackhole=True)
            waiting = asyncio.ensure_future(_all_kinds(tier))
            await until(lambda: proxy.swallowed)
        assert await waiting == NOTHING


Script = Callable[[list[bytes]], bytes]


@contextlib.asynccontextmanager
async def _scripted(script: Script) -> AsyncIterator[str]:
    """The address of a server that greets properly and answers the rest by a script."""
    greetings = {b"HELLO": b"%0\r\n", b"CLIENT": b"+OK\r\n", b"PING": b"+PONG\r\n"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words: list[bytes] = []
                for _ in range(count):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                writer.write(greetings.get(words[0]) or script(words))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


NONSENSE: Final = {
    "too few": b"*1\r\n$2\r\nhi\r\n",
    "too many": b"*3\r\n$-1\r\n$-1\r\n$-1\r\n",
    "no list": b"+OK\r\n",
    "no values": b"*2\r\n:1\r\n%1\r\n+a\r\n+b\r\n",
    "two replies": b"*2\r\n$-1\r\n$-1\r\n*2\r\n$-1\r\n$-1\r\n",
    "two gigabytes": b"*2\r\n$2147483647\r\nabc",
    "more than that": b"*2\r\n$99999999999999999999\r\nabc",
    "no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an error": b"-ERR what?\r\n",
    "loading": b"-LOADING the data\r\n",
    "deep": b"*1\r\n" * 200,
    "empty push": b">0\r\n*2\r\n$-1\r\n$-1\r\n",
    "odd push": b">2\r\n$10\r\ninvalidate\r\n*2\r\n:1\r\n_\r\n*2\r\n$-1\r\n$-1\r\n",
    "odder push": b">2\r\n:1\r\n:2\r\n*2\r\n$-1\r\n$-1\r\n",
}


@pytest.mark.parametrize("kind", NONSENSE)
async def test_nonsense_is_a_miss(kind: str) -> None:
    """Whatever a server answers to a read, it is a miss in time and raises nothing. (D80, D92)"""
    told = Told()
    async with (
        _scripted(lambda words: NONSENSE[kind]) as url,
        open_tier(url, told=told, budget_s=BUDGET_S) as tier,
    ):
        for _ in range(3):
            found = await asyncio.gather(tier.get(key(1)), tier.get(key(2)))
            assert list(found) == [None, None]


@pytest.mark.parametrize("kind", NONSENSE)
async def test_nonsense_instead_of_other_replies_is_nothing(kind: str) -> None:
    """The same for every other request. (D80, D92)"""

    def script(words: list[bytes]) -> bytes:
        return NONSENSE[kind]

    async with _scripted(script) as url, open_tier(url, budget_s=BUDGET_S) as tier:
        for _ in range(2):
            said = await _all_kinds(tier)
            if kind == "no list":  # the right answer to these two
                said[1], said[3] = False, None
            assert said == NOTHING


async def test_a_server_without_pushes_is_not_used() -> None:
    """One that does not tell of changes would let others serve what was removed: it is refused,
    and the trouble says what is needed."""
    told = Told()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR unknown command 'HELLO'\r\n" * 2)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with open_tier(url, told=told, budget_s=BUDGET_S) as tier:
            await until(lambda: told.troubles)
            assert not tier.connected
        assert "Redis 6" in str(told.troubles[0])
