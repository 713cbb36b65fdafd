"""One series while it grows: the ways its calls ended, what is running, its errors."""

import threading
from collections.abc import Mapping
from typing import Final, final

from paceline.call import Kind, Source
from paceline.clock import Clock
from paceline.errors import Category, UsageError
from paceline.metrics.cell import LATEST, Cell, Reading
from paceline.metrics.figures import NO_USAGE, Ending, Figures, Series, Usage, together
from paceline.metrics.sketch import Sketch
from paceline.metrics.troubles import Troubles
from paceline.metrics.windows import EVER, WINDOWS, reach_ns

__all__ = ["LiveSeries"]

_STREAMS: Final = 64


@final
class LiveSeries:
    """The calls of one name with one set of labels, from any thread.

    `running` has the moment each call in flight began, under whatever tells it from the others:
    put in and taken out by who runs it. `started_ns` is since when there could have been calls.
    """

    __slots__ = (
        "_between_items", "_cells", "_first_item", "_lock", "_made_ns", "_refused", "_started_ns",
        "_streams", "_troubles", "clock", "kind", "labels", "name", "running", "successes",
    )  # fmt: skip

    def __init__(
        self, name: str, kind: Kind, labels: Mapping[str, str], clock: Clock, started_ns: int
    ) -> None:
        self.name = name
        self.kind = kind
        self.labels = dict(labels)
        self.running: dict[object, int] = {}
        self.clock = clock
        self._started_ns = started_ns
        self._made_ns = clock.monotonic_ns()
        self.successes: dict[Source, Cell] = {}
        """The cells of values, for who has not the time to call `cell`."""
        self._cells: dict[tuple[Source, Category | None, Ending], Cell] = {}
        self._troubles = Troubles()
        self._streams: list[tuple[int | None, list[int]]] = []
        self._first_item = Sketch()
        self._between_items = Sketch()
        self._refused = 0
        self._lock = threading.Lock()

    def cell(self, source: Source, category: Category | None, ending: Ending) -> Cell:
        """Where calls are noted that ended in this way: with an error of this category, or a value,
        or with both where a fallback answered."""
        way = (source, category, ending)
        cell = self._cells.get(way)
        if cell is None:  # one of two threads wins
            cell = self._cells.setdefault(way, Cell(source, category, ending, self.clock))
            if ending is Ending.SUCCESS and category is None:
                self.successes[source] = cell
        return cell

    def failed(self, category: Category, kind: str, message: str, at_ns: int | None = None) -> None:
        """Notes what an error was: its type, and the form of its message, without secrets.
        `at_ns` is when it was by the wall clock, now if left out."""
        at_ns = self.clock.wall_ns() if at_ns is None else at_ns
        with self._lock:
            self._troubles.note(category, kind, message, at_ns)

    def streamed(self, first_ns: int | None, gaps_ns: list[int]) -> None:
        """Notes how long a stream took to its first item, and from each to the next."""
        self._streams.append((first_ns, gaps_ns))
        if len(self._streams) >= _STREAMS:
            with self._lock:
                self._add_streams()

    def is_idle(self, since_ns: int) -> bool:
        """Whether nothing ran or ended since that moment."""
        ended_ns = max([cell.heard_ns for cell in list(self._cells.values())], default=0)
        return not self.running and max(self._made_ns, ended_ns) < since_ns

    def refuse(self) -> None:
        """Counts a call that cannot be recorded."""
        with self._lock:
            self._refused += 1

    @property
    def refused(self) -> int:
        """How many calls could not be recorded, of those that `read` has seen."""
        return self._refused + sum([cell.refused for cell in list(self._cells.values())])

    def spend(self, end_ns: int, usage: Usage) -> None:
        """Counts what a call used that nobody asked for, and not the call."""
        cell = self.successes.get(Source.SPECULATED) or self.cell(
            Source.SPECULATED, None, Ending.SUCCESS
        )
        cell.usages.append((end_ns, usage))

    def read(self) -> Series:
        """The figures of all calls noted so far; later calls do not change them."""
        now_ns = self.clock.monotonic_ns()
        # Copied in one step: other threads may add cells and calls meanwhile.
        cells, running = list(self._cells.values()), list(self.running.values())
        readings = [(cell, cell.read(now_ns)) for cell in cells]
        firsts = [each.first_ns for _, each in readings if each.first_ns is not None]
        lasts = [each.last_ns for _, each in readings if each.last_ns is not None]
        age_ns = now_ns - min([self._started_ns, *firsts])  # replayed calls may be older than we
        windows = {
            name: _figures(readings, number, min(reach_ns(span_ns, now_ns), age_ns))
            for number, (name, span_ns) in enumerate(WINDOWS.items())
        }
        with self._lock:
            self._add_streams()
            return Series(
                self.name,
                self.kind,
                self.labels,
                _figures(readings, EVER, age_ns),
                windows,
                together([each.execute for _, each in readings]),
                together([each.queue for _, each in readings]),
                self._first_item.copy(),
                self._between_items.copy(),
                len(running),
                self.clock.wall_ns() - now_ns + max(lasts) if lasts else None,
                self._troubles.top(),
                max(0, now_ns - min(running)) if running else None,
                _latest_ns(readings),
                together([each.tokens[0] for _, each in readings if each.tokens]),
                together([each.tokens[1] for _, each in readings if each.tokens]),
            )

    def _add_streams(self) -> None:
        streams = self._streams[:]
        del self._streams[: len(streams)]
        for first_ns, gaps_ns in streams:
            try:
                if first_ns is not None:
                    self._first_item.add(first_ns)
                self._between_items.add_all(gaps_ns)
            except (TypeError, UsageError):
                self._refused += 1


def _latest_ns(readings: list[tuple[Cell, Reading]]) -> tuple[int, ...]:
    calls = [
        call
        for cell, reading in readings
        if cell.ending is not Ending.CANCELLED
        for call in reading.latest
    ]
    return tuple([total_ns for _, total_ns in sorted(calls)[-LATEST:]])


def _figures(readings: list[tuple[Cell, Reading]], window: int, span_ns: int) -> Figures:
    """What the calls of all cells came to in one of the windows."""
    endings: dict[Ending, int] = {}
    sources: dict[Source, int] = {}
    categories: dict[Category, int] = {}
    instead: dict[Category, int] = {}
    ways: dict[tuple[Source, Ending], int] = {}
    hit, fresh, failed = Sketch(), Sketch(), Sketch()
    queue_ns, saved_ns, usage = 0, 0, NO_USAGE
    for cell, reading in readings:
        tally = reading.sums[window]
        queue_ns += tally.queue_ns
        saved_ns += tally.saved_ns
        usage = usage.plus(tally.usage)
        count = tally.times.count
        if not count:
            continue
        endings[cell.ending] = endings.get(cell.ending, 0) + count
        sources[cell.source] = sources.get(cell.source, 0) + count
        way = (cell.source, cell.ending)
        ways[way] = ways.get(way, 0) + count
        if cell.category is not None:
            counts = instead if cell.ending is Ending.SUCCESS else categories
            counts[cell.category] = counts.get(cell.category, 0) + count
        if cell.ending is Ending.SUCCESS:
            (fresh if cell.source is Source.EXECUTED else hit).merge(tally.times)
        elif cell.ending is not Ending.CANCELLED:
            failed.merge(tally.times)
    return Figures(
        span_ns,
        endings,
        sources,
        categories,
        hit,
        fresh,
        failed,
        queue_ns,
        saved_ns,
        usage,
        ways,
        instead,
    )
