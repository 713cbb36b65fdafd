"""Calls of one series that ended in one way: noted in an instant, added up later, many at a time.

To note a call is to put five numbers at the end of a list. When the list has grown, or somebody
wants to see figures, whole columns of it are counted at once: that costs less for a call than
counting each as it comes, whatever the number of calls, and callers do not wait for one another. What has not changed for
five seconds is then made small.
"""

import threading
from array import array
from collections.abc import Sequence
from itertools import groupby
from typing import Final, NamedTuple, final

import msgspec

from paceline.call import Source
from paceline.clock import Clock
from paceline.errors import Category
from paceline.metrics.figures import Ending, Usage
from paceline.metrics.packed import Kept
from paceline.metrics.sketch import MOST, Counted, Sketch, counted
from paceline.metrics.tally import Tally
from paceline.metrics.windows import EVER, SLOT_NS, Windowed

__all__ = ["FULL", "LATEST", "Cell", "Reading"]

_COLUMNS: Final = 5
FULL: Final = 256 * _COLUMNS
"""A list of so many numbers is to be added up."""
_TOO_FULL: Final = 20_000 * _COLUMNS
_NEVER_NS: Final = 2**62
_PATIENCE_S: Final = 0.1
LATEST: Final = 32
"""Calls whose own times are kept."""


class Reading(NamedTuple):
    """What a cell has added up; later calls do not change it."""

    sums: list[Tally]
    """Of each window, and of ever."""
    execute: Sketch
    queue: Sketch
    first_ns: int | None
    """When the first call of all ended."""
    last_ns: int | None
    latest: list[tuple[int, int]]
    """When the last calls ended, and their total times; no more than a few."""
    tokens: tuple[Sketch, ...]
    """Tokens put in and got out, of the calls that used any; empty without one."""


