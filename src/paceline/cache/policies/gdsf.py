"""GDSF: what is cheap to compute again, large and seldom asked for goes first."""

import heapq
import itertools
from collections.abc import Iterator
from typing import Final, final

from paceline.cache.entry import Entry
from paceline.cache.policies.cost import saved_ns

__all__ = ["GDSF"]

_SLACK: Final = 64


@final
class GDSF:
    """Cherkasova, Improving WWW proxies performance with Greedy-Dual-Size-Frequency, 1998.

    An entry is worth how often it was asked for, times its cost, over its weight, and on top of
    that the age of the cache when it was last asked for: the worth of what went last. So what
    was popular once goes in the end. With costs and weights all alike this is the least
    frequently used, with ageing.
    """

    __slots__ = ("_age", "_heap", "_held", "_order")

    def __init__(self, capacity: int) -> None:  # noqa: ARG002 - the order does not depend on it
        self._age = 0.0
        self._held = 0
        self._order = itertools.count()  # of equals the older goes first
        # The worth an entry had at some time: at most what it is now, so looked at again when
        # it comes first. May name entries that left; those have no place.
        self._heap: list[tuple[float, int, Entry]] = []

    def __len__(self) -> int:
        return self._held

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self._entries(), key=lambda entry: entry.place[0]))

    def add(self, entry: Entry) -> None:
        """Worth one use."""
        if len(self._heap) > 2 * self._held + _SLACK:
            self._rebuild()
        self._held += 1
        self._appraise(entry, 1)
        heapq.heappush(self._heap, (entry.place[0], next(self._order), entry))

    def use(self, entry: Entry) -> None:
        """Worth one use more, from now on."""
        self._appraise(entry, entry.place[1] + 1)

    def evict(self) -> Entry:
        """The one worth least, whose worth is the age of the cache from then on."""
        heap = self._heap
        while True:
            worth, _, entry = heap[0]
            place = entry.place
            if place is None:
                heapq.heappop(heap)
            elif place[0] > worth:
                heapq.heapreplace(heap, (place[0], next(self._order), entry))
            else:
                heapq.heappop(heap)
                self._age = worth
                self.remove(entry)
                return entry

    def remove(self, entry: Entry) -> None:
        """It stays in the heap without a place until its turn comes."""
        entry.place = None
        self._held -= 1

    def _appraise(self, entry: Entry, uses: int) -> None:
        worth = uses * saved_ns(entry) / max(1, entry.weight)
        entry.place = (self._age + worth, uses)

    def _entries(self) -> Iterator[Entry]:
        seen: set[int] = set()
        for _, _, entry in self._heap:
            if entry.place is not None and id(entry) not in seen:
                seen.add(id(entry))  # twice in the heap if it left and came back
                yield entry

    def _rebuild(self) -> None:
        self._heap = [(entry.place[0], next(self._order), entry) for entry in list(self)]
