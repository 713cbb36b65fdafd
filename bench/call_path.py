"""What the runtime itself costs: a hit and a miss of an agent that does nothing.

Each turn runs the bare `await` of the same function, then the runtime with and without history,
so that a busy machine slows all alike.
"""

import asyncio
import statistics
import tempfile
from time import perf_counter_ns
from typing import Any

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


async def _measure() -> dict[str, Any]:
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as plain, tempfile.TemporaryDirectory() as recorded:
        async with _runtime(plain, history=False) as bare, _runtime(recorded, history=True) as full:
            for _ in range(ROUNDS):
                note("await_ns", await _bare_ns())
                for kind, runtime in (("", bare), ("_with_history", full)):
                    for agent in ("hit", "miss"):
                        times = await _each_ns(runtime, agent)
                        note(f"{agent}{kind}_us", statistics.median(times) / 1e3)
                        note(f"{agent}{kind}_p99_us", statistics.quantiles(times, n=100)[98] / 1e3)
    result: dict[str, Any] = {name: round(min(values), 2) for name, values in figures.items()}
    result["hit_to_await"] = round(1e3 * result["hit_us"] / result["await_ns"], 1)
    return result


def run() -> dict[str, object]:
    """Minima over the rounds: medians and 99th percentiles of a call, in microseconds."""
    return asyncio.run(_measure())


def main() -> None:
    """Prints the figures."""
    for name, value in run().items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
