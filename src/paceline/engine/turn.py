"""One turn of a session: the model is asked, its tools are run, until it answers.

A turn is one task. Whatever happens in it - an answer, an error, a limit, a cancellation at any
moment - it ends once, with the session idle, nothing running, and its end in the journal.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, final

import msgspec

from paceline.call import Outcome, Tokens
from paceline.engine.batch import Batch
from paceline.engine.desk import Desk
from paceline.engine.durable import DurableTools, Notes
from paceline.engine.events import TextDelta, TextRestarted, TurnEnded
from paceline.engine.hooks import Screening
from paceline.engine.journal import Record, Replied, StepEnded, TurnBegan
from paceline.engine.journal import TurnEnded as Ending
from paceline.engine.limits import MORE, TurnBudget
from paceline.engine.protocols import Preparation, Tools
from paceline.engine.scene import Means, Scene
from paceline.engine.scope import CancelScope, uncancelled
from paceline.engine.states import (
    AgentState,
    ToolCall,
    ToolExecutionState,
    ToolStatus,
    TransitionTrigger,
    TurnStatus,
)
from paceline.engine.troubles import Troubles
from paceline.errors import BudgetExceededError, CallCancelledError, CallError, PacelineError
from paceline.messages import ModelReply, Part, Restarted, ToolUse, UsePart

if TYPE_CHECKING:
    from paceline.engine.course import Course

__all__ = ["Turn"]

_log = logging.getLogger("paceline")

_NS: Final = 1_000_000_000
_S = AgentState
_T = TransitionTrigger
# Asking an enum for a member takes longer than comparing with it.
_IDLE, _PROMPT, _EXECUTING, _ERROR = (
    _S.IDLE, _S.PROCESSING_PROMPT, _S.EXECUTING_TOOLS, _S.ERROR,
)  # fmt: skip
_STARTED, _REQUESTED, _COMPLETION = _T.RESPONSE_STARTED, _T.TOOLS_REQUESTED, _T.TOOL_COMPLETION
_COMPLETED, _CACHED = ToolStatus.COMPLETED, ToolStatus.CACHED
_FAILED, _TIMED_OUT = ToolStatus.FAILED, ToolStatus.TIMED_OUT
_REUSED: Final = "reused"
_NO_CALLS: Final[Mapping[int, ToolCall]] = {}
_NO_WARNINGS: Final[Mapping[str, str]] = {}
_ENDS: Final = {
    TurnStatus.COMPLETED: _T.RESPONSE_READY,
    TurnStatus.CANCELLED: _T.CANCELLED,
    TurnStatus.FAILED: _T.GAVE_UP,
}


@final
class Turn:
    """What is done for one message of the user, in `run`; or, of a turn that a journal told of, what
    is left to do. `timeout_s` is how long the caller waits."""

    __slots__ = (
        "_batch", "_began", "_budget", "_context", "_cost_usd", "_course", "_deaf", "_decided", "_desk",
        "_durable", "_heard", "_listening", "_made", "_means", "_notes", "_running", "_scene",
        "_scope", "_started_ns", "_tokens", "_tools", "_troubles", "_warnings", "error", "id", "record",
    )  # fmt: skip

    def __init__(
        self,
        means: Means,
        scene: Scene,
        turn: TurnBegan | Record,
        *,
        timeout_s: float | None = None,
    ) -> None:
        self._began = turn if isinstance(turn, TurnBegan) else None
        self.record = record = Record(turn) if isinstance(turn, TurnBegan) else turn
        """How far it is."""
        self._notes = Notes(
            record, scene.conversation, means.journal, scene.context.session_id, means.foresight
        )
        self.id = record.id
        self.error: PacelineError | None = None
        """What ended it, if that was no answer."""
        self._means = means
        self._scene = scene
        self._context = msgspec.structs.replace(scene.context, turn_id=self.id)
        self._budget = TurnBudget(scene.limits, means.clock, timeout_s=timeout_s)
        self._started_ns = means.clock.monotonic_ns()
        self._troubles: Troubles | None = None
        self._desk: Desk | None = None
        tools = means.pipeline.tools if means.tools is None else means.tools
        self._tools: Tools = tools
        self._durable = None if means.journal is None else DurableTools(tools, self._notes)
        self._course: Course | None = None
        self._batch: Batch | None = None
        self._running = False  # all uses of the answer are in the batch
        self._made = 0
        self._decided: Mapping[int, ToolCall] = _NO_CALLS  # before a crash
        self._warnings: Mapping[str, str] = _NO_WARNINGS  # by the id of the call
        self._heard: list[str] | None = None
        self._listening = False
        self._deaf: Exception | None = None
        self._tokens: Tokens | None = None  # of answers that no reply stands for yet
        self._cost_usd: float | None = None
        self._scope = CancelScope()

    @property
    def tools(self) -> tuple[ToolExecutionState, ...]:
        """The tools of the answer that it is at."""
        return () if self._batch is None else self._batch.states()

    @property
    def desk(self) -> Desk:
        """Where it waits for a person."""
        if self._desk is None:
            self._desk = Desk(
                self._scene, self._means.clock, self._budget, self.id, self._set_deadline
            )
        return self._desk

    @property
    def troubles(self) -> Troubles:
        """What went wrong in it."""
        if self._troubles is None:
            self._troubles = Troubles(self._means, self._scene, self._budget, self.id)
        return self._troubles

    def cancel(self) -> bool:
        """Ends it as soon as what runs has been stopped. False, and nothing is done, if it ends or
        has ended already; a second time is once."""
        return self._scope.cancel()

    async def run(self) -> None:
        """Does it all, in the task that awaits it. What goes wrong is in `error`. Raises
        IllegalTransitionError, and does nothing, if the session is not idle; else only
        CancelledError, once all is over, if somebody else cancelled the task."""
        record, scene = self.record, self._scene
        scene.machine.move(_IDLE, _T.USER_INPUT, turn_id=self.id)
        status = TurnStatus.FAILED
        error: PacelineError | None = None
        scope = self._scope
        scope.enter(self._budget.left_s())
        told = False
        try:
            await self._set_out()
            while not record.answered:
                self._budget.spend(steps=1)
                if too_much := self._means.look_at_memory(scene.limits):
                    self.troubles.short_of_memory(too_much)
                await self._ask()
                if record.open_uses:
                    self._close_step(await self._tools_begun().results())
            await scope.check()
            status = TurnStatus.COMPLETED
        except asyncio.CancelledError:
            told = True
            if scope.late and not scope.cancelled and not scope.foreign:
                error = _late(self._budget)
            else:
                status = TurnStatus.CANCELLED
                error = CallCancelledError("the turn was cancelled", may_have_started=True)
        except Exception as exc:  # noqa: BLE001 (whatever it is, the session outlives it)
            error = _unexpected(exc)
        await self._close(status, error, told=told)
        if scope.foreign:
            raise asyncio.CancelledError

    async def _set_out(self) -> None:
        """Begins, or counts what was done before the crash and runs the tools that are left."""
        self._scene.loops.clear()
        if self._began is not None:
            await self._notes.begin(self._began)
        if self._scope.cancelled:  # before it was at its turn
            raise asyncio.CancelledError
        record = self.record
        if self._began is not None or record.answered:
            return
        self._budget.note(record.tokens, record.cost_usd)
        self._budget.spend(steps=record.steps, calls=len(record.calls))
        self._decided, self._made = record.decided()
        if record.open_uses:
            self._close_step(await self._tools_begun().results())

    async def _ask(self) -> None:
        """Asks the model until it answers, and notes what it says."""
        models, foresight = self._means.models, self._means.foresight
        request = self._notes.request(self._tools.definitions())
        while True:
            self._listening = True
            if foresight is not None:
                foresight.asking()
            outcome = await models.ask(
                request, self._context, hear=self._hear, timeout_s=self._budget.left_s()
            )
            self._listening = False
            self._count(outcome)
            if self._deaf is not None:
                raise self._deaf
            if outcome.error is None:
                break
            await self.troubles.model_failed(outcome.error)
            self._restart()
            request = self._notes.asked_again(request, outcome.error)
        if self._troubles is not None:
            self._troubles.model_answered()
        reply = outcome.value
        if not isinstance(reply, ModelReply):
            raise CallError(f"the model answered with {type(reply).__qualname__}, not ModelReply")
        if self._scene.watches and not self._heard and reply.text:
            self._scene.tell(TextDelta(reply.text))
        spent, model = (self._tokens, self._cost_usd), reply.model or outcome.name
        self._notes.tell(Replied(self.id, reply.text, reply.uses, *spent, model, reply.finish))
        self._tokens = self._cost_usd = None
        self._heard = None

    def _tools_begun(self) -> Batch:
        """Begins with what the last reply asks for."""
        uses: Sequence[ToolUse] = self.record.open_uses
        self._budget.spend(calls=min(len(uses), self._scene.limits.max_fan_out or len(uses)))
        machine = self._scene.machine
        machine.move(machine.state, _REQUESTED, turn_id=self.id)
        batch = self._batch or self._open_batch()
        self._running = True
        if self._decided:
            uses = [use for index, use in enumerate(uses) if index not in self._decided]
        batch.complete(uses)
        return batch

    def _close_step(self, calls: list[ToolCall]) -> None:
        """What came of it is noted, and told to the model."""
        if self._notes.error is not None:
            raise self._notes.error
        if self._warnings or self._decided:
            calls = _all(calls, self._decided, self._warnings, len(self.record.open_uses))
        for call in calls:
            if call.cost_usd is not None:
                self._budget.note(None, call.cost_usd)
            if call.status is _FAILED or call.status is _TIMED_OUT:
                self.troubles.tool_failed(call)
        self._notes.tell(StepEnded(self.id, tuple(calls)))
        if self._batch is not None:
            self._made = self._batch.made
        self._batch = None
        self._running = False
        self._decided, self._warnings = _NO_CALLS, _NO_WARNINGS
        self._scene.machine.move(_EXECUTING, _COMPLETION, turn_id=self.id)
        if self._scene.loops.stuck:
            raise _stuck(self._scene.loops.stuck)

    def _open_batch(self) -> Batch:
        course = self._course
        if course is None:
            course = self._course = self._means.pipeline.course(
                self._context,
                tools=self._durable or self._tools,
                limits=self._scene.limits,
                deadline_ns=self._budget.deadline_ns,
                priority=self._scene.priority,
                hooks=self,
            )
            course.foresight = self._means.foresight
        course.changed = self.changed
        batch = self._batch = self._means.pipeline.follow(course, self._made)
        return batch

    def _set_deadline(self, deadline_ns: int) -> None:
        """Time that is no longer, or again, the turn's."""
        if self._course is not None:
            self._course.deadline_ns = deadline_ns
        self._scope.end_in(max(0, deadline_ns - self._means.clock.monotonic_ns()) / _NS)

    def _hear(self, part: Part) -> None:
        """Hears a part of the answer. A tool use starts here, if it may."""
        if not self._listening:  # it is over, or a part of an answer that nobody asked for
            return
        machine = self._scene.machine
        try:
            if isinstance(part, Restarted):
                self._restart()
                return
            if machine.state is _PROMPT:
                machine.move(_PROMPT, _STARTED, turn_id=self.id)
            if isinstance(part, UsePart):
                batch = self._batch or self._open_batch()
                if batch.added < self._budget.calls_left:  # those beyond it are never made
                    batch.add(part.use)
            else:
                if self._heard is None:
                    self._heard = []
                self._heard.append(part.text)
                if self._scene.watches:
                    self._scene.tell(TextDelta(part.text))
        except Exception as exc:  # noqa: BLE001 (raised by `_ask`: who calls us is not at fault)
            self._listening = False
            self._deaf = exc

    def _restart(self) -> None:
        """Forgets what was heard of the answer. Tools that were started stay, for when the new one
        asks for them again."""
        if self._batch is not None:
            self._batch.restarted()
        if self._heard:
            self._heard = None
            if self._scene.watches:
                self._scene.tell(TextRestarted())

    def _count(self, outcome: Outcome) -> None:
        tokens, cost_usd = outcome.tokens, outcome.cost_usd
        if tokens is None and cost_usd is None:  # or it was made ahead, and is used first here
            tokens, cost_usd = outcome.ahead_tokens, outcome.ahead_usd
        self._budget.note(tokens, cost_usd)
        if tokens is not None:
            self._tokens = tokens if self._tokens is None else self._tokens.plus(tokens)
        if cost_usd is not None:
            self._cost_usd = cost_usd + (self._cost_usd or 0.0)

    # What its tools ask it and tell it: see `engine.hooks.Hooks`.

    def screen(self, preparation: Preparation) -> Screening:
        """Whether it is a loop."""
        return self._scene.loops.screen(preparation)

    def approve(self, call_id: str, preparation: Preparation) -> Awaitable[str | None]:
        """What a person says."""
        return self.desk.approve(call_id, preparation)

    def ask(self, call_id: str, preparation: Preparation) -> Awaitable[str]:
        """What the user answers."""
        return self.desk.ask(call_id, preparation)

    @property
    def begin(self) -> Callable[[str, Preparation], Awaitable[None]] | None:
        """What has to be noted before a tool runs; nothing without a journal."""
        return None if self._durable is None else self._begin

    @property
    def changed(self) -> Callable[[ToolCall], object] | None:
        """Who watches is told, if anybody does when the answer begins."""
        return self._scene.tool_changed if self._scene.watches else None

    async def _begin(self, call_id: str, preparation: Preparation) -> None:
        """A tool is about to start. One that must not run twice is noted first."""
        batch = self._batch
        if batch is not None and self._durable is not None and not preparation.effect.retryable:
            places = (at for at in range(len(self.record.open_uses)) if at not in self._decided)
            called = zip(places, batch.calls, strict=False)
            place = next(at for at, call in called if call.id == call_id)
            await self._durable.begin(preparation, place, call_id)

    def ended(self, preparation: Preparation, call: ToolCall) -> None:
        """Lets loop detection know what was run."""
        status = call.status
        ran = status is _COMPLETED or (status is _CACHED and call.source != _REUSED)
        failed = status is _FAILED or status is _TIMED_OUT
        if ran or failed:
            warning = self._scene.loops.done(preparation, call.result, failed=failed)
            if warning:
                self._warnings = {**self._warnings, call.id: warning}

    async def _close(self, status: TurnStatus, error: PacelineError | None, *, told: bool) -> None:
        """Stops what runs, notes the end, and leaves the session idle, whatever happens."""
        await self._scope.leave(told=told)
        if error is not None and status is TurnStatus.FAILED:
            self.troubles.give_up(error)
        end = self._end(status, error)
        try:
            if self._batch is not None or self._durable is not None:
                await uncancelled(partial(self._stop, end))
        except Exception as exc:  # noqa: BLE001 (the journal's; the session outlives it)
            _log.warning("The end of turn %s is not in its journal: %s", self.id, exc)
            if error is None:
                error = _unexpected(exc)
                end = self._end(TurnStatus.FAILED, error)
                self.troubles.give_up(error)
        finally:
            if self.record.end is None:
                self._notes.apply(end)
            self.error = error
            self._leave(end.status)

    def _end(self, status: TurnStatus, error: PacelineError | None) -> Ending:
        took_ns = self._means.clock.monotonic_ns() - self._started_ns
        message, category = ("", None) if error is None else (error.message, error.category)
        heard = "".join(self._heard or ())
        spent = self._tokens, self._cost_usd
        return Ending(self.id, status, took_ns, message, category, heard, *spent)

    async def _stop(self, end: Ending) -> None:
        """Everything that has to be waited for at the end. Doing it again does no harm."""
        batch = self._batch
        if batch is not None:
            await batch.cancel()
        await self._notes.make_sure()
        if batch is not None and self._running and self.record.open_uses:
            uses = len(self.record.open_uses)
            calls = _all(batch.calls, self._decided, self._warnings, uses)
            self._notes.tell(StepEnded(self.id, tuple(calls)))
        await self._notes.announce(end)

    def _leave(self, status: TurnStatus) -> None:
        """To IDLE, by the way that the end needs, and tells it."""
        self._batch = None
        scene = self._scene
        scene.machine.move(scene.machine.state, _ENDS[status], turn_id=self.id)
        if scene.watches:
            scene.tell(TurnEnded(self.record.turn()))


