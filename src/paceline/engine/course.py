"""How one tool use is carried out: screened, agreed to, given a place, run, put into words."""

import asyncio
import logging
from contextvars import Context, copy_context
from typing import Final, final

from paceline.balance.gate import Gate, enter_all, try_enter_all
from paceline.call import Outcome, Source
from paceline.engine.execution import Execution, Floor, cost_of
from paceline.engine.hooks import Hooked
from paceline.engine.protocols import Foresight, Preparation, Tools
from paceline.engine.states import (
    ExecutionContext,
    ExecutionPriority,
    ResourceLimits,
    ToolCall,
    ToolStatus,
)
from paceline.errors import (
    BudgetExceededError,
    CallCancelledError,
    CallTimeoutError,
    OverloadedError,
    PacelineError,
    Shortage,
)
from paceline.messages import ToolUse
from paceline.resources import Resources, current_resources

__all__ = ["Course"]

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000
_PRIORITIES: Final = tuple(one.priority for one in ExecutionPriority)
_EXECUTED = Source.EXECUTED
_RUNNING = ToolStatus.RUNNING
_COMPLETED, _CACHED = ToolStatus.COMPLETED, ToolStatus.CACHED
_FAILED, _TIMED_OUT = ToolStatus.FAILED, ToolStatus.TIMED_OUT
_CANCELLED, _REJECTED = ToolStatus.CANCELLED, ToolStatus.REJECTED


class _Place(Resources):
    """What is taken by code that has a place here."""

    __slots__ = ("gates",)

    def __init__(self, gates: tuple[Gate, ...]) -> None:
        self.used = None
        self.left_behind = 0
        self.gates = gates
        """Where the running code holds a place already."""


