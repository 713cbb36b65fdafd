"""What all that keeps a call alive adds to it: an instance, circuit, limits, deadline, figures.

The work is a no-op at eight instances, each with a circuit, outlier detection, an adaptive limit and
rates. It is asked through the balancer, as a library is, and through a whole runtime, which has
identity, single-flight, admission and retries besides; a runtime without instances stands beside.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from time import thread_time_ns
from typing import Final, Self

import msgspec

from bench.noop import AWAIT, await_case
from bench.timing import Case, Timed, measure
from paceline import AgentInstance, LoadBalancer, MetricsCollector, Runtime, track_performance
from paceline.balance.adaptive import Adaptive, Gradient
from paceline.balance.circuit import Circuit
from paceline.balance.health import Outliers
from paceline.balance.lease import Lease
from paceline.balance.rate import Rates
from paceline.call import Call
from paceline.clock import SystemClock
from paceline.config import load

__all__ = ["ALONE", "BALANCER", "RUNTIME", "Figures", "main", "run"]

ROUNDS: Final = 15
BALANCER: Final = "by the balancer"
RUNTIME: Final = "by a runtime"
ALONE: Final = "by a runtime, without instances"
_TURN: Final = 256
_INSTANCES: Final = 8
_CAPACITY: Final = 100
_PLENTY: Final = 10**12
_SETTINGS: Final[dict[str, dict[str, object]]] = {
    "agents": {"watch": False},
    "alerts": {"enabled": False},
    "history": {"enabled": False},
    "hostexec": {"mode": "off"},
}

Ask = Callable[[], Awaitable[object]]


class Figures(msgspec.Struct):
    """What a call takes in all, by how it is asked, beside an await of a no-op."""

    rounds: int
    calls: dict[str, Timed]


class _Noop:
    """Does the work of an instance."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def probe(self) -> None:
        pass

    async def execute(self, call: Call, lease: Lease) -> object:  # noqa: ARG002 (as targets have it)
        return None


def run(rounds: int = ROUNDS) -> dict[str, object]:
    """See `Figures`."""
    with asyncio.Runner() as runner:
        runtime = Runtime(load(overrides=_SETTINGS), agents=[], persist=False, environ={})
        runner.run(runtime.__aenter__())
        asks = {BALANCER: _balanced(), **_in_runtime(runner, runtime)}
        cases = [await_case(_TURN), *(_case(runner, name, ask) for name, ask in asks.items())]
        times = measure(cases, rounds, clock=thread_time_ns)
        runner.run(runtime.__aexit__(None, None, None))
    del times[AWAIT]
    return msgspec.to_builtins(Figures(rounds, times))  # type: ignore[no-any-return]


def _case(runner: asyncio.Runner, name: str, ask: Ask) -> Case:
    async def turn() -> None:
        for _ in range(_TURN):
            await ask()

    return name, lambda: runner.run(turn()), _TURN


def _balanced() -> Ask:
    clock = SystemClock()
    balancer, outliers = LoadBalancer(clock=clock), Outliers(clock)
    for number in range(_INSTANCES):
        instance = AgentInstance(str(number), "model", max_capacity=_CAPACITY)
        instance.guards = (
            Circuit(f"instance {number}", clock),
            outliers.watch(instance),
            Adaptive(Gradient(_CAPACITY, largest=_CAPACITY)),
            Rates(clock, requests=_PLENTY, tokens=_PLENTY),
        )
        balancer.register(instance)

    @track_performance("model", MetricsCollector(clock=clock))
    async def ask() -> None:
        async with balancer.lease("model"), asyncio.timeout(60):
            await _noop()

    return ask


def _in_runtime(runner: asyncio.Runner, runtime: Runtime) -> dict[str, Ask]:
    async def build() -> None:
        for name in ("many", "alone"):

            @runtime.agent(name)
            async def _(query: str) -> None:  # noqa: ARG001 (agents have it)
                return None

        for number in range(_INSTANCES):
            await runtime.add_instance(
                AgentInstance(str(number), "many", max_capacity=_CAPACITY, target=_Noop())
            )

    runner.run(build())
    return {
        RUNTIME: lambda: runtime.run("many", "q"),
        ALONE: lambda: runtime.run("alone", "q"),
    }


async def _noop() -> None: ...


def main() -> None:
    """Prints the figures."""
    sys.stdout.write(f"{msgspec.json.format(msgspec.json.encode(run())).decode()}\n")


if __name__ == "__main__":
    main()
