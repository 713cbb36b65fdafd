"""Spans of OpenTelemetry made of our calls."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from paceline.call import Kind, Source
from paceline.errors import Category
from paceline.metrics.export import otel_spans
from paceline.metrics.export.names import GENERATIONS
from paceline.metrics.export.otel_spans import Ended, SpanForm, span_id, trace_id
from paceline.metrics.figures import Ending, Usage
from paceline.metrics.span import Span

NAMES = GENERATIONS["util-genai-1.3"]
AT = 1_700_000_000_000_000_000


def a_form() -> SpanForm:
    """What makes spans, for a service of no name."""
    return SpanForm(NAMES, Resource({}), InstrumentationScope("paceline"))


def a_span(id: str = "0123456789abcdef-2", **known: Any) -> Span:  # noqa: A002
    """A call that took a second."""
    span = Span(id, "0123456789abcdef-1", "web", AT, AT + 10**9)
    return msgspec.structs.replace(span, **known)


def form(*spans: Span) -> list[ReadableSpan]:
    """What the spans become."""
    return a_form().of([Ended(span) for span in spans])


def the_form(**known: Any) -> ReadableSpan:
    """What a call that took a second becomes."""
    (span,) = form(a_span(**known))
    return span


def context(span: ReadableSpan) -> tuple[int, int]:
    """The ids of trace and span."""
    assert span.context is not None
    assert span.context.is_valid
    return span.context.trace_id, span.context.span_id


@given(st.sets(st.text(), min_size=2, max_size=50))
def test_ids_are_valid_and_differ(ids: set[str]) -> None:
    """Different calls have different ids, the same call the same, none is zero, and all have the
    form that W3C gives them. (P-06)"""
    assert len({span_id(each) for each in ids}) == len(ids)
    assert len({trace_id(each) for each in ids}) == len(ids)
    for each in ids:
        assert (span_id(each), trace_id(each)) == (span_id(each), trace_id(each))
        assert re.fullmatch("[0-9a-f]{16}", format_span_id(span_id(each)))
        assert re.fullmatch("[0-9a-f]{32}", format_trace_id(trace_id(each)))
        assert span_id(each)
        assert trace_id(each)


def test_ids_of_many_calls_differ() -> None:
    """A hundred thousand calls of a session, and as many tracked ones, share no id."""
    ids = [f"0123456789abcdef-{kind}{n}" for kind in ("", "s") for n in range(100_000)]
    assert len({span_id(each) for each in ids}) == len(ids)


@pytest.mark.parametrize(
    ("kind", "name", "attribute", "span_kind"),
    [
        (Kind.AGENT, "invoke_agent web", "gen_ai.agent.name", SpanKind.INTERNAL),
        (Kind.TOOL, "execute_tool web", "gen_ai.tool.name", SpanKind.INTERNAL),
        (Kind.MODEL, "chat web", "gen_ai.request.model", SpanKind.CLIENT),
    ],
)
def test_kinds_have_the_names_of_the_conventions(
    kind: Kind, name: str, attribute: str, span_kind: SpanKind
) -> None:
    """Agents, tools and models have the span names, kinds and attributes of the conventions.
    (P-06)"""
    span = the_form(kind=kind)
    assert (span.name, span.kind) == (name, span_kind)
    assert span.attributes is not None
    assert span.attributes["gen_ai.operation.name"] == name.split(maxsplit=1)[0]
    assert span.attributes[attribute] == "web"


def test_a_span_has_its_place_and_times() -> None:
    """A span has the ids of its call and trace, its parent's in the same trace, and begins and
    ends when the call did. (S0-01)"""
    root = a_span("0123456789abcdef-1")
    child = a_span("0123456789abcdef-2", parent_id=root.id)
    of_root, of_child = form(root, child)
    assert of_root.parent is None
    assert of_child.parent is not None
    assert (of_child.parent.trace_id, of_child.parent.span_id) == context(of_root)
    assert context(of_child) == (trace_id(root.trace_id), span_id(child.id))
    assert (of_child.start_time, of_child.end_time) == (AT, AT + 10**9)


def test_a_clock_that_was_set_back_makes_no_span_end_before_it_begins() -> None:
    """A span takes no less than no time, and begins at no negative moment."""
    span = the_form(start_ns=AT + 5, end_ns=AT)
    assert (span.start_time, span.end_time) == (AT, AT)
    span = the_form(start_ns=-5, end_ns=7)
    assert (span.start_time, span.end_time) == (0, 7)


@pytest.mark.parametrize("category", Category)
def test_errors_are_told_by_category(category: Category) -> None:
    """A failed call has the status of an error and its category as `error.type`; a cancelled one
    has neither. (V-31)"""
    cancelled = category is Category.CANCELLED
    span = the_form(category=category, ending=Ending.CANCELLED if cancelled else Ending.ERROR)
    assert span.attributes is not None
    assert span.status.status_code is (StatusCode.UNSET if cancelled else StatusCode.ERROR)
    assert span.status.description is None
    assert span.attributes.get("error.type") == (None if cancelled else category.value)
    assert span.attributes["paceline.call.ending"] == ("cancelled" if cancelled else "error")


def test_a_success_has_no_status() -> None:
    """A call with a value has neither status nor `error.type`."""
    span = the_form()
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in (span.attributes or {})


def test_tokens_money_and_times_are_told() -> None:
    """A span says which tokens were used, what was paid and saved, how long it waited and ran, and
    where its result came from. (S0-26)"""
    usage = Usage(100, 20, 30, 4, 5, cost_usd=0.25, saved_usd=0.5)
    span = a_span(queue_ns=2 * 10**8, execute_ns=7 * 10**8, usage=usage, source=Source.WARM)
    (made,) = a_form().of([Ended(span, 0, 3 * 10**9)])
    assert dict(made.attributes or {}) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "web",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.cache_write.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "paceline.call.id": span.id,
        "paceline.call.ending": "success",
        "paceline.call.attempts": 0,
        "paceline.cache.source": "warm",
        "paceline.cache.hit": True,
        "paceline.queue.duration": 0.2,
        "paceline.execute.duration": 0.7,
        "paceline.saved.duration": 3.0,
        "paceline.cost.paid": 0.25,
        "paceline.cost.saved": 0.5,
    }


def test_links_lead_to_the_call_whose_work_it_was() -> None:
    """A call that joined another's work, or got its result, links to it, into its own trace, also
    where that one comes later in the batch; of an unknown one only the id is told. (S0-01)"""
    maker = a_form()
    joined = a_span("a-1", trace_id="a-1", source=Source.JOINED, links=("b-1",))
    leader = a_span("b-1", trace_id="b-0")
    of_joined, of_leader = maker.of([Ended(joined), Ended(leader)])
    assert [(each.context.trace_id, each.context.span_id) for each in of_joined.links] == [
        context(of_leader)
    ]
    (later,) = maker.of([Ended(a_span("c-1", trace_id="c-1", links=("b-1",)))])
    assert [each.context.trace_id for each in later.links] == [trace_id("b-0")]
    (stranger,) = maker.of([Ended(a_span("d-1", trace_id="d-1", links=("nobody",)))])
    assert stranger.links == ()
    assert (stranger.attributes or {})["paceline.link.call.id"] == "nobody"


def test_few_calls_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls that may be linked to only the latest are remembered, however many there are."""
    monkeypatch.setattr(otel_spans, "_REMEMBERED", 10)
    maker = a_form()
    for n in range(100):
        maker.of([Ended(a_span(f"x-{n}"))])
    assert list(maker._traces) == [f"x-{n}" for n in range(90, 100)]


def test_any_name_can_be_sent() -> None:
    """A name with half a character, or of any length, harms no batch."""
    span = the_form(name="\ud800" + "x" * 10_000)
    assert span.name == "invoke_agent ?" + "x" * 199
