"""The tool uses of one answer of a model: run in order of need, answered in the order of calling."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import final

import msgspec

from paceline.engine.course import Course
from paceline.engine.execution import Execution
from paceline.engine.schedule import Schedule, conflicting
from paceline.engine.states import ToolCall, ToolExecutionState
from paceline.errors import OverloadedError
from paceline.messages import ToolUse

__all__ = ["Batch"]


@final
class Batch(msgspec.Struct, eq=False):
    """Runs the tool uses of one answer, each as soon as it may, at most so many at once.

    While the answer streams in, uses are added one by one; those that can do no harm if the answer
    changes its mind are started at once. All others wait until it is complete. What runs beside
    others has a task of its own; one that runs alone does so in the task that awaits `results`.
    It is one of the `live` while tasks of its own run. Ids of calls are `prefix` and a number, from
    `made` + 1. Used on one event loop, and for one answer.
    """

    course: Course
    prefix: str
    made: int
    """How many calls were numbered, those of earlier batches included."""
    _executions: list[Execution] = []
    _kept: list[Execution] | None = None
    """Those of an answer that was made anew which go on; None if it was not."""
    _stopping: tuple[asyncio.Task[None], ...] = ()
    _schedule: Schedule | None = None
    """Of those `_scheduled`, once there are several: one alone need not wait for its turn."""
    _scheduled: list[Execution] = []
    _left: int = 0
    """Those in the schedule that are not over."""
    _active: int = 0
    """Those that have a task; `_busy` of them run, or want a place."""
    _busy: int = 0
    _complete: bool = False
    _closed: bool = False
    _lingering: list[Execution] | None = None
    """Those that may go on though they are over; None if none does."""
    _wake: asyncio.Future[None] | None = None

    @property
    def deadline_ns(self) -> int:
        """When the time for the calls is over, by the monotonic clock. It may be moved, which
        counts for those that have not started."""
        return self.course.deadline_ns

    @deadline_ns.setter
    def deadline_ns(self, deadline_ns: int) -> None:
        self.course.deadline_ns = deadline_ns

    @property
    def calls(self) -> list[ToolCall]:
        """The calls as they are now, in the order of the answer."""
        return [execution.as_call() for execution in self._executions]

    @property
    def added(self) -> int:
        """How many uses of the answer there are by now."""
        return len(self._executions)

    def states(self) -> tuple[ToolExecutionState, ...]:
        """How far each is, in the order of the answer."""
        course = self.course
        return tuple(
            course.floor.state(execution.figures(), course.expected_ns(execution))
            for execution in self._executions
        )

    def add(self, use: ToolUse) -> None:
        """The next use of the answer, which goes on. It is started if it may be by now. What is
        heard of an answer after it was complete is left alone."""
        if not self._complete:
            self._add(use)
            self._start()

    def restarted(self) -> None:
        """The answer is made anew. What was started goes on, and is used where the same is asked
        for again; `complete` stops the rest."""
        for execution in self._executions:
            execution.index = -1
            if execution.task is not None:
                self._kept = [*(self._kept or ()), execution]
            else:
                self.course.stop(execution)
        self._executions = []
        self._schedule = None
        self._scheduled = []
        self._left = 0

    def complete(self, uses: Sequence[ToolUse] | None = None) -> None:
        """The answer is complete; `uses` are all of it, None if all were added. If what was added
        is not their beginning, it is as if the answer had been made anew."""
        if self._complete:
            return
        if uses is not None:
            heard = self._executions
            if heard and [execution.use for execution in heard] != list(uses[: len(heard)]):
                self.restarted()
            for use in uses[len(self._executions) :]:
                self._add(use)
        self._complete = True
        if self._kept:
            self._drop(self._kept)
            self._kept = None

    async def results(self) -> list[ToolCall]:
        """What came of each, in the order of the answer, when all are over; none is left out.

        Raises only CancelledError; then all are stopped, and none runs any more.
        """
        if not self._complete:
            self.complete()
        try:
            if self._stopping:
                await _ended(self._stopping)
            while self._left:
                alone = self._start()
                if alone is not None:
                    await self.course.settle(alone)
                    self._settled(alone)
                elif self._left:
                    self._wake = asyncio.get_running_loop().create_future()
                    await self._wake
        except asyncio.CancelledError:
            await self.cancel()
            raise
        finally:
            self._wake = None
        return [execution.call or execution.as_call() for execution in self._executions]

    async def cancel(self) -> None:
        """Stops all that is not over, and returns when it has stopped. What the task that awaits
        `results` carries out itself is stopped by cancelling that task."""
        self.stop()
        await _ended(self._stopping)

    def stop(self) -> None:
        """The same, but does not wait for those that run to have stopped."""
        self._complete = self._closed = True
        self._drop((*self._executions, *(self._kept or ())))
        self._kept = None

    def _add(self, use: ToolUse) -> None:
        if self._kept and self._take_over(use, self._kept):
            return
        self.made += 1
        call_id = f"{self.prefix}{self.made}"
        most = self.course.limits.max_fan_out
        if 0 < most <= len(self._executions):
            execution = self.course.reject(call_id, use, _too_many(most))
        else:
            execution = self.course.prepare(call_id, use)
        self._executions.append(execution)
        if execution.call is None and execution.preparation is not None:
            self._queue(execution)

    def _queue(self, execution: Execution) -> None:
        """Puts one that can be run behind those that were asked for before."""
        execution.index = len(self._scheduled)
        self._scheduled.append(execution)
        if execution.call is None:
            self._left += 1
        if self._schedule is not None:
            _enter(self._schedule, execution)
        elif execution.index:
            self._schedule = self._plan()

    def _plan(self) -> Schedule:
        schedule = Schedule()
        for execution in self._scheduled:
            _enter(schedule, execution)
        return schedule

    def _take_over(self, use: ToolUse, kept: list[Execution]) -> bool:
        """Whether the same was started for the answer before, and may be used in this place."""
        for execution in kept:
            earlier, preparation = execution.use, execution.preparation
            if (
                preparation is not None
                and (earlier.name, earlier.arguments) == (use.name, use.arguments)
                and (self._schedule or self._plan()).free(preparation.effect)
            ):
                kept.remove(execution)
                execution.use = use
                self._executions.append(execution)
                self._queue(execution)
                return True
        return False

    def _start(self) -> Execution | None:
        """Starts what may be in tasks of their own, but hands back what would run alone."""
        if self._closed:
            return None
        if self._schedule is not None:
            ready = self._ready(self._schedule)
        else:  # one at most
            ready = self._scheduled
            if not ready or ready[0].call is not None or ready[0].task is not None:
                return None
        if len(ready) == 1 and self._complete and not self._active:
            return ready[0]
        most = max(1, self.course.limits.max_concurrent_tools)
        left = most - self._busy
        few = left > 0 and 1 < len(ready) > min(left, self.course.floor.gate.free)
        if few and self.course.knows_times:
            ready = self._longest_first(ready)
        for execution in ready:
            if execution.agreed and self._busy >= most:
                continue  # those that a person has to agree to can be asked for
            if self._complete or (execution.agreed and execution.repeatable):
                if self._schedule is not None:
                    self._schedule.start(execution.index)
                self._active += 1
                self._busy += execution.agreed
                execution.task = asyncio.get_running_loop().create_task(
                    self._run(execution), context=self.course.variables.copy()
                )
                self.course.floor.live.add(self)
        return None

    def _longest_first(self, ready: Sequence[Execution]) -> list[Execution]:
        """Those for which there are too few places, in the order in which they are over soonest
        (longest processing time first: R. Graham, Bounds on multiprocessing timing anomalies, 1969);
        equals as they were asked for. Those that could only wait for others that take much are behind.
        """
        course = self.course
        ordered = sorted(
            ready, key=lambda each: course.expected_ns(each) if each.agreed else 0, reverse=True
        )
        left = course.floor.intensive.capacity
        left -= sum(
            each.task is not None and each.call is None and course.intensive(each)
            for each in self._scheduled
        )
        late = [each for each in ordered if each.agreed and course.intensive(each)][max(0, left) :]
        return [each for each in ordered if each not in late] + late if late else ordered

    def _ready(self, schedule: Schedule) -> list[Execution]:
        """Those whose turn it is. One that must not run beside one that may go on is refused, so
        that no two writes of one thing overlap."""
        while True:
            ready = [self._scheduled[index] for index in schedule.ready()]
            if self._lingering is None:
                return ready
            refused = False
            for execution in ready:
                for other in self._lingering:
                    if conflicting(other.effect, execution.effect):
                        self.course.refuse(execution, _may_go_on(other))
                        self._finished(execution)
                        refused = True
                        break
            if not refused:
                return ready

    async def _run(self, execution: Execution) -> None:
        agreed = execution.agreed
        try:
            await self.course.settle(execution)
        finally:
            self._released(execution, agreed=agreed)

    def _released(self, execution: Execution, *, agreed: bool) -> None:
        """The task of one ends."""
        self._active -= 1
        self._busy -= agreed
        if not self._active:
            self.course.floor.live.discard(self)
        self._settled(execution)
        alone = self._start() if self._left else None
        if self._wake is not None and not self._wake.done() and (alone or not self._left):
            self._wake.set_result(None)

    def _settled(self, execution: Execution) -> None:
        """One is over, or waits for its turn once a person agreed."""
        if execution.call is None:
            if not self._closed and execution.index >= 0:
                if execution.task is not None:
                    execution.task = None
                    if self._schedule is not None:
                        self._schedule.wait(execution.index)
                return
            self.course.stop(execution)
        self._finished(execution)

    def _finished(self, execution: Execution) -> None:
        if execution.lingers:
            self._lingering = [*(self._lingering or ()), execution]
        if execution.index >= 0:
            if self._schedule is not None:
                self._schedule.done(execution.index)
            self._left -= 1

    def _drop(self, executions: Iterable[Execution]) -> None:
        """Stops those that are not over."""
        for execution in executions:
            task = execution.task
            if execution.call is not None:
                continue
            if task is not None:
                task.cancel()
                self._stopping += (task,)
            if execution.begun:
                continue  # it says itself when it has stopped
            self.course.stop(execution)
            if task is not None:
                self._released(execution, agreed=execution.agreed)
            else:
                self._finished(execution)


def _enter(schedule: Schedule, execution: Execution) -> None:
    index = schedule.add(execution.effect)
    if execution.call is not None:
        schedule.done(index)
    elif execution.task is not None:
        schedule.start(index)


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Returns when all have ended. Whoever is cancelled meanwhile waits for them all the same: they
    are being stopped, and nobody else would see to their end."""
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


def _may_go_on(other: Execution) -> OverloadedError:
    return OverloadedError(
        f"{other.use.name}, asked for before it, was given up and may still be at work on the same;"
        " check what came of that, then ask again"
    )


def _too_many(most: int) -> OverloadedError:
    return OverloadedError(
        f"one answer may ask for {most} tool calls at most; ask for the others in the next one"
    )
