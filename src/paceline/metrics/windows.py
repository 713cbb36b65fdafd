"""Figures of the last minute, five minutes, hour, day and ever: one place for each call, not five.

A call is added to a slot of five seconds. Slots that leave the last minute become part of one of
half a minute, these one of five minutes, these one of three hours, and these after a day part of what
is older. So a window is the sum of few slots and of the next shorter window, and reaches back by
at most one slot further than it says.

Calls are added to the slot of now, nearly always. The others are sealed every five seconds: a day of
figures takes a tenth of their room. One that does change is opened for it, with those beside it.
"""

from typing import Final, NamedTuple, final

from paceline.metrics.tally import Tally, seal, total, unseal

__all__ = ["EVER", "SLOT_NS", "WINDOWS", "Windowed", "reach_ns"]

_S: Final = 1_000_000_000
SLOT_NS: Final = 5 * _S
"""The width of the narrowest slot, in nanoseconds."""

WINDOWS: Final = {"1m": 60 * _S, "5m": 300 * _S, "1h": 3_600 * _S, "24h": 86_400 * _S}
"""The windows by name, and their spans in nanoseconds."""

EVER: Final = len(WINDOWS)
"""The place of all time in `sums`, behind those of the windows."""

_FOREVER_NS: Final = 2**63


class _Level(NamedTuple):
    width_ns: int
    span_ns: int


_WIDTHS: Final = (SLOT_NS, 30 * _S, 300 * _S, 3 * 3_600 * _S)
_LEVELS: Final = tuple(map(_Level, _WIDTHS, WINDOWS.values()))
_OLDER: Final = _Level(_FOREVER_NS, _FOREVER_NS)


@final
class Windowed:
    """Tallies by time, and of all time; moments are nanoseconds of one monotonic clock, and within
    its 64 bits."""

    __slots__ = ("_levels", "_rolled", "_sealed")

    def __init__(self) -> None:
        self._levels: tuple[_Slots, ...] = tuple([_Slots(level) for level in (*_LEVELS, _OLDER)])
        self._rolled = 0
        self._sealed = 0

    def at(self, moment_ns: int, now_ns: int) -> Tally:
        """The tally to which what ended at a moment is to be added at once."""
        for slots in self._levels[:-1]:
            if not slots.is_past(moment_ns, now_ns):
                return slots.at(moment_ns)
        return self._levels[-1].at(moment_ns)

    def roll(self, now_ns: int) -> None:
        """Moves slots on that have left the span of their level."""
        if now_ns // SLOT_NS == self._rolled:  # all slots begin and leave at multiples of it
            return
        self._rolled = now_ns // SLOT_NS
        for slots in self._levels[:-1]:
            for start_ns, tally in slots.take_past(now_ns):
                self.at(start_ns, now_ns).merge(tally)

    def seal(self, now_ns: int) -> bool:
        """Makes small what is not added to just now, once in five seconds; False in between."""
        if now_ns // SLOT_NS == self._sealed:
            return False
        self._sealed = now_ns // SLOT_NS
        for slots in self._levels:
            slots.seal(now_ns)
        return True

    def sums(self, now_ns: int) -> list[Tally]:
        """The figures of each window, in the order of `WINDOWS`, and in the end those of ever."""
        self.roll(now_ns)
        whole, sums = Tally(), list[Tally]()
        for slots in self._levels:
            whole.merge(slots.total())  # at once, since counts as narrow as theirs are added sooner
            sums.append(whole.copy())
        return sums


def reach_ns(span_ns: int, now_ns: int) -> int:
    """How far a window of this span reaches back: to the start of its oldest slot."""
    width_ns = next((level.width_ns for level in _LEVELS if span_ns <= level.span_ns), _WIDTHS[-1])
    return now_ns - (now_ns - span_ns) // width_ns * width_ns


@final
class _Slots:
    """The tallies of one level with the moments they begin at."""

    __slots__ = ("_first_ns", "_last_ns", "_level", "_open", "_sealed")

    def __init__(self, level: _Level) -> None:
        self._level = level
        self._open: list[tuple[int, Tally]] = []
        """The earliest first."""
        self._sealed: bytes | None = None
        self._first_ns = self._last_ns = 0
        """Of the sealed ones."""

    def is_past(self, moment_ns: int, now_ns: int) -> bool:
        """Whether the slot of this moment is older than the span."""
        width_ns, span_ns = self._level
        return moment_ns // width_ns * width_ns + width_ns <= now_ns - span_ns

    def at(self, moment_ns: int) -> Tally:
        """The tally of the slot of this moment, made if need be; most often it is the last."""
        start_ns = moment_ns // self._level.width_ns * self._level.width_ns
        if self._sealed is not None and self._first_ns <= start_ns <= self._last_ns:
            self._unseal()
        place = len(self._open)
        while place and self._open[place - 1][0] >= start_ns:
            place -= 1
            if self._open[place][0] == start_ns:
                return self._open[place][1]
        tally = Tally()
        self._open.insert(place, (start_ns, tally))
        return tally

    def take_past(self, now_ns: int) -> list[tuple[int, Tally]]:
        """Takes out the slots that are older than the span."""
        if self._sealed is not None and self.is_past(self._first_ns, now_ns):
            self._unseal()
        past = [slot for slot in self._open if self.is_past(slot[0], now_ns)]
        del self._open[: len(past)]
        return past

    def seal(self, now_ns: int) -> None:
        """Seals all slots but that of now; of the wide ones that too, as calls come to it late."""
        if self._level.width_ns == SLOT_NS:
            over = [slot for slot in self._open if slot[0] + SLOT_NS <= now_ns]
        else:
            over = self._open
        if over:
            left = self._open[len(over) :]
            self._open = over
            self._unseal()
            self._first_ns, self._last_ns = self._open[0][0], self._open[-1][0]
            self._sealed = seal(self._open)
            self._open = left

    def total(self) -> Tally:
        """What all slots come to."""
        whole = Tally() if self._sealed is None else total(self._sealed)
        for _, tally in self._open:
            whole.merge(tally)
        return whole

    def _unseal(self) -> None:
        if self._sealed is not None:
            self._open = sorted([*unseal(self._sealed), *self._open], key=_start)
            self._sealed = None

    def __len__(self) -> int:
        sealed = [] if self._sealed is None else unseal(self._sealed)
        return len(sealed) + len(self._open)


def _start(slot: tuple[int, Tally]) -> int:
    return slot[0]
