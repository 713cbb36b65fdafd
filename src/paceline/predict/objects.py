"""Arguments that come together: the fields of one object fill several of them.

One flight of a list fills origin, destination and date; one result fills the id of a reservation
and how it was paid. What was learnt is a `Template`; each object of the session that it fits is an
`Instance`, and they are used one after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.context import Context
from paceline.predict.places import Batch, Place, Row, derived, is_pattern, role_of

if TYPE_CHECKING:
    from paceline.predict.weights import Evidence

__all__ = ["Instance", "Kept", "Objects", "Template"]

Template: TypeAlias = tuple[tuple[str, str, str], ...]
"""Argument, pattern, and where: `o` in the object of the first one, else the `f`irst or `l`ast of
that pattern in the same event."""

_MOST: Final = 48
_USED: Final = 4
_FEWEST: Final = 2  # arguments of a template
_FADE: Final = 0.98
_OLDEST: Final = 6  # batches ago
_OLDEST_MESSAGE: Final = 3  # messages ago
_MOST_PLACES: Final = 16  # of a batch
_MOST_INSTANCES: Final = 7  # of a template


@final
class Kept:
    """A template with what is had of it again and again: its text, where its values come from
    (`u`, `a`, `c` or `r`), the arguments it fills, and what speaks for its instances."""

    __slots__ = ("arguments", "evidence", "role", "template", "text")

    def __init__(self, template: Template) -> None:
        self.template = template
        # As one text: to look up a text costs less.
        self.text = " ".join([f"{name}:{pattern}:{where}" for name, pattern, where in template])
        self.role = role_of(template[0][1])
        self.arguments = tuple([name for name, _, _ in template])
        self.evidence: dict[tuple[str, str, str, bool], Evidence] = {}


class Instance(NamedTuple):
    """The places of an object that fill arguments, by argument.

    `stand` tells where it stands in its list and whether it was used, `turn` whether it is the
    oldest (`o`) or newest (`n`) unused one, or comes after (`s`) the one used last, `age` how
    recent its list is.
    """

    kept: Kept
    fills: Mapping[str, Place]
    stand: str
    turn: str
    age: str


@final
class Objects:
    """The templates of one tool, by how often they held."""

    __slots__ = ("_kept", "_likely", "_templates")

    def __init__(self) -> None:
        self._templates: dict[Template, float] = {}
        self._likely: Sequence[Kept] | None = None
        self._kept: dict[Template, Kept] = {}

    def learn(self, holders: Mapping[str, Sequence[tuple[Batch, Place]]]) -> None:
        """Where the values of the arguments of a call stood, those of several arguments."""
        events: dict[int, dict[str, list[tuple[Batch, Place]]]] = {}
        for argument, places in holders.items():
            for batch, place in reversed(places):
                event = events.setdefault(id(batch.siblings), {})
                event.setdefault(argument, []).append((batch, place))
        most = max(map(len, events.values()), default=0)
        if most < _FEWEST:
            return
        known = self._templates
        for template in known:
            known[template] *= _FADE
        held = [_template(event) for event in events.values() if len(event) == most]
        for template in dict.fromkeys(held):
            if len(template) > 1:
                known[template] = known.get(template, 0.0) + 1.0
        if len(known) > _MOST:
            for template in sorted(known, key=known.__getitem__)[: _MOST // 4]:
                del known[template]
        self._likely = None

    def instances(
        self, context: Context, used: Sequence[Mapping[str, str]]
    ) -> Iterator[tuple[Kept, list[Instance]]]:
        """The objects that likely templates fit, given the arguments of earlier calls."""
        if self._likely is None:
            known = self._templates
            likely = sorted(known, key=known.__getitem__, reverse=True)[:_USED]
            if len(self._kept) > _MOST:
                self._kept = {}
            for template in likely:
                if template not in self._kept:
                    self._kept[template] = Kept(template)
            self._likely = [self._kept[template] for template in likely]
        for kept in self._likely:
            rows = _rows(kept, context)
            if rows:
                yield kept, _in_turn(kept, rows, used)

    def cool(self) -> None:
        """Drops what is only kept to be had sooner."""
        self._kept, self._likely = {}, None

    def save(self) -> object:
        """All templates as plain data."""
        return list(self._templates.items())

    def load(self, saved: object) -> None:
        """Takes over what `save` gave; raises CodecError where it is not that."""
        try:
            rows = msgspec.convert(saved, list[tuple[Template, float]])
        except msgspec.ValidationError as exc:
            raise CodecError(f"what comes together cannot be read: {exc}") from exc
        for template, _ in rows:
            if not template or not all(is_pattern(pattern) for _, pattern, _ in template):
                raise CodecError("what comes together cannot be read: no template is like it")
        self._templates = dict(rows)
        self._kept = {}
        self._likely = None


def _template(event: Mapping[str, Sequence[tuple[Batch, Place]]]) -> Template:
    """The object that fills most arguments, then what else the event has for them."""
    groups: dict[int, dict[str, Batch]] = {}
    for argument, places in event.items():
        for batch, place in places:
            groups.setdefault(place.group, {}).setdefault(argument, batch)
    group = max(groups, key=lambda each: (len(groups[each]) if each else 0, each))
    fields = groups[group] if group else dict(list(groups[0].items())[:1])
    parts = [(argument, batch.pattern, "o") for argument, batch in fields.items()]
    for argument, places in event.items():
        if argument not in fields:
            batch, place = places[0]
            if place is batch.places[0]:
                parts.append((argument, batch.pattern, "f"))
            elif place is batch.places[-1]:
                parts.append((argument, batch.pattern, "l"))
    return tuple(parts)


def _rows(kept: Kept, context: Context) -> list[tuple[Row, str]]:
    """All objects that a template fits, oldest first, with the age of their lists."""
    role = kept.role
    rows: list[tuple[Row, str]] = []
    for rank, batch in enumerate(context.batches(kept.template[0][1])[:_OLDEST]):
        now = context.heard[role] if role in "ua" else context.steps - 1
        age = now - batch.moment
        if role in "ua" and age > _OLDEST_MESSAGE:
            break
        found = batch.rows.get(kept.text)
        if found is None:
            found = batch.rows[kept.text] = _rows_of(kept.template, batch, context)
        if found:
            old = f"{rank}{min(age, 2)}"
            rows += [(row, old) for row in found]
    rows.reverse()
    return rows


def _rows_of(template: Template, batch: Batch, context: Context) -> list[Row]:
    """Those of one batch, the last one first. They stay what they are."""
    places = batch.places[:_MOST_PLACES]
    last = len(places) - 1
    rows: list[Row] = []
    for number in range(last, -1, -1):
        fills = _fills(template, context, batch, places[number])
        if fills is not None:
            stand = "1" if not last else "f" if not number else "l" if number == last else "m"
            rows.append(Row(fills, tuple([place.key for place in fills.values()]), stand))
    return rows


def _fills(
    template: Template, context: Context, batch: Batch, anchor: Place
) -> Mapping[str, Place] | None:
    fills: dict[str, Place] = {}
    fields = context.fields_of(anchor.group)
    for argument, pattern, where in template:
        place = anchor if where == "o" and pattern == batch.pattern else None
        if place is None and where == "o":
            place = fields.get(pattern)
        if place is None:
            place = _sibling(batch, anchor, pattern, where)
        if place is None:
            return None
        fills[argument] = place
    return fills


def _sibling(batch: Batch, anchor: Place, pattern: str, where: str) -> Place | None:
    base = derived(pattern)
    other = batch.siblings.get(pattern if base is None else base)
    if other is not None and base is not None:
        other = other.derive(pattern)
    if other is None:
        return None
    if where == "o":
        return next((each for each in other.places if each.group == anchor.group), None)
    return other.places[0 if where == "f" else -1]


def _in_turn(
    kept: Kept, rows: Sequence[tuple[Row, str]], used: Sequence[Mapping[str, str]]
) -> list[Instance]:
    """Those worth a proposal, with whose turn it is."""
    names = kept.arguments
    calls = [tuple([call.get(name) for name in names]) for call in used]
    called = set(calls)
    done = [row.keys in called for row, _ in rows]
    latest = -1
    if calls:
        newest_call = calls[-1]
        for number in range(len(rows) - 1, -1, -1):
            if rows[number][0].keys == newest_call:
                latest = number
                break
    free = [number for number, was_used in enumerate(done) if not was_used]
    oldest, newest = (free[0], free[-1]) if free else (-1, -1)
    following = -1
    if latest >= 0:
        following = next((number for number in free if number > latest), -1)
    chosen: Sequence[int] = range(len(rows))
    if len(rows) > _MOST_INSTANCES:
        near = range(max(latest, 0), min(latest + 3, len(rows)))
        ends = (oldest, newest, following, *near, *chosen[-3:])
        chosen = sorted({number for number in ends if number >= 0})
    found: list[Instance] = []
    for number in chosen:
        turn = "o" * (number == oldest) + "n" * (number == newest) + "s" * (number == following)
        row, age = rows[number]
        stand = ("u" if done[number] else "n") + row.stand
        found.append(Instance(kept, row.fills, stand, turn + "-" * (latest < 0), age))
    return found
