"""A session and a person: messages, questions in between, and Ctrl-C."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Final, final

from paceline.cli.chat.displays import Display
from paceline.cli.chat.keyboard import Typed
from paceline.engine.events import ApprovalNeeded, Event, QuestionAsked, StateChanged
from paceline.engine.session import Session
from paceline.engine.states import AgentState, ConversationTurn
from paceline.errors import CallCancelledError, PacelineError

__all__ = ["COMMANDS", "Dialogue"]

_MOST_EVENTS: Final = 100_000
_EVERY_S: Final = 0.25
"""So often a display is told that time passes: seconds are shown soon after they begin."""
COMMANDS: Final = ("/exit", "/help", "/quit")
"""What is no message when it is typed."""
_HELP: Final = (
    "What you type is a message, but for exit and quit, which end the chat, and /help. Ctrl-C cancels an"
    " answer, or clears the line; Ctrl-D on an empty line ends the chat. Pasted lines are one message."
)
_COMMAND: Final = re.compile(r"/[a-z]+(?!\S)")
_UNKNOWN: Final = "no command {}; /help says what there is. A space before it makes it a message."
_END: Final = frozenset({"exit", "quit", "/exit", "/quit"})
_YES: Final = frozenset({"y", "yes"})
_NO: Final = frozenset({"", "n", "no"})
_NOBODY: Final = "Nobody is there to be asked."
_REFUSED: Final = "  refused: nobody can be asked here; --yes agrees to every tool"
_AGREED: Final = "  agreed, as --yes was given"
_WAITING: Final = frozenset({AgentState.AWAITING_APPROVAL, AgentState.WAITING_FOR_USER})


@final
class Dialogue:
    """Has the turns of one session shown, and its questions answered."""

    def __init__(
        self,
        session: Session,
        display: Display,
        *,
        typed: Typed | None,
        yes: bool = False,
        timeout_s: float | None = None,
        advice: str = "",
    ) -> None:
        """`typed` is where a person answers; None if nobody is there. With `yes` every tool may run.
        `timeout_s`, in seconds, is the limit of a turn. `advice` is what else /help says."""
        self._advice = advice
        self._session = session
        self._display = display
        self._typed = typed
        self._yes = yes
        self._timeout_s = timeout_s
        self._running = False
        self._interrupted = False
        self._warned = False
        self._reading: asyncio.Task[str | None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self.over = False
        """Whether the person has ended it."""
        self.cut_off = False
        """Whether a turn ran then."""

    def interrupt(self) -> bool:
        """What Ctrl-C does: the turn that runs is cancelled, or the line that is typed is cleared; a
        second time, on an empty line, it is all over. False if nothing was left to do."""
        if self._running and not self._interrupted:
            self._interrupted = True
            self._session.cancel()
            self._display.cancelling()
            return True
        if (
            not self._running
            and self._reading
            and self._typed
            and (self._typed.begun or not self._warned)
        ):
            self._warned = True
            self._typed.forget()
            self._reading.cancel()
            self._display.note("Ctrl-C again or Ctrl-D ends")
            return True
        over, self.over = self.over, True
        self.cut_off = self._running
        if self._reading is not None:
            self._reading.cancel()
        return not over

    async def talk(self) -> None:
        """Message after message, until no more come."""
        while not self.over:
            self._display.prompt()
            text = await self._line()
            command = None if text is None else _COMMAND.match(text)
            text = None if text is None else text.strip()
            if text is None or text in _END:
                return
            if text == "/help":
                self._display.note(_HELP + self._advice)
            elif command is not None:
                self._display.note(_UNKNOWN.format(command[0]))
            elif text:
                await self.turn(text)

    async def turn(self, text: str) -> PacelineError | None:
        """The turn that answers a message; returns what ended it, if that was no answer."""
        return await self._shown(self._session.send(text, timeout_s=self._timeout_s))

    async def resume(self) -> PacelineError | None:
        """Goes on with a turn that was interrupted, if there is one."""
        return await self._shown(self._session.resume(timeout_s=self._timeout_s), resumed=True)

    async def _shown(
        self, turn: Coroutine[object, object, ConversationTurn | None], *, resumed: bool = False
    ) -> PacelineError | None:
        watch = self._session.watch(_MOST_EVENTS)
        running = asyncio.ensure_future(turn)
        running.add_done_callback(lambda _: watch.close())
        ticking = asyncio.ensure_future(self._tick())
        self._running, self._interrupted = True, False
        try:
            async for event in watch:
                if resumed and (began := self._session.turn) is not None:
                    self._display.note(f"going on with what was interrupted: {began.user_message}")
                    resumed = False
                self._event(event)
        finally:
            ticking.cancel()
            self._ask_no_more()
            if not running.done():
                running.cancel()
                await asyncio.wait([running])
            self._running = False
        try:
            running.result()
        except PacelineError as exc:
            if not (
                self._interrupted and isinstance(exc, CallCancelledError)
            ):  # the turn's end says it
                self._display.error(exc)
            return exc
        return None

    def _event(self, event: Event) -> None:
        if isinstance(event, StateChanged) and event.transition.from_state in _WAITING:
            self._ask_no_more()
        self._display.event(event)
        if isinstance(event, (ApprovalNeeded, QuestionAsked)):
            if self._typed is None or (self._yes and isinstance(event, ApprovalNeeded)):
                agreed = self._yes and isinstance(event, ApprovalNeeded)
                if isinstance(event, ApprovalNeeded):
                    self._display.note(_AGREED if agreed else _REFUSED)
                self._decide(event, "yes" if agreed else _NOBODY)
            else:
                self._asking = asyncio.ensure_future(self._ask(event, self._typed))

    async def _ask(self, question: ApprovalNeeded | QuestionAsked, typed: Typed) -> None:
        typed.forget()  # what was typed before was not about this
        self._display.ask(question)
        self._decide(question, await self._line() or "")

    def _decide(self, question: ApprovalNeeded | QuestionAsked, text: str) -> None:
        """Takes what was said for an answer. A refusal in other words than "no" has a reason."""
        if self._session.pending != question:  # it was not waited for any longer
            return
        if isinstance(question, QuestionAsked):
            self._session.answer(text)
            return
        said = text.strip()
        yes, reason = said.lower() in _YES, "" if said.lower() in _NO else said
        self._session.approve(question.call_id, yes=yes, reason=reason)

    def _ask_no_more(self) -> None:
        asking, self._asking = self._asking, None
        if asking is None:
            return
        if asking.done():
            asking.result()
        else:
            asking.cancel()

    async def _line(self) -> str | None:
        """What is typed next, nothing if it was cleared; None at the end, and when the chat is over."""
        if self._typed is None:
            return None
        reading = self._reading = asyncio.ensure_future(self._typed.line(self._display.unseen))
        try:
            await asyncio.wait([reading])
        finally:
            reading.cancel()
            self._reading = None
        if reading.cancelled():
            return None if self.over else ""
        text = reading.result()
        if text is not None:
            self._warned = False
            self._display.typed()
        return text

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            self._display.refresh()
