"""Small copies of a cache that see a sample of its keys and hold no values.

Waldspurger, Saemundsson, Ahmad and Park, Cache modeling and optimization using miniature
simulations, USENIX ATC 2017: a cache of a hundredth of the size that sees a hundredth of the
keys, chosen by their hash, has about the same hit ratio.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, cast, final

from paceline.cache.entry import Entry, FullEntry, Terms
from paceline.cache.policies.policy import MakePolicy

if TYPE_CHECKING:
    from paceline.cache.entry import Table

__all__ = ["Sample", "Shadow"]

_RANGE: Final = 1 << 24
_NOWHERE: Final = cast("Table", None)  # marks are unique among all tables


@final
class Sample:
    """A share of all keys, always the same ones for one seed."""

    __slots__ = ("_seed", "_threshold", "share")

    def __init__(self, share: float, *, seed: int = 0) -> None:
        self._threshold = max(1, round(min(share, 1.0) * _RANGE))
        self._seed = seed
        self.share = self._threshold / _RANGE
        """The share of keys in it, 0..1."""

    def mark(self, key: Hashable) -> int | None:
        """A number that stands for this key; None for a key that is not in the sample.

        What is kept under it names nobody's arguments, also after they were removed.
        """
        # The hash of a number is the number itself; that of a pair is mixed well.
        mark = hash((key, self._seed))
        return mark if mark % _RANGE < self._threshold else None


@final
class Shadow:
    """A cache without values: which accesses would have hit under a policy and a capacity."""

    __slots__ = ("_capacity", "_entries", "_policy", "_weight")

    def __init__(self, kind: MakePolicy, capacity: int) -> None:
        self._policy = kind(capacity)
        self._capacity = capacity
        self._entries: dict[int, Entry] = {}
        self._weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def access(self, mark: int, weight: int = 1, terms: Terms | None = None) -> bool:
        """Whether it holds the key; from now on it does, and what has to go for it went."""
        known = self._entries.get(mark)
        if known is not None:
            if known.weight == weight:
                self._policy.use(known)
                return True
            self._policy.remove(known)
            self._weight -= known.weight
        entry = FullEntry(mark, None, 0)
        entry.table = _NOWHERE
        entry.weight = weight
        entry.terms = terms
        self._entries[mark] = entry
        self._policy.add(entry)
        self._weight += weight
        while self._weight > self._capacity:
            victim = self._policy.evict()
            del self._entries[victim.key]
            self._weight -= victim.weight
        return known is not None
