"""Collects the figures of calls while they run, or replayed from a history."""

import threading
from collections.abc import Callable, Mapping
from typing import Final, Required, TypedDict, Unpack, final

from paceline.call import Call, Kind, Outcome, Priority, Source
from paceline.clock import Clock, SystemClock
from paceline.errors import Category
from paceline.metrics.cell import FULL
from paceline.metrics.execution import Details, record
from paceline.metrics.figures import OTHER, Ending, Snapshot, Usage, ending_of, usage_of
from paceline.metrics.live import LiveSeries
from paceline.metrics.summary import PerformanceMetrics, summary, system_summary
from paceline.metrics.trace import Trace
from paceline.metrics.troubles import Forms
from paceline.redaction import Redactor

__all__ = ["Ended", "MetricsCollector"]

_NO_LABELS: Final[Mapping[str, str]] = {}
_OVERFLOWED: Final = 10_000
_LONGEST: Final = 200
_SPECULATIVE: Final = Priority.SPECULATIVE
_LOOK_NS: Final = 60_000_000_000
_IDLE_NS: Final = 86_400_000_000_000

_Key = tuple[str, Kind, tuple[tuple[str, str], ...]]


class Ended(TypedDict, total=False):
    """What is known of a call that ended; times in nanoseconds.

    `category` is its error's, None for a value; `ended_ns` a moment of the collector's monotonic
    clock, now if left out; `ran` whether anything was executed; `error` the exception, or the
    name of its type.
    """

    source: Required[Source]
    category: Required[Category | None]
    queue_ns: Required[int]
    execute_ns: Required[int]
    total_ns: Required[int]
    saved_ns: int
    ended_ns: int
    kind: Kind
    labels: Mapping[str, str]
    ran: bool
    error: BaseException | str | None
    usage: Usage | None


