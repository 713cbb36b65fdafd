"""The collector: every call counted once, kept apart by how it ended, whichever thread it came from."""

import math
from typing import Any

import msgspec
import pytest

from paceline.call import Call, Caller, Kind, Outcome, Plan, Scope, ScopeLevel, Source, Tokens
from paceline.errors import (
    AgentError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    OverloadedError,
    UsageError,
)
from paceline.metrics import cell as cells
from paceline.metrics import live
from paceline.metrics.cell import FULL, Cell
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import OTHER, Ending, Usage
from paceline.metrics.sketch import RELATIVE_ERROR
from paceline.testing.history_suite import a_call
from paceline.testing.virtual_time import VirtualClock
from tests.observed import MS, ever_of, observe, series_of

S = 1_000_000_000


def test_each_call_is_counted_once_by_how_it_ended() -> None:
    """Every call is in one ending, and in one source. (S0-15, S0-21, S0-71, S1-15)"""
    collector = MetricsCollector(clock=VirtualClock())
    for source in Source:
        observe(collector, source=source)
    observe(collector, error=AgentError("x"))
    observe(collector, error=CallTimeoutError("x"))
    observe(collector, source=Source.JOINED, error=AgentError("x"))
    observe(collector, error=CallCancelledError("x"))
    observe(collector, error=OverloadedError("x"), ms=0, attempts=0)
    ever = ever_of(collector)
    assert ever.calls == len(Source) + 5
    assert ever.by_ending == {
        Ending.SUCCESS: 8,
        Ending.ERROR: 2,
        Ending.TIMEOUT: 1,
        Ending.CANCELLED: 1,
        Ending.REJECTED: 1,
    }
    assert (ever.hits, ever.fresh.count, ever.failed.count) == (7, 1, 4)
    assert ever.by_source == dict.fromkeys(Source, 1) | {Source.EXECUTED: 5, Source.JOINED: 2}
    assert ever.by_category == {
        Category.EXECUTION: 2,
        Category.TIMEOUT: 1,
        Category.CANCELLED: 1,
        Category.EXHAUSTED: 1,
    }


def test_who_shares_a_failed_execution_was_not_rejected() -> None:
    """An error of an execution that another call made is an error, not a rejection. (S0-21)"""
    collector = MetricsCollector(clock=VirtualClock())
    limited = AgentError("x", category=Category.RATE_LIMIT)
    observe(collector, source=Source.JOINED, error=limited, attempts=0)
    observe(collector, error=limited, attempts=0)
    assert ever_of(collector).by_ending == {Ending.ERROR: 1, Ending.REJECTED: 1}


def test_a_fallback_answers_and_hides_no_error() -> None:
    """A call that a fallback answered is a success, is counted as such a one, and the error in
    place of which it answered is among the errors. (S0-81, S0-09)"""
    collector = MetricsCollector(clock=VirtualClock())
    down = AgentError("no answer from 10.0.0.1", category=Category.NETWORK)
    for error in (down, down, OverloadedError("full")):
        call = a_call("x")
        outcome = Outcome(
            call.id, call.name, Source.EXECUTED, "sorry", total_ns=MS, instead_of=error
        )
        collector.observe(call, outcome)
    observe(collector)
    series = series_of(collector)
    assert series.ever.by_ending == {Ending.SUCCESS: 4}
    assert (series.ever.success_rate, series.ever.fallbacks) == (1.0, 3)
    assert series.ever.by_instead == {Category.NETWORK: 2, Category.EXHAUSTED: 1}
    assert series.ever.by_category == {}
    assert [(one.category, one.message, one.count) for one in series.troubles] == [
        (Category.NETWORK, "no answer from *", 2),
        (Category.EXHAUSTED, "full", 1),
    ]
    assert series.execute.count == 1  # what was never executed took no time
    assert collector.snapshot().totals.ever.fallbacks == 3


def test_a_cancelled_call_is_no_failure() -> None:
    """Cancelled calls are in no rate, no distribution and no list of errors. (S0-21)"""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector)
    observe(collector, error=AgentError("x"))
    for _ in range(8):
        observe(collector, error=CallCancelledError("x"), ms=1_000)
    series = series_of(collector)
    assert series.ever.error_rate == series.ever.success_rate == 0.5
    assert series.ever.cache_hit_rate == 0
    assert series.ever.total.max == series.execute.max + MS == 6 * MS  # type: ignore[operator]
    assert series.queue.count == 2
    assert [trouble.count for trouble in series.troubles] == [1]


