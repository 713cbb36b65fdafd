"""Admission: so many at once, the rest in a queue by priority."""

import asyncio
import heapq
import itertools
from typing import final

from paceline.call import Priority
from paceline.errors import OverloadedError

__all__ = ["Gate"]


@final
class Gate:
    """Admits at most `capacity` callers at once; others wait, the most urgent first.

    Equals are served in the order they came. A caller that leaves the queue (cancelled, or out
    of time) takes nobody's place with it. Used on one event loop.
    """

    __slots__ = ("_free", "_order", "_queue", "capacity", "max_queue", "name", "waiting")

    def __init__(self, name: str, capacity: int, max_queue: int) -> None:
        """`name` is how errors call what is guarded."""
        self.name = name
        self.capacity = capacity
        self.max_queue = max_queue
        self.waiting = 0
        self._free = capacity
        self._order = itertools.count()
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def in_use(self) -> int:
        """Callers inside."""
        return self.capacity - self._free

    async def enter(self, priority: Priority = Priority.NORMAL) -> None:
        """Returns once admitted; the caller must `leave`. Raises OverloadedError at once when
        the queue is full."""
        if self._free > 0:  # nobody waits while a place is free
            self._free -= 1
            return
        if self.waiting >= self.max_queue:
            raise OverloadedError(
                f"{self.name} is at its limit of {self.capacity} at once, with {self.max_queue} waiting"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (-priority, next(self._order), turn))
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # admitted and cancelled in the same moment: pass the place on
            raise
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        """Gives the place back, to the next in the queue if there is one."""
        self._free += 1
        self._admit()

    def resize(self, capacity: int) -> None:
        """Changes the capacity; callers beyond a smaller one finish undisturbed."""
        self._free += capacity - self.capacity
        self.capacity = capacity
        self._admit()

    def _admit(self) -> None:
        while self._free > 0 and self._queue:
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
