"""What goes wrong in a night on call, with every part in its place and in virtual time."""

import asyncio
import random
import statistics

import pytest

from paceline import AgentInstance, Priority
from paceline.balance.adaptive import Adaptive, Gradient
from paceline.balance.balancer import LoadBalancer
from paceline.balance.circuit import Circuit
from paceline.balance.instance import Guard
from paceline.balance.rate import Bucket, Rates
from paceline.balance.request import Request
from paceline.balance.strategy import LoadBalancingStrategy as Name
from paceline.call import Tokens
from paceline.errors import AgentError, CallTimeoutError, Category, OverloadedError, Shortage
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual
from tests.sim.service import NAME, Report, Server, Traffic, now, percentile, play

NS = 1_000_000_000


def good(reports: list[Report]) -> int:
    return sum(report.outcome.ok for report in reports)


def came(reports: list[Report], from_s: float, until_s: float) -> list[Report]:
    return [report for report in reports if from_s <= report.at_s < until_s]


# --- one of several


@pytest.mark.parametrize("name", [Name.LEAST_LOADED, Name.PEAK_EWMA, Name.LEARNED_WORK])
def test_one_slow_instance_is_left_to_itself(name: Name) -> None:
    """When one of four becomes six times slower it gets a quarter of its share at most, callers of
    the others wait no longer than before, and it is asked again when it has recovered.
    (S0-54, S0-62)"""
    servers = [Server(f"s{n}", spread=0.3) for n in range(4)]
    slow, others = servers[0], servers[1:]

    async def steps(traffic: Traffic) -> None:
        traffic.runtime.balancer.set_strategy(NAME, name)
        await traffic.flow(50, 2)
        slow.slowed = 6
        await traffic.flow(50, 5)
        slow.slowed = 1
        await traffic.flow(50, 8)
        reports = await traffic.end()
        assert good(reports) == len(reports)
        before = [report.took_s for report in came(reports, 0, 2)]
        meanwhile = [r.took_s for r in came(reports, 2, 7) if r.outcome.instance != slow.name]
        assert percentile(meanwhile, 0.99) <= percentile(before, 0.99) + 0.01
        share = statistics.fmean(server.between(3, 7) for server in others)
        assert slow.between(3, 7) <= share / 4
        assert slow.between(8, 15) > 0

    play(steps, servers)


def test_a_flapping_instance_costs_nobody_an_answer() -> None:
    """One of three that is down for 3 s of every 6 s is asked in vain some twenty times in all, and
    no caller waits a second or gets an error. (S0-61, S0-68, V-26)"""
    servers = [Server(f"s{n}") for n in range(3)]
    flapping = servers[0]

    async def steps(traffic: Traffic) -> None:
        flow = asyncio.create_task(traffic.flow(20, 48))
        for _ in range(8):
            await asyncio.sleep(3)
            flapping.fails()
            await asyncio.sleep(3)
            flapping.fails(None)
        await flow
        reports = await traffic.end()
        assert good(reports) == len(reports)
        assert max(report.took_s for report in reports) < 1
        attempts = sum(len(server.asked) for server in servers)
        assert attempts - len(reports) == len(flapping.refused) <= 25

    play(steps, servers)


# --- all of them


def test_when_all_were_down_calls_go_on_as_soon_as_the_first_is_back() -> None:
    """While all are down for less time than is worth waiting, few are asked and callers wait; as
    soon as the first answers they are served, in the order in which they came.
    (S0-60, S0-64, S0-68, S0-81)"""
    servers = [Server(f"s{n}") for n in range(3)]

    async def steps(traffic: Traffic) -> None:
        balancer = traffic.runtime.balancer
        await traffic.flow(20, 1)
        for server in servers:
            server.fails()
        flow = asyncio.create_task(traffic.flow(20, 16))
        most = 0
        for _ in range(60):
            await asyncio.sleep(0.1)
            most = max(most, balancer.status(NAME).waiting)
        for server in servers:
            server.fails(None)
        await flow
        reports = await traffic.end()
        assert most > 50
        assert sum(len(server.refused) for server in servers) <= 35
        failed = [report for report in reports if not report.outcome.ok]
        assert all(report.at_s < 2.5 for report in failed), "before the circuits were open"
        assert all(isinstance(report.outcome.error, AgentError) for report in failed)
        back_s = min(server.answered[-1] for server in servers)
        assert back_s > 7
        waited = [report for report in reports if 3 <= report.at_s < 7]
        begun = {asked.query: asked.at_s for server in servers for asked in server.asked}
        served_s = [begun[report.query] for report in sorted(waited)]
        assert served_s == sorted(served_s)
        assert served_s[0] >= 7

    play(steps, servers)


