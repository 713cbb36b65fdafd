"""Who hears a model's answer while it comes, though it may be begun anew, or by two at once."""

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Final, final

from paceline.messages import Hear, ModelReply, Part, Restarted, TextPart, UsePart

__all__ = ["Floor", "current_floor", "nobody", "speaking"]


def nobody(_: Part) -> None:
    """Hears nothing."""


@final
class Floor:
    """Lets a listener hear one answer at a time, whatever tries there are.

    The first to speak has the floor. What others say meanwhile is kept: one of them gets the floor
    when the one that has it fails, and then the listener is told `Restarted`, and all of it. The
    listener hears in the context in which the floor was made, not in that of whoever speaks.
    """

    __slots__ = ("_closed", "_context", "_heard", "_holder", "_listener", "_others", "_void")

    def __init__(self, hear: Hear, *, again: bool = False) -> None:
        """`again` if the listener has heard something already, which does not count."""
        self._listener = hear
        self._context = copy_context()
        self._holder: _Speaker | None = None
        self._others: list[_Speaker] = []
        self._heard: list[Part] = []
        self._void = again
        """Whether the listener has heard something before that which does not count."""
        self._closed = False

    @property
    def heard(self) -> bool:
        """Whether the listener has heard anything."""
        return self._void or bool(self._heard)

    def speaker(self) -> AbstractContextManager[Hear]:
        """One try to answer, and a failed one if it is left by an exception."""
        return _Speaker(self)

    def settle(self, reply: ModelReply) -> None:
        """Tells the listener the text of this answer, unless it has heard just that. Tool uses that it
        has not heard are told to nobody: they are in the answer, which is there."""
        if not self._void and not self._heard:
            if reply.text:
                self._tell(TextPart(reply.text))
            return
        text = "".join([part.text for part in self._heard if type(part) is TextPart])
        uses = tuple([part.use for part in self._heard if type(part) is UsePart])
        if text == reply.text and uses == reply.uses[: len(uses)]:
            self._own_up()
            return
        self._disown()
        self._own_up()
        if reply.text:
            self._tell(TextPart(reply.text))

    def close(self) -> None:
        """The listener has gone: whoever still speaks is not heard."""
        self._closed = True

    def said(self, speaker: "_Speaker", part: Part) -> None:
        """For speakers."""
        if self._closed:
            return
        if self._holder is None:
            self._holder = speaker
        if self._holder is speaker:
            self._tell(part)
        else:
            if not speaker.kept:
                self._others.append(speaker)
            speaker.kept.append(part)

    def _tell(self, part: Part) -> None:
        self._own_up()
        self._heard.append(part)
        self._context.run(self._listener, part)

    def _disown(self) -> None:
        """What was heard does not count."""
        self._void = self.heard
        self._heard.clear()

    def _own_up(self) -> None:
        """Says so to the listener, if it was not said yet."""
        if self._void:
            self._void = False
            self._context.run(self._listener, Restarted())

    def failed(self, speaker: "_Speaker") -> None:
        """For speakers."""
        if self._closed:
            return
        if speaker is not self._holder:
            if speaker in self._others:
                self._others.remove(speaker)
            return
        self._holder = None
        self._disown()
        if self._others:
            following = self._holder = self._others.pop(0)
            for part in following.kept:
                self._tell(part)


@final
class _Speaker:
    """One try to answer, and what it said without being heard."""

    __slots__ = ("_floor", "kept")

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self.kept: list[Part] = []

    def __enter__(self) -> Hear:
        return self.say

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._floor.failed(self)

    def say(self, part: Part) -> None:
        self._floor.said(self, part)


current_floor: ContextVar[Floor | None] = ContextVar("paceline_current_floor", default=None)
"""Where the answers of the running code's model call are heard."""


_TO_NOBODY: Final = nullcontext(nobody)


def speaking() -> AbstractContextManager[Hear]:
    """One try to answer the model call that the running code makes; if nobody listens, to nobody."""
    floor = current_floor.get()
    return _TO_NOBODY if floor is None else _Speaker(floor)
