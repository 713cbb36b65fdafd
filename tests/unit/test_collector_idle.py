"""Series that nobody uses any more, and what recording does not do."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import OTHER
from paceline.metrics.performance import track_performance
from paceline.metrics.sketch import Sketch
from paceline.testing.virtual_time import VirtualClock

_DAY_S = 86_400


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def _names(collector: MetricsCollector) -> set[str]:
    return set(collector.snapshot().agents)


def test_series_idle_for_a_day_make_room(clock: VirtualClock) -> None:
    """Where there is no room for a new name, series give up theirs of which nothing was heard for a
    day; those in use stay. (S0-13)"""
    collector = MetricsCollector(clock=clock, max_series=3)
    for name in ("old", "older", "busy"):
        collector.record_execution(name, 0.1, success=True)
    clock.advance(_DAY_S + 1)
    collector.record_execution("busy", 0.1, success=True)

    collector.record_execution("new", 0.1, success=True)

    assert _names(collector) == {"busy", "new"}


def test_series_with_calls_in_flight_are_in_use(clock: VirtualClock) -> None:
    """A call that runs for more than a day keeps its series. (S0-13)"""
    collector = MetricsCollector(clock=clock, max_series=1)
    with track_performance("long", collector):
        clock.advance(_DAY_S + 1)
        collector.record_execution("new", 0.1, success=True)
    assert _names(collector) == {"long", OTHER}


def test_a_series_that_was_forgotten_begins_anew(clock: VirtualClock) -> None:
    """A tracked function whose series gave up its room is seen again with its next call. (S0-13)"""
    collector = MetricsCollector(clock=clock, max_series=1)

    @track_performance("first", collector)
    def first() -> None:
        """Nothing."""

    first()
    clock.advance(_DAY_S + 1)
    collector.record_execution("second", 0.1, success=True)
    clock.advance(_DAY_S + 1)
    first()
    assert _names(collector) == {"first"}
    assert collector.snapshot().agents["first"].ever.calls == 1


def test_idle_series_are_looked_for_once_a_minute(clock: VirtualClock) -> None:
    """Names that are made up faster than that do not cost a look at every series each. (S0-13)"""
    collector = MetricsCollector(clock=clock, max_series=10)
    looks = 0

    def count(*_: object) -> bool:
        nonlocal looks
        looks += 1
        return False

    with patch("paceline.metrics.live.LiveSeries.is_idle", count):
        for number in range(1_000):
            collector.record_execution(f"made up {number}", 0.1, success=True)
    assert looks <= 11


@pytest.fixture
def unread() -> Iterator[None]:
    """Nobody may ask for a quantile."""
    refusal = AssertionError("a quantile was taken")
    with patch.object(Sketch, "quantile", side_effect=refusal):
        yield


@pytest.mark.usefixtures("unread")
def test_recording_takes_no_quantile(clock: VirtualClock) -> None:
    """Quantiles are computed when they are read, never while calls are recorded or figures taken.
    (S0-06)"""
    collector = MetricsCollector(clock=clock)
    for _ in range(2_000):
        collector.record_execution("a", 0.1, success=True)
    assert collector.snapshot().agents["a"].ever.calls == 2_000


class _Wall:
    """A wall clock that is set back while calls run."""

    def __init__(self) -> None:
        self.advance = (moving := VirtualClock()).advance
        self.monotonic_ns = moving.monotonic_ns

    def wall_ns(self) -> int:
        return VirtualClock.EPOCH_NS - 10 * self.monotonic_ns()


def test_durations_do_not_follow_the_wall_clock() -> None:
    """A wall clock that is set back makes no duration negative or wrong. (S0-20)"""
    clock = _Wall()
    collector = MetricsCollector(clock=clock)
    with track_performance("a", collector):
        clock.advance(2)
    assert collector.snapshot().agents["a"].ever.fresh.max == 2_000_000_000


def test_ten_tracked_calls_of_two_seconds(clock: VirtualClock) -> None:
    """The example of old: ten tracked calls of two seconds each, one after the other, and what the
    summaries say of them; without waiting for any of them. (S0-24)"""
    collector = MetricsCollector(clock=clock)

    @track_performance("worker", collector)
    def work() -> None:
        clock.advance(2)

    for _ in range(10):
        work()
    summary = collector.get_all_metrics()["worker"]
    assert summary["task_count"] == 10
    assert summary["success_rate"] == "100.0%"
    assert summary["avg_execution_time"] == "2.00s"
    system = collector.get_system_summary()
    assert (system["uptime"], system["total_tasks"]) == ("20s", 10)
    assert system["throughput"] == "0.50 tasks/s"
