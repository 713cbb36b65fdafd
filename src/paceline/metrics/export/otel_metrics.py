"""Collected figures as metrics of OpenTelemetry: cumulative sums, and histograms from sketches.

Nothing is recorded twice: a snapshot is put into the form that is sent. Durations by the
conventions are of calls that were executed; those of results served again are apart, so that fast
hits do not hide slow executions.

A sketch cuts each power of two of nanoseconds into 64 parts of equal width, an exponential
histogram of scale 6 each power of two of seconds into 64 of equal ratio. The count of a part goes
where its middle is: the middle is within 1/128 of every value in the part, and a bucket within
0.55 % of its own middle, so quantiles are within 1.4 % of the exact ones. Counts, sums and extremes
are exact.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, Literal, final

import msgspec

from paceline.call import Kind
from paceline.errors import Category
from paceline.extras import missing
from paceline.metrics.export.called import Called
from paceline.metrics.export.names import NOT_SENT, Instrument, Kinds, Names, sendable
from paceline.metrics.figures import Series, Snapshot
from paceline.metrics.sketch import Sketch

try:
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        ExponentialHistogram,
        ExponentialHistogramDataPoint,
        Gauge,
        Histogram,
        HistogramDataPoint,
        Metric,
        MetricsData,
        NumberDataPoint,
        ResourceMetrics,
        ScopeMetrics,
        Sum,
    )
    from opentelemetry.sdk.metrics.export import Buckets as ExponentialBuckets
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
except ImportError as exc:
    raise missing("OpenTelemetry needs", "opentelemetry-sdk", "otel", NOT_SENT) from exc

__all__ = ["SCALE", "Buckets", "MetricForm", "Sheet", "Spans"]

SCALE: Final = 6
"""Of exponential histograms: 2 to this power are the buckets of each power of two."""

Buckets = Literal["exponential", "explicit"]

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_NS: Final = 1e-9
_UNKNOWN: Final = "_OTHER"
"""What the conventions call an error whose type is not told."""
_PROVIDER: Final = "provider"
_LARGEST: Final = 2**63 - 1

_Attributes = Mapping[str, str]
_Point = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint


class Spans(msgspec.Struct, frozen=True):
    """What became of spans."""

    sent: int = 0
    dropped: int = 0


@final
class MetricForm:
    """Makes metrics of snapshots of one collector, under `names`.

    `buckets` is for receivers that know no exponential histograms: with explicit ones, quantiles
    are as coarse as the bounds that the conventions advise.
    """

    def __init__(
        self,
        names: Names,
        resource: Resource,
        scope: InstrumentationScope,
        *,
        buckets: Buckets = "exponential",
    ) -> None:
        self._names = names
        self._resource = resource
        self._scope = scope
        self._buckets: Buckets = buckets
        self._start_ns = 0
        self._uptime_ns = -1

    def of(self, snapshot: Snapshot, spans: Spans | None = None) -> MetricsData:
        """All metrics at the moment of the snapshot; `spans` are the exporter's own figures."""
        sheet = self.begin(snapshot, spans)
        for series in snapshot.series:
            self.add(sheet, series)
        return self.data(sheet)

    def begin(self, snapshot: Snapshot, spans: Spans | None = None) -> "Sheet":
        """What is of no series, to `add` each of them to; for who does it bit by bit."""
        # A moment kept, since the wall clock may be moved; another one after a reset.
        if not 0 <= self._uptime_ns <= snapshot.uptime_ns:
            self._start_ns = snapshot.at_ns - snapshot.uptime_ns
        self._uptime_ns = snapshot.uptime_ns
        names = self._names
        sheet = Sheet(self._start_ns, max(snapshot.at_ns, self._start_ns), self._buckets)
        for instance, load in snapshot.loads.items():
            sheet.gauge(names.load, {names.instance: sendable(instance)}, load)
        sheet.count(names.refused, {}, snapshot.refused)
        sheet.count(names.overflowed, {}, snapshot.overflowed)
        if spans is not None:
            sheet.count(names.spans_sent, {}, spans.sent)
            sheet.count(names.spans_dropped, {}, spans.dropped)
        return sheet

    def data(self, sheet: "Sheet") -> MetricsData:
        """All that was put on the sheet."""
        scoped = ScopeMetrics(self._scope, list(sheet.metrics()), "")
        return MetricsData([ResourceMetrics(self._resource, [scoped], "")])

    def add(self, sheet: "Sheet", series: Series) -> None:
        """Puts the figures of a series on the sheet."""
        names, ever, kind = self._names, series.ever, series.kind
        at = self._attributes(series)
        sheet.up_and_down(names.active, at, series.in_flight)
        for ending, count in ever.by_ending.items():
            sheet.count(names.calls, {**at, names.ending: ending.value}, count)
        for source, count in ever.by_source.items():
            sheet.count(names.results, {**at, names.source: source.value}, count)
        for category, count in ever.by_category.items():
            if category is not Category.CANCELLED:
                sheet.count(names.errors, {**at, names.error_type: category.value}, count)
        sheet.times(names.durations[kind], at, ever.fresh)
        sheet.times(names.durations[kind], {**at, names.error_type: _UNKNOWN}, ever.failed)
        sheet.times(names.hit_duration, at, ever.hit)
        sheet.times(names.execute_duration, at, series.execute)
        sheet.times(names.queue_duration, at, series.queue)
        model = kind is Kind.MODEL
        sheet.times(names.first_chunk if model else names.first_item, at, series.first_item)
        sheet.times(names.later_chunk if model else names.later_item, at, series.between_items)
        self._add_usage(sheet, at, series)

    def _add_usage(self, sheet: "Sheet", at: _Attributes, series: Series) -> None:
        names, usage, ever = self._names, series.ever.usage, series.ever
        model = series.kind is Kind.MODEL
        of_calls: Kinds = names.model_call_tokens if model else names.call_tokens
        sketches = {"input": series.input_tokens, "output": series.output_tokens}
        for field, (metric, more) in of_calls.items():
            sheet.histogram(metric, {**at, **more}, sketches[field], 1)
        for field, (metric, more) in (names.model_tokens if model else names.tokens).items():
            sheet.count(metric, {**at, **more}, getattr(usage, field))
        sheet.count(names.cost_paid, at, float(usage.cost_usd))
        sheet.count(names.cost_raw, at, float(usage.raw_usd))
        sheet.count(names.cost_saved, at, float(usage.saved_usd))
        sheet.count(names.unpriced, at, usage.unpriced)
        sheet.count(names.time_saved, at, ever.saved_ns * _NS)

    def add_called(self, sheet: "Sheet", called: Called) -> None:
        """Puts on the sheet what agents called."""
        names = self._names
        operation = names.operations[Kind.AGENT]
        for name, made in called:
            at = {names.operation: operation.name, operation.subject: sendable(name)}
            sheet.histogram(names.inference_calls, at, made.models, 1.0)
            sheet.histogram(names.tool_calls, at, made.tools, 1.0)

    def _attributes(self, series: Series) -> _Attributes:
        names = self._names
        operation = names.operations[series.kind]
        said = {names.operation: operation.name, operation.subject: sendable(series.name)}
        for label, value in series.labels.items():
            name = names.provider if label == _PROVIDER else names.label + sendable(label)
            said[name] = sendable(value)
        return said


