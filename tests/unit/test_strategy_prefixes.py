"""The index of which instance holds the beginning of a prompt."""

import random
from collections import Counter, OrderedDict, UserList
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.balance.instance import AgentInstance
from paceline.balance.strategies.prefixes import PrefixIndex

WORDS = st.lists(st.integers(0, 2), max_size=8).map(tuple)
RUNS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 7)), max_size=5).map(
    lambda runs: tuple([word for word, times in runs for _ in range(times)])
)


def chained(words: tuple[int, ...]) -> tuple[int, ...]:
    """A hash for each word and all before it."""
    return tuple([hash(words[: end + 1]) for end in range(len(words))])


def made(count: int = 3, **sizes: int) -> tuple[PrefixIndex, list[AgentInstance]]:
    index = PrefixIndex(**sizes)
    instances = [AgentInstance(str(n), "llm") for n in range(count)]
    for order, instance in enumerate(instances):
        instance.order = order
        index.joined(instance)
    return index, instances


def sound(index: PrefixIndex, instances: list[AgentInstance]) -> None:
    """Fails unless the tree hangs together, and has nothing that nobody holds."""
    segments = index._first
    branches: Counter[int] = Counter()
    held: Counter[int] = Counter()
    for first, segment in segments.items():
        assert segment.blocks[segment.start] == first
        assert segment.start < segment.end <= len(segment.blocks)
        assert segment.bits == sum(segment.used) > 0
        if segment.above is None:
            assert segment.start == 0
        else:
            branches[id(segment.above)] += 1
            assert segments[segment.above.blocks[segment.above.start]] is segment.above
            assert segment.start == segment.above.end
            assert segment.bits & segment.above.bits == segment.bits
            above = segment.above.used
            assert all(above[bit] >= number for bit, number in segment.used.items())
        for bit in segment.used:
            held[bit] += segment.end - segment.start
    for segment in segments.values():
        assert segment.branches == branches[id(segment)]
    for instance in instances:
        shelf = index._shelves[instance]
        assert shelf.held == held[shelf.bit]
        assert len(shelf.prompts) <= 65 + 2 * shelf.held


class Remembered:
    """The same done plainly: when each block was last used, deeper ones a little before."""

    def __init__(self) -> None:
        self.used: dict[int, tuple[int, int]] = {}
        self.now = 0

    def insert(self, blocks: tuple[int, ...], capacity: int) -> None:
        self.now += 1
        for depth, block in enumerate(blocks):
            self.used[block] = (self.now, -depth)
        self.keep(capacity)

    def keep(self, capacity: int) -> None:
        for block in sorted(self.used, key=self.used.__getitem__)[
            : max(0, len(self.used) - capacity)
        ]:
            del self.used[block]

    def matched(self, blocks: tuple[int, ...]) -> int:
        return next((n for n, b in enumerate(blocks) if b not in self.used), len(blocks))


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.one_of(WORDS, RUNS, st.just("leave")),
            st.none() | st.integers(0, 20),
        ),
        max_size=60,
    ),
    RUNS,
    st.sampled_from([(7, 2, 12), (30, 9, 60)]),
)
def test_it_is_what_plain_bookkeeping_says(
    steps: list[tuple[int, tuple[int, ...] | str, int | None]],
    asked: tuple[int, ...],
    sizes: tuple[int, int, int],
) -> None:
    """Whatever is sent and reported, and whoever leaves and comes again, every instance matches
    what the most recently used blocks within its capacity match, so nothing is claimed that was not
    inserted; and what nobody holds takes no memory. (S0-54)"""
    capacity, least, most = sizes
    index, instances = made(capacity=capacity, least=least, most=most)
    plain = [Remembered() for _ in instances]
    for who, words, reported in steps:
        instance = instances[who]
        if isinstance(words, str):
            index.left(instance)
            index.joined(instance)
            plain[who] = Remembered()
            sound(index, instances)
            continue
        blocks = chained(words)
        known = index.insert(instance, blocks)
        assert known == plain[who].matched(blocks)
        plain[who].insert(blocks, index.capacity(instance))
        if reported is not None:
            index.calibrate(instance, known, reported)
            plain[who].keep(index.capacity(instance))
        for other, book in zip(instances, plain, strict=True):
            assert index.held(other) == len(book.used) <= index.capacity(other)
            assert least <= index.capacity(other) <= most
            for prompt in (blocks, chained(asked)):
                assert index.matched(other, prompt) == book.matched(prompt)
        sound(index, instances)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), WORDS | RUNS, st.none() | st.integers(0, 9)), max_size=60
    ),
    WORDS | RUNS,
)
def test_levels_say_who_holds_how_much(
    steps: list[tuple[int, tuple[int, ...], int | None]], asked: tuple[int, ...]
) -> None:
    """The levels of a prompt give, for every instance, what it matches, and the ones that hold more
    are among those that hold less. (S0-54)"""
    index, instances = made(capacity=9, least=9, most=9)
    for who, words, _ in steps:
        index.insert(instances[who], chained(words))
    levels = index.levels(chained(asked))
    for instance in instances:
        bit = index.joined(instance)
        depth = max([depth for bits, depth in levels if bits & bit], default=0)
        assert depth == index.matched(instance, chained(asked))
    for (more, less_deep), (fewer, deeper) in pairwise(levels):
        assert more & fewer == fewer != more
        assert less_deep < deeper


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.lists(st.integers(0, 9), max_size=9).map(tuple),
            st.none() | st.integers(0, 9),
        ),
        max_size=80,
    )
)
def test_hashes_that_are_no_chain_do_no_harm(
    steps: list[tuple[int, tuple[int, ...], int | None]],
) -> None:
    """Blocks that come twice, or after others than before, raise nothing and take no more than the
    capacity. (S0-54)"""
    index, instances = made(capacity=5, least=2, most=7)
    for who, blocks, reported in steps:
        index.levels(blocks)
        known = index.insert(instances[who], blocks)
        if reported is not None:
            index.calibrate(instances[who], known, reported)
        assert 0 <= known <= len(blocks)
        assert index.held(instances[who]) <= index.capacity(instances[who])
    for instance in instances:
        index.left(instance)
    assert index.levels(tuple(range(10))) == []