@final
class Cell:
    """The calls of one series that came from one source and ended in one way."""

    __slots__ = (
        "_clock", "_distributed", "_ends", "_first_ns", "_folding", "_kept", "_last_ns", "_mixed",
        "_totals", "_turn", "_windows", "category", "ending", "pending", "refused", "source",
        "usages",
    )  # fmt: skip

    def __init__(
        self, source: Source, category: Category | None, ending: Ending, clock: Clock
    ) -> None:
        self.source = source
        self.category = category
        self.ending = ending
        self.usages: list[tuple[int, Usage]] = []
        """Tokens and money of calls, by the moment they ended."""
        self.refused = 0
        """Calls left out."""
        self.pending: list[int] = []
        """Five numbers for each call that was not added up yet. Who has not the time to call `note`
        puts them there in a single step, that no other thread can come between, and calls `settle`
        once there are `FULL`."""
        self._distributed = source is Source.EXECUTED and ending is not Ending.CANCELLED
        # Of ever: `queue`; `input` and `output`, of tokens; and `execute`, of its own only once
        # executing did not take the whole time of a call.
        self._kept = Kept()
        self._folding = False
        self._mixed = False  # whether calls come in another order than they ended in
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._ends: Sequence[float] = ()  # of the latest calls
        self._totals: Sequence[float] = ()
        self._windows = Windowed()
        self._turn = threading.Lock()
        self._clock = clock

    def note_past(
        self, end_ns: int, total_ns: int, execute_ns: int, queue_ns: int, saved_ns: int
    ) -> None:
        """`note` for a call that ended at any moment."""
        self._mixed = True
        self.note(end_ns, total_ns, execute_ns, queue_ns, saved_ns)

    def note(
        self, end_ns: int, total_ns: int, execute_ns: int, queue_ns: int, saved_ns: int
    ) -> None:
        """Notes a call that ended just now, and how long it took. Never raises for a number: a
        call with one that is none, or negative, is left out later, and counted as refused."""
        pending = self.pending
        pending.extend((end_ns, total_ns, execute_ns, queue_ns, saved_ns))
        if len(pending) >= FULL:
            self.settle()

    @property
    def heard_ns(self) -> int:
        """When the latest call ended that was added up or waits for it; 0 before the first."""
        waiting = self.pending[-_COLUMNS:]
        return max(self._last_ns or 0, waiting[0] if waiting else 0)

    def settle(self) -> None:
        """Adds up what is pending. While another thread is at it nobody waits for it, as long as
        there is not so much that memory would grow and grow."""
        too_full = len(self.pending) >= _TOO_FULL
        if self._folding and not too_full:
            return
        # Not for ever, because what notes this may be a signal handler amid adding up.
        if self._turn.acquire(timeout=_PATIENCE_S if too_full else 0):
            try:
                self._fold(self._clock.monotonic_ns())
            finally:
                self._turn.release()

    def read(self, now_ns: int) -> Reading:
        """All that was noted so far."""
        with self._turn:
            self._fold(now_ns)
            sums = self._windows.sums(now_ns)
            kept = self._kept.copies()
            whole = sums[EVER].times if self._distributed else Sketch()
            return Reading(
                sums,
                kept.get("execute", whole),
                kept.get("queue", Sketch()),
                self._first_ns,
                self._last_ns,
                list(zip(map(int, self._ends), map(int, self._totals), strict=True)),
                tuple([kept[name] for name in ("input", "output") if name in kept]),
            )

    def _fold(self, now_ns: int) -> None:
        self._folding = True
        try:
            self._add_pending(now_ns)
            if self.usages:
                self._add_usages(now_ns)
            if self._windows.seal(now_ns):
                self._kept.seal()
                self._ends, self._totals = array("d", self._ends), array("d", self._totals)
        finally:
            self._folding = False

    def _add_pending(self, now_ns: int) -> None:
        """Adds up what is there now and no more: what others put there meanwhile comes after."""
        many = len(self.pending) // _COLUMNS * _COLUMNS
        batch = self.pending[:many]
        del self.pending[:many]
        self._windows.roll(now_ns)
        try:
            parts = self._parts(batch)
        except (ArithmeticError, TypeError, ValueError):
            batch = self._sound(batch)
            parts = self._parts(batch)
        for part in parts:
            self._add(part, now_ns)
        tail = batch[-LATEST * _COLUMNS :]
        if tail:
            self._ends = [*self._ends, *tail[::_COLUMNS]][-LATEST:]
            self._totals = [*self._totals, *tail[1::_COLUMNS]][-LATEST:]

    def _add_usages(self, now_ns: int) -> None:
        usages = self.usages[:]
        del self.usages[: len(usages)]
        for end_ns, usage in usages:
            if _is_sound(end_ns, msgspec.structs.astuple(usage)):
                self._windows.at(end_ns, now_ns).use(usage)
                # Those of calls ahead, which are counted here, belong to no call that is counted.
                if usage.tokens and self.source is not Source.SPECULATED:
                    kept = self._kept.open()
                    kept.setdefault("input", Sketch()).add(usage.input)
                    kept.setdefault("output", Sketch()).add(usage.output)

    def _sound(self, batch: list[int]) -> list[int]:
        """The calls whose numbers can be counted."""
        calls = _calls(batch)
        sound = [call for call in calls if _is_sound(call[0], call[1:])]
        self.refused += len(calls) - len(sound)
        return [number for call in sound for number in call]

    def _parts(self, batch: list[int]) -> list["_Part"]:
        """Calls counted by the slot they ended in. Raises for a number that cannot be."""
        if not batch:
            return []
        if self._mixed:
            batch = _sorted(batch)
        # Threads that end at once may change places: that moves a call by less than a slot.
        first_ns, last_ns = batch[0], batch[-_COLUMNS]
        if not -_NEVER_NS < first_ns <= _NEVER_NS or not -_NEVER_NS < last_ns <= _NEVER_NS:
            raise ValueError(first_ns, last_ns)
        if first_ns // SLOT_NS == last_ns // SLOT_NS:
            return [self._part(batch)]
        parts: list[_Part] = []
        ends = batch[::_COLUMNS]
        for _, group in groupby(range(len(ends)), lambda place: ends[place] // SLOT_NS):
            places = list(group)
            parts.append(self._part(batch[places[0] * _COLUMNS : (places[-1] + 1) * _COLUMNS]))
        return parts

    def _part(self, batch: list[int]) -> "_Part":
        totals, executes, queues, saves = [batch[n::_COLUMNS] for n in range(1, _COLUMNS)]
        times, executed = counted(totals), None
        queued, saved_ns = counted(queues), _sum(saves)
        if self._distributed:
            if self.category is not None:  # it may have come before anything was executed
                executes = [took_ns for took_ns in executes if took_ns]
            executed = times if executes == totals else counted(executes) if executes else None
        return _Part(batch[0], batch[-_COLUMNS], times, executed, queued, saved_ns)

    def _add(self, part: "_Part", now_ns: int) -> None:
        tally = self._windows.at(part.first_ns, now_ns)
        if self._distributed:
            self._add_shares(part, now_ns)
        tally.times.take(part.times)
        tally.queue_ns += int(part.queued.sum)
        tally.saved_ns += part.saved_ns
        first_ns, last_ns = self._first_ns, self._last_ns
        self._first_ns = part.first_ns if first_ns is None else min(first_ns, part.first_ns)
        self._last_ns = part.last_ns if last_ns is None else max(last_ns, part.last_ns)

    def _add_shares(self, part: "_Part", now_ns: int) -> None:
        """Adds what part of the times calls were executed, and waited."""
        kept = self._kept.open()
        execute = kept.get("execute")
        if execute is None and part.executed is not part.times:
            execute = kept["execute"] = self._windows.sums(now_ns)[EVER].times
        if execute is not None and part.executed is not None:
            execute.take(part.executed)
        queue = kept.get("queue")
        if queue is None:
            queue = kept["queue"] = Sketch()
        queue.take(part.queued)


class _Part(NamedTuple):
    """Calls that ended in one slot of time."""

    first_ns: int
    last_ns: int
    times: Counted
    executed: Counted | None
    queued: Counted
    saved_ns: int


def _sum(values: list[int]) -> int:
    """Raises for what `counted` would."""
    total = sum(values)
    if min(values) < 0 or not total <= MOST:
        raise ValueError(total)
    return int(total)


def _calls(batch: list[int]) -> list[list[int]]:
    return [batch[at : at + _COLUMNS] for at in range(0, len(batch), _COLUMNS)]


def _sorted(batch: list[int]) -> list[int]:
    """By when they ended. Raises if that is no moment."""
    calls = _calls(batch)
    if not all(isinstance(call[0], int) for call in calls):
        raise TypeError(batch)
    calls.sort(key=lambda call: call[0])
    return [number for call in calls for number in call]


def _is_sound(end_ns: object, numbers: Sequence[object]) -> bool:
    """Whether these are numbers that can be counted, of a call that ended at some moment."""
    return (
        isinstance(end_ns, int)
        and -_NEVER_NS < end_ns <= _NEVER_NS
        and all(isinstance(number, (int, float)) and 0 <= number <= MOST for number in numbers)
    )