def test_a_long_outage_is_told_at_once() -> None:
    """While all are down for long, callers are refused within 0.1 s and told when to come again;
    nobody waits longer than is worth it, though circuits open anew again and again; and who comes
    after the outage is served. (S0-60, S0-81, V-26, E95)"""
    servers = [Server(f"s{n}") for n in range(2)]

    async def steps(traffic: Traffic) -> None:
        await traffic.flow(10, 1)
        for server in servers:
            server.fails()
        await traffic.flow(10, 99)
        for server in servers:
            server.fails(None)
        await asyncio.sleep(120)
        await traffic.flow(10, 2)
        reports = await traffic.end()
        refused = [report for report in came(reports, 1, 100) if not report.outcome.ok]
        never_sent = [report for report in refused if not report.outcome.attempts]
        at_once = [report for report in never_sent if report.took_s < 0.1]
        assert len(at_once) > len(refused) / 3
        for report in at_once:
            error = report.outcome.error
            assert isinstance(error, OverloadedError)
            assert error.reason is Shortage.CIRCUIT_OPEN
            assert 10 < (error.retry_after_s or 0) <= 120
        assert max(report.took_s for report in reports) < 45
        assert sum(len(server.refused) for server in servers) <= 40
        assert all(report.outcome.ok for report in came(reports, 220, 222))

    play(steps, servers)


def test_recovery_is_no_stampede() -> None:
    """When all come back and many wait, each is asked by exactly one caller first, at moments of
    its own, and then has no more at once than slow start allows. (S0-68, S0-79, V-26, E95)"""
    servers = [Server(f"s{n}", unit_s=0.2) for n in range(3)]

    async def steps(traffic: Traffic) -> None:
        await traffic.flow(20, 1)
        for server in servers:
            server.fails()
        flow = asyncio.create_task(traffic.flow(40, 8))
        await asyncio.sleep(3)
        for server in servers:
            server.fails(None)
        back_s = now()
        await flow
        await traffic.end()
        probes: list[float] = []
        for server in servers:
            asked = [each for each in server.asked if each.at_s >= back_s]
            closed_s = next(at_s for at_s in server.answered if at_s >= back_s)
            assert [each.inside for each in asked if each.at_s < closed_s] == [1]
            probes.append(asked[0].at_s)
            for each in asked[1:]:
                assert each.inside <= 1 + (each.at_s - closed_s) + 0.01
        assert len(set(probes)) == len(servers)

    play(steps, servers)


# --- too much