def test_no_data_is_none() -> None:
    """Rates and times of what never happened are None, not zero. (S0-08, S0-11)"""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector, error=CallCancelledError("x"))
    series = series_of(collector)
    for figures in (series.ever, *series.windows.values()):
        assert (figures.error_rate, figures.cache_hit_rate, figures.avg_ms) == (None,) * 3
        assert (figures.total.min, figures.total.max, figures.success_interval) == (None,) * 3


def test_hits_do_not_hide_slow_executions() -> None:
    """Times of hits, of fresh values and of errors are kept apart. (S0-05, S1-15, X-07)"""
    collector = MetricsCollector(clock=VirtualClock())
    for _ in range(99):
        observe(collector, source=Source.HOT, ms=0)
    observe(collector, ms=500)
    observe(collector, error=AgentError("x"), ms=20)
    series = series_of(collector)
    for figures in (series.ever, *series.windows.values()):
        assert figures.hit.max == MS
        assert (figures.fresh.count, figures.fresh.mean) == (1, 501 * MS)
        assert (figures.failed.count, figures.failed.mean) == (1, 21 * MS)
        assert figures.total.count == 101
        assert figures.queue_ns == 101 * MS
        assert figures.total.quantile(1) == figures.total.max == 501 * MS
        assert figures.total.min == MS
        assert figures.total.quantile(0.5) == pytest.approx(MS, rel=RELATIVE_ERROR)
    assert (series.execute.count, series.execute.sum) == (2, 520 * MS)
    assert series.queue.count == 2


def test_an_error_before_any_execution_is_no_execution() -> None:
    """A call refused before it ran is an error, and not an execution of no time."""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector, error=AgentError("refused"), ms=0)
    observe(collector, ms=0)
    assert series_of(collector).execute.count == 1


def test_time_in_the_agent_is_kept_from_when_it_differs() -> None:
    """The time in the agent is that of all calls, also if it first was all the time there was."""
    clock = VirtualClock()
    cell = Cell(Source.EXECUTED, None, Ending.SUCCESS, clock)
    for _ in range(FULL):
        cell.note(0, 9, 9, 0, 0)
    for _ in range(FULL):
        cell.note(0, 9, 4, 5, 0)
    execute = cell.read(0).execute
    assert (execute.count, execute.sum, execute.min) == (2 * FULL, 13 * FULL, 4)


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
                error=error,
            )
    assert live.snapshot() == replayed.snapshot()


def test_replayed_calls_are_in_the_windows_they_ended_in() -> None:
    """Calls that are replayed in any order belong to when they ended, also if that was before the
    collector was made. (S0-11, S0-17)"""
    clock = VirtualClock()
    clock.advance(10 * 86_400)
    collector = MetricsCollector(clock=clock)
    for ago_s in (86_500 * 2, 3, 4_000, 100, 7):
        collector.add(
            "echo",
            source=Source.EXECUTED,
            category=None,
            queue_ns=0,
            execute_ns=MS,
            total_ns=MS,
            ended_ns=clock.monotonic_ns() - ago_s * S,
        )
    series = series_of(collector)
    counts = [series.windows[name].calls for name in ("1m", "5m", "1h", "24h")]
    assert [*counts, series.ever.calls] == [2, 3, 3, 4, 5]
    assert series.last_ns == clock.wall_ns() - 3 * S
    assert series.ever.span_ns == 2 * 86_500 * S


