"""Admission to limited capacity."""

import asyncio
import contextlib
import gc
from collections.abc import Callable
from typing import Any, NamedTuple

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

from paceline.balance.gate import Gate, Ticket, enter_all
from paceline.call import Priority
from paceline.errors import Category, OverloadedError, Shortage
from paceline.testing.virtual_time import VirtualClock, VirtualTimeLoop, run

PLACES, QUEUE, AGEING_S = 2, 4, 10
NS = 1_000_000_000
PATIENCE_S = 15  # of callers with a deadline: they rise once before it


class LoopClock:
    """The time of a loop, whether it runs or not."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def monotonic_ns(self) -> int:
        return round(self._loop.time() * NS)

    def wall_ns(self) -> int:
        return self.monotonic_ns()


class Waiting(NamedTuple):
    """One who waits, in the model."""

    priority: Priority
    came_s: int
    number: int
    patient: bool

    def level(self, now_s: int) -> int:
        """Its priority by now."""
        if self.priority is Priority.SPECULATIVE:
            return self.priority
        return min(Priority.HIGH, self.priority + (now_s - self.came_s) // AGEING_S)

    def turn(self, now_s: int) -> tuple[int, int, bool, int]:
        """The least is next: by priority, when it got there, whether it rose, and number."""
        level = self.level(now_s)
        since_s = self.came_s + (level - self.priority) * AGEING_S
        return -level, since_s, level == self.priority, self.number


class Visits(RuleBasedStateMachine):
    """Callers come, leave and are cancelled in any order, while time passes, beside a model of who
    must be where. Callers are numbered as they come."""

    def __init__(self, make: Callable[..., Gate] = Gate) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        clock = LoopClock(self.loop)
        self.gate = make("the test", PLACES, QUEUE, clock=clock, ageing_s=AGEING_S)
        self.capacity = PLACES
        self.now_s = 0
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.go: dict[int, asyncio.Event] = {}
        self.inside: list[int] = []
        self.refused: dict[int, Shortage] = {}
        self.must_be_inside: list[int] = []
        self.must_wait: list[Waiting] = []
        self.must_be_refused: dict[int, Shortage] = {}

    async def _visit(self, number: int, priority: Priority, deadline_ns: int | None) -> None:
        try:
            await self.gate.enter(priority, deadline_ns=deadline_ns)
        except OverloadedError as exc:
            self.refused[number] = exc.reason
            return
        self.inside.append(number)
        try:
            await self.go[number].wait()
        finally:
            self.inside.remove(number)
            self.gate.leave()

    def _settle(self, seconds: int = 0) -> None:
        async def until_nothing_moves() -> None:
            if seconds:
                await asyncio.sleep(seconds)
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(until_nothing_moves())

    def _turn(self, waiting: Waiting) -> tuple[int, int, bool, int]:
        return waiting.turn(self.now_s)

    def _admit(self) -> None:
        while self.must_wait and len(self.must_be_inside) < self.capacity:
            following = min(self.must_wait, key=self._turn)
            self.must_wait.remove(following)
            self.must_be_inside.append(following.number)

    @rule(priority=st.sampled_from(Priority), patient=st.booleans())
    def come(self, priority: Priority, patient: bool) -> None:
        number = len(self.tasks)
        self.go[number] = asyncio.Event()
        deadline_ns = None if patient else (self.now_s + PATIENCE_S) * NS
        visit = self._visit(number, priority, deadline_ns)
        self.tasks[number] = self.loop.create_task(visit)
        newcomer = Waiting(priority, self.now_s, number, patient)
        if len(self.must_be_inside) < self.capacity:
            self.must_be_inside.append(number)
        elif len(self.must_wait) < QUEUE:
            self.must_wait.append(newcomer)
        else:
            least_level = min(one.level(self.now_s) for one in self.must_wait)
            least = max(self.must_wait, key=self._turn)
            if least_level < priority:
                self.must_wait.remove(least)
                self.must_be_refused[least.number] = Shortage.SHED
                self.must_wait.append(newcomer)
            else:
                self.must_be_refused[number] = Shortage.QUEUE_FULL
        self._settle()

    @precondition(lambda self: self.must_be_inside)
    @rule(pick=st.integers(0, 99), cancelled=st.booleans())
    def leave(self, pick: int, cancelled: bool) -> None:
        number = self.must_be_inside.pop(pick % len(self.must_be_inside))
        if cancelled:
            self.tasks[number].cancel()
        else:
            self.go[number].set()
        self._admit()
        self._settle()

    @precondition(lambda self: self.must_wait)
    @rule(pick=st.integers(0, 99))
    def lose_patience(self, pick: int) -> None:
        self.tasks[self.must_wait.pop(pick % len(self.must_wait)).number].cancel()
        self._settle()

    @precondition(lambda self: self.must_wait)
    @rule(admitted_first=st.booleans())
    def resize_and_cancel_the_next_in_one_moment(self, admitted_first: bool) -> None:
        """The next in the queue is admitted and cancelled before it can run, or the reverse."""
        following = min(self.must_wait, key=self._turn)
        task = self.tasks[following.number]
        if not admitted_first:
            task.cancel()
        self.capacity = len(self.must_be_inside) + 1
        self.gate.resize(self.capacity)
        if admitted_first:
            task.cancel()
        self.must_wait.remove(following)
        self._admit()
        self._settle()

    @rule(capacity=st.integers(0, 4))
    def resize(self, capacity: int) -> None:
        self.capacity = capacity
        self.gate.resize(capacity)
        self._admit()
        self._settle()

    @precondition(lambda self: self.must_wait)
    @rule(seconds=st.sampled_from([1, 10, 16, 20]))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds
        for one in tuple(self.must_wait):
            if not one.patient and one.came_s + PATIENCE_S <= self.now_s:
                self.must_wait.remove(one)
                self.must_be_refused[one.number] = Shortage.LATE
        self._settle(seconds)

    @invariant()
    def everyone_is_where_the_model_says(self) -> None:
        assert sorted(self.inside) == sorted(self.must_be_inside)
        assert self.refused == self.must_be_refused
        assert self.gate.in_use == len(self.must_be_inside)
        assert self.gate.waiting == len(self.must_wait)

    def teardown(self) -> None:
        async def everyone_leaves() -> list[BaseException | None]:
            for task in self.tasks.values():
                task.cancel()
            return await asyncio.gather(*self.tasks.values(), return_exceptions=True)

        outcomes = self.loop.run_until_complete(everyone_leaves())
        self.loop.close()
        assert all(o is None or isinstance(o, asyncio.CancelledError) for o in outcomes)
        assert self.gate.in_use == self.gate.waiting == 0


QUICK = settings(max_examples=80, stateful_step_count=25, deadline=None, database=None)
SEEDED = settings(
    QUICK,
    max_examples=150,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_places_go_to_the_most_urgent_and_none_is_lost() -> None:
    """Whatever callers do, never more than the capacity are inside, every free place goes to the
    first of the most urgent by now, each caller has one outcome, at its deadline at the latest, and
    a cancelled one costs nobody a place. (S0-64, S0-81, X-17)"""
    run_state_machine_as_test(Visits, settings=QUICK)


class LosesThePlaceOfTheCancelled(Gate):  # type: ignore[misc]
    """Does not pass on the place of a caller cancelled as it was admitted."""

    async def enter(self, priority: Priority = Priority.NORMAL, **options: Any) -> None:
        before = self.in_use
        try:
            await super().enter(priority, **options)
        except asyncio.CancelledError:
            self.free -= before - self.in_use
            raise


class ForgetsWhoWaits(Gate):  # type: ignore[misc]
    """Wakes nobody when a place becomes free."""

    def _admit(self) -> None:
        return


class IgnoresPriority(Gate):  # type: ignore[misc]
    """Serves everybody in the order of coming."""

    async def enter(self, priority: Priority = Priority.NORMAL, **options: Any) -> None:
        await super().enter(Priority.NORMAL, **options)


def _queued(gate: Gate, *, newest: bool = False) -> list[Ticket]:
    """All in the queue, the most urgent first."""
    levels = reversed(gate.queue._levels.values())
    waiting = (reversed(level.rises) if newest else iter(level.rises) for level in levels)
    return [ticket for tickets in waiting for ticket in tickets]


class LastFirst(Gate):  # type: ignore[misc]
    """Serves the last to come first."""

    def _admit(self) -> None:
        for ticket in _queued(self, newest=True):
            if self.free > 0 and not ticket.turn.done():
                ticket.admit()


class AdmitsTheCancelled(Gate):  # type: ignore[misc]
    """Gives places to callers who have left the queue in the same moment."""

    def _admit(self) -> None:
        for ticket in _queued(self):
            if self.free > 0 and not ticket.turn.done():
                ticket.admit()
            elif self.free > 0:
                ticket.withdraw()
                self.free -= 1


class AdmitsOneTooMany(Gate):  # type: ignore[misc]
    """Counts its capacity from zero."""

    def __init__(self, name: str, capacity: int, max_queue: int, **options: Any) -> None:
        super().__init__(name, capacity + 1, max_queue, **options)


class HasNoEndOfQueue(Gate):  # type: ignore[misc]
    """Lets any number wait."""

    def __init__(self, name: str, capacity: int, max_queue: int, **options: Any) -> None:
        super().__init__(name, capacity, 1_000_000, **options)


class OvertakesInLeaving(Gate):  # type: ignore[misc]
    """After a cut in capacity still admits one for each that leaves."""

    def leave(self) -> None:
        self.free += 1
        for ticket in _queued(self)[:1]:
            ticket.admit()


class LetsNobodyRise(Gate):  # type: ignore[misc]
    """Lets those wait for ever who are always overtaken."""

    def __init__(self, *args: Any, ageing_s: float, **options: Any) -> None:
        super().__init__(*args, **options, ageing_s=1e9)


class ForgetsDeadlines(Gate):  # type: ignore[misc]
    """Lets callers wait for longer than they have time."""

    async def enter(self, *args: Any, deadline_ns: int | None = None, **options: Any) -> None:
        await super().enter(*args, **options)


class ShedsTheFirst(Gate):  # type: ignore[misc]
    """Makes those give way who have waited for longest."""

    async def enter(self, priority: Priority = Priority.NORMAL, **options: Any) -> None:
        waiting = _queued(self)
        if self.free <= 0 and len(waiting) >= self.max_queue:
            waiting[0].refuse(self.overloaded(Shortage.SHED, "and so on"))
        await super().enter(priority, **options)


@pytest.mark.parametrize(
    "mutant",
    [
        LosesThePlaceOfTheCancelled,
        ForgetsWhoWaits,
        IgnoresPriority,
        LastFirst,
        AdmitsTheCancelled,
        AdmitsOneTooMany,
        HasNoEndOfQueue,
        OvertakesInLeaving,
        LetsNobodyRise,
        ForgetsDeadlines,
        ShedsTheFirst,
    ],
)
def test_a_gate_with_a_fault_is_caught(mutant: type[Gate]) -> None:
    """The law above fails for gates that lose, reorder or overfill places."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lambda: Visits(mutant), settings=SEEDED)  # type: ignore[arg-type]


