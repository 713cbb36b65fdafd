"""Calls that somebody else timed: `MetricsCollector.record_execution`."""

from collections.abc import Mapping
from typing import Final, TypedDict

from paceline.call import Kind, Source, Tokens
from paceline.errors import Category
from paceline.metrics.figures import Usage, ending_of
from paceline.metrics.live import LiveSeries
from paceline.metrics.trace import Trace, What

__all__ = ["Details", "category_named", "record"]

_NS_PER_S: Final = 1e9
_LONGEST_S: Final = 1e9
"""More is taken for a mistake: thirty years."""

_WORDS: Final = (
    ("cancelled", Category.CANCELLED),
    ("timeout", Category.TIMEOUT),
    ("ratelimit", Category.RATE_LIMIT),
    ("connection", Category.NETWORK),
    ("network", Category.NETWORK),
    ("unavailable", Category.UNAVAILABLE),
    ("authentication", Category.AUTHENTICATION),
    ("permission", Category.POLICY),
    ("notfound", Category.NOT_FOUND),
    ("overloaded", Category.EXHAUSTED),
)
"""What the name of an error's type says of its kind."""


class Details(TypedDict, total=False):
    """What else is known of a call; times in seconds.

    `cached`: its result was made before; `source` says where it came from, if that is known
    better. `queue_time`: waiting for capacity, not part of the execution time. `attempt`: which
    attempt this was, from 1; 0 if nothing was run because the call was refused. `ttft`: from the
    request to the first item. `cost_usd`: what was paid, or for a cached result what it saved.
    `trace_id`: the trace it is part of.
    """

    kind: Kind
    labels: Mapping[str, str]
    source: Source
    cached: bool
    queue_time: float
    attempt: int
    ttft: float
    tokens: Tokens
    cost_usd: float
    trace_id: str


def record(
    series: LiveSeries,
    execution_time: float,
    success: bool,  # noqa: FBT001 (the signature of old)
    error_type: str | None,
    details: Details,
    *,
    trace: Trace | None = None,
) -> bool:
    """Notes the call, and its span if it is known of which trace; False, and nothing is noted,
    if what is said of it cannot be."""
    try:
        execute_ns, queue_ns = _ns(execution_time), _ns(details.get("queue_time", 0))
        first_ns = _ns(details["ttft"]) if "ttft" in details else None
        source = details.get("source", Source.HOT if details.get("cached") else Source.EXECUTED)
        category = None if success else category_named(error_type or "")
        ending = ending_of(category, ran=details.get("attempt", 1) != 0)
        usage = _usage(Source(source), details)
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        return False
    end_ns, total_ns = series.clock.monotonic_ns(), execute_ns + queue_ns
    cell = series.cell(source, category, ending)
    cell.note(end_ns, total_ns, 0 if source.cached else execute_ns, queue_ns, 0)
    if usage is not None:
        cell.usages.append((end_ns, usage))
    if first_ns is not None:
        series.streamed(first_ns, [])
    if category is not None and category is not Category.CANCELLED:
        series.failed(category, error_type or "", "")
    if trace is not None and "trace_id" in details:
        what = What(series.name, series.kind, category, ending)
        start_ns = end_ns - total_ns
        trace.keep((trace.next_id(), None, details["trace_id"], start_ns, end_ns, execute_ns, what))
    return True


def category_named(error_type: str) -> Category:
    """The kind of an error whose type, or category, has this name; `EXECUTION` if it is none."""
    if error_type in _CATEGORIES:
        return Category(error_type)
    name = error_type.lower().replace("_", "")
    return next((category for word, category in _WORDS if word in name), Category.EXECUTION)


_CATEGORIES: Final = frozenset(category.value for category in Category)


def _ns(seconds: float) -> int:
    if not 0 <= seconds <= _LONGEST_S:
        raise ValueError(seconds)
    return round(seconds * _NS_PER_S)


def _usage(source: Source, details: Details) -> Usage | None:
    if "tokens" not in details and "cost_usd" not in details:
        return None
    cost_usd = details.get("cost_usd", 0.0)
    if not 0 <= cost_usd <= _LONGEST_S:
        raise ValueError(cost_usd)
    if source.cached:
        return Usage(saved_usd=cost_usd)
    tokens = details.get("tokens", Tokens())
    return Usage(
        tokens.input, tokens.output, tokens.cached_input, cost_usd=cost_usd, raw_usd=cost_usd
    )
