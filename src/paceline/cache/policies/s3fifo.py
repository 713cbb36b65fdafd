"""S3-FIFO: three queues, and a hit only counts."""

from collections.abc import Iterator
from typing import Final, final

from paceline.cache.entry import Entry
from paceline.cache.policies.identity import mark_of
from paceline.cache.policies.queue import Queue

__all__ = ["S3Fifo"]

_SMALL_SHARE: Final = 0.1
_PROMOTE: Final = 2
_MOST_HITS: Final = 3
_MAIN: Final = 4


@final
class S3Fifo:
    """Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023.

    What is new waits in a small queue of a tenth of the room; hit twice there, it moves to the
    main queue, else it goes and its key is remembered among the ghosts, as many as the cache is
    large. What comes back while it is a ghost goes to the main queue at once. There an entry is
    put back as often as it was hit, three times at the most. A hit is one addition and moves
    nothing. (Two hits to promote and ghosts for the whole capacity did best on the recorded
    accesses of agents.)
    """

    __slots__ = ("_capacity", "_ghost_weight", "_ghosts", "_main", "_small", "_small_most")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._small_most = max(1, int(capacity * _SMALL_SHARE))
        self._small = Queue()
        self._main = Queue()
        # The marks of keys with their weights, the oldest first.
        self._ghosts: dict[int, int] = {}
        self._ghost_weight = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._small
        yield from self._main

    def add(self, entry: Entry) -> None:
        """A key that went lately goes to the main queue, any other to the small one."""
        weight = self._ghosts.pop(mark_of(entry), None)
        if weight is not None:
            self._ghost_weight -= weight
            entry.place = _MAIN
            self._main.push(entry)
        else:
            entry.place = 0
            self._small.push(entry)

    def use(self, entry: Entry) -> None:
        """Counts, up to three."""
        if entry.place & _MOST_HITS != _MOST_HITS:
            entry.place += 1

    def evict(self) -> Entry:
        """The oldest of the small queue that was not hit twice, else of the main one."""
        while True:
            if self._small.weight > self._small_most or not len(self._main):
                entry = self._small.pop()
                if entry.place < _PROMOTE:
                    self._remember(entry)
                    return entry
                entry.place = _MAIN
            else:
                entry = self._main.pop()
                if entry.place == _MAIN:
                    return entry
                entry.place -= 1
            self._main.push(entry)

    def remove(self, entry: Entry) -> None:
        """Leaves no ghost: it did not go for want of room."""
        (self._main if entry.place & _MAIN else self._small).unlink(entry)

    def _remember(self, entry: Entry) -> None:
        ghosts = self._ghosts
        mark = mark_of(entry)
        self._ghost_weight += entry.weight - ghosts.pop(mark, 0)
        ghosts[mark] = entry.weight
        while self._ghost_weight > self._capacity:
            self._ghost_weight -= ghosts.pop(next(iter(ghosts)))
