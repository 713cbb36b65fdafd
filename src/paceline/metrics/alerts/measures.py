"""What rules can watch: each figure by its name. Pure."""

import difflib
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from paceline.errors import ConfigError
from paceline.metrics.figures import Figures, Series

__all__ = ["MEASURES", "Measure", "Reading", "Subject", "Unit", "measure"]

_NS_PER_MS: Final = 1_000_000

Unit = Literal["ms", "share", "per_s", "usd", "count"]


class Reading(NamedTuple):
    """A figure and how many calls it is of; None for what is not known."""

    value: float | None
    calls: int | None
    """None for what is no figure of calls."""


UNKNOWN: Final = Reading(None, 0)


class Subject(NamedTuple):
    """What a rule is applied to: calls, or an instance that makes them."""

    labels: Mapping[str, str]
    series: Series | None = None
    load: float | None = None


class Measure(msgspec.Struct, frozen=True):
    """One thing to watch. `read` gets the subject, a window, and a bound in nanoseconds."""

    name: str
    unit: Unit
    meaning: str
    read: Callable[[Subject, str, float], Reading]
    windowed: bool = True
    """Whether it is of a span of time, else of a moment."""
    bounded: bool = False
    """Whether it needs the bound."""
    of_instances: bool = False


def measure(name: str) -> Measure:
    """The measure of a name. Raises ConfigError, which lists those there are."""
    found = MEASURES.get(name)
    if found is None:
        close = difflib.get_close_matches(name, MEASURES, 1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise ConfigError(
            f"there is no metric {name!r} to watch",
            next_step=f"{hint}There are: {', '.join(MEASURES)}.",
        )
    return found


def _calls(
    name: str,
    unit: Unit,
    meaning: str,
    value: Callable[[Figures], float | None],
    count: Callable[[Figures], int] = lambda figures: figures.answered,
) -> Measure:
    """A figure of the calls in a window."""

    def read(subject: Subject, window: str, _: float) -> Reading:
        figures = subject.series.windows.get(window) if subject.series else None
        return UNKNOWN if figures is None else Reading(value(figures), count(figures))

    return Measure(name, unit, meaning, read)


def _moment(
    name: str, unit: Unit, meaning: str, value: Callable[[Series], float | None]
) -> Measure:
    """A figure of this moment."""

    def read(subject: Subject, _: str, __: float) -> Reading:
        return UNKNOWN if subject.series is None else Reading(value(subject.series), None)

    return Measure(name, unit, meaning, read, windowed=False)


def _quantile_ms(q: float) -> Callable[[Figures], float | None]:
    def value(figures: Figures) -> float | None:
        ns = figures.total.quantile(q)
        return None if ns is None else ns / _NS_PER_MS

    return value


def _slow_share(subject: Subject, window: str, bound_ns: float) -> Reading:
    figures = subject.series.windows.get(window) if subject.series else None
    if figures is None:
        return UNKNOWN
    total = figures.total
    return Reading(total.share_above(bound_ns), total.count)


def _hit_rate(subject: Subject, window: str, _: float) -> Reading:
    """Without a hit ever, results may as well not be cached at all: then it says nothing."""
    series = subject.series
    figures = series.windows.get(window) if series and series.ever.hits else None
    return UNKNOWN if figures is None else Reading(figures.cache_hit_rate, figures.answered)


def _queue_share(figures: Figures) -> float | None:
    total_ns = figures.total.sum
    return min(1.0, figures.queue_ns / total_ns) if total_ns > 0 else None


def _share_of(part: Callable[[Figures], int]) -> Callable[[Figures], float | None]:
    return lambda figures: part(figures) / figures.answered if figures.answered else None


def _slowest_ms(series: Series) -> float | None:
    return None if series.slowest_ns is None else series.slowest_ns / _NS_PER_MS


def _load(subject: Subject, _: str, __: float) -> Reading:
    return Reading(subject.load, None)


_ALL: Final = (
    _calls("p50_ms", "ms", "median time of calls, cancelled ones left out", _quantile_ms(0.5)),
    _calls("p95_ms", "ms", "time that 95 % of calls stay within", _quantile_ms(0.95)),
    _calls("p99_ms", "ms", "time that 99 % of calls stay within", _quantile_ms(0.99)),
    _calls("avg_ms", "ms", "mean time of calls", lambda figures: figures.avg_ms),
    Measure(
        "slow_share",
        "share",
        "share of calls that take longer than slower_than_ms",
        _slow_share,
        bounded=True,
    ),
    _calls("success_rate", "share", "share of calls that succeed", lambda f: f.success_rate),
    _calls("error_rate", "share", "share of calls that fail", lambda f: f.error_rate),
    _calls(
        "failure_rate",
        "share",
        "share that fails, times out or is refused",
        lambda f: f.failure_rate,
    ),
    _calls(
        "timeout_rate", "share", "share of calls that time out", _share_of(lambda f: f.timeouts)
    ),
    _calls(
        "rejection_rate",
        "share",
        "share of calls that are refused",
        _share_of(lambda f: f.rejected),
    ),
    Measure(
        "cache_hit_rate",
        "share",
        "share of calls answered without an execution, where that ever happened",
        _hit_rate,
    ),
    _calls("queue_share", "share", "share of the time of calls spent waiting", _queue_share),
    _calls("calls", "count", "number of calls", lambda f: f.calls, lambda f: f.calls),
    _calls("rate_per_s", "per_s", "calls a second", lambda f: f.rate_per_s, lambda f: f.calls),
    _calls("tokens", "count", "tokens used", lambda f: f.usage.tokens),
    _calls("cost_usd", "usd", "money spent", lambda f: f.usage.cost_usd),
    _calls(
        "cost_per_success_usd",
        "usd",
        "money spent for each success",
        lambda f: f.cost_per_success_usd,
        lambda f: f.successes,
    ),
    _moment("in_flight", "count", "calls running at this moment", lambda s: float(s.in_flight)),
    _moment("running_ms", "ms", "how long the longest running call has been running", _slowest_ms),
    Measure(
        "load",
        "share",
        "share of an instance's capacity that is in use at this moment",
        _load,
        windowed=False,
        of_instances=True,
    ),
)

MEASURES: Final[Mapping[str, Measure]] = {one.name: one for one in _ALL}
"""All measures by name."""
