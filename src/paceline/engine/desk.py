"""Where a turn waits for a person: one question at a time, and not at the turn's expense."""

import asyncio
from collections.abc import Callable
from typing import Final, final

from paceline.clock import Clock
from paceline.engine.events import ApprovalNeeded, QuestionAsked
from paceline.engine.limits import TurnBudget
from paceline.engine.protocols import Preparation
from paceline.engine.scene import Scene
from paceline.engine.states import AgentState, TransitionTrigger
from paceline.errors import IllegalTransitionError

__all__ = ["Desk"]

_LONGEST_NS: Final = 366 * 86_400 * 1_000_000_000
"""Nobody is waited for longer than a year."""


@final
class Desk:
    """The questions of one turn to a person.

    They are put one after another. The time that a person takes is not the turn's; only the limit of
    its caller, `timeout_s`, goes on. After `approval_timeout_s` an open question counts as refused.
    """

    __slots__ = (
        "_answer", "_budget", "_clock", "_limit_s", "_lock", "_scene", "_set_deadline", "_turn_id", "pending",
    )  # fmt: skip

    def __init__(
        self,
        scene: Scene,
        clock: Clock,
        budget: TurnBudget,
        turn_id: str,
        set_deadline: Callable[[int], object],
    ) -> None:
        """`set_deadline` moves that of the turn and its tools, by the monotonic clock."""
        self._scene = scene
        self._clock = clock
        self._budget = budget
        self._turn_id = turn_id
        self._set_deadline = set_deadline
        self._limit_s = scene.limits.approval_timeout_s
        self._lock = asyncio.Lock()
        self._answer: asyncio.Future[str | None] | None = None
        self.pending: ApprovalNeeded | QuestionAsked | None = None
        """What a person is asked."""

    async def approve(self, call_id: str, preparation: Preparation) -> str | None:
        """None if a person agrees to a tool, else why not."""
        use = preparation.use
        return await self._ask(ApprovalNeeded(call_id, use.name, use.arguments))

    async def ask(self, call_id: str, preparation: Preparation) -> str:
        """What the user answers to the tool's question."""
        return await self._ask(QuestionAsked(call_id, preparation.question or "")) or ""

    def decide(self, call_id: str, why_not: str | None) -> None:
        """Lets a tool run, or says why not. Raises IllegalTransitionError if that is not asked."""
        if not isinstance(self.pending, ApprovalNeeded) or self.pending.call_id != call_id:
            raise _unasked(f"no tool call {call_id!r} waits for approval")
        self._settle(why_not)

    def answer(self, text: str) -> None:
        """Answers the question. Raises IllegalTransitionError if there is none."""
        if not isinstance(self.pending, QuestionAsked):
            raise _unasked("no question waits for an answer")
        self._settle(text)

    def _settle(self, text: str | None) -> None:
        self.pending = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(text)

    async def _ask(self, question: ApprovalNeeded | QuestionAsked) -> str | None:
        if isinstance(question, ApprovalNeeded):
            asked, decided = TransitionTrigger.APPROVAL_NEEDED, TransitionTrigger.APPROVAL_DECIDED
        else:
            asked, decided = TransitionTrigger.QUESTION, TransitionTrigger.USER_INPUT
        machine, turn_id = self._scene.machine, self._turn_id
        async with self._lock:
            machine.move(AgentState.EXECUTING_TOOLS, asked, turn_id=turn_id)
            try:
                answer = await self._wait(question)
            finally:
                self.pending = None
            machine.move(machine.state, decided, turn_id=turn_id)
            return answer

    async def _wait(self, question: ApprovalNeeded | QuestionAsked) -> str | None:
        budget, limit_s = self._budget, self._limit_s
        asked_ns = self._clock.monotonic_ns()
        budget.extend(_LONGEST_NS)
        self._set_deadline(budget.deadline_ns)
        self._answer = asyncio.get_running_loop().create_future()
        self.pending = question
        if self._scene.watches:
            self._scene.tell(question)
        answer: str | None
        try:
            async with asyncio.timeout(limit_s or None):
                answer = await self._answer
        except TimeoutError:
            answer = f"Nobody answered within {limit_s:g} s."
        budget.extend(self._clock.monotonic_ns() - asked_ns - _LONGEST_NS)
        self._set_deadline(budget.deadline_ns)
        return answer


def _unasked(message: str) -> IllegalTransitionError:
    return IllegalTransitionError(message, next_step="`Session.pending` says what is asked.")
