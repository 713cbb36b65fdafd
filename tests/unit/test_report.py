"""Statistics as text, byte for byte, and as data."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from paceline.call import Outcome, Source, Tokens
from paceline.errors import CallTimeoutError, Category, OverloadedError
from paceline.metrics import report as module
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Snapshot
from paceline.metrics.performance import track_performance
from paceline.metrics.report import blocks, data, report, verbose
from paceline.testing.history_suite import a_call
from paceline.testing.virtual_time import VirtualClock

MS = 1_000_000
GOLDEN = Path(__file__).parents[1] / "golden"


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
            category=Category.EXECUTION if failed else None,
            queue_ns=0,
            execute_ns=0 if hit else rest_ns,
            total_ns=hit_ns if hit else rest_ns,
        )


@pytest.mark.parametrize(
    ("calls", "hits", "errors", "avg_ms"), [(127, 89, 2, 12.3), (247, 156, 3, 8.7)]
)
def test_the_samples_byte_for_byte(calls: int, hits: int, errors: int, avg_ms: float) -> None:
    """Both samples of the statistics command are reproduced byte for byte. (S1-17)"""
    expected = (GOLDEN / f"agent_statistics_{calls}.txt").read_bytes()
    text = report(snapshot_of("host_exec", calls, hits, errors, avg_ms)) + "\n"
    assert text.encode() == expected


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


@pytest.mark.parametrize(
    ("agents", "said"),
    [
        (["nobody"], "No calls of nobody recorded yet."),
        (["nobody", "no one"], "No calls of nobody, no one recorded yet."),
        ([], "No calls recorded yet."),
    ],
)
def test_agents_without_calls_are_named(agents: list[str], said: str) -> None:
    """Where none of the agents asked for was called, the text names them. (S1-34)"""
    for text in (report, verbose):
        assert text(three_agents(), agents=agents).splitlines()[-1] == said


def test_other_outcomes_have_lines_when_there_are_any() -> None:
    """Time-outs, rejections and cancellations are lines of their own, and no errors. (S0-21)"""
    collector = MetricsCollector(clock=VirtualClock())
    for error, attempt in (("TimeoutError", 1), ("OverloadedError", 0), ("CancelledError", 1)):
        collector.record_execution("a", 0.01, False, error, attempt=attempt)
    collector.record_execution("a", 0.01, True)
    assert report(collector.snapshot()).splitlines()[3:] == [
        "  Calls: 4 (cached: 0)",
        "  Cache hit rate: 0.0%",
        "  Avg time: 10.0ms",
        "  Errors: 0 (0.0%)",
        "  Timeouts: 1 (33.3%)",
        "  Rejected: 1 (33.3%)",
        "  Cancelled: 1",
    ]


def test_verbose_adds_and_changes_nothing() -> None:
    """The verbose text has the plain one line for line, then each distribution for itself:
    cached, executed and failed calls are never in one. (S1-15, S0-70, X-07)"""
    collector = MetricsCollector(clock=VirtualClock())
    add_calls(collector, "host_exec", 127, 89, 2, 12.3)
    snapshot = collector.snapshot()
    text = verbose(snapshot)
    assert text.startswith(report(snapshot) + "\n")
    assert text.removeprefix(report(snapshot)).splitlines() == [
        "",
        "  Success: 98.4% (95% sure: 94.4% to 99.6%)",
        "  All: avg 12.3ms, min 0.040ms, p50 0.040ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  Cached: avg 0.040ms, min 0.040ms, p50 0.040ms, p95 0.040ms, p99 0.040ms, max 0.040ms",
        "  Executed: avg 41.0ms, min 41.0ms, p50 41.0ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  Failed: avg 41.0ms, min 41.0ms, p50 41.0ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  In agent: avg 41.0ms, min 41.0ms, p50 41.0ms, p95 41.0ms, p99 41.0ms, max 41.0ms",
        "  Last 1m: 127 calls, success 98.4%, hits 70.1%, p95 41.0ms",
        "  Last 5m: 127 calls, success 98.4%, hits 70.1%, p95 41.0ms",
        "  Last 1h: 127 calls, success 98.4%, hits 70.1%, p95 41.0ms",
        "  Last 24h: 127 calls, success 98.4%, hits 70.1%, p95 41.0ms",
        "  Sources: hot 89, executed 38",
        "  Trouble: execution 2",
        "    2x execution (first 2023-11-14 22:13:20Z, last 2023-11-14 22:13:20Z)",
    ]


def test_verbose_has_what_else_there_is() -> None:
    """What is in flight, queues, streams, windows, troubles, tokens and cost are shown when there
    are any. (S0-69, S0-71, S0-72, S0-26)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    for _ in range(2):
        collector.record_execution("a", 1.0, False, "ValueError")
        clock.advance(3_000)
    collector.record_execution(
        "a",
        0.5,
        True,
        queue_time=0.25,
        ttft=0.1,
        tokens=Tokens(input=1_200, output=400, cached_input=300),
        cost_usd=0.0125,
    )
    collector.record_execution("a", 0.001, True, cached=True, cost_usd=0.0125)
    with track_performance("a", collector):
        clock.advance(2)
        lines = verbose(collector.snapshot()).splitlines()
    assert lines[7:9] == [
        "  Success: 50.0% (95% sure: 15.0% to 85.0%)",
        "  In flight: 1, the longest for 2,000.0ms",
    ]
    assert lines[14:] == [
        "  Queued: avg 83.3ms, min 0.000ms, p50 0.000ms, p95 250.0ms, p99 250.0ms, max 250.0ms",
        "  First item: avg 100.0ms, min 100.0ms, p50 100.0ms, p95 100.0ms, p99 100.0ms, max 100.0ms",
        "  Last 1m: 2 calls, 1.94/min, success 100.0%, hits 50.0%, p95 750.0ms",
        "  Last 5m: 2 calls, 0.40/min, success 100.0%, hits 50.0%, p95 750.0ms",
        "  Last 1h: 3 calls, 0.05/min, success 66.7%, hits 33.3%, p95 1,000.0ms",
        "  Last 24h: 4 calls, 0.04/min, success 50.0%, hits 25.0%, p95 1,000.0ms",
        "  Sources: executed 3, hot 1",
        "  Trouble: execution 2",
        "    2x execution ValueError (first 2023-11-14 22:13:20Z, last 2023-11-14 23:03:20Z)",
        "  Tokens: in 1,200 (cached 300), out 400",
        "  Cost: $0.0125 ($0.0063 a success), saved $0.0125",
    ]


