"""Timing cases in turn, so that a busy machine slows all of them alike."""

import gc
import itertools
from collections.abc import Callable, Iterable
from time import perf_counter_ns

__all__ = ["Case", "measure", "ratios"]

Case = tuple[str, Callable[[], object], int]
"""A name, what one turn runs, and how many operations that is."""


def measure(cases: Iterable[Case], rounds: int) -> dict[str, float]:
    """The least nanoseconds an operation of each case; every round runs all of them, the first
    one uncounted."""
    times: dict[str, float] = {}
    turns = itertools.product(range(rounds + 1), list(cases))
    for turn, (name, work, operations) in turns:
        gc.collect()
        gc.disable()
        start = perf_counter_ns()
        work()
        elapsed = (perf_counter_ns() - start) / operations
        gc.enable()
        if turn:
            times[name] = min(times.get(name, elapsed), elapsed)
    return times


def ratios(times: dict[str, float]) -> dict[str, float]:
    """Each time over that of the limit ("limit: ...") that was listed last before it."""
    found: dict[str, float] = {}
    limit = 1.0
    for name, elapsed in times.items():
        if name.startswith("limit: "):
            limit = elapsed
        else:
            found[name] = elapsed / limit
    return found
