"""The pages that a Prometheus server gets, read back by the parsers of its client library."""

import builtins
import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis.strategies as st
import msgspec
import prometheus_client
import pytest
from hypothesis import given, settings
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from paceline.call import Call, Kind, Outcome, Source
from paceline.errors import CallTimeoutError, Category, ConfigError
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.export.families import NATIVE
from paceline.metrics.export.prometheus import Exposition, FigureCollector, Page
from paceline.metrics.export.recent import Recent
from paceline.metrics.figures import Ending
from paceline.metrics.span import Span
from paceline.testing.history_suite import a_call
from paceline.testing.virtual_time import VirtualClock
from tests.exported import MS, busy, weird
from tests.prometheus_server import promtool

OPEN = "application/openmetrics-text; version=1.0.0"
SERVER = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"""What a Prometheus server of version 2.42 asks for."""


def exposition(collector: MetricsCollector, **options: Any) -> Exposition:
    return Exposition(collector.snapshot, version="1.2.3", **options)


def parsed(page: Page) -> dict[str, Metric]:
    """The metrics of a page by name; no sample is there twice."""
    parse: Callable[[str], Iterable[Metric]] = (
        parse_open if page.content_type.startswith("application/openmetrics") else parse_text
    )
    metrics = list(parse(page.body.decode()))
    samples = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for metric in metrics
        for sample in metric.samples
    ]
    assert len(set(samples)) == len(samples)
    assert len({metric.name for metric in metrics}) == len(metrics)
    return {metric.name: metric for metric in metrics}


def value(metrics: dict[str, Metric], name: str, **labels: str) -> float:
    """The one sample with these labels."""
    found = [
        sample.value
        for metric in metrics.values()
        for sample in metric.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(found) == 1, (name, labels)
    return float(found[0])


@pytest.mark.parametrize("accept", ["", OPEN])
def test_the_parsers_read_every_figure(accept: str) -> None:
    """Both formats are read back by the client library with types, help and exact values.
    (S0-25)"""
    page = exposition(busy()).page(accept)
    metrics = parsed(page)
    types = {metric.name: metric.type for metric in metrics.values()}
    assert types["paceline_calls"] == "counter"
    assert types["paceline_call_duration_seconds"] == "histogram"
    assert types["paceline_in_flight"] == "gauge"
    assert all(metric.documentation for metric in metrics.values())
    web = {"agent": "web", "kind": "agent"}
    executed = {"source": "executed", "ending": "success"}
    assert value(metrics, "paceline_calls_total", **web, **executed) == 10
    assert value(metrics, "paceline_cost_usd_total", **web) == 5
    assert value(metrics, "paceline_build_info", version="1.2.3") == 1
    duration, fresh = "paceline_call_duration_seconds", {"result": "fresh"}
    assert value(metrics, f"{duration}_count", **web, **fresh) == 10
    assert value(metrics, f"{duration}_sum", **web, **fresh) == pytest.approx(5.51)
    assert value(metrics, f"{duration}_bucket", **web, **fresh, le="0.32") == 3
    assert value(metrics, f"{duration}_bucket", **web, **fresh, le="+Inf") == 10


def test_a_native_name_for_every_metric() -> None:
    """What is told is what the table of names has, all of it. (S0-25)"""
    collector = busy()
    text = exposition(collector).page().body.decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    table = {family.name for family in NATIVE}
    assert names == table - {"paceline_instance_load_ratio"}  # nobody said how full one is


@pytest.mark.parametrize("accept", ["", OPEN])
@pytest.mark.parametrize("collector", [busy, weird, MetricsCollector])
def test_names_of_any_kind_are_read(collector: Callable[[], MetricsCollector], accept: str) -> None:
    """Quotes, ends of lines, control characters, emoji, names of thousands of characters and none
    at all make no page that cannot be read. (S0-25)"""
    metrics = parsed(exposition(collector()).page(accept))
    calls = metrics.get("paceline_calls")
    total = sum(one.value for one in calls.samples if one.name.endswith("_total")) if calls else 0
    assert total == collector().snapshot().totals.ever.calls


@pytest.mark.parametrize("collector", [busy, weird, MetricsCollector])
def test_promtool_has_no_complaint(collector: Callable[[], MetricsCollector]) -> None:
    """Prometheus' own checker reads the page and finds nothing to improve in its names. (S0-25)"""
    said = promtool("check", "metrics", given=exposition(collector()).page().body)
    assert (said.returncode, said.stdout, said.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "seeded",
    [
        (b"# HELP paceline_in_flight", b"# HELP paceline_nothing"),
        (b"paceline_calls_total", b"paceline_calls"),
        (b'agent="web"', b'agent="we"b"'),
        (b"_seconds", b"_ms"),
    ],
)
def test_promtool_finds_what_is_wrong(seeded: tuple[bytes, bytes]) -> None:
    """The checker complains of a metric without help, a counter or unit that is not named as one,
    and a label that is not escaped: so it would of ours."""
    body = exposition(busy()).page().body.replace(*seeded)
    assert promtool("check", "metrics", given=body).returncode != 0


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=20),
            st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
            st.integers(0, 10**12),
            st.sampled_from([None, *Category]),
        ),
        max_size=8,
    ),
    st.sampled_from(["", OPEN]),
)
def test_whatever_is_called_is_told(
    calls: list[tuple[str, dict[str, str], int, Category | None]], accept: str
) -> None:
    """Calls of any name, with any labels, are read back, none twice and none lost. (S0-25)"""
    collector = MetricsCollector(clock=VirtualClock())
    for name, labels, took_ns, category in calls:
        collector.add(
            name, source=Source.EXECUTED, category=category, queue_ns=0, execute_ns=took_ns,
            total_ns=took_ns, labels=labels,
        )  # fmt: skip
    metrics = parsed(exposition(collector).page(accept))
    found = metrics["paceline_calls"].samples if calls else []
    assert sum(one.value for one in found if one.name.endswith("_total")) == len(calls)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml;q=0.9", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (SERVER, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("\N{PARTY POPPER};;==,,", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_that_is_asked_for(accept: str, content_type: str) -> None:
    """Whoever asks for OpenMetrics gets that, all others the text of version 0.0.4, whatever they
    ask for. (E-10, S0-25)"""
    page = exposition(busy()).page(accept)
    assert page.content_type.startswith(content_type)
    assert page.body.endswith(b"# EOF\n") == content_type.startswith("application")
    assert parsed(page)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        OPEN,
        "text/plain;version=1.0.0;escaping=dots",
        f"{OPEN};escaping=values",
        f"{OPEN};escaping=allow-utf-8",
    ],
)
def test_the_library_writes_the_page(accept: str) -> None:
    """The page is what the client library itself writes of our collector for that `Accept`.
    (S0-25)"""
    snapshot = busy(VirtualClock()).snapshot()
    for names in ("native", "sel"):
        figures = FigureCollector(
            lambda: snapshot,
            version="1",
            names=names,
            created="openmetrics" in accept,
        )
        registry = prometheus_client.CollectorRegistry()
        registry.register(figures)
        encode, content_type = choose_encoder(accept)
        ours = Exposition(lambda: snapshot, version="1", names=names)
        assert ours.page(accept) == (encode(registry), content_type)


