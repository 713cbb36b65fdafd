"""The instances of one type: who may be chosen, who is, and what each has in flight."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from paceline.balance.fleet import Fleet
from paceline.balance.instance import NEVER, AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import Features, Needs, Request
from paceline.balance.strategies import make
from paceline.balance.strategies.loads import LeastLoaded
from paceline.balance.strategy import Strategy
from paceline.errors import (
    AgentError,
    Category,
    InvalidInputError,
    OverloadedError,
    PacelineError,
    Shortage,
    UsageError,
)
from paceline.testing.virtual_time import VirtualClock

NS = 1_000_000_000


class Door:
    """A guard that a test opens and shuts, and that counts its permits."""

    def __init__(self, reason: Shortage = Shortage.CIRCUIT_OPEN) -> None:
        self.reason = reason
        self.opens = 0
        self.refuses = False
        self.out = 0
        self.unused = 0
        self.seen: list[Lease] = []

    def opens_ns(self) -> int:
        return self.opens

    def admit(self, request: Request) -> object | None:
        if self.refuses:
            return None
        self.out += 1
        return self

    def ended(self, permit: object, lease: Lease) -> None:
        assert permit is self
        self.out -= 1
        if lease.started_ns:
            self.seen.append(lease)
        else:
            self.unused += 1


def made(clock: VirtualClock, *instances: AgentInstance, lease_s: float | None = None) -> Fleet:
    strategy = LeastLoaded(clock=clock, rng=random.Random(1))
    fleet = Fleet("ml", strategy, clock=clock, lease_s=lease_s)
    for instance in instances:
        fleet.add(instance)
    return fleet


def one(name: str = "one", capacity: int = 2, **options: Any) -> AgentInstance:
    return AgentInstance(name, "ml", max_capacity=capacity, **options)


def naive(instance: AgentInstance, clock: VirtualClock) -> bool:
    """Whether it may be chosen, by the book."""
    return (
        instance.is_healthy
        and not instance.draining
        and instance.weight > 0
        and instance.in_flight < instance.limit
        and all(guard.opens_ns() <= clock.monotonic_ns() for guard in instance.guards)
    )


class Days(RuleBasedStateMachine):
    """Instances come, go, fall ill, shut and open while work is given to them, beside a count by
    hand."""

    IDS = "abcd"

    def __init__(self, make_fleet: Callable[..., Fleet] = Fleet) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.fleet = make_fleet(
            "ml", LeastLoaded(clock=self.clock, rng=random.Random(1)), clock=self.clock, lease_s=50
        )
        self.leases: list[Lease] = []
        self.doors: dict[str, Door] = {}

    def _some(self, number: int) -> AgentInstance | None:
        there = list(self.fleet.instances.values())
        return there[number % len(there)] if there else None

    @rule(
        name=st.sampled_from(IDS), capacity=st.integers(0, 3), weight=st.sampled_from([0, 1, 2.5])
    )
    def register(self, name: str, capacity: int, weight: float) -> None:
        known = self.fleet.instances.get(name)
        door = self.doors[name] = Door()
        instance = AgentInstance(name, "ml", max_capacity=capacity, weight=weight, guards=(door,))
        assert self.fleet.add(instance) is (known or instance)

    @precondition(lambda self: self.fleet.instances)
    @rule(number=st.integers(0, 9))
    def unregister(self, number: int) -> None:
        instance = self._some(number)
        assert instance is not None
        assert self.fleet.remove(instance.id) is instance

    @precondition(lambda self: self.fleet.instances)
    @rule(
        number=st.integers(0, 9), what=st.sampled_from(["is_healthy", "draining"]), to=st.booleans()
    )
    def mark(self, number: int, what: str, to: bool) -> None:
        setattr(self._some(number), what, to)

    @precondition(lambda self: self.fleet.instances)
    @rule(number=st.integers(0, 9), limit=st.integers(0, 4))
    def limit(self, number: int, limit: int) -> None:
        instance = self._some(number)
        assert instance is not None
        instance.limit = limit
        assert instance.limit <= instance.max_capacity

    @precondition(lambda self: self.fleet.instances)
    @rule(
        number=st.integers(0, 9), after_s=st.sampled_from([0, 1, 20, None]), refuses=st.booleans()
    )
    def shut(self, number: int, after_s: int | None, refuses: bool) -> None:
        instance = self._some(number)
        assert instance is not None
        door = self.doors[instance.id]
        now_ns = self.clock.monotonic_ns()
        door.opens = NEVER if after_s is None else now_ns + after_s * NS
        door.refuses = refuses
        instance.changed()

    @rule()
    def work(self) -> None:
        able = [i for i in self.fleet.instances.values() if naive(i, self.clock)]
        willing = [i for i in able if not any(d.refuses for d in self._doors(i))]
        try:
            lease = self.fleet.lease()
        except OverloadedError:
            assert not willing
            return
        assert lease.instance in willing
        assert lease.instance.in_flight <= lease.instance.limit
        self.leases.append(lease)

    def _doors(self, instance: AgentInstance) -> list[Door]:
        return [guard for guard in instance.guards if isinstance(guard, Door)]

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 99), failed=st.booleans(), abandoned=st.booleans())
    def end(self, number: int, failed: bool, abandoned: bool) -> None:
        lease = self.leases.pop(number % len(self.leases))
        error = PacelineError("x") if failed else None
        if lease.ended_ns:
            with pytest.raises(UsageError, match="expired"):
                lease.release(error)
        else:
            lease.release(error, abandoned=abandoned)

    @precondition(lambda self: self.leases)
    @rule()
    def lose(self) -> None:
        """The holder is gone."""
        self.leases.pop()

    @rule(seconds=st.sampled_from([0.5, 10, 30]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_candidates_are_those_that_a_look_at_each_would_give(self) -> None:
        there = self.fleet.candidates()
        assert there == [i for i in self.fleet.instances.values() if naive(i, self.clock)]
        assert self.fleet.room() == sum(i.limit - i.in_flight for i in there)

    @invariant()
    def the_counts_are_those_of_the_leases_that_are_out(self) -> None:
        self.fleet.candidates()
        out = [lease for lease in self.leases if not lease.ended_ns]
        for instance in self.fleet.instances.values():
            assert instance.in_flight == sum(lease.instance is instance for lease in out)
        for door in self.doors.values():
            assert door.out >= 0


QUICK = settings(max_examples=150, stateful_step_count=30, deadline=None, database=None)
SEEDED = settings(
    QUICK,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_who_may_be_chosen_is_known_at_every_moment() -> None:
    """Whatever happens to instances, guards, leases and time, the candidates are exactly those that
    a look at each would give, and what is in flight is never below zero nor above a limit.
    (S0-56, S0-60, S0-64, S0-65)"""
    run_state_machine_as_test(Days, settings=QUICK)


class ForgetsTime(Fleet):  # type: ignore[misc]
    """Does not look again when a guard opens."""

    def _catch_up(self, now_ns: int) -> None:
        self._look_ns = NEVER


class ForgetsTheFull(Fleet):  # type: ignore[misc]
    """Leaves an instance among the candidates that has just become full."""

    def _send(self, lease: Lease, now_ns: int) -> None:
        lease.started_ns = now_ns or 1
        lease.instance.in_flight += 1


class ForgetsGuards(Fleet):  # type: ignore[misc]
    """Never hands permits back."""

    def _end(self, lease: Lease, *options: Any, **named: Any) -> None:
        lease.permits = ()
        super()._end(lease, *options, **named)


@pytest.mark.parametrize("mutant", [ForgetsTime, ForgetsTheFull])
def test_a_fleet_with_a_fault_is_caught(mutant: type[Fleet]) -> None:
    """The law above fails for fleets that miss an opening or a full instance."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lambda: Days(mutant), settings=SEEDED)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Fleet, ForgetsGuards])
