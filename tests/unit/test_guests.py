"""Calls that nobody has asked for yet, and that do not go when their place is needed."""

import asyncio
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from paceline import Runtime
from paceline.balance.gate import Gate, enter_all
from paceline.balance.lease import Lease
from paceline.call import Call, Outcome, Priority
from paceline.errors import OverloadedError, Shortage
from paceline.path import Job
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.far import Far, in_runtime
from tests.unit.test_call_path import READ, Bench, Counting

GUESS = Priority.SPECULATIVE
S = 1_000_000_000
LONG_S = 100.0


async def deaf(_: Call) -> str:
    """Ignores that it is cancelled, for long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + LONG_S
    while loop.time() < end:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(end - loop.time())
    return "late"


def ahead(bench: Bench, agent: object, query: str) -> asyncio.Task[Outcome]:
    call = bench.call(READ, priority=GUESS, query=query)
    return asyncio.create_task(bench.path.run(call, Job(agent)))  # type: ignore[arg-type]


def test_another_goes_where_one_does_not() -> None:
    """Where a call ahead ignores that it is to go, another is asked after 5 s, and who waits gets its
    place. (P-01, S2-36)"""

    async def main() -> None:
        bench, heeds, agent = Bench(capacity=2), Counting(LONG_S), Counting(1.0)
        older, younger = ahead(bench, heeds, "older"), ahead(bench, deaf, "younger")
        await asyncio.sleep(1)
        real = await bench.run(agent, query="real")
        assert (real.ok, real.queue_ns) == (True, 5 * S)
        assert not (await older).ok
        await younger
        assert (bench.gate.free, len(bench.gate.guests), bench.gate.guests.going) == (2, 0, 0)

    run(main())


def test_one_that_does_not_go_is_not_counted_on() -> None:
    """Nobody is let wait for the place of a call ahead that has ignored for 5 s that it is to go; once
    it is gone all is as before. (P-01, S2-36)"""

    async def main() -> None:
        bench, agent = Bench(capacity=1, queue=0), Counting(1.0)
        going = ahead(bench, deaf, "ahead")
        await asyncio.sleep(1)
        first = asyncio.create_task(bench.run(agent, query="first", timeout_s=200))
        await asyncio.sleep(6)
        second = await bench.run(agent, query="second")
        assert isinstance(second.error, OverloadedError)
        assert second.error.reason is Shortage.QUEUE_FULL
        assert (await first).queue_ns == 99 * S
        await going
        ahead(bench, Counting(LONG_S), "heeds")
        await asyncio.sleep(1)
        assert (await bench.run(agent, query="third")).queue_ns == 0

    run(main())


def test_nobody_goes_for_who_has_left() -> None:
    """Where who waited has given up before it was clear that a call ahead does not go, the others keep
    their places. (P-01, S2-36)"""

    async def main() -> None:
        bench, heeds = Bench(capacity=2), Counting(20.0)
        older, younger = ahead(bench, heeds, "older"), ahead(bench, deaf, "younger")
        await asyncio.sleep(1)
        left = await bench.run(Counting(1.0), query="left", timeout_s=2.0)
        assert not left.ok
        assert (await older).ok
        await younger

    run(main())


class Deaf(Far):
    """An instance that may ignore that it is cancelled."""

    is_deaf = False

    async def execute(self, call: Call, lease: Lease) -> object:
        """After its time, or, being deaf, after long in any case."""
        return await deaf(call) if self.is_deaf else await super().execute(call, lease)


def test_another_instance_is_given_up_where_one_is_not() -> None:
    """Where a call ahead keeps its instance though it is to go, who waits gets that of another one after
    5 s, though nobody may wait for anything else. (P-01, S2-36)"""
    both = Deaf("a", LONG_S), Deaf("b", LONG_S)

    async def steps(runtime: Runtime) -> None:
        older = asyncio.create_task(runtime.run("far", "older", priority=GUESS))
        await asyncio.sleep(1)
        (taken,) = (one for one in both if one.calls)
        for one in both:
            one.is_deaf = one is not taken
        younger = asyncio.create_task(runtime.run("far", "younger", priority=GUESS))
        await asyncio.sleep(1)
        taken.takes_s = 1
        real = asyncio.create_task(runtime.run("far", "real"))
        await asyncio.sleep(5.5)
        refused = await runtime.run("far", "refused")
        assert isinstance(refused.error, OverloadedError)
        outcome = await real
        assert (outcome.ok, outcome.queue_ns) == (True, 5 * S)
        assert not (await older).ok
        await younger

    in_runtime(steps, *both, capacity=1, run={"max_queue": 0})


class Heeds:
    """A guest that goes when it is asked to, a little later."""

    speculative = True

    def __init__(self, gate: Gate) -> None:
        """It comes."""
        assert gate.try_enter()
        gate.guests.add(self, None)
        self._gate = gate

    def give_way(self) -> None:
        """Ends it."""
        self._going = asyncio.create_task(self._go())

    async def _go(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self._gate.guests.remove(self)
        self._gate.leave()


async def passes(gate: Gate, name: str, order: list[str]) -> None:
    """Is inside for a moment."""
    await gate.enter()
    order.append(name)
    gate.leave()


def test_nobody_takes_the_place_of_a_guest_before_who_waits_for_it() -> None:
    """Where who was to have the place of a guest gives up, those who wait for it already come before who
    comes now. (P-01, S2-36, S2-40)"""

    async def main() -> None:
        gate, order = Gate("the test", 1, 9, clock=VirtualClock()), list[str]()
        Heeds(gate)
        first, second = (asyncio.create_task(passes(gate, name, order)) for name in ("a", "b"))
        await asyncio.sleep(0)
        first.cancel()
        third = asyncio.create_task(passes(gate, "c", order))
        await asyncio.gather(second, third)
        assert order == ["b", "c"]

    run(main())


def test_who_waited_for_another_gate_comes_before_who_comes_now() -> None:
    """Who needs two gates, and waits for a guest of one once the other has a place, is not overtaken by
    who comes to the one alone. (P-01, S2-36, S2-40)"""

    async def main() -> None:
        one, two = (Gate(name, 1, 9, clock=VirtualClock()) for name in ("one", "two"))
        order = list[str]()
        assert two.try_enter()
        Heeds(one)

        async def both() -> None:
            await enter_all([one, two])
            order.append("both")
            one.leave()
            two.leave()

        waits = asyncio.create_task(both())
        await asyncio.sleep(0)
        two.leave()
        later = asyncio.create_task(passes(one, "later", order))
        await asyncio.gather(waits, later)
        assert order == ["both", "later"]

    run(main())


class Stays:
    """A guest that does not go when it is asked to."""

    speculative = True

    def give_way(self) -> None:
        """Does nothing."""


def test_who_waits_for_a_guest_that_stays_keeps_no_other_place() -> None:
    """Who needs two gates, and waits at one for a guest that does not go, has no place of the other for
    more than 5 s: whoever comes there has it, and all are in once the guest has left. (P-01, S2-36)"""

    async def main() -> None:
        shared, own = (
            Gate(name, most, 9, clock=VirtualClock()) for name, most in (("s", 2), ("o", 1))
        )
        guest, order = Stays(), list[str]()
        for gate in (shared, own):
            assert gate.try_enter()
            gate.guests.add(guest, None)

        async def both() -> None:
            await enter_all([shared, own])
            order.append("both")
            shared.leave()
            own.leave()

        waits = asyncio.create_task(both())
        await asyncio.sleep(4)
        assert shared.free == 0
        await asyncio.sleep(2)
        await asyncio.wait_for(passes(shared, "other", order), 1)
        assert order == ["other"]
        for gate in (shared, own):
            gate.guests.remove(guest)
            gate.leave()
        await waits
        assert [(gate.free, gate.waiting) for gate in (shared, own)] == [(2, 0), (1, 0)]

    run(main())


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob", "eve"]),
        st.sampled_from([Priority.LOW, Priority.NORMAL, Priority.HIGH]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=8,
)


@given(CALLS, st.integers(1, 3), st.integers(0, 8))
def test_turns_come_in_the_same_order_with_guests_and_without(
    calls: list[tuple[str, Priority, int]], capacity: int, queue: int
) -> None:
    """Whoever comes to a gate while guests have its places, which heed, gets a place in the same order
    and at the same moment, or is refused alike, as if there were none. (P-01, S2-36, S2-40)"""

    async def order(guests: int) -> list[tuple[int, float, str]]:
        gate = Gate("the test", capacity, queue, weights={"eve": 3.0}, clock=VirtualClock())
        for _ in range(guests):
            Heeds(gate)
        loop, entered = asyncio.get_running_loop(), list[tuple[int, float, str]]()
        await asyncio.sleep(1)

        async def come(number: int, tenant: str, priority: Priority) -> None:
            try:
                await gate.enter(priority, tenant=tenant)
            except OverloadedError as exc:
                entered.append((number, loop.time(), str(exc.reason)))
                return
            entered.append((number, loop.time(), "in"))
            await asyncio.sleep(1.37)
            gate.leave()

        async with asyncio.TaskGroup() as group:
            for number, (tenant, priority, after_s) in enumerate(calls):
                if after_s:
                    await asyncio.sleep(after_s)
                group.create_task(come(number, tenant, priority))
        return sorted(
            entered, key=lambda each: each[2]
        )  # in the order of coming in, then those refused

    assert run(order(capacity)) == run(order(0))


class Place:
    """A gate full of guests, and who is inside besides."""

    def __init__(self, capacity: int) -> None:
        self.gate = Gate("a gate", capacity, 2, clock=VirtualClock())
        self.inside = 0
        for _ in range(capacity):
            Heeds(self.gate)

    def come(self) -> None:
        """One more is inside."""
        self.inside += 1
        assert self.inside + len(self.gate.guests) <= self.gate.capacity

    def go(self) -> None:
        """One less."""
        self.inside -= 1
        self.gate.leave()


async def visit(wanted: list[Place], priority: Priority, time_s: float | None) -> None:
    """Is inside of these for a second, if that is to be had in so many seconds."""
    gates = [place.gate for place in wanted]
    now_ns = gates[0].clock.monotonic_ns()
    deadline_ns = None if time_s is None else now_ns + round(time_s * S)
    try:
        await enter_all(gates, priority, deadline_ns=deadline_ns)
    except OverloadedError:
        return
    for place in wanted:
        place.come()
    try:
        await asyncio.sleep(1)
    finally:
        for place in wanted:
            place.go()


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Priority.LOW, Priority.HIGH]),
            st.sampled_from(["first", "second", "both"]),
            st.integers(0, 6),
            st.sampled_from([None, 0, 1, 2, 3, 4]),
            st.sampled_from([None, 0.5]),
        ),
        max_size=12,
    ),
    st.integers(1, 2),
    st.integers(1, 2),
)
@example([(Priority.LOW, "first", 0, at, None) for at in (None, 2)], 2, 1)
@example([(Priority.LOW, "both", 0, at, None) for at in (None, 2)], 2, 2)
def test_places_of_guests_are_never_lost_nor_given_twice(
    calls: list[tuple[Priority, str, int, int | None, float | None]], one: int, two: int
) -> None:
    """However callers of one gate and of two come, are cancelled and run out of time while guests go, no
    more are inside than there are places, and in the end all places are free. (P-01, S2-36)"""

    async def main() -> None:
        places = {"first": Place(one), "second": Place(two)}
        tasks: list[asyncio.Task[None]] = []
        for priority, where, before, cancelled, time_s in calls:
            await steps(before)
            wanted = [places[name] for name in places if where in (name, "both")]
            tasks.append(asyncio.create_task(visit(wanted, priority, time_s)))
            if cancelled is not None:
                await steps(cancelled)
                tasks[-1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not [task for task in tasks if not task.cancelled() and task.exception()]
        await steps(9)
        for gate in (place.gate for place in places.values()):
            assert (gate.free + len(gate.guests), gate.waiting) == (gate.capacity, 0)
            assert len(gate.filled) == 0

    run(main())
