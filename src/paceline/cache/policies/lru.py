"""The least recently used goes first."""

from collections.abc import Iterator
from typing import final

from paceline.cache.entry import Entry
from paceline.cache.policies.queue import Queue

__all__ = ["LRU"]


@final
class LRU:
    """Exact order of use: the entry that was not used for longest goes first."""

    __slots__ = ("_queue", "add", "evict", "remove", "use")

    def __init__(self, capacity: int) -> None:  # noqa: ARG002 - the order does not depend on it
        queue = self._queue = Queue()
        # What a policy does is here what its queue does: no call in between.
        self.add = queue.push
        self.use = queue.refresh
        self.evict = queue.pop
        self.remove = queue.unlink

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._queue)
