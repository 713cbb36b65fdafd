"""What one session is likely to do next: told of its turns, it has the likely calls run ahead.

It acts where somebody waits anyway: while the model is asked, while tools run, before the first
message and between turns. A wait that is over within a blink is none: whoever answers at once leaves
nothing to be gained, and is not made slower.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import Final, cast, final

import msgspec

from paceline.call import Caller, Effect, Priority
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
from paceline.engine.protocols import Preparation
from paceline.engine.states import (
    ExecutionContext,
    PerformanceHints,
    PredictedCall,
    ToolCall,
    ToolStatus,
)
from paceline.messages import ToolUse
from paceline.predict.events import Called, Event, Said, Step
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor, Session
from paceline.predict.values import canonical
from paceline.redaction import MASK, Redactor
from paceline.speculation.messages import Messages, NextMessage
from paceline.speculation.pace import Pace
from paceline.speculation.rehearsal import Rehearsal, Talk
from paceline.speculation.scopes import is_alone
from paceline.speculation.speculator import Chance, Speculator, Tools

__all__ = ["Foresight", "Habits"]

_NS: Final = 1_000_000_000
_BLINK_S: Final = 0.002
_MOST_PENDING: Final = 64
_AT_A_TIME: Final = 2
"""Events that are learnt of without a pause: others are not kept waiting for long."""
_LOOKED_AT: Final = 6
_LEAST: Final = 0.02
_LIKELY: Final = 0.1
_ALL_OF: Final = 8
_THINKING_S: Final = 10.0
"""How long people take until they write again, at least."""
_REFRESHES: Final = 2
"""Times that results are made anew while the user is silent."""
_INTENSIVE_S: Final = 5.0
_NO_HINTS: Final = PerformanceHints()
_CAME: Final = frozenset({ToolStatus.COMPLETED, ToolStatus.CACHED})


class Habits(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What all sessions of a runtime share: who predicts, who launches, what is left out of what is
    learnt, and who is told that there is news."""

    predictor: PerformancePredictor
    messages: Messages | None
    """What users write; None where models are not asked ahead."""
    speculator: Speculator
    redactor: Redactor
    pace: Pace
    news: Callable[[], object]


class _Stage(Enum):
    """What the session waits for."""

    NOTHING = 0
    REPLY = 1
    TOOLS = 2
    USER = 3


_News = Event | Sequence[ToolCall]
"""What happened, as it was heard."""

_MOMENTS: Final = {_Stage.REPLY: Moment.REPLY, _Stage.TOOLS: Moment.TOOLS, _Stage.USER: Moment.IDLE}


