"""What may come next in one session: said as hints, and run ahead where that is worth it."""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Final, final

import msgspec

from paceline.call import Call, Caller, Effect, Outcome, Priority
from paceline.engine.protocols import Preparation
from paceline.engine.states import (
    ExecutionContext,
    PerformanceHints,
    PredictedCall,
    ToolCall,
)
from paceline.messages import ToolUse
from paceline.path.job import Job
from paceline.predict.events import Called, Proposal, Step
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.session import Guess, Session
from paceline.predict.values import canonical
from paceline.redaction import MASK, Redactor
from paceline.speculation.messages import Messages
from paceline.speculation.pace import Pace
from paceline.speculation.rehearsal import Rehearsal, Talk
from paceline.speculation.speculator import INTENSIVE_S, Chance, Speculator, Tools
from paceline.speculation.written import written

__all__ = ["Habits", "Outlook"]

_NS: Final = 1_000_000_000
_LOOKED_AT: Final = 6
_LEAST: Final = 0.02
_LIKELY: Final = 0.1
_ALL_OF: Final = 8
_THINKING_S: Final = 10.0
"""How long people take until they write again, at least."""
_LATER: Final = 1.5
"""How much longer making it anew may take than mostly."""
_NO_HINTS: Final = PerformanceHints()


class Habits(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What all sessions of a runtime share: who predicts, who launches, what is left out of what is
    learnt, and who is told that there is news."""

    predictor: PerformancePredictor
    messages: Messages | None
    """What users write; None where models are not asked ahead."""
    speculator: Speculator
    left_s: Callable[[Call, Job], float]
    """For how many more seconds what is there for a call is valid."""
    redactor: Redactor
    pace: Pace
    news: Callable[[], object]
    trouble: Callable[[Exception], object]
    """Told what went wrong."""

    @contextlib.contextmanager
    def apart(self) -> Generator[None]:
        """What goes wrong in this block is told and left at that: no session is the worse for it."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 (whatever it is, the session goes on)
            self.trouble(exc)


@final
class Outlook:
    """Looks at what is learnt for what comes next in a session, whenever it is told to."""

    __slots__ = (
        "_again",
        "_anew",
        "_caller",
        "_context",
        "_foreseen",
        "_foreseen_after",
        "_habits",
        "_longest_s",
        "_looks",
        "_past",
        "_rehearsal",
        "_scope",
        "_session",
        "_tools",
        "hints",
    )

    def __init__(
        self,
        habits: Habits,
        tools: Tools,
        context: ExecutionContext,
        scope: str,
        talk: Talk | None,
        *,
        again: Callable[[float], object],
    ) -> None:
        """As of `Foresight`. `again` is told in how many seconds something that was made for the
        next message is to be made anew, so that it is there when the old one ends."""
        self.hints = _NO_HINTS
        """What is likely to come."""
        self._habits = habits
        self._tools = tools
        self._caller = Caller(context.user_id, context.session_id, context.tenant)
        self._context = context
        self._scope = scope
        self._session: Session | None = None
        """As it was looked at last."""
        self._again = again
        self._anew = False
        """Whether what would end soon is made anew."""
        self._longest_s = 0.0
        """What took longest of all that was made for the next message."""
        self._rehearsal = Rehearsal(
            talk, tools, context, habits.speculator, self._chance, launch=self._prepare
        )
        self._foreseen: set[tuple[str, str]] = set()
        self._foreseen_after: set[tuple[str, str]] = set()
        """The same of the step after the one that runs."""
        self._past: dict[tuple[str, str], list[Guess]] = {}
        """What was said to come after a call, if that is asked for."""
        self._looks = 0

    def came(self, made: Sequence[ToolCall], calls: Sequence[Called]) -> None:
        """These calls were made: those that changed nothing might have been launched."""
        harmless = _harmless(self._tools)
        for one, call in zip(made, calls, strict=True):
            use = ToolUse(one.id, one.tool_name, one.args)
            if call.name in harmless or self._tools.ahead(use) is not None:
                key = call.name, canonical(call.arguments)
                foreseen = key in self._foreseen or self._rehearsal.foresaw(use.name, use.arguments)
                self._habits.speculator.real(call.name, self._caller, foreseen=foreseen)
        self._foreseen, self._foreseen_after = self._foreseen_after, set()

    def score_past(self, session: Session, step: Step) -> None:
        """What was said to come after a call that was asked for is scored as if it had been said while
        that ran, unless something was."""
        for call in step.calls:
            past = self._past.get((call.name, canonical(call.arguments)))
            if past is not None:
                session.guesses.setdefault(Moment.TOOLS, past)
        self._past = {}

    def answered(self) -> None:
        """The model asked for no tool: nothing comes after one."""
        self._past = {}

    def close(self) -> None:
        """The session is over."""
        self._rehearsal.stop()
        self._habits.speculator.leave(self._context.session_id)

    def look(
        self,
        session: Session,
        moment: Moment,
        message: tuple[str, float] | None,
        *,
        anew: bool = False,
    ) -> None:
        """Says what may come, and has run ahead what is worth it; `anew`, if that would end soon.
        `message` is what the user is likely to write next, and how likely."""
        self._anew = anew
        if not anew:
            self._longest_s = 0.0
        self._session, predictor = session, self._habits.predictor
        if moment is Moment.IDLE or self.hints is _NO_HINTS:
            self._know_tools(session)
        foreseen = self._foreseen
        if moment is Moment.TOOLS:
            foreseen = self._foreseen_after
        elif moment is Moment.IDLE:
            foreseen.clear()  # of the turn before
            self._foreseen_after.clear()
            self._rehearse(message)
        # Now and then all are looked at: who was wrong once may be right another time.
        self._looks += 1
        least = 0.0 if self._looks % _ALL_OF == 1 else _LIKELY
        ready: list[PredictedCall] = []
        expected: list[PredictedCall] = []
        for proposal in predictor.propose(session, _LOOKED_AT, moment=moment, least=least):
            arguments = written(proposal.arguments)
            if proposal.probability < _LEAST or arguments is None:
                continue
            takes_s = predictor.takes_s(session, proposal.name)
            prepared = self._tools.ahead(ToolUse("ahead", proposal.name, arguments))
            usd = (prepared and prepared.cost_usd) or self._habits.speculator.costs(proposal.name)
            call = PredictedCall(
                proposal.name, arguments, proposal.probability, round(takes_s * _NS), usd
            )
            expected.append(call)
            if prepared is None:
                continue
            ready.append(call)
            self._habits.speculator.proposed(proposal.name)
            if predictor.needs(self._scope, proposal.name, session.asked) or (
                not predictor.known(session, proposal, moment=moment)
            ):
                continue  # what it needs of tools that run is better waited for
            chance = Chance(proposal.probability, takes_s, self._lead_s(moment))
            key = _key(proposal)
            self._run_ahead(prepared, chance, foreseen, key, moment)
            if moment is Moment.REPLY and key in foreseen:
                self._look_past(session, proposal)
        self.hints = msgspec.structs.replace(
            self.hints,
            predicted_tool_sequence=tuple(expected),
            cache_warming_candidates=tuple(ready),
        )

    def _look_past(self, session: Session, proposal: Proposal) -> None:
        """Has run ahead what is likely to be asked for after a call that was: of tools that never
        needed its result, and for which one step later there would not be time enough."""
        predictor, model_s = self._habits.predictor, self._habits.pace.model_s
        slow = {
            name
            for group in self.hints.parallel_execution_groups
            if proposal.name in group
            for name in _beside(proposal.name, group)
            if predictor.takes_s(session, name) > model_s
        }
        if not slow:
            return
        supposed = session.supposing(Called(proposal.name, proposal.arguments))
        for after in predictor.propose(supposed, _LOOKED_AT, moment=Moment.TOOLS, least=_LIKELY):
            arguments = written(after.arguments)
            if after.name not in slow or arguments is None or _key(after) == _key(proposal):
                continue
            prepared = self._tools.ahead(ToolUse("ahead", after.name, arguments))
            if prepared is not None and predictor.known(supposed, after, moment=Moment.TOOLS):
                chance = Chance(
                    proposal.probability * after.probability,
                    predictor.takes_s(session, after.name),
                    self._lead_s(Moment.TOOLS),
                )
                self._run_ahead(prepared, chance, self._foreseen_after, _key(after), Moment.TOOLS)
        self._past[_key(proposal)] = supposed.guesses.get(Moment.TOOLS, [])

    def _run_ahead(
        self,
        prepared: Preparation,
        chance: Chance,
        foreseen: set[tuple[str, str]],
        key: tuple[str, str],
        moment: Moment,
    ) -> None:
        """Has it launched, if that is worth it: then it counts as foreseen."""
        speculator = self._habits.speculator
        call, job = self._tools.call(
            prepared, self._context, priority=Priority.SPECULATIVE, timeout_s=None
        )
        if speculator.objection(call, chance):
            return
        foreseen.add(key)
        if moment is Moment.IDLE:
            self._prepare(call, job, chance)
        else:
            speculator.launch(call, job, chance)

    def _prepare(
        self,
        call: Call,
        job: Job,
        chance: Chance,
        then: Callable[[Outcome], object] | None = None,
    ) -> str:
        """Launches what is for the next message, as `Speculator.launch`, and says when to look again."""

        def there(outcome: Outcome) -> None:
            if outcome.error is None:
                took_s = max(chance.takes_s, (outcome.execute_ns or outcome.saved_ns) / _NS)
                self._longest_s = max(self._longest_s, took_s)
                self._again(self._habits.left_s(call, job) - _LATER * took_s)
            if then is not None:
                then(outcome)

        if self._anew:
            # With what ends first, what ends a little later: there are not many more looks.
            job = msgspec.structs.replace(job, lasting_s=_THINKING_S + 2 * self._longest_s)
        return self._habits.speculator.launch(call, job, chance, there)

    def _rehearse(self, message: tuple[str, float] | None) -> None:
        """Goes through the turn that the user is likely to begin next."""
        if message is None or MASK in message[0]:
            self._rehearsal.clear()
        else:
            self._rehearsal.begin(*message)

    def _chance(self, probability: float, tool: str | None) -> Chance:
        """What is thought of a call in a turn that is gone through: of a tool, or of the model."""
        takes_s = self._habits.pace.model_s
        if tool and self._session is not None:
            takes_s = self._habits.predictor.takes_s(self._session, tool)
        return Chance(probability, takes_s, self._lead_s(Moment.IDLE))

    def _lead_s(self, moment: Moment) -> float:
        """In how many seconds somebody may ask for what is predicted now."""
        model_s = self._habits.pace.model_s
        if moment is Moment.REPLY:
            return model_s
        return _THINKING_S + model_s if moment is Moment.IDLE else 2 * model_s

    def _know_tools(self, session: Session) -> None:
        """Says what is known of the tools, whatever comes next."""
        predictor, names = self._habits.predictor, [each.name for each in self._tools.definitions()]
        takes = {name: predictor.takes_s(session, name) for name in names}
        self.hints = msgspec.structs.replace(
            self.hints,
            parallel_execution_groups=tuple(
                predictor.parallel_groups(self._scope, _harmless(self._tools))
            ),
            resource_intensive_tools=tuple(
                name for name, seconds in takes.items() if seconds >= INTENSIVE_S
            ),
            expected_ns={name: round(seconds * _NS) for name, seconds in takes.items() if seconds},
        )


def _harmless(tools: Tools) -> set[str]:
    """The names of those that change nothing."""
    return {name for name, kind in tools.effects().items() if Effect(kind).repeatable}


def _key(proposal: Proposal) -> tuple[str, str]:
    """The same for calls that ask the same thing."""
    return proposal.name, canonical(proposal.arguments)


def _beside(name: str, group: Sequence[str]) -> Sequence[str]:
    """The others of its group; itself, if it may run beside itself."""
    others = list(group)
    others.remove(name)
    return others
