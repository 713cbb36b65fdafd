"""The instances of one type, of which one is chosen for each piece of work. Pure: no waiting here.

Those that may be chosen now are kept in lists that change when an instance does, so a choice looks
at no instance that cannot take it.
"""

import threading
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, final

from paceline.balance.circuit import counts
from paceline.balance.failures import LastFailures
from paceline.balance.instance import NEVER, AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import ANYTHING, Needs, Request
from paceline.balance.strategy import Strategy, pick_of
from paceline.balance.views import View, by_order
from paceline.clock import Clock
from paceline.errors import Category, OverloadedError, PacelineError, Shortage, UsageError

__all__ = ["PLAIN", "Fleet", "Refusal"]

PLAIN: Final = Request()
"""Work of which nothing is known."""

_NS: Final = 1_000_000_000
_TURN: Final = 2.0**-50  # so small that it only decides between equals
_MOST_VIEWS: Final = 64

_STEPS: Final = {
    Shortage.FULL: "Wait for it (`timeout=`, `--timeout`), or register more instances.",
    Shortage.UNMATCHED: "Register an instance that has what is needed, or need less.",
    Shortage.UNHEALTHY: "`paceline instances`, or `status` of the balancer, says which are down, "
    "drained or ejected; `paceline instances restore` takes that back.",
    Shortage.CIRCUIT_OPEN: "Their own errors say what fails; they are tried again by themselves.",
    Shortage.RATE_LIMIT: "Try again later, or ask the provider for a higher limit.",
    Shortage.NO_CAPACITY: "Give one of them a capacity and a weight above zero.",
}
_CATEGORIES: Final = {
    Shortage.UNHEALTHY: Category.UNAVAILABLE,
    Shortage.CIRCUIT_OPEN: Category.UNAVAILABLE,
    Shortage.RATE_LIMIT: Category.RATE_LIMIT,
}


class Refusal(NamedTuple):
    """Why nothing can be chosen: what is short, when the first opens that is shut until a known
    moment (NEVER without one), and whether waiting may help."""

    reason: Shortage
    opens_ns: int
    hopeful: bool


