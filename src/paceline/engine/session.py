"""A session: one conversation, turn by turn."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextvars import Token, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

from paceline.call import Caller
from paceline.engine.conversation import Conversation
from paceline.engine.events import ApprovalNeeded, Event, QuestionAsked, StateChanged, TurnEnded
from paceline.engine.journal import (
    Compacted,
    Record,
    Restoration,
    Restored,
    TurnBegan,
    abandon,
    backwards,
)
from paceline.engine.limits import SessionBudget
from paceline.engine.loops import Loops
from paceline.engine.machine import Machine
from paceline.engine.scene import Means, Scene, current_turns
from paceline.engine.states import (
    AgentContext,
    AgentState,
    ConversationTurn,
    ExecutionContext,
    ExecutionPriority,
    PerformanceHints,
    ResourceLimits,
    StateTransition,
    ToolExecutionState,
    TransitionTrigger,
    TurnStatus,
)
from paceline.engine.summaries import Summaries
from paceline.engine.turn import Turn
from paceline.engine.watch import Watch
from paceline.errors import IllegalTransitionError, InvalidInputError

if TYPE_CHECKING:
    from paceline.predict.execution import ExecutionPattern

__all__ = ["Session"]

_log = logging.getLogger("paceline")

_LIMITS: Final = ResourceLimits()
_NOBODY: Final = Caller()
_NO_HINTS: Final = PerformanceHints()
_STREAMED: Final = 4_096
_SLICE: Final = 100
"""Entries of a journal that are read without a pause: others are not kept waiting for long."""


@final
class Session:
    """Answers one message after another, each in a turn of its own.

    `conversation` replaces the one that `system` and `limits` would make. All of it is used on one
    event loop; while no turn runs, nothing of it does, but for a summary of what is no longer shown,
    where the conversation has somebody to make one. Of a session with a journal, what was said
    before is read when it is entered, or at the first message.
    """

    __slots__ = (
        "_begun", "_budget", "_closing", "_interrupted", "_means", "_one_at_a_time", "_open", "_over",
        "_scene", "_summaries", "_turn", "conversation", "id", "machine", "turns",
    )  # fmt: skip

    def __init__(
        self,
        session_id: str,
        means: Means,
        *,
        limits: ResourceLimits = _LIMITS,
        system: str = "",
        caller: Caller = _NOBODY,
        conversation: Conversation | None = None,
        priority: ExecutionPriority = ExecutionPriority.NORMAL,
        workspace: str = "",
    ) -> None:
        self.id = session_id
        self.turns: list[ConversationTurn] = []
        """The turns that are over, oldest first; as many as the limits say."""
        self.machine = Machine(clock=means.clock)
        self.conversation = conversation or Conversation(
            system, max_turns=limits.max_turns_kept, max_tokens=limits.max_context_tokens
        )
        self._means = means
        self._scene = Scene(
            context=ExecutionContext(session_id, caller.user, caller.tenant, workspace=workspace),
            limits=limits,
            machine=self.machine,
            conversation=self.conversation,
            loops=Loops(clock=means.clock),
            priority=priority,
        )
        self._one_at_a_time = asyncio.Lock()
        self._turn: Turn | None = None
        self._interrupted: Record | None = None
        self._over: asyncio.Future[None] | None = None
        self._begun = 0
        self._budget = SessionBudget(limits)
        self._summaries: Summaries | None = None
        self._open = False
        self._closing = False

    @property
    def state(self) -> AgentState:
        """Where it is."""
        return self.machine.state

    @property
    def awaits_message(self) -> bool:
        """Whether no turn runs, and none that was interrupted is to be gone on with or given up."""
        return self.machine.state is AgentState.IDLE and self._interrupted is None

    @property
    def hints(self) -> PerformanceHints:
        """What it is likely to call next, where somebody looks ahead."""
        foresight = self._means.foresight
        return _NO_HINTS if foresight is None else foresight.hints

    @property
    def pattern(self) -> "ExecutionPattern | None":
        """The calls that are likely until the turn ends; None if none is, or nobody looks ahead."""
        foresight = self._means.foresight
        return None if foresight is None else foresight.pattern

    @property
    def turn(self) -> ConversationTurn | None:
        """The turn that runs, as far as it is."""
        return None if self._turn is None else self._turn.record.turn()

    @property
    def active_tools(self) -> dict[str, ToolExecutionState]:
        """The tools of the answer that the running turn is at, by the id of their call."""
        return {} if self._turn is None else {one.call_id: one for one in self._turn.tools}

    @property
    def context(self) -> AgentContext:
        """All of it at this moment."""
        turns, limits = tuple(self.turns), self._scene.limits
        return AgentContext(self.id, self.state, turns, self.active_tools, self.hints, limits)

    @property
    def pending(self) -> ApprovalNeeded | QuestionAsked | None:
        """What a person is asked."""
        return None if self._turn is None else self._turn.desk.pending

    async def send(self, text: str, *, timeout_s: float | None = None) -> ConversationTurn:
        """The turn that answers a message. Turns are done one after another, in the order of the
        calls; `timeout_s`, in seconds, counts from the beginning of this one.

        Cancelled, it ends the turn before it raises. Raises InvalidInputError for an empty message,
        IllegalTransitionError once the session is shut down and in the course of a turn of its own,
        CallCancelledError after `cancel`, BudgetExceededError for a limit that was reached, by the
        session or the turn, else the PacelineError that ended the turn.
        """
        self._check_outside()
        async with self._one_at_a_time:
            turn = await self._next(text, timeout_s)
            entered = self._enter(turn)
            try:
                await turn.run()
            finally:
                ended = self._leave(turn, entered)
        return _answer(turn, ended)

    async def stream(
        self, text: str, *, timeout_s: float | None = None, most: int = _STREAMED
    ) -> AsyncGenerator[Event, None]:
        """What happens in the turn that answers a message, up to its TurnEnded; then what `send`
        raises. Leaving it before cancels the turn.

        `most` events wait for a reader that is slow; the oldest give way. The TurnEnded says it all.
        """
        self._check_outside()
        async with self._one_at_a_time:
            turn = await self._next(text, timeout_s)
            with self.watch(most) as watch:
                self._turn = turn
                context = copy_context()  # ours is that of who reads
                context.run(current_turns.set, _course_of(turn))
                task = asyncio.get_running_loop().create_task(turn.run(), context=context)
                task.add_done_callback(self._settled)
                task.add_done_callback(lambda _: watch.close())
                try:
                    async for event in watch:
                        yield event
                        if isinstance(event, TurnEnded):
                            break
                finally:
                    turn.cancel()
                    try:
                        await _until(turn, task)
                    finally:
                        ended = self._finish(turn)
                    if turn.record.end is None or not task.cancelled():
                        task.result()  # and else it was cancelled when all was done
        _answer(turn, ended)

    async def resume(self, *, timeout_s: float | None = None) -> ConversationTurn | None:
        """Goes on with the turn that the journal says was interrupted; None if there is none.

        A tool that must not run twice is not run again if it may have begun: the model is told.
        Raises as `send`, and StorageError for a journal that cannot be read.
        """
        self._check_outside()
        async with self._one_at_a_time:
            await self._be_open()
            self._budget.check()
            record, self._interrupted = self._interrupted, None
            if record is None:
                return None
            turn = Turn(self._means, self._scene, record, timeout_s=timeout_s)
            entered = self._enter(turn)
            try:
                await turn.run()
            finally:
                ended = self._leave(turn, entered)
        return _answer(turn, ended)

    def cancel(self) -> bool:
        """Cancels the turn that runs; False if there is none that could still be cancelled. Whoever
        waits for it gets CallCancelledError when all that ran has been stopped."""
        return self._turn is not None and self._turn.cancel()

    def approve(self, call_id: str, *, yes: bool = True, reason: str = "") -> None:
        """Lets a tool run that waits for approval, or refuses it; the model is told the reason.
        Raises IllegalTransitionError if that call does not wait."""
        self._asking().desk.decide(call_id, None if yes else reason)

    def answer(self, text: str) -> None:
        """Answers the question that a tool asked. Raises IllegalTransitionError if none did."""
        self._asking().desk.answer(text)

    def watch(self, most: int = 256) -> Watch[Event]:
        """What happens from now on, until it is closed or the session is shut down; the latest `most`
        events wait to be read. Tools of an answer that is under way are told of only if somebody
        watched when the first of them was asked for; `active_tools` has those."""
        watch: Watch[Event] = Watch(most, closing=lambda: self._unwatch(watch))
        self._scene.watches += (watch,)
        if len(self._scene.watches) == 1:  # who does not watch does not pay for being told
            self.machine.observe(self._moved)
        if self.machine.state is AgentState.SHUTDOWN:
            watch.close()
        return watch

    async def shutdown(self, *, drain: bool = True, timeout_s: float = 5.0) -> None:
        """Ends the session. The turn that runs, and then a summary, may end within `timeout_s` seconds
        each if `drain`, and is cancelled after that; those that wait are refused. A second time does nothing more. Raises
        IllegalTransitionError in the course of a turn of its own, which could not end before it."""
        self._check_outside()
        if not self._closing:
            _log.info("Agent shutdown requested")
            self._closing = True
            self._means.pipeline.part(self.id)
        turn = self._turn
        if turn is not None:
            over = self._over = self._over or asyncio.get_running_loop().create_future()
            try:
                if drain:
                    await asyncio.wait((over,), timeout=timeout_s)
            finally:
                turn.cancel()
                await _until(turn, over)
        if self._summaries is not None:
            await self._summaries.close(timeout_s if drain else 0.0)
        if self.machine.state is not AgentState.SHUTDOWN:
            self.machine.move(self.machine.state, TransitionTrigger.SHUTDOWN)
        for watch in self._scene.watches:
            watch.close()

    async def __aenter__(self) -> Self:
        """Raises StorageError for a journal that cannot be read."""
        async with self._one_at_a_time:
            await self._be_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown(drain=error is None)

    async def _be_open(self) -> None:
        """Reads the journal, once. Raises IllegalTransitionError if the session is shut down."""
        if not self._open and not self._closing:
            _log.info("Starting optimized agent engine")
            self._means.pipeline.join(self.id)
            if self._means.journal is not None:
                restored = await _restored(self._means, self.id, _seen(self._scene))
                if restored.compaction is not None:
                    self.conversation.restore(restored.compaction)
                for turn_id, message in restored.messages:
                    self.conversation.add(message, turn_id)
                for turn in restored.turns:
                    self._keep(turn)
                self._interrupted = restored.interrupted
                self._begun = restored.begun
                self._budget.note(restored.tokens, restored.cost_usd)
            self._open = True
        if self._closing:
            raise IllegalTransitionError(
                "the session is shut down", next_step="The session is over; open another one."
            )

    async def _next(self, text: str, timeout_s: float | None) -> Turn:
        """A turn for this message. One that was interrupted is given up."""
        _check_message(text)
        await self._be_open()
        self._budget.check()
        if self._interrupted is not None:
            for message in abandon(self._interrupted):
                self.conversation.add(message, self._interrupted.id)
            self._ended(self._interrupted.turn())
            self._interrupted = None
        self._begun += 1
        run = self._means.run
        turn_id = f"{self.id}.{run}.{self._begun}" if run else f"{self.id}.{self._begun}"
        began = TurnBegan(turn_id, text, self._means.clock.wall_ns())
        return Turn(self._means, self._scene, began, timeout_s=timeout_s)

    def _enter(self, turn: Turn) -> Token[tuple[Record, ...]]:
        """The turn is done in this very task from now on. That is not a coroutine's business, as each
        of them is memory for as long as the turn runs."""
        self._turn = turn
        return current_turns.set(_course_of(turn))

    def _leave(self, turn: Turn, entered: Token[tuple[Record, ...]]) -> ConversationTurn:
        """It is over."""
        ended = self._finish(turn)
        self._settled()
        current_turns.reset(entered)
        return ended

    def _finish(self, turn: Turn) -> ConversationTurn:
        """Keeps what the turn was, now that it is over."""
        self._turn = None
        ended = turn.record.turn()
        if turn.record.end is not None:
            self._ended(ended)
        self.machine.compact()
        if self.conversation.stale and ended.status is TurnStatus.COMPLETED:
            self._summarise(turn.id)
        return ended

    def _settled(self, _: object = None) -> None:
        """Lets those know that wait for the end of the turn: nothing of it runs any more."""
        if self._over is not None:
            self._over.set_result(None)
            self._over = None

    def _keep(self, turn: ConversationTurn) -> None:
        self.turns.append(turn)
        most = self._scene.limits.max_turns_kept
        if most and len(self.turns) > most:
            del self.turns[0]

    def _ended(self, turn: ConversationTurn) -> None:
        self._keep(turn)
        self._budget.note(turn.tokens, turn.cost_usd)
        if self._means.ended is not None:
            self._means.ended(turn)

    def _summarise(self, turn_id: str) -> None:
        """Has what is no longer shown summed up, unless nobody would read it."""
        if self._closing or self._budget.used_up:
            return
        if self._summaries is None:
            journal = self._means.journal
            self._summaries = Summaries(self.conversation, journal, self.id, self._summarised)
        self._summaries.begin(turn_id)

    def _summarised(self, entry: Compacted) -> None:
        """Counts what a summary took, as its turn's."""
        self._budget.note(entry.tokens, entry.cost_usd)
        for at, turn in enumerate(self.turns):
            if turn.id == entry.turn_id:
                self.turns[at] = turn.taking(entry.tokens, entry.cost_usd)

    def _check_outside(self) -> None:
        """Raises IllegalTransitionError where waiting for the turn that runs would never end."""
        if self._turn is not None and self._turn.record in current_turns.get():
            raise IllegalTransitionError(
                "a turn of the session would wait for its own end",
                next_step="Do it when the turn is over; `cancel` may be called in its course.",
            )

    def _asking(self) -> Turn:
        if self._turn is None:
            raise IllegalTransitionError("no turn runs, so nothing is asked")
        return self._turn

    def _moved(self, transition: StateTransition) -> None:
        self._scene.tell(StateChanged(transition))

    def _unwatch(self, watch: Watch[Event]) -> None:
        scene = self._scene
        scene.watches = tuple(one for one in scene.watches if one is not watch)
        if not scene.watches:
            self.machine.forget(self._moved)


