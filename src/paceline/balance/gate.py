"""Admission: so many at once, the rest in a fair queue, by urgency and in time."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, final

from paceline.balance.guests import Guests
from paceline.balance.queue import FairQueue
from paceline.call import Priority
from paceline.clock import Clock, SystemClock
from paceline.errors import OverloadedError, Shortage

__all__ = ["Gate", "Ticket", "enter_all", "enter_free", "try_enter_all"]

_NS: Final = 1_000_000_000
_NO_WEIGHTS: Final[Mapping[str, float]] = {}
_SYSTEM: Final = SystemClock()
_SPECULATIVE: Final = Priority.SPECULATIVE


@final
class Ticket:
    """One caller in the queue, and every gate it needs a place in."""

    __slots__ = ("_owed", "deadline_ns", "fills", "gates", "priority", "tenant", "turn")

    def __init__(
        self,
        gates: "Sequence[Gate]",
        priority: Priority,
        tenant: str = "",
        deadline_ns: int | None = None,
    ) -> None:
        self.gates = tuple(gates)
        self.fills = next((gate for gate in reversed(self.gates) if gate.free <= 0), self.gates[-1])
        """The one gate whose queue it fills: the last of those that it finds full."""
        self.priority = priority
        self.tenant = tenant
        self.deadline_ns = deadline_ns
        self.turn: asyncio.Future[OverloadedError | None] = (
            asyncio.get_running_loop().create_future()
        )
        """None once it is admitted, else why it never will be."""
        self._owed = 0
        """Gates where it has taken the place of a guest that is not gone yet."""

    @property
    def admitted(self) -> bool:
        """Whether it has its places."""
        return self.turn.done() and not self.turn.cancelled() and self.turn.result() is None

    def raise_to(self, priority: Priority) -> None:
        """Lets it wait among the more urgent ones from now on; it is not made less urgent."""
        if priority > self.priority and not self.turn.done():
            self.priority = priority
            for gate in self.gates:
                gate.queue.raise_to(self, priority, gate.clock.monotonic_ns())
            self.fills.filled.raise_to(self, priority, self.fills.clock.monotonic_ns())
            self.clear_way()

    def join(self) -> None:
        """Joins the queues."""
        for gate in self.gates:
            gate.queue.add(self, gate.clock.monotonic_ns())
        self.fills.filled.add(self, self.fills.clock.monotonic_ns())

    def clear_way(self) -> None:
        """Has guests go from the gates that it finds full."""
        if self.priority > _SPECULATIVE:
            for gate in self.gates:
                if gate.guests and gate.free <= 0:
                    gate.clear_way()

    def inherit(self) -> bool:
        """Takes its places at once, where guests hold those that are not free: it has them when those
        are gone. So whoever comes after it comes after it, as if there were no guests."""
        full = [gate for gate in self.gates if gate.free <= 0]
        if self.priority <= _SPECULATIVE or not all(gate.has_spare_guest for gate in full):
            return False
        for gate in self.gates:
            gate.free -= 1
        self._owed = len(full)
        for gate in full:
            gate.heirs[self] = None
            gate.clear_way()
        return True

    def hand_over(self) -> None:
        """The guest of one of its gates is gone, or somebody else."""
        if self._owed == 1 and not self.turn.done():
            self._owed = 0
            self.turn.set_result(None)
        else:  # it is about to leave, if it was cancelled in this moment
            self._owed = max(1, self._owed - 1)

    def step_back(self) -> None:
        """The guest whose place it has does not go: it waits in the queues, if places that others could
        use would wait with it."""
        if self._owed < len(self.gates) and not self.turn.done():
            self.withdraw()
            self.join()

    def admit(self) -> None:
        """Takes its places, all of which are there."""
        for gate in self.gates:
            gate.free -= 1
            gate.queue.serve(self, gate.clock.monotonic_ns())
        self.fills.filled.remove(self)
        self.turn.set_result(None)

    def refuse(self, error: OverloadedError) -> None:
        """Ends its waiting, unless that has ended already."""
        self.withdraw()
        if not self.turn.done():
            self.turn.set_result(error)

    def start_timer(self) -> asyncio.TimerHandle | None:
        """Has it refused at its deadline, if it has one."""
        if self.deadline_ns is None:
            return None
        left_ns = self.deadline_ns - self.gates[0].clock.monotonic_ns()
        loop = asyncio.get_running_loop()
        return loop.call_later(left_ns / _NS, self._refuse_late)

    def _refuse_late(self) -> None:
        full = (gate for gate in self.gates if gate.free <= 0)
        self.refuse(_late(next(full, self.gates[0])))

    def withdraw(self) -> None:
        """Leaves the queues, if it is in them, or the places that it was to have."""
        if self._owed:
            self._owed = 0
            for gate in self.gates:
                gate.heirs.pop(self, None)
            for gate in self.gates:
                gate.leave()
            return
        for gate in self.gates:
            gate.queue.remove(self)
        self.fills.filled.remove(self)


@final
class Gate:
    """Admits at most `capacity` callers at once; others wait, the most urgent first.

    Among equals every tenant gets its share, and those of one tenant are served in the order they
    came; who has waited for long becomes more urgent (see `FairQueue`). Where more than `max_queue`
    would wait, the least urgent is refused, be it the newcomer or one who waits. Who needs places
    in several gates counts to the `max_queue` of one: the last that was full when it came. A caller
    that leaves the queue (cancelled, or out of time) takes nobody's place with it and leaves
    nothing behind. Used on one event loop.

    Some inside may be `guests`: where it is full as many of them are asked to go as callers wait,
    others in place of those that do not go. Who finds a place of one has it, before all who come
    later, and waits only for it to be gone; he does not count to `max_queue`. If it does not go he
    waits with the others, unless he holds up nobody elsewhere.
    """

    __slots__ = (
        "capacity",
        "clock",
        "filled",
        "free",
        "guests",
        "heirs",
        "max_queue",
        "name",
        "queue",
    )

    def __init__(
        self,
        name: str,
        capacity: int,
        max_queue: int,
        *,
        clock: Clock = _SYSTEM,
        ageing_s: float = 10.0,
        weights: Mapping[str, float] = _NO_WEIGHTS,
    ) -> None:
        """`name` is how errors call what is guarded. `weights` are those of tenants, relative to
        1 for all that are not named."""
        self.name = name
        self.capacity = capacity
        self.max_queue = max_queue
        self.clock = clock
        self.free = capacity
        """Places left; below 0 for a while when the capacity was made smaller, and while guests are
        about to go."""
        self.queue: FairQueue[Ticket] = FairQueue(ageing_s=ageing_s, weights=weights)
        """All who need a place here."""
        self.filled: FairQueue[Ticket] = FairQueue(ageing_s=ageing_s, weights=weights)
        """Those of them who count to `max_queue`."""
        self.guests: Guests[None] = Guests(self._clear_ways)
        """Those inside that give way to who waits."""
        self.heirs: dict[Ticket, None] = {}
        """Those who have taken the places of guests that are not gone yet."""

    @property
    def in_use(self) -> int:
        """Callers inside."""
        return self.capacity - self.free

    @property
    def waiting(self) -> int:
        """Callers who wait here, or for another gate with this one."""
        return len(self.queue) + len(self.heirs)

    @property
    def has_spare_guest(self) -> bool:
        """Whether there is a guest whose place nobody has taken yet, and nobody waits for. For `Ticket`."""
        taken = len(self.heirs)
        if not self.guests or self.guests.would_go(taken + 1) <= taken:
            return False
        # Somebody may wait for one since an heir has left, or another gate has a place.
        return next(self._held_by_guests(), None) is None

    def expected_wait_s(self) -> float | None:
        """How long one who joined the queue now might wait, at the rate of late; None while that
        is not known."""
        return self.queue.wait_s(self.clock.monotonic_ns())

    async def enter(
        self,
        priority: Priority = Priority.NORMAL,
        *,
        tenant: str = "",
        deadline_ns: int | None = None,
    ) -> None:
        """Returns once admitted; the caller must `leave`. Raises OverloadedError as `enter_all`
        does."""
        await enter_all((self,), priority, tenant=tenant, deadline_ns=deadline_ns)

    def try_enter(self) -> bool:
        """Enters if there is a place now; the caller must `leave` then. Nobody is overtaken: a
        place that somebody in the queue could use is never free."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def leave(self) -> None:
        """Gives the place back, to the next in the queue if there is one."""
        self.free += 1
        if self.heirs:
            self._hand_over()
        if self.queue.waiting:
            self._admit()

    def resize(self, capacity: int) -> None:
        """Changes the capacity; callers beyond a smaller one finish undisturbed."""
        self.free += capacity - self.capacity
        self.capacity = capacity
        self._hand_over()
        self._admit()

    def overloaded(self, reason: Shortage, why: str) -> OverloadedError:
        """The error for one who is not admitted, with when to try again. For `enter_all`."""
        return OverloadedError(
            f"{self.name} is at its limit of {self.capacity} at once, {why}",
            reason=reason,
            retry_after_s=self.expected_wait_s(),
        )

    def clear_way(self) -> None:
        """Has as many guests go as somebody waits for. For `Ticket`."""
        self.guests.ask(self.waiting)

    def _hand_over(self) -> None:
        """Lets those go on, the first first, for whom there are places indeed."""
        while self.heirs and len(self.heirs) > max(0, -self.free):
            heir = next(iter(self.heirs))
            del self.heirs[heir]
            heir.hand_over()

    def _admit(self) -> None:
        queue = self.queue
        while self.free > 0 and queue:
            now_ns = self.clock.monotonic_ns()
            ticket = queue.first(now_ns)
            if ticket is None:
                self._clear_ways()
                return
            if ticket.turn.done():  # cancelled in this moment, and about to leave
                ticket.withdraw()
            elif ticket.deadline_ns is not None and ticket.deadline_ns <= now_ns:
                ticket.refuse(_late(self))
            else:
                ticket.admit()

    def _clear_ways(self) -> None:
        """Who has the place of a guest does not wait long for it, and who waits here for another gate
        too does not wait there for guests."""
        if self.heirs:
            self.clear_way()
            for heir in tuple(self.heirs)[self.guests.going :]:
                heir.step_back()
        for full in self._held_by_guests():
            for gate in full:
                gate.clear_way()

    def _held_by_guests(self) -> "Iterator[list[Gate]]":
        """The full gates of those who wait here, where guests are in all of them."""
        for gates in self.queue.lanes():
            full = [gate for gate in gates if gate.free <= 0]
            if all(gate.guests for gate in full):
                yield full


