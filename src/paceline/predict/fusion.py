"""How sure a complete call is: its tool's chance and its arguments', each as far as it can be trusted.

The two are multiplied, each to a power that is learnt, and with a factor for each tool: opinions that
are pooled by their logarithms (C. Genest and J. Zidek, Combining probability distributions, 1986),
with the weights of a logistic regression. Where the arguments of a tool are mostly wrong its calls
stand back behind those of another tool; without experience both chances count alike.
"""

import math
from collections.abc import Container, Sequence
from typing import Final, NamedTuple, final

from paceline.predict.moments import Moment
from paceline.predict.session import Guess
from paceline.predict.weights import Feature, Weights

__all__ = ["Fusion", "Trust"]

_RATE: Final = 0.03
_MOST: Final = 2_000
_POWER: Final = (-0.75, 2.0)  # that a power may be less or more than 1
_SHIFT: Final = (-3.0, 3.0)  # logarithms that a tool may be put back or forth
_POWERS: Final = frozenset({"tool", "args"})
_NONE: Final = 0.02  # the least chance that none of the calls comes true
_TINY: Final = 1e-4


class Trust(NamedTuple):
    """How far chances can be trusted for one tool at one moment."""

    factor: float
    of_tool: float
    of_arguments: float

    def most(self, chance: float) -> float:
        """How sure a call can be of a tool with this chance: with arguments that are certain."""
        return self.factor * float(chance**self.of_tool)

    def sure(self, chance: float, given: float) -> float:
        """How sure a call is of a tool with this chance, with arguments that have this one then."""
        return self.factor * float(chance**self.of_tool * given**self.of_arguments)

    def needed(self, chance: float, sure: float) -> float:
        """The chance that arguments need for a call to be this sure; 1 or more if none has it."""
        return float((sure / self.most(chance)) ** (1.0 / self.of_arguments))


@final
class Fusion:
    """Learns, of all calls that were proposed together, which came true, if any."""

    def __init__(self) -> None:
        self._weights = Weights(rate=_RATE, most=_MOST)
        self._trusted: dict[tuple[Moment, str], Trust] = {}
        """What was asked for since it learnt last."""

    def trust(self, moment: Moment, name: str) -> Trust:
        """For calls of this tool at this moment."""
        known = self._trusted.get((moment, name))
        if known is None:
            known = self._trusted[moment, name] = Trust(
                math.exp(self._weight((moment, name))),
                1.0 + self._weight(("tool", moment)),
                1.0 + self._weight(("args", moment)),
            )
        return known

    def learn(self, moment: Moment, proposed: Sequence[Guess], right: Container[int]) -> None:
        """Moves the weights towards those of them that came true, by their places; to none at all
        where that is so. One of several that came true counts for its share."""
        if not proposed:
            return
        none: Feature = ("none", moment)
        held = [max(each.confidence, _TINY) for each in proposed]
        left = max(_NONE, 1.0 - sum(held)) * math.exp(self._weight(none))
        total = sum(held) + left
        true = [place in right for place in range(len(proposed))]
        share = 1.0 / max(1, sum(true))
        slopes: dict[Feature, float] = {none: float(not any(true)) - left / total}
        for guess, sure, came in zip(proposed, held, true, strict=True):
            slope = share * came - sure / total
            for feature, value in (
                (("tool", moment), math.log(max(guess.chance, _TINY))),
                (("args", moment), math.log(max(guess.given, _TINY))),
                ((moment, guess.proposal.name), 1.0),
            ):
                slopes[feature] = slopes.get(feature, 0.0) + slope * value
        # What is at its bound goes no further: it would take as long to come back.
        self._weights.learn(
            {
                feature: slope
                for feature, slope in slopes.items()
                if not self._at_bound(feature, slope)
            }
        )
        self._trusted = {}

    def _weight(self, feature: Feature) -> float:
        low, high = _bounds(feature)
        return max(low, min(high, self._weights.get(feature)))

    def _at_bound(self, feature: Feature, slope: float) -> bool:
        low, high = _bounds(feature)
        weight = self._weights.get(feature)
        return (weight >= high and slope > 0) or (weight <= low and slope < 0)

    def save(self) -> object:
        """All that was learnt, as plain data."""
        return self._weights.save()

    def load(self, saved: object) -> None:
        """Takes over what `save` gave; raises CodecError where it is not that."""
        self._weights.load(saved)
        self._trusted = {}


def _bounds(feature: Feature) -> tuple[float, float]:
    return _POWER if isinstance(feature, tuple) and feature[0] in _POWERS else _SHIFT
