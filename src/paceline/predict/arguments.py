"""Which arguments a call will have, given its name: where they come from, learnt call by call.

Two log-linear models, one upon the other, both learnt online. The first knows for each argument
what the session offers (places of results, earlier arguments, texts, constants, values that words
go with) and how likely each is. The second puts complete calls together, also from objects whose
fields fill several arguments at once, and says how likely each is as a whole; one of its choices
is that the call is none of them, so that free text makes it abstain.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

import msgspec

from paceline.errors import CodecError
from paceline.predict import completions, sources
from paceline.predict.completions import Completion, Judged
from paceline.predict.context import Context
from paceline.predict.events import Called
from paceline.predict.lexicon import Hint, Lexicon
from paceline.predict.objects import Objects
from paceline.predict.reasons import Reason
from paceline.predict.slots import Slot
from paceline.predict.sources import ABSENT, Argument, Candidate
from paceline.predict.values import canonical, is_list, is_object
from paceline.predict.weights import Weights

if TYPE_CHECKING:
    from paceline.predict.places import Batch, Place

__all__ = ["ArgumentModel"]

T = TypeVar("T")

_LEAST: Final = 0.002  # what is less likely is not proposed
_HOPELESS: Final = 0.03  # chance that every value is among those offered
_SURER: Final = 3.0  # times as sure as of the latest calls it can be of the next
_RATE: Final = 0.3  # of what is learnt about calls as a whole: there is less of it
_PATTERNS_OF_A_TOOL: Final = 20
_SIZE_OF_A_PATTERN: Final = 40  # weights, values and words
_LEAST_SIZE: Final = 50_000
_VALUES_OF_A_WORD: Final = 4  # or fewer, on average
_WEIGHED: Final = 64  # calls, and it is seen to that not too much is kept
_KEPT: Final = 0.875  # of what may be kept stays when something has to go
_MOST_ARGUMENTS: Final = 24
_MOST_OWNERS: Final = 4_000
_SURE: Final = 2  # values in common make two names speak of the same
_LATEST: Final = 0.1  # of the share of unknown calls is the last one
_MOST_WARM: Final = 128  # tools that keep what makes the next proposal quick
_NOTHING: Final[Mapping[str, object]] = {}
_probability = attrgetter("probability")
_year = re.compile(r"(?:19|20)\d\d(?=-\d\d)")


@final
class _Tool:
    """What is known of one tool: its arguments in the order they were first seen."""

    __slots__ = ("count", "foreseen", "judged", "objects", "slots", "unknown", "weights")

    def __init__(self, name: str, calls: Weights) -> None:
        self.count = 0
        self.unknown = 0.0
        """The share of the latest calls that were none of those put together."""
        self.foreseen = 1.0
        """How likely the latest calls were held to be when they were made, on average."""
        self.slots: dict[str, Slot] = {}
        self.objects = Objects()
        self.weights = Weights(rate=_RATE)
        self.judged = Judged(name, self.weights, calls)

    def size(self) -> int:
        """How much is kept of it, about."""
        return len(self.weights) + sum([slot.size() for slot in self.slots.values()])

    def cool(self) -> None:
        """Drops what is only kept to be had sooner."""
        self.judged.cool()
        self.objects.cool()
        for slot in self.slots.values():
            slot.cool()


@final
class _Name:
    """What is known of all arguments of one name. `owners` counts which name had its values first:
    names of the same values, such as of cities, share what words go with them."""

    __slots__ = ("lexicon", "owners", "slot")

    def __init__(self, name: str) -> None:
        self.slot = Slot(name)
        self.lexicon = Lexicon()
        self.owners: dict[str, int] = {}

    def size(self) -> int:
        """How much is kept of it, about."""
        return self.slot.size() + _VALUES_OF_A_WORD * len(self.lexicon)


class _SavedTool(msgspec.Struct):
    """The form of what is saved of one tool."""

    count: int
    unknown: float
    slots: dict[str, object]
    objects: object
    weights: object
    foreseen: float = 1.0


class _Saved(msgspec.Struct):
    """The form of `ArgumentModel.save`."""

    tools: dict[str, _SavedTool]
    names: dict[str, tuple[object, object, dict[str, int]]]
    owners: dict[str, str]
    arguments: object
    calls: object
    year: int | None
    observed: int


class _Offered(NamedTuple):
    """What was put together for a tool at one moment."""

    names: list[str]
    offered: list[list[Candidate]]
    found: list[Completion]


@final
class ArgumentModel:
    """Proposes complete arguments for a call.

    It keeps a twentieth as many tools as `patterns`, and of all of them together about 40 weights,
    values and words a pattern; those that were not called for the longest time go first, and with
    them the names of arguments that no other has. It is deterministic, and what a proposal costs depends neither on how
    much was learnt nor on how long the session is.
    """

    def __init__(self, *, patterns: int = 10_000) -> None:
        self._most_tools = max(1, patterns // _PATTERNS_OF_A_TOOL)
        self._most_size = max(_LEAST_SIZE, _SIZE_OF_A_PATTERN * patterns)
        self._observed = 0
        self._tools: dict[str, _Tool] = {}
        self._names: dict[str, _Name] = {}
        self._owners: dict[str, str] = {}
        self._arguments = Weights(most=4_096)
        self._calls = Weights(rate=_RATE, most=4_096)
        self._year: int | None = None
        self._warmed: dict[str, _Tool] = {}

    def propose(
        self,
        name: str,
        context: Context,
        *,
        most: int = 10,
        least: float = 0.0,
        worth: float = 0.0,
    ) -> list[tuple[Mapping[str, object], float]]:
        """Arguments that a call of this tool may have next, each with the probability that all of
        them are right, the likeliest first, at most `most`. Empty if nothing is likely: then, or
        if it turns out that all of them together cannot reach `least`, or `worth` for each argument
        that has to be looked for and once more for all, no more is looked at."""
        tool = self._tools.get(name) or self._declared(name, context)
        if tool is None:
            return []
        if not tool.slots:
            return [({}, 1.0)]
        least = max(least, _HOPELESS, worth * (len(tool.slots) + 1))
        found = self._likely(name, tool, context, least)
        found.sort(key=_probability, reverse=True)
        return [
            (self._fitting(tool, each), each.probability)
            for each in found[:most]
            if each.probability >= _LEAST
        ]

    def reason(self, name: str, context: Context, arguments: Mapping[str, object]) -> Reason | None:
        """Where the arguments of a call are from that was proposed at this moment of the session;
        None of any other call."""
        kept = context.kept.get((self, name))
        if not isinstance(kept, _Offered):
            return None
        return Reason(kept.names, arguments, kept.found, kept.offered)

    def observe(self, call: Called, context: Context, private: Collection[str] = ()) -> None:
        """Learns from a call that was made in this context, which does not know of it yet. The values
        of arguments that are `private` are not kept: only where they are from."""
        name, arguments = call.name, call.arguments
        tool = self._tools.pop(name, None) or _Tool(name, self._calls)
        self._tools[name] = tool
        for argument in arguments:
            if argument not in tool.slots and len(tool.slots) < _MOST_ARGUMENTS:
                slot = tool.slots[argument] = Slot(argument, self._name(argument).slot)
                slot.count = slot.absent = tool.count
        tool.count += 1
        if tool.slots:
            keys = tuple(
                canonical(arguments[each]) if each in arguments else ABSENT for each in tool.slots
            )
            self._credit(tool, arguments, context, private)
            self._choose(name, tool, keys, context)
            self._remember(tool, arguments, keys, context, private)
        self._observed += 1
        if len(self._tools) > self._most_tools:
            self.forget(next(iter(self._tools)))
        if not self._observed % _WEIGHED:
            self._fit()

    @property
    def year(self) -> int | None:
        """Of the last date that an argument was."""
        return self._year

    def forget(self, name: str) -> None:
        """Drops what was learnt of a tool."""
        self._tools.pop(name, None)
        self._warmed.pop(name, None)
        self._forget_names()

    def save(self) -> object:
        """All that was learnt, as plain data."""
        return {
            "tools": {
                name: {
                    "count": tool.count,
                    "unknown": tool.unknown,
                    "foreseen": tool.foreseen,
                    "slots": {each: slot.save() for each, slot in tool.slots.items()},
                    "objects": tool.objects.save(),
                    "weights": tool.weights.save(),
                }
                for name, tool in self._tools.items()
            },
            "names": {
                name: [known.slot.save(), known.lexicon.save(), known.owners]
                for name, known in self._names.items()
            },
            "owners": self._owners,
            "arguments": self._arguments.save(),
            "calls": self._calls.save(),
            "year": self._year,
            "observed": self._observed,
        }

    def load(self, saved: object) -> None:
        """Takes the place of all that was learnt; `saved` is what `save` gave.

        Raises CodecError where it is not, and then nothing changes.
        """
        try:
            state = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"what was learnt of arguments cannot be read: {exc}") from exc
        calls, arguments = self._calls.loaded(state.calls), self._arguments.loaded(state.arguments)
        names: dict[str, _Name] = {}
        for name, (slot, lexicon, owners) in state.names.items():
            known = names[name] = _Name(name)
            known.slot.load(slot)
            known.lexicon.load(lexicon)
            known.owners = owners
        tools: dict[str, _Tool] = {}
        for name, each in state.tools.items():
            tool = tools[name] = _Tool(name, calls)
            tool.count, tool.unknown, tool.foreseen = each.count, each.unknown, each.foreseen
            tool.objects.load(each.objects)
            tool.weights.load(each.weights)
            for argument, kept in each.slots.items():
                if argument not in names:
                    raise CodecError(f"nothing is known of the argument {argument!r} of {name!r}")
                tool.slots[argument] = Slot(argument, names[argument].slot)
                tool.slots[argument].load(kept)
        self._tools, self._names, self._owners = tools, names, state.owners
        self._calls, self._arguments = calls, arguments
        self._year, self._observed = state.year, state.observed
        self._warmed = {}

    def _fit(self) -> None:
        """Forgets the tools that were not called for the longest time, where all know too much: an
        eighth more than need be, so that it seldom has to."""
        tools, names = self._tools, self._names
        sizes = {name: tool.size() for name, tool in tools.items()}
        common = {name: known.size() for name, known in names.items()}
        size = sum(sizes.values()) + sum(common.values())
        if size <= self._most_size:
            return
        holders = Counter([argument for tool in tools.values() for argument in tool.slots])
        for name in list(tools)[:-1]:
            if size <= _KEPT * self._most_size:
                break
            size -= sizes[name]
            for argument in tools.pop(name).slots:
                holders[argument] -= 1
                size -= 0 if holders[argument] else common[argument]
            self._warmed.pop(name, None)
        self._forget_names()

    def _forget_names(self) -> None:
        """Drops what is known of names of arguments that no tool has any more."""
        used = {argument for tool in self._tools.values() for argument in tool.slots}
        self._names = {name: known for name, known in self._names.items() if name in used}

    def _declared(self, name: str, context: Context) -> _Tool | None:
        """A tool that was never called but whose schema is known."""
        properties = context.tools.get(name, {}).get("properties")
        if not is_object(properties):
            return None
        tool = _Tool(name, self._calls)
        required = context.tools[name].get("required")
        for argument in list(properties)[:_MOST_ARGUMENTS]:
            known = self._names.get(argument)
            slot = tool.slots[argument] = Slot(argument, None if known is None else known.slot)
            schema = properties[argument]
            kind = schema.get("type") if is_object(schema) else None
            if isinstance(kind, str):
                slot.kinds["number" if kind == "integer" else kind] = 1
            if is_list(required) and argument not in required:
                slot.count = slot.absent = 1
        return tool

    def _likely(self, name: str, tool: _Tool, context: Context, least: float) -> list[Completion]:
        """Complete calls that may be, but for the one that stands for all others. None as soon as
        it shows that they cannot reach the least chance together, the most doubtful arguments
        being looked at first."""
        known = math.prod([1.0 - slot.unknown for slot in tool.slots.values()])
        if min(1.0 - tool.unknown, known, _SURER * tool.foreseen) < least:
            return []
        self._warm(name, tool)
        slots = list(tool.slots.values())
        offered: list[list[Candidate]] = [[] for _ in slots]
        chance = 1.0
        for number in sorted(range(len(slots)), key=lambda each: -slots[each].unknown):
            asked = self._asked(name, slots[number], context)
            some = offered[number] = sources.candidates(asked, context, self._arguments)
            chance *= 1.0 - some[-1].probability
            if chance < least:
                return []
        found = self._complete(name, tool, offered, context)
        context.kept[self, name] = _Offered(list(tool.slots), offered, found)
        return found[:-1]

    def _asked(self, name: str, slot: Slot, context: Context) -> Argument:
        domain = self._domain(slot.name)
        allowed: object = ()
        schemas = context.tools.get(name, _NOTHING).get("properties")
        if is_object(schemas):
            schema = schemas.get(slot.name)
            allowed = schema.get("enum") if is_object(schema) else ()
        return Argument(
            name,
            slot,
            () if domain is None else _hints(domain.lexicon, context),
            slot if domain is None else domain.slot,
            tuple(allowed) if is_list(allowed) else (),
            self._year,
        )

    def _warm(self, name: str, tool: _Tool) -> None:
        """Only the tools used last keep what makes the next proposal quick."""
        self._warmed.pop(name, None)
        self._warmed[name] = tool
        if len(self._warmed) > _MOST_WARM:
            self._warmed.pop(next(iter(self._warmed))).cool()

    def _complete(
        self, name: str, tool: _Tool, offered: Sequence[Sequence[Candidate]], context: Context
    ) -> list[Completion]:
        names = list(tool.slots)
        instances = tool.objects.instances(context, context.own(name)) if len(names) > 1 else ()
        return completions.complete(names, offered, instances, context, tool.judged)

    def _fitting(self, tool: _Tool, found: Completion) -> dict[str, object]:
        arguments = found.arguments(list(tool.slots))
        return {name: tool.slots[name].fitting(value) for name, value in arguments.items()}

    def _credit(
        self,
        tool: _Tool,
        arguments: Mapping[str, object],
        context: Context,
        private: Collection[str],
    ) -> None:
        """Notes where the values stood, and which stood together. How much more or less one is than
        another would tell of a private one."""
        holders: dict[str, list[tuple[Batch, Place]]] = {}
        for argument, slot in tool.slots.items():
            if argument in arguments:
                found = holders[argument] = context.holders(arguments[argument])
                patterns = dict.fromkeys(batch.pattern for batch, _ in found)
                if not found and argument not in private:
                    patterns.update(dict.fromkeys(context.shifted(argument, arguments[argument])))
                slot.credit(patterns)
                if slot.parent is not None:
                    slot.parent.credit(patterns)
        if len(tool.slots) > 1:
            tool.objects.learn(holders)

    def _choose(self, name: str, tool: _Tool, keys: tuple[str, ...], context: Context) -> None:
        """Moves both models towards what was called."""
        self._warm(name, tool)
        asked = [self._asked(name, slot, context) for slot in tool.slots.values()]
        offered = [sources.candidates(each, context, self._arguments) for each in asked]
        found = self._complete(name, tool, offered, context)
        right = completions.learn(found, keys, tool.judged)
        tool.unknown += _LATEST * ((right is None) - tool.unknown)
        given = 0.0 if right is None else right.probability
        tool.foreseen += _LATEST * (given - tool.foreseen)
        for argument, some, key in zip(asked, offered, keys, strict=True):
            sources.learn(argument, some, key, self._arguments)

    def _remember(
        self,
        tool: _Tool,
        arguments: Mapping[str, object],
        keys: Sequence[str],
        context: Context,
        private: Collection[str],
    ) -> None:
        """Counts the values, but for those that are private, and the words they came with."""
        domains: dict[int, tuple[_Name, list[str]]] = {}
        for (argument, slot), key in zip(tool.slots.items(), keys, strict=True):
            known, kept = self._name(argument), argument not in private
            if kept and key.startswith('"'):
                owner = self._owners.setdefault(key, argument)
                known.owners[owner] = known.owners.get(owner, 0) + 1
            domain = self._domain(argument) or known
            domains.setdefault(id(domain), (domain, []))[1].extend([key] if kept else [])
            if argument in arguments:
                value = arguments[argument]
                slot.saw(value, kept=kept)
                known.slot.saw(value, kept=kept)
                if kept and domain is not known:
                    domain.slot.add(value)
                found = _year.match(value) if kept and isinstance(value, str) else None
                if found is not None:
                    self._year = int(found[0])
            else:
                slot.leave_out()
                known.slot.leave_out()
        for domain, values in domains.values():
            domain.lexicon.learn(context.words, list(dict.fromkeys(values)))
        _trim(self._owners, _MOST_OWNERS)

    def _name(self, argument: str) -> _Name:
        known = self._names.get(argument)
        if known is None:
            known = self._names[argument] = _Name(argument)
        return known

    def _domain(self, argument: str) -> _Name | None:
        """The name that had the values of this one first; None if nothing is known of it."""
        known = self._names.get(argument)
        if known is None or not known.owners:
            return known
        owner = max(known.owners, key=known.owners.__getitem__)
        return self._names.get(owner, known) if known.owners[owner] >= _SURE else known


def _hints(lexicon: Lexicon, context: Context) -> Sequence[Hint]:
    """What the last messages speak for: looked for again only after news of either."""
    known = context.hints.get(lexicon)
    if known is None or known[0] != lexicon.count:
        known = context.hints[lexicon] = (lexicon.count, lexicon.hints(context.words))
    return known[1]


def _trim(kept: dict[str, T], most: int) -> None:
    """Forgets the oldest."""
    while len(kept) > most:
        del kept[next(iter(kept))]
