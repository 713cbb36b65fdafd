"""Who waits until an instance of a type can take more work, on one event loop at a time.

The queue is a `Gate` that has a place while the instances have room. A caller that was let in takes
an instance in the same moment and leaves the gate to the next. Who needs something special
waits at a gate for that too, so that nobody is let in for whom there is nothing.
"""

import asyncio
import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Final, NamedTuple, final

from paceline.balance.fleet import PLAIN, Fleet, Refusal
from paceline.balance.gate import Gate, Ticket, enter_all, enter_free
from paceline.balance.guests import Guest, Guests
from paceline.balance.instance import NEVER, AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.rate import Rates
from paceline.balance.request import ANYTHING, Needs, Request
from paceline.balance.views import has
from paceline.call import Priority
from paceline.clock import Clock
from paceline.errors import OverloadedError, Shortage, UsageError

__all__ = ["Line"]

_NS: Final = 1_000_000_000
_PAUSE_S: Final = 0.01


class _Patience(NamedTuple):
    """How long somebody waits: until `limit`, and while the first instance is known to open within
    `opening_s` seconds."""

    limit: asyncio.Timeout
    opening_s: float

    def ends(self, opens_s: float) -> bool:
        """Whether it makes no sense to wait for what opens then."""
        end_s = self.limit.when()
        left_s = math.inf if end_s is None else end_s - asyncio.get_running_loop().time()
        return opens_s == math.inf or opens_s > min(left_s, self.opening_s)


@final
class _Waiting:
    """Those who wait for the same."""

    __slots__ = ("callers", "gate", "told")

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.callers: set[_Patience] = set()
        self.told: Refusal | None = None
        """What they know: nothing about waiting changes as long as this holds."""


class _Caller(NamedTuple):
    """How somebody waits: at `gates` of this line and at `outer` ones, which are kept."""

    gates: tuple[Gate, ...]
    outer: tuple[Gate, ...]
    priority: Priority
    tenant: str
    waiting: Callable[[Ticket], object] | None


