"""What a hit and a key cost, beside what the machine allows.

Each of ours runs right after its physical limit, so that a busy machine slows both alike:
a memory hit with a bare dictionary, a hit in the file with a bare SQLite read of the same rows,
a key with the digest of bytes as long as its encoding. The first hit of a process is timed in
processes of their own.
"""

import asyncio
import functools
import hashlib
import itertools
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.timing import Case, Timed, measure, ratios
from paceline.cache.disk.tier import DiskTier
from paceline.cache.function.decorator import cached
from paceline.cache.keys import call_key, canonical
from paceline.cache.lru import LRUCache
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import ResultCache
from paceline.call import Call, Caller, Effect, Kind, Plan, Scope, ScopeLevel
from paceline.clock import SystemClock
from paceline.codec import encode
from paceline.errors import StorageError

__all__ = ["main", "run"]

ROUNDS = 9
ENTRIES = 10_000
_HOUR_NS = 3_600_000_000_000
_VALUE = {"stdout": "x" * 300, "exit_code": 0, "lines": [1, 2, 3]}
_LIMIT_BYTES = 64 * 1024 * 1024

_FIRST_HIT = """
import sys, time, pathlib
from paceline.cache.disk.tier import DiskTier
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.tiered import ResultCache
from paceline.clock import SystemClock
clock = SystemClock()
disk = DiskTier(pathlib.Path(sys.argv[1]), clock=clock, max_bytes=int(sys.argv[2]), on_trouble=print)
cache = ResultCache(MemoryTier(1_000, clock=clock), disk, clock=clock)
start = time.perf_counter_ns()
hit = cache.get(bytes.fromhex(sys.argv[3]))
elapsed = time.perf_counter_ns() - start
assert hit is not None
print(elapsed)
disk.close()
"""


