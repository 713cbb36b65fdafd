"""What every replacement policy promises, and what each does that others do not."""

import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.cache.entry import About, Entry, FullEntry, Terms
from paceline.cache.policies import POLICIES
from paceline.cache.policies.chooser import Chooser
from paceline.cache.policies.cost import LEAST_NS, NS_PER_USD, saved_ns
from paceline.cache.policies.gdsf import GDSF
from paceline.cache.policies.lirs import LIRS
from paceline.cache.policies.lru import LRU
from paceline.cache.policies.policy import MakePolicy, Policy
from paceline.cache.policies.queue import Queue
from paceline.cache.policies.s3fifo import S3Fifo
from paceline.cache.policies.tinylfu import WTinyLFU

KINDS = [*POLICIES.values()]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[*POLICIES])

steps = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "ask", "remove"]), st.integers(-3, 25)), max_size=250
)


def entry(
    key: Any, weight: int = 1, *, cost_ns: int = 0, cost_usd: float = 0.0, table: Any = 0
) -> Entry:
    made = FullEntry(key, None, 0)
    made.weight = weight
    made.table = table
    if cost_ns or cost_usd:
        made.terms = Terms(0, about=About(cost_ns=cost_ns, cost_usd=cost_usd))
    return made


class Cache:
    """The smallest tier around a policy, which checks after every step that it holds the law."""

    def __init__(self, kind: MakePolicy, capacity: int) -> None:
        self.policy = kind(capacity)
        self.capacity = capacity
        self.held: dict[Any, Entry] = {}
        self.hits = 0
        self.asked = 0

    def ask(self, key: Any, weight: int = 1, **about: Any) -> list[Any]:
        self.asked += 1
        if key in self.held:
            self.hits += 1
            self.policy.use(self.held[key])
            return []
        self.held[key] = entry(key, weight, **about)
        self.policy.add(self.held[key])
        gone = []
        while sum(e.weight for e in self.held.values()) > self.capacity:
            victim = self.policy.evict()
            assert self.held.pop(victim.key) is victim
            gone.append(victim.key)
        return gone

    def remove(self, key: Any) -> None:
        if key in self.held:
            self.policy.remove(self.held.pop(key))

    def check(self) -> None:
        listed = list(self.policy)
        assert len(self.policy) == len(listed) == len(self.held)
        assert {id(e) for e in listed} == {id(e) for e in self.held.values()}

    def fast(self, keys: Sequence[Any]) -> float:
        """Hit ratio of many accesses, with unit weights and no checks."""
        policy, held, hits = self.policy, self.held, 0
        for key in keys:
            if key in held:
                hits += 1
                policy.use(held[key])
                continue
            held[key] = entry(key)
            policy.add(held[key])
            while len(held) > self.capacity:
                del held[policy.evict().key]
        return hits / len(keys)


def follow(
    kind: MakePolicy,
    capacity: int,
    actions: Sequence[tuple[str, int]],
    weigh: Callable[[int], int] = lambda key: 1,
) -> None:
    cache = Cache(kind, capacity)
    for action, key in actions:
        if action == "ask":
            cache.ask(key, weigh(key))
        else:
            cache.remove(key)
        cache.check()
    while cache.held:
        del cache.held[cache.policy.evict().key]
        cache.check()


@each_kind
@given(actions=steps, capacity=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_a_policy_holds_exactly_what_was_added_and_did_not_leave(kind, actions, capacity):
    """No entry is lost, doubled or named after it left, however entries come and go. (S0-30)"""
    follow(kind, capacity, actions)


@each_kind
@given(actions=steps, capacity=st.integers(5, 60))
@settings(max_examples=60, deadline=None)
def test_a_policy_holds_entries_of_any_weight(kind, actions, capacity):
    """The same law holds when entries have sizes, some larger than the cache. (S0-30)"""
    follow(kind, capacity, actions, weigh=lambda key: 1 + key * key % 17)


@each_kind
@given(actions=steps, capacity=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_keys_with_one_hash_stay_apart(kind, actions, capacity):
    """Two keys with the same hash are two keys. (S0-30)"""
    same = [(action, key * (2**61 - 1)) for action, key in actions]
    follow(kind, capacity, same)


@each_kind
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=200))
@settings(max_examples=30, deadline=None)
def test_tables_may_use_the_same_keys(kind, asked):
    """Entries under one key of two tables are two entries. (S0-30)"""
    policy: Policy = kind(5)
    held: dict[Any, Entry] = {}
    for table, key in asked:
        if (table, key) in held:
            policy.use(held[table, key])
            continue
        held[table, key] = entry(key, table=table)
        policy.add(held[table, key])
        while len(held) > 5:
            victim = policy.evict()
            assert held.pop((victim.table, victim.key)) is victim
        assert {id(e) for e in policy} == {id(e) for e in held.values()}