@final
class Foresight:
    """Looks ahead in one session. What it is told, it is told before and after each wait."""

    __slots__ = (
        "_again",
        "_asked",
        "_caller",
        "_context",
        "_foreseen",
        "_foreseen_after",
        "_habits",
        "_looked",
        "_looks",
        "_loop",
        "_next",
        "_pending",
        "_recalled",
        "_rehearsal",
        "_scope",
        "_session",
        "_since",
        "_stage",
        "_timer",
        "_tools",
        "hints",
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
        self.hints = _NO_HINTS
        """What is likely to come."""
        self._habits = habits
        self._tools = tools
        self._caller = Caller(context.user_id, context.session_id, context.tenant)
        self._context = context
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._next: NextMessage | None = None
        self._rehearsal = Rehearsal(talk, tools, context, habits.speculator, self._chance)
        self._recalled: list[_News] = []
        """What happened before the session was gone on with, and is not known yet."""
        self._pending: list[_News] = []
        self._asked: Sequence[ToolUse] = ()
        self._foreseen: set[tuple[str, str]] = set()
        self._foreseen_after: set[tuple[str, str]] = set()
        """The same of the step after the one that runs."""
        self._stage = _Stage.NOTHING
        self._since = 0.0
        self._looked = False
        self._looks = 0
        self._again = _REFRESHES
        self._timer: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """The session begins; nothing was said in it yet."""
        self._wait(_Stage.USER)

    def recall(self, entries: Iterable[Entry]) -> None:
        """The session is gone on with. It was learnt of all that when it happened, so that it is only
        what the session is at."""
        told = (news for entry in entries if (news := _news(entry)) is not None)
        self._recalled = list(islice(told, _MOST_PENDING))[::-1]
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
        self._asked = uses
        if uses:
            self._wait(_Stage.TOOLS)
        else:
            self._stage = _Stage.NOTHING
            self._note(Said(text, by_user=False))

    def stepped(self, calls: Sequence[ToolCall]) -> None:
        """This came of the tools."""
        self._stage = _Stage.NOTHING
        self._note(calls)

    def ended(self) -> None:
        """The turn is over. Tools that it asked for and did not wait for are over too."""
        if self._stage is _Stage.TOOLS and self._looked:
            self._note(Step(tuple(self._asked_for(use, failed=True) for use in self._asked)))
        self._wait(_Stage.USER)

    def close(self) -> None:
        """The session is over: what runs ahead for it is stopped, and what was learnt for it alone is
        of no more use."""
        self._stage = _Stage.NOTHING
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rehearsal.stop()
        self._habits.speculator.leave(self._context.session_id)
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
        if self._timer is not None and self._again < _REFRESHES:
            self._timer.cancel()  # which was to make something anew, much later
            self._timer = None
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
            with pace.looking():
                self._looked = self._caught_up()
                kept_s = self._look(_MOMENTS[self._stage]) if self._looked else math.inf
            if self._looked and not self._looks_again_in(kept_s):
                return
            left_s = pace.wait_s() if not self._looked else kept_s
            self._looked = False
        self._timer = self._loop.call_later(left_s, self._ring)

    def _looks_again_in(self, kept_s: float) -> bool:
        """Whether results that were made for the next message are to be made anew when they are too
        old to be served."""
        if self._stage is not _Stage.USER or not self._again or math.isinf(kept_s):
            return False
        self._again -= 1
        return True

    def _caught_up(self) -> bool:
        """Takes in what happened since the last look; False if there is more of it."""
        session, habits = self._session, self._habits
        if session is None:
            schemas = {each.name: each.parameters for each in self._tools.definitions()}
            session = self._session = habits.predictor.session(self._scope, schemas)
            if habits.messages is not None:
                self._next = NextMessage(habits.messages, self._scope)
        if self._recalled:
            recalled, self._recalled = self._recalled[:_AT_A_TIME], self._recalled[_AT_A_TIME:]
            for news in recalled:
                event = self._event(news)
                session.hear(event)
                if self._next is not None and isinstance(event, Said) and event.by_user:
                    self._next.recalled(event.text)
            return not (self._recalled or self._pending)
        pending, self._pending = self._pending[:_AT_A_TIME], self._pending[_AT_A_TIME:]
        if not pending:
            return True
        for news in pending:
            event, took = self._event(news), []
            if not isinstance(news, Said | Step) and isinstance(event, Step):
                took = [_took_s(call) for call in news]
                self._count(news, event.calls)
            habits.predictor.observe(session, event, took_s=took)
            if self._next is not None and isinstance(event, Said) and event.by_user:
                self._next.said(event.text)
        habits.news()
        return not self._pending

    def _event(self, news: _News) -> Event:
        """The same without secrets."""
        if isinstance(news, Said):
            return Said(self._habits.redactor.text(news.text), news.by_user)
        return news if isinstance(news, Step) else Step(tuple(map(self._called, news)))

    def _count(self, made: Sequence[ToolCall], calls: Sequence[Called]) -> None:
        """Calls that were made: those that changed nothing might have been launched."""
        harmless = _harmless(self._tools)
        for one, call in zip(made, calls, strict=True):
            use = ToolUse(one.id, one.tool_name, one.args)
            if call.name in harmless or self._tools.ahead(use) is not None:
                key = call.name, canonical(call.arguments)
                foreseen = key in self._foreseen or self._rehearsal.foresaw(use.name, use.arguments)
                self._habits.speculator.real(call.name, self._caller, foreseen=foreseen)
        self._foreseen, self._foreseen_after = self._foreseen_after, set()

    def _look(self, moment: Moment) -> float:
        """Says what may come, and has run ahead what is worth it. In how many seconds the first of
        it is not kept any more."""
        session, predictor = self._session, self._habits.predictor
        if session is None:
            return math.inf
        kept_s = math.inf
        foreseen = self._foreseen
        if moment is Moment.TOOLS:
            predictor.asked(session, [self._asked_for(use) for use in self._asked])
            foreseen = self._foreseen_after
        elif moment is Moment.IDLE:
            foreseen.clear()  # of the turn before
            kept_s = self._rehearse()
        # Now and then all are looked at: who was wrong once may be right another time.
        self._looks += 1
        least = 0.0 if self._looks % _ALL_OF == 1 else _LIKELY
        ready: list[PredictedCall] = []
        expected: list[PredictedCall] = []
        for proposal in predictor.propose(session, _LOOKED_AT, moment=moment, least=least):
            arguments = _text(proposal.arguments)
            if proposal.probability < _LEAST or arguments is None or MASK in arguments:
                continue
            takes_s = predictor.takes_s(self._scope, proposal.name)
            call = PredictedCall(
                proposal.name, arguments, proposal.probability, round(takes_s * _NS)
            )
            expected.append(call)
            prepared = self._tools.ahead(ToolUse("ahead", proposal.name, arguments))
            if prepared is None:
                continue
            ready.append(call)
            self._habits.speculator.proposed(proposal.name)
            if predictor.known(session, proposal, moment=moment):
                chance = Chance(proposal.probability, takes_s, self._lead_s(moment))
                key = proposal.name, canonical(proposal.arguments)
                kept_s = min(kept_s, self._run_ahead(prepared, chance, foreseen, key))
        self.hints = self._hints(expected, ready)
        return kept_s

    def _run_ahead(
        self,
        prepared: Preparation,
        chance: Chance,
        foreseen: set[tuple[str, str]],
        key: tuple[str, str],
    ) -> float:
        """Has it launched, if that is worth it: then it counts as foreseen. In how many seconds the
        result is not kept any more; infinite where nothing was launched."""
        speculator = self._habits.speculator
        call, job = self._tools.call(
            prepared, self._context, priority=Priority.SPECULATIVE, timeout_s=None
        )
        if speculator.objection(call, chance):
            return math.inf
        foreseen.add(key)
        if speculator.launch(call, job, chance):
            return math.inf
        # From when it is there, which may take longer than mostly.
        return self._tools.kept_s(prepared) + 2 * chance.takes_s

    def _rehearse(self) -> float:
        """Goes through the turn that the user is likely to begin next. In how many seconds the first
        of it is not kept any more."""
        likely = None if self._next is None else self._next.likely()
        if likely is None or MASK in likely[0]:
            self._rehearsal.clear()
            return math.inf
        return self._rehearsal.begin(*likely)

    def _chance(self, probability: float, tool: str | None) -> Chance:
        """What is thought of a call in a turn that is gone through: of a tool, or of the model."""
        habits = self._habits
        takes_s = habits.predictor.takes_s(self._scope, tool) if tool else habits.pace.model_s
        return Chance(probability, takes_s, self._lead_s(Moment.IDLE))

    def _lead_s(self, moment: Moment) -> float:
        """In how many seconds somebody may ask for what is predicted now."""
        model_s = self._habits.pace.model_s
        if moment is Moment.REPLY:
            return model_s
        return _THINKING_S + model_s if moment is Moment.IDLE else 2 * model_s

    def _hints(
        self, expected: Sequence[PredictedCall], ready: Sequence[PredictedCall]
    ) -> PerformanceHints:
        predictor, names = self._habits.predictor, [each.name for each in self._tools.definitions()]
        groups = self.hints.parallel_execution_groups
        heavy = self.hints.resource_intensive_tools
        if self._stage is _Stage.USER:
            takes = {name: predictor.takes_s(self._scope, name) for name in names}
            heavy = tuple(name for name, seconds in takes.items() if seconds >= _INTENSIVE_S)
            groups = tuple(predictor.parallel_groups(self._scope, _harmless(self._tools)))
        return PerformanceHints(tuple(expected), tuple(ready), groups, heavy)

    def _called(self, call: ToolCall) -> Called:
        """A call that was made, without secrets. What did not run has no result."""
        failed = call.status not in _CAME
        result = self._clean(call.error or call.result if failed else _read(call.result))
        return Called(call.tool_name, self._arguments(call.args), result, failed)

    def _asked_for(self, use: ToolUse, *, failed: bool = False) -> Called:
        return Called(use.name, self._arguments(use.arguments), failed=failed)

    def _arguments(self, text: str) -> dict[str, object]:
        found = self._clean(_read(text))
        return cast("dict[str, object]", found) if isinstance(found, dict) else {}

    def _clean(self, value: object) -> object:
        """Without secrets. None for what is nested too deeply to be looked through."""
        try:
            return self._habits.redactor.data(value)
        except RecursionError:
            return None


def _news(entry: Entry) -> _News | None:
    """What prediction hears of an entry of the past."""
    match entry:
        case TurnBegan():
            return Said(entry.text)
        case Replied():
            return None if entry.uses else Said(entry.text, by_user=False)
        case StepEnded():
            return entry.calls
        case _:
            return None


def _harmless(tools: Tools) -> set[str]:
    """The names of those that change nothing."""
    return {name for name, kind in tools.effects().items() if Effect(kind).repeatable}


def _took_s(call: ToolCall) -> float | None:
    """How long it ran; None for what did not."""
    return call.execution_ns / _NS if call.status is ToolStatus.COMPLETED else None


def _text(arguments: Mapping[str, object]) -> str | None:
    """As a model would write them; None for what it could not, half a character say."""
    try:
        return msgspec.json.encode(arguments).decode()
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError, RecursionError):
        return None


def _read(text: str) -> object:
    """What it is as JSON, else itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        return text
