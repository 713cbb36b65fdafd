"""Admission: so many at once, the rest in a queue by priority."""

import asyncio
from collections import OrderedDict
from typing import final

from paceline.call import Priority
from paceline.errors import OverloadedError

__all__ = ["Gate"]


@final
class Gate:
    """Admits at most `capacity` callers at once; others wait, the most urgent first.

    Equals are served in the order they came. A caller that leaves the queue (cancelled, or out
    of time) takes nobody's place with it and leaves nothing behind. Used on one event loop.
    """

    __slots__ = ("_free", "_queues", "capacity", "max_queue", "name")

    def __init__(self, name: str, capacity: int, max_queue: int) -> None:
        """`name` is how errors call what is guarded."""
        self.name = name
        self.capacity = capacity
        self.max_queue = max_queue
        self._free = capacity
        self._queues: dict[Priority, OrderedDict[asyncio.Future[None], None]] = {
            priority: OrderedDict() for priority in sorted(Priority, reverse=True)
        }

    @property
    def in_use(self) -> int:
        """Callers inside."""
        return self.capacity - self._free

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return sum(map(len, self._queues.values()))

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
        queue = self._queues[priority]
        queue[turn] = None
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave()  # admitted and cancelled in the same moment: pass the place on
            raise
        finally:
            queue.pop(turn, None)

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
        while self._free > 0 and (turn := self._next()) is not None:
            self._free -= 1
            turn.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        """Takes the next that still waits out of the queue."""
        for queue in self._queues.values():
            while queue:
                turn, _ = queue.popitem(last=False)
                if not turn.done():
                    return turn
        return None
