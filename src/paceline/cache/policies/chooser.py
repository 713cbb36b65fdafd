"""The default policy: the one that would have saved most lately."""

import math
from collections.abc import Iterator, Sequence
from typing import Final, final

from paceline.cache.entry import Entry
from paceline.cache.policies.cost import saved_ns
from paceline.cache.policies.gdsf import GDSF
from paceline.cache.policies.lirs import LIRS
from paceline.cache.policies.lru import LRU
from paceline.cache.policies.policy import MakePolicy, Policy
from paceline.cache.policies.s3fifo import S3Fifo
from paceline.cache.policies.sampling import Sample, Shadow
from paceline.cache.policies.tinylfu import WTinyLFU

__all__ = ["CANDIDATES", "Chooser"]

CANDIDATES: Final[tuple[MakePolicy, ...]] = (WTinyLFU, S3Fifo, LRU, LIRS, GDSF)
"""What is chosen from; the first is what a cache starts with.

That a workload wants recency shows within few accesses, because what it hits was used a short
time ago; that it goes round in a circle larger than the cache shows only after a round. So the
start is with one that keeps what it has.
"""

_SHADOW_ENTRIES: Final = 128
_MEMORY: Final = 4
_LEAST_MEMORY: Final = 1_000
_LOOKS: Final = 8
_LEAST_GAP: Final = 8
_MARGIN: Final = 0.01
_DOUBT: Final = 0.7


@final
class Chooser:
    """Runs one policy, and lets small shadow caches on a sample of the keys pick it.

    From the first eviction on, when there is something to choose, each candidate has a shadow:
    a cache of about 128 entries without values that sees the keys whose hash is in the sample,
    all of them while the cache itself is no larger. Each is credited with the cost of what it
    would have hit; credits fade over four times as many sampled accesses as a shadow has
    entries, a thousand at the least. Another policy takes over when its credit is greater by a
    hundredth of all that was asked for and by more than chance explains. It is handed the
    entries in the order in which they were to go. The same accesses lead to the same choices,
    as far as the hashes of the keys are the same.
    """

    def __init__(
        self, capacity: int, *, candidates: Sequence[MakePolicy] = CANDIDATES, seed: int = 0
    ) -> None:
        self._capacity = capacity
        self._candidates = candidates
        self._seed = seed
        self._current = 0
        self._policy = candidates[0](capacity)
        self._race: _Race | None = None
        self.switches = 0
        """How often another policy took over."""

    def __len__(self) -> int:
        return len(self._policy)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._policy)

    @property
    def running(self) -> Policy:
        """The policy that decides at present."""
        return self._policy

    def add(self, entry: Entry) -> None:
        """A miss, for the sample too."""
        self._policy.add(entry)
        race = self._race
        if race is not None and (mark := race.sample.mark((entry.key, entry.table))) is not None:
            self._see(race, mark, entry)

    def use(self, entry: Entry) -> None:
        """A hit, for the sample too."""
        self._policy.use(entry)
        race = self._race
        if race is not None and (mark := race.sample.mark((entry.key, entry.table))) is not None:
            self._see(race, mark, entry)

    def evict(self) -> Entry:
        """What the policy that runs takes out."""
        if self._race is None:
            self._race = self._start()
        return self._policy.evict()

    def remove(self, entry: Entry) -> None:
        """Takes it out of the policy that runs."""
        self._policy.remove(entry)

    def _start(self) -> "_Race":
        sample = Sample(_SHADOW_ENTRIES / len(self), seed=self._seed)
        race = _Race(sample, self._candidates, self._capacity)
        for entry in self:
            if (mark := sample.mark((entry.key, entry.table))) is not None:
                race.admit(mark, entry)
        return race

    def _see(self, race: "_Race", mark: int, entry: Entry) -> None:
        if race.see(mark, entry) and (best := race.best(self._current)) != self._current:
            policy = self._candidates[best](self._capacity)
            for held in list(self._policy):
                policy.add(held)
            self._policy = policy
            self._current = best
            self.switches += 1


@final
class _Race:
    """The shadows of all candidates and their credits."""

    def __init__(self, sample: Sample, candidates: Sequence[MakePolicy], capacity: int) -> None:
        small = max(1, round(capacity * sample.share))
        self.sample = sample
        self._shadows = [Shadow(kind, small) for kind in candidates]
        self._credits = [0.0] * len(candidates)
        self._asked = 0.0
        self._disputed = 0.0
        self._gap = 0
        self._since = 0

    def admit(self, mark: int, entry: Entry) -> None:
        """An entry that was there before the race: credits nobody."""
        for shadow in self._shadows:
            shadow.access(mark, entry.weight, entry.terms)

    def see(self, mark: int, entry: Entry) -> bool:
        """An access in the sample. Whether it is time to look who is best."""
        weight, terms = entry.weight, entry.terms
        cost = saved_ns(entry)
        self._asked += cost
        hits = 0
        for place, shadow in enumerate(self._shadows):
            if shadow.access(mark, weight, terms):
                self._credits[place] += cost
                hits += 1
        if 0 < hits < len(self._shadows):
            self._disputed += cost * cost
        self._since += 1
        return self._since >= self._gap

    def best(self, current: int) -> int:
        """The candidate to run, the current one unless another is clearly better."""
        earned = self._credits
        best = max(range(len(earned)), key=earned.__getitem__)
        lead = earned[best] - earned[current]
        # Were those hits that not all have in common chance, the lead would vary by the root of
        # the sum of their squares.
        if lead <= _MARGIN * self._asked + _DOUBT * math.sqrt(self._disputed):
            best = current
        self._fade()
        return best

    def _fade(self) -> None:
        held = max(map(len, self._shadows))
        keep = max(0.0, 1 - self._since / max(_MEMORY * held, _LEAST_MEMORY))
        self._credits = [credit * keep for credit in self._credits]
        self._asked *= keep
        self._disputed *= keep
        self._gap = max(_LEAST_GAP, held // _LOOKS)
        self._since = 0
