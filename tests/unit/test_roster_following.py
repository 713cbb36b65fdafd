"""Balancers that follow the roster: they do what is wanted, and say how their instances stand."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from paceline.balance.balancer import LoadBalancer
from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.ejection import Ejection, eject, restore
from paceline.balance.instance import NEVER, AgentInstance
from paceline.balance.rate import Rates
from paceline.errors import AgentError, OverloadedError, Shortage, StorageError
from paceline.roster import Follower, Roster, State, Status, Wish, WishKind, following
from paceline.testing.virtual_time import VirtualClock, run

pytestmark = pytest.mark.usefixtures("closed_rosters")

S = 1_000_000_000


class Bench:
    """A balancer with two instances that follows the roster of a directory."""

    def __init__(self, home: Path, clock: VirtualClock | None = None, process: str = "1::") -> None:
        self.clock = clock or VirtualClock()
        self.home = home
        self.balancer = LoadBalancer(clock=self.clock)
        for name in ("one", "two"):
            self.balancer.register(AgentInstance(name, "a"))
        self.told: list[StorageError] = []
        roster = Roster(
            home / "instances.sqlite", self.clock, process=process, gone=lambda _: False
        )
        self.follower = Follower(roster, self.balancer, self.clock, notice=self.told.append)
        self.operator = Roster(
            home / "instances.sqlite", self.clock, process="9::", gone=lambda _: False
        )

    def wish(self, kind: WishKind, instance: str = "one", for_s: int | None = None) -> None:
        at_ns = self.clock.wall_ns()
        until_ns = None if for_s is None else at_ns + for_s * S
        wish = Wish(
            agent="a", instance=instance, kind=kind, by="ada", at_ns=at_ns, until_ns=until_ns
        )
        self.operator.wish(wish)

    def one(self, name: str = "one") -> AgentInstance:
        return self.balancer.fleet("a").instances[name]

    @property
    def open(self) -> list[str]:
        return [each.id for each in self.balancer.fleet("a").candidates()]

    def status(self) -> Status:
        self.follower.look()
        return self.operator.statuses()[0]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# --- ejections by hand


def test_an_ejected_instance_gets_nothing_until_its_time(bench: Bench) -> None:
    """An instance that was ejected for a time gets no work, keeps what it has, says so, and is given
    work again at that moment by itself. (S0-66)"""
    one = bench.one()
    lease = bench.balancer.try_lease("a")
    assert lease.instance is one
    eject(one, bench.clock.monotonic_ns() + 10 * S)
    assert (one.ejected, one.shortage, one.in_flight) == (True, Shortage.UNHEALTHY, 1)
    assert bench.balancer.status("a").ejected == 1
    assert {bench.balancer.try_lease("a").instance.id for _ in range(5)} == {"two"}
    lease.release()
    bench.clock.advance(10)
    assert bench.balancer.try_lease("a").instance is one


def test_an_ejection_without_an_end_is_taken_back(bench: Bench) -> None:
    """Without an end an ejection holds until the instance is restored; both may be said twice, and
    an instance has one guard for it at most."""
    one = bench.one()
    restore(one)
    assert [*one.guards] == []
    for _ in range(2):
        eject(one, NEVER)
        assert bench.open == ["two"]
    for _ in range(2):
        restore(one)
        assert bench.open == ["one", "two"]
    assert len(one.guards) == 1
    assert isinstance(one.guards[0], Ejection)
    bench.balancer.try_lease("a").release(AgentError("its errors are of no matter"))
    assert bench.open == ["one", "two"]


def test_who_waits_is_let_in_by_a_restoration() -> None:
    """A caller who waits for an instance with a limited ejection gets it as soon as it is restored.
    (S0-59)"""

    async def main() -> float:
        clock = VirtualClock()
        balancer = LoadBalancer(clock=clock)
        only = balancer.register(AgentInstance("only", "a"))
        eject(only, clock.monotonic_ns() + 600 * S)

        async def wait() -> float:
            async with balancer.lease("a", timeout=3_600):
                return asyncio.get_running_loop().time()

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(5)
        restore(only)
        return await waiting

    assert run(main()) == pytest.approx(5, abs=0.1)


# --- what is wanted is done


def test_what_is_wanted_is_done_and_undone(bench: Bench) -> None:
    """A wish of another process takes the instance out at the next look, another wish takes its
    place, and a withdrawn one brings the instance back. (S0-59)"""
    bench.follower.look()
    bench.wish(WishKind.DRAINED)
    assert bench.open == ["one", "two"]
    bench.follower.look()
    assert (bench.open, bench.one().draining, bench.one().ejected) == (["two"], True, False)
    bench.wish(WishKind.EJECTED)
    bench.follower.look()
    assert (bench.open, bench.one().draining, bench.one().ejected) == (["two"], False, True)
    bench.operator.withdraw("a", "one")
    bench.follower.look()
    assert (bench.open, bench.one().draining, bench.one().ejected) == (["one", "two"], False, False)


def test_an_ejection_for_a_time_ends_without_a_look(bench: Bench) -> None:
    """An ejection for ten minutes ends after ten minutes, however often it is looked at meanwhile,
    and if nobody looks at all."""
    bench.wish(WishKind.EJECTED, for_s=600)
    for _ in range(3):
        bench.follower.look()
        bench.clock.advance(199)
        assert bench.open == ["two"]
    bench.clock.advance(3)
    assert bench.open == ["one", "two"]


def test_looking_again_disturbs_no_instance(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done already is not done again at the next look, though two clocks never stand quite
    the same way to each other."""
    steps, wall_ns = itertools.count(), bench.clock.wall_ns
    monkeypatch.setattr(bench.clock, "wall_ns", lambda: wall_ns() + next(steps))
    bench.wish(WishKind.EJECTED, for_s=600)
    bench.wish(WishKind.DRAINED, "two")
    bench.follower.look()
    seen: list[AgentInstance] = []
    for name in ("one", "two"):
        bench.one(name).watcher = seen.append
    bench.follower.look()
    assert seen == []