def test_the_same_prompt_again_takes_no_memory() -> None:
    """Of prompts that come again and again only the last time is remembered. (S0-54)"""
    index, (one, *_) = made()
    for turn in range(5_000):
        index.insert(one, chained((0, 1, turn % 3)))
    assert index.held(one) == 5
    assert len(index._shelves[one].prompts) < 200


class Counted(UserList[int]):
    """A prompt that counts how often a block of it is looked at."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        type(self).looks += 1
        return super().__getitem__(place)


def test_what_is_looked_at_does_not_grow_with_the_blocks() -> None:
    """To ask for a prompt of thousands of blocks, to note it, with a new tail or another one, and
    to forget a part of it looks at a few dozen blocks at most, and takes one segment for each part
    that differs. (S0-54)"""
    index, (one, two, _) = made(capacity=10_000)
    first = Counted(range(8_000))
    longer = Counted(range(8_900))
    other = Counted((*range(4_321), *range(10_000, 14_000)))
    for instance, prompt, segments in ((one, first, 1), (one, longer, 1), (two, other, 3)):
        Counted.looks = 0
        index.levels(prompt)
        index.insert(instance, prompt)
        assert Counted.looks < 50
        assert len(index._first) == segments
    assert index.levels(other) == [(3, 4_321), (2, 8_321)]
    assert index.levels(longer) == [(3, 4_321), (1, 8_900)]
    Counted.looks = 0
    index.insert(one, Counted(range(20_000, 25_000)))
    assert Counted.looks < 50
    assert index.matched(one, longer) == 5_000
    assert index.matched(two, other) == 8_321


def test_no_prompt_is_held_by_nobody() -> None:
    """A prompt without a whole block has no levels, whatever was asked for and inserted
    before. (S0-54)"""
    index, (one, *_) = made()
    index.insert(one, chained((1, 2)))
    index.insert(one, chained((1, 2, 3)))
    assert index.levels(()) == []
    assert index.insert(one, ()) == index.matched(one, ()) == 0


def test_an_instance_that_left_is_forgotten() -> None:
    """Who has left holds nothing, its bit goes to the next who joins, and the others keep
    theirs. (S0-54)"""
    index, (one, two, _) = made()
    blocks = chained((1, 2, 3))
    index.insert(one, blocks)
    index.insert(two, blocks[:2])
    bit = index.joined(one)
    assert len(index.levels(blocks)) == 2
    index.left(one)
    index.left(one)
    assert index.levels(blocks) == [(index.joined(two), 2)]
    newcomer = AgentInstance("new", "llm")
    assert index.joined(newcomer) == bit
    assert index.matched(newcomer, blocks) == 0


def test_the_tail_of_a_prompt_goes_first() -> None:
    """A prompt longer than the capacity is remembered from its beginning. (S0-54)"""
    index, (one, *_) = made(capacity=4)
    blocks = chained(tuple(range(10)))
    index.insert(one, blocks)
    assert index.matched(one, blocks) == 4


def test_holders_are_candidates() -> None:
    """Of few candidates all holders are found, of many so many as are asked for, never one that is
    no candidate. (S0-54)"""
    index, instances = made(40)
    blocks = chained((1,))
    for instance in instances[::2]:
        index.insert(instance, blocks)
    [(bits, _)] = index.levels(blocks)
    assert index.holders(bits, instances[:6], 1, 0.5) == instances[:6:2]
    candidates = instances[10:]
    for chance in (0.0, 0.3, 0.6, 0.99):
        found = index.holders(bits, candidates, 4, chance)
        assert len(set(found)) == 4
        assert set(found) <= set(candidates[::2])
    assert set(index.holders(bits, candidates, 99, 0.7)) == set(candidates[::2])


class Server:
    """A cache that really keeps so many blocks."""

    def __init__(self, capacity: int) -> None:
        self.blocks: OrderedDict[int, None] = OrderedDict()
        self.capacity = capacity

    def read(self, blocks: tuple[int, ...]) -> int:
        found = next((n for n, b in enumerate(blocks) if b not in self.blocks), len(blocks))
        for block in reversed(blocks):
            self.blocks[block] = None
            self.blocks.move_to_end(block)
        while len(self.blocks) > self.capacity:
            self.blocks.popitem(last=False)
        return found


@pytest.mark.parametrize("real", [100, 400, 1_600])
def test_the_capacity_follows_the_cache(real: int) -> None:
    """From what is reported as cached the capacity comes near that of the real cache, be that
    smaller or larger than was thought. (S0-54)"""
    index, (one, *_) = made(capacity=400, least=16, most=5_000)
    server, sessions, rng = Server(real), [1] * 200, random.Random(1)
    for _ in range(6_000):
        who = int(rng.expovariate(1 / 30)) % len(sessions)
        sessions[who] = sessions[who] % 30 + 1
        blocks = chained((who, *range(sessions[who])))
        known = index.insert(one, blocks)
        index.calibrate(one, known, server.read(blocks))
    assert 0.5 * real < index.capacity(one) < 2 * real


def test_who_reports_nothing_is_left_alone() -> None:
    """The capacity of an instance that never says what it had cached stays as it is; once it has
    said something, it is taken for large, and nothing means nothing. (S0-54)"""
    index, (one, *_) = made(capacity=100, least=10, most=400)
    blocks = chained(tuple(range(50)))
    index.insert(one, blocks)
    index.calibrate(one, 50, 0)
    assert index.capacity(one) == 100
    index.calibrate(one, 50, 50)
    assert index.capacity(one) == 400
    index.calibrate(one, 50, 0)
    assert index.capacity(one) < 50


@settings(max_examples=20)
@given(st.integers(1, 50))
def test_a_capacity_moves_within_its_bounds(times: int) -> None:
    """However often less or more is reported, the capacity stays between the least and the
    most. (S0-54)"""
    index, (one, two, _) = made(capacity=64, least=60, most=66)
    for n in range(times):
        blocks = chained(tuple(range(n, n + 70)))
        for instance, reported in ((one, 1), (two, 70)):
            index.calibrate(instance, index.insert(instance, blocks) or 2, reported)
    assert 60 <= index.capacity(one) <= index.capacity(two) <= 66


def test_one_that_has_left_is_not_calibrated() -> None:
    """A report of an instance that has left changes nothing. (S0-54)"""
    index, (one, *_) = made()
    index.left(one)
    index.calibrate(one, 3, 1)
    assert index.joined(one) == 1