@final
class Fleet:
    """Chooses among the instances of one type, and counts what they have in flight.

    All of it may be used from several threads; each operation is one step to the others.
    """

    def __init__(
        self, name: str, strategy: Strategy, *, clock: Clock, lease_s: float | None = None
    ) -> None:
        """`name` is how errors call the type. Leases end by themselves after `lease_s` seconds, if
        that is given, so that a holder who hangs does not keep a place for ever."""
        self.name = name
        self.listener: Callable[[], object] | None = None
        """Called after each change that may let somebody in, or take away the hope for it."""
        self.expired = 0
        """Leases that ended because they were too old, or nobody held them any more."""
        self._clock = clock
        self._lock = threading.RLock()  # guards may tell of changes in the course of ours
        self._acquire, self._release = self._lock.acquire, self._lock.release  # half the cost
        self._clock_ns = clock.monotonic_ns
        self._instances: dict[str, AgentInstance] = {}
        self._failures = LastFailures()
        self._registered = 0
        self._turn = 0.0
        self._choose_by(strategy)
        self._views: dict[Needs, View] = {}
        self._sort()
        self._due: dict[AgentInstance, int] = {}
        self._look_ns = NEVER
        self._lease_ns = None if lease_s is None else round(lease_s * _NS)
        self._by_age: OrderedDict[int, weakref.ref[Lease]] = OrderedDict()
        self._lost: deque[Lease] = deque()

    @property
    def instances(self) -> Mapping[str, AgentInstance]:
        """All there are, by id."""
        return MappingProxyType(self._instances)

    @property
    def strategy(self) -> Strategy:
        """What chooses."""
        return self._strategy

    @property
    def next_ns(self) -> int:
        """The next moment at which something may change by the passing of time; NEVER if none."""
        return self._look_ns

    def add(self, instance: AgentInstance) -> AgentInstance:
        """Registers an instance, or makes the one with its id what this one is said to be: the
        instance that is registered from now on.

        Raises UsageError if it is registered elsewhere.
        """
        with self._lock:
            known = self._instances.get(instance.id)
            if known is not None:
                if known is not instance:
                    known.copy_from(instance)
                    self._sort()
                self.look(known)
                return known
            if instance.watcher is not None:
                raise UsageError(
                    f"instance {instance.id} is registered elsewhere",
                    next_step="Make another AgentInstance with the same target.",
                )
            self._registered += 1
            instance.order = self._registered
            instance.shortage = Shortage.NO_CAPACITY  # until it is looked at
            instance.watcher = self.look
            self._instances[instance.id] = instance
            self._sort()
            self._enter(instance)
            self.look(instance)
            return instance

    def remove(self, id: str) -> AgentInstance:  # noqa: A002 (as instances have it)
        """Forgets an instance; the work it has goes on. Raises UsageError for an unknown id."""
        with self._lock:
            instance = self._instances.pop(id, None)
            if instance is None:
                raise UsageError(f"{self.name} has no instance {id}")
            instance.watcher, instance.term, instance.order = None, None, 0
            self._due.pop(instance, None)
            self._failures.forget(instance)
            self._sort()
            self._strategy.left(instance)
            self._tell()
            return instance

    def use(self, strategy: Strategy) -> None:
        """Chooses by another strategy from now on, which is not told of leases before it."""
        with self._lock:
            self._choose_by(strategy)
            for instance in self._instances.values():
                self._enter(instance)

    def select(self, request: Request = PLAIN) -> AgentInstance:
        """The instance that would be given the work; it is not given to it. Raises
        OverloadedError."""
        with self._lock:
            now_ns = self._now_ns()
            if candidates := self._choice(request, ()):
                return self._pick(candidates, request, now_ns)
            raise self.refused(request.needs)

    def lease(self, request: Request = PLAIN) -> Lease:
        """Gives the work to an instance; the caller must release the lease. Raises
        OverloadedError at once if there is none that can take it."""
        self._acquire()
        try:
            now_ns = self._clock_ns()
            if now_ns >= self._look_ns or self._lost:
                self._catch_up(now_ns)
            refused: tuple[AgentInstance, ...] = ()
            simple = request.needs is ANYTHING and not request.avoid
            candidates = self._anyone if simple else self._choice(request, refused)
            while candidates:
                instance = self._pick(candidates, request, now_ns)
                lease = Lease(self, instance, request)
                if not instance.guards or _admitted(lease):
                    self._send(lease, now_ns)
                    return lease
                refused = (*refused, instance)
                self._look(instance, now_ns)
                candidates = self._choice(request, refused)
            raise self.refused(request.needs)
        finally:
            self._release()

    def answered(self, lease: Lease) -> None:
        """The first token has come. For leases."""
        with self._lock:
            lease.first_ns = self._now_ns() or 1
            if self._answered is not None and lease.term is lease.instance.term:
                self._answered(lease)

    def take_back(
        self,
        lease: Lease,
        error: PacelineError | None,
        abandoned: bool,  # noqa: FBT001 (positional arguments cost less)
        /,
    ) -> None:
        """The work of a lease is over. For leases. Raises UsageError if it was before."""
        self._acquire()
        try:
            now_ns = self._clock_ns()
            if now_ns >= self._look_ns or self._lost:
                self._catch_up(now_ns)
            if lease.ended_ns:
                raise _ended_before(lease)
            self._end(lease, now_ns, error, abandoned)
        finally:
            self._release()

    def lost(self, lease: Lease) -> None:
        """Nobody holds it any more. For leases. May come in the middle of anything of ours, so it
        is put aside."""
        self._lost.append(lease)
        self._tell()

    def look(self, instance: AgentInstance) -> None:
        """Something about the instance has changed. For instances."""
        with self._lock:
            if instance in self._all.members:
                instance.measure()
                if self._changed is not None:
                    self._changed(instance)
                self._look(instance, self._clock_ns())
                self._tell()

    def candidates(self, needs: Needs = ANYTHING) -> list[AgentInstance]:
        """The instances with what is needed that may be chosen now, in the order of their
        registration."""
        with self._lock:
            self._now_ns()
            tiers = self._view(needs).tiers
            return sorted([instance for tier in tiers for instance in tier], key=by_order)

    def room(self, needs: Needs = ANYTHING) -> int:
        """How much more work those that may be chosen now would take."""
        with self._lock:
            self._now_ns()
            tiers = self._view(needs).tiers
            return sum([instance.room for tier in tiers for instance in tier])

    def refusal(self, needs: Needs = ANYTHING) -> Refusal:
        """Why none can be chosen, supposing that none can."""
        with self._lock:
            return _refusal(self._view(needs).members, self._due)

    def refused(self, needs: Needs = ANYTHING) -> OverloadedError:
        """The error that says so."""
        with self._lock:
            refusal = self.refusal(needs)
            members = self._view(needs).members
            now_ns = self._clock_ns()
        if members:
            found = Counter(i.shortage or Shortage.FULL for i in members)
            why = ", ".join(f"{n} {what.value.replace('_', ' ')}" for what, n in found.items())
        else:
            why = f"none of {len(self._instances)} has what is needed"
        said = f"no instance of {self.name} can take it now: {why}{self._failures.told(members)}"
        step = _STEPS.get(refusal.reason)
        if not self._instances:
            said, step = f"{self.name} has no instance any more", "Register one, with its target."
        known = refusal.opens_ns != NEVER and refusal.reason is not Shortage.FULL
        return OverloadedError(
            said,
            reason=refusal.reason,
            next_step=step,
            category=_CATEGORIES.get(refusal.reason),
            retry_after_s=max(0, refusal.opens_ns - now_ns) / _NS if known else None,
        )

    # --- with the lock held

    def _now_ns(self) -> int:
        """Now; what the passing of time has brought is done."""
        now_ns = self._clock_ns()
        if now_ns >= self._look_ns or self._lost:
            self._catch_up(now_ns)
        return now_ns

    def _choose_by(self, strategy: Strategy) -> None:
        """Takes those of its methods that do something: most strategies do not need all of them."""
        kind = type(strategy)
        self._strategy, self._pick = strategy, pick_of(strategy)
        self._changed = strategy.changed if kind.changed is not Strategy.changed else None
        self._sent = strategy.sent if kind.sent is not Strategy.sent else None
        self._answered = strategy.answered if kind.answered is not Strategy.answered else None
        self._ended = strategy.ended if kind.ended is not Strategy.ended else None

    def _enter(self, instance: AgentInstance) -> None:
        """Makes it known to the strategy, which is told of what is sent there from now on."""
        instance.note, instance.term = None, object()
        self._strategy.joined(instance)

    def _catch_up(self, now_ns: int) -> None:
        while self._lost:
            self._expire(self._lost.popleft(), now_ns)
        oldest_ns = self._expire_old(now_ns)
        for instance, opens_ns in tuple(self._due.items()):
            if opens_ns <= now_ns:
                self._look(instance, now_ns)
        self._look_ns = min(oldest_ns, *self._due.values(), NEVER)

    def _expire_old(self, now_ns: int) -> int:
        """Ends the leases that are too old; when the next will be."""
        while self._by_age:
            number, ref = next(iter(self._by_age.items()))
            lease = ref()
            if lease is None:
                del self._by_age[number]
                continue
            due_ns = lease.started_ns + (self._lease_ns or 0)
            if due_ns > now_ns:
                return due_ns
            self._expire(lease, now_ns)
        return NEVER

    def _choice(
        self, request: Request, refused: Collection[AgentInstance]
    ) -> Sequence[AgentInstance]:
        tiers = self._view(request.needs).tiers
        if not request.avoid and not refused:
            return tiers[0] or next((tier for tier in tiers if tier), ())
        untried = [[i for i in tier if i not in refused] for tier in tiers]
        elsewhere = [[i for i in tier if i.id not in request.avoid] for tier in untried]
        return next((tier for tier in (*elsewhere, *untried) if tier), ())

    def _send(self, lease: Lease, now_ns: int) -> None:
        instance = lease.instance
        lease.started_ns = now_ns or 1
        instance.turn = self._turn = turn = self._turn + _TURN
        instance.in_flight = in_flight = instance.in_flight + 1
        instance.rank = in_flight * instance.unit + turn
        if in_flight >= instance.most or instance.guards:
            self._look(instance, now_ns)
        if self._lease_ns is not None:
            self._by_age[id(lease)] = weakref.ref(lease)
            self._look_ns = min(self._look_ns, now_ns + self._lease_ns)
        if self._sent is not None:
            self._sent(lease)

    def _end(
        self,
        lease: Lease,
        now_ns: int,
        error: PacelineError | None,
        abandoned: bool,  # noqa: FBT001 (positional arguments cost less)
    ) -> None:
        lease.ended_ns = now_ns or 1
        lease.error, lease.abandoned = error, abandoned
        if self._lease_ns is not None:
            self._by_age.pop(id(lease), None)
        instance = lease.instance
        instance.in_flight = in_flight = instance.in_flight - 1
        instance.rank = in_flight * instance.unit + instance.turn
        if not abandoned and (error is None or counts(error)):
            took_ns = lease.ended_ns - lease.started_ns
            instance.recent.append(took_ns if error is None else ~took_ns)
        self._failures.note(lease)
        for guard, permit in lease.permits:
            guard.ended(permit, lease)
        if self._ended is not None and lease.term is instance.term:
            self._ended(lease)
        if (instance.shortage is not None or instance.guards) and instance in self._all.members:
            self._look(instance, now_ns)
        if self.listener is not None:
            self.listener()

    def _expire(self, lease: Lease, now_ns: int) -> None:
        if not lease.ended_ns:
            self.expired += 1
            lease.expired = True
            self._end(lease, now_ns, None, True)

    def _look(self, instance: AgentInstance, now_ns: int) -> None:
        """Puts it among the candidates, or takes it away."""
        shortage, opens_ns = _shortage(instance, now_ns)
        before, instance.shortage = instance.shortage, shortage
        if (shortage is None) is not (before is None):
            for view in self._views.values():
                view.put(instance)
        if now_ns < opens_ns < NEVER:
            self._due[instance] = opens_ns
            self._look_ns = min(self._look_ns, opens_ns)
        else:
            self._due.pop(instance, None)

    def _view(self, needs: Needs) -> View:
        view = self._views.get(needs)
        if view is None:
            if len(self._views) >= _MOST_VIEWS:
                del self._views[next(n for n in self._views if n is not ANYTHING)]
            view = self._views[needs] = View(needs, self._instances.values())
        return view

    def _sort(self) -> None:
        """Makes the views anew: who is there, or what they have, has changed."""
        self._views.clear()
        self._all = self._view(ANYTHING)
        self._anyone = self._all.tiers[0]

    def _tell(self) -> None:
        if self.listener is not None:
            self.listener()


