"""Single-flight: of many requests for one thing at a time, one does the work and all get it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar, cast, final

__all__ = ["SingleFlight", "ThreadFlight"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_log = logging.getLogger("paceline")

Place = tuple[asyncio.AbstractEventLoop, Any]


@final
class _Flight(Generic[V]):
    """Work under way, who waits for it, and in the end its outcome.

    Each waiter has a future of its own, which a cancellation of the waiter ends and nothing else.
    That takes half the time of `asyncio.shield`.
    """

    __slots__ = (
        "begun", "error", "kept", "landed", "make", "task", "unbegun", "value", "waiters",
    )  # fmt: skip

    def __init__(self, make: Callable[[], Coroutine[Any, Any, V]]) -> None:
        self.make = make
        self.task: asyncio.Task[None] | None = None
        self.waiters: set[asyncio.Future[None]] = set()
        self.begun = False
        self.unbegun: Callable[[asyncio.Task[None]], None] | None = None
        """What is called if the task ends before it began."""
        self.landed = False
        self.kept = False
        """Whether it goes on when nobody waits."""
        self.value: V | None = None
        self.error: BaseException | None = None

    def result(self) -> V:
        """What the work gave, or raised."""
        error = self.error
        if error is None:
            return cast("V", self.value)
        if isinstance(error, asyncio.CancelledError):
            raise asyncio.CancelledError(*error.args)
        raise error


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
        self._flights: dict[Place, _Flight[V]] = {}
        self._strays: set[asyncio.Task[None]] = set()  # which nobody can join any more
        self._closed = False

    def __len__(self) -> int:
        """Flights that can be joined."""
        return len(self._flights)

    async def run(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> tuple[V, bool]:
        """The result of `make()`, or of the flight that is under way; and whether it was joined.

        What the work raises reaches every waiter. The last waiter to leave cancels the work and
        waits for its end. Raises CancelledError when closed.
        """
        loop = asyncio.get_running_loop()
        place = (loop, key)
        flight = self._flights.get(place)
        joined = flight is not None
        if flight is None:
            flight = self._start(place, make)
        if not flight.landed:  # as it can be on a loop that starts tasks eagerly
            waiter = loop.create_future()
            flight.waiters.add(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                flight.waiters.discard(waiter)
                await self._leave(place, flight)
                raise
        return flight.result(), joined

    def start(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> None:
        """Starts the work, unless it is under way, for nobody to wait for: it may be joined, and
        goes on when all who joined it left. What it raises is logged."""
        place = (asyncio.get_running_loop(), key)
        if place not in self._flights:
            self._start(place, make).kept = True

    def joinable(self, key: K) -> Callable[[], Coroutine[Any, Any, V]] | None:
        """The `make` of the flight that `run` would join on this event loop; None without one."""
        flight = self._flights.get((asyncio.get_running_loop(), key))
        return None if flight is None else flight.make

    def forget(self, key: K) -> None:
        """Lets who comes from now on start anew; who waits gets what he waits for."""
        place = (asyncio.get_running_loop(), key)
        flight = self._flights.get(place)
        if flight is not None:
            self._let_stray(place, flight)

    def end(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> None:
        """Cancels the work under this key, if it is that of `make`: who waits gets CancelledError,
        and who comes from now on starts anew."""
        place = (asyncio.get_running_loop(), key)
        flight = self._flights.get(place)
        if flight is not None and flight.make is make and flight.task is not None:
            self._let_stray(place, flight)
            flight.task.cancel()

    async def close(self) -> None:
        """Cancels all work of this event loop and waits for its end; nothing starts any more."""
        self._closed = True
        loop = asyncio.get_running_loop()
        flying = [flight.task for flight in list(self._flights.values())]
        tasks = {task for task in (*flying, *self._strays) if task and task.get_loop() is loop}
        for task in tasks:
            if not task.cancelling():  # else it is tidying up, which is not to be cut short
                task.cancel()
        if tasks:
            await self._end(tasks)

    async def _leave(self, place: Place, flight: _Flight[V]) -> None:
        """Ends work that its last waiter has left."""
        task = flight.task
        if flight.waiters or flight.landed or flight.kept or task is None:
            return
        self._let_stray(place, flight)
        task.cancel()
        await self._end({task})

    async def _end(self, tasks: set[asyncio.Task[None]]) -> None:
        """Waits until cancelled tasks have ended, within the grace."""
        _, deaf = await asyncio.wait(tasks, timeout=self._grace_s)
        if deaf:
            _log.warning("%d executions ignore that they were cancelled", len(deaf))

    def _start(self, place: Place, make: Callable[[], Coroutine[Any, Any, V]]) -> _Flight[V]:
        if self._closed:
            raise asyncio.CancelledError("closed")
        flight = self._flights[place] = _Flight(make)
        task = flight.task = place[0].create_task(self._fly(place, flight))
        if not flight.begun:
            flight.unbegun = partial(self._end_unbegun, place, flight)
            task.add_done_callback(flight.unbegun)
        return flight

    async def _fly(self, place: Place, flight: _Flight[V]) -> None:
        flight.begun = True
        if flight.task is not None and flight.unbegun is not None:
            # A callback that is called takes a turn of the loop: a tenth of a whole flight.
            flight.task.remove_done_callback(flight.unbegun)
            flight.unbegun = None
        try:
            flight.value = await flight.make()
        except Exception as exc:  # noqa: BLE001 (it is raised by whoever waits)
            flight.error = exc
            # Waiters have it. If there are none left, this is the only trace.
            _log.debug("shared work failed", exc_info=exc)
        except BaseException as exc:
            flight.error = exc
            if flight.task is not None:
                flight.task.add_done_callback(_look_at)
            raise
        finally:
            # Here and not when the task's end is noticed: who comes after it starts anew.
            self._settle(place, flight)

    def _end_unbegun(self, place: Place, flight: _Flight[V], _: asyncio.Task[None]) -> None:
        """Lets nobody wait for work that was cancelled before its first step."""
        flight.error = asyncio.CancelledError()
        self._settle(place, flight)

    def _settle(self, place: Place, flight: _Flight[V]) -> None:
        flight.landed = True
        if self._flights.get(place) is flight:
            del self._flights[place]
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _let_stray(self, place: Place, flight: _Flight[V]) -> None:
        """Lets who comes from now on start anew, and remembers the task until it ends."""
        if self._flights.get(place) is flight:
            del self._flights[place]
        if flight.task is not None:
            self._strays.add(flight.task)
            flight.task.add_done_callback(self._strays.discard)


def _look_at(task: asyncio.Task[None]) -> None:
    """Tells the event loop that what ended a task is known."""
    if not task.cancelled():
        task.exception()


@final
class _Work(Generic[V]):
    """Work of a thread, and in the end its outcome. `gate` opens then, if anybody waits."""

    __slots__ = ("abandoned", "done", "error", "gate", "leader", "make", "value")

    def __init__(self, leader: int, make: Callable[[], V]) -> None:
        self.leader = leader
        self.make = make
        self.done = self.abandoned = False
        self.gate: threading.Event | None = None
        self.value: V | None = None
        self.error: Exception | None = None


@final
class ThreadFlight(Generic[K, V]):
    """Shares the work of threads by key: the first one does it, the others wait."""

    def __init__(self) -> None:
        self._works: dict[K, _Work[V]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Work that can be joined."""
        return len(self._works)

    def run(self, key: K, make: Callable[[], V]) -> tuple[V, bool]:
        """The result of `make()`, or of the thread that is at it; and whether it was joined.

        An exception reaches every waiter. If the thread at work is made to exit, one of the
        waiters takes over. Work that asks for its own key runs again, as it would without us.
        """
        me = threading.get_ident()
        mine = _Work(me, make)
        while True:
            work = self._works.setdefault(key, mine)
            if work is mine:
                return self._lead(key, mine), False
            if work.leader == me:
                return make(), False
            self._wait(work)
            if work.error is not None:
                raise work.error
            if not work.abandoned:
                return cast("V", work.value), True

    def joinable(self, key: K) -> Callable[[], V] | None:
        """The `make` of the work that `run` would join; None without one."""
        work = self._works.get(key)
        return None if work is None else work.make

    def forget(self, key: K, make: Callable[[], V]) -> None:
        """Lets who comes from now on start anew, if `make` is what they would join."""
        with self._lock:
            work = self._works.get(key)
            if work is not None and work.make is make:
                del self._works[key]

    def _lead(self, key: K, work: _Work[V]) -> V:
        work.abandoned = True  # unless we come to an end
        try:
            value = work.value = work.make()
            work.abandoned = False
        except Exception as exc:
            work.error = exc
            raise
        finally:
            with self._lock:
                if self._works.get(key) is work:
                    del self._works[key]
                work.done = True
                gate = work.gate
            if gate is not None:
                gate.set()
        return value

    def _wait(self, work: _Work[V]) -> None:
        with self._lock:
            if work.done:
                return
            if work.gate is None:
                work.gate = threading.Event()
            gate = work.gate
        gate.wait()
