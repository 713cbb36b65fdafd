"""Timing cases beside their limits, so that a machine that changes its speed slows both alike."""

import gc
import statistics
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Self

import msgspec

__all__ = ["LIMIT", "Case", "NowNs", "Timed", "measure", "ratios"]

LIMIT = "limit: "
"""How the name of a limit begins."""

Case = tuple[str, Callable[[], object], int]
"""A name, what one turn runs, and how many operations that is."""

NowNs = Callable[[], int]
"""A clock, in nanoseconds."""


class Timed(msgspec.Struct, frozen=True):
    """What a case took in each round, and what its limit took right before it; in nanoseconds an
    operation.

    Its ratio is the median over the rounds of the ratio within a round: a machine that is slow in
    one round and quick in another makes no difference to it, nor does one round that was disturbed.
    """

    ns: list[float]
    limit_ns: list[float]

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Self:
        """Of what each round came to: the case, and its limit."""
        ns, limit_ns = zip(*pairs, strict=True)
        return cls([round(each, 2) for each in ns], [round(each, 2) for each in limit_ns])

    @property
    def ratios(self) -> list[float]:
        """Of each round."""
        return [ours / limit for ours, limit in zip(self.ns, self.limit_ns, strict=True)]

    @property
    def ratio(self) -> float:
        """How many times what the limit takes."""
        return statistics.median(self.ratios)

    @property
    def median(self) -> float:
        """What it took."""
        return statistics.median(self.ns)

    @property
    def limit(self) -> float:
        """What the limit took beside it."""
        return statistics.median(self.limit_ns)


def measure(
    cases: Iterable[Case], rounds: int, *, empty: Case | None = None, clock: NowNs = perf_counter_ns
) -> dict[str, Timed]:
    """Times all cases in every round, the first one uncounted; each right after the limit
    ("limit: ...") that was listed last before it, or without one by itself. What an operation of
    `empty` takes, beside them, is taken off.

    Where all work is done by this thread, `time.thread_time_ns` is the better clock: a turn of a
    case is longer than one of its limit, and so is interrupted more often on a busy machine.
    """
    listed, times = list(cases), dict[str, list[tuple[float, float]]]()
    for turn in range(rounds + 1):
        limit: Case | None = None
        for case in listed:
            limit = case if case[0].startswith(LIMIT) else limit
            pair = _beside(case, limit or case, empty, clock)
            if turn:
                times.setdefault(case[0], []).append(pair)
    return {name: Timed.of(pairs) for name, pairs in times.items()}


def _beside(case: Case, limit: Case, empty: Case | None, clock: NowNs) -> tuple[float, float]:
    """What the case and its limit take, one right after the other."""

    def each_ns(case: Case) -> float:
        _, work, operations = case
        start = clock()
        work()
        return (clock() - start) / operations

    gc.collect()
    gc.disable()
    try:
        spent = 0.0 if empty is None else each_ns(empty)
        least = each_ns(limit) - spent
        return (least if case is limit else each_ns(case) - spent), least
    finally:
        gc.enable()


def ratios(times: dict[str, Timed]) -> dict[str, float]:
    """Each time over that of its limit."""
    return {name: timed.ratio for name, timed in times.items() if not name.startswith(LIMIT)}
