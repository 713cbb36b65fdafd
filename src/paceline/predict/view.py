"""What is known in a session: what its scope learnt, and where that is little what all did."""

from collections.abc import Mapping
from typing import Final, final

from paceline.predict.calibration import Calibration
from paceline.predict.context import Context
from paceline.predict.courses import Courses
from paceline.predict.figures import Figures
from paceline.predict.fusion import Trust
from paceline.predict.knowledge import Knowledge
from paceline.predict.moments import Moment, scored_as
from paceline.predict.sequence import END

__all__ = ["View"]

_OWN: Final = 20  # events of a scope that weigh as much as all that is public
_EVEN: Final = Trust(1.0, 1.0, 1.0)
_ENOUGH: Final = 0.95  # of the weight is that of the scope: then the rest says little


@final
class View:
    """Changes nothing. `own` is None where nothing was learnt of the scope; `prior` is only asked of
    tools that are `public` in the session."""

    __slots__ = ("_own", "_prior", "_public")

    def __init__(self, own: Knowledge | None, prior: Knowledge, public: frozenset[str]) -> None:
        self._own = own
        self._prior = prior
        self._public = public

    def next_tools(self, courses: Courses) -> list[tuple[str, float]]:
        """What may be next, the end of the turn (`END`) among it, best first."""
        own = self._own
        tools = [] if own is None else own.sequence.predict(courses.own)
        weight = 0.0 if own is None else own.sequence.observed / (own.sequence.observed + _OWN)
        if not self._public or weight > _ENOUGH:
            return tools
        mixed = {name: weight * chance for name, chance in tools}
        for name, chance in self._prior.sequence.predict(courses.public):
            if name == END or name in self._public:
                mixed[name] = mixed.get(name, 0.0) + (1.0 - weight) * chance
        return sorted(mixed.items(), key=lambda item: (-item[1], item[0]))

    def seen(self, courses: Courses) -> float:
        """How often this moment was seen."""
        own = 0.0 if self._own is None else self._own.sequence.seen(courses.own)
        return own or (self._prior.sequence.seen(courses.public) if self._public else 0.0)

    def figures(self, name: str) -> Figures:
        """What calls of a tool took and came to, by experience."""
        found = None if self._own is None else self._own.figures.get(name)
        if found is None and name in self._public:
            found = self._prior.figures.get(name)
        return found or Figures()

    def came(self, name: str) -> str:
        """What comes of a tool, mostly."""
        return self.figures(name).came

    def arguments(
        self, name: str, context: Context, most: int, least: float, worth: float
    ) -> list[tuple[Mapping[str, object], float]]:
        """Complete arguments, as of `Arguments`: by what the scope knows of the tool; where that is
        nothing, by what is public."""
        for known in self._of(name):
            found = known.propose(name, context, most=most, least=least, worth=worth)
            if found:
                return found
        return []

    def reason(self, name: str, context: Context, arguments: Mapping[str, object]) -> object:
        """Where arguments are from that were proposed at this moment."""
        for known in self._of(name):
            why = known.reason(name, context, arguments)
            if why is not None:
                return why
        return ""

    def trust(self, name: str, moment: Moment) -> Trust:
        """How far the chances of a tool and of its arguments can be trusted."""
        known = self._of(name)
        return known[0].fusion.trust(moment, name) if known else _EVEN

    def needed(self, name: str, moment: Moment, least: float) -> float:
        """The confidence that calls of a tool need to be as probable as `least`."""
        if not least:
            return 0.0
        at = scored_as(moment, name)
        found = [known.calibration.needed(at, least) for known in self._of(name)]
        return min(found, default=0.0)

    def calibration(self, name: str, moment: Moment, confidence: float) -> Calibration:
        """By which a proposal of this tool is judged: the scope's own, unless it has too little
        experience and the tool is public."""
        at = scored_as(moment, name)
        found = [known.calibration for known in self._of(name)] or [Calibration()]
        known = (each for each in found if each.known(at, confidence))
        return next(known, found[-1])

    def _of(self, name: str) -> list[Knowledge]:
        """What is known that may be asked of a tool, the scope's own first."""
        own = [] if self._own is None else [self._own]
        return [*own, self._prior] if name in self._public else own
