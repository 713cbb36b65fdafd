"""What a session will call next, with all arguments, and how likely that is to come true.

`PerformancePredictor` joins the models: which tool is next (`sequence`), where its arguments come
from (`arguments`), how sure that makes a call (`fusion`), and what such a prediction was worth so
far (`calibration`). It is pure but for the clock, which it only asks when an update is due.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, final

import msgspec

from paceline.clock import Clock, SystemClock
from paceline.errors import CodecError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.events import Called, Event, Proposal, Said, Step, Tools, Trajectory
from paceline.predict.execution import ExecutionPattern, pattern_of
from paceline.predict.knowledge import Knowledge, MakeArguments
from paceline.predict.moments import Moment, scored_as
from paceline.predict.prior import Prior
from paceline.predict.sequence import END
from paceline.predict.session import Guess, Session
from paceline.predict.values import canonical
from paceline.predict.view import View

__all__ = ["Bits", "PerformancePredictor"]

_SYSTEM: Final = SystemClock()
UPDATE_S: Final = 30.0
"""Seconds between two updates, if there is news."""

_SEVERAL: Final = 4
_LIKELY: Final = 0.04
"""The arguments of the first few tools are looked for, if these are likely; those of any other only
if a call of it may be among the `_BEST`."""
_BEST: Final = 1
_MOST_TOOLS: Final = 8
_HARDLY: Final = 0.01
"""Beyond so many, and where tools are less likely than this, none are looked for."""
_FAINT: Final = 0.0015
"""Arguments of a tool whose calls cannot be surer than this, for each argument and once more, are not
looked for: what a tool with many of them takes has to be worth it."""


class _Found(NamedTuple):
    """A complete call, with the chance of its tool and of its arguments given that."""

    confidence: float
    chance: float
    given: float
    name: str
    arguments: Mapping[str, object]


@final
class Bits:
    """What is made bit by bit, by iterating; `whole` is what comes of it."""

    def __init__(self, bits: Generator[None, None, object]) -> None:
        self.whole: object = None
        self._bits = bits

    def __iter__(self) -> Iterator[None]:
        self.whole = yield from self._bits


@final
class PerformancePredictor:
    """Learns of sessions as they go on and proposes their next calls.

    Nothing that is learnt of one scope is used in another, but for calls of tools that are public
    in both sessions: the same for all, with arguments that are nobody's secret. From those a scope
    that has seen little yet takes its first guesses (see `Prior`). `public` are those of sessions of
    which nothing else is said. At most `scopes` are remembered, those used last;
    the global one may hold `patterns`, each other a tenth of that.
    """

    def __init__(
        self,
        *,
        clock: Clock = _SYSTEM,
        arguments: MakeArguments = ArgumentModel,
        public: Collection[str] = frozenset(),
        patterns: int = 10_000,
        scopes: int = 100,
    ) -> None:
        self._clock = clock
        self._make = arguments
        self._public = frozenset(public)
        self._patterns = patterns
        self._most_scopes = scopes
        self._prior = Prior(arguments, patterns)
        self._scopes: dict[str, Knowledge] = {}
        self._news = False
        self._updated_ns = clock.monotonic_ns()

    def session(
        self, scope: str = "", tools: Tools | None = None, *, public: frozenset[str] | None = None
    ) -> Session:
        """A session that begins; `tools` are the JSON schemas of what may be called, `public` those
        that are the same for all in this session."""
        public = self._public if public is None else public
        own = self._scopes.get(scope)
        year = None if own is None else own.arguments.year
        return Session(scope, {} if tools is None else tools, public, year)

    def next_tools(self, session: Session) -> list[tuple[str, float]]:
        """What may be next, the end of the turn (`END`) among it, best first."""
        return self._view(session).next_tools(session.courses)

    def propose(
        self,
        session: Session,
        most: int = 10,
        *,
        moment: Moment = Moment.REPLY,
        least: float = 0.0,
    ) -> list[Proposal]:
        """Complete calls that may be next, with their probability, best first. [] abstains.

        Best is what the models are surest of; the probability is what that was worth so far, at
        this `moment`. They are scored when `asked` or `observe` is told what came, launched or not.
        Calls of tools none of which can be as probable as `least` are left out: whoever launches
        nothing below it misses none, sooner.
        """
        view, courses = self._view(session), session.courses
        if moment is Moment.TOOLS:
            courses = courses.copy()
            courses.suppose_answers(session.asked, view.came)
        elif moment is Moment.IDLE:
            courses = courses.idle()
        found: list[_Found] = []
        asked = 0
        for name, chance in view.next_tools(courses):
            if name == END:
                continue
            if asked >= _MOST_TOOLS or chance < _HARDLY:
                break
            trust = view.trust(name, moment)
            surest = trust.most(chance)
            rank = _BEST if asked >= _SEVERAL or chance < _LIKELY else most
            asked += 1
            needed = max(view.needed(name, moment, least), _sure(found, rank))
            if surest < needed:
                continue
            limits = [trust.needed(chance, sure) for sure in (needed, _FAINT)]
            for arguments, given in view.arguments(name, session.context, most, *limits):
                found.append(_Found(trust.sure(chance, given), chance, given, name, arguments))
            found.sort(key=itemgetter(0), reverse=True)
        guesses = session.guesses[moment] = [
            Guess(_proposal(view, session, each, moment), *each[:3]) for each in found[:most]
        ]
        return [guess.proposal for guess in guesses]

    def known(self, session: Session, proposal: Proposal, *, moment: Moment = Moment.REPLY) -> bool:
        """Whether enough proposals like this one, made last in the session, were scored that its
        probability is experience: before that none is to be launched."""
        name = proposal.name
        for guess in session.guesses.get(moment, ()):
            if guess.proposal is proposal:
                confidence = guess.confidence
                calibration = self._view(session).calibration(name, moment, confidence)
                return calibration.known(scored_as(moment, name), confidence)
        return False

    def takes_s(self, session: Session, name: str) -> float:
        """How long a tool takes, by experience of the scope, else of all if it is public; 0.0 where
        there is none."""
        return self._view(session).figures(name).seconds

    def asked(self, session: Session, calls: Sequence[Called]) -> None:
        """What the model asked for, while the results are not there yet: `observe` is told of them
        later, as a step of the same calls."""
        self._score(session, Step(tuple(calls)))
        self._learn_calls(session, calls)

    def explain(self, session: Session, proposal: Proposal) -> str:
        """Where a proposal is from, in words."""
        why = str(proposal.why)
        view = self._view(session)
        chance = dict(view.next_tools(session.courses)).get(proposal.name, 0.0)
        before = " then ".join([f"{name} ({came})" for name, came in session.course.recent])
        seen = round(view.seen(session.courses))
        return (
            f"{proposal.name} follows {before or 'the beginning'} with {chance:.0%}; this moment was seen "
            f"{'once' if seen == 1 else f'{seen} times'}. With these arguments such a call came true {proposal.probability:.0%} "
            "of the time." + (f" Arguments: {why}." if why else "")
        )

    def observe(
        self,
        session: Session,
        event: Event,
        *,
        took_s: Sequence[float | None] = (),
        used: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """What happened next in a session: scores what was proposed, learns of it and goes on.

        `took_s` and `used` are the seconds and the resources of the calls of a step, in order.
        """
        own = self._knowledge(session.scope)
        own.groups.observe(session.turn, event)
        if isinstance(event, Step):
            if not session.asked:
                self._score(session, event)
                self._learn_calls(session, event.calls)
            own.took(event.calls, took_s, used)
            self._prior.took(session, event.calls, took_s, used)
        elif event.by_user:
            session.before = session.courses.idle()
        elif session.awaits_reply:
            self._score(session, event)
            self._learn_first(own, session, END)
            own.sequence.observe(session.course, END)
            self._prior.learn_end(session)
        session.hear(event)
        self._news = True

    def learn(self, trajectory: Trajectory, tools: Tools | None = None) -> None:
        """A whole session, as one that is over, without anything being proposed in it."""
        session = self.session(trajectory.scope, tools)
        for event in trajectory.events:
            self.observe(session, event)

    def score(
        self,
        scope: str,
        proposed: Sequence[Guess],
        event: Event,
        *,
        moment: Moment = Moment.REPLY,
        public: frozenset[str] | None = None,
    ) -> None:
        """Counts which proposals came true. A message of the user says nothing of them. `public` are
        the tools that are, as of `session`."""
        if isinstance(event, Said) and event.by_user:
            return
        public = self._public if public is None else public
        calls = () if isinstance(event, Said) else event.calls
        came = {_identity(call) for call in calls}
        self._knowledge(scope).score(proposed, came, moment)
        self._prior.score(proposed, came, moment, public)

    def predict_execution_pattern(self, context: Session) -> ExecutionPattern | None:
        """The calls that are likely to come until the turn ends; None if nothing is likely."""
        return pattern_of(self._view(context), context.courses)

    def parallel_groups(
        self, scope: str = "", read_only: Collection[str] = ()
    ) -> list[tuple[str, ...]]:
        """Tools among those that change nothing that never needed one another."""
        own = self._scopes.get(scope)
        return own.groups.groups(read_only.__contains__) if own is not None else []

    def needs(self, scope: str, name: str, others: Iterable[str]) -> bool:
        """Whether a tool mostly needed what one of these returned."""
        own = self._scopes.get(scope)
        return own is not None and any(own.groups.needs(name, other) for other in others)

    @property
    def update_due(self) -> bool:
        """Whether there is news, and the last update is 30 s ago."""
        elapsed_ns = self._clock.monotonic_ns() - self._updated_ns
        return self._news and elapsed_ns >= UPDATE_S * 1e9

    def update_predictions(self) -> bool:
        """Forgets the scopes that were used longest ago, beyond those that may be remembered.
        False, and nothing done, if nothing was learnt since the last time."""
        if not self._news:
            return False
        self._trim()
        self._news = False
        self._updated_ns = self._clock.monotonic_ns()
        return True

    def forget(self, scope: str) -> None:
        """Drops all that was learnt of a scope. What public tools taught stays (see `Prior`)."""
        self._scopes.pop(scope, None)
        self._prior.forget(scope)

    def save(self) -> object:
        """All that was learnt, as plain data, for MessagePack or JSON."""
        saving = Bits(self.saving())
        for _ in saving:
            pass
        return saving.whole

    def saving(self) -> Generator[None, None, object]:
        """The same bit by bit, for who must not be kept busy by it for long; what is learnt
        meanwhile may be in it or not."""
        shared = yield from self._prior.saving()
        scopes: dict[str, object] = {}
        for scope, each in list(self._scopes.items()):
            scopes[scope] = yield from each.saving()
        return {"version": 1, "shared": shared, "scopes": scopes}

    def load(self, saved: object) -> None:
        """Takes the place of all that was learnt; raises CodecError where it is not what `save`
        returned, and then nothing changes."""
        try:
            data = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"saved predictions cannot be read: {exc}") from exc
        if data.version != 1:
            raise CodecError(f"saved predictions are of version {data.version}, and not 1")
        prior = Prior(self._make, self._patterns, data.shared)
        scopes = {
            scope: Knowledge(self._make, self._room(scope), each)
            for scope, each in data.scopes.items()
        }
        self._prior, self._scopes = prior, scopes
        self._trim()

    def _view(self, session: Session) -> View:
        """What is known in a session, for who only looks."""
        return View(self._scopes.get(session.scope), self._prior.knowledge, session.public)

    def _knowledge(self, scope: str) -> Knowledge:
        """What is learnt of a scope, which is then the one used last."""
        own = self._scopes.pop(scope, None)
        if own is None:
            own = Knowledge(self._make, self._room(scope))
        self._scopes[scope] = own
        if len(self._scopes) > 2 * self._most_scopes:
            self._trim()
        return own

    def _trim(self) -> None:
        dropped = list(self._scopes)[: max(0, len(self._scopes) - self._most_scopes)]
        if dropped:
            for scope in dropped:
                del self._scopes[scope]
            self._prior.forget(*dropped)

    def _room(self, scope: str) -> int:
        return max(100, self._patterns if scope == "" else self._patterns // 10)

    def _score(self, session: Session, event: Event) -> None:
        """Counts which of all that was proposed came true."""
        for moment, guesses in session.guesses.items():
            self.score(session.scope, guesses, event, moment=moment, public=session.public)
        session.guesses = {}

    def _learn_first(self, own: Knowledge, session: Session, name: str) -> None:
        """What a turn began with, as seen from before it."""
        if session.before is None:
            return
        own.sequence.observe(session.before.own, name)
        self._prior.learn_first(session, session.before, name)
        session.before = None

    def _learn_calls(self, session: Session, calls: Sequence[Called]) -> None:
        own = self._knowledge(session.scope)
        if calls:
            self._learn_first(own, session, calls[0].name)
        own.fans.learn(calls, session.context)
        self._prior.learn_step(session, calls)
        for call in calls:
            own.sequence.observe(session.course, call.name)
            own.arguments.observe(call, session.context)
            self._prior.learn(session, call)
            session.ask(call)
        session.asked = [call.name for call in calls]


class _Saved(msgspec.Struct):
    """The form of `PerformancePredictor.save`."""

    version: int
    shared: object
    scopes: dict[str, object]


def _identity(call: Called) -> tuple[str, str]:
    return call.name, canonical(call.arguments)


def _proposal(view: View, session: Session, found: _Found, moment: Moment) -> Proposal:
    confidence, _, _, name, arguments = found
    calibration = view.calibration(name, moment, confidence)
    probability = calibration.probability(scored_as(moment, name), confidence)
    why = view.reason(name, session.context, arguments)
    return Proposal(name, arguments, probability, why)


def _sure(found: Sequence[_Found], rank: int) -> float:
    """How sure the call of this rank is; 0 as long as there are fewer."""
    return found[rank - 1].confidence if len(found) >= rank else 0.0
