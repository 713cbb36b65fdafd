"""The read model: rates, intervals, and several series as one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Source
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import (
    Ending,
    Figures,
    Series,
    Snapshot,
    Trouble,
    Usage,
    ending_of,
    merged,
    together,
    wilson,
)
from paceline.metrics.sketch import Sketch
from paceline.testing.virtual_time import VirtualClock

MS = 1_000_000


def figures(**changes: object) -> Figures:
    empty = {
        "span_ns": 10**9,
        "by_ending": {},
        "by_source": {},
        "by_category": {},
        "hit": Sketch(),
        "fresh": Sketch(),
        "failed": Sketch(),
    }
    return Figures(**{**empty, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("successes", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (95, 100, 0.8882, 0.9785),
    ],
)
def test_the_interval_is_wilsons(successes: int, of: int, low: float, high: float) -> None:
    """The interval of a rate is Wilson's score interval at 95 %. (S0-11, S0-18)"""
    interval = wilson(successes, of)
    assert interval is not None
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_the_interval_holds_the_rate(successes: int, of: int) -> None:
    """The interval lies between 0 and 1 and holds the rate, and narrows with samples. (S0-11)"""
    successes = min(successes, of)
    interval, more = wilson(successes, of), wilson(10 * successes, 10 * of)
    assert interval is not None
    assert more is not None
    assert -1e-9 <= interval.low <= successes / of + 1e-9
    assert successes / of - 1e-9 <= interval.high <= 1
    assert more.high - more.low <= interval.high - interval.low


def test_nothing_is_none() -> None:
    """Of no calls there is no rate, time or interval, rather than 0 or infinity. (S0-08, S0-11)"""
    empty = figures(span_ns=0)
    assert (
        empty.success_rate,
        empty.error_rate,
        empty.failure_rate,
        empty.cache_hit_rate,
        empty.success_interval,
        empty.rate_per_s,
        empty.avg_ms,
        empty.total.mean,
        empty.total.quantile(0.95),
        empty.cost_per_success_usd,
    ) == (None,) * 10
    assert (empty.calls, empty.answered, empty.hits) == (0, 0, 0)


@pytest.mark.parametrize(
    ("category", "ran", "ending"),
    [
        (None, True, Ending.SUCCESS),
        (None, False, Ending.SUCCESS),
        (Category.CANCELLED, True, Ending.CANCELLED),
        (Category.CANCELLED, False, Ending.CANCELLED),
        (Category.TIMEOUT, True, Ending.TIMEOUT),
        (Category.TIMEOUT, False, Ending.TIMEOUT),
        (Category.EXHAUSTED, False, Ending.REJECTED),
        (Category.EXHAUSTED, True, Ending.ERROR),
        (Category.POLICY, False, Ending.REJECTED),
        (Category.UNAVAILABLE, False, Ending.REJECTED),
        (Category.EXECUTION, False, Ending.ERROR),
        (Category.STORAGE, False, Ending.ERROR),
    ],
)
def test_endings(category: Category | None, ran: bool, ending: Ending) -> None:
    """Success, error, time-out, cancellation and rejection are outcomes of their own. (S0-21)"""
    assert ending_of(category, ran=ran) is ending


@pytest.mark.parametrize("category", Category)
def test_every_category_has_an_ending(category: Category) -> None:
    """No category of errors is counted as a success. (S0-09, V-31)"""
    assert ending_of(category) is not Ending.SUCCESS


def test_rates_leave_out_the_cancelled() -> None:
    """Rates are shares of the calls that were answered. (S0-11, S0-21, S0-71)"""
    found = figures(
        span_ns=2 * 10**9,
        by_ending={
            Ending.SUCCESS: 5,
            Ending.ERROR: 2,
            Ending.TIMEOUT: 1,
            Ending.REJECTED: 2,
            Ending.CANCELLED: 30,
        },
    )
    assert (found.calls, found.answered, found.rate_per_s) == (40, 10, 20)
    assert (found.success_rate, found.error_rate, found.failure_rate) == (0.5, 0.2, 0.5)
    assert (found.errors, found.timeouts, found.rejected, found.cancelled) == (2, 1, 2, 30)
    assert found.success_interval == wilson(5, 10)


