"""Where the tools of all sessions run: so many at once, each session in its turn."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, final

from paceline.balance.gate import Gate
from paceline.clock import Clock
from paceline.engine.batch import Batch
from paceline.engine.concurrency import Concurrency
from paceline.engine.course import Course
from paceline.engine.execution import Floor
from paceline.engine.hooks import NO_HOOKS, Hooked
from paceline.engine.protocols import Tools
from paceline.engine.requests import ToolHandle, ToolRequest
from paceline.engine.states import (
    ExecutionContext,
    ExecutionPriority,
    ResourceLimits,
    ToolCall,
    ToolExecutionState,
)
from paceline.errors import RuntimeClosedError

__all__ = ["ToolPipeline"]

_NS: Final = 1_000_000_000
_KEEP: Final = 100
_LIMITS: Final = ResourceLimits()


@final
class ToolPipeline:
    """Runs tools for any number of sessions, `limits.max_concurrent_tools` at once.

    Who has to wait does so by priority, among equals each session gets its share, and those that
    wait for long become more urgent (see `balance.gate`). While memory is short fewer run at once.
    While several sessions share it, tools that take much leave one place to the others.
    A tool that itself runs tools here lends them its place, as it waits for them. Used on one event
    loop.
    """

    __slots__ = (
        "_closed",
        "_concurrency",
        "_floor",
        "_handles",
        "_requests",
        "_sessions",
        "limits",
        "tools",
    )

    def __init__(
        self,
        tools: Tools,
        *,
        clock: Clock,
        limits: ResourceLimits = _LIMITS,
        max_queue: int = 1000,
        expected_ns: Callable[[str], int | None] | None = None,
    ) -> None:
        """`max_queue` calls may wait for a place; `expected_ns` says how long a tool of that name
        takes, where that is known. Raises ValueError if not even one tool may run."""
        self.tools = tools
        self.limits = limits
        self._concurrency = Concurrency(limits.max_concurrent_tools)
        most = limits.max_concurrent_tools
        gate = Gate("the tool pipeline", most, max_queue, clock=clock)
        intensive = Gate("the tool pipeline's part for slow tools", most, max_queue, clock=clock)
        self._floor = Floor(gate, intensive, clock, expected_ns, _KEEP)
        self._sessions: set[str] = set()
        self._handles: dict[asyncio.Task[list[ToolCall]], Batch] = {}
        self._requests = 0
        self._closed = False

    @property
    def concurrency(self) -> int:
        """How many may run at once by now."""
        return self._concurrency.limit

    @property
    def running(self) -> int:
        """Calls that have a place."""
        return self._floor.gate.in_use

    @property
    def waiting(self) -> int:
        """Calls that wait for a place, those not counted that their own answer holds back."""
        return self._floor.gate.waiting

    @property
    def recent(self) -> tuple[ToolExecutionState, ...]:
        """The calls that ended last, the latest behind."""
        return tuple(map(self._floor.state, self._floor.recent))

    def batch(
        self,
        context: ExecutionContext,
        *,
        tools: Tools | None = None,
        limits: ResourceLimits | None = None,
        deadline_ns: int | None = None,
        priority: ExecutionPriority = ExecutionPriority.NORMAL,
        hooks: Hooked = NO_HOOKS,
        first: int = 0,
    ) -> Batch:
        """For the tool uses of one answer. `tools` and `limits` are those of its session, None for
        the pipeline's; `deadline_ns` is a moment of the monotonic clock, None for the time that a
        turn may take from now on. `first` calls of the turn were made before (`Batch.made`).
        Raises RuntimeClosedError.
        """
        course = self.course(
            context,
            tools=tools,
            limits=limits,
            deadline_ns=deadline_ns,
            priority=priority,
            hooks=hooks,
        )
        return self.follow(course, first)

    def course(
        self,
        context: ExecutionContext,
        *,
        tools: Tools | None = None,
        limits: ResourceLimits | None = None,
        deadline_ns: int | None = None,
        priority: ExecutionPriority = ExecutionPriority.NORMAL,
        hooks: Hooked = NO_HOOKS,
    ) -> Course:
        """What the batches of all answers of a turn have in common; arguments as of `batch`."""
        limits = limits or self.limits
        if deadline_ns is None:
            deadline_ns = self._floor.clock.monotonic_ns() + round(limits.max_execution_s * _NS)
        return Course(
            self._floor,
            tools or self.tools,
            context,
            limits=limits,
            deadline_ns=deadline_ns,
            priority=priority,
            hooks=hooks,
        )

    def follow(self, course: Course, first: int = 0) -> Batch:
        """For the tool uses of the next answer in this course. Raises RuntimeClosedError."""
        if self._closed:
            raise _closed()
        return Batch(course, course.prefix, first)

    def submit(self, request: ToolRequest) -> ToolHandle:
        """Has one call made beside all else. Raises RuntimeClosedError."""
        if self._closed:
            raise _closed()
        deadline_ns = None
        if request.timeout_s is not None:
            deadline_ns = self._floor.clock.monotonic_ns() + round(request.timeout_s * _NS)
        course = self.course(request.context, deadline_ns=deadline_ns, priority=request.priority)
        batch = Batch(course, f"{request.context.session_id}.request-", self._requests)
        self._requests += 1
        batch.complete((request.call,))
        task = asyncio.get_running_loop().create_task(batch.results())
        self._handles[task] = batch
        task.add_done_callback(self._over)
        return ToolHandle(batch, task)

    def observe_memory(self, share: float) -> int:
        """How many may run at once, now that so much of the memory allowed is used (1.0: all of
        it). See `engine.concurrency`."""
        concurrency = self._concurrency
        before = concurrency.limit
        if share < concurrency.high and before == concurrency.most:
            return before
        limit = concurrency.observe(share, self._floor.clock.monotonic_ns())
        if limit != before:
            self._resize()
        return limit

    def join(self, session_id: str) -> None:
        """A session works here from now on."""
        self._sessions.add(session_id)
        self._resize()

    def part(self, session_id: str) -> None:
        """It does not any more. A second time changes nothing."""
        self._sessions.discard(session_id)
        self._resize()

    def _resize(self) -> None:
        """Who is alone would wait for nobody's sake."""
        limit, floor = self._concurrency.limit, self._floor
        floor.gate.resize(limit)
        floor.intensive.resize(max(1, limit - 1) if len(self._sessions) > 1 else limit)

    async def aclose(self) -> None:
        """Takes no more calls, and stops those that run, or wait, in tasks of their own; returns
        when they have stopped. May be called again."""
        self._closed = True
        while self._handles or self._floor.live:
            for task in self._handles:
                task.cancel()
            if self._handles:
                await asyncio.wait(self._handles)
            for batch in tuple(self._floor.live):
                await batch.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _over(self, task: asyncio.Task[list[ToolCall]]) -> None:
        # One that was cancelled before it had begun could not say so itself.
        self._handles.pop(task).stop()


def _closed() -> RuntimeClosedError:
    return RuntimeClosedError("the tool pipeline is closed; nothing was run")
