"""Which words go with which values: `Denver` with DEN, `top` and `priority` with 5."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Final, NamedTuple, TypeAlias, final

import msgspec

from paceline.errors import CodecError

__all__ = ["Hint", "Lexicon"]

_MOST_WORDS: Final = 1_500
_MOST_VALUES: Final = 12  # of a word
_MOST_HINTS: Final = 8
_OLDER: Final = 1.05  # times the calls when it was last counted how usual each value is
_TWICE: Final = 2  # or more, once a word was seen as often
_LEAST: Final = 0.1  # a word that makes a value no likelier than this says nothing


_Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Words: TypeAlias = dict[str, tuple[_Natural, dict[str, int]]]
_Saved: TypeAlias = tuple[int, dict[str, int], _Words, int, dict[str, float]]


class Hint(NamedTuple):
    """A value that a word speaks for: how much likelier it makes it, who said it, and after what."""

    value: str
    strength: float
    role: str
    before: str


class _Word:
    """How often a word was seen, and with which values; `most` is how often with one of them.
    `shares` are the values that it may speak for, with the share of its sights at which each came;
    None where that was not asked since it was loaded."""

    __slots__ = ("most", "seen", "shares", "values")

    def __init__(self, seen: int = 0, values: dict[str, int] | None = None) -> None:
        self.seen = seen
        self.values: dict[str, int] = {} if values is None else values
        self.most = max(self.values.values(), default=0)
        self.shares: Sequence[tuple[str, float]] | None = None

    def learn(self, values: Collection[str]) -> None:
        """It was seen once more, with these."""
        self.seen += 1
        of = self.values
        for value in values:
            times = of[value] = of.get(value, 0) + 1
            self.most = max(self.most, times)
        if len(of) > _MOST_VALUES:
            _keep_frequent(of, _MOST_VALUES // 2)

    def weigh(self) -> Sequence[tuple[str, float]]:
        """The shares by what was seen so far. One that is too small even where the value is never
        usual is none."""
        of = self.seen + 1
        least = max(_TWICE if self.seen >= _TWICE else 1, _LEAST * of)
        found: list[tuple[str, float]] = []
        if self.most >= least:
            found = [(v, n / of) for v, n in self.values.items() if n >= least and n / of > _LEAST]
        self.shares = found
        return found


@final
class Lexicon:
    """Counts of words that stood in the last messages when arguments had some value.

    It learns from few examples: a word speaks for a value by how much more often the value came
    with it than at all. Values are canonical texts.
    """

    __slots__ = ("_age", "_telling", "_usual", "_values", "_words", "count")

    def __init__(self) -> None:
        self.count = 0
        self._age = 0
        self._usual: dict[str, float] = {}
        self._values: dict[str, int] = {}
        self._words: dict[str, _Word] = {}
        self._telling: dict[str, _Word] = {}
        """Those of them that may speak for a value, as far as that is known."""

    def __len__(self) -> int:
        return len(self._words)

    def learn(self, said: Mapping[str, Mapping[str, str]], values: Collection[str]) -> None:
        """The words of the last messages, by role, and what arguments were then."""
        self.count += 1
        for value in values:
            self._values[value] = self._values.get(value, 0) + 1
        if self.count > self._age * _OLDER:
            self._age = self.count
            self._usual = {value: n / (self.count + 1) for value, n in self._values.items()}
        telling = self._telling
        for word in dict.fromkeys(word for heard in said.values() for word in heard):
            known = self._words.get(word)
            if known is None:
                known = self._words[word] = _Word()
            known.learn(values)
            if known.weigh():
                telling[word] = known
            else:
                telling.pop(word, None)
        if len(self._words) > _MOST_WORDS:
            rare = sorted(self._words, key=lambda word: self._words[word].seen)
            for word in rare[: _MOST_WORDS // 4]:
                del self._words[word]
                self._telling.pop(word, None)
        if len(self._values) > _MOST_WORDS:
            _keep_frequent(self._values, _MOST_WORDS // 2)

    def hints(self, said: Mapping[str, Mapping[str, str]]) -> list[Hint]:
        """What the words of the last messages speak for, the strongest first."""
        best: dict[str, tuple[float, str, str]] = {}
        telling, usual = self._telling, self._usual
        for role, heard in said.items():
            for word in filter(telling.__contains__, heard):
                each = telling[word]
                for value, share in each.weigh() if each.shares is None else each.shares:
                    strength = share - usual.get(value, 0.0)
                    if strength > _LEAST and (value not in best or best[value][0] < strength):
                        best[value] = (strength, role, heard[word])
        likely = sorted(best, key=lambda value: best[value][0], reverse=True)[:_MOST_HINTS]
        return [Hint(value, *best[value]) for value in likely]

    def save(self) -> object:
        """All counts as plain data."""
        known = {word: [known.seen, known.values] for word, known in self._words.items()}
        return [self.count, self._values, known, self._age, self._usual]

    def load(self, saved: object) -> None:
        """Takes over what `save` gave; raises CodecError where it is not that."""
        try:
            state = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"what was learnt of words cannot be read: {exc}") from exc
        self.count, self._values, known, self._age, self._usual = state
        self._words = {word: _Word(seen, values) for word, (seen, values) in known.items()}
        self._telling = self._words.copy()


def _keep_frequent(counts: dict[str, int], most: int) -> None:
    """Leaves the most frequent, of equals the oldest."""
    for value in sorted(counts, key=lambda each: -counts[each])[most:]:
        del counts[value]
