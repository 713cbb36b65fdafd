"""A session by itself, for those who have no runtime."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self, Unpack, final

from paceline.engine.events import Event
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.session import Session
from paceline.engine.states import AgentState, ConversationTurn, StateTransition, ToolExecutionState
from paceline.errors import RuntimeClosedError, UsageError
from paceline.runtime import Runtime
from paceline.sessions.sessions import SessionOptions

__all__ = ["AgentEngine", "OptimizedAgentEngine"]


@final
class AgentEngine:
    """A model, tools, and the session in which the one uses the other.

    ::

        async with AgentEngine("s1", model=model, tools=[stock]) as engine:
            turn = await engine.submit("How many bolts are there?")

    Without a `runtime` it opens one of its own, which keeps nothing on disk and knows no agents. It
    can be started again after it was shut down: as a session of the same id in which nothing was said,
    or with the option `resume` as the one that it was, where that was kept.
    """

    def __init__(
        self,
        session_id: str,
        tool_pipeline: ToolPipeline | None = None,
        *,
        runtime: Runtime | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        """Starts nothing. `tool_pipeline` is one that is shared with others, with tools of its own; all
        other options, the `model` among them, are those of `Runtime.session`."""
        if tool_pipeline is not None:
            options["pipeline"] = tool_pipeline
        self.session_id = session_id
        self._options = options
        self._runtime = runtime
        self._session: Session | None = None
        self._started = False
        self._parts = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Opens the session. Raises UsageError if it is open or not ended yet, and what `Runtime.session` raises."""
        if self._started:
            raise UsageError("State monitor already started", next_step="Use it as it is.")
        self._started = True
        try:
            async with contextlib.AsyncExitStack() as parts:
                runtime = self._runtime
                if runtime is None:
                    runtime = await parts.enter_async_context(Runtime(agents=[], persist=False))
                opened = runtime.session(self.session_id, **self._options)
                self._session = await parts.enter_async_context(opened)
                self._parts = parts.pop_all()
        finally:
            self._started = self._session is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown(drain=error is None)

    @property
    def session(self) -> Session:
        """The session, with all that it can do. Raises RuntimeClosedError if it is not open."""
        if self._session is None:
            raise RuntimeClosedError(
                "the engine is not started",
                next_step="Call it inside `async with AgentEngine(...)`.",
            )
        return self._session

    @property
    def state(self) -> AgentState:
        """Where it is."""
        return AgentState.SHUTDOWN if self._session is None else self._session.state

    @property
    def state_history(self) -> tuple[StateTransition, ...]:
        """The latest moves from one state to another, oldest first."""
        return tuple(self.session.machine.history)

    @property
    def active_tools(self) -> Mapping[str, ToolExecutionState]:
        """The tools that the running turn is at, by the id of their call."""
        return self.session.active_tools

    async def submit(self, text: str, *, timeout_s: float | None = None) -> ConversationTurn:
        """The turn that answers a message; see `Session.send`."""
        return await self.session.send(text, timeout_s=timeout_s)

    def stream(self, text: str, *, timeout_s: float | None = None) -> AsyncIterator[Event]:
        """What happens in the turn that answers a message; see `Session.stream`."""
        return self.session.stream(text, timeout_s=timeout_s)

    def cancel_turn(self) -> bool:
        """Cancels the turn that runs; False if there is none."""
        return self.session.cancel()

    async def shutdown(self, *, drain: bool = True, timeout_s: float = 5.0) -> None:
        """Ends the session; a turn that runs may end within so many seconds if `drain`. A second time
        it does nothing."""
        session, self._session = self._session, None
        if session is not None:
            try:
                await session.shutdown(drain=drain, timeout_s=timeout_s)
            finally:
                await self._parts.aclose()
                self._started = False


OptimizedAgentEngine = AgentEngine
"""The name that others have for it."""
