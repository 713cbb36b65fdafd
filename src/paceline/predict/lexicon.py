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
    `strong` is what it spoke for at an `age` of the lexicon."""

    __slots__ = ("age", "most", "seen", "strong", "values")

    def __init__(self, seen: int = 0, values: dict[str, int] | None = None) -> None:
        self.seen = seen
        self.values: dict[str, int] = {} if values is None else values
        self.most = max(self.values.values(), default=0)
        self.age = -1
        self.strong: Sequence[tuple[str, float]] = ()


@final
class Lexicon:
    """Counts of words that stood in the last messages when arguments had some value.

    It learns from few examples: a word speaks for a value by how much more often the value came
    with it than at all. Values are canonical texts.
    """

    __slots__ = ("_age", "_usual", "_values", "_words", "count")

    def __init__(self) -> None:
        self.count = 0
        self._age = 0
        self._usual: dict[str, float] = {}
        self._values: dict[str, int] = {}
        self._words: dict[str, _Word] = {}

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
        for word in dict.fromkeys(word for heard in said.values() for word in heard):
            known = self._words.get(word)
            if known is None:
                known = self._words[word] = _Word()
            known.seen += 1
            known.age = -1
            of = known.values
            for value in values:
                times = of[value] = of.get(value, 0) + 1
                known.most = max(known.most, times)
            if len(of) > _MOST_VALUES:
                _keep_frequent(known.values, _MOST_VALUES // 2)
        if len(self._words) > _MOST_WORDS:
            rare = sorted(self._words, key=lambda word: self._words[word].seen)
            for word in rare[: _MOST_WORDS // 4]:
                del self._words[word]
        if len(self._values) > _MOST_WORDS:
            _keep_frequent(self._values, _MOST_WORDS // 2)

    def hints(self, said: Mapping[str, Mapping[str, str]]) -> list[Hint]:
        """What the words of the last messages speak for, the strongest first."""
        best: dict[str, tuple[float, str, str]] = {}
        known, age = self._words, self._age
        for role, heard in said.items():
            for word in filter(known.__contains__, heard):
                each, before = known[word], heard[word]
                for value, strength in each.strong if each.age == age else self._strong(each):
                    if value not in best or best[value][0] < strength:
                        best[value] = (strength, role, before)
        likely = sorted(best, key=lambda value: best[value][0], reverse=True)[:_MOST_HINTS]
        return [Hint(value, *best[value]) for value in likely]

    def _strong(self, word: _Word) -> Sequence[tuple[str, float]]:
        """What a word speaks for until it is seen again, or all is counted again."""
        seen = word.seen
        strong: Sequence[tuple[str, float]] = ()
        least = max(_TWICE if seen >= _TWICE else 1, _LEAST * (seen + 1))
        if word.most >= least:
            usual = self._usual
            shares = [
                (v, n / (seen + 1) - usual.get(v, 0.0))
                for v, n in word.values.items()
                if n >= least
            ]
            strong = tuple([share for share in shares if share[1] > _LEAST])
        word.age, word.strong = self._age, strong
        return strong

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


def _keep_frequent(counts: dict[str, int], most: int) -> None:
    """Leaves the most frequent, of equals the oldest."""
    for value in sorted(counts, key=lambda each: -counts[each])[most:]:
        del counts[value]
