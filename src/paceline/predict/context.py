"""The session so far, indexed as it grows: looking into it costs the same however long it is."""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar, final

from paceline.predict.events import Called, Event, Said, Step, Tools
from paceline.predict.paths import walk
from paceline.predict.places import PROJECTED, RETYPED, WHOLE, Batch, Place, derived, shifts
from paceline.predict.shapes import shape_of
from paceline.predict.tokens import tokens, words
from paceline.predict.values import canonical, is_list, is_object

if TYPE_CHECKING:
    from paceline.predict.lexicon import Hint, Lexicon

__all__ = ["Context"]

T = TypeVar("T")

_NO_TOOLS: Final[Tools] = MappingProxyType({})
_LONGEST_TEXT: Final = 8_000  # characters of a message are read
_LONGEST_RESULT: Final = 4_000
_LONGEST_VALUE: Final = 300
_WIDEST: Final = 16  # elements of a container that may be a value as a whole
_MOST_PLACES: Final = 48  # of a batch
_MOST_BATCHES: Final = 6  # of a pattern
_MOST_HOLDERS: Final = 16  # places of a value
_MOST_PATTERNS: Final = 2_000
_SHIFTED: Final = 3  # batches, the last ones, that a number may be more or less than
_TEXTS: Final = frozenset("ua")
_MOST_WORDS: Final = 80  # of a message, the last ones
_year = re.compile(r"\b((?:19|20)\d\d)-\d\d")
_failure = re.compile(r"\s*error\b", re.IGNORECASE)