def run(rounds: int = ROUNDS) -> dict[str, object]:
    """Nanoseconds an operation of ours and of the limit, in each round, and ratios."""
    rng = random.Random(1)
    keys = [rng.randbytes(32) for _ in range(ENTRIES)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cache.db"
        disk = DiskTier(path, clock=SystemClock(), max_bytes=_LIMIT_BYTES, on_trouble=_unexpected)
        payload = encode(_VALUE)
        for key in keys:
            disk.put(key, payload, _HOUR_NS)
        disk.flush()
        runner = asyncio.Runner()
        raw = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            asked = rng.choices(keys, k=2_000)
            cases = [
                *_memory_cases(keys, asked),
                *_disk_cases(disk, raw, asked),
                *_key_cases(),
                *_decorator_cases(),
                *_async_cases(runner),
            ]
            times = measure(cases, rounds)
            first_us = [_first_hit_us(path, key) for key in asked[:rounds]]
        finally:
            raw.close()
            disk.close()
            runner.close()
    return {
        "rounds": rounds,
        "ns": times,
        "ratio": ratios(times),
        "first_warm_hit_us": first_us,
        "entry_bytes": _entry_bytes(),
    }


def _memory_cases(keys: list[bytes], asked: list[bytes]) -> Iterator[Case]:
    clock = SystemClock()
    plain = dict.fromkeys(keys, "text")
    tier = MemoryTier[bytes, Snapshot](ENTRIES, clock=clock)
    cache = ResultCache(tier, None, clock=clock)
    for key in keys:
        cache.put(key, "text")
    changeable = ResultCache(MemoryTier[bytes, Snapshot](ENTRIES, clock=clock), None, clock=clock)
    for key in keys:
        changeable.put(key, _VALUE)
    yield "limit: dict.get", lambda: [plain.get(key) for key in asked], len(asked)
    yield "memory tier hit", lambda: [tier.get(key) for key in asked], len(asked)
    yield "hot hit", lambda: [cache.get(key) for key in asked], len(asked)
    yield "hot hit, decoded", lambda: [changeable.get(key) for key in asked], len(asked)

    numbers = itertools.count()
    full = MemoryTier[int, str](1_000, clock=clock)

    def put() -> None:
        for number in itertools.islice(numbers, 1_000):
            full.put(number, "text", _HOUR_NS)

    yield "memory tier put, full", put, 1_000


def _disk_cases(disk: DiskTier, raw: sqlite3.Connection, asked: list[bytes]) -> Iterator[Case]:
    sql = "SELECT payload, head, used FROM results WHERE key = ?"
    cache = ResultCache(MemoryTier(0, clock=SystemClock()), disk, clock=SystemClock())
    yield (
        "limit: sqlite3 read",
        lambda: [raw.execute(sql, (key,)).fetchone() for key in asked],
        len(asked),
    )
    yield "disk tier hit", lambda: [disk.get(key) for key in asked], len(asked)
    yield "warm hit", lambda: [cache.get(key) for key in asked], len(asked)
    payload = encode(_VALUE)

    def put() -> None:
        for key in asked:
            disk.put(key, payload, _HOUR_NS)
        disk.flush()

    yield "disk tier put, written", put, len(asked)


def _key_cases() -> Iterator[Case]:
    call = Call(
        id="1", kind=Kind.AGENT, name="host_exec", arguments={"query": "df -h /var", "limit": 20},
        caller=Caller("ada"), scope=Scope(ScopeLevel.USER, None, "ada"), plan=Plan(Effect.read()),
    )  # fmt: skip
    encoded = canonical((msgspec.structs.astuple(call.scope), call.name, dict(call.arguments)))
    yield (
        "limit: BLAKE2b",
        lambda: [hashlib.blake2b(encoded, digest_size=32).digest() for _ in range(1_000)],
        1_000,
    )
    yield "call key", lambda: [call_key(call, "1", b"12345678") for _ in range(1_000)], 1_000


def _decorator_cases() -> Iterator[Case]:
    """Hits of 1,000 keys in turn, and misses that evict, all with a lifetime and statistics."""
    texts = [f"key-{number}" for number in range(1_000)]
    cache = LRUCache(10_000, 300)

    @functools.lru_cache(10_000)
    def limit(x: str) -> str:
        return x

    @cached(cache)
    def ours(x: str) -> str:
        return x

    @cached(cache, tags=("a", "b"), stale=60, stale_if_error=600, early=1.0, scope=lambda: "ada")
    def loaded(x: str) -> str:
        return x

    @cached(cache, tags=("a", "b"), stale=60, stale_if_error=600, early=1.0)
    def tagged(x: str) -> str:
        return x

    for text in texts:
        cache.put(text, text)
    yield "limit: functools.lru_cache hit", lambda: [limit(text) for text in texts], 1_000
    yield "cached hit", lambda: [ours(text) for text in texts], 1_000
    yield "cached hit, tags and stale", lambda: [tagged(text) for text in texts], 1_000
    yield "cached hit, tags and scope", lambda: [loaded(text) for text in texts], 1_000
    fresh = itertools.count()
    small = cached(LRUCache(1_000, 300))(lambda x: x)
    yield "cached miss", lambda: [small(x) for x in itertools.islice(fresh, 500)], 500
    plain = dict.fromkeys(texts, 1)
    yield "limit: dict.get of a text", lambda: [plain.get(text) for text in texts], 1_000
    yield "LRUCache.get", lambda: [cache.get(text) for text in texts], 1_000


def _async_cases(runner: asyncio.Runner) -> Iterator[Case]:
    texts = [f"key-{number}" for number in range(1_000)] * 10
    fresh = itertools.count()
    small = LRUCache(1_000, 300)

    async def limit(x: object) -> object:
        return x

    ours, missing = cached(LRUCache(10_000, 300))(limit), cached(small)(limit)

    def each(do: Callable[[Any], Coroutine[Any, Any, object]], items: Iterable[object]) -> object:
        async def run() -> None:
            for item in items:
                await do(item)

        return runner.run(run())

    async def shielded(x: object) -> object:
        return await asyncio.shield(asyncio.create_task(limit(x)))

    yield "limit: await of a coroutine", lambda: each(limit, texts), 10_000
    yield "cached hit, async", lambda: each(ours, texts), 10_000
    yield "limit: a task and a shield", lambda: each(shielded, range(500)), 500
    yield "cached miss, async", lambda: each(missing, itertools.islice(fresh, 500)), 500


def _entry_bytes() -> dict[str, float]:
    """What an entry of a full cache takes beside its key and value, without and with a lifetime."""
    taken: dict[str, float] = {}
    keys = list(range(100_000, 200_000))
    for name, ttl in (("for ever", None), ("with a lifetime", 300.0)):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        cache = LRUCache(len(keys), ttl)
        for key in keys:
            cache.put(key, "text")
        taken[name] = (tracemalloc.get_traced_memory()[0] - before) / len(keys)
        tracemalloc.stop()
    return taken


def _first_hit_us(path: Path, key: bytes) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_HIT, path, str(_LIMIT_BYTES), key.hex()],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) / 1e3


def _unexpected(exc: StorageError) -> None:
    raise exc


def main() -> None:
    """Prints the figures."""
    figures = msgspec.convert(run(), _Figures)
    for name, timed in figures.ns.items():
        print(f"{name:32}{timed.median:10,.0f} ns{timed.ratio:8.1f} x the limit")
    for name, taken in figures.entry_bytes.items():
        print(f"an entry {name}: {taken:.0f} bytes")
    first = figures.first_warm_hit_us
    print(
        f"first warm hit of a process: {min(first):,.0f} to {max(first):,.0f} us, "
        f"median {statistics.median(first):,.0f} us"
    )


class _Figures(msgspec.Struct):
    ns: dict[str, Timed]
    first_warm_hit_us: list[float]
    entry_bytes: dict[str, float]


if __name__ == "__main__":
    main()
