"""A collector that fails, at any point, changes nothing about what it measures."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest

from paceline.metrics import performance, tracking
from paceline.metrics.cell import Cell
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.live import LiveSeries
from paceline.metrics.performance import track_performance
from paceline.metrics.trace import current_span
from paceline.metrics.tracking import Tracking
from paceline.testing.virtual_time import VirtualClock


class BrokenError(RuntimeError):
    """What fails in the collector."""


def broken(*_: object, **__: object) -> Any:
    raise BrokenError


class UnsteadyClock:
    """Fails at one reading and works at all others."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    def monotonic_ns(self) -> int:
        self.left -= 1
        if self.left == 0:
            raise BrokenError
        return 1_000

    def wall_ns(self) -> int:
        return 1_000


def no_series(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MetricsCollector, "series", broken)


def no_cell(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LiveSeries, "cell", broken)


def no_note(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cell, "note", broken)
    patch.setattr(Cell, "pending", property(broken))


def no_settling(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tracking, "FULL", 0)
    patch.setattr(performance, "FULL", 0)
    patch.setattr(Cell, "settle", broken)


def no_trace(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collector.trace, "keep", broken)


def no_ids(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collector.trace, "next_id", broken)


def no_errors(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MetricsCollector, "note_error", broken)


def no_streams(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LiveSeries, "streamed", broken)


def no_refusals(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    no_note(collector, patch)
    patch.setattr(MetricsCollector, "refuse", broken)


def no_log(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
    no_note(collector, patch)
    patch.setattr(logging.getLogger("paceline"), "warning", broken)


def no_clock(at: int) -> Callable[[MetricsCollector, pytest.MonkeyPatch], None]:
    def fault(collector: MetricsCollector, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(collector, "clock", UnsteadyClock(at))

    fault.__name__ = f"no_clock_at_{at}"
    return fault


FAULTS = [
    no_series,
    no_cell,
    no_note,
    no_settling,
    no_trace,
    no_ids,
    no_errors,
    no_streams,
    no_refusals,
    no_log,
    *map(no_clock, range(1, 8)),
]


class Work:
    """One piece of work in each form that can be tracked; `run` gives what a caller sees."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.begun = 0

    def end(self) -> str:
        self.begun += 1
        if self.error is not None:
            raise self.error
        return "done"

    async def function(self, collector: MetricsCollector) -> object:
        return track_performance("it", collector)(self.end)()

    async def coroutine(self, collector: MetricsCollector) -> object:
        async def work() -> str:
            await asyncio.sleep(0)
            return self.end()

        return await track_performance("it", collector)(work)()

    async def awaitable(self, collector: MetricsCollector) -> object:
        async def work(result: Callable[[], str]) -> str:
            return result()

        return await track_performance("it", collector)(lambda: work(self.end))()

    async def future(self, collector: MetricsCollector) -> object:
        async def work() -> str:
            return self.end()

        return await track_performance("it", collector)(lambda: asyncio.ensure_future(work()))()

    async def generator(self, collector: MetricsCollector) -> object:
        def work() -> Iterator[str]:
            yield "first"
            yield "second"
            yield self.end()

        return list(track_performance("it", collector)(work)())

    async def async_generator(self, collector: MetricsCollector) -> object:
        async def work() -> AsyncGenerator[str, None]:
            yield "first"
            yield "second"
            yield self.end()

        return [item async for item in track_performance("it", collector)(work)()]

    async def block(self, collector: MetricsCollector) -> object:
        async with track_performance("it", collector):
            return self.end()


FORMS = ["function", "coroutine", "awaitable", "future", "generator", "async_generator", "block"]


def seen(form: str, error: BaseException | None, collector: MetricsCollector) -> object:
    """What the caller of the work gets, and how often it was begun."""
    work = Work(error)

    async def main() -> object:
        try:
            return await getattr(work, form)(collector)
        except BaseException as exc:  # noqa: BLE001 (whatever it is)
            return exc, exc.__cause__, exc.__context__
        finally:
            assert current_span.get() is None
            await asyncio.sleep(0)

    return asyncio.run(main()), work.begun


def check(
    form: str, fault: Callable[[MetricsCollector, pytest.MonkeyPatch], None], fails: bool
) -> MetricsCollector:
    """Fails unless the work is seen as it is without a fault."""
    error = KeyError("mine") if fails else None
    expected = seen(form, error, MetricsCollector(clock=VirtualClock()))
    collector = MetricsCollector(clock=VirtualClock())
    with pytest.MonkeyPatch.context() as patch:
        fault(collector, patch)
        assert seen(form, error, collector) == expected
        if isinstance(collector.clock, UnsteadyClock):
            collector.clock.left = 0  # from now on it works
    return collector


@pytest.mark.parametrize("fails", [False, True], ids=["value", "error"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_fault_changes_nothing(
    form: str, fault: Callable[[MetricsCollector, pytest.MonkeyPatch], None], fails: bool
) -> None:
    """Whatever fails in the collector: result, error and its context are those of the work, which
    runs once, and nothing stays in flight. (S0-23)"""
    collector = check(form, fault, fails)
    assert [series.in_flight for series in collector.snapshot().series] in ([], [0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", [no_series, no_cell, no_note, no_trace, no_ids, no_clock(1)])
def test_what_is_not_recorded_is_counted(
    form: str, fault: Callable[[MetricsCollector, pytest.MonkeyPatch], None]
) -> None:
    """A call that could not be recorded is counted as refused, and the next one is recorded
    again. (S0-23)"""
    collector = check(form, fault, fails=False)
    assert collector.snapshot().refused == 1
    seen(form, None, collector)
    assert collector.snapshot().agents["it"].ever.successes >= 1


def test_the_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first failure of a tracked function is logged with its reason, the others counted."""
    collector = MetricsCollector(clock=VirtualClock())
    work = track_performance("it", collector)(int)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "paceline"):
        no_series(collector, patch)
        for _ in range(3):
            work()
    assert [record.message for record in caplog.records] == ["a call of it was not recorded"]
    assert caplog.records[0].exc_info is not None
    assert collector.snapshot().refused == 3


def test_the_tests_notice_what_breaks_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were what goes wrong not caught, the test above would fail. (S0-23)"""
    monkeypatch.setattr(Tracking, "lost", broken)
    for form in FORMS:
        with pytest.raises(AssertionError):
            check(form, no_series, fails=False)
