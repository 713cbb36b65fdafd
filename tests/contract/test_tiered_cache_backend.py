"""`TieredCache` keeps the promises of a cache backend, wherever its lower tiers are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

import pytest

from paceline.cache.stack.cache import CacheTier, TieredCache
from paceline.testing import check_cache_backend
from paceline.testing.virtual_time import VirtualClock


class _Found(NamedTuple):
    value: bytes


@final
class _Backend:
    """A stack that is given bytes, each key in a tier of its own."""

    def __init__(self, cache: TieredCache) -> None:
        self.cache = cache

    def get(self, key: bytes) -> _Found | None:
        found = self.cache.get(key, self)
        return None if found is self else _Found(found)

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        self.cache.put(key, value, list(CacheTier)[key[0] % 3], ttl_ns / 1e9)

    def delete(self, key: bytes) -> None:
        self.cache.delete(key)

    def clear(self) -> None:
        self.cache.clear()

    def close(self) -> None:
        self.cache.close()


def _in_memory(directory: Path, clock: VirtualClock) -> _Backend:
    return _Backend(TieredCache(1, 2, 100, clock=clock))


def _on_disk(directory: Path, clock: VirtualClock) -> _Backend:
    return _Backend(TieredCache(1, 200, 0, directory=directory, clock=clock))


def _over_a_store(directory: Path, clock: VirtualClock) -> _Backend:
    return _Backend(TieredCache(1, 2, cold=_in_memory(directory, clock), clock=clock))


@pytest.mark.parametrize("factory", [_in_memory, _on_disk, _over_a_store])
def test_a_stack_is_a_backend(factory: Callable[[Path, Any], _Backend]) -> None:
    """Whatever a cache backend has to do, a stack of tiers does, in memory, with a file, and over
    a store that is a stack itself. (S0-50, S0-75)"""
    lasts = factory is _on_disk
    kept = check_cache_backend(factory, persistent=lasts, examples=8 if lasts else 30).kept
    assert "any_sequence_of_steps" in kept
