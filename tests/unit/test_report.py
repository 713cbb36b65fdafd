"""Statistics as text, byte for byte, and as data."""

import json

from paceline.call import Source
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector, Snapshot
from paceline.metrics.report import data, report, verbose
from paceline.testing.virtual_time import VirtualClock

MS = 1_000_000


def snapshot_of(name: str, calls: int, hits: int, errors: int, avg_ms: float) -> Snapshot:
    collector = MetricsCollector(clock=VirtualClock())
    add_calls(collector, name, calls, hits, errors, avg_ms)
    return collector.snapshot()


def add_calls(  # noqa: PLR0917 (a table's columns)
    collector: MetricsCollector, name: str, calls: int, hits: int, errors: int, avg_ms: float
) -> None:
    """Calls of these figures; the errors and fresh values take what the average leaves."""
    hit_ns = 40_000
    rest_ns = round((calls * avg_ms * MS - hits * hit_ns) / (calls - hits)) if calls > hits else 0
    for number in range(calls):
        hit = number < hits
        failed = calls - number <= errors
        collector.add(
            name,
            source=Source.HOT if hit else Source.EXECUTED,
            category=Category.TIMEOUT if failed else None,
            queue_ns=0,
            execute_ns=0 if hit else rest_ns,
            total_ns=hit_ns if hit else rest_ns,
        )


def test_first_sample_byte_for_byte() -> None:
    """The first sample of the statistics command is reproduced byte for byte. (S1-17)"""
    assert report(snapshot_of("host_exec", 127, 89, 2, 12.3)) == (
        "**Agent Performance Statistics**\n"
        "\n"
        "**host_exec**\n"
        "  Calls: 127 (cached: 89)\n"
        "  Cache hit rate: 70.1%\n"
        "  Avg time: 12.3ms\n"
        "  Errors: 2 (1.6%)"
    )


def test_second_sample_byte_for_byte() -> None:
    """The second sample of the statistics command is reproduced byte for byte. (S1-17)"""
    assert report(snapshot_of("host_exec", 247, 156, 3, 8.7)) == (
        "**Agent Performance Statistics**\n"
        "\n"
        "**host_exec**\n"
        "  Calls: 247 (cached: 156)\n"
        "  Cache hit rate: 63.2%\n"
        "  Avg time: 8.7ms\n"
        "  Errors: 3 (1.2%)"
    )


def test_thousands_are_separated_and_agents_sorted() -> None:
    """Large numbers have separators; agents come by name, a blank line between. (S1-17)"""
    collector = MetricsCollector(clock=VirtualClock())
    add_calls(collector, "weather", 1, 0, 0, 1_234.56)
    add_calls(collector, "host_exec", 12_345, 2_345, 1_000, 2)
    assert report(collector.snapshot()).split("\n\n") == [
        "**Agent Performance Statistics**",
        (
            "**host_exec**\n  Calls: 12,345 (cached: 2,345)\n  Cache hit rate: 19.0%\n"
            "  Avg time: 2.0ms\n  Errors: 1,000 (8.1%)"
        ),
        (
            "**weather**\n  Calls: 1 (cached: 0)\n  Cache hit rate: 0.0%\n"
            "  Avg time: 1234.6ms\n  Errors: 0 (0.0%)"
        ),
    ]


def test_nothing_recorded_is_said() -> None:
    """Without calls the text says so."""
    empty = MetricsCollector(clock=VirtualClock()).snapshot()
    assert report(empty) == "**Agent Performance Statistics**\n\nNo calls recorded yet."
    assert verbose(empty) == report(empty)
    assert data(empty)["agents"] == {}


def test_verbose_adds_and_changes_nothing() -> None:
    """The verbose text has the plain one line for line, then percentiles and sources. (S1-15, S0-70)"""
    collector = MetricsCollector(clock=VirtualClock())
    add_calls(collector, "host_exec", 127, 89, 2, 12.3)
    collector.add(
        "host_exec",
        source=Source.EXECUTED,
        category=Category.CANCELLED,
        queue_ns=0,
        execute_ns=1,
        total_ns=1,
    )
    snapshot = collector.snapshot()
    text = verbose(snapshot)
    assert text.startswith(report(snapshot) + "\n")
    assert text.removeprefix(report(snapshot)).splitlines() == [
        "",
        "  Cancelled: 1",
        "  All: avg 12.3ms, min 0.040ms, p50 0.040ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  Cached: avg 0.040ms, min 0.040ms, p50 0.040ms, p95 0.040ms, p99 0.040ms, max 0.040ms",
        "  Executed: avg 41.0ms, min 41.0ms, p50 41.0ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  Failed: avg 41.0ms, min 41.0ms, p50 41.0ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  In agent: avg 41.0ms, min 41.0ms, p50 41.0ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  Sources: hot 89, executed 39",
        "  Trouble: timeout 2, cancelled 1",
    ]


def test_data_is_numbers() -> None:
    """The data has numbers, rates from 0 to 1 and milliseconds, and is plain JSON. (S0-12, X-06)"""
    snapshot = snapshot_of("host_exec", 127, 89, 2, 12.3)
    plain = json.loads(json.dumps(data(snapshot)))
    agent = plain["agents"]["host_exec"]
    assert agent == plain["totals"]
    assert (agent["calls"], agent["hits"], agent["errors"], agent["cancelled"]) == (127, 89, 2, 0)
    assert agent["cache_hit_rate"] == 89 / 127
    assert agent["error_rate"] == 2 / 127
    assert agent["sources"] == {"hot": 89, "executed": 38}
    assert agent["categories"] == {"timeout": 2}
    assert round(agent["total_ms"]["avg"], 3) == 12.3
    assert agent["hit_ms"]["p99"] == 0.04
    assert set(agent["fresh_ms"]) == {"avg", "min", "p50", "p95", "p99", "max"}
    assert plain["version"] == 1
