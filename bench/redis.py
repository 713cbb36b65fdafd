"""What the cold tier costs, beside the client library and the server's own limit.

Every round runs each case right after its limit against one server of its own on loopback, so that
a busy machine slows both alike: a read by a raw socket, by the client, by the tier; 32 reads at once by
one MGET, by the client, by the tier; and how long after a write another process knows of it.
"""

import asyncio
import gc
import socket
import statistics
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter_ns

import redis.asyncio

from bench.timing import Timed
from paceline.cache.entry import PLAIN
from paceline.cache.redis.record import pack
from paceline.cache.redis.tier import RedisTier
from paceline.clock import SystemClock
from paceline.codec import encode
from paceline.errors import StorageError
from tests.redis_server import RedisServer

__all__ = ["main", "run"]

ROUNDS = 9
_TURNS = 300
_WRITES = 400
_HOUR_NS = 3_600_000_000_000
_VALUE = encode({"stdout": "x" * 700, "exit_code": 0, "lines": list(range(30))})
_KEYS = [bytes([number]) * 32 for number in range(32)]
_PAIRS = (
    ("client get", "raw socket GET"),
    ("tier get", "client get"),
    ("tier put", "client set"),
    ("tier 32", "client 32"),
    ("tier 32", "client MGET 32"),
)
"""What is timed, and what right before it."""

_LISTENER = """
import asyncio, sys, time
from paceline.cache.redis.tier import RedisTier
from paceline.clock import SystemClock

def heard(key):
    sys.stdout.write(f"{time.perf_counter_ns()}\\n")
    sys.stdout.flush()

async def main():
    async with RedisTier(sys.argv[1], clock=SystemClock(), budget_s=1, on_trouble=print,
                         on_invalidated=heard) as tier:
        sys.stdout.write("ready\\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


def run(rounds: int = ROUNDS) -> dict[str, object]:
    """Nanoseconds an operation in each round, ratios, and the delay of pushes in microseconds."""
    with RedisServer() as server:
        return asyncio.run(_run(server, rounds))


async def _run(server: RedisServer, rounds: int) -> dict[str, object]:
    client = redis.asyncio.Redis.from_url(server.url, protocol=3)
    tier = RedisTier(
        server.url, clock=SystemClock(), budget_s=5, on_trouble=_unexpected, on_invalidated=_ignore
    )
    raw = socket.create_connection(("127.0.0.1", server.port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    record = pack(b"plain", _VALUE, _HOUR_NS, PLAIN, SystemClock().wall_ns())
    async with client, tier:
        for key in _KEYS:
            await tier.put(key, _VALUE, _HOUR_NS)
            await client.set(key, record)
        works = _works(raw, client, tier)
        times: dict[str, list[tuple[float, float]]] = {}
        for turn in range(rounds + 1):
            for ours, limit in _PAIRS:
                limit_ns, ns = await _time(works[limit]), await _time(works[ours])
                if turn:
                    times.setdefault(f"{ours} beside {limit}", []).append((ns, limit_ns))
        delays = await _delays(server, tier)
    raw.close()
    timed = {name: Timed.of(pairs) for name, pairs in times.items()}
    return {
        "rounds": rounds,
        "ns": timed,
        "ratio": {name: each.ratio for name, each in timed.items()},
        "invalidation_us": delays,
    }


def _works(
    raw: socket.socket, client: redis.asyncio.Redis, tier: RedisTier
) -> dict[str, Callable[[], Awaitable[object]]]:
    key = _KEYS[0]
    command = b"*2\r\n$3\r\nGET\r\n$32\r\n" + key + b"\r\n"

    async def read_raw() -> None:
        raw.sendall(command)
        raw.recv(65_536)

    async def at_once(get: Callable[[bytes], Awaitable[object]]) -> None:
        await asyncio.gather(*[get(key) for key in _KEYS])

    return {
        "raw socket GET": read_raw,
        "client get": lambda: client.get(key),
        "tier get": lambda: tier.get(key),
        "client set": lambda: client.set(key, _VALUE, px=3_600_000),
        "tier put": lambda: tier.put(key, _VALUE, _HOUR_NS),
        "client MGET 32": lambda: client.mget(_KEYS),
        "client 32": lambda: at_once(client.get),
        "tier 32": lambda: at_once(tier.get),
    }


async def _time(work: Callable[[], Awaitable[object]]) -> float:
    gc.collect()
    gc.disable()
    start = perf_counter_ns()
    for _ in range(_TURNS):
        await work()
    elapsed = perf_counter_ns() - start
    gc.enable()
    return elapsed / _TURNS


async def _delays(server: RedisServer, tier: RedisTier) -> dict[str, float]:
    """From asking to write until the callback in another process, one write after the other."""
    listener = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _LISTENER,
        server.url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert listener.stdin is not None
    assert listener.stdout is not None
    assert await listener.stdout.readline() == b"ready\n"
    delays: list[float] = []
    for number in range(_WRITES):
        start = perf_counter_ns()
        await tier.put(_KEYS[number % 32], _VALUE, _HOUR_NS)
        delays.append((int(await listener.stdout.readline()) - start) / 1e3)
    listener.stdin.close()
    await listener.wait()
    cuts = statistics.quantiles(delays, n=100)
    return {"min": min(delays), "p50": cuts[49], "p99": cuts[98], "writes": len(delays)}


def _ignore(_: bytes | None) -> None:
    """Nothing is kept in memory here."""


def _unexpected(exc: StorageError) -> None:
    raise exc


def main() -> None:
    """Prints the figures."""
    for name, value in run().items():
        print(name, value)


if __name__ == "__main__":
    main()
