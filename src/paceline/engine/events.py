"""What is told of a session while it works, to whoever listens."""

import msgspec

from paceline.engine.states import ConversationTurn, StateTransition, ToolCall, ToolStatus

__all__ = [
    "ApprovalNeeded",
    "Event",
    "QuestionAsked",
    "StateChanged",
    "TextDelta",
    "TextRestarted",
    "ToolChanged",
    "TurnEnded",
    "tool_changed",
]


class TextDelta(msgspec.Struct, frozen=True, tag_field="event", tag="text"):
    """More of the answer's text."""

    text: str


class TextRestarted(msgspec.Struct, frozen=True, tag_field="event", tag="text_restarted"):
    """What was told of this answer's text does not count: it is made anew."""


class ToolChanged(msgspec.Struct, frozen=True, tag_field="event", tag="tool"):
    """A tool use is further than it was. `args` is the JSON that the model wrote. Once it has ended,
    `result` is what the model is told, `source` where that came from, and `execution_ns` what it
    took."""

    call_id: str
    tool_name: str
    args: str
    status: ToolStatus
    result: str = ""
    error: str = ""
    source: str = ""
    execution_ns: int = 0


class ApprovalNeeded(msgspec.Struct, frozen=True, tag_field="event", tag="approval_needed"):
    """A tool waits for `Session.approve`, by this id."""

    call_id: str
    tool_name: str
    args: str


class QuestionAsked(msgspec.Struct, frozen=True, tag_field="event", tag="question"):
    """A tool waits for `Session.answer`."""

    call_id: str
    text: str


class StateChanged(msgspec.Struct, frozen=True, tag_field="event", tag="state"):
    """The session moved from one state to another."""

    transition: StateTransition


class TurnEnded(msgspec.Struct, frozen=True, tag_field="event", tag="turn_ended"):
    """The last event of a turn; nothing of it comes after."""

    turn: ConversationTurn


Event = (
    TextDelta
    | TextRestarted
    | ToolChanged
    | ApprovalNeeded
    | QuestionAsked
    | StateChanged
    | TurnEnded
)


def tool_changed(call: ToolCall) -> ToolChanged:
    """What is told of a tool use that is as far as this."""
    return ToolChanged(
        call.id,
        call.tool_name,
        call.args,
        call.status,
        call.result,
        call.error,
        call.source,
        call.execution_ns,
    )
