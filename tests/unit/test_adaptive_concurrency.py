"""Limits of concurrency that learn what a server can take."""

import heapq
import random
import statistics
from types import SimpleNamespace
from typing import Any

import pytest

from paceline.balance.adaptive import Adaptive, Aimd, Gradient, Limit
from paceline.balance.request import Request
from paceline.errors import AgentError, Category, OverloadedError, PacelineError

MS = 1_000_000


class Server:
    """Takes `places` pieces of work at once, `unit_ms` each, with as much more waiting in line as
    is sent, and one that always sends as much as the limit allows or there is."""

    def __init__(self, limit: Limit, *, spread: float = 0.0, demand: int = 100_000) -> None:
        self.limit = limit
        self.places = 20
        self.unit_ms = 100.0
        self.demand = demand
        self.deadline_ms: float | None = None
        self._spread = spread
        self._rng = random.Random(7)
        self._now_ns = 0
        self._line: list[tuple[int, int]] = []
        self._busy: list[tuple[int, int, int]] = []

    def answer(self, count: int) -> list[int]:
        """So many answers; the limit after each."""
        limits = list[int]()
        for _ in range(count):
            while len(self._line) + len(self._busy) < min(self.limit.limit, self.demand):
                self._line.append((self._now_ns, len(self._line) + len(self._busy) + 1))
            while self._line and len(self._busy) < self.places:
                sent_ns, in_flight = self._line.pop(0)
                end_ns = self._now_ns + round(self._unit_ns())
                heapq.heappush(self._busy, (end_ns, sent_ns, in_flight))
            self._now_ns, sent_ns, in_flight = heapq.heappop(self._busy)
            took_ns = self._now_ns - sent_ns
            late = self.deadline_ms is not None and took_ns > self.deadline_ms * MS
            self.limit.observe(took_ns, in_flight, dropped=late)
            limits.append(self.limit.limit)
        return limits

    def rate(self, count: int) -> float:
        """Answers a second, over so many."""
        before_ns = self._now_ns
        self.answer(count)
        return count * 1e9 / (self._now_ns - before_ns)

    def _unit_ns(self) -> float:
        if not self._spread:
            return self.unit_ms * MS
        shape = 1 / self._spread**2
        return self._rng.gammavariate(shape, self.unit_ms * MS / shape)


def check_steady(limits: list[int], low: int, high: int) -> None:
    """All within 20 % of the median but for the measuring windows, and that in the range."""
    median = statistics.median(limits)
    assert low <= median <= high
    away = [limit for limit in limits if not 0.8 * median <= limit <= 1.2 * median]
    assert len(away) <= 0.08 * len(limits)
    assert all(0.4 * median <= limit < median for limit in away), "it is halved, to measure"


@pytest.mark.parametrize("places", [8, 20, 100])
@pytest.mark.parametrize("initial", [1, 20, 400])
def test_a_gradient_finds_the_capacity_from_below_and_from_above(places: int, initial: int) -> None:
    """From any beginning the limit settles between the capacity and twice that, stays within 20 %
    apart from windows in which it measures, and the server has no less to do. (S0-82, S2-19)"""
    server = Server(Gradient(initial))
    server.places = places
    server.answer(8_000)
    check_steady(server.answer(8_000), places, 2 * places)
    assert server.rate(8_000) >= 0.97 * places * 10


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_a_gradient_follows_a_capacity_that_changes(spread: float) -> None:
    """When the server loses half of its places, gets four times as many, or becomes slower or
    faster without that, the limit settles anew around what it can take. (S0-82)"""
    server = Server(Gradient(20), spread=spread)
    for places, unit_ms in ((20, 100), (10, 100), (40, 100), (40, 300), (40, 50), (10, 200)):
        server.places, server.unit_ms = places, unit_ms
        server.answer(8_000)
        check_steady(server.answer(6_000), places, 2 * places)


def test_a_gradient_is_not_fooled_by_chance() -> None:
    """With latencies as different as those of exponential service, nine tenths of the capacity are
    used all the same. (S0-82)"""
    server = Server(Gradient(20), spread=1.0)
    server.places = 100
    server.answer(10_000)
    assert server.rate(20_000) >= 0.9 * 1_000


@pytest.mark.parametrize("make", [Gradient, lambda start: Aimd(start, target_ns=150 * MS)])
def test_an_unused_limit_does_not_grow(make: Any) -> None:
    """Under demand for less than half of it a limit stays where it is. (S0-82)"""
    server = Server(make(20), demand=9)
    assert set(server.answer(2_000)) == {20}


@pytest.mark.parametrize("initial", [1, 400])
def test_aimd_hovers_below_its_target(initial: int) -> None:
    """Work of 20 at once, taking twice as long at most, has a limit just under 40, which never
    leaves 20 % around that. (S0-82)"""
    server = Server(Aimd(initial, target_ns=200 * MS))
    server.answer(6_000)
    limits = server.answer(6_000)
    assert all(32 <= limit <= 43 for limit in limits)


def test_aimd_follows_a_capacity_that_changes() -> None:
    """With time-outs instead of a target the limit follows what the server can take. (S0-82)"""
    server = Server(Aimd(20))
    server.deadline_ms = 200.0
    for places in (20, 10, 40):
        server.places = places
        server.answer(8_000)
        assert all(1.6 * places <= limit <= 2.2 * places for limit in server.answer(4_000))


