"""What hit ratio a cache would have at other sizes."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Final, final

from paceline.cache.entry import Entry
from paceline.cache.policies.lru import LRU
from paceline.cache.policies.policy import MakePolicy, Policy
from paceline.cache.policies.sampling import Sample, Shadow

__all__ = ["Measured", "MissRatioCurve", "sizes_around"]

_ENTRIES: Final = 256


def sizes_around(capacity: int) -> tuple[int, ...]:
    """An eighth of a capacity up to eight times as much, in steps of two."""
    return tuple(sorted({max(1, capacity * 2**step // 8) for step in range(7)}))


@final
class MissRatioCurve:
    """Miss ratios at several capacities, from a sample of the keys.

    For each capacity a small cache runs the policy that is asked about, on the share of the keys
    whose hash is in the sample. One key that is asked for all the time weighs too much if
    it is in the sample and is missed if not; so the sampled misses are counted against as many
    accesses as the sample should have had (Waldspurger et al., Efficient MRC construction with
    SHARDS, FAST 2015, section 3.3: the difference is taken for hits at every size).
    """

    def __init__(
        self,
        capacities: Sequence[int],
        *,
        kind: MakePolicy = LRU,
        share: float | None = None,
        seed: int = 0,
    ) -> None:
        """`capacities` in units of weight. `share` of the keys, 0..1; None: such that the
        smallest capacity has 256 entries of weight 1 in its simulation."""
        if share is None:
            share = _ENTRIES / min(capacities)
        self._sample = Sample(share, seed=seed)
        self._capacities = tuple(capacities)
        self._shadows = [
            Shadow(kind, max(1, round(capacity * self._sample.share))) for capacity in capacities
        ]
        self._misses = [0] * len(self._shadows)
        self._accesses = 0
        self._sampled = 0

    @property
    def accesses(self) -> int:
        """How many were noted, in the sample or not."""
        return self._accesses

    def note(self, key: Hashable, weight: int = 1) -> None:
        """An access to a key whose value weighs `weight`."""
        self._accesses += 1
        mark = self._sample.mark(key)
        if mark is not None:
            self._sampled += 1
            misses = self._misses
            for place, shadow in enumerate(self._shadows):
                if not shadow.access(mark, weight):
                    misses[place] += 1

    def points(self, *, corrected: bool = True) -> list[tuple[int, float]]:
        """Each capacity and the share of accesses, 0..1, that would have missed there."""
        expected = self._accesses * self._sample.share if corrected else self._sampled
        return [
            (capacity, min(1.0, misses / expected) if expected else 1.0)
            for capacity, misses in zip(self._capacities, self._misses, strict=True)
        ]


@final
class Measured:
    """A policy whose accesses a miss-ratio curve notes too."""

    __slots__ = ("_policy", "curve", "evict", "remove")

    def __init__(self, policy: Policy, curve: MissRatioCurve) -> None:
        self._policy = policy
        self.curve = curve
        self.evict = policy.evict
        self.remove = policy.remove

    def __len__(self) -> int:
        return len(self._policy)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._policy)

    def add(self, entry: Entry) -> None:
        """A miss."""
        self.curve.note((entry.key, entry.table), entry.weight)
        self._policy.add(entry)

    def use(self, entry: Entry) -> None:
        """A hit."""
        self.curve.note((entry.key, entry.table), entry.weight)
        self._policy.use(entry)