def test_a_full_queue_refuses_at_once() -> None:
    """A caller beyond the queue's limit is refused without waiting, with an error that is safe
    to repeat and says what is full. (X-17, S0-81, E95)"""

    async def main() -> float:
        gate = Gate("the tool", 1, 0)
        await gate.enter()
        with pytest.raises(OverloadedError, match="the tool is at its limit of 1") as caught:
            await gate.enter(Priority.HIGH)
        assert caught.value.category is Category.EXHAUSTED
        assert caught.value.reason is Shortage.QUEUE_FULL
        assert not caught.value.may_have_started
        return asyncio.get_running_loop().time()

    assert run(main()) == 0


def _futures() -> int:
    gc.collect()
    return sum(type(kept) is asyncio.Future for kept in gc.get_objects())


def _left_behind(make: Callable[[str, int, int], Gate], callers: int) -> int:
    """Futures that exist after so many callers gave up waiting, beyond those before."""

    async def main() -> int:
        gate = make("the test", 1, 10)
        await gate.enter()
        before = _futures()
        for _ in range(callers):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await gate.enter()
        return _futures() - before

    return run(main())


def test_impatient_callers_leave_nothing_behind() -> None:
    """Callers who give up while every place is taken cost no memory, however many they are."""

    class KeepsTurns(Gate):  # type: ignore[misc]
        def __init__(self, *options: Any) -> None:
            super().__init__(*options)
            self.kept: list[object] = []

        async def enter(self, priority: Priority = Priority.NORMAL, **options: Any) -> None:
            self.kept.append(asyncio.get_running_loop().create_future())
            await super().enter(priority, **options)

    assert _left_behind(Gate, 50) <= 1
    assert _left_behind(KeepsTurns, 50) >= 50


