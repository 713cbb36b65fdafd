"""One call as a span of time: what the profile is made from and exporters send."""

import msgspec

from paceline.call import SPECULATED, Call, Kind, Outcome, Source
from paceline.errors import Category
from paceline.metrics.figures import NO_USAGE, Ending, Usage

__all__ = ["Span", "span_of"]


class Span(msgspec.Struct, frozen=True, gc=False):
    """One call. Moments are nanoseconds of the wall clock, durations nanoseconds.

    A trace is a tree of calls that share `trace_id`; `parent_id` is the call, or the tracked
    function, in whose course this one was made. `links` are calls whose work this one joined or
    whose result it got. Of its time it waited `queue_ns` for capacity and was `execute_ns` in the
    agent; `category` is its error's.
    """

    id: str
    trace_id: str
    name: str
    start_ns: int
    end_ns: int
    parent_id: str | None = None
    kind: Kind = Kind.AGENT
    queue_ns: int = 0
    execute_ns: int = 0
    source: Source = Source.EXECUTED
    category: Category | None = None
    ending: Ending = Ending.SUCCESS
    usage: Usage = NO_USAGE
    links: tuple[str, ...] = ()

    @property
    def speculated(self) -> bool:
        """Whether nobody had asked for it."""
        return self.id.endswith(SPECULATED)

    @property
    def took_ns(self) -> int:
        """How long it took; 0 where the wall clock was set back meanwhile."""
        return max(0, self.end_ns - self.start_ns)


def span_of(
    call: Call, outcome: Outcome, end_ns: int, *, ending: Ending, usage: Usage = NO_USAGE
) -> Span:
    """The span of a call that ended at `end_ns`, by the wall clock."""
    return Span(
        call.id,
        call.trace_id or call.id,
        call.name,
        end_ns - outcome.total_ns,
        end_ns,
        call.tracked_id or call.parent_id,
        call.kind,
        outcome.queue_ns,
        outcome.execute_ns,
        outcome.source,
        None if outcome.error is None else outcome.error.category,
        ending,
        usage,
        (outcome.link,) if outcome.link else (),
    )