def test_one_trouble_shrinks_aimd_once() -> None:
    """All that was in flight when the limit shrank counts as one with what shrank it. (S0-82)"""
    aimd = Aimd(40)
    for _ in range(40):
        aimd.observe(MS, 40, dropped=True)
    assert aimd.limit == 36
    aimd.observe(MS, 36, dropped=True)
    assert aimd.limit == 32


def test_dropped_work_shrinks_a_gradient_once_a_window() -> None:
    """Refusals of a window make the limit a tenth smaller, however many they are, and it does not
    grow before a window without any. (S0-82)"""
    gradient = Gradient(20)
    for _ in range(15):
        gradient.observe(MS, 20, dropped=True)
    for expected in (18, 19):
        for _ in range(18):
            gradient.observe(MS, 18)
        assert gradient.limit == expected


def test_a_gradient_shrinks_as_long_as_all_is_dropped() -> None:
    """Where every answer is a refusal or a time-out the limit becomes smaller window by window,
    while it measures too, and grows again when answers come. (S0-82)"""
    gradient = Gradient(20)
    before = gradient.limit
    while gradient.limit >= before:  # until it measures, with half of its limit
        before = gradient.limit
        gradient.observe(MS, before)
    for _ in range(1_000):
        gradient.observe(MS, gradient.limit, dropped=True)
    assert gradient.limit == 1
    for _ in range(200):
        gradient.observe(MS, gradient.limit)
    assert gradient.limit >= 4


@pytest.mark.parametrize("make", [Gradient, Aimd])
def test_limits_keep_to_their_bounds(make: Any) -> None:
    """Neither the best nor the worst server moves a limit beyond its bounds. (S0-82)"""
    limit = make(5, smallest=3, largest=9)
    for _ in range(2_000):
        limit.observe(MS, limit.limit)
        assert 3 <= limit.limit <= 9
    assert limit.limit >= 8 or isinstance(limit, Gradient)
    for _ in range(2_000):
        limit.observe(MS, limit.limit, dropped=True)
        limit.observe(50 * MS, limit.limit)
        assert 3 <= limit.limit <= 9


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gradient(0),
        lambda: Gradient(5, smallest=6),
        lambda: Gradient(5, largest=4),
        lambda: Gradient(tolerance=0.9),
        lambda: Gradient(tolerance=float("nan")),
        lambda: Aimd(0, smallest=0),
        lambda: Aimd(backoff=1.0),
    ],
)
def test_limits_that_make_no_sense_are_refused(make: Any) -> None:
    """Bounds out of order, and factors that would never or always shrink, are errors."""
    with pytest.raises(ValueError, match=r"limit|backoff"):
        make()


class Told:
    """A limit that remembers what it is told."""

    def __init__(self) -> None:
        self.limit = 2
        self.seen: list[tuple[int, int, bool]] = []

    def observe(self, latency_ns: int, in_flight: int, *, dropped: bool = False) -> None:
        self.seen.append((latency_ns, in_flight, dropped))
        self.limit += 1


def _lease(error: PacelineError | None = None, **changes: Any) -> Any:
    given = {
        "started_ns": 10,
        "first_ns": 0,
        "ended_ns": 110,
        "error": error,
        "abandoned": False,
        "instance": SimpleNamespace(limit=9),
    }
    return SimpleNamespace(**given | changes)


def test_a_guard_applies_the_limit_to_its_instance() -> None:
    """As many are admitted as the limit says, and each end of work sets that of the instance.
    (S0-82)"""
    limit, lease = Told(), _lease()
    guard = Adaptive(limit)
    assert [guard.admit(Request()) for _ in range(3)] == [1, 2, None]
    guard.ended(2, lease)
    assert (lease.instance.limit, limit.seen, guard.opens_ns()) == (3, [(100, 2, False)], 0)
    assert [guard.admit(Request()) for _ in range(3)] == [2, 3, None]


def test_latency_is_the_time_to_the_first_token() -> None:
    """Where there is a first token, how long the rest takes does not count. (S0-82)"""
    limit = Told()
    guard = Adaptive(limit)
    guard.ended(guard.admit(Request()), _lease(first_ns=40))
    assert limit.seen == [(30, 1, False)]


@pytest.mark.parametrize(
    ("lease", "seen"),
    [
        (_lease(OverloadedError("full")), [(100, 1, True)]),
        (_lease(AgentError("late", category=Category.TIMEOUT)), [(100, 1, True)]),
        (_lease(AgentError("limited", category=Category.RATE_LIMIT)), [(100, 1, True)]),
        (_lease(AgentError("wrong", category=Category.INVALID)), []),
        (_lease(abandoned=True), []),
        (_lease(started_ns=0, ended_ns=0), []),
    ],
)
def test_only_what_tells_of_capacity_is_learnt(
    lease: Any, seen: list[tuple[int, int, bool]]
) -> None:
    """Errors of overload shrink the limit; quick failures, cancelled work and work never sent say
    nothing, and all give their place back. (S0-82)"""
    limit = Told()
    guard = Adaptive(limit)
    guard.ended(guard.admit(Request()), lease)
    assert limit.seen == seen
    assert guard.admit(Request()) == 1