def test_each_permit_is_given_back_once(kind: type[Fleet]) -> None:
    """A guard is told of the end of all it admitted, also of what another guard then refused; a
    fleet that does not is seen."""
    clock = VirtualClock()
    first, second = Door(), Door(Shortage.RATE_LIMIT)
    fleet = kind("ml", LeastLoaded(clock=clock, rng=random.Random(1)), clock=clock)
    fleet.add(one(guards=(first, second)))
    second.refuses = True
    with pytest.raises(OverloadedError):
        fleet.lease()
    assert (first.out, first.unused, second.out) == (0, 1, 0)
    second.refuses = False
    lease = fleet.lease()
    assert (first.out, second.out) == (1, 1)
    lease.release()
    assert (first.out, second.out) == ((0, 0) if kind is Fleet else (1, 1))


def test_who_refuses_is_passed_over_for_this_work_alone() -> None:
    """Where a guard refuses one piece of work, another instance gets it, and both stay."""
    clock, door = VirtualClock(), Door()
    fleet = made(clock, one("a", guards=(door,)), one("b"))
    door.refuses = True
    assert [fleet.lease().instance.id for _ in range(2)] == ["b", "b"]
    door.refuses = False
    assert fleet.lease().instance.id == "a"


class OneAtATime(Door):
    """Shuts when it admits, until that has ended; what it refuses has to wait a second."""

    def admit(self, request: Request) -> object | None:
        if request.input_tokens > 100:
            self.opens = NS
            return None
        self.opens = NEVER
        return super().admit(request)

    def ended(self, permit: object, lease: Lease) -> None:
        super().ended(permit, lease)
        self.opens = 0


