"""`track_performance` on what is awaited, streamed or entered."""

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import itertools
import threading
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from typing import Any, Self

import pytest

from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Series
from paceline.metrics.performance import track_performance
from paceline.metrics.trace import current_span
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


def series_of(collector: MetricsCollector, name: str = "it") -> Series:
    return collector.snapshot().agents[name]


class Thing:
    """Something to await that is neither a coroutine nor a future."""

    note = "kept"

    def __await__(self) -> Generator[Any, Any, str]:
        yield from asyncio.sleep(3).__await__()
        return "done"


@types.coroutine
def old_style() -> Generator[Any, Any, str]:
    yield from asyncio.sleep(3).__await__()
    return "done"


def make_coroutine() -> Awaitable[str]:
    return asyncio.sleep(3, "done")


def make_task() -> Awaitable[str]:
    return asyncio.ensure_future(asyncio.sleep(3, "done"))


@pytest.mark.parametrize(
    "make", [make_coroutine, make_task, Thing, old_style, functools.partial(old_style)]
)
def test_what_is_returned_to_be_awaited_is_timed_until_it_is_done(
    make: Callable[[], Awaitable[str]], collector: MetricsCollector
) -> None:
    """A function that returns a coroutine, future or the like is timed to its end, once. (S0-22)"""
    tracked = track_performance("it", collector)(make)

    async def main() -> None:
        assert await tracked() == "done"
        assert current_span.get() is None

    virtual_time.run(main())
    series = series_of(collector)
    assert (series.ever.calls, series.ever.avg_ms, series.in_flight) == (1, 3_000, 0)


def test_futures_stay_what_they_are(collector: MetricsCollector) -> None:
    """A future is returned itself; another awaitable keeps its attributes. (S0-22)"""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()

    @track_performance("it", collector)
    def tracked() -> object:
        return future

    assert tracked() is future
    assert series_of(collector).in_flight == 1
    future.set_result(1)
    assert (series_of(collector).in_flight, series_of(collector).ever.successes) == (0, 1)
    assert track_performance("it", collector)(Thing)().note == "kept"


@pytest.mark.parametrize("how", ["error", "cancel"])
def test_how_a_future_ends_is_recorded(how: str, collector: MetricsCollector) -> None:
    """A future that fails is an error, one that is cancelled is cancelled. (S0-21, S0-22)"""

    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert track_performance("it", collector)(lambda: future)() is future
        if how == "error":
            future.set_exception(ValueError("x"))
        else:
            future.cancel()
        await asyncio.wait([future])
        await asyncio.sleep(0)
        if how == "error":
            with pytest.raises(ValueError, match="x"):
                future.result()

    virtual_time.run(main())
    ever = series_of(collector).ever
    assert (ever.errors, ever.cancelled) == ((1, 0) if how == "error" else (0, 1))


def test_an_exception_nobody_asks_for_is_still_reported(collector: MetricsCollector) -> None:
    """asyncio still says that an exception of a tracked future was never retrieved. (S0-23)"""
    said: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: said.append(context["message"]))
        futures = [loop.create_future()]
        track_performance("it", collector)(futures.copy().pop)()
        futures.pop().set_exception(ValueError("x"))
        await asyncio.sleep(0)
        gc.collect()

    virtual_time.run(main())
    assert said == ["Future exception was never retrieved"]


class Session:
    """To be awaited, or entered, as clients of HTTP have them."""

    def __await__(self) -> Generator[Any, Any, "Session"]:
        yield from ()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


def test_what_can_be_entered_is_left_alone(collector: MetricsCollector) -> None:
    """An awaitable that can be entered as well is returned as it is."""
    session = Session()
    assert track_performance("it", collector)(lambda: session)() is session
    assert series_of(collector).ever.calls == 1


def test_either_side_of_staticmethod_and_classmethod(collector: MetricsCollector) -> None:
    """It works above @staticmethod and @classmethod as below. (S0-22)"""

    class Tool:
        @track_performance("it", collector)
        @staticmethod
        def static() -> str:
            return "static"

        @track_performance("it", collector)
        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

    assert [Tool.static(), Tool().of_class()] == ["static", "Tool"]
    assert series_of(collector).ever.calls == 2


def test_the_times_of_a_generator(clock: VirtualClock, collector: MetricsCollector) -> None:
    """Of a stream the time to the first item, from each to the next and in all are recorded, and
    apart from them what it took itself, its consumer left out. (S0-22)"""

    @track_performance("it", collector)
    def stream() -> Generator[int, None, None]:
        for seconds in (3, 1, 2):
            clock.advance(seconds)
            yield seconds

    for _ in stream():
        clock.advance(10)
    series = series_of(collector)
    assert (series.first_item.count, series.first_item.max) == (1, 3 * S)
    assert (series.between_items.min, series.between_items.max) == (1 * S, 2 * S)
    assert (series.ever.total.max, series.execute.max) == (36 * S, 6 * S)
    assert series.ever.successes == 1


