"""Results of calls in tiers: memory first, then the file, each hit with its remaining lifetime."""

import logging
from typing import Any, NamedTuple, final

import msgspec

from paceline.cache.disk import DiskTier
from paceline.cache.memory import MemoryTier, lifetime_ns
from paceline.cache.snapshot import Snapshot
from paceline.call import Source
from paceline.codec import decode
from paceline.errors import CodecError

__all__ = ["CacheStats", "Hit", "ResultCache"]

_log = logging.getLogger("paceline")


class Hit(NamedTuple):
    """A result that was found, the caller's own, and the tier it was found in."""

    value: Any
    source: Source


class CacheStats(msgspec.Struct, frozen=True):
    """What a cache has done. One look-up counts once, whichever tier answers it."""

    hot_hits: int
    warm_hits: int
    misses: int
    entries: int
    evictions: int
    expirations: int

    @property
    def hits(self) -> int:
        """Look-ups that were answered."""
        return self.hot_hits + self.warm_hits

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that were answered, 0..1; 0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


@final
class ResultCache:
    """The results of calls, by key.

    Every value handed out is the caller's own. A result has one moment of expiry, which moving
    between tiers does not change. `default_ttl_s` holds where a result comes without one.
    """

    def __init__(
        self,
        memory: MemoryTier[bytes, Snapshot],
        disk: DiskTier | None,
        *,
        default_ttl_s: float,
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._default_ns = lifetime_ns(default_ttl_s)
        self._hot_hits = 0
        self._warm_hits = 0
        self._misses = 0

    def get(self, key: bytes, result_type: Any = None) -> Hit | None:
        """The valid result under this key, or None.

        `result_type` is what the value is read back as; see `paceline.codec`.
        """
        entry = self._memory.get(key)
        try:
            if entry is not None:
                value = entry.value.thaw(result_type)
                self._hot_hits += 1
                return Hit(value, Source.HOT)
            hit = self._get_warm(key, result_type)
        except CodecError as exc:
            _log.info("a stored result is dropped: %s", exc)
            self.delete(key)
            hit = None
        if hit is None:
            self._misses += 1
        return hit

    def put(
        self, key: bytes, value: object, ttl_s: float | None = None, result_type: Any = None
    ) -> Snapshot | None:
        """Stores a result for `ttl_s` seconds (None: the default; 0: not at all).

        Returns what was stored; None if nothing was. A value that has no encoding is kept in
        memory only, and one that cannot be copied either is not kept. Raises InvalidInputError
        for a negative lifetime, and nothing else, whatever the value's own code does.
        """
        ttl_ns = self._default_ns if ttl_s is None else lifetime_ns(ttl_s)
        if not ttl_ns or (not self._memory.max_entries and self._disk is None):
            self.delete(key)
            return None
        try:
            snapshot = Snapshot.take(value, result_type)
        except CodecError as exc:
            _log.info("a result is not stored: %s", exc)
            self.delete(key)
            return None
        self._memory.put(key, snapshot, ttl_ns)
        self._put_warm(key, snapshot, ttl_ns, result_type)
        return snapshot

    def delete(self, key: bytes) -> None:
        """Removes the result under this key from all tiers."""
        self._memory.delete(key)
        if self._disk is not None:
            self._disk.delete(key)

    def clear(self) -> None:
        """Removes all results from all tiers."""
        self._memory.clear()
        if self._disk is not None:
            self._disk.clear()

    def snapshot(self) -> CacheStats:
        """What this cache has done so far."""
        return CacheStats(
            hot_hits=self._hot_hits,
            warm_hits=self._warm_hits,
            misses=self._misses,
            entries=len(self._memory),
            evictions=self._memory.evictions,
            expirations=self._memory.expirations,
        )

    def _get_warm(self, key: bytes, result_type: Any) -> Hit | None:
        found = self._disk.get(key) if self._disk is not None else None
        if found is None:
            return None
        value = decode(found.value, result_type)
        self._memory.put(key, Snapshot.of_payload(found.value, value), found.remaining_ns)
        self._warm_hits += 1
        return Hit(value, Source.WARM)

    def _put_warm(self, key: bytes, snapshot: Snapshot, ttl_ns: int, result_type: Any) -> None:
        if self._disk is None:
            return
        payload = snapshot.payload(result_type)
        if payload is not None:
            self._disk.put(key, payload, ttl_ns)
            return
        kind = type(snapshot.held).__qualname__
        _log.info("a %s is kept in memory only: it has no encoding", kind)
        self._disk.delete(key)
