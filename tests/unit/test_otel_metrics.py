"""Metrics of OpenTelemetry made of snapshots."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from paceline.call import Kind, Source
from paceline.errors import Category
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.export.names import GENERATIONS, Generation
from paceline.metrics.export.otel_metrics import SCALE, Buckets, MetricForm, Spans
from paceline.metrics.figures import Usage
from paceline.testing.virtual_time import VirtualClock

WORST = 0.014
"""What quantiles of an exponential histogram are promised to be within."""

times_ns = st.integers(1, 10**13)


def a_form(buckets: Buckets = "exponential", names: Generation = "util-genai-1.3") -> MetricForm:
    """What makes metrics, for a service of no name."""
    scope = InstrumentationScope("paceline")
    return MetricForm(GENERATIONS[names], Resource({}), scope, buckets=buckets)


def points(form: MetricForm, collector: MetricsCollector) -> dict[str, list[Any]]:
    """The points of each metric, by its name."""
    data = form.of(collector.snapshot(), Spans(3, 2))
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    assert len({metric.name for metric in metrics}) == len(metrics)
    return {metric.name: list(metric.data.data_points) for metric in metrics}


def add(collector: MetricsCollector, took_ns: int, **known: Any) -> None:
    """A call that took so long."""
    name, source = known.pop("name", "web"), known.pop("source", Source.EXECUTED)
    collector.add(
        name,
        source=source,
        category=known.pop("category", None),
        queue_ns=known.pop("queue_ns", 0),
        execute_ns=0 if source.cached else took_ns,
        total_ns=took_ns,
        **known,
    )


def quantile(point: Any, q: float) -> float:
    """As a receiver would say: the middle of the bucket with the value of that rank."""
    rank = max(1, math.ceil(q * point.count))
    if rank == point.count:
        return float(point.max)
    seen = point.zero_count
    for place, count in enumerate(point.positive.bucket_counts, point.positive.offset):
        seen += count
        if seen >= rank:
            low = 2.0 ** (place / 2**point.scale)
            high = 2.0 ** ((place + 1) / 2**point.scale)
            middle = (low + high) / 2
            return float(min(max(middle, point.min), point.max))
    raise AssertionError("there are fewer values than counted")


@given(st.lists(times_ns, min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_survive(values: list[int], q: float) -> None:
    """Quantiles of what is sent are within 1.4 % of the exact ones; counts, sums and extremes are
    exact. (P-06)"""
    collector = MetricsCollector(clock=VirtualClock())
    for value in values:
        add(collector, value)
    (point,) = points(a_form(), collector)["gen_ai.invoke_agent.duration"]
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1] / 1e9
    assert quantile(point, q) == pytest.approx(exact, rel=WORST)
    assert point.scale == SCALE
    assert point.count == len(values) == sum(point.positive.bucket_counts) + point.zero_count
    assert point.sum == pytest.approx(sum(values) / 1e9)
    assert (point.min, point.max) == pytest.approx((min(values) / 1e9, max(values) / 1e9))


def test_no_time_at_all_is_counted_as_such() -> None:
    """Calls that took no time are in the bucket of zero, and need no other."""
    collector = MetricsCollector(clock=VirtualClock())
    add(collector, 0)
    (point,) = points(a_form(), collector)["gen_ai.invoke_agent.duration"]
    assert (point.count, point.zero_count, list(point.positive.bucket_counts)) == (1, 1, [])


@given(st.lists(times_ns, min_size=1, max_size=100))
def test_explicit_buckets_count_right(values: list[int]) -> None:
    """With explicit buckets, each value is in the bucket that its bounds say, but for those within
    one per cent of a bound; the bounds are those of the conventions. (P-06)"""
    collector = MetricsCollector(clock=VirtualClock())
    for value in values:
        add(collector, value)
    form = a_form("explicit")
    (point,) = points(form, collector)["gen_ai.invoke_agent.duration"]
    names = GENERATIONS["util-genai-1.3"]
    assert tuple(point.explicit_bounds) == names.durations[Kind.AGENT].bounds
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert sum(point.bucket_counts) == point.count == len(values)
    for at, bound in enumerate(point.explicit_bounds):
        below = sum(point.bucket_counts[: at + 1])
        assert below >= len([v for v in values if v / 1e9 <= bound * 0.99])
        assert below <= len([v for v in values if v / 1e9 <= bound * 1.01])


def test_results_served_again_are_apart() -> None:
    """Durations by the conventions are of executed calls, failed ones told apart; hits have a
    metric of their own; each way of ending is counted once. (S0-17, V-31)"""
    collector = MetricsCollector(clock=VirtualClock())
    add(collector, 10**9)
    add(collector, 10**3, source=Source.HOT)
    add(collector, 10**8, category=Category.NETWORK)
    add(collector, 10**8, category=Category.TIMEOUT)
    add(collector, 10**8, category=Category.CANCELLED)
    found = points(a_form(), collector)
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "web"}
    durations = found["gen_ai.invoke_agent.duration"]
    assert [(each.attributes, each.count) for each in durations] == [
        (agent, 1),
        ({**agent, "error.type": "_OTHER"}, 2),
    ]
    assert [each.count for each in found["paceline.hit.duration"]] == [1]
    endings = {
        each.attributes["paceline.call.ending"]: each.value for each in found["paceline.call.count"]
    }
    assert endings == {"success": 2, "error": 1, "timeout": 1, "cancelled": 1}
    errors = {each.attributes["error.type"]: each.value for each in found["paceline.call.errors"]}
    assert errors == {"network": 1, "timeout": 1}
    sources = {
        each.attributes["paceline.cache.source"]: each.value
        for each in found["paceline.call.results"]
    }
    assert sources == {"executed": 4, "hot": 1}
    assert [each.value for each in found["paceline.export.sent"]] == [3]
    assert [each.value for each in found["paceline.export.dropped"]] == [2]


def test_everything_is_cumulative() -> None:
    """Sums and histograms say that they are cumulative, since when and until when, and which only
    grow; a number in flight may shrink. (P-06)"""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    began_ns = clock.wall_ns()
    clock.advance(7)
    add(collector, 10**9)
    data = a_form().of(collector.snapshot())
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        assert not isinstance(metric.data, Gauge)
        assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
        if isinstance(metric.data, Sum):
            assert metric.data.is_monotonic is (metric.name != "paceline.call.active")
        for point in metric.data.data_points:
            assert point.start_time_unix_nano == began_ns
            assert point.time_unix_nano == clock.wall_ns()


def test_the_start_is_kept_until_a_reset() -> None:
    """The moment that sums begin at stays the same, even where the wall clock is moved, until the
    collector forgets what it has."""
    clock = VirtualClock()
    collector = MetricsCollector(clock=clock)
    form = a_form()
    add(collector, 10**9)

    def start_ns(moved_ns: int = 0) -> int:
        snapshot = collector.snapshot()
        moved = msgspec.structs.replace(snapshot, at_ns=snapshot.at_ns + moved_ns)
        metrics = form.of(moved).resource_metrics[0].scope_metrics[0].metrics
        return int(metrics[0].data.data_points[0].start_time_unix_nano)

    first = start_ns()
    clock.advance(60)
    assert start_ns(moved_ns=5 * 10**9) == first
    collector.reset()
    add(collector, 10**9)
    assert start_ns() == clock.wall_ns()


@pytest.mark.parametrize(
    ("names", "per_call", "totals"),
    [
        (
            "util-genai-1.3",
            {
                ("gen_ai.client.token.usage", "input"): 140,
                ("gen_ai.client.token.usage", "output"): 7,
            },
            {
                ("paceline.token.usage", "input"): 140,
                ("paceline.token.usage", "output"): 7,
                ("paceline.token.usage", "cached_input"): 30,
            },
        ),
        (
            "genai-main",
            {
                ("gen_ai.client.inference.operation.input_tokens", ""): 140,
                ("gen_ai.client.inference.operation.output_tokens", ""): 7,
            },
            {
                ("gen_ai.client.inference.usage.input_tokens", ""): 140,
                ("gen_ai.client.inference.usage.output_tokens", ""): 7,
                ("gen_ai.client.inference.usage.cache_read.input_tokens", ""): 30,
            },
        ),
    ],
)
def test_tokens_of_models(
    names: Generation, per_call: dict[tuple[str, str], int], totals: dict[tuple[str, str], int]
) -> None:
    """Tokens of models are told in total, by kind, and as distributions over calls, under the
    names of the generation chosen. (P-06, S0-26)"""
    collector = MetricsCollector(clock=VirtualClock())
    for usage in (Usage(100, 2, 30, cost_usd=0.5, raw_usd=0.75), Usage(40, 5)):
        add(collector, 10**9, name="large", kind=Kind.MODEL, usage=usage)
    add(
        collector, 10**6, name="large", kind=Kind.MODEL, source=Source.HOT, usage=Usage(saved_usd=2)
    )
    found = points(a_form(names=names), collector)

    def kind(point: Any) -> str:
        said = point.attributes
        return str(said.get("gen_ai.token.type", said.get("paceline.token.type", "")))

    assert {
        (name, kind(point)): point.sum
        for name in {name for name, _ in per_call}
        for point in found[name]
    } == per_call
    assert {point.count for name, _ in per_call for point in found[name]} == {2}
    assert {
        (name, kind(point)): point.value
        for name in {name for name, _ in totals}
        for point in found[name]
    } == totals
    assert [point.value for point in found["paceline.cost.paid"]] == [0.5]
    assert [point.value for point in found["paceline.cost.raw"]] == [0.75]
    assert [point.value for point in found["paceline.cost.saved"]] == [2.0]


def test_tokens_of_agents_are_not_those_of_models() -> None:
    """What an agent's model calls used in all is not under the names of model calls, so that no
    token is counted twice. (S0-26)"""
    collector = MetricsCollector(clock=VirtualClock())
    add(collector, 10**9, usage=Usage(100, 2))
    for names in GENERATIONS:
        found = points(a_form(names=names), collector)
        assert not [name for name in found if name.startswith("gen_ai.client.")]
        assert sum(point.value for point in found["paceline.token.usage"]) == 102
        assert sum(point.sum for point in found["paceline.call.tokens"]) == 102
    add(collector, 10**9, name="other", usage=Usage(40, 3))
    totals = collector.snapshot().totals
    assert [(s.count, s.sum) for s in (totals.input_tokens, totals.output_tokens)] == [
        (2, 140),
        (2, 5),
    ]


def test_streams_of_models_have_the_names_of_the_conventions() -> None:
    """Times to the first chunk and between chunks are by the conventions for models, and our own
    for what else streams. (P-06)"""
    collector = MetricsCollector(clock=VirtualClock())
    for name, kind in (("large", Kind.MODEL), ("web", Kind.AGENT)):
        collector.series(name, kind).streamed(2 * 10**8, [10**7, 10**7])
    found = points(a_form(), collector)
    for first, later in (
        (
            "gen_ai.client.operation.time_to_first_chunk",
            "gen_ai.client.operation.time_per_output_chunk",
        ),
        ("paceline.stream.time_to_first_item", "paceline.stream.time_per_item"),
    ):
        assert [(p.count, p.sum) for p in found[first]] == [(1, pytest.approx(0.2))]
        assert [(p.count, p.sum) for p in found[later]] == [(2, pytest.approx(0.02))]


def test_labels_are_attributes() -> None:
    """A label is an attribute of ours; the provider's is that of the conventions."""
    collector = MetricsCollector(clock=VirtualClock())
    labels = {"provider": "maker", "region": "\ud800north"}
    add(collector, 10**9, name="large", kind=Kind.MODEL, labels=labels)
    (point,) = points(a_form(), collector)["gen_ai.client.operation.duration"]
    assert point.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "large",
        "gen_ai.provider.name": "maker",
        "paceline.label.region": "?north",
    }


