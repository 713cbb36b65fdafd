"""Keeps a balancer and the roster together: says how its instances stand, does what is wanted."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Final, final

from paceline.balance.balancer import LoadBalancer
from paceline.balance.circuit import Circuit
from paceline.balance.ejection import eject, restore
from paceline.balance.instance import NEVER, AgentInstance
from paceline.balance.status import InstanceStatus
from paceline.clock import Clock
from paceline.errors import Category, Shortage, StorageError, UnknownAgentError
from paceline.roster.file import Roster
from paceline.roster.records import State, Status, Wish, WishKind

__all__ = ["Follower", "following"]

_NS: Final = 1_000_000_000
_HEARTBEAT_NS: Final = 5 * _NS
_GRAIN_NS: Final = _NS // 10
"""Moments are published no finer than this: two readings of one moment are never quite equal."""

_STATES: Final = {
    Shortage.FULL: State.FULL,
    Shortage.CIRCUIT_OPEN: State.CIRCUIT_OPEN,
    Shortage.RATE_LIMIT: State.RATE_LIMIT,
    Shortage.NO_CAPACITY: State.NO_CAPACITY,
}


@contextlib.asynccontextmanager
async def following(
    roster: Roster,
    balancer: LoadBalancer,
    clock: Clock,
    *,
    notice: Callable[[StorageError], object],
    every_s: float = 1.0,
) -> AsyncGenerator[None]:
    """Has a balancer follow the roster beside the block, one look every so many seconds.

    What is wanted holds when the block begins; nothing is written in its first `every_s` seconds,
    so that a command that is over at once leaves no trace. `notice` is told, on another thread, of
    trouble with the file, once for each kind: the balancer goes on without it. The roster is
    closed at the end.
    """
    follower = Follower(roster, balancer, clock, notice=notice)
    stop = asyncio.Event()
    await asyncio.to_thread(follower.obey)
    task = asyncio.create_task(_follow(follower, stop, every_s))
    try:
        yield
    finally:
        stop.set()
        await task
        await asyncio.to_thread(follower.leave)


async def _follow(follower: "Follower", stop: asyncio.Event, every_s: float) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
        if stop.is_set():
            return
        await asyncio.to_thread(follower.look)  # the file may be slow, or locked for a second


@final
class Follower:
    """One look at a time, from any thread: what `following` does, without the waiting."""

    def __init__(
        self,
        roster: Roster,
        balancer: LoadBalancer,
        clock: Clock,
        *,
        notice: Callable[[StorageError], object],
    ) -> None:
        """Nothing is opened or changed yet; `notice` is told of trouble, once for each kind."""
        self._roster = roster
        self._balancer = balancer
        self._clock = clock
        self._notice = notice
        self._trouble: Category | None = None
        self._held: dict[tuple[str, str], tuple[Wish, int]] = {}
        self._published: list[Status] = []
        self._due_ns = 0

    def look(self) -> None:
        """Does what is wanted, then says how the instances stand, if that has changed or was said
        five seconds ago."""
        with self._telling():
            self._apply(self._roster.wishes())
            self._publish(_statuses(self._balancer, self._clock))
            self._trouble = None

    def obey(self) -> None:
        """Does what is wanted, and says nothing."""
        with self._telling():
            self._apply(self._roster.wishes())

    def leave(self) -> None:
        """Says that this process has no instances any more, and closes the roster."""
        with self._telling():
            self._publish([])
        self._roster.close()

    @contextlib.contextmanager
    def _telling(self) -> Generator[None]:
        try:
            yield
        except StorageError as exc:
            if exc.category is not self._trouble:
                self._trouble = exc.category
                self._notice(exc)

    def _apply(self, wishes: list[Wish]) -> None:
        """Brings the instances to what is wanted, whatever was registered anew meanwhile."""
        if not wishes and not self._held:
            return
        instances = {
            (agent, one.id): one for agent, ones in self._balancer.instances.items() for one in ones
        }
        held = self._held
        self._held = {(w.agent, w.instance): (w, self._until_ns(w)) for w in wishes}
        for key, (wish, _) in held.items():
            now = self._held.get(key)
            if key in instances and (now is None or now[0].kind is not wish.kind):
                _undo(instances[key], wish.kind)
        for key, (wish, until_ns) in self._held.items():
            if key in instances:
                _do(instances[key], wish.kind, until_ns)

    def _until_ns(self, wish: Wish) -> int:
        """The end of a wish by the monotonic clock: the same at every look."""
        known, until_ns = self._held.get((wish.agent, wish.instance), (None, NEVER))
        if known == wish:
            return until_ns
        if wish.until_ns is None:
            return NEVER
        return self._clock.monotonic_ns() + wish.until_ns - self._clock.wall_ns()

    def _publish(self, statuses: list[Status]) -> None:
        now_ns = self._clock.monotonic_ns()
        late = now_ns >= self._due_ns and bool(statuses)
        if statuses != self._published or late:
            self._roster.publish(statuses)
            self._published, self._due_ns = statuses, now_ns + _HEARTBEAT_NS


def _do(instance: AgentInstance, kind: WishKind, until_ns: int) -> None:
    if kind is WishKind.EJECTED:
        eject(instance, until_ns)
    elif not instance.draining:
        instance.draining = True


def _undo(instance: AgentInstance, kind: WishKind) -> None:
    if kind is WishKind.EJECTED:
        restore(instance)
    else:
        instance.draining = False


def _statuses(balancer: LoadBalancer, clock: Clock) -> list[Status]:
    """How all instances stand."""
    ahead_ns = clock.wall_ns() - clock.monotonic_ns()
    found: list[Status] = []
    for agent, instances in balancer.instances.items():
        guarded = {one.id: one for one in instances}
        with contextlib.suppress(UnknownAgentError):  # the last one was just taken away
            found += [
                _status(agent, one, guarded.get(one.id), ahead_ns)
                for one in balancer.status(agent).instances
            ]
    return found


def _status(
    agent: str, one: InstanceStatus, instance: AgentInstance | None, ahead_ns: int
) -> Status:
    guards = () if instance is None else instance.guards
    circuit = next((guard for guard in guards if isinstance(guard, Circuit)), None)
    state = _state(one)
    opens_ns = NEVER
    if state in {State.EJECTED, State.CIRCUIT_OPEN, State.RATE_LIMIT}:
        opens_ns = max([guard.opens_ns() for guard in guards], default=NEVER)
    return Status(
        agent=agent,
        instance=one.id,
        state=state,
        in_flight=one.in_flight,
        capacity=one.max_capacity,
        limit=one.limit,
        p95_ms=one.p95_ms,
        error_rate=one.error_rate,
        circuit=None if circuit is None else circuit.status.state.value,
        opens_ns=None if opens_ns >= NEVER else _rounded(opens_ns + ahead_ns),
    )


def _state(one: InstanceStatus) -> State:
    if not one.healthy:
        return State.UNHEALTHY
    if one.draining:
        return State.DRAINING if one.in_flight else State.DRAINED
    if one.shortage is None:
        return State.UP
    return _STATES.get(one.shortage, State.EJECTED)


def _rounded(moment_ns: int) -> int:
    return round(moment_ns / _GRAIN_NS) * _GRAIN_NS
