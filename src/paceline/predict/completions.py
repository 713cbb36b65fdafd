"""Complete calls: the values of several arguments put together, and how likely they are as one."""

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple, TypeAlias, final

import msgspec

from paceline.predict.context import Context
from paceline.predict.objects import Instance, Kept
from paceline.predict.sources import ABSENT, Candidate
from paceline.predict.values import canonical_object
from paceline.predict.weights import Evidence, Feature, Weights, gradients

__all__ = ["Completion", "Judged", "complete", "learn"]

_WIDTH: Final = 5  # candidates of an argument are tried
_BEAM: Final = 10  # partial calls are kept
_FLOOR: Final = 0.03  # is added to the chance of a value that an object offers
_TINY: Final = 1e-9
_STEP: Final = 0.1  # how fast trust in the arguments' own chances moves
_TRUST: Final = {"alone": 1.0, "object": 0.8}
_SLIGHT: Final = 1e-3
_MOST_KEPT: Final = 512  # of what is only kept to be had sooner

Part: TypeAlias = tuple[float, str, object]
"""The logarithm of the chance of a value, its canonical text, and itself."""
Partial: TypeAlias = tuple[float, tuple[str, ...], tuple[object, ...]]
"""The same of several values."""

_probability = attrgetter("probability")
_chance = itemgetter(0)


@final
class Completion(msgspec.Struct, gc=False, eq=False):
    """The arguments of one call. `chance` is the sum of the logarithms of the probabilities that
    its arguments have alone; `keys` are canonical texts in the order of the tool's arguments.
    `kept` is the template of the object that it is from, if it is from one."""

    keys: tuple[str, ...]
    values: tuple[object, ...]
    chance: float
    kept: Kept | None
    evidence: list[Evidence]
    weight: float = 0.0
    probability: float = 0.0

    def arguments(self, names: Sequence[str]) -> dict[str, object]:
        """By name, without those that are left out."""
        parts = zip(names, self.keys, self.values, strict=True)
        return {name: value for name, key, value in parts if key != ABSENT}


@final
class Judged:
    """What a tool's calls as a whole are judged by: its own weights and those of all tools."""

    __slots__ = ("_evidence", "common", "own", "tool")

    def __init__(self, tool: str, own: Weights, common: Weights) -> None:
        self.tool = tool
        self.own = own
        self.common = common
        self._evidence: dict[Feature, Evidence] = {}

    def by(self, feature: Feature, *, for_all: bool = True) -> Evidence:
        """One feature; `for_all`: the same feature for all tools too."""
        known = self._evidence.get(feature)
        if known is None:
            if len(self._evidence) >= _MOST_KEPT:
                self._evidence = {}
            known = self.made((feature,), (feature,) if for_all else ())
            self._evidence[feature] = known
        return known

    def cool(self) -> None:
        """Drops what is only kept to be had sooner."""
        self._evidence = {}

    def made(self, own: tuple[Feature, ...], common: tuple[Feature, ...]) -> Evidence:
        """Features that hold together."""
        return Evidence(own, self.own, self.common.together(common))


class _Rest(NamedTuple):
    """What a template leaves open: which arguments, and the likeliest values for these."""

    open: Sequence[int]
    filled: Sequence[tuple[int, str]]
    likely: Sequence[Partial]


@final
class _Making:
    """Completions by their keys, from the candidates of each argument."""

    def __init__(
        self, names: Sequence[str], offered: Sequence[Sequence[Candidate]], judged: Judged
    ) -> None:
        self.names = names
        self.judged = judged
        self.offered = offered
        self.tops = [_top(some) for some in offered]
        self.found: dict[tuple[str, ...], Completion] = {}
        self._known: dict[str, dict[str, float]] = {}

    def alone(self) -> None:
        """The likeliest if the arguments had nothing to do with each other."""
        for chance, keys, values in _likeliest(self.tops, _BEAM):
            self.found[keys] = Completion(keys, values, chance, None, [])

    def fill(self, kept: Kept, instances: Sequence[Instance]) -> None:
        """What objects fill, the rest by the likeliest candidates."""
        open_, filled, likely = self._rest(kept)
        width = len(self.names)
        for instance in instances:
            evidence = self._evidence(instance, complete=not open_)
            chance = 0.0
            row: list[tuple[str, object]] = [(ABSENT, None)] * width
            for number, name in filled:
                place = instance.fills[name]
                alone = self._alone(number, name).get(place.key, 0.0)
                chance += math.log(alone + _FLOOR)
                row[number] = (place.key, place.value)
            for more, rest_keys, rest_values in likely:
                for number, key, value in zip(open_, rest_keys, rest_values, strict=True):
                    row[number] = (key, value)
                self._add(row, chance + more, kept, evidence)

    def _add(
        self, row: Sequence[tuple[str, object]], chance: float, kept: Kept, evidence: Evidence
    ) -> None:
        keys = tuple([key for key, _ in row])
        made = self.found.get(keys)
        if made is None:
            values = tuple([value for _, value in row])
            self.found[keys] = Completion(keys, values, chance, kept, [evidence])
            return
        if made.kept is None or chance > made.chance:
            made.chance = chance
            made.kept = made.kept or kept
        made.evidence.append(evidence)

    def _rest(self, kept: Kept) -> _Rest:
        filled = [(n, name) for n, name in enumerate(self.names) if name in kept.arguments]
        open_ = [n for n, name in enumerate(self.names) if name not in kept.arguments]
        most = 4 if len(open_) == 1 else 2
        tops = [self.tops[number][:most] for number in open_]
        return _Rest(open_, filled, _likeliest(tops, most))

    def _alone(self, number: int, name: str) -> dict[str, float]:
        known = self._known.get(name)
        if known is None:
            known = {each.key: each.probability for each in self.offered[number]}
            self._known[name] = known
        return known

    def _evidence(self, instance: Instance, *, complete: bool) -> Evidence:
        kept = instance.kept
        key = (instance.stand, instance.turn, instance.age, complete)
        known = kept.evidence.get(key)
        if known is None:
            text = kept.text
            sort: Feature = (kept.role, int(complete))
            known = self.judged.made(
                (text, (text, "stand", key[0]), (text, "turn", key[1]), (text, "age", key[2])),
                (
                    sort,
                    (sort, "stand", key[0]),
                    ("turn", int(complete), key[1]),
                    (sort, "age", key[2]),
                ),
            )
            kept.evidence[key] = known
        return known


