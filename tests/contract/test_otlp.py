"""Calls of a real runtime exported by OTLP to a real receiver, one that works and some that fail."""

import asyncio
import logging
import random
import threading
import time
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.attributes.service_attributes import (
    SERVICE_INSTANCE_ID,
)
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME, SERVICE_VERSION

from paceline import Runtime
from paceline.call import Kind
from paceline.clock import SystemClock
from paceline.config import load
from paceline.errors import PacelineError
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.export.names import GENERATIONS, Generation
from paceline.metrics.export.otlp import OtlpExport
from paceline.metrics.export.otlp_http import OtlpHttp
from paceline.metrics.export.otlp_options import OtlpOptions
from paceline.metrics.performance import track_performance
from paceline.redaction import Secret
from paceline.testing.history_suite import a_call, an_outcome
from tests.contract.otlp_receiver import OtlpReceiver, attributes_of

SETTINGS = load(overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}})
SECRET = "h34d3r-s3cr3t"
SECONDS = {"interval_s": 0.02, "pause_s": 0.01, "drain_s": 20.0}


class Still:
    """A clock that stands at 2023-11-14 22:13:20 UTC."""

    def monotonic_ns(self) -> int:
        return 0

    def wall_ns(self) -> int:
        return 1_700_000_000_000_000_000


def an_export(url: str, collector: MetricsCollector, **options: Any) -> OtlpExport:
    """An export to that address, at a quick pace."""
    known = {
        "endpoint": url,
        "headers": {"x-api-key": Secret(SECRET)},
        "instance": "local:1",
        **SECONDS,
        **options,
    }
    return OtlpExport(
        OtlpOptions(**known),
        clock=SystemClock(),
        read=collector.snapshot,
        trace=collector.trace,
        rng=random.Random(7),
    )


def a_runtime() -> Runtime:
    """A runtime whose agents call each other, and one that fails."""
    runtime = Runtime(SETTINGS, agents=[], persist=False, environ={})

    @runtime.agent("leaf", effect="pure", scope="global")
    async def leaf(query: str) -> str:
        await asyncio.to_thread(query.split)  # long enough for another to join
        return query.upper()

    @runtime.agent("outer")
    async def outer(query: str) -> str:
        both = await asyncio.gather(runtime.run("leaf", query), runtime.run("leaf", query))
        again = await runtime.run("leaf", query)
        return f"{both[0].unwrap()}{both[1].unwrap()}{again.unwrap()}"

    @runtime.agent("broken")
    async def broken(query: str) -> str:
        raise ValueError(f"no {query} {SECRET}")

    return runtime


def observed_by(runtime: Runtime, export: OtlpExport) -> None:
    """Has the export told of every outcome."""
    runtime._parts.path._observers = (*runtime._parts.path._observers, export.observe)


async def test_a_run_of_nested_agents_is_a_tree() -> None:
    """A run of nested agents arrives as one trace: each call a span below its caller's, with its
    times, attributes and ending, one that joined another's work with a link to it. (S0-01, P-06)"""
    before_ns = time.time_ns()
    with OtlpReceiver() as receiver:
        async with (
            a_runtime() as runtime,
            an_export(receiver.url, runtime.metrics) as export,
        ):
            observed_by(runtime, export)
            await runtime.run("outer", "a", user="ada")
            await runtime.run("broken", "a", user="ada")
    after_ns = time.time_ns()
    by_name: dict[str, list[Any]] = {}
    for span in receiver.spans:
        by_name.setdefault(span.name, []).append(span)
        assert before_ns <= span.start_time_unix_nano <= span.end_time_unix_nano <= after_ns
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.kind == Span.SPAN_KIND_INTERNAL
    assert {name: len(spans) for name, spans in by_name.items()} == {
        "invoke_agent outer": 1,
        "invoke_agent leaf": 3,
        "invoke_agent broken": 1,
    }
    (outer,), (broken,) = by_name["invoke_agent outer"], by_name["invoke_agent broken"]
    leaves = by_name["invoke_agent leaf"]
    assert outer.parent_span_id == b""
    assert {span.parent_span_id for span in leaves} == {outer.span_id}
    assert {span.trace_id for span in leaves} == {outer.trace_id}
    assert broken.trace_id != outer.trace_id
    sources = {attributes_of(span)["paceline.cache.source"]: span for span in leaves}
    assert set(sources) == {"executed", "joined", "hot"}
    (link,) = sources["joined"].links
    assert (link.trace_id, link.span_id) == (outer.trace_id, sources["executed"].span_id)
    assert not sources["executed"].links
    said = attributes_of(sources["executed"])
    assert said["paceline.execute.duration"] > 0
    assert said["paceline.cache.hit"] is False
    assert said[gen_ai_attributes.GEN_AI_AGENT_NAME] == "leaf"
    operation = gen_ai_attributes.GenAiOperationNameValues.INVOKE_AGENT.value
    assert said[gen_ai_attributes.GEN_AI_OPERATION_NAME] == operation
    assert attributes_of(sources["hot"])["paceline.cache.hit"] is True
    assert outer.status.code == Status.STATUS_CODE_UNSET
    assert broken.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(broken)["error.type"] == "execution"
    assert SECRET not in str(receiver.spans)


