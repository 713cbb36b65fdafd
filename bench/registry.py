"""What finding an agent costs: the registry beside a plain dict, with 10 and with 1,000 agents.

The registry is loaded from real modules. Figures are medians over rounds in which both are
measured in turn, so that what else the machine does meets both alike.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from paceline.agents.registry import AgentRegistry
from paceline.clock import SystemClock

ROUNDS = 25
LOOKUPS = 10_000
MODULE = "def run(query):\n    return query\n"


def _ns_each(look_up: Callable[[str], object], names: list[str]) -> float:
    """Nanoseconds of one look-up, the loop around it included."""
    begin = time.perf_counter_ns()
    for name in names:
        look_up(name)
    return (time.perf_counter_ns() - begin) / len(names)


def measure(agents: int) -> dict[str, float]:
    """Figures for a registry of so many modules."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(agents):
            (Path(folder) / f"agent{number}.py").write_text(MODULE)
        registry = AgentRegistry([Path(folder)], clock=SystemClock())
        begin = time.perf_counter_ns()
        registry.reload()
        loaded_ns = time.perf_counter_ns() - begin
        begin = time.perf_counter_ns()
        registry.reload()
        unchanged_ns = time.perf_counter_ns() - begin
    plain = dict(registry.snapshot())
    names = [f"agent{number % agents}" for number in range(LOOKUPS)]
    rounds = [
        (_ns_each(plain.__getitem__, names), _ns_each(registry.get, names)) for _ in range(ROUNDS)
    ]
    return {
        "dict_ns": statistics.median(dict_ns for dict_ns, _ in rounds),
        "registry_ns": statistics.median(registry_ns for _, registry_ns in rounds),
        "ratio": statistics.median(registry_ns / dict_ns for dict_ns, registry_ns in rounds),
        "load_ms_per_agent": loaded_ns / agents / 1e6,
        "unchanged_reload_ms": unchanged_ns / 1e6,
    }


def run() -> dict[str, object]:
    """The figures of this benchmark, by number of agents."""
    return {f"agents_{agents}": measure(agents) for agents in (10, 1_000)}


def main() -> None:
    """Prints them."""
    for name, figures in run().items():
        print(name, figures)


if __name__ == "__main__":
    main()
