"""One execution of a tool: how far it is, and where its kind runs."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import msgspec

from paceline.balance.gate import Gate
from paceline.call import UNKNOWN, Effect, Outcome, Source
from paceline.clock import Clock
from paceline.engine.states import ToolCall, ToolExecutionState, ToolStatus
from paceline.messages import ToolUse

if TYPE_CHECKING:
    import asyncio

    from paceline.engine.batch import Batch
    from paceline.engine.protocols import Preparation
    from paceline.resources import ResourceUsage

__all__ = ["Execution", "Floor", "cost_of"]

Figures = tuple[str, str, ToolStatus, int, int | None, int | None, "ResourceUsage | None"]
"""Of an execution: its id, tool and status, when it was queued, began and ended, what it took."""

_QUEUED = ToolStatus.QUEUED
_EXECUTED = Source.EXECUTED


def cost_of(preparation: "Preparation", outcome: Outcome) -> float | None:
    """What a run cost in dollars, as far as that is known: what was measured, else the price. One
    that was made ahead costs who is the first to use it."""
    if outcome.ahead_usd is not None:
        return outcome.ahead_usd
    if outcome.source is not _EXECUTED or not outcome.attempts:
        return None
    measured = outcome.cost_usd
    return preparation.cost_usd or None if measured is None else measured


@final
class Execution(msgspec.Struct, eq=False):
    """One tool use of an answer. Times are those of the monotonic clock.

    `preparation` is None if it cannot be run at all, `call` what came of it once it is over.
    `agreed` if no person need be asked (any more), who took `person_ns`; `begun` while something is
    done for it. `index` is its place in the schedule of its batch, -1 if it has none. `lingers` if it
    changes something, nobody waits for it any more, and it may go on all the same.
    """

    id: str
    use: ToolUse
    queued_ns: int
    preparation: "Preparation | None" = None
    status: ToolStatus = _QUEUED
    started_ns: int | None = None
    ended_ns: int | None = None
    person_ns: int = 0
    resources: "ResourceUsage | None" = None
    call: ToolCall | None = None
    agreed: bool = True
    screened: bool = False
    begun: bool = False
    lingers: bool = False
    cost_usd: float | None = None
    index: int = -1
    task: "asyncio.Task[None] | None" = None

    @property
    def repeatable(self) -> bool:
        """Whether running it for nothing does no harm."""
        return self.preparation is not None and self.preparation.effect.repeatable

    @property
    def effect(self) -> Effect:
        """What running it does to the world."""
        return UNKNOWN if self.preparation is None else self.preparation.effect

    def as_call(self) -> ToolCall:
        """What came of it, or what there is of it by now."""
        if self.call is not None:
            return self.call
        return ToolCall(self.id, self.use.name, self.use.arguments, self.status)

    def figures(self) -> Figures:
        """How far it is."""
        return (
            self.id,
            self.use.name,
            self.status,
            self.queued_ns,
            self.started_ns,
            self.ended_ns,
            self.resources,
        )


@final
class Floor:
    """What all batches of one pipeline share: places to run, the time, and what ended lately.

    `expected_ns` says how long a tool of that name takes, where that is known.
    """

    __slots__ = ("clock", "expected_ns", "gate", "intensive", "live", "places", "recent")

    def __init__(
        self,
        gate: Gate,
        intensive: Gate,
        clock: Clock,
        expected_ns: Callable[[str], int | None] | None,
        keep: int,
    ) -> None:
        self.gate = gate
        self.intensive = intensive
        """Through which those go as well that take much (a bulkhead: M. Nygard, Release It!, 2007)."""
        self.places: tuple[Gate, ...] = (gate,)
        """What all others go through."""
        self.clock = clock
        self.expected_ns = expected_ns
        self.recent: deque[Figures] = deque(maxlen=keep)
        self.live: set[Batch] = set()
        """Those that have tasks of their own."""

    def state(self, figures: Figures, expected_ns: int = 0) -> ToolExecutionState:
        """The same in the time of the wall, and with when it may be over, if it is known how long it
        takes."""
        call_id, name, status, queued_ns, started_ns, ended_ns, resources = figures
        ahead_ns = self.clock.wall_ns() - self.clock.monotonic_ns()
        estimated_ns: int | None = None
        if started_ns is not None:
            started_ns += ahead_ns
            if expected_ns and ended_ns is None:
                estimated_ns = started_ns + expected_ns
        return ToolExecutionState(
            call_id,
            name,
            status,
            queued_ns + ahead_ns,
            started_ns,
            None if ended_ns is None else ended_ns + ahead_ns,
            estimated_ns,
            resources,
        )
