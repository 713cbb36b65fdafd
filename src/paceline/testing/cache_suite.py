"""What every tier of the cache promises, as checks that any implementation can be put to.

Subclass `CacheTierSuite` under a name that pytest collects, and say how a tier is opened::

    class TestMyTier(CacheTierSuite):
        def open(self, directory, clock):
            return MyTier(directory / "file", clock=clock)
"""

import abc
from pathlib import Path
from typing import Any, Final, Protocol

from paceline.testing.virtual_time import VirtualClock

__all__ = ["CacheTierSuite", "StoredValue", "Tier"]

SECOND_NS: Final = 1_000_000_000
FOREVER_NS: Final = 2**62
KEY: Final = bytes(range(32))
OTHER: Final = bytes(reversed(KEY))


class StoredValue(Protocol):
    """What a tier finds."""

    @property
    def value(self) -> Any:
        """The bytes that were stored."""
        ...


class Tier(Protocol):
    """What a tier of the cache does. Keys are 32 bytes, lifetimes nanoseconds."""

    def get(self, key: bytes, /) -> StoredValue | None:
        """The valid value under this key, or None."""
        ...

    def put(self, key: bytes, value: Any, ttl_ns: int, /) -> None:
        """Stores a value in place of what was there; with a lifetime of 0, removes that."""
        ...

    def delete(self, key: bytes, /) -> object:
        """Removes a value, for all reads from now on."""
        ...

    def clear(self) -> object:
        """Removes all values, for all reads from now on."""
        ...


class CacheTierSuite(abc.ABC):
    """The checks. `tmp_path` is pytest's directory of the test."""

    @abc.abstractmethod
    def open(self, directory: Path, clock: VirtualClock) -> Any:
        """A tier with room for at least 100 values of 1,000 bytes, its files in `directory`."""

    def settle(self, tier: Any) -> None:  # noqa: B027 (most tiers have nothing to wait for)
        """Waits until what was put can be read; nothing to do where that is at once."""

    def close(self, tier: Any) -> None:  # noqa: B027 (and nothing to close)
        """Closes a tier; nothing to do where there is nothing to close."""

    def test_what_is_put_is_found(self, tmp_path: Path) -> None:
        """A value is found under its key and under no other. (S0-33)"""
        tier, _ = self._opened(tmp_path)
        self._put(tier, KEY, b"value")
        assert self._get(tier, KEY) == b"value"
        assert self._get(tier, OTHER) is None
        self.close(tier)

    def test_an_empty_value_is_a_value(self, tmp_path: Path) -> None:
        """A value of no bytes is found like any other. (S0-34)"""
        tier, _ = self._opened(tmp_path)
        self._put(tier, KEY, b"")
        assert self._get(tier, KEY) == b""
        self.close(tier)

    def test_values_keep_every_byte(self, tmp_path: Path) -> None:
        """Any bytes come back as they were."""
        tier, _ = self._opened(tmp_path)
        value = bytes(range(256)) * 4
        self._put(tier, KEY, value)
        assert self._get(tier, KEY) == value
        self.close(tier)

    def test_a_value_ends_with_its_lifetime(self, tmp_path: Path) -> None:
        """A value is valid while its age is less than its lifetime, to the nanosecond. (S0-28)"""
        tier, clock = self._opened(tmp_path)
        self._put(tier, KEY, b"value", 10 * SECOND_NS)
        clock.advance(10 - 1e-9)
        assert self._get(tier, KEY) == b"value"
        clock.advance(1e-9)
        assert self._get(tier, KEY) is None
        self.close(tier)

    def test_a_hit_prolongs_nothing(self, tmp_path: Path) -> None:
        """Reading a value does not move its expiry. (S0-47)"""
        tier, clock = self._opened(tmp_path)
        self._put(tier, KEY, b"value", 10 * SECOND_NS)
        for _ in range(3):
            clock.advance(3)
            assert self._get(tier, KEY) == b"value"
        clock.advance(1)
        assert self._get(tier, KEY) is None
        self.close(tier)

    def test_for_ever_is_long(self, tmp_path: Path) -> None:
        """The longest lifetime outlasts a century."""
        tier, clock = self._opened(tmp_path)
        self._put(tier, KEY, b"value", FOREVER_NS)
        clock.advance(100 * 365 * 86_400)
        assert self._get(tier, KEY) == b"value"
        self.close(tier)

    def test_a_lifetime_of_zero_stores_nothing(self, tmp_path: Path) -> None:
        """With a lifetime of 0 nothing is stored, and what was there is gone. (S0-37)"""
        tier, _ = self._opened(tmp_path)
        self._put(tier, KEY, b"value", 0)
        assert self._get(tier, KEY) is None
        self._put(tier, KEY, b"value")
        self._put(tier, KEY, b"newer", 0)
        assert self._get(tier, KEY) is None
        self.close(tier)

    def test_the_last_put_holds(self, tmp_path: Path) -> None:
        """A put replaces value and lifetime of the one before. (S0-36, S0-49)"""
        tier, clock = self._opened(tmp_path)
        self._put(tier, KEY, b"old", SECOND_NS)
        self._put(tier, KEY, b"new", 5 * SECOND_NS)
        clock.advance(2)
        assert self._get(tier, KEY) == b"new"
        self._put(tier, KEY, b"short", SECOND_NS)
        clock.advance(1)
        assert self._get(tier, KEY) is None
        self.close(tier)

    def test_what_is_deleted_is_gone_at_once(self, tmp_path: Path) -> None:
        """A deleted value is found by no later read; others stay. (S0-50)"""
        tier, _ = self._opened(tmp_path)
        self._put(tier, KEY, b"value")
        self._put(tier, OTHER, b"other")
        tier.delete(KEY)
        assert self._get(tier, KEY) is None
        self.settle(tier)
        assert self._get(tier, KEY) is None
        assert self._get(tier, OTHER) == b"other"
        self._put(tier, KEY, b"again")
        assert self._get(tier, KEY) == b"again"
        self.close(tier)

    def test_what_is_cleared_is_gone_at_once(self, tmp_path: Path) -> None:
        """After clear nothing of before is found, and the tier goes on. (S0-38, S0-50)"""
        tier, _ = self._opened(tmp_path)
        self._put(tier, KEY, b"value")
        tier.clear()
        assert self._get(tier, KEY) is None
        self.settle(tier)
        assert self._get(tier, KEY) is None
        self._put(tier, OTHER, b"other")
        assert self._get(tier, OTHER) == b"other"
        self.close(tier)

    def test_many_values_keep_apart(self, tmp_path: Path) -> None:
        """A hundred values under keys that differ in one byte are each found under their own."""
        tier, _ = self._opened(tmp_path)
        for number in range(100):
            tier.put(_key(number), b"%d" % number * 100, 10 * SECOND_NS)
        self.settle(tier)
        assert all(self._get(tier, _key(n)) == b"%d" % n * 100 for n in range(100))
        self.close(tier)

    def _opened(self, directory: Path) -> tuple[Any, VirtualClock]:
        clock = VirtualClock()
        return self.open(directory, clock), clock

    def _put(self, tier: Any, key: bytes, value: bytes, ttl_ns: int = 3_600 * SECOND_NS) -> None:
        tier.put(key, value, ttl_ns)
        self.settle(tier)

    def _get(self, tier: Any, key: bytes) -> bytes | None:
        found = tier.get(key)
        return None if found is None else found.value


def _key(number: int) -> bytes:
    return bytes(31) + bytes([number])