def test_a_guard_may_shut_by_what_it_admits_or_refuses() -> None:
    """A guard that shuts as it admits a probe, or refuses what is too much for now, is heeded at
    once, and its instance is back when it opens. (S0-60, S0-68)"""
    clock, guard = VirtualClock(), OneAtATime()
    fleet = made(clock, one(capacity=9, guards=(guard,)))
    lease = fleet.lease()
    assert fleet.candidates() == []
    lease.release()
    assert fleet.room() == 9
    with pytest.raises(OverloadedError) as caught:
        fleet.lease(Request(input_tokens=500))
    assert caught.value.retry_after_s == 1
    assert fleet.candidates() == []
    clock.advance(1)
    assert fleet.lease().instance.id == "one"


@pytest.mark.parametrize(
    ("change", "reason", "category"),
    [
        ({"capacity": 0}, Shortage.NO_CAPACITY, Category.EXHAUSTED),
        ({"weight": 0}, Shortage.NO_CAPACITY, Category.EXHAUSTED),
        ({"is_healthy": False}, Shortage.UNHEALTHY, Category.UNAVAILABLE),
        ({"current_load": 2}, Shortage.FULL, Category.EXHAUSTED),
    ],
)
def test_the_error_says_what_is_short(
    change: dict[str, Any], reason: Shortage, category: Category
) -> None:
    """An instance without capacity or weight, ill or full is never chosen, and the error says which
    of these it was. (S0-56, S0-60, S0-63, S0-81)"""
    fleet = made(VirtualClock(), one(**change))
    for asked in (fleet.lease, fleet.select):
        with pytest.raises(OverloadedError, match=reason.value.replace("_", " ")) as caught:
            asked()
        assert (caught.value.reason, caught.value.category) == (reason, category)
        assert caught.value.retry_after_s is None


def test_the_error_says_when_to_try_again() -> None:
    """While all are shut until a known moment the error says how long the first one is, and why.
    (S0-60, S0-81)"""
    clock, soon, late = VirtualClock(), Door(Shortage.RATE_LIMIT), Door()
    fleet = made(clock, one("a", guards=(late,)), one("b", guards=(soon,)))
    clock.advance(1)
    soon.opens, late.opens = 4 * NS, 9 * NS
    for instance in fleet.instances.values():
        instance.changed()
    with pytest.raises(OverloadedError, match="1 circuit open, 1 rate limit") as caught:
        fleet.lease()
    assert (caught.value.reason, caught.value.retry_after_s) == (Shortage.RATE_LIMIT, 3.0)
    assert caught.value.category is Category.RATE_LIMIT
    assert all(i.ejected == (i.id == "a") for i in fleet.instances.values())
    clock.advance(3)
    assert fleet.lease().instance.id == "b"


