"""Figures in the form of old: fields in seconds, and summaries as text.

Tasks are the calls that were answered: those that were cancelled are in none of these figures.
Failures are errors, time-outs and rejections together, so that tasks are successes and failures.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Final, final

from paceline.call import Kind
from paceline.clock import Clock, SystemClock
from paceline.metrics.execution import record
from paceline.metrics.figures import Figures, Series, Snapshot
from paceline.metrics.live import LiveSeries
from paceline.metrics.ranking import Score, rank, rows, seed_score

__all__ = ["PerformanceMetrics", "summary", "system_summary"]

_NS_PER_S: Final = 1e9
_TOP_ERRORS: Final = 5
_ACTIVE: Final = "5m"
"""The window of the throughput; who was called in it is active."""


@final
class PerformanceMetrics:
    """The figures of one agent, as they are at the moment each field is read.

    Times are seconds, rates from 0 to 1, both None while there is no data; percentiles are within
    1 %. Made by itself, it counts what `update` is told; from a collector, what that counts.
    """

    __slots__ = ("_series", "agent_name")

    def __init__(
        self, agent_name: str, *, series: LiveSeries | None = None, clock: Clock | None = None
    ) -> None:
        self.agent_name = agent_name
        if series is None:
            clock = clock or SystemClock()
            series = LiveSeries(agent_name, Kind.AGENT, {}, clock, clock.monotonic_ns())
        self._series = series

    def update(
        self,
        execution_time: float,
        success: bool,  # noqa: FBT001 (the signature of old)
        error_type: str | None = None,
    ) -> None:
        """Records a call that took so many seconds; one that is no time is counted as refused."""
        if not record(self._series, execution_time, success, error_type, {}):
            self._series.refuse()

    @property
    def task_count(self) -> int:
        """Calls that were answered."""
        return self._ever.answered

    @property
    def success_count(self) -> int:
        """Calls that got a value."""
        return self._ever.successes

    @property
    def failure_count(self) -> int:
        """Calls that got none."""
        ever = self._ever
        return ever.answered - ever.successes

    @property
    def success_rate(self) -> float | None:
        """Share of successes among the tasks."""
        return self._ever.success_rate

    @property
    def failure_rate(self) -> float | None:
        """Share of failures among the tasks."""
        return self._ever.failure_rate

    @property
    def total_execution_time(self) -> float:
        """Seconds that all tasks took together."""
        return self._ever.total.sum / _NS_PER_S

    @property
    def min_execution_time(self) -> float | None:
        """The shortest time of a task."""
        return _seconds(self._ever.total.min)

    @property
    def max_execution_time(self) -> float | None:
        """The longest time of a task."""
        return _seconds(self._ever.total.max)

    @property
    def avg_execution_time(self) -> float | None:
        """The mean time of a task."""
        return _seconds(self._ever.total.mean)

    @property
    def p50_execution_time(self) -> float | None:
        """Half of the tasks took no longer."""
        return _seconds(self._ever.total.quantile(0.50))

    @property
    def p95_execution_time(self) -> float | None:
        """95 % of the tasks took no longer."""
        return _seconds(self._ever.total.quantile(0.95))

    @property
    def p99_execution_time(self) -> float | None:
        """99 % of the tasks took no longer."""
        return _seconds(self._ever.total.quantile(0.99))

    @property
    def execution_times(self) -> list[float]:
        """The times of the latest tasks, the oldest first; no more than a few are kept."""
        return [took_ns / _NS_PER_S for took_ns in self._series.read().latest_ns]

    @property
    def error_types(self) -> Counter[str]:
        """The most frequent types of error and how often they came; 0 for any other."""
        return _types(self._series.read())

    @property
    def last_execution(self) -> datetime | None:
        """When the latest call ended, in UTC."""
        last_ns = self._series.read().last_ns
        return None if last_ns is None else datetime.fromtimestamp(last_ns / _NS_PER_S, UTC)

    def get_summary(self) -> dict[str, object]:
        """The figures as text: see `summary`."""
        return {**summary(self._series.read()), "agent_name": self.agent_name}

    def __repr__(self) -> str:
        return f"PerformanceMetrics({self.agent_name!r}, task_count={self.task_count})"

    @property
    def _ever(self) -> Figures:
        return self._series.read().ever


def summary(series: Series) -> dict[str, object]:
    """An agent's figures in eleven entries: rates such as `98.4%`, times such as `0.01s`, the
    most frequent types of error with their counts. None where there is no data."""
    ever = series.ever
    total = ever.total
    return {
        "agent_name": series.name,
        "task_count": ever.answered,
        "success_rate": _percent(ever.success_rate),
        "failure_rate": _percent(ever.failure_rate),
        "avg_execution_time": _time(total.mean),
        "p50_execution_time": _time(total.quantile(0.50)),
        "p95_execution_time": _time(total.quantile(0.95)),
        "p99_execution_time": _time(total.quantile(0.99)),
        "min_execution_time": _time(total.min),
        "max_execution_time": _time(total.max),
        "top_errors": dict(_types(series).most_common(_TOP_ERRORS)),
    }


def system_summary(snapshot: Snapshot, *, score: Score = seed_score) -> dict[str, object]:
    """All agents together, as text, and their ranking by `score`.

    The throughput is that of the last five minutes; active are the agents that were called in
    them, or are running.
    """
    totals, agents = snapshot.totals, snapshot.agents
    ever, recent = totals.ever, totals.windows.get(_ACTIVE)
    throughput = recent.answered / (recent.span_ns / _NS_PER_S) if recent and recent.span_ns else 0
    rate = ever.success_rate
    return {
        "uptime": f"{snapshot.uptime_ns / _NS_PER_S:.0f}s",
        "total_tasks": ever.answered,
        "total_successes": ever.successes,
        "total_failures": ever.answered - ever.successes,
        "overall_success_rate": "0%" if rate is None else f"{rate:.1%}",
        "throughput": f"{throughput:.2f} tasks/s",
        "active_agents": sum([_active(series) for series in agents.values()]),
        "agent_rankings": rows(rank(snapshot, score=score, min_calls=0)),
    }


def _active(series: Series) -> bool:
    return series.in_flight > 0 or series.windows[_ACTIVE].calls > 0


def _types(series: Series) -> Counter[str]:
    """How often each type came, by the name that old code knows it by."""
    counts: Counter[str] = Counter()
    for trouble in series.troubles:
        counts[trouble.type.removeprefix("builtins.") or trouble.category] += trouble.count
    return counts


def _seconds(ns: float | None) -> float | None:
    return None if ns is None else ns / _NS_PER_S


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:.1%}"


def _time(ns: float | None) -> str | None:
    return None if ns is None else f"{ns / _NS_PER_S:.2f}s"
