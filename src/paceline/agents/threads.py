"""Threads for synchronous agents: so many at once, and nobody waits for one that hangs."""

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, TypeVarTuple, final

from paceline.balance.gate import Gate
from paceline.errors import RuntimeClosedError
from paceline.resources import Resources, current_resources

__all__ = ["ThreadPool"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@final
class _Work(Generic[T]):
    """One function to run, and the future of whoever waits for it."""

    __slots__ = ("_context", "_fn", "_future", "abandoned", "ended", "loop", "resources")

    def __init__(self, fn: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._fn = fn
        self._context = contextvars.copy_context()
        self.loop = loop
        self.abandoned = False
        self.ended = False
        self.resources: Resources | None = None
        """Those of whom it was run for, once it is left behind."""
        self._future: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._future.done()

    async def result(self) -> T:
        value, error = await self._future
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return value  # type: ignore[return-value]

    def run(self) -> tuple[T | None, BaseException | None]:
        try:
            return self._context.run(self._fn), None
        # It belongs to who waits, also when it is SystemExit; the thread has to live on.
        except BaseException as exc:  # noqa: BLE001
            return None, exc

    def deliver(self, value: T | None, error: BaseException | None) -> None:
        """From any thread."""
        try:
            self.loop.call_soon_threadsafe(self._set, (value, error))
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    def _set(self, outcome: tuple[T | None, BaseException | None]) -> None:
        # Carried as a value: a future takes no StopIteration, and warns of errors nobody fetched.
        if not self._future.done():
            self._future.set_result(outcome)


@final
class ThreadPool:
    """Runs functions in at most `max_threads` threads, in the order they come.

    A caller that is cancelled leaves at once; what it started goes on, as a thread cannot be
    stopped, and keeps its place until it really ends. Threads are started when they are needed
    and are daemons: the process does not wait for them.

    Who passes `gate` first finds a thread free: its capacity is kept at that of the threads which
    nobody has left behind.
    """

    def __init__(self, gate: Gate) -> None:
        """Starts nothing. There are as many threads as `gate` has places now."""
        self.max_threads = gate.capacity
        self.gate = gate
        self._left_behind = 0
        self._changed = threading.Condition()
        self._queue: deque[_Work[Any]] = deque()
        self._threads = 0
        self._in_use = 0
        self._closed = False

    @property
    def in_use(self) -> int:
        """Threads that are running a function, left behind by their callers or not."""
        return self._in_use

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """The function's value, or what it raises. It sees the caller's context variables.

        Raises RuntimeClosedError after `close`.
        """
        work = _Work(lambda: fn(*args), asyncio.get_running_loop())
        with self._changed:
            if self._closed:
                raise RuntimeClosedError("the threads for agents are closed")
            self._queue.append(work)
            if self._threads < min(self.max_threads, self._in_use + len(self._queue)):
                self._threads += 1
                name = f"paceline-agent-{self._threads}"
                try:
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
                except BaseException:  # the system has no thread left: nobody would count it out
                    self._threads -= 1
                    self._queue.remove(work)
                    raise
            self._changed.notify()
        try:
            return await work.result()
        except asyncio.CancelledError:
            self._leave(work)
            raise

    def _leave(self, work: _Work[Any]) -> None:
        """Takes work that nobody waits for out of the queue, or its thread out of the count."""
        with self._changed:
            if work in self._queue:
                self._queue.remove(work)
                return
            if work.ended:
                return
            work.abandoned = True
        work.resources = current_resources.get()
        self._count(1, work.resources)

    def _count(self, more: int, resources: Resources | None) -> None:
        """On the event loop, as the gate is used there alone."""
        self._left_behind += more
        self.gate.resize(self.max_threads - self._left_behind)
        if resources is not None:
            resources.left_behind += more

    def close(self) -> None:
        """Refuses what waits for a thread; what runs goes on, and nobody waits for it here."""
        with self._changed:
            self._closed = True
            left, self._queue = self._queue, deque()
            self._changed.notify_all()
        for work in left:
            work.deliver(None, RuntimeClosedError("the threads for agents were closed"))

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            outcome = work.run()
            with self._changed:
                self._in_use -= 1
                work.ended = True
            work.deliver(*outcome)
            if work.abandoned:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts
                    work.loop.call_soon_threadsafe(self._count, -1, work.resources)
            del work, outcome  # an idle thread keeps nothing alive

    def _next(self) -> _Work[Any] | None:
        with self._changed:
            while True:
                while self._queue:
                    work = self._queue.popleft()
                    if work.wanted:
                        self._in_use += 1
                        return work
                    work.ended = True  # its caller is about to leave: no thread is taken by it
                if self._closed:
                    self._threads -= 1
                    return None
                self._changed.wait()
