"""Calls of agents that their callers log: the last ones, and figures of all."""

from collections import deque
from typing import Any, Final, final

import msgspec

from paceline.call import Source
from paceline.clock import Clock
from paceline.errors import Category, PacelineError
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Series
from paceline.metrics.sketch import Sketch
from paceline.redaction import Redactor

__all__ = ["CallLog", "Execution"]

_RECORDS: Final = 1_000
_INPUT_KEPT: Final = 2_000
_INPUT_SHOWN: Final = 200
_NS_PER_MS: Final = 1_000_000


class Execution(msgspec.Struct, frozen=True):
    """One call as it was logged; `input` and `error` without secrets, and cut."""

    agent_name: str
    input: str
    execution_time_ms: float
    success: bool
    error: str | None
    cached: bool
    at_ns: int


@final
class CallLog:
    """The last 1,000 calls, and in `metrics` the figures of all."""

    def __init__(self, metrics: MetricsCollector, *, clock: Clock, enabled: bool) -> None:
        self.metrics = metrics
        self._clock = clock
        self._enabled = enabled
        self._records: deque[Execution] = deque(maxlen=_RECORDS)
        self._redactor = Redactor()

    def record(
        self,
        agent_name: str,
        input_data: object,
        took_ns: int,
        source: Source,
        error: BaseException | str | None,
        *,
        success: bool,
    ) -> None:
        """Records a call, unless turned off; an error that is no Exception is a cancellation."""
        if not self._enabled:
            return
        category = None
        if not success:
            category = _category(error)
        self.metrics.add(
            agent_name,
            source=source,
            category=category,
            queue_ns=0,
            execute_ns=took_ns if source is Source.EXECUTED else 0,
            total_ns=took_ns,
        )
        text = input_data if isinstance(input_data, str) else repr(input_data)
        self._records.append(
            Execution(
                agent_name,
                text[:_INPUT_KEPT],
                took_ns / _NS_PER_MS,
                success,
                None if error is None else str(error)[:_INPUT_KEPT],
                source.cached,
                self._clock.wall_ns(),
            )
        )

    def recent(self, agent_name: str | None) -> list[Execution]:
        """The last calls, or those of one agent among them; without secrets."""
        return [
            msgspec.structs.replace(
                record,
                input=self._shown(record.input),
                error=None if record.error is None else self._shown(record.error),
            )
            for record in list(self._records)
            if agent_name in (None, record.agent_name)
        ]

    def figures(self) -> dict[str, dict[str, Any]]:
        """What was recorded of each agent."""
        agents = self.metrics.snapshot().agents
        return {name: _figures(series) for name, series in agents.items()}

    def _shown(self, text: str) -> str:
        return self._redactor.text(text)[:_INPUT_SHOWN]


def _category(error: BaseException | str | None) -> Category:
    if isinstance(error, PacelineError):
        return error.category
    if isinstance(error, TimeoutError):
        return Category.TIMEOUT
    plain = error is None or isinstance(error, (Exception, str))
    return Category.EXECUTION if plain else Category.CANCELLED


def _figures(series: Series) -> dict[str, Any]:
    ever = series.ever
    return {
        "agent": series.name,
        "total_calls": ever.calls,
        "cached_calls": ever.hits,
        "cache_hit_rate": ever.cache_hit_rate or 0.0,
        "errors": ever.failed.count,
        "error_rate": ever.failure_rate or 0.0,
        "avg_execution_time_ms": ever.avg_ms or 0.0,
        "cached_ms": _times(ever.hit),
        "executed_ms": _times(ever.fresh),
        "failed_ms": _times(ever.failed),
    }


def _times(sketch: Sketch) -> dict[str, float] | None:
    mean_ns = sketch.mean
    if mean_ns is None:
        return None
    times = {"avg": mean_ns / _NS_PER_MS}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        times[name] = (sketch.quantile(share) or 0.0) / _NS_PER_MS
    return times