async def test_a_caller_thrown_away_in_the_queue_takes_no_place() -> None:
    """A waiting coroutine that is closed rather than cancelled gives up its turn too."""
    gate = Gate("the test", 1, 10)
    await gate.enter()
    waiter = gate.enter()
    waiter.send(None)
    assert gate.waiting == 1
    waiter.close()
    assert gate.waiting == 0
    gate.leave()
    assert gate.in_use == 0


async def check_no_circle(enter: Callable[..., Any]) -> None:
    """Callers that need the same gates in any order all get through, one after the other."""
    one, two = Gate("one", 1, 10), Gate("two", 1, 10)
    order: list[int] = []

    async def visit(number: int, *gates: Gate) -> None:
        await enter(gates)
        await asyncio.sleep(1)
        order.append(number)
        for gate in gates:
            gate.leave()

    async with asyncio.timeout(60):
        await asyncio.gather(
            visit(1, one), visit(2, two), visit(3, one, two), visit(4, two, one), visit(5, one, two)
        )
    assert order == [1, 2, 3, 4, 5]
    assert (one.in_use, two.in_use, one.waiting, two.waiting) == (0, 0, 0, 0)


async def check_nobody_is_kept_from_a_free_gate(enter: Callable[..., Any]) -> None:
    """Who waits for a busy gate takes no place in a free one meanwhile."""
    common, busy, idle = Gate("common", 2, 10), Gate("busy", 1, 10), Gate("idle", 1, 10)
    await enter((common, busy))
    waiting = [asyncio.create_task(enter((common, busy))) for _ in range(5)]
    await asyncio.sleep(1)
    async with asyncio.timeout(1):
        await enter((common, idle))
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert (common.in_use, common.waiting) == (2, 0)


