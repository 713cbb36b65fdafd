"""`@track_performance`: any function's figures, and nothing else about it changed."""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Any

import pytest

from paceline.call import Kind
from paceline.errors import (
    AgentError,
    CallTimeoutError,
    Category,
    OverloadedError,
    PacelineError,
    UnknownAgentError,
)
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Figures, Series
from paceline.metrics.performance import track_performance
from paceline.testing import virtual_time
from paceline.testing.virtual_time import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def collector(clock: VirtualClock) -> MetricsCollector:
    return MetricsCollector(clock=clock)


def series_of(collector: MetricsCollector) -> Series:
    return collector.snapshot().agents["it"]


def stats_of(collector: MetricsCollector) -> Figures:
    return series_of(collector).ever


def test_the_quick_reference_runs_as_it_is_written() -> None:
    """`MetricsCollector()` and `@track_performance('agent-name', collector)` do. (S0-84)"""
    collector = MetricsCollector()

    @track_performance("agent-name", collector)
    def task() -> str:
        return "done"

    assert task() == "done"
    assert collector.snapshot().agents["agent-name"].ever.calls == 1


def test_a_function_is_timed(clock: VirtualClock, collector: MetricsCollector) -> None:
    """Its time is recorded, its result, name and signature stay. (S0-19)"""

    @track_performance("it", collector)
    def double(n: int) -> int:
        """Twice."""
        clock.advance(0.25)
        return 2 * n

    assert [double(1), double(n=2)] == [2, 4]
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    assert list(inspect.signature(double).parameters) == ["n"]
    stats = stats_of(collector)
    assert (stats.calls, stats.fresh.count, stats.avg_ms) == (2, 2, 250)


def test_a_coroutine_function_is_timed_to_its_end(
    clock: VirtualClock, collector: MetricsCollector
) -> None:
    """The time of a coroutine is that of the awaited whole, and it stays a coroutine function."""

    @track_performance("it", collector)
    async def slow() -> str:
        await asyncio.sleep(3)
        return "done"

    assert inspect.iscoroutinefunction(slow)
    assert virtual_time.run(slow()) == "done"
    assert stats_of(collector).avg_ms == 3_000


class Slow:
    async def __call__(self) -> None:
        await asyncio.sleep(3)


@pytest.mark.parametrize("slow", [Slow(), functools.partial(asyncio.sleep, 3)])
def test_callable_objects_are_timed_to_their_end(
    slow: Callable[[], Any], collector: MetricsCollector
) -> None:
    """Objects called asynchronously, and partial ones, are timed as coroutines. (S0-22)"""
    virtual_time.run(track_performance("it", collector)(slow)())
    assert stats_of(collector).avg_ms == 3_000


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (ValueError("x"), Category.EXECUTION),
        (ConnectionResetError(), Category.NETWORK),
        (AgentError("x", may_have_started=True), Category.EXECUTION),
        (SystemExit(1), Category.EXECUTION),
    ],
)
def test_an_error_is_recorded_and_goes_on(
    error: BaseException, category: Category, collector: MetricsCollector
) -> None:
    """The very error goes on to the caller, and every failure has a category. (S0-09, S0-19)"""

    @track_performance("it", collector)
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert stats_of(collector).errors == 1
    assert stats_of(collector).by_category == {category: 1}


def test_cancelling_is_no_failure(collector: MetricsCollector) -> None:
    """A cancelled coroutine is recorded as cancelled, not as an error. (S0-21)"""

    @track_performance("it", collector)
    async def wait() -> None:
        await asyncio.sleep(3_600)

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual_time.run(main())
    stats = stats_of(collector)
    assert (stats.calls, stats.cancelled, stats.errors) == (1, 1, 0)


def test_a_generator_is_timed_as_a_whole(clock: VirtualClock, collector: MetricsCollector) -> None:
    """A generator's time is its whole stream; what is sent, thrown and returned passes. (S0-22)"""

    @track_performance("it", collector)
    def stream() -> Generator[str, str, str]:
        clock.advance(1)
        got = yield "first"
        clock.advance(1)
        try:
            yield got.upper()
        except KeyError:
            clock.advance(1)
        return "end"

    steps = stream()
    assert collector.snapshot().agents == {}
    assert next(steps) == "first"
    assert steps.send("second") == "SECOND"
    with pytest.raises(StopIteration) as end:
        steps.throw(KeyError())
    assert end.value.value == "end"
    assert (stats_of(collector).calls, stats_of(collector).avg_ms) == (1, 3_000)


def test_an_async_generator_is_timed_as_a_whole(collector: MetricsCollector) -> None:
    """So is an asynchronous one; what is sent and thrown into it passes through. (S0-22)"""

    @track_performance("it", collector)
    async def stream() -> AsyncGenerator[str, str]:
        await asyncio.sleep(1)
        got = yield "first"
        await asyncio.sleep(1)
        try:
            yield got.upper()
        except KeyError:
            yield "caught"
        await asyncio.sleep(1)

    async def main() -> None:
        steps = stream()
        assert await anext(steps) == "first"
        assert await steps.asend("second") == "SECOND"
        assert await steps.athrow(KeyError()) == "caught"
        with pytest.raises(StopAsyncIteration):
            await anext(steps)

    virtual_time.run(main())
    assert (stats_of(collector).calls, stats_of(collector).avg_ms) == (1, 3_000)


