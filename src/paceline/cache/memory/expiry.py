"""Which entries are past their time, without looking at the others."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, final

from paceline.cache.entry import Entry

__all__ = ["Expiries"]

# By the bits of a lifetime: the power of ten next below a hundredth of it, in nanoseconds.
_GRAINS: Final = tuple(10 ** max(0, len(str(1 << bits >> 1)) - 3) for bits in range(65))
_NEVER: Final = 2**63
_SLACK: Final = 64
_PLACES: Final = 128
_BUCKETS: Final = 8


@final
class Expiries:
    """Entries by the moment they end, in buckets a hundredth of their lifetime wide at the most.

    An entry costs one place in a list instead of one in a heap; in exchange it is found up to a
    hundredth of its lifetime late. Entries that left before their time stay in their bucket until
    some later `add` comes upon them; they are known by `fresh_ns` 0.
    """

    __slots__ = (
        "_after", "_bucket", "_buckets", "_hand", "_held", "_last", "_lifetime", "_moment",
        "_moments", "_most", "first_ns", "size",
    )  # fmt: skip

    def __init__(self, held: Callable[[], int]) -> None:
        """`held` tells how many entries there are; twice as many places may be taken."""
        self._held = held
        self._most = _SLACK
        self._buckets: dict[int, list[Entry]] = {}
        self._moments: list[int] = []  # a heap of the ends of buckets
        self._bucket = self._hand = 0  # where it was last tidied: a place in that heap, and in it
        # The bucket of the last `add`, which the next one is likely to meet: from when to when
        # those with this lifetime end that belong there.
        self._last: list[Entry] = []
        self._lifetime = self._after = self._moment = 0
        self.first_ns = _NEVER
        """The end of the first bucket: nothing is to be found before."""
        self.size = 0
        """Places taken in buckets, those of entries that left included."""

    def add(self, entry: Entry, ends_ns: int, lifetime_ns: int) -> None:
        """Takes in an entry that ends at a moment, after a lifetime that says how exactly."""
        if lifetime_ns != self._lifetime or not self._after < ends_ns <= self._moment:
            self._choose(ends_ns, lifetime_ns)
        self._last.append(entry)
        self.size += 1
        if self.size > self._most:
            self._tidy()

    def overdue(self, now_ns: int, tries: int) -> Entry | None:
        """Takes out an entry that has ended; looks at no more than `tries` places."""
        for _ in range(tries):
            if self.first_ns > now_ns:
                return None
            bucket = self._buckets[self.first_ns]
            if not bucket:
                del self._buckets[heappop(self._moments)]
                self._lifetime = 0
                self.first_ns = self._moments[0] if self._moments else _NEVER
                continue
            self.size -= 1
            entry = bucket.pop()
            if entry.fresh_ns:
                return entry
        return None

    def clear(self) -> None:
        """Forgets all entries."""
        self._buckets.clear()
        self._moments.clear()
        self._bucket = self._hand = self.size = self._lifetime = 0
        self._last = []
        self.first_ns = _NEVER

    def _choose(self, ends_ns: int, lifetime_ns: int) -> None:
        """Makes the bucket of such an entry the last one."""
        grain = _GRAINS[lifetime_ns.bit_length()]
        moment = ends_ns + -ends_ns % grain
        bucket = self._buckets.get(moment)
        if bucket is None:
            bucket = self._buckets[moment] = []
            heappush(self._moments, moment)
            self.first_ns = self._moments[0]
        self._last = bucket
        self._lifetime, self._after, self._moment = lifetime_ns, moment - grain, moment

    def _tidy(self) -> None:
        """Drops entries that left from the next few places, if there are too many."""
        self._most = 2 * self._held() + _SLACK
        if self.size <= self._most:
            return
        for _ in range(_BUCKETS):
            if self._bucket >= len(self._moments):
                self._bucket = 0
            bucket = self._buckets[self._moments[self._bucket]]
            places = bucket[self._hand : self._hand + _PLACES]
            kept = [entry for entry in places if entry.fresh_ns]
            bucket[self._hand : self._hand + _PLACES] = kept
            self.size -= len(places) - len(kept)
            self._hand += len(kept)
            if self._hand < len(bucket):
                return
            self._bucket += 1
            self._hand = 0
