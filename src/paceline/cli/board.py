"""What calls did of late, by agent: counted as they come in, cheap to look at every second. Pure.

Time is cut into slots, and a window is the slots that reach into it: it forgets a slot at a time.
What one agent did is added up when somebody looks, and again only when a slot was forgotten.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final, final

import msgspec

from paceline.call import Source
from paceline.errors import Category
from paceline.history.record import Record
from paceline.metrics.figures import Ending, ending_of
from paceline.metrics.sketch import Sketch
from paceline.metrics.windows import WINDOWS
from paceline.usage import spent_on

__all__ = ["SLOTS", "Board", "Look", "Row", "Slow", "Sort", "Trouble"]

SLOTS: Final = 30
"""Slots of a window, which are the points of a row's curve."""
_MINUTE_NS: Final = 60 * 1_000_000_000
_FINE: Final = 12
"""Slots of the last minute."""
_FINE_NS: Final = _MINUTE_NS // _FINE
_SLOWEST: Final = 20
_TROUBLES: Final = 50


class Sort(StrEnum):
    """Which agent comes first: that with most of it, or by the alphabet."""

    CALLS = "calls"
    SLOWEST = "slowest"
    ERRORS = "errors"
    COST = "cost"
    NAME = "name"


class Row(msgspec.Struct, frozen=True):
    """What one agent did in the window, or all of them together under the name ""."""

    name: str
    per_s: float
    """Calls a second, over the last minute."""
    calls: int
    hit_rate: float | None
    """Share of calls that were answered without an execution of their own; None of none."""
    errors: int
    timeouts: int
    rejected: int
    p50_ns: float | None
    """Of what was executed with success, as are the next two."""
    p95_ns: float | None
    max_ns: float | None
    share: float
    """Of the time that all agents spent executing."""
    curve: tuple[int, ...]
    """Calls of each slot, the oldest first."""
    tokens_in: int
    tokens_out: int
    cost_usd: float
    last_ns: int
    """When its latest call ended, by the wall clock."""

    @property
    def failed(self) -> int:
        """Calls that got no value and were not cancelled."""
        return self.errors + self.timeouts + self.rejected


class Slow(msgspec.Struct, frozen=True):
    """A call of the last minute that took long."""

    took_ns: int
    at_ns: int
    id: str
    name: str
    source: Source
    category: Category | None


class Trouble(msgspec.Struct, frozen=True):
    """An error as it was last seen, and how often since it is on the board."""

    at_ns: int
    count: int
    name: str
    category: Category
    message: str


class Look(msgspec.Struct, frozen=True):
    """The board at one moment."""

    at_ns: int
    window: str
    sort: Sort
    total: Row
    rows: tuple[Row, ...]
    """The first in order."""
    agents: int
    """How many there are in all."""
    slow: tuple[Slow, ...]
    troubles: tuple[Trouble, ...]


class _Slot:
    """Calls of one slot of time, or of several."""

    __slots__ = (
        "answered", "busy_ns", "calls", "cost_usd", "errors", "fresh", "hits", "rejected",
        "timeouts", "tokens_in", "tokens_out",
    )  # fmt: skip

    def __init__(self) -> None:
        self.calls = self.answered = self.hits = self.errors = self.timeouts = self.rejected = 0
        self.busy_ns = self.tokens_in = self.tokens_out = 0
        self.cost_usd = 0.0
        self.fresh = Sketch()

    def spend(self, call: Record) -> None:
        spent = spent_on(call, call.price_usd)
        self.tokens_in += spent.tokens.input
        self.tokens_out += spent.tokens.output
        self.cost_usd += spent.cost_usd or 0.0

    def add(self, call: Record, ending: Ending) -> None:
        self.calls += 1
        self.busy_ns += max(0, call.execute_ns)
        self.spend(call)
        if ending is Ending.CANCELLED:
            return
        self.answered += 1
        if ending is Ending.SUCCESS:
            if call.source is Source.EXECUTED:
                self.fresh.add(max(0, call.execute_ns))
            else:
                self.hits += 1
        elif ending is Ending.ERROR:
            self.errors += 1
        elif ending is Ending.TIMEOUT:
            self.timeouts += 1
        else:
            self.rejected += 1

    def merge(self, other: "_Slot") -> None:
        self.calls += other.calls
        self.answered += other.answered
        self.hits += other.hits
        self.errors += other.errors
        self.timeouts += other.timeouts
        self.rejected += other.rejected
        self.busy_ns += other.busy_ns
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.cost_usd += other.cost_usd
        self.fresh.merge(other.fresh)