@each_kind
def test_an_entry_that_left_may_come_back(kind):
    """The very same entry may be added again after it was removed or evicted. (S0-30)"""
    policy = kind(2)
    again = entry("again")
    for _ in range(200):
        policy.add(again)
        policy.use(again)
        policy.remove(again)
        policy.add(again)
        assert policy.evict() is again
        assert len(policy) == 0
        assert list(policy) == []


@each_kind
@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_the_smallest_caches_work(kind, capacity):
    """A cache of one entry is a cache. (S0-30)"""
    cache = Cache(kind, capacity)
    for key in islice(cycle("aabbcadd"), 400):
        cache.ask(key)
        cache.check()
    assert cache.hits > 0


@given(actions=steps, capacity=st.integers(1, 12))
def test_lru_is_exactly_least_recently_used(actions, capacity):
    """The entry not used for longest goes, never one just used. (X-10, S1-07, S0-33)"""
    cache = Cache(LRU, capacity)
    model: OrderedDict[int, None] = OrderedDict()
    for action, key in actions:
        if action == "remove":
            cache.remove(key)
            model.pop(key, None)
            continue
        expected = []
        if key in model:
            model.move_to_end(key)
        else:
            model[key] = None
            if len(model) > capacity:
                expected = [model.popitem(last=False)[0]]
        assert cache.ask(key) == expected
        assert [e.key for e in cache.policy] == list(model)


def test_lru_does_the_same_work_at_any_size():
    """A hit relinks its neighbours only: the rest of the queue is not looked at. (S0-33)"""
    policy = LRU(1_000)
    entries = [entry(number) for number in range(1_000)]
    for each in entries:
        policy.add(each)
    links = {id(e): (id(e.before), id(e.after)) for e in entries}
    policy.use(entries[500])
    changed = [e.key for e in entries if links[id(e)] != (id(e.before), id(e.after))]
    assert changed == [499, 500, 501, 999]


def test_a_queue_keeps_nobody_alive_who_left():
    """An entry that left a queue holds no link to its former neighbours. (S0-30)"""
    queue = Queue()
    entries = [entry(number) for number in range(3)]
    for each in entries:
        queue.push(each)
    queue.unlink(entries[1])
    assert not hasattr(entries[1], "before")
    assert not hasattr(entries[1], "after")
    assert [e.key for e in queue] == [0, 2]


def scan_after_hot_keys(kind: MakePolicy) -> int:
    cache = Cache(kind, 100)
    for _ in range(4):
        for key in range(50):
            cache.ask(key)
    for key in range(1_000, 1_400):
        cache.ask(key)
    return sum(key in cache.held for key in range(50))


@pytest.mark.parametrize("kind", [S3Fifo, WTinyLFU, LIRS])
def test_a_scan_leaves_what_is_asked_for_often(kind):
    """Keys asked for once do not push out those asked for often; under LRU they do. (S0-30, P-03)"""
    assert scan_after_hot_keys(kind) >= 45
    assert scan_after_hot_keys(LRU) == 0


@pytest.mark.parametrize("kind", [WTinyLFU, LIRS])
def test_a_loop_larger_than_the_cache_hits_in_part(kind):
    """Going round 200 keys hits about half the time in 100 places; LRU never hits. (S0-30)"""
    keys = [*islice(cycle(range(200)), 10_000)]
    assert Cache(kind, 100).fast(keys) > 0.4
    assert Cache(LRU, 100).fast(keys) == 0.0


def test_s3fifo_remembers_what_went_lately():
    """A key that comes back while it is a ghost goes to the main queue at once. (S0-30)"""
    cache = Cache(S3Fifo, 10)
    for key in range(11):
        cache.ask(key)
    assert 0 not in cache.held
    cache.ask(0)
    for key in range(100, 130):
        cache.ask(key)
    assert 0 in cache.held


def test_s3fifo_promotes_at_two_hits():
    """One hit in the small queue is not enough to stay, two are. (S0-30)"""
    cache = Cache(S3Fifo, 10)
    for key in (1, 1, 2, 2, 2, *range(100, 120)):
        cache.ask(key)
    assert 1 not in cache.held
    assert 2 in cache.held


