"""Limits of time on code that runs, all by one timer of the event loop."""

import asyncio
import logging
from types import TracebackType
from typing import Final, cast, final

from paceline.clock import Clock

__all__ = ["Limit", "Limits"]

_log = logging.getLogger("paceline")
_OVER: Final = "out of time"
_CLOSED: Final = "closed"
_NS: Final = 1e9
_NEVER: Final = 2**63
"""When the time is up of what has all the time there is; and of what was closed."""
_GONE: Final = -_NEVER


@final
class Limits:
    """Ends what runs for too long, and once it is closed all that runs.

    Executions have a limit each, and nearly all end long before it. A timer of the event loop for
    each would cost as much as the rest of a trivial execution; so there is one, set for the limit
    that is next, and moved on when it rings. Used on one event loop at a time.
    """

    __slots__ = ("_closed", "_empty", "_live", "_loop", "_timer", "next_ns", "now_ns")

    def __init__(self, clock: Clock) -> None:
        self.now_ns = clock.monotonic_ns
        """The time, by which limits are due."""
        self._live: set[Limit] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.next_ns = _NEVER
        """For when the timer is set."""
        self._closed = False
        self._empty: asyncio.Event | None = None
        """What `close` waits for."""

    def __len__(self) -> int:
        """What runs."""
        return len(self._live)

    def begin(self, limit: "Limit", loop: asyncio.AbstractEventLoop) -> None:
        """Has the limit reached when it is due, unless it is `over` before. Raises CancelledError
        when closed."""
        if loop is not self._loop:
            self._live, self._loop, self.next_ns = set(), loop, _NEVER
        if self._closed:
            raise asyncio.CancelledError(_CLOSED)
        self._live.add(limit)
        if limit.due_ns < self.next_ns:
            self._set(loop, limit.due_ns)

    def moved(self, limit: "Limit") -> None:
        """A limit that has begun is due at another moment than before."""
        if limit.due_ns < self.next_ns and self._loop is not None:
            self._set(self._loop, limit.due_ns)

    def over(self, limit: "Limit") -> None:
        """Nothing is to end any more."""
        self._live.discard(limit)
        if self._empty is not None and not self._live:
            self._empty.set()

    async def close(self, grace_s: float = 5.0) -> None:
        """Cancels all that runs and waits for its end, within the grace; nothing begins any more."""
        self._closed = True
        if self._live:
            self._empty = asyncio.Event()
            for limit in list(self._live):
                limit.end()
            try:
                async with asyncio.timeout(grace_s):
                    await self._empty.wait()
            except TimeoutError:
                _log.warning("%d executions ignore that they were cancelled", len(self._live))
        if self._timer is not None:  # which would outlive what it was for
            self._timer.cancel()
            self._timer = None

    def _set(self, loop: asyncio.AbstractEventLoop, due_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.next_ns = due_ns
        left_s = max(0, due_ns - self.now_ns()) / _NS
        self._timer = loop.call_later(left_s, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        due_ns, self.next_ns = self.next_ns, _NEVER
        for limit in self._live:
            if limit.due_ns <= due_ns:
                limit.reach()
        following_ns = min([limit.due_ns for limit in self._live], default=_NEVER)
        if following_ns < _NEVER:
            self._set(loop, following_ns)


@final
class Limit:
    """Ends the code inside at a moment by a cancellation, and raises TimeoutError then.

    ::

        with Limit(limits, clock.monotonic_ns() + 60_000_000_000):
            await work()

    As `asyncio.timeout` does: a cancellation by somebody else passes as one, whoever was first; and
    so does that of a limit that was told to `end`. It is entered once, in a task. A part of the code
    may have less time: see `narrow`.
    """

    __slots__ = ("_before", "_late", "_limits", "_task", "_whole_ns", "due_ns", "ended")

    def __init__(self, limits: Limits, due_ns: int | None = None) -> None:
        """None is never, but for `end`."""
        self._limits = limits
        self.due_ns = self._whole_ns = _NEVER if due_ns is None else due_ns
        """When it is reached next."""
        self._late = False  # what came since `narrow` was ended
        self.ended = False
        """Whether it ended all of the code inside."""

    def __enter__(self) -> "Limit":
        """Raises TimeoutError without any time, CancelledError where the limits were closed."""
        due_ns, limits = self.due_ns, self._limits
        if due_ns < _NEVER and due_ns <= limits.now_ns():
            raise TimeoutError(_OVER)
        loop = asyncio.get_running_loop()
        self._task = task = cast("asyncio.Task[object]", asyncio.current_task(loop))
        self._before = task.cancelling()
        limits.begin(self, loop)
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
        if ours and self._whole_ns != _GONE and isinstance(error, asyncio.CancelledError):
            raise TimeoutError(_OVER) from error

    def narrow(self, due_ns: int) -> None:
        """Ends what comes before `widen` at this moment, if that is sooner; all of it still ends at
        the other one, whatever it does then. Inside, once at a time."""
        if due_ns < self.due_ns:
            self.due_ns = due_ns
            if due_ns < self._limits.next_ns:
                self._limits.moved(self)

    def widen(self) -> bool:
        """What comes has all the time that is left. Returns whether what came since `narrow` had
        too little: a CancelledError that it raised was for that alone."""
        if not self.ended:
            self.due_ns = self._whole_ns
        if not self._late:
            return False
        self._late = False
        return self._task.uncancel() <= self._before and not self.ended

    def end(self) -> None:
        """Ends the code inside now, for good, unless that was done already: a part that is being ended
        may tidy up."""
        self._whole_ns = _GONE
        if self._late:
            self.due_ns, self.ended = _NEVER, True
        else:
            self._end()

    def reach(self) -> None:
        """The time is up: of a part, or of all."""
        if self.due_ns < self._whole_ns:
            self._late = True
            self.due_ns = self._whole_ns
            self._task.cancel()
        else:
            self._end()

    def _end(self) -> None:
        self.due_ns = _NEVER
        if not self.ended:
            self.ended = True
            self._task.cancel()
