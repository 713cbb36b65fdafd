"""The latest calls of each name and length, for exemplars: a slow one is not pushed out by the quick
ones that come after it."""

from typing import Final, final

from paceline.call import Call, Kind, Outcome, Priority, Source
from paceline.clock import Clock
from paceline.errors import Category
from paceline.metrics.figures import ending_of
from paceline.metrics.span import Span

__all__ = ["Recent"]

_MOST: Final = 4_096


_Sort = tuple[str, Kind, Source, Category | None, int]
"""Calls of one sort push each other out: the last tells lengths apart, by powers of two."""

_Ended = tuple[str, str, bool, int, int]
"""What is kept of a call (id, trace, whether it ran, how long it took, when it ended), and nothing
of what it was given or came to."""


@final
class Recent:
    """Keeps one call of each sort, at most `most` in all; `observe` is an observer of the call
    path. Calls may come from any thread."""

    def __init__(self, clock: Clock, *, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._kept: dict[_Sort, _Ended] = {}

    def observe(self, call: Call, outcome: Outcome) -> None:
        """Notes a call that has just ended; none that nobody asked for, which is in no figure."""
        if call.priority is Priority.SPECULATIVE:
            return
        error, source, total_ns = outcome.error, outcome.source, outcome.total_ns
        category = None if error is None else error.category
        sort = (call.name, call.kind, source, category, total_ns.bit_length())
        if sort in self._kept or len(self._kept) < self._most:
            ran = outcome.attempts > 0 or source.cached
            at_ns = self._clock.wall_ns()
            self._kept[sort] = (call.id, call.trace_id or call.id, ran, total_ns, at_ns)

    def spans(self) -> list[Span]:
        """The calls, the newest last."""
        kept = self._kept.copy()  # in one step: other threads may add some meanwhile
        spans = [_span(sort, ended) for sort, ended in kept.items()]
        return sorted(spans, key=lambda span: span.end_ns)


def _span(sort: _Sort, ended: _Ended) -> Span:
    name, kind, source, category, _ = sort
    call, trace, ran, total_ns, at_ns = ended
    return Span(
        call,
        trace,
        name,
        at_ns - total_ns,
        at_ns,
        kind=kind,
        source=source,
        category=category,
        ending=ending_of(category, ran=ran),
    )
