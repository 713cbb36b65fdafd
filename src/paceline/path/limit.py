"""Limits of time on code that runs, all by one timer of the event loop."""

import asyncio
import math
from types import TracebackType
from typing import Final, cast, final

__all__ = ["Limit", "Limits"]

_OVER: Final = "out of time"


@final
class Limits:
    """Ends what runs for too long.

    Executions have a limit each, and nearly all end long before it. A timer of the event loop for
    each would cost as much as the rest of a trivial execution; so there is one, set for the limit
    that is next, and moved on when it rings. Used on one event loop at a time.
    """

    __slots__ = ("_live", "_loop", "_next", "_timer")

    def __init__(self) -> None:
        self._live: set[Limit] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        """When the timer rings."""

    def begin(self, limit: "Limit", seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Has the limit `end` after so many seconds, unless it is `over` before."""
        if loop is not self._loop:
            self._live, self._loop, self._next = set(), loop, math.inf
        self._live.add(limit)
        limit.due = due = loop.time() + seconds
        if due < self._next:
            self._set(loop, due)

    def over(self, limit: "Limit") -> None:
        """Nothing is to end any more."""
        self._live.discard(limit)

    def _set(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = due
        self._timer = loop.call_at(due, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        now, self._next = self._next, math.inf
        for limit in [limit for limit in self._live if limit.due <= now]:
            self._live.discard(limit)
            limit.end()
        following = min([limit.due for limit in self._live], default=None)
        if following is not None:
            self._set(loop, following)


@final
class Limit:
    """Ends the code inside after so many seconds by a cancellation, and raises TimeoutError then.

    ::

        with Limit(limits, 60.0):
            await work()

    As `asyncio.timeout` does: a cancellation by somebody else passes as one, whoever was first.
    It is entered once, in a task. Without any time nothing is begun.
    """

    __slots__ = ("_before", "_limits", "_seconds", "_task", "due", "ended")

    def __init__(self, limits: Limits, seconds: float | None) -> None:
        """Counts from the moment it is entered; None is for ever, but for `end`."""
        self._limits = limits
        self._seconds = seconds
        self.due = math.inf
        """When it is reached, by the time of the event loop."""
        self.ended = False
        """Whether it ended the code inside."""

    def __enter__(self) -> "Limit":
        self._task = task = cast("asyncio.Task[object]", asyncio.current_task())
        self._before = task.cancelling()
        if self._seconds is not None:
            if self._seconds <= 0:
                raise TimeoutError(_OVER)
            self._limits.begin(self, self._seconds, task.get_loop())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._limits.over(self)
        if not self.ended:
            return
        ours = self._task.uncancel() <= self._before
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError(_OVER) from error

    def end(self) -> None:
        """Ends the code inside now, unless that was done already."""
        if not self.ended:
            self.ended = True
            self._task.cancel()
