"""LIRS: what was used twice within a short time stays."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, final

from paceline.cache.entry import Entry
from paceline.cache.policies.identity import mark_of

__all__ = ["LIRS"]

_COLD_SHARE: Final = 0.01
_GHOSTS: Final = 2


@final
class LIRS:
    """Jiang and Zhang, LIRS: an efficient low inter-reference recency set policy, 2002.

    A stack in order of use holds hot entries, some cold ones and keys that are gone; its bottom
    is always hot. What is used while it is in the stack, thus sooner again than the hot entry at
    the bottom, is hot from then on, and that one gets cold. Cold entries have a hundredth of the
    room and go in order of their arrival. Gone keys are remembered up to twice the number of
    entries held.
    """

    __slots__ = ("_cold", "_gone", "_hot_most", "_hot_weight", "_hots", "_stack")

    def __init__(self, capacity: int) -> None:
        self._hot_most = capacity - max(1, int(capacity * _COLD_SHARE))
        self._hot_weight = 0
        self._hots = 0
        # By marks, see `add`. The stack from its bottom; what is gone has no entry there.
        self._stack: OrderedDict[int, Entry | None] = OrderedDict()
        self._cold: OrderedDict[int, Entry] = OrderedDict()
        self._gone: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return self._hots + len(self._cold)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._cold.values()
        for mark, entry in self._stack.items():
            if entry is not None and mark not in self._cold:
                yield entry

    def add(self, entry: Entry) -> None:
        """Hot if its key is in the stack still or there is room for hot entries, else cold."""
        mark = mark_of(entry)
        while mark in self._cold or self._stack.get(mark) is not None:
            mark += 1  # the hash of another key that is held
        entry.place = mark
        if mark in self._gone:
            del self._gone[mark]
            del self._stack[mark]
            self._heat(mark, entry)
        elif self._hot_weight + entry.weight <= self._hot_most:
            self._heat(mark, entry)
        else:
            self._stack[mark] = self._cold[mark] = entry

    def use(self, entry: Entry) -> None:
        """Moves it to the top of the stack; a cold one that was in it gets hot."""
        mark = entry.place
        stack = self._stack
        if mark not in self._cold:
            stack.move_to_end(mark)
            self._prune()
        elif mark in stack:
            del stack[mark]
            del self._cold[mark]
            self._heat(mark, entry)
        else:
            stack[mark] = entry
            self._cold.move_to_end(mark)

    def evict(self) -> Entry:
        """The cold entry that came first."""
        if not self._cold:
            self._cool()
        mark, entry = self._cold.popitem(last=False)
        if mark in self._stack:
            self._stack[mark] = None
            self._gone[mark] = None
            while len(self._gone) > _GHOSTS * len(self) + 1:
                del self._stack[self._gone.popitem(last=False)[0]]
        return entry

    def remove(self, entry: Entry) -> None:
        """Leaves no trace of it."""
        mark = entry.place
        self._stack.pop(mark, None)
        if self._cold.pop(mark, None) is None:
            self._hot_weight -= entry.weight
            self._hots -= 1
            self._prune()

    def _heat(self, mark: int, entry: Entry) -> None:
        self._stack[mark] = entry
        self._hot_weight += entry.weight
        self._hots += 1
        while self._hot_weight > self._hot_most and self._hots > 1:
            self._cool()

    def _cool(self) -> None:
        """Makes the hot entry at the bottom of the stack a cold one."""
        self._prune()
        mark, entry = self._stack.popitem(last=False)
        assert entry is not None  # noqa: S101 - the bottom of a pruned stack is hot
        self._hot_weight -= entry.weight
        self._hots -= 1
        self._cold[mark] = entry
        self._prune()

    def _prune(self) -> None:
        """Drops what lies below the lowest hot entry."""
        stack = self._stack
        while stack:
            mark, entry = next(iter(stack.items()))
            if entry is None:
                del self._gone[mark]
            elif mark not in self._cold:
                return
            del stack[mark]
