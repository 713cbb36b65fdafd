"""What is known of one argument: of one tool, and of all tools that have one of that name."""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Annotated, Final, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.places import SHIFTED, derived, is_pattern, role_of
from paceline.predict.shapes import shape_of
from paceline.predict.values import as_float, canonical, kind_of
from paceline.predict.weights import Evidence, Feature, Weights

__all__ = ["Slot", "Source"]

_MOST_PATTERNS: Final = 64
_USED_PATTERNS: Final = 12
_MOST_VALUES: Final = 256
_USED_VALUES: Final = 8
_FADE: Final = 0.99
_LATEST: Final = 0.1  # of the share of unknown values is the last call
_ONCE: Final = 1.5  # any two numbers differ by something: it means something if it comes again
_count = itemgetter(2)
_MOST_SHAPES: Final = 32
_MOST_KEPT: Final = 512  # of what is only kept to be had sooner


@final
class Source:
    """A pattern that values of an argument come from. `role` is whose it is (see `Batch`), `sort`
    what it is for any argument of any tool; `heads` and `stands` are what speaks for its places,
    once it was asked for."""

    __slots__ = ("derived", "heads", "pattern", "role", "sort", "stands", "text")

    def __init__(self, pattern: str, tool: str, argument: str) -> None:
        self.pattern = pattern
        self.role = role_of(pattern)
        self.text = self.role in "ua"
        self.derived = derived(pattern) is not None
        if self.derived and pattern[0] == SHIFTED:
            self.sort = "+"
        elif self.text:
            self.sort = pattern.partition("|")[0].partition("<")[0]
        elif pattern.endswith("." + argument):
            self.sort = self.role + "=" + "!" * (pattern == f"c {tool}.{argument}")
        else:
            self.sort = self.role + "~" * ("~" in pattern)
        self.heads: dict[int, Evidence] = {}
        self.stands: dict[str, Evidence] = {}


class _Saved(msgspec.Struct):
    """The form of `Slot.save`."""

    weights: object
    kinds: dict[str, int]
    count: Annotated[int, msgspec.Meta(ge=0)]
    absent: int
    unknown: float
    whole: bool
    patterns: dict[str, float]
    values: list[tuple[object, int]]
    shapes: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}


