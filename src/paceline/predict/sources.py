"""Candidates for one argument: the values that known sources offer, and what speaks for each."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, final

import msgspec

from paceline.predict.context import Context
from paceline.predict.lexicon import Hint
from paceline.predict.places import Batch, Place
from paceline.predict.slots import Slot, Source
from paceline.predict.weights import Evidence, Feature, Weights, gradients

__all__ = ["ABSENT", "NONE", "Argument", "Candidate", "candidates", "learn"]

ABSENT: Final = "absent"
"""The key of leaving an argument out."""
NONE: Final = "none"
"""The key of a value that no source offers."""

_MOST: Final = 24  # candidates
_MOST_PLACES: Final = 12  # of a batch
_MOST_BATCHES: Final = 14
_STANDS: Final = ("f", "m1", "m2", "m3", "m4", "m")
"""What a place of a list is called: the first, the next few by their number, and one in the middle."""
_COUNTED: Final = len(_STANDS) - 1
_NUMBERS: Final = "1234"
_OLDEST: Final = 3  # batches of a pattern, messages ago
_OLD: Final = 2  # steps ago, or more
_ENOUGH: Final = 5  # calls of its own, then a slot no longer borrows the patterns of its name
_FEW: Final = 3
_SLIGHT: Final = 1e-3  # a step up a slope smaller than this is not taken


class Argument(NamedTuple):
    """What candidates are asked for: the slot of a tool's argument and what the call comes after.

    `hints` are what words speak for, `domain` knows the values they speak of, `allowed` are the
    values of the schema's `enum`.
    """

    tool: str
    slot: Slot
    hints: Sequence[Hint]
    domain: Slot
    allowed: tuple[object, ...] = ()
    year: int | None = None


@final
class Candidate(msgspec.Struct, gc=False, eq=False):
    """A value that the argument may have, with its probability. What speaks for it comes in the
    order in which it was found: its source first."""

    value: object
    key: str
    evidence: list[Evidence]
    weight: float
    probability: float = 0.0


def candidates(argument: Argument, context: Context, shared: Weights) -> list[Candidate]:
    """What the argument may be, with probabilities that add up to 1; the last is `NONE`."""
    found: dict[str, Candidate] = {}
    gather = _Gathering(argument, context, shared, found)
    gather.places()
    gather.constants()
    gather.hinted()
    gather.shaped()
    gather.common()
    result = list(found.values())
    _softmax(result)
    return result


def learn(argument: Argument, offered: Sequence[Candidate], key: str, shared: Weights) -> None:
    """Moves the weights towards the candidate that was right; to `NONE` if none was."""
    right = next((each for each in offered if each.key == key), offered[-1])
    slopes: dict[Evidence, float] = {}
    for each in offered:
        slope = (each is right) - each.probability
        if abs(slope) > _SLIGHT:
            for evidence in each.evidence:
                slopes[evidence] = slopes.get(evidence, 0.0) + slope
    own, common = gradients(slopes)
    argument.slot.tried(known=right is not offered[-1])
    argument.slot.weights.learn(own)
    shared.learn(common)


@final
class _Gathering:
    """The candidates of one argument in the making."""

    __slots__ = ("_argument", "_context", "_found", "_last", "_now", "_shared", "_slot", "_used")

    def __init__(
        self, argument: Argument, context: Context, shared: Weights, found: dict[str, Candidate]
    ) -> None:
        self._argument = argument
        self._context = context
        self._shared = shared
        self._now = shared.version
        self._found = found
        self._slot = argument.slot
        self._used = context.used(argument.slot.name)
        self._last = context.last.name if context.last is not None else ""

    def places(self) -> None:
        """What stands where values came from before, or in fields of the same name."""
        slot, context = self._slot, self._context
        sources = slot.sources(self._argument.tool, borrow=slot.count < _ENOUGH)
        seen: set[int] = set()
        stored = context.stored
        for source in sources:
            batches: Sequence[Batch] | None = stored(source.pattern)
            if batches is None and source.derived:
                batches = context.batches(source.pattern)
            if batches:
                if len(seen) >= _MOST_BATCHES:
                    return
                self._batches(source, batches, seen)
        if len(seen) < _MOST_BATCHES:
            for rank, batch in enumerate(context.field(slot.name)[:_OLDEST]):
                if id(batch) not in seen:
                    source = slot.source(batch.pattern, self._argument.tool)
                    age = min(context.steps - 1 - batch.moment, _OLD)
                    self._offer_places(batch, source, rank, age)

    def _batches(self, source: Source, batches: Sequence[Batch], seen: set[int]) -> None:
        """Those of one source that are young enough."""
        text, context = source.text, self._context
        now = context.heard[source.role] if text else context.steps - 1
        for rank, batch in enumerate(batches[: 1 if source.sort == "+" else _OLDEST]):
            seen.add(id(batch))
            age = now - batch.moment
            if text:
                if age > _OLDEST:
                    break
            elif age > _OLD:
                age = _OLD
            self._offer_places(batch, source, rank, age)

    def _offer_places(self, batch: Batch, source: Source, rank: int, age: int) -> None:
        """Offers the places of a batch. Where it is the only one, a place stands as its batch."""
        kinds, used, found, now = self._slot.kinds, self._used, self._found, self._now
        places = batch.places
        last = len(places) - 1
        head: Evidence | None = None
        weight = 0.0
        next_unused, after_used = True, False
        for number, place in enumerate(places[:_MOST_PLACES] if last else places):
            if kinds and place.kind not in kinds:
                continue
            candidate = None if place.yearless else found.get(place.key)
            if candidate is None:
                candidate = self._new(place)
                if candidate is None:
                    continue
            if head is None:
                head = self._head(source, rank, age, only=not last)
                weight = head.weight if head.seen == now else head.renew()
            evidence = candidate.evidence
            evidence.append(head)
            candidate.weight += weight
            if place.in_text:
                near = self._near(source.role, place)
                evidence.append(near)
                candidate.weight += near.weight if near.seen == now else near.renew()
            if last:
                is_used = candidate.key in used
                stand = "l" if number == last else _STANDS[min(number, _COUNTED)]
                if next_unused and not is_used:
                    stand += "n"
                    next_unused = False
                if after_used:
                    stand += "a"
                after_used = is_used
                standing = source.stands.get(stand) or self._stand(source, stand)
                evidence.append(standing)
                candidate.weight += standing.weight if standing.seen == now else standing.renew()

    def _head(self, source: Source, rank: int, age: int, *, only: bool) -> Evidence:
        """What speaks for all places of a batch: where it stands, and how old it is."""
        number = (rank * 8 + age) * 2 + only
        known = source.heads.get(number)
        if known is not None:
            return known
        pattern, sort, old = source.pattern, source.sort, f"{rank}{age}"
        own: tuple[Feature, ...] = (pattern, (pattern, old))
        common: tuple[Feature, ...] = (sort, (sort, old))
        if only:
            own, common = (*own, (pattern, "1")), (*common, (sort, "1"))
        made = source.heads[number] = self._evidence(own, common)
        return made

    def _stand(self, source: Source, stand: str) -> Evidence:
        rough = stand[0] + stand[1:].lstrip(_NUMBERS)
        own: tuple[Feature, ...] = ((source.pattern, rough),)
        if rough != stand:
            own = (*own, (source.pattern, "@", stand[1]))
        made = self._evidence(own, ((source.sort, rough),))
        source.stands[stand] = made
        return made

    def _new(self, place: Place) -> Candidate | None:
        """The candidate of a place; None if there is no more room, or it means nothing."""
        key, value = place.key, place.value
        if place.yearless and isinstance(value, str):
            year = self._context.year or self._argument.year
            if year is None:
                return None
            value = f"{year}{value[1:]}"
            key = '"' + value
            found = self._found.get(key)
            if found is not None:
                return found
        allowed = self._argument.allowed
        if len(self._found) >= _MOST or (allowed and value not in allowed):
            return None
        made = self._found[key] = Candidate(value, key, [], 0.0)
        return made

    def _near(self, role: str, place: Place) -> Evidence:
        """What the words before it say; a word of the argument's name among them says more."""
        name = self._slot.lower
        named = False
        for word in place.near:
            if word in name:
                named = True
                break
        key = (role, place.before, named)
        known = self._slot.kept.get(key)
        if known is None:
            own = (("before", role, place.before),)
            known = self._slot.keep(key, self._evidence(own, (("near", role, named),)))
        return known

    def constants(self) -> None:
        """Values that are frequent, and those of the schema while there are few examples."""
        slot = self._slot
        source = self._spoken_of()
        total = source.count + 1
        for key, value, count in source.values():
            if count > 1 or count > 0.2 * total:
                known = slot.kept.get(key)
                if known is None:
                    known = slot.keep(key, self._evidence((("value", key),), ()))
                self._offer(key, value, known)

    def hinted(self) -> None:
        """Values that words of the last messages go with; one of them may be to leave it out."""
        slot, kept = self._slot, self._slot.kept
        for key, strength, role, before in self._argument.hints:
            level = int(strength * 5)
            if key == ABSENT:
                if slot.absent:
                    self._offer(ABSENT, None, self._evidence((("left", level),), ()))
            else:
                value = self._value(key)
                if value is not None:
                    hint = (role, level, before, "hint")
                    known = kept.get(hint)
                    if known is None:
                        own = (("word", role, level), ("word after", role, before))
                        known = slot.keep(hint, self._evidence(own, (("word", role, level),)))
                    self._offer(key, value[0], known)
        if slot.absent:
            share = int(6 * slot.absent / (slot.count + 1))
            absent = (ABSENT, self._last, share)
            known = kept.get(absent)
            if known is None:
                made = self._evidence((ABSENT, absent[:2]), (ABSENT, (ABSENT, share)))
                known = slot.keep(absent, made)
            self._offer(ABSENT, None, known)

    def _value(self, key: str) -> tuple[object, int] | None:
        name = self._slot.parent or self._slot
        return name.value(key) or self._argument.domain.value(key)

    def _offer(self, key: str, value: object, evidence: Evidence) -> None:
        found = self._found.get(key)
        weight = evidence.weight if evidence.seen == self._now else evidence.renew()
        if found is None:
            self._found[key] = Candidate(value, key, [evidence], weight)
        else:
            found.evidence.append(evidence)
            found.weight += weight

    def common(self) -> None:
        """What holds for every candidate: how frequent it is and whether it was used already."""
        slot, context, last = self._slot, self._context, self._context.last
        source = self._spoken_of()
        total, value_of = source.count + 1, source.value
        after = "0" if last is None else "s" if last.name == self._argument.tool else "o"
        came = _outcome(context)
        recent = context.steps - 1
        used_at = self._used.get
        known: dict[tuple[str, int], Evidence] = {}
        for key, candidate in self._found.items():
            value = value_of(key)
            step = used_at(key)
            use = (
                "n" if step is None else "0" if step >= recent else "1",
                0 if value is None else int(6 * value[1] / total + 0.99),
            )
            evidence = known.get(use)
            if evidence is None:
                evidence = known[use] = self._use(("used", use[0], after, came), use[1])
                evidence.renew()
            candidate.evidence.append(evidence)
            candidate.weight += evidence.weight
        some = min(len(self._found) + 1, 6)
        none = (NONE, self._last, some)
        evidence = slot.kept.get(none)
        if evidence is None:
            made = self._evidence((NONE, none[:2]), (NONE, (NONE, some)))
            evidence = slot.keep(none, made)
        self._offer(NONE, None, evidence)

    def shaped(self) -> None:
        """What values of this argument look like, and how many of them look like a candidate."""
        source = self._spoken_of()
        seen = sum(source.shapes.values())
        shape_of = self._context.shape
        known: dict[str, Evidence] = {}
        for key, candidate in self._found.items():
            if key == ABSENT:
                continue
            shape = shape_of(key)
            fits = known.get(shape)
            if fits is None:
                share = math.ceil(5 * source.shapes.get(shape, 0) / (seen + 1)) if seen else -1
                fits = known[shape] = self._fits(shape, share)
                fits.renew()
            candidate.evidence.append(fits)
            candidate.weight += fits.weight

    def _fits(self, shape: str, share: int) -> Evidence:
        key = ("shape", shape, share)
        known = self._slot.kept.get(key)
        if known is None:
            made = self._evidence((("shape", shape),), (("shape", share),))
            known = self._slot.keep(key, made)
        return known

    def _spoken_of(self) -> Slot:
        """The argument, or while there are few examples of it all of its name."""
        slot = self._slot
        return slot if slot.count >= _FEW or slot.parent is None else slot.parent

    def _use(self, used: tuple[str, ...], share: int) -> Evidence:
        key = (used, share)
        known = self._slot.kept.get(key)
        if known is None:
            known = self._slot.keep(key, self._evidence((used,), (("share", share), used)))
        return known

    def _evidence(self, own: tuple[Feature, ...], common: tuple[Feature, ...]) -> Evidence:
        return self._slot.evidence(own, common, self._shared)


def _outcome(context: Context) -> str:
    last = context.last
    if last is None:
        return ""
    if last.failed:
        return "e"
    return "k" if last.result or last.result is False or last.result == 0 else "0"


def _softmax(found: Sequence[Candidate]) -> None:
    top = max([each.weight for each in found])
    powers = [math.exp(each.weight - top) for each in found]
    total = sum(powers)
    for each, power in zip(found, powers, strict=True):
        each.probability = power / total
