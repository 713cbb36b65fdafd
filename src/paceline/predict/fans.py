"""Fans: one step asks for several elements of a list, in a call for each.

Who was told of five documents often opens all of them at once. A `Fan` is learnt where one step
called a tool several times, with values that stood beside one another: which arguments go from
element to element, where the list stood, and how far it reaches. That is how often the element so
many places after the first one asked for was asked for too: all of them, the next two, or none.
"""

from collections.abc import Container, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias, final

import msgspec

from paceline.errors import CodecError
from paceline.predict.accounts import Rate
from paceline.predict.context import Context
from paceline.predict.events import Called
from paceline.predict.places import Batch, Place, is_pattern
from paceline.predict.reasons import said_of
from paceline.predict.standing import Amount, Number
from paceline.predict.values import as_float, canonical, is_list, is_object, kind_of

__all__ = ["Fans"]

Template: TypeAlias = tuple[tuple[str, str], ...]
"""Argument and pattern: the first one finds the element, others are fields of the same object."""
Proposed: TypeAlias = list[tuple[Mapping[str, object], float]]
"""Arguments of calls with their probability, best first."""

_MOST: Final = 12  # elements of a list, from the first one asked for on
_MOST_TOOLS: Final = 200
_MOST_FANS: Final = 4  # of a tool
_TRIED: Final = 3
"""Calls: the others of a step that show a fan, the proposed ones that may begin one."""
_DECAY: Final = 0.9  # of what was seen of an element stays with each step more
_LEAN: Final = 1.0  # steps that the chance of an element leans on that of the one before with
_LEAST: Final = 0.002  # what is less likely is not proposed
_HALF: Final = 0.5
_NOTHING: Final[Mapping[str, object]] = {}
_probability = itemgetter(1)


@final
class _Fan:
    """How far the elements of one template are asked for together. `rates` are of the elements after
    the first one asked for, from there to the end of the list and then from its beginning."""

    __slots__ = ("rates", "steps", "template")

    def __init__(self, template: Template, steps: int = 0, rates: Sequence[Rate] = ()) -> None:
        self.template = template
        self.steps = steps
        self.rates = list(rates)

    def add(self, called: Sequence[bool]) -> None:
        """One more step that asked for an element, and whether for those after it too."""
        self.steps += 1
        self.rates += [Rate() for _ in called[len(self.rates) :]]
        for rate, right in zip(self.rates, called, strict=False):
            rate.add(_DECAY, right=right)

    def worth(self) -> float:
        """How much it says: the share of all other elements that were asked for too, where that was
        seen often enough."""
        return self._trust() * self._share()

    def reach(self) -> list[float]:
        """The chance of each element, by how many places after the first it stands: 1 for itself.
        Where little was seen, that is little."""
        trust, chance = self._trust(), self._share()
        reach = [1.0]
        for place in range(_MOST - 1):
            if place < len(self.rates):
                rate = self.rates[place]
                chance = (rate.right + _LEAN * chance) / (rate.seen + _LEAN)
            reach.append(trust * chance)
        return reach

    def _trust(self) -> float:
        return self.steps / (self.steps + _LEAN)

    def _share(self) -> float:
        seen = sum([rate.seen for rate in self.rates])
        return sum([rate.right for rate in self.rates]) / seen if seen else 0.0

    def elements(self, call: Called, context: Context) -> dict[str, Mapping[str, object]]:
        """The arguments of a call for each element of the list that this one is for, from this one
        on, by their canonical text; without those that were called before. None if it is for none."""
        found: dict[str, Mapping[str, object]] = {}
        places, number = _list(self.template, call.arguments, context)
        used = context.used(self.template[0][0])
        for place in (*places[number:], *places[:number]):
            arguments = _moved(self.template, call, place, context)
            if arguments is None:
                continue
            key = canonical(arguments)
            # A value that no argument of this name had was in no call: to look it up takes less.
            if found and place.key in used and context.made(call.name, key).startswith("o"):
                continue
            found.setdefault(key, arguments)
            if len(found) == _MOST:
                break
        return found


class _OneOf(NamedTuple):
    """Why an element is proposed: `str` says it in words."""

    template: Template

    def __str__(self) -> str:
        parts = [f"{argument}: {said_of(pattern)}" for argument, pattern in self.template]
        return "; ".join(parts) + ", one of several that are asked for at once"