@final
class Sheet:
    """Points by metric; what was never counted has none."""

    def __init__(self, start_ns: int, now_ns: int, buckets: Buckets) -> None:
        self._start_ns = start_ns
        self._now_ns = now_ns
        self._buckets = buckets
        self._points: dict[Instrument, tuple[str, list[_Point]]] = {}

    def count(self, metric: Instrument, attributes: _Attributes, value: float) -> None:
        """What only grows."""
        if value > 0:
            self._number("sum", metric, attributes, value)

    def up_and_down(self, metric: Instrument, attributes: _Attributes, value: int) -> None:
        """What grows and shrinks, and can be added up."""
        self._number("level", metric, attributes, value)

    def gauge(self, metric: Instrument, attributes: _Attributes, value: float) -> None:
        """What cannot be added up."""
        self._number("gauge", metric, attributes, value)

    def times(self, metric: Instrument, attributes: _Attributes, sketch: Sketch) -> None:
        """The distribution of times in nanoseconds, in seconds."""
        self.histogram(metric, attributes, sketch, _NS)

    def histogram(
        self, metric: Instrument, attributes: _Attributes, sketch: Sketch, unit: float
    ) -> None:
        """The distribution of values, each of which is so many units."""
        if sketch.count:
            make = self._exponential if self._buckets == "exponential" else self._explicit
            self._put("histogram", metric, make(metric, attributes, sketch, unit))

    def metrics(self) -> Iterator[Metric]:
        """All that was put here."""
        for metric, (kind, points) in self._points.items():
            yield Metric(metric.name, metric.description, metric.unit, self._data(kind, points))

    def _data(
        self, kind: str, points: list[_Point]
    ) -> Sum | Gauge | Histogram | ExponentialHistogram:
        if kind == "histogram":
            if self._buckets == "exponential":
                exponential = [p for p in points if isinstance(p, ExponentialHistogramDataPoint)]
                return ExponentialHistogram(exponential, _CUMULATIVE)
            explicit = [p for p in points if isinstance(p, HistogramDataPoint)]
            return Histogram(explicit, _CUMULATIVE)
        numbers = [p for p in points if isinstance(p, NumberDataPoint)]
        return Gauge(numbers) if kind == "gauge" else Sum(numbers, _CUMULATIVE, kind == "sum")

    def _number(self, kind: str, metric: Instrument, attributes: _Attributes, value: float) -> None:
        fits = min(value, _LARGEST) if isinstance(value, int) else value
        self._put(kind, metric, NumberDataPoint(attributes, self._start_ns, self._now_ns, fits))

    def _put(self, kind: str, metric: Instrument, point: _Point) -> None:
        self._points.setdefault(metric, (kind, []))[1].append(point)

    def _exponential(
        self, _: Instrument, attributes: _Attributes, sketch: Sketch, unit: float
    ) -> ExponentialHistogramDataPoint:
        counts: dict[int, int] = {}
        for low, high, count in sketch.buckets():
            place = _place(low, high, unit)
            counts[place] = counts.get(place, 0) + count
        first, last = min(counts, default=0), max(counts, default=-1)
        return ExponentialHistogramDataPoint(
            attributes,
            self._start_ns,
            self._now_ns,
            sketch.count,
            sketch.sum * unit,
            SCALE,
            sketch.zeros,
            ExponentialBuckets(first, [counts.get(n, 0) for n in range(first, last + 1)]),
            ExponentialBuckets(0, []),
            0,
            (sketch.min or 0) * unit,
            (sketch.max or 0) * unit,
        )

    def _explicit(
        self, metric: Instrument, attributes: _Attributes, sketch: Sketch, unit: float
    ) -> HistogramDataPoint:
        counts = [0] * (len(metric.bounds) + 1)
        counts[0] = sketch.zeros
        for low, high, count in sketch.buckets():
            counts[bisect_left(metric.bounds, (low + high) / 2 * unit)] += count
        return HistogramDataPoint(
            attributes,
            self._start_ns,
            self._now_ns,
            sketch.count,
            sketch.sum * unit,
            counts,
            metric.bounds,
            (sketch.min or 0) * unit,
            (sketch.max or 0) * unit,
        )


@lru_cache(maxsize=8_192)
def _place(low: float, high: float, unit: float) -> int:
    """The bucket of an exponential histogram for the middle of a part.

    Bucket i is above 2**(i / 2**SCALE), and up to 2**((i + 1) / 2**SCALE).
    """
    return math.ceil(math.log2((low + high) / 2 * unit) * 2**SCALE) - 1
