"""Single-flight: of many requests for one thing at a time, one does the work and all get it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar, final

__all__ = ["SingleFlight", "ThreadFlight"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_log = logging.getLogger("paceline")


@final
class _Flight(Generic[V]):
    """Work under way and how many wait for it."""

    __slots__ = ("make", "task", "waiters")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, V]], task: asyncio.Task[V]) -> None:
        self.make = make
        self.task = task
        self.waiters = 0


@final
class SingleFlight(Generic[K, V]):
    """Shares coroutines in flight, by key and event loop.

    The work runs in a task of the flight's own, in a copy of the context of who came first.
    Callers only wait for it: one that is cancelled leaves the others undisturbed, whoever came
    first, and the work goes on as long as anybody waits.

    Cancelled work is waited for, so that it has ended when its last caller goes on; but no
    longer than `grace_s` seconds: work that ignores its cancellation must not keep callers far
    beyond their deadlines.
    """

    def __init__(self, grace_s: float = 5.0) -> None:
        self._grace_s = grace_s
        self._flights: dict[tuple[asyncio.AbstractEventLoop, K], _Flight[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()  # those that are being abandoned, too
        self._closed = False

    def __len__(self) -> int:
        """Flights that can be joined."""
        return len(self._flights)

    async def run(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> tuple[V, bool]:
        """The result of `make()`, or of the flight that is under way; and whether it was joined.

        What the work raises reaches every waiter. The last waiter to leave cancels the work and
        waits for its end. Raises CancelledError when closed.
        """
        place = (asyncio.get_running_loop(), key)
        flight = self._flights.get(place)
        joined = flight is not None
        if flight is None:
            flight = self._start(place, make)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task), joined
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                self._remove(place, flight.task)
                flight.task.cancel()
                await self._end({flight.task})
            raise
        finally:
            flight.waiters -= 1

    def joinable(self, key: K) -> Callable[[], Coroutine[Any, Any, V]] | None:
        """The `make` of the flight that `run` would join on this event loop; None without one."""
        flight = self._flights.get((asyncio.get_running_loop(), key))
        return None if flight is None else flight.make

    async def close(self) -> None:
        """Cancels all work of this event loop and waits for its end; nothing starts any more."""
        self._closed = True
        loop = asyncio.get_running_loop()
        tasks = {task for task in self._tasks if task.get_loop() is loop}
        for task in tasks:
            if not task.cancelling():  # else it is tidying up, which is not to be cut short
                task.cancel()
        if tasks:
            await self._end(tasks)

    async def _end(self, tasks: set[asyncio.Task[V]]) -> None:
        """Waits until cancelled tasks have ended, within the grace."""
        _, deaf = await asyncio.wait(tasks, timeout=self._grace_s)
        if deaf:
            _log.warning("%d executions ignore that they were cancelled", len(deaf))

    def _start(
        self,
        place: tuple[asyncio.AbstractEventLoop, K],
        make: Callable[[], Coroutine[Any, Any, V]],
    ) -> _Flight[V]:
        if self._closed:
            raise asyncio.CancelledError("closed")
        task = asyncio.create_task(self._fly(place, make))
        flight = _Flight(make, task)
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        if not task.done():  # as it can be on a loop that starts tasks eagerly
            self._flights[place] = flight
        return flight

    async def _fly(
        self,
        place: tuple[asyncio.AbstractEventLoop, K],
        make: Callable[[], Coroutine[Any, Any, V]],
    ) -> V:
        try:
            return await make()
        finally:
            # Here and not when the task's end is noticed: who comes after it starts anew.
            self._remove(place, asyncio.current_task())

    def _remove(
        self, place: tuple[asyncio.AbstractEventLoop, K], task: asyncio.Task[Any] | None
    ) -> None:
        flight = self._flights.get(place)
        if flight is not None and flight.task is task:
            del self._flights[place]

    def _landed(self, task: asyncio.Task[V]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Waiters have it. If there are none left, this is the only trace.
            _log.debug("shared work failed", exc_info=error)


@final
class ThreadFlight(Generic[K, V]):
    """Shares the work of threads by key: the first one does it, the others wait."""

    def __init__(self) -> None:
        self._flights: dict[K, tuple[int, Future[V]]] = {}
        self._lock = threading.Lock()

    def run(self, key: K, make: Callable[[], V]) -> tuple[V, bool]:
        """The result of `make()`, or of the thread that is at it; and whether it was joined.

        An exception reaches every waiter. If the thread at work is made to exit, one of the
        waiters takes over. Work that asks for its own key runs again, as it would without us.
        """
        me = threading.get_ident()
        while True:
            with self._lock:
                leader, future = self._flights.get(key, (0, None))
                if future is None:
                    leader, future = self._flights[key] = (me, Future[V]())
                    break
            if leader == me:
                return make(), False
            try:
                return future.result(), True
            except CancelledError:
                if not future.cancelled():
                    raise
        return self._lead(key, future, make), False

    def _lead(self, key: K, future: "Future[V]", make: Callable[[], V]) -> V:
        try:
            value = make()
        except Exception as exc:
            self._settle(key)
            future.set_exception(exc)
            raise
        except BaseException:
            self._settle(key)
            future.cancel()
            raise
        self._settle(key)
        future.set_result(value)
        return value

    def _settle(self, key: K) -> None:
        with self._lock:
            del self._flights[key]
