"""The states of a session as one table, and the machine that moves through it.

Every state is one case of one `match`, so that the type checker refuses a state without moves; the
table is made of it once. A move names the state it starts from and is refused, changing nothing,
if that is not where the session is: what is recorded is what happened.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, assert_never, final

from paceline.clock import Clock
from paceline.engine.states import AgentState, StateTransition, TransitionTrigger, Trouble
from paceline.errors import IllegalTransitionError

__all__ = ["Listener", "Machine", "next_state", "triggers"]

_log = logging.getLogger("paceline")

Listener = Callable[[StateTransition], object]
"""Is told of a move, on the event loop and at once; what it returns is left alone."""

# Asking an enum for a member takes longer than comparing with it.
_S, _T = AgentState, TransitionTrigger
_IDLE, _ERROR, _SHUTDOWN = AgentState.IDLE, AgentState.ERROR, AgentState.SHUTDOWN
_RECOVERED: Final = TransitionTrigger.RECOVERED

_Moves = Mapping[TransitionTrigger, AgentState]
_IN_A_TURN: Final[_Moves] = {
    _T.TOOL_FAILURE: _ERROR,
    _T.TIMEOUT: _ERROR,
    _T.RESOURCE_LIMIT: _ERROR,
    _T.RATE_LIMIT: _ERROR,
    _T.INTERNAL_ERROR: _ERROR,
    _T.CANCELLED: _IDLE,
    _T.SHUTDOWN: _SHUTDOWN,
}
"""What every state of a running turn has, but the one in which trouble is dealt with."""


def next_state(
    state: AgentState, trigger: TransitionTrigger, origin: AgentState | None = None
) -> AgentState | None:
    """Where a trigger leads from a state; None if it is illegal there.

    `origin` is the state in which the trouble of ERROR arose: recovered, a session is there again,
    but for an answer that broke off, which is asked for anew.
    """
    if trigger is _RECOVERED:
        return None if state is not _ERROR or origin is None else _RESUMED.get(origin)
    return _TABLE[state].get(trigger)


def triggers(state: AgentState) -> tuple[TransitionTrigger, ...]:
    """What can move a session from this state, in the order of their declaration."""
    return tuple(t for t in TransitionTrigger if next_state(state, t, _S.PROCESSING_PROMPT))


@final
class Machine:
    """Where one session is, how it came there, and who wants to know.

    `most` moves are kept. All of it is used on the one event loop of the session.
    """

    __slots__ = (
        "_clock",
        "_listeners",
        "_most",
        "_telling",
        "_untold",
        "history",
        "since_ns",
        "state",
        "trouble",
    )

    def __init__(self, *, clock: Clock, most: int = 1_000) -> None:
        if most < 1:
            raise ValueError("a machine keeps one move at least")
        self.state: AgentState = _IDLE
        self.since_ns = clock.monotonic_ns()
        """When it came into this state; a moment of the monotonic clock."""
        self.trouble: Trouble | None = None
        """What is wrong, in the state ERROR alone."""
        self.history: list[StateTransition] = []
        """The latest moves, oldest first."""
        self._clock = clock
        self._most = most
        self._listeners: tuple[Listener, ...] = ()
        self._untold: tuple[StateTransition, ...] = ()
        self._telling = False

    def move(
        self,
        expected: AgentState,
        trigger: TransitionTrigger,
        *,
        turn_id: str = "",
        trouble: Trouble | None = None,
    ) -> StateTransition:
        """Moves on from `expected`, records it and tells those who listen.

        A move to ERROR, and no other, has a `trouble`, whose origin is `expected`. Raises
        IllegalTransitionError, with everything as it was, if the session is in another state, if
        the trigger is illegal in it, or if the trouble does not belong to the move.
        """
        state = self.state
        if state is not expected:
            raise _refusal(state, f"the session is {state}, not {expected}")
        if trigger is _RECOVERED:
            origin = None if self.trouble is None else self.trouble.origin
            target = next_state(state, trigger, origin)
        else:
            target = _TABLE[state].get(trigger)
        if target is None:
            raise _refusal(state, f"a session that is {state} cannot move by {trigger}")
        if (target is _ERROR or trouble is not None) and not (
            target is _ERROR and trouble is not None and trouble.origin is state
        ):
            raise _refusal(
                state, f"the trouble of a move from {state} to {target} is wrong: {trouble}"
            )
        now_ns = self._clock.monotonic_ns()
        transition = StateTransition(
            state, target, trigger, self._clock.wall_ns(), now_ns - self.since_ns, turn_id, trouble
        )
        self.state = target
        self.since_ns = now_ns
        self.trouble = trouble
        self.history.append(transition)
        if len(self.history) > self._most:
            del self.history[0]
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("State transition: %s -> %s (trigger: %s)", state, target, trigger)
        if self._listeners:
            self._tell(transition)
        return transition

    def observe(self, listener: Listener) -> Callable[[], None]:
        """Tells `listener` of every move from now on, until what is returned is called.

        It is called after the move, on the event loop, and has to return at once. What it raises
        is logged and stops neither the move nor other listeners. All listeners hear all moves in
        one order, even if one of them makes a move itself.
        """
        self._listeners = (*self._listeners, listener)
        return partial(self.forget, listener)

    def forget(self, listener: Listener) -> None:
        """Tells this listener no more; once, if it was to be told several times."""
        kept = list(self._listeners)
        if listener in kept:
            kept.remove(listener)
        self._listeners = tuple(kept)

    def compact(self, keep: int = 500) -> int:
        """Forgets all but the latest `keep` moves, as when nothing runs; returns how many it was."""
        count = max(0, len(self.history) - max(0, keep))
        del self.history[:count]
        return count

    def _tell(self, transition: StateTransition) -> None:
        if self._telling:
            self._untold += (transition,)
            return
        self._telling = True
        try:
            while True:
                for listener in self._listeners:
                    try:
                        listener(transition)
                    except Exception as exc:  # noqa: BLE001 (a listener's error is not the session's)
                        _log.warning("Failed to send state transition event: %s", exc, exc_info=exc)
                if not self._untold:
                    return
                transition, *rest = self._untold
                self._untold = tuple(rest)
        finally:
            self._telling = False


def _refusal(state: AgentState, message: str) -> IllegalTransitionError:
    if state is _SHUTDOWN:
        return IllegalTransitionError(message, next_step="The session is over; open another one.")
    return IllegalTransitionError(message)


def _moves(state: AgentState) -> _Moves:  # noqa: PLR0911 (one for each state)
    """The row of one state. Recovery is not in it, as it leads where the trouble came from."""
    match state:
        case AgentState.IDLE:
            return {_T.USER_INPUT: _S.PROCESSING_PROMPT, _T.SHUTDOWN: _SHUTDOWN}
        case AgentState.PROCESSING_PROMPT:
            return {
                _T.RESPONSE_STARTED: _S.GENERATING_RESPONSE,
                _T.TOOLS_REQUESTED: _S.EXECUTING_TOOLS,
                _T.RESPONSE_READY: _IDLE,
                **_IN_A_TURN,
            }
        case AgentState.GENERATING_RESPONSE:
            return {
                _T.TOOLS_REQUESTED: _S.EXECUTING_TOOLS,
                _T.RESPONSE_READY: _IDLE,
                **_IN_A_TURN,
            }
        case AgentState.EXECUTING_TOOLS:
            return {
                _T.TOOL_COMPLETION: _S.PROCESSING_PROMPT,
                _T.APPROVAL_NEEDED: _S.AWAITING_APPROVAL,
                _T.QUESTION: _S.WAITING_FOR_USER,
                **_IN_A_TURN,
            }
        case AgentState.AWAITING_APPROVAL:
            return {_T.APPROVAL_DECIDED: _S.EXECUTING_TOOLS, **_IN_A_TURN}
        case AgentState.WAITING_FOR_USER:
            return {_T.USER_INPUT: _S.EXECUTING_TOOLS, **_IN_A_TURN}
        case AgentState.ERROR:
            return {_T.GAVE_UP: _IDLE, _T.CANCELLED: _IDLE, _T.SHUTDOWN: _SHUTDOWN}
        case AgentState.SHUTDOWN:
            return {}
        case _:
            assert_never(state)


_TABLE: Final = {state: _moves(state) for state in AgentState}
_RESUMED: Final = {
    state: _S.PROCESSING_PROMPT if state is _S.GENERATING_RESPONSE else state
    for state, moves in _TABLE.items()
    if _ERROR in moves.values()
}
"""Where a turn goes on that had trouble in this state."""