def test_the_times_of_an_async_generator(collector: MetricsCollector) -> None:
    """The same holds for an asynchronous stream. (S0-22)"""

    @track_performance("it", collector)
    async def stream() -> AsyncGenerator[int, None]:
        for seconds in (3, 1, 2):
            await asyncio.sleep(seconds)
            yield seconds

    async def main() -> None:
        async for _ in stream():
            await asyncio.sleep(10)

    virtual_time.run(main())
    series = series_of(collector)
    assert (series.first_item.count, series.first_item.max) == (1, 3 * S)
    assert (series.between_items.min, series.between_items.max) == (1 * S, 2 * S)
    assert (series.ever.total.max, series.execute.max) == (36 * S, 6 * S)


def test_a_long_stream_is_added_up_on_the_way(collector: MetricsCollector) -> None:
    """The times of an endless stream are not kept until it ends."""

    @track_performance("it", collector)
    def endless() -> Generator[int, None, None]:
        yield from itertools.repeat(0)

    numbers = endless()
    for _ in range(1_000):
        next(numbers)
    assert series_of(collector).between_items.count >= 512
    numbers.close()
    assert series_of(collector).between_items.count == 999


def test_leaving_a_generator_is_cancelling_it(collector: MetricsCollector) -> None:
    """A generator that its consumer closes or forgets is cancelled, its own end run. (S0-22)"""
    closed: list[bool] = []

    @track_performance("it", collector)
    def stream() -> Generator[int, None, None]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    with closing(stream()) as numbers:
        assert next(numbers) == 0
    forgotten = stream()
    next(forgotten)
    del forgotten
    gc.collect()
    series = series_of(collector)
    assert (series.ever.cancelled, series.ever.errors, series.in_flight) == (2, 0, 0)
    assert closed == [True, True]


def test_a_stream_that_is_left_and_breaks_is_an_error(collector: MetricsCollector) -> None:
    """What closing a stream raises reaches who closes it, and is recorded."""

    @track_performance("it", collector)
    def stream() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            raise ValueError("at the end")

    @track_performance("it", collector)
    async def async_stream() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise ValueError("at the end")

    async def main() -> None:
        with pytest.raises(ValueError, match="at the end"):
            async with aclosing(async_stream()) as numbers:
                await anext(numbers)

    numbers = stream()
    next(numbers)
    with pytest.raises(ValueError, match="at the end"):
        numbers.close()
    virtual_time.run(main())
    assert series_of(collector).ever.errors == 2


def test_a_block_is_timed(clock: VirtualClock, collector: MetricsCollector) -> None:
    """`with` and `async with` time a block, its error passing through. (S0-19)"""

    async def main() -> None:
        async with track_performance("it", collector):
            await asyncio.sleep(2)

    with track_performance("it", collector):
        clock.advance(1)
    with pytest.raises(KeyError), track_performance("it", collector):
        raise KeyError("x")
    virtual_time.run(main())
    ever = series_of(collector).ever
    assert (ever.successes, ever.errors, ever.total.max) == (2, 1, 2 * S)


def test_one_object_is_entered_many_times_at_once(collector: MetricsCollector) -> None:
    """The same object serves nested blocks and blocks of many tasks, each with its own time."""
    block = track_performance("it", collector)

    async def work(seconds: float) -> None:
        with block:
            await asyncio.sleep(seconds)
            with block:
                await asyncio.sleep(1)

    async def main() -> None:
        await asyncio.gather(*(work(seconds) for seconds in (3, 1, 2)))

    virtual_time.run(main())
    series = series_of(collector)
    assert (series.ever.calls, series.in_flight) == (6, 0)
    assert sorted(span.took_ns for span in collector.trace.spans()) == [
        S,
        S,
        S,
        2 * S,
        3 * S,
        4 * S,
    ]


def test_calls_of_many_threads_are_all_counted() -> None:
    """Calls from many threads at once are all counted, each with its own span. (S0-05)"""
    collector = MetricsCollector()
    tracked = track_performance("it", collector)(int)

    def work() -> None:
        for _ in range(2_000):
            tracked()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    series = series_of(collector)
    assert (series.ever.calls, series.in_flight) == (8_000, 0)
    spans = collector.trace.spans()
    assert len({span.id for span in spans}) == len(spans) == 4_096


def test_a_coroutine_may_end_in_another_context(collector: MetricsCollector) -> None:
    """A coroutine whose steps run in several contexts is recorded as any other."""

    @track_performance("it", collector)
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    steps = work()
    contextvars.copy_context().run(steps.send, None)
    with pytest.raises(StopIteration, match="done"):
        contextvars.copy_context().run(steps.send, None)
    snapshot = collector.snapshot()
    assert (snapshot.agents["it"].ever.successes, snapshot.refused) == (1, 0)
    assert len(collector.trace.spans()) == 1


def test_ending_in_another_context_disturbs_nobody(collector: MetricsCollector) -> None:
    """A stream closed in another context than it was read in is recorded all the same."""

    @track_performance("it", collector)
    def stream() -> Generator[int, None, None]:
        yield from range(3)

    numbers = stream()
    contextvars.copy_context().run(next, numbers)
    contextvars.copy_context().run(next, numbers)
    numbers.close()
    assert series_of(collector).ever.cancelled == 1
    assert current_span.get() is None


def test_the_tests_notice(collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the times of streams left out, the tests above would fail."""
    monkeypatch.setattr(Tracking, "streamed", lambda *_: None)
    with pytest.raises(AssertionError):
        test_the_times_of_an_async_generator(collector)
