"""What the runtime itself costs: a hit and a miss of an agent that does nothing.

In each round the bare `await` of the same function is timed right before each kind of call, with
history and without, so that a busy machine slows both alike.
"""

import asyncio
import statistics
import tempfile
from time import perf_counter_ns

from bench.timing import Timed
from paceline import Effect, Runtime
from paceline.config import load

__all__ = ["main", "run"]

ROUNDS = 7
CALLS = 2_000
_QUIET: dict[str, dict[str, object]] = {
    "agents": {"watch": False},
    "hostexec": {"mode": "off"},
}


async def _nothing(query: str) -> str:
    return query


def _runtime(home: str, *, history: bool) -> Runtime:
    settings = load(overrides={**_QUIET, "history": {"enabled": history}})
    runtime = Runtime(settings, agents=[], home=home, environ={})
    runtime.agent("hit", effect=Effect.read(), cache_ttl=3600)(_nothing)
    runtime.agent("miss", effect=Effect.unknown())(_nothing)
    return runtime


async def _each_ns(runtime: Runtime, agent: str) -> list[int]:
    """The time of each of many calls, one after the other."""
    times: list[int] = []
    for _ in range(CALLS):
        begin = perf_counter_ns()
        await runtime.run(agent, "uname -a", user="ada")
        times.append(perf_counter_ns() - begin)
    return times


async def _bare_ns() -> float:
    begin = perf_counter_ns()
    for _ in range(CALLS):
        await _nothing("uname -a")
    return (perf_counter_ns() - begin) / CALLS


async def _measure(rounds: int) -> dict[str, object]:
    times: dict[str, list[tuple[float, float]]] = {}
    slow_us: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as recorded:
        async with _runtime(plain, history=False) as bare, _runtime(recorded, history=True) as full:
            for _ in range(rounds):
                for kind, runtime in (("", bare), (" with history", full)):
                    for agent in ("hit", "miss"):
                        limit_ns, each_ns = await _bare_ns(), await _each_ns(runtime, agent)
                        name = agent + kind
                        times.setdefault(name, []).append((statistics.median(each_ns), limit_ns))
                        p99_us = statistics.quantiles(each_ns, n=100)[98] / 1e3
                        slow_us.setdefault(name, []).append(p99_us)
    timed = {name: Timed.of(pairs) for name, pairs in times.items()}
    return {
        "rounds": rounds,
        "ns": timed,
        "ratio": {name: each.ratio for name, each in timed.items()},
        "p99_us": {name: round(statistics.median(each), 2) for name, each in slow_us.items()},
    }


def run(rounds: int = ROUNDS) -> dict[str, object]:
    """Medians of a call in each round, beside an `await` of nothing; and 99th percentiles in
    microseconds, the median of the rounds."""
    return asyncio.run(_measure(rounds))


def main() -> None:
    """Prints the figures."""
    for name, value in run().items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