def _all(
    calls: Sequence[ToolCall],
    decided: Mapping[int, ToolCall],
    warnings: Mapping[str, str],
    count: int,
) -> list[ToolCall]:
    """The calls of a batch, with those that were decided before it, in the order of the `count` uses;
    and with what the model has to be warned of."""
    rest = iter([_warned(call, warnings) for call in calls])
    return [decided.get(at) or next(rest) for at in range(count)]


def _warned(call: ToolCall, warnings: Mapping[str, str]) -> ToolCall:
    warning = warnings.get(call.id)
    if warning is None:
        return call
    return msgspec.structs.replace(call, result=f"{call.result}\n\n{warning}")


def _stuck(why: str) -> BudgetExceededError:
    return BudgetExceededError(
        f"the turn repeats itself: {why}",
        budget="loop_detection",
        next_step="Ask for something else, or in other words; the model does not get on.",
        may_have_started=True,
    )


def _late(budget: TurnBudget) -> BudgetExceededError:
    try:
        budget.spend()
    except BudgetExceededError as exc:
        return exc
    # The timer and the clock may differ by a moment.
    return BudgetExceededError(
        "the turn took longer than it may",
        budget="max_execution_s",
        next_step=MORE,
        may_have_started=True,
    )


def _unexpected(exc: Exception) -> PacelineError:
    """Ours as it is; anything else as the cause of one of ours."""
    if isinstance(exc, PacelineError):
        return exc
    error = CallError(f"the turn failed: {type(exc).__name__}: {exc}", may_have_started=True)
    error.__cause__ = exc
    return error
