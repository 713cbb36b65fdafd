"""The circuit of an agent or tool: what counts, how long it stays open, what it says."""

import random

import pytest

from paceline.balance.circuit import Circuit, CircuitPolicy, counts, recovery_pause_s
from paceline.breaker import BreakerState
from paceline.errors import (
    AgentError,
    Category,
    InvalidInputError,
    OverloadedError,
    PacelineError,
    Shortage,
)
from paceline.testing.virtual_time import VirtualClock

DOWN = AgentError("down", category=Category.NETWORK)


def _fail(circuit: Circuit, times: int = 1, error: PacelineError = DOWN) -> None:
    for _ in range(times):
        circuit.leave(circuit.enter(), error)


def test_seven_failures_in_a_row_open_it_for_five_seconds() -> None:
    """The seventh failure in a row opens the circuit, for 5 s. (V-26)"""
    clock = VirtualClock()
    circuit = Circuit("tool search", clock)
    _fail(circuit, 6)
    assert circuit.status.state is BreakerState.CLOSED
    _fail(circuit)
    status = circuit.status
    assert (status.state, status.failures, status.opened) == (BreakerState.OPEN, 7, 1)
    assert (status.wait_s, status.remaining_s) == (5.0, 5.0)
    assert (status.opened_at_ns, status.category) == (clock.wall_ns(), Category.NETWORK)
    clock.advance(4.9)
    with pytest.raises(OverloadedError):
        circuit.enter()
    clock.advance(0.1)
    assert circuit.enter()


@pytest.mark.parametrize("failures", [1, 3, 12])
def test_the_threshold_that_is_set_is_the_one_that_counts(failures: int) -> None:
    """As many failures as the policy says open a circuit, none fewer; what is refused then is not
    executed after a pause, but not at all. (V-27, V-28)"""
    circuit = Circuit("tool search", VirtualClock(), CircuitPolicy(failures=failures))
    _fail(circuit, failures - 1)
    assert circuit.status.state is BreakerState.CLOSED
    _fail(circuit)
    with pytest.raises(OverloadedError):
        circuit.enter()


def test_each_wait_is_twice_the_last_up_to_two_minutes() -> None:
    """An instance whose probes fail is asked after 5, 10, 20, 40, 80, 120 and 120 s. (V-26)"""
    clock = VirtualClock()
    circuit = Circuit("tool search", clock)
    _fail(circuit, 7)
    waits: list[float] = []
    for _ in range(7):
        waits.append(circuit.status.remaining_s)
        clock.advance(waits[-1])
        _fail(circuit)
    assert waits == [5, 10, 20, 40, 80, 120, 120]


def test_a_minute_closed_begins_the_waits_anew() -> None:
    """A circuit that held for 60 s opens for 5 s again, one that did not for twice as long as
    before. (V-26)"""
    for held_s, wait_s in ((59.0, 10.0), (60.0, 5.0)):
        clock = VirtualClock()
        circuit = Circuit("tool search", clock)
        _fail(circuit, 7)
        clock.advance(5)
        circuit.leave(circuit.enter(), None)
        clock.advance(held_s)
        _fail(circuit, 7)
        assert circuit.status.wait_s == wait_s


def test_half_open_lets_exactly_one_through() -> None:
    """After the wait one call is admitted; others are refused until it has ended. (V-26)"""
    clock = VirtualClock()
    circuit = Circuit("tool search", clock)
    _fail(circuit, 7)
    clock.advance(5)
    probe = circuit.enter()
    for _ in range(3):
        with pytest.raises(OverloadedError, match="search"):
            circuit.enter()
    assert circuit.status.refused == 3
    circuit.leave(probe, None)
    assert circuit.status.state is BreakerState.CLOSED
    assert circuit.enter()


@pytest.mark.parametrize("category", list(Category))
def test_only_failures_of_the_service_count(category: Category) -> None:
    """Network, time-out, rate limit, unavailable and execution errors open a circuit; what speaks
    of the request, of rights, of a policy or of a cancelled caller does not. (V-26, V-31)"""
    error = PacelineError("no", category=category)
    counted = category in {"network", "timeout", "rate_limit", "unavailable", "execution"}
    assert counts(error) is counted
    circuit = Circuit("tool search", VirtualClock())
    for _ in range(20):
        if circuit.status.state is BreakerState.CLOSED:
            _fail(circuit, error=error)
    assert (circuit.status.state is BreakerState.OPEN) is counted


def test_a_probe_that_says_nothing_leaves_the_place_to_the_next() -> None:
    """A half-open circuit whose probe failed for its arguments lets the next call try. (V-26)"""
    clock = VirtualClock()
    circuit = Circuit("tool search", clock)
    _fail(circuit, 7)
    clock.advance(5)
    _fail(circuit, error=InvalidInputError("empty"))
    states = [circuit.status.state]
    circuit.leave(circuit.enter(), None)
    states.append(circuit.status.state)
    assert states == [BreakerState.HALF_OPEN, BreakerState.CLOSED]


def test_the_refusal_says_why_and_when_again() -> None:
    """A refused call is told what failed last and in how many seconds to come again. (V-26, S0-60)"""
    clock = VirtualClock()
    circuit = Circuit("tool search", clock)
    _fail(circuit, 7)
    clock.advance(1)
    with pytest.raises(OverloadedError) as refused:
        circuit.enter()
    error = refused.value
    assert (error.reason, error.category) == (Shortage.CIRCUIT_OPEN, Category.UNAVAILABLE)
    assert error.retry_after_s == 4.0
    assert str(error) == (
        "tool search is left alone: 7 executions in a row failed, the last with network"
    )
    assert error.next_step.startswith("It is tried again in 4.0 s")
    assert not error.may_have_started


def test_waits_are_spread_by_chance() -> None:
    """With random numbers, circuits that open at one moment do not try at one moment. (S0-68)"""
    waits: set[float] = set()
    for seed in range(20):
        circuit = Circuit("tool search", VirtualClock(), rng=random.Random(seed))
        _fail(circuit, 7)
        waits.add(circuit.status.wait_s)
    assert len(waits) > 15
    assert 2.5 <= min(waits) <= max(waits) <= 5.0


def test_many_open_circuits_call_for_a_pause() -> None:
    """With three circuits open one had better wait for the first of them to be tried. (V-26)"""
    clock = VirtualClock()
    circuits = [Circuit(str(n), clock, CircuitPolicy(failures=1)) for n in range(4)]
    for circuit in circuits[:2]:
        _fail(circuit)
        clock.advance(1)
    assert recovery_pause_s(c.status for c in circuits) is None
    _fail(circuits[2])
    assert recovery_pause_s(c.status for c in circuits) == 3.0
