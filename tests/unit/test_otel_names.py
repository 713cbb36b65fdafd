"""The names under which figures and spans leave, against those of the installed conventions."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.util.genai import _agent_invocation, _inference_invocation, _instruments
from opentelemetry.util.genai.handler import TelemetryHandler

from paceline.call import Kind
from paceline.metrics.export.names import GENERATIONS, Instrument, Names

SHIPPED = GENERATIONS["util-genai-1.3"]
MAIN = GENERATIONS["genai-main"]


def instruments(names: Names) -> Iterator[Instrument]:
    """All metrics there are names for."""

    def found(thing: object) -> Iterator[Instrument]:
        if isinstance(thing, Instrument):
            yield thing
        elif isinstance(thing, Mapping):
            yield from found(tuple(thing.values()))
        elif isinstance(thing, tuple):
            for each in thing:
                yield from found(each)

    for value in [getattr(names, field) for field in Names.__struct_fields__]:
        yield from found(value)


def test_attributes_are_those_of_the_conventions() -> None:
    """Attributes of both generations have the names of the installed conventions. (P-06)"""
    for names in (SHIPPED, MAIN):
        assert names.operation == gen_ai_attributes.GEN_AI_OPERATION_NAME
        assert names.provider == gen_ai_attributes.GEN_AI_PROVIDER_NAME
        assert names.error_type == error_attributes.ERROR_TYPE
        values = gen_ai_attributes.GenAiOperationNameValues
        assert {kind: (each.name, each.subject) for kind, each in names.operations.items()} == {
            Kind.AGENT: (values.INVOKE_AGENT.value, gen_ai_attributes.GEN_AI_AGENT_NAME),
            Kind.TOOL: (values.EXECUTE_TOOL.value, gen_ai_attributes.GEN_AI_TOOL_NAME),
            Kind.MODEL: (values.CHAT.value, gen_ai_attributes.GEN_AI_REQUEST_MODEL),
        }
        assert names.usage == {
            "input": gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS,
            "output": gen_ai_attributes.GEN_AI_USAGE_OUTPUT_TOKENS,
            "cached_input": gen_ai_attributes.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
            # The conventions' own package still has the older word.
            "cache_write": _inference_invocation._GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
            "reasoning": gen_ai_attributes.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
        }
    assert SHIPPED.usage["cache_write"] == _agent_invocation._GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS


def test_metrics_are_those_that_are_shipped() -> None:
    """Metrics of the default generation have the names and bounds of the installed instruments.
    (P-06)"""
    tokens = SHIPPED.model_call_tokens["input"][0]
    expected = [
        (
            SHIPPED.durations[Kind.MODEL],
            gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION,
            _instruments._GEN_AI_CLIENT_OPERATION_DURATION_BUCKETS,
        ),
        (
            SHIPPED.durations[Kind.TOOL],
            _instruments._GEN_AI_EXECUTE_TOOL_DURATION,
            _instruments._GEN_AI_EXECUTE_TOOL_DURATION_BUCKETS,
        ),
        (
            SHIPPED.durations[Kind.AGENT],
            _instruments._GEN_AI_INVOKE_AGENT_DURATION,
            _instruments._GEN_AI_INVOKE_AGENT_DURATION_BUCKETS,
        ),
        (
            SHIPPED.first_chunk,
            gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
            _instruments._GEN_AI_CLIENT_OPERATION_DURATION_BUCKETS,
        ),
        (
            SHIPPED.later_chunk,
            gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK,
            _instruments._GEN_AI_CLIENT_OPERATION_DURATION_BUCKETS,
        ),
        (
            tokens,
            gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE,
            _instruments._GEN_AI_CLIENT_TOKEN_USAGE_BUCKETS,
        ),
    ]
    for ours, name, bounds in expected:
        assert ours.name == name
        assert ours.bounds == pytest.approx(bounds)
    types = {each.value for each in gen_ai_attributes.GenAiTokenTypeValues}
    for kind, (_, attributes) in SHIPPED.model_call_tokens.items():
        assert kind in types
        assert attributes == {gen_ai_attributes.GEN_AI_TOKEN_TYPE: kind}


def test_the_generations_differ_where_the_conventions_do() -> None:
    """The newer generation renames what is of models, and nothing else. (P-06)"""
    differing = {
        field
        for field in Names.__struct_fields__
        if getattr(SHIPPED, field) != getattr(MAIN, field)
    }
    assert differing == {
        "durations",
        "first_chunk",
        "later_chunk",
        "model_call_tokens",
        "model_tokens",
    }
    new = {each.name for each in instruments(MAIN)} - {each.name for each in instruments(SHIPPED)}
    assert new == {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.time_per_output_chunk",
        "gen_ai.client.inference.operation.input_tokens",
        "gen_ai.client.inference.operation.output_tokens",
        *(
            f"gen_ai.client.inference.usage.{kind}"
            for kind in (
                "input_tokens",
                "output_tokens",
                "cache_read.input_tokens",
                "cache_write.input_tokens",
                "reasoning.output_tokens",
            )
        ),
    }


@pytest.mark.parametrize("names", GENERATIONS.values())
def test_what_is_ours_is_in_our_own_namespace(names: Names) -> None:
    """Every name is of the conventions or begins with `paceline.`, and no metric's name is the
    beginning of another's. (P-06)"""
    all_names = {each.name for each in instruments(names)}
    assert all(name.startswith(("gen_ai.", "paceline.")) for name in all_names)
    assert not [(a, b) for a in all_names for b in all_names if b.startswith(f"{a}.")]
    for name in all_names:
        described = {each for each in instruments(names) if each.name == name}
        assert len(described) == 1


@pytest.fixture
def theirs() -> dict[Kind, tuple[ReadableSpan, Any]]:
    """What the installed instrumentation makes of a call of each kind: span and duration."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    handler = TelemetryHandler(tracer_provider=tracers, meter_provider=meters)
    with handler.tool("search"):
        pass
    with handler.invoke_local_agent(agent_name="writer"):
        pass
    with handler.inference("maker", request_model="large"):
        pass
    spans = {span.name.split()[0]: span for span in exporter.get_finished_spans()}
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    meters.shutdown()
    return {
        kind: (spans[each.name], metrics[SHIPPED.durations[kind].name])
        for kind, each in SHIPPED.operations.items()
    }


def test_spans_and_metrics_are_what_the_installed_instrumentation_makes(
    theirs: dict[Kind, tuple[ReadableSpan, Any]],
) -> None:
    """A span of ours has the name and every attribute that opentelemetry-util-genai gives one of
    that kind, and a duration of ours its name and unit. (P-06)"""
    for kind, (span, metric) in theirs.items():
        operation = SHIPPED.operations[kind]
        attributes = dict(span.attributes or {})
        provider = attributes.pop(SHIPPED.provider, None)
        assert (provider is not None) == (kind is Kind.MODEL)
        assert set(attributes) == {SHIPPED.operation, operation.subject}
        assert span.name == f"{operation.name} {attributes[operation.subject]}"
        assert metric.unit == SHIPPED.durations[kind].unit
