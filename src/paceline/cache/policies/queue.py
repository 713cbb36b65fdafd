"""A queue through the entries themselves: no node, no dictionary, everything in constant time."""

from collections.abc import Iterator
from typing import final

from paceline.cache.entry import Entry

__all__ = ["Queue"]


@final
class Queue:
    """Entries from the oldest to the youngest. An entry is in one queue at most.

    The links are `before` and `after` of the entries, closed to a ring by one that is no entry
    of the cache. `weight` is that of all entries in it.
    """

    __slots__ = ("_length", "_root", "weight")

    def __init__(self) -> None:
        root = Entry(None, None, 0)
        root.before = root.after = root
        self._root = root
        self._length = 0
        self.weight = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Entry]:
        """From the oldest to the youngest."""
        root = self._root
        entry = root.after
        while entry is not root:
            following = entry.after
            yield entry
            entry = following

    @property
    def oldest(self) -> Entry:
        """The entry that is longest in it; only of a queue that is not empty."""
        return self._root.after

    def push(self, entry: Entry) -> None:
        """Puts an entry that is in no queue at the young end."""
        root = self._root
        youngest = root.before
        entry.before = youngest
        entry.after = root
        youngest.after = root.before = entry
        self._length += 1
        self.weight += entry.weight

    def unlink(self, entry: Entry) -> None:
        """Takes an entry of this queue out of it."""
        before, after = entry.before, entry.after
        before.after = after
        after.before = before
        # An entry that left must not keep its neighbours of then alive.
        del entry.before, entry.after
        self._length -= 1
        self.weight -= entry.weight

    def pop(self) -> Entry:
        """Takes out the oldest; only of a queue that is not empty."""
        entry = self._root.after
        self.unlink(entry)
        return entry

    def refresh(self, entry: Entry) -> None:
        """Moves an entry of this queue to its young end."""
        before, after, root = entry.before, entry.after, self._root
        if after is root:
            return
        before.after = after
        after.before = before
        youngest = root.before
        entry.before = youngest
        entry.after = root
        youngest.after = root.before = entry