class _Agent:
    """The slots of one agent by the number of each, and its calls of the last minute."""

    __slots__ = ("_p95", "_whole", "fine", "last_ns", "name", "slots")

    def __init__(self, name: str) -> None:
        self.name = name
        self.slots: dict[int, _Slot] = {}
        self.fine: dict[int, int] = {}
        self.last_ns = 0
        self._whole: _Slot | None = None
        self._p95: float | None = None

    def add(self, call: Record, ending: Ending, at_ns: int, slot: int) -> None:
        """Counts a call in the slot of this number."""
        held = self.slots.get(slot)
        if held is None:
            held = self.slots[slot] = _Slot()
        held.add(call, ending)
        self.last_ns = max(self.last_ns, at_ns)
        self._p95 = None
        if self._whole is not None:
            self._whole.add(call, ending)

    def spend(self, call: Record, slot: int) -> None:
        """Counts what a call used, and not the call."""
        self.slots.setdefault(slot, _Slot()).spend(call)
        if self._whole is not None:
            self._whole.spend(call)

    def tick(self, fine: int) -> None:
        """Counts a call in this slot of the last minute."""
        self.fine[fine] = self.fine.get(fine, 0) + 1

    def forget(self, slot: int, fine: int) -> None:
        """Drops the slots before these."""
        if self.fine and min(self.fine) < fine:
            self.fine = {at: count for at, count in self.fine.items() if at >= fine}
        if self.slots and min(self.slots) < slot:
            self.slots = {at: held for at, held in self.slots.items() if at >= slot}
            self._whole = self._p95 = None

    @property
    def whole(self) -> _Slot:
        """All slots together."""
        if self._whole is None:
            self._whole = _Slot()
            for held in self.slots.values():
                self._whole.merge(held)
        return self._whole

    @property
    def p95_ns(self) -> float:
        """Of what was executed; nothing if nothing was."""
        if self._p95 is None:
            self._p95 = self.whole.fresh.quantile(0.95) or 0.0
        return self._p95


_MOST_FIRST: Final[Mapping[Sort, Callable[[_Agent], float]]] = {
    Sort.CALLS: lambda agent: agent.whole.calls,
    Sort.SLOWEST: lambda agent: agent.p95_ns,
    Sort.ERRORS: lambda agent: agent.whole.errors + agent.whole.timeouts + agent.whole.rejected,
    Sort.COST: lambda agent: agent.whole.cost_usd,
    Sort.NAME: lambda _: 0.0,
}


