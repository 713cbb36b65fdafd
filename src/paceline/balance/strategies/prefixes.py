"""Which instance has probably kept the beginning of a prompt.

Servers of models keep what they computed of prompts, and a prompt that begins like a former one is
answered sooner where that one went. What they keep they do not say, so we keep account ourselves:
an approximate index, as the routers of SGLang and NVIDIA Dynamo have.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, final

import msgspec

if TYPE_CHECKING:
    from paceline.balance.instance import AgentInstance

__all__ = ["BLOCK_TOKENS", "PrefixIndex"]

BLOCK_TOKENS: Final = 512
"""Tokens of a prompt for which there is one hash in `Request.blocks`."""

_LESS: Final = 16
_MORE: Final = 8
"""One part in so many is what a capacity loses or gains at once: gains are seen more seldom."""

_FEW: Final = 16
"""So many candidates are looked through."""

_SLACK: Final = 64
"""Prompts of which a later one had all, before they are looked through."""

_order = attrgetter("order")


@final
class _Segment(msgspec.Struct, eq=False):
    """Blocks that follow one another in prompts, all held by the same instances: those of `blocks`
    from `start` to `end`."""

    blocks: Sequence[int]
    """A prompt that has it."""
    start: int
    end: int
    above: "_Segment | None"
    """What is right before it, in every prompt that has it."""
    bits: int
    """The instances that hold it, one bit each."""
    used: dict[int, int]
    """For each of these bits the number of the last prompt that had it."""
    branches: int = 0
    """How many segments it is right above."""


@final
class _Shelf:
    """What is kept of one instance."""

    __slots__ = ("bit", "capacity", "held", "prompts", "reports")

    def __init__(self, bit: int, capacity: int) -> None:
        self.bit = bit
        self.capacity = capacity
        self.held = 0
        """How many blocks it is thought to hold."""
        self.prompts: deque[tuple[int, _Segment]] = deque()
        """What each prompt ended with, by number; also of those of which a later one had all."""
        self.reports = False
        """Whether it ever said that it had cached anything."""

    def tidy(self) -> None:
        """Drops the prompts of which a later one had all."""
        bit = self.bit
        self.prompts = deque([each for each in self.prompts if each[1].used.get(bit) == each[0]])


@final
class PrefixIndex:
    """The blocks of prompts that were sent to each instance, the least recently used forgotten.

    It is a radix tree. A block's hash stands for all that is before it too: a segment is found by
    its first block alone, all of it is in a prompt that has its last block, and where a prompt
    leaves it is found by bisection. So what is paid for, when a prompt is asked for, noted or
    forgotten, is its segments, however many blocks these have.

    A segment is held as a whole. Where a prompt ends within one or leaves it, or only a part of it
    is forgotten, it is cut in two. Who holds a segment also holds what is above it, which every use
    of it used as well: of each prompt the tail is forgotten first, and then what is above, unless
    it was used since. Hashes that are no such chain make for a wrong account, never for an error.

    What an instance really keeps is learned from how many tokens it reports as cached
    (`calibrate`): by that the number of blocks that are remembered for it follows its cache.
    """

    __slots__ = (
        "_asked", "_bits", "_capacity", "_deepest", "_depth", "_first", "_least", "_levels",
        "_most", "_number", "_shelves",
    )  # fmt: skip

    def __init__(self, *, capacity: int = 2_000, least: int = 64, most: int = 10_000) -> None:
        """`capacity` is that of an instance to begin with, in blocks; it will stay between `least`
        and `most`."""
        self._capacity = capacity
        self._least = min(least, capacity)
        self._most = max(most, capacity)
        self._shelves: dict[AgentInstance, _Shelf] = {}
        self._bits: dict[int, AgentInstance] = {}
        self._first: dict[int, _Segment] = {}
        """The segments, by their first blocks."""
        self._number = 0
        """That of the last prompt."""
        self._asked: Sequence[int] | None = None
        self._levels: list[tuple[int, int]] = []
        self._deepest: _Segment | None = None
        self._depth = 0
        """The answer to the last question, as who is asked for is mostly inserted next: the levels,
        the last segment that the prompt has anything of, and how many blocks are found."""

    def joined(self, instance: "AgentInstance") -> int:
        """Keeps account of one more instance; returns the bit that stands for it in `levels`."""
        shelf = self._shelves.get(instance)
        if shelf is None:
            bit = 1
            while bit in self._bits:
                bit <<= 1
            shelf = self._shelves[instance] = _Shelf(bit, self._capacity)
            self._bits[bit] = instance
        return shelf.bit

    def left(self, instance: "AgentInstance") -> None:
        """Forgets an instance."""
        shelf = self._shelves.pop(instance, None)
        if shelf is not None:
            self._shrink(shelf, 0)
            del self._bits[shelf.bit]

    def capacity(self, instance: "AgentInstance") -> int:
        """How many blocks the instance is thought to keep."""
        return self._shelves[instance].capacity

    def held(self, instance: "AgentInstance") -> int:
        """How many blocks are remembered for the instance."""
        return self._shelves[instance].held

    def matched(self, instance: "AgentInstance", blocks: Sequence[int]) -> int:
        """How many blocks of this prompt, from its beginning, the instance is thought to hold."""
        bit, known = self._shelves[instance].bit, 0
        for bits, depth in self.levels(blocks):
            if bits & bit:
                known = depth
        return known

    def levels(self, blocks: Sequence[int]) -> list[tuple[int, int]]:
        """Who holds how much of a prompt, in pairs: the bits of all that hold at least so many
        blocks of it, and how many; the least first. Each is a part of the one before."""
        if blocks is self._asked:
            return self._levels
        first = self._first.get
        levels: list[tuple[int, int]] = []
        above: _Segment | None = None
        size, depth, bits = len(blocks), 0, 0
        while depth < size:
            segment = first(blocks[depth])
            if segment is None or segment.above is not above:  # this only if it is no chain
                break
            if segment.bits != bits:
                if depth:
                    levels.append((bits, depth))
                bits = segment.bits
            above, end = segment, segment.end
            if end > size or segment.blocks[end - 1] != blocks[end - 1]:
                depth = _parting(segment.blocks, blocks, depth, min(end, size))
                break
            depth = end
        if depth:
            levels.append((bits, depth))
        self._asked, self._levels, self._deepest, self._depth = blocks, levels, above, depth
        return levels

    def holders(
        self, bits: int, candidates: Sequence["AgentInstance"], most: int, chance: float
    ) -> list["AgentInstance"]:
        """The candidates for which these bits stand. Among many candidates at most so many are
        found, from a place on that `chance` decides, a random number below 1."""
        if not bits & (bits - 1):  # one alone
            candidate = self._candidate(bits, candidates)
            return [] if candidate is None else [candidate]
        if len(candidates) <= _FEW:
            shelves = self._shelves
            return [each for each in candidates if shelves[each].bit & bits]
        found: list[AgentInstance] = []
        before = (1 << int(chance * bits.bit_length())) - 1
        for part in (bits & ~before, bits & before):
            rest = part
            while rest:
                bit = rest & -rest
                rest ^= bit
                candidate = self._candidate(bit, candidates)
                if candidate is not None:
                    found.append(candidate)
                    if len(found) >= most:
                        return found
        return found

    def insert(self, instance: "AgentInstance", blocks: Sequence[int]) -> int:
        """Notes that a prompt was sent to the instance; returns how much of it was there before,
        as `matched`."""
        if not blocks:
            return 0
        shelf = self._shelves[instance]
        if blocks is not self._asked:
            self.levels(blocks)
        self._asked = None
        segment, depth, size = self._deepest, self._depth, len(blocks)
        if segment is not None and depth < segment.end:
            segment = self._cut(segment, depth)
        bit, known, number = shelf.bit, depth, self._number + 1
        each, self._number = segment, number
        while each is not None:
            if bit not in each.used:
                each.bits |= bit
                known = each.start
            each.used[bit] = number
            each = each.above
        if segment is not None and segment.bits == bit and not segment.branches:
            segment.blocks, segment.end = blocks, size
        elif segment is None or depth < size:
            segment = self._first[blocks[depth]] = _branch(segment, blocks, depth, bit, number)
        prompts = shelf.prompts
        prompts.append((number, segment))
        shelf.held = held = shelf.held + size - known
        if held > shelf.capacity:
            self._shrink(shelf, shelf.capacity)
        elif len(prompts) > _SLACK + 2 * held:
            shelf.tidy()
        return known

    def calibrate(self, instance: "AgentInstance", expected: int, reported: float) -> None:
        """Compares what an instance was thought to hold of a prompt with what it said it had
        cached, both in blocks.

        Who reports anything at all is first thought to keep as much as may be, as too much is soon
        seen in what is missing, too little hardly. Less was cached than was thought: it keeps less.
        More, though our account of it is full: it keeps more. As much, and it is full: that may be;
        we try a little more. An instance that never reports anything is not believed to cache
        nothing.
        """
        shelf = self._shelves.get(instance)
        if shelf is None:
            return
        if not shelf.reports:
            if reported <= 0:
                return
            shelf.reports, shelf.capacity = True, self._most
        held, capacity = shelf.held, shelf.capacity
        if reported < expected - 1:
            smaller = min(capacity, held) * (_LESS - 1) // _LESS
            shelf.capacity = max(self._least, smaller)
            if held > shelf.capacity:
                self._shrink(shelf, shelf.capacity)
        elif held >= capacity < self._most:
            if reported > expected + 1:
                shelf.capacity = min(self._most, capacity + capacity // _MORE)
            elif expected:
                shelf.capacity = capacity + 1

    def _shrink(self, shelf: _Shelf, size: int) -> None:
        """Forgets the blocks of longest ago, of each prompt the last ones first."""
        self._asked = None
        segments, bit, prompts, held = self._first, shelf.bit, shelf.prompts, shelf.held
        segment: _Segment | None
        while held > size:
            number, segment = prompts.popleft()
            while segment is not None and segment.used.get(bit) == number:
                rest = segment.end - held + size
                if rest > segment.start:
                    if held > size and segment.bits != bit:
                        self._cut(segment, rest)  # leaves the tail, to be dropped next
                        continue
                    segment.end, held = rest, size
                    prompts.appendleft((number, segment))
                    break
                held -= segment.end - segment.start
                del segment.used[bit]
                segment.bits ^= bit
                above: _Segment | None = segment.above
                if not segment.bits:  # nor does anybody hold anything below it
                    first = segment.blocks[segment.start]
                    if segments.get(first) is segment:  # not so only if it is no chain
                        del segments[first]
                    if above is not None:
                        above.branches -= 1
                segment = above
        shelf.held = held

    def _cut(self, segment: _Segment, middle: int) -> _Segment:
        """Makes what is before this block a segment of its own, and returns it."""
        blocks, start = segment.blocks, segment.start
        above, bits, used = segment.above, segment.bits, segment.used.copy()
        head = _Segment(blocks, start, middle, above, bits, used, branches=1)
        segment.start, segment.above = middle, head
        self._first[blocks[middle]] = segment
        self._first[blocks[start]] = head
        return head

    def _candidate(self, bit: int, candidates: Sequence["AgentInstance"]) -> "AgentInstance | None":
        instance = self._bits[bit]
        place = bisect_left(candidates, instance.order, key=_order)
        there = place < len(candidates) and candidates[place] is instance
        return instance if there else None


def _branch(
    above: _Segment | None, blocks: Sequence[int], start: int, bit: int, number: int
) -> _Segment:
    """A new segment: the rest of a prompt, sent to an instance."""
    if above is not None:
        above.branches += 1
    return _Segment(blocks, start, len(blocks), above, bit, {bit: number})


def _parting(one: Sequence[int], other: Sequence[int], same: int, apart: int) -> int:
    """The first block after `same`, which they have in common, that they do not; at most `apart`."""
    while apart - same > 1:
        middle = (same + apart) >> 1
        if one[middle] == other[middle]:
            same = middle
        else:
            apart = middle
    return apart
