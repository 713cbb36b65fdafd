"""Weights of features, learnt online; what is not known here is asked of a more general table."""

import math
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.values import is_list

__all__ = ["Evidence", "Feature", "Gradient", "Sum", "Weights", "gradients"]

Feature: TypeAlias = "str | tuple[Feature, ...] | int"
Gradient: TypeAlias = dict[Feature, float]

_FADE: Final = 0.995  # of what is known about the size of steps stays: so it never stops learning
_START: Final = 0.5
_MOST_SUMS: Final = 4_096


@final
class Weights:
    """Weights of a log-linear model, which take the steps of AdaGrad (J. Duchi, E. Hazan,
    Y. Singer, Adaptive subgradient methods, 2011).

    A feature that this table does not know weighs what it weighs in the parent, and starts from
    there once it is learnt: so a new tool begins with what the others taught. At most `most`
    features are kept, `rate` is how far one step goes; when there are more, the quarter that weighs
    least goes. `version` counts what was learnt here, `root` is the table whose version changes
    with every change of this one.
    """

    __slots__ = ("_most", "_parent", "_rate", "_sums", "_table", "root", "version")

    def __init__(
        self, parent: "Weights | None" = None, *, rate: float = 0.5, most: int = 1_024
    ) -> None:
        self._rate = rate
        self._parent = parent
        self._most = most
        self._table: dict[Feature, tuple[float, float]] = {}
        self._sums: dict[tuple[Feature, ...], Sum] = {}
        self.version = 0
        self.root: Weights = self if parent is None else parent.root

    def __len__(self) -> int:
        return len(self._table)

    def get(self, feature: Feature) -> float:
        """The weight of a feature; 0 if nobody knows it."""
        found = self._table.get(feature)
        if found is not None:
            return found[0]
        return 0.0 if self._parent is None else self._parent.get(feature)

    def total(self, features: Iterable[Feature]) -> tuple[float, bool]:
        """The weight of features together, and whether this table knew it without its parent."""
        table, parent, total = self._table, self._parent, 0.0
        alone = True
        for feature in features:
            found = table.get(feature)
            if found is not None:
                total += found[0]
            elif parent is not None:
                alone = False
                total += parent.get(feature)
        return total, alone

    def together(self, features: tuple[Feature, ...]) -> "Sum":
        """The one sum of these features, for all who ask for it."""
        known = self._sums.get(features)
        if known is None:
            if len(self._sums) >= _MOST_SUMS:
                self._sums = {}
            known = self._sums[features] = Sum(features, self)
        return known

    def learn(self, gradient: Mapping[Feature, float]) -> None:
        """One step up a gradient, here and in the parents."""
        table = self._table
        for feature, slope in gradient.items():
            weight, past = table.get(feature) or (self.get(feature), 0.0)
            past = past * _FADE + slope * slope
            table[feature] = (weight + self._rate * slope / math.sqrt(_START + past), past)
        if len(table) > self._most:
            for feature in sorted(table, key=lambda each: abs(table[each][0]))[: self._most // 4]:
                del table[feature]
        self.version += 1
        if self._parent is not None:
            self._parent.learn(gradient)

    def save(self) -> object:
        """All weights as plain data."""
        return [[feature, *figures] for feature, figures in self._table.items()]

    def load(self, saved: object) -> None:
        """Takes over what `save` gave; raises CodecError where it is not that."""
        self._table = _table(saved)
        self.version += 1
        self.root.version += 1

    def loaded(self, saved: object) -> "Weights":
        """Another of the same rate and room, with what `save` gave; raises as `load`."""
        other = Weights(self._parent, rate=self._rate, most=self._most)
        other.load(saved)
        return other


@final
class Sum:
    """Features of the common table that hold together, and what they weigh: added up anew only
    after the table has learnt."""

    __slots__ = ("features", "seen", "table", "weight")

    def __init__(self, features: tuple[Feature, ...], table: Weights) -> None:
        self.features = features
        self.table = table
        self.seen = -1
        self.weight = 0.0

    def renew(self) -> None:
        """Adds up what was learnt since."""
        self.weight, _ = self.table.total(self.features)
        self.seen = self.table.version


@final
class Evidence:
    """What speaks for a candidate, or against: `own` features of one argument or tool, and `common`
    ones of all. `weight` holds as long as `seen` is the version of the common table, which learns
    last of all."""

    __slots__ = ("_root", "_seen", "_table", "_weight", "common", "own", "seen", "weight")

    def __init__(self, own: tuple[Feature, ...], table: Weights, common: Sum) -> None:
        self.own = own
        self.common = common
        self.seen = -1
        self.weight = 0.0
        self._table = table
        self._root: Weights = table.root
        self._seen = -1
        self._weight = 0.0

    def renew(self) -> float:
        """Weighs it by what was learnt since."""
        common = self.common
        if self._seen != self._root.version:
            table = self._table
            self._weight, alone = table.total(self.own)
            root = self._root = table if alone else table.root
            self._seen = root.version
        if common.seen != common.table.version:
            common.renew()
        self.seen = common.seen
        self.weight = weight = self._weight + common.weight
        return weight


def _table(saved: object) -> dict[Feature, tuple[float, float]]:
    try:
        rows = msgspec.convert(saved, list[tuple[object, float, float]])
    except msgspec.ValidationError as exc:
        raise CodecError(f"weights cannot be read: {exc}") from exc
    if any(past < 0.0 for _, _, past in rows):
        raise CodecError("weights cannot be read: a sum of squares is negative")
    if not all(math.isfinite(weight + past) for _, weight, past in rows):
        raise CodecError("weights cannot be read: one of them is no number")
    return {_frozen(feature): (weight, past) for feature, weight, past in rows}


def _frozen(feature: object) -> Feature:
    if is_list(feature):
        return tuple([_frozen(part) for part in feature])
    if isinstance(feature, str | int):
        return feature
    raise CodecError(f"weights cannot be read: {type(feature).__name__} is no feature")


def gradients(slopes: Mapping[Evidence, float]) -> tuple[Gradient, Gradient]:
    """How much the weights of own features, and of common ones, are to move."""
    own: Gradient = {}
    common: Gradient = {}
    for evidence, slope in slopes.items():
        for feature in evidence.own:
            own[feature] = own.get(feature, 0.0) + slope
        for feature in evidence.common.features:
            common[feature] = common.get(feature, 0.0) + slope
    return own, common
