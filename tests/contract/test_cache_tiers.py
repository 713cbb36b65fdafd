"""Every tier keeps the promises of a cache backend."""

from pathlib import Path

import pytest

from paceline.cache.disk.tier import DiskTier
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.policies import POLICIES
from paceline.cache.redis.tier import RedisTier
from paceline.clock import Clock
from paceline.errors import StorageError
from paceline.testing import check_cache_backend
from paceline.testing.cache_backend import StoredValue
from tests.redis_server import RedisServer


def _unexpected(exc: StorageError) -> None:
    raise exc


@pytest.mark.parametrize("policy", POLICIES)
def test_the_hot_tier_keeps_its_promises(policy: str) -> None:
    """The hot tier passes every check, and any sequence of steps, with every policy. (S0-33,
    S0-34, S0-36, S0-37, S0-44, S0-50, D93)"""

    def memory(directory: Path, clock: Clock) -> MemoryTier[bytes, bytes]:
        return MemoryTier(100, clock=clock, policy=POLICIES[policy])

    result = check_cache_backend(memory, examples=20)
    assert set(result.left_out) == {"what_is_written_outlives_closing"}


def test_the_warm_tier_keeps_its_promises() -> None:
    """The warm tier passes every check, and any sequence of steps and reopenings, what was put
    being due after a flush. (S0-33, S0-34, S0-37, S0-45, S0-50, D93)"""

    def disk(directory: Path, clock: Clock) -> DiskTier:
        return DiskTier(
            directory / "cache.db", clock=clock, max_bytes=4_000_000, on_trouble=_unexpected
        )

    result = check_cache_backend(disk, eventual=True, persistent=True, examples=30)
    assert result.left_out == {}


class _Cold:
    """A cold tier, open, with a namespace of its own and time enough on a busy machine."""

    def __init__(self, url: str, directory: Path, clock: Clock) -> None:
        self.tier = RedisTier(
            url,
            clock=clock,
            budget_s=10,
            namespace=f"suite.{directory.name}",
            on_trouble=_unexpected,
            on_invalidated=lambda _: None,
        )

    async def get(self, key: bytes) -> StoredValue | None:
        return await self.tier.get(key)

    async def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        await self.tier.put(key, value, ttl_ns)

    async def delete(self, key: bytes) -> None:
        await self.tier.delete(key)

    async def clear(self) -> None:
        await self.tier.clear()

    async def close(self) -> None:
        await self.tier.__aexit__()


def test_the_cold_tier_keeps_its_promises(server: RedisServer) -> None:
    """The cold tier passes every check against a real server and in its time, tasks at once and
    another tier after it included. (S0-33, S0-34, S0-37, S0-44, S0-50, S1-51, D93)"""

    async def cold(directory: Path, clock: Clock) -> _Cold:
        made = _Cold(server.url, directory, clock)
        await made.tier.__aenter__()
        return made

    result = check_cache_backend(cold, persistent=True, real_time=True, examples=20)
    assert set(result.left_out) == {"a_lifetime_is_kept_to_the_nanosecond"}
