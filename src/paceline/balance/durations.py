"""What executions of one kind took lately, and what follows for the next one."""

import math
from collections import deque
from typing import Final, final

__all__ = ["ENOUGH", "Durations"]

ENOUGH: Final = 20
"""Observations below which nothing follows."""
_WINDOW: Final = 128
_HEADROOM: Final = 4.0
_SORTED_FOR: Final = 16
_OUT_OF_DATE: Final = 7


@final
class Durations:
    """The last 128 durations of one kind of execution, in seconds.

    Only those that ended by themselves belong here: one that was stopped would have taken longer.
    Where seven in a row were stopped, what was known no longer holds, and is forgotten: limits that
    follow from it would stop everything for ever.
    """

    __slots__ = ("_seen", "_sorted", "_stopped", "_unsorted")

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=_WINDOW)
        self._sorted: list[float] = []
        self._unsorted = 0  # observations since it was sorted
        self._stopped = 0  # executions in a row

    def observe(self, seconds: float) -> None:
        """One took so long."""
        self._stopped = 0
        self._seen.append(seconds)
        self._unsorted += 1

    def stopped(self) -> None:
        """One was stopped at a limit."""
        self._stopped += 1
        if self._stopped >= _OUT_OF_DATE:
            self._stopped = self._unsorted = 0
            self._seen.clear()
            self._sorted.clear()

    def quantile(self, share: float) -> float | None:
        """The nearest rank at this share (0..1) of them; None of fewer than 20.

        Of more than 64 it may lag behind by 15 observations.
        """
        if len(self._seen) < ENOUGH:
            return None
        if self._unsorted >= (_SORTED_FOR if len(self._sorted) > _WINDOW // 2 else 1):
            self._sorted = sorted(self._seen)
            self._unsorted = 0
        return self._sorted[math.ceil(share * len(self._sorted)) - 1]

    def limit_s(self, *, shortest: float, longest: float, first: float | None = None) -> float:
        """A time limit for the next: `suspect_s`, and `longest` at most. Until enough is known it is
        `first`, and `longest` if that is left out."""
        if len(self._seen) < ENOUGH:
            return longest if first is None else first
        return min(self.suspect_s(shortest), longest)

    def suspect_s(self, shortest: float) -> float:
        """What takes longer than this has a reason of its own: four times the p99, or the longest
        of fewer than 20, and at least `shortest`."""
        usual_s = self.quantile(0.99)
        if usual_s is None:
            usual_s = max(self._seen, default=0.0)
        return max(shortest, _HEADROOM * usual_s)
