"""A model that says what it is told to, tools that do as they are told, and a journal in memory."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Self, cast

import msgspec

from paceline.call import Effect, Outcome, Priority, Source, Tokens
from paceline.engine.journal import Entry
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Preparation
from paceline.engine.scene import Means
from paceline.engine.session import Session
from paceline.engine.states import ExecutionContext, PerformanceHints, ResourceLimits
from paceline.errors import CallTimeoutError, PacelineError, UnknownAgentError
from paceline.messages import (
    Hear,
    Message,
    ModelReply,
    ModelRequest,
    Part,
    TextPart,
    ToolDefinition,
    ToolUse,
    UsePart,
)
from paceline.testing.virtual_time import VirtualClock

NS = 1_000_000_000
_NO_HINTS = PerformanceHints()


class Says(msgspec.Struct, frozen=True):
    """One answer: parts with the seconds before each, then the whole, or an error."""

    text: str = ""
    uses: tuple[ToolUse, ...] = ()
    error: Exception | None = None
    parts: tuple[tuple[float, Part], ...] | None = None
    after_s: float = 0.0
    tokens: Tokens | None = None
    cost_usd: float | None = None

    def heard(self) -> tuple[tuple[float, Part], ...]:
        if self.parts is not None:
            return self.parts
        text = ((0.0, TextPart(self.text)),) if self.text else ()
        return (*text, *((0.0, UsePart(use)) for use in self.uses))


def use(name: str, arguments: str = "{}", use_id: str = "") -> ToolUse:
    return ToolUse(use_id or f"m-{name}", name, arguments)


class Script:
    """Answers in turn, or what a function makes of the request; remembers what it was asked."""

    def __init__(
        self, *answers: Says, always: Callable[[ModelRequest], Says] | None = None
    ) -> None:
        self.answers = list(answers)
        self.always = always
        self.answered = True
        self.asked: list[tuple[Message, ...]] = []

    async def ask(
        self,
        request: ModelRequest,
        context: ExecutionContext,
        *,
        hear: Hear | None,
        timeout_s: float | None,
    ) -> Outcome:
        self.asked.append(request.messages)
        answer = self.answers.pop(0) if self.always is None else self.always(request)
        for pause_s, part in answer.heard():
            if pause_s:
                await asyncio.sleep(pause_s)
            if hear is not None:
                hear(part)
        await asyncio.sleep(answer.after_s)
        error = answer.error
        if error is not None and not isinstance(error, PacelineError):
            raise error
        value = None if error else ModelReply(answer.text, answer.uses, model="fake")
        return Outcome(
            "c", "fake", Source.EXECUTED, value, error, attempts=1,
            tokens=answer.tokens, cost_usd=answer.cost_usd,
        )  # fmt: skip

    def fallbacks(self) -> Sequence[str]:
        return ()


class Act(msgspec.Struct, frozen=True):
    """What a tool does. `text` is its result."""

    effect: Effect = Effect.read()
    takes_s: float = 0.0
    text: str = "done"
    error: PacelineError | None = None
    timeout_s: float | None = None
    approval: bool = False
    question: str | None = None
    cost_usd: float | None = None
    price_usd: float = 0.0
    does: Callable[[], Coroutine[Any, Any, object]] | None = None


class Acts:
    """Tools by name; what they began and ended is written down with the time."""

    def __init__(self, **acts: Act) -> None:
        self.acts = acts
        self.gone = False
        """What is done from now on has no effect: the process has crashed."""
        self.begun: list[tuple[str, float]] = []
        self.ended: list[tuple[str, float]] = []
        self.running = 0
        self._definitions = tuple(ToolDefinition(name, "", {}) for name in acts)

    def definitions(self) -> tuple[ToolDefinition, ...]:
        return self._definitions

    def prepare(self, use: ToolUse) -> Preparation:
        act = self.acts.get(use.name)
        if act is None:
            raise UnknownAgentError(f"there is no tool {use.name!r}")
        key = f"{use.name}{use.arguments}"
        given: Any = msgspec.json.decode(use.arguments)
        arguments = cast("dict[str, Any]", given) if isinstance(given, dict) else {"it": given}
        return Preparation(
            use,
            arguments,
            key,
            act.effect,
            act.timeout_s,
            act.approval,
            act.question,
            act.price_usd,
        )

    async def run(
        self,
        preparation: Preparation,
        context: ExecutionContext,
        *,
        priority: Priority,
        timeout_s: float | None,
    ) -> Outcome:
        name = preparation.use.name
        act = self.acts[name]
        now = asyncio.get_running_loop().time
        if not self.gone:
            self.begun.append((name, now()))
        self.running += 1
        error = act.error
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(act.takes_s)
                if act.does is not None:
                    await act.does()
            if not self.gone:
                self.ended.append((name, now()))
        except TimeoutError:
            error = CallTimeoutError(f"{name} took too long", may_have_started=True)
        finally:
            self.running -= 1
        value = None if error else act.text
        return Outcome("c", name, Source.EXECUTED, value, error, attempts=1, cost_usd=act.cost_usd)

    def text(self, outcome: Outcome) -> str:
        return str(outcome.value)


class Pages:
    """A journal in memory. Once it has `crashed` nothing that the process does is durable; if it `lags`
    what was noted is not either, until something is appended behind it."""

    def __init__(
        self, entries: Sequence[bytes] = (), *, takes_s: float = 0.0, lags: bool = False
    ) -> None:
        self.entries = list(entries)
        self.takes_s = takes_s
        self.lags = lags
        self._noted: list[bytes] = []
        self._lost: Exception | None = None
        self.crashed = False
        self.error: Exception | None = None

    async def append(self, session_id: str, entry: bytes) -> None:
        await asyncio.sleep(self.takes_s)
        for one in (*self._noted, entry):
            self._write(one)
        self._noted.clear()
        lost, self._lost = self._lost, None
        if lost is not None:
            raise lost
        await asyncio.sleep(self.takes_s)

    def note(self, session_id: str, entry: bytes) -> None:
        if self.lags:
            self._noted.append(entry)
        else:
            self._write(entry)

    def refuses(self, entry: bytes) -> Exception | None:
        """Why this one cannot be written; overridden by what can write some."""
        return self.error

    def _write(self, entry: bytes) -> None:
        refused = self.refuses(entry)
        if refused is not None:
            self._lost = refused
        elif not self.crashed:
            self.entries.append(entry)

    async def load(self, session_id: str) -> list[bytes]:
        await asyncio.sleep(self.takes_s)
        return list(self.entries)


class Suspensions:
    """Counts how often the tasks that are made meanwhile are suspended, and does something at the
    `at`th: in the very step, or when it is suspended."""

    def __init__(self, at: int, then: Callable[[], object], *, soon: bool = True) -> None:
        self.count = 0
        self._at = at
        self._then = then
        self._soon = soon

    @property
    def reached(self) -> bool:
        return self.count >= self._at

    def __enter__(self) -> Self:
        asyncio.get_running_loop().set_task_factory(self._make)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().set_task_factory(None)

    def _make(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(self._driven(coroutine), loop=loop, **more)

    async def _driven(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await _Driven(coroutine, self._suspended)

    def _suspended(self) -> None:
        self.count += 1
        if self.count == self._at:
            if self._soon:
                asyncio.get_running_loop().call_soon(self._then)
            else:
                self._then()


class _Driven:
    """A coroutine whose suspensions are told."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], suspended: Callable[[], object]
    ) -> None:
        self._coroutine = coroutine
        self._suspended = suspended

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        step = partial(coroutine.send, None)
        while True:
            try:
                waits_for = step()
            except StopIteration as end:
                return end.value
            self._suspended()
            try:
                sent = yield waits_for
                step = partial(coroutine.send, sent)
            except BaseException as exc:  # noqa: BLE001 (whatever is thrown in goes on)
                step = partial(coroutine.throw, exc)


def means(script: Script, acts: Acts | None = None, **more: Any) -> Means:
    clock = VirtualClock()
    limits = more.pop("limits", ResourceLimits())
    pipeline = ToolPipeline(acts or Acts(), clock=clock, limits=limits)
    return Means(models=script, pipeline=pipeline, clock=clock, rng=random.Random(0), **more)


class Foretells:
    """A foresight that knows this, and writes down what it is told."""

    def __init__(self, hints: PerformanceHints = _NO_HINTS) -> None:
        self.hints = hints
        self.pattern = None
        self.told: list[str] = []

    def asking(self) -> None:
        self.told.append("asking")

    def recall(self, entries: Iterable[Entry]) -> None:
        """Nothing."""

    def heard(self, entry: Entry) -> None:
        self.told.append(type(entry).__name__)


def session(script: Script, acts: Acts | None = None, **more: Any) -> Session:
    """A session of these; what it does not take itself goes to its means."""
    own = {
        name: more.pop(name)
        for name in ("system", "caller", "conversation", "workspace")
        if name in more
    }
    limits = more.get("limits", ResourceLimits())
    return Session("s", means(script, acts, **more), limits=limits, **own)