class _Saved(msgspec.Struct, array_like=True):
    """The form of what is saved of one fan. Rates are what was seen, and what of it was asked for."""

    template: Template
    steps: Number
    rates: list[tuple[Amount, Amount]]

    def is_one(self) -> bool:
        """Whether that can have been learnt."""
        return (
            len(self.template) > 0
            and all(is_pattern(pattern) for _, pattern in self.template)
            and len(self.rates) < _MOST
            and all(right <= seen for seen, right in self.rates)
        )


@final
class Fans:
    """The fans of all tools that have some: those that were asked for last, and a few of each. Of other
    tools nothing is known, and to ask costs nothing."""

    def __init__(self) -> None:
        self._tools: dict[str, list[_Fan]] = {}

    def learn(
        self, calls: Sequence[Called], context: Context, only: Container[str] | None = None
    ) -> None:
        """Learns from the calls of a step, those of `only` some tools, in a context that does not know
        of them yet."""
        tools: dict[str, list[Called]] = {}
        for call in calls:
            if only is None or call.name in only:
                tools.setdefault(call.name, []).append(call)
        for name, some in tools.items():
            if len(some) > 1:
                self._discover(name, some, context)
            fans = self._tools.pop(name, None)
            if fans is not None:
                self._tools[name] = fans
                came = {canonical(call.arguments) for call in some}
                for fan in fans:
                    _, *others = fan.elements(some[0], context) or ("",)
                    if others:
                        fan.add([key in came for key in others])
        while len(self._tools) > _MOST_TOOLS:
            del self._tools[next(iter(self._tools))]

    def spread(self, name: str, proposed: Proposed, context: Context, most: int = 10) -> Proposed:
        """What is proposed for a tool, with the elements that may be asked for in the same step; none
        is likelier than the one that brings them. At most `most`."""
        fans = self._tools.get(name)
        if fans is None:
            return proposed
        best = sorted(fans, key=_Fan.worth, reverse=True)
        for arguments, _ in proposed[:_TRIED]:
            for fan in best:
                elements = fan.elements(Called(name, arguments), context)
                if len(elements) > 1:
                    return self._together(name, fan, elements, proposed, context)[:most]
        return proposed

    def reason(self, name: str, context: Context, arguments: Mapping[str, object]) -> object | None:
        """Why a call is proposed that is one because of others; None of any other call."""
        kept = context.kept.get((self, name))
        return kept.get(canonical(arguments)) if is_object(kept) else None

    def save(self) -> object:
        """All of it as plain data."""
        return {
            name: [
                [fan.template, fan.steps, [[each.seen, each.right] for each in fan.rates]]
                for fan in fans
            ]
            for name, fans in self._tools.items()
        }

    def load(self, saved: object) -> None:
        """Takes the place of all that was learnt; raises CodecError where it is not what `save`
        gave, and then nothing changes."""
        try:
            tools = msgspec.convert(saved, dict[str, list[_Saved]])
        except msgspec.ValidationError as exc:
            raise CodecError(f"what is asked for at once cannot be read: {exc}") from exc
        if not all(each.is_one() for fans in tools.values() for each in fans):
            raise CodecError("what is asked for at once cannot be read: no fan is like it")
        self._tools = {
            name: [
                _Fan(each.template, each.steps, [Rate(*rate) for rate in each.rates])
                for each in fans[:_MOST_FANS]
            ]
            for name, fans in list(tools.items())[-_MOST_TOOLS:]
            if fans
        }

    def _discover(self, name: str, calls: Sequence[Called], context: Context) -> None:
        """Keeps the templates that the calls of a step show, in the place of those of least use."""
        fans = self._tools.get(name, [])
        known = [fan.template for fan in fans]
        new = [_Fan(each) for each in _templates(calls, context) if each not in known][:_MOST_FANS]
        if new:
            fans = sorted(fans, key=_Fan.worth, reverse=True)[: _MOST_FANS - len(new)]
            self._tools[name] = fans + new

    def _together(
        self,
        name: str,
        fan: _Fan,
        elements: Mapping[str, Mapping[str, object]],
        proposed: Proposed,
        context: Context,
    ) -> Proposed:
        """An element comes if it is the first asked for, or if another is and the fan reaches it."""
        keys, reach = list(elements), fan.reach()
        first = dict.fromkeys(keys, 0.0)
        found: Proposed = []
        own: dict[str, Mapping[str, object]] = {}
        for arguments, probability in proposed:
            key = canonical(arguments)
            if key in first:
                first[key], own[key] = probability, arguments
            else:
                found.append((arguments, probability))
        begins = [(at, first[key]) for at, key in enumerate(keys) if key in own]
        limit, because = 1.0, dict[str, object]()
        for place, key in enumerate(keys):
            chance = sum([begin * reach[(place - at) % len(keys)] for at, begin in begins])
            chance = min(chance, limit)
            limit = limit if place else chance
            if key in own or chance >= _LEAST:
                found.append((own.get(key, elements[key]), chance))
            if first[key] < _HALF * chance:
                because[key] = _OneOf(fan.template)
        found.sort(key=_probability, reverse=True)
        context.kept[self, name] = because
        return found


