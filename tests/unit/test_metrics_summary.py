"""Figures under the names of old: fields, summaries, what is recorded by hand."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from paceline.call import Kind, Source, Tokens
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.execution import category_named
from paceline.metrics.figures import Figures, Series
from paceline.metrics.performance import track_performance
from paceline.metrics.summary import PerformanceMetrics
from paceline.testing.virtual_time import VirtualClock

GOLDEN = Path(__file__).parents[1] / "golden"
ERRORS = ["TimeoutError"] * 3 + ["ValueError"] * 2 + ["ConnectionError", "KeyError", "LookupError"]
SUMMARY = (
    "agent_name task_count success_rate failure_rate avg_execution_time p50_execution_time"
    " p95_execution_time p99_execution_time min_execution_time max_execution_time top_errors"
)
SYSTEM_SUMMARY = (
    "uptime total_tasks total_successes total_failures overall_success_rate throughput"
    " active_agents agent_rankings"
)


def golden(name: str) -> object:
    return json.loads((GOLDEN / name).read_text())


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def collector(clock: VirtualClock) -> MetricsCollector:
    return MetricsCollector(clock=clock)


def series_of(collector: MetricsCollector, name: str = "a") -> Series:
    return collector.snapshot().agents[name]


def ever(collector: MetricsCollector, name: str = "a") -> Figures:
    return series_of(collector, name).ever


def record_research(collector: MetricsCollector, clock: VirtualClock) -> None:
    """128 calls of 10 ms, 20 ms and so on; the last eight fail."""
    for number in range(1, 129):
        clock.advance(1)
        error = ERRORS[number - 121] if number > 120 else None
        collector.record_execution("research", number / 100, error is None, error)


def test_the_summary_of_an_agent(clock: VirtualClock, collector: MetricsCollector) -> None:
    """`get_summary` has eleven entries, in the text form of old, here kept in a file. (S0-12)"""
    record_research(collector, clock)
    summary = collector.get_or_create_metrics("research").get_summary()
    assert summary == golden("agent_summary.json")
    assert list(summary) == SUMMARY.split()


def test_all_summaries_by_name(clock: VirtualClock, collector: MetricsCollector) -> None:
    """`get_all_metrics` has the summary of each agent, by its name. (S0-16)"""
    record_research(collector, clock)
    collector.record_execution("other", 1.0, True)
    everything = collector.get_all_metrics()
    assert list(everything) == ["other", "research"]
    assert everything["research"] == golden("agent_summary.json")


def test_the_summary_of_the_system(clock: VirtualClock, collector: MetricsCollector) -> None:
    """`get_system_summary` has eight entries, in the text form of old, here kept in a file. (S0-17)"""
    collector.record_execution("idle", 0.5, True)
    clock.advance(3_600)
    record_research(collector, clock)
    for _ in range(30):
        collector.record_execution("quick", 0.002, True)
    summary = collector.get_system_summary()
    assert summary == golden("system_summary.json")
    assert list(summary) == SYSTEM_SUMMARY.split()


def test_the_summary_of_nothing(clock: VirtualClock, collector: MetricsCollector) -> None:
    """Without a task the system's rate is `0%`, an agent's figures None, never inf. (S0-08, S0-11)"""
    assert collector.get_system_summary() == {
        "uptime": "0s",
        "total_tasks": 0,
        "total_successes": 0,
        "total_failures": 0,
        "overall_success_rate": "0%",
        "throughput": "0.00 tasks/s",
        "active_agents": 0,
        "agent_rankings": [],
    }
    metrics = PerformanceMetrics("new", clock=clock)
    numbers = {"agent_name": "new", "task_count": 0, "top_errors": {}}
    assert metrics.get_summary() == dict.fromkeys(SUMMARY.split()) | numbers
    assert (metrics.min_execution_time, metrics.max_execution_time) == (None, None)
    assert (metrics.p50_execution_time, metrics.success_rate, metrics.failure_rate) == (None,) * 3
    assert (metrics.last_execution, metrics.execution_times) == (None, [])
    assert metrics.total_execution_time == 0


def test_the_throughput_is_that_of_now(clock: VirtualClock, collector: MetricsCollector) -> None:
    """An idle night does not count: throughput and activity are those of five minutes. (S0-17)"""
    for _ in range(100):
        collector.record_execution("a", 0.1, True)
    clock.advance(12 * 3_600)
    assert collector.get_system_summary()["throughput"] == "0.00 tasks/s"
    assert collector.get_system_summary()["active_agents"] == 0
    for _ in range(300):
        clock.advance(1)
        collector.record_execution("a", 0.1, True)
    assert collector.get_system_summary()["throughput"] == "1.00 tasks/s"
    assert collector.get_system_summary()["active_agents"] == 1


def test_an_agent_in_flight_is_active(clock: VirtualClock, collector: MetricsCollector) -> None:
    """An agent whose call has run for an hour is active. (S0-17)"""
    with track_performance("long", collector):
        clock.advance(3_600)
        assert collector.get_system_summary()["active_agents"] == 1
    clock.advance(3_600)
    assert collector.get_system_summary()["active_agents"] == 0


def test_the_fields_of_old(clock: VirtualClock) -> None:
    """The fourteen fields are readable, in seconds, as soon as there is a call. (S0-03, S0-10)"""
    metrics = PerformanceMetrics("a", clock=clock)
    for seconds in (0.1, 0.2, 0.3):
        clock.advance(1)
        metrics.update(seconds, True)
    metrics.update(0.4, False, "ValueError")
    assert (metrics.agent_name, metrics.task_count) == ("a", 4)
    assert (metrics.success_count, metrics.failure_count) == (3, 1)
    assert metrics.total_execution_time == pytest.approx(1.0)
    assert (metrics.min_execution_time, metrics.max_execution_time) == (0.1, 0.4)
    assert metrics.avg_execution_time == pytest.approx(0.25)
    assert metrics.p50_execution_time == pytest.approx(0.2, rel=0.01)
    assert (metrics.p95_execution_time, metrics.p99_execution_time) == (0.4, 0.4)
    assert metrics.execution_times == [0.1, 0.2, 0.3, 0.4]
    assert (metrics.error_types["ValueError"], metrics.error_types["other"]) == (1, 0)
    assert metrics.last_execution == datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC)
    assert (metrics.success_rate, metrics.failure_rate) == (0.75, 0.25)
    assert repr(metrics) == "PerformanceMetrics('a', task_count=4)"


def test_execution_times_are_bounded(clock: VirtualClock) -> None:
    """Of the times themselves only the latest are kept. (S0-04)"""
    metrics = PerformanceMetrics("a", clock=clock)
    for number in range(1_000):
        clock.advance(0.001)
        metrics.update(number, True)
    times = metrics.execution_times
    assert times == [float(number) for number in range(1_000 - len(times), 1_000)]
    assert 0 < len(times) <= 100


def test_the_fields_follow_the_calls(collector: MetricsCollector) -> None:
    """What a collector gives out follows its calls, and is the same for all who ask. (S0-14)"""
    metrics = collector.get_or_create_metrics("a")
    collector.get_or_create_metrics("a").update(1.0, True)
    collector.record_execution("a", 1.0, True)
    assert metrics.task_count == ever(collector).calls == 2


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, 1e300, "1", None])
def test_a_time_that_is_none_is_refused(wrong: float, collector: MetricsCollector) -> None:
    """A negative time, or what is no number, is refused and counted, and raises nothing. (S0-05)"""
    collector.record_execution("a", wrong, True)
    collector.record_execution("a", 1.0, True, queue_time=wrong)
    collector.record_execution("a", 1.0, True, ttft=wrong)
    collector.record_execution("a", 1.0, True, cost_usd=wrong)
    metrics = collector.get_or_create_metrics("a")
    metrics.update(wrong, True)
    assert collector.snapshot().refused == 5
    assert metrics.task_count == 0


def test_what_is_known_of_a_call(collector: MetricsCollector) -> None:
    """Queue time, first item, tokens, cost, labels and kind are recorded with a call. (S0-15, S0-26)"""
    collector.record_execution(
        "a",
        2.0,
        True,
        kind=Kind.MODEL,
        labels={"model": "small"},
        queue_time=0.5,
        ttft=0.25,
        tokens=Tokens(input=100, output=20, cached_input=60),
        cost_usd=0.01,
    )
    (series,) = collector.snapshot().series
    assert (series.kind, series.labels) == (Kind.MODEL, {"model": "small"})
    assert (series.ever.total.max, series.execute.max) == (2.5e9, 2e9)
    assert (series.queue.max, series.first_item.max) == (0.5e9, 0.25e9)
    usage = series.ever.usage
    assert (usage.input, usage.output, usage.cached_input, usage.cost_usd) == (100, 20, 60, 0.01)


def test_a_call_of_a_trace_is_a_span(clock: VirtualClock, collector: MetricsCollector) -> None:
    """A call whose trace is told is a span in it. (S0-15)"""
    clock.advance(10)
    collector.record_execution("a", 2.0, False, "TimeoutError", trace_id="run-7", queue_time=0.5)
    collector.record_execution("b", 2.0, True)
    (span,) = collector.trace.spans()
    assert (span.name, span.trace_id, span.category) == ("a", "run-7", Category.TIMEOUT)
    assert (span.end_ns, span.took_ns, span.execute_ns) == (clock.wall_ns(), 2.5e9, 2e9)


def test_a_cached_call(collector: MetricsCollector) -> None:
    """A cached result is a hit and no execution; its cost is what it saved. (S0-15, X-07)"""
    collector.record_execution("a", 0.001, True, cached=True, cost_usd=0.02)
    collector.record_execution("a", 0.001, True, source=Source.COLD)
    collector.record_execution("a", 1.0, True)
    figures = ever(collector)
    assert figures.by_source == {Source.HOT: 1, Source.COLD: 1, Source.EXECUTED: 1}
    assert (figures.hits, figures.hit.max, figures.fresh.min) == (2, 1e6, 1e9)
    assert (figures.usage.saved_usd, figures.usage.cost_usd) == (0.02, 0)


@pytest.mark.parametrize(
    ("error_type", "category"),
    [
        ("ValueError", Category.EXECUTION),
        (None, Category.EXECUTION),
        ("rate_limit", Category.RATE_LIMIT),
        ("RateLimitError", Category.RATE_LIMIT),
        ("asyncio.TimeoutError", Category.TIMEOUT),
        ("CancelledError", Category.CANCELLED),
        ("ConnectionResetError", Category.NETWORK),
        ("requests.ConnectTimeout", Category.TIMEOUT),
        ("FileNotFoundError", Category.NOT_FOUND),
    ],
)
def test_every_failure_has_a_category(
    error_type: str | None, category: Category, collector: MetricsCollector
) -> None:
    """The name of an error says its category; a failure without one has one, too. (S0-09, V-31)"""
    assert category_named(error_type or "") is category
    collector.record_execution("a", 1.0, False, error_type)
    assert ever(collector).by_category == {category: 1}


def test_a_cancelled_call_is_no_task(collector: MetricsCollector) -> None:
    """Cancelled calls are in no rate and no time; time-outs and rejections are failures. (S0-21)"""
    collector.record_execution("a", 1.0, True)
    collector.record_execution("a", 9.0, False, "CancelledError")
    collector.record_execution("a", 1.0, False, "TimeoutError")
    collector.record_execution("a", 1.0, False, "OverloadedError", attempt=0)
    metrics = collector.get_or_create_metrics("a")
    assert (metrics.task_count, metrics.success_count, metrics.failure_count) == (3, 1, 2)
    assert (metrics.max_execution_time, metrics.success_rate) == (1.0, 1 / 3)
    figures = ever(collector)
    assert (figures.errors, figures.timeouts, figures.rejected, figures.cancelled) == (0, 1, 1, 1)


def test_types_that_share_a_name_are_counted_together(collector: MetricsCollector) -> None:
    """A tracked ValueError goes by the name it has always had, and one without type by its
    category. (S0-09)"""

    @track_performance("a", collector)
    def fail() -> None:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    collector.record_execution("a", 1.0, False, "ValueError")
    collector.record_execution("a", 1.0, False)
    metrics = collector.get_or_create_metrics("a")
    assert dict(metrics.error_types) == {"ValueError": 2, "execution": 1}