def test_a_surge_of_ten_times_the_load_hurts_the_least_urgent() -> None:
    """In a surge of five times the capacity the queue stays within its bound, the urgent are all
    served without delay, the least urgent give way first, nothing is begun after its deadline, and
    a second later all is as before. (S0-64, S0-81, K-05)"""
    servers = [Server(f"s{n}") for n in range(2)]
    mixed = 6 * [Priority.LOW] + 3 * [Priority.NORMAL] + [Priority.HIGH]
    limit_s = 1.0

    async def steps(traffic: Traffic) -> None:
        most_waiting = most_open = 0

        async def watch() -> None:
            nonlocal most_waiting, most_open
            while True:
                status = traffic.runtime.balancer.status(NAME)
                most_waiting = max(most_waiting, status.waiting)
                most_open = max(most_open, traffic.open)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        await traffic.flow(50, 1, priorities=mixed, timeout=limit_s)
        await traffic.flow(500, 2, priorities=mixed, timeout=limit_s)
        await traffic.flow(50, 2, priorities=mixed, timeout=limit_s)
        watching.cancel()
        reports = await traffic.end()
        assert most_waiting == 60
        assert most_open <= 60 + 10 + 10  # what waits, what runs, what came in this moment
        surge = came(reports, 1, 3)
        shares = [
            statistics.fmean(r.outcome.ok for r in surge if r.priority is priority)
            for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)
        ]
        assert shares[0] == 1
        assert shares[0] > shares[1] > shares[2]
        assert all(r.took_s < 0.25 for r in surge if r.priority is Priority.HIGH)
        assert good(surge) >= 0.95 * 100 * 2
        began = {report.query: report.at_s for report in reports}
        for asked in (asked for server in servers for asked in server.asked):
            assert asked.at_s < began[asked.query] + limit_s
        for report in reports:
            error = report.outcome.error
            if isinstance(error, OverloadedError):
                assert error.reason in {Shortage.SHED, Shortage.QUEUE_FULL, Shortage.FULL}
                assert report.outcome.attempts == 0
            else:
                assert error is None
        assert all(r.outcome.ok and r.took_s < 0.25 for r in came(reports, 4, 5))

    play(steps, servers, capacity=5, run={"max_concurrency": 100_000, "max_queue": 60})


@pytest.mark.parametrize("said", [4.0, None])
def test_a_storm_of_rate_limits_is_waited_out(said: float | None) -> None:
    """After a 429 nothing is sent before the moment that was asked for, or for longer and longer if
    none was; retries stay within their budget, and in the end everybody has an answer.
    (S0-81, V-29, V-32, X-18, E94)"""
    servers = [Server(f"s{n}") for n in range(2)]
    shared: list[Rates] = []

    def equip(instance: AgentInstance, clock: VirtualClock) -> tuple[Guard, ...]:
        assert isinstance(instance.target, Server)
        shared.append(shared[0] if shared else Rates(clock))  # one key
        instance.target.rates = shared[0]
        return Circuit(instance.id, clock, rng=random.Random(1)), shared[0]

    def refusal() -> AgentError:
        return AgentError("429", category=Category.RATE_LIMIT, retry_after_s=said)

    async def steps(traffic: Traffic) -> None:
        flow = asyncio.create_task(traffic.flow(20, 15))
        await asyncio.sleep(2)
        for server in servers:
            server.refuses = refusal
        await asyncio.sleep(7)
        for server in servers:
            server.fails(None)
        await flow
        reports = await traffic.end()
        assert good(reports) == len(reports)
        refused = sorted(at_s for server in servers for at_s in server.refused)
        asked = [each.at_s for server in servers for each in server.asked]
        assert len(refused) <= 0.1 * len(reports) + 20
        assert len(asked) == len(reports) + len(refused)
        last = [b for b, nxt in zip(refused, [*refused[1:], 1e9], strict=True) if nxt > b]
        pauses = [said] * len(last) if said is not None else [2.0**n for n in range(len(last))]
        assert 2 <= len(last) <= 4
        for at_s, pause_s in zip(last, pauses, strict=True):
            assert not any(at_s < each < at_s + pause_s - 1e-6 for each in asked)

    play(steps, servers, equip=equip)


def test_tokens_of_a_minute_are_held_to_the_last_one() -> None:
    """With fifty callers at once, who each use another number of tokens than they reserved, the
    provider's own count of the minute is never exceeded, and nearly all of it is used.
    (S0-81, V-29)"""
    limit, guess, longest_s = 6_000, 100, 180

    async def main() -> None:
        clock = VirtualClock()
        rng = random.Random(5)
        balancer = LoadBalancer(clock=clock, rng=rng)
        rates = Rates(clock, tokens=limit, output_guess=guess)
        balancer.register(AgentInstance("only", "model", max_capacity=50, guards=(rates,)))
        provider, used = Bucket(limit, clock.monotonic_ns()), 0

        async def caller() -> None:
            nonlocal used
            while now() < longest_s:
                tokens = rng.randrange(50, 150)
                lease = await balancer.lease("model", Request(input_tokens=tokens))
                output = rng.randrange(1, guess + 1)
                assert provider.left(clock.monotonic_ns()) >= tokens + output, "a 429"
                provider.take(tokens + output, clock.monotonic_ns())
                used += tokens + output
                await asyncio.sleep(rng.uniform(0.5, 5))
                lease.used(Tokens(tokens, output))
                lease.release()

        await asyncio.gather(*[caller() for _ in range(50)])
        assert used <= limit + limit * now() / 60
        assert used >= 0.9 * (limit + limit * longest_s / 60)

    run_virtual(main())