def test_what_is_in_flight_and_how_full_instances_are() -> None:
    """Calls in flight and the load of instances are told as they are now. (K-02)"""
    collector = MetricsCollector(clock=VirtualClock())
    collector.series("web").running["x"] = 0
    snapshot = msgspec.structs.replace(collector.snapshot(), loads={"local:1": 0.5})
    metrics = a_form().of(snapshot).resource_metrics[0].scope_metrics[0].metrics
    found = {metric.name: metric.data.data_points[0] for metric in metrics}
    assert found["paceline.call.active"].value == 1  # type: ignore[union-attr]
    assert found["paceline.instance.load"].value == 0.5  # type: ignore[union-attr]
    assert found["paceline.instance.load"].attributes == {"paceline.instance": "local:1"}


@given(st.lists(times_ns, min_size=20, max_size=100, unique=True))
def test_counts_put_one_bucket_off_are_found(values: list[int]) -> None:
    """The law of quantiles fails for histograms whose counts are four buckets off."""
    collector = MetricsCollector(clock=VirtualClock())
    for value in values:
        add(collector, value)
    (point,) = points(a_form(), collector)["gen_ai.invoke_agent.duration"]
    assert not isinstance(point, Histogram)
    positive = point.positive
    moved = type(positive)(positive.offset + 4, positive.bucket_counts)
    wrong = type(point)(**{**vars(point), "positive": moved})
    exact = sorted(values)[math.ceil(0.5 * len(values)) - 1] / 1e9
    assert quantile(wrong, 0.5) != pytest.approx(exact, rel=WORST)