@final
class Line:
    """The queue before a fleet."""

    def __init__(
        self, fleet: Fleet, max_queue: int, *, clock: Clock, ageing_s: float = 10.0
    ) -> None:
        """Beyond `max_queue` who wait, callers are refused."""
        self._fleet = fleet
        self._max_queue = max_queue
        self._ageing_s = ageing_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._told = False
        self._guests: Guests[AgentInstance] = Guests(self._clear_ways)
        self._begin()

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return self._gate.waiting

    def free(self, needs: Needs = ANYTHING) -> bool:
        """Whether somebody who does not wait may have an instance now: there is room beyond what
        those need who wait, and could go. From any thread."""
        if not self._at:
            return True
        needed = self._gate.waiting
        if threading.get_ident() == self._thread:
            self._level()  # who could go is let in, and no longer waits
            needed = 0
        return self._fleet.room(needs) > self._gate.in_use + needed

    async def lease(
        self,
        request: Request = PLAIN,
        priority: Priority = Priority.NORMAL,
        *,
        tenant: str = "",
        timeout_s: float | None = None,
        opening_s: float | None = None,
        outer: Sequence[Gate] = (),
        waiting: Callable[[Ticket], object] | None = None,
    ) -> Lease:
        """A lease, as soon as it is this caller's turn.

        `outer` are gates that are entered in the same moment, and that the caller must leave once
        it has the lease. `waiting` is given the ticket of who has to wait, as by `enter_all`. It
        waits at most `timeout_s` seconds in all, and no longer once every instance is shut for more
        than `opening_s`.

        Raises OverloadedError, with nothing entered: when the queue is full, when nothing can be
        had in time, and at once where waiting does not help.
        """
        if self.free(request.needs) and all(gate.free > 0 for gate in outer):
            try:
                lease = self._fleet.lease(request)
            except OverloadedError:
                if not self._fleet.refusal(request.needs).hopeful:
                    raise
            else:
                for gate in outer:
                    gate.try_enter()
                return lease
        loop = self._settle()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline) as limit:
                patience = _Patience(limit, math.inf if opening_s is None else opening_s)
                with self._waiting_for(request, patience) as gates:
                    caller = _Caller(gates, tuple(outer), priority, tenant, waiting)
                    return await self._turn(request, caller, patience)
        except TimeoutError:
            for gate in outer:
                if gate.free <= 0:
                    late = gate.overloaded(Shortage.LATE, "and had no place in time")
                    raise late from None
            raise self._fleet.refused(request.needs) from None

    def lease_free(self, request: Request, guest: Guest, outer: Sequence[Gate]) -> Lease:
        """A lease for a guest, and places in the gates, which it must leave, if all are free now.
        It gives way to who waits, and is to be told of in `gone` when the lease is over. Raises
        OverloadedError, with nothing entered."""
        if not self.free(request.needs):
            raise self._fleet.refused(request.needs)
        enter_free(outer)
        try:
            lease = self._fleet.lease(request)
        except BaseException:
            for gate in outer:
                gate.leave()
            raise
        self._guests.add(guest, lease.instance)
        return lease

    def gone(self, guest: Guest) -> None:
        """The lease of a guest is over."""
        self._guests.remove(guest)
        self._let_wait()

    async def until_idle(self, instance: AgentInstance, timeout_s: float | None) -> bool:
        """Waits until what was given to an instance is done; whether it was in time."""
        done: asyncio.Future[None] = self._settle().create_future()
        self._idle[done] = instance
        self._fleet.listener = self._tell
        self._level()
        try:
            async with asyncio.timeout(timeout_s):
                await done
        except TimeoutError:
            return False
        finally:
            del self._idle[done]
            self._rest()
        return True

    # --- on the loop

    def _begin(self) -> None:
        """Nobody waits."""
        self._gate = self._new_gate()
        self._at: dict[Needs, _Waiting] = {}
        self._wanted: Counter[int] = Counter()  # the ids of requests for which somebody waits
        self._idle: dict[asyncio.Future[None], AgentInstance] = {}

    def _new_gate(self) -> Gate:
        name, most = f"the queue for {self._fleet.name}", self._max_queue
        return Gate(name, 0, most, clock=self._clock, ageing_s=self._ageing_s)

    def _settle(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._at and self._loop is not None and self._loop.is_running():
                raise UsageError(
                    f"callers wait for {self._fleet.name} on another event loop",
                    next_step="Use one event loop, or a LoadBalancer for each.",
                )
            self._loop, self._thread, self._timer = loop, threading.get_ident(), None
            self._begin()
        return loop

    @contextlib.contextmanager
    def _waiting_for(self, request: Request, patience: _Patience) -> Generator[tuple[Gate, ...]]:
        """The gates to wait at."""
        needs = request.needs
        at = self._at.get(needs)
        if at is None:
            gate = self._gate if needs == ANYTHING else self._new_gate()
            at = self._at[needs] = _Waiting(gate)
        at.callers.add(patience)
        self._wanted[id(request)] += 1
        self._fleet.listener = self._tell
        self._forgo()
        try:
            # The queue they fill is that of the fleet, whatever they need.
            yield (self._gate,) if at.gate is self._gate else (at.gate, self._gate)
        finally:
            at.callers.discard(patience)
            if not at.callers:
                del self._at[needs]
            self._wanted[id(request)] -= 1
            if self._wanted[id(request)] <= 0:
                del self._wanted[id(request)]
            self._rest()
            self._forgo()

    def _forgo(self) -> None:
        """Opens the instances that are shut for something large for which nobody waits any more:
        whoever wanted it has given up, or has it from another instance."""
        for instance in tuple(self._fleet.instances.values()):
            if instance.shortage is not Shortage.RATE_LIMIT:
                continue
            for rates in (guard for guard in instance.guards if isinstance(guard, Rates)):
                if rates.wanted is not None and id(rates.wanted) not in self._wanted:
                    rates.forgo()
                    instance.changed()

    async def _turn(self, request: Request, caller: _Caller, patience: _Patience) -> Lease:
        while True:
            self._level()
            if patience.ends(self._opens_s(self._fleet.refusal(request.needs))):
                raise self._fleet.refused(request.needs)
            if self._guests and caller.priority > Priority.SPECULATIVE:
                self._clear_way(request.needs, self._gate.waiting + 1)
            await self._enter(caller)
            lease = None
            try:
                lease = self._take(request)
            finally:  # also where a strategy of somebody else's fails
                self._level()
                for gate in caller.gates if lease is not None else (*caller.gates, *caller.outer):
                    gate.leave()
            if lease is not None:
                return lease
            # Where there is room, a guard wants others and not this one.
            await asyncio.sleep(_PAUSE_S if self._fleet.room(request.needs) else 0)

    def _clear_way(self, needs: Needs, waiting: int) -> None:
        """Has as many guests go as callers wait for which there is no room. Nobody is turned away for
        whom one goes."""
        wanted = waiting - self._fleet.room(needs)
        self._guests.ask(wanted, lambda instance: has(instance, needs))
        self._let_wait()

    def _clear_ways(self) -> None:
        """The same for all who wait, once a guest did not go."""
        for needs, at in self._at.items():
            if any(at.gate.queue.lanes()):
                self._clear_way(needs, self._gate.waiting)

    def _let_wait(self) -> None:
        """As many as may, and those for whom guests go."""
        for gate in (self._gate, *[at.gate for at in self._at.values()]):
            gate.max_queue = self._max_queue + self._guests.going

    async def _enter(self, caller: _Caller) -> None:
        gates = (*caller.outer, *caller.gates)
        try:
            await enter_all(gates, caller.priority, tenant=caller.tenant, waiting=caller.waiting)
        except OverloadedError as exc:
            if all(gate.free > 0 for gate in caller.gates):  # an outer one is full, if any
                raise
            raise self._turned_away(exc) from None

    def _take(self, request: Request) -> Lease | None:
        """A lease, unless somebody in a thread, or with less needs, was quicker."""
        try:
            return self._fleet.lease(request)
        except OverloadedError:
            return None

    def _turned_away(self, error: OverloadedError) -> OverloadedError:
        """What the gate said, in terms of instances."""
        shed = error.reason is Shortage.SHED
        return OverloadedError(
            f"no instance of {self._fleet.name} is free, and "
            + ("what is more urgent waits for one" if shed else f"{self.waiting} wait for one"),
            reason=error.reason,
            next_step=None if shed else "Register more instances, or allow a longer `max_queue`.",
            retry_after_s=error.retry_after_s,
        )

    def _tell(self) -> None:
        """Something about the fleet has changed. From any thread, in the middle of anything."""
        if self._told or self._loop is None:
            return
        self._told = True
        if threading.get_ident() == self._thread:
            self._loop.call_soon(self._heard)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._heard)

    def _heard(self) -> None:
        self._told = False
        self._level()

    def _level(self) -> None:
        """Gives each gate a place if there is room, lets go whom waiting cannot help, and sees to it
        that this is done again when time alone changes something.

        One place at a time: with whoever takes it guards may have had enough, and all others would
        have come in vain.
        """
        rooms = [(at.gate, min(1, self._fleet.room(needs))) for needs, at in self._at.items()]
        if ANYTHING not in self._at:
            rooms.append((self._gate, min(1, self._fleet.room())))
        for gate, room in sorted(rooms, key=lambda each: each[1] > each[0].capacity):
            if gate.capacity != room:
                gate.resize(room)
        for needs, at in self._at.items():
            refusal = self._fleet.refusal(needs)
            if refusal != at.told:
                at.told = refusal
                self._let_go(at.callers, self._opens_s(refusal))
        for done, instance in self._idle.items():
            if instance.in_flight <= instance.held_elsewhere and not done.done():
                done.set_result(None)
        self._rest()
        self._set_timer()

    def _opens_s(self, refusal: Refusal) -> float:
        """When it is worth looking again: infinity for never, 0 where nobody knows."""
        if not refusal.hopeful:
            return math.inf
        if refusal.reason is Shortage.FULL or refusal.opens_ns == NEVER:
            return 0.0
        return max(0.0, (refusal.opens_ns - self._clock.monotonic_ns()) / _NS)

    @staticmethod
    def _let_go(callers: set[_Patience], opens_s: float) -> None:
        """Ends the waiting of those for whom that is too late."""
        for patience in callers if opens_s else ():
            if not patience.limit.expired() and patience.ends(opens_s):
                patience.limit.reschedule(asyncio.get_running_loop().time())

    def _rest(self) -> None:
        """Nobody need be told of anything while nobody waits."""
        if not self._at and not self._idle:
            self._fleet.listener = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        next_ns = self._fleet.next_ns
        if next_ns != NEVER and self._loop is not None and (self._at or self._idle):
            wait_ns = max(0, next_ns - self._clock.monotonic_ns())
            self._timer = self._loop.call_later(wait_ns / _NS, self._level)