@final
class Course:
    """In which course the uses of the answers of a turn run: for whom, with which tools, until when.

    `deadline_ns` is a moment of the monotonic clock, and may be moved; it counts for those that have
    not started. `variables` are those of who made this: tasks are started from wherever an answer
    is heard, and are no part of that.
    """

    __slots__ = (
        "_hooks", "_priority", "_tools", "changed", "context", "deadline_ns", "floor", "foresight",
        "limits", "prefix", "variables",
    )  # fmt: skip

    def __init__(
        self,
        floor: Floor,
        tools: Tools,
        context: ExecutionContext,
        *,
        limits: ResourceLimits,
        deadline_ns: int,
        priority: ExecutionPriority,
        hooks: Hooked,
    ) -> None:
        self.floor = floor
        self.context = context
        self.prefix = f"{context.turn_id}."
        """What the ids of its calls begin with."""
        self.limits = limits
        self.deadline_ns = deadline_ns
        self._tools = tools
        self._priority = _PRIORITIES[priority]
        self._hooks = hooks
        self.changed = hooks.changed
        """As that hook; may be set when an answer begins."""
        self.foresight: Foresight | None = None
        """Who says what tools take; may be set before the first answer."""
        self.variables: Context = copy_context()

    def prepare(self, call_id: str, use: ToolUse) -> Execution:
        """The use, checked; it is over at once if it cannot be run."""
        execution = Execution(call_id, use, self.floor.clock.monotonic_ns())
        try:
            preparation = execution.preparation = self._tools.prepare(use)
        except PacelineError as exc:
            self._end(execution, _REJECTED, f"Not run: {exc.message}", exc)
        except Exception as exc:  # noqa: BLE001 (tools are the code of others)
            self._broke(execution, exc)
        else:
            execution.agreed = not preparation.approval and preparation.question is None
            if self.changed is not None:
                self._changed(execution)
        return execution

    def reject(self, call_id: str, use: ToolUse, why: OverloadedError) -> Execution:
        """A use that is not even looked at."""
        execution = Execution(call_id, use, self.floor.clock.monotonic_ns())
        self.refuse(execution, why)
        return execution

    def refuse(self, execution: Execution, why: OverloadedError) -> None:
        """Ends one that is not to be run after all."""
        self._end(execution, _REJECTED, f"Not run: {why.message}", why)

    async def settle(self, execution: Execution) -> None:
        """Does the next of what there is to do: asks the person who has to agree, and else carries
        it out. After it the execution is over, or `agreed` with the rest yet to do.

        Raises only CancelledError, if the task that it runs in was cancelled.
        """
        preparation = execution.preparation
        if preparation is None:
            return
        execution.begun = True
        try:
            if not execution.screened:
                execution.screened = True
                screen = self._hooks.screen
                if screen is not None and (found := screen(preparation)).text is not None:
                    self._screened(execution, found.text, refused=found.refused)
                    return
            if execution.agreed:
                await self._carry_out(execution, preparation)
            else:
                await self._ask(execution, preparation)
        except asyncio.CancelledError:
            self.stop(execution)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # and else the tool cancelled itself, which is its own affair
        except PacelineError as exc:
            self._fail(execution, exc)
        except Exception as exc:  # noqa: BLE001 (tools and hooks are the code of others)
            self._broke(execution, exc)
        finally:
            execution.begun = False

    def intensive(self, execution: Execution) -> bool:
        """Whether it takes much."""
        foresight = self.foresight
        return foresight is not None and (
            execution.use.name in foresight.hints.resource_intensive_tools
        )

    @property
    def knows_times(self) -> bool:
        """Whether it is known of any tool how long it runs."""
        foresight = self.foresight
        return self.floor.expected_ns is not None or (
            foresight is not None and bool(foresight.hints.expected_ns)
        )

    def expected_ns(self, execution: Execution) -> int:
        """How long it is likely to run, 0 where nothing is known."""
        name, known, foresight = execution.use.name, self.floor.expected_ns, self.foresight
        expected_ns = None if known is None else known(name)
        if expected_ns is None and foresight is not None:
            expected_ns = foresight.hints.expected_ns.get(name)
        return expected_ns or 0

    def stop(self, execution: Execution) -> None:
        """Ends one that is cancelled, if it is not over."""
        if execution.call is None:
            started = execution.started_ns is not None
            error = CallCancelledError(
                "cancelled before it ended" if started else "cancelled before it began",
                may_have_started=started,
            )
            self._fail(execution, error)

    def _screened(self, execution: Execution, text: str, *, refused: bool) -> None:
        """Loop detection put an end to it."""
        status = _REJECTED if refused else _CACHED
        self._end(execution, status, text, source="" if refused else "reused")

    async def _ask(self, execution: Execution, preparation: Preparation) -> None:
        hooks, clock = self._hooks, self.floor.clock
        asked_ns = clock.monotonic_ns()
        try:
            if preparation.question is not None:
                if hooks.ask is None:
                    self._end(execution, _REJECTED, "Not asked: there is nobody to answer.")
                else:
                    answer = await hooks.ask(execution.id, preparation)
                    self._end(execution, _COMPLETED, answer, source="user")
            elif hooks.approve is None:
                text = "Not run: a person has to agree, and there is nobody to ask."
                self._end(execution, _REJECTED, text)
            elif (why := await hooks.approve(execution.id, preparation)) is not None:
                self._end(execution, _REJECTED, f"Not run: the user refused it. {why}".rstrip())
            else:
                execution.agreed = True
        finally:
            execution.person_ns += clock.monotonic_ns() - asked_ns

    async def _carry_out(self, execution: Execution, preparation: Preparation) -> None:
        floor = self.floor
        gates = (floor.gate, floor.intensive) if self.intensive(execution) else floor.places
        outer = current_resources.get()
        held = outer.gates if isinstance(outer, _Place) else ()
        entered = gates
        if not try_enter_all(gates):
            # Who runs tools in the course of a tool waits for them in a place that they would wait
            # for, and so lends it to them.
            entered = tuple(gate for gate in gates if gate not in held)
            await enter_all(
                entered,
                self._priority,
                tenant=self.context.session_id,
                deadline_ns=self.deadline_ns,
            )
        try:
            if self._hooks.begin is not None:
                await self._hooks.begin(execution.id, preparation)
            began_ns = floor.clock.monotonic_ns()
            left_ns = self.deadline_ns - began_ns
            if left_ns <= 0:
                raise CallTimeoutError("there was no time left for it")
            execution.started_ns, execution.status = began_ns, _RUNNING
            if self.changed is not None:
                self._changed(execution)
            limit_s = left_ns / _NS
            if preparation.timeout_s is not None:
                limit_s = min(preparation.timeout_s, limit_s)
            taken = _Place(held + gates)
            adding = current_resources.set(taken)
            try:
                outcome = await self._tools.run(
                    preparation, self.context, priority=self._priority, timeout_s=limit_s
                )
            finally:
                current_resources.reset(adding)
                execution.resources = taken.used
        finally:
            for gate in entered:
                gate.leave()
        execution.cost_usd = cost_of(preparation, outcome)
        if outcome.error is not None:
            self._fail(execution, outcome.error, outcome)
        else:
            status = _COMPLETED if outcome.source is _EXECUTED else _CACHED
            self._end(execution, status, self._tools.text(outcome), outcome=outcome)

    def _fail(
        self, execution: Execution, error: PacelineError, outcome: Outcome | None = None
    ) -> None:
        # What a tool that ran was refused itself is its failure.
        ran = outcome is not None and outcome.attempts > 0
        if isinstance(error, CallCancelledError):
            status, says = _CANCELLED, "Cancelled"
        elif isinstance(error, CallTimeoutError) or (not ran and _late(error)):
            status, says = _TIMED_OUT, "Timed out"
        elif not ran and isinstance(error, (OverloadedError, BudgetExceededError)):
            status, says = _REJECTED, "Not run"
        else:
            status, says = _FAILED, "Failed"
        text = f"{says}: {error.message}"
        if error.may_have_started and not execution.repeatable:
            text += "; it may have taken effect all the same"
            execution.lingers = status is not _FAILED
        if status is not _CANCELLED:
            _log.warning("Tool execution failed: %s", f"{execution.use.name}: {error.message}")
        self._end(execution, status, text, error, outcome)

    def _broke(self, execution: Execution, exc: Exception) -> None:
        """Ends one whose code or hooks raised what they must not."""
        _log.error("Tool execution failed: %s", execution.use.name, exc_info=exc)
        error = PacelineError(
            f"there is a fault in how it is run ({type(exc).__name__})",
            may_have_started=execution.started_ns is not None,
        )
        self._end(execution, _FAILED, f"Failed: {error.message}", error)

    def _end(
        self,
        execution: Execution,
        status: ToolStatus,
        text: str,
        error: PacelineError | None = None,
        outcome: Outcome | None = None,
        *,
        source: str = "",
    ) -> None:
        floor = self.floor
        now_ns = execution.ended_ns = floor.clock.monotonic_ns()
        execution.status = status
        use = execution.use
        started_ns = execution.started_ns
        attempts = queue_ns = execution_ns = 0
        if started_ns is not None:
            # For earlier ones and for a place, but for no person.
            queue_ns = started_ns - execution.queued_ns - execution.person_ns
            execution_ns = now_ns - started_ns
        if outcome is not None:
            source, attempts = outcome.source, outcome.attempts
            queue_ns += outcome.queue_ns
            execution_ns = outcome.execute_ns
        execution.call = call = ToolCall(
            execution.id,
            use.name,
            use.arguments,
            status,
            text,
            "" if error is None else error.message,
            None if error is None else error.category,
            attempts,
            source,
            queue_ns,
            execution_ns,
            execution.resources,
            execution.cost_usd,
        )
        floor.recent.append(execution.figures())
        if self.changed is not None:
            self._changed(execution)
        if self._hooks.ended is not None and execution.preparation is not None:
            try:
                self._hooks.ended(execution.preparation, call)
            except Exception:  # noqa: BLE001 (the call is over, whoever was to be told)
                _log.exception("A listener to tool calls failed")

    def _changed(self, execution: Execution) -> None:
        changed = self.changed
        if changed is not None:
            try:
                changed(execution.as_call())
            except Exception:  # noqa: BLE001 (a listener is no part of the call)
                _log.exception("A listener to tool calls failed")


def _late(error: PacelineError) -> bool:
    return isinstance(error, OverloadedError) and error.reason is Shortage.LATE