def test_verbose_tells_of_fallbacks() -> None:
    """How many calls a fallback answered is shown, and in place of which errors; the short form
    does not change. (S0-81)"""
    collector = MetricsCollector(clock=VirtualClock())
    call = a_call("1", "far")
    for error in (CallTimeoutError("late"), CallTimeoutError("late"), OverloadedError("full")):
        collector.observe(call, Outcome("1", "far", Source.STALE, "old", instead_of=error))
    snapshot = collector.snapshot()
    assert "  Answered by a fallback: 3 (timeout 2, exhausted 1)\n" in verbose(snapshot)
    assert "    2x timeout paceline.errors.CallTimeoutError: late" in verbose(snapshot)
    assert "fallback" not in report(snapshot)
    totals = cast("dict[str, Any]", data(snapshot)["totals"])
    assert totals["fallbacks"] == {"timeout": 2, "exhausted": 1}
    assert totals["categories"] == {}


def test_at_most_five_troubles_are_shown() -> None:
    """Of many kinds of error the five most frequent are shown. (S0-09)"""
    collector = MetricsCollector(clock=VirtualClock())
    for number in range(1, 8):
        for _ in range(number):
            collector.record_execution("a", 1.0, False, f"Error{'ABCDEFG'[number - 1]}")
    shown = [line for line in verbose(collector.snapshot()).splitlines() if "x execution" in line]
    assert [line.split()[2] for line in shown] == ["ErrorG", "ErrorF", "ErrorE", "ErrorD", "ErrorC"]


