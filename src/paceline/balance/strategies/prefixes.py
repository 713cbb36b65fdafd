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
"""Prompts that are remembered in vain before they are looked through."""

_order = attrgetter("order")


@final
class _Shelf:
    """The blocks that one instance is thought to hold: a tree, of which leaves are forgotten."""

    __slots__ = ("bit", "capacity", "ends", "followers", "number", "prompts", "reports")

    def __init__(self, bit: int, capacity: int) -> None:
        self.bit = bit
        self.capacity = capacity
        self.followers: dict[int, int] = {}
        """The blocks that are held, and how many blocks, and ends of prompts, come right after
        each."""
        self.number = 0
        self.ends: dict[int, int] = {}
        """The number of the last prompt that ended with this block."""
        self.prompts: deque[tuple[int, Sequence[int]]] = deque()
        """Those sent, by number, without what was forgotten of them."""
        self.reports = False
        """Whether it ever said that it had cached anything."""

    def tidy(self) -> None:
        """Drops the prompts that were sent again later."""
        ends = self.ends
        self.prompts = deque([each for each in self.prompts if ends.get(each[1][-1]) == each[0]])


@final
class PrefixIndex:
    """The blocks of prompts that were sent to each instance, the least recently used forgotten.

    A block's hash stands for all that is before it too, and every use of a block is one of those
    before it. Of each prompt the tail is therefore forgotten first, and what is left of it is a
    beginning: how much an instance holds of a prompt is found by bisection, and only the blocks
    beyond that cost anything to note. Blocks are forgotten in the order of the last prompts that
    had them, though nothing is written at those that it had in common with an earlier one: a block
    that others follow is kept, and falls to the last of them. Hashes that are no such chain make
    for a wrong account, never for an error.

    What an instance really keeps is learned from how many tokens it reports as cached
    (`calibrate`): by that the number of blocks that are remembered for it follows its cache.
    """

    __slots__ = ("_asked", "_bits", "_capacity", "_least", "_levels", "_most", "_shelves", "_where")

    def __init__(self, *, capacity: int = 2_000, least: int = 64, most: int = 10_000) -> None:
        """`capacity` is that of an instance to begin with, in blocks; it will stay between `least`
        and `most`."""
        self._capacity = capacity
        self._least = min(least, capacity)
        self._most = max(most, capacity)
        self._shelves: dict[AgentInstance, _Shelf] = {}
        self._bits: dict[int, AgentInstance] = {}
        self._where: dict[int, int] = {}
        """The instances that hold a block, one bit each."""
        self._asked: Sequence[int] = ()
        self._levels: list[tuple[int, int]] = []
        """The answer to the last question: who is asked for is mostly inserted next."""

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
        return len(self._shelves[instance].followers)

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
        if blocks is not self._asked:
            self._asked, self._levels = blocks, self._find(blocks)
        return self._levels

    def _find(self, blocks: Sequence[int]) -> list[tuple[int, int]]:
        get = self._where.get
        found: list[tuple[int, int]] = []
        holders = get(blocks[0]) if blocks else None
        if holders is None:
            return found
        last = len(blocks) - 1  # the last block that anybody holds
        deepest = get(blocks[last])
        if deepest is None:
            last, beyond = 0, last
            while beyond - last > 1:
                middle = (last + beyond) >> 1
                if get(blocks[middle]) is None:
                    beyond = middle
                else:
                    last = middle
            deepest = get(blocks[last])
        first = 0
        while holders != deepest:
            beyond = last  # the first block that some of them do not hold
            while beyond - first > 1:
                middle = (first + beyond) >> 1
                if get(blocks[middle]) == holders:
                    first = middle
                else:
                    beyond = middle
            found.append((holders or 0, beyond))
            first, holders = beyond, get(blocks[beyond])
        found.append((holders or 0, last + 1))
        return found

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
        levels, shelf, where = self.levels(blocks), self._shelves[instance], self._where
        followers, bit, known = shelf.followers, shelf.bit, 0
        for bits, depth in levels:
            if not bits & bit:
                break
            known = depth
        last = blocks[-1]
        if known < len(blocks):
            self._asked = ()
            nobodys = levels[-1][1] if levels else 0
            for block in blocks[known:nobodys]:
                where[block] = where.get(block, 0) | bit
            where.update(dict.fromkeys(blocks[nobodys:], bit))
            if known:
                followers[blocks[known - 1]] += 1
            followers.update(dict.fromkeys(blocks[known:], 1))
        elif last not in shelf.ends:
            followers[last] += 1
        number = shelf.ends[last] = shelf.number = shelf.number + 1
        shelf.prompts.append((number, blocks))
        if len(followers) > shelf.capacity:
            self._shrink(shelf, shelf.capacity)
        elif len(shelf.prompts) > _SLACK + 2 * len(followers):
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
        if reported > 0:
            if not shelf.reports:
                shelf.reports, shelf.capacity = True, self._most
        elif not shelf.reports:
            return
        held = len(shelf.followers)
        if reported < expected - 1:
            smaller = min(shelf.capacity, held) * (_LESS - 1) // _LESS
            shelf.capacity = max(self._least, smaller)
            self._shrink(shelf, shelf.capacity)
        elif held >= shelf.capacity:
            more = shelf.capacity // _MORE if reported > expected + 1 else min(expected, 1)
            shelf.capacity = min(self._most, shelf.capacity + more)

    def _shrink(self, shelf: _Shelf, size: int) -> None:
        """Forgets the blocks of longest ago, of each prompt the last ones first."""
        followers, ends, prompts = shelf.followers, shelf.ends, shelf.prompts
        where, bit = self._where, shelf.bit
        self._asked = ()
        while len(followers) > size:
            if not prompts:  # the hashes were no chain
                prompts.extend([(0, (block,)) for block in followers])
                followers.update(dict.fromkeys(followers, 1))
                ends.update(dict.fromkeys(followers, 0))
            number, blocks = prompts.popleft()
            if ends.get(blocks[-1]) != number:
                continue
            del ends[blocks[-1]]
            start = len(blocks)
            first = max(0, start - (len(followers) - size))
            while start > first and followers.get(block := blocks[start - 1]) == 1:
                start -= 1
                del followers[block]
                holders = where.get(block, 0)
                if holders == bit:
                    del where[block]
                elif holders:
                    where[block] = holders & ~bit
            last = followers.get(blocks[start - 1]) if start else None
            if last == 1:  # enough are forgotten
                ends[blocks[start - 1]] = number
                prompts.appendleft((number, blocks[:start]))
            elif last is not None:
                followers[blocks[start - 1]] = last - 1

    def _candidate(self, bit: int, candidates: Sequence["AgentInstance"]) -> "AgentInstance | None":
        instance = self._bits[bit]
        place = bisect_left(candidates, instance.order, key=_order)
        there = place < len(candidates) and candidates[place] is instance
        return instance if there else None
