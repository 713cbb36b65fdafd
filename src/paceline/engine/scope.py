"""What a task does until it is done, cancelled, or late: a part of a task that can be cancelled alone."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import final

import msgspec

__all__ = ["CancelScope", "uncancelled"]


@final
class CancelScope(msgspec.Struct, eq=False):
    """From `enter` to `leave` the task that entered can be cancelled here, by `cancel` or because it
    is late; neither outlives the scope. Whoever else cancels the task does so as always.

    Used on one event loop, and once. The idea, and the name, are those of Trio.
    """

    cancelled: bool = False
    """Whether `cancel` was called in time, maybe before it was entered."""
    late: bool = False
    _task: asyncio.Task[object] | None = None
    _timer: asyncio.TimerHandle | None = None
    _before: int = 0
    """Requests to cancel the task that were there when it entered; `_asked` are those from here."""
    _asked: int = 0
    _left: bool = False

    @property
    def foreign(self) -> bool:
        """Whether somebody else cancelled the task since it entered."""
        return self._task is not None and self._requests(self._task) > self._asked

    def enter(self, left_s: float) -> None:
        """The running task does it from now on, for so many seconds at most."""
        task = self._task = asyncio.current_task()
        if task is not None:
            self._before = task.cancelling()
        self.end_in(left_s)

    def end_in(self, left_s: float) -> None:
        """Moves the end, unless it was reached."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.late and not self._left:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._expire)

    def cancel(self) -> bool:
        """Cancels what the scope holds; a second time is once. False, and nothing is done, if it was
        left."""
        if self._left:
            return False
        if not self.cancelled:
            self.cancelled = True
            self._cancel()
        return True

    async def check(self) -> None:
        """Raises CancelledError if the task was cancelled in this very step, and not told yet."""
        if self._task is not None and self._requests(self._task):
            await asyncio.sleep(0)

    async def leave(self, *, told: bool) -> None:
        """It is over. `told` if CancelledError was raised in it; else one that is still to come from
        here is caught, and none comes later."""
        self._left = True
        if self._timer is not None:
            self._timer.cancel()
        if self._asked and not told:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if self._task is not None:
            for _ in range(self._asked):
                self._task.uncancel()
        self._asked = 0

    def _requests(self, task: asyncio.Task[object]) -> int:
        return task.cancelling() - self._before

    def _expire(self) -> None:
        self.late = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._asked += 1
            self._task.cancel()


async def uncancelled(do: Callable[[], Awaitable[None]]) -> None:
    """Does it, and once more each time that the task is cancelled meanwhile: doing it again must do
    no harm. A CancelledError that nobody asked for is raised."""
    task = asyncio.current_task()
    while True:
        requests = 0 if task is None else task.cancelling()
        try:
            return await do()
        except asyncio.CancelledError:
            if task is None or task.cancelling() == requests:
                raise
