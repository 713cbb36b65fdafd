"""Figures as text for people and as plain data for programs. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from paceline.call import Source
from paceline.errors import Category
from paceline.metrics.figures import Figures, Interval, Series, Snapshot, Trouble, Usage
from paceline.metrics.sketch import Sketch

__all__ = ["Sort", "blocks", "data", "figures_of", "report", "totals", "verbose"]

Sort = Literal["name", "calls", "slowest", "errors", "hit rate", "cost"]
"""Which agent comes first: by the alphabet, else the one with most of it."""

_HEADER: Final = "**Agent Performance Statistics**"
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1e9
_QUANTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_TROUBLES: Final = 5
_SELDOM_PER_S: Final = 0.1
_MOST_FIRST: Final[Mapping[Sort, Callable[[Series], float]]] = {
    "calls": lambda series: series.ever.calls,
    "slowest": lambda series: series.ever.avg_ms or 0.0,
    "errors": lambda series: series.ever.answered - series.ever.successes,
    "hit rate": lambda series: series.ever.cache_hit_rate or 0.0,
    "cost": lambda series: series.ever.usage.cost_usd,
}


def report(
    snapshot: Snapshot,
    *,
    sort: Sort = "name",
    agents: Collection[str] | None = None,
    limit: int | None = None,
) -> str:
    """The statistics of every agent, in the form chat users know; no newline at the end.

    The average is of what callers waited, hits included; `verbose` tells them apart. Time-outs,
    rejections and cancellations have lines of their own, when there are any. Of `agents` only,
    and of the first `limit` in this order, if these are given; equals come by name.
    """
    return "\n\n".join(blocks(snapshot, sort=sort, agents=agents, limit=limit))


def verbose(
    snapshot: Snapshot,
    *,
    sort: Sort = "name",
    agents: Collection[str] | None = None,
    limit: int | None = None,
) -> str:
    """`report` with what is behind it: distributions, windows, sources, troubles, money."""
    return "\n\n".join(blocks(snapshot, sort=sort, agents=agents, limit=limit, in_full=True))


def blocks(
    snapshot: Snapshot,
    *,
    sort: Sort = "name",
    agents: Collection[str] | None = None,
    limit: int | None = None,
    in_full: bool = False,
) -> list[str]:
    """The parts of `report`, or of `verbose`: its header, then one for each agent. Chats that
    limit the length of a message break the text between them."""
    chosen = [
        series for name, series in snapshot.agents.items() if agents is None or name in agents
    ]
    most = _MOST_FIRST.get(sort)
    if most is not None:
        chosen.sort(key=most, reverse=True)  # stable: equals stay in order
    lines = _verbose_lines if in_full else _lines
    texts = ["\n".join(lines(series, snapshot.at_ns)) for series in chosen[:limit]]
    return [_HEADER, *(texts if chosen else [_nothing(agents)])]


def data(snapshot: Snapshot) -> dict[str, object]:
    """The figures as plain data: rates from 0 to 1, times in milliseconds, moments in seconds of
    the wall clock, money in USD, None for no data."""
    agents = {name: figures_of(series) for name, series in snapshot.agents.items()}
    return {**totals(snapshot), "agents": agents}


def totals(snapshot: Snapshot) -> dict[str, object]:
    """What `data` has of all agents together."""
    return {
        "version": 2,
        "at_s": snapshot.at_ns / _NS_PER_S,
        "uptime_s": snapshot.uptime_ns / _NS_PER_S,
        "overflowed": snapshot.overflowed,
        "refused": snapshot.refused,
        "totals": figures_of(snapshot.totals),
    }


def figures_of(series: Series) -> dict[str, object]:
    """What `data` has of one agent."""
    return {
        **_figures_data(series.ever),
        "execute_ms": _times(series.execute),
        "queued_ms": _times(series.queue),
        "first_item_ms": _times(series.first_item),
        "between_items_ms": _times(series.between_items),
        "in_flight": series.in_flight,
        "longest_in_flight_ms": _ms(series.slowest_ns),
        "last_s": None if series.last_ns is None else series.last_ns / _NS_PER_S,
        "troubles": [_trouble_data(trouble) for trouble in series.troubles],
        "windows": {name: _figures_data(figures) for name, figures in series.windows.items()},
    }


def _nothing(agents: Collection[str] | None) -> str:
    of = f" of {', '.join(agents)}" if agents else ""
    return f"No calls{of} recorded yet."


def _lines(series: Series, _at_ns: int) -> Iterator[str]:
    ever = series.ever
    yield f"**{series.name}**"
    yield f"  Calls: {ever.calls:,} (cached: {ever.hits:,})"
    yield f"  Cache hit rate: {ever.cache_hit_rate or 0:.1%}"
    yield f"  Avg time: {ever.avg_ms or 0:.1f}ms"
    yield f"  Errors: {ever.errors:,} ({ever.error_rate or 0:.1%})"
    for word, count in (("Timeouts", ever.timeouts), ("Rejected", ever.rejected)):
        if count:
            yield f"  {word}: {count:,} ({count / ever.answered:.1%})"
    if ever.cancelled:
        yield f"  Cancelled: {ever.cancelled:,}"


def _verbose_lines(series: Series, at_ns: int) -> Iterator[str]:
    ever = series.ever
    yield from _lines(series, at_ns)
    if ever.success_rate is not None and ever.success_interval is not None:
        yield f"  Success: {ever.success_rate:.1%} ({_between(ever.success_interval)})"
    if series.in_flight:
        longest = _short((series.slowest_ns or 0) / _NS_PER_MS)
        yield f"  In flight: {series.in_flight:,}, the longest for {longest}"
    for word, sketch in _distributions(series).items():
        if sketch.count:
            yield f"  {word}: {', '.join(f'{k} {_short(ms)}' for k, ms in _times(sketch).items())}"
    for name, figures in series.windows.items():
        if figures.calls:
            yield f"  Last {name}: {_window(figures)}"
    yield f"  Sources: {', '.join(f'{k} {n:,}' for k, n in _ranked(ever.by_source).items())}"
    if ever.fallbacks:
        yield f"  Answered by a fallback: {ever.fallbacks:,} ({_instead(ever)})"
    if ever.by_category:
        yield f"  Trouble: {', '.join(f'{k} {n:,}' for k, n in _ranked(ever.by_category).items())}"
    for trouble in series.troubles[:_TROUBLES]:
        yield f"    {_trouble(trouble)}"
    yield from _money(ever)


def _instead(ever: Figures) -> str:
    return ", ".join(f"{k} {n:,}" for k, n in _ranked(ever.by_instead).items())


def _distributions(series: Series) -> dict[str, Sketch]:
    """Hits, fresh results and failures are never in one but `All`."""
    ever = series.ever
    return {
        "All": ever.total,
        "Cached": ever.hit,
        "Executed": ever.fresh,
        "Failed": ever.failed,
        "In agent": series.execute,
        **({"Queued": series.queue} if series.queue.max else {}),
        "First item": series.first_item,
        "Between items": series.between_items,
    }


def _between(interval: Interval) -> str:
    return f"95% sure: {interval.low:.1%} to {interval.high:.1%}"


def _window(figures: Figures) -> str:
    p95_ns = figures.total.quantile(0.95)
    parts = [f"{figures.calls:,} calls"]
    if figures.rate_per_s is not None:
        parts.append(_rate(figures.rate_per_s))
    for word, rate in (("success", figures.success_rate), ("hits", figures.cache_hit_rate)):
        if rate is not None:
            parts.append(f"{word} {rate:.1%}")
    if p95_ns is not None:
        parts.append(f"p95 {_short(p95_ns / _NS_PER_MS)}")
    return ", ".join(parts)


def _rate(per_s: float) -> str:
    return f"{per_s:,.2f}/s" if per_s >= _SELDOM_PER_S else f"{60 * per_s:,.2f}/min"


def _trouble(trouble: Trouble) -> str:
    about = "".join(
        [
            f" {trouble.type}" if trouble.type else "",
            f": {trouble.message}" if trouble.message else "",
        ]
    )
    seen = f"first {_moment(trouble.first_ns)}, last {_moment(trouble.last_ns)}"
    return f"{trouble.count:,}x {trouble.category}{about} ({seen})"


def _money(ever: Figures) -> Iterator[str]:
    usage = ever.usage
    if usage.tokens:
        inside = _parts({"cached": usage.cached_input, "written": usage.cache_write})
        thought = _parts({"reasoning": usage.reasoning})
        yield f"  Tokens: in {usage.input:,}{inside}, out {usage.output:,}{thought}"
    if usage.unpriced:
        yield f"  Without a price: {usage.unpriced:,} model calls"
    if usage.cost_usd or usage.saved_usd:
        each = ever.cost_per_success_usd
        per_success = f" (${each:,.4f} a success)" if each else ""
        raw = f", ${usage.raw_usd:,.4f} without discounts" if usage.raw_usd > usage.cost_usd else ""
        yield f"  Cost: ${usage.cost_usd:,.4f}{per_success}{raw}, saved ${usage.saved_usd:,.4f}"


def _parts(counts: Mapping[str, int]) -> str:
    """Kinds of tokens that are a part of those before, such as ` (cached 5)`."""
    there = [f"{name} {count:,}" for name, count in counts.items() if count]
    return f" ({', '.join(there)})" if there else ""


def _moment(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns // _NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _figures_data(figures: Figures) -> dict[str, object]:
    return {
        "span_s": figures.span_ns / _NS_PER_S,
        "calls": figures.calls,
        "hits": figures.hits,
        "successes": figures.successes,
        "errors": figures.errors,
        "timeouts": figures.timeouts,
        "rejected": figures.rejected,
        "cancelled": figures.cancelled,
        "rate_per_s": figures.rate_per_s,
        "cache_hit_rate": figures.cache_hit_rate,
        "success_rate": figures.success_rate,
        "success_interval": _pair(figures.success_interval),
        "error_rate": figures.error_rate,
        "failure_rate": figures.failure_rate,
        "sources": _ranked(figures.by_source),
        "categories": _ranked(figures.by_category),
        "fallbacks": _ranked(figures.by_instead),
        "queue_ms": figures.queue_ns / _NS_PER_MS,
        "saved_ms": figures.saved_ns / _NS_PER_MS,
        "total_ms": _times(figures.total),
        "hit_ms": _times(figures.hit),
        "fresh_ms": _times(figures.fresh),
        "failed_ms": _times(figures.failed),
        "usage": _usage_data(figures),
    }


def _trouble_data(trouble: Trouble) -> dict[str, object]:
    return {
        "category": str(trouble.category),
        "type": trouble.type,
        "message": trouble.message,
        "count": trouble.count,
        "too_many": trouble.too_many,
        "first_s": trouble.first_ns / _NS_PER_S,
        "last_s": trouble.last_ns / _NS_PER_S,
    }


def _usage_data(figures: Figures) -> dict[str, object]:
    usage: Usage = figures.usage
    return {
        "input": usage.input,
        "output": usage.output,
        "cached_input": usage.cached_input,
        "cache_write": usage.cache_write,
        "reasoning": usage.reasoning,
        "cost_usd": usage.cost_usd,
        "raw_usd": usage.raw_usd,
        "saved_usd": usage.saved_usd,
        "unpriced": usage.unpriced,
        "cost_per_success_usd": figures.cost_per_success_usd,
    }


def _pair(interval: Interval | None) -> Sequence[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _ranked(counts: Mapping[Source, int] | Mapping[Category, int]) -> dict[str, int]:
    """The most frequent first."""
    return {str(key): n for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def _times(sketch: Sketch) -> dict[str, float | None]:
    ns = {"avg": sketch.mean, "min": sketch.min}
    ns |= {name: sketch.quantile(q) for name, q in _QUANTILES.items()}
    ns["max"] = sketch.max
    return {name: _ms(value) for name, value in ns.items()}


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / _NS_PER_MS


def _short(ms: float | None) -> str:
    """Hits take microseconds, executions seconds: both are to be seen."""
    if ms is None:
        return "-"
    return f"{ms:,.1f}ms" if ms >= 10 else f"{ms:.3f}ms"  # noqa: PLR2004 (three figures show)
