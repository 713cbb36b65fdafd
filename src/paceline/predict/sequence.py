"""Which tool is next, and how likely: a model that learns as it goes.

Three opinions are mixed. The first counts what followed the last tools and what came of them, the
longest known context first, with back-off to shorter ones: interpolated absolute discounting, which
R. Kneser and H. Ney use (Improved backing-off for m-gram language modeling, 1995), over the
contexts of J. Cleary and I. Witten's PPM (1984). The second weighs words of the messages, marks
of the last result and tools already used against each other: multinomial logistic regression, with
the steps of J. Duchi et al. (Adaptive subgradient methods, 2011). The third is what says something of
a tool that was never called yet: its name is made of words that were just said. They are mixed
geometrically, by weights that are learnt from what each would have said (C. Mattern, Mixing
strategies in data compression, 2012), one set of weights for each kind of moment.

That a turn ends without another call is one more thing that can be next, `END`.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.bounded import Bounded
from paceline.predict.course import Course, contexts_of, features_of
from paceline.predict.names import COMMON, ToolNames

__all__ = ["END", "SequenceModel"]

END: Final = ""
"""What is next when the turn ends: no tool has this name."""

_CANDIDATES: Final = 24  # tools that are looked at for one prediction, of thousands

_PATTERNS_OF_A_TOOL: Final = 5
_FEWEST_TOOLS: Final = 100

_DISCOUNT: Final = 0.5
_LEAST: Final = 0.3  # calls that a context counts for on top of its own, all of them unknown
_FOLLOWERS: Final = 64  # tools that are remembered as seen after one context
_FLOOR: Final = 1e-4  # no opinion is surer than this that something will not be
_DECAY: Final = 0.995  # of what a context has seen stays, each time it is seen again
_TINY: Final = 0.02  # an error that is not worth a step
_WIDEST: Final = 12  # tools that one feature says something of
_RIVALS: Final = 4  # tools that a step is taken against, those held likeliest
_STEP: Final = 0.5
_MIX_STEP: Final = 0.01
_FIRST_WEIGHTS: Final = (0.6, 0.6, 1.0, 0.5, 0.5, 0.0, 0.0, 0.0)


Probabilities: TypeAlias = list[float]


class _Counts(msgspec.Struct, gc=False):
    """What followed a context, and how often; old sights count less."""

    total: float
    of: dict[str, float]


class _Weights(msgspec.Struct, gc=False):
    """What one feature says for and against tools, by their numbers; `seen` is the squared error so
    far. They lie close together: most of what a prediction takes is waiting for memory."""

    seen: float
    tools: list[int]
    of: "array[float]"

    def step(self, tool: int, amount: float) -> None:
        """Moves what is said of one tool."""
        if tool in self.tools:
            self.of[self.tools.index(tool)] += amount
        else:
            self.tools.append(tool)
            self.of.append(amount)

    def narrow(self) -> None:
        """Leaves what is said most clearly."""
        of = self.of
        kept = sorted(sorted(range(len(of)), key=lambda each: abs(of[each]))[-_WIDEST:])
        self.tools = [self.tools[each] for each in kept]
        self.of = array("d", [of[each] for each in kept])


class _Saved(msgspec.Struct):
    """The form of `SequenceModel.save`."""

    contexts: dict[str, tuple[float, dict[str, float]]]
    features: dict[str, tuple[float, dict[str, float]]]
    tools: dict[str, int]
    others: dict[str, int]
    mixes: dict[str, list[float]]
    observed: int


class _Opinions(NamedTuple):
    """All that one prediction was made of: what learning needs again."""

    contexts: list[str]
    candidates: list[str]
    features: list[str]
    regression: Probabilities
    inputs: list[Probabilities]
    mixed: Probabilities


@final
class SequenceModel:
    """Learns of each call, and of each end of a turn, in the order in which they happen.

    It keeps at most `patterns` contexts and as many features; the least useful go first.
    """

    def __init__(self, *, patterns: int = 10_000) -> None:
        self._patterns = patterns
        self._counts: Bounded[_Counts] = Bounded(patterns, _worth_of_counts)
        self._weights: Bounded[_Weights] = Bounded(patterns, _worth_of_weights)
        self._tools = ToolNames(max(_FEWEST_TOOLS, patterns // _PATTERNS_OF_A_TOOL), first=END)
        self._mixes: dict[str, list[float]] = {}
        self.observed = 0

    def predict(self, course: Course) -> list[tuple[str, float]]:
        """What may be next, `END` among it, with probabilities, best first."""
        opinions = self._now(course)
        ranked = zip(opinions.candidates, opinions.mixed, strict=True)
        return sorted(ranked, key=_by_probability)

    def seen(self, course: Course) -> float:
        """How often the longest known context of this moment was seen, old sights counting less."""
        for key in reversed(contexts_of(course)):
            counts = self._counts.get(key)
            if counts is not None:
                return counts.total
        return 0.0

    def observe(self, course: Course, name: str) -> None:
        """What came next of a session that had gone so far: the name of a tool, or `END`."""
        if name != END:
            self._tools.meet(name, self.observed)
        opinions = self._now(course)
        if name not in opinions.candidates:
            opinions = self._opinions(course, including=name)
        place = opinions.candidates.index(name)
        self._learn_mix(course.moment, opinions, place)
        self._learn_features(opinions, place)
        for key in opinions.contexts:
            counts = self._counts.get(key)
            if counts is None:
                self._counts.put(key, _Counts(1.0, {name: 1.0}))
                continue
            of = counts.of
            for other in of:
                of[other] *= _DECAY
            of[name] = of.get(name, 0.0) + 1.0
            counts.total = counts.total * _DECAY + 1.0
            if len(of) > _FOLLOWERS:
                counts.total -= of.pop(min(of, key=of.__getitem__))
        self.observed += 1
        if self._tools.full:
            self._renumber(self._tools.forget())

    def save(self) -> object:
        """All that was learnt, as plain data."""
        names = list(self._tools.numbers)
        called, others = self._tools.save()
        return {
            "contexts": {key: [each.total, each.of] for key, each in self._counts.items()},
            "features": {
                key: [
                    each.seen,
                    {names[n]: weight for n, weight in zip(each.tools, each.of, strict=True)},
                ]
                for key, each in self._weights.items()
            },
            "tools": called,
            "others": others,
            "mixes": self._mixes,
            "observed": self.observed,
        }

    def load(self, saved: object) -> None:
        """Takes the place of all that was learnt.

        Raises CodecError where it is not what `save` returned.
        """
        try:
            data = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"what was learnt of tools cannot be read: {exc}") from exc
        known = {END, *data.tools, *data.others}
        if not all(of.keys() <= known for _, of in data.features.values()):
            raise CodecError("what was learnt of tools is of some that are not known")
        self.__init__(patterns=self._patterns)
        for key, (total, counts) in data.contexts.items():
            self._counts.put(key, _Counts(total, counts))
        self._tools.load(data.tools, data.others)
        numbers = self._tools.numbers
        for key, (seen, by_name) in data.features.items():
            of = array("d", by_name.values())
            self._weights.put(key, _Weights(seen, [numbers[name] for name in by_name], of))
        self._mixes = {
            key: list(each) for key, each in data.mixes.items() if len(each) == len(_FIRST_WEIGHTS)
        }
        self.observed = data.observed

    def _now(self, course: Course) -> _Opinions:
        """What is thought of this moment: made up once, until more is heard or observed."""
        known = course.opinions
        if known is None or known[0] is not self or known[1] != self.observed:
            known = None
        if known is not None and isinstance(known[2], _Opinions):
            return known[2]
        opinions = self._opinions(course)
        course.opinions = (self, self.observed, opinions)
        return opinions

    def _renumber(self, numbers: Sequence[int]) -> None:
        """Some names are forgotten, the others have new numbers."""
        for weights in self._weights.values():
            kept = [place for place, tool in enumerate(weights.tools) if numbers[tool] >= 0]
            weights.tools = [numbers[weights.tools[place]] for place in kept]
            weights.of = array("d", [weights.of[place] for place in kept])

    def _candidates(self, course: Course, including: str, contexts: Sequence[str]) -> list[str]:
        """The tools that may be next: those that followed the longest contexts, those whose names
        were said, in an order that depends on nothing else."""
        found = dict.fromkeys((END, including))
        for key in reversed(contexts):
            counts = self._counts.get(key)
            if counts is None:
                continue
            of = counts.of
            room = _CANDIDATES - len(found)
            if len(of) > room:
                found.update(dict.fromkeys(sorted(of, key=of.__getitem__, reverse=True)[:room]))
            else:
                found.update(dict.fromkeys(of))
        most = len(found) + COMMON
        telling, declared = self._tools.telling.get, course.declared.get
        for stem in (*course.asked, *course.said):
            named = telling(stem)
            if named is not None:
                found.update(named)
            may_be = declared(stem)
            if may_be is not None and len(may_be) <= COMMON:
                found.update(dict.fromkeys(may_be))
            if len(found) >= most:
                break
        return list(found)

    def _opinions(self, course: Course, including: str = END) -> _Opinions:
        contexts = contexts_of(course)
        candidates = self._candidates(course, including, contexts)
        features = features_of(course)
        counted = self._counted(contexts, candidates)
        regression = self._regression(features, candidates)
        inputs = [_logs(counted), _logs(regression), *self._said(course, candidates)]
        weights = self._mixes.get(course.moment, _FIRST_WEIGHTS)
        scores = [0.0] * len(candidates)
        for weight, values in zip(weights, inputs, strict=True):
            if weight:
                scores = [
                    score + weight * value for score, value in zip(scores, values, strict=True)
                ]
        return _Opinions(contexts, candidates, features, regression, inputs, _softmax(scores))

    def _counted(self, contexts: Iterable[str], candidates: Sequence[str]) -> Probabilities:
        """By what followed the same context, the longer ones weighing more."""
        found = [1.0 / (len(self._tools.called) + 1)] * len(candidates)
        place = {name: index for index, name in enumerate(candidates)}
        for key in contexts:
            counts = self._counts.get(key)
            if counts is None:
                break
            total = counts.total + _LEAST
            left = (_DISCOUNT * len(counts.of) + _LEAST) / total
            found = [left * value for value in found]
            of = counts.of
            if len(of) < len(place):
                for name, count in of.items():
                    index = place.get(name)
                    if index is not None and count > _DISCOUNT:
                        found[index] += (count - _DISCOUNT) / total
            else:
                for index, name in enumerate(candidates):
                    count = of.get(name, 0.0)
                    if count > _DISCOUNT:
                        found[index] += (count - _DISCOUNT) / total
        return found

    def _regression(self, features: Iterable[str], candidates: Sequence[str]) -> Probabilities:
        scores = [0.0] * len(self._tools)
        get = self._weights.get
        for feature in features:
            weights = get(feature)
            if weights is not None:
                for tool, weight in zip(weights.tools, weights.of, strict=False):
                    scores[tool] += weight
        numbers = self._tools.numbers
        return _softmax([scores[numbers[n]] if n in numbers else 0.0 for n in candidates])

    def _said(self, course: Course, candidates: Sequence[str]) -> list[Probabilities]:
        """How much of each name was said, and whether the tool was used: by candidate."""
        declared = course.declared
        by_user = self._tools.shares(course.asked, declared)
        by_assistant = self._tools.shares(course.said, declared)
        by_goal = (
            self._tools.shares(course.goal, declared) if course.goal is not course.asked else {}
        )
        turn = course.turn
        last = course.recent[-1][0] if course.recent else None
        return [
            [0.0 if name in turn else by_user.get(name, 0.0) for name in candidates],
            [by_assistant.get(name, 0.0) for name in candidates],
            [0.0 if name in course.so_far else by_goal.get(name, 0.0) for name in candidates],
            [by_user.get(name, 0.0) if name in turn else 0.0 for name in candidates],
            [float(name in turn) for name in candidates],
            [float(name == last) for name in candidates],
        ]

    def _learn_mix(self, moment: str, opinions: _Opinions, place: int) -> None:
        weights = self._mixes.setdefault(moment, list(_FIRST_WEIGHTS))
        for index, values in enumerate(opinions.inputs):
            expected = sum(map(float.__mul__, opinions.mixed, values))
            weights[index] += _MIX_STEP * (values[place] - expected)

    def _learn_features(self, opinions: _Opinions, place: int) -> None:
        errors = sorted(
            (-value, name)
            for name, value in zip(opinions.candidates, opinions.regression, strict=True)
            if value > _TINY
        )
        right = opinions.candidates[place]
        steps = [(name, error) for error, name in errors[:_RIVALS] if name != right]
        steps.append((right, 1.0 - opinions.regression[place]))
        squared = sum(error * error for _, error in steps)
        number, now = self._tools.number, self.observed
        numbered = [(number(name, now), error) for name, error in steps]
        for feature in opinions.features:
            weights = self._weights.get(feature)
            if weights is None:
                weights = _Weights(0.0, [], array("d"))
                self._weights.put(feature, weights)
            weights.seen += squared
            rate = _STEP / math.sqrt(1.0 + weights.seen)
            for tool, error in numbered:
                weights.step(tool, rate * error)
            if len(weights.tools) > _WIDEST:
                weights.narrow()


def _logs(values: Iterable[float]) -> Probabilities:
    return [math.log(value + _FLOOR) for value in values]


def _softmax(scores: Sequence[float]) -> Probabilities:
    most = max(scores)
    powers = [math.exp(score - most) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def _by_probability(item: tuple[str, float]) -> tuple[float, str]:
    return -item[1], item[0]


def _worth_of_counts(counts: _Counts) -> float:
    return counts.total


def _worth_of_weights(weights: _Weights) -> float:
    return weights.seen