async def one_after_the_other(gates: tuple[Gate, ...]) -> None:
    for gate in gates:
        await gate.enter()


MANY = [check_no_circle, check_nobody_is_kept_from_a_free_gate]


@pytest.mark.parametrize("check", MANY, ids=lambda check: check.__name__)
def test_several_gates_are_entered_in_one_moment(check: Callable[..., Any]) -> None:
    """Who waits for several gates holds none of them; entering them in turn is caught."""
    run(check(enter_all))
    with pytest.raises((TimeoutError, AssertionError)):
        run(check(one_after_the_other))


def test_a_full_queue_of_one_gate_refuses() -> None:
    """Of several gates the full one is named, and no place in the others is taken."""

    async def main() -> None:
        full, free = Gate("full", 1, 0), Gate("free", 1, 0)
        await full.enter()
        with pytest.raises(OverloadedError, match="full is at its limit"):
            await enter_all((free, full))
        assert free.in_use == 0

    run(main())


def test_a_caller_that_became_urgent_goes_before_the_others() -> None:
    """A ticket raised to a priority waits behind those who had it before, before all below it; it
    is never lowered, and once admitted nothing changes any more."""

    async def main() -> None:
        gate, order = Gate("the test", 1, 9), list[str]()
        tickets: dict[str, Ticket] = {}

        async def visit(name: str, priority: Priority) -> None:
            await enter_all((gate,), priority, waiting=lambda t: tickets.__setitem__(name, t))
            order.append(name)
            gate.leave()

        await gate.enter()
        visits = [
            asyncio.create_task(visit(name, priority))
            for name, priority in (
                ("ahead", Priority.SPECULATIVE),
                ("joined", Priority.SPECULATIVE),
                ("high", Priority.HIGH),
                ("low", Priority.LOW),
            )
        ]
        await asyncio.sleep(0)
        tickets["joined"].raise_to(Priority.HIGH)
        tickets["high"].raise_to(Priority.LOW)
        gate.leave()
        await asyncio.gather(*visits)
        tickets["low"].raise_to(Priority.HIGH)
        assert order == ["high", "joined", "low", "ahead"]
        assert (gate.waiting, gate.in_use) == (0, 0)

    run(main())


def test_whoever_has_to_wait_is_told_when_to_come_back() -> None:
    """Who is refused or shed learns how long those before it will take, by the pace at which
    places were given; nobody knows before the first was. (S0-60, S0-81, V-32)"""

    async def main() -> list[tuple[Shortage, float | None]]:
        gate, told = Gate("the test", 1, 3, clock=VirtualClock()), list[Any]()

        async def visit(priority: Priority) -> None:
            try:
                await gate.enter(priority)
            except OverloadedError as exc:
                told.append((exc.reason, exc.retry_after_s))
                return
            await asyncio.sleep(2)
            gate.leave()

        visits = [asyncio.create_task(visit(Priority.LOW)) for _ in range(5)]
        await asyncio.sleep(3)
        visits.extend(asyncio.create_task(visit(p)) for p in (Priority.LOW, Priority.HIGH))
        visits.append(asyncio.create_task(visit(Priority.HIGH)))
        await asyncio.gather(*visits)
        return told

    assert run(main()) == [(Shortage.QUEUE_FULL, None), (Shortage.SHED, 6), (Shortage.SHED, 6)]