@pytest.mark.parametrize("never", ["never", math.nan, math.inf, 1.5])
def test_replayed_calls_come_in_any_order(never: Any) -> None:
    """The first and the last of calls that come out of order are found within one slot, too, and
    a moment that is none costs no other call. (S0-23)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    for end in (5, 9, 7, never, 1, 3):
        moment: Any = 10 * S + end if isinstance(end, int) else end
        collector.add(
            "echo",
            source=Source.EXECUTED,
            category=None,
            queue_ns=0,
            execute_ns=1,
            total_ns=1,
            ended_ns=moment,
        )
    snapshot = collector.snapshot()
    assert snapshot.refused == 1
    assert snapshot.agents["echo"].ever.calls == 5
    assert snapshot.agents["echo"].last_ns == clock.wall_ns() + 10 * S + 9
    reading = collector.series("echo").cell(Source.EXECUTED, None, Ending.SUCCESS).read(0)
    assert (reading.first_ns, reading.last_ns) == (10 * S + 1, 10 * S + 9)


def test_rates_are_over_the_time_that_was_watched() -> None:
    """A window that began before the collector did is as long as the collector is old. (S0-17)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    clock.advance(20)
    for _ in range(40):
        observe(collector)
    windows = series_of(collector).windows
    assert [windows[name].rate_per_s for name in ("1m", "24h")] == [2, 2]
    clock.advance(3_600)
    series = series_of(collector)
    assert series.windows["1m"].rate_per_s == 0
    assert series.windows["24h"].calls == 40


def test_totals_are_of_all_agents() -> None:
    """The totals of a snapshot are the figures of all calls, whatever their agent. (S0-17)"""
    several, one = (MetricsCollector(clock=VirtualClock()) for _ in range(2))
    for number in range(30):
        error = AgentError("x") if number % 7 == 0 else None
        source = Source.HOT if number % 2 else Source.EXECUTED
        observe(several, f"agent-{number % 4}", source=source, error=error, ms=number)
        observe(one, "", source=source, error=error, ms=number)
    # Times of single calls are those of one agent.
    assert several.snapshot().totals == msgspec.structs.replace(series_of(one, ""), latest_ns=())
    assert list(several.snapshot().agents) == ["agent-0", "agent-1", "agent-2", "agent-3"]


def test_a_snapshot_stays_as_it_is() -> None:
    """Later calls do not change a snapshot, and `reset` forgets. (S0-13, S0-16)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    observe(collector)
    clock.advance(2)
    before = collector.snapshot()
    observe(collector)
    assert before.agents["echo"].ever.calls == before.agents["echo"].execute.count == 1
    assert before.uptime_ns == 2_000_000_000
    assert ever_of(collector).calls == 2
    collector.reset()
    assert collector.snapshot().agents == {}
    assert collector.snapshot().uptime_ns == 0
    observe(collector)
    assert ever_of(collector).calls == 1


def test_calls_in_flight_show_until_they_end() -> None:
    """A call is in flight from `begin` to `observe`, and its age is shown. (S0-17, S0-69)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    collector.begin(a_call("0", "echo"))
    clock.advance(1)
    collector.begin(a_call("1", "echo"))
    clock.advance(1)
    series = series_of(collector)
    assert (series.in_flight, series.slowest_ns, series.ever.calls) == (2, 2 * S, 0)
    assert series.last_ns is None
    observe(collector)
    series = series_of(collector)
    assert (series.in_flight, series.slowest_ns) == (1, 2 * S)
    assert series.last_ns == clock.wall_ns()


def test_kinds_and_labels_are_series_of_their_own() -> None:
    """One name with another kind or other labels is another series, in whatever order. (S0-13)"""
    collector = MetricsCollector(clock=VirtualClock())
    plain = collector.series("x")
    tool = collector.series("x", Kind.TOOL)
    labelled = collector.series("x", labels={"model": "a", "tool": "b"})
    assert len({id(plain), id(tool), id(labelled)}) == 3
    assert collector.series("x") is plain
    assert collector.series("x", Kind.TOOL) is tool
    assert collector.series("x", labels={"tool": "b", "model": "a"}) is labelled
    assert [(one.kind, one.labels) for one in collector.snapshot().series] == [
        (Kind.AGENT, {}),
        (Kind.AGENT, {"model": "a", "tool": "b"}),
        (Kind.TOOL, {}),
    ]


def test_names_and_labels_are_bounded() -> None:
    """10,000 names and user text in labels take no more series than allowed; their calls are
    counted together, and how many were too many is told. (S0-13)"""
    collector = MetricsCollector(clock=VirtualClock(), max_series=3)
    for number in range(10_000):
        observe(collector, f"agent-{number}")
    for number in range(10):
        collector.series("agent-0", labels={"text": "x" * number}).refuse()
    snapshot = collector.snapshot()
    assert sorted(snapshot.agents) == [OTHER, "agent-0", "agent-1", "agent-2"]
    assert snapshot.agents[OTHER].ever.calls == 9_997
    assert snapshot.totals.ever.calls == 10_000
    assert snapshot.overflowed > 9_000
    assert snapshot.refused == 10
    assert len(collector._overflowed) <= 10_000


