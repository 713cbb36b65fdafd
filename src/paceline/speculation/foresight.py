"""What one session is likely to do next: told of its turns, it has the likely calls run ahead.

It acts where somebody waits anyway: while the model is asked, while tools run, before the first
message and between turns. A wait that is over within a blink is none: whoever answers at once leaves
nothing to be gained, and is not made slower.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import islice
from typing import Final, NamedTuple, final

from paceline.engine.journal import (
    Compacted,
    Entry,
    Replied,
    StepEnded,
    ToolBegan,
    ToolEnded,
    TurnBegan,
    TurnEnded,
)
from paceline.engine.states import (
    ExecutionContext,
    PerformanceHints,
    ToolCall,
    ToolStatus,
)
from paceline.messages import ToolUse
from paceline.predict.events import Event, Said, Step
from paceline.predict.execution import ExecutionPattern
from paceline.predict.moments import Moment
from paceline.predict.session import Session
from paceline.speculation.messages import NextMessage
from paceline.speculation.outlook import Habits, Outlook
from paceline.speculation.rehearsal import Talk
from paceline.speculation.scopes import is_alone
from paceline.speculation.speculator import Tools
from paceline.speculation.written import Redacted

__all__ = ["Foresight"]

_NS: Final = 1_000_000_000
_BLINK_S: Final = 0.002
_MOST_PENDING: Final = 64
_AT_A_TIME: Final = 2
"""Events that are learnt of without a pause: others are not kept waiting for long."""
_REFRESHES: Final = 2
"""Times that results are made anew while the user is silent."""


class _Stage(Enum):
    """What the session waits for."""

    NOTHING = 0
    REPLY = 1
    TOOLS = 2
    USER = 3


class _Ran(NamedTuple):
    """A step that is over: what the model said in the answer that asked for it, and what came."""

    said: str
    calls: Sequence[ToolCall]


_News = Event | _Ran
"""What happened, as it was heard."""

_MOMENTS: Final = {_Stage.REPLY: Moment.REPLY, _Stage.TOOLS: Moment.TOOLS, _Stage.USER: Moment.IDLE}


@final
class Foresight:
    """Looks ahead in one session. What it is told, it is told before and after each wait."""

    __slots__ = (
        "_again",
        "_anew",
        "_asked",
        "_calls",
        "_habits",
        "_looked",
        "_loop",
        "_next",
        "_outlook",
        "_pending",
        "_recalled",
        "_said",
        "_scope",
        "_session",
        "_since",
        "_stage",
        "_timer",
        "_tools",
    )

    def __init__(
        self,
        habits: Habits,
        tools: Tools,
        context: ExecutionContext,
        scope: str,
        talk: Talk | None = None,
    ) -> None:
        """`scope` is the circle whose habits these are. `talk` is what is said in the session, where
        its model may be asked ahead."""
        self._habits = habits
        self._calls = Redacted(habits.redactor)
        self._tools = tools
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._next: NextMessage | None = None
        self._outlook = Outlook(habits, tools, context, scope, talk, again=self._again_in)
        self._recalled: list[_News] = []
        """What happened before the session was gone on with, and is not known yet."""
        self._pending: list[_News] = []
        self._asked: Sequence[ToolUse] = ()
        self._said = ""
        self._stage = _Stage.NOTHING
        self._since = 0.0
        self._looked = False
        self._again = _REFRESHES
        self._timer: asyncio.TimerHandle | None = None
        self._anew: asyncio.TimerHandle | None = None
        """Rings when something is to be made anew."""

    @property
    def hints(self) -> PerformanceHints:
        """What is likely to come."""
        return self._outlook.hints

    @property
    def pattern(self) -> ExecutionPattern | None:
        """The calls that are likely until the turn ends, by what was seen up to the last look."""
        found = None
        if self._session is not None:
            with self._habits.apart():
                found = self._habits.predictor.predict_execution_pattern(self._session)
        return found

    def opened(self) -> None:
        """The session begins; nothing was said in it yet."""
        self._wait(_Stage.USER)

    def recall(self, entries: Iterable[Entry]) -> None:
        """The session is gone on with. It was learnt of all that when it happened, so that it is only
        what the session is at."""
        self._recalled = list(islice(_told(entries), _MOST_PENDING))[::-1]
        self._wait(_Stage.USER)

    def heard(self, entry: Entry) -> None:
        """What happened next in the session."""
        match entry:
            case TurnBegan():
                self.began(entry.text)
            case Replied():
                self.replied(entry.text, entry.uses)
            case StepEnded():
                self.stepped(entry.calls)
            case TurnEnded():
                self.ended()
            case ToolBegan() | ToolEnded() | Compacted():
                pass

    def began(self, text: str) -> None:
        """The user said this."""
        self._stage = _Stage.NOTHING
        self._note(Said(text))

    def asking(self) -> None:
        """The model is asked."""
        self._wait(_Stage.REPLY)

    def replied(self, text: str, uses: Sequence[ToolUse]) -> None:
        """It answered: the tools are run now, or that was all."""
        if self._looked:
            self._habits.pace.answered(self._loop.time() - self._since)
        self._asked, self._said = uses, text
        if uses:
            self._wait(_Stage.TOOLS)
        else:
            self._stage = _Stage.NOTHING
            self._outlook.answered()
            self._note(Said(text, by_user=False))

    def stepped(self, calls: Sequence[ToolCall]) -> None:
        """This came of the tools."""
        self._stage = _Stage.NOTHING
        self._note(_Ran(self._said, calls))

    def ended(self) -> None:
        """The turn is over. Tools that it asked for and did not wait for are over too."""
        if self._stage is _Stage.TOOLS and self._looked:
            asked = tuple(self._calls.asked(use, failed=True) for use in self._asked)
            self._note(Step(asked, self._said))
        self._wait(_Stage.USER)

    def close(self) -> None:
        """The session is over: what runs ahead for it is stopped, and what was learnt for it alone is
        of no more use."""
        self._stage = _Stage.NOTHING
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._calm()
        self._outlook.close()
        with self._habits.apart():
            self._leave()

    def _leave(self) -> None:
        if is_alone(self._scope):
            self._habits.predictor.forget(self._scope)
            if self._habits.messages is not None:
                self._habits.messages.forget(self._scope)
        elif self._session is not None:
            while not self._caught_up():
                pass
            if self._next is not None:
                self._next.over()

    def _note(self, event: _News) -> None:
        self._pending.append(event)
        if len(self._pending) > 2 * _MOST_PENDING:
            del self._pending[:_MOST_PENDING]

    def _wait(self, stage: _Stage) -> None:
        """Has a look once that has lasted for a blink. One timer does for many that do not."""
        self._calm()
        self._stage, self._looked, self._again = stage, False, _REFRESHES
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(self._since + _BLINK_S, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._stage is _Stage.NOTHING or self._looked:
            return
        pace, due = self._habits.pace, self._since + _BLINK_S
        left_s = max(due - self._loop.time(), pace.wait_s())
        if left_s <= 0:
            self._looked = True  # once, even if it fails
            with pace.looking(), self._habits.apart():
                self._looked = self._caught_up()
                if self._looked:
                    self._look()
            if self._looked:
                return
            left_s = pace.wait_s()
        self._timer = self._loop.call_later(left_s, self._ring)

    def _again_in(self, seconds: float) -> None:
        """Looks again then, or sooner: something that was made for the next message is to be made
        anew."""
        if self._stage is not _Stage.USER or not self._again or math.isinf(seconds):
            return
        due = self._loop.time() + max(0.0, seconds)
        if self._anew is None or due < self._anew.when():
            self._calm()
            self._anew = self._loop.call_at(due, self._look_again)

    def _look_again(self) -> None:
        self._anew = None
        if self._stage is _Stage.USER and self._looked:
            self._again -= 1
            self._looked = False
            self._ring()

    def _calm(self) -> None:
        """Makes nothing anew."""
        if self._anew is not None:
            self._anew.cancel()
            self._anew = None

    def _caught_up(self) -> bool:
        """Takes in what happened since the last look; False if there is more of it."""
        session, habits = self._session, self._habits
        if session is None:
            schemas = {each.name: each.parameters for each in self._tools.definitions()}
            session = self._session = habits.predictor.session(
                self._scope, schemas, public=self._tools.public()
            )
            if habits.messages is not None:
                self._next = NextMessage(habits.messages, self._scope)
        if self._recalled:
            self._remember(session)
            return not (self._recalled or self._pending)
        session.narrow(self._tools.public())
        pending, self._pending = self._pending[:_AT_A_TIME], self._pending[_AT_A_TIME:]
        for news in pending:
            with habits.apart():
                self._learn(session, news)
        if pending:
            habits.news()
        return not self._pending

    def _learn(self, session: Session, news: _News) -> None:
        event, took, used = self._event(news), [], []
        if isinstance(news, _Ran) and isinstance(event, Step):
            took = [_took_s(call) for call in news.calls]
            used = [_used(call) for call in news.calls]
            self._outlook.came(news.calls, event.calls)
        self._habits.predictor.observe(session, event, took_s=took, used=used)
        if isinstance(event, Step):
            self._outlook.score_past(session, event)
        elif event.by_user and self._next is not None:
            self._next.said(event.text)

    def _look(self) -> None:
        """Looks at what may come next."""
        session, message = self._session, None
        if session is None:
            return
        if self._stage is _Stage.TOOLS:
            asked = [self._calls.asked(use) for use in self._asked]
            self._habits.predictor.asked(session, asked)
        elif self._stage is _Stage.USER and self._next is not None:
            message = self._next.likely()
        anew = self._again < _REFRESHES
        self._outlook.look(session, _MOMENTS[self._stage], message, anew=anew)

    def _remember(self, session: Session) -> None:
        """Hears again what happened before the session was gone on with."""
        recalled, self._recalled = self._recalled[:_AT_A_TIME], self._recalled[_AT_A_TIME:]
        for news in recalled:
            with self._habits.apart():
                event = self._event(news)
                session.hear(event)
                if self._next is not None and isinstance(event, Said) and event.by_user:
                    self._next.recalled(event.text)

    def _event(self, news: _News) -> Event:
        """The same without secrets."""
        clean = self._habits.redactor.text
        if isinstance(news, Said):
            return Said(clean(news.text), news.by_user)
        if isinstance(news, Step):
            return Step(news.calls, clean(news.said))
        return Step(tuple(map(self._calls.called, news.calls)), clean(news.said))


def _told(entries: Iterable[Entry]) -> Iterator[_News]:
    """What prediction hears of the past, the latest first."""
    ran: Sequence[ToolCall] | None = None
    for entry in entries:
        match entry:
            case TurnBegan():
                yield Said(entry.text)
            case StepEnded():
                ran = entry.calls
            case Replied() if not entry.uses:
                yield Said(entry.text, by_user=False)
            case Replied() if ran is not None:
                yield _Ran(entry.text, ran)
                ran = None
            case _:
                pass


def _used(call: ToolCall) -> dict[str, float]:
    """What running it took of the machine, as far as that was measured."""
    took = call.resources if call.status is ToolStatus.COMPLETED else None
    if took is None:
        return {}
    measured = {
        "cpu_s": None if took.cpu_ns is None else took.cpu_ns / _NS,
        "peak_memory_bytes": took.peak_memory_bytes,
        "disk_io_bytes": took.disk_io_bytes,
        "network_bytes": took.network_bytes,
    }
    return {name: float(amount) for name, amount in measured.items() if amount is not None}


def _took_s(call: ToolCall) -> float | None:
    """How long it ran; None for what did not."""
    return call.execution_ns / _NS if call.status is ToolStatus.COMPLETED else None
