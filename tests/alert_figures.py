"""Figures made up for the tests of alerts."""

from collections.abc import Mapping
from typing import Final

from paceline.call import Kind, Source
from paceline.metrics.figures import NO_USAGE, Ending, Figures, Series, Snapshot, Usage
from paceline.metrics.sketch import Sketch
from paceline.metrics.windows import WINDOWS
from paceline.testing.virtual_time import VirtualClock

__all__ = ["EPOCH_NS", "figures", "loaded", "series", "snapshot"]

EPOCH_NS: Final = VirtualClock.EPOCH_NS


def figures(
    good: int = 0,
    bad: int = 0,
    *,
    ms: float = 10.0,
    slow: int = 0,
    slow_ms: float = 5_000.0,
    hits: int = 0,
    timeouts: int = 0,
    cancelled: int = 0,
    span_s: int = 300,
    usage: Usage = NO_USAGE,
) -> Figures:
    """`good` calls of `ms`, of which `slow` took `slow_ms`, `hits` more from the cache, and such
    as failed, timed out or were cancelled."""
    hit, fresh, failed = Sketch(), Sketch(), Sketch()
    hit.add_all([1e4] * hits)
    fresh.add_all([ms * 1e6] * (good - slow) + [slow_ms * 1e6] * slow)
    failed.add_all([ms * 1e6] * (bad + timeouts))
    endings = {
        Ending.SUCCESS: good + hits,
        Ending.ERROR: bad,
        Ending.TIMEOUT: timeouts,
        Ending.CANCELLED: cancelled,
    }
    sources = {Source.EXECUTED: good + bad + timeouts, Source.HOT: hits}
    return Figures(span_s * 10**9, endings, sources, {}, hit, fresh, failed, usage=usage)


def series(
    name: str, all_windows: Figures | None = None, *, in_flight: int = 0, **windows: Figures
) -> Series:
    """An agent with these figures, the same in every window that is not given: `w5m=`, ..."""
    every = all_windows or figures()
    empty = Sketch()
    return Series(
        name,
        Kind.AGENT,
        {},
        every,
        {window: windows.get(f"w{window}", every) for window in WINDOWS},
        empty,
        empty,
        empty,
        empty,
        in_flight,
    )


def snapshot(
    *agents: Series, at_s: float = 0.0, loads: Mapping[str, float] | None = None
) -> Snapshot:
    """These agents, `at_s` seconds after the tests' epoch."""
    at_ns = EPOCH_NS + round(at_s * 1e9)
    return Snapshot(tuple(agents), round(at_s * 1e9), at_ns, loads=loads or {})


def loaded(load: float, at_s: float = 0.0) -> Snapshot:
    """One instance with a load: the simplest figure to move about."""
    return snapshot(at_s=at_s, loads={"one": load})
