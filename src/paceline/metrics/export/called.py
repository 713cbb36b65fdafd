"""How many models and tools each invocation of an agent called. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from paceline.call import Kind, Source
from paceline.metrics.sketch import Sketch
from paceline.metrics.span import Span

__all__ = ["Called", "Invocations"]

_MOST_OPEN: Final = 10_000
_MOST_NAMES: Final = 1_000


class Invocations(NamedTuple):
    """The executed calls of one agent: distributions of how many each made of models and tools."""

    models: Sketch
    tools: Sketch


@final
class Called:
    """Counts calls by the agent in whose course they were made, in bounded memory.

    What a tool calls is called by the agent that called the tool; what another agent calls is its
    own. Spans come in the order they end in, so calls before what made them. An agent of which
    nothing is heard any more is forgotten once 10,000 others were.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, list[int]] = OrderedDict()
        self._names: dict[str, Invocations] = {}

    def note(self, span: Span) -> None:
        """Takes a call that has ended; one that nobody asked for is made in no one's course."""
        if span.speculated:
            self._open.pop(span.id, None)
            return
        models, tools = self._open.pop(span.id, (0, 0))
        if span.kind is Kind.AGENT:
            if span.source is Source.EXECUTED:
                self._add(span.name, models, tools)
        elif span.parent_id is not None:
            made = self._open.setdefault(span.parent_id, [0, 0])
            made[0] += models + (span.kind is Kind.MODEL)
            made[1] += tools + (span.kind is Kind.TOOL)
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)

    def __iter__(self) -> Iterator[tuple[str, Invocations]]:
        return iter(self._names.items())

    def _add(self, name: str, models: int, tools: int) -> None:
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= _MOST_NAMES:
                return
            known = self._names[name] = Invocations(Sketch(), Sketch())
        known.models.add(models)
        known.tools.add(tools)