def _check_message(text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(
            f"the message is of type {type(text).__name__}", next_step="Send a text."
        )
    if not text:
        raise InvalidInputError("the message is empty")


def _seen(scene: Scene) -> int | None:
    """How many turns are kept or shown at most; None if all are."""
    most, seen = scene.limits.max_turns_kept, scene.conversation.memory
    return None if seen is None or not most else max(most, seen)


async def _restored(means: Means, session_id: str, most: int | None) -> Restored:
    """What was said before, of which who looks ahead is told too."""
    entries = [] if means.journal is None else await means.journal.load(session_id)
    restoration = Restoration(most)
    for at, data in enumerate(entries, 1):
        restoration.add(data)
        if not at % _SLICE:
            await asyncio.sleep(0)
    if means.foresight is not None and entries:
        means.foresight.recall(backwards(entries))
    return restoration.restored()


def _course_of(turn: Turn) -> tuple[Record, ...]:
    return (*current_turns.get(), turn.record)


def _answer(turn: Turn, ended: ConversationTurn) -> ConversationTurn:
    if turn.error is not None:
        raise turn.error
    return ended


async def _until(turn: Turn, over: asyncio.Future[None]) -> None:
    """Returns when it is over, and no sooner: who is cancelled meanwhile cancels the turn and is so
    told after it."""
    cancelled: asyncio.CancelledError | None = None
    while not over.done():
        try:
            await asyncio.wait((over,))
        except asyncio.CancelledError as exc:
            turn.cancel()
            cancelled = exc
    if cancelled is not None:
        raise cancelled