@final
class Slot:
    """Where the values of an argument came from, which they were, and of which types.

    `parent` is what is known of all arguments of this name. `kinds` counts types as JSON schema
    names them, `absent` how often the argument was left out, of `count` calls; `unknown` is the
    share of the latest calls whose value no source had.
    """

    __slots__ = (
        "_likely_patterns",
        "_likely_sources",
        "_likely_values",
        "_patterns",
        "_sources",
        "_values",
        "absent",
        "count",
        "kept",
        "kinds",
        "lower",
        "name",
        "parent",
        "shapes",
        "unknown",
        "value",
        "weights",
        "whole",
    )

    def __init__(self, name: str, parent: "Slot | None" = None) -> None:
        self.name = name
        self.lower = name.lower()
        self.parent = parent
        self.weights: Weights = Weights(None if parent is None else parent.weights)
        self.kinds: dict[str, int] = {}
        self.count = 0
        self.absent = 0
        self.unknown = 0.0
        self.shapes: dict[str, int] = {}
        """What values looked like, and how often."""
        self.whole = False
        self._patterns: dict[str, float] = {}
        self._values: dict[str, tuple[object, int]] = {}
        self.value = self._values.get
        """A value by its canonical text, and how often it came."""
        self.kept: dict[object, Evidence] = {}
        """What speaks for values, by what it was kept under: to be had sooner."""
        self._likely_patterns: Sequence[str] | None = None
        self._likely_sources: Sequence[Source] | None = None
        self._likely_values: Sequence[tuple[str, object, int]] | None = None
        self._sources: dict[str, Source] = {}

    def patterns(self) -> Sequence[str]:
        """Where values come from, the likeliest first."""
        if self._likely_patterns is None:
            often = [
                pattern
                for pattern, times in self._patterns.items()
                if times > _ONCE or pattern[0] != SHIFTED
            ]
            ranked = sorted(often, key=lambda pattern: -self._patterns[pattern])
            self._likely_patterns = ranked[:_USED_PATTERNS]
        return self._likely_patterns

    def sources(self, tool: str, *, borrow: bool) -> Sequence[Source]:
        """The same as sources of this argument, of this tool; `borrow`: also where other arguments
        of this name come from."""
        if borrow and self.parent is not None:
            own = self.patterns()
            others = [each for each in self.parent.patterns() if each not in own]
            return [self.source(each, tool) for each in (*own, *others)]
        if self._likely_sources is None:
            self._likely_sources = [self.source(each, tool) for each in self.patterns()]
        return self._likely_sources

    def source(self, pattern: str, tool: str) -> Source:
        """A pattern as a source of this argument, of this tool."""
        known = self._sources.get(pattern)
        if known is None:
            if len(self._sources) >= _MOST_KEPT:
                self._sources = {}
            known = self._sources[pattern] = Source(pattern, tool, self.name)
        return known

    def evidence(
        self, own: tuple[Feature, ...], common: tuple[Feature, ...], shared: Weights
    ) -> Evidence:
        """Features of this argument that hold together, with those of all arguments."""
        return Evidence(own, self.weights, shared.together(common))

    def keep(self, key: object, evidence: Evidence) -> Evidence:
        """To be had by a key until there are too many."""
        if len(self.kept) >= _MOST_KEPT:
            self.kept.clear()
        self.kept[key] = evidence
        return evidence

    def cool(self) -> None:
        """Drops what is only kept to be had sooner."""
        self._sources, self._likely_sources = {}, None
        self.kept.clear()

    def values(self) -> Sequence[tuple[str, object, int]]:
        """The most frequent values: canonical, itself, how often."""
        if self._likely_values is None:
            # Most came once: they need not be ranked.
            often: list[tuple[str, object, int]] = []
            once: list[tuple[str, object, int]] = []
            for key, (value, count) in self._values.items():
                if count > 1:
                    often.append((key, value, count))
                elif len(once) < _USED_VALUES:
                    once.append((key, value, count))
            often.sort(key=_count, reverse=True)
            self._likely_values = (often + once)[:_USED_VALUES]
        return self._likely_values

    def size(self) -> int:
        """How much is kept of it: weights and values."""
        return len(self.weights) + len(self._values)

    def credit(self, patterns: Iterable[str]) -> None:
        """The value of a call stood at these."""
        known = self._patterns
        for pattern in known:
            known[pattern] *= _FADE
        for pattern in patterns:
            known[pattern] = known.get(pattern, 0.0) + 1.0
        self._likely_patterns = self._likely_sources = None
        if len(known) > _MOST_PATTERNS:
            for pattern in sorted(known, key=known.__getitem__)[: _MOST_PATTERNS // 4]:
                del known[pattern]

    def leave_out(self) -> None:
        """A call went without the argument."""
        self.count += 1
        self.absent += 1

    def tried(self, *, known: bool) -> None:
        """Whether a source had the value of a call."""
        self.unknown += _LATEST * ((not known) - self.unknown)

    def saw(self, value: object, *, kept: bool = True) -> None:
        """A call had this value; `kept`: it may have it again."""
        self.count += 1
        kind = kind_of(value)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.whole = self.whole or (kind == "number" and isinstance(value, int))
        if kept:
            self.add(value)
            shape = shape_of(canonical(value))
            self.shapes[shape] = self.shapes.get(shape, 0) + 1
            if len(self.shapes) > _MOST_SHAPES:
                del self.shapes[min(self.shapes, key=self.shapes.__getitem__)]

    def add(self, value: object) -> None:
        """A value that it may have, as another argument of its sort had it."""
        key = canonical(value)
        _, count = self._values.get(key, (value, 0))
        self._values[key] = (value, count + 1)
        likely = self._likely_values
        if likely is not None and (len(likely) < _USED_VALUES or count + 1 >= likely[-1][2]):
            self._likely_values = None  # it may be one of them
        if len(self._values) > _MOST_VALUES:
            rare = sorted(self._values, key=lambda each: self._values[each][1])
            for each in rare[: _MOST_VALUES // 4]:
                del self._values[each]
            self._likely_values = None

    def fitting(self, value: object) -> object:
        """A whole number as a float, if all numbers so far were that."""
        if self.whole or isinstance(value, bool) or not isinstance(value, int):
            return value
        return as_float(value) if self.kinds.get("number") else value

    def save(self) -> object:
        """All of it as plain data."""
        return {
            "weights": self.weights.save(),
            "kinds": self.kinds,
            "count": self.count,
            "absent": self.absent,
            "unknown": self.unknown,
            "whole": self.whole,
            "patterns": self._patterns,
            "values": list(self._values.values()),
            "shapes": self.shapes,
        }

    def load(self, saved: object) -> None:
        """Takes over what `save` gave; raises CodecError where it is not that."""
        try:
            state = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"what was learnt of an argument cannot be read: {exc}") from exc
        if not all(map(is_pattern, state.patterns)):
            raise CodecError("what was learnt of an argument cannot be read: no pattern is like it")
        self.weights.load(state.weights)
        self.kinds, self._patterns = state.kinds, state.patterns
        self.count, self.absent = state.count, state.absent
        self.unknown, self.whole = state.unknown, state.whole
        self.shapes = state.shapes
        self._values = {canonical(value): (value, count) for value, count in state.values}
        self.value = self._values.get
        self._likely_patterns = self._likely_sources = self._likely_values = None
