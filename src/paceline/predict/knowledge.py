"""All that is learnt of one scope: its models, and what its tools take."""

from collections.abc import Collection, Container, Generator, Mapping, Sequence
from typing import Final, Protocol, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.calibration import Calibration
from paceline.predict.context import Context
from paceline.predict.events import Called
from paceline.predict.fans import Fans
from paceline.predict.figures import Figures, measure
from paceline.predict.fusion import Fusion
from paceline.predict.groups import ParallelGroups
from paceline.predict.moments import Moment, scored_as
from paceline.predict.sequence import SequenceModel
from paceline.predict.session import Guess
from paceline.predict.values import canonical

__all__ = ["Arguments", "Knowledge", "MakeArguments"]

_LATER: Final = frozenset({"fans", "fusion"})
"""The parts that files had not from the beginning."""
_SCORED: Final = 4  # of the proposals of one moment


class Arguments(Protocol):
    """What the predictor needs of a model of arguments; `paceline.predict.arguments` is one."""

    def propose(
        self,
        name: str,
        context: Context,
        *,
        most: int = 10,
        least: float = 0.0,
        worth: float = 0.0,
    ) -> list[tuple[Mapping[str, object], float]]:
        """Complete arguments with their probability, given the name, best first; [] abstains, as
        it may where all together cannot reach `least`, or `worth` for each argument and
        once more."""
        ...

    def reason(self, name: str, context: Context, arguments: Mapping[str, object]) -> object | None:
        """Where arguments are from that were proposed at this moment: `str` of it is in words."""
        ...

    def observe(self, call: Called, context: Context, private: Collection[str] = ()) -> None:
        """What was called in a context that does not know of it yet. Of arguments that are `private`
        it may be learnt where their values are from, and none of these values."""
        ...

    @property
    def year(self) -> int | None:
        """Of the last date that an argument was; None where none was."""
        ...

    def save(self) -> object:
        """All that was learnt, as plain data."""
        ...

    def load(self, saved: object) -> None:
        """Takes the place of all that was learnt; raises CodecError where it is not what `save`
        returned."""
        ...


class MakeArguments(Protocol):
    """Makes a model of arguments that has learnt nothing."""

    def __call__(self, *, patterns: int) -> Arguments: ...


@final
class Knowledge:
    """What is learnt of one scope, with room for so many patterns; `saved` is what to begin with.

    Raises CodecError where that is not what `saving` came to.
    """

    def __init__(self, arguments: MakeArguments, patterns: int, saved: object = None) -> None:
        self.sequence = SequenceModel(patterns=patterns)
        self.arguments = arguments(patterns=patterns)
        self.fans = Fans()
        self.fusion = Fusion()
        self.calibration = Calibration()
        self.groups = ParallelGroups()
        self.figures: dict[str, Figures] = {}
        if saved is not None:
            self._load(saved)

    def came(self, name: str) -> str:
        """What comes of this tool, mostly."""
        figures = self.figures.get(name)
        return "object" if figures is None else figures.came

    def propose(
        self, name: str, context: Context, *, most: int, least: float, worth: float
    ) -> list[tuple[Mapping[str, object], float]]:
        """As of `Arguments`, with what may be asked for in the same step."""
        found = self.arguments.propose(name, context, most=most, least=least, worth=worth)
        return self.fans.spread(name, found, context, most)

    def reason(self, name: str, context: Context, arguments: Mapping[str, object]) -> object | None:
        """As of `Arguments`."""
        why = self.fans.reason(name, context, arguments)
        return self.arguments.reason(name, context, arguments) if why is None else why

    def took(
        self,
        calls: Sequence[Called],
        took_s: Sequence[float | None],
        used: Sequence[Mapping[str, float]],
        only: Container[str] | None = None,
    ) -> None:
        """The seconds and the resources of calls, in their order, as far as they are known."""
        for place, call in enumerate(calls):
            if only is None or call.name in only:
                seconds = took_s[place] if place < len(took_s) else None
                measure(self.figures, call, seconds, used[place] if place < len(used) else None)

    def score(
        self, proposed: Sequence[Guess], came: Container[tuple[str, str]], moment: Moment
    ) -> None:
        """Counts which of what was proposed at a moment came, by name and canonical arguments."""
        right: set[int] = set()
        for place, guess in enumerate(proposed):
            name = guess.proposal.name
            if (name, canonical(guess.proposal.arguments)) in came:
                right.add(place)
            if place < _SCORED:
                at = scored_as(moment, name)
                self.calibration.record(at, guess.confidence, right=place in right)
        self.fusion.learn(moment, proposed, right)

    def saving(self) -> Generator[None, None, dict[str, object]]:
        """All of it as plain data, made bit by bit."""
        parts: dict[str, object] = {}
        for name, part in self._parts().items():
            parts[name] = part.save()
            yield
        return {"parts": parts, "figures": msgspec.to_builtins(self.figures)}

    def _load(self, saved: object) -> None:
        try:
            data = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"what was learnt cannot be read: {exc}") from exc
        parts = self._parts()
        if data.parts.keys() | _LATER != parts.keys():
            raise CodecError(f"what was learnt has other parts: {', '.join(data.parts)}")
        for name, saved_part in data.parts.items():
            parts[name].load(saved_part)
        self.figures = data.figures

    def _parts(
        self,
    ) -> dict[str, SequenceModel | Arguments | Calibration | ParallelGroups | Fans | Fusion]:
        return {
            "sequence": self.sequence,
            "arguments": self.arguments,
            "calibration": self.calibration,
            "groups": self.groups,
            "fans": self.fans,
            "fusion": self.fusion,
        }


class _Saved(msgspec.Struct):
    parts: dict[str, object]
    figures: dict[str, Figures]
