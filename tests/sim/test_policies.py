"""What becomes of work under each strategy, on servers that are simulated."""

import random
from collections.abc import Callable, Sequence

import pytest

from paceline.balance import strategies
from paceline.balance.circuit import Circuit
from paceline.balance.instance import AgentInstance
from paceline.balance.strategy import LoadBalancingStrategy as Name
from paceline.balance.strategy import Strategy
from paceline.clock import Clock
from paceline.testing.simulation import (
    Agents,
    Client,
    Habits,
    Incident,
    MakeStrategy,
    Oracle,
    Run,
    Server,
    Simulation,
    Summary,
    Traffic,
    Trouble,
    Workload,
    conversations,
)

UNLIKE = [Server(2.0), Server(1.0), Server(1.0), Server(0.5)]
ALIKE = [Server()] * 4
CHAT = conversations(400, per_s=3.0, seed=3)
SLOW = Incident(Trouble.SLOW, 30, 80, "e1")
FAILING = Incident(Trouble.FAILING, 30, 80, "e1")


def chat() -> Workload:
    return Traffic(CHAT)


def agents() -> Workload:
    return Agents(60, until_s=90, habits=Habits(result_tokens=700, tool_s=6.0), seed=3)


def named(name: str) -> MakeStrategy:
    def make(*, clock: Clock, rng: random.Random) -> Strategy:
        return strategies.make(name, clock=clock, rng=rng)

    return make


def run(
    name: str,
    workload: Callable[[], Workload] = chat,
    servers: Sequence[Server] = UNLIKE,
    incidents: Sequence[Incident] = (),
) -> Run:
    return Simulation(named(name), servers, workload(), incidents=incidents, seed=1).run()


def oracle(
    workload: Callable[[], Workload], servers: Sequence[Server], incidents: Sequence[Incident]
) -> Summary:
    known = Client(lengths_known=True)
    return (
        Simulation(Oracle, servers, workload(), incidents=incidents, client=known).run().summary()
    )


@pytest.mark.parametrize(
    ("workload", "servers", "incidents"),
    [
        (chat, UNLIKE, []),
        (chat, ALIKE, []),
        (chat, UNLIKE, [SLOW]),
        (agents, UNLIKE, []),
        (agents, ALIKE, []),
    ],
)
def test_learned_work_is_near_the_oracle_and_no_worse_than_the_least_loaded(
    workload: Callable[[], Workload], servers: Sequence[Server], incidents: Sequence[Incident]
) -> None:
    """Learned work takes no longer on the mean than the least loaded, and at most 1.25 times as
    long as who knows everything, whether servers are alike or not, or one is slow (S0-54, S0-83)."""
    ours = run(Name.LEARNED_WORK, workload, servers, incidents).summary()
    least = run(Name.LEAST_LOADED, workload, servers, incidents).summary()
    assert ours.mean_s <= least.mean_s
    assert ours.mean_s <= 1.25 * oracle(workload, servers, incidents).mean_s


def test_who_does_not_look_does_worse_where_servers_differ() -> None:
    """Strategies that do not look at the load overload the slow servers of an unlike fleet
    (S0-62, S0-83)."""
    least = run(Name.LEAST_LOADED).summary()
    for blind in (Name.ROUND_ROBIN, Name.RANDOM):
        assert run(blind).summary().mean_s > 1.3 * least.mean_s


def test_a_known_speed_is_put_to_use() -> None:
    """Weights that are the true speeds make the weighted strategies better (S0-54, S0-83)."""
    weighted = [Server(server.speed, weight=server.speed) for server in UNLIKE]
    for name in (Name.WEIGHTED, Name.SMOOTH_WEIGHTED, Name.LEAST_LOADED):
        assert run(name, servers=weighted).summary().mean_s < run(name).summary().mean_s


def test_sessions_find_their_prefixes_again() -> None:
    """Strategies that know of sessions or prefixes send turns to where the last one was, so more
    of their prompts is remembered than by chance (S0-54)."""
    least = run(Name.LEAST_LOADED, agents).summary()
    for name in (Name.CONSISTENT_HASH, Name.CACHE_AWARE, Name.LEARNED_WORK):
        assert run(name, agents).summary().hit_share > least.hit_share + 0.1


@pytest.mark.parametrize("name", Name)
def test_all_work_is_done_whatever_chooses(name: Name) -> None:
    """Under every strategy all work is done, no server has more than its capacity, and the same
    seed gives the same run (S0-54, S0-83)."""
    servers = [Server(server.speed, max_capacity=6) for server in UNLIKE]

    def simulated() -> Run:
        return Simulation(named(name), servers, chat(), seed=5).run(sample_s=1.0)

    one, two = simulated(), simulated()
    assert one.summary(skip=0).failed == 0
    assert all(max(sample.in_flight) <= 6 for sample in one.samples)
    assert [(s.endpoint, s.ended_ns) for s in one.stories] == [
        (s.endpoint, s.ended_ns) for s in two.stories
    ]


@pytest.mark.parametrize("name", Name)
def test_a_server_that_fails_fast_loses_no_work(name: Name) -> None:
    """With circuits and two retries a server that fails at once costs no request under any
    strategy, however idle it looks (S0-68, S0-79)."""

    def equip(instances: Sequence[AgentInstance], *, clock: Clock, rng: random.Random) -> None:
        for instance in instances:
            instance.guards = (Circuit(instance.id, clock, rng=rng),)

    simulation = Simulation(
        named(name), UNLIKE, chat(), incidents=[FAILING], client=Client(retries=2), equip=equip
    )
    run = simulation.run()
    assert run.summary(skip=0).failed == 0
    tried = [story for story in run.stories if "e1" in story.tried]
    assert len(tried) < 50


def test_all_servers_down_is_no_end() -> None:
    """When all servers were down for a while, work that comes later is done as before (S0-68)."""
    down = Incident(Trouble.DOWN, 20, 40)
    for name in (Name.LEAST_LOADED, Name.LEARNED_WORK):
        stories = run(name, incidents=[down]).stories
        later = [story for story in stories if story.arrived_ns > 40e9]
        assert later
        assert all(story.error is None for story in later)
        assert len({story.endpoint for story in later}) == len(UNLIKE)