def test_wishes_hold_after_a_restart(tmp_path: Path) -> None:
    """What was wanted before a process began holds in it, before it gives anybody work. (S0-59)"""
    Bench(tmp_path).wish(WishKind.DRAINED)
    later = Bench(tmp_path)
    later.follower.obey()
    assert later.open == ["two"]
    assert later.operator.statuses() == []


def test_an_instance_that_is_registered_anew_stays_out(bench: Bench) -> None:
    """What is wanted of an instance holds for what is registered under its name later, and what
    is wanted of one that is not there disturbs nothing. (S0-59)"""
    bench.wish(WishKind.DRAINED, "one")
    bench.wish(WishKind.EJECTED, "two")
    bench.wish(WishKind.EJECTED, "three")
    bench.follower.look()
    for name in ("one", "two", "three"):
        bench.balancer.register(AgentInstance(name, "a"))
    bench.follower.look()
    assert bench.open == []
    bench.balancer.unregister("a", "two")
    bench.operator.withdraw("a", "two")
    bench.follower.look()
    assert (bench.open, bench.told) == ([], [])


def test_a_program_that_drains_is_not_disturbed(bench: Bench) -> None:
    """An instance that its own program drains stays so, whatever is wanted of others."""
    bench.one("two").draining = True
    bench.wish(WishKind.DRAINED)
    bench.follower.look()
    bench.operator.withdraw("a", "one")
    bench.follower.look()
    assert bench.open == ["one"]


