"""W-TinyLFU: what comes in must have been asked for more often than what goes."""

from collections.abc import Iterator
from typing import Final, final

from paceline.cache.entry import Entry
from paceline.cache.policies.identity import mark_of
from paceline.cache.policies.queue import Queue

__all__ = ["WTinyLFU"]

_WINDOW_SHARE: Final = 0.01
_PROTECTED_SHARE: Final = 0.8
_PERIOD: Final = 10
_MOST_GONE: Final = 3
_FREE_GONE: Final = 10_000

_WINDOW: Final = 0
_PROBATION: Final = 1
_PROTECTED: Final = 2
_PART: Final = 3
_COUNT: Final = 2  # bits of a place that name the part; above them is the count
_ONCE: Final = 1 << _COUNT


@final
class WTinyLFU:
    """Einziger, Friedman and Manes, TinyLFU: a highly efficient cache admission policy, 2017.

    What is new passes through a small window in order of use; leaving it, it takes the place of
    the oldest entry on probation only if it was asked for more often lately. A hit moves an
    entry from probation to the protected part. How often keys were asked for is counted exactly,
    which did better than a sketch; counts are halved every ten times as many accesses as
    entries, or when counts of three times as many keys that are gone, and of more than 10,000,
    are remembered. (A window that adapts its size did not
    pay beside a chooser that has other policies for such times.)
    """

    __slots__ = (
        "_candidate",
        "_gone",
        "_left",
        "_period",
        "_probation",
        "_protected",
        "_protected_most",
        "_window",
        "_window_most",
    )

    def __init__(self, capacity: int) -> None:
        self._window_most = max(1, int(capacity * _WINDOW_SHARE))
        self._protected_most = int((capacity - self._window_most) * _PROTECTED_SHARE)
        self._window = Queue()
        self._probation = Queue()
        self._protected = Queue()
        self._candidate: Entry | None = None  # the one on probation that asks for a place
        self._gone: dict[int, int] = {}  # counts by mark; what is held carries its own
        self._period = self._left = _PERIOD

    def __len__(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._probation
        yield from self._window
        yield from self._protected

    def add(self, entry: Entry) -> None:
        """Puts it into the window; what this pushes out of it asks for a place."""
        entry.place = (self._gone.pop(mark_of(entry), 0) + 1) << _COUNT | _WINDOW
        self._tick()
        self._window.push(entry)
        while self._window.weight > self._window_most:
            leaving = self._window.pop()
            leaving.place += _PROBATION - _WINDOW
            self._probation.push(leaving)
            self._candidate = leaving

    def use(self, entry: Entry) -> None:
        """Counts, and moves the entry up within its part or from probation to the protected."""
        entry.place += _ONCE
        self._tick()
        part = entry.place & _PART
        if part == _WINDOW:
            self._window.refresh(entry)
        elif part == _PROTECTED:
            self._protected.refresh(entry)
        else:
            self._protect(entry)

    def evict(self) -> Entry:
        """Who asks for a place or who was on probation for longest, the less asked for of both."""
        if len(self._gone) > _FREE_GONE and len(self._gone) > _MOST_GONE * len(self):
            self._halve()
        candidate, self._candidate = self._candidate, None
        queue = self._probation
        if not len(queue):
            queue = self._protected if len(self._protected) else self._window
        victim = queue.oldest
        if candidate is not None and candidate is not victim:
            if candidate.place >> _COUNT > victim.place >> _COUNT:
                self._candidate = candidate  # if one place is not enough it asks for the next
            else:
                victim = candidate
        queue.unlink(victim)
        self._gone[mark_of(victim)] = victim.place >> _COUNT
        return victim

    def remove(self, entry: Entry) -> None:
        """Takes it out of the part it is in; its count stays for when it comes back."""
        if entry is self._candidate:
            self._candidate = None
        part: int = entry.place & _PART
        self._gone[mark_of(entry)] = entry.place >> _COUNT
        (self._window, self._probation, self._protected)[part].unlink(entry)

    def _protect(self, entry: Entry) -> None:
        if entry is self._candidate:
            self._candidate = None
        self._probation.unlink(entry)
        entry.place += _PROTECTED - _PROBATION
        self._protected.push(entry)
        while self._protected.weight > self._protected_most:
            leaving = self._protected.pop()
            leaving.place += _PROBATION - _PROTECTED
            self._probation.push(leaving)

    def _tick(self) -> None:
        self._left -= 1
        if self._left <= 0:
            due = _PERIOD * len(self)
            if due > self._period:  # the cache grew in the meantime
                self._left = due - self._period
                self._period = due
            else:
                self._halve()

    def _halve(self) -> None:
        self._gone = {mark: count >> 1 for mark, count in self._gone.items() if count > 1}
        for entry in self:
            entry.place = entry.place >> _COUNT + 1 << _COUNT | entry.place & _PART
        self._period = self._left = max(_PERIOD, _PERIOD * len(self))
