"""Tools that do nothing but take their time, and say what happened when."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paceline.call import UNKNOWN, Effect, Outcome, Priority, Source
from paceline.engine.hooks import NO_HOOKS, Hooks
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Preparation
from paceline.engine.states import ExecutionContext, ResourceLimits, ToolCall
from paceline.errors import CallTimeoutError, InvalidInputError, PacelineError, UnknownAgentError
from paceline.messages import ToolDefinition, ToolUse
from paceline.testing.virtual_time import VirtualClock

__all__ = ["CONTEXT", "FakeTool", "FakeTools", "pipeline_of", "results", "tasks", "use"]

CONTEXT = ExecutionContext("s1", turn_id="t1")


@dataclass
class FakeTool:
    """What one tool does. `inside` is called while it runs, at its start."""

    effect: Effect = UNKNOWN
    seconds: float = 1.0
    value: object = "done"
    error: PacelineError | None = None
    raises: BaseException | None = None
    source: Source = Source.EXECUTED
    attempts: int = 1
    timeout_s: float | None = None
    approval: bool = False
    question: str | None = None
    inside: Callable[[Preparation], object] = str


@dataclass
class FakeTools:
    """Tools by name. `began`, `ended` and `cancelled` are ids of the model's uses, in order."""

    tools: dict[str, FakeTool]
    began: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    most: int = 0
    together: set[frozenset[str]] = field(default_factory=set)
    limits_s: dict[str, float | None] = field(default_factory=dict)
    priorities: list[Priority] = field(default_factory=list)
    contexts: list[ExecutionContext] = field(default_factory=list)

    def definitions(self) -> tuple[ToolDefinition, ...]:
        return ()

    def prepare(self, use: ToolUse) -> Preparation:
        tool = self.tools.get(use.name)
        if tool is None:
            raise UnknownAgentError(f"there is no tool {use.name}; did you mean {min(self.tools)}?")
        try:
            arguments = json.loads(use.arguments)
        except ValueError as exc:
            raise InvalidInputError(f"the arguments of {use.name} are no JSON") from exc
        return Preparation(
            use,
            arguments,
            f"{use.name} {use.arguments}",
            tool.effect,
            tool.timeout_s,
            tool.approval,
            tool.question,
        )

    async def run(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> Outcome:
        use = preparation.use
        tool = self.tools[use.name]
        self.began.append(use.id)
        self.together |= {frozenset((use.id, other)) for other in self.running}
        self.running.add(use.id)
        self.most = max(self.most, len(self.running))
        self.limits_s[use.id] = timeout_s
        self.priorities.append(priority)
        self.contexts.append(context)
        try:
            inside = tool.inside(preparation)
            if asyncio.iscoroutine(inside):
                await inside
            return await self._outcome(tool, use, timeout_s)
        except asyncio.CancelledError:
            self.cancelled.append(use.id)
            raise
        finally:
            self.running.discard(use.id)
            self.ended.append(use.id)

    async def _outcome(self, tool: FakeTool, use: ToolUse, timeout_s: float | None) -> Outcome:
        error = tool.error
        if timeout_s is not None and timeout_s < tool.seconds:
            await asyncio.sleep(timeout_s)
            error = CallTimeoutError(f"no answer in {timeout_s:g} s", may_have_started=True)
        elif tool.seconds:
            await asyncio.sleep(tool.seconds)
        if tool.raises is not None:
            raise tool.raises
        return Outcome(
            use.id,
            use.name,
            tool.source,
            value=None if error else tool.value,
            error=error,
            attempts=tool.attempts,
            execute_ns=round(tool.seconds * 1e9),
        )

    def text(self, outcome: Outcome) -> str:
        return f"{outcome.name}: {outcome.value}"


def use(name: str, number: int = 0, arguments: str = "{}") -> ToolUse:
    """A use of the tool of that name."""
    return ToolUse(f"{name}-{number}", name, arguments)


def pipeline_of(most: int = 4, **tools: FakeTool) -> tuple[ToolPipeline, FakeTools]:
    """A pipeline of these tools, in virtual time."""
    fakes = FakeTools(tools)
    limits = ResourceLimits(max_concurrent_tools=most)
    return ToolPipeline(fakes, clock=VirtualClock(), limits=limits), fakes


async def results(
    pipeline: ToolPipeline, *uses: ToolUse, hooks: Hooks = NO_HOOKS
) -> list[ToolCall]:
    """What came of an answer with these uses."""
    batch = pipeline.batch(CONTEXT, hooks=hooks)
    batch.complete(uses)
    return await batch.results()


def tasks() -> set[asyncio.Task[Any]]:
    """All but the running one."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
