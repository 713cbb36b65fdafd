"""A session under way, as prediction sees it."""

from copy import copy
from typing import NamedTuple, final

from paceline.predict.context import Context
from paceline.predict.contexts import Contexts
from paceline.predict.course import Course
from paceline.predict.courses import Courses
from paceline.predict.events import Called, Event, Proposal, Step, Tools
from paceline.predict.groups import Turn
from paceline.predict.moments import Moment

__all__ = ["Guess", "Session"]


class Guess(NamedTuple):
    """A proposal, and what the models made of it before it was calibrated: how sure they were, the
    chance of its tool, and that of its arguments given the tool."""

    proposal: Proposal
    confidence: float
    chance: float
    given: float


@final
class Session:
    """Made by `PerformancePredictor.session`. `public` are the tools that are the same for all here: a
    tool of that name may be somebody's own elsewhere. `year` is that of the scope's last date."""

    def __init__(
        self, scope: str, tools: Tools, public: frozenset[str], year: int | None = None
    ) -> None:
        self.scope = scope
        self.contexts = Contexts(scope, tools, year)
        self.courses = Courses(tools, public)
        self.turn = Turn()
        self.guesses: dict[Moment, list[Guess]] = {}
        """What was proposed last at each moment, as long as it is not known what came."""
        self.asked: list[str] = []
        """The tools of the step under way, as far as they were told of."""
        self.before: Courses | None = None
        """How it had gone before the user spoke, until a model answers."""

    @property
    def public(self) -> frozenset[str]:
        """The names of the tools that are the same for all."""
        return self.courses.names

    def narrow(self, public: frozenset[str]) -> None:
        """Other tools are public now. One that was not is not from now on either: what was called by
        its name may be known only later."""
        if not self.courses.names <= public:
            self.courses.names &= public

    @property
    def course(self) -> Course:
        """How it went."""
        return self.courses.own

    @property
    def context(self) -> Context:
        """What was said and called in it."""
        return self.contexts.own

    @property
    def proposed(self) -> list[Guess]:
        """What the model is expected to answer."""
        return self.guesses.get(Moment.REPLY, [])

    def hear(self, event: Event) -> None:
        """Goes on without anything being learnt."""
        self.contexts.hear(event, self.public)
        self.courses.hear(event)
        self.guesses.pop(Moment.REPLY, None)
        if isinstance(event, Step):
            self.asked = []

    def ask(self, call: Called) -> None:
        """One more call of a step whose results are not there yet."""
        self.contexts.ask(call, self.public)
        self.courses.ask(call)

    def supposing(self, call: Called) -> "Session":
        """Another, in which this was asked for: `Moment.TOOLS` is what may come after it."""
        other = copy(self)
        other.courses = self.courses.copy()
        other.asked, other.guesses = [call.name], {}
        other.courses.ask(call)
        return other

    @property
    def awaits_reply(self) -> bool:
        """Whether it is the model's turn: to call a tool, or to end the turn."""
        return self.course.moment in {"user", "step"}
