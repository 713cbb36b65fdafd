"""An agent whose instances are servers with limits and troubles of their own, in virtual time, and
people who call it."""

import asyncio
import heapq
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, final

from paceline import AgentInstance, Call, Outcome, Priority, Runtime
from paceline.balance.instance import Guard
from paceline.balance.lease import Lease
from paceline.config import load
from paceline.errors import AgentError, Category, PacelineError
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual

if TYPE_CHECKING:
    from paceline.balance.rate import Rates

__all__ = [
    "DOWN",
    "NAME",
    "STANDBY",
    "Asked",
    "Report",
    "Server",
    "Traffic",
    "now",
    "percentile",
    "play",
]

NAME = "far"
STANDBY = "small"
DOWN = AgentError("connection refused", category=Category.NETWORK)
TICK_S = 0.01
"""Callers come at whole ticks, so that an hour has a bounded number of moments."""
QUIET: dict[str, Any] = {
    "agents": {"watch": False},
    "hostexec": {"mode": "off"},
    "alerts": {"enabled": False},
}


def now() -> float:
    """The virtual moment, in seconds."""
    return asyncio.get_running_loop().time()


def percentile(numbers: Iterable[float], share: float) -> float:
    """The nearest rank at this share (0..1)."""
    ordered = sorted(numbers)
    return ordered[math.ceil(share * len(ordered)) - 1]


class Asked(NamedTuple):
    """One request that reached a server, and how many it had then, this one included."""

    at_s: float
    query: str
    inside: int


@final
class Server:
    """Does `places` pieces of work at once in about `unit_s` each, what is more waits there in a
    line. It does not notice when nobody waits for an answer any more."""

    def __init__(
        self, name: str, *, places: int = 1_000, unit_s: float = 0.1, spread: float = 0.0
    ) -> None:
        self.name = name
        self.unit_s = unit_s
        self.slowed = 1.0
        self.dies: PacelineError | None = None
        """What ends its answers in the middle."""
        self.refuses: Callable[[], PacelineError | None] | None = None
        self.rates: Rates | None = None
        self.asked: list[Asked] = []
        self.answered: list[float] = []
        self.refused: list[float] = []
        self._spread = spread
        self._rng = random.Random(name)
        self._free = [0.0] * places  # when each place is free again
        self._inside = 0

    def fails(self, error: PacelineError | None = DOWN) -> None:
        """Refuses everything with this error from now on; with None, nothing."""
        self.refuses = None if error is None else lambda: error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def probe(self) -> None:
        pass

    async def execute(self, call: Call, lease: Lease) -> object:
        """A target's."""
        self.asked.append(Asked(now(), str(call.arguments["query"]), self._inside + 1))
        error = self.refuses() if self.refuses is not None else None
        if error is not None:
            self.refused.append(now())
            self._tell(error, lease)
            raise error
        self._inside += 1
        try:
            begins = max(now(), heapq.heappop(self._free))
            chance = self._rng.uniform(1 - self._spread, 1 + self._spread)
            ends = begins + _ticks(self.unit_s * self.slowed * chance)
            heapq.heappush(self._free, ends)
            await asyncio.sleep((ends - now()) / 2)
            lease.first_token()
            if self.dies is not None:
                raise self.dies
            await asyncio.sleep(ends - now())
        finally:
            self._inside -= 1
        self.answered.append(now())
        return self.name

    def _tell(self, error: PacelineError, lease: Lease) -> None:
        """As targets do that speak HTTP."""
        if self.rates is not None and error.category is Category.RATE_LIMIT:
            wait_s = error.retry_after_s
            self.rates.told({} if wait_s is None else {"retry-after": f"{wait_s:g}"}, 429)
            lease.instance.changed()

    def between(self, from_s: float, until_s: float) -> int:
        """Requests that reached it in this time."""
        return sum(from_s <= asked.at_s < until_s for asked in self.asked)


def _ticks(seconds: float) -> float:
    return max(1, round(seconds / TICK_S)) * TICK_S


class Report(NamedTuple):
    """What became of one call."""

    at_s: float
    took_s: float
    outcome: Outcome
    priority: Priority
    query: str


@final
class Traffic:
    """Calls that come whatever becomes of those before."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.reports: list[Report] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._count = 0

    async def flow(
        self,
        per_s: float,
        seconds: float,
        *,
        priorities: Sequence[Priority] = (Priority.NORMAL,),
        **options: Any,
    ) -> None:
        """So many a second for so long, evenly, with these priorities in turn."""
        began, sent, step_s = now(), 0, _ticks(1 / per_s)
        while now() < began + seconds - TICK_S / 2:
            due = round((now() - began + step_s) * per_s)
            for _ in range(due - sent):
                self.call(priority=priorities[self._count % len(priorities)], **options)
            sent = due
            await asyncio.sleep(step_s)

    def burst(self, count: int, **options: Any) -> None:
        """So many at this moment."""
        for _ in range(count):
            self.call(**options)

    def call(self, *, priority: Priority = Priority.NORMAL, **options: Any) -> None:
        """One, unlike all others."""
        self._count += 1
        task = asyncio.create_task(self._call(f"q{self._count}", priority, options))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def end(self) -> list[Report]:
        """All reports, once every call has ended."""
        while self._calls:
            await asyncio.wait(set(self._calls))
        return self.reports

    @property
    def open(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    async def _call(self, query: str, priority: Priority, options: dict[str, Any]) -> None:
        began = now()
        outcome = await self.runtime.run(NAME, query, priority=priority, use_cache=False, **options)
        self.reports.append(Report(began, now() - began, outcome, priority, query))


Equip = Callable[[AgentInstance, VirtualClock], tuple[Guard, ...]]


def play(
    steps: Callable[[Traffic], Awaitable[None]],
    servers: Sequence[Server],
    *,
    capacity: int = 10,
    fleet: dict[str, Any] | None = None,
    effect: Any = "read",
    equip: Equip | None = None,
    standby: Sequence[Server] = (),
    **settings: dict[str, Any],
) -> None:
    """Runs `steps` in a runtime whose agent is done by these servers, and the agent `STANDBY` by
    those.

    Instances have the guards that settings give them, or those of `equip`.
    """
    options = {**QUIET, "run": {"max_concurrency": 100_000}, **settings}
    options["fleets"] = {NAME: fleet or {}}
    fleets = {NAME: servers, STANDBY: standby}

    async def main() -> None:
        clock = VirtualClock()
        runtime = Runtime(
            load(overrides=options),
            agents=[],
            persist=False,
            environ={},
            clock=clock,
            rng=random.Random(7),
        )
        async with runtime:
            for name in fleets:

                @runtime.agent(name, effect=effect)
                async def _(query: str) -> str:
                    raise AssertionError("its instances do it")

            for name, server in [(name, one) for name, all_ in fleets.items() for one in all_]:
                instance = AgentInstance(server.name, name, max_capacity=capacity, target=server)
                if equip is not None:
                    instance.guards = equip(instance, clock)
                await runtime.add_instance(instance)
            await steps(Traffic(runtime))
            # Whatever went wrong, nothing is held by anybody who is gone.
            for name in runtime.balancer.instances:
                status = runtime.balancer.status(name)
                assert (status.in_flight, status.waiting, status.expired) == (0, 0, 0)

    run_virtual(main())
