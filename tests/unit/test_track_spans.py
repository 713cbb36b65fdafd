"""The spans of tracked calls."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable

import pytest

from paceline.call import Call, Caller, Kind, Plan, Scope, ScopeLevel, current_call
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Ending
from paceline.metrics.performance import track_performance
from paceline.metrics.span import Span
from paceline.metrics.trace import Trace
from paceline.metrics.tracking import Tracking
from paceline.testing import virtual_time
from paceline.testing.virtual_time import VirtualClock

S = 1_000_000_000


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def collector(clock: VirtualClock) -> MetricsCollector:
    return MetricsCollector(clock=clock)


def spans_of(collector: MetricsCollector) -> dict[str, Span]:
    return {span.name: span for span in collector.trace.spans()}


def test_calls_form_a_tree(collector: MetricsCollector) -> None:
    """Tracked calls are spans whose parent is the call they are made in, across tasks and in
    streams; one that is over is nobody's parent. (S0-01)"""

    def tracked(name: str) -> track_performance:
        return track_performance(name, collector)

    @tracked("leaf")
    def leaf() -> None:
        return None

    @tracked("in task")
    async def in_task() -> None:
        with tracked("block"):
            await asyncio.sleep(1)

    @tracked("stream")
    async def stream() -> AsyncGenerator[int, None]:
        leaf()
        yield 1

    @tracked("root")
    async def root() -> None:
        await asyncio.create_task(in_task())
        async for _ in stream():
            with tracked("consumer"):
                await asyncio.sleep(1)

    async def main() -> None:
        await root()
        with tracked("after"):
            pass

    virtual_time.run(main())
    spans = spans_of(collector)
    parents = {name: span.parent_id for name, span in spans.items()}
    ids = {name: span.id for name, span in spans.items()}
    assert parents == {
        "root": None,
        "in task": ids["root"],
        "block": ids["in task"],
        "stream": ids["root"],
        "leaf": ids["stream"],
        "consumer": ids["root"],
        "after": None,
    }
    assert {name for name, span in spans.items() if span.trace_id == ids["root"]} == {*spans} - {
        "after"
    }
    assert len(set(ids.values())) == len(ids)


def test_spans_say_what_was_and_when(clock: VirtualClock, collector: MetricsCollector) -> None:
    """A span has the name, kind, times by the wall clock and ending of its call. (S0-01)"""
    start_ns = clock.wall_ns()

    @track_performance("it", collector, kind=Kind.TOOL)
    def too_slow() -> None:
        clock.advance(2)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        too_slow()
    (span,) = collector.trace.spans()
    assert (span.name, span.kind, span.category) == ("it", Kind.TOOL, Category.TIMEOUT)
    assert (span.start_ns, span.took_ns, span.execute_ns) == (start_ns, 2 * S, 2 * S)
    assert span.ending is Ending.TIMEOUT


def test_the_nearer_of_two_parents(collector: MetricsCollector) -> None:
    """The parent is the runtime's call where that is the nearer one, in its trace. (S0-01)"""

    def call(name: str) -> Call:
        scope = Scope(ScopeLevel.GLOBAL)
        return Call(name, Kind.AGENT, name, {}, Caller(), scope, Plan(), trace_id="run")

    def nothing() -> None:
        return None

    def within(name: str, inside: Callable[[], None]) -> None:
        token = current_call.set(call(name))
        inside()
        current_call.reset(token)

    def tracked(name: str, inside: Callable[[], None]) -> None:
        track_performance(name, collector)(inside)()

    within(
        "c1",
        lambda: tracked(
            "t1", lambda: tracked("t2", lambda: within("c2", lambda: tracked("t3", nothing)))
        ),
    )
    spans = spans_of(collector)
    assert {name: span.parent_id for name, span in spans.items()} == {
        "t1": "c1",
        "t2": spans["t1"].id,
        "t3": "c2",
    }
    assert {span.trace_id for span in spans.values()} == {"run"}


def test_parents_of_another_collector(clock: VirtualClock) -> None:
    """A call tracked in the course of one that another collector tracks is its child, and in its
    trace, although both number their calls alike. (S0-01)"""
    first, second = MetricsCollector(clock=clock), MetricsCollector(clock=clock)

    @track_performance("inner", first)
    def inner() -> None:
        return None

    @track_performance("middle", second)
    async def middle() -> None:
        inner()

    @track_performance("outer", first)
    async def outer() -> None:
        await middle()

    virtual_time.run(outer())
    spans = spans_of(first) | spans_of(second)
    assert len({span.id for span in spans.values()}) == 3
    assert spans["middle"].parent_id == spans["outer"].id
    assert spans["inner"].parent_id == spans["middle"].id
    assert {span.trace_id for span in spans.values()} == {spans["outer"].id}


def test_the_ring_of_spans_is_bounded(clock: VirtualClock) -> None:
    """Only the latest spans are kept, so memory is bounded. (S1-16)"""
    trace = Trace(clock, kept=3, session="s")
    collector = MetricsCollector(clock=clock)
    collector.trace = trace
    tracked = track_performance("it", collector)(int)
    for _ in range(10):
        tracked()
    assert [span.id for span in trace.spans()] == ["s-s8", "s-s9", "s-s10"]


@pytest.mark.parametrize("method", ["leave", "end"])
def test_the_tests_notice(
    method: str, collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were a call that is over still a parent, or kept nowhere, the test of the tree would
    fail."""
    monkeypatch.setattr(Tracking, method, lambda *_: None)
    # The AssertionError of the check, or the KeyError of a span that is not there.
    with pytest.raises((AssertionError, KeyError)):
        contextvars.copy_context().run(test_calls_form_a_tree, collector)
