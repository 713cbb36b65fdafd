"""Where values stand in a session: by pattern, and together with what else came at once."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, final

from paceline.predict.values import canonical, is_list, is_object, kind_of

__all__ = ["PROJECTED", "WHOLE", "Batch", "Place", "Row", "derived", "is_pattern", "project"]

PROJECTED: Final = "\x1d"
"""`pattern`, this, `a,b` is the list of objects at that pattern with these fields alone."""
WHOLE: Final = "*"
"""`*pattern` is the list of all values of that pattern."""

_ROLES: Final = frozenset("uacr")
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
                fields = pattern.rpartition(PROJECTED)[2].split(",")
                for place in self.places:
                    rows = project(place.value, fields)
                    if rows:
                        batch.places.append(Place(rows, place.group))
            self._derived[pattern] = batch if batch.places else None
        return self._derived[pattern]


def derived(pattern: str) -> str | None:
    """The pattern that this one is built from; None for one that stands for itself."""
    if pattern.startswith(WHOLE):
        return pattern[1:]
    base, mark, _ = pattern.rpartition(PROJECTED)
    return base if mark else None


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern (see `Batch`)."""
    return text.removeprefix(WHOLE)[:1] in _ROLES


def project(value: object, fields: Sequence[str]) -> list[dict[str, object]] | None:
    """These fields of each object of a list; an object alone counts as a list of one."""
    rows: list[dict[str, object]] = []
    for row in value if is_list(value) else (value,):
        if not is_object(row) or any(field not in row for field in fields):
            return None
        rows.append({field: row[field] for field in fields})
    return rows
