"""A store of somebody else's as the lowest tier: nothing it answers is believed."""

import logging
from collections.abc import Hashable
from typing import Any, Final, Protocol, final

from paceline.cache.memory.tier import NEVER_NS
from paceline.cache.redis.record import Unusable, pack, unpack
from paceline.cache.stack.levels import Kept, Meant, Spill, payload_of, remaining_ns, unpacked
from paceline.clock import Clock
from paceline.errors import StorageError

__all__ = ["Store", "StoreLevel", "StoredBytes"]

_log = logging.getLogger("paceline")

_LONGEST_NS: Final = 10**18
"""About 31 years: a moment so far from now is still one of the calendar."""


class StoredBytes(Protocol):
    """What a store finds."""

    @property
    def value(self) -> Any:
        """The bytes that were stored."""
        ...


class Store(Protocol):
    """A place for bytes by key; `paceline.testing.check_cache_backend` puts one to the test."""

    def get(self, key: bytes, /) -> StoredBytes | None:
        """The valid value under this key, or None."""
        ...

    def put(self, key: bytes, value: bytes, ttl_ns: int, /) -> object:
        """Stores a value for so many nanoseconds, in place of what was there."""
        ...

    def delete(self, key: bytes, /) -> object:
        """Removes a value."""
        ...

    def clear(self) -> object:
        """Removes all values."""
        ...


@final
class StoreLevel:
    """Values in a store that bounds itself.

    Each is written with its key, its end and a digest, so what is damaged, displaced or past
    its time is a miss, whatever the store says. A store that raises when it is asked or given
    something is a miss too; not when it is to remove something, which must not come back.
    """

    in_bytes = True

    def __init__(self, store: Store, max_entries: int, *, clock: Clock) -> None:
        self.max_entries = max_entries
        self.spill: Spill = lambda _key, _kept: None
        self._store = store
        self._clock = clock

    def __len__(self) -> int:
        """0: a store does not say."""
        return 0

    @property
    def expirations(self) -> int:
        return 0

    def takes(self, kept: Kept) -> bool:
        return payload_of(kept) is not None

    def put(self, key: Any, kept: Kept) -> None:
        now_ns = self._clock.wall_ns()  # first: what passes between the two shortens its life
        left_ns = remaining_ns(kept.expires_ns, self._clock.monotonic_ns())
        payload = payload_of(kept)
        if left_ns <= 0 or payload is None:
            self.delete(key)
            return
        left_ns = min(left_ns, _LONGEST_NS)
        record = pack(key, payload, left_ns, kept.about, now_ns)
        try:
            self._store.put(key, record, left_ns)
        except Exception as exc:  # noqa: BLE001 (foreign code; what it lost is a miss)
            _log.warning("the cold tier did not store a value: %r", exc)
            self.delete(key)

    def get(self, key: Any) -> Kept | None:
        try:
            stored = self._store.get(key)
            data = None if stored is None else bytes(stored.value)
        except Exception as exc:  # noqa: BLE001 (foreign code; what it does not tell is a miss)
            _log.warning("the cold tier did not answer: %r", exc)
            return None
        if data is None:
            return None
        now_ns = self._clock.monotonic_ns()  # first, as above
        found = unpack(data, key, self._clock.wall_ns())
        if isinstance(found, Unusable):
            return None
        expires_ns = min(now_ns + found.remaining_ns, NEVER_NS)
        return unpacked(found.value, expires_ns, found.about)

    def has(self, key: Hashable) -> bool:
        return self.get(key) is not None

    def delete(self, key: Any) -> None:
        try:
            self._store.delete(key)
        except Exception as exc:
            raise _still_there(exc) from exc

    def clear(self) -> int:
        try:
            self._store.clear()
        except Exception as exc:
            raise _still_there(exc) from exc
        return 0

    def invalidate(self, tag: str | None, prefix: str | None, meant: Meant | None) -> int:
        """Removes everything: a store cannot be searched."""
        del tag, prefix, meant
        return self.clear()

    def close(self) -> None:
        """Does nothing: the store is its owner's."""


def _still_there(error: Exception) -> StorageError:
    return StorageError(
        f"the cold tier did not remove a value: {error!r}",
        next_step="It may still be served; remove it again when the store answers.",
    )
