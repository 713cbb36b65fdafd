"""Turns of sessions as calls: in the figures and the history beside what they called."""

from collections.abc import Callable
from typing import Final, final

from paceline.call import Call, Caller, Kind, Outcome, Plan, Scope, Source, current_call
from paceline.engine.states import ConversationTurn, TurnStatus
from paceline.errors import CallCancelledError, CallError, PacelineError
from paceline.metrics.trace import current_span

__all__ = ["TURN", "Place", "TurnRecord", "place_of"]

TURN: Final = "session"
"""What figures call turns by."""


Place = tuple[str, str, str | None, str | None]
"""Where what a turn calls belongs. The last fields of a Call: the call in whose course the session is
used, whose places its calls use too, else the turn; the trace; the turn, where that is not the parent.
And what the turn itself was made in."""


@final
class TurnRecord:
    """Has the turns of one session observed."""

    __slots__ = ("_caller", "_observe", "latest")

    def __init__(self, caller: Caller, observe: Callable[[Call, Outcome], object]) -> None:
        self._caller = caller
        self._observe = observe
        self.latest = ""
        """The id of the turn that ended last."""

    def ended(self, turn: ConversationTurn) -> None:
        """A turn is over."""
        self.latest = turn.id
        _, trace_id, _, around_id = place_of(turn.id)
        call = Call(
            turn.id,
            Kind.AGENT,
            TURN,
            {"query": turn.user_message},
            self._caller,
            Scope.of(self._caller, None),
            Plan(),
            parent_id=around_id,
            trace_id=trace_id,
        )
        took_ns = turn.execution_ns or 0
        outcome = Outcome(
            turn.id,
            TURN,
            Source.EXECUTED,
            turn.agent_response or None,
            _error_of(turn),
            attempts=1,
            execute_ns=took_ns,
            total_ns=took_ns,
        )
        self._observe(call, outcome)


def place_of(turn_id: str) -> Place:
    """Where calls of this turn belong that are made here."""
    outer, span = current_call.get(), current_span.get()
    if outer is None and span is None:
        return turn_id, turn_id, None, None
    trace_id, around_id = (turn_id, None) if outer is None else (outer.trace_id, outer.id)
    if span is not None and (outer is None or span[2] is outer):  # it is nearer than the call
        number, trace, _, kept = span
        trace_id, around_id = kept.name(trace), kept.name(number)
    if outer is None:
        return turn_id, trace_id, None, around_id
    return outer.id, trace_id, turn_id, around_id


def _error_of(turn: ConversationTurn) -> PacelineError | None:
    if turn.status is TurnStatus.COMPLETED:
        return None
    if turn.status is TurnStatus.CANCELLED:
        return CallCancelledError("the turn was cancelled", may_have_started=True)
    error = CallError(turn.error or "the turn failed", may_have_started=True)
    if turn.category is not None:
        error.category = turn.category
    return error
