"""Our engine on the task: a session alone, and one in a runtime, where each model and tool call goes
the whole call path and is counted in the figures."""

import contextlib
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Final, final

import msgspec

from bench.engine_task import (
    DONE,
    PROMPT,
    TOOL,
    Make,
    Opener,
    Run,
    Task,
    always,
    arguments,
    asked,
    named,
)
from paceline import Runtime
from paceline.call import UNKNOWN, Effect, Outcome, Priority, Source
from paceline.clock import SystemClock
from paceline.config import load
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Preparation
from paceline.engine.scene import Means
from paceline.engine.session import Session
from paceline.engine.states import ExecutionContext, ResourceLimits
from paceline.messages import (
    Hear,
    Message,
    ModelReply,
    ModelRequest,
    ToolDefinition,
    ToolMessage,
    ToolUse,
    UsePart,
)
from paceline.tools.function import function_tool

__all__ = [
    "ALONE",
    "ENGINES",
    "IMPORTS",
    "LIMITS",
    "RUNTIME",
    "ScriptModel",
    "alone",
    "open_runtime",
    "quiet_runtime",
]

ALONE: Final = "paceline, the session alone"
RUNTIME: Final = "paceline, in a runtime"
IMPORTS: Final = "paceline, paceline.sessions.sessions"
LIMITS: Final = ResourceLimits(max_steps=1_000, max_concurrent_tools=10_000)
_QUIET: Final[dict[str, dict[str, object]]] = {
    "agents": {"watch": False},
    "alerts": {"enabled": False},
    "hostexec": {"mode": "off"},
    "run": {"max_concurrency": 10_000},
    "history": {"enabled": False},
    "chat": {"max_steps": 1_000, "max_concurrent_tools": 10_000},
}


@final
class ScriptModel:
    """Says what the task has a model say."""

    name = "script"

    def __init__(self, task: Task) -> None:
        self._task = task
        self._replies: dict[int, ModelReply] = {}

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The same objects for the same place in the task, so that making them is no part of a
        step."""
        answered = _answered(request.messages[-1])
        reply = self._replies.get(answered)
        if reply is None:
            reply = self._replies[answered] = _reply(self._task, answered)
        for use in reply.uses:
            hear(UsePart(use))
        return reply


def _answered(last: Message) -> int:
    return int(last.use_id) + 1 if isinstance(last, ToolMessage) else 0


def _reply(task: Task, answered: int) -> ModelReply:
    numbers = asked(task, answered)
    uses = tuple(ToolUse(str(n), TOOL, arguments(n)) for n in numbers)
    return ModelReply(uses=uses) if uses else ModelReply(DONE)


# --- the session alone


@final
class _Models:
    """Asks the model without a call path."""

    answered = True

    def __init__(self, model: ScriptModel) -> None:
        self._model = model

    async def ask(
        self,
        request: ModelRequest,
        context: ExecutionContext,
        *,
        hear: Hear | None,
        timeout_s: float | None,  # noqa: ARG002 (the model never waits)
    ) -> Outcome:
        reply = await self._model.complete(request, hear or _deaf)
        return Outcome(context.turn_id, "script", Source.EXECUTED, reply, attempts=1)

    def fallbacks(self) -> Sequence[str]:
        return ()


@final
class _Tools:
    """Runs the tool without a call path."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._definitions = (function_tool(named(task.tool)).definition,)

    def definitions(self) -> tuple[ToolDefinition, ...]:
        return self._definitions

    def prepare(self, use: ToolUse) -> Preparation:
        effect = Effect.pure() if self._task.together else UNKNOWN
        return Preparation(use, msgspec.json.decode(use.arguments), use.arguments, effect)

    async def run(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,  # noqa: ARG002 (all tools have one)
        timeout_s: float | None,  # noqa: ARG002 (what has limits of time is the call path)
    ) -> Outcome:
        number = preparation.arguments["n"]
        value = await self._task.tool(number)  # type: ignore[arg-type]  # it is what we encoded
        return Outcome(context.turn_id, TOOL, Source.EXECUTED, value, attempts=1)

    def text(self, outcome: Outcome) -> str:
        return str(outcome.value)


def _deaf(_: object) -> None: ...


def alone(task: Task) -> Run:
    """A session with a model and a tool that are asked directly."""
    clock = SystemClock()
    tools = _Tools(task)
    means = Means(
        models=_Models(ScriptModel(task)),
        pipeline=ToolPipeline(tools, clock=clock, limits=LIMITS),
        clock=clock,
        rng=random.Random(1),
    )
    numbers = count()

    async def run() -> object:
        async with Session(str(next(numbers)), means, limits=LIMITS) as session:
            return (await session.send(PROMPT)).agent_response

    return run


# --- in a runtime


def quiet_runtime(home: str | None = None) -> Runtime:
    """A runtime with metrics, as all have them; in `home` its sessions are kept."""
    given = load(overrides=_QUIET)
    return Runtime(given, agents=[], home=home, persist=home is not None, environ={})


def open_runtime(home: str | None = None) -> Opener:
    """Sessions in such a runtime."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncGenerator[Make]:
        async with quiet_runtime(home) as runtime:
            yield partial(_in_runtime, runtime, kept=home is not None)

    return opened


def _in_runtime(runtime: Runtime, task: Task, *, kept: bool) -> Run:
    model = ScriptModel(task)
    tool = function_tool(
        named(task.tool), effect=Effect.pure() if task.together else UNKNOWN, ttl_s=0
    )

    async def run() -> object:
        async with runtime.session(model=model, tools=[tool], keep=kept) as session:
            return (await session.send(PROMPT)).agent_response

    return run


ENGINES: Final[Mapping[str, Opener]] = {ALONE: always(alone), RUNTIME: open_runtime()}
