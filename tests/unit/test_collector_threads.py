"""The collector under threads: nothing is lost, nobody waits, and memory is bounded."""

import sys
import threading
from typing import Any

from paceline.call import Source
from paceline.metrics.cell import FULL, Cell
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import Ending
from paceline.testing.virtual_time import VirtualClock
from tests.observed import MS, ever_of, observe


def test_waiting_calls_are_bounded() -> None:
    """Calls that were not added up yet are few, however many there were. (S0-04)"""
    clock = VirtualClock()
    cell = Cell(Source.EXECUTED, None, Ending.SUCCESS, clock)
    for number in range(10_000):
        cell.note(0, number, number, 0, 0)
        assert len(cell.pending) < FULL


def in_threads(work: Any, threads: int, look: Any) -> None:
    """Runs work(number) in several threads, changing between them often, and `look` in another."""
    done = threading.Event()

    def looking() -> None:
        while not done.is_set():
            look()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    looker = threading.Thread(target=looking)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        looker.start()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        done.set()
        looker.join()
        sys.setswitchinterval(interval)


def count_from_threads(collector: MetricsCollector, threads: int = 8, each: int = 1_500) -> int:
    """Records from several threads while another takes snapshots; returns what was counted."""
    before = 0

    def work(number: int) -> None:
        for _ in range(each):
            observe(collector, f"agent-{number % 2}")

    def look() -> None:
        nonlocal before
        calls = collector.snapshot().totals.ever.calls
        assert calls >= before
        before = calls

    in_threads(work, threads, look)
    return collector.snapshot().totals.ever.calls


def test_no_call_is_lost_between_threads() -> None:
    """Calls from 8 threads, with snapshots taken meanwhile, are all counted, in all windows.
    (S0-05, S0-14, S0-16)"""
    collector = MetricsCollector(clock=VirtualClock())
    assert count_from_threads(collector) == 12_000
    totals = collector.snapshot().totals
    assert totals.execute.count == totals.queue.count == 12_000
    assert totals.ever.fresh.sum == 12_000 * 6 * MS
    assert {figures.calls for figures in totals.windows.values()} == {12_000}


def test_a_snapshot_has_what_was_recorded_before() -> None:
    """A thread finds each call in the snapshot that it takes next. (S0-14, S0-16)"""
    collector = MetricsCollector(clock=VirtualClock())
    missing: list[int] = []

    def work(number: int) -> None:
        for count in range(1, 40):
            observe(collector, f"agent-{number}")
            if ever_of(collector, f"agent-{number}").calls != count:
                missing.append(number)

    in_threads(work, 4, lambda: observe(collector, "other"))
    assert missing == []


def test_threads_make_one_series() -> None:
    """Threads that ask for a new name at once get the same series. (S0-14)"""
    collector = MetricsCollector(clock=VirtualClock(), max_series=60)
    got: dict[str, set[int]] = {}

    def work(_: int) -> None:
        for number in range(50):
            series = collector.series(f"agent-{number}")
            got.setdefault(series.name, set()).add(id(series))

    in_threads(work, 8, collector.snapshot)
    assert len(got) == 50
    assert all(len(ids) == 1 for ids in got.values())


def test_a_call_does_not_wait_for_a_snapshot() -> None:
    """While another thread adds up, recording goes on, and what it records is not lost."""
    cell = Cell(Source.EXECUTED, None, Ending.SUCCESS, VirtualClock())
    with cell._turn:
        for _ in range(5_000):
            cell.note(0, 1, 1, 0, 0)
    assert cell.read(0).sums[-1].times.count == 5_000