class Operations(RuleBasedStateMachine):
    """Any order of wishes, looks, restarts of instances and passing time, with two processes."""

    names = st.sampled_from(["one", "two"])
    home: Path
    number = 0

    def __init__(self) -> None:
        super().__init__()
        Operations.number += 1
        home, clock = self.home / str(self.number), VirtualClock()
        self.benches = [Bench(home, clock, "1::"), Bench(home, clock, "2::")]
        self.wanted: dict[str, tuple[WishKind, int]] = {}

    @rule(kind=st.sampled_from(WishKind), name=names, for_s=st.sampled_from([None, 5, 60]))
    def wish(self, kind: WishKind, name: str, for_s: int | None) -> None:
        self.benches[0].wish(kind, name, for_s)
        now_ns = self.benches[0].clock.wall_ns()
        self.wanted[name] = kind, NEVER if for_s is None else now_ns + for_s * S

    @rule(name=names)
    def withdraw(self, name: str) -> None:
        self.benches[0].operator.withdraw("a", name)
        self.wanted.pop(name, None)

    @rule(which=st.sampled_from([0, 1]), name=names)
    def register(self, which: int, name: str) -> None:
        self.benches[which].balancer.register(AgentInstance(name, "a"))

    @rule(seconds=st.sampled_from([1, 7, 30]))
    def wait(self, seconds: int) -> None:
        self.benches[0].clock.advance(seconds)

    @invariant()
    def is_done(self) -> None:
        now_ns = self.benches[0].clock.wall_ns()
        wanted = {name: kind for name, (kind, until) in self.wanted.items() if until > now_ns}
        for bench in self.benches:
            bench.follower.look()
            for name in ("one", "two"):
                instance, kind = bench.one(name), wanted.get(name)
                assert instance.draining is (kind is WishKind.DRAINED)
                assert instance.ejected is (kind is WishKind.EJECTED)
                assert (name in bench.open) is (kind is None)

    def teardown(self) -> None:
        for bench in self.benches:
            bench.follower.leave()
            bench.operator.close()
            assert bench.told == []


def test_every_process_does_what_is_wanted_last(tmp_path: Path) -> None:
    """After each look the instances of every process are as the last wish that holds wants them,
    whatever happened in which order. (S0-59)"""
    kind = type("Here", (Operations,), {"home": tmp_path})
    limits = settings(max_examples=20, stateful_step_count=15, deadline=None)
    run_state_machine_as_test(kind, settings=limits)


# --- what is said


def test_figures_are_published(bench: Bench) -> None:
    """What is published of an instance is what the balancer knows: load, limit, times, failures.
    (S0-66, S0-82)"""
    one = bench.one()
    one.limit = 3
    eject(bench.one("two"), NEVER)
    for failed in (True, False, False, False):
        lease = bench.balancer.try_lease("a")
        bench.clock.advance(0.2)
        lease.release(AgentError("no") if failed else None)
    lease = bench.balancer.try_lease("a")
    status = bench.status()
    lease.release()
    assert status == Status(
        agent="a",
        instance="one",
        state=State.UP,
        in_flight=1,
        capacity=10,
        limit=3,
        p95_ms=200.0,
        error_rate=0.25,
        process="1::",
    )


def test_states_say_why_an_instance_gets_nothing(bench: Bench) -> None:
    """Each reason for which an instance gets no work has a state of its own. (S0-66)"""
    one = bench.one()
    assert bench.status().state is State.UP
    one.limit = 1
    lease = bench.balancer.try_lease("a")
    assert bench.status().state is State.FULL
    one.draining = True
    assert bench.status().state is State.DRAINING
    lease.release()
    assert bench.status().state is State.DRAINED
    one.is_healthy = False
    assert bench.status().state is State.UNHEALTHY
    one.is_healthy, one.draining = True, False
    one.weight = 0
    assert bench.status().state is State.NO_CAPACITY
    one.weight = 1
    eject(one, NEVER)
    status = bench.status()
    assert (status.state, status.opens_ns) == (State.EJECTED, None)
    eject(one, bench.clock.monotonic_ns() + 60 * S)
    assert bench.status().opens_ns == bench.clock.wall_ns() + 60 * S