def test_the_error_says_what_failed() -> None:
    """That instances are left alone is said with what the first of them failed with, on one line and
    in short; not with what the work itself raised, nor once it succeeded. (S0-60, S0-81)"""
    clock, door = VirtualClock(), Door()
    fleet = made(clock, one("a", guards=(door,)))

    def refused_after(error: PacelineError | None) -> str:
        door.opens = 0
        fleet.instances["a"].changed()
        fleet.lease().release(error)
        door.opens = NEVER
        fleet.instances["a"].changed()
        return fleet.refused().message

    plain = "no instance of ml can take it now: 1 circuit open"
    assert refused_after(None) == plain
    down = AgentError("instance a: answered\n500", category=Category.UNAVAILABLE)
    assert refused_after(down) == f"{plain}; instance a: answered 500"
    assert refused_after(AgentError("x" * 999, category=Category.NETWORK)).endswith("x…")
    assert len(refused_after(AgentError("x" * 999, category=Category.NETWORK))) < 300
    assert refused_after(AgentError("ValueError: ada's secret")) == plain
    assert refused_after(down) != refused_after(None) == plain


def test_what_is_shut_for_good_gives_hope_only_with_work_in_flight() -> None:
    """An instance that opens by nothing but its own work is hopeless without any. (S0-60)"""
    door = Door()
    fleet = made(VirtualClock(), one(guards=(door,)))
    lease = fleet.lease()
    door.opens = NEVER
    fleet.instances["one"].changed()
    assert fleet.refusal().hopeful
    lease.release()
    assert not fleet.refusal().hopeful
    assert fleet.refusal().reason is Shortage.CIRCUIT_OPEN


def featured(name: str, **features: Any) -> AgentInstance:
    return AgentInstance(name, "ml", max_capacity=1, features=Features(**features))


def test_required_features_exclude() -> None:
    """An instance is never chosen for work whose needs it does not meet: window, modality, label or
    price. (S0-80, K-06)"""
    fleet = made(
        VirtualClock(),
        featured("small", context_window=8_000, input_usd=1),
        featured("dear", context_window=200_000, input_usd=15, labels={"gpu": "h100"}),
        featured("eyes", modalities=frozenset({"text", "image"})),
    )
    needs = {
        "dear eyes": Needs(context_window=100_000),
        "eyes": Needs(modalities=frozenset({"image"})),
        "dear": Needs(labels=(("gpu", "h100"),)),
        "small eyes": Needs(most_input_usd=2.0),
        "": Needs(labels=(("gpu", "a100"),)),
    }
    for ids, need in needs.items():
        assert [i.id for i in fleet.candidates(need)] == ids.split()
    with pytest.raises(OverloadedError, match="none of 3 has what is needed") as caught:
        fleet.lease(Request(needs[""]))
    assert caught.value.reason is Shortage.UNMATCHED


def test_preferred_features_order() -> None:
    """Those with most of what is preferred are chosen as long as they have capacity, then the
    others; a registration and a change count at once. (S0-80, K-06)"""
    fleet = made(
        VirtualClock(),
        featured("far"),
        featured("near", zone="eu"),
        featured("best", zone="eu", labels={"tier": "fast"}),
    )
    needs = Needs(preferred_zone="eu", preferred_labels=(("tier", "fast"),))
    request = Request(needs)
    leases = [fleet.lease(request) for _ in range(2)]
    assert [lease.instance.id for lease in leases] == ["best", "near"]
    fleet.add(featured("far", zone="eu", labels={"tier": "fast"}))
    leases[1].release()
    far = fleet.lease(request)
    assert far.instance.id == "far"
    fleet.add(featured("new", zone="eu", labels={"tier": "fast"}))
    assert fleet.lease(request).instance.id == "new"


def test_any_number_of_needs_is_no_burden() -> None:
    """Needs without end are answered from a bounded number of lists. (S0-80)"""
    fleet = made(VirtualClock(), featured("one", labels={"n": "7"}))
    for number in range(500):
        found = fleet.candidates(Needs(labels=(("n", str(number)),)))
        assert bool(found) is (number == 7)
    assert len(fleet._views) <= 64
    assert fleet.candidates()


