"""Policies that others ship and the balancer does not, to have them beside its own."""

import random
from collections import deque
from collections.abc import Sequence
from statistics import fmean
from typing import Final, final

from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.request import Request
from paceline.balance.strategies.loads import PeakEwma
from paceline.balance.strategy import Strategy
from paceline.clock import Clock
from paceline.testing.simulation import MakeStrategy

__all__ = ["OTHERS", "LowestLatency", "TwoOfPeakEwma"]

_REMEMBERED: Final = 10
_CONSTANT_S: Final = 60.0


@final
class LowestLatency(Strategy):
    """The lowest mean of the last ten latencies, whatever is in flight: what latency-based routing
    of LiteLLM's Router comes to. Of those of whom nothing is known one by chance goes first."""

    __slots__ = ("_rng", "_seen")

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:  # noqa: ARG002 (as all are made)
        self._rng = rng
        self._seen: dict[AgentInstance, deque[float]] = {}

    def pick(
        self,
        candidates: Sequence[AgentInstance],
        request: Request,  # noqa: ARG002 (as all are asked)
        now_ns: int,  # noqa: ARG002 (as all are asked)
    ) -> AgentInstance:
        """The quickest lately."""
        shuffled = self._rng.sample(candidates, len(candidates))
        return min(shuffled, key=self._mean_s)

    def ended(self, lease: Lease) -> None:
        """Remembers how long a success took."""
        if lease.error is None and not lease.abandoned:
            seen = self._seen.setdefault(lease.instance, deque(maxlen=_REMEMBERED))
            seen.append(lease.took_ns / 1e9)

    def _mean_s(self, instance: AgentInstance) -> float:
        seen = self._seen.get(instance)
        return fmean(seen) if seen else 0.0


@final
class TwoOfPeakEwma(Strategy):
    """The better of two at random by peak EWMA, as Finagle has it, with a time constant for work
    that takes many seconds."""

    __slots__ = ("_best", "_rng")

    def __init__(self, *, clock: Clock, rng: random.Random) -> None:
        self._best = PeakEwma(clock=clock, rng=rng, constant_s=_CONSTANT_S)
        self._rng = rng

    def pick(
        self, candidates: Sequence[AgentInstance], request: Request, now_ns: int
    ) -> AgentInstance:
        """Of two by chance."""
        if len(candidates) > 2:
            candidates = self._rng.sample(candidates, 2)
        return self._best.pick(candidates, request, now_ns)

    def joined(self, instance: AgentInstance) -> None:
        """One more."""
        self._best.joined(instance)

    def left(self, instance: AgentInstance) -> None:
        """One less."""
        self._best.left(instance)

    def sent(self, lease: Lease) -> None:
        """More in flight."""
        self._best.sent(lease)

    def ended(self, lease: Lease) -> None:
        """What it took."""
        self._best.ended(lease)


OTHERS: Final[dict[str, MakeStrategy]] = {
    "lowest mean latency": LowestLatency,
    "peak_ewma of two": TwoOfPeakEwma,
}
"""By the name in the report."""