@pytest.mark.parametrize(("learns", "unit_s"), [(False, 0.2), (True, 0.1)])
def test_three_times_too_much_work_is_no_reason_to_do_less(learns: bool, unit_s: float) -> None:
    """Offered three times what can be done in time, nine tenths of the capacity and more are
    answers in time, whether limits are what the servers can take or are learnt, on servers that
    go on with what nobody waits for; and learnt limits do not swing. (S0-81, S0-82, S2-19, S2-21)"""
    servers = [Server(f"s{n}", places=4, unit_s=unit_s, spread=0.3) for n in range(2)]
    rate = 2 * 4 / unit_s
    limits: list[int] = []

    def equip(instance: AgentInstance, clock: VirtualClock) -> tuple[Guard, ...]:
        circuit = Circuit(instance.id, clock, rng=random.Random(1))
        return (circuit, Adaptive(Gradient(20, largest=20))) if learns else (circuit,)

    async def steps(traffic: Traffic) -> None:
        flow = asyncio.create_task(traffic.flow(3 * rate, 9, timeout=1.0))
        await asyncio.sleep(5)
        for _ in range(40):
            limits.extend(i.limit for i in traffic.runtime.balancer.instances[NAME])
            await asyncio.sleep(0.1)
        await flow
        reports = await traffic.end()
        steady = came(reports, 2, 8)
        wasted = [r for r in steady if isinstance(r.outcome.error, CallTimeoutError)]
        assert good(steady) >= 0.9 * rate * 6
        assert len(wasted) <= 0.1 * good(steady)

    play(steps, servers, capacity=20 if learns else 4, equip=equip)
    usual = statistics.median(limits)
    steady = [limit for limit in limits if limit > 0.6 * usual]  # not while it measures
    assert len(steady) >= 0.7 * len(limits)
    assert statistics.pstdev(steady) <= 0.25 * usual


# --- all slow


def test_hedging_does_not_double_the_load_of_a_slow_service() -> None:
    """When all instances become five times slower, second requests stay one in twenty and ten, and
    everybody has an answer. (S0-68)"""
    servers = [Server(f"s{n}", spread=0.2) for n in range(3)]

    async def steps(traffic: Traffic) -> None:
        await traffic.flow(40, 2)
        for server in servers:
            server.slowed = 5
        await traffic.flow(40, 8)
        reports = await traffic.end()
        assert good(reports) == len(reports)
        second = sum(len(server.asked) for server in servers) - len(reports)
        assert 0 < second <= 0.05 * len(reports) + 10

    play(steps, servers, capacity=100, fleet={"hedge": True})


def test_limits_that_were_learnt_do_not_outlive_what_they_were_learnt_from() -> None:
    """When all instances become twenty times slower for good, what is stopped at the limits of
    before stays within the retry budget, and soon everybody has an answer. (S1-20, V-30)"""
    servers = [Server(f"s{n}", spread=0.2) for n in range(3)]

    async def steps(traffic: Traffic) -> None:
        await traffic.flow(20, 2)
        for server in servers:
            server.slowed = 20
        await traffic.flow(20, 13)
        reports = await traffic.end()
        asked = sum(len(server.asked) for server in servers)
        assert asked <= 1.1 * len(reports) + 20
        assert all(report.outcome.ok for report in came(reports, 4, 15))
        assert good(reports) >= 0.9 * len(reports)

    play(steps, servers, capacity=100)
