"""How many models and tools agents called, as the conventions want to know it."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.call import Kind, Source
from paceline.metrics.export.called import Called
from paceline.metrics.span import Span


def _span(name: str, kind: Kind, parent: str | None, source: Source = Source.EXECUTED) -> Span:
    return Span(name, "run", name.partition("#")[0], 0, 1, parent, kind, source=source)


@given(st.lists(st.sampled_from([Kind.MODEL, Kind.TOOL]), max_size=30))
def test_calls_are_counted_by_the_agent_that_made_them(kinds: list[Kind]) -> None:
    """Each invocation of an agent counts the models and tools called in its course, and not those
    of others. (P-06)"""
    called = Called()
    for number, kind in enumerate(kinds):
        called.note(_span(f"c{number}", kind, "agent#1"))
        called.note(_span(f"other{number}", kind, "agent#2"))
    called.note(_span("agent#1", Kind.AGENT, None))
    ((name, made),) = list(called)
    assert name == "agent"
    assert (made.models.count, made.models.sum) == (1, kinds.count(Kind.MODEL))
    assert (made.tools.count, made.tools.sum) == (1, kinds.count(Kind.TOOL))


def test_what_a_tool_calls_is_called_by_its_agent() -> None:
    """A model that a tool calls counts for the agent that called the tool, and not for the agent
    around that one. (P-06)"""
    called = Called()
    called.note(_span("model#1", Kind.MODEL, "tool#1"))
    called.note(_span("model#2", Kind.MODEL, "tool#2"))
    called.note(_span("tool#2", Kind.TOOL, "tool#1"))
    called.note(_span("tool#1", Kind.TOOL, "inner"))
    called.note(_span("inner", Kind.AGENT, "outer"))
    called.note(_span("outer", Kind.AGENT, None))
    made = {name: (each.models.sum, each.tools.sum) for name, each in called}
    assert made == {"inner": (2, 2), "outer": (0, 0)}
    assert not called._open


def test_an_agent_that_called_nothing_counts_too() -> None:
    """An invocation without calls is a zero; one that was answered by the cache is none. (P-06)"""
    called = Called()
    called.note(_span("agent#1", Kind.AGENT, None))
    called.note(_span("agent#2", Kind.AGENT, None, Source.HOT))
    ((_, made),) = list(called)
    assert (made.tools.count, made.tools.sum) == (1, 0)


def test_memory_is_bounded() -> None:
    """Parents that never end and names without end are forgotten. (P-06)"""
    called = Called()
    for number in range(20_000):
        called.note(_span(f"t{number}", Kind.TOOL, f"gone{number}"))
    for number in range(2_000):
        called.note(_span(f"agent{number}", Kind.AGENT, None))
    assert len(called._open) <= 10_000
    assert len(list(called)) == 1_000
