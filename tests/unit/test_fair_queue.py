"""The queue before a gate: priorities, fair shares, ageing, and who gives way."""

import gc
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from paceline.balance import flows
from paceline.balance.flows import Flows
from paceline.balance.queue import FairQueue
from paceline.call import Priority

NS = 1_000_000_000
AGEING_S = 10
SPECULATIVE, LOW, NORMAL, HIGH = sorted(Priority)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}


class Door:
    """A gate, as far as the queue looks at one."""

    def __init__(self) -> None:
        self.free = 1


class Guest:
    """One who waits."""

    def __init__(
        self, tenant: str = "", priority: Priority = NORMAL, gates: tuple[Door, ...] = ()
    ) -> None:
        self.tenant = tenant
        self.priority = priority
        self.gates = gates


def _queue(**weights: float) -> FairQueue[Guest]:
    return FairQueue(ageing_s=AGEING_S, weights=weights)


def _filled(*guests: Guest) -> FairQueue[Guest]:
    queue = _queue()
    for guest in guests:
        queue.add(guest, 0)
    return queue


def _served(queue: FairQueue[Guest], now_ns: int = 0) -> Iterator[Guest]:
    while (guest := queue.first(now_ns)) is not None:
        queue.serve(guest, now_ns)
        yield guest


class Place(NamedTuple):
    """Where one is, in the model."""

    guest: Guest
    level: Priority
    number: int
    rises_s: int


class Turns(RuleBasedStateMachine):
    """The queue beside a model that looks through all who wait, in no particular structure.

    The model has for each priority the virtual time and what each tenant's next place costs it.
    """

    def __init__(self, make: Any = FairQueue) -> None:
        super().__init__()
        self.queue = make(ageing_s=AGEING_S, weights=WEIGHTS)
        self.doors = Door(), Door()
        self.now_s = 0
        self.numbers = 0
        self.places: list[Place] = []
        self.time = dict.fromkeys(Priority, Fraction())
        self.finish: dict[tuple[Priority, str], Fraction] = {}

    def _cost(self, tenant: str) -> Fraction:
        return 1 / Fraction(WEIGHTS[tenant])

    def _put(self, guest: Guest, level: Priority, rises_s: int) -> None:
        if not any(p.level == level and p.guest.tenant == guest.tenant for p in self.places):
            self.finish[level, guest.tenant] = self.time[level] + self._cost(guest.tenant)
        self.places.append(Place(guest, level, self.numbers, rises_s))
        self.numbers += 1

    def _rise(self) -> None:
        for level in (LOW, NORMAL):
            for place in [p for p in self.places if p.level == level and p.rises_s <= self.now_s]:
                self.places.remove(place)
                self._put(place.guest, Priority(level + 1), place.rises_s + AGEING_S)

    def _first(self) -> Place | None:
        able = [p for p in self.places if all(gate.free > 0 for gate in p.guest.gates)]
        return min(able, key=self._turn, default=None)

    def _turn(self, place: Place) -> tuple[int, Fraction, int]:
        return -place.level, self.finish[place.level, place.guest.tenant], place.number

    @rule(
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        which=st.sampled_from([(0,), (1,), (0, 1)]),
    )
    def come(self, tenant: str, priority: Priority, which: tuple[int, ...]) -> None:
        self._rise()
        guest = Guest(tenant, priority, tuple(self.doors[one] for one in which))
        self.queue.add(guest, self.now_s * NS)
        self._put(guest, priority, self.now_s + AGEING_S)

    @rule()
    def serve(self) -> None:
        self._rise()
        place, guest = self._first(), self.queue.first(self.now_s * NS)
        assert guest is (place.guest if place is not None else None)
        if place is None:
            return
        self.queue.serve(guest, self.now_s * NS)
        self.places.remove(place)
        key = place.level, place.guest.tenant
        self.time[place.level] = max(self.time[place.level], self.finish[key])
        self.finish[key] = self.time[place.level] + self._cost(place.guest.tenant)

    @precondition(lambda self: self.places)
    @rule(pick=st.integers(0, 99))
    def leave(self, pick: int) -> None:
        place = self.places.pop(pick % len(self.places))
        self.queue.remove(place.guest)
        self.queue.remove(place.guest)  # a second time does nothing

    @precondition(lambda self: self.places)
    @rule(pick=st.integers(0, 99), priority=st.sampled_from(Priority))
    def raise_one(self, pick: int, priority: Priority) -> None:
        self._rise()
        place = self.places[pick % len(self.places)]
        self.queue.raise_to(place.guest, priority, self.now_s * NS)
        if priority > place.level:
            self.places.remove(place)
            self._put(place.guest, priority, self.now_s + AGEING_S)

    @rule(which=st.integers(0, 1), free=st.integers(-1, 1))
    def turn_the_key(self, which: int, free: int) -> None:
        self.doors[which].free = free

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.places)
    @rule(tenant=st.sampled_from("abc"), priority=st.sampled_from(Priority))
    def ask_who_gives_way(self, tenant: str, priority: Priority) -> None:
        self._rise()
        least = min(p.level for p in self.places)
        counts: dict[str, int] = {}
        for place in self.places:
            if place.level == least:
                counts[place.guest.tenant] = counts.get(place.guest.tenant, 0) + 1
        most = max(counts.values())
        due = least < priority or (least == priority and most > counts.get(tenant, 0) + 1)
        leaves = self.queue.gives_way(Guest(tenant, priority), self.now_s * NS)
        assert (leaves is not None) == due
        if leaves is not None:
            assert counts[leaves.tenant] == most
            same = [p for p in self.places if p.level == least and p.guest.tenant == leaves.tenant]
            assert leaves is max(same, key=lambda p: p.number).guest

    @invariant()
    def all_are_counted(self) -> None:
        assert len(self.queue) == len(self.places)


