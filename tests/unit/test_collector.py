"""The collector: every call counted once, kept apart by how it ended, whichever thread it came from."""

import sys
import threading

import pytest

from paceline.call import Call, Outcome, Source
from paceline.errors import (
    AgentError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    PacelineError,
)
from paceline.metrics.collector import OTHER, AgentStats, MetricsCollector
from paceline.testing.history_suite import a_call
from paceline.testing.virtual_time import VirtualClock

MS = 1_000_000


def observe(
    collector: MetricsCollector,
    name: str = "echo",
    *,
    source: Source = Source.EXECUTED,
    error: PacelineError | None = None,
    ms: int = 5,
) -> None:
    executed = ms * MS if source is Source.EXECUTED else 0
    outcome = Outcome("1", name, source, None, error, "", 1, MS, executed, (ms + 1) * MS)
    collector.observe(a_call("1", name), outcome)


def stats_of(collector: MetricsCollector, name: str = "echo") -> AgentStats:
    return collector.snapshot().agents[name]


def test_each_call_is_counted_once_by_how_it_ended() -> None:
    """Hits, fresh values, errors and cancelled calls add up to all calls. (S0-15, S1-15)"""
    collector = MetricsCollector(clock=VirtualClock())
    for source in Source:
        observe(collector, source=source)
    observe(collector, error=AgentError("x"))
    observe(collector, error=CallTimeoutError("x"))
    observe(collector, source=Source.JOINED, error=AgentError("x"))
    observe(collector, error=CallCancelledError("x"))
    stats = stats_of(collector)
    assert stats.calls == len(Source) + 4
    assert (stats.hits, stats.fresh.count, stats.errors, stats.cancelled) == (7, 1, 3, 1)
    assert stats.by_source == dict.fromkeys(Source, 1) | {Source.EXECUTED: 4, Source.JOINED: 2}
    assert stats.by_category == {
        Category.EXECUTION: 2,
        Category.TIMEOUT: 1,
        Category.CANCELLED: 1,
    }


def test_a_cancelled_call_is_no_failure() -> None:
    """Cancelled calls are in no rate and no distribution. (S0-21)"""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector)
    observe(collector, error=AgentError("x"))
    for _ in range(8):
        observe(collector, error=CallCancelledError("x"), ms=1_000)
    stats = stats_of(collector)
    assert stats.error_rate == 0.5
    assert stats.cache_hit_rate == 0
    assert stats.total.max == 6 * MS


def test_no_data_is_none() -> None:
    """Rates and times of what never happened are None, not zero. (S0-08, S0-11)"""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector, error=CallCancelledError("x"))
    stats = stats_of(collector)
    assert (stats.error_rate, stats.cache_hit_rate) == (None, None)
    assert (stats.avg_ms, stats.total.min, stats.total.max) == (None,) * 3


def test_hits_do_not_hide_slow_executions() -> None:
    """Times of hits, of fresh values and of errors are kept apart. (S0-05, S1-15)"""
    collector = MetricsCollector(clock=VirtualClock())
    for _ in range(99):
        observe(collector, source=Source.HOT, ms=0)
    observe(collector, ms=500)
    observe(collector, error=AgentError("x"), ms=20)
    stats = stats_of(collector)
    assert stats.hit.max == MS
    assert (stats.fresh.count, stats.fresh.mean) == (1, 501 * MS)
    assert (stats.failed.count, stats.failed.mean) == (1, 21 * MS)
    assert (stats.execute.count, stats.execute.sum) == (2, 520 * MS)
    assert stats.total.count == 101
    assert stats.queue_ns == 101 * MS
    assert stats.total.quantile(1) == stats.total.max == 501 * MS
    assert stats.total.quantile(0.5) == stats.total.min == MS


def test_an_error_before_any_execution_is_no_execution() -> None:
    """A call refused before it ran is an error, and not an execution of no time."""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector, error=AgentError("refused"), ms=0)
    observe(collector, ms=0)
    assert stats_of(collector).execute.count == 1


def test_replayed_calls_count_like_live_ones() -> None:
    """`add` gives the figures that `observe` gave for the same call."""
    live, replayed = (MetricsCollector(clock=VirtualClock()) for _ in range(2))
    for source in Source:
        for error in (None, AgentError("x"), CallCancelledError("x")):
            observe(live, source=source, error=error, ms=3)
            replayed.add(
                "echo",
                source=source,
                category=None if error is None else error.category,
                queue_ns=MS,
                execute_ns=3 * MS if source is Source.EXECUTED else 0,
                total_ns=4 * MS,
            )
    assert live.snapshot() == replayed.snapshot()