def test_the_moment_of_opening_is_published(bench: Bench) -> None:
    """A circuit that is open, and a rate that is used up, say when work is given again; a circuit
    says its own state as well. (S0-66)"""
    circuit = Circuit("x", bench.clock, CircuitPolicy(failures=1, wait_s=4))
    rates = Rates(bench.clock, requests=1)
    for name, guard in (("one", circuit), ("two", rates)):
        bench.balancer.register(AgentInstance(name, "a", guards=(guard,)))
    leases = [bench.balancer.try_lease("a") for _ in range(2)]
    for lease in leases:
        lease.release(AgentError("no") if lease.instance.id == "one" else None)
    with pytest.raises(OverloadedError):
        bench.balancer.try_lease("a")
    bench.follower.look()
    one, two = bench.operator.statuses()
    now_ns = bench.clock.wall_ns()
    assert (one.state, one.circuit, one.opens_ns) == (State.CIRCUIT_OPEN, "open", now_ns + 4 * S)
    assert (two.state, two.circuit) == (State.RATE_LIMIT, None)
    assert two.opens_ns is not None
    assert now_ns < two.opens_ns <= now_ns + 60 * S


def test_nothing_is_written_while_nothing_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer at rest writes once in five seconds; one with nothing to say writes nothing, and
    what changes is written at the next look. (S0-66)"""
    writes: list[Sequence[Status]] = []
    publish = bench.follower._roster.publish

    def noted(statuses: Sequence[Status]) -> None:
        writes.append(statuses)
        publish(statuses)

    monkeypatch.setattr(Roster, "publish", lambda _, statuses: noted(statuses))
    for _ in range(20):
        bench.follower.look()
        bench.clock.advance(1)
    assert len(writes) == 4
    lease = bench.balancer.try_lease("a")
    bench.follower.look()
    assert len(writes) == 5
    lease.release()
    for name in ("one", "two"):
        bench.balancer.unregister("a", name)
    for _ in range(20):
        bench.follower.look()
        bench.clock.advance(1)
    assert writes[5:] == [[]]


# --- trouble


def test_trouble_with_the_file_disturbs_nothing(bench: Bench) -> None:
    """A roster that cannot be used is told once, not at every look; work goes on, what was wanted
    before still holds; once it can be used it is followed again, and new trouble is told."""
    bench.wish(WishKind.DRAINED)
    bench.follower.look()
    bench.operator.close()
    bench.follower._roster.close()
    bench.follower._roster.path.rename(bench.home / "kept")
    bench.follower._roster.path.mkdir()
    for _ in range(3):
        bench.follower.look()
    assert len(bench.told) == 1
    assert bench.balancer.try_lease("a").instance.id == "two"
    assert bench.open == ["two"]
    bench.follower._roster.path.rmdir()
    bench.follower.look()
    assert bench.open == ["one", "two"]
    bench.wish(WishKind.EJECTED)
    bench.follower.look()
    assert (bench.open, len(bench.told)) == (["two"], 1)
    bench.operator.close()
    bench.follower._roster.close()
    for file in bench.home.glob("instances.sqlite*"):
        file.unlink()
    bench.follower._roster.path.mkdir()
    bench.follower.look()
    assert len(bench.told) == 2


# --- beside a block


async def until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110 (another thread does it, in real time)
        await asyncio.sleep(1)


def test_a_block_follows_and_leaves_nothing(tmp_path: Path) -> None:
    """In the block wishes hold from its beginning and new ones within seconds, and the instances are
    shown; after it they are not. (S0-59, S0-66)"""

    async def main() -> None:
        bench = Bench(tmp_path, VirtualClock())
        bench.wish(WishKind.DRAINED, "two")
        roster = Roster(tmp_path / "instances.sqlite", bench.clock)
        async with following(roster, bench.balancer, bench.clock, notice=bench.told.append):
            assert bench.open == ["one"]
            await until(lambda: bool(bench.operator.statuses()))
            bench.wish(WishKind.EJECTED)
            await until(lambda: not bench.open)
        assert bench.operator.statuses() == []
        assert bench.told == []

    run(main())


def test_a_block_that_is_over_at_once_writes_nothing(tmp_path: Path) -> None:
    """A command that runs for less than a second leaves no file behind."""

    async def main() -> None:
        bench = Bench(tmp_path, VirtualClock())
        roster = Roster(tmp_path / "instances.sqlite", bench.clock)
        async with following(roster, bench.balancer, bench.clock, notice=bench.told.append):
            await asyncio.sleep(0.5)
        assert bench.told == []

    run(main())
    assert not list(tmp_path.iterdir())
