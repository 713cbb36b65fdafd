"""Where values stand in a session: by pattern, and together with what else came at once."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple, TypeGuard, final

from paceline.predict.values import canonical, is_list, is_object, kind_of

__all__ = [
    "PROJECTED", "RETYPED", "SHIFTED", "WHOLE", "Batch", "Place", "Row", "derived", "is_pattern", "project",
    "role_of", "shifts",
]  # fmt: skip

PROJECTED: Final = "\x1d"
"""`pattern`, this, `a,b` is the list of objects at that pattern with these fields alone."""
WHOLE: Final = "*"
"""`*pattern` is the list of all values of that pattern."""
RETYPED: Final = "#"
"""`#pattern` is a number there as a text, or a text there as the number that it says."""
SHIFTED: Final = "+"
"""`+3 pattern` is 3 more than a number there, or 3 days after a date; `+-3 pattern` is less."""

_ROLES: Final = frozenset("uacr")
_DIGITS: Final = frozenset("0123456789")
_FARTHEST: Final = 31  # days
_MOST_MORE: Final = 10_000  # that a number may be more than another, as pages begin
_LARGEST: Final = 2**53  # of the whole numbers that others are told from
_MOST_DIGITS: Final = 15
_MOST_SHIFTED: Final = 4  # places of a batch
_DATE: Final = len("2024-05-17")
_SHORT: Final = 3  # letters of a word that says nothing of an argument's name


@final
class Place:
    """A value at one place. `group` is the object that it is a field of, 0 for none; `before` is
    the word before it in a text, `near` the longer ones before it. `yearless` is a date that waits
    for its year."""

    __slots__ = ("before", "group", "in_text", "key", "kind", "near", "value", "yearless")

    def __init__(self, value: object, group: int = 0, near: tuple[str, ...] = ()) -> None:
        self.value = value
        self.key = canonical(value)
        self.kind = kind_of(value)
        self.group = group
        self.in_text = bool(near)
        self.near = tuple([word for word in near if len(word) > _SHORT])
        self.before = near[-1] if near else ""
        self.yearless = isinstance(value, str) and value[:2] == "--" and value[2:3].isdigit()


class Row(NamedTuple):
    """The places of one object that fill arguments, their keys in the template's order, and where
    in its list the object stands: the `f`irst, the `l`ast, in the `m`iddle, or `1` alone."""

    fills: Mapping[str, Place]
    keys: tuple[str, ...]
    stand: str


@final
class Batch:
    """The places of one pattern that one event brought. `siblings` are all batches of the event.

    A pattern is of a role, `u` (text of the user), `a` (text of the assistant), `c` (arguments of
    a call) or `r` (a result), then of what it looks like or the path at which it stands. `moment`
    counts messages of that role, or steps.
    """

    __slots__ = ("_derived", "moment", "pattern", "places", "rows", "siblings")

    def __init__(self, pattern: str, moment: int, siblings: "Mapping[str, Batch]") -> None:
        self.pattern = pattern
        self.moment = moment
        self.siblings = siblings
        self.places: list[Place] = []
        self.rows: dict[str, Sequence[Row]] = {}
        """The objects here that templates fit, by template: kept once they were looked for."""
        self._derived: dict[str, Batch | None] = {}

    def derive(self, pattern: str) -> "Batch | None":
        """The batch of a pattern that is built from this one's; None if that comes to nothing."""
        if pattern not in self._derived:
            batch = Batch(pattern, self.moment, self.siblings)
            if pattern.startswith(WHOLE):
                batch.places.append(Place([place.value for place in self.places]))
            else:
                for place in self.places:
                    value = _other(pattern, place.value)
                    if value is not None:
                        batch.places.append(Place(value, place.group))
            self._derived[pattern] = batch if batch.places else None
        return self._derived[pattern]


def derived(pattern: str) -> str | None:
    """The pattern that this one is built from; None for one that stands for itself."""
    sort = pattern[0]
    if sort in {WHOLE, RETYPED}:
        return pattern[1:]
    if sort == SHIFTED:
        more, _, base = pattern[1:].partition(" ")
        digits = more.removeprefix("-")
        return base if digits.isdecimal() and len(digits) <= _MOST_DIGITS else ""
    base, mark, _ = pattern.rpartition(PROJECTED)
    return base if mark else None


def role_of(pattern: str) -> str:
    """Whose it is (see `Batch`)."""
    base = pattern
    while base[:1] and base[0] not in _ROLES:
        base = derived(base) or ""
    return base[:1]


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern (see `Batch`)."""
    return role_of(text) != ""


def shifts(batch: Batch, value: object) -> Iterator[str]:
    """The patterns by which a value is a number, or some days, more or less than what stands here."""
    for place in batch.places[-_MOST_SHIFTED:]:
        more = _difference(place.value, value)
        if more:
            yield f"{SHIFTED}{more} {batch.pattern}"


def _other(pattern: str, value: object) -> object:
    """What a derived pattern makes of a value; None if nothing."""
    sort = pattern[0]
    if sort == RETYPED:
        return _retyped(value)
    if sort == SHIFTED:
        return _shifted(value, int(pattern[1 : pattern.index(" ")]))
    return project(value, pattern.rpartition(PROJECTED)[2].split(",")) or None


def _retyped(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return canonical(value)
    if isinstance(value, str) and value[:1] in _DIGITS and value.isdecimal():
        return int(value) if len(value) <= _MOST_DIGITS else None
    return None


def _shifted(value: object, more: int) -> object:
    if _is_number(value):
        return value + more
    day = _day(value)
    try:
        return None if day is None else (day + timedelta(days=more)).isoformat()
    except OverflowError:
        return None


def _difference(here: object, there: object) -> int:
    """How much more, or days later, the other is; 0 if that cannot be said or is too much."""
    if isinstance(here, str) or isinstance(there, str):
        first, second = _day(here), _day(there)
        if first is None or second is None:
            return 0
        days = (second - first).days
        return days if abs(days) <= _FARTHEST else 0
    if not _is_number(here) or not _is_number(there):
        return 0
    return there - here if abs(there - here) <= _MOST_MORE else 0


def _is_number(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, and not a huge one."""
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def _day(value: object) -> date | None:
    if not isinstance(value, str) or len(value) != _DATE or value[4] != "-":
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def project(value: object, fields: Sequence[str]) -> list[dict[str, object]] | None:
    """These fields of each object of a list; an object alone counts as a list of one."""
    rows: list[dict[str, object]] = []
    for row in value if is_list(value) else (value,):
        if not is_object(row) or any(field not in row for field in fields):
            return None
        rows.append({field: row[field] for field in fields})
    return rows
