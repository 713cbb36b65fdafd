"""What goes wrong in one turn: to the state ERROR with it, and back from there where that helps."""

import asyncio
import logging
from typing import Final, final

import msgspec

from paceline.engine.limits import TurnBudget
from paceline.engine.recovery import (
    Degrade,
    GiveUp,
    Recovery,
    Retry,
    Shorten,
    left_alone,
    recovery,
    trigger_of,
    trouble_of,
)
from paceline.engine.scene import Means, Scene
from paceline.engine.states import (
    AgentState,
    ToolCall,
    ToolStatus,
    TransitionTrigger,
    Trouble,
)
from paceline.errors import AgentError, Category, PacelineError

__all__ = ["Troubles"]

_log = logging.getLogger("paceline")

_MIB: Final = 1024**2
_T = TransitionTrigger
_TOO_LONG: Final = Category.TOO_LONG
_NEVER_THERE: Final = 1
"""So often a model is asked again that cannot be reached, and was never there: its address is wrong, or it
was not started, and a person waits to be told."""


@final
class Troubles:
    """The troubles of one turn, counted by kind, and what is done about each."""

    __slots__ = (
        "_budget", "_cause", "_means", "_scene", "_shortened", "_tools_failed", "_tries", "_turn_id",
    )  # fmt: skip

    def __init__(self, means: Means, scene: Scene, budget: TurnBudget, turn_id: str) -> None:
        self._means = means
        self._scene = scene
        self._budget = budget
        self._turn_id = turn_id
        self._tries: dict[TransitionTrigger, int] = {}
        self._tools_failed = 0
        self._shortened = 0
        self._cause: PacelineError | None = None
        """What the model failed with last, when it was really asked."""

    def short_of_memory(self, used_bytes: int) -> None:
        """Gives back and does less, as the process takes too much. It ends no turn, as what one turn
        holds is the least of it."""
        limit_mb = self._scene.limits.max_memory_mb
        trouble = Trouble(
            Category.EXHAUSTED,
            f"the process takes {used_bytes // _MIB} MiB, of {limit_mb} MiB",
            retryable=True,
            origin=self._scene.machine.state,
            attempt=self._attempt(_T.RESOURCE_LIMIT),
        )
        if isinstance(self._decide(trouble, None), Degrade):
            freed = 0 if self._means.relieve is None else self._means.relieve()
            message = f"{trouble.message}; {freed:,} bytes of results were let go of"
            self._fail(_T.RESOURCE_LIMIT, msgspec.structs.replace(trouble, message=message))
            _log.warning("Recovering from memory limit: %d bytes freed", freed)
            self._recovered()

    def model_answered(self) -> None:
        """For the next answer the conversation may be shortened again."""
        self._shortened = 0

    async def model_failed(self, error: PacelineError) -> None:
        """Does what is needed before the model can be asked again, which may be to wait, or to shorten
        the conversation; raises the error if that makes no sense. In place of one that only says that
        the model is left alone it is the one before, which says why."""
        trigger = trigger_of(error.category)
        if error.category is _TOO_LONG:
            attempt = self._shortened = self._shortened + 1
        else:
            attempt = self._attempt(trigger)
        if not left_alone(error):
            self._cause = error
        trouble = trouble_of(error, self._scene.machine.state, attempt)
        step = self._decide(trouble, error.retry_after_s)
        if isinstance(step, Retry):
            trouble = msgspec.structs.replace(trouble, again_s=step.after_s)
        self._fail(trigger, trouble)
        if error.category is _TOO_LONG:
            if not isinstance(step, Shorten) or not self._scene.conversation.shorten():
                raise _too_long(error) from error
            _log.warning("Recovering from a conversation that is too long")
            self._recovered()
            return
        if not isinstance(step, Retry):
            _log.warning("Given up: %s", step.why if isinstance(step, GiveUp) else error.message)
            raise self._cause or error
        if trigger is _T.RATE_LIMIT:
            _log.warning("Recovering from rate limit")
        if step.after_s > 0:
            await asyncio.sleep(step.after_s)
        self._recovered()

    def tool_failed(self, call: ToolCall) -> None:
        """A tool failed or timed out, and only it has ended; the model is told, and the turn goes
        on."""
        self._tools_failed += 1
        trigger = _T.TOOL_FAILURE
        if call.status is ToolStatus.TIMED_OUT:
            trigger = _T.TIMEOUT
            _log.warning("Recovering from tool timeout")
        trouble = Trouble(
            call.category or Category.EXECUTION,
            call.error,
            retryable=False,
            origin=self._scene.machine.state,
            attempt=self._tools_failed,
        )
        self._fail(trigger, trouble)
        self._recovered()

    def give_up(self, error: PacelineError) -> None:
        """The error ends the turn: to ERROR, if it is not there."""
        state = self._scene.machine.state
        if state is not AgentState.ERROR:
            trigger = trigger_of(error.category)
            self._fail(trigger, trouble_of(error, state, self._attempt(trigger)))

    def _attempt(self, trigger: TransitionTrigger) -> int:
        tries = self._tries[trigger] = self._tries.get(trigger, 0) + 1
        return tries

    def _decide(self, trouble: Trouble, retry_after_s: float | None) -> Recovery:
        most = self._scene.limits.max_recoveries
        cause = self._cause
        if cause and cause.category is Category.NETWORK and not self._means.models.answered:
            most = min(most, _NEVER_THERE)
        return recovery(
            trouble,
            most=most,
            left_s=self._budget.left_s(),
            retry_after_s=retry_after_s,
            rng=self._means.rng,
        )

    def _fail(self, trigger: TransitionTrigger, trouble: Trouble) -> None:
        _log.warning("Handling error state: %s", trouble.message)
        if trigger is _T.INTERNAL_ERROR and not trouble.retryable:
            _log.warning("Unknown error type: %s", trouble.category)
        self._scene.machine.move(trouble.origin, trigger, turn_id=self._turn_id, trouble=trouble)

    def _recovered(self) -> None:
        self._scene.machine.move(AgentState.ERROR, _T.RECOVERED, turn_id=self._turn_id)


def _too_long(error: PacelineError) -> PacelineError:
    return AgentError(
        f"what was said is too long for the model, even shortened: {error.message}",
        next_step="Say less in one message, have tools return less (max_result_chars), offer fewer"
        " tools, or ask a model that reads more.",
        category=_TOO_LONG,
    )
