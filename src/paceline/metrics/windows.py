"""Figures of the last minute, five minutes, hour, day and ever: one place for each call, not five.

A call is added to a slot of five seconds. Slots that leave the last minute become part of one of
half a minute, these one of five minutes, these one of an hour, and these after a day part of what
is older. So a window is the sum of few slots and of the next shorter window, and reaches back by
at most one slot further than it says.
"""

from collections import deque
from typing import Final, NamedTuple, final

from paceline.metrics.tally import Tally

__all__ = ["EVER", "SLOT_NS", "WINDOWS", "Windowed", "reach_ns"]

_S: Final = 1_000_000_000
SLOT_NS: Final = 5 * _S
"""The width of the narrowest slot, in nanoseconds."""

WINDOWS: Final = {"1m": 60 * _S, "5m": 300 * _S, "1h": 3_600 * _S, "24h": 86_400 * _S}
"""The windows by name, and their spans in nanoseconds."""

EVER: Final = len(WINDOWS)
"""The place of all time in `sums`, behind those of the windows."""


class _Level(NamedTuple):
    width_ns: int
    span_ns: int


_WIDTHS: Final = (SLOT_NS, 30 * _S, 300 * _S, 3_600 * _S)
_LEVELS: Final = tuple(map(_Level, _WIDTHS, WINDOWS.values()))

_Slots = deque[tuple[int, Tally]]
"""Tallies with the moments they begin at, the earliest first."""


@final
class Windowed:
    """Tallies by time, and of all time; moments are nanoseconds of one monotonic clock."""

    __slots__ = ("_levels", "_older", "_rolled")

    def __init__(self) -> None:
        self._levels: tuple[tuple[_Level, _Slots], ...] = tuple(
            [(level, deque()) for level in _LEVELS]
        )
        self._older = Tally()
        self._rolled = 0

    def at(self, moment_ns: int, now_ns: int) -> Tally:
        """The tally to which what ended at a moment is to be added."""
        for level, slots in self._levels:
            start_ns = moment_ns // level.width_ns * level.width_ns
            if start_ns + level.width_ns > now_ns - level.span_ns:
                return _slot(slots, start_ns)
        return self._older

    def roll(self, now_ns: int) -> None:
        """Moves slots on that have left the span of their level."""
        if now_ns // SLOT_NS == self._rolled:  # all slots begin and leave at multiples of it
            return
        self._rolled = now_ns // SLOT_NS
        for level, slots in self._levels:
            while slots and slots[0][0] + level.width_ns <= now_ns - level.span_ns:
                start_ns, tally = slots.popleft()
                self.at(start_ns, now_ns).merge(tally)

    def sums(self, now_ns: int) -> list[Tally]:
        """The figures of each window, in the order of `WINDOWS`, and in the end those of ever."""
        self.roll(now_ns)
        whole, sums = Tally(), list[Tally]()
        for _, slots in self._levels:
            level = Tally()  # apart, since counts as narrow as the slots' are added sooner
            for _, tally in slots:
                level.merge(tally)
            whole.merge(level)
            sums.append(whole.copy())
        whole.merge(self._older)
        return [*sums, whole]


def reach_ns(span_ns: int, now_ns: int) -> int:
    """How far a window of this span reaches back: to the start of its oldest slot."""
    width_ns = next((level.width_ns for level in _LEVELS if span_ns <= level.span_ns), _WIDTHS[-1])
    return now_ns - (now_ns - span_ns) // width_ns * width_ns


def _slot(slots: _Slots, start_ns: int) -> Tally:
    """The tally of the slot with this start, made if need be; most often it is the last."""
    place = len(slots)
    while place and slots[place - 1][0] >= start_ns:
        place -= 1
        if slots[place][0] == start_ns:
            return slots[place][1]
    tally = Tally()
    slots.insert(place, (start_ns, tally))
    return tally
