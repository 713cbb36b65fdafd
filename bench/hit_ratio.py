"""How often a cache hits on recorded accesses, beside the best possible.

Each trace of `bench.traces` at three capacities, with the policies to choose from, the default
one and Belady's optimum, which knows what comes. Then the miss-ratio curves from a sample of the
keys, against the exact ones. Hits do not depend on the machine: one round is all there is.
"""

from collections.abc import Hashable, Iterator, Sequence
from statistics import fmean
from time import perf_counter_ns
from typing import TYPE_CHECKING, cast

import msgspec

from bench import belady, traces
from bench.traces import Trace
from paceline.cache.entry import Entry, FullEntry
from paceline.cache.policies import POLICIES
from paceline.cache.policies.chooser import Chooser
from paceline.cache.policies.curve import MissRatioCurve
from paceline.cache.policies.lru import LRU
from paceline.cache.policies.policy import MakePolicy
from paceline.cache.policies.s3fifo import S3Fifo

if TYPE_CHECKING:
    from paceline.cache.entry import Table

__all__ = ["ABSENT", "Cell", "CurveError", "main", "run", "simulate"]

ABSENT = f"no recorded accesses: {traces.DATA} is not there"
DEFAULT = "auto"
COMPARED = ("lru", "s3fifo", "w-tinylfu", DEFAULT)
CURVE_SHARE = 0.02
CURVE_KEYS = 2_000
"""As many keys a sample needs to say anything; of a trace with fewer, all are taken."""

CURVE_PERCENT = (1, 2, 5, 10, 20, 40, 60, 80)
LEAST_CAPACITY = 100
"""Smaller cells are shown and are in no mean over all: a handful of hits decides them."""

LEAST_DISTINCT = 1_000
_LARGE = frozenset({"mooncake-conv"})  # of which 2 % are more than 2,000 keys
_SEED = 0  # the hash of this table: the same sample in every run


class Cell(msgspec.Struct, frozen=True):
    """Hit ratios, 0..1, of one trace at one capacity, by policy."""

    trace: str
    capacity: int
    ratio: dict[str, float]
    best: float
    switches: int

    def share(self, policy: str) -> float:
        """Of the best possible, in per cent."""
        return 100 * self.ratio[policy] / self.best if self.best else 100.0


class CurveError(msgspec.Struct, frozen=True):
    """Mean absolute error of a sampled curve of one trace, in points of miss ratio."""

    trace: str
    policy: str
    share: float
    corrected: float
    uncorrected: float


def simulate(kind: MakePolicy, keys: Sequence[Hashable], capacity: int) -> tuple[int, object]:
    """How many accesses hit, and the policy at the end."""
    policy = kind(capacity)
    nowhere = cast("Table", _SEED)
    held: dict[Hashable, Entry] = {}
    hits = 0
    for key in keys:
        entry = held.get(key)
        if entry is not None:
            hits += 1
            policy.use(entry)
            continue
        entry = held[key] = FullEntry(key, None, 0)
        entry.table = nowhere
        policy.add(entry)
        while len(held) > capacity:
            del held[policy.evict().key]
    return hits, policy


def run(rounds: int = 1) -> dict[str, object]:  # noqa: ARG001 - hits are the same in every round
    """Hit ratios of every cell, means, and the errors of the curves; or that there are none."""
    loaded = traces.load()
    if not loaded:
        return {"absent": ABSENT}
    start = perf_counter_ns()
    cells = [_cell(trace, capacity) for trace in loaded for capacity in traces.sizes(trace)]
    errors = [error for trace in loaded for error in _curve_errors(trace)]
    return {
        "cells": [msgspec.to_builtins(cell) for cell in cells],
        "means": _means(cells),
        "least_over_lru_points": min(_over_lru(cell) for cell in cells),
        "curve_errors": [msgspec.to_builtins(error) for error in errors],
        "curve_error_means": _curve_means(errors),
        "cost_ns": _cost_ns(loaded),
        "seconds": (perf_counter_ns() - start) / 1e9,
    }


def _cell(trace: Trace, capacity: int) -> Cell:
    total = len(trace.keys)
    ratio: dict[str, float] = {}
    switches = 0
    for name in COMPARED:
        hits, policy = simulate(POLICIES[name], trace.keys, capacity)
        ratio[name] = hits / total
        if isinstance(policy, Chooser):
            switches = policy.switches
    return Cell(trace.name, capacity, ratio, belady.hits(trace.keys, capacity) / total, switches)


def _over_lru(cell: Cell) -> float:
    return 100 * (cell.ratio[DEFAULT] - cell.ratio["lru"])