@pytest.mark.parametrize("names", GENERATIONS)
async def test_metrics_arrive(names: Generation) -> None:
    """Metrics arrive under the names, units and temporality of the conventions, and count the
    calls; whoever reports is told. (P-06, S0-25)"""
    with OtlpReceiver() as receiver:
        async with a_runtime() as runtime:
            options = {"names": names, "service": "shop", "version": "1.2"}
            async with an_export(receiver.url, runtime.metrics, **options) as export:
                observed_by(runtime, export)
                await runtime.run("outer", "a", user="ada")
                runtime.metrics.series("large", Kind.MODEL).streamed(10**8, [10**7])
                runtime.metrics.record_execution("large", 0.5, True, kind=Kind.MODEL)
    found, table = receiver.metrics, GENERATIONS[names]
    for kind in (Kind.AGENT, Kind.MODEL):
        metric = found[table.durations[kind].name]
        assert metric.unit == "s"
        histogram = metric.exponential_histogram
        assert (
            histogram.aggregation_temporality
            == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
    assert found[table.first_chunk.name].exponential_histogram.data_points[0].count == 1
    assert found[table.later_chunk.name].exponential_histogram.data_points[0].count == 1
    counts = {
        attributes_of(point)["gen_ai.agent.name"]: point.count
        for point in found["gen_ai.invoke_agent.duration"].exponential_histogram.data_points
    }
    assert counts == {"leaf": 1, "outer": 1}
    results = found["paceline.call.results"]
    assert results.unit == "{call}"
    assert results.sum.is_monotonic
    assert sum(point.as_int for point in results.sum.data_points) == 5
    assert {tuple(sorted(each.items())) for each in receiver.resources} == {
        (
            (SERVICE_INSTANCE_ID, "local:1"),
            (SERVICE_NAME, "shop"),
            (SERVICE_VERSION, "1.2"),
            ("telemetry.sdk.language", "python"),
            ("telemetry.sdk.name", "paceline"),
        )
    }


def an_asking_runtime() -> Runtime:
    """A runtime with an agent that asks models and uses tools, one of which asks a model itself,
    and another agent around it."""
    runtime = Runtime(SETTINGS, agents=[], persist=False, environ={})
    metrics = runtime.metrics

    @track_performance("large", metrics, kind=Kind.MODEL)
    async def model(prompt: str) -> str:
        await asyncio.to_thread(prompt.split)
        return prompt.upper()

    @track_performance("fetch", metrics, kind=Kind.TOOL)
    def fetch(url: str) -> str:
        return url

    @track_performance("digest", metrics, kind=Kind.TOOL)
    async def digest(url: str) -> str:
        return await model(fetch(url))

    @runtime.agent("researcher", effect="pure", scope="global")
    async def researcher(query: str) -> str:
        plan = await model(query)
        read = await asyncio.gather(*(digest(each) for each in "ab"))
        return await model(f"{plan}{read}")

    @runtime.agent("writer")
    async def writer(query: str) -> str:
        found = (await runtime.run("researcher", query)).unwrap()
        again = (await runtime.run("researcher", query)).unwrap()
        return await model(f"{found}{again}")

    return runtime


@pytest.mark.parametrize("names", GENERATIONS)
async def test_what_agents_called_arrives(names: Generation) -> None:
    """For each invocation of an agent that was executed, how many models and tools it called
    arrives: those of its tools are its own, those of agents it calls are not, and what the cache
    answered is no invocation. (P-06)"""
    with OtlpReceiver() as receiver:
        async with (
            an_asking_runtime() as runtime,
            an_export(receiver.url, runtime.metrics, names=names) as export,
        ):
            observed_by(runtime, export)
            await runtime.run("writer", "a", user="ada")
            await runtime.run("writer", "b", user="ada")
    operation = gen_ai_attributes.GenAiOperationNameValues.INVOKE_AGENT.value
    called = {}
    for what in ("inference_calls", "tool_calls"):
        metric = receiver.metrics[f"gen_ai.invoke_agent.{what}"]
        assert metric.unit == "{call}"
        histogram = metric.exponential_histogram
        assert (
            histogram.aggregation_temporality
            == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        for point in histogram.data_points:
            said = attributes_of(point)
            assert said.pop(gen_ai_attributes.GEN_AI_OPERATION_NAME) == operation
            name = said.pop(gen_ai_attributes.GEN_AI_AGENT_NAME)
            assert said == {}
            called[name, what] = (point.count, point.sum, point.min, point.max)
    assert called == {
        ("writer", "inference_calls"): (2, 2, 1, 1),
        ("writer", "tool_calls"): (2, 0, 0, 0),
        ("researcher", "inference_calls"): (2, 8, 4, 4),
        ("researcher", "tool_calls"): (2, 8, 4, 4),
    }


async def test_explicit_buckets_arrive() -> None:
    """For receivers that know no exponential histograms, explicit buckets arrive, with the bounds
    that the conventions advise. (P-06)"""
    collector = MetricsCollector()
    collector.record_execution("web", 0.5, True)
    with OtlpReceiver() as receiver:
        async with an_export(receiver.url, collector, explicit_buckets=True):
            pass
    (point,) = receiver.metrics["gen_ai.invoke_agent.duration"].histogram.data_points
    assert list(point.explicit_bounds) == pytest.approx([0.1 * 2**n for n in range(13)])
    assert list(point.bucket_counts) == [0, 0, 0, 1] + [0] * 10


async def test_a_receiver_that_hangs_holds_up_no_call(caplog: pytest.LogCaptureFixture) -> None:
    """While a receiver hangs, calls begin and end as ever, and closing gives up in the end. (S0-25)"""
    with OtlpReceiver(*["hang"] * 9) as receiver:
        async with (
            a_runtime() as runtime,
            an_export(receiver.url, runtime.metrics, drain_s=0.1) as export,
        ):
            observed_by(runtime, export)
            first = await runtime.run("outer", "a", user="ada")
            await asyncio.to_thread(receiver.until, lambda it: it.asked == 2)
            more = [await runtime.run("outer", f"{n}", user="ada") for n in range(20)]
            assert [each.error for each in (first, *more) if not each.ok] == []
            assert not receiver.released.is_set()
        assert not receiver.spans
    figures = export.figures
    assert (figures.sent, figures.waiting) == (0, 0)
    assert figures.dropped == 21 * 4
    assert SECRET not in caplog.text


async def test_a_receiver_that_recovers_gets_what_it_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a receiver refused for the moment it gets when it is back, and nothing twice. (S0-25)"""
    caplog.set_level(logging.INFO)
    with OtlpReceiver(503, 503) as receiver:
        async with (
            a_runtime() as runtime,
            an_export(receiver.url, runtime.metrics, metrics=False) as export,
        ):
            observed_by(runtime, export)
            await runtime.run("outer", "a", user="ada")
            await asyncio.to_thread(receiver.until, lambda it: len(it.spans) >= 4)
            await runtime.run("broken", "a", user="ada")
    assert len({span.span_id for span in receiver.spans}) == len(receiver.spans) == 5
    assert (export.figures.sent, export.figures.dropped, export.figures.failures) == (5, 0, 2)
    told = [each.message for each in caplog.records if "OTLP" in each.message]
    assert [message for message in told if "fails" in message] == [
        (
            f"the export of /v1/traces fails: the OTLP receiver 127.0.0.1:{receiver.port}"
            " answered 503 (told once until it works again)"
        )
    ]
    assert SECRET not in caplog.text


async def test_no_receiver_holds_up_no_call(caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no receiver, calls are as ever, spans are dropped and counted, the log says so
    once, and a receiver that comes gets what comes then. (S0-25)"""
    with OtlpReceiver() as gone:
        port = gone.port
    async with a_runtime() as runtime:
        url = f"http://127.0.0.1:{port}"
        async with an_export(url, runtime.metrics, drain_s=0.5) as export:
            observed_by(runtime, export)
            outcome = await runtime.run("outer", "a", user="ada")
            assert outcome.ok, outcome.error
        assert (export.figures.sent, export.figures.dropped) == (0, 4)
    told = [each.message for each in caplog.records if "/v1/traces fails" in each.message]
    assert len(told) == 1
    assert f"127.0.0.1:{port} cannot be reached" in told[0]
    assert SECRET not in caplog.text


async def test_headers_are_sent_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Headers reach the receiver, with large messages packed, and are in no representation. (V-31)"""
    caplog.set_level(logging.DEBUG)
    collector = MetricsCollector()
    with OtlpReceiver() as receiver:
        export = an_export(receiver.url, collector, metrics=False)
        for n in range(100):
            call = a_call(f"x-{n}")
            export.observe(call, an_outcome(call))
        async with export:
            pass
        assert {each["x-api-key"] for each in receiver.headers} == {SECRET}
        assert {each.get("Content-Encoding") for each in receiver.headers} == {"gzip"}
    assert len(receiver.spans) == 100
    assert SECRET not in f"{caplog.text} {export!r} {export._options!r}"


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 413, 500])
async def test_refusals_are_final(status: int) -> None:
    """Answers after which OTLP wants nothing repeated are final; no redirect is followed. (P-06)"""
    collector = MetricsCollector()
    with OtlpReceiver(status) as receiver:
        export = an_export(receiver.url, collector, metrics=False)
        call = a_call("x")
        export.observe(call, an_outcome(call))
        async with export:
            await asyncio.to_thread(receiver.until, lambda it: it.asked == 1)
        assert receiver.asked == 1
    assert (export.figures.sent, export.figures.dropped) == (0, 1)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_passing_refusals_are_repeated(status: int) -> None:
    """Answers after which OTLP lets a request be repeated are passing. (P-06)"""
    with OtlpReceiver(status) as receiver:
        sender = OtlpHttp(OtlpOptions(endpoint=receiver.url), SystemClock())
        try:
            with pytest.raises(PacelineError, match=f"answered {status}") as caught:
                await sender.post("/v1/traces", b"")
            assert caught.value.category.transient
            assert caught.value.__context__ is None
            assert await sender.post("/v1/traces", b"") == b""
        finally:
            await sender.close()


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", 7.0), ("1.5", 1.5), ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0), ("soon", None)],
)
async def test_how_long_to_wait(asked: str, seconds: float | None) -> None:
    """How long the receiver asks us to wait is understood as a number and as a date. (P-06, E94)"""
    with OtlpReceiver(503) as receiver:
        receiver.retry_after = asked
        sender = OtlpHttp(OtlpOptions(endpoint=receiver.url), Still())
        try:
            with pytest.raises(PacelineError) as caught:
                await sender.post("/v1/traces", b"")
        finally:
            await sender.close()
    assert caught.value.retry_after_s == seconds


async def test_a_request_has_a_limit_as_a_whole() -> None:
    """A receiver that says nothing is left when the time is up. (S0-25)"""
    with OtlpReceiver("hang") as receiver:
        sender = OtlpHttp(OtlpOptions(endpoint=receiver.url, timeout_s=0.05), SystemClock())
        try:
            with pytest.raises(PacelineError, match="did not answer in time") as caught:
                await sender.post("/v1/traces", b"")
            assert caught.value.category.transient
        finally:
            await sender.close()


async def test_the_environment_of_the_process_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the process's environment says of OTLP, of proxies or of resources is not sent to, nor
    through, anybody. (P-06)"""
    with OtlpReceiver() as other, OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", other.url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "home=1")
        monkeypatch.setenv("HTTP_PROXY", other.url)
        collector = MetricsCollector()
        collector.record_execution("web", 1.0, True)
        async with an_export(receiver.url, collector):
            pass
    assert other.asked == 0
    assert receiver.asked
    assert not [each for each in receiver.headers if "x-other" in each]
    assert not [each for each in receiver.resources if "home" in each]


async def test_nothing_is_left_running() -> None:
    """An export begins one thread, however often it is started, and none is left after it."""

    def threads() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "paceline-otlp"]

    with OtlpReceiver() as receiver:
        async with an_export(receiver.url, MetricsCollector()) as export:
            export.start()
            assert len(threads()) == 1
    assert not threads()
    export.close()


async def test_secrets_of_foreign_errors_do_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the HTTP library, which may hold headers, is neither the cause nor the context of
    ours."""

    def fail(*_: Any, **__: Any) -> Any:
        raise aiohttp.ClientError(SECRET)

    sender = OtlpHttp(OtlpOptions(endpoint="http://127.0.0.1:9"), SystemClock())
    monkeypatch.setattr(aiohttp.ClientSession, "post", fail)
    try:
        with pytest.raises(PacelineError) as caught:
            await sender.post("/v1/traces", b"")
    finally:
        await sender.close()
    assert SECRET not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