def three_agents() -> Snapshot:
    collector = MetricsCollector(clock=VirtualClock())
    for name, calls, failures, seconds, cost in (
        ("a", 3, 0, 1.0, 0.1),
        ("b", 9, 1, 0.1, 0.01),
        ("c", 3, 2, 0.2, 0.2),
    ):
        for number in range(calls):
            collector.record_execution(name, seconds, number >= failures, cost_usd=cost)
    collector.record_execution("c", 0.001, True, cached=True)
    return collector.snapshot()


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", "abc"),
        ("calls", "bca"),
        ("slowest", "acb"),
        ("errors", "cba"),
        ("hit rate", "cab"),
        ("cost", "cab"),
    ],
)
def test_the_order_can_be_chosen(sort: module.Sort, order: str) -> None:
    """The most used, slowest, most failing, best cached or dearest agent can come first; equals
    come by name. (S1-34)"""
    texts = blocks(three_agents(), sort=sort)[1:]
    assert [text.splitlines()[0] for text in texts] == [f"**{name}**" for name in order]


def test_some_agents_only() -> None:
    """The text can be of some agents only, or of the first ones. (S1-34)"""
    snapshot = three_agents()
    whole = report(snapshot).split("\n\n")
    assert report(snapshot, agents={"b", "unknown"}).split("\n\n") == [whole[0], whole[2]]
    assert report(snapshot, limit=2).split("\n\n") == whole[:3]
    assert report(snapshot, sort="calls", limit=1).split("\n\n") == [whole[0], whole[2]]
    assert verbose(snapshot, limit=1) == "\n\n".join(blocks(snapshot, limit=1, in_full=True))


def test_data_is_numbers() -> None:
    """The data has numbers, rates from 0 to 1 and milliseconds, and is plain JSON. (S0-12, X-06)"""
    snapshot = snapshot_of("host_exec", 127, 89, 2, 12.3)
    plain = json.loads(json.dumps(data(snapshot)))
    agent = plain["agents"]["host_exec"]
    assert agent == plain["totals"]
    assert (agent["calls"], agent["hits"], agent["errors"], agent["cancelled"]) == (127, 89, 2, 0)
    assert agent["cache_hit_rate"] == 89 / 127
    assert agent["error_rate"] == 2 / 127
    assert agent["success_interval"] == pytest.approx([0.944, 0.996], abs=0.001)
    assert agent["sources"] == {"hot": 89, "executed": 38}
    assert agent["categories"] == {"execution": 2}
    assert round(agent["total_ms"]["avg"], 3) == 12.3
    assert agent["hit_ms"]["p99"] == 0.04
    assert set(agent["fresh_ms"]) == {"avg", "min", "p50", "p95", "p99", "max"}
    assert plain["version"] == 2


def test_data_has_all_that_is_known() -> None:
    """Windows, what is in flight, troubles and usage are in the data. (S0-11, S0-72, S0-26)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    collector.record_execution("a", 1.0, False, "ValueError")
    clock.advance(600)
    collector.record_execution("a", 1.0, True, tokens=Tokens(input=10, output=5), cost_usd=0.5)
    with track_performance("a", collector):
        clock.advance(1)
        plain = json.loads(json.dumps(data(collector.snapshot())))
    agent = plain["agents"]["a"]
    assert (agent["in_flight"], agent["longest_in_flight_ms"]) == (1, 1_000)
    assert {name: figures["calls"] for name, figures in agent["windows"].items()} == {
        "1m": 1,
        "5m": 1,
        "1h": 2,
        "24h": 2,
    }
    assert agent["windows"]["1m"]["success_rate"] == 1
    (trouble,) = agent["troubles"]
    assert (trouble["type"], trouble["count"], trouble["first_s"]) == ("ValueError", 1, 1.7e9)
    assert (agent["usage"]["input"], agent["usage"]["cost_per_success_usd"]) == (10, 0.5)
    assert agent["last_s"] == 1.7e9 + 600
    assert (plain["uptime_s"], plain["at_s"]) == (601, 1.7e9 + 601)


def test_the_tests_notice_a_mixed_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were hits among the executed, the test of the verbose text would fail. (X-07)"""
    mixed = module._distributions
    monkeypatch.setattr(
        module, "_distributions", lambda series: {**mixed(series), "Executed": series.ever.total}
    )
    with pytest.raises(AssertionError):
        test_verbose_adds_and_changes_nothing()
