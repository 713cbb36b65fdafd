"""Statistics and spans from a history are those of the calls when they were made."""

from pathlib import Path

import msgspec

from paceline.call import Source
from paceline.cli.replay import replay, span_of_record
from paceline.errors import (
    AgentError,
    CallCancelledError,
    CallTimeoutError,
    PacelineError,
    StorageError,
)
from paceline.history.sqlite import SqliteHistory, SqliteReader
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import ending_of
from paceline.redaction import Redactor
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock


def fail(exc: StorageError) -> None:
    raise exc


def test_statistics_come_back_from_the_file(tmp_path: Path) -> None:
    """Replaying the file gives the figures of the live collector: windows, endings, usage, saved
    time, troubles and fallbacks. (S1-15, S1-16, S0-81)"""
    clock = VirtualClock()
    live = MetricsCollector(clock=clock)
    path = tmp_path / "history.db"
    history = SqliteHistory(path, clock=clock, redactor=Redactor(), on_loss=fail)
    errors: list[PacelineError | None] = [
        None, AgentError("x 17"), CallTimeoutError("late"), CallCancelledError("gone"),
    ]  # fmt: skip
    for number, source in enumerate([*Source] * 4):
        clock.advance(700)
        call = a_call(str(number), f"agent-{number % 3}")
        call = msgspec.structs.replace(
            call, plan=msgspec.structs.replace(call.plan, cost_usd=0.5 * (number % 2))
        )
        outcome = an_outcome(call, error=errors[number % 4], source=source)
        if number % 7 == 0:
            outcome = msgspec.structs.replace(outcome, error=None, instead_of=AgentError("y"))
        if number % 5 == 0:
            outcome = msgspec.structs.replace(outcome, tokens=None, cost_usd=None)
        live.observe(call, outcome)
        history.observe(call, outcome)
    history.close()
    replayed = replay(SqliteReader(path), clock=clock).snapshot()
    expected = live.snapshot()
    assert [series.name for series in replayed.series] == [s.name for s in expected.series]
    for ours, theirs in zip(replayed.series, expected.series, strict=True):
        assert ours.last_ns == theirs.last_ns
        assert ours.ever.by_ending == theirs.ever.by_ending
        assert ours.ever.by_category == theirs.ever.by_category
        assert ours.ever.by_instead == theirs.ever.by_instead
        assert ours.ever.usage == theirs.ever.usage
        assert ours.ever.saved_ns == theirs.ever.saved_ns
        assert ours.ever.total == theirs.ever.total
        kinds = [(t.category, t.type, t.message, t.count) for t in theirs.troubles]
        assert [(t.category, t.type, t.message, t.count) for t in ours.troubles] == kinds
        for window, figures in theirs.windows.items():
            assert ours.windows[window].by_ending == figures.by_ending
            assert ours.windows[window].usage == figures.usage


def test_a_span_is_that_of_its_record(tmp_path: Path) -> None:
    """The span of a record has its moments, place, ending and link."""
    clock = VirtualClock()
    path = tmp_path / "history.db"
    history = SqliteHistory(path, clock=clock, redactor=Redactor(), on_loss=fail)
    call = a_call("1")
    history.observe(call, an_outcome(call, error=AgentError("x")))
    history.close()
    [record] = SqliteReader(path).query()
    span = span_of_record(record)
    assert (span.id, span.trace_id, span.parent_id, span.links) == (
        "1",
        "trace",
        "parent",
        ("another",),
    )
    assert (span.end_ns, span.took_ns) == (clock.wall_ns(), 5_000_000_000)
    assert span.ending is ending_of(AgentError("x").category)
    assert span.usage.input == 7
