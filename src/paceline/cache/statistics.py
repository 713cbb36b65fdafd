"""What a cache has done, in total and lately.

One request counts once, whichever tier answers it; so do the seconds and the money its answer
saved, which are what computing it took when it was stored.
"""

from collections import deque
from typing import Final, Self, final

import msgspec

__all__ = ["Totals", "Windows"]

_NS: Final = 1_000_000_000


class Totals(msgspec.Struct):
    """Counters of a cache.

    `misses` are requests that no tier answered; of these, `joins` were answered by a computation
    under way. Of the hits, `stale` were past their lifetime. `refreshes` were computed anew
    before anybody had to wait. Of the misses, `ahead` are no requests: their results were made
    ahead of any.
    """

    hot_hits: int = 0
    warm_hits: int = 0
    cold_hits: int = 0
    misses: int = 0
    joins: int = 0
    stale: int = 0
    refreshes: int = 0
    ahead: int = 0
    stored: int = 0
    saved_ns: int = 0
    saved_usd: float = 0.0

    @property
    def hits(self) -> int:
        """Requests that a tier answered."""
        return self.hot_hits + self.warm_hits + self.cold_hits

    @property
    def requests(self) -> int:
        """All requests."""
        return self.hits + self.misses - self.ahead

    @property
    def hit_rate(self) -> float:
        """Share of requests that a tier answered, 0..1; 0 before the first."""
        return self.hits / self.requests if self.hits else 0.0

    @property
    def saved_s(self) -> float:
        """Seconds of computing that hits and joins saved."""
        return self.saved_ns / _NS

    def copy(self) -> Self:
        """These figures as they are now."""
        return type(self)(*msgspec.structs.astuple(self))

    def become(self, other: "Totals") -> None:
        """Takes these figures: what was counted since is not to be."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(other, name))

    def since(self, earlier: "Totals") -> "Totals":
        """What was added to `earlier` to make these.

        At least 0: what was a miss then, and was found further down after it, is none now.
        """
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(earlier), strict=True)
        return Totals(*[max(0, later - before) for later, before in pairs])


@final
class Windows:
    """Totals of the last minutes, from marks set now and then: a request pays nothing for it.

    Holds one mark each `step_s` seconds, `count` of them. Pure: times are given.
    """

    def __init__(self, step_s: float = 10.0, count: int = 360) -> None:
        self._step_ns = round(step_s * _NS)
        self._marks: deque[tuple[int, Totals]] = deque(maxlen=count)

    def mark(self, now_ns: int, totals: Totals) -> None:
        """Notes where the counters stand; to be called about every step, more often is free."""
        if not self._marks or now_ns - self._marks[-1][0] >= self._step_ns:
            self._marks.append((now_ns, totals.copy()))

    def last(self, window_s: float, now_ns: int, totals: Totals) -> Totals:
        """What was counted in about the last `window_s` seconds; from the start when that is
        longer than there are marks."""
        from_ns = now_ns - round(window_s * _NS)
        before = Totals()
        for at_ns, marked in self._marks:
            if at_ns > from_ns:
                break
            before = marked
        return totals.since(before)