QUICK = settings(max_examples=100, stateful_step_count=40, deadline=None, database=None)
SEEDED = settings(
    QUICK, max_examples=200, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False
)


def test_everyone_has_the_turn_that_the_definition_gives() -> None:
    """Whatever happens, who is next, and who gives way, is as in a plain reading of the rules:
    priority with ageing, then least virtual finish of the tenant, then order. (S0-64, S0-81)"""
    run_state_machine_as_test(Turns, settings=QUICK)


@pytest.mark.parametrize(
    ("of", "name", "fault"),
    [
        (Flows, "serve", lambda flows, guest: flows.remove(guest)),
        (Flows, "newest_of_most", lambda flows: flows.first()),
        (FairQueue, "_rise", lambda queue, now_ns: None),
        (FairQueue, "raise_to", lambda queue, guest, priority, now_ns: None),
        (FairQueue, "gives_way", lambda queue, newcomer, now_ns: queue.first(now_ns)),
        (flows._Lane, "top", lambda lane: next(e for e in lane._heap if e[2].waiters)),
    ],
)
def test_a_queue_with_a_fault_is_caught(
    of: type, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law above fails for queues that charge nobody, shed the first, let nobody rise, ignore
    urgency or trust old tags."""
    monkeypatch.setattr(of, name, fault)
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Turns, settings=SEEDED)


@given(
    weights=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    come=st.lists(st.integers(0, 3), min_size=1, max_size=60),
)
def test_busy_tenants_get_shares_by_weight(weights: list[int], come: list[int]) -> None:
    """Between any two tenants who both wait, places by weight differ by one of each at most,
    whoever else comes and goes. (S0-81)"""
    tenants = [f"t{index}" for index in range(len(weights))]
    weight = dict(zip(tenants, weights, strict=True))
    queue = _queue(**weight)
    for tenant in tenants[:2]:
        for _ in range(len(come)):
            queue.add(Guest(tenant), 0)
    got = dict.fromkeys(tenants, 0)
    one, two = tenants[:2]
    bound = Fraction(1, weight[one]) + Fraction(1, weight[two])
    for index in come:
        queue.add(Guest(tenants[index % len(tenants)]), 0)
        guest = queue.first(0)
        assert guest is not None
        queue.serve(guest, 0)
        got[guest.tenant] += 1
        apart = Fraction(got[one], weight[one]) - Fraction(got[two], weight[two])
        assert abs(apart) <= bound + Fraction(1, 1000)


def test_leaving_the_queue_costs_a_tenant_nothing() -> None:
    """A tenant whose callers lose patience has the next turn all the same. (S0-81)"""
    queue = _filled(*(Guest("a") for _ in range(3)))
    for _ in range(50):
        impatient = Guest("b")
        queue.add(impatient, 0)
        queue.remove(impatient)
    queue.add(Guest("b"), 0)
    assert [guest.tenant for guest in _served(queue)] == ["a", "b", "a", "a"]


def test_a_tenant_that_could_not_go_on_has_one_turn_in_advance_at_most() -> None:
    """Who was passed over because another gate was full does not make up for it afterwards, but for
    one turn. (S0-81)"""
    door = Door()
    door.free = 0
    queue = _filled(*(Guest("blocked", gates=(door,)) for _ in range(20)))
    for _ in range(40):
        queue.add(Guest("other"), 0)
    turns = _served(queue)
    assert {next(turns).tenant for _ in range(20)} == {"other"}
    door.free = 1
    assert [next(turns).tenant for _ in range(7)] == ["blocked", *["blocked", "other"] * 3]


def test_nobody_is_overtaken_for_ever() -> None:
    """Under more urgent work than can be done, for ever, a LOW caller gets its place when it has
    become the most urgent and those before it are served; speculated work does not rise. (S0-64)"""
    queue, low, guess = _queue(), Guest("modest", LOW), Guest("modest", SPECULATIVE)
    queue.add(low, 0)
    queue.add(guess, 0)
    for second in range(100):
        for _ in range(2):  # twice what is served
            queue.add(Guest("busy", HIGH), second * NS)
        guest = queue.first(second * NS)
        assert guest is not None
        queue.serve(guest, second * NS)
        if guest is low:
            assert second == 2 * AGEING_S + 1
            break
    else:
        pytest.fail("it was never served")
    assert list(_served(queue, 10**15))[-1] is guess


def test_the_least_urgent_gives_way() -> None:
    """From a full queue goes the newest of the lowest priority, of the tenant with most waiting;
    nobody goes for one who is no more urgent, unless its tenant has less waiting. (S0-81)"""
    few, first, last = Guest("few", LOW), Guest("many", LOW), Guest("many", LOW)
    queue = _filled(Guest("high", HIGH), first, last, few)
    assert queue.gives_way(Guest("x", NORMAL), 0) is last
    assert queue.gives_way(Guest("x", SPECULATIVE), 0) is None
    assert queue.gives_way(Guest("many", LOW), 0) is None
    assert queue.gives_way(Guest("few", LOW), 0) is None
    assert queue.gives_way(Guest("new", LOW), 0) is last
    assert queue.gives_way(Guest("x", NORMAL), 2 * AGEING_S * NS) is None
    assert _queue().gives_way(Guest(), 0) is None


def test_the_pace_of_late_says_how_long_a_wait_is() -> None:
    """The estimate is nothing before a place was given, then the mean interval of late for each
    who waits, and it grows when no place is given for long. (S0-60, V-29)"""
    queue = _filled(*(Guest() for _ in range(4)))
    assert queue.wait_s(0) is None
    for second in (2, 4):
        guest = queue.first(second * NS)
        assert guest is not None
        queue.serve(guest, second * NS)
    assert queue.wait_s(4 * NS) == 4
    assert queue.wait_s(14 * NS) == 20
    for guest in list(_served(queue, 4 * NS)):
        queue.add(guest, 1_000 * NS)  # nobody had waited until then
    guest = queue.first(1_000 * NS)
    assert guest is not None
    queue.serve(guest, 1_000 * NS)
    wait_s = queue.wait_s(1_000 * NS)
    assert wait_s is not None
    assert wait_s < 2


def _held_by(thing: object) -> int:
    """Objects that are kept alive by one, types and modules not counted."""
    seen, left = set[int](), [thing]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, type):
            seen.add(id(one))
            left.extend(gc.get_referents(one))
    return len(seen)


def test_who_left_is_forgotten() -> None:
    """After any number of callers of any number of tenants, served or out of time, while others
    stay, the queue holds no more than before. (S0-64)"""
    queue = _filled(Guest("stays", SPECULATIVE), Guest("stays"), Guest("stays too"))
    before = 0
    for number in range(6_000):
        guests = [Guest(f"t{number}"), Guest("same"), Guest(f"t{number}", LOW, (Door(),))]
        for guest in guests:
            queue.add(guest, number)
        queue.remove(guests[1])
        queue.remove(guests[2])
        if number % 2:
            queue.remove(guests[0])
        else:
            queue.serve(guests[0], number)
        if number == 1_000:
            before = _held_by(queue)
    assert _held_by(queue) <= before + 200
    assert len(queue) == 3


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_and_times_are_positive(bad: float) -> None:
    """What is no positive finite number is refused when the queue is made."""
    with pytest.raises(ValueError, match="ageing_s"):
        FairQueue[Guest](ageing_s=bad, weights={})
    with pytest.raises(ValueError, match="the weight of a"):
        FairQueue[Guest](ageing_s=1, weights={"a": bad})
