"""Calls that a collector has seen, for tests."""

from typing import Any

from paceline.call import Outcome, Source
from paceline.errors import PacelineError
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Figures, Series
from paceline.testing.history_suite import a_call

__all__ = ["MS", "ever_of", "observe", "series_of"]

MS = 1_000_000


def observe(
    collector: MetricsCollector,
    name: str = "echo",
    *,
    source: Source = Source.EXECUTED,
    error: PacelineError | None = None,
    ms: int = 5,
    **more: Any,
) -> None:
    """Observes a call that waited a millisecond and was executed for `ms`."""
    executed = ms * MS if source is Source.EXECUTED else 0
    details = {"attempts": 1} | more
    outcome = Outcome(
        "1",
        name,
        source,
        error=error,
        queue_ns=MS,
        execute_ns=executed,
        total_ns=(ms + 1) * MS,
        **details,
    )
    collector.observe(a_call("1", name), outcome)


def series_of(collector: MetricsCollector, name: str = "echo") -> Series:
    """The figures of an agent."""
    return collector.snapshot().agents[name]


def ever_of(collector: MetricsCollector, name: str = "echo") -> Figures:
    """Those of ever."""
    return series_of(collector, name).ever
