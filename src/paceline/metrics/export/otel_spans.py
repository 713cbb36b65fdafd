"""Calls that are over as spans of OpenTelemetry, by the conventions for generative AI.

What went in and what came out of a call is in no span, nor are the texts of errors.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, final

from paceline.call import Kind
from paceline.errors import Category
from paceline.extras import missing
from paceline.metrics.export.names import NOT_SENT, Names, sendable
from paceline.metrics.figures import Ending
from paceline.metrics.span import Span

try:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError as exc:
    raise missing("OpenTelemetry needs", "opentelemetry-sdk", "otel", NOT_SENT) from exc

__all__ = ["Ended", "SpanForm", "span_id", "trace_id"]

_REMEMBERED: Final = 16_384
_KINDS: Final = {
    Kind.AGENT: SpanKind.INTERNAL,
    Kind.TOOL: SpanKind.INTERNAL,
    Kind.MODEL: SpanKind.CLIENT,
}
_FAILED: Final = frozenset({Ending.ERROR, Ending.TIMEOUT, Ending.REJECTED})

_Value = str | bool | int | float


class Ended(NamedTuple):
    """A call that is over, and what its span does not say of it; None where nobody knows."""

    span: Span
    attempts: int | None = None
    saved_ns: int = 0


def trace_id(trace: str) -> int:
    """The 16 bytes that stand for one of our traces: always the same, never zero.

    Two traces share them no sooner than two that draw theirs at random.
    """
    return _digest(trace, 16)


def span_id(call: str) -> int:
    """The 8 bytes that stand for one of our calls; see `trace_id`."""
    return _digest(call, 8)


def _digest(text: str, size: int) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
    return int.from_bytes(digest, "big") or 1


@final
class SpanForm:
    """Makes spans for export, under `names`.

    It remembers the traces of the latest calls: what links to another call knows its id alone.
    """

    def __init__(self, names: Names, resource: Resource, scope: InstrumentationScope) -> None:
        self._names = names
        self._resource = resource
        self._scope = scope
        self._traces: dict[str, str] = {}

    def of(self, batch: Sequence[Ended]) -> list[ReadableSpan]:
        """The spans, in the order given; their links may go to each other."""
        self.remember(batch)
        return [self._form(each) for each in batch]

    def remember(self, batch: Sequence[Ended]) -> None:
        """From here on, links may go to these calls."""
        traces = self._traces
        for each in batch:
            traces[each.span.id] = each.span.trace_id
        for _ in range(len(traces) - max(_REMEMBERED, len(batch))):
            del traces[next(iter(traces))]

    def _form(self, ended: Ended) -> ReadableSpan:
        span = ended.span
        operation = self._names.operations[span.kind]
        start_ns = max(0, min(span.start_ns, span.end_ns))
        trace = trace_id(span.trace_id)
        parent = None if span.parent_id is None else _context(trace, span_id(span.parent_id))
        failed = span.ending in _FAILED
        return ReadableSpan(
            f"{operation.name} {sendable(span.name)}",
            _context(trace, span_id(span.id)),
            parent,
            self._resource,
            self._attributes(ended),
            links=self._links(span),
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=start_ns,
            end_time=max(start_ns, span.end_ns),
            instrumentation_scope=self._scope,
        )

    def _attributes(self, ended: Ended) -> Mapping[str, _Value]:
        names, span, usage = self._names, ended.span, ended.span.usage
        operation = names.operations[span.kind]
        said: dict[str, _Value] = {
            names.operation: operation.name,
            operation.subject: sendable(span.name),
            names.call_id: sendable(span.id),
            names.ending: span.ending.value,
            names.source: span.source.value,
            names.hit: span.ending is Ending.SUCCESS and span.source.cached,
            names.queue_s: span.queue_ns / 1e9,
            names.execute_s: span.execute_ns / 1e9,
        }
        if ended.attempts is not None:
            said[names.attempts] = ended.attempts
        if ended.saved_ns:
            said[names.saved_s] = ended.saved_ns / 1e9
        if usage.tokens:
            for field, name in names.usage.items():
                count: int = getattr(usage, field)
                if count or field in ("input", "output"):
                    said[name] = count
        if usage.cost_usd:
            said[names.cost] = usage.cost_usd
        if usage.saved_usd:
            said[names.saved] = usage.saved_usd
        if span.category is not None and span.category is not Category.CANCELLED:
            said[names.error_type] = span.category.value
        if span.links:
            said[names.link_id] = sendable(span.links[0])
        return said

    def _links(self, span: Span) -> list[Link]:
        traces = [(call, self._traces.get(call)) for call in span.links]
        return [
            Link(_context(trace_id(trace), span_id(call)))
            for call, trace in traces
            if trace is not None
        ]


def _context(trace: int, span: int) -> SpanContext:
    return SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
