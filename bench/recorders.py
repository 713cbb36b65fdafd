"""What values can be recorded in: ours, its peers, and what was there before.

Each is made anew by its function, records nanoseconds, and tells quantiles where it can. Peers
need an environment of their own, see `bench/peers.py`.
"""

import bisect
import importlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from paceline.call import Source
from paceline.clock import SystemClock
from paceline.metrics.cell import Cell
from paceline.metrics.figures import Ending
from paceline.metrics.sketch import Sketch

__all__ = ["APPEND", "CELL", "CELL_APART", "OWN", "PEERS", "SKETCH", "SORTED", "Recorder"]

APPEND: Final = "limit: list.append"
CELL: Final = "paceline: a call, with its windows"
CELL_APART: Final = "paceline: the same, not all of it in the agent"
SKETCH: Final = "paceline: Sketch.add"
SORTED: Final = "append, and sort on every update"

_NS: Final = 1e-9
_BOUNDS_S: Final = tuple(0.01 * 2**n for n in range(14))
"""Bounds that the GenAI conventions advise for durations."""


class Recorder(NamedTuple):
    """How one candidate is used. `merge` adds the values of another of its kind."""

    record: Callable[[int], object]
    quantile: Callable[[float], float | None] | None = None
    merge: Callable[[Any], object] | None = None
    state: Any = None


def _append() -> Recorder:
    kept: list[int] = []
    return Recorder(kept.append, state=kept)


def _cell() -> Recorder:
    clock = SystemClock()
    cell = Cell(Source.EXECUTED, None, Ending.SUCCESS, clock)
    note, end_ns = cell.note, clock.monotonic_ns()

    def quantile(q: float) -> float | None:
        return cell.read(clock.monotonic_ns()).sums[-1].times.quantile(q)

    return Recorder(lambda ns: note(end_ns, ns, ns, 0, 0), quantile, state=cell)


def _cell_apart() -> Recorder:
    clock = SystemClock()
    cell = Cell(Source.EXECUTED, None, Ending.SUCCESS, clock)
    note, end_ns = cell.note, clock.monotonic_ns()
    return Recorder(lambda ns: note(end_ns, ns + 900, ns, 0, 0), state=cell)


def _sketch() -> Recorder:
    sketch = Sketch()
    return Recorder(sketch.add, sketch.quantile, sketch.merge, sketch)


def _sorted() -> Recorder:
    """As naive percentiles do: p50, p95 and p99 of a sorted copy, at every update."""
    kept: list[int] = []

    def record(ns: int) -> None:
        kept.append(ns)
        ordered = sorted(kept)
        for q in (0.5, 0.95, 0.99):
            ordered[int(len(ordered) * q)]

    return Recorder(record, state=kept)


def _ddsketch() -> Recorder:
    sketch = importlib.import_module("ddsketch").DDSketch(0.01)
    return Recorder(sketch.add, sketch.get_quantile_value, sketch.merge, sketch)


def _hdrhistogram() -> Recorder:
    hdrh = importlib.import_module("hdrh.histogram")
    histogram = hdrh.HdrHistogram(1, 24 * 3_600 * 10**9, 2)
    return Recorder(
        histogram.record_value,
        lambda q: float(histogram.get_value_at_percentile(100 * q)),
        histogram.add,
        histogram,
    )


def _fastdigest() -> Recorder:
    digest = importlib.import_module("fastdigest").TDigest()
    return Recorder(digest.update, digest.quantile, digest.merge_inplace, digest)


def _prometheus() -> Recorder:
    client = importlib.import_module("prometheus_client")
    registry = client.CollectorRegistry()
    histogram = client.Histogram("t", "t", registry=registry, buckets=_BOUNDS_S)
    observe = histogram.observe

    def quantile(q: float) -> float:
        samples = next(iter(histogram.collect())).samples
        counts = [sample.value for sample in samples if sample.name.endswith("_bucket")]
        return _interpolated(_BOUNDS_S, [b - a for a, b in itertools.pairwise([0, *counts])], q)

    return Recorder(lambda ns: observe(ns * _NS), quantile, state=histogram)


def _opentelemetry() -> Recorder:
    sdk = importlib.import_module("opentelemetry.sdk.metrics")
    reader = importlib.import_module("opentelemetry.sdk.metrics.export").InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])
    histogram = provider.get_meter("bench").create_histogram(
        "t", "s", explicit_bucket_boundaries_advisory=_BOUNDS_S
    )
    labels = {"a": "x", "b": "y", "c": "z", "d": "w"}

    def quantile(q: float) -> float:
        data: Any = reader.get_metrics_data()
        point = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
        return _interpolated(_BOUNDS_S, point.bucket_counts, q)

    return Recorder(lambda ns: histogram.record(ns * _NS, labels), quantile, state=provider)


def _interpolated(bounds_s: Sequence[float], counts: Sequence[float], q: float) -> float:
    """As PromQL's histogram_quantile: on a straight line within a bucket, at most the last bound."""
    sums = list(itertools.accumulate(counts))
    rank = q * sums[-1]
    at = bisect.bisect_left(sums, rank)
    if at >= len(bounds_s):
        return bounds_s[-1] / _NS
    low = bounds_s[at - 1] if at else 0.0
    before = sums[at - 1] if at else 0
    share = (rank - before) / counts[at] if counts[at] else math.nan
    return (low + (bounds_s[at] - low) * share) / _NS


OWN: Final[dict[str, Callable[[], Recorder]]] = {
    APPEND: _append,
    CELL: _cell,
    CELL_APART: _cell_apart,
    SKETCH: _sketch,
    SORTED: _sorted,
}
PEERS: Final[dict[str, Callable[[], Recorder]]] = {
    "fastdigest": _fastdigest,
    "ddsketch": _ddsketch,
    "hdrhistogram": _hdrhistogram,
    "prometheus-client, 14 buckets": _prometheus,
    "OpenTelemetry SDK, 14 buckets, 4 attributes": _opentelemetry,
}
