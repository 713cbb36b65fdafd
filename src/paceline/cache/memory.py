"""The hot tier: a dictionary with an expiry for each entry, and least recently used goes first."""

import heapq
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar, final

import msgspec

from paceline.clock import Clock
from paceline.errors import InvalidInputError

__all__ = ["NEVER_NS", "Entry", "MemoryTier", "lifetime_ns"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

NEVER_NS: Final = 2**62
"""A lifetime of 146 years, in nanoseconds: for ever. Added to any clock it fits 63 bits."""

_SLACK: Final = 64


def lifetime_ns(ttl_s: float) -> int:
    """A time to live in nanoseconds. 0 means do not store; infinity means for ever.

    Raises InvalidInputError for a negative number and for what is not a number.
    """
    if math.isnan(ttl_s) or ttl_s < 0:
        raise InvalidInputError(
            f"a time to live of {ttl_s} s makes no sense",
            next_step="Use 0 for not at all, infinity for ever, or leave it out for the default.",
        )
    return min(round(min(ttl_s, NEVER_NS) * 1e9), NEVER_NS)


class Entry(msgspec.Struct, Generic[V], frozen=True):
    """A stored value and the moment of the monotonic clock from which it is expired."""

    value: V
    expires_ns: int


@final
class MemoryTier(Generic[K, V]):
    """At most `max_entries` values (0: none), each until its own expiry.

    An entry is valid while its age is less than its time to live. When there is no room, expired
    entries go first, then the least recently used; storing under a key that is there evicts
    nobody. Safe to use from several threads. Values are handed out as they were given: who
    shares mutable ones stores snapshots (`paceline.cache.snapshot`).
    """

    def __init__(self, max_entries: int, *, clock: Clock) -> None:
        if max_entries < 0:
            raise InvalidInputError(f"a cache of {max_entries} entries makes no sense")
        self.max_entries = max_entries
        self.evictions = 0
        self.expirations = 0
        self._now_ns = clock.monotonic_ns
        self._entries: OrderedDict[K, Entry[V]] = OrderedDict()
        self._expiries: list[tuple[int, int, K]] = []  # a heap; may name entries that are gone
        self._order = itertools.count()  # keys in the heap are never compared
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Entries held, expired ones that were not swept yet included."""
        return len(self._entries)

    def get(self, key: K) -> Entry[V] | None:
        """The valid entry of this key, which becomes the most recently used; else None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._now_ns() >= entry.expires_ns:
            self._expire(key, entry)
            return None
        # A hit takes no lock: each of the two steps is atomic, and the entry stays good if
        # another thread removes it between them.
        try:
            self._entries.move_to_end(key)
        except KeyError:
            return entry
        return entry

    def peek(self, key: K) -> Entry[V] | None:
        """The valid entry of this key, without counting as a use."""
        entry = self._entries.get(key)
        return entry if entry is not None and self._now_ns() < entry.expires_ns else None

    def put(self, key: K, value: V, ttl_ns: int) -> None:
        """Stores a value for `ttl_ns` nanoseconds, in place of what was there.

        With 0 nothing is stored, and what was there is removed.
        """
        if ttl_ns <= 0 or not self.max_entries:
            self.delete(key)
            return
        now_ns = self._now_ns()
        entry = Entry(value, now_ns + ttl_ns)
        with self._lock:
            if key not in self._entries:
                self._make_room(now_ns)
            self._entries[key] = entry
            self._entries.move_to_end(key)
            if ttl_ns < NEVER_NS:
                heapq.heappush(self._expiries, (entry.expires_ns, next(self._order), key))
            if len(self._expiries) > 2 * len(self._entries) + _SLACK:
                self._rebuild()

    def delete(self, key: K) -> bool:
        """Removes an entry; whether a valid one was there."""
        with self._lock:
            entry = self._entries.pop(key, None)
        return entry is not None and self._now_ns() < entry.expires_ns

    def clear(self) -> int:
        """Removes everything; how many entries that were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._expiries.clear()
        return count

    def _expire(self, key: K, entry: Entry[V]) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]
                self.expirations += 1

    def _make_room(self, now_ns: int) -> None:
        while self._expiries and self._expiries[0][0] <= now_ns:
            key = heapq.heappop(self._expiries)[2]
            entry = self._entries.get(key)
            if entry is not None and entry.expires_ns <= now_ns:
                del self._entries[key]
                self.expirations += 1
        while len(self._entries) >= self.max_entries:
            self._entries.popitem(last=False)
            self.evictions += 1

    def _rebuild(self) -> None:
        """Drops what the heap still holds of entries that were replaced or removed."""
        self._expiries = [
            (entry.expires_ns, next(self._order), key) for key, entry in self._entries.items()
        ]
        heapq.heapify(self._expiries)
