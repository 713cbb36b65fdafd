"""Both tiers keep the promises of a cache tier; tiers with seeded bugs do not."""

from pathlib import Path
from typing import Any, Final

import pytest

from paceline.cache.disk import DiskTier, Found
from paceline.cache.memory import MemoryTier
from paceline.errors import StorageError
from paceline.testing.cache_suite import CacheTierSuite, Tier
from paceline.testing.virtual_time import VirtualClock


def _unexpected(exc: StorageError) -> None:
    raise exc


def _memory(clock: VirtualClock) -> MemoryTier[bytes, bytes]:
    return MemoryTier(100, clock=clock)


class TestMemoryTier(CacheTierSuite):
    """The hot tier is a tier."""

    def open(self, directory: Path, clock: VirtualClock) -> Tier:
        return _memory(clock)


class TestDiskTier(CacheTierSuite):
    """The warm tier is a tier."""

    def open(self, directory: Path, clock: VirtualClock) -> DiskTier:
        return DiskTier(
            directory / "cache.db", clock=clock, max_bytes=4_000_000, on_trouble=_unexpected
        )

    def settle(self, tier: DiskTier) -> None:
        assert tier.flush(30)

    def close(self, tier: DiskTier) -> None:
        tier.close()


class _Seeded:
    """A tier to put a bug into, by overriding."""

    def __init__(self, clock: VirtualClock) -> None:
        self.tier = _memory(clock)
        self.clock = clock

    def get(self, key: bytes) -> Any:
        return self.tier.get(key)

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        self.tier.put(key, value, ttl_ns)

    def delete(self, key: bytes) -> object:
        return self.tier.delete(key)

    def clear(self) -> object:
        return self.tier.clear()


class _EmptyIsAbsent(_Seeded):
    def get(self, key: bytes) -> Any:
        found = self.tier.get(key)
        return found if found is not None and found.value else None


class _HitProlongs(_Seeded):
    def get(self, key: bytes) -> Any:
        found = self.tier.get(key)
        if found is not None:
            self.tier.put(key, found.value, 10_000_000_000)
        return found


class _ZeroIsDefault(_Seeded):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        self.tier.put(key, value, ttl_ns or 300_000_000_000)


class _LivesATickLonger(_Seeded):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        self.tier.put(key, value, ttl_ns and ttl_ns + 1)


class _KeysByFirstByte(_Seeded):
    def get(self, key: bytes) -> Any:
        return self.tier.get(key[:1])

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        self.tier.put(key[:1], value, ttl_ns)

    def delete(self, key: bytes) -> object:
        return self.tier.delete(key[:1])


class _FirstPutHolds(_Seeded):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        if self.tier.peek(key) is None:
            self.tier.put(key, value, ttl_ns)


class _DeleteForgets(_Seeded):
    def delete(self, key: bytes) -> object:
        return False


class _ClearForgets(_Seeded):
    def clear(self) -> object:
        return 0


class _Text(_Seeded):
    def get(self, key: bytes) -> Any:
        found = self.tier.get(key)
        return found and Found(found.value.decode("utf-8", "replace").encode(), 0)


_BUGS: Final = [
    _EmptyIsAbsent, _HitProlongs, _ZeroIsDefault, _LivesATickLonger, _KeysByFirstByte,
    _FirstPutHolds, _DeleteForgets, _ClearForgets, _Text,
]  # fmt: skip


@pytest.mark.parametrize("bug", _BUGS)
def test_the_suite_catches_seeded_bugs(bug: type[_Seeded], tmp_path: Path) -> None:
    """A tier with any of the seeded bugs fails the suite."""

    class Suite(CacheTierSuite):
        def open(self, directory: Path, clock: VirtualClock) -> Tier:
            return bug(clock)

    checks = [getattr(Suite(), name) for name in dir(Suite) if name.startswith("test_")]
    assert not all(_passes(check, tmp_path) for check in checks)


def _passes(check: Any, tmp_path: Path) -> bool:
    try:
        check(tmp_path)
    except AssertionError:
        return False
    return True
