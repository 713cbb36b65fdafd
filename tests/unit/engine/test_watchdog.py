"""The state monitor: what lasts too long, what goes round in circles, and silence otherwise."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from paceline.engine.machine import Machine, next_state
from paceline.engine.states import AgentState, TransitionTrigger, Trouble
from paceline.engine.watchdog import LIMITS_S, Alarm, Stuck, Thrashing, Watchdog
from paceline.errors import Category, UsageError
from paceline.testing.virtual_time import VirtualClock, run

S = AgentState
T = TransitionTrigger
SHORT: Mapping[S, float] = {S.PROCESSING_PROMPT: 10.0, S.EXECUTING_TOOLS: 30.0}


def go(machine: Machine, *path: T) -> None:
    """Makes moves of one turn that have to be legal."""
    for trigger in path:
        at = machine.state
        trouble = None
        if next_state(at, trigger, at) is S.ERROR:
            trouble = Trouble(Category.TIMEOUT, "too late", retryable=True, origin=at)
        machine.move(at, trigger, turn_id="t1", trouble=trouble)


def watched(
    course: Callable[[Machine, Watchdog], Awaitable[object]], **o: Any
) -> tuple[list[Alarm], Watchdog]:
    """The alarms of a course in virtual time, and who raised them."""
    alarms: list[Alarm] = []

    async def main() -> Watchdog:
        clock = VirtualClock()
        machine = Machine(clock=clock)
        dog = Watchdog(machine, alarms.append, clock=clock, **{"limits_s": SHORT, **o})
        dog.start()
        await course(machine, dog)
        dog.stop()
        return dog

    return alarms, run(main())


def timers() -> int:
    """Timers of the running event loop that will ring."""
    scheduled = vars(asyncio.get_running_loop())["_scheduled"]
    return sum(not timer.cancelled() for timer in scheduled)


def test_a_state_that_lasts_too_long_is_told_of_once() -> None:
    """A stay beyond the limit of its state raises one alarm, with the state, its begin and the
    turn; the next stay is looked at anew. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        await asyncio.sleep(5)
        go(machine, T.USER_INPUT)
        await asyncio.sleep(100)
        go(machine, T.TOOLS_REQUESTED, T.TOOL_COMPLETION)
        await asyncio.sleep(100)
        go(machine, T.RESPONSE_READY)
        await asyncio.sleep(100)

    alarms, _ = watched(course)
    assert alarms == [
        Stuck(S.PROCESSING_PROMPT, 5_000_000_000, 10.0, "t1"),
        Stuck(S.PROCESSING_PROMPT, 105_000_000_000, 10.0, "t1"),
    ]


@pytest.mark.parametrize("stay_s", [9.9, 10.1])
def test_each_state_has_its_own_limit(stay_s: float) -> None:
    """Stays below the limits raise nothing however long the turn is, those above do; a longer
    limit before a shorter one makes no difference. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        go(machine, T.USER_INPUT)
        for _ in range(20):
            await asyncio.sleep(1)
            go(machine, T.TOOLS_REQUESTED)
            await asyncio.sleep(29)
            go(machine, T.TOOL_COMPLETION)
        await asyncio.sleep(stay_s)
        go(machine, T.RESPONSE_READY)

    alarms, _ = watched(course)
    assert len(alarms) == (stay_s > 10)


def test_states_without_a_limit_may_last() -> None:
    """A state that is left out of the limits is never stuck, and one after it still is. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        go(machine, T.USER_INPUT, T.RESPONSE_STARTED)
        await asyncio.sleep(10_000)
        go(machine, T.TOOLS_REQUESTED)
        await asyncio.sleep(30)

    alarms, _ = watched(course)
    assert [a.state for a in alarms if isinstance(a, Stuck)] == [S.EXECUTING_TOOLS]


def test_a_shorter_limit_after_a_longer_one_counts_at_once() -> None:
    """A state whose limit ends before the one that was waited for is told of in time. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        go(machine, T.USER_INPUT, T.TOOLS_REQUESTED)
        await asyncio.sleep(15)  # the timer of the first state has rung, and waits for 30 s
        go(machine, T.TOOL_COMPLETION)
        await asyncio.sleep(10.1)
        go(machine, T.TOOLS_REQUESTED)

    alarms, _ = watched(course)
    assert alarms == [Stuck(S.PROCESSING_PROMPT, 15_000_000_000, 10.0, "t1")]


def test_no_timer_runs_without_a_turn() -> None:
    """Before and after a turn, and once stopped, nothing is scheduled; within a turn one timer is,
    whatever number of moves there are. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        assert timers() == 0
        go(machine, T.USER_INPUT)
        for _ in range(50):
            go(machine, T.TOOLS_REQUESTED, T.TOOL_COMPLETION)
            assert timers() == 1
        go(machine, T.RESPONSE_READY)
        assert timers() == 0
        go(machine, T.USER_INPUT)
        dog.stop()
        assert timers() == 0
        dog.start()
        assert timers() == 1
        go(machine, T.SHUTDOWN)
        assert timers() == 0

    watched(course)


