"""The span of a call: what is known of it, at the moments when it was."""

import msgspec

from paceline.call import Kind, Source
from paceline.errors import AgentError, Category
from paceline.metrics.figures import Ending, Usage
from paceline.metrics.span import Span, span_of
from paceline.testing.history_suite import a_call, an_outcome


def test_a_span_says_what_the_call_came_to() -> None:
    """A span has its call's place in the trace, its times, its ending and its links. (S0-01)"""
    call = a_call("1", "echo")
    outcome = an_outcome(call, error=AgentError("x"), source=Source.JOINED)
    usage = Usage(input=7)
    span = span_of(call, outcome, 9_000_000_000, ending=Ending.ERROR, usage=usage)
    assert span == Span(
        "1",
        "trace",
        "echo",
        4_000_000_000,
        9_000_000_000,
        "parent",
        Kind.AGENT,
        3_000,
        4_000_000,
        Source.JOINED,
        Category.EXECUTION,
        Ending.ERROR,
        usage,
        ("another",),
    )
    assert span.took_ns == 5_000_000_000


def test_a_call_without_a_trace_is_its_own() -> None:
    """Without a trace, a span is in the trace of its own id; without a link it has none."""
    call = msgspec.structs.replace(a_call("1"), trace_id="", parent_id=None)
    outcome = msgspec.structs.replace(an_outcome(call), link="", error=None)
    span = span_of(call, outcome, 1, ending=Ending.SUCCESS)
    assert (span.trace_id, span.links, span.category) == ("1", (), None)


def test_no_span_takes_less_than_no_time() -> None:
    """Where the wall clock was set back meanwhile, a span took no time, not less."""
    assert Span("1", "1", "a", 10, 5).took_ns == 0