def test_a_reset_is_another_beginning() -> None:
    """OpenMetrics tells with each counter and histogram since when it counts: the same moment until
    a reset, then another; text, which has no place for that, tells it once. (S0-25)"""
    clock = VirtualClock()
    collector = busy(clock)
    began = parsed(exposition(collector).page(OPEN))
    clock.advance(100)
    later = parsed(exposition(collector).page(OPEN))
    for name in ("paceline_calls", "paceline_call_duration_seconds"):
        created = f"{name}_created"
        told = {one.value for one in began[name].samples if one.name == created}
        assert told == {1_700_000_000.0}
        assert told == {one.value for one in later[name].samples if one.name == created}
    collector.reset()
    after = parsed(exposition(collector).page(OPEN))
    anew = [one for one in after["paceline_refused_records"].samples if "_created" in one.name]
    assert [one.value for one in anew] == [1_700_000_100.0]
    text = exposition(collector).page().body
    assert b"_created" not in text
    assert b"paceline_start_time_seconds 1.7000001e+09" in text


def spans() -> list[Span]:
    """A few calls, the newest last."""
    epoch = VirtualClock.EPOCH_NS

    def call(name: str, took_ms: int, **changes: Any) -> Span:
        return Span(name, f"trace-{name}", "web", epoch, epoch + took_ms * MS, **changes)

    return [
        call("old", 610),
        call("slow", 600),
        call("quick", 15),
        call("failed", 600, ending=Ending.ERROR, category=Category.NETWORK),
        call("hit", 1, source=Source.HOT),
        call("cancelled", 600, ending=Ending.CANCELLED),
        call("x" * 5_000, 100),
        call("tool", 600, kind=Kind.TOOL),
    ]