def test_long_names_are_cut() -> None:
    """A name or label of a million characters takes no more room than one of 200."""
    collector = MetricsCollector(clock=VirtualClock())
    series = collector.series("n" * 10**6, labels={"l" * 10**6: "v" * 10**6})
    assert len(series.name) == 200
    assert [(len(key), len(value)) for key, value in series.labels.items()] == [(200, 200)]
    assert collector.series("n" * 10**6, labels={"l" * 10**6: "v" * 10**6}) is series


def test_tokens_and_cost_are_counted() -> None:
    """Tokens and money are those of the calls, by window; what a hit spares is saved. (S0-26)"""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector, tokens=Tokens(10, 5, 3), cost_usd=0.25)
    observe(collector, tokens=Tokens(1, 1), error=AgentError("x"))
    plan = Plan(cost_usd=0.5)
    scope = Scope(ScopeLevel.GLOBAL)
    call = Call("1", Kind.AGENT, "echo", {}, Caller(), scope, plan)
    collector.observe(call, Outcome("1", "echo", Source.HOT))
    collector.observe(call, Outcome("1", "echo", Source.EXECUTED, attempts=2))
    series = series_of(collector)
    wanted = Usage(11, 6, 3, cost_usd=1.25, raw_usd=1.25, saved_usd=0.5)
    assert series.ever.usage == series.windows["1m"].usage == wanted
    assert series.ever.cost_per_success_usd == pytest.approx(1.25 / 3)


def test_what_hits_saved_is_counted() -> None:
    """The time that executing took when a hit's result was made is saved."""
    collector = MetricsCollector(clock=VirtualClock())
    observe(collector, source=Source.HOT, saved_ns=300 * MS)
    observe(collector, source=Source.COLD, saved_ns=200 * MS)
    assert ever_of(collector).saved_ns == 500 * MS


def test_errors_are_listed_by_what_raised_them() -> None:
    """An error is listed under the type of its cause, with its message without secrets. (S0-09,
    S0-72)"""
    collector = MetricsCollector(clock=VirtualClock())
    for number in range(3):
        error = AgentError(f"no answer in {number} s, password=hunter{number}")
        error.__cause__ = ConnectionResetError()
        observe(collector, error=error)
    (trouble,) = series_of(collector).troubles
    assert (trouble.type, trouble.category, trouble.count) == (
        "builtins.ConnectionResetError",
        Category.EXECUTION,
        3,
    )
    assert trouble.message == "no answer in * s, password=[redacted]"