@final
class Context:
    """What was said and called in one session.

    It keeps a window of `calls` calls, `values` different values and the messages of about as
    long; what is older is forgotten. `texts` are those of the user, `said` all messages, `calls`
    the finished calls with results, `asked` the calls of the step under way, oldest first each.
    """

    def __init__(
        self,
        scope: str = "",
        tools: Tools = _NO_TOOLS,
        *,
        calls: int = 64,
        values: int = 20_000,
        year: int | None = None,
    ) -> None:
        self.scope = scope
        self.tools = tools
        self.said: deque[Said] = deque(maxlen=32)
        self.texts: deque[str] = deque(maxlen=16)
        self.calls: deque[Called] = deque(maxlen=calls)
        self.asked: list[Called] = []
        self.last: Called | None = None
        self.turn = 0
        self.steps = 0
        self.steps_in_turn = 0
        self.heard = {"a": 0, "u": 0}
        self.year = year
        self._guessed = year is None
        self.words: dict[str, Mapping[str, str]] = {"u": {}, "a": {}}
        self.kept: dict[object, object] = {}
        """What models put together for this moment: dropped as soon as it goes on."""
        self.hints: dict[Lexicon, tuple[int, Sequence[Hint]]] = {}
        """What these words were found to speak for, by how much the lexicon had learnt."""
        self._window = calls
        self._values = values
        self._groups = 0
        self._index: dict[str, list[Batch]] = {}
        self.stored = self._index.get
        """The batches of a pattern that is not derived from another, newest first."""
        self._fields: dict[str, list[Batch]] = {}
        self._built: dict[str, Sequence[Batch]] = {}
        self._holders: dict[str, deque[tuple[Batch, Place]]] = {}
        self._objects: dict[int, dict[str, Place]] = {}
        self._tables: deque[Batch] = deque(maxlen=64)
        self._shapes: dict[str, str] = {}
        self._own: dict[str, deque[dict[str, str]]] = {}
        self._made: dict[str, dict[str, tuple[int, bool]]] = {}
        self._anywhere: dict[str, int] = {}
        self._used: dict[str, dict[str, int]] = {}

    def hear(self, event: Event) -> None:
        """Takes in what happened next."""
        if isinstance(event, Said):
            self.say(event)
        else:
            self.step(event)

    def say(self, said: Said) -> None:
        """Takes in a message."""
        role = "u" if said.by_user else "a"
        self.kept = {}
        self.said.append(said)
        self.heard[role] += 1
        if said.by_user:
            self.texts.append(said.text)
            self.turn += 1
            self.steps_in_turn = 0
        text = said.text[:_LONGEST_TEXT]
        self._see_year(text)
        heard = words(text)[-_MOST_WORDS:]
        self.words[role] = dict(zip(heard, ["", *heard], strict=False))
        self.hints = {}
        batches: dict[str, Batch] = {}
        for token in tokens(text, self.year):
            place = Place(token.value, 0, token.before)
            for look in token.looks:
                self._put(batches, f"{role} {look}", self.heard[role], place)
        self._file(batches)

    def ask(self, call: Called) -> None:
        """Takes in a call that was asked for in the step under way, its result not yet there."""
        self.kept = {}
        self._call(call)
        self.asked.append(call)

    def step(self, step: Step) -> None:
        """Takes in a step with its results, in the place of what was asked for."""
        self.kept = {}
        if step.said:
            self.say(Said(step.said, by_user=False))
        for number, call in enumerate(step.calls):
            if number >= len(self.asked):
                self._call(call)
            self._answer(call)
            self.calls.append(call)
            self.last = call
        self.asked = []
        self.steps += 1
        self.steps_in_turn += 1

    def batches(self, pattern: str) -> Sequence[Batch]:
        """The batches of a pattern, newest first."""
        found: Sequence[Batch] | None = self._index.get(pattern)
        if found is None:
            found = self._built.get(pattern)
        if found is None:
            base = derived(pattern)
            built = [] if base is None else [b.derive(pattern) for b in self._index.get(base, ())]
            found = self._built[pattern] = [batch for batch in built if batch is not None]
        return found

    def field(self, name: str) -> Sequence[Batch]:
        """The batches of all fields of this name, newest first."""
        return self._fields.get(name, ())

    def fields_of(self, group: int) -> Mapping[str, Place]:
        """The fields of an object, by pattern."""
        return self._objects.get(group, {})

    def own(self, name: str) -> Sequence[Mapping[str, str]]:
        """The arguments of recent calls of a tool, oldest first, as canonical texts."""
        return self._own.get(name, ())

    def used(self, argument: str) -> Mapping[str, int]:
        """The values that arguments of this name had, canonical, with the step."""
        return self._used.get(argument, {})

    def made(self, name: str, arguments: str) -> str:
        """Whether a call was made before: `n` no, else `o` by this tool, `x` by another; `f` if it
        failed then; `0` if it was the last step's."""
        mine = self._made.get(name, {}).get(arguments)
        if mine is not None:
            return "o" + "f" * mine[1] + "0" * (mine[0] >= self.steps - 1)
        step = self._anywhere.get(arguments)
        return "n" if step is None else "x" + "0" * (step >= self.steps - 1)

    def shape(self, key: str) -> str:
        """What a value looks like, given by its canonical text."""
        known = self._shapes.get(key)
        if known is None:
            if len(self._shapes) >= _MOST_PATTERNS:
                self._shapes = {}
            known = self._shapes[key] = shape_of(key)
        return known

    def holders(self, value: object) -> list[tuple[Batch, Place]]:
        """Where a value stands, or what it can be built from, oldest first."""
        found = list(self._holders.get(canonical(value), ()))
        if isinstance(value, str) and _year.match(value):
            found += self._holders.get('"-' + value[4:], ())
        found += self._retyped(value)
        if is_list(value) and value:
            found += self._rows(value) if is_object(value[0]) else self._wholes(value)
        return found

    def shifted(self, name: str, value: object) -> Iterator[str]:
        """Patterns of which a value is a number, or some days, more or less: what arguments or fields
        of a name were last."""
        for batch in self._fields.get(name, ())[:_SHIFTED]:
            yield from shifts(batch, value)

    def _retyped(self, value: object) -> Iterator[tuple[Batch, Place]]:
        """Where a text stands as the number that it says, or a number as a text."""
        if isinstance(value, str):
            other = value if value.isdecimal() else ""
        else:
            other = '"' + canonical(value) if isinstance(value, int | float) else ""
        for batch, _ in self._holders.get(other, ()):
            if batch.pattern[0] not in _TEXTS and "~" not in batch.pattern:  # there it is both
                built = batch.derive(RETYPED + batch.pattern)
                if built is not None:
                    key = canonical(value)
                    yield from ((built, each) for each in built.places if each.key == key)

    def _rows(self, value: Sequence[object]) -> Iterator[tuple[Batch, Place]]:
        """Lists of objects with more fields than those of the value."""
        if not is_object(value[0]):
            return
        key, fields = canonical(value), ",".join(value[0])
        for batch in self._tables:
            built = batch.derive(f"{batch.pattern}{PROJECTED}{fields}")
            if built is not None:
                yield from ((built, place) for place in built.places if place.key == key)

    def _wholes(self, value: Sequence[object]) -> Iterator[tuple[Batch, Place]]:
        """Patterns of which the value has all there was at once."""
        key = canonical(value)
        for batch, _ in self._holders.get(canonical(value[0]), ()):
            if len(batch.places) == len(value):
                built = batch.derive(WHOLE + batch.pattern)
                if built is not None and built.places[0].key == key:
                    yield built, built.places[0]

    def _call(self, call: Called) -> None:
        whole = canonical(call.arguments)
        keys = {name: canonical(value) for name, value in call.arguments.items()}
        self._own.setdefault(call.name, deque(maxlen=8)).append(keys)
        _keep(self._made.setdefault(call.name, {}), whole, (self.steps, False), self._window)
        _keep(self._anywhere, whole, self.steps, self._window)
        for name, key in keys.items():
            _keep(self._used.setdefault(name, {}), key, self.steps, self._window)
        _trim(self._own, _MOST_PATTERNS)
        _trim(self._made, _MOST_PATTERNS)
        _trim(self._used, _MOST_PATTERNS)
        self._take("c " + call.name, call.arguments)

    def _answer(self, call: Called) -> None:
        result = call.result
        if call.failed or (isinstance(result, str) and _failure.match(result)):
            made = self._made.get(call.name, {})
            whole = canonical(call.arguments)
            if whole in made:
                made[whole] = (self.steps, True)
        self._take("r " + call.name, result)

    def _take(self, prefix: str, value: object) -> None:
        batches: dict[str, Batch] = {}
        base = self._groups + 1
        if isinstance(value, str) and prefix.startswith("r "):
            for token in tokens(value[:_LONGEST_RESULT], self.year):
                if "|" not in token.looks[0]:
                    place = Place(token.value, 0, token.before)
                    self._put(batches, f"{prefix}~{token.looks[0]}", self.steps, place)
        for path, inner, field, holder in walk(value):
            if (path or not is_object(inner)) and _may_be_argument(inner):
                if isinstance(inner, str):
                    self._see_year(inner)
                place = Place(inner, base + holder)
                self._groups = max(self._groups, base + holder)
                self._put(batches, prefix + path, self.steps, place, field)
        self._file(batches)

    def _put(
        self,
        batches: dict[str, Batch],
        pattern: str,
        moment: int,
        place: Place,
        field: str = "",
    ) -> None:
        batch = batches.get(pattern)
        if batch is None:
            batch = batches[pattern] = Batch(pattern, moment, batches)
            if field:
                _before(self._fields, field, batch)
        if len(batch.places) >= _MOST_PLACES or (
            not place.group and any(other.key == place.key for other in batch.places)
        ):
            return
        batch.places.append(place)
        holders = self._holders.get(place.key)
        if holders is None:
            holders = self._holders[place.key] = deque(maxlen=_MOST_HOLDERS)
        holders.append((batch, place))
        if place.group:
            self._objects.setdefault(place.group, {})[pattern] = place

    def _file(self, batches: Mapping[str, Batch]) -> None:
        for pattern, batch in batches.items():
            _before(self._index, pattern, batch)
            first = batch.places[0].value
            if is_object(first) or (is_list(first) and first and is_object(first[0])):
                self._tables.append(batch)
        self._built = {}
        _trim(self._index, _MOST_PATTERNS)
        _trim(self._fields, _MOST_PATTERNS)
        _trim(self._holders, self._values)
        _trim(self._objects, self._values)

    def _see_year(self, text: str) -> None:
        found = _year.search(text)
        if found:
            year = int(found[1])
            # Birthdays lie before, cards expire after: the year of a trip is this one or the next.
            if self.year is None or year == self.year + 1 or (self._guessed and year > self.year):
                self.year = year


def _may_be_argument(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _LONGEST_VALUE
    if is_object(value) or is_list(value):
        return len(value) <= _WIDEST
    return value is not None


K = TypeVar("K")


def _before(batches: dict[str, list[Batch]], name: str, batch: Batch) -> None:
    """As the newest of a few."""
    known = batches.get(name)
    if known is None:
        batches[name] = [batch]
    else:
        known.insert(0, batch)
        del known[_MOST_BATCHES:]


def _keep(kept: dict[str, T], key: str, value: T, most: int) -> None:
    """As the newest of at most so many."""
    kept.pop(key, None)
    kept[key] = value
    _trim(kept, most)


def _trim(kept: dict[K, T], most: int) -> None:
    """Forgets the oldest."""
    while len(kept) > most:
        del kept[next(iter(kept))]
