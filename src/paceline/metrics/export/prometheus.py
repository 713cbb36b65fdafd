"""Collected figures in the text formats of Prometheus, through its own client library.

What the library is given is made of a snapshot when somebody asks: calls know nothing of it, and
nothing is kept in its global registry. Needs the extra `paceline[prometheus]`.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, Literal, NamedTuple, cast, final

from paceline.extras import missing
from paceline.metrics.export.families import (
    BOUNDS_S,
    DURATION,
    NATIVE,
    Distribution,
    Family,
    Labels,
    Quantiles,
    Type,
    Value,
    label_value,
    result_of,
    sheet,
)
from paceline.metrics.export.sel import SEL, sel_sheet
from paceline.metrics.figures import Snapshot
from paceline.metrics.span import Span

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import Metric
    from prometheus_client.openmetrics.exposition import ALLOWUTF8, DOTS, VALUES
    from prometheus_client.samples import Exemplar, Sample
except ImportError as exc:
    raise missing("metrics for Prometheus need", "prometheus-client", "prometheus") from exc

__all__ = ["Exposition", "FigureCollector", "Names", "Page"]

Names = Literal["native", "sel"]
"""`sel` tells the names of the earlier service beside the native ones."""

_LE: Final = (*[f"{bound}" for bound in BOUNDS_S], "+Inf")
_LONGEST_ID: Final = 56
"""Characters of an id that is told: an exemplar has 128 for two of them and their names."""
_OPEN: Final = "application/openmetrics-text"

_PAUSE_S: Final = 0.0001
_LINES: Final = 100
"""From one pause to the next."""

Pause = Callable[[float], object]
_Exemplars = Mapping[tuple[Labels, int], Exemplar]


class Page(NamedTuple):
    """What is answered to a scrape."""

    body: bytes
    content_type: str


@final
class FigureCollector:
    """A collector as prometheus-client has them, for any registry; its figures are those of the
    moment it is asked.

    `spans` gives recent calls, the newest last: for each bucket of the durations the latest is told
    as its exemplar, by `trace_id` and `call_id`. `created` tells since when is counted, with each
    counter and histogram; OpenMetrics has a place for that, the older text format has none.
    """

    def __init__(
        self,
        read: Callable[[], Snapshot],
        *,
        version: str,
        spans: Callable[[], Iterable[Span]] | None = None,
        names: Names = "native",
        created: bool = False,
        pause: Pause = time.sleep,
    ) -> None:
        self._read = read
        self._pause = pause
        self._version = version
        self._spans = spans
        self._sel = names == "sel"
        self._created = created

    def describe(self) -> Iterator[Metric]:
        """The metrics, without figures."""
        for family in (*NATIVE, *(SEL if self._sel else ())):
            yield _metric(family)

    def collect(self) -> Iterator[Metric]:
        """The metrics and their figures."""
        snapshot = self._read()
        exemplars = _exemplars(self._spans()) if self._spans is not None else {}
        created_s = snapshot.started_ns / 1e9 if self._created else None
        found = sheet(snapshot, version=self._version)
        if self._sel:
            found |= sel_sheet(snapshot)
        for family, values in found.items():
            if values:
                metric = _metric(family)
                samples = _Samples(
                    family,
                    values,
                    exemplars=exemplars if family is DURATION else {},
                    created_s=created_s,
                    pause=self._pause,
                )
                metric.samples = cast("list[Sample]", samples)
                yield metric


@final
class Exposition:
    """The pages that a Prometheus server scrapes, each made when it is asked for, on any thread."""

    def __init__(
        self,
        read: Callable[[], Snapshot],
        *,
        version: str,
        spans: Callable[[], Iterable[Span]] | None = None,
        names: Names = "native",
    ) -> None:
        """`read` takes the figures, `version` is ours; `spans` as `FigureCollector` has it."""
        self._read = read
        self._version = version
        self._spans = spans
        self._names: Names = names

    def page(self, accept: str = "") -> Page:
        """In the format that a header `Accept` prefers; plain text, version 0.0.4, if none."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # its version is no number
            encode, content_type = choose_encoder("")
        is_open = content_type.startswith(_OPEN)
        registry = CollectorRegistry()
        registry.register(
            FigureCollector(
                self._read,
                version=self._version,
                spans=self._spans if is_open else None,
                names=self._names,
                created=is_open,
            )
        )
        if not content_type.endswith((DOTS, VALUES)):  # these change even plain names
            # No name of ours needs escaping; being told so spares the library a look at every
            # character of every line, which is half of all the work.
            encode = partial(cast("Callable[..., bytes]", encode), escaping=ALLOWUTF8)
        return Page(encode(registry), content_type)