WRONG = [math.nan, math.inf, -math.inf, -1, -0.5, 2**200, "5", None]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("field", ["total_ns", "execute_ns", "queue_ns", "saved_ns"])
def test_a_bad_number_costs_no_other_call(field: str, wrong: Any) -> None:
    """A call with a number that is none is refused and told of; all others are counted once, and
    nothing is raised. (S0-05, S0-23)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    good: dict[str, Any] = {"total_ns": 3, "execute_ns": 2, "queue_ns": 1, "saved_ns": 4}
    for number in range(FULL // 5 + 20):
        clock.advance(0.5)  # so that they are in several slots
        bad = {field: wrong} if number % 100 == 7 else {}
        collector.add("echo", source=Source.EXECUTED, category=None, **{**good, **bad})
    snapshot = collector.snapshot()
    refused = len(range(7, FULL // 5 + 20, 100))
    assert snapshot.refused == refused
    calls = FULL // 5 + 20 - refused
    ever = snapshot.agents["echo"].ever
    assert (ever.calls, ever.fresh.sum, ever.queue_ns, ever.saved_ns) == (
        calls,
        3 * calls,
        calls,
        4 * calls,
    )
    assert snapshot.agents["echo"].execute.sum == 2 * calls


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_money_is_left_out(wrong: Any) -> None:
    """A cost that is no number does not spoil the sum of the others. (S0-05, S0-26)"""
    collector = MetricsCollector(clock=VirtualClock())
    for cost in (0.5, wrong, 0.25):
        collector.add(
            "echo",
            source=Source.EXECUTED,
            category=None,
            queue_ns=0,
            execute_ns=1,
            total_ns=1,
            usage=Usage(cost_usd=cost),
        )
    assert ever_of(collector).calls == 3
    assert ever_of(collector).usage.cost_usd == 0.75


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_a_time_that_is_none_is_refused(wrong: float) -> None:
    """A time that is negative or no number is refused, without raising, and told of. (S0-05,
    S0-15, S0-23)"""
    collector = MetricsCollector(clock=VirtualClock())
    collector.record_execution("echo", wrong, True)
    collector.record_execution("echo", 0.5, True)
    collector.record_execution("echo", 0.5, False, "ValueError")
    snapshot = collector.snapshot()
    assert snapshot.refused == 1
    assert snapshot.agents["echo"].ever.by_ending == {Ending.SUCCESS: 1, Ending.ERROR: 1}
    assert snapshot.agents["echo"].ever.fresh.sum == S // 2


@pytest.mark.parametrize("name", [None, 5, ["a"], {}])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    """A name that is no text is refused without raising. (S0-15, S0-23)"""
    collector = MetricsCollector(clock=VirtualClock())
    collector.record_execution(name, 1.0, True)
    assert collector.snapshot().refused == 1
    assert collector.snapshot().totals.ever.calls == 0


def test_bad_streams_are_refused() -> None:
    """A stream with a time that is none is refused; the others are kept. (S0-22, S0-23)"""
    collector = MetricsCollector(clock=VirtualClock())
    series = collector.series("echo")
    for _ in range(100):
        series.streamed(5, [1, 2])
    series.streamed(-5, [1])
    series.streamed(None, [])
    assert collector.snapshot().refused in (0, 1)
    read = series_of(collector)
    assert (read.first_item.count, read.between_items.count) == (100, 200)
    assert collector.snapshot().refused == 1


class _Words:
    """The members of an enumeration, of which nothing is `unknown`."""

    def __init__(self, words: Any, unknown: str) -> None:
        vars(self).update({word.name: word for word in words} | {unknown: None})


def test_very_many_waiting_calls_hold_up_their_callers() -> None:
    """Threads that record faster than another adds up wait for it, so that memory is bounded, but
    not for ever. (S0-04)"""
    cell = Cell(Source.EXECUTED, None, Ending.SUCCESS, VirtualClock())
    waited: list[float] = []

    class Turn:
        def acquire(self, *, timeout: float) -> bool:
            waited.append(timeout)
            return False

    cell._folding, cell._turn = True, Turn()  # type: ignore[assignment]
    for _ in range(20_001):
        cell.note(0, 1, 1, 0, 0)
    assert waited == [0.1, 0.1]


def _unguarded(self: Cell, now_ns: int) -> None:
    many = len(self.pending) // 5 * 5
    batch = self.pending[:many]
    del self.pending[:many]
    for part in self._parts(batch):
        self._add(part, now_ns)


def _as_if_executed(self: Cell, batch: list[int], part: Any = Cell._part) -> object:
    category, self.category = self.category, None
    try:
        return part(self, batch)
    finally:
        self.category = category


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "check"),
    [
        (Cell, "_fold", lambda *_: None, test_each_call_is_counted_once_by_how_it_ended),
        (
            Cell,
            "_fold",
            _unguarded,
            lambda: test_a_bad_number_costs_no_other_call("queue_ns", math.nan),
        ),
        (live, "Source", _Words(Source, "EXECUTED"), test_hits_do_not_hide_slow_executions),
        (live, "Ending", _Words(Ending, "CANCELLED"), test_a_cancelled_call_is_no_failure),
        (cells, "Ending", _Words(Ending, "CANCELLED"), test_a_cancelled_call_is_no_failure),
        (
            Cell,
            "_part",
            _as_if_executed,
            test_an_error_before_any_execution_is_no_execution,
        ),
    ],
)
def test_seeded_faults_show(
    owner: Any, name: str, wrong: Any, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that reads nothing new, that loses a batch for one bad number, or that mixes
    the distributions is found."""
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises((AssertionError, UsageError, TypeError)):
        check()


def test_the_call_is_the_observers_first_argument() -> None:
    """`observe` has the form of an observer of the call path."""
    collector = MetricsCollector()
    call = Call("1", Kind.AGENT, "a", {}, Caller(), Scope(ScopeLevel.GLOBAL), Plan())
    collector.observe(call, Outcome("1", "a", Source.HOT))
    assert ever_of(collector, "a").hits == 1
