"""Single requests to the tool pipeline, and the handles to them."""

import asyncio
from collections.abc import Generator
from typing import Any, final

import msgspec

from paceline.engine.batch import Batch
from paceline.engine.states import (
    ExecutionContext,
    ExecutionPriority,
    ToolCall,
    ToolExecutionState,
)
from paceline.messages import ToolUse

__all__ = ["ToolHandle", "ToolRequest"]


class ToolRequest(msgspec.Struct, frozen=True):
    """One tool call that no answer of a model asks for. `timeout_s` is for all of it, the wait for
    a place included; None for the limit of the pipeline."""

    call: ToolUse
    context: ExecutionContext
    priority: ExecutionPriority = ExecutionPriority.NORMAL
    timeout_s: float | None = None


@final
class ToolHandle:
    """A request that was taken. Awaited, by any number of tasks, it is the call when that is over,
    whatever came of it; who stops awaiting it does not stop the call."""

    __slots__ = ("_batch", "_task")

    def __init__(self, batch: Batch, task: "asyncio.Task[list[ToolCall]]") -> None:
        self._batch = batch
        self._task = task

    @property
    def call_id(self) -> str:
        """The id of the call."""
        return self._batch.calls[0].id

    @property
    def state(self) -> ToolExecutionState:
        """How far it is."""
        return self._batch.states()[0]

    def cancel(self) -> bool:
        """Has it stopped; False if it is over already."""
        return self._task.cancel()

    def __await__(self) -> Generator[Any, None, ToolCall]:
        return self._over().__await__()

    async def _over(self) -> ToolCall:
        if not self._task.done():
            await asyncio.wait((self._task,))
        self._batch.stop()  # if the task was cancelled before it had begun
        return self._batch.calls[0]