def test_who_comes_too_late_does_not_even_wait() -> None:
    """A deadline that has passed is refused at once, although there is a place. (S0-64)"""

    async def main() -> None:
        clock = VirtualClock()
        gate = Gate("the test", 1, 3, clock=clock)
        with pytest.raises(OverloadedError) as caught:
            await gate.enter(deadline_ns=clock.monotonic_ns())
        assert (caught.value.reason, gate.in_use) == (Shortage.LATE, 0)
        await gate.enter(deadline_ns=clock.monotonic_ns() + 1)
        assert gate.in_use == 1

    run(main())


def test_work_that_expired_takes_no_place_from_work_that_did_not() -> None:
    """Where a place comes free after a deadline, but before the loop could tell its caller, the
    place goes to the next. (S0-64)"""

    async def main() -> list[str]:
        clock, order = VirtualClock(), list[str]()
        gate = Gate("the test", 1, 3, clock=clock)

        async def visit(name: str, deadline_ns: int | None) -> None:
            try:
                await gate.enter(deadline_ns=deadline_ns)
            except OverloadedError as exc:
                order.append(f"{name} {exc.reason}")
            else:
                order.append(name)

        await gate.enter()
        visits = [
            asyncio.create_task(visit("first", clock.monotonic_ns() + NS)),
            asyncio.create_task(visit("second", None)),
        ]
        await asyncio.sleep(0)
        clock.advance(5)  # the loop was busy for so long
        gate.leave()
        await asyncio.gather(*visits)
        return order

    assert run(main()) == ["first late", "second"]


def test_who_got_in_has_no_deadline_any_more() -> None:
    """The timer of a caller ends with its waiting, admitted or not. (S0-64)"""

    async def main() -> None:
        gate = Gate("the test", 1, 9, clock=VirtualClock())
        await gate.enter()
        visits = [asyncio.create_task(gate.enter(deadline_ns=60 * NS)) for _ in range(3)]
        await asyncio.sleep(0)
        loop: Any = asyncio.get_running_loop()
        assert len(loop._scheduled) == 3
        visits[0].cancel()
        for _ in range(2):
            gate.leave()
        await asyncio.wait(visits)
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []

    run(main())


def test_a_place_is_taken_at_once_or_not_at_all() -> None:
    """Trying to enter never waits, and takes a place only where there is one."""
    gate = Gate("the test", 1, 3)
    assert [gate.try_enter(), gate.try_enter()] == [True, False]
    gate.leave()
    assert gate.try_enter()
    assert gate.in_use == 1


def test_a_tenant_with_much_to_do_does_not_keep_others_out() -> None:
    """While one tenant has filled the queue, another that asks for one thing at a time is let into
    it, and never waits for more than two of the first's. (S0-81)"""

    async def main() -> list[str]:
        gate, order = Gate("the test", 1, 8), list[str]()

        async def visit(tenant: str) -> None:
            with contextlib.suppress(OverloadedError):
                await gate.enter(tenant=tenant)
                order.append(tenant)
                await asyncio.sleep(1)
                gate.leave()

        async def modest() -> None:
            for _ in range(3):
                await visit("modest")

        await asyncio.gather(*(visit("busy") for _ in range(30)), modest())
        return order

    assert run(main()) == ["busy", "busy", "modest"] * 3 + ["busy"] * 2


@pytest.mark.parametrize("moment", range(12))
def test_cancelling_at_any_moment_loses_no_place(moment: int) -> None:
    """However far a caller of two gates has got when it is cancelled, both gates are as if it had
    not been there, and the next gets in. (S0-64)"""

    async def main() -> None:
        one, two = Gate("one", 1, 9), Gate("two", 1, 9)

        async def visit() -> None:
            await enter_all((one, two), tenant="a", deadline_ns=None)
            try:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            finally:
                one.leave()
                two.leave()

        visits = [asyncio.create_task(visit()) for _ in range(4)]
        for _ in range(moment):
            await asyncio.sleep(0)
        visits[moment % 4].cancel()
        await asyncio.wait(visits)
        assert (one.in_use, two.in_use, one.waiting, two.waiting) == (0, 0, 0, 0)
        assert sum(visit.cancelled() for visit in visits) <= 1

    run(main())


def test_making_room_in_one_of_two_full_queues_is_not_begun() -> None:
    """Who is refused by one of its gates has nobody thrown out of the queue of another."""

    async def main() -> None:
        one, two = Gate("one", 1, 1), Gate("two", 1, 0)
        await enter_all((one, two))
        waits = asyncio.create_task(one.enter(Priority.LOW))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="two is at its limit"):
            await enter_all((one, two), Priority.HIGH)
        one.leave()
        await waits
        assert one.in_use == 1

    run(main())
