"""Watches one session for a state that lasts too long, and for troubles that follow each other.

It listens to the machine and owns one timer, which runs only while a turn does: a session without
a turn wakes nobody. The timer is not made anew with each move; one that is early looks again.
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
_ERROR: Final = AgentState.ERROR

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

_OUTSIDE: Final = frozenset({AgentState.IDLE, AgentState.SHUTDOWN})


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
    counting starts anew. An alarm that raises is logged.
    """

    __slots__ = (
        "_alarm",
        "_clock",
        "_forget",
        "_limits_ns",
        "_machine",
        "_matrix",
        "_most",
        "_time_in_ns",
        "_timer",
        "_timer_ns",
        "_told_ns",
        "_troubles_ns",
        "_turn_id",
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
    ) -> None:
        if not _OUTSIDE.isdisjoint(limits_s) or any(not s > 0 for s in limits_s.values()):
            raise ValueError("limits are positive, and for the states of a turn")
        if troubles < 1 or not within_s > 0:
            raise ValueError("thrashing is one trouble at least, in a time above 0")
        self._machine = machine
        self._alarm = alarm
        self._clock = clock
        self._limits_ns = {state: round(s * _NS) for state, s in limits_s.items()}
        self._within_s = within_s
        self._most = troubles
        self._troubles_ns: list[int] = []
        self._matrix: dict[tuple[AgentState, AgentState], int] = {}
        self._time_in_ns: dict[AgentState, int] = {}
        self._turn_id = ""
        self._told_ns: int | None = None  # the begin of the stay that was told of last
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._forget: Callable[[], None] | None = None

    @property
    def matrix(self) -> Mapping[tuple[AgentState, AgentState], int]:
        """How often the session moved from one state to another while it was watched."""
        return MappingProxyType(self._matrix)

    @property
    def time_in_ns(self) -> Mapping[AgentState, int]:
        """How long it was in each state, over all stays that ended while it was watched."""
        return MappingProxyType(self._time_in_ns)

    def start(self) -> None:
        """Begins to watch, on the running event loop. Raises UsageError if it does already."""
        if self._forget is not None:
            raise UsageError("State monitor already started", next_step="Stop it before.")
        self._forget = self._machine.observe(self._moved)
        self._aim()

    def stop(self) -> None:
        """Watches no more, until it is started again. What was counted stays."""
        if self._forget is not None:
            self._forget()
            self._forget = None
        self._disarm()

    def _moved(self, transition: StateTransition) -> None:
        source, target = transition.from_state, transition.to_state
        edge = (source, target)
        self._matrix[edge] = self._matrix.get(edge, 0) + 1
        self._time_in_ns[source] = self._time_in_ns.get(source, 0) + transition.in_state_ns
        self._turn_id = transition.turn_id
        if target is _ERROR:
            self._trouble()
        self._aim()

    def _trouble(self) -> None:
        entered_ns, times = self._machine.since_ns, self._troubles_ns
        times.append(entered_ns)
        if len(times) < self._most:
            return
        if entered_ns - times[0] <= self._within_s * _NS:
            times.clear()
            self._tell(Thrashing(self._most, self._within_s, self._turn_id))
        else:
            del times[0]

    def _aim(self) -> None:
        """Has the timer ring when the present state has lasted too long, or before."""
        state = self._machine.state
        if state in _OUTSIDE:
            self._disarm()
            return
        limit_ns = self._limits_ns.get(state)
        since_ns = self._machine.since_ns
        if limit_ns is None or since_ns == self._told_ns:
            return
        due_ns = since_ns + limit_ns
        if self._timer is not None and self._timer_ns <= due_ns:
            return
        self._disarm()
        delay_s = (due_ns - self._clock.monotonic_ns()) / _NS
        self._timer = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._ring)
        self._timer_ns = due_ns

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