def enter_free(gates: Sequence[Gate]) -> None:
    """Enters all of these different gates if each has a place now; the caller must `leave` each.
    Raises OverloadedError, with nothing entered, because what nobody asked for never waits."""
    for gate in gates:
        if gate.free <= 0:
            raise gate.overloaded(Shortage.SPECULATIVE, "and what nobody asked for does not wait")
    for gate in gates:
        gate.free -= 1


def try_enter_all(gates: Sequence[Gate]) -> bool:
    """Enters all of these gates if there is a place in each now; the caller must `leave` them then.
    Nobody is overtaken: see `Gate.try_enter`."""
    for full in gates:
        if full.free <= 0:
            break
        full.free -= 1
    else:
        return True
    for gate in gates:
        if gate is full:
            break
        gate.free += 1  # nobody else has seen that it was taken
    return False


async def enter_all(
    gates: Sequence[Gate],
    priority: Priority = Priority.NORMAL,
    *,
    tenant: str = "",
    deadline_ns: int | None = None,
    waiting: Callable[[Ticket], object] | None = None,
) -> None:
    """Enters all of these different gates in one moment; the caller must `leave` each.

    Gates that more callers share come first: that of the runtime before that of an agent. Who waits
    holds no place anywhere, but for the time that guests have to go, so callers that need several gates never wait for each other in a
    circle, and one that waits for a busy gate keeps nobody from a free one; nor does it fill the
    queue of any but the last that is full, so that those who wait for one agent push nobody out who
    waits for the runtime. `waiting` is given the ticket of who has to wait. `deadline_ns` is a
    moment of the gates' clock.

    Raises OverloadedError, with nothing entered: QUEUE_FULL at once, where the queue to be filled
    is full and nobody in it has to give way; SHED later, for one who has to; LATE at the deadline.
    """
    if deadline_ns is not None and gates and gates[0].clock.monotonic_ns() >= deadline_ns:
        raise _late(gates[0])
    if not try_enter_all(gates):
        await _wait(Ticket(gates, priority, tenant, deadline_ns), waiting)