def _metric(family: Family) -> Metric:
    name = family.name.removesuffix("_total").removesuffix("_info")
    unit = "seconds" if name.endswith("_seconds") else ""
    return Metric(name, family.help, family.type.value, unit)


@final
class _Samples:
    """The samples of one metric, each made when the encoder comes to it.

    A thousand series have a hundred thousand samples: kept all at once, they would have the garbage
    collector stop every thread for the better part of a second. For the same reason there is a
    `pause` every few samples: others get to run sooner than the interpreter would have them.
    """

    def __init__(
        self,
        family: Family,
        values: Mapping[Labels, Value],
        *,
        exemplars: _Exemplars,
        created_s: float | None,
        pause: Pause,
    ) -> None:
        self._family = family
        self._values = values
        self._exemplars = exemplars
        self._created_s = created_s if family.type in (Type.COUNTER, Type.HISTOGRAM) else None
        self._pause = pause
        self._name = _metric(family).name

    def __iter__(self) -> Iterator[Sample]:
        every = _LINES // (len(_LE) if self._family.type is Type.HISTOGRAM else 1)
        for number, (labels, value) in enumerate(self._values.items(), 1):
            if isinstance(value, Distribution):
                yield from self._distribution(labels, value)
            elif isinstance(value, Quantiles):
                yield from self._quantiles(dict(labels), value)
            else:
                yield Sample(self._family.name, dict(labels), value)
            if self._created_s is not None:
                yield Sample(f"{self._name}_created", dict(labels), self._created_s)
            if number % every == 0:
                self._pause(_PAUSE_S)

    def _distribution(self, labels: Labels, value: Distribution) -> Iterator[Sample]:
        bucket, common = f"{self._name}_bucket", dict(labels)
        for place, (le, count) in enumerate(zip(_LE, value.counts, strict=True)):
            exemplar = self._exemplars.get((labels, place)) if self._exemplars else None
            yield Sample(bucket, {**common, "le": le}, count, exemplar=exemplar)
        yield Sample(f"{self._name}_count", common, value.counts[-1])
        yield Sample(f"{self._name}_sum", common, value.sum)

    def _quantiles(self, common: dict[str, str], value: Quantiles) -> Iterator[Sample]:
        for q, quantile in value.quantiles:
            yield Sample(self._name, {**common, "quantile": f"{q}"}, quantile)
        yield Sample(f"{self._name}_count", common, value.calls)
        yield Sample(f"{self._name}_sum", common, value.sum)


def _exemplars(spans: Iterable[Span]) -> dict[tuple[Labels, int], Exemplar]:
    """The latest call in each bucket of the durations. What labels of a user's own a call had is
    not known: calls stand for the series without any."""
    found: dict[tuple[Labels, int], Exemplar] = {}
    for span in spans:
        result = result_of(span.source, span.ending)
        ids = {"trace_id": span.trace_id, "call_id": span.id}
        told = {k: v for k, v in ids.items() if 0 < len(v) <= _LONGEST_ID and v.isascii()}
        if result is None or not told:
            continue
        labels = (("agent", label_value(span.name)), ("kind", span.kind.value), ("result", result))
        took_s = span.took_ns / 1e9
        place = bisect_left(BOUNDS_S, took_s)
        found[labels, place] = Exemplar(told, took_s, span.end_ns / 1e9)
    return found