def test_troubles_that_follow_each_other_are_thrashing() -> None:
    """As many troubles as set within the time set raise one alarm, and are counted anew then;
    slower ones do not. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        go(machine, T.USER_INPUT)
        for pause_s in (1, 1, 1, 1, 1, 1, 40, 40, 40, 40):
            go(machine, T.TIMEOUT)
            await asyncio.sleep(pause_s)
            go(machine, T.RECOVERED)

    alarms, _ = watched(course, limits_s={}, troubles=3, within_s=60.0)
    assert alarms == [Thrashing(3, 60.0, "t1")] * 2


def test_the_time_of_troubles_slides() -> None:
    """Troubles count by the time between them, wherever it begins. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        go(machine, T.USER_INPUT)
        for pause_s in (50, 20, 30, 0):
            go(machine, T.TIMEOUT, T.RECOVERED)
            await asyncio.sleep(pause_s)

    alarms, _ = watched(course, limits_s={}, troubles=3, within_s=60.0)
    assert alarms == [Thrashing(3, 60.0, "t1")]


def test_the_moves_and_times_are_counted() -> None:
    """How often each move was made, and how long each state lasted, is known, over stops and
    starts; what happens in between is not counted. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        for _ in range(3):
            go(machine, T.USER_INPUT)
            await asyncio.sleep(2)
            go(machine, T.RESPONSE_READY)
            await asyncio.sleep(1)
        dog.stop()
        go(machine, T.USER_INPUT, T.RESPONSE_READY)
        dog.start()
        go(machine, T.USER_INPUT, T.CANCELLED)

    alarms, dog = watched(course)
    assert alarms == []
    assert dict(dog.matrix) == {
        (S.IDLE, S.PROCESSING_PROMPT): 4,
        (S.PROCESSING_PROMPT, S.IDLE): 4,
    }
    assert (dog.time_in_ns[S.PROCESSING_PROMPT], dog.time_in_ns[S.IDLE]) == (
        6_000_000_000,
        2_000_000_000,
    )


def test_of_many_moves_none_is_left_out() -> None:
    """The figures have each of hundreds of moves, whenever somebody asked in between. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        for turn in range(150):
            go(machine, T.USER_INPUT)
            await asyncio.sleep(1)
            go(machine, T.RESPONSE_READY)
            if not turn % 40:
                assert dog.matrix[S.IDLE, S.PROCESSING_PROMPT] == turn + 1

    alarms, dog = watched(course)
    assert alarms == []
    assert set(dog.matrix.values()) == {150}
    assert dog.time_in_ns[S.PROCESSING_PROMPT] == 150_000_000_000


def test_a_second_start_is_refused() -> None:
    """A monitor that runs cannot be started, in the words people know; stopped it can, as often as
    one likes. (S2-47)"""

    async def course(machine: Machine, dog: Watchdog) -> None:
        with pytest.raises(UsageError, match="monitor") as refused:
            dog.start()
        assert str(refused.value) == "State monitor already started"
        for _ in range(3):
            dog.stop()
            dog.stop()
            dog.start()
        go(machine, T.USER_INPUT)
        await asyncio.sleep(11)

    alarms, _ = watched(course)
    assert len(alarms) == 1


def test_an_alarm_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An alarm that raises harms neither the session nor the watching. (S2-47)"""

    async def main() -> None:
        clock = VirtualClock()
        machine = Machine(clock=clock)

        def fails(alarm: Alarm) -> None:
            raise RuntimeError(type(alarm).__name__)

        dog = Watchdog(machine, fails, clock=clock, limits_s=SHORT, troubles=1)
        dog.start()
        go(machine, T.USER_INPUT)
        await asyncio.sleep(11)
        go(machine, T.TIMEOUT)
        dog.stop()

    with caplog.at_level(logging.WARNING, logger="paceline"):
        run(main())
    assert [message.rpartition(" ")[2] for message in caplog.messages] == ["Stuck", "Thrashing"]


def test_limits_are_for_the_states_of_a_turn() -> None:
    """Each of them has a limit by default; a limit for a state outside of turns, or none above 0,
    is refused. (S2-47)"""
    assert set(LIMITS_S) == set(S) - {S.IDLE, S.SHUTDOWN}
    clock = VirtualClock()
    for wrong in (
        {"limits_s": {S.IDLE: 1.0}},
        {"limits_s": {S.ERROR: 0.0}},
        {"troubles": 0},
        {"within_s": 0.0},
    ):
        options: dict[str, Any] = dict(wrong)
        alarms: list[Alarm] = []
        with pytest.raises(ValueError):
            Watchdog(Machine(clock=clock), alarms.append, clock=clock, **options)


def test_figures_that_nobody_wants_are_not_kept() -> None:
    """Without counting the alarms are the same, and nothing is added up. (S2-47)"""

    async def course(machine: Machine, _: Watchdog) -> None:
        go(machine, T.USER_INPUT)
        await asyncio.sleep(11)

    counted, dog = watched(course)
    alarms, quiet = watched(course, counting=False)
    assert alarms == counted != []
    assert dog.matrix
    assert not quiet.matrix
    assert not quiet.time_in_ns
