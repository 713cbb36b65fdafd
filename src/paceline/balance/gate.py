"""Admission: so many at once, the rest in a queue by priority."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, final

from paceline.call import Priority
from paceline.errors import OverloadedError

__all__ = ["Gate", "Ticket", "enter_all"]

_URGENT_FIRST: Final = tuple(sorted(Priority, reverse=True))


@final
class Ticket:
    """One caller in the queue, and every gate it needs a place in."""

    __slots__ = ("gates", "priority", "turn")

    def __init__(self, gates: Sequence["Gate"], priority: Priority) -> None:
        self.gates = gates
        self.priority = priority
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def raise_to(self, priority: Priority) -> None:
        """Lets it wait among the more urgent ones from now on; it is not made less urgent."""
        if priority > self.priority and not self.turn.done():
            for gate in self.gates:
                gate.remove(self)
            self.priority = priority
            for gate in self.gates:
                gate.add(self)


@final
class Gate:
    """Admits at most `capacity` callers at once; others wait, the most urgent first.

    Equals are served in the order they came. A caller that leaves the queue (cancelled, or out
    of time) takes nobody's place with it and leaves nothing behind. Used on one event loop.
    """

    __slots__ = ("_queues", "capacity", "free", "max_queue", "name")

    def __init__(self, name: str, capacity: int, max_queue: int) -> None:
        """`name` is how errors call what is guarded."""
        self.name = name
        self.capacity = capacity
        self.max_queue = max_queue
        self.free = capacity
        """Places left; below 0 for a while when the capacity was made smaller."""
        self._queues: dict[Priority, OrderedDict[Ticket, None]] = {
            priority: OrderedDict() for priority in _URGENT_FIRST
        }

    @property
    def in_use(self) -> int:
        """Callers inside."""
        return self.capacity - self.free

    @property
    def waiting(self) -> int:
        """Callers in the queue, those included that wait for another gate with this one."""
        return sum(map(len, self._queues.values()))

    async def enter(self, priority: Priority = Priority.NORMAL) -> None:
        """Returns once admitted; the caller must `leave`. Raises OverloadedError at once when
        the queue is full."""
        await enter_all((self,), priority)

    def leave(self) -> None:
        """Gives the place back, to the next in the queue if there is one."""
        self.free += 1
        self._admit()

    def resize(self, capacity: int) -> None:
        """Changes the capacity; callers beyond a smaller one finish undisturbed."""
        self.free += capacity - self.capacity
        self.capacity = capacity
        self._admit()

    def add(self, ticket: Ticket) -> None:
        """Puts a caller into the queue. For `enter_all`."""
        self._queues[ticket.priority][ticket] = None

    def remove(self, ticket: Ticket) -> None:
        """Takes a caller out of the queue. For `enter_all`."""
        self._queues[ticket.priority].pop(ticket, None)

    def _admit(self) -> None:
        for queue in self._queues.values():
            for ticket in tuple(queue) if self.free > 0 and queue else ():
                if self.free <= 0:
                    return
                if ticket.turn.done() or not all(gate.free > 0 for gate in ticket.gates):
                    continue
                for gate in ticket.gates:
                    gate.free -= 1
                del queue[ticket]
                ticket.turn.set_result(None)


async def enter_all(
    gates: Sequence[Gate],
    priority: Priority = Priority.NORMAL,
    *,
    waiting: Callable[[Ticket], object] | None = None,
) -> None:
    """Enters all gates in one moment; the caller must `leave` each.

    Who waits holds no place anywhere, so callers that need several gates never wait for each
    other in a circle, and one that waits for a busy gate keeps nobody from a free one. `waiting`
    is given the ticket of who has to wait. Raises OverloadedError at once when the queue of a full
    gate is full too.
    """
    full = [gate for gate in gates if gate.free <= 0]
    if not full:  # and nobody who could go on waits: each place that is given back is passed on
        for gate in gates:
            gate.free -= 1
        return
    _check_queues(full)
    ticket = Ticket(gates, priority)
    for gate in gates:
        gate.add(ticket)
    if waiting is not None:
        waiting(ticket)
    try:
        await ticket.turn
    except BaseException:
        if ticket.turn.done() and not ticket.turn.cancelled():
            for gate in gates:  # admitted and cancelled in the same moment: pass the places on
                gate.leave()
        raise
    finally:
        for gate in gates:
            gate.remove(ticket)


def _check_queues(full: Sequence[Gate]) -> None:
    for gate in full:
        if gate.waiting >= gate.max_queue:
            raise OverloadedError(
                f"{gate.name} is at its limit of {gate.capacity} at once, with {gate.max_queue} waiting"
            )