def test_the_mean_is_of_all_that_were_answered() -> None:
    """The mean is that of the three distributions together, in milliseconds. (S1-15)"""
    hit, fresh, failed = Sketch(), Sketch(), Sketch()
    hit.add(MS)
    fresh.add(5 * MS)
    failed.add(9 * MS)
    found = figures(hit=hit, fresh=fresh, failed=failed)
    assert found.avg_ms == 5
    assert found.total.count == 3


def test_usage_adds_up() -> None:
    """Tokens by kind and money add up; a success costs what failures cost, too. (S0-26, K-09)"""
    usage = Usage(1, 2, 3, 4, 5, 0.5, 0.75, 0.125)
    assert usage.plus(usage) == Usage(2, 4, 6, 8, 10, 1.0, 1.5, 0.25)
    assert usage.tokens == 3
    found = figures(by_ending={Ending.SUCCESS: 2, Ending.ERROR: 3}, usage=usage)
    assert found.cost_per_success_usd == 0.25


def test_parts_merge() -> None:
    """Figures of several kinds of calls are merged field by field."""
    fresh = Sketch()
    fresh.add(7)
    one = figures(
        by_ending={Ending.SUCCESS: 1},
        by_source={Source.HOT: 1},
        fresh=fresh,
        queue_ns=5,
        usage=Usage(input=1),
    )
    other = figures(
        by_ending={Ending.SUCCESS: 2, Ending.ERROR: 1},
        by_source={Source.HOT: 2},
        by_category={Category.NETWORK: 1},
        saved_ns=9,
    )
    both = merged([one, other], 5)
    assert both.span_ns == 5
    assert both.by_ending == {Ending.SUCCESS: 3, Ending.ERROR: 1}
    assert both.by_source == {Source.HOT: 3}
    assert both.by_category == {Category.NETWORK: 1}
    assert (both.queue_ns, both.saved_ns, both.usage) == (5, 9, Usage(input=1))
    assert both.fresh == fresh
    both.fresh.add(1)
    assert one.fresh.count == 1


def test_a_snapshot_of_nothing() -> None:
    """Without series there are totals of no calls, and no agents."""
    empty = Snapshot((), 0)
    assert empty.agents == {}
    assert empty.totals.ever.calls == 0
    assert empty.totals.windows == {}


def snapshot() -> Snapshot:
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    for number, labels in enumerate(({}, {"model": "a"}, {"model": "b"})):
        collector.series("asks", labels=labels).running[number] = clock.monotonic_ns()
        for _ in range(number + 1):
            clock.advance(1)
            collector.add(
                "asks",
                source=Source.EXECUTED,
                category=Category.TIMEOUT if number else None,
                queue_ns=MS,
                execute_ns=2 * MS,
                total_ns=3 * MS,
                labels=labels,
                error=TimeoutError("after 3 s") if number else None,
            )
    return collector.snapshot()


def test_an_agent_is_all_its_series() -> None:
    """A name's series with other labels come together: counts, windows, errors. (S0-13, S0-17)"""
    found = snapshot()
    assert [series.labels for series in found.series] == [{}, {"model": "a"}, {"model": "b"}]
    asks: Series = found.agents["asks"]
    assert asks.ever.by_ending == {Ending.SUCCESS: 1, Ending.TIMEOUT: 5}
    assert asks.windows["1m"].calls == asks.windows["24h"].calls == 6
    assert asks.ever.span_ns == asks.windows["1m"].span_ns == 6 * 10**9
    assert (asks.execute.count, asks.queue.count) == (6, 6)
    assert (asks.in_flight, asks.slowest_ns) == (3, 6 * 10**9)
    assert asks.last_ns == found.at_ns
    ns = VirtualClock.EPOCH_NS
    assert asks.troubles == (
        Trouble(
            Category.TIMEOUT,
            "builtins.TimeoutError",
            "after * s",
            5,
            ns + 2 * 10**9,
            ns + 6 * 10**9,
        ),
    )
    assert found.totals.ever == asks.ever


def test_together_leaves_the_parts_alone() -> None:
    """What is added to the whole is not in a part."""
    part = Sketch()
    part.add(1)
    whole = together([part])
    whole.add(2)
    assert part.count == 1
    assert math.isclose(whole.sum, 3)
