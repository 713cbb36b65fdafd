"""By load: what is in flight, alone or with how long it takes."""

import math
import random
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, final

from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import Request
from paceline.balance.strategy import Strategy
from paceline.clock import Clock

__all__ = ["LeastLoaded", "PeakEwma", "PowerOfTwo"]

_NS: Final = 1e9
_UNKNOWN: Final = 1e12  # above the number of any time that is known
_rank = attrgetter("rank")
_note = attrgetter("note")


@final
class LeastLoaded(Strategy):
    """The least in flight for its limit and weight; of equals the one chosen longest ago."""

    __slots__ = ()

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:
        pass

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        return min(candidates, key=_rank)


@final
class PowerOfTwo(Strategy):
    """The less loaded of two at random (M. Mitzenmacher, 2001): costs the same for any number of
    instances, and many balancers that see the same loads do not all choose the same one."""

    __slots__ = ("_random",)

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:  # noqa: ARG002 (as all are made)
        self._random = rng.random

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        if second >= first:
            second += 1
        one, other = candidates[first], candidates[second]
        return one if one.rank <= other.rank else other


@final
class PeakEwma(Strategy):
    """The least of expected time times what would be in flight.

    Expected is a moving mean of times that rises to a longer one at once, and falls while nobody
    asks, so that who was slow is tried again (Finagle's peak EWMA; it compares two at random, this
    compares all). Work given up counts if it took longer than expected. Who fails is taken for as
    slow as the slowest: a quick failure must not look like speed. One of which nothing is known is
    tried with one piece of work.

    All means fall by the same factor in the same time, so their order stays: the logarithm of a
    mean plus the moment at which it was that, in units of the time constant, is a number that needs
    no update until something happens.
    """

    __slots__ = ("_constant_ns", "_known")

    def __init__(self, *, clock: Clock, rng: random.Random, constant_s: float = 10.0) -> None:  # noqa: ARG002 (as all are made)
        """Means fall to 1/e in `constant_s` seconds. That has to be long beside what work takes, and
        no longer than one that was slow may be left alone: 10 s are for work of a second at most;
        for models that answer in 10 s they are too few."""
        self._constant_ns = constant_s * _NS
        self._known: dict[AgentInstance, tuple[float, int]] = {}  # such a number, and since when

    def joined(self, instance: AgentInstance) -> None:
        self._rank(instance)

    def left(self, instance: AgentInstance) -> None:
        self._known.pop(instance, None)

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        return min(candidates, key=_note)

    def sent(self, lease: Lease) -> None:
        self._rank(lease.instance)

    def ended(self, lease: Lease) -> None:
        level = self._level(lease)
        if level is not None:
            self._known[lease.instance] = (level, lease.ended_ns)
        self._rank(lease.instance)

    def _level(self, lease: Lease) -> float | None:
        """The number of an instance after this; None if this says nothing of it."""
        now_ns = lease.ended_ns
        age = now_ns / self._constant_ns
        took_ns = max(1, now_ns - lease.started_ns)
        level = math.log(took_ns) + age
        if lease.error is not None:
            return max(level, *[known for known, _ in self._known.values()])
        before, since_ns = self._known.get(lease.instance, (None, now_ns))
        if lease.abandoned and (before is None or level < before):
            return None
        if before is None or level >= before:
            return level
        share = -math.expm1((since_ns - now_ns) / self._constant_ns)
        return math.log(math.exp(before - age) + took_ns * share) + age

    def _rank(self, instance: AgentInstance) -> None:
        known = self._known.get(instance)
        if known is not None:
            instance.note = known[0] + math.log(instance.in_flight + 1)
        else:
            instance.note = _UNKNOWN + instance.in_flight if instance.in_flight else -math.inf
