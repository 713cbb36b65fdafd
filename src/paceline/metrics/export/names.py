"""The names under which spans and figures leave for OpenTelemetry: all of them, in one table.

The conventions for generative AI are in development, and two generations of their names are in use
at once: `util-genai-1.3`, as shipped by opentelemetry-util-genai 1.3 and what builds on it, and
`genai-main`, as the conventions' own repository has them now. What they have no name for is under
`paceline.`, the same in both.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from paceline.call import Kind

__all__ = [
    "GENERATIONS",
    "NOT_SENT",
    "Generation",
    "Instrument",
    "Kinds",
    "Names",
    "Operation",
    "sendable",
]

Generation = Literal["util-genai-1.3", "genai-main"]

NOT_SENT: Final = "set no OTLP endpoint"
"""What else can be done where a package of the extra is not installed."""


_LONGEST: Final = 200


class Instrument(msgspec.Struct, frozen=True):
    """A metric: its name, its unit in UCUM, what it is, and for histograms with explicit buckets
    their upper bounds."""

    name: str
    unit: str
    description: str
    bounds: tuple[float, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    """What a kind of call is called, and the attribute that has the name of what was called."""

    name: str
    subject: str


_SECONDS: Final = tuple([0.01 * 2**n for n in range(14)])
_AGENT_SECONDS: Final = tuple([0.1 * 2**n for n in range(13)])
_TOKENS: Final = tuple([float(4**n) for n in range(14)])
_CALLS: Final = tuple([float(2**n) for n in range(11)])
_SHORT_SECONDS: Final = tuple([1e-6 * 4**n for n in range(14)])
"""From a microsecond to a minute: hits and waiting may take next to nothing."""


def _count(name: str, what: str, description: str) -> Instrument:
    return Instrument(name, f"{{{what}}}", description)


_TOKENS_USED: Final = "Tokens used, by kind."
_FIRST_CHUNK: Final = "From the request to the first chunk of a stream."
_LATER_CHUNK: Final = "From one chunk of a stream to the next."


Kinds = Mapping[str, tuple[Instrument, Mapping[str, str]]]
"""A metric for each kind of tokens, with the attributes that tell it from the others."""

_OWN_TOKENS: Final[Kinds] = MappingProxyType(
    {
        kind: (_count("paceline.token.usage", "token", _TOKENS_USED), {"paceline.token.type": kind})
        for kind in ("input", "output", "cached_input", "cache_write", "reasoning")
    }
)


def _per_call(name: str, attributes: Mapping[str, str]) -> tuple[Instrument, Mapping[str, str]]:
    return Instrument(name, "{token}", "Tokens of a call.", _TOKENS), attributes


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of names. The defaults are those that opentelemetry-util-genai 1.3 ships."""

    # -- attributes of the conventions
    operation: str = "gen_ai.operation.name"
    provider: str = "gen_ai.provider.name"
    error_type: str = "error.type"
    operations: Mapping[Kind, Operation] = MappingProxyType(
        {
            Kind.AGENT: Operation("invoke_agent", "gen_ai.agent.name"),
            Kind.TOOL: Operation("execute_tool", "gen_ai.tool.name"),
            Kind.MODEL: Operation("chat", "gen_ai.request.model"),
        }
    )
    usage: Mapping[str, str] = MappingProxyType(
        {
            "input": "gen_ai.usage.input_tokens",
            "output": "gen_ai.usage.output_tokens",
            "cached_input": "gen_ai.usage.cache_read.input_tokens",
            "cache_write": "gen_ai.usage.cache_write.input_tokens",
            "reasoning": "gen_ai.usage.reasoning.output_tokens",
        }
    )
    """By the field of `Usage`."""

    # -- metrics of the conventions
    durations: Mapping[Kind, Instrument] = MappingProxyType(
        {
            Kind.AGENT: Instrument(
                "gen_ai.invoke_agent.duration", "s", "How long an agent ran.", _AGENT_SECONDS
            ),
            Kind.TOOL: Instrument(
                "gen_ai.execute_tool.duration", "s", "How long a tool ran.", _SECONDS
            ),
            Kind.MODEL: Instrument(
                "gen_ai.client.operation.duration", "s", "How long a model took.", _SECONDS
            ),
        }
    )
    inference_calls: Instrument = Instrument(
        "gen_ai.invoke_agent.inference_calls", "{call}", "Models that an agent called.", _CALLS
    )
    tool_calls: Instrument = Instrument(
        "gen_ai.invoke_agent.tool_calls", "{call}", "Tools that an agent called.", _CALLS
    )
    first_chunk: Instrument = Instrument(
        "gen_ai.client.operation.time_to_first_chunk", "s", _FIRST_CHUNK, _SECONDS
    )
    later_chunk: Instrument = Instrument(
        "gen_ai.client.operation.time_per_output_chunk", "s", _LATER_CHUNK, _SECONDS
    )
    model_call_tokens: Kinds = MappingProxyType(
        {
            kind: _per_call("gen_ai.client.token.usage", {"gen_ai.token.type": kind})
            for kind in ("input", "output")
        }
    )
    """Distributions over calls of models."""
    model_tokens: Kinds = _OWN_TOKENS
    """What models used in all, by the field of `Usage`."""

    # -- ours: attributes
    call_id: str = "paceline.call.id"
    link_id: str = "paceline.link.call.id"
    ending: str = "paceline.call.ending"
    attempts: str = "paceline.call.attempts"
    source: str = "paceline.cache.source"
    hit: str = "paceline.cache.hit"
    queue_s: str = "paceline.queue.duration"
    execute_s: str = "paceline.execute.duration"
    saved_s: str = "paceline.saved.duration"
    cost: str = "paceline.cost.paid"
    saved: str = "paceline.cost.saved"
    instance: str = "paceline.instance"
    label: str = "paceline.label."
    """Comes before the name of each label."""

    # -- ours: metrics
    calls: Instrument = _count("paceline.call.count", "call", "Calls, by how they ended.")
    results: Instrument = _count(
        "paceline.call.results", "call", "Calls, by where their outcome came from."
    )
    errors: Instrument = _count("paceline.call.errors", "call", "Calls, by category of error.")
    active: Instrument = _count("paceline.call.active", "call", "Calls in flight.")
    hit_duration: Instrument = Instrument(
        "paceline.hit.duration",
        "s",
        "How long calls took whose result was made before, or by another call.",
        _SHORT_SECONDS,
    )
    execute_duration: Instrument = Instrument(
        "paceline.execute.duration", "s", "Time in the agent, tool or model.", _SECONDS
    )
    queue_duration: Instrument = Instrument(
        "paceline.queue.duration", "s", "Time spent waiting for capacity.", _SHORT_SECONDS
    )
    first_item: Instrument = Instrument(
        "paceline.stream.time_to_first_item", "s", _FIRST_CHUNK, _SECONDS
    )
    later_item: Instrument = Instrument(
        "paceline.stream.time_per_item", "s", _LATER_CHUNK, _SECONDS
    )
    call_tokens: Kinds = MappingProxyType(
        {
            kind: _per_call("paceline.call.tokens", {"paceline.token.type": kind})
            for kind in ("input", "output")
        }
    )
    """Distributions over calls of what is no model: what all its model calls used."""
    tokens: Kinds = _OWN_TOKENS
    cost_paid: Instrument = _count("paceline.cost.paid", "USD", "What was paid.")
    cost_raw: Instrument = _count(
        "paceline.cost.raw", "USD", "What it had been without discounts for cached tokens."
    )
    unpriced: Instrument = _count(
        "paceline.cost.unpriced", "call", "Calls of models whose price is not known."
    )
    cost_saved: Instrument = _count(
        "paceline.cost.saved", "USD", "What results that were served again had cost."
    )
    time_saved: Instrument = Instrument(
        "paceline.saved.duration", "s", "What making results took that were served again."
    )
    load: Instrument = Instrument("paceline.instance.load", "1", "How full an instance is.")
    refused: Instrument = _count(
        "paceline.metrics.refused", "call", "Calls that could not be recorded."
    )
    overflowed: Instrument = _count(
        "paceline.metrics.overflowed", "series", "Series that had no place of their own."
    )
    spans_sent: Instrument = _count("paceline.export.sent", "span", "Spans that were taken.")
    spans_dropped: Instrument = _count(
        "paceline.export.dropped", "span", "Spans that were not: too many, or refused."
    )