@final
class MetricsCollector:
    """Collects figures; `observe` is an observer of the call path.

    There are at most `max_series` series; calls of further names or labels are counted under
    `OTHER`, so memory is bounded whatever callers make up; when there is no more room, series that
    were idle for a day give up theirs. Calls may come from any thread,
    snapshots be taken on another: nothing is lost, and a snapshot has every call that was
    recorded before it.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        max_series: int = 1_000,
        redact: Callable[[str], str] | None = None,
    ) -> None:
        """`redact` takes secrets out of messages; the default knows the common forms."""
        self.clock = clock or SystemClock()
        self._now_ns = self.clock.monotonic_ns
        self._max_series = max_series
        self._forms = Forms(redact or Redactor().text)
        self._lock = threading.Lock()  # for what is rare: new series, and to forget all
        self.trace = Trace(self.clock)
        """The latest calls that `track_performance` noted, as spans."""
        self.resets = 0
        """Another number than before means that series given out are not read any more."""
        self._forget()

    def _forget(self) -> None:
        self._started_ns = self.clock.monotonic_ns()
        self._started_wall_ns = self.clock.wall_ns()
        self._series: dict[_Key, LiveSeries] = {}
        self._plain: dict[str, LiveSeries] = {}
        self._overflowed: set[int] = set()
        self._look_ns = 0
        self._refused = 0
        self.trace.clear()
        self.resets += 1

    def series(
        self, name: str, kind: Kind = Kind.AGENT, labels: Mapping[str, str] = _NO_LABELS
    ) -> LiveSeries:
        """Where the calls of a name are noted; that of `OTHER` once there are too many.

        To be asked for at every call: after `reset` it is another.
        """
        if not labels:
            plain = self._plain.get(name)
            if plain is not None and plain.kind is kind:
                return plain
        return self._found(name, kind, labels)

    def begin(self, call: Call) -> None:
        """Notes that a call is running; `observe` ends it."""
        if call.priority is _SPECULATIVE:
            return
        series = self._plain.get(call.name)
        if series is None or series.kind is not call.kind:
            series = self.series(call.name, call.kind)
        series.running[call.id] = self._now_ns()

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Records what came of a call. Of one that nobody asked for only what it used is counted."""
        # What is done for every call stands here, without calls of our own where that is possible.
        kind, name = call.kind, call.name
        series = self._plain.get(name)
        if series is None or series.kind is not kind:
            series = self.series(name, kind)
        if call.priority is _SPECULATIVE:
            if outcome.tokens is not None or outcome.cost_usd is not None or call.plan.cost_usd:
                series.spend(self._now_ns(), usage_of(outcome, call.plan.cost_usd))
            return
        series.running.pop(call.id, None)
        end_ns, source, error = self._now_ns(), outcome.source, outcome.error or outcome.instead_of
        if error is None:
            cell = series.successes.get(source) or series.cell(source, None, Ending.SUCCESS)
        else:
            # Who shares another's execution makes no attempt, but one was made.
            ran = outcome.attempts > 0 or source is not Source.EXECUTED
            wrong = None if outcome.ok else error.category  # else a fallback answered
            cell = series.cell(source, error.category, ending_of(wrong, ran=ran))
            self.note_error(series, error.category, error)
        pending = cell.pending
        pending.extend(
            (end_ns, outcome.total_ns, outcome.execute_ns, outcome.queue_ns, outcome.saved_ns)
        )
        if len(pending) >= FULL:
            cell.settle()
        price_usd = call.plan.cost_usd
        if (
            price_usd
            or outcome.tokens is not None
            or outcome.cost_usd is not None
            or outcome.saved_usd is not None
        ):
            cell.usages.append((end_ns, usage_of(outcome, price_usd)))

    def add(self, name: str, **call: Unpack[Ended]) -> None:
        """Records a call known by its figures: see `Ended`."""
        series = self.series(name, call.get("kind", Kind.AGENT), call.get("labels", _NO_LABELS))
        category, now_ns = call["category"], self.clock.monotonic_ns()
        end_ns = call.get("ended_ns", now_ns)
        cell = series.cell(call["source"], category, ending_of(category, ran=call.get("ran", True)))
        note = cell.note_past if "ended_ns" in call else cell.note
        times = (call["total_ns"], call["execute_ns"], call["queue_ns"])
        note(end_ns, *times, call.get("saved_ns", 0))
        if category is not None:
            self.note_error(series, category, call.get("error"))
        usage = call.get("usage")
        if usage is not None:
            cell.usages.append((end_ns, usage))

    def record_execution(
        self,
        agent_name: str,
        execution_time: float,
        success: bool,  # noqa: FBT001 (the signature of old)
        error_type: str | None = None,
        **details: Unpack[Details],
    ) -> None:
        """Records a call that took `execution_time` seconds; see `Details` for what else is known.

        Never raises for what it is given, because measuring must not break what is measured: a
        time that is negative or no number is counted in `Snapshot.refused`.
        """
        kind, labels = details.get("kind", Kind.AGENT), details.get("labels", _NO_LABELS)
        try:
            series = self.series(agent_name, kind, labels)
        except (AttributeError, TypeError):  # the name or a label is none
            series = self.series(OTHER)
            series.refuse()
            return
        if not record(series, execution_time, success, error_type, details, trace=self.trace):
            series.refuse()

    def get_or_create_metrics(self, agent_name: str) -> PerformanceMetrics:
        """The figures of an agent as the fields of old; they follow the calls."""
        return PerformanceMetrics(agent_name, series=self.series(agent_name))

    def get_all_metrics(self) -> dict[str, dict[str, object]]:
        """The summary of each agent, by name, as text; `snapshot` has the numbers."""
        return {name: summary(series) for name, series in self.snapshot().agents.items()}

    def get_system_summary(self) -> dict[str, object]:
        """What all agents did, as text, and their ranking; `snapshot` has the numbers."""
        return system_summary(self.snapshot())

    def refuse(self) -> None:
        """Counts a call that could not be recorded."""
        with self._lock:
            self._refused += 1

    def snapshot(self) -> Snapshot:
        """The figures of all calls recorded so far; later calls do not change it."""
        live = self._series.copy()  # in one step: other threads may add some meanwhile
        series = tuple([live[key].read() for key in sorted(live)])
        return Snapshot(
            series,
            self.clock.monotonic_ns() - self._started_ns,
            self.clock.wall_ns(),
            len(self._overflowed),
            self._refused + sum([each.refused for each in live.values()]),
            self._started_wall_ns,
        )

    def reset(self) -> None:
        """Forgets everything recorded so far; calls in flight are recorded when they end."""
        with self._lock:
            self._forget()

    def _found(self, name: str, kind: Kind, labels: Mapping[str, str]) -> LiveSeries:
        """The series with these labels, made if there is room for one more, else `OTHER`."""
        pairs = [(key[:_LONGEST], value[:_LONGEST]) for key, value in labels.items()]
        key = (name[:_LONGEST], kind, tuple(sorted(pairs)))
        found = self._series.get(key)
        if found is not None:
            return found
        with self._lock:
            if len(self._series) >= self._max_series and key not in self._series:
                self._forget_idle()
            if len(self._series) >= self._max_series and key not in self._series:
                if len(self._overflowed) < _OVERFLOWED:
                    self._overflowed.add(hash(key))
                key = (OTHER, Kind.AGENT, ())
            found = self._series.get(key)
            if found is None:
                name, kind, kept = key
                found = LiveSeries(name, kind, dict(kept), self.clock, self._started_ns)
                self._series[key] = found
                if not kept:
                    self._plain.setdefault(name, found)
            return found

    def _forget_idle(self) -> None:
        """Makes room by forgetting series of which nothing was heard for a day; looks for them
        once a minute, because callers can make up names much faster."""
        now_ns = self.clock.monotonic_ns()
        if now_ns < self._look_ns:
            return
        self._look_ns = now_ns + _LOOK_NS
        idle = [key for key, each in self._series.items() if each.is_idle(now_ns - _IDLE_NS)]
        for key in idle:
            if self._plain.get(key[0]) is self._series.pop(key):
                del self._plain[key[0]]
        if idle:
            self.resets += 1

    def note_error(
        self, series: LiveSeries, category: Category, error: BaseException | str | None
    ) -> None:
        """Notes what an error of a series was; a cancellation is none."""
        if category is Category.CANCELLED:
            return
        if isinstance(error, BaseException):
            cause = error.__cause__ or error
            kind = type(cause)
            series.failed(category, f"{kind.__module__}.{kind.__qualname__}", self._forms.of(error))
        else:
            series.failed(category, error or "", "")