def _refusal(members: Collection[AgentInstance], due: Mapping[AgentInstance, int]) -> Refusal:
    opens = [(due[i], i.order, i) for i in members if i in due]
    if not members:
        return Refusal(Shortage.UNMATCHED, NEVER, hopeful=False)
    if any(i.shortage in {None, Shortage.FULL} for i in members):
        return Refusal(Shortage.FULL, min(opens)[0] if opens else NEVER, hopeful=True)
    if opens:
        opens_ns, _, first = min(opens)
        return Refusal(first.shortage or Shortage.FULL, opens_ns, hopeful=True)
    usable = [i for i in members if i.shortage is not Shortage.NO_CAPACITY]
    if not usable:
        return Refusal(Shortage.NO_CAPACITY, NEVER, hopeful=False)
    shut = [i for i in usable if i.is_healthy and not i.draining]
    reason = (shut or usable)[0].shortage or Shortage.FULL
    # What is shut until something happens to it can only open by what it has in flight.
    return Refusal(reason, NEVER, any(i.in_flight > i.held_elsewhere for i in shut))


def _ended_before(lease: Lease) -> UsageError:
    if lease.expired:
        return UsageError(
            f"this lease of {lease.instance.id} expired before",
            next_step="Allow a longer `lease_s`.",
        )
    return UsageError(
        f"this lease of {lease.instance.id} was released before",
        next_step="Release each lease once; `async with` does it by itself.",
    )


def _shortage(instance: AgentInstance, now_ns: int) -> tuple[Shortage | None, int]:
    """Why it gets nothing, if so, and the moment that changes by itself."""
    if not instance.is_healthy or instance.draining:
        return Shortage.UNHEALTHY, NEVER
    if not instance.max_capacity or not instance.weight:
        return Shortage.NO_CAPACITY, NEVER
    shut: Shortage | None = None
    latest_ns = now_ns
    for guard in instance.guards:
        opens_ns = guard.opens_ns()
        if opens_ns > latest_ns:
            shut, latest_ns = guard.reason, opens_ns
    if shut is None and instance.in_flight >= instance.limit:
        return Shortage.FULL, NEVER
    return shut, latest_ns


def _admitted(lease: Lease) -> bool:
    """Gets a permit of every guard, or of none."""
    permits = lease.permits
    for guard in lease.instance.guards:
        permit = guard.admit(lease.request)
        if permit is None:
            for other, unused in permits:
                other.ended(unused, lease)
            lease.permits = ()
            return False
        lease.permits = permits = (*permits, (guard, permit))
    return True
