"""The names of tools: their numbers, and the words they are made of."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, final

from paceline.predict.prompts import name_stems

__all__ = ["COMMON", "ToolNames"]

COMMON: Final = 12
"""A word that more names share tells none of them."""

_LEFT: Final = 0.875  # are left when some have to go: so that they seldom have to


@final
class ToolNames:
    """At most `most` names: those of tools that were called, and of such as were only thought of.

    Each has a number for as long as it is known. When there are too many, the eighth that was
    used longest ago is forgotten, and the others get new numbers.
    """

    def __init__(self, most: int, *, first: str) -> None:
        self._most = most
        self._first = first
        self.numbers: dict[str, int] = {first: 0}
        """By name; `first` is number 0, and never forgotten."""
        self._used: dict[str, int] = {}
        self._called: dict[str, None] = {}
        self.telling: dict[str, dict[str, None]] = {}
        """The tools that were called, by the words of their names that only a few have."""
        self._by_stem: dict[str, dict[str, None]] = {}
        self._weighed: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, name: str) -> bool:
        """Whether it was called."""
        return name in self._called

    @property
    def called(self) -> Collection[str]:
        """Those that were called, in the order of their first calls."""
        return self._called.keys()

    @property
    def full(self) -> bool:
        """Whether some have to be forgotten."""
        return len(self.numbers) > self._most

    def number(self, name: str, now: int) -> int:
        """Of a name that is used now."""
        number = self.numbers.get(name)
        if number is None:
            number = self.numbers[name] = len(self.numbers)
        self._used[name] = now
        return number

    def meet(self, name: str, now: int) -> None:
        """A tool is called now."""
        self.number(name, now)
        if name not in self._called:
            self._called[name] = None
            self._weighed = {}
            for stem in name_stems(name):
                names = self._by_stem.setdefault(stem, {})
                names[name] = None
                if len(names) <= COMMON:
                    self.telling[stem] = names
                else:
                    self.telling.pop(stem, None)

    def forget(self) -> list[int]:
        """Forgets those that were used longest ago. The new number of each old one, -1 for none."""
        ranked = sorted(self._used, key=lambda name: (-self._used[name], name))
        gone = set(ranked[int(self._most * _LEFT) :]) - {self._first}
        old = self.numbers
        self.numbers = {name: place for place, name in enumerate(n for n in old if n not in gone)}
        for name in gone:
            del self._used[name]
            if name in self._called:
                del self._called[name]
                for stem in name_stems(name):
                    del self._by_stem[stem][name]
        self._weighed = {}
        self._by_stem = {stem: names for stem, names in self._by_stem.items() if names}
        self.telling = {s: names for s, names in self._by_stem.items() if len(names) <= COMMON}
        return [self.numbers.get(name, -1) for name in old]

    def shares(
        self, words: Iterable[str], declared: Mapping[str, Sequence[str]]
    ) -> dict[str, float]:
        """By tool, how much of its name was said; rare words count more."""
        shares: dict[str, float] = {}
        telling, undeclared = self.telling.get, not declared
        for word in words:
            names = telling(word)
            if names is not None:
                rarity = self._rarity(word)
                for name in names:
                    shares[name] = shares.get(name, 0.0) + rarity / self._weight(name)
            if undeclared:
                continue
            for name in declared.get(word, ()):
                if name not in self._called:
                    shares[name] = shares.get(name, 0.0) + 1.0 / len(name_stems(name))
        return shares

    def save(self) -> list[dict[str, int]]:
        """When each was used: those that were called, in that order, then the others."""
        used, called = self._used, self._called
        others = {name: now for name, now in used.items() if name not in called}
        return [{name: used[name] for name in called}, others]

    def load(self, called: Mapping[str, int], others: Mapping[str, int]) -> None:
        """Takes over what `save` gave."""
        for name, now in called.items():
            self.meet(name, now)
        for name, now in others.items():
            self.number(name, now)

    def _rarity(self, stem: str) -> float:
        """How much a word of a name says: little if many tools have it."""
        return 0.2 + math.log((len(self._called) + 2) / (len(self._by_stem[stem]) + 1))

    def _weight(self, name: str) -> float:
        """How much all words of a name say, until one more is met."""
        weight = self._weighed.get(name)
        if weight is None:
            weight = self._weighed[name] = sum(map(self._rarity, sorted(name_stems(name))))
        return weight