def test_what_was_tried_is_tried_last() -> None:
    """Instances to avoid are chosen only if there is no other. (S0-68)"""
    fleet = made(VirtualClock(), one("a", 1), one("b", 1))
    request = Request(avoid=frozenset("a"))
    leases = [fleet.lease(request) for _ in range(2)]
    assert [lease.instance.id for lease in leases] == ["b", "a"]


def test_registering_again_updates() -> None:
    """An instance registered twice is there once; another with its id changes it and keeps its
    work, and the old object stays the one that counts. (S0-59)"""
    fleet = made(VirtualClock(), one())
    known = fleet.instances["one"]
    assert fleet.add(known) is known
    lease = fleet.lease()
    assert fleet.add(one(capacity=5, weight=3, target="new")) is known
    assert (known.max_capacity, known.weight, known.target, known.in_flight) == (5, 3, "new", 1)
    lease.release()
    assert (known.in_flight, len(fleet.instances)) == (0, 1)


def test_an_instance_has_one_fleet() -> None:
    """An instance registered in one fleet cannot be in a second, until it was removed. (S0-59)"""
    clock, instance = VirtualClock(), one()
    first, second = made(clock, instance), made(clock)
    with pytest.raises(UsageError, match="elsewhere"):
        second.add(instance)
    lease = first.lease()
    first.remove("one")
    assert second.add(instance) is instance
    lease.release()
    assert instance.in_flight == 0
    with pytest.raises(UsageError, match="no instance one"):
        first.remove("one")


class Told(Strategy):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def pick(self, candidates: Any, request: Request, now_ns: int) -> AgentInstance:
        chosen: AgentInstance = candidates[0]
        return chosen

    def joined(self, instance: AgentInstance) -> None:
        self.heard.append(f"joined {instance.id}")

    def left(self, instance: AgentInstance) -> None:
        self.heard.append(f"left {instance.id}")

    def sent(self, lease: Lease) -> None:
        self.heard.append(f"sent {lease.instance.in_flight}")

    def answered(self, lease: Lease) -> None:
        self.heard.append(f"answered {lease.first_ns}")

    def ended(self, lease: Lease) -> None:
        self.heard.append(f"ended {lease.instance.in_flight}")


def test_a_strategy_hears_of_its_own_work_alone() -> None:
    """A strategy is told of instances and of the work it sent, each once and in order; not of what
    was sent before it took over, or before the instance left. (S0-54, S0-83)"""
    clock, first, second = VirtualClock(), Told(), Told()
    fleet = Fleet("ml", first, clock=clock)
    fleet.add(one())
    lease, kept = fleet.lease(), fleet.lease()
    clock.advance(2)
    lease.first_token()
    lease.first_token()
    lease.release()
    fleet.use(second)
    kept.first_token()
    kept.release()
    gone = fleet.lease()
    fleet.add(fleet.remove("one"))
    gone.release()
    assert first.heard == ["joined one", "sent 1", "sent 2", f"answered {2 * NS}", "ended 1"]
    assert second.heard == ["joined one", "sent 1", "left one", "joined one"]
    assert fleet.strategy is second
    last = fleet.lease()
    fleet.remove("one")
    last.release()
    assert second.heard[-2:] == ["sent 1", "left one"]


def test_a_limit_below_the_capacity_is_kept() -> None:
    """An instance without guards that reaches a limit below its capacity gets nothing more until
    some of it has ended. (S0-56, S0-82)"""
    fleet = made(VirtualClock(), one(capacity=9))
    fleet.instances["one"].limit = 2
    lease, _other = fleet.lease(), fleet.lease()
    assert fleet.candidates() == []
    lease.release()
    assert fleet.room() == 1


class Weighs(Told):
    """Hears of changes too."""

    def changed(self, instance: AgentInstance) -> None:
        self.heard.append(f"weight {instance.weight:g}")


