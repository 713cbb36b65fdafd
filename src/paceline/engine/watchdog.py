"""Watches one session for a state that lasts too long, and for troubles that follow each other.

It listens to the machine and owns one timer, which runs only while a turn does: a session without
a turn wakes nobody. The timer is not made anew with each move: it rings when the shortest limit might
be over, and looks again where it is not. What is counted is added up when somebody asks.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, final

import msgspec

from paceline.clock import Clock
from paceline.engine.machine import Machine
from paceline.engine.states import AgentState, StateTransition
from paceline.errors import UsageError

__all__ = ["LIMITS_S", "Alarm", "Stuck", "Thrashing", "Watchdog"]

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000
_IDLE, _ERROR, _SHUTDOWN = AgentState.IDLE, AgentState.ERROR, AgentState.SHUTDOWN
_UNCOUNTED: Final = 64

LIMITS_S: Final[Mapping[AgentState, float]] = MappingProxyType(
    {
        AgentState.PROCESSING_PROMPT: 120.0,
        AgentState.GENERATING_RESPONSE: 300.0,
        AgentState.EXECUTING_TOOLS: 300.0,
        AgentState.AWAITING_APPROVAL: 3_600.0,
        AgentState.WAITING_FOR_USER: 3_600.0,
        AgentState.ERROR: 120.0,
    }
)
"""How long a state may last, in seconds, if nobody says otherwise."""

_OUTSIDE: Final = frozenset({_IDLE, _SHUTDOWN})


def _nanoseconds(limits_s: Mapping[AgentState, float]) -> Mapping[AgentState, int]:
    if not _OUTSIDE.isdisjoint(limits_s) or any(not s > 0 for s in limits_s.values()):
        raise ValueError("limits are positive, and for the states of a turn")
    return {state: round(s * _NS) for state, s in limits_s.items()}


_LIMITS_NS: Final = _nanoseconds(LIMITS_S)
"""Shared by all that have those limits."""
_NO_MOVES: Final[dict[tuple[AgentState, AgentState], int]] = {}
_NO_TIMES: Final[dict[AgentState, int]] = {}


class Stuck(msgspec.Struct, frozen=True):
    """A state lasts longer than its limit. `since_ns` is a moment of the monotonic clock."""

    state: AgentState
    since_ns: int
    limit_s: float
    turn_id: str


class Thrashing(msgspec.Struct, frozen=True):
    """A session went into ERROR and back to work `count` times within so many seconds."""

    count: int
    within_s: float
    turn_id: str


Alarm = Stuck | Thrashing


@final
class Watchdog:
    """Tells `alarm` what is wrong with the machine of a session, on its event loop.

    `limits_s` are seconds for the states of a turn; those left out have none. Each stay that is
    too long is told of once. `troubles` of them within `within_s` seconds are thrashing; then
    counting starts anew. An alarm that raises is logged. Moves and times are added up if `counting`,
    for who asks for `matrix` and `time_in_ns`.
    """

    __slots__ = (
        "_alarm",
        "_clock",
        "_limits_ns",
        "_machine",
        "_matrix",
        "_most",
        "_moves",
        "_shortest_ns",
        "_time_in_ns",
        "_timer",
        "_told_ns",
        "_troubles_ns",
        "_turn_id",
        "_watching",
        "_within_s",
    )

    def __init__(
        self,
        machine: Machine,
        alarm: Callable[[Alarm], object],
        *,
        clock: Clock,
        limits_s: Mapping[AgentState, float] = LIMITS_S,
        troubles: int = 5,
        within_s: float = 60.0,
        counting: bool = True,
    ) -> None:
        if troubles < 1 or not within_s > 0:
            raise ValueError("thrashing is one trouble at least, in a time above 0")
        self._machine = machine
        self._alarm = alarm
        self._clock = clock
        self._limits_ns = _LIMITS_NS if limits_s is LIMITS_S else _nanoseconds(limits_s)
        self._shortest_ns = min(self._limits_ns.values(), default=0)
        self._moves: list[StateTransition] | None = [] if counting else None
        """Those that are not in the figures yet; None if nobody asks for figures."""
        self._within_s = within_s
        self._most = troubles
        self._troubles_ns: tuple[int, ...] = ()
        self._matrix = dict[tuple[AgentState, AgentState], int]() if counting else _NO_MOVES
        self._time_in_ns = dict[AgentState, int]() if counting else _NO_TIMES
        self._turn_id = ""
        self._told_ns: int | None = None  # the begin of the stay that was told of last
        self._timer: asyncio.TimerHandle | None = None
        self._watching = False

    @property
    def matrix(self) -> Mapping[tuple[AgentState, AgentState], int]:
        """How often the session moved from one state to another while it was watched."""
        self._count()
        return MappingProxyType(self._matrix)

    @property
    def time_in_ns(self) -> Mapping[AgentState, int]:
        """How long it was in each state, over all stays that ended while it was watched."""
        self._count()
        return MappingProxyType(self._time_in_ns)

    def start(self) -> None:
        """Begins to watch, on the running event loop. Raises UsageError if it does already."""
        if self._watching:
            raise UsageError("State monitor already started", next_step="Stop it before.")
        self._watching = True
        self._machine.observe(self._moved)
        self._aim()

    def stop(self) -> None:
        """Watches no more, until it is started again. What was counted stays."""
        if self._watching:
            self._machine.forget(self._moved)
            self._watching = False
        self._disarm()

    def _moved(self, transition: StateTransition) -> None:
        if self._moves is not None:
            self._moves.append(transition)
            if len(self._moves) >= _UNCOUNTED:
                self._count()
        self._turn_id = transition.turn_id
        target = transition.to_state
        if target is _ERROR:
            self._trouble()
        if self._timer is None or target is _IDLE or target is _SHUTDOWN:
            self._aim()

    def _count(self) -> None:
        matrix, time_in_ns, moves = self._matrix, self._time_in_ns, self._moves or []
        for move in moves:
            source, edge = move.from_state, (move.from_state, move.to_state)
            matrix[edge] = matrix.get(edge, 0) + 1
            time_in_ns[source] = time_in_ns.get(source, 0) + move.in_state_ns
        moves.clear()

    def _trouble(self) -> None:
        entered_ns = self._machine.since_ns
        times = self._troubles_ns = (*self._troubles_ns, entered_ns)
        if len(times) < self._most:
            return
        if entered_ns - times[0] <= self._within_s * _NS:
            self._troubles_ns = ()
            self._tell(Thrashing(self._most, self._within_s, self._turn_id))
        else:
            self._troubles_ns = times[1:]

    def _aim(self) -> None:
        """Has the timer ring when the present state has lasted too long, or before."""
        state = self._machine.state
        if state in _OUTSIDE:
            self._disarm()
            return
        limit_ns = self._limits_ns.get(state)
        since_ns = self._machine.since_ns
        if self._timer is not None or limit_ns is None or since_ns == self._told_ns:
            return
        # However it moves from now on, no limit is over before that.
        now_ns = self._clock.monotonic_ns()
        left_ns = min(since_ns + limit_ns - now_ns, self._shortest_ns)
        self._timer = asyncio.get_running_loop().call_later(max(0, left_ns) / _NS, self._ring)

    def _ring(self) -> None:
        self._timer = None
        state, since_ns = self._machine.state, self._machine.since_ns
        limit_ns = self._limits_ns.get(state)
        if limit_ns is not None and self._clock.monotonic_ns() - since_ns >= limit_ns:
            self._told_ns = since_ns
            self._tell(Stuck(state, since_ns, limit_ns / _NS, self._turn_id))
        self._aim()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, alarm: Alarm) -> None:
        try:
            self._alarm(alarm)
        except Exception as exc:  # noqa: BLE001 (an alarm's error is not the session's)
            _log.warning("an alarm of the state monitor failed: %s", exc, exc_info=exc)