def complete(
    names: Sequence[str],
    offered: Sequence[Sequence[Candidate]],
    instances: Iterable[tuple[Kept, Sequence[Instance]]],
    context: Context,
    judged: Judged,
) -> list[Completion]:
    """Complete calls with probabilities that add up to 1; the last one stands for all others."""
    making = _Making(names, offered, judged)
    making.alone()
    for kept, some in instances:
        making.fill(kept, some)
    found = list(making.found.values())
    used = [context.used(name) for name in names]
    alone = judged.by("alone")
    new = judged.by(("made", "n"))
    for each in found:
        keys = each.keys
        made = new
        for key, known in zip(keys, used, strict=True):
            if key not in known and key != ABSENT:
                break
        else:
            parts = {name: key for name, key in zip(names, keys, strict=True) if key != ABSENT}
            before = context.made(judged.tool, canonical_object(parts))
            made = judged.by(("made", before))
        if len(keys) > 1 and len(set(keys)) != len(keys):
            each.evidence += _alike(keys, judged)
        each.evidence.append(made)
        if each.kept is None:
            each.evidence.append(alone)
    found.append(Completion((), (), _other(offered), None, [judged.by("other")]))
    now = judged.common.version
    trust = {sort: base + _trust(judged, sort) for sort, base in _TRUST.items()}
    as_object, as_alone = trust["object"], trust["alone"]
    for each in found:
        weight = (as_alone if each.kept is None else as_object) * each.chance
        for evidence in each.evidence:
            weight += evidence.weight if evidence.seen == now else evidence.renew()
        each.weight = weight
    _softmax(found)
    return found


def learn(found: Sequence[Completion], keys: tuple[str, ...], judged: Judged) -> Completion | None:
    """Moves the weights towards the call that was made; to the last one if it is none of them.
    The one that it is."""
    right = next((each for each in found if each.keys == keys), found[-1])
    slopes: dict[Evidence, float] = {}
    trust = dict.fromkeys(_TRUST, 0.0)
    for each in found:
        slope = (each is right) - each.probability
        trust["alone" if each.kept is None else "object"] += slope * each.chance * _STEP
        if abs(slope) > _SLIGHT:
            for evidence in each.evidence:
                slopes[evidence] = slopes.get(evidence, 0.0) + slope
    mine, shared = gradients(slopes)
    for sort, slope in trust.items():
        mine["trust", sort] = shared["trust", sort] = slope
    judged.own.learn(mine)
    judged.common.learn(shared)
    return None if right is found[-1] else right


def _trust(judged: Judged, sort: str) -> float:
    return judged.by(("trust", sort)).renew()


def _top(some: Sequence[Candidate]) -> list[Part]:
    """The likeliest candidates but the last, which stands for all others."""
    best = sorted(some[:-1], key=_probability, reverse=True)[:_WIDTH]
    return [(math.log(each.probability + _TINY), each.key, each.value) for each in best]


def _likeliest(tops: Sequence[Sequence[Part]], most: int) -> list[Partial]:
    """The likeliest ways to take one part of each, at most so many, best first.

    Parts come best first. The i-th best so far with the j-th best part has i * j ways that are as
    likely or likelier, so that only few can be among the best.
    """
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    steps: list[list[tuple[float, int, int]]] = []
    for top in tops:
        # Each is one of those before, by its number, and one part more: put together in the end.
        if len(top) == 1:
            more = top[0][0]
            best = [(each[0] + more, number, 0) for number, each in enumerate(best)]
        else:
            best = [
                (best[i][0] + top[j][0], i, j)
                for i in range(len(best))
                for j in range(min(len(top), most // (i + 1)))
            ]
            best.sort(key=_chance, reverse=True)
            del best[most:]
        steps.append(best)
    found: list[Partial] = []
    for chance, *last in best:
        before, part = last
        taken: list[Part] = []
        for number in range(len(steps) - 1, -1, -1):
            taken.append(tops[number][part])
            if number:
                _, before, part = steps[number - 1][before]
        taken.reverse()
        found.append((chance, tuple([p[1] for p in taken]), tuple([p[2] for p in taken])))
    return found


def _alike(keys: Sequence[str], judged: Judged) -> list[Evidence]:
    """Arguments of equal value."""
    return [
        judged.by(("equal", first, second), for_all=False)
        for second in range(1, len(keys))
        for first in range(second)
        if keys[first] == keys[second]
    ]


def _other(offered: Sequence[Sequence[Candidate]]) -> float:
    """How likely it is, in logarithms, that some value is none of those offered."""
    all_offered = math.prod([1 - some[-1].probability for some in offered])
    return math.log(max(1e-4, 1 - all_offered))


def _softmax(found: Sequence[Completion]) -> None:
    top = max([each.weight for each in found])
    powers = [math.exp(each.weight - top) for each in found]
    total = sum(powers)
    for each, power in zip(found, powers, strict=True):
        each.probability = power / total