@pytest.mark.parametrize("kind", [S3Fifo, WTinyLFU, LIRS, Chooser])
def test_what_is_remembered_of_keys_that_are_gone_is_bounded(kind):
    """A cache of 50 that saw 30,000 keys remembers no more than a fixed number of them. (S0-30)"""
    cache = Cache(kind, 50)
    cache.fast(range(30_000))

    def slots(thing: Any) -> list[Any]:
        return [getattr(thing, name) for name in type(thing).__slots__ if hasattr(thing, name)]

    policy = cache.policy.running if isinstance(cache.policy, Chooser) else cache.policy
    assert all(len(part) <= 10_000 for part in slots(policy) if isinstance(part, dict))


def test_the_cheap_and_large_goes_first():
    """With costs and sizes, what saves least for its size goes first. (S0-30, P-03)"""
    cache = Cache(GDSF, 100)
    cache.ask("dear", 40, cost_ns=2_000_000_000)
    cache.ask("cheap", 40, cost_ns=5_000_000)
    assert cache.ask("new", 40, cost_ns=1_000_000_000) == ["cheap"]
    assert cache.ask("money", 20, cost_usd=0.05) == []
    assert cache.ask("small", 10, cost_ns=1_000_000_000) == ["new"]


def test_what_was_popular_once_goes_in_the_end():
    """The cache ages: many uses long ago weigh less than a few lately. (S0-30, P-03)"""
    cache = Cache(GDSF, 10)
    for _ in range(20):
        cache.ask("once")
    cache.fast([key for number in range(300) for key in (number, number)])
    assert "once" not in cache.held


def test_time_and_money_are_one_cost():
    """A cent is a second; unknown and tiny costs are all alike, so that hits count. (S0-30)"""
    assert saved_ns(entry("x")) == saved_ns(entry("x", cost_ns=5)) == LEAST_NS
    assert saved_ns(entry("x", cost_ns=3 * LEAST_NS)) == 3 * LEAST_NS
    assert saved_ns(entry("x", cost_usd=0.01)) == NS_PER_USD / 100 == 1e9


class Loses(list[Entry]):
    """Seeded bugs: a policy of least recently used, wrong in one way each."""

    def __init__(self, capacity: int) -> None:
        super().__init__()

    def add(self, new: Entry) -> None:
        self.append(new)

    def use(self, used: Entry) -> None:
        list.remove(self, used)
        self.append(used)

    def evict(self) -> Entry:
        return self.pop(0)


class ForgetsTheUsed(Loses):
    def use(self, used: Entry) -> None:
        list.remove(self, used)


class DoublesTheUsed(Loses):
    def use(self, used: Entry) -> None:
        self.append(used)


class KeepsTheRemoved(Loses):
    def remove(self, gone: Entry) -> None:
        pass


class NamesTheGone(Loses):
    def evict(self) -> Entry:
        return self[0]


class GoesByHash(Loses):
    def add(self, new: Entry) -> None:
        self[:] = [e for e in self if hash(e.key) != hash(new.key)]
        self.append(new)


class FirstInFirstOut(Loses):
    def use(self, used: Entry) -> None:
        pass


class LastInFirstOut(Loses):
    def evict(self) -> Entry:
        return self.pop()


SCRIPT = [
    *(("ask", key) for key in (1, 2, 3, 1, 4, 5, -1, -2, 5, 6)),
    ("remove", 5),
    *(("ask", key) for key in (7, 8, 7, 9, 1)),
]


@pytest.mark.parametrize(
    "bug", [ForgetsTheUsed, DoublesTheUsed, KeepsTheRemoved, NamesTheGone, GoesByHash]
)
def test_the_law_catches_seeded_bugs(bug):
    """The check fails for a policy that loses, doubles or keeps entries. (S0-30)"""
    follow(Loses, 4, SCRIPT)
    with pytest.raises((AssertionError, KeyError, ValueError, IndexError)):
        follow(bug, 4, SCRIPT)


@pytest.mark.parametrize("bug", [FirstInFirstOut, LastInFirstOut])
def test_the_model_catches_wrong_orders(bug):
    """First in, first out is not least recently used. (X-10, S1-07)"""

    def victims(kind: MakePolicy) -> list[list[int]]:
        cache = Cache(kind, 3)
        return [cache.ask(key) for key in (1, 2, 3, 1, 4, 2, 5)]

    assert victims(Loses) == victims(LRU) == [[], [], [], [], [2], [3], [1]]
    assert victims(bug) != victims(LRU)


def test_popular_keys_stay_under_every_policy():
    """With skewed popularity every policy hits far more than its share of keys. (S0-30)"""
    rng = random.Random(5)
    keys = [int(rng.paretovariate(1.0)) for _ in range(5_000)]
    for kind in KINDS:
        assert Cache(kind, 50).fast(keys) > 0.7
