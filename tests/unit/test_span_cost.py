"""What spans cost a caller when nobody reads them."""

import builtins
import gc
import socket
import threading
import tracemalloc

import pytest

from paceline.metrics import trace as tracing
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.performance import track_performance
from paceline.metrics.trace import Trace
from paceline.testing.virtual_time import VirtualClock

_KEPT = 64
_CALLS = 2_000
_ROOM = 100_000
"""Bytes: a ring of `_KEPT` is far smaller, what `_CALLS` would keep far larger."""


def collector_keeping(kept: int) -> MetricsCollector:
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    collector.trace = Trace(clock, kept=kept, session="s")
    return collector


def check_memory_is_bounded(kept: int) -> None:
    """With this ring, as many calls again need no more memory than the first did."""
    tracked = track_performance("it", collector_keeping(kept))(int)
    for _ in range(_CALLS):
        tracked()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(_CALLS):
            tracked()
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < _ROOM  # what the ring holds by now was allocated since


def test_memory_is_bounded_by_the_ring() -> None:
    """Spans that nobody reads take the room of the ring and no more, however many calls there
    are; a ring without a bound would be noticed. (V-42)"""
    check_memory_is_bounded(_KEPT)
    with pytest.raises(AssertionError):
        check_memory_is_bounded(10 * _CALLS)


def check_nothing_is_done(monkeypatch: pytest.MonkeyPatch, collector: MetricsCollector) -> None:
    """While calls are tracked no span is made, no file or socket opened and no thread started."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("this is work for nobody")

    tracked = track_performance("it", collector)(int)
    with monkeypatch.context() as patch:
        patch.setattr(tracing, "Span", refuse)
        for owner, name in (
            (builtins, "open"),
            (socket.socket, "connect"),
            (threading.Thread, "start"),
        ):
            patch.setattr(owner, name, refuse)
        for _ in range(2 * _KEPT):
            tracked()


def test_nothing_is_made_exported_or_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans cannot be turned off and are not free: each tracked call keeps one tuple in the ring;
    but until somebody reads them no span is made, and nothing is exported or written. (V-42)"""
    collector = collector_keeping(_KEPT)
    check_nothing_is_done(monkeypatch, collector)
    assert len(collector.trace.spans()) == _KEPT


def test_the_test_notices_work_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were spans made of calls as they end, it would be noticed. (V-42)"""
    collector = collector_keeping(_KEPT)
    keep = collector.trace.keep

    def eager(kept: tuple[object, ...]) -> None:
        keep(kept)
        collector.trace.spans()

    collector.trace.keep = eager
    with pytest.raises(pytest.fail.Exception, match="for nobody"):
        check_nothing_is_done(monkeypatch, collector)
