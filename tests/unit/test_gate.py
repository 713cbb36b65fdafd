"""Admission to limited capacity."""

import asyncio
import gc
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

from paceline.balance.gate import Gate, Ticket, enter_all
from paceline.call import Priority
from paceline.errors import Category, OverloadedError
from paceline.testing.virtual_time import VirtualTimeLoop, run

PLACES, QUEUE = 2, 4


class Visits(RuleBasedStateMachine):
    """Callers come, leave and are cancelled in any order, beside a model of who must be where.

    Callers are numbered as they come. In the model the queue is a list of (-priority, number),
    so its least element is who is next.
    """

    def __init__(self, make: Callable[[str, int, int], Gate] = Gate) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.gate = make("the test", PLACES, QUEUE)
        self.capacity = PLACES
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.go: dict[int, asyncio.Event] = {}
        self.inside: list[int] = []
        self.refused: set[int] = set()
        self.must_be_inside: list[int] = []
        self.must_wait: list[tuple[int, int]] = []
        self.must_be_refused: set[int] = set()

    async def _visit(self, number: int, priority: Priority) -> None:
        try:
            await self.gate.enter(priority)
        except OverloadedError:
            self.refused.add(number)
            return
        self.inside.append(number)
        try:
            await self.go[number].wait()
        finally:
            self.inside.remove(number)
            self.gate.leave()

    def _settle(self) -> None:
        async def until_nothing_moves() -> None:
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(until_nothing_moves())

    def _admit(self) -> None:
        self.must_wait.sort()
        while self.must_wait and len(self.must_be_inside) < self.capacity:
            self.must_be_inside.append(self.must_wait.pop(0)[1])

    @rule(priority=st.sampled_from(Priority))
    def come(self, priority: Priority) -> None:
        number = len(self.tasks)
        self.go[number] = asyncio.Event()
        self.tasks[number] = self.loop.create_task(self._visit(number, priority))
        if len(self.must_be_inside) < self.capacity:
            self.must_be_inside.append(number)
        elif len(self.must_wait) >= QUEUE:
            self.must_be_refused.add(number)
        else:
            self.must_wait.append((-priority, number))
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
        self.tasks[self.must_wait.pop(pick % len(self.must_wait))[1]].cancel()
        self._settle()

    @precondition(lambda self: self.must_wait)
    @rule(admitted_first=st.booleans())
    def resize_and_cancel_the_next_in_one_moment(self, admitted_first: bool) -> None:
        """The next in the queue is admitted and cancelled before it can run, or the reverse."""
        following = min(self.must_wait)
        task = self.tasks[following[1]]
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


QUICK = settings(max_examples=150, stateful_step_count=25, deadline=None, database=None)
SEEDED = settings(
    QUICK,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_places_go_to_the_most_urgent_and_none_is_lost() -> None:
    """Whatever callers do, never more than the capacity are inside, every free place goes to the
    first of the most urgent who wait, and a cancelled caller costs nobody a place."""
    run_state_machine_as_test(Visits, settings=QUICK)


class LosesThePlaceOfTheCancelled(Gate):  # type: ignore[misc]
    """Does not pass on the place of a caller cancelled as it was admitted."""

    async def enter(self, priority: Priority = Priority.NORMAL) -> None:
        before = self.in_use
        try:
            await super().enter(priority)
        except asyncio.CancelledError:
            self.free -= before - self.in_use
            raise


class ForgetsWhoWaits(Gate):  # type: ignore[misc]
    """Wakes nobody when a place becomes free."""

    def _admit(self) -> None:
        return


class IgnoresPriority(Gate):  # type: ignore[misc]
    """Serves everybody in the order of coming."""

    async def enter(self, priority: Priority = Priority.NORMAL) -> None:
        await super().enter(Priority.NORMAL)


class LastFirst(Gate):  # type: ignore[misc]
    """Serves the last to come first."""

    def _admit(self) -> None:
        for queue in self._queues.values():
            for ticket in reversed(tuple(queue)):
                if self.free > 0 and not ticket.turn.done():
                    self.free -= 1
                    del queue[ticket]
                    ticket.turn.set_result(None)


class AdmitsTheCancelled(Gate):  # type: ignore[misc]
    """Gives places to callers who have left the queue in the same moment."""

    def _admit(self) -> None:
        while self.free > 0 and self.waiting:
            queue = next(q for q in self._queues.values() if q)
            ticket, _ = queue.popitem(last=False)
            self.free -= 1
            if not ticket.turn.done():
                ticket.turn.set_result(None)


class AdmitsOneTooMany(Gate):  # type: ignore[misc]
    """Counts its capacity from zero."""

    def __init__(self, name: str, capacity: int, max_queue: int) -> None:
        super().__init__(name, capacity + 1, max_queue)


class HasNoEndOfQueue(Gate):  # type: ignore[misc]
    """Lets any number wait."""

    def __init__(self, name: str, capacity: int, max_queue: int) -> None:
        super().__init__(name, capacity, 1_000_000)


class OvertakesInLeaving(Gate):  # type: ignore[misc]
    """After a cut in capacity still admits one for each that leaves."""

    def leave(self) -> None:
        self.free += 1
        if queue := next((q for q in self._queues.values() if q), None):
            ticket, _ = queue.popitem(last=False)
            self.free -= 1
            ticket.turn.set_result(None)


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
    ],
)
def test_a_gate_with_a_fault_is_caught(mutant: type[Gate]) -> None:
    """The law above fails for gates that lose, reorder or overfill places."""
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lambda: Visits(mutant), settings=SEEDED)  # type: ignore[arg-type]


def test_a_full_queue_refuses_at_once() -> None:
    """A caller beyond the queue's limit is refused without waiting, with an error that is safe
    to repeat and says what is full. (X-17)"""

    async def main() -> float:
        gate = Gate("the tool", 1, 0)
        await gate.enter()
        with pytest.raises(OverloadedError, match="the tool is at its limit of 1") as caught:
            await gate.enter(Priority.HIGH)
        assert caught.value.category is Category.EXHAUSTED
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

        async def enter(self, priority: Priority = Priority.NORMAL) -> None:
            self.kept.append(asyncio.get_running_loop().create_future())
            await super().enter(priority)

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