def _list(
    template: Template, arguments: Mapping[str, object], context: Context
) -> tuple[Sequence[Place], int]:
    """The elements of the newest list that arguments are from, and the number of theirs. What the
    calls of one step returned is one list too."""
    if any(argument not in arguments for argument, _ in template):
        return (), 0
    keys = [canonical(arguments[argument]) for argument, _ in template]
    fields = [(pattern, key) for (_, pattern), key in zip(template[1:], keys[1:], strict=True)]
    batches = context.batches(template[0][1])
    for batch in batches:
        for place in batch.places:
            if place.key == keys[0] and (not fields or _has(context, place, fields)):
                places = _beside(batch, batches)
                return places, places.index(place)
    return (), 0


def _beside(batch: Batch, batches: Sequence[Batch]) -> list[Place]:
    """All places that came in the same moment as a batch, in order."""
    return [
        place for each in reversed(batches) if each.moment == batch.moment for place in each.places
    ]


def _has(context: Context, place: Place, fields: Sequence[tuple[str, str]]) -> bool:
    known = context.fields_of(place.group)
    return all(pattern in known and known[pattern].key == key for pattern, key in fields)


def _moved(
    template: Template, call: Called, place: Place, context: Context
) -> Mapping[str, object] | None:
    """The arguments of a call for another element; None if it is none that such a call may have."""
    moved = dict(call.arguments)
    fields = context.fields_of(place.group)
    for number, (argument, pattern) in enumerate(template):
        held = fields.get(pattern) if number else place
        before = moved[argument]
        if held is None or held.yearless or held.kind != kind_of(before):
            return None
        value = held.value
        if isinstance(before, float) and isinstance(value, int):
            value = as_float(value)
        if not _is_allowed(call.name, argument, value, context):
            return None
        moved[argument] = value
    return moved


def _is_allowed(name: str, argument: str, value: object, context: Context) -> bool:
    properties = context.tools.get(name, _NOTHING).get("properties")
    schema = properties.get(argument) if is_object(properties) else None
    allowed = schema.get("enum") if is_object(schema) else None
    return value in allowed if is_list(allowed) and allowed else True


def _templates(calls: Sequence[Called], context: Context) -> list[Template]:
    """What makes the first of some calls of a tool into another of them, if they are for elements of
    one list: which arguments change, and where they stood together."""
    first = calls[0].arguments
    others = [call.arguments for call in calls[1:] if call.arguments.keys() == first.keys()]
    keys = {argument: canonical(first[argument]) for argument in first}
    moving = [a for a in first if any(canonical(other[a]) != keys[a] for other in others)]
    if not moving:
        return []
    found: dict[Template, None] = {}
    for other in others[:_TRIED]:
        pairs = [(argument, keys[argument], canonical(other[argument])) for argument in moving]
        for batch, place in reversed(context.holders(first[moving[0]])):
            for beside in _beside(batch, context.batches(batch.pattern)):
                if beside.key == pairs[0][2] and beside is not place:
                    fields = _fields(pairs[1:], place, beside, context)
                    if len(fields) == len(moving) - 1:
                        found[(moving[0], batch.pattern), *fields] = None
    return list(found)


def _fields(
    pairs: Sequence[tuple[str, str, str]], one: Place, other: Place, context: Context
) -> Template:
    """The fields that hold what arguments are for one object and for another."""
    known, beside = context.fields_of(one.group), context.fields_of(other.group)
    found: dict[str, str] = {}
    for argument, key, other_key in pairs:
        for pattern, place in known.items():
            if place.key == key and pattern in beside and beside[pattern].key == other_key:
                found.setdefault(argument, pattern)
    return tuple(found.items())
