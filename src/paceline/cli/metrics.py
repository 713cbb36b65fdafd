"""`paceline metrics`: the figures of the history in the text formats of Prometheus, and served as
JSON beside them."""

import asyncio
import signal
import threading
from collections.abc import Collection
from importlib.metadata import version
from typing import Final, final

import msgspec

from paceline.cli.completed import completed
from paceline.cli.output import OK, line, note
from paceline.cli.place import Place
from paceline.cli.replay import note_call, span_of_record
from paceline.clock import Clock, SystemClock
from paceline.history.record import Facts
from paceline.history.sqlite import SqliteReader
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Snapshot
from paceline.metrics.span import Span

__all__ = ["OPEN_METRICS", "Recorded", "metrics", "serve"]

OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0"
_S: Final = 1_000_000_000
_LATE_NS: Final = 60 * _S
_FRESH_NS: Final = _S
_EXEMPLARS: Final = 1_000


def metrics(place: Place, *, open_metrics: bool = False, sel_names: bool = False) -> int:
    """Prints the figures of all calls in the history."""
    from paceline.metrics.export.prometheus import Exposition  # noqa: PLC0415 (needs the extra)

    recorded = Recorded(SqliteReader(place.home.history))
    exposition = Exposition(
        recorded.snapshot,
        version=version("paceline"),
        spans=recorded.spans,
        names="sel" if sel_names else "native",
    )
    page = exposition.page(OPEN_METRICS if open_metrics else "")
    line(page.body.decode().rstrip("\n"))
    return OK


def serve(
    place: Place, *, listen: str, hosts: Collection[str] = (), sel_names: bool = False
) -> int:
    """Serves them, until it is interrupted or terminated."""
    return completed(_served(place, listen, hosts, sel_names=sel_names))


async def _served(place: Place, listen: str, hosts: Collection[str], *, sel_names: bool) -> int:
    from paceline.metrics.export.endpoint import Endpoint  # noqa: PLC0415 (loads an HTTP server)
    from paceline.metrics.export.pages import Pages  # noqa: PLC0415
    from paceline.metrics.export.prometheus import Exposition  # noqa: PLC0415 (needs the extra)

    recorded, ours = Recorded(SqliteReader(place.home.history)), version("paceline")
    exposition = Exposition(
        recorded.snapshot,
        version=ours,
        spans=recorded.spans,
        names="sel" if sel_names else "native",
    )
    pages = Pages(
        recorded.snapshot, spans=recorded.spans, loads=dict, clock=SystemClock(), version=ours
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Endpoint(exposition.page, pages=pages, listen=listen, hosts=hosts) as endpoint:
        note(f"metrics at {endpoint.url}; stop with Ctrl-C")
        await stop.wait()
    return OK


@final
class Recorded:
    """The figures of a history that others go on writing: what was counted once stays counted, also
    when its record is removed, so that no counter goes back.

    A call that is recorded more than a minute after its end is missed.
    """

    def __init__(self, reader: SqliteReader, clock: Clock | None = None) -> None:
        self._reader = reader
        self._collector = MetricsCollector(clock=clock)
        self._clock = clock or SystemClock()
        # Moments are kept by the wall, and counted by the clock that never goes back.
        self._ahead_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
        self._turn = threading.Lock()
        self._counted: dict[tuple[str, int], None] = {}
        """Calls that ended since `_edge_ns`."""
        self._edge_ns: int | None = None
        self._started_ns: int | None = None
        self._latest: Snapshot | None = None
        self._read_ns = 0

    def snapshot(self) -> Snapshot:
        """The figures, at most a second old. Raises StorageError."""
        with self._turn:
            now_ns = self._clock.monotonic_ns()
            if self._latest is None or now_ns - self._read_ns >= _FRESH_NS:
                self._take()
                self._read_ns = now_ns
                snapshot = self._collector.snapshot()
                if self._started_ns is None:  # nothing was counted before the first call
                    ages = [series.ever.span_ns for series in snapshot.series]
                    self._started_ns = snapshot.at_ns - max(ages, default=0)
                self._latest = msgspec.structs.replace(snapshot, started_ns=self._started_ns)
            return self._latest

    def spans(self) -> list[Span]:
        """The latest calls, the newest last. Raises StorageError."""
        return [span_of_record(record) for record in self._reader.query(limit=_EXEMPLARS)][::-1]

    def _take(self) -> None:
        edge_ns = self._clock.wall_ns() - _LATE_NS
        if self._edge_ns is None:
            self._edge_ns = edge_ns
            self._reader.fold(self._add_before)
        since_ns = self._edge_ns
        recent = [record for run in self._reader.runs(since_ns=since_ns) for record in run]
        for record in sorted(recent, key=lambda record: record.at_ns):
            if (record.id, record.at_ns) not in self._counted:
                self._add(record.facts)
        self._edge_ns = max(since_ns, edge_ns)
        self._counted = dict.fromkeys(
            [(one.id, one.at_ns) for one in recent if one.at_ns >= self._edge_ns]
        )

    def _add_before(self, facts: Facts) -> None:
        if self._edge_ns is not None and facts.at_ns < self._edge_ns:
            self._add(facts)

    def _add(self, facts: Facts) -> None:
        note_call(self._collector, facts, facts.at_ns - self._ahead_ns)