def test_totals_are_of_all_agents() -> None:
    """The totals of a snapshot are the figures of all calls, whatever their agent. (S0-17)"""
    several, one = (MetricsCollector(clock=VirtualClock()) for _ in range(2))
    for number in range(30):
        error = AgentError("x") if number % 7 == 0 else None
        source = Source.HOT if number % 2 else Source.EXECUTED
        observe(several, f"agent-{number % 4}", source=source, error=error, ms=number)
        observe(one, "", source=source, error=error, ms=number)
    assert several.snapshot().totals == stats_of(one, "")
    assert list(several.snapshot().agents) == ["agent-0", "agent-1", "agent-2", "agent-3"]


def test_a_snapshot_stays_as_it_is() -> None:
    """Later calls do not change a snapshot, and `reset` forgets. (S0-13, S0-16)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    observe(collector)
    clock.advance(2)
    before = collector.snapshot()
    observe(collector)
    assert before.agents["echo"].calls == 1
    assert before.uptime_ns == 2_000_000_000
    assert stats_of(collector).calls == 2
    collector.reset()
    assert collector.snapshot().agents == {}
    assert collector.snapshot().uptime_ns == 0


def test_names_are_bounded() -> None:
    """Beyond the limit of names, calls are counted together. (S0-13)"""
    collector = MetricsCollector(clock=VirtualClock(), max_agents=3)
    for number in range(10):
        observe(collector, f"agent-{number}")
    agents = collector.snapshot().agents
    assert sorted(agents) == [OTHER, "agent-0", "agent-1", "agent-2"]
    assert agents[OTHER].calls == 7


def test_waiting_calls_are_bounded() -> None:
    """The queue is folded when it is long, so it holds no value and does not grow."""
    collector = MetricsCollector(clock=VirtualClock())
    for _ in range(10_000):
        observe(collector)
    assert len(collector._pending) < 2_000


def count_from_threads(collector: MetricsCollector, threads: int = 4, each: int = 3_000) -> int:
    """Records from several threads while another takes snapshots; returns what was counted."""
    done = threading.Event()

    def work(number: int) -> None:
        for _ in range(each):
            observe(collector, f"agent-{number % 2}")

    def look() -> None:
        while not done.is_set():
            collector.snapshot()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    looker = threading.Thread(target=look)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        looker.start()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        done.set()
        looker.join()
    finally:
        sys.setswitchinterval(interval)
    return collector.snapshot().totals.calls


def test_no_call_is_lost_between_threads() -> None:
    """Calls from several threads, with snapshots taken meanwhile, are all counted. (S0-14, S0-16)"""
    assert count_from_threads(MetricsCollector(clock=VirtualClock())) == 12_000


def test_a_call_does_not_wait_for_a_snapshot() -> None:
    """While another thread folds, recording goes on, and what it records is not lost."""
    collector = MetricsCollector(clock=VirtualClock())
    with collector._folding:
        for _ in range(5_000):
            observe(collector)
    assert stats_of(collector).calls == 5_000


@pytest.mark.parametrize("wrong", ["mixed", "cancelled as error"])
def test_seeded_faults_show(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that mixes the distributions, or counts cancelling as failing, is found."""
    from paceline.metrics import collector as module

    if wrong == "mixed":
        monkeypatch.setattr(module, "_EXECUTED", None)
        check = test_hits_do_not_hide_slow_executions
    else:
        monkeypatch.setattr(module, "_CANCELLED", None)
        check = test_a_cancelled_call_is_no_failure
    with pytest.raises(AssertionError):
        check()


def test_the_call_is_the_observers_first_argument() -> None:
    """`observe` has the form of an observer of the call path."""
    from paceline.call import Caller, Kind, Plan, Scope, ScopeLevel

    collector = MetricsCollector()
    call = Call("1", Kind.AGENT, "a", {}, Caller(), Scope(ScopeLevel.GLOBAL), Plan())
    collector.observe(call, Outcome("1", "a", Source.HOT))
    assert stats_of(collector, "a").hits == 1