def test_a_strategy_hears_of_changes() -> None:
    """A strategy that keeps what instances are like is told when one is registered anew or is
    changed, and of none that has left. (S0-82, S0-83)"""
    strategy = Weighs()
    fleet = Fleet("ml", strategy, clock=VirtualClock())
    known = fleet.add(one(weight=2))
    strategy.heard.clear()
    fleet.add(one(weight=3))
    assert set(strategy.heard) == {"weight 3"}
    known.weight = 4
    assert strategy.heard[-1] == "weight 4"
    fleet.remove("one")
    known.weight = 5
    assert strategy.heard[-1] == "left one"


def test_changing_the_strategy_while_in_use() -> None:
    """A strategy takes over with work in flight and knows the loads that there are. (S0-83)"""
    clock = VirtualClock()
    fleet = Fleet("ml", make("random", clock=clock, rng=random.Random(1)), clock=clock)
    for name in "abc":
        fleet.add(one(name, 10))
    leases = [fleet.lease() for _ in range(15)]
    fleet.use(make("least_loaded", clock=clock, rng=random.Random(1)))
    leases += [fleet.lease() for _ in range(15)]
    assert [i.in_flight for i in fleet.instances.values()] == [10, 10, 10]
    for lease in leases:
        lease.release()
    assert fleet.room() == 30


def test_the_figures_of_an_instance() -> None:
    """Response time, p95 and error rate come from the ends of work by themselves: failures of the
    service count, what says nothing of it does not. (S0-55, S0-66)"""
    clock = VirtualClock()
    fleet = made(clock, one())
    instance = fleet.instances["one"]
    assert (instance.p95_ms, instance.error_rate, instance.response_time_ms) == (None, None, 0)
    ends: list[tuple[float, dict[str, Any]]] = [
        (0.1, {}),
        (0.2, {}),
        (9.0, {"abandoned": True}),
        (0.3, {"error": PacelineError("x", category=Category.NETWORK)}),
        (9.0, {"error": PacelineError("x", category=Category.POLICY)}),
        (0.1, {}),
    ]
    for seconds, end in ends:
        lease = fleet.lease()
        clock.advance(seconds)
        lease.release(**end)
    assert instance.p95_ms == pytest.approx(200, rel=1e-6)
    assert instance.error_rate == 0.25
    assert instance.response_time_ms == pytest.approx(400 / 3, rel=1e-6)


def test_what_an_instance_says_of_itself() -> None:
    """Load and capacity are as of old, except that no capacity is full and not idle. (S0-55, S0-56,
    S0-57)"""
    instance = AgentInstance("i", "ml")
    assert (instance.current_load, instance.max_capacity, instance.weight) == (0, 10, 1.0)
    assert (instance.is_healthy, instance.response_time_ms) == (True, 0.0)
    busy = AgentInstance("i", "ml", 12, 10, 2.0, False, 5.0)
    assert (busy.load_percentage, busy.available_capacity, busy.is_healthy) == (120.0, 0, False)
    assert AgentInstance("i", "ml", max_capacity=0).load_percentage == 100.0
    assert repr(busy) == "AgentInstance('i', 'ml', 12/10)"


@pytest.mark.parametrize(
    "wrong", [{"current_load": -1}, {"capacity": -1}, {"weight": -1}, {"weight": float("nan")}]
)
def test_numbers_below_zero_are_refused(wrong: dict[str, Any]) -> None:
    """A load, capacity or weight below zero raises InvalidInputError and changes nothing. (S0-55)"""
    with pytest.raises(InvalidInputError, match="below zero"):
        one(**wrong)
    instance = one()
    with pytest.raises(InvalidInputError):
        instance.max_capacity = -1
    with pytest.raises(InvalidInputError):
        instance.weight = float("nan")
    assert (instance.max_capacity, instance.weight) == (2, 1.0)


def test_a_load_to_begin_with_is_somebody_elses() -> None:
    """The load an instance was made with takes capacity, and nobody here can release it. (S0-55)"""
    fleet = made(VirtualClock(), one(capacity=3, current_load=2))
    lease = fleet.lease()
    with pytest.raises(OverloadedError):
        fleet.lease()
    lease.release()
    assert fleet.instances["one"].current_load == 2
