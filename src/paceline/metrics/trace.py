"""The latest tracked calls of a collector as a tree of spans.

A call keeps what it costs least to keep: a tuple in a ring. Spans are made of it when somebody
asks. What a call runs in is in a context variable, so tasks and threads that inherit the context
inherit the parent.
"""

import secrets
from collections import deque
from contextvars import ContextVar
from itertools import count
from typing import Final, NamedTuple, final

from paceline.call import Call, Kind
from paceline.clock import Clock
from paceline.errors import Category
from paceline.metrics.figures import Ending
from paceline.metrics.span import Span

__all__ = ["Around", "Id", "Lived", "Since", "Trace", "What", "Within", "above", "current_span"]

_KEPT: Final = 4_096

Id = int | str
"""A number is that of a tracked call in this trace; a text the id of a call of a runtime."""

Around = tuple[Id, Id, Call | None]
"""What runs: its id, its trace, and the runtime's call that it is itself part of."""

current_span: ContextVar[Around | None] = ContextVar("paceline_current_span", default=None)
"""The tracked call in whose course the running code runs."""


class Within(NamedTuple):
    """Where a call belongs."""

    parent: Id | None
    trace: Id


class What(NamedTuple):
    """What was called, and how it ended."""

    name: str
    kind: Kind
    category: Category | None
    ending: Ending


class Lived(NamedTuple):
    """A tracked call that is over; moments are of the monotonic clock. `took_ns` is the time in
    the function itself: of a stream, without what its consumer did between items."""

    id: Id
    parent: Id | None
    trace: Id
    start_ns: int
    end_ns: int
    took_ns: int
    what: What


class Since(NamedTuple):
    """The calls kept after a mark, and the mark to ask with for those that come after them."""

    spans: tuple[Span, ...]
    mark: object
    lost: bool
    """Whether there may have been more of them than are kept."""


def above(around: Around | None, outer: Call | None, own: int) -> Within:
    """The nearer of the tracked call and the runtime's call that the call `own` is made in."""
    if around is not None and around[2] is outer:
        return Within(around[0], around[1])
    if outer is None:  # left: the runtime's call is over, what it had tracked goes on
        return Within(None, own) if around is None else Within(around[0], around[1])
    return Within(outer.id, outer.trace_id)


@final
class Trace:
    """A ring of the latest `kept` tracked calls; `keep` adds the fields of one `Lived`."""

    def __init__(self, clock: Clock, *, kept: int = _KEPT, session: str | None = None) -> None:
        """`session` tells the ids of this process from those of others."""
        self._clock = clock
        self._session = session or secrets.token_hex(8)
        self._ring: deque[tuple[object, ...]] = deque(maxlen=kept)
        self.keep = self._ring.append
        self.next_id = count(1).__next__

    def clear(self) -> None:
        """Forgets all calls so far; ids are not given again."""
        self._ring.clear()

    def spans(self) -> tuple[Span, ...]:
        """The calls kept, in the order they ended; moments are of the wall clock."""
        to_wall_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
        return tuple([self._span(Lived._make(kept), to_wall_ns) for kept in self._ring.copy()])

    def since(self, mark: object = None) -> Since:
        """The calls kept after those of an earlier answer; without its mark, all that are kept."""
        to_wall_ns = self._clock.wall_ns() - self._clock.monotonic_ns()
        ring = self._ring.copy()
        new: list[Span] = []
        for kept in reversed(ring):
            if kept is mark:
                break
            new.append(self._span(Lived._make(kept), to_wall_ns))
        missed = mark is not None and len(new) == self._ring.maxlen
        return Since(tuple(new[::-1]), ring[-1] if ring else mark, missed)

    def _span(self, lived: Lived, to_wall_ns: int) -> Span:
        return Span(
            self._name(lived.id),
            self._name(lived.trace),
            lived.what.name,
            lived.start_ns + to_wall_ns,
            lived.end_ns + to_wall_ns,
            parent_id=None if lived.parent is None else self._name(lived.parent),
            kind=lived.what.kind,
            execute_ns=lived.took_ns,
            category=lived.what.category,
            ending=lived.what.ending,
        )

    def _name(self, number: Id) -> str:
        return number if isinstance(number, str) else f"{self._session}-s{number}"