@pytest.mark.parametrize("error", [TimeoutError(), CallTimeoutError("x")])
def test_a_time_out_is_an_outcome_of_its_own(
    error: BaseException, collector: MetricsCollector
) -> None:
    """A call whose time is over is a time-out, and no error. (S0-21)"""

    @track_performance("it", collector)
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fail()
    stats = stats_of(collector)
    assert (stats.calls, stats.timeouts, stats.errors) == (1, 1, 0)


@pytest.mark.parametrize("error", [OverloadedError("full"), UnknownAgentError("who")])
def test_what_was_refused_is_rejected(error: PacelineError, collector: MetricsCollector) -> None:
    """A call refused before anything ran is rejected, and no error. (S0-21)"""

    @track_performance("it", collector)
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fail()
    stats = stats_of(collector)
    assert (stats.calls, stats.rejected, stats.errors) == (1, 1, 0)
    assert stats.by_category == {error.category: 1}


def test_an_error_is_known_by_its_qualified_name(collector: MetricsCollector) -> None:
    """Errors are told apart by module and class, secrets masked in their messages. (S0-09)"""

    @track_performance("it", collector)
    def fail() -> None:
        raise LookupError("password=hunter2secret is wrong")

    with pytest.raises(LookupError):
        fail()
    (trouble,) = series_of(collector).troubles
    assert (trouble.type, trouble.count) == ("builtins.LookupError", 1)
    assert "hunter2" not in trouble.message


def test_leaving_a_stream_early_is_recorded(collector: MetricsCollector) -> None:
    """A stream that its consumer leaves is recorded as cancelled, and closed inside. (S0-22)"""
    closed: list[bool] = []

    @track_performance("it", collector)
    async def stream() -> AsyncGenerator[int, None]:
        try:
            for number in range(10):
                yield number
        finally:
            closed.append(True)

    async def main() -> None:
        async with aclosing(stream()) as numbers:
            async for number in numbers:
                if number == 2:
                    break
        assert closed == [True]

    virtual_time.run(main())
    assert stats_of(collector).cancelled == 1


def test_an_error_in_a_stream_is_recorded(collector: MetricsCollector) -> None:
    """A stream that breaks is one error, and the error reaches the consumer."""

    @track_performance("it", collector)
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("broke")

    async def main() -> None:
        with pytest.raises(ValueError, match="broke"):
            assert [number async for number in stream()] == []

    virtual_time.run(main())
    assert stats_of(collector).errors == 1


def test_methods_of_every_kind(collector: MetricsCollector) -> None:
    """Under @staticmethod and @classmethod, and on plain methods, it works. (S0-22)"""

    class Tool:
        @staticmethod
        @track_performance("it", collector)
        def static() -> str:
            return "static"

        @classmethod
        @track_performance("it", collector)
        def of_class(cls) -> str:
            return cls.__name__

        @track_performance("it", collector)
        def plain(self) -> str:
            return type(self).__name__

    assert [Tool.static(), Tool.of_class(), Tool().plain()] == ["static", "Tool", "Tool"]
    assert stats_of(collector).calls == 3


def test_calls_that_overlap_are_timed_apart(collector: MetricsCollector) -> None:
    """Calls of one function at the same time do not disturb each other's figures."""

    @track_performance("it", collector)
    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        await asyncio.gather(*(wait(seconds) for seconds in (1, 2, 3)))

    virtual_time.run(main())
    stats = stats_of(collector)
    assert (stats.total.min, stats.total.max, stats.avg_ms) == (1e9, 3e9, 2_000)


def test_calls_in_flight_are_seen(collector: MetricsCollector) -> None:
    """While a call runs it is in flight, with the time it has been running. (S0-17)"""

    @track_performance("it", collector)
    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        tasks = [asyncio.create_task(wait(seconds)) for seconds in (10, 20)]
        await asyncio.sleep(5)
        series = series_of(collector)
        assert (series.in_flight, series.slowest_ns) == (2, 5_000_000_000)
        await asyncio.gather(*tasks)
        assert series_of(collector).in_flight == 0

    virtual_time.run(main())


def test_kind_and_labels(collector: MetricsCollector) -> None:
    """Calls can be those of a tool or model, and have labels that make series of their own. (S0-13)"""

    for model in ("small", "large", "small"):
        track_performance("it", collector, kind=Kind.MODEL, labels={"model": model})(abs)(1)
    series = collector.snapshot().series
    assert [(one.kind, one.labels, one.ever.calls) for one in series] == [
        (Kind.MODEL, {"model": "large"}, 1),
        (Kind.MODEL, {"model": "small"}, 2),
    ]


def test_calls_after_a_reset_are_counted_anew(collector: MetricsCollector) -> None:
    """After a reset of the collector calls are counted from nothing, in flight or new. (S0-13)"""

    @track_performance("it", collector)
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        await work(1)
        running = asyncio.create_task(work(2))
        await asyncio.sleep(1)
        collector.reset()
        await running
        await work(1)

    virtual_time.run(main())
    assert stats_of(collector).calls == 2
    assert len(collector.trace.spans()) == 2
