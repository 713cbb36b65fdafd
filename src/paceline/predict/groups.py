"""Calls that never depend on one another: what may run side by side, learnt from sessions.

One call depends on another if an argument of it stands in the other's result and nothing that was
there before has it, or in that of a third call that depends on the other. Two tools are independent once they were called in the same turn often enough
and neither ever depended on the other.
"""

import re
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Final, NamedTuple, TypeAlias, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.bounded import Bounded
from paceline.predict.events import Event, Said
from paceline.predict.values import is_list, is_object

__all__ = ["MOST_CALLS", "ParallelGroups", "Turn"]

MOST_CALLS: Final = 16
"""Of one turn, the last, that are looked at for what a call needed."""
_OFTEN: Final = 3  # times in one turn
_MOST_PAIRS: Final = 10_000
_MOST_VALUES: Final = 2_000
_SHORTEST: Final = 2  # letters of a value that can be told from chance
_WORD: Final = re.compile(r"[\w.@#-]{2,}")

Pair: TypeAlias = tuple[str, str]


class _Made(NamedTuple):
    """A call of the turn: its number in it, the values that were new in its result, and the numbers of
    all that it depends on."""

    number: int
    name: str
    gave: set[str]
    needed: frozenset[int]


class _Together(msgspec.Struct, gc=False):
    """How often two tools were called in one turn, how often one needed the other, and how many
    times of those it was the one whose name comes first that did."""

    seen: int = 0
    depended: int = 0
    first: int = 0


class _Saved(msgspec.Struct, array_like=True):
    """The form of a pair. Which of the two needed the other was not always known."""

    seen: int
    depended: int
    first: int | None = None


@final
class Turn:
    """The calls since the user's last message, and the values that were there before each."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._made: list[_Made] = []

    def hear(self, event: Event) -> Iterator[tuple[str, str, bool]]:
        """Moves on; gives each pair of an earlier call of the turn and one of this step, and
        whether that one needed the earlier."""
        if isinstance(event, Said):
            if event.by_user:
                for each in self._made:
                    self._keep(each.gave)
                self._made = []
                self._keep(set(_WORD.findall(event.text)))
            return
        made: list[_Made] = []
        number = self._made[-1].number + 1 if self._made else 0
        taken = [_values(call.arguments) - self._known for call in event.calls]
        for place, call in enumerate(event.calls):
            needed = self._needed(taken[place])
            for each in self._made:
                yield each.name, call.name, each.number in needed
            for each in made:
                yield each.name, call.name, False
            gave = _values(call.result) - self._known
            made.append(_Made(number + place, call.name, gave, needed))
        for values in taken:
            self._keep(values.difference(*(each.gave for each in self._made)))
        self._made = (self._made + made)[-MOST_CALLS:]

    def _needed(self, values: set[str]) -> frozenset[int]:
        """The calls that gave one of the values, and what those depend on."""
        gave = [each for each in self._made if not values.isdisjoint(each.gave)]
        return frozenset[int]().union(*({each.number} | each.needed for each in gave))

    def _keep(self, values: set[str]) -> None:
        if len(self._known) + len(values) > _MOST_VALUES:
            self._known = set()
        self._known |= values


@final
class ParallelGroups:
    """Learns of turns; groups are among tools that change nothing."""

    def __init__(self) -> None:
        self._pairs: Bounded[_Together] = Bounded(_MOST_PAIRS, _times)

    def observe(self, turn: Turn, event: Event) -> None:
        """One more event of a session; `turn` moves on."""
        for first, second, depended in turn.hear(event):
            pair = _pair(first, second)
            key = "\n".join(pair)
            together = self._pairs.get(key)
            if together is None:
                together = _Together()
                self._pairs.put(key, together)
            together.seen += 1
            together.depended += depended
            together.first += depended and second == pair[0]

    def groups(self, read_only: Callable[[str], bool]) -> list[tuple[str, ...]]:
        """Tools that may run side by side, by group, those called together most often first. A
        tool with itself is a group of two equal names. No tool that changes anything is in one."""
        free: dict[Pair, int] = {}
        for key, together in self._pairs.items():
            first, second = key.split("\n")
            often = together.seen >= _OFTEN and not together.depended
            if often and read_only(first) and read_only(second):
                free[first, second] = together.seen
        groups: list[tuple[str, ...]] = []
        grouped: set[Pair] = set()
        for pair in sorted(free, key=lambda each: (-free[each], each)):
            if pair in grouped:
                continue
            group = list(dict.fromkeys(pair))
            if len(group) > 1:
                others = sorted({name for each in free for name in each} - set(group))
                for name in others:
                    if all(_pair(name, member) in free for member in group):
                        group.append(name)
            grouped.update(_pair(*each) for each in combinations(group, 2))
            groups.append(tuple(sorted(group)) if len(group) > 1 else pair)
        return groups

    def needs(self, name: str, other: str) -> bool:
        """Whether a tool that was called with another one often enough mostly needed its result."""
        pair = _pair(name, other)
        together = self._pairs.get("\n".join(pair))
        if together is None or together.seen < _OFTEN:
            return False
        needed = together.first if name == pair[0] else together.depended - together.first
        return 2 * needed > together.seen

    def save(self) -> object:
        """All pairs, as plain data."""
        return {key: [each.seen, each.depended, each.first] for key, each in self._pairs.items()}

    def load(self, saved: object) -> None:
        """Takes the place of all pairs; raises CodecError where it is not what `save` returned."""
        try:
            pairs = msgspec.convert(saved, dict[str, _Saved])
        except msgspec.ValidationError as exc:
            raise CodecError(f"what runs side by side cannot be read: {exc}") from exc
        self._pairs = Bounded(_MOST_PAIRS, _times)
        for key, each in pairs.items():
            first = each.depended // 2 if each.first is None else each.first
            self._pairs.put(key, _Together(each.seen, each.depended, first))


def _pair(first: str, second: str) -> Pair:
    return (first, second) if first <= second else (second, first)


def _times(together: _Together) -> float:
    return float(together.seen)


def _values(value: object) -> set[str]:
    """The numbers and words in it, but for what is too short to be told from chance."""
    found: set[str] = set()
    waiting: list[object] = [value]
    while waiting and len(found) < _MOST_VALUES:
        each = waiting.pop()
        if is_object(each):
            waiting += each.values()
        elif is_list(each):
            waiting += each
        elif isinstance(each, str):
            found.update(_WORD.findall(each))
        elif isinstance(each, int | float) and not isinstance(each, bool):
            text = repr(each)
            if len(text) >= _SHORTEST:
                found.add(text)
    return found
