"""Load balancing: which of several instances of an agent, tool or model does a piece of work."""

import difflib
import random
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, final

from paceline.balance.fleet import PLAIN, Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease, Leasing
from paceline.balance.line import Line
from paceline.balance.request import ANYTHING, Needs, Request
from paceline.balance.status import FleetStatus, status_of
from paceline.balance.strategies import make
from paceline.balance.strategy import LoadBalancingStrategy, Strategy
from paceline.call import Priority
from paceline.clock import Clock, SystemClock
from paceline.errors import InvalidInputError, UnknownAgentError, UsageError

__all__ = ["LoadBalancer"]

_SYSTEM: Final = SystemClock()


@final
class LoadBalancer:
    """Gives work to instances, and counts what each has. ::

        balancer = LoadBalancer()
        balancer.register(AgentInstance("one", "translator", max_capacity=5))
        async with balancer.lease("translator", timeout=10) as instance:
            ...

    `lease` waits, on one event loop at a time; everything else may be called from any thread, and
    never gives an instance more than it can take.
    """

    def __init__(
        self,
        strategy: str = LoadBalancingStrategy.LEAST_LOADED,
        *,
        clock: Clock = _SYSTEM,
        rng: random.Random | None = None,
        max_queue: int = 1000,
        lease_s: float | None = None,
        ageing_s: float = 10.0,
    ) -> None:
        """`strategy` is for all types that are not given another one; at most `max_queue` callers
        wait for each type, and who has waited `ageing_s` seconds goes before what is one level more
        urgent. A lease ends by itself after `lease_s` seconds; None: when nobody holds
        it any more. `rng` makes choices by chance repeatable.

        Raises UsageError for a strategy that does not exist.
        """
        self._clock = clock
        self._rng = rng or random.Random(clock.wall_ns())  # noqa: S311 (it spreads load)
        self._max_queue = max_queue
        self._lease_s = lease_s
        self._ageing_s = ageing_s
        self._types: dict[str, _Type] = {}
        self._make(strategy)
        self.strategy = strategy
        """What chooses for types that were not given another one."""

    # --- who there is

    @property
    def instances(self) -> Mapping[str, list[AgentInstance]]:
        """All instances, by type, as registered."""
        return {
            name: list(kind.fleet.instances.values())
            for name, kind in tuple(self._types.items())
            if kind.fleet.instances
        }

    def register_instance(self, instance: AgentInstance) -> AgentInstance:
        """Makes an instance known. If one with its type and id is, that one becomes what this one
        is said to be, and keeps its work. Returns the one that is registered."""
        return self._kind(instance.agent_type).fleet.add(instance)

    register = register_instance

    def unregister(self, agent_type: str, id: str) -> AgentInstance:  # noqa: A002 (as instances have it)
        """Forgets an instance; work it has goes on. Raises UnknownAgentError or UsageError."""
        return self._known(agent_type).fleet.remove(id)

    async def drain(self, agent_type: str, id: str, timeout: float | None = None) -> bool:  # noqa: A002, ASYNC109 (as above; a time to wait)
        """Gives an instance nothing more and waits, up to `timeout` seconds, until what it has is
        done; whether it is. It stays registered, draining. Raises UnknownAgentError or
        UsageError."""
        kind = self._known(agent_type)
        instance = kind.fleet.instances.get(id)
        if instance is None:
            raise UsageError(f"{agent_type} has no instance {id}")
        instance.draining = True
        return await kind.line.until_idle(instance, timeout)

    def set_strategy(self, agent_type: str, strategy: str | Strategy) -> None:
        """Chooses among the instances of a type by another strategy from now on; a Strategy of
        your own must be for this type alone. Raises UsageError for an unknown name."""
        kind = self._kind(agent_type)
        if not isinstance(strategy, (str, Strategy)):
            raise UsageError(
                f"{strategy!r} is neither the name of a strategy nor a strategy",
                next_step="Give an object of the class, made for this type alone.",
            )
        if isinstance(strategy, Strategy):
            kind.fleet.use(strategy)
            kind.strategy = type(strategy).__name__
        else:
            kind.fleet.use(self._make(strategy))
            kind.strategy = strategy

    def fleet(self, agent_type: str) -> Fleet:
        """The instances of a type, and the choice among them. Raises UnknownAgentError."""
        return self._known(agent_type).fleet

    def line(self, agent_type: str) -> Line:
        """The queue for the instances of a type. Raises UnknownAgentError."""
        return self._known(agent_type).line

    # --- work

    def lease(
        self,
        agent_type: str,
        request: Request | None = None,
        *,
        needs: Needs | None = None,
        affinity: str = "",
        priority: Priority = Priority.NORMAL,
        tenant: str = "",
        timeout: float | None = None,
    ) -> Leasing:
        """An instance for one piece of work, to be entered with `async with`, or awaited.

        Waits its turn, at most `timeout` seconds: the most urgent go first. What the work needs is
        in `request`, or in `needs` and `affinity` (what it has in common with work that should go
        to the same instance).

        On entering it raises UnknownAgentError; and OverloadedError when there is nothing in time
        or the queue is full, and at once when waiting does not help: `reason` says why.
        """
        if request is None:
            request = Request(needs or ANYTHING, affinity) if needs or affinity else PLAIN
        elif needs is not None or affinity:
            raise InvalidInputError("a request says itself what it needs and its affinity")
        work = request

        async def wait() -> Lease:
            line = self._known(agent_type).line
            return await line.lease(work, priority, tenant=tenant, timeout_s=timeout)

        return Leasing(wait)

    def try_lease(self, agent_type: str, request: Request = PLAIN) -> Lease:
        """A lease at once, without waiting and before nobody who waits; the caller must release
        it. Raises UnknownAgentError or OverloadedError."""
        kind = self._known(agent_type)
        if not kind.line.free(request.needs):
            raise kind.fleet.refused(request.needs)
        return kind.fleet.lease(request)

    def select_instance(self, agent_type: str, request: Request = PLAIN) -> AgentInstance:
        """The instance that would be chosen now; it is not counted as having work. Raises
        UnknownAgentError or OverloadedError."""
        return self._known(agent_type).fleet.select(request)

    select = select_instance

    def acquire(self, agent_type: str, request: Request = PLAIN) -> AgentInstance:
        """An instance, with one more piece of work; `release` it. Raises UnknownAgentError or
        OverloadedError. Prefer `lease`, which knows how the work ended."""
        lease = self.try_lease(agent_type, request)
        self._types[agent_type].acquired.setdefault(lease.instance, deque()).append(lease)
        return lease.instance

    def release(self, instance: AgentInstance) -> None:
        """What was acquired is done. Raises UsageError if nothing of this instance is acquired."""
        kind = self._types.get(instance.agent_type)
        try:
            lease = kind.acquired[instance].popleft() if kind is not None else None
        except (KeyError, IndexError):
            lease = None
        if lease is None:
            raise UsageError(
                f"instance {instance.id} of {instance.agent_type} was not acquired, or was "
                f"released before",
                next_step="Release once for each `acquire`; `lease` does it by itself.",
            )
        lease.release()

    # --- figures

    def status(self, agent_type: str) -> FleetStatus:
        """How the instances of a type stand. Raises UnknownAgentError."""
        kind = self._known(agent_type)
        return status_of(kind.fleet, strategy=kind.strategy, waiting=kind.line.waiting)

    def get_status(self) -> dict[str, dict[str, Any]]:
        """All types in the form of older bots, with percentages as text: `status` gives numbers."""
        return {name: self.status(name).as_text() for name in self.instances}

    # --- types

    def _kind(self, agent_type: str) -> "_Type":
        kind = self._types.get(agent_type)
        if kind is None:
            fleet = Fleet(
                agent_type, self._make(self.strategy), clock=self._clock, lease_s=self._lease_s
            )
            line = Line(fleet, self._max_queue, clock=self._clock, ageing_s=self._ageing_s)
            # Of two threads that come at once, one is first.
            kind = self._types.setdefault(agent_type, _Type(fleet, line, self.strategy))
        return kind

    def _known(self, agent_type: str) -> "_Type":
        kind = self._types.get(agent_type)
        if kind is not None and kind.fleet.instances:
            return kind
        near = difflib.get_close_matches(agent_type, self.instances, 3)
        raise UnknownAgentError(
            f"there is no instance of {agent_type!r}",
            next_step=f"Did you mean {' or '.join(map(repr, near))}?"
            if near
            else "Register one with `register`.",
        )

    def _make(self, strategy: str) -> Strategy:
        rng = random.Random(self._rng.getrandbits(64))  # noqa: S311 (it spreads load)
        return make(strategy, clock=self._clock, rng=rng)


@final
class _Type:
    """What there is for one type."""

    __slots__ = ("acquired", "fleet", "line", "strategy")

    def __init__(self, fleet: Fleet, line: Line, strategy: str) -> None:
        self.fleet = fleet
        self.line = line
        self.strategy = strategy
        self.acquired: dict[AgentInstance, deque[Lease]] = {}
