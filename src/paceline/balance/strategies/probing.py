"""By what probes would tell: who has few in flight, and of those the quickest."""

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Final, final

from paceline.balance.circuit import counts
from paceline.balance.strategy import Strategy
from paceline.clock import Clock

if TYPE_CHECKING:
    from paceline.balance.instance import AgentInstance
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["Prequal"]

_NS: Final = 1_000_000_000
_LEVELS: Final = 12
_SHARE: Final = 0.2
"""Of what is new, in moving means of times."""

_REMEMBERED: Final = 128
"""Loads of which the quantile is taken."""

_EVERY: Final = 16
_UNKNOWN: Final = -1_000
_LONGEST_STREAK: Final = 6


@final
class _Probe:
    """What a probe of one instance would tell: its load, and how long work takes at this load."""

    __slots__ = ("expected_s", "failed", "grade", "instance", "level", "load", "streak", "times_s")

    def __init__(self, instance: "AgentInstance") -> None:
        self.instance = instance
        self.times_s = [0.0] * _LEVELS
        """By the binary logarithm of what was in flight; 0 is unknown."""
        self.failed = 0
        """Work that failed, and is held to be in flight still."""
        self.streak = 0
        self.load = self.expected_s = 0.0
        self.level = 0
        self.grade = 0
        """The expected time in steps of a twelfth or so: what differs by less is equal."""

    def learn(self, took_s: float) -> None:
        """Work has ended, at the load that there is with it."""
        level = min(_LEVELS - 1, (self.instance.in_flight + 1).bit_length())
        before = self.times_s[level]
        self.times_s[level] = before + (took_s - before) * _SHARE if before else took_s
        self.level = 0  # to be found anew

    def look(self) -> None:
        """The load has changed."""
        instance = self.instance
        busy = instance.in_flight + self.failed
        self.load = busy / instance.weight if instance.weight else float(busy)
        level = min(_LEVELS - 1, (busy + 1).bit_length())
        if level != self.level:
            self.level = level
            self.expected_s = self._expected_s(level)
            self.grade = round(8 * math.log2(self.expected_s)) if self.expected_s else _UNKNOWN

    def _expected_s(self, level: int) -> float:
        """At this load, or at the nearest that was seen, the lower if two are."""
        times_s = self.times_s
        if times_s[level]:
            return times_s[level]
        for step in range(1, _LEVELS):
            if level >= step and times_s[level - step]:
                return times_s[level - step]
            if level + step < _LEVELS and times_s[level + step]:
                return times_s[level + step]
        return 0.0


@final
class Prequal(Strategy):
    """The hot-cold rule of Prequal (B. Wydrowski, R. Kleinberg, S. Rumble, A. Archer, NSDI 2024),
    with what is known here in place of probes.

    A few candidates are looked at. Those with more in flight than the quantile `hot` of all loads
    that were seen of late are hot. Of the cold ones that is chosen which is expected to be the
    quickest at its present load, the less loaded of about equals; if all are hot, the one with the least in flight. One of which no
    time is known counts as quick, and known times are pulled to the mean of all while they grow
    old, so that who was slow is tried again.

    Who fails fast would look idle and quick, and draw the work of all. So what failed counts as in
    flight for as long as it would have taken, twice as long for each failure in a row, and its
    time is not learned.
    """

    __slots__ = (
        "_forget_ns", "_ghosts", "_hot", "_limit", "_loads", "_mean_s", "_number", "_picks",
        "_probes", "_pulled_ns", "_random", "_sample",
    )  # fmt: skip

    def __init__(
        self,
        *,
        clock: Clock,
        rng: Random,
        sample: int = 4,
        hot: float = 0.84,
        forget_s: float = 30.0,
    ) -> None:
        """Looks at `sample` candidates, and forgets times in about `forget_s` seconds."""
        self._sample = sample
        self._hot = hot
        self._forget_ns = forget_s * _NS
        self._random = rng.random
        self._probes: dict[AgentInstance, _Probe] = {}
        self._loads: deque[float] = deque(maxlen=_REMEMBERED)
        self._limit = math.inf
        self._number = 0
        self._picks = 0
        self._mean_s = 0.0
        self._pulled_ns = clock.monotonic_ns()
        self._ghosts: list[tuple[int, int, _Probe]] = []

    def joined(self, instance: "AgentInstance") -> None:
        probe = self._probes[instance] = instance.note = _Probe(instance)
        probe.look()

    def changed(self, instance: "AgentInstance") -> None:
        self._probes[instance].look()

    def left(self, instance: "AgentInstance") -> None:
        del self._probes[instance]

    def pick(
        self,
        candidates: Sequence["AgentInstance"],
        request: "Request",  # noqa: ARG002 (others go by it)
        now_ns: int,
    ) -> "AgentInstance":
        while self._ghosts and self._ghosts[0][0] <= now_ns:
            probe = heappop(self._ghosts)[2]
            probe.failed -= 1
            probe.look()
        if now_ns >= self._pulled_ns + _NS:
            self._pull(now_ns)
        count, chance, limit = len(candidates), self._random, self._limit
        probes: list[_Probe]
        if count <= self._sample:
            probes = [instance.note for instance in candidates]
        else:  # one that is looked at twice does no harm
            probes = [candidates[int(chance() * count)].note for _ in range(self._sample)]
        best: _Probe | None = None
        coolest = probes[0]
        for probe in probes:
            if probe.load < coolest.load:
                coolest = probe
            if probe.load <= limit and (
                best is None
                or probe.grade < best.grade
                or (probe.grade == best.grade and probe.load < best.load)
            ):
                best = probe
        self._note(probes)
        return (best or coolest).instance

    def sent(self, lease: "Lease") -> None:
        probe: _Probe = lease.instance.note
        probe.look()

    def ended(self, lease: "Lease") -> None:
        probe: _Probe = lease.instance.note
        if lease.error is None:
            if not lease.abandoned:
                probe.streak = 0
                took_s = (lease.ended_ns - lease.started_ns) / _NS
                probe.learn(took_s)
                self._mean_s += (took_s - self._mean_s) * (_SHARE if self._mean_s else 1.0)
        elif counts(lease.error):
            self._keep(probe, lease)
        probe.look()

    def _keep(self, probe: _Probe, lease: "Lease") -> None:
        """Holds failed work to be in flight, from when it was sent."""
        as_long_s = (probe.expected_s or self._mean_s or 1.0) * 2.0**probe.streak
        probe.streak = min(_LONGEST_STREAK, probe.streak + 1)
        probe.failed += 1
        self._number += 1
        until_ns = lease.started_ns + int(as_long_s * _NS)
        heappush(self._ghosts, (until_ns, self._number, probe))

    def _note(self, probes: Sequence[_Probe]) -> None:
        """Remembers loads; from time to time it is found anew which are hot."""
        loads = self._loads
        for probe in probes:
            loads.append(probe.load)
        self._picks += 1
        if self._picks % _EVERY == 0:
            self._limit = sorted(loads)[int(len(loads) * self._hot)]

    def _pull(self, now_ns: int) -> None:
        """Known times grow old: they move to the mean of all."""
        share = -math.expm1((self._pulled_ns - now_ns) / self._forget_ns)
        self._pulled_ns = now_ns
        for probe in self._probes.values():
            probe.times_s = [
                known and known + (self._mean_s - known) * share for known in probe.times_s
            ]
            probe.level = 0
            probe.look()
