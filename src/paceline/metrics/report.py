"""Figures as text for people and as plain data for programs. Pure."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from paceline.call import Source
from paceline.errors import Category
from paceline.metrics.collector import AgentStats, Snapshot
from paceline.metrics.sketch import Sketch

__all__ = ["data", "report", "verbose"]

_HEADER: Final = "**Agent Performance Statistics**"
_NOTHING: Final = "No calls recorded yet."
_NS_PER_MS: Final = 1_000_000
_QUANTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def report(snapshot: Snapshot) -> str:
    """The statistics of every agent, in the form chat users know; no newline at the end.

    The average is of what callers waited, hits included; `verbose` tells them apart.
    """
    return _render(snapshot, _lines)


def verbose(snapshot: Snapshot) -> str:
    """`report` with percentiles and the distributions behind it, sources and error categories."""
    return _render(snapshot, _verbose_lines)


def data(snapshot: Snapshot) -> dict[str, object]:
    """The figures as plain data: rates from 0 to 1, times in milliseconds, None for no data."""
    return {
        "version": 1,
        "uptime_s": snapshot.uptime_ns / 1e9,
        "totals": _figures(snapshot.totals),
        "agents": {name: _figures(stats) for name, stats in snapshot.agents.items()},
    }


def _render(snapshot: Snapshot, lines: Callable[[AgentStats], Iterator[str]]) -> str:
    blocks = ["\n".join(lines(stats)) for stats in snapshot.agents.values()]
    return "\n\n".join((_HEADER, *(blocks or [_NOTHING])))


def _lines(stats: AgentStats) -> Iterator[str]:
    yield f"**{stats.name}**"
    yield f"  Calls: {stats.calls:,} (cached: {stats.hits:,})"
    yield f"  Cache hit rate: {stats.cache_hit_rate or 0:.1%}"
    yield f"  Avg time: {stats.avg_ms or 0:.1f}ms"
    yield f"  Errors: {stats.errors:,} ({stats.error_rate or 0:.1%})"


def _verbose_lines(stats: AgentStats) -> Iterator[str]:
    yield from _lines(stats)
    if stats.cancelled:
        yield f"  Cancelled: {stats.cancelled:,}"
    for word, sketch in (
        ("All", stats.total),
        ("Cached", stats.hit),
        ("Executed", stats.fresh),
        ("Failed", stats.failed),
        ("In agent", stats.execute),
    ):
        if sketch.count:
            yield f"  {word}: {', '.join(f'{k} {_short(ms)}' for k, ms in _times(sketch).items())}"
    yield f"  Sources: {', '.join(f'{k} {n:,}' for k, n in _ranked(stats.by_source).items())}"
    if stats.by_category:
        yield f"  Trouble: {', '.join(f'{k} {n:,}' for k, n in _ranked(stats.by_category).items())}"


def _figures(stats: AgentStats) -> dict[str, object]:
    return {
        "calls": stats.calls,
        "hits": stats.hits,
        "errors": stats.errors,
        "cancelled": stats.cancelled,
        "cache_hit_rate": stats.cache_hit_rate,
        "error_rate": stats.error_rate,
        "sources": _ranked(stats.by_source),
        "categories": _ranked(stats.by_category),
        "queue_ms": stats.queue_ns / _NS_PER_MS,
        "total_ms": _times(stats.total),
        "hit_ms": _times(stats.hit),
        "fresh_ms": _times(stats.fresh),
        "failed_ms": _times(stats.failed),
        "execute_ms": _times(stats.execute),
    }


def _ranked(counts: Mapping[Source, int] | Mapping[Category, int]) -> dict[str, int]:
    """The most frequent first."""
    return {str(key): n for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def _times(sketch: Sketch) -> dict[str, float | None]:
    ns = {"avg": sketch.mean, "min": sketch.min}
    ns |= {name: sketch.quantile(q) for name, q in _QUANTILES.items()}
    ns["max"] = sketch.max
    return {name: None if value is None else value / _NS_PER_MS for name, value in ns.items()}


def _short(ms: float | None) -> str:
    """Hits take microseconds, executions seconds: both are to be seen."""
    if ms is None:
        return "-"
    return f"{ms:,.1f}ms" if ms >= 10 else f"{ms:.3f}ms"  # noqa: PLR2004 (three figures show)