async def _wait(ticket: Ticket, waiting: Callable[[Ticket], object] | None) -> None:
    """Returns once the ticket, which cannot be admitted now, has been."""
    if not ticket.inherit():
        _make_room(ticket)
        ticket.join()
        ticket.clear_way()
    timer = ticket.start_timer()
    try:
        if waiting is not None:
            waiting(ticket)
        error = await ticket.turn
    except BaseException:
        if ticket.admitted:  # and cancelled in the same moment: pass the places on
            for gate in ticket.gates:
                gate.leave()
        raise
    finally:
        ticket.withdraw()
        if timer is not None:
            timer.cancel()
    if error is not None:
        raise error


def _make_room(ticket: Ticket) -> None:
    """Lets one leave the queue that the ticket is to fill, if that is full. Raises OverloadedError
    if nobody in it must."""
    gate = ticket.fills
    most = gate.max_queue
    if gate.guests and ticket.priority > _SPECULATIVE:
        most += gate.guests.would_go(gate.waiting + 1) - len(gate.heirs)
    if len(gate.filled) >= most:
        least = gate.filled.gives_way(ticket, gate.clock.monotonic_ns())
        if least is None:
            raise gate.overloaded(Shortage.QUEUE_FULL, f"with {gate.max_queue} waiting")
        least.refuse(gate.overloaded(Shortage.SHED, "and what is more urgent waits for it"))


def _late(gate: Gate) -> OverloadedError:
    return gate.overloaded(Shortage.LATE, "and had no place before the deadline")
