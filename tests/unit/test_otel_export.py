"""The export by OTLP: what calls pay for, what is repeated, dropped and told, and how it ends."""

import asyncio
import gc
import importlib
import logging
import random
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, final

import msgspec
import pytest
from opentelemetry import metrics, trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from paceline.call import Call, Kind, Outcome, Source, Tokens, current_call
from paceline.errors import Category, ConfigError, OverloadedError, PacelineError
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.export import otlp
from paceline.metrics.export.otlp import OtlpExport
from paceline.metrics.export.otlp_options import OtlpOptions, options_of
from paceline.metrics.performance import track_performance
from paceline.redaction import Secret
from paceline.testing.history_suite import a_call, an_outcome
from paceline.testing.virtual_time import VirtualClock, run

LOST = PacelineError("gone", category=Category.NETWORK)


def spans_in(body: bytes) -> list[Any]:
    """All spans of a message."""
    return [
        span
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@final
class FakeReceiver:
    """Does in turn what it is told to, then takes everything."""

    def __init__(self, *answers: bytes | Exception | str) -> None:
        self.answers = list(answers)
        self.at_s: list[float] = []
        self.bodies: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}
        self.closed = False

    async def post(self, path: str, body: bytes) -> bytes:
        self.at_s.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if self.answers else b""
        if answer == "hang":
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, bytes)
        self.bodies[path].append(body)
        return answer

    async def close(self) -> None:
        self.closed = True

    @property
    def batches(self) -> list[list[str]]:
        """The calls of each request."""
        return [
            [
                attribute.value.string_value
                for span in spans_in(body)
                for attribute in span.attributes
                if attribute.key == "paceline.call.id"
            ]
            for body in self.bodies["/v1/traces"]
        ]


def an_export(
    receiver: FakeReceiver,
    clock: VirtualClock,
    *,
    collector: MetricsCollector | None = None,
    **options: Any,
) -> OtlpExport:
    """An export of spans, and of the figures of a collector if there is one."""
    read = (collector or MetricsCollector(clock=clock)).snapshot
    return OtlpExport(
        OtlpOptions(**{"metrics": collector is not None, **options}),
        clock=clock,
        read=read,
        rng=random.Random(7),
        trace=collector.trace if collector else None,
        receiver=receiver,
    )


def observe(export: OtlpExport, *ids: str, **known: Any) -> None:
    """Calls end."""
    for each in ids:
        call = a_call(each)
        export.observe(call, msgspec.structs.replace(an_outcome(call), **known))


