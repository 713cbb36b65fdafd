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

import msgspec

from paceline.call import Call, Kind
from paceline.clock import Clock
from paceline.errors import Category
from paceline.metrics.figures import Ending
from paceline.metrics.span import Span

__all__ = [
    "Around",
    "Id",
    "Lived",
    "Since",
    "Trace",
    "What",
    "Within",
    "above",
    "current_span",
    "made_in",
]

_KEPT: Final = 4_096

Id = int | str
"""A number is that of a tracked call in one `Trace`; a text stands for a call everywhere."""

Around = tuple[Id, Id, Call | None, "Trace"]
"""What runs: its id, its trace, the runtime's call that it is itself part of, and where it will be
kept: what numbers mean is known there."""

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


def above(around: Around | None, outer: Call | None, own: int, kept: "Trace") -> Within:
    """The nearer of the tracked call and the runtime's call that the call `own`, of the trace
    `kept`, is made in."""
    # Without a runtime's call around it, what that had tracked still goes on.
    if around is not None and (outer is None or around[2] is outer):
        number, trace, _, where = around
        if where is kept:
            return Within(number, trace)
        return Within(where.name(number), where.name(trace))
    return Within(None, own) if outer is None else Within(outer.id, outer.trace_id)


def made_in(around: Around, outer: Call | None, call: Call) -> Call:
    """The call of a runtime as one made in the tracked call `around`, and in its trace, unless the
    runtime's call `outer` is nearer."""
    if outer is not None and around[2] is not outer:
        return call
    number, trace, _, kept = around
    return msgspec.structs.replace(call, trace_id=kept.name(trace), tracked_id=kept.name(number))


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
            self.name(lived.id),
            self.name(lived.trace),
            lived.what.name,
            lived.start_ns + to_wall_ns,
            lived.end_ns + to_wall_ns,
            parent_id=None if lived.parent is None else self.name(lived.parent),
            kind=lived.what.kind,
            execute_ns=lived.took_ns,
            category=lived.what.category,
            ending=lived.what.ending,
        )

    def name(self, number: Id) -> str:
        """What the call of a number is called everywhere."""
        return number if isinstance(number, str) else f"{self._session}-s{number}"