def _used(kind: str) -> tuple[Instrument, Mapping[str, str]]:
    return _count(f"gen_ai.client.inference.usage.{kind}", "token", _TOKENS_USED), {}


_SHIPPED: Final = Names()

GENERATIONS: Final[Mapping[Generation, Names]] = {
    "util-genai-1.3": _SHIPPED,
    "genai-main": Names(
        durations={
            **_SHIPPED.durations,
            Kind.MODEL: msgspec.structs.replace(
                _SHIPPED.durations[Kind.MODEL], name="gen_ai.client.inference.duration"
            ),
        },
        first_chunk=msgspec.structs.replace(
            _SHIPPED.first_chunk, name="gen_ai.client.inference.time_to_first_chunk"
        ),
        later_chunk=msgspec.structs.replace(
            _SHIPPED.later_chunk, name="gen_ai.client.inference.time_per_output_chunk"
        ),
        model_call_tokens={
            kind: _per_call(f"gen_ai.client.inference.operation.{kind}_tokens", {})
            for kind in ("input", "output")
        },
        model_tokens={
            "input": _used("input_tokens"),
            "output": _used("output_tokens"),
            "cached_input": _used("cache_read.input_tokens"),
            "cache_write": _used("cache_write.input_tokens"),
            "reasoning": _used("reasoning.output_tokens"),
        },
    ),
}
"""All names, by generation."""


def sendable(text: str) -> str:
    """What can be sent of a text: half a character cannot, nor one of any length."""
    return text[:_LONGEST].encode("utf-8", "replace").decode()