def through(export: OtlpExport, during: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs the export while something happens, then closes it, in virtual time."""

    async def main() -> None:
        task = asyncio.create_task(export.run())
        await during()
        export.close()
        await task

    run(main())


async def nothing() -> None:
    """Does nothing."""


def test_spans_are_sent_in_batches() -> None:
    """Calls that ended are sent in the order they ended, many at once. (P-06)"""
    clock, receiver = VirtualClock(), FakeReceiver()
    export = an_export(receiver, clock)
    ids = [f"x-{n}" for n in range(1_200)]

    async def during() -> None:
        observe(export, *ids)
        await asyncio.sleep(1)
        assert export.figures.sent == len(ids)

    through(export, during)
    assert [len(batch) for batch in receiver.batches] == [512, 512, 176]
    assert [each for batch in receiver.batches for each in batch] == ids
    assert receiver.closed


def test_what_happens_last_is_sent_too() -> None:
    """Closing sends what ended since the last look, spans and figures."""
    clock, receiver = VirtualClock(), FakeReceiver()
    export = an_export(receiver, clock, collector=MetricsCollector(clock=clock))

    async def during() -> None:
        await asyncio.sleep(0.6)
        observe(export, "x")

    through(export, during)
    assert receiver.batches == [["x"]]
    assert len(receiver.bodies["/v1/metrics"]) == 1


def test_an_export_that_is_closed_first_ends_too() -> None:
    """Closed before it could begin, an export sends what it has and ends."""
    clock, receiver = VirtualClock(), FakeReceiver()
    export = an_export(receiver, clock)
    observe(export, "x")
    export.close()
    run(export.run())
    assert receiver.batches == [["x"]]


def test_the_queue_is_bounded() -> None:
    """Of a hundred thousand spans that nobody takes as many wait as are allowed, the latest; every
    other is counted, and the log says so once. (S0-25)"""
    clock, receiver = VirtualClock(), FakeReceiver()
    export = an_export(receiver, clock, queue=1_000)
    observe(export, *[f"x-{n}" for n in range(100_000)])
    assert export.figures.waiting == 1_000
    through(export, nothing)
    sent = [each for batch in receiver.batches for each in batch]
    assert sent == [f"x-{n}" for n in range(99_000, 100_000)]
    assert (export.figures.sent, export.figures.dropped) == (1_000, 99_000)


def test_a_queue_without_a_bound_is_found() -> None:
    """The check that no more spans wait than are allowed fails for a queue without a bound."""
    export = an_export(FakeReceiver(), VirtualClock(), queue=10)
    observe(export, *[f"x-{n}" for n in range(20)])
    assert export.figures.waiting == 10
    export._queue = deque()
    observe(export, *[f"x-{n}" for n in range(20)])
    assert export.figures.waiting > 10


def test_too_many_spans_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """That spans are dropped for being too many is logged once."""
    clock, receiver = VirtualClock(), FakeReceiver()
    export = an_export(receiver, clock, queue=10)

    async def during() -> None:
        for _ in range(5):
            observe(export, *[f"x-{n}" for n in range(100)])
            await asyncio.sleep(1)

    through(export, during)
    assert export.figures.dropped == 5 * 90
    assert [each.message for each in caplog.records if "more spans" in each.message] == [
        "there are more spans than can be sent; the oldest are dropped, and counted"
    ]


def test_a_receiver_that_recovers_gets_everything(caplog: pytest.LogCaptureFixture) -> None:
    """What a receiver could not take is repeated until it can, with growing pauses; the log says
    once that it fails and once that it works again. (S0-25)"""
    caplog.set_level(logging.INFO)
    clock, receiver = VirtualClock(), FakeReceiver(*[LOST] * 5)
    export = an_export(receiver, clock)

    async def during() -> None:
        observe(export, "x", "y")
        await asyncio.sleep(120)

    through(export, during)
    assert receiver.batches == [["x", "y"]]
    assert export.figures.failures == 5
    assert (export.figures.sent, export.figures.dropped) == (2, 0)
    bounds = [1.0, 2.0, 4.0, 8.0, 16.0]
    pauses = [b - a for a, b in zip(receiver.at_s, receiver.at_s[1:], strict=False)]
    assert all(pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
    assert [each.message for each in caplog.records] == [
        "the export of /v1/traces fails: gone (told once until it works again)",
        "the OTLP receiver localhost:4318 takes /v1/traces again",
    ]


def test_a_receiver_is_asked_again_no_sooner_than_it_said() -> None:
    """The pause that a receiver asks for is kept, but not one without end."""
    soon = PacelineError("full", category=Category.RATE_LIMIT, retry_after_s=40)
    never = PacelineError("full", category=Category.RATE_LIMIT, retry_after_s=4_000)
    for failure, tries in ((soon, 2), (never, 1)):
        clock, receiver = VirtualClock(), FakeReceiver(failure)
        export = an_export(receiver, clock)

        async def during(export: OtlpExport = export) -> None:
            observe(export, "x")
            await asyncio.sleep(100)

        through(export, during)
        assert len(receiver.at_s) == tries
        if tries == 2:
            assert receiver.at_s[1] - receiver.at_s[0] >= 40


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([PacelineError("no", category=Category.INVALID)], 1),
        ([LOST] * 8, 8),
        ([RuntimeError("secret")], 1),
    ],
)
def test_what_cannot_be_sent_is_dropped(
    answers: list[Exception], asked: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that is refused for good, fails too often, or breaks the sender, is dropped and
    counted; the next one is sent. (S0-25)"""
    clock, receiver = VirtualClock(), FakeReceiver(*answers)
    export = an_export(receiver, clock)

    async def during() -> None:
        observe(export, "x", "y")
        await asyncio.sleep(300)
        assert len(receiver.at_s) == asked
        observe(export, "z")

    through(export, during)
    assert receiver.batches == [["z"]]
    assert (export.figures.sent, export.figures.dropped) == (1, 2)
    assert "secret" not in caplog.text


def test_spans_that_the_receiver_refused_are_counted() -> None:
    """Spans that a receiver says it did not take are dropped, not sent; an answer of another form
    means that it took them all."""
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans = 2
    clock, receiver = VirtualClock(), FakeReceiver(said.SerializeToString(), b"\xff\xff ok")
    export = an_export(receiver, clock)

    async def during() -> None:
        observe(export, "x", "y", "z")
        await asyncio.sleep(1)
        assert (export.figures.sent, export.figures.dropped) == (1, 2)
        observe(export, "u")

    through(export, during)
    assert (export.figures.sent, export.figures.dropped) == (2, 2)


def test_closing_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that hangs holds up closing for as long as is allowed, and no longer; what is left
    is counted. (S0-25)"""
    clock, receiver = VirtualClock(), FakeReceiver("hang")
    export = an_export(receiver, clock, drain_s=5.0)
    took_s: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(export.run())
        observe(export, "x")
        await asyncio.sleep(2)
        observe(export, "y")
        began_s = loop.time()
        export.close()
        await task
        took_s.append(loop.time() - began_s)

    run(main())
    assert took_s == [pytest.approx(5.0)]
    assert (export.figures.sent, export.figures.dropped, export.figures.waiting) == (0, 2, 0)
    assert receiver.closed
    assert "1 spans were not sent before the end" in caplog.text


def test_at_the_end_nothing_is_tried_twice() -> None:
    """When we are to end, a failed request is not waited for: each is tried once more at most."""
    clock, receiver = VirtualClock(), FakeReceiver(*[LOST] * 100)
    export = an_export(receiver, clock)

    async def during() -> None:
        observe(export, *[f"x-{n}" for n in range(600)])
        await asyncio.sleep(0.6)

    through(export, during)
    assert len(receiver.at_s) <= 4
    assert export.figures.dropped == 600


def test_figures_are_sent_every_so_often() -> None:
    """Metrics are sent at each interval; one that does not arrive is in the next. (S0-25)"""
    clock, receiver = VirtualClock(), FakeReceiver(LOST)
    collector = MetricsCollector(clock=clock)
    export = an_export(receiver, clock, collector=collector, interval_s=15.0, spans=False)

    async def during() -> None:
        collector.record_execution("web", 1.0, True)
        await asyncio.sleep(31)

    through(export, during)
    assert receiver.at_s == pytest.approx([15.0, 30.0, 31.0], abs=0.01)
    assert export.figures.reports == 2
    first = ExportMetricsServiceRequest.FromString(receiver.bodies["/v1/metrics"][0])
    names = {each.name for each in first.resource_metrics[0].scope_metrics[0].metrics}
    assert "gen_ai.invoke_agent.duration" in names


def test_tracked_calls_have_spans() -> None:
    """Functions under `track_performance` have spans too, each once, as a tree. (S0-01)"""
    clock, receiver = VirtualClock(), FakeReceiver()
    collector = MetricsCollector(clock=clock)
    export = an_export(receiver, clock, collector=collector)

    @track_performance("inner", collector)
    async def inner() -> None:
        await asyncio.sleep(1)

    @track_performance("outer", collector)
    async def outer() -> None:
        await inner()

    async def during() -> None:
        await outer()
        await asyncio.sleep(5)
        await inner()

    through(export, during)
    spans = [span for body in receiver.bodies["/v1/traces"] for span in spans_in(body)]
    assert [span.name for span in spans] == [
        "invoke_agent inner",
        "invoke_agent outer",
        "invoke_agent inner",
    ]
    assert spans[0].parent_span_id == spans[1].span_id
    assert spans[0].trace_id == spans[1].trace_id
    assert spans[2].trace_id != spans[0].trace_id
    assert [span.end_time_unix_nano - span.start_time_unix_nano for span in spans] == [10**9] * 3


def test_calls_never_come_before_what_was_tracked_in_them() -> None:
    """While many tracked calls wait for a receiver, an agent that ends meanwhile is sent after the
    tools it called, and they are counted as its own. (P-06)"""
    clock = VirtualClock()
    late = PacelineError("not now", category=Category.UNAVAILABLE)
    receiver = FakeReceiver(late)
    collector = MetricsCollector(clock=clock)
    export = an_export(receiver, clock, collector=collector)
    tracked = track_performance("other", collector)(int)
    tool = track_performance("tool", collector, kind=Kind.TOOL)(int)

    async def during() -> None:
        for _ in range(600):
            tracked()
        await asyncio.sleep(0.500001)  # the first of them are being sent, in vain
        token = current_call.set(a_call("x"))
        tool()
        current_call.reset(token)
        observe(export, "x")
        await asyncio.sleep(30)

    through(export, during)
    names = [span.name for body in receiver.bodies["/v1/traces"] for span in spans_in(body)]
    assert names[-2:] == ["execute_tool tool", f"invoke_agent {a_call('x').name}"]
    assert dict(export._called)[a_call("x").name].tools.sum == 1


def test_tracked_calls_that_were_missed_are_told() -> None:
    """Where more calls were tracked between two looks than are kept, that is counted; after a
    reset those that come are new, and none was missed."""
    clock, receiver = VirtualClock(), FakeReceiver()
    collector = MetricsCollector(clock=clock)
    export = an_export(receiver, clock, collector=collector, metrics=False)

    @track_performance("web", collector)
    def tracked() -> None:
        return None

    async def during() -> None:
        tracked()
        await asyncio.sleep(1)
        collector.reset()
        tracked()
        await asyncio.sleep(1)
        assert (export.figures.overrun, export.figures.sent) == (0, 2)
        for _ in range(5_000):
            tracked()
        await asyncio.sleep(1)

    through(export, during)
    assert (export.figures.overrun, export.figures.sent) == (1, 2 + 4_096)


@final
class Content:
    """A value that can be looked for."""


def test_what_waits_holds_no_content() -> None:
    """What went into a call and came out of it is not kept alive by its waiting span."""
    clock = VirtualClock()
    export = an_export(FakeReceiver(), clock)
    content = Content()
    seen = weakref.ref(content)
    call = a_call("x", arguments={"query": content})
    export.observe(call, an_outcome(call, content))
    del call, content
    gc.collect()
    assert seen() is None
    assert export.figures.waiting == 1


def test_no_content_leaves() -> None:
    """No input, output, error text, user, session or header is in what is sent. (P-06)"""
    canary = "c4n4ry"
    clock, receiver = VirtualClock(), FakeReceiver()
    collector = MetricsCollector(clock=clock)
    export = an_export(receiver, clock, collector=collector, headers={"x-key": Secret(canary)})
    caller = type(a_call("x").caller)(canary, canary, canary)
    call = a_call("x", caller=caller, arguments={"query": canary, canary: 1})
    error = OverloadedError(canary, next_step=canary)
    for outcome in (an_outcome(call, {"answer": canary}), an_outcome(call, error=error)):
        export.observe(call, outcome)
        collector.observe(call, outcome)
    through(export, nothing)
    sent = [body for bodies in receiver.bodies.values() for body in bodies]
    assert len(sent) == 2
    assert not [body for body in sent if canary.encode() in body]


@pytest.mark.parametrize(
    ("known", "ending"),
    [
        ({"error": None}, "success"),
        ({"error": OverloadedError("full"), "attempts": 0}, "rejected"),
        ({"error": OverloadedError("full"), "attempts": 0, "source": Source.JOINED}, "error"),
        ({"error": OverloadedError("full"), "attempts": 1}, "error"),
    ],
)
def test_endings_are_those_of_the_collector(known: dict[str, Any], ending: str) -> None:
    """A span says of a call's ending what the collector counts."""
    clock, receiver = VirtualClock(), FakeReceiver()
    export, collector = an_export(receiver, clock), MetricsCollector(clock=clock)
    call = a_call("x")
    known = {"source": Source.EXECUTED, **known}
    outcome = msgspec.structs.replace(an_outcome(call), **known)
    export.observe(call, outcome)
    collector.observe(call, outcome)
    through(export, nothing)
    assert ending.encode() in receiver.bodies["/v1/traces"][0]
    assert [each.value for each in collector.snapshot().totals.ever.by_ending] == [ending]


def test_tokens_of_a_call_are_in_its_span() -> None:
    """What a call used is in its span; of one served again, what it saved."""
    clock, receiver = VirtualClock(), FakeReceiver()
    export = an_export(receiver, clock)
    observe(export, "x", tokens=Tokens(7, 8), source=Source.EXECUTED)
    observe(export, "y", source=Source.HOT, saved_usd=0.5)
    through(export, nothing)
    (body,) = receiver.bodies["/v1/traces"]
    first, second = spans_in(body)
    assert "gen_ai.usage.input_tokens" in {each.key for each in first.attributes}
    assert {"paceline.cost.saved"} == {
        each.key
        for each in second.attributes
        if each.key.startswith(("gen_ai.usage", "paceline.cost"))
    }


def test_no_global_provider_is_set() -> None:
    """Making and running an export leaves OpenTelemetry's global providers as they were."""
    before = trace.get_tracer_provider(), metrics.get_meter_provider()
    clock = VirtualClock()
    through(an_export(FakeReceiver(), clock), nothing)
    assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == before


def test_spans_of_threads_are_all_counted() -> None:
    """Calls that end on many threads at once are each sent or counted as dropped."""
    clock, receiver = VirtualClock(), FakeReceiver()
    export = an_export(receiver, clock, queue=500)
    threads = [
        threading.Thread(target=observe, args=(export, *[f"{n}-{m}" for m in range(500)]))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    through(export, nothing)
    figures = export.figures
    assert figures.sent == 500
    assert 0 <= 2_000 - figures.sent - figures.dropped <= len(threads)


@pytest.mark.parametrize(
    "missing",
    [
        "opentelemetry.sdk.trace",
        "opentelemetry.sdk.metrics.export",
        "opentelemetry.exporter.otlp.proto.common.trace_encoder",
    ],
)
def test_a_missing_extra_is_told(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its packages the export says which extra to install. (P-06)"""
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [name for name in sys.modules if name.startswith("paceline.metrics.export.ot")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match="not installed") as caught:
        importlib.import_module("paceline.metrics.export.otlp")
    assert "paceline[otel]" in caught.value.next_step


def test_the_environment_is_read_by_its_standard_names() -> None:
    """OpenTelemetry's own variables say where to send, with what, and how often; headers are shown
    nowhere. (P-06)"""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example:4318/base",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cr3t%3D, x-scope = a b",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_METRIC_EXPORT_INTERVAL": "15000",
        "OTEL_METRICS_EXPORTER": "none",
    }
    options = options_of(environ)
    assert options is not None
    assert {name: value.reveal() for name, value in options.headers.items()} == {
        "api-key": "s3cr3t=",
        "x-scope": "a b",
    }
    assert (options.service, options.timeout_s, options.interval_s) == ("shop", 2.5, 15.0)
    assert (options.spans, options.metrics, options.where) == (True, False, "otlp.example:4318")
    assert "s3cr3t" not in repr(options)
    assert options_of({}) is None
    assert options_of({**environ, "OTEL_SDK_DISABLED": "TRUE"}) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "s3cr3t"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://s3cr3t"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:s3cr3t@host"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host?key=s3cr3t"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "s3cr3t"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "key=s3cr3t%0a"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "a key=s3cr3t"},
        {"OTEL_METRIC_EXPORT_INTERVAL": "s3cr3t"},
        {"OTEL_METRIC_EXPORT_INTERVAL": "0"},
    ],
)
def test_what_cannot_be_used_is_refused(environ: dict[str, str]) -> None:
    """An endpoint, header or interval that cannot be used is refused at the start, and what might
    be a secret in it is not said."""
    with pytest.raises(ConfigError) as caught:
        options_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host", **environ})
    assert "s3cr3t" not in f"{caught.value} {caught.value.next_step}"


def test_an_observer_that_waits_for_the_receiver_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that calls wait for nobody fails for an export that sends in `observe`."""

    def check(observe: Callable[[OtlpExport, Call, Outcome], None]) -> list[float]:
        clock, receiver = VirtualClock(), FakeReceiver()
        export = an_export(receiver, clock)
        monkeypatch.setattr(OtlpExport, "observe", observe)

        async def main() -> None:
            call = a_call("x")
            export.observe(call, an_outcome(call))

        run(main())
        return receiver.at_s

    honest = OtlpExport.observe

    def eager(self: OtlpExport, call: Call, outcome: Outcome) -> None:
        honest(self, call, outcome)
        with pytest.raises(StopIteration):
            self._receiver.post(otlp._SPANS, b"").send(None)

    assert check(honest) == []
    assert check(eager) != []
