"""How often predictions of a confidence come true: what a probability is worth.

Predictions are counted by tool and by bucket of confidence. A bucket that holds little leans on the
same bucket of all tools, and that on half of the confidence itself. Estimates never fall where confidence
rises: neighbours that would are pooled (M. Ayer et al., An empirical distribution function for
sampling with incomplete information, 1955), as in isotonic regression.
"""

import bisect
from collections.abc import Sequence
from typing import Final, final

import msgspec

from paceline.errors import CodecError

__all__ = ["Calibration"]

_EDGES: Final = (0.01, 0.03, 0.07, 0.13, 0.2, 0.28, 0.37, 0.47, 0.58, 0.7, 0.8, 0.88, 0.95)
_MIDDLES: Final = tuple(
    (low + high) / 2 for low, high in zip((0.0, *_EDGES), (*_EDGES, 1.0), strict=True)
)
_DECAY: Final = 0.98  # of what a bucket of a tool holds stays with each one more
_SLOW_DECAY: Final = 0.995  # the same, of the bucket of all tools
_LEAN: Final = 3.0  # predictions that a bucket of a tool leans on all tools with
_LEAN_ALL: Final = 3.0  # predictions that a bucket of all tools leans on half its confidence with
_DOUBT: Final = 0.5  # of a confidence that nothing was scored of is believed
_FAINT: Final = 0.1  # the weight, in predictions, of a rate that nothing was seen of
_MOST_TOOLS: Final = 2_000
_KNOWN: Final = 8.0  # predictions of a confidence, the next lower and the next higher
_KNOWN_OF_TOOL: Final = 2.9  # predictions of a tool: three, the oldest counting a little less


class _Bucket(msgspec.Struct, gc=False):
    """Predictions of like confidence: how many, and how many came true; old ones count less."""

    seen: float = 0.0
    right: float = 0.0

    def add(self, *, right: bool, decay: float) -> None:
        """One more."""
        self.seen = self.seen * decay + 1.0
        self.right = self.right * decay + right


@final
class Calibration:
    """Scores predictions, launched or not, and says what the next of the kind is worth."""

    def __init__(self) -> None:
        self._all = _buckets()
        self._tools: dict[str, list[_Bucket]] = {}
        self._curves: dict[str, list[float]] = {}
        self._general: list[float] | None = None

    def record(self, name: str, confidence: float, *, right: bool) -> None:
        """One prediction of a tool came true, or did not."""
        place = bisect.bisect(_EDGES, confidence)
        buckets = self._tools.get(name)
        if buckets is None:
            if len(self._tools) >= _MOST_TOOLS:
                least = min(self._tools, key=self._seen)
                del self._tools[least]
                self._curves.pop(least, None)
            buckets = self._tools[name] = _buckets()
        buckets[place].add(right=right, decay=_DECAY)
        self._all[place].add(right=right, decay=_SLOW_DECAY)
        self._curves[name] = self._curve(buckets)
        self._general = None

    def probability(self, name: str, confidence: float) -> float:
        """The chance that a prediction of a tool comes true that the models are this sure of."""
        curve = self._curves.get(name) or self._general
        if curve is None:
            curve = self._general = self._curve(_buckets())
        return curve[bisect.bisect(_EDGES, confidence)]

    def needed(self, name: str, probability: float) -> float:
        """The least confidence at which predictions of a tool are as probable as that; more than 1
        if none is."""
        curve = self._curves.get(name) or self._general
        if curve is None:
            curve = self._general = self._curve(_buckets())
        place = bisect.bisect_left(curve, probability)
        return (0.0, *_EDGES, 2.0)[place]

    def known(self, name: str, confidence: float) -> bool:
        """Whether enough was scored to go by what such a prediction is worth: some predictions of
        the tool, and more of about this confidence."""
        buckets = self._tools.get(name)
        if buckets is None or sum(each.seen for each in buckets) < _KNOWN_OF_TOOL:
            return False
        place = bisect.bisect(_EDGES, confidence)
        around = self._all[max(0, place - 1) : place + 2]
        return sum(each.seen for each in around) >= _KNOWN

    def save(self) -> object:
        """All counts, and what they were held to be worth, as plain data."""
        saved = {"": [[each.seen, each.right, 0.0] for each in self._all]}
        for name, row in self._tools.items():
            worth = zip(row, self._curves[name], strict=True)
            saved[name] = [[each.seen, each.right, rate] for each, rate in worth]
        return saved

    def load(self, saved: object) -> None:
        """Takes the place of all counts; raises CodecError where it is not what `save` returned."""
        try:
            rows = msgspec.convert(saved, dict[str, list[tuple[float, float, float]]])
        except msgspec.ValidationError as exc:
            raise CodecError(f"what predictions were worth cannot be read: {exc}") from exc
        if any(len(row) != len(_MIDDLES) for row in rows.values()):
            raise CodecError("what predictions were worth has other buckets")
        tools = {name: [_Bucket(*each[:2]) for each in row] for name, row in rows.items()}
        self._all = tools.pop("", _buckets())
        self._tools = tools
        self._curves = {name: [each[2] for each in rows[name]] for name in tools}
        self._general = None

    def _seen(self, name: str) -> float:
        return sum(each.seen for each in self._tools[name])

    def _curve(self, own: Sequence[_Bucket]) -> list[float]:
        rates: list[float] = []
        weights: list[float] = []
        for middle, one, every in zip(_MIDDLES, own, self._all, strict=True):
            shared = (every.right + _LEAN_ALL * middle * _DOUBT) / (every.seen + _LEAN_ALL)
            rates.append((one.right + _LEAN * shared) / (one.seen + _LEAN))
            weights.append(one.seen + min(every.seen, _LEAN) + _FAINT)
        return _rising(rates, weights)


def _buckets() -> list[_Bucket]:
    return [_Bucket() for _ in _MIDDLES]


def _rising(rates: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The closest to the rates that never falls, by pooling adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for rate, weight in zip(rates, weights, strict=True):
        pool = (rate, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            before = pools.pop()
            total = before[1] + pool[1]
            mean = (before[0] * before[1] + pool[0] * pool[1]) / total
            pool = (mean, total, before[2] + pool[2])
        pools.append(pool)
    return [rate for rate, _, length in pools for _ in range(length)]
