"""A turn that nobody has begun: what the model would be asked in it, step by step.

It is told by the fold that turns themselves go through, on a conversation of its own, so that what
is asked is word for word what the session would ask.
"""

from collections.abc import Sequence
from typing import Final, final

from paceline.clock import Clock
from paceline.engine.conversation import Conversation
from paceline.engine.durable import Notes
from paceline.engine.journal import Record, Replied, StepEnded, TurnBegan
from paceline.engine.loops import Loops
from paceline.engine.protocols import Preparation
from paceline.engine.states import ToolCall, ToolStatus
from paceline.messages import ModelReply, ModelRequest, ToolDefinition, ToolUse

__all__ = ["SupposedTurn"]

_ID: Final = "ahead"


@final
class SupposedTurn:
    """What a session would do if the user wrote this now. Nothing of it is done, and the session
    knows nothing of it."""

    __slots__ = ("_conversation", "_loops", "_notes", "_shown")

    def __init__(self, conversation: Conversation, text: str, *, clock: Clock) -> None:
        """`conversation` is that of the session, which is left as it is."""
        self._conversation = conversation
        self._shown = conversation.messages()
        began = TurnBegan(_ID, text, clock.wall_ns())
        self._notes = Notes(Record(began), conversation.copy(), None, _ID)
        self._notes.apply(began)
        self._loops = Loops(clock=clock)

    @property
    def holds(self) -> bool:
        """Whether nothing was said in the session since."""
        return self._conversation.messages() is self._shown

    def request(self, tools: tuple[ToolDefinition, ...]) -> ModelRequest:
        """What the model would be asked next."""
        return self._notes.request(tools)

    def replied(self, reply: ModelReply) -> Sequence[ToolUse]:
        """It would answer this; the tools that it asks for, none if it is the answer of the turn."""
        self._notes.tell(Replied(_ID, reply.text, reply.uses))
        return self._notes.record.open_uses

    def stepped(self, results: Sequence[tuple[Preparation, str]]) -> bool:
        """The tools it asked for last would come to this, in words. False where the model would be
        told something else, as it goes round in circles: then nobody knows how it goes on."""
        if any(self._loops.screen(one).text is not None for one, _ in results):
            return False
        if any(self._loops.done(one, text) for one, text in results):
            return False
        calls = [
            ToolCall("", one.use.name, one.use.arguments, ToolStatus.COMPLETED, text)
            for one, text in results
        ]
        self._notes.tell(StepEnded(_ID, tuple(calls)))
        return True