def test_exemplars_lead_to_calls() -> None:
    """In OpenMetrics a bucket of the durations names the trace and the call that came last into it,
    with its time: so a slow bucket leads to a slow call. (S0-25)"""
    page = exposition(busy(), spans=spans).page(OPEN)
    found = {
        (one.labels["result"], one.labels["le"]): one.exemplar
        for one in parsed(page)["paceline_call_duration_seconds"].samples
        if one.exemplar is not None
    }
    assert set(found) == {("fresh", "0.64"), ("fresh", "0.02"), ("failed", "0.64"), ("hit", "0.001")}  # fmt: skip
    slow = found["fresh", "0.64"]
    assert slow.labels == {"trace_id": "trace-slow", "call_id": "slow"}
    assert slow.value == pytest.approx(0.6)
    assert float(f"{slow.timestamp}") == pytest.approx(1_700_000_000.6)
    assert b"trace-slow" not in exposition(busy(), spans=spans).page().body


def observed(recent: Recent, took_ms: int, name: str = "web", **changes: Any) -> Call:
    """A call that took so long."""
    call = a_call(f"{name} {took_ms}", name)
    outcome = Outcome(call.id, name, Source.EXECUTED, attempts=1, total_ns=took_ms * MS)
    recent.observe(call, msgspec.structs.replace(outcome, **changes))
    return call


def test_quick_calls_do_not_push_out_slow_ones() -> None:
    """Of the calls of a runtime the latest of each length stays at hand as an exemplar, however many
    others come after it; a bounded number in all, and nothing of their values. (S0-25)"""
    clock = VirtualClock()
    recent = Recent(clock, most=6)
    slow = observed(recent, 9_000)
    last = observed(recent, 8_500, error=CallTimeoutError("late"))
    for took_ms in range(1, 4):
        for _ in range(100):
            clock.advance(0.01)
            last = observed(recent, took_ms)
    cached = observed(recent, 3, source=Source.HOT, attempts=0)
    for number in range(50):
        observed(recent, 1, name=f"other {number}")
    spans = recent.spans()
    assert len(spans) == 6
    assert {slow.id, last.id, cached.id} <= {span.id for span in spans}
    assert [span.end_ns for span in spans] == sorted([span.end_ns for span in spans])
    assert {span.ending for span in spans} == {Ending.SUCCESS, Ending.TIMEOUT}
    assert spans[0].took_ns == 9_000 * MS
    page = exposition(busy(), spans=recent.spans).page(OPEN)
    assert parsed(page)


def test_tracked_calls_are_exemplars() -> None:
    """The trace of a collector gives exemplars as it is. (S0-25)"""
    collector = busy()
    assert parsed(exposition(collector, spans=collector.trace.spans).page(OPEN))


def test_the_earlier_names_only_if_asked() -> None:
    """The names of the earlier service are told beside the native ones to those who ask for them,
    and to nobody else. (E-10)"""
    assert b"sel_" not in exposition(busy()).page().body
    for accept in ("", OPEN):
        metrics = parsed(exposition(busy(), names="sel").page(accept))
        assert value(metrics, "sel_operations_total", subsystem="agent") == 18
        assert value(metrics, "sel_agent_duration_ms", quantile="0.5") > 0
        assert "paceline_calls" in metrics


def test_nothing_is_put_into_the_global_registry() -> None:
    """The registry that all of a process share is left alone; whoever wants the figures there adds
    a collector, once. (S0-25)"""
    exposition(busy()).page()
    assert b"paceline" not in prometheus_client.generate_latest()
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    figures = FigureCollector(busy().snapshot, version="1")
    registry.register(figures)
    first = prometheus_client.generate_latest(registry)
    assert b"paceline_calls_total{" in first
    assert prometheus_client.generate_latest(registry) == first
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(FigureCollector(busy().snapshot, version="1", names="sel"))


def test_others_get_to_run_meanwhile() -> None:
    """While a great page is written there is a pause at least every few hundred lines, and samples
    are made one by one: no thread waits long. (S0-25)"""
    collector = MetricsCollector()
    for number in range(100):
        collector.add(
            f"agent {number}", source=Source.EXECUTED, category=None, queue_ns=0, execute_ns=MS,
            total_ns=MS,
        )  # fmt: skip
    since: list[int] = [0]
    figures = FigureCollector(
        collector.snapshot, version="1", pause=lambda _: since.append(0), created=True
    )
    for metric in figures.collect():
        for sample in metric.samples:
            assert isinstance(sample, Sample)
            since[-1] += 1
    assert sum(since) > 8_000
    assert max(since) <= 250


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client library the error says what to install. (S0-25)"""
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "paceline.metrics.export.prometheus")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="prometheus-client") as caught:
        importlib.import_module("paceline.metrics.export.prometheus")
    assert "paceline[prometheus]" in caught.value.next_step