@final
class Board:
    """The calls of one window, which ends now. Moments are nanoseconds of the wall clock."""

    def __init__(self, window: str) -> None:
        """`window` is one of `WINDOWS`."""
        self.window = window
        self._width_ns = WINDOWS[window] // SLOTS
        self._agents: dict[str, _Agent] = {}
        self._all = _Agent("")
        self._count = 0
        self._slow: dict[int, list[tuple[int, int, Record]]] = {}
        self._troubles: dict[tuple[str, Category, str], Trouble] = {}

    def add(self, calls: Iterable[Record], now_ns: int) -> None:
        """Counts calls; those that ended before the window are left out. One from the future, by
        a clock that was set back since, ended now."""
        first = self._first(now_ns)
        for call in calls:
            at_ns = min(call.at_ns, now_ns)
            slot = at_ns // self._width_ns
            if slot < first:
                continue
            agent = self._agents.get(call.name)
            if agent is None:
                agent = self._agents[call.name] = _Agent(call.name)
            if call.speculated:  # nobody's call, but somebody's money
                for each in (agent, self._all):
                    each.spend(call, slot)
                continue
            ran = call.attempts > 0 or call.source.cached
            ending = ending_of(call.category, ran=ran)
            for each in (agent, self._all):
                each.add(call, ending, at_ns, slot)
            fine = at_ns // _FINE_NS
            if fine >= now_ns // _FINE_NS - _FINE:
                for each in (agent, self._all):
                    each.tick(fine)
                self._note_slow(call, fine)
            if call.trouble is not None and ending is not Ending.CANCELLED:
                self._note_trouble(call, call.trouble, at_ns)

    def look(self, now_ns: int, sort: Sort, most: int | None = None) -> Look:
        """The figures at a moment, which does not go back by much; `most` rows."""
        self._forget(now_ns)
        key = _MOST_FIRST[sort]
        agents = self._agents.values()
        order: Callable[[_Agent], tuple[float, str]] = lambda agent: (-key(agent), agent.name)  # noqa: E731 (one line)
        chosen = sorted(agents, key=order) if most is None else heapq.nsmallest(most, agents, order)
        troubles = sorted(self._troubles.values(), key=lambda trouble: -trouble.at_ns)
        return Look(
            now_ns,
            self.window,
            sort,
            self._row(self._all, now_ns),
            tuple([self._row(agent, now_ns) for agent in chosen]),
            len(self._agents),
            self.slowest(now_ns),
            tuple(troubles),
        )

    def slowest(self, now_ns: int, most: int = _SLOWEST) -> tuple[Slow, ...]:
        """The calls of the last minute that took longest, the longest first; no more than a few."""
        entries = [entry for entries in self._slow.values() for entry in entries]
        calls = [call for _, _, call in heapq.nlargest(most, entries)]
        return tuple(
            [
                Slow(
                    call.total_ns,
                    min(call.at_ns, now_ns),
                    call.id,
                    call.name,
                    call.source,
                    call.category,
                )
                for call in calls
            ]
        )

    def _first(self, now_ns: int) -> int:
        """The number of the first slot of the window."""
        return now_ns // self._width_ns - SLOTS + 1

    def _row(self, agent: _Agent, now_ns: int) -> Row:
        whole, first = agent.whole, self._first(now_ns)
        span_ns = now_ns - (now_ns // _FINE_NS - _FINE) * _FINE_NS
        busy_ns = self._all.whole.busy_ns
        counts = [agent.slots.get(first + at) for at in range(SLOTS)]
        return Row(
            agent.name,
            sum(agent.fine.values()) / (span_ns / 1e9),
            whole.calls,
            whole.hits / whole.answered if whole.answered else None,
            whole.errors,
            whole.timeouts,
            whole.rejected,
            whole.fresh.quantile(0.50),
            whole.fresh.quantile(0.95),
            whole.fresh.max,
            whole.busy_ns / busy_ns if busy_ns else 0.0,
            tuple([held.calls if held else 0 for held in counts]),
            whole.tokens_in,
            whole.tokens_out,
            whole.cost_usd,
            agent.last_ns if whole.calls else 0,
        )

    def _note_slow(self, call: Record, fine: int) -> None:
        entries = self._slow.setdefault(fine, [])
        self._count += 1  # no two entries are equal, so that no calls are compared
        entry = (call.total_ns, -self._count, call)
        if len(entries) < _SLOWEST:
            heapq.heappush(entries, entry)
        else:
            heapq.heappushpop(entries, entry)

    def _note_trouble(self, call: Record, category: Category, at_ns: int) -> None:
        key = (call.name, category, call.message or call.error_type or "")
        known = self._troubles.pop(key, None)
        count, latest_ns = (known.count, known.at_ns) if known else (0, at_ns)
        self._troubles[key] = Trouble(max(at_ns, latest_ns), count + 1, *key)
        if len(self._troubles) > _TROUBLES:
            del self._troubles[next(iter(self._troubles))]

    def _forget(self, now_ns: int) -> None:
        slot, fine = self._first(now_ns), now_ns // _FINE_NS - _FINE
        for agent in (self._all, *self._agents.values()):
            agent.forget(slot, fine)
        for name in [name for name, agent in self._agents.items() if not agent.slots]:
            del self._agents[name]
        self._slow = {at: entries for at, entries in self._slow.items() if at >= fine}
        start_ns = slot * self._width_ns
        self._troubles = {
            key: trouble for key, trouble in self._troubles.items() if trouble.at_ns >= start_ns
        }