def _means(cells: list[Cell]) -> dict[str, dict[str, float]]:
    """Mean shares of the best possible, in per cent, by group of cells and policy."""
    groups = {
        "all": [cell for cell in cells if cell.capacity >= LEAST_CAPACITY],
        "agents": [cell for cell in cells if cell.trace in traces.AGENT],
        "small": [cell for cell in cells if cell.capacity < LEAST_CAPACITY],
    }
    return {
        group: {name: fmean(cell.share(name) for cell in members) for name in COMPARED}
        for group, members in groups.items()
    }


def _curve_errors(trace: Trace) -> Iterator[CurveError]:
    """Of a sample of 2 % and of one that has 2,000 keys at the least."""
    distinct = len(set(trace.keys))
    if distinct < LEAST_DISTINCT:
        return
    capacities = [max(1, distinct * percent // 100) for percent in CURVE_PERCENT]
    for name in ("lru", "s3fifo"):
        kind = POLICIES[name]
        exact = [1 - simulate(kind, trace.keys, size)[0] / len(trace.keys) for size in capacities]
        for share in sorted({CURVE_SHARE, max(CURVE_SHARE, min(1.0, CURVE_KEYS / distinct))}):
            curve = MissRatioCurve(capacities, kind=kind, share=share)
            for key in trace.keys:
                curve.note(key)
            yield CurveError(
                trace.name,
                name,
                share,
                _distance(curve.points(), exact),
                _distance(curve.points(corrected=False), exact),
            )


def _distance(points: list[tuple[int, float]], exact: list[float]) -> float:
    return 100 * fmean(abs(ratio - truth) for (_, ratio), truth in zip(points, exact, strict=True))


def _curve_means(errors: list[CurveError]) -> dict[str, dict[str, float]]:
    groups = {
        "2 %, all traces": [e for e in errors if e.share == CURVE_SHARE],
        "2 %, 2,000 keys and more": [
            e for e in errors if e.share == CURVE_SHARE and e.trace in _LARGE
        ],
        "2 % and at least 2,000 keys": [
            e for e in errors if e.share > CURVE_SHARE or e.trace in _LARGE
        ],
    }
    return {
        name: {
            "corrected": fmean(e.corrected for e in members),
            "uncorrected": fmean(e.uncorrected for e in members),
        }
        for name, members in groups.items()
    }


def _cost_ns(loaded: list[Trace]) -> dict[str, float]:
    """Nanoseconds an access, the bookkeeping of this simulation included, large and small."""
    large = max(loaded, key=lambda trace: len(set(trace.keys))).keys[:100_000]
    costs: dict[str, float] = {}
    kinds: dict[str, MakePolicy] = {"lru": LRU, "s3fifo": S3Fifo, DEFAULT: Chooser}
    for capacity in (1_000, 10_000):
        for name, kind in kinds.items():
            times: list[int] = []
            for _ in range(3):
                start = perf_counter_ns()
                simulate(kind, large, capacity)
                times.append(perf_counter_ns() - start)
            costs[f"{name}, {capacity} entries"] = min(times) / len(large)
    return costs


def main() -> None:
    """Prints the figures."""
    figures = run()
    if "absent" in figures:
        print(figures["absent"])
        return
    table = msgspec.convert(figures, _Figures)
    print(f"{'hit ratio, %':26}" + "".join(f"{name:>11}" for name in (*COMPARED, "best")))
    for cell in table.cells:
        row = [100 * cell.ratio[name] for name in COMPARED] + [100 * cell.best]
        print(f"{cell.trace + ' ' + str(cell.capacity):26}" + "".join(f"{x:11.1f}" for x in row))
    for group, means in table.means.items():
        print(f"{'% of best: ' + group:26}" + "".join(f"{means[name]:11.1f}" for name in COMPARED))
    print(f"least over LRU: {table.least_over_lru_points:.1f} points")
    for error in table.curve_errors:
        print(
            f"curve {error.trace:16}{error.policy:8}{error.share:6.1%}{error.corrected:7.2f} points, "
            f"{error.uncorrected:6.2f} without the correction"
        )
    for name, means in table.curve_error_means.items():
        print(f"curve mean, {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in means.items()))
    for name, cost in table.cost_ns.items():
        print(f"{name:26}{cost:9,.0f} ns an access")
    print(f"{table.seconds:.0f} s")


class _Figures(msgspec.Struct):
    cells: list[Cell]
    means: dict[str, dict[str, float]]
    least_over_lru_points: float
    curve_errors: list[CurveError]
    curve_error_means: dict[str, dict[str, float]]
    cost_ns: dict[str, float]
    seconds: float


if __name__ == "__main__":
    main()
