"""What collected figures look like to those who read them: rates, quantiles, intervals. Pure.

Every call is in one `Ending`. A cancelled call says nothing about its agent: it is counted, but is
in no rate and no distribution. Times of hits, fresh results and failures are kept apart, so that
fast hits do not hide slow executions, nor fast failures slow successes. Sketches hold nanoseconds.
"""

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeVar

import msgspec

from paceline.call import Kind, Source
from paceline.errors import Category
from paceline.metrics.sketch import Sketch
from paceline.usage import Paid, spent_on

__all__ = [
    "NO_USAGE",
    "OTHER",
    "Ending",
    "Figures",
    "Interval",
    "Series",
    "Snapshot",
    "Trouble",
    "Usage",
    "ending_of",
    "merged",
    "together",
    "usage_of",
    "wilson",
]

T = TypeVar("T")

OTHER: Final = "(other)"
"""Takes what is beyond a limit: calls of further names, further labels, further errors."""

_NS_PER_MS: Final = 1_000_000
_95_PER_CENT: Final = 1.959964


class Ending(StrEnum):
    """How a call ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    """Refused before anything ran: no capacity, no permission, no such thing, a wrong input."""


_REFUSALS: Final = frozenset(
    {
        Category.AUTHENTICATION,
        Category.EXHAUSTED,
        Category.INVALID,
        Category.NOT_FOUND,
        Category.POLICY,
        Category.RATE_LIMIT,
        Category.TOO_LONG,
        Category.UNAVAILABLE,
    }
)


def ending_of(category: Category | None, *, ran: bool = True) -> Ending:
    """How a call with this category of error ended; `ran` is whether anything was executed."""
    if category is None:
        return Ending.SUCCESS
    if category is Category.CANCELLED:
        return Ending.CANCELLED
    if category is Category.TIMEOUT:
        return Ending.TIMEOUT
    return Ending.REJECTED if not ran and category in _REFUSALS else Ending.ERROR


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens and money. `input` counts the tokens read from and written to a provider's cache.

    `cost_usd` is what was paid, `raw_usd` what it had been without discounts for cached tokens,
    `saved_usd` what results that were served again had cost. `unpriced` model calls are in the
    tokens, but their price is not known.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cost_usd: float = 0.0
    raw_usd: float = 0.0
    saved_usd: float = 0.0
    unpriced: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cached_input + other.cached_input,
            self.cache_write + other.cache_write,
            self.reasoning + other.reasoning,
            self.cost_usd + other.cost_usd,
            self.raw_usd + other.raw_usd,
            self.saved_usd + other.saved_usd,
            self.unpriced + other.unpriced,
        )

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input + self.output


NO_USAGE: Final = Usage()


def usage_of(call: Paid, price_usd: float) -> Usage:
    """What a call that is over used, or spared; `price_usd` is the price of one execution by its
    plan, which counts where nothing better is known."""
    if call.source.cached:
        return Usage(saved_usd=price_usd if call.saved_usd is None else call.saved_usd)
    spent = spent_on(call, price_usd)
    tokens = spent.tokens
    return Usage(
        tokens.input,
        tokens.output,
        tokens.cached_input,
        tokens.cache_write,
        tokens.reasoning,
        spent.cost_usd or 0.0,
        spent.raw_usd or 0.0,
        unpriced=spent.unpriced,
    )


class Interval(msgspec.Struct, frozen=True, gc=False):
    """Where a rate lies, with a confidence of 95 %."""

    low: float
    high: float


class Trouble(msgspec.Struct, frozen=True):
    """One kind of error: how often, and when first and last (nanoseconds of the wall clock).

    `type` is the exception's qualified name, `message` its form with numbers and names left out.
    `count` is at most `too_many` above the true number (space-saving: Metwally, Agrawal,
    El Abbadi, 2005).
    """

    category: Category
    type: str
    message: str
    count: int
    first_ns: int
    last_ns: int
    too_many: int = 0


class Figures(msgspec.Struct, frozen=True):
    """What calls came to in a span of time of `span_ns`."""

    span_ns: int
    by_ending: Mapping[Ending, int]
    by_source: Mapping[Source, int]
    by_category: Mapping[Category, int]
    hit: Sketch
    """Total times of values without an execution of their own."""
    fresh: Sketch
    """Total times of values from an execution of their own."""
    failed: Sketch
    """Total times of errors, time-outs and rejections."""
    queue_ns: int = 0
    """Time spent waiting for capacity, over all calls."""
    saved_ns: int = 0
    """What executing took when results that were served again were made."""
    usage: Usage = NO_USAGE
    by_way: Mapping[tuple[Source, Ending], int] = {}
    """Calls by where their outcome came from and how they ended."""
    by_instead: Mapping[Category, int] = {}
    """Successes in which a fallback answered, by the error in place of which it did."""

    @property
    def total(self) -> Sketch:
        """Total times of all calls that were not cancelled."""
        return together([self.hit, self.fresh, self.failed])

    @property
    def calls(self) -> int:
        """All calls."""
        return sum(self.by_ending.values())

    @property
    def answered(self) -> int:
        """Calls that were not cancelled."""
        return self.calls - self.cancelled

    @property
    def successes(self) -> int:
        """Calls that got a value."""
        return self.by_ending.get(Ending.SUCCESS, 0)

    @property
    def errors(self) -> int:
        """Calls that failed; those that timed out, were cancelled or rejected did not."""
        return self.by_ending.get(Ending.ERROR, 0)

    @property
    def timeouts(self) -> int:
        """Calls whose time was over."""
        return self.by_ending.get(Ending.TIMEOUT, 0)

    @property
    def cancelled(self) -> int:
        """Calls that nobody waited for any more."""
        return self.by_ending.get(Ending.CANCELLED, 0)

    @property
    def rejected(self) -> int:
        """Calls that were refused before anything ran."""
        return self.by_ending.get(Ending.REJECTED, 0)

    @property
    def fallbacks(self) -> int:
        """Successes in which a fallback answered in place of an error."""
        return sum(self.by_instead.values())

    @property
    def hits(self) -> int:
        """Calls that got a value without an execution of their own."""
        return self.hit.count

    @property
    def success_rate(self) -> float | None:
        """Share of successes among the answered; None if there are none."""
        return _share(self.successes, self.answered)

    @property
    def error_rate(self) -> float | None:
        """Share of errors among the answered; None if there are none."""
        return _share(self.errors, self.answered)

    @property
    def failure_rate(self) -> float | None:
        """Share of errors, time-outs and rejections among the answered; None if there are none."""
        return _share(self.answered - self.successes, self.answered)

    @property
    def cache_hit_rate(self) -> float | None:
        """Share of hits among the answered; None if there are none."""
        return _share(self.hits, self.answered)

    @property
    def success_interval(self) -> Interval | None:
        """Where the success rate lies; None without an answered call."""
        return wilson(self.successes, self.answered)

    @property
    def rate_per_s(self) -> float | None:
        """Calls a second; None if no time has passed."""
        return self.calls / (self.span_ns / 1e9) if self.span_ns > 0 else None

    @property
    def avg_ms(self) -> float | None:
        """Mean of `total`, in milliseconds."""
        parts = (self.hit, self.fresh, self.failed)
        count = sum([part.count for part in parts])
        return sum([part.sum for part in parts]) / count / _NS_PER_MS if count else None

    @property
    def cost_per_success_usd(self) -> float | None:
        """What a success costs, failures paid for; None without a success."""
        return self.usage.cost_usd / self.successes if self.successes else None


class Series(msgspec.Struct, frozen=True):
    """The figures of one name, with one set of labels, at one moment."""

    name: str
    kind: Kind
    labels: Mapping[str, str]
    ever: Figures
    windows: Mapping[str, Figures]
    """By `1m`, `5m`, `1h` and `24h`."""
    execute: Sketch
    """Time in the agent, of the calls that were executed."""
    queue: Sketch
    """Time spent waiting for capacity, of the calls that had to be executed."""
    first_item: Sketch
    """From the request to the first item, of streams."""
    between_items: Sketch
    """From one item to the next, of streams."""
    in_flight: int = 0
    last_ns: int | None = None
    """When the latest call ended, by the wall clock."""
    troubles: tuple[Trouble, ...] = ()
    """Its errors, the most frequent first."""
    slowest_ns: int | None = None
    """How long the longest running of the calls in flight has been running."""
    latest_ns: tuple[int, ...] = ()
    """Total times of the last calls that were not cancelled, the oldest first; a few only."""
    input_tokens: Sketch = msgspec.field(default_factory=Sketch)
    """Tokens put in, of the calls that used any."""
    output_tokens: Sketch = msgspec.field(default_factory=Sketch)
    """Tokens got out, of the calls that used any."""


class Snapshot(msgspec.Struct, frozen=True):
    """The figures of all series at one moment."""

    series: tuple[Series, ...]
    """By name, then labels."""
    uptime_ns: int
    """How long had been collected."""
    at_ns: int = 0
    """The moment, by the wall clock."""
    overflowed: int = 0
    """Series that had no place of their own."""
    refused: int = 0
    """Calls that could not be recorded."""
    started_ns: int = 0
    """Since when is collected, by the wall clock; another moment after a reset."""
    loads: Mapping[str, float] = {}
    """How full each instance is, from 0 to 1, by its name; empty where nobody knows."""

    @property
    def agents(self) -> Mapping[str, Series]:
        """The series by name, whatever their labels, in alphabetical order."""
        names: dict[str, list[Series]] = {}
        for series in self.series:
            names.setdefault(series.name, []).append(series)
        return {name: _united(name, names[name]) for name in sorted(names)}

    @property
    def totals(self) -> Series:
        """All series together, under the name ""."""
        return _united("", list(self.series))


def wilson(successes: int, of: int) -> Interval | None:
    """The score interval of a rate (E. B. Wilson, 1927): good for few samples, too; None of none."""
    if not of:
        return None
    z2 = _95_PER_CENT**2
    rate = successes / of
    middle = (rate + z2 / (2 * of)) / (1 + z2 / of)
    reach = _95_PER_CENT * math.sqrt(rate * (1 - rate) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach))


def merged(parts: Iterable[Figures], span_ns: int) -> Figures:
    """The figures of calls of several kinds over one span of time."""
    endings: dict[Ending, int] = {}
    sources: dict[Source, int] = {}
    categories: dict[Category, int] = {}
    instead: dict[Category, int] = {}
    ways: dict[tuple[Source, Ending], int] = {}
    hit, fresh, failed = Sketch(), Sketch(), Sketch()
    queue_ns = saved_ns = 0
    usage = NO_USAGE
    for part in parts:
        _count(endings, part.by_ending)
        _count(sources, part.by_source)
        _count(categories, part.by_category)
        _count(ways, part.by_way)
        _count(instead, part.by_instead)
        hit.merge(part.hit)
        fresh.merge(part.fresh)
        failed.merge(part.failed)
        queue_ns += part.queue_ns
        saved_ns += part.saved_ns
        usage = usage.plus(part.usage)
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


def _united(name: str, series: list[Series]) -> Series:
    if len(series) == 1 and series[0].name == name:
        return series[0]
    windows = {
        window: _all([one.windows[window] for one in series])
        for window in (series[0].windows if series else ())
    }
    lasts = [one.last_ns for one in series if one.last_ns is not None]
    slowest = [one.slowest_ns for one in series if one.slowest_ns is not None]
    return Series(
        name,
        series[0].kind if series else Kind.AGENT,
        {},
        _all([one.ever for one in series]),
        windows,
        together([one.execute for one in series]),
        together([one.queue for one in series]),
        together([one.first_item for one in series]),
        together([one.between_items for one in series]),
        sum([one.in_flight for one in series]),
        max(lasts, default=None),
        _same([trouble for one in series for trouble in one.troubles]),
        max(slowest, default=None),
        input_tokens=together([one.input_tokens for one in series]),
        output_tokens=together([one.output_tokens for one in series]),
    )


def _all(parts: list[Figures]) -> Figures:
    return merged(parts, max([part.span_ns for part in parts], default=0))


def _same(troubles: list[Trouble]) -> tuple[Trouble, ...]:
    """The same errors of several series as one, the most frequent first."""
    found: dict[tuple[Category, str, str], Trouble] = {}
    for new in troubles:
        key = (new.category, new.type, new.message)
        old = found.get(key)
        found[key] = new if old is None else Trouble(
            *key,
            old.count + new.count,
            min(old.first_ns, new.first_ns),
            max(old.last_ns, new.last_ns),
            old.too_many + new.too_many,
        )  # fmt: skip
    return tuple(sorted(found.values(), key=lambda trouble: -trouble.count))


def together(sketches: Iterable[Sketch]) -> Sketch:
    """All their values in one sketch."""
    whole = Sketch()
    for sketch in sketches:
        whole.merge(sketch)
    return whole


def _count(into: dict[T, int], more: Mapping[T, int]) -> None:
    for key, count in more.items():
        into[key] = into.get(key, 0) + count


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
