"""The settings in which strategies of balancing are compared, in simulation.

`python -m bench.scenarios NAME...` prints the strategies of these names beside the oracle.
"""

import random
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import msgspec

from bench.llm_traces import azure_code, conversation
from bench.other_policies import OTHERS
from paceline.balance import strategies
from paceline.balance.circuit import Circuit
from paceline.balance.instance import AgentInstance
from paceline.balance.strategy import Strategy
from paceline.clock import Clock
from paceline.testing.simulation import (
    Agents,
    Client,
    Engine,
    Equip,
    Habits,
    Incident,
    MakeStrategy,
    Oracle,
    Recorded,
    Run,
    Server,
    Simulation,
    Summary,
    Traffic,
    Trouble,
    Workload,
)

__all__ = [
    "AGENTS",
    "CONVERSATION",
    "FAILING",
    "HELD_OUT",
    "ORACLE",
    "SCENARIOS",
    "TUNED",
    "Scenario",
    "measure",
    "named",
    "simulate",
]

ORACLE: Final = "oracle"

SPEEDS: Final = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5)
_AGENTS_S: Final = 240.0
_HALF: Final = 6_000  # of the requests of the conversation trace
_HOUR_S: Final = 3_537.0  # its length


class Scenario(msgspec.Struct, frozen=True):
    """Servers, work, and what goes wrong."""

    name: str
    workload: Callable[[], Workload]
    speeds: Sequence[float] = SPEEDS
    engine: Engine = Engine()
    incidents: Sequence[Incident] = ()
    retries: int = 0
    equip: Equip | None = None


@cache
def _conversation() -> list[Recorded]:
    return conversation()


@cache
def _azure_code() -> list[Recorded]:
    return azure_code()


def _chat(load: float) -> Callable[[], Workload]:
    return lambda: Traffic(_conversation(), load=load)


def _later_chat(load: float) -> Callable[[], Workload]:
    """The second half of it, which is enough for settings that are looked at once."""
    return lambda: Traffic(_conversation()[_HALF:], load=load)


def _code(load: float) -> Callable[[], Workload]:
    return lambda: Traffic(_azure_code(), load=load)


def _agents(count: int, habits: Habits | None = None) -> Callable[[], Workload]:
    return lambda: Agents(count, until_s=_AGENTS_S, habits=habits, seed=7)


def _third(trouble: Trouble, load: float, endpoint: str = "e2") -> list[Incident]:
    """One endpoint in trouble for 30 % of the conversation trace."""
    whole_s = _HOUR_S / load
    return [Incident(trouble, 0.35 * whole_s, 0.65 * whole_s, endpoint)]


def _with_circuits(instances: Sequence[AgentInstance], *, clock: Clock, rng: random.Random) -> None:
    """Gives each a circuit, as the balancer's users do."""
    for instance in instances:
        instance.guards = (Circuit(instance.id, clock, rng=rng),)


CONVERSATION: Final = ("conversation x1.0", "conversation x1.33", "conversation x1.61")
AGENTS: Final = ("agents 600", "agents 900", "agents 1200")
FAILING: Final = "one fails fast: circuits, 2 retries"

TUNED: Final = (
    *(Scenario(name, _chat(float(name.partition("x")[2]))) for name in CONVERSATION),
    Scenario("conversation x1.33, servers alike", _chat(1.33), speeds=(1.0,) * 8),
    Scenario("code x5", _code(5.0)),
    *(Scenario(name, _agents(int(name.split()[1]))) for name in AGENTS),
    Scenario("one is 5x slow for 30 %", _chat(1.33), incidents=_third(Trouble.SLOW, 1.33)),
    Scenario("one fails fast: no circuit, no retry", _chat(1.33), incidents=_third(Trouble.FAILING, 1.33)),
    Scenario(
        FAILING, _chat(1.33), incidents=_third(Trouble.FAILING, 1.33), retries=2,
        equip=_with_circuits,
    ),
)  # fmt: skip
"""What the strategies may have been tuned on."""

HELD_OUT: Final = (
    Scenario("held out: other speeds", _later_chat(1.2), speeds=(3.0, 1.5, 1.5, 1.0, 0.8, 0.7, 0.3)),
    Scenario("held out: 4 servers", _later_chat(0.6), speeds=(2.0, 1.0, 1.0, 0.5)),
    Scenario("held out: 16 servers", _later_chat(2.4), speeds=(1.6, 1.4, 1.2, 1.0, 1.0, 0.9, 0.7, 0.4) * 2),
    Scenario("held out: small caches", _later_chat(1.33), engine=Engine(cache_blocks=300)),
    Scenario("held out: large caches", _later_chat(1.61), engine=Engine(cache_blocks=8_000)),
    Scenario(
        "held out: quick to read, slow to answer",
        _later_chat(1.0),
        engine=Engine(prefill_per_s=16_000, step_s=0.016, answer_s=0.000_6, chunk_tokens=1_024),
    ),
    Scenario(
        "held out: slow to read, quick to answer",
        _later_chat(1.0),
        engine=Engine(prefill_per_s=5_000, step_s=0.008, answer_s=0.000_1, chunk_tokens=4_096),
    ),
    Scenario(
        "held out: other agents",
        _agents(500, Habits(kinds=3, instruction_tokens=8_000, answer_tokens=200, tool_s=12, turns=25)),
        speeds=(1.5, 1.5, 1.0, 1.0, 0.7, 0.5),
    ),
    Scenario("held out: code x4", _code(4.0), speeds=(2.0, 1.5, 1.0, 1.0, 0.6, 0.4)),
)  # fmt: skip
"""What nobody tuned anything on."""

SCENARIOS: Final = {each.name: each for each in (*TUNED, *HELD_OUT)}


def named(name: str) -> MakeStrategy:
    """The strategy of this name, as the balancer makes it; the oracle and those of others too."""
    if name == ORACLE:
        return Oracle
    if name in OTHERS:
        return OTHERS[name]

    def make(*, clock: Clock, rng: random.Random) -> Strategy:
        return strategies.make(name, clock=clock, rng=rng)

    return make


def simulate(
    scenario: Scenario, strategy: MakeStrategy, *, seed: int = 1, speeds_known: bool = False
) -> Run:
    """One run. With `speeds_known` the weight of a server is its true speed, else 1."""
    servers = [
        Server(speed, scenario.engine, weight=speed if speeds_known else 1.0)
        for speed in scenario.speeds
    ]
    simulation = Simulation(
        strategy, servers, scenario.workload(), incidents=scenario.incidents,
        client=Client(retries=scenario.retries, lengths_known=strategy is Oracle),
        equip=scenario.equip, seed=seed,
    )  # fmt: skip
    return simulation.run()


def measure(
    name: str, strategy: MakeStrategy, *, seed: int = 1, speeds_known: bool = False
) -> Summary:
    """What came of one run of the scenario of this name."""
    return simulate(SCENARIOS[name], strategy, seed=seed, speeds_known=speeds_known).summary()


def main(names: Sequence[str]) -> None:
    """Prints a table: mean, p50 and p99 in seconds, and the mean over the oracle's."""
    for scenario in SCENARIOS:
        best = measure(scenario, Oracle).mean_s
        for name in (ORACLE, *names):
            found = measure(scenario, named(name))
            print(
                f"{scenario:42} {name:16} mean {found.mean_s:7.2f} p50 {found.p50_s:7.2f}"
                f" p99 {found.p99_s:8.2f} hit {found.hit_share:.2f} failed {found.failed:5}"
                f" x{found.mean_s / best:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
